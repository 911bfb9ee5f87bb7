"""GeoJSON of objects and regions back to labels: ours, or as QuPath wrote it after corrections.

QuPath keeps the ids, classes, measurements and metadata of features, but not what stands beside
them; then the caller gives the image's shape and geometry, and classes are numbered in the order of
the features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import ONLY_SIZE, Geometry
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.types import LABEL_DTYPE, LARGEST_ID, LabelClass, Prediction
from napari_coseg.formats.geojson import CLASS_PROBABILITY, HEADER, LABEL
from napari_coseg.formats.outlines import paint
from napari_coseg.labels.measure import class_table, labelled
from napari_coseg.labels.polygons.geojson import box_area, features_of, read_json, rings_of

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 2**30
"""Largest file read. Parsed, JSON takes some twenty times its size."""
MAX_PIXELS = 2**31
MAX_CLASSES = 255
UNCLASSIFIED = "unclassified"
"""Class of the regions that have none; objects may do without."""
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
_OBJECTS = ("detection", "cell", "tile")


@dataclass(frozen=True, eq=False)
class _Shape:
    """One feature with an area."""

    is_object: bool
    rings: tuple[np.ndarray, ...]
    z: int
    entry: LabelClass | None
    label: int
    probability: float

    @property
    def box_area(self) -> float:
        return box_area(self.rings)


def read_geojson(
    path: str | Path,
    *,
    shape: Sequence[int] | None = None,
    pixel_size_um: Sequence[float] | None = None,
    image_geometry: Geometry | None = None,
) -> Prediction:
    """Read GeoJSON, such as QuPath writes: detections as objects, annotations as regions.

    Parameters
    ----------
    path
        The ``.geojson`` file.
    shape
        (Y, X) or (Z, Y, X) of the whole image, for files that do not say what they cover; as far
        as the outlines go if None. Parts beyond it are cut off.
    pixel_size_um
        Along these axes, whatever the file says; None goes by the file.
    image_geometry
        Of the whole image, for files that do not say theirs.

    Returns
    -------
    Prediction
        Objects keep the label in their metadata; others get the next ids. Where outlines overlap,
        the one with the smaller bounding box is seen.

    Raises
    ------
    ImageError
        Where the file is not GeoJSON, is too large, or shape or pixel size are nowhere said.
    """
    path = Path(path)
    content = read_json(path, MAX_BYTES, ImageError)
    said = _said(path, content)
    found = _shapes(path, content)
    extent = said.shape or tuple(int(n) for n in shape or _extent(found))
    _check_shape(path, extent)
    geometry = _geometry(path, len(extent), said, pixel_size_um, image_geometry)
    regions = [one for one in found if not one.is_object]
    objects = [one for one in found if one.is_object]
    semantic_classes = _classes(path, said.semantic_classes, regions)
    semantic = np.zeros(extent, np.uint8)
    _paint(semantic, regions, [_class_id(one, semantic_classes) for one in regions], said.origin)
    labels, known, classes = _instances(path, said, objects, extent)
    return labelled(
        labels,
        semantic,
        geometry=geometry,
        known=known,
        classes=classes,
        region_classes=semantic_classes,
        provenance=said.provenance,
    )


@dataclass(frozen=True)
class _Said:
    """What our own header says; nothing where there is none."""

    shape: tuple[int, ...] = ()
    origin: tuple[int, ...] = ()
    pixel_size_um: tuple[float, ...] = ()
    geometry: Geometry | None = None
    semantic_classes: tuple[LabelClass, ...] = ()
    instance_classes: tuple[LabelClass, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def _said(path: Path, content: Any) -> _Said:
    header = content.get(HEADER) if isinstance(content, dict) else None
    if header is None:
        return _Said()
    try:
        semantic, objects = (
            tuple(LabelClass(int(c["id"]), str(c["name"]), _color(c["color"])) for c in header[key])
            for key in ("semantic_classes", "instance_classes")
        )
        return _Said(
            shape=tuple(int(n) for n in header["shape"]),
            origin=tuple(int(n) for n in header["origin"]),
            pixel_size_um=tuple(float(n) for n in header["pixel_size_um"]),
            geometry=Geometry.from_json(header["geometry"]) if "geometry" in header else None,
            semantic_classes=semantic,
            instance_classes=objects,
            provenance=checked_provenance(header["provenance"]),
        )
    except _BROKEN as error:
        raise ImageError(f"what {path} says of itself cannot be understood: {error!r}") from error


def _instances(
    path: Path, said: _Said, objects: Sequence[_Shape], extent: tuple[int, ...]
) -> tuple[np.ndarray, pd.DataFrame, tuple[LabelClass, ...]]:
    """Labels; the class and class probability of each object; the classes."""
    classes = _classes(path, said.instance_classes, objects)
    ids = _ids(path, objects)
    labels = np.zeros(extent, LABEL_DTYPE)
    _paint(labels, objects, ids, said.origin)
    known = class_table(
        np.array([_class_id(one, classes) for one in objects], np.int64),
        np.array([one.probability for one in objects], np.float64),
        np.array(ids, np.int64),
    )
    return labels, known, classes


def _shapes(path: Path, content: Any) -> list[_Shape]:
    features = features_of(content, path, ImageError)
    found, skipped = [], 0
    for number, feature in enumerate(features):
        try:
            if feature["geometry"]["type"] in ("Polygon", "MultiPolygon"):
                found.append(_shape(feature))
            else:
                skipped += 1
        except _BROKEN as error:
            raise ImageError(
                f"feature {number} of {path} is no outline as QuPath writes it: {error!r}"
            ) from error
    if skipped:
        warnings.warn(
            f"{path.name}: {skipped} of {len(features)} features are points or lines; they have "
            "no area and were left out",
            stacklevel=3,
        )
    return found


def _shape(feature: dict[str, Any]) -> _Shape:
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    rings = rings_of(geometry)
    label = str((properties.get("metadata") or {}).get(LABEL, ""))
    measured = properties.get("measurements")
    sure = measured.get(CLASS_PROBABILITY) if isinstance(measured, dict) else None
    return _Shape(
        is_object=properties.get("objectType") in _OBJECTS,
        rings=rings,
        z=int((geometry.get("plane") or {}).get("z", 0)),
        entry=_class_of(properties.get("classification")),
        label=int(label) if label.isdecimal() else 0,
        probability=float(sure) if isinstance(sure, (int, float)) else math.nan,
    )


def _class_of(value: Any) -> LabelClass | None:
    """Its id is 0: `_classes` gives one. QuPath joins the names of derived classes by ": "."""
    if not value:
        return None
    name = value["name"] if "name" in value else ": ".join(value["names"])
    return LabelClass(0, str(name), _color(value.get("color", (255, 0, 0))))


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"a colour has parts beyond 0 to 255: {value!r:.60}")
    return red, green, blue


def _extent(found: Sequence[_Shape]) -> tuple[int, ...]:
    if not found:
        return ()
    high = np.ceil(np.max([np.max(np.concatenate(one.rings), axis=0) for one in found], axis=0))
    deep = max(one.z for one in found) + 1
    plane = (int(high[1]), int(high[0]))
    return plane if deep == 1 else (deep, *plane)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or min(shape) < 0 or math.prod(shape) > MAX_PIXELS:
        raise ImageError(
            f"{path} does not say a shape that can be painted (got {shape or 'none'}, expected "
            f"Y, X or Z, Y, X of {MAX_PIXELS} pixels at most); give the shape of its image"
        )


def _geometry(
    path: Path,
    ndim: int,
    said: _Said,
    pixel_size_um: Sequence[float] | None,
    of_image: Geometry | None,
) -> Geometry:
    """Of the labels: the file's, else that of the part of the image that they cover."""
    size = tuple(float(n) for n in pixel_size_um or said.pixel_size_um)
    found = said.geometry
    if found is None and of_image is not None and of_image.ndim == ndim:
        found = of_image.crop(said.origin or (0,) * ndim)
    size = size or (found and found.pixel_size_um) or ()
    if len(size) != ndim or not all(math.isfinite(n) and n > 0 for n in size):
        raise ImageError(
            f"{path} does not say how large its pixels are (got {size or 'nothing'} for "
            f"{ndim} axes); give the size in micrometres"
        )
    if found is None:
        unplaced = Geometry.unknown(ndim).crop(said.origin or (0,) * ndim)
        return unplaced.with_pixel_size(size, assumed=ONLY_SIZE)
    if found.ndim != ndim:
        raise ImageError(f"{path} has a geometry of {found.axes} for {ndim} axes")
    return found if found.has_pixel_size(size) else found.with_pixel_size(size)


def _classes(
    path: Path, known: tuple[LabelClass, ...], found: Sequence[_Shape]
) -> tuple[LabelClass, ...]:
    """Those that the header names, then others in the order in which they are met."""
    by_name = {entry.name: entry for entry in known}
    last = max((entry.id for entry in known), default=0)
    for one in found:
        if one.entry is not None and one.entry.name not in by_name:
            last += 1
            by_name[one.entry.name] = LabelClass(last, one.entry.name, one.entry.color)
    unclassified = any(one.entry is None and not one.is_object for one in found)
    if unclassified and UNCLASSIFIED not in by_name:
        last += 1
        by_name[UNCLASSIFIED] = LabelClass(last, UNCLASSIFIED, (128, 128, 128))
    if last > MAX_CLASSES or any(entry.id < 1 for entry in known):
        raise ImageError(f"{path} has classes beyond 1 to {MAX_CLASSES} (the largest is {last})")
    return tuple(by_name.values())


def _class_id(one: _Shape, classes: Sequence[LabelClass]) -> int:
    name = one.entry.name if one.entry else None if one.is_object else UNCLASSIFIED
    return next((entry.id for entry in classes if entry.name == name), 0)


def _ids(path: Path, objects: Sequence[_Shape]) -> list[int]:
    """The labels that features carry, each in a slice once; the next free ones for the rest."""
    last = max((one.label for one in objects), default=0)
    if last + len(objects) > LARGEST_ID:
        raise ImageError(f"{path} has an object {last}; ids up to {LARGEST_ID} are read")
    taken: set[tuple[int, int]] = set()
    ids = []
    for one in objects:
        number = one.label
        if not number or (number, one.z) in taken:  # a copy, made in QuPath
            last += 1
            number = last
        taken.add((number, one.z))
        ids.append(number)
    return ids


def _paint(
    labels: np.ndarray, found: Sequence[_Shape], values: Sequence[int], origin: Sequence[int]
) -> None:
    z0, y0, x0 = (0, 0, 0, *origin)[-3:]
    planes = labels if labels.ndim == 3 else labels[None]
    for i in sorted(range(len(found)), key=lambda i: -found[i].box_area):
        z = found[i].z - z0
        if 0 <= z < len(planes):
            paint(planes[z], [ring - (x0, y0) for ring in found[i].rings], values[i])
