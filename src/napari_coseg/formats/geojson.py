"""Objects and regions as GeoJSON that QuPath 0.5 and later opens.

What QuPath expects was read from its `QuPathTypeAdapters` and `ROITypeAdapters`: a feature's ``id``
is a UUID (anything else is dropped); ``properties`` hold ``objectType`` ("detection" or
"annotation"), ``classification`` with ``name`` and ``color`` [red, green, blue], ``measurements``
(a number a name) and, since 0.5, ``metadata`` (a text a name); a slice other than the first is
``plane`` within the geometry. Coordinates are pixels of the whole image. QuPath keeps no other
members of the collection and minds none, so ours (``napari_coseg``) stands beside the features.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, LabelClass, Prediction
from napari_coseg.formats.outlines import Piece, trace

HEADER = "napari_coseg"
FORMAT_VERSION = 1
LABEL = "label"
"""Key of the metadata of a detection under which its id stands."""
AREA, CLASS_PROBABILITY = "Area µm^2", "Class probability"
_UNITS = {"_um2": " µm^2", "_um3": " µm^3", "_um": " µm", "_px": " px"}
_NO_MEASUREMENT = ("id", "class_id", "region_id", "area_um2", "centroid_", "bbox_")


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One file: an annotation a piece of a region, a detection an object.

    Of a stack every slice has its own features, those of one object with one ``label``. UUIDs
    depend on the image's name, the kind, the label and the slice alone: written again, an object
    has the same.
    """
    with atomic_write(paths[0], overwrite) as partial, partial.open("w", encoding="utf-8") as file:
        header = _text(_header(prediction, image.name))
        file.write(f'{{"type": "FeatureCollection",\n"{HEADER}": {header},\n"features": [')
        between = "\n"
        for feature in features(prediction, image.name):
            file.write(between + _text(feature))
            between = ",\n"
        file.write("\n]}\n")


def features(prediction: Prediction, name: str) -> Iterator[dict[str, Any]]:
    """Annotations, then detections, each as QuPath's feature; `name` is the image's."""
    offset = _offset(prediction)
    pixel_area = float(prediction.pixel_size_um[-1] * prediction.pixel_size_um[-2])
    regions = {entry.id: entry for entry in prediction.semantic_classes}
    for z, plane in _slices(prediction.semantic):
        for number, piece in enumerate(trace(plane)):
            properties = _region(piece, regions.get(piece.label), pixel_area)
            key = f"{name}/region/{piece.label}/{number}/{z}"
            yield _feature(key, [piece], "annotation", properties, offset, z)
    types = {entry.id: entry for entry in prediction.instances.classes}
    rows = {int(row["id"]): row for row in prediction.instances.table.to_dict("records")}
    for z, plane in _slices(prediction.instances.labels):
        for pieces in _by_label(trace(plane)):
            row: dict[Any, Any] = rows.get(pieces[0].label, {})
            properties = _object(pieces, row, types, pixel_area)
            key = f"{name}/object/{pieces[0].label}/{z}"
            yield _feature(key, pieces, "detection", properties, offset, z)


def _feature(
    key: str,
    pieces: Sequence[Piece],
    kind: str,
    properties: dict[str, Any],
    offset: tuple[int, int, int],
    z: int,
) -> dict[str, Any]:
    rings = [[(ring + offset[:0:-1]).tolist() for ring in piece.rings] for piece in pieces]
    single = len(rings) == 1
    geometry: dict[str, Any] = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": rings[0] if single else rings,
    }
    if z + offset[0]:
        geometry["plane"] = {"c": -1, "z": z + offset[0], "t": 0}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"napari-coseg/{key}")),
        "geometry": geometry,
        "properties": {"objectType": kind} | properties,
    }


def _region(piece: Piece, entry: LabelClass | None, pixel_area: float) -> dict[str, Any]:
    entry = entry or LabelClass(piece.label, f"class {piece.label}", (128, 128, 128))
    return {
        "classification": _classification(entry),
        "measurements": {AREA: _area([piece]) * pixel_area},
    }


def _object(
    pieces: Sequence[Piece],
    row: dict[Any, Any],
    types: dict[int, LabelClass],
    pixel_area: float,
) -> dict[str, Any]:
    entry = types.get(int(row.get("class_id", 0)))
    metadata = {LABEL: str(pieces[0].label)}
    if isinstance(row.get("region"), str):
        metadata["region"] = row["region"]
    found = {"classification": _classification(entry)} if entry else {}
    return found | {
        "measurements": {AREA: _area(pieces) * pixel_area} | measurements(row),
        "metadata": metadata,
    }


def measurements(row: dict[Any, Any]) -> dict[str, float]:
    """The measured columns of a table's row, under names as QuPath writes them."""
    found = {}
    for column, value in row.items():
        measured = isinstance(value, (int, float)) and not str(column).startswith(_NO_MEASUREMENT)
        if measured and math.isfinite(value):
            text, unit = str(column), ""
            for ending, sign in _UNITS.items():
                if text.endswith(ending):
                    text, unit = text.removesuffix(ending), sign
                    break
            found[text.replace("_", " ").capitalize() + unit] = float(value)
    return found


def _classification(entry: LabelClass) -> dict[str, Any]:
    return {"name": entry.name, "color": [int(part) for part in entry.color]}


def _area(pieces: Iterable[Piece]) -> float:
    """Square pixels; holes count negative, as their rings run the other way round."""
    rings = [ring for piece in pieces for ring in piece.rings]
    return sum(float(np.dot(r[:-1, 0], r[1:, 1]) - np.dot(r[1:, 0], r[:-1, 1])) / 2 for r in rings)


def _slices(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    yield from enumerate(labels if labels.ndim == 3 else labels[None])


def _by_label(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    together: dict[int, list[Piece]] = {}
    for piece in pieces:
        together.setdefault(piece.label, []).append(piece)
    yield from together.values()


def _offset(prediction: Prediction) -> tuple[int, int, int]:
    """Where a part of an image begins in it: z, y, x."""
    z, y, x = (0, 0, 0, *prediction.provenance.get("region_offset", ()))[-3:]
    return int(z), int(y), int(x)


def _header(prediction: Prediction, name: str) -> dict[str, Any]:
    shape = prediction.instances.labels.shape
    return {
        "format_version": FORMAT_VERSION,
        "image": name,
        "shape": [int(n) for n in shape],
        "origin": list(_offset(prediction)[-len(shape) :]),
        "pixel_size_um": [float(size) for size in prediction.pixel_size_um],
        "geometry": prediction.geometry.as_json(),
        "semantic_classes": [_class(entry) for entry in prediction.semantic_classes],
        "instance_classes": [_class(entry) for entry in prediction.instances.classes],
        "provenance": prediction.provenance,
    }


def _class(entry: LabelClass) -> dict[str, Any]:
    return {"id": entry.id, **_classification(entry)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
