"""Files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_coseg.core.errors import OutputError


@contextmanager
def atomic_write(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` when all went well, and is gone otherwise.

    Raises
    ------
    OutputError
        Where the file exists and may not be overwritten, or the disk refuses.
    """
    refuse_existing([path], overwrite)
    passing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield passing
        os.replace(passing, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written ({reason}); choose another folder or make room"
        ) from error
    finally:
        with suppress(OSError):
            passing.unlink()


@contextmanager
def written_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """As `written`, for formats that are a folder; an older one goes when the new one is whole."""
    refuse_existing([path], overwrite)
    passing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    older = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield passing
        if path.exists():
            os.replace(path, older)
        try:
            os.replace(passing, path)
        except OSError:
            if older.exists():
                os.replace(older, path)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written ({reason}); choose another folder or make room"
        ) from error
    finally:
        shutil.rmtree(passing, ignore_errors=True)
        if older.is_dir():
            shutil.rmtree(older, ignore_errors=True)
        else:
            older.unlink(missing_ok=True)


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Raise `OutputError` naming the first of `paths` that is there already."""
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputError(
                f"{path} is there already; choose another folder, or say that it may be overwritten"
            )
