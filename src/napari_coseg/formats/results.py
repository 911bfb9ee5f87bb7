"""Read back what `napari_coseg.formats.registry.export` wrote, and label images of others."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LABEL_DTYPE, Image, LabelClass, LabelNotes, Prediction
from napari_coseg.formats.ome_tiff import read_notes
from napari_coseg.formats.place import geometry_of_labels
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.images.readers.registry import READERS, read_image, stem_of
from napari_coseg.labels.measure.labelled import labelled, named
from napari_coseg.labels.measure.rows import ids_in

if TYPE_CHECKING:
    import pandas as pd

OBJECTS, REGIONS, TABLE = "_objects.ome.tif", "_regions.ome.tif", "_objects.csv"
GEOJSON = (".geojson", ".json")
GREY = (128, 128, 128)
MAX_CLASS = 65_535
"""Largest class id that a table may have."""


@dataclass(frozen=True)
class Result:
    """Label files of one image."""

    folder: Path
    name: str
    objects: Path | None = None
    regions: Path | None = None
    geojson: Path | None = None

    @property
    def file(self) -> Path | None:
        """One of the files, for messages."""
        return self.objects or self.regions or self.geojson


def find_results(paths: list[Path]) -> list[Result]:
    """One `Result` for each image, however many of its files are given."""

    found: dict[Result, None] = {}
    for path in paths:
        if not path.is_file():
            raise ImageError(f"there is no label file {path}")
        name = path.name
        if name.lower().endswith(GEOJSON):
            result = Result(path.parent, path.stem, geojson=path)
        elif name.endswith((OBJECTS, REGIONS)):
            stem = name.removesuffix(OBJECTS).removesuffix(REGIONS)
            both = (path.with_name(f"{stem}{ending}") for ending in (OBJECTS, REGIONS))
            result = Result(path.parent, stem, *(file if file.exists() else None for file in both))
        elif name.endswith(TABLE):
            raise ImageError(f"{path} is a table; name the label file beside it instead")
        else:
            result = Result(path.parent, stem_of(path), objects=path)
        found[result] = None
    return list(found)


def read_result(
    result: Result, image: Image | None = None, pixel_size_um: list[float] | None = None
) -> Prediction:
    """Read the labels of an image and measure the objects.

    Classes and their probabilities come from the table, if it lists the same objects. The pixel
    size is `pixel_size_um`, else that of the labels, else that of the image.

    Raises
    ------
    ImageError
        If labels are not integers or differ in shape, the pixel size is unknown, or the table
        cannot be read.
    """

    if result.geojson is None:
        return _from_rasters(result, image, pixel_size_um)
    shape = image.spatial_shape if image else None
    return read_geojson(
        result.geojson,
        shape=shape,
        pixel_size_um=_size(None, pixel_size_um, len(shape or (0, 0))),
        image_geometry=image.geometry if image else None,
    )


def _from_rasters(
    result: Result, image: Image | None, pixel_size_um: list[float] | None
) -> Prediction:

    objects = _labels(result.objects, np.iinfo(LABEL_DTYPE).max) if result.objects else None
    regions = _labels(result.regions, np.iinfo(np.uint8).max) if result.regions else None
    either = objects or regions
    if either is None:
        raise ImageError(f"there are no labels of {result.name} in {result.folder}")
    shape = either.data.shape
    if regions and regions.data.shape != shape:
        raise ImageError(
            f"{result.objects} has shape {shape}, {result.regions} {regions.data.shape}; they are "
            "not of the same image"
        )
    of_objects, of_regions = _notes(result.objects), _notes(result.regions)
    provenance = (of_objects if objects else of_regions).provenance
    semantic = regions.data.astype(np.uint8) if regions else None
    labels = objects.data.astype(LABEL_DTYPE) if objects else None
    known, classes = _kinds(result, labels, of_objects.classes)
    region_classes = of_regions.classes
    if semantic is not None:
        region_classes = named(region_classes, ids_in(semantic), "class", GREY)
    return labelled(
        labels,
        semantic,
        geometry=_geometry(result, either, image, pixel_size_um, provenance),
        known=known,
        classes=classes,
        region_classes=region_classes,
        provenance=provenance,
    )


def _geometry(
    result: Result,
    labels: Image,
    image: Image | None,
    pixel_size_um: list[float] | None,
    provenance: dict[str, Any],
) -> Geometry:
    """Geometry of the labels; raises `ImageError` if their pixel size is unknown or invalid."""

    shape, geometry = labels.data.shape, labels.geometry
    size = _size(None, pixel_size_um, len(shape)) or geometry.pixel_size_um or _size(image, None, 0)
    if size is None or len(size) != len(shape) or not all(0 < n < float("inf") for n in size):
        raise ImageError(
            f"the labels of {result.name} have {len(shape)} axes and a pixel size of "
            f"{size or 'unknown'}; give it by --pixel-size-um"
        )
    found = geometry_of_labels(geometry, shape, provenance.get("region_offset") or (), image)
    return found if found.has_pixel_size(size) else found.with_pixel_size(size)


def _labels(path: Path, largest: int) -> Image:
    """Read a label image; raises `ImageError` for values outside 0 to `largest`."""

    read = read_image(path, stored=True)
    if "C" in read.axes or read.data.dtype.kind not in "iub":
        raise ImageError(
            f"{path} has axes {read.axes} of {read.data.dtype}; labels are one integer per pixel, "
            "(Y, X) or (Z, Y, X)"
        )
    data = np.asarray(read.data)
    if data.size and (data.min() < 0 or data.max() > largest):
        raise ImageError(
            f"{path} has values from {data.min()} to {data.max()}; expected 0 to {largest}"
        )
    return Image(data, read.axes, name=read.name, geometry=read.geometry)


def _notes(path: Path | None) -> LabelNotes:

    is_tiff = path is not None and path.name.lower().endswith((".tif", ".tiff"))
    return read_notes(path) if path is not None and is_tiff else LabelNotes()


def _kinds(
    result: Result, labels: np.ndarray | None, classes: tuple[LabelClass, ...]
) -> tuple[pd.DataFrame | None, tuple[LabelClass, ...]]:
    """The table of the objects, if it lists these; the classes, and those that it names."""

    path = result.folder / f"{result.name}{TABLE}"
    if labels is None or result.objects is None or not path.exists():
        return None, classes
    table = _rows(path)
    if not np.array_equal(table["id"].sort_values(), ids_in(labels)):
        warnings.warn(
            f"{path.name} lists other objects than {result.objects.name} has; they are measured "
            "without classes",
            stacklevel=2,
        )
        return None, classes
    return table, _named_by(table, classes)


def _rows(path: Path) -> pd.DataFrame:
    """Read an object table and check its ids and classes; raises `ImageError`."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read as a table: {error}") from error
    columns = ["id", "class_id", "class_probability"]
    lacking = sorted({*columns} - {*table.columns})
    if lacking:
        raise ImageError(f"{path} lacks the columns {lacking}")
    try:
        table[columns] = table[columns].apply(pd.to_numeric)
    except (ValueError, TypeError) as error:
        raise ImageError(f"{path} has other values than numbers in {columns}: {error}") from error
    if not table["class_id"].fillna(0).between(0, MAX_CLASS).all():
        raise ImageError(f"{path} has a class_id outside 0 to {MAX_CLASS}")
    return table


def _named_by(table: pd.DataFrame, classes: tuple[LabelClass, ...]) -> tuple[LabelClass, ...]:
    """The classes, and one for each further id in the table, by its name there."""

    known = {entry.id for entry in classes}
    texts = table["class_id"].map("class {:.0f}".format)
    if "class" in table:
        texts = table["class"].fillna(texts)
    names = {
        int(number): str(name)
        for number, name in zip(table["class_id"].fillna(0), texts, strict=True)
        if number and int(number) not in known
    }
    return (*classes, *(LabelClass(i, names[i], GREY) for i in sorted(names)))


def find_image(result: Result, given: Path | None = None) -> Image | None:
    """Read the given image, or the one with the labels' stem beside them."""

    if given is not None:
        return read_image(given)
    beside = (result.folder / f"{result.name}{ending}" for ending in (".ome.tif", *READERS))
    path = next((path for path in beside if path.is_file() and path != result.objects), None)
    return read_image(path) if path else None


def _size(
    image: Image | None, pixel_size_um: list[float] | None, axes: int
) -> tuple[float, ...] | None:
    if pixel_size_um is not None:
        return tuple(pixel_size_um * axes) if len(pixel_size_um) == 1 else tuple(pixel_size_um)
    return image.pixel_size_um if image else None
