"""OME-Zarr (NGFF 0.4) back to labels: ours, or label images that others stored beside an image.

Sizes, types, codecs and paths are checked before a chunk is opened, since folders may come from
anybody.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry, ImageSource
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.core.types import LABEL_DTYPE, LARGEST_ID, LabelClass, LabelNotes, Prediction
from napari_coseg.formats.chunk_sizes import check_chunks
from napari_coseg.formats.ome_zarr import EVERY_CHUNK, OURS
from napari_coseg.labels.measure import class_table, labelled
from napari_coseg.labels.measure.rows import ids_in

if TYPE_CHECKING:
    import pandas as pd

MAX_JSON_BYTES = 2**29
"""Largest file of metadata read: some 400 bytes an object."""
MAX_PIXELS = 2**31
MAX_CHUNK_BYTES = 2**28
MAX_CLASS = 255
COMPRESSORS = ("blosc", "zlib", "gzip", "zstd", "lz4")
"""Codecs that give bytes. There are others that run what is written in the file."""
UNITS_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}
_NAME = re.compile(r"[\w-][\w. -]*")
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
_GREY = (128, 128, 128)

Properties = dict[int, dict[str, Any]]
Colors = dict[int, tuple[int, int, int]]
Classes = dict[int, LabelClass]
"""Each by label value or class id."""


@dataclass(frozen=True, eq=False)
class _Labels:
    """One label image, and what is said of it."""

    values: np.ndarray
    geometry: Geometry
    notes: LabelNotes


def read_ome_zarr(
    path: str | Path, *, objects: str = "objects", regions: str | None = "regions"
) -> Prediction:
    """Read the label images of an OME-Zarr folder, at their finest level.

    Parameters
    ----------
    path
        The folder of the image, which has ``labels`` within.
    objects, regions
        Names of the label images whose values are ids of objects, and classes of regions. None
        reads no regions; all is background then.

    Returns
    -------
    Prediction
        Objects are measured again; classes and class probabilities are taken from the properties.
        From a folder that we wrote, classes without objects, the provenance and the full geometry
        come back as well; from others, size and position along the image's axes.

    Raises
    ------
    ImageError
        Where the folder is no OME-Zarr of version 0.4, has no labels of these names, or says
        something that cannot be right.
    """
    path = Path(path)
    listed = _listed(path)
    for name in (objects, regions):
        if name is not None and name not in listed:
            raise ImageError(
                f"{path} has no labels {name!r} (it has {', '.join(listed) or 'none'}); say which "
                "to read"
            )
    of_objects = _read(path, objects, LABEL_DTYPE)
    of_regions = None if regions is None else _read(path, regions, np.uint8)
    if of_regions is not None and of_regions.values.shape != of_objects.values.shape:
        raise ImageError(
            f"the labels of {path} have shapes {of_objects.values.shape} and "
            f"{of_regions.values.shape}; objects and regions of one image are expected"
        )
    return labelled(
        of_objects.values,
        None if of_regions is None else of_regions.values,
        geometry=of_objects.geometry,
        known=of_objects.notes.known,
        classes=of_objects.notes.classes,
        region_classes=of_regions.notes.classes if of_regions else (),
        provenance=of_objects.notes.provenance,
    )


# ---------------------------------------------------------------------------------------------
# Files


def _listed(path: Path) -> list[str]:
    """Names of the label images."""
    found = _json(path / "labels" / ".zattrs").get("labels")
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ImageError(f"{path} does not list its labels; expected OME-Zarr of version 0.4")
    return [name for name in found if _NAME.fullmatch(name)]


def _json(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        if size > MAX_JSON_BYTES:
            raise ImageError(
                f"{file} has {size / 2**20:.0f} MiB; at most {MAX_JSON_BYTES // 2**20} are read"
            )
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(
            f"cannot read {file} ({reason}); expected OME-Zarr of version 0.4, with labels"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ImageError(f"{file} holds no JSON object")
    return content


def _read(path: Path, name: str, dtype: type[np.integer[Any]]) -> _Labels:
    """Ids of objects as `LABEL_DTYPE`, or classes of regions as uint8."""
    folder = path / "labels" / name
    attributes = _json(folder / ".zattrs")
    try:
        entry = attributes["multiscales"][0]
        finest = entry["datasets"][0]
        level = str(finest["path"])
        notes = attributes.get("image-label", {})
        properties = {int(one["label-value"]): dict(one) for one in notes.get("properties", ())}
        colors = {int(one["label-value"]): _color(one["rgba"]) for one in notes.get("colors", ())}
        ours = attributes.get(OURS, {})
        geometry = _geometry(entry, finest, ours.get("geometry"))
        classes = _classes(ours.get("classes", ()))
        provenance = checked_provenance(ours.get("provenance", {}))
    except _BROKEN as error:
        raise ImageError(f"what {folder} says of itself cannot be understood: {error!r}") from error
    if not _NAME.fullmatch(level):
        raise ImageError(f"{folder} has its pixels in {level!r}; expected a folder within it")
    values = _array(folder / level, geometry.ndim, bool(ours.get(EVERY_CHUNK)))
    largest = LARGEST_ID if dtype == LABEL_DTYPE else MAX_CLASS
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > largest:
        raise ImageError(f"{folder} has values from {low} to {high}; expected 0 to {largest}")
    values = values.astype(dtype, copy=False)
    known = None
    if dtype == LABEL_DTYPE:
        _tell_lost(folder, values, properties)
        known, classes = _object_classes(folder, high, properties, colors, classes)
    else:
        classes = _region_classes(values, properties, colors, classes)
    notes = LabelNotes(tuple(classes[number] for number in sorted(classes)), known, provenance)
    return _Labels(values, geometry, notes)


def _tell_lost(folder: Path, values: np.ndarray, properties: Properties) -> None:
    """Warn of objects that are described and have no pixel, as where a chunk was lost."""
    lost = len({label for label in properties if label > 0} - set(ids_in(values).tolist()))
    if lost:
        warnings.warn(
            f"{folder}: {lost} of {len(properties)} objects that are described have no pixel; were "
            "files lost? Copy or export the folder again if so",
            stacklevel=4,
        )


def _array(folder: Path, ndim: int, every_chunk: bool) -> np.ndarray:
    """The pixels, after a look at what would be allocated and run.

    `every_chunk` says that a chunk without a file is a lost one, not an empty one.
    """
    import zarr

    header = _json(folder / ".zarray")
    codec, chunk_bytes = _check(folder, header, ndim)
    if every_chunk:
        _refuse_lost(folder, header)
    try:
        check_chunks(folder, codec, chunk_bytes)
        store = zarr.storage.LocalStore(folder, read_only=True)
        array = zarr.open_array(store, mode="r", zarr_format=2)  # which is what was looked at
        return np.asarray(array[...])
    except (OSError, RuntimeError, *_BROKEN) as error:
        raise ImageError(f"the pixels in {folder} cannot be read: {error}") from error


def _refuse_lost(folder: Path, header: dict[str, Any]) -> None:
    """Raise `ImageError` where a chunk has no file."""
    sides = zip(header["shape"], header["chunks"], strict=True)
    wanted = math.prod(-(-int(n) // int(chunk)) for n, chunk in sides)
    there = sum(file.is_file() and file.name[0] != "." for file in folder.rglob("*"))
    if there < wanted:
        raise ImageError(
            f"{folder} lacks {wanted - there} of its {wanted} chunks; copy or export it again"
        )


def _check(folder: Path, header: dict[str, Any], ndim: int) -> tuple[str | None, int]:
    """What chunks are packed with, and how many bytes they have unpacked."""
    try:
        shape, chunks = ([int(n) for n in header[key]] for key in ("shape", "chunks"))
        kind = np.dtype(str(header["dtype"]))
        compressor, filters = header.get("compressor"), header.get("filters")
        codec = None if compressor is None else compressor["id"]
    except _BROKEN as error:
        raise ImageError(f"{folder} cannot be understood as an array: {error!r}") from error
    if len(shape) != ndim or len(chunks) != ndim or min(shape) < 0 or min(chunks) < 1:
        raise ImageError(f"{folder} has shape {shape} in chunks of {chunks}, but {ndim} axes")
    if math.prod(shape) > MAX_PIXELS or math.prod(chunks) * kind.itemsize > MAX_CHUNK_BYTES:
        raise ImageError(
            f"{folder} has shape {shape} in chunks of {chunks}; at most {MAX_PIXELS} pixels, and "
            f"{MAX_CHUNK_BYTES // 2**20} MiB a chunk, are read"
        )
    if kind.kind not in "iu":
        raise ImageError(f"{folder} holds {kind}; labels are whole numbers")
    if filters or (codec is not None and codec not in COMPRESSORS):
        raise ImageError(
            f"{folder} is written with {filters or codec}; read are {', '.join(COMPRESSORS)}, "
            "without filters"
        )
    return codec, math.prod(chunks) * kind.itemsize


# ---------------------------------------------------------------------------------------------
# What is said of values


def _geometry(entry: dict[str, Any], dataset: dict[str, Any], ours: Any) -> Geometry:
    """Of the finest level, along z, y, x or y, x; what we wrote where it agrees.

    Raises one of `_BROKEN` for other axes and units, and `ImageError`.
    """
    axes = [str(axis["name"]) for axis in entry["axes"]]
    if "".join(axes) not in ("yx", "zyx"):
        raise ValueError(f"its axes are {axes}, expected y, x or z, y, x")
    scale, start = np.ones(len(axes)), np.zeros(len(axes))
    for level in (dataset, entry):
        for step in level.get("coordinateTransformations", ()):
            if step["type"] == "scale":
                factors = np.array([float(factor) for factor in step["scale"]])
                scale, start = _alike(scale, factors) * factors, start * factors
            elif step["type"] == "translation":
                moved = np.array([float(value) for value in step["translation"]])
                start = _alike(start, moved) + moved
    names = [axis.get("unit") for axis in entry["axes"]]
    in_mm = set(names) == {"millimeter"}
    factors = np.array([UNITS_UM[name or "micrometer"] / (1000 if in_mm else 1) for name in names])
    size = (scale * factors).tolist()
    if not all(math.isfinite(one) and one > 0 for one in size):
        raise ValueError(f"its pixels have the size {size}")
    found = Geometry.from_spacing(
        size,
        (start * factors).tolist(),
        unit="mm" if in_mm else "um",
        source=ImageSource(assumed=() if all(names) else ("the unit of length: micrometre",)),
    )
    if ours is None:
        return found
    written = Geometry.from_json(ours)
    if written.ndim != found.ndim:
        raise ValueError(f"a geometry of {written.axes} for axes {axes}")
    now = found.known_size_um  # another program may have changed it since
    return written if written.has_pixel_size(now) else written.with_pixel_size(now)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.shape != other.shape:
        raise ValueError(f"{other.tolist()} for {len(one)} axes")
    return one


def _color(rgba: Sequence[Any]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in rgba[:3])
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"a colour has parts beyond 0 to 255: {list(rgba)[:4]}")
    return red, green, blue


def _classes(entries: Sequence[Any]) -> dict[int, LabelClass]:
    """Classes that we wrote, by id."""
    found: dict[int, LabelClass] = {}
    for entry in entries:
        number, name = entry["id"], entry["name"]
        if not (isinstance(number, int) and isinstance(name, str) and 1 <= number <= MAX_CLASS):
            raise ValueError(f"a class {number!r} called {name!r}; ids are 1 to {MAX_CLASS}")
        if number in found:
            raise ValueError(f"class {number} is named twice")
        found[number] = LabelClass(number, name, _color(entry["color"]))
    return found


def _region_classes(
    values: np.ndarray, properties: Properties, colors: Colors, ours: Classes
) -> Classes:
    """Those that we wrote, those that have a name, and a number for others that occur."""
    named = {value for value in properties if 1 <= value <= MAX_CLASS}
    return ours | {
        value: LabelClass(
            value,
            str(properties.get(value, {}).get("class", value)),
            colors.get(value, _GREY),
        )
        for value in (set(ids_in(values).tolist()) | named) - ours.keys()
    }


def _object_classes(
    folder: Path, largest: int, properties: Properties, colors: Colors, ours: Classes
) -> tuple[pd.DataFrame, Classes]:
    """Class and class probability of the objects that are described; all classes."""
    rows: list[tuple[int, int, float]] = []
    classes = dict(ours)
    try:
        for label, said in properties.items():
            if not 1 <= label <= largest:
                continue
            number = int(said.get("class_id", 0))
            if not 0 <= number <= MAX_CLASS:
                raise ValueError(f"object {label} is of class {number}, beyond 0 to {MAX_CLASS}")
            rows.append((label, number, float(said.get("class_probability", math.nan))))
            if number:
                name = str(said.get("class", number))
                classes.setdefault(number, LabelClass(number, name, colors.get(label, _GREY)))
    except _BROKEN as error:
        raise ImageError(f"the objects of {folder} are described wrongly: {error!r}") from error
    ids, class_ids, probabilities = np.array(rows, dtype=float).reshape(-1, 3).T
    return class_table(class_ids, probabilities, ids.astype(np.int64)), classes
