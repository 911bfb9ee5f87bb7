"""Formats of results by name. To add one: write ``formats/<name>.py`` and add a line.

A format is a function ``write(prediction, image, paths, overwrite)`` that fills the files of its
suffixes, in their order. It may return the files that it wrote, where that is not all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_coseg.core.errors import SettingsError
from napari_coseg.core.files import refuse_existing
from napari_coseg.core.types import Image, Prediction
from napari_coseg.images.readers.registry import as_image


@dataclass(frozen=True)
class Format:
    """Where the writer of a format is, and what is appended to the name of the image.

    `shows_image` tells those that need the pixels of the image, and not its name alone;
    `of_volumes` those that exist of volumes alone.
    """

    writer: str
    suffixes: tuple[str, ...]
    shows_image: bool = False
    of_volumes: bool = False


FORMATS: dict[str, Format] = {
    "ome-tiff": Format(
        "napari_coseg.formats.ome_tiff:write", ("_regions.ome.tif", "_objects.ome.tif")
    ),
    "csv": Format("napari_coseg.formats.table:write", ("_objects.csv",)),
    "overlay": Format("napari_coseg.formats.overlay:write", ("_overlay.png",), shows_image=True),
    "csv-regions": Format("napari_coseg.formats.table:write_regions", ("_regions.csv",)),
    "geojson": Format("napari_coseg.formats.geojson:write", (".geojson",)),
    "ome-zarr": Format("napari_coseg.formats.ome_zarr:write", (".ome.zarr",), shows_image=True),
    "coco": Format("napari_coseg.formats.coco:write", ("_coco.json",)),
    "nifti": Format("napari_coseg.formats.nifti:write", ("_regions.nii.gz", "_objects.nii.gz")),
    "stl": Format("napari_coseg.formats.surface:write_stl", ("_objects.stl",), of_volumes=True),
    "ply": Format("napari_coseg.formats.surface:write_ply", ("_objects.ply",), of_volumes=True),
    "seg-nrrd": Format(
        "napari_coseg.formats.seg_nrrd:write", ("_regions.seg.nrrd", "_objects.seg.nrrd")
    ),
    "dicom-seg": Format("napari_coseg.formats.dicom_seg:write", ("_regions.dcm", "_objects.dcm")),
}


def output_paths(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """The files that `export` writes for an image of this name."""
    return [folder / f"{name}{suffix}" for key in formats for suffix in _format(key).suffixes]


def export(
    prediction: Prediction,
    image: Any,
    folder: str | Path,
    formats: Sequence[str] = ("ome-tiff", "csv", "overlay"),
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write labels and tables to files, in one format or several.

    Parameters
    ----------
    prediction
        As `segment` or `refine` returned it, or with corrected labels and table.
    image
        What was segmented: an array, an `Image` or the path of an image file. It may be None for
        formats that do not show it, which are all but "overlay" and "ome-zarr". "dicom-seg" needs
        the path of the DICOM series that it was read from (`Image.path`).
    folder
        Where to write; made where it is missing.
    formats
        Any of "ome-tiff", "csv", "overlay", "csv-regions", "geojson", "ome-zarr", "coco", "nifti",
        "stl", "ply", "seg-nrrd", "dicom-seg".
    name
        Beginning of the file names; the image's own where None.
    overwrite
        Replace files that are there.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        Before anything is written where one of the files exists and `overwrite` is False; later
        where the disk refuses. Unfinished files are removed.
    SettingsError
        For a format that does not exist, that shows the image where there is none, or that is of
        volumes where the labels are a plane.
    """
    shape = prediction.semantic.shape
    solid = [key for key in formats if _format(key).of_volumes]
    if len(shape) != 3 and solid:
        raise SettingsError(
            f"the formats {', '.join(solid)} are of volumes, and the labels have shape {shape}; "
            "leave them out"
        )
    shown = [key for key in formats if _format(key).shows_image]
    if image is None and shown:
        raise SettingsError(f"the formats {', '.join(shown)} show the image; give it")
    if image is None:
        image = stand_in(prediction, str(prediction.provenance.get("image", "image")))
    else:
        image = as_image(image)
    folder, name = Path(folder), name or image.name
    refuse_existing(output_paths(folder, name, formats), overwrite)
    done: list[Path] = []
    for key in formats:
        module, function = _format(key).writer.split(":")
        paths = output_paths(folder, name, [key])
        write = getattr(importlib.import_module(module), function)
        done += write(prediction, image, paths, overwrite) or paths
    return done


def stand_in(prediction: Prediction, name: str) -> Image:
    """For the formats that need no more of the image than its name and place."""
    shape = prediction.semantic.shape
    return Image(prediction.semantic, "ZYX"[-len(shape) :], prediction.pixel_size_um, name)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise SettingsError(f"format {name!r} is not known; choose from {', '.join(FORMATS)}")
    return FORMATS[name]
