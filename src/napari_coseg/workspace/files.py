"""Files of a workspace: whole or not there, of a size that was checked, never links."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.files import replacing

LARGEST_JSON = 256 * 2**20
"""Bytes. Marks of a large image are the longest there are."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the disk is read-only; save into another folder",
    errno.EACCES: "the folder may not be written; change its permissions, or save into another",
    errno.EPERM: "the folder may not be written; change its permissions, or save into another",
    errno.ENOENT: "the folder is gone; bring it back, or save into another",
}


@contextmanager
def refusals(path: Path, verb: str = "written") -> Iterator[None]:
    """Turn what the disk refuses into a `WorkspaceError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) if verb == "written" else None
        reason = reason or error.strerror or str(error)
        raise WorkspaceError(f"{path} cannot be {verb}: {reason}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step, after its bytes are on the disk. Raises `OSError`."""
    with replacing(path, durable=True) as partial:
        partial.write_bytes(data)


def write_json(path: Path, values: Any) -> None:
    """Replace a file by JSON in one step. Raises `OSError`, `WorkspaceError` for other values."""
    try:
        text = json.dumps(values, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WorkspaceError(f"{path.name} holds plain JSON values only: {error}") from error
    write_whole(path, text.encode())


def checked_size(path: Path, largest: int, what: str) -> int:
    """Bytes of a plain file.

    Raises
    ------
    WorkspaceError
        Where it is missing, no plain file (a link, a pipe), or larger than `largest`.
    """
    with refusals(path, "read"):
        found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise WorkspaceError(f"{path} is no plain file; a workspace holds no links and no devices")
    if found.st_size > largest:
        raise WorkspaceError(
            f"{path} has {found.st_size:,} bytes, more than the {largest:,} that {what} can have; "
            "the workspace is damaged or was not made by napari-coseg"
        )
    return found.st_size


def read_json(path: Path, what: str, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """An object of JSON.

    Raises
    ------
    WorkspaceError
        Where the file is missing, too large, or holds something else.
    """
    checked_size(path, largest, what)
    try:
        with refusals(path, "read"):
            values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"{path} is damaged: {what} cannot be read ({error}); bring it back from a backup"
        ) from error
    if not isinstance(values, dict):
        raise WorkspaceError(f"{path} is damaged: expected {what}, got {type(values).__name__}")
    return values


def refuse_links(folder: Path) -> None:
    """See that nothing below a folder is a link, which could lead reading and writing elsewhere.

    Raises
    ------
    WorkspaceError
        Naming the first link.
    """
    with refusals(folder, "read"):
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(parent, name)
                if path.is_symlink():
                    raise WorkspaceError(
                        f"{path} is a link; a workspace holds none. Put the file itself there"
                    )
