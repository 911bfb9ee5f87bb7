"""Damaged and hostile workspaces: a clear error, or what is whole; never a surprise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.workspace_cases import add_to, assert_same, filled, wide_editor
from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.types import LARGEST_ID, LabelClass
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import delete
from napari_coseg.labels.measure import labelled
from napari_coseg.workspace import records
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.facts import ImageFacts, reference
from napari_coseg.workspace.folder import open_workspace
from napari_coseg.workspace.image import check_relative, relative_path
from napari_coseg.workspace.journal import DamagedJournal, JournalFile, framed, read_journal
from napari_coseg.workspace.records import FRAME, MARK, Record, header_checksum
from napari_coseg.workspace.saved import Saved, remeasured

# -- the journal -------------------------------------------------------------------------------


def _three_edits(folder: Path) -> tuple[Entry, Path, list[int], LabelEditor]:
    """An entry whose journal tells of three edits; where each of its records ends."""
    editor = wide_editor()
    workspace, entry = filled(folder, editor)
    before = wide_editor()
    edits = [delete(editor, ids) for ids in ([1, 2], [3, 4], [5, 6])]
    journal = JournalFile(entry.folder / "journal-000001.bin")
    ends = []
    for edit in edits:
        for record in records.of_edit(edit, editor.labels.shape):
            journal.append_packed(framed(record))
            ends.append(journal.size)
    journal.close()
    workspace.close()
    return entry, journal.path, ends, before


def _applied(editor: LabelEditor, *edits: Edit) -> LabelEditor:
    for edit in edits:
        editor.apply(edit)
    return editor


def _two_applied(editor: LabelEditor) -> LabelEditor:
    return _applied(editor, delete(editor, [1, 2]), delete(editor, [3, 4]))


@pytest.mark.parametrize("lost", [1, 10, FRAME.size + 3], ids=lambda n: f"{n} bytes lost")
def test_a_half_written_last_record_is_left_out_with_a_word(lost: int, tmp_path: Path) -> None:
    entry, path, ends, editor = _three_edits(tmp_path)
    third = ends[4]  # pixels of the third edit; its rows come last
    path.write_bytes(path.read_bytes()[: third - lost])
    assert_same(entry.load(), _two_applied(editor))
    assert "half written" in entry.notes[0]


@pytest.mark.parametrize(
    ("regions", "class_id", "ids"),
    [
        (np.full((60, 60), 2**45, np.int64), 1, 1),
        (np.full((60, 60), 2**32 - 1, np.uint32), 1, 1),
        (np.ones((60, 60), np.uint8), 2**31 - 1, 1),
        (np.ones((60, 60), np.uint8), 1, LARGEST_ID + 1),
    ],
    ids=["a region of 45 bits", "a region of 32 bits", "a class of 31 bits", "an id of 27 bits"],
)
def test_values_beyond_the_limits_are_refused(regions: np.ndarray, class_id: int, ids: int) -> None:
    labels = np.zeros(regions.shape, np.int32)
    labels[:5, :5] = ids
    classes = (LabelClass(class_id, "gland", (0, 0, 0)),)
    saved = Saved(labelled(labels, pixel_size_um=(1.0, 1.0), region_classes=classes))
    prediction = dataclasses.replace(saved.prediction, regions=regions)
    saved = dataclasses.replace(saved, prediction=prediction)
    with pytest.raises(WorkspaceError, match="numbered again"):
        remeasured(saved, [ids])


@pytest.mark.parametrize("salvaged", [False, True], ids=["refused", "salvaged"])
@pytest.mark.parametrize("place", [0, 5, FRAME.size + 4], ids=["mark", "length", "content"])
def test_damage_in_the_middle(place: int, salvaged: bool, tmp_path: Path) -> None:
    entry, path, ends, editor = _three_edits(tmp_path)
    data = bytearray(path.read_bytes())
    data[ends[3] + place] ^= 0xFF
    path.write_bytes(data)
    if salvaged:
        assert_same(entry.load(salvage=True), _two_applied(editor))
        assert "left out" in entry.notes[0]
    else:
        with pytest.raises(DamagedJournal, match=r"record 5.*The 4 before it are whole"):
            entry.load()


def test_salvaging_goes_on_from_what_is_whole_and_keeps_the_damaged_file(tmp_path: Path) -> None:
    entry, path, ends, editor = _three_edits(tmp_path)
    data = bytearray(path.read_bytes())
    data[ends[3] + 5] ^= 0xFF
    path.write_bytes(data)
    with open_workspace(entry.workspace, write=True) as workspace:
        workspace.writer(workspace.entries[0], salvage=True)
    assert_same(entry.load(), _two_applied(editor))
    assert (entry.folder / "damaged-journal-000001.bin").read_bytes() == data


@pytest.mark.parametrize(
    ("content", "is_empty"),
    [(b"", True), (b"napari-co", True), (b"PK\x03\x04 something else", False)],
    ids=["nothing", "a beginning", "another file"],
)
def test_a_journal_without_its_beginning(content: bytes, is_empty: bool, tmp_path: Path) -> None:
    path = tmp_path / "journal-000001.bin"
    path.write_bytes(content)
    notes: list[str] = []
    if is_empty:
        assert not list(read_journal(path, notes.append))
        assert notes
    else:
        with pytest.raises(WorkspaceError, match="no journal"):
            list(read_journal(path, notes.append))


def _journal_of(folder: Path, packed: bytes, size: int) -> Path:
    journal = JournalFile(folder / "journal-000001.bin")
    digest = hashlib.blake2b(packed, digest_size=16).digest()
    header = FRAME.pack(MARK, len(packed), size, header_checksum(len(packed), size), digest)
    journal.append_packed(header + packed)
    journal.close()
    return journal.path


def _tensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


BOMB = zlib.compress(bytes(20_000_000))
HUGE = _tensors({"values": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]}})


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (BOMB, 100),
        (b"no zlib", 100),
        (zlib.compress(b"no tensors"), 10),
        (zlib.compress(HUGE), len(HUGE)),
        (zlib.compress(b"x"), 2**32 - 1),
    ],
    ids=["grows", "no zlib", "no tensors", "shape of terabytes", "size of gigabytes"],
)
def test_records_that_would_take_memory_or_are_none(
    packed: bytes, size: int, tmp_path: Path
) -> None:
    with pytest.raises(DamagedJournal, match="damaged at byte"):
        list(read_journal(_journal_of(tmp_path, packed, size), pytest.fail))


def _pixels(steps: list[int], values: list[int], target: str = "objects") -> Record:
    arrays = {"steps": np.array(steps, np.int64), "values": np.array(values, np.int64)}
    return Record("pixels", {"target": target}, arrays)


def _block(box: list[list[int]], shape: tuple[int, ...]) -> Record:
    return Record("block", {"target": "objects", "box": box}, {"values": np.zeros(shape, np.int32)})


def _rows(**columns: Any) -> Record:
    arrays = {f"row.{name}": np.array(values) for name, values in columns.items()}
    return Record("rows", {}, {"removed": np.zeros(0, np.int64)} | arrays)


@pytest.mark.parametrize(
    "record",
    [
        _pixels([-1], [1]),
        _pixels([600 * 600], [1]),
        _pixels([600 * 600 - 1, 1], [1, 1]),
        _pixels([5, 0], [1, 1]),
        _pixels([5], [1, 1]),
        _pixels([5], [-1]),
        _pixels([5], [2**40]),
        _pixels([5], [300], target="regions"),
        _pixels([5], [1], target="elsewhere"),
        _block([[0, 2]], (2,)),
        _block([[-2, 2], [0, 2]], (4, 2)),
        _block([[0, 2], [599, 601]], (2, 2)),
        _block([[0, 2], [0, 2]], (3, 2)),
        _rows(id=[1]),
        _rows(id=[0]),
        Record("reviewed", {}, {"ids": np.zeros(0), "runs": np.array([[5, 2**40]])}),
        Record("classes", {"classes": [{"id": 0}], "region_classes": []}, {}),
        Record("classes", {}, {}),
    ],
    ids=[
        "before the image",
        "behind the image",
        "running out of the image",
        "a pixel twice",
        "more values than pixels",
        "negative label",
        "label of 40 bits",
        "region class above 8 bits",
        "another target",
        "block of one axis",
        "block before the image",
        "block behind the image",
        "block of other values",
        "row without columns",
        "id 0",
        "marks behind the image",
        "class 0",
        "no classes",
    ],
)
def test_records_that_do_not_fit_their_entry(record: Record, tmp_path: Path) -> None:
    workspace, entry = filled(tmp_path, wide_editor())
    workspace.close()
    journal = JournalFile(entry.folder / "journal-000001.bin")
    journal.append_packed(framed(record))
    journal.close()
    with pytest.raises(WorkspaceError, match="does not fit"):
        entry.load()


# -- the other files ---------------------------------------------------------------------------


def _edited(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def _of_the_run(**told: Any) -> Callable[[Any], None]:
    return lambda values: values["provenance"].update(told)


def _cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _claim_gigabytes(folder: Path) -> None:
    path = folder / "labels.zarr" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)


def _filters(values: dict[str, Any]) -> None:
    values["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}, *values["codecs"]]


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "entry cut": (_cut("entry.json"), "damaged"),
    "entry gone": (_gone("entry.json"), "cannot be read"),
    "entry is a list": (lambda f: (f / "entry.json").write_text("[]"), "expected"),
    "entry nested": (lambda f: (f / "entry.json").write_text("[" * 10**5), "damaged"),
    "unknown key": (_edited("entry.json", lambda v: v.update(surprise=1)), "surprise"),
    "newer version": (_edited("entry.json", lambda v: v.update(version=2)), "install a newer"),
    "huge": (_edited("entry.json", lambda v: v.update(shape=[2**30, 2**30])), "more than"),
    "negative": (_edited("entry.json", lambda v: v.update(shape=[-1, 5])), "shape"),
    "other shape": (_edited("entry.json", lambda v: v.update(shape=[60, 60])), "its shape is"),
    "objects": (_edited("entry.json", lambda v: v.update(labels_dtype="object")), "labels_dtype"),
    "channels": (_edited("entry.json", _of_the_run(channels="red")), "channels"),
    "window": (_edited("entry.json", _of_the_run(window=[1])), "window"),
    "axes": (_edited("entry.json", _of_the_run(axes=3)), "axes"),
    "place": (_edited("entry.json", _of_the_run(region_offset=[-1, None])), "region_offset"),
    "pixel size": (_edited("entry.json", lambda v: v.update(pixel_size_um=[1.0])), "do not fit"),
    "image path": (_edited("entry.json", lambda v: v["image"].update(path="/etc/x")), "refused"),
    "table cut": (_cut("objects-000001.csv"), "damaged"),
    "table gone": (_gone("objects-000001.csv"), "cannot be read"),
    "table of text": (lambda f: (f / "objects-000001.csv").write_text("id\nx"), "damaged"),
    "marks cut": (_cut("reviewed-000001.json"), "damaged"),
    "marks outside": (
        _edited("reviewed-000001.json", lambda v: v.update(runs=[[0, 10**9]])),
        "damaged",
    ),
    "chunk cut": (_cut("labels.zarr/c/0/0"), "damaged"),
    "chunk of gigabytes": (_claim_gigabytes, "damaged"),
    "array gone": (_gone("labels.zarr/zarr.json"), "cannot be read"),
    "array larger": (_edited("labels.zarr/zarr.json", lambda v: v.update(shape=[9, 9])), "shape"),
    "array that unpickles": (_edited("labels.zarr/zarr.json", _filters), "codecs"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_told_by_name(name: str, tmp_path: Path) -> None:
    damage, word = DAMAGES[name]
    workspace, entry = filled(tmp_path, wide_editor())
    workspace.close()
    damage(entry.folder)
    with pytest.raises(WorkspaceError, match=word):
        open_workspace(workspace.path).entries[0].load()


def test_one_damaged_entry_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    workspace, first = filled(tmp_path, wide_editor())
    add_to(workspace, tmp_path, wide_editor(), "second.npy")
    workspace.close()
    (first.folder / "entry.json").write_text("{")
    found = open_workspace(workspace.path)
    assert [entry.id for entry in found.entries] == ["0002"]
    assert list(found.damaged) == ["0001"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name", ["entries/0001/labels.zarr/c", "entries/0001/entry.json", "entries/0002", "lock"]
)
def test_links_are_refused(name: str, tmp_path: Path) -> None:
    workspace, _ = filled(tmp_path, wide_editor())
    workspace.close()
    target = tmp_path / "target"
    place = workspace.path / name
    if place.exists():
        place.rename(target)
    else:
        target.mkdir()
    place.symlink_to(target)
    with pytest.raises(WorkspaceError, match="is a link"):
        open_workspace(workspace.path)


@pytest.mark.parametrize(
    ("path", "is_fine"),
    [
        ("image.tif", True),
        ("../image.tif", True),
        ("../../../slides/image.tif", True),
        ("../../../../image.tif", False),
        ("/etc/passwd", False),
        ("slides/../../image.tif", False),
        ("C:/image.tif", False),
        ("..\\image.tif", False),
        ("\\\\server\\image.tif", False),
        ("./image.tif", False),
        ("..", False),
        ("", False),
        ("a//b", False),
        ("a\0b", False),
    ],
)
def test_paths_of_images(path: str, is_fine: bool) -> None:
    if is_fine:
        check_relative(path)
    else:
        with pytest.raises(WorkspaceError, match="refused"):
            check_relative(path)


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b"])
def test_names_of_image_files_are_names(name: str) -> None:
    facts = ImageFacts(
        name="x", path=None, file_name=name, axes="YX", shape=(2, 2), pixel_size_um=None,
        content=None,
    )  # fmt: skip
    with pytest.raises(WorkspaceError, match="no name of a file"):
        reference(facts)


def test_an_image_far_away_is_remembered_by_its_name(tmp_path: Path) -> None:
    workspace = tmp_path / "a" / "b" / "c" / "d" / "w"
    assert relative_path(tmp_path / "image.tif", workspace) is None
    assert relative_path(tmp_path / "a" / "b" / "image.tif", workspace) == "../../../image.tif"
