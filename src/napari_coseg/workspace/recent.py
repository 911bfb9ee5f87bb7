"""Recently opened workspaces of this machine, and whether they were closed.

Kept in a small file in the user's state folder, with the absolute paths that no workspace has.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_coseg.core.errors import CosegError
from napari_coseg.workspace.files import read_json, write_whole
from napari_coseg.workspace.folder import WORKSPACE, is_in_use

MOST = 8
_LARGEST = 2**20
PLACE_VARIABLE = "NAPARI_COSEG_STATE"
"""Environment variable that names another folder for this file."""


@dataclass(frozen=True)
class Recent:
    """A workspace that was open.

    path     its folder
    opened   seconds since 1970
    is_open  whether it was not closed since: napari was killed, or has it open
    """

    path: str
    opened: float
    is_open: bool

    @property
    def is_there(self) -> bool:
        return Path(self.path, WORKSPACE).is_file()


def recent() -> list[Recent]:
    """The latest first, those that are still there. A file that cannot be read is an empty one."""
    try:
        listed = read_json(_place(), "the recent workspaces", _LARGEST)["workspaces"]
        found = [Recent(str(e["path"]), float(e["opened"]), bool(e["is_open"])) for e in listed]
    except (CosegError, KeyError, TypeError, ValueError):
        return []
    return [one for one in found if one.is_there]


def unfinished() -> list[Recent]:
    """Those that were never closed and that nobody has open now."""
    return [one for one in recent() if one.is_open and not is_in_use(Path(one.path))]


def opened(path: Path) -> None:
    """Remember that a workspace is open."""
    _put(Recent(str(path), time.time(), True))


def closed(path: Path) -> None:
    """Remember that it was closed in good order."""
    _put(Recent(str(path), time.time(), False))


def forget(path: Path) -> None:
    """Do not offer it again."""
    _write([one for one in recent() if one.path != str(path)])


def _put(one: Recent) -> None:
    others = [other for other in recent() if other.path != one.path]
    _write([one, *others][:MOST])


def _write(listed: list[Recent]) -> None:
    """Nothing depends on this file, so a disk that refuses it is no error."""
    place = _place()
    text = json.dumps({"workspaces": [asdict(one) for one in listed]}, indent=1)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, text.encode())


def _place() -> Path:
    from platformdirs import user_state_path

    other = os.environ.get(PLACE_VARIABLE)
    return (Path(other) if other else user_state_path("napari-coseg")) / "workspaces.json"
