"""Two label images as OME-TIFF, with geometry, class names and provenance."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.geometry import NOTE, Geometry
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.types import Image, LabelClass, LabelNotes, Prediction

OME_UNITS = {"um": "µm", "mm": "mm"}
TILE_PX = 512
PROVENANCE = "napari-coseg"
"""Key of the provenance in the map annotation."""


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """Regions as uint8 and objects as int32, compressed without loss, in tiles.

    A map annotation holds the classes (``class 1`` is a name, ``class 1 color`` is ``#RRGGBB``)
    and, as JSON, the provenance (``napari-coseg``) and the geometry (``napari-coseg geometry``).
    OME's own fields hold sizes and positions along the image's axes.
    """
    regions, objects = paths
    labelled = (
        (regions, "regions", prediction.semantic, prediction.semantic_classes),
        (objects, "objects", prediction.instances.labels, prediction.instances.classes),
    )
    for path, kind, labels, classes in labelled:
        metadata = _metadata(f"{image.name} {kind}", prediction, classes)
        with atomic_write(path, overwrite) as partial:
            _write(partial, labels, "ZYX"[-labels.ndim :], prediction.geometry, metadata)


def write_image(path: Path, image: Image, overwrite: bool = False) -> None:
    """The image itself, so that a folder of results is complete."""
    data = np.asarray(image.data)
    with atomic_write(path, overwrite) as partial:
        _write(partial, data, image.axes, image.geometry, {"Name": image.name})


def read_notes(path: Path) -> LabelNotes:
    """The classes, ordered by id, and the provenance that `write` stored; empty for other files.

    Raises
    ------
    ImageError
        Where the notes are there but are not as `write` puts them.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            root = ElementTree.fromstring(file.ome_metadata or "<none/>")
        notes = {
            str(element.get("K")): element.text or ""
            for element in root.iter()
            if element.tag.rsplit("}", 1)[-1] == "M"
        }
        provenance = checked_provenance(json.loads(notes.get(PROVENANCE, "{}")))
        classes = [
            LabelClass(int(number[1]), name, _color(notes.get(f"{key} color", "#808080")))
            for key, name in notes.items()
            if (number := re.fullmatch(r"class ([1-9]\d{0,2})", key))
        ]
    except (OSError, ValueError, tifffile.TiffFileError, ElementTree.ParseError) as error:
        raise ImageError(f"the notes in {path} cannot be understood: {error}") from error
    return LabelNotes(tuple(sorted(classes, key=lambda entry: entry.id)), provenance=provenance)


def _color(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _write(
    path: Path,
    data: np.ndarray,
    axes: str,
    geometry: Geometry,
    metadata: dict[str, Any],
) -> None:
    import tifffile

    colour = axes.endswith("C")
    axes = axes.replace("XC", "XS")
    values = {"axes": axes} | metadata
    dots: dict[str, Any] = {}
    size = geometry.pixel_size_um
    if size is not None:
        values |= _placed(geometry, dict(zip(axes, data.shape, strict=True)))
        note = {NOTE: json.dumps(geometry.as_json())}
        values["MapAnnotation"] = metadata.get("MapAnnotation", {}) | note
        dots = {"resolution": (1e4 / size[-1], 1e4 / size[-2])}
    sides = [length for axis, length in zip(axes, data.shape, strict=True) if axis in "YX"]
    tifffile.imwrite(
        path,
        data,
        ome=True,
        # tifffile's own choice counts on compression; classic files end at 4 GiB.
        bigtiff=data.nbytes > 2**32 - 2**25,
        photometric="rgb" if colour and data.shape[-1] in (3, 4) else "minisblack",
        compression="zlib",
        tile=(TILE_PX, TILE_PX) if min(sides) > TILE_PX else None,
        resolutionunit="CENTIMETER",
        metadata=values,
        **dots,
    )


def _placed(geometry: Geometry, lengths: dict[str, int]) -> dict[str, Any]:
    """Sizes of the pixels and positions of the planes; `lengths` are those of the axes."""
    unit = OME_UNITS[geometry.unit]
    sizes = dict(zip(geometry.axes, geometry.spacing, strict=True))
    origin = dict(zip(geometry.axes, geometry.origin_along_axes.tolist(), strict=True))
    values: dict[str, Any] = {}
    for axis, size in sizes.items():
        values |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    if any(origin.values()):
        slices, channels = lengths.get("Z", 1), lengths.get("C", 1)
        count = slices * channels
        planes = {f"Position{axis}": [start] * count for axis, start in origin.items()}
        if "Z" in sizes:
            steps = np.repeat(np.arange(slices), channels)
            planes["PositionZ"] = (origin["Z"] + steps * sizes["Z"]).tolist()
        values["Plane"] = planes | {f"Position{axis}Unit": [unit] * count for axis in origin}
    return values


def _metadata(name: str, prediction: Prediction, classes: Sequence[LabelClass]) -> dict[str, Any]:
    notes = {PROVENANCE: json.dumps(prediction.provenance)}
    for entry in classes:
        notes[f"class {entry.id}"] = entry.name
        notes[f"class {entry.id} color"] = "#{:02X}{:02X}{:02X}".format(*entry.color)
    return {"Name": name, "MapAnnotation": notes}
