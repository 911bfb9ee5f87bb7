"""Folding a journal that a crash or a full disk ends half way, and that others read meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.label_editors import measured_anew
from cases.workspace_cases import filled, wide_editor
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.workspace import arrays, writer
from napari_coseg.workspace import entry as entry_module
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace, open_workspace
from napari_coseg.workspace.saved import Saved
from napari_coseg.workspace.writer import EntryWriter


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 0.01)


Paint = Callable[[LabelEditor, EntryWriter], None]


def _whole(image: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in image.shape)


def _grow(editor: LabelEditor, writing: EntryWriter) -> None:
    """Some other plugin lets object 1 grow to the right, over several chunks."""
    editor.labels[100:104] = 1
    writing.record_block("objects", _whole(editor.labels), editor.labels.copy())


def _grow_twice(editor: LabelEditor, writing: EntryWriter) -> None:
    """Object 1 grows, its row is written, and it grows again."""
    _grow(editor, writing)
    writing.record_rows([], measured_anew(editor).iloc[:1])
    editor.labels[300:304] = 1
    writing.record_block("objects", _whole(editor.labels), editor.labels.copy())


def _other_regions(editor: LabelEditor, writing: EntryWriter) -> None:
    assert editor.regions is not None
    editor.regions[:] = 1 + (np.arange(editor.regions.shape[1]) > 200)
    writing.record_block("regions", _whole(editor.regions), editor.regions.copy())


PAINTED = {"objects": _grow, "objects, twice": _grow_twice, "regions": _other_regions}


def assert_fits(saved: Saved, editor: LabelEditor) -> None:
    np.testing.assert_array_equal(saved.labels, editor.labels)
    assert saved.regions is not None and editor.regions is not None
    np.testing.assert_array_equal(saved.regions, editor.regions)
    pd.testing.assert_frame_equal(saved.table, measured_anew(editor))


def _painted(folder: Path, paint: Paint) -> tuple[Workspace, Entry, LabelEditor]:
    """A workspace whose journal tells of pixels, not of all the rows that go with them."""
    editor = wide_editor()
    workspace, entry = filled(folder, editor)
    paint(editor, workspace.writer(entry))
    workspace.flush()
    return workspace, entry, editor


def _refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _refusing_from(chunk: int) -> Callable[..., None]:
    """A disk that takes so many chunks, and no more."""
    real, left = arrays.sync, [chunk]

    def sync(path: Path) -> None:
        left[0] -= 1
        (_refuse if left[0] < 0 else real)(path)

    return sync


ENDS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before entry.json": lambda patch: patch.setattr(entry_module, "write_generation", _refuse),
    "behind the second chunk": lambda patch: patch.setattr(arrays, "sync", _refusing_from(2)),
}


@pytest.mark.parametrize("most_kept", [256, 1], ids=["all kept", "one chunk kept"])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("painted", PAINTED)
def test_a_fold_that_ends_half_way_leaves_rows_that_fit(
    painted: str, ends: str, most_kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays.Chunks, "MOST_KEPT", most_kept)
    workspace, entry, editor = _painted(tmp_path, PAINTED[painted])
    with monkeypatch.context() as patch:
        ENDS[ends](patch)
        workspace.close()  # all is in the journal
    assert entry.facts.generation == 1
    assert_fits(entry.load(), editor)
    with open_workspace(workspace.path, write=True) as again:
        again.writer(again.entries[0])
    found = open_workspace(workspace.path).entries[0]
    assert_fits(found.load(), editor)
    assert found.facts.generation > 1 and not found.facts.folding_ids


@pytest.mark.parametrize("painted", PAINTED)
def test_a_reader_during_a_fold_gets_rows_that_fit(
    painted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, entry, editor = _painted(tmp_path, PAINTED[painted])
    write = entry_module.write_generation
    seen: list[Saved] = []

    def reading(*arguments: Any) -> None:
        seen.append(entry.load())
        write(*arguments)

    monkeypatch.setattr(entry_module, "write_generation", reading)
    workspace.close()
    assert len(seen) == 1
    assert_fits(seen[0], editor)


def test_a_fold_that_began_between_facts_and_pixels_of_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, entry, editor = _painted(tmp_path, _grow)
    load = arrays.load

    def load_late(*arguments: Any) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(entry_module, "write_generation", _refuse)
            workspace.close()
        return load(*arguments)

    monkeypatch.setattr(arrays, "load", load_late)
    assert_fits(entry.load(), editor)


def test_a_fold_of_edits_alone_says_nothing_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits come with their rows; nothing would have to be measured anew."""
    from napari_coseg.labels.editing.objects import delete

    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    workspace.writer(entry).record_edit(delete(editor, [1]))
    workspace.flush()
    monkeypatch.setattr(entry_module, "write_generation", _refuse)
    before = (entry.folder / "entry.json").read_bytes()
    workspace.close()
    assert (entry.folder / "entry.json").read_bytes() == before
