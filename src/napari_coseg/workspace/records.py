"""What the journal tells: pixels, blocks, rows, marks and classes, as they *become*.

A record is absolute, so that replaying it twice, or over an image that has it already, changes
nothing more. Arrays are packed by safetensors (no code, sizes checked against the bytes there are)
and compressed by zlib.

kind        about                       arrays
pixels      target, name                steps (n,): positions in the flattened image, each less the
                                        one before; values (n,); and those of rows
block       target, box                 values, of the box's shape
rows        name                        removed (k,): ids without a row now; row.<column> (m,)
reviewed                                ids (k,); runs (n, 2) and region_runs (m, 2) of the areas
                                        whose objects, and whose regions, are reviewed
classes     classes, region_classes
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Box, Edit, Target
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace.facts import class_facts

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("pixels", "block", "rows", "reviewed", "classes")
TEXT_COLUMNS = ("class", "region")
"""Follow from ``class_id`` and ``region_id``, so they are not recorded."""
PIXELS_AT_ONCE = 4_000_000
ROWS_AT_ONCE = 250_000
LARGEST_RECORD = 256 * 2**20
"""Bytes, unpacked."""


@dataclass(frozen=True, eq=False)
class Record:
    """One thing that changed; see the table at the top of this file."""

    kind: str
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


def of_edit(edit: Edit, shape: Sequence[int]) -> Iterator[Record]:
    """An edit that was made; give its `inverse` for one that was taken back.

    Several records where it is large; the rows come last.
    """
    flat = np.ravel_multi_index(edit.indices, tuple(shape))
    order = np.argsort(flat, kind="stable")
    for start in range(0, len(order), PIXELS_AT_ONCE):
        part = order[start : start + PIXELS_AT_ONCE]
        steps = np.diff(flat[part], prepend=0)
        small = not len(steps) or int(steps.max()) < 2**32
        arrays = {
            "steps": steps.astype(np.uint32 if small else np.int64),
            "values": np.ascontiguousarray(edit.new_values[part]),
        }
        yield Record("pixels", {"target": edit.target, "name": edit.name}, arrays)
    yield from of_rows(edit.removed, edit.new_rows, edit.name)


def of_rows(removed: Sequence[int], rows: pd.DataFrame, name: str = "") -> Iterator[Record]:
    """Rows that go, and rows that come or change."""
    gone = np.asarray(removed, dtype=np.int64)
    columns = [column for column in rows.columns if column not in TEXT_COLUMNS]
    for start in range(0, max(len(gone), len(rows)), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        arrays = {"removed": gone[part]}
        for column in columns:
            values = rows[column].to_numpy()[part]
            kind = np.float64 if values.dtype.kind == "f" else np.int64
            arrays[f"row.{column}"] = np.ascontiguousarray(values, dtype=kind)
        yield Record("rows", {"name": name}, arrays)


def of_block(target: Target, box: Box, values: np.ndarray) -> Record:
    """A part of an image as it is now. `values` must not change any more."""
    bounds = [[part.start, part.stop] for part in box]
    return Record("block", {"target": target, "box": bounds}, {"values": values})


def of_reviewed(reviewed: Reviewed) -> Record:
    """All marks as they are now."""
    ids = np.fromiter(sorted(reviewed.ids), dtype=np.int64, count=len(reviewed.ids))
    arrays = {"ids": ids, "runs": reviewed.objects.runs, "region_runs": reviewed.regions.runs}
    return Record("reviewed", {}, arrays)


def of_classes(classes: tuple[LabelClass, ...], region_classes: tuple[LabelClass, ...]) -> Record:
    """All classes as they are now."""
    about = {
        "classes": [entry.model_dump(mode="json") for entry in class_facts(classes)],
        "region_classes": [entry.model_dump(mode="json") for entry in class_facts(region_classes)],
    }
    return Record("classes", about, {})


# ---------------------------------------------------------------------------------------------
# Bytes


def pack(record: Record) -> tuple[bytes, int]:
    """A record's bytes, compressed, and how many they are unpacked."""
    from safetensors.numpy import save

    header = json.dumps({"kind": record.kind, **record.about}).encode()
    arrays = {name: np.ascontiguousarray(values) for name, values in record.arrays.items()}
    raw = save({"about": np.frombuffer(header, dtype=np.uint8), **arrays})
    return zlib.compress(raw, 1), len(raw)


def unpack(packed: bytes, size: int) -> Record:
    """The record; `size` is checked before as much memory is taken.

    Raises
    ------
    WorkspaceError
        Where the bytes are no record. What the record says is checked where it is replayed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if size > LARGEST_RECORD:
        raise WorkspaceError(f"a record of {size:,} bytes is larger than any")
    try:
        expanding = zlib.decompressobj()
        raw = expanding.decompress(packed, size + 1)
        if len(raw) != size or not expanding.eof:
            raise WorkspaceError(f"a record has other than the {size:,} bytes that it tells of")
        arrays = load(raw)
        about = json.loads(arrays.pop("about").tobytes())
        kind = about.pop("kind")
    except (zlib.error, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise WorkspaceError(f"a record cannot be read ({error})") from error
    if kind not in KINDS:
        raise WorkspaceError(f"a record is of the unknown kind {kind!r}")
    return Record(kind, about, arrays)


FRAME = struct.Struct("<4sIII16s")
"""A mark, bytes packed, bytes unpacked, checksum of these three, digest of the packed bytes."""
MARK = b"REC1"


def header_checksum(packed: int, unpacked: int) -> int:
    """So that a broken length is not believed."""
    return zlib.crc32(struct.pack("<4sII", MARK, packed, unpacked))


def volume(shape: Sequence[int]) -> int:
    """Pixels of an image."""
    return math.prod(shape)
