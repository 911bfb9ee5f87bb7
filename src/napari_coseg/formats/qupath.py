"""Features of GeoJSON, as the versions of QuPath write them, to outlines of objects and regions.

QuPath 0.2 says what a feature is by its ``id``, 0.3 by ``object_type``, later ones by
``objectType``. Children of an annotation may stand within it. Detections that were edited in QuPath
may have become annotations: those that still carry what we write to objects alone are objects.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import LabelClass
from napari_coseg.formats.geojson import CLASS_PROBABILITY, LABEL
from napari_coseg.labels.polygons.geojson import box_area, features_of, rings_of

BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
"""Errors of content that is not as expected."""
_OBJECTS = ("detection", "cell", "tile")
_RED = (255, 0, 0)
_AREAS = ("Polygon", "MultiPolygon")


@dataclass(frozen=True, eq=False)
class Shape:
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


def shapes_in(path: Path, content: Any, of_objects: Collection[str] = ()) -> list[Shape]:
    """The features that have an area; a warning says how many have none.

    Parameters
    ----------
    path
        For messages.
    content
        The parsed file.
    of_objects
        Names of classes that objects alone have.

    Raises
    ------
    ImageError
        Naming the first feature that cannot be understood.
    """
    single = isinstance(content, dict) and content.get("type") == "Feature"
    top = [content] if single else features_of(content, path, ImageError)
    features = list(_with_children(top))
    found: list[Shape] = []
    for number, feature in enumerate(features):
        try:
            rings = _rings(feature.get("geometry"))
            if rings:
                found.append(_shape(feature, rings))
        except BROKEN as error:
            raise ImageError(
                f"feature {number} of {path} is no outline as QuPath writes it: {error!r}"
            ) from error
    no_area = len(features) - len(found)
    if no_area:
        warnings.warn(
            f"{path.name}: {no_area} of {len(features)} features are points or lines, or nowhere; "
            "they have no area and were left out",
            stacklevel=4,
        )
    return _with_edited(path, found, features, set(of_objects))


def _with_edited(
    path: Path, found: list[Shape], features: Sequence[Any], of_objects: set[str]
) -> list[Shape]:
    """Annotations of a class that only objects of ours have are objects; a warning says so."""
    ours = {one.entry.name for one in found if one.label and one.entry}
    regions = {
        ((one.get("properties") or {}).get("metadata") or {}).get("region") for one in features
    }
    of_objects |= ours - regions
    edited = [one.entry is not None and one.entry.name in of_objects for one in found]
    count = sum(
        was_object and not one.is_object for one, was_object in zip(found, edited, strict=True)
    )
    if count:
        warnings.warn(
            f"{path.name}: {count} annotations have a class of objects and were read as objects",
            stacklevel=5,
        )
    return [
        replace(one, is_object=one.is_object or was_object)
        for one, was_object in zip(found, edited, strict=True)
    ]


def tell_left_out(path: Path, what: str, reasons: Sequence[str]) -> None:
    """Warn how many features came to nothing, and why.

    Parameters
    ----------
    what
        "detections became objects", for example.
    reasons
        One for each feature; "" for those that are seen.
    """
    left_out = Counter(reason for reason in reasons if reason)
    if left_out:
        seen = len(reasons) - left_out.total()
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        warnings.warn(f"{path.name}: {seen} of {len(reasons)} {what}; {why}", stacklevel=4)


def _with_children(features: Sequence[Any]) -> Iterator[Any]:
    """Features, each followed by those within it."""
    waiting = list(reversed(features))
    while waiting:
        feature = waiting.pop()
        yield feature
        if isinstance(feature, dict):
            places = (feature, feature.get("properties"))
            inner = [one.get("childObjects") for one in places if isinstance(one, dict)]
            children = [child for part in inner if isinstance(part, list) for child in part]
            waiting.extend(reversed(children))


def _rings(geometry: Any) -> tuple[np.ndarray, ...]:
    """Of its areas; () where it has none."""
    if geometry is None:
        return ()
    if geometry["type"] == "GeometryCollection":
        return tuple(ring for part in geometry["geometries"] for ring in _rings(part))
    return rings_of(geometry) if geometry["type"] in _AREAS else ()


def _shape(feature: dict[str, Any], rings: tuple[np.ndarray, ...]) -> Shape:
    properties = feature.get("properties") or {}
    label = str((properties.get("metadata") or {}).get(LABEL, ""))
    sure = _measured(properties.get("measurements"))
    entry = class_of(properties.get("classification"))
    was_object = label.isdecimal() or sure is not None
    return Shape(
        is_object=was_object or _kind(feature, properties) in _OBJECTS,
        rings=rings,
        z=_slice(feature["geometry"]),
        entry=entry,
        label=int(label) if label.isdecimal() else 0,
        probability=float(sure) if isinstance(sure, (int, float)) else math.nan,
    )


def _kind(feature: dict[str, Any], properties: dict[str, Any]) -> str:
    """As in QuPath 0.4: detection, annotation and so on; "" where it is not said."""
    said = properties.get("objectType") or properties.get("object_type")
    if not said:
        name = str(feature.get("id", ""))  # PathDetectionObject
        said = name[4:-6] if name.startswith("Path") and name.endswith("Object") else ""
    return str(said).lower()


def _measured(measurements: Any) -> Any:
    """The class probability: of an object by name, or of QuPath 0.2's list of names and values."""
    if isinstance(measurements, list):
        measurements = {one.get("name"): one.get("value") for one in measurements}
    return measurements.get(CLASS_PROBABILITY) if isinstance(measurements, dict) else None


def _slice(geometry: dict[str, Any]) -> int:
    """Its number, from 0; of a collection, that of its first part that says one."""
    for one in (geometry, *geometry.get("geometries", ())):
        if isinstance(one, dict) and one.get("plane"):
            return int(one["plane"].get("z", 0))
    return 0


def class_of(value: Any) -> LabelClass | None:
    """Its id is 0. QuPath joins the names of derived classes by ": "."""
    if not value:
        return None
    if isinstance(value, str):
        return LabelClass(0, value, _RED)
    name = value["name"] if "name" in value else ": ".join(value["names"])
    packed = value.get("colorRGB")
    if "color" not in value and packed is not None:
        bits = int(packed)  # alpha, red, green and blue of 8 bits each
        return LabelClass(0, str(name), ((bits >> 16) & 255, (bits >> 8) & 255, bits & 255))
    return LabelClass(0, str(name), color_of(value.get("color") or _RED))


def color_of(value: Any) -> tuple[int, int, int]:
    """Red, green and blue; an alpha behind them is left out. Raises `ValueError`."""
    red, green, blue = (int(part) for part in list(value)[: 3 if len(value) == 4 else None])
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"a colour has parts beyond 0 to 255: {value!r:.60}")
    return red, green, blue
