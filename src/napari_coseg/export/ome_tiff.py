"""Two label images as OME-TIFF, with pixel size, class names and where they came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.export.files import written
from napari_coseg.types import Image, LabelClass, Prediction

TILE_PX = 512


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
        with written(path, overwrite) as passing:
            write_labels(passing, labels, prediction.pixel_size_um, metadata)


def write_labels(
    path: Path,
    labels: np.ndarray,
    pixel_size_um: Sequence[float],
    metadata: dict[str, Any],
) -> None:
    """(Y, X) or (Z, Y, X) labels of any integer dtype that OME knows (8 to 32 bits)."""
    import tifffile

    sizes: dict[str, Any] = {"axes": "ZYX"[-labels.ndim :]}
    for axis, size in zip(sizes["axes"], pixel_size_um, strict=True):
        sizes[f"PhysicalSize{axis}"] = size
        sizes[f"PhysicalSize{axis}Unit"] = "µm"
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        photometric="minisblack",
        compression="zlib",
        tile=(TILE_PX, TILE_PX) if min(labels.shape[-2:]) > TILE_PX else None,
        resolution=(1e4 / pixel_size_um[-1], 1e4 / pixel_size_um[-2]),
        resolutionunit="CENTIMETER",
        metadata=sizes | metadata,
    )


def _metadata(name: str, prediction: Prediction, classes: Sequence[LabelClass]) -> dict[str, Any]:
    notes = {"napari-coseg": json.dumps(prediction.provenance)}
    for entry in classes:
        notes[f"class {entry.id}"] = entry.name
        notes[f"class {entry.id} color"] = "#{:02X}{:02X}{:02X}".format(*entry.color)
    return {"Name": name, "MapAnnotation": notes}
