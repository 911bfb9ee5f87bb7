"""Write files and folders beside their place and move them there, so that they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_coseg.core.errors import CosegError, OutputError


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder, and move it to `path` when all went well.

    Parameters
    ----------
    durable
        Wait until the bytes and the new name are on the disk.

    Raises
    ------
    OSError
        Where the file system refuses; the temporary file is removed.
    """
    partial = _beside(path, "tmp")
    try:
        yield partial
        if durable:
            sync(partial)
        os.replace(partial, path)
        if durable:
            sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def atomic_write(
    path: Path,
    overwrite: bool = False,
    *,
    error: type[CosegError] = OutputError,
    failures: tuple[type[Exception], ...] = (),
) -> Iterator[Path]:
    """`replacing`, with folders made and failures raised as errors that a user can read.

    Parameters
    ----------
    error
        Class of the error to raise.
    failures
        Further exceptions, beside `OSError`, that mean that writing failed.

    Raises
    ------
    OutputError
        Or `error`, where the file exists and may not be overwritten, or cannot be written.
    """
    refuse_existing([path], overwrite, error)
    expected: tuple[type[Exception], ...] = (OSError, *failures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
    except expected as failure:
        raise error(_cannot_write(path, failure)) from failure


@contextmanager
def atomic_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """`atomic_write` for a folder; an older one is removed once the new one is in its place.

    Raises
    ------
    OutputError
        Where the folder exists and may not be overwritten, or cannot be written.
    """
    refuse_existing([path], overwrite)
    partial, older = _beside(path, "tmp"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if path.exists():
            os.replace(path, older)
        try:
            os.replace(partial, path)
        except OSError:
            if older.exists():
                os.replace(older, path)
            raise
    except OSError as failure:
        raise OutputError(_cannot_write(path, failure)) from failure
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if older.is_dir():
            shutil.rmtree(older, ignore_errors=True)
        else:
            older.unlink(missing_ok=True)


def refuse_existing(
    paths: list[Path], overwrite: bool, error: type[CosegError] = OutputError
) -> None:
    """Raise `OutputError`, or `error`, for the first path that exists, unless `overwrite`."""
    for path in paths:
        if path.exists() and not overwrite:
            raise error(f"{path} already exists; choose another name, or allow overwriting")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; a missing one is ignored.

    Raises
    ------
    OSError
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def _cannot_write(path: Path, failure: Exception) -> str:
    reason = getattr(failure, "strerror", None) or str(failure)
    return f"{path} cannot be written ({reason}); choose another folder, or free some space"
