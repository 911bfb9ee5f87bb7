"""One program at a time, and what becomes of those that come second."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from napari_coseg.core.locks import held, is_held

HOLDER = """
import sys
from pathlib import Path
from napari_coseg.core.locks import held
with held(Path(sys.argv[1]), 0, removed=True) as is_free:
    print(is_free, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def other(path: Path) -> Iterator[Any]:
    """Another program that holds the lock until a line is written to it."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stdout.readline() == "True\n"
        yield program
        program.kill()


def test_alone_one_waits_for_nobody(path: Path) -> None:
    def waiting() -> None:
        raise AssertionError("nobody else is there")

    assert not is_held(path)
    assert not path.exists(), "a question leaves nothing behind"
    with held(path, 0, waiting) as is_free:
        assert is_free and is_held(path)
    assert not is_held(path)


@pytest.mark.parametrize("patience_s", [0, 0.05])
def test_without_a_word_of_waiting_the_second_goes(
    other: Any, path: Path, patience_s: float
) -> None:
    assert is_held(path)
    with held(path, patience_s, removed=True) as is_free:
        assert not is_free
    assert path.exists(), "it is the other's"
    assert is_held(path)


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_who_waits_has_it_once_the_other_is_gone(other: Any, path: Path, killed: bool) -> None:
    told: list[int] = []

    def waiting() -> None:
        told.append(len(told))
        if len(told) == 2:
            if killed:
                other.kill()
                other.wait()
            else:
                other.communicate("\n")

    with held(path, 0.02, waiting) as is_free:
        assert is_free and is_held(path)
    assert told == [0, 1]


def test_waiting_ends_by_raising(other: Any, path: Path) -> None:
    def waiting() -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough") as raised, held(path, 0, waiting):
        pytest.fail("the other has it")
    assert raised.value.__context__ is None, "no tale of locks beside it"
    assert is_held(path)


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError()])
def test_a_file_system_that_knows_no_locks(
    error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    path.touch()
    with held(path, 0, removed=True) as first, held(path, 0) as second:
        assert first and second, "nobody is kept out"
    assert path.exists(), "it was not ours to delete"
    assert not is_held(path)
    with pytest.raises(type(error)), held(path, 0, needed=True):
        pytest.fail("it cannot be locked")


def test_the_file_is_removed_and_the_lock_let_go_after_an_error(path: Path) -> None:
    def work() -> None:
        with held(path, 0, removed=True):
            assert path.exists()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert not path.exists()
    with held(path, 0) as is_free:
        assert is_free
