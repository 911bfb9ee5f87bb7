"""Convert labels from `napari-coseg segment`, label images or GeoJSON to other formats.

Name one of `<stem>_objects.ome.tif` and `<stem>_regions.ome.tif`; the other, `<stem>_objects.csv`
and the image are found beside it. Label images of other names hold objects. GeoJSON, for example
with corrections from QuPath, is drawn as labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.cli.arguments import add_label_arguments
from napari_coseg.core.errors import SettingsError

if TYPE_CHECKING:
    from napari_coseg.formats.results import Result

HELP = "write labels in other formats: GeoJSON, OME-Zarr, COCO, NIfTI, DICOM-SEG and others"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("labels", nargs="+", type=Path, metavar="LABELS", help="label files")
    parser.add_argument(
        "--format",
        action="append",
        dest="formats",
        metavar="NAME",
        required=True,
        help="geojson, ome-zarr, coco, nifti, seg-nrrd, dicom-seg, csv, csv-regions, ome-tiff, "
        "overlay; may be repeated",
    )
    add_label_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert the labels of each image."""
    from napari_coseg.formats.registry import FORMATS, export, output_paths, stand_in
    from napari_coseg.formats.results import find_image, find_results, read_result

    formats = tuple(dict.fromkeys(arguments.formats))
    output_paths(Path(), "", formats)  # reports unknown formats before any work
    results = find_results(arguments.labels)
    refuse_equal_names(results, arguments.output_dir)
    if arguments.image and len(results) > 1:
        raise SettingsError(f"--image is for the labels of one image; got {len(results)} images")
    for result in results:
        image = find_image(result, arguments.image)
        shows_image = [key for key in formats if FORMATS[key].shows_image]
        if image is None and shows_image:
            raise SettingsError(
                f"there is no image {result.name!r} beside its labels in {result.folder}, which "
                f"{', '.join(shows_image)} needs; give it by --image"
            )
        found = read_result(result, image, arguments.pixel_size_um)
        folder = arguments.output_dir or result.folder
        for file in export(
            found,
            image or stand_in(found, result.name),
            folder,
            formats,
            name=result.name,
            overwrite=arguments.overwrite,
        ):
            print(file)
    return 0


def refuse_equal_names(results: list[Result], output_dir: Path | None) -> None:
    """Raise `SettingsError` if two results would write the same files."""
    known: dict[tuple[Path, str], Result] = {}
    for result in results:
        folder = (output_dir or result.folder).resolve()
        other = known.setdefault((folder, result.name), result)
        if other is not result:
            raise SettingsError(
                f"{other.file} and {result.file} are both of {result.name!r} and would write the "
                f"same files in {folder}; use one, or separate calls with different --output-dir"
            )
