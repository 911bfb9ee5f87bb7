"""Writing while the disk refuses, after the process was killed, and while others read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.workspace_cases import DESKS, add_to, assert_same, filled, wide_editor
from napari_coseg.core.errors import WorkspaceError
from napari_coseg.labels.editing.objects import delete
from napari_coseg.workspace import journal, recent, writer
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import create_workspace, open_workspace

REFUSALS = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    "read-only": (OSError(errno.EROFS, "Read-only file system"), "read-only"),
    "no right": (OSError(errno.EACCES, "Permission denied"), "may not be written"),
    "gone": (OSError(errno.ENOENT, "No such file or directory"), "the folder is gone"),
    "broken": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 0.01)
    monkeypatch.setattr(writer, "RETRY_S", 0.05)


def _until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < ends, "waited for too long"
        time.sleep(0.01)


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("place", ["fsync", "write"])
def test_what_a_disk_refuses_stays_in_memory_and_is_written_later(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal, word = REFUSALS[name]
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writing = workspace.writer(entry)
    first, second = delete(editor, [1]), delete(editor, [2])
    editor.apply(first)
    writing.record_edit(first)
    writing.flush()
    before = entry.load()

    def refuse(*_: Any) -> None:
        raise refusal

    with monkeypatch.context() as patch:
        if place == "fsync":
            patch.setattr(os, "fsync", refuse)
        else:
            patch.setattr(journal.JournalFile, "append_packed", refuse)
        editor.apply(second)
        writing.record_edit(second)
        _until(lambda: writing.state.error is not None)
        with pytest.raises(WorkspaceError, match=word):
            writing.flush()
        assert writing.state.waiting == 1
        np.testing.assert_array_equal(entry.load().labels, before.labels)
    _until(lambda: writing.state.error is None)
    assert_same(entry.load(), editor)
    assert writing.state.waiting == 0
    workspace.close()
    assert_same(entry.load(), editor)


def test_a_part_of_a_record_that_was_written_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes some bytes before it refuses the rest."""
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writing = workspace.writer(entry)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        edit = delete(editor, [1])
        editor.apply(edit)
        writing.record_edit(edit)
        writing.flush()
        file = writing._journal._file

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: memoryview) -> int:
                if len(data) < 20:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return file.write(data[: len(data) // 2])

        writing._journal._file = Full()
        edit = delete(editor, [2])
        editor.apply(edit)
        writing.record_edit(edit)
        _until(lambda: writing.state.error is not None)
        writing._journal._file = file
    writing.flush()
    assert_same(entry.load(), editor)
    assert not entry.notes
    workspace.close()


@pytest.mark.parametrize("place", ["arrays.Chunks.write", "entry.write_table", "entry.write_json"])
def test_folding_that_a_disk_refuses_loses_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    edit = delete(editor, [1, 2])
    editor.apply(edit)
    workspace.writer(entry).record_edit(edit)
    workspace.writer(entry).flush()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"napari_coseg.workspace.{place}", refuse)
        workspace.close()  # all is in the journal
    assert_same(entry.load(), editor)
    assert list(entry.folder.glob("journal-*"))
    with open_workspace(workspace.path, write=True) as again:
        edit = delete(editor, [3])
        editor.apply(edit)
        again.writer(again.entries[0]).record_edit(edit)
    assert_same(entry.load(), editor)
    assert not list(entry.folder.glob("journal-*"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    workspace, _ = filled(tmp_path, wide_editor())
    workspace.close()
    for path in (workspace.path, *workspace.path.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert open_workspace(workspace.path).entries[0].load().labels.any()
    with pytest.raises(WorkspaceError, match="may not be written"):
        open_workspace(workspace.path, write=True)


@pytest.mark.parametrize("place", ["arrays.create", "entry.write_table", "entry.write_json"])
def test_adding_where_the_disk_refuses_leaves_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with create_workspace(tmp_path / "w") as workspace:
        monkeypatch.setattr(f"napari_coseg.workspace.{place}", refuse)
        with pytest.raises(WorkspaceError, match="the disk is full"):
            add_to(workspace, tmp_path, wide_editor())
        assert not list((workspace.path / "entries").iterdir())
        assert not workspace.entries


def test_a_change_that_cannot_be_told_does_not_keep_others_from_the_disk(tmp_path: Path) -> None:
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writing = workspace.writer(entry)
    edit = delete(editor, [1])
    writing._tell("odd", lambda: [1 / 0])
    editor.apply(edit)
    writing.record_edit(edit)
    with pytest.raises(WorkspaceError, match="could not be saved"):
        writing.flush()
    assert_same(entry.load(), editor)
    with pytest.raises(WorkspaceError, match="could not be saved"):
        workspace.close()


def test_a_long_journal_is_folded_while_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FOLD_ABOVE", 2000)
    editor = wide_editor()
    workspace, entry = filled(tmp_path, editor)
    writing = workspace.writer(entry)
    reading = Entry(entry.folder, entry.workspace)
    for one in editor.index.ids[:12].tolist():
        edit = delete(editor, [one])
        editor.apply(edit)
        writing.record_edit(edit)
        writing.flush()
        assert_same(reading.load(), editor)
    assert reading.facts.generation > 1
    workspace.close()


# -- kill -9 -----------------------------------------------------------------------------------

KILLED = """
import sys, time
sys.path[:0] = {path!r}
from napari_coseg.labels.editing.objects import delete
from napari_coseg.workspace import writer
from napari_coseg.workspace.folder import open_workspace
from cases.workspace_cases import DESKS
writer.FOLD_ABOVE = {fold_above}
editor = DESKS[{kind!r}]()
workspace = open_workspace({folder!r}, write=True)
writing = workspace.writer(workspace.entries[0])
for number, one in enumerate(editor.index.ids.tolist()):
    edit = delete(editor, [one])
    editor.apply(edit)
    writing.record_edit(edit)
    if number < {sure}:
        writing.flush()
        print(number + 1, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("fold_above", [2**30, 500], ids=["journal", "folding all the time"])
@pytest.mark.parametrize("kind", DESKS)
def test_kill_9_loses_nothing_that_was_on_the_disk(
    kind: str, fold_above: int, tmp_path: Path
) -> None:
    editor = DESKS[kind]()
    workspace, entry = filled(tmp_path, editor)
    workspace.close()
    code = KILLED.format(
        path=sys.path, folder=str(workspace.path), kind=kind, fold_above=fold_above, sure=6
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        for line in process.stdout:
            if int(line) == 6:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    done = len(editor.index) - len(entry.load().table)
    assert done >= 6
    for one in editor.index.ids[:done].tolist():
        editor.apply(delete(editor, [one]))
    assert_same(entry.load(), editor)
    with open_workspace(workspace.path, write=True) as again:  # nobody holds the lock
        edit = delete(editor, editor.index.ids[:1].tolist())
        editor.apply(edit)
        again.writer(again.entries[0]).record_edit(edit)
    assert_same(entry.load(), editor)


# -- which were open lately --------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(recent.PLACE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state" / "workspaces.json"


def test_a_workspace_that_was_not_closed_is_offered(state: Path, tmp_path: Path) -> None:
    made = {}
    for name in ("one", "two", "three", "gone"):
        made[name] = workspace = create_workspace(tmp_path / name)
        recent.opened(workspace.path)
        if name == "one":
            recent.closed(workspace.path)
        if name != "two":
            workspace.close()
    (tmp_path / "gone" / "workspace.json").unlink()
    assert {Path(one.path).name for one in recent.recent()} == {"one", "two", "three"}
    # "one" was closed, "two" is open in another window
    assert [Path(one.path).name for one in recent.unfinished()] == ["three"]
    recent.forget(tmp_path / "three")
    assert not recent.unfinished()
    assert state.is_file()
    made["two"].close()


@pytest.mark.parametrize("content", ["", "[]", '{"workspaces": 3}', '{"workspaces": [{}]}'])
def test_a_broken_list_of_workspaces_is_an_empty_one(content: str, state: Path) -> None:
    state.parent.mkdir()
    state.write_text(content)
    assert recent.recent() == []
