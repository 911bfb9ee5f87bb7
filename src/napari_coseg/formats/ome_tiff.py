"""Two label images as OME-TIFF, with pixel size, class names and where they came from."""

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
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.types import Image, LabelClass, Prediction

TILE_PX = 512
PROVENANCE = "napari-coseg"
"""Key of the provenance in the map annotation."""


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """Regions as uint8 and objects as int32, compressed without loss, in tiles.

    The classes and the provenance stand in a map annotation: ``class 1`` is a name,
    ``class 1 color`` is ``#RRGGBB``, ``napari-coseg`` is the provenance as JSON.
    """
    regions, objects = paths
    labelled = (
        (regions, "regions", prediction.semantic, prediction.semantic_classes),
        (objects, "objects", prediction.instances.labels, prediction.instances.classes),
    )
    for path, kind, labels, classes in labelled:
        metadata = _metadata(f"{image.name} {kind}", prediction, classes)
        with atomic_write(path, overwrite) as partial:
            _write(partial, labels, "ZYX"[-labels.ndim :], prediction.pixel_size_um, metadata)


def write_image(path: Path, image: Image, overwrite: bool = False) -> None:
    """The image itself, so that a folder of results is complete."""
    data = np.asarray(image.data)
    with atomic_write(path, overwrite) as partial:
        _write(partial, data, image.axes, image.pixel_size_um, {"Name": image.name})


def read_notes(path: Path) -> tuple[tuple[LabelClass, ...], dict[str, Any]]:
    """The classes and the provenance that `write` put beside labels; nothing in other files.

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
    return tuple(classes), provenance


def _color(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _write(
    path: Path,
    data: np.ndarray,
    axes: str,
    pixel_size_um: Sequence[float] | None,
    metadata: dict[str, Any],
) -> None:
    import tifffile

    colour = axes.endswith("C")
    axes = axes.replace("XC", "XS")
    values = {"axes": axes} | metadata
    dots: dict[str, Any] = {}
    if pixel_size_um is not None:
        for axis, size in zip(axes.replace("S", "").replace("C", ""), pixel_size_um, strict=True):
            values[f"PhysicalSize{axis}"] = size
            values[f"PhysicalSize{axis}Unit"] = "µm"
        dots = {"resolution": (1e4 / pixel_size_um[-1], 1e4 / pixel_size_um[-2])}
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


def _metadata(name: str, prediction: Prediction, classes: Sequence[LabelClass]) -> dict[str, Any]:
    notes = {PROVENANCE: json.dumps(prediction.provenance)}
    for entry in classes:
        notes[f"class {entry.id}"] = entry.name
        notes[f"class {entry.id} color"] = "#{:02X}{:02X}{:02X}".format(*entry.color)
    return {"Name": name, "MapAnnotation": notes}
