"""The image of an entry: remembered and found again by a relative path and by its content.

Content is hashed with BLAKE2b. A file up to 64 MiB is hashed whole (``blake2b``); of a larger one
the size, the first and last MiB and 62 more at equal distances are (``blake2b-sampled``), so that
a slide of 10 GB takes as long as a photograph. Two slides that differ only between the samples
would be taken for one another; scanners do not write such files. An array that is in no file is
kept in the entry as ``image.npy`` and hashed as that file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image
from napari_coseg.workspace.files import refusals

WHOLE_UP_TO = 64 * 2**20
SAMPLE_BYTES = 2**20
SAMPLES = 64
MOST_PARENTS = 3
"""So many folders up an image may lie, seen from the workspace. More would spell out a machine's
folders, and would let a folder from a stranger point anywhere."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ContentHash:
    """What tells one file from another.

    method  ``blake2b`` of all bytes, or ``blake2b-sampled`` (see the top of this file)
    size    bytes of the file
    digest  64 hexadecimal digits
    """

    method: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        if self.method not in ("blake2b", "blake2b-sampled") or not _DIGEST.fullmatch(self.digest):
            raise WorkspaceError(
                f"an image's hash {self.method!r} {self.digest[:70]!r} is not understood; the "
                "workspace is damaged, or of a newer version of napari-coseg"
            )


@dataclass(frozen=True)
class ImageReference:
    """An image as a workspace remembers it.

    Parameters
    ----------
    name
        As shown to people.
    path
        Relative to the workspace's folder, with slashes; None where the image was too far away
        for that, and then it is looked for by `file_name`, or asked for.
    file_name
        Of the image, without folders.
    axes, shape
        Of the array, as in `Image`; `shape` names every axis.
    pixel_size_um
        As it was taken, in micrometres along the spatial axes; None where nobody knew.
    content
        None where it is not known; then only a person can say which file it is.
    geometry
        As it was taken; None in workspaces that are older than geometries.
    """

    name: str
    path: str | None
    file_name: str
    axes: str
    shape: tuple[int, ...]
    pixel_size_um: tuple[float, ...] | None = None
    content: ContentHash | None = None
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            check_relative(self.path)
        if PurePosixPath(self.file_name).name != self.file_name or "\\" in self.file_name:
            raise WorkspaceError(f"{self.file_name!r} is no name of a file; the entry is damaged")


class ImageNotFound(WorkspaceError):
    """The image of an entry is not where it was; `expected` says what to ask for."""

    def __init__(self, expected: ImageReference, looked_at: Iterable[Path], reason: str) -> None:
        self.expected = expected
        self.looked_at = tuple(looked_at)
        size = f", {expected.content.size:,} bytes" if expected.content else ""
        super().__init__(
            f"the image {expected.file_name!r} ({'x'.join(map(str, expected.shape))}{size}) was "
            f"not found: {reason}. Put it beside the workspace, or say where it is"
        )


def content_hash(path: Path) -> ContentHash:
    """Hash a file, in whole or in samples by its size.

    Raises
    ------
    WorkspaceError
        Where it cannot be read or is no plain file.
    """
    with refusals(path, "read"):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise WorkspaceError(f"{path} is no plain file; choose the file of the image")
        size = found.st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=32)
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    method = "blake2b" if size <= WHOLE_UP_TO else "blake2b-sampled"
    return ContentHash(method, size, digest.hexdigest())


def _starts(size: int) -> Iterable[int]:
    if size <= WHOLE_UP_TO:
        return range(0, size, SAMPLE_BYTES)
    last = size - SAMPLE_BYTES
    return [number * last // (SAMPLES - 1) for number in range(SAMPLES)]


def reference_of(image: Image, path: Path | None, workspace: Path) -> ImageReference:
    """How a workspace in the folder `workspace` remembers an image that is in the file `path`.

    Reads the file to hash it: up to 64 MiB. Without a path, give the reference to
    `Workspace.add` together with the array, which is then kept inside.
    """
    facts: dict[str, Any] = {
        "name": image.name,
        "axes": image.axes,
        "shape": tuple(int(n) for n in image.data.shape),
        "pixel_size_um": image.pixel_size_um,
        "geometry": image.geometry,
    }
    if path is None:
        return ImageReference(path=None, file_name="image.npy", **facts)
    return ImageReference(
        path=relative_path(path, workspace),
        file_name=path.name.replace("\\", "_"),
        content=content_hash(path),
        **facts,
    )


def relative_path(path: Path, workspace: Path) -> str | None:
    """From the workspace to a file, with slashes; None where it is too far away."""
    try:
        found = PurePosixPath(Path(os.path.relpath(path.resolve(), workspace.resolve())).as_posix())
    except ValueError:  # another drive of Windows
        return None
    too_far = found.parts.count("..") > MOST_PARENTS or "\\" in str(found)
    return None if too_far else str(found)


def check_relative(path: str) -> None:
    """Refuse what could lead out of the neighbourhood of a workspace.

    Raises
    ------
    WorkspaceError
        For absolute paths, drives, backslashes, and more than `MOST_PARENTS` folders up.
    """
    parts = path.split("/")
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    odd = any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in parts[up:])
    if odd or up > MOST_PARENTS or up == len(parts):
        raise WorkspaceError(
            f"the image's path {path!r} is refused: expected one relative to the workspace, at "
            f"most {MOST_PARENTS} folders up; the workspace is damaged or means no good"
        )


def find_image(reference: ImageReference, workspace: Path, also: Iterable[Path] = ()) -> Path:
    """Where the image is now: by its path, then by its name in the workspace, beside it and above.

    A file counts only if it has the content. Where that is not known, only what a person chose.

    Parameters
    ----------
    also
        Files or folders to look at first, as a person chose them.

    Raises
    ------
    ImageNotFound
    """
    places = [place / reference.file_name if place.is_dir() else place for place in also]
    if reference.content is not None:
        near = (workspace, *workspace.resolve().parents[:2])
        stated = [] if reference.path is None else [workspace / reference.path]
        places += [*stated, *(folder / reference.file_name for folder in near)]
    places = list(dict.fromkeys(places))
    others = []
    for place in places:
        if not place.is_file():
            continue
        if reference.content is None or _has_content(place, reference.content):
            return place
        others.append(place)
    reason = f"{others[0]} has another content" if others else "it is not where it was"
    raise ImageNotFound(reference, places, reason)


def _has_content(path: Path, expected: ContentHash) -> bool:
    try:
        return path.stat().st_size == expected.size and content_hash(path) == expected
    except (OSError, WorkspaceError):
        return False
