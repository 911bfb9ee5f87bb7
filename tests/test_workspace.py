"""A workspace gives back what was put in, edits included, and finds its images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cases import label_editors
from cases.workspace_cases import DESKS, add_to, assert_same, filled, saved_of, wide_editor
from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.types import Image, Instances, LabelClass, Prediction
from napari_coseg.labels.editing.changes import change_pixels, change_regions
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import delete, merge, set_class
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace import arrays, image, records
from napari_coseg.workspace.facts import LABEL_DTYPES
from napari_coseg.workspace.folder import InUse, create_workspace, open_workspace
from napari_coseg.workspace.image import ImageNotFound, content_hash, reference_of
from napari_coseg.workspace.journal import JournalFile, framed, read_journal
from napari_coseg.workspace.records import Record
from napari_coseg.workspace.replay import InMemory, Replay
from napari_coseg.workspace.saved import Saved
from napari_coseg.workspace.watch import Watch


def _across(editor: LabelEditor) -> Edit:
    """A new object that lies in every chunk of a plane."""
    side = editor.labels.shape[-1]
    y, x = (np.arange(side), np.full(side, side - 3))
    z = (np.ones(side, np.int64),) if editor.labels.ndim == 3 else ()
    at = (*z, y, x)
    free = editor.labels[at] == 0
    (new,) = editor.free_ids(1)
    return change_pixels(editor, "Add", tuple(axis[free] for axis in at), new)


def _region(editor: LabelEditor) -> Edit:
    box = tuple(slice(1, 50) if n > 50 else slice(0, n) for n in editor.labels.shape)
    indices = np.nonzero(editor.regions[box] != 3)
    return change_regions(
        editor, "Fat", tuple(a + b.start for a, b in zip(indices, box, strict=True)), 3
    )


EDITS: dict[str, Callable[[LabelEditor], Edit]] = {
    "merge": lambda editor: merge(editor, editor.index.ids[:4].tolist()),
    "delete": lambda editor: delete(editor, editor.index.ids[5:9].tolist()),
    "delete all": lambda editor: delete(editor, editor.index.ids.tolist()),
    "add over chunks": _across,
    "give a class": lambda editor: set_class(editor, editor.index.ids[:3].tolist(), 2),
    "take a class away": lambda editor: set_class(editor, editor.index.ids[:3].tolist(), 0),
    "change regions": _region,
}


@pytest.mark.parametrize("folded", [False, True], ids=["from the journal", "folded"])
@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("kind", DESKS)
def test_an_edit_comes_back(kind: str, name: str, folded: bool, tmp_path: Path) -> None:
    editor = DESKS[kind]()
    workspace, entry = filled(tmp_path, editor)
    edit = EDITS[name](editor)
    editor.apply(edit)
    workspace.writer(entry).record_edit(edit)
    if folded:
        workspace.close()
    else:
        workspace.writer(entry).flush()
    (found,) = open_workspace(workspace.path).entries
    assert_same(found.load(), editor)
    assert not found.notes
    workspace.close()


def test_edits_and_their_undoing_come_back_in_order(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writer = workspace.writer(entry)
    for name in ("merge", "add over chunks", "change regions", "delete"):
        edit = EDITS[name](editor)
        for change in (edit, edit.inverse(), edit):
            editor.apply(change)
            writer.record_edit(change)
    writer.flush()
    assert_same(entry.load(), editor)
    workspace.close()
    assert_same(entry.load(), editor)


@pytest.mark.parametrize("kind", DESKS)
def test_what_is_added_comes_back(kind: str, tmp_path: Path) -> None:
    editor = DESKS[kind]()
    reviewed = Reviewed(editor.labels.shape).with_objects(editor.index.ids[:2].tolist())
    reviewed = reviewed.with_area(np.nonzero(editor.regions == 1), ["objects"])
    reviewed = reviewed.with_area(np.nonzero(editor.regions < 2), ["regions"])
    with create_workspace(tmp_path / "w") as workspace:
        reference = reference_of(Image(editor.labels, "ZYX"[-editor.labels.ndim :]), None, tmp_path)
        entry = workspace.add(reference, saved_of(editor, reviewed), editor.labels)
    saved = entry.load()
    assert_same(saved, editor)
    assert saved.classes == entry.classes == editor.classes
    assert saved.region_classes == entry.region_classes == editor.region_classes
    assert entry.pixel_size_um == editor.pixel_size_um
    assert saved.provenance == {"model": "discs", "settings": {"batch": 2}}
    np.testing.assert_array_equal(saved.reviewed_area("objects"), editor.regions == 1)
    np.testing.assert_array_equal(saved.reviewed_area("regions"), editor.regions < 2)
    np.testing.assert_array_equal(
        saved.reviewed_objects(), np.isin(editor.labels, editor.index.ids[:2])
    )


def test_marks_and_classes_come_back_as_they_were_last(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writer = workspace.writer(entry)
    ids = editor.index.ids
    marks = Reviewed(editor.labels.shape)
    for one in ids[:5].tolist():
        marks = marks.with_objects([one])
        writer.record_reviewed(marks)
    part = np.nonzero(editor.regions == 1)
    writer.record_reviewed(marks.with_area(part, ["regions"]))
    more = (*editor.classes, LabelClass(9, "plasma", (9, 9, 9)))
    writer.record_classes(more, editor.region_classes)
    writer.flush()
    saved = entry.load()
    assert saved.reviewed.ids == set(ids[:5].tolist())
    np.testing.assert_array_equal(saved.reviewed_area("regions"), editor.regions == 1)
    assert not saved.reviewed_area("objects").any()
    assert saved.classes == more
    workspace.close()
    assert entry.load().classes == more


def test_a_mark_goes_with_its_object_when_it_is_loaded(tmp_path: Path) -> None:
    """So that a later object with the same id is not taken for reviewed."""
    editor = wide_editor()
    last = int(editor.index.ids[-1])
    workspace, entry = filled(tmp_path, editor)
    writer = workspace.writer(entry)
    writer.record_reviewed(Reviewed(editor.labels.shape).with_objects([1, last]))
    edit = delete(editor, [last])
    editor.apply(edit)
    writer.record_edit(edit)
    workspace.close()
    assert entry.load().reviewed.ids == {1}


def test_what_is_painted_past_the_editor_is_found_and_measured(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    watch, writer = Watch(editor.labels), workspace.writer(entry)
    new = int(editor.index.ids[-1]) + 1
    editor.labels[500:530, 500:530] = new
    boxes = watch.differing(editor.labels)
    assert len(boxes) == 4
    for box in boxes:
        writer.record_block("objects", box, editor.labels[box].copy())
        watch.record(box, editor.labels[box])
    assert not watch.differing(editor.labels)
    writer.flush()
    for _ in range(2):
        saved = entry.load()
        np.testing.assert_array_equal(saved.labels, editor.labels)
        pd.testing.assert_frame_equal(
            saved.table, label_editors.measured_anew(saved), check_dtype=False
        )
        assert entry.notes
        workspace.close()


def test_rows_told_after_the_pixels_are_kept(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writer = workspace.writer(entry)
    edit = EDITS["add over chunks"](editor)
    editor.apply(edit)
    for box in arrays.boxes(editor.labels.shape):
        writer.record_block("objects", box, editor.labels[box].copy())
    writer.record_rows(edit.removed, edit.new_rows)
    writer.flush()
    assert_same(entry.load(), editor)
    assert not entry.notes
    workspace.close()


def test_an_edit_writes_the_chunks_it_touches_only(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    chunks = sorted((entry.folder / "labels.zarr" / "c").rglob("[0-9]"))
    before = {path: path.stat().st_ino for path in chunks if path.is_file()}
    first = int(editor.labels[:400, :400].max())
    edit = delete(editor, [first])
    workspace.writer(entry).record_edit(edit)
    workspace.close()
    rewritten = [path for path, inode in before.items() if path.stat().st_ino != inode]
    assert [path.parts[-2:] for path in rewritten] == [("0", "0")]


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
def test_labels_of_every_type(dtype: str, tmp_path: Path) -> None:
    labels = np.arange(35, dtype=dtype).reshape(5, 7)
    labels[0, 0] = 2**25 if np.dtype(dtype).itemsize > 2 else 99
    arrays.create(tmp_path / "labels.zarr", labels)
    found = arrays.load(tmp_path / "labels.zarr", (5, 7), dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (np.zeros((4, 4)), "whole numbers"),
        (np.zeros((4, 4), np.int16), "convert them to one of"),
        (np.zeros((0, 4), np.int32), "expected"),
    ],
    ids=["numbers with a point", "int16", "empty"],
)
def test_labels_that_cannot_be_kept(labels: np.ndarray, word: str, tmp_path: Path) -> None:
    table = wide_editor().table.iloc[:0]
    instances = Instances(labels, table)
    saved = Saved(Prediction(None, (), instances, (1.0, 1.0)), Reviewed((4, 4)))
    reference = reference_of(Image(np.zeros((4, 4)), "YX"), None, tmp_path)
    with (
        create_workspace(tmp_path / "w") as workspace,
        pytest.raises(WorkspaceError, match=word),
    ):
        workspace.add(reference, saved)
    assert not list((tmp_path / "w" / "entries").iterdir())


def test_several_images_lie_in_one_workspace(tmp_path: Path) -> None:
    with create_workspace(tmp_path / "w") as workspace:
        names = ["one.npy", "two.npy", "three.npy"]
        for name in names:
            add_to(workspace, tmp_path, wide_editor(), name)
        assert [entry.id for entry in workspace.entries] == ["0001", "0002", "0003"]
    found = open_workspace(tmp_path / "w").entries
    assert [entry.find_image().name for entry in found] == names


# -- who may open what -------------------------------------------------------------------------


def test_one_writes_and_others_read_meanwhile(tmp_path: Path) -> None:
    workspace, entry = filled(tmp_path, wide_editor())
    with pytest.raises(InUse, match="open in another window"):
        open_workspace(workspace.path, write=True)
    reading = open_workspace(workspace.path)
    assert reading.entries[0].load().labels.any()
    with pytest.raises(WorkspaceError, match="opened for reading"):
        reading.writer(entry)
    workspace.close()
    open_workspace(workspace.path, write=True).close()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: None, "no workspace"),
        (lambda path: path.mkdir(), "no workspace"),
        (lambda path: path.write_text("x"), "no workspace"),
    ],
    ids=["nothing", "an empty folder", "a file"],
)
def test_what_is_no_workspace(make: Callable[[Path], object], word: str, tmp_path: Path) -> None:
    make(tmp_path / "w")
    with pytest.raises(WorkspaceError, match=word):
        open_workspace(tmp_path / "w")


def test_a_workspace_is_made_in_an_empty_folder_only(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(WorkspaceError, match="not empty"):
        create_workspace(tmp_path)
    create_workspace(tmp_path / "w").close()
    with pytest.raises(WorkspaceError, match="open it"):
        create_workspace(tmp_path / "w")


# -- where the image is ------------------------------------------------------------------------


def _moved_together(folder: Path) -> Path:
    shutil.move(folder / "here", folder / "there")
    return folder / "there" / "tissue.coseg"


def _image_beside(folder: Path) -> Path:
    (folder / "here" / "pictures").mkdir()
    shutil.move(folder / "here" / "tissue.npy", folder / "here" / "tissue.coseg" / "tissue.npy")
    return folder / "here" / "tissue.coseg"


@pytest.mark.parametrize("move", [_moved_together, _image_beside])
def test_a_moved_workspace_finds_its_image(move: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    filled(tmp_path / "here", wide_editor())[0].close()
    (entry,) = open_workspace(move(tmp_path)).entries
    assert content_hash(entry.find_image()) == entry.image.content


def test_no_absolute_path_is_in_a_workspace(tmp_path: Path) -> None:
    workspace, _ = filled(tmp_path, wide_editor())
    workspace.close()
    files = [path for path in workspace.path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if str(tmp_path).encode() in path.read_bytes()]


def test_an_image_that_is_gone_is_asked_for(tmp_path: Path) -> None:
    workspace, entry = filled(tmp_path, wide_editor())
    workspace.close()
    place = tmp_path / "elsewhere" / "renamed.npy"
    place.parent.mkdir()
    shutil.move(tmp_path / "tissue.npy", place)
    with pytest.raises(ImageNotFound, match="say where it is") as caught:
        entry.find_image()
    assert caught.value.expected == entry.image
    assert entry.find_image(also=[place]) == place


def test_another_image_of_that_name_is_not_taken(tmp_path: Path) -> None:
    workspace, entry = filled(tmp_path, wide_editor())
    workspace.close()
    np.save(tmp_path / "tissue.npy", np.zeros((600, 600), np.uint8))
    with pytest.raises(ImageNotFound, match="another content"):
        entry.find_image()


def test_an_image_in_no_file_is_kept_inside(tmp_path: Path) -> None:
    editor = wide_editor()
    pixels = np.random.default_rng(0).integers(0, 9, (*editor.labels.shape, 3), np.uint8)
    with create_workspace(tmp_path / "w") as workspace:
        reference = reference_of(Image(pixels, "YXC"), None, workspace.path)
        workspace.add(reference, saved_of(editor), pixels)
    shutil.move(tmp_path / "w", tmp_path / "v")
    (entry,) = open_workspace(tmp_path / "v").entries
    np.testing.assert_array_equal(np.load(entry.find_image()), pixels)


@pytest.mark.parametrize("size", [10, 5000], ids=["whole", "in samples"])
def test_a_hash_sees_size_beginning_and_end(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "WHOLE_UP_TO", 1000)
    monkeypatch.setattr(image, "SAMPLE_BYTES", 8)
    data = bytes(range(256)) * 20
    path = tmp_path / "image"
    hashes = set()
    for content in (data[:size], data[: size - 1], b"x" + data[1:size], data[: size - 1] + b"x"):
        path.write_bytes(content)
        hashes.add(content_hash(path))
    assert len(hashes) == 4
    assert {one.method for one in hashes} == {"blake2b" if size < 1000 else "blake2b-sampled"}


def test_marks_told_before_areas_had_kinds_count_for_both(tmp_path: Path) -> None:
    editor = wide_editor()
    entry = filled(tmp_path, editor)[1]
    replay = Replay(entry.facts, InMemory(editor.labels), None, {}, Reviewed(editor.labels.shape))
    replay.take(Record("reviewed", {}, {"ids": np.array([7]), "runs": np.array([[2, 5]])}))
    assert replay.reviewed.ids == {7}
    assert replay.reviewed.regions.runs.tolist() == [[2, 5]]


# -- the journal itself ------------------------------------------------------------------------


def test_records_come_back_from_the_journal(tmp_path: Path) -> None:
    editor = wide_editor()
    told = [
        *records.of_edit(EDITS["add over chunks"](editor), editor.labels.shape),
        records.of_block("regions", (slice(0, 2), slice(3, 5)), editor.regions[0:2, 3:5]),
        records.of_reviewed(Reviewed(editor.labels.shape).with_objects([4])),
        records.of_classes(editor.classes, ()),
    ]
    journal = JournalFile(tmp_path / "journal")
    journal.append_packed(b"".join(map(framed, told)))
    journal.close()
    found = list(read_journal(tmp_path / "journal", pytest.fail))
    assert [one.kind for one in found] == ["pixels", "rows", "block", "reviewed", "classes"]
    for before, after in zip(told, found, strict=True):
        assert before.about == after.about
        for name, values in before.arrays.items():
            np.testing.assert_array_equal(values, after.arrays[name])


def test_a_large_edit_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PIXELS_AT_ONCE", 100)
    monkeypatch.setattr(records, "ROWS_AT_ONCE", 7)
    editor = wide_editor()
    edit = delete(editor, editor.index.ids.tolist())
    parts = list(records.of_edit(edit, editor.labels.shape))
    pixels = [len(part.arrays["values"]) for part in parts if part.kind == "pixels"]
    gone = [len(part.arrays["removed"]) for part in parts if part.kind == "rows"]
    assert max(pixels) == 100 and sum(pixels) == len(edit.new_values)
    assert max(gone) == 7 and sum(gone) == len(editor.index)
