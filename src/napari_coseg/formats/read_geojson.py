"""GeoJSON of objects and regions back to labels: ours, or as QuPath wrote it after corrections.

QuPath keeps the ids, classes, measurements and metadata of features, but not what stands beside
them; then the caller gives the image's shape and geometry, and classes are numbered in the order of
the features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import ONLY_SIZE, Geometry
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.types import LABEL_DTYPE, LARGEST_ID, LabelClass, Prediction
from napari_coseg.formats.geojson import HEADER
from napari_coseg.formats.outlines import paint
from napari_coseg.formats.qupath import BROKEN, Shape, color_of, shapes_in, tell_left_out
from napari_coseg.labels.measure import class_table, labelled
from napari_coseg.labels.measure.rows import ids_in
from napari_coseg.labels.polygons.geojson import read_json

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 2**30
"""Largest file read. Parsed, JSON takes some twenty times its size."""
MAX_PIXELS = 2**31
MAX_CLASSES = 255
UNCLASSIFIED = "unclassified"
"""Class of the regions that have none; objects may do without."""
OTHER_SLICE, OUTSIDE = "in slices that the image does not have", "outside the image"
TOO_SMALL, COVERED = "too small to hold a pixel's centre", "covered by others"
"""Why a feature left no pixel."""


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
    content = read_json(path, MAX_BYTES, ImageError, not_a_number=True)
    said = _said(path, content)
    found = shapes_in(path, content, said.names_of_objects)
    extent = said.shape or tuple(int(n) for n in shape or _extent(found))
    _check_shape(path, extent)
    geometry = _geometry(path, len(extent), said, pixel_size_um, image_geometry)
    regions = [one for one in found if not one.is_object]
    objects = [one for one in found if one.is_object]
    semantic_classes = _classes(path, said.semantic_classes, regions)
    semantic = np.zeros(extent, np.uint8)
    class_ids = [_class_id(one, semantic_classes) for one in regions]
    reasons = _paint(semantic, regions, class_ids, said.origin)
    tell_left_out(path, "annotations became regions", reasons)
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

    @property
    def names_of_objects(self) -> set[str]:
        """Names of classes that objects alone have."""
        regions = {entry.name for entry in self.semantic_classes}
        return {entry.name for entry in self.instance_classes} - regions


def _said(path: Path, content: Any) -> _Said:
    header = content.get(HEADER) if isinstance(content, dict) else None
    if header is None:
        return _Said()
    try:
        semantic, objects = (
            tuple(
                LabelClass(int(c["id"]), str(c["name"]), color_of(c["color"])) for c in header[key]
            )
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
    except BROKEN as error:
        raise ImageError(f"what {path} says of itself cannot be understood: {error!r}") from error


def _instances(
    path: Path, said: _Said, objects: Sequence[Shape], extent: tuple[int, ...]
) -> tuple[np.ndarray, pd.DataFrame, tuple[LabelClass, ...]]:
    """Labels; the class and class probability of each object; the classes."""
    classes = _classes(path, said.instance_classes, objects)
    ids = _ids(path, objects)
    labels = np.zeros(extent, LABEL_DTYPE)
    reasons = _paint(labels, objects, ids, said.origin)
    _find_covered(labels, objects, ids, said.origin, reasons)
    tell_left_out(path, "detections became objects", reasons)
    known = class_table(
        np.array([_class_id(one, classes) for one in objects], np.int64),
        np.array([one.probability for one in objects], np.float64),
        np.array(ids, np.int64),
    )
    return labels, known, classes


def _extent(found: Sequence[Shape]) -> tuple[int, ...]:
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
    path: Path, known: tuple[LabelClass, ...], found: Sequence[Shape]
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


def _class_id(one: Shape, classes: Sequence[LabelClass]) -> int:
    name = one.entry.name if one.entry else None if one.is_object else UNCLASSIFIED
    return next((entry.id for entry in classes if entry.name == name), 0)


def _ids(path: Path, objects: Sequence[Shape]) -> list[int]:
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
    labels: np.ndarray, found: Sequence[Shape], values: Sequence[int], origin: Sequence[int]
) -> list[str]:
    """Paint the shapes, larger ones first; why each left no pixel, "" where it left some."""
    z0, y0, x0 = (0, 0, 0, *origin)[-3:]
    planes = labels if labels.ndim == 3 else labels[None]
    reasons = [""] * len(found)
    for i in sorted(range(len(found)), key=lambda i: -found[i].box_area):
        z = found[i].z - z0
        rings = [ring - (x0, y0) for ring in found[i].rings]
        if not 0 <= z < len(planes):
            reasons[i] = OTHER_SLICE
        elif not _overlaps(rings, planes[z].shape):
            reasons[i] = OUTSIDE
        elif not paint(planes[z], rings, values[i]):
            reasons[i] = TOO_SMALL
    return reasons


def _overlaps(rings: Sequence[np.ndarray], shape: tuple[int, ...]) -> bool:
    corners = np.concatenate(list(rings))
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((high > 0).all() and (low < shape[::-1]).all())


def _find_covered(
    labels: np.ndarray,
    found: Sequence[Shape],
    ids: Sequence[int],
    origin: Sequence[int],
    reasons: list[str],
) -> None:
    """Give a reason to the objects of which others, painted later, left no pixel."""
    planes = labels if labels.ndim == 3 else labels[None]
    first = (0, 0, 0, *origin)[-3]
    painted = [i for i, reason in enumerate(reasons) if not reason]
    for z in {found[i].z for i in painted}:
        left = set(ids_in(planes[z - first]).tolist())
        for i in painted:
            if found[i].z == z and ids[i] not in left:
                reasons[i] = COVERED
