"""The image with its regions and objects as OME-Zarr (NGFF 0.4), with classes and colours.

Written with zarr alone, a band of rows at a time. The library ome-zarr would bring clients of
remote stores and a limit on pydantic's version for what is a few dozen lines of metadata here;
the tests let its models judge them. 0.4 (zarr's format 2) is what most viewers read today.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.files import atomic_folder
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, LabelClass, Prediction
from napari_coseg.formats.place import offset_in

VERSION = "0.4"
OURS = "napari-coseg"
"""Key, beside NGFF's own, of what it has no place for: all classes, provenance, full geometry."""
EVERY_CHUNK = "every_chunk_is_written"
"""Key, beside those, of labels whose chunks without objects are files, too."""
UNITS = {"um": "micrometer", "mm": "millimeter"}
CHUNK_PX = 512
SMALLEST_LEVEL_PX = 512
"""Levels are added until the longer side of a plane is no longer than this."""
BAND_ROWS = 2 * CHUNK_PX
_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One folder: the image at its root, ``labels/regions`` and ``labels/objects`` within.

    Every level halves rows and columns: labels keep every second pixel, the image takes means.
    Of an image that was segmented in part, only that part is written. NGFF 0.4 knows no rotations:
    its scale and translation are along the image's own axes, and the full geometry stands under
    our own key.

    Raises
    ------
    OutputError
        Where the image does not have the shape of the labels, or the disk refuses.
    """
    import zarr

    data, axes = _image(prediction, image)
    levels = _levels(prediction.semantic.shape)
    geometry = prediction.geometry
    with atomic_folder(paths[0], overwrite) as partial:
        root = zarr.open_group(partial, mode="w", zarr_format=2)
        root.attrs.update(_multiscales(image.name, axes, geometry, levels, means=True))
        root.attrs[OURS] = {"geometry": geometry.as_json()}
        root.attrs.update(_omero(image.name, data, axes))
        _pyramid(root, data, levels, means=True)
        group = root.create_group("labels")
        group.attrs["labels"] = ["regions", "objects"]
        labelled = (
            ("regions", prediction.semantic, prediction.semantic_classes, _region_notes),
            ("objects", prediction.instances.labels, prediction.instances.classes, _object_notes),
        )
        for name, labels, classes, notes in labelled:
            inner = group.create_group(name)
            spatial = "ZYX"[-labels.ndim :]
            inner.attrs.update(_multiscales(name, spatial, geometry, levels, means=False))
            source = {"version": VERSION, "source": {"image": "../../"}}
            inner.attrs["image-label"] = source | notes(prediction)
            inner.attrs[OURS] = _ours(classes, prediction)
            _pyramid(inner, labels, levels, means=False)


def _image(prediction: Prediction, image: Image) -> tuple[Any, str]:
    """The part that was segmented, as a dask array whose channels come first, and its axes."""
    import dask.array

    data = image.data
    if not isinstance(data, dask.array.Array):
        data = dask.array.from_array(data, name=False)
    axes = image.axes
    if "C" in axes:
        data = dask.array.moveaxis(data, axes.index("C"), 0)
        axes = "C" + axes.replace("C", "")
    shape = prediction.semantic.shape
    offset = offset_in(prediction, image)
    part = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
    return data[(..., *part)], axes


def _levels(shape: tuple[int, ...]) -> int:
    side = max(*shape[-2:], 1)
    return 1 + max(0, math.ceil(math.log2(side / SMALLEST_LEVEL_PX)))


def _multiscales(
    name: str, axes: str, geometry: Geometry, levels: int, *, means: bool
) -> dict[str, Any]:
    channels = len(axes) - geometry.ndim
    sizes = np.array([1.0] * channels + list(geometry.spacing))
    start = np.array([0.0] * channels + geometry.origin_along_axes.tolist())
    datasets = []
    for level in range(levels):
        factors = np.array([2.0**level if axis in "YX" else 1.0 for axis in axes])
        # The centre of a mean is the centre of the pixels that it is the mean of.
        moved = start + sizes * (factors - 1) / 2 * means
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": (sizes * factors).tolist()}]
        if moved.any():
            steps.append({"type": "translation", "translation": moved.tolist()})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    kinds = {"C": {"type": "channel"}}
    space = {"type": "space", "unit": UNITS[geometry.unit]}
    entry = {
        "version": VERSION,
        "name": name,
        "axes": [{"name": axis.lower()} | kinds.get(axis, space) for axis in axes],
        "datasets": datasets,
        "type": "mean" if means else "nearest",
    }
    return {"multiscales": [entry]}


def _omero(name: str, data: Any, axes: str) -> dict[str, Any]:
    """How to show three channels of 8 bits: as red, green and blue. Nothing for other images."""
    if not axes.startswith("C") or data.shape[0] != 3 or data.dtype != np.uint8:
        return {}
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": color, "window": window, "active": True} for label, color in _RGB
    ]
    return {"omero": {"version": VERSION, "name": name, "channels": channels}}


def _pyramid(group: Any, data: Any, levels: int, *, means: bool) -> None:
    """Arrays "0", "1", ...: the first is `data`, each further one half of the one before."""
    for level in range(levels):
        step = 2 if level else 1
        *leading, rows, columns = data.shape
        shape = (*leading, -(-rows // step), -(-columns // step))
        array = group.create_array(
            str(level),
            shape=shape,
            dtype=data.dtype,
            chunks=(*(1 for _ in leading), *(max(1, min(n, CHUNK_PX)) for n in shape[-2:])),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
            config={"write_empty_chunks": True},  # so that one that is missing is a lost one
        )
        for plane in np.ndindex(*leading):
            for y in range(0, shape[-2], BAND_ROWS):
                there = (*plane, slice(y, y + BAND_ROWS))
                here = (*plane, slice(y * step, (y + BAND_ROWS) * step))
                band = np.asarray(data[here])
                array[there] = band if step == 1 else _halved(band, means)
        data = array


def _halved(band: np.ndarray, means: bool) -> np.ndarray:
    if not means:
        return band[..., ::2, ::2]
    uneven = [(0, 0)] * (band.ndim - 2) + [(0, n % 2) for n in band.shape[-2:]]
    even = np.pad(band, uneven, mode="edge")
    *leading, rows, columns = even.shape
    mean = even.reshape(*leading, rows // 2, 2, columns // 2, 2).mean(axis=(-3, -1))
    return (np.rint(mean) if band.dtype.kind in "iu" else mean).astype(band.dtype)


def _ours(classes: Sequence[LabelClass], prediction: Prediction) -> dict[str, Any]:
    """All classes, those without objects included, the provenance and the geometry."""
    entries = [
        {"id": c.id, "name": c.name, "color": [int(part) for part in c.color]} for c in classes
    ]
    return {
        "classes": entries,
        EVERY_CHUNK: True,
        "provenance": prediction.provenance,
        "geometry": prediction.geometry.as_json(),
    }


def _region_notes(prediction: Prediction) -> dict[str, Any]:
    entries = prediction.semantic_classes
    return _notes(
        [_label_color(entry.id, entry) for entry in entries],
        [{"label-value": entry.id, "class": entry.name} for entry in entries],
    )


def _object_notes(prediction: Prediction) -> dict[str, Any]:
    """Every column of the table that has a value, and the colour of the class, by object."""
    classes = {entry.id: entry for entry in prediction.instances.classes}
    colors, properties = [], []
    for row in prediction.instances.table.to_dict("records"):
        label = int(row["id"])
        known = {str(key): value for key, value in row.items() if key != "id" and _is_known(value)}
        properties.append({"label-value": label} | known)
        if row.get("class_id") in classes:
            colors.append(_label_color(label, classes[row["class_id"]]))
    return _notes(colors, properties)


def _notes(colors: list[Any], properties: list[Any]) -> dict[str, Any]:
    """Without those that are empty: NGFF asks for one entry at least."""
    entries = {"colors": colors, "properties": properties}
    return {key: value for key, value in entries.items() if value}


def _label_color(label: int, entry: LabelClass) -> dict[str, Any]:
    return {"label-value": label, "rgba": [*(int(part) for part in entry.color), 255]}


def _is_known(value: Any) -> bool:
    return isinstance(value, (str, bool, int)) or (
        isinstance(value, float) and math.isfinite(value)
    )
