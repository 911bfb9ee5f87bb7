"""Open volumes, and what this plugin writes, as layers with their place, classes and tables.

Pictures and ordinary TIFF files are left to napari's own readers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_coseg.core.types import Image, Prediction
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.results import OBJECTS, REGIONS, find_results, read_result
from napari_coseg.images.readers.dicom_files import SeriesChoiceError
from napari_coseg.images.readers.registry import is_dicom, read_image, stem_of
from napari_coseg.widgets.geometry import placement_of
from napari_coseg.widgets.layers import image_to_layer
from napari_coseg.widgets.outputs import prediction_layers

LayerData = tuple[Any, dict[str, Any], str]
LOOKED_AT = 50
"""Files of a folder in which a DICOM image is looked for."""


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """The reader of a file or folder; None for lists of files and folders of other things."""
    if not isinstance(path, str):
        return None
    place = Path(path)
    if place.is_dir() and not _is_labelled_zarr(place):
        files = (file for file in place.rglob("*") if file.is_file())
        if not any(map(is_dicom, itertools.islice(files, LOOKED_AT))):
            return None
    return read_layers


def read_layers(path: str) -> list[LayerData]:
    """Image or labels layers of a file or folder."""
    place = Path(path)
    if place.is_dir() and _is_labelled_zarr(place):
        return _labels(read_ome_zarr(place), place.name.removesuffix(".ome.zarr"))
    if place.name.lower().endswith(".geojson"):
        return _labels(read_geojson(place), place.stem)
    if place.name.endswith((OBJECTS, REGIONS)):
        result = find_results([place])[0]
        return _labels(read_result(result), result.name)
    return [_image(_chosen_series(place))]


def _is_labelled_zarr(place: Path) -> bool:
    return (place / "labels").is_dir() and (
        (place / ".zattrs").is_file() or (place / "zarr.json").is_file()
    )


def _image(image: Image) -> LayerData:
    data, keywords = image_to_layer(image)
    window = image.geometry.source.window
    if window is not None and not keywords["rgb"]:
        keywords["contrast_limits"] = window
    return data, keywords, "image"


def _labels(prediction: Prediction, name: str) -> list[LayerData]:
    axes = "ZYX"[-prediction.semantic.ndim :]
    image = str(prediction.provenance.get("image", name))
    names = (f"{name} regions", f"{name} objects")
    place = placement_of(prediction.geometry, axes)
    return prediction_layers(prediction, names, place, {"image": image})


def _chosen_series(place: Path) -> Image:
    """The image; of several series, the one that the user chooses."""
    try:
        return read_image(place)
    except SeriesChoiceError as error:
        number = ask_series(place, error.choices)
        if number is None:
            raise
        return read_image(place, series=number)


def ask_series(place: Path, choices: tuple[str, ...]) -> int | None:
    """Number of the series (from 1); None where there is no window, or the user cancels."""
    from qtpy.QtWidgets import QApplication, QInputDialog

    if QApplication.instance() is None:
        return None
    title, text = f"Series of {stem_of(place)}", "The scan has several series. Open:"
    chosen, is_chosen = QInputDialog.getItem(None, title, text, list(choices), 0, False)
    return choices.index(chosen) + 1 if is_chosen else None
