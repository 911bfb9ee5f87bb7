"""A workspace: make one, open one, add images to it, write to it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import napari_coseg
from napari_coseg.core.errors import CosegError, WorkspaceError
from napari_coseg.workspace import arrays
from napari_coseg.workspace.entry import (
    IMAGE,
    LABELS,
    REGIONS,
    Entry,
    write_generation,
)
from napari_coseg.workspace.facts import (
    LABEL_DTYPES,
    EntryFacts,
    WorkspaceFacts,
    class_facts,
    image_facts,
    read_workspace_facts,
)
from napari_coseg.workspace.files import refusals, refuse_links, write_json
from napari_coseg.workspace.image import ImageReference, content_hash
from napari_coseg.workspace.saved import Saved
from napari_coseg.workspace.writer import EntryWriter

WORKSPACE, ENTRIES, LOCK = "workspace.json", "entries", "lock"
LARGEST_KEPT_IMAGE = 4 * 2**30
_ENTRY_NAME = re.compile(r"\d{4,8}")


class Workspace:
    """An open workspace. Get one from `create_workspace` or `open_workspace`, and `close` it.

    Parameters
    ----------
    path
        Its folder.
    entries
        Its images, in the order they were added.
    damaged
        Why an entry is not among them, by the name of its folder.
    is_writable
        Whether it was opened for writing, which one process at a time can.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self.path = path
        self.is_writable = write
        self._lock = _locked(path) if write else None
        self._writers: dict[str, EntryWriter] = {}
        try:
            self.entries, self.damaged = _entries(path)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, image: ImageReference, saved: Saved, pixels: np.ndarray | None = None) -> Entry:
        """Add an image's labels as an entry, whole or not at all.

        Parameters
        ----------
        image
            As `reference_of` makes it.
        saved
            Copied to the disk; later edits go to the entry's `writer`.
        pixels
            Of an image that is in no file: kept in the entry.

        Raises
        ------
        WorkspaceError
            Where labels cannot be kept, the workspace was opened for reading, or the disk refuses.
        """
        self._check_writable()
        folder = self.path / ENTRIES
        taken = [*(entry.id for entry in self.entries), *self.damaged]
        number = 1 + max(map(int, taken), default=0)
        passing, place = folder / f".{number:04d}.tmp", folder / f"{number:04d}"
        with refusals(place):
            shutil.rmtree(passing, ignore_errors=True)
            passing.mkdir()
            try:
                if pixels is not None:
                    image = _kept(image, pixels, passing)
                _write_new(passing, image, saved)
                passing.rename(place)
            finally:
                shutil.rmtree(passing, ignore_errors=True)
        entry = Entry(place, self.path)
        self.entries = (*self.entries, entry)
        return entry

    def writer(self, entry: Entry, *, salvage: bool = False) -> EntryWriter:
        """The one writer of an entry, made at the first call. Closed with the workspace.

        Parameters
        ----------
        salvage
            Set a damaged journal aside and go on from what is whole of it.
        """
        self._check_writable()
        if entry.id not in self._writers:
            self._writers[entry.id] = EntryWriter(entry.folder, salvage=salvage)
        return self._writers[entry.id]

    def flush(self) -> None:
        """Wait until all edits are on the disk; raises `CosegError` where it refuses."""
        for writer in list(self._writers.values()):
            writer.flush()

    def close(self, *, wait_s: float = 60) -> None:
        """Write what is left, and let others write.

        Raises
        ------
        CosegError
            Where the disk refuses; the workspace is closed all the same.
        """
        writers, self._writers = self._writers, {}
        errors = []
        for writer in writers.values():
            try:
                writer.close(wait_s)
            except CosegError as error:  # the others must be closed all the same
                errors.append(error)
        self._release()
        if errors:
            raise errors[0]

    def _release(self) -> None:
        self.is_writable = False
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _check_writable(self) -> None:
        if not self.is_writable:
            raise WorkspaceError(f"{self.path} was opened for reading; open it for writing")


def create_workspace(path: str | Path) -> Workspace:
    """Make a workspace in a folder that is new or empty, and open it for writing.

    Raises
    ------
    WorkspaceError
        Where there is something already, or the folder cannot be written.
    """
    path = Path(path).expanduser().absolute()
    if (path / WORKSPACE).exists():
        raise WorkspaceError(f"{path} is a workspace already; open it")
    with refusals(path):
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise WorkspaceError(f"{path} is not empty; choose a new or an empty folder")
        (path / ENTRIES).mkdir()
        facts = WorkspaceFacts(made_by=f"napari-coseg {napari_coseg.__version__}")
        write_json(path / WORKSPACE, facts.model_dump(mode="json"))
    return Workspace(path, write=True)


def open_workspace(path: str | Path, *, write: bool = False) -> Workspace:
    """Open a workspace, the folder that keeps labels and corrections of images.

    Parameters
    ----------
    path
        The workspace's folder.
    write
        Lock it, so that edits can be written. For reading no lock is needed, even while another
        process writes it.

    Returns
    -------
    Workspace
        A context manager; its ``entries``, one per image, give labels, table and review marks.

    Raises
    ------
    WorkspaceError
        Where there is none, it is damaged or holds links, or (for writing) another has it open or
        the folder is read-only.
    """
    path = Path(path).expanduser().absolute()
    if not (path / WORKSPACE).is_file():
        raise WorkspaceError(f"{path} is no workspace: it has no {WORKSPACE}")
    refuse_links(path)
    read_workspace_facts(path / WORKSPACE)
    return Workspace(path, write=write)


def _entries(path: Path) -> tuple[tuple[Entry, ...], dict[str, WorkspaceError]]:
    """The entries, and those that are damaged; one of them keeps nobody from the others."""
    folder = path / ENTRIES
    with refusals(folder, "read"):
        folders = sorted(one for one in folder.iterdir() if _ENTRY_NAME.fullmatch(one.name))
    entries, damaged = [], {}
    for one in folders:
        try:
            entries.append(Entry(one, path))
        except WorkspaceError as error:
            damaged[one.name] = error
    if damaged and not entries:
        raise next(iter(damaged.values()))
    return tuple(entries), damaged


def is_in_use(path: Path) -> bool:
    """Whether somebody has the workspace open for writing."""
    try:
        _locked(path).release()
    except WorkspaceError as error:
        return isinstance(error, InUse)
    return False


class InUse(WorkspaceError):
    """A workspace that another window or program has open for writing."""


def _locked(path: Path) -> Any:
    from filelock import FileLock, Timeout

    # Not of one thread: a workspace may be opened in one and closed in another.
    lock = FileLock(path / LOCK, timeout=0, thread_local=False)
    with refusals(path):
        try:
            lock.acquire()
        except Timeout as error:
            raise InUse(
                f"{path} is open in another window or program; close it there first"
            ) from error
    return lock


def _write_new(folder: Path, image: ImageReference, saved: Saved) -> None:
    """All files of a new entry. Raises `OSError`, and `WorkspaceError` for what cannot be kept."""
    labels = _keepable(saved.labels, "labels")
    arrays.create(folder / LABELS, labels)
    regions_dtype = None
    if saved.regions is not None:
        regions = _keepable(saved.regions, "regions")
        if regions.shape != labels.shape:
            raise WorkspaceError(
                f"regions have shape {regions.shape}, labels {labels.shape}; they must be alike"
            )
        arrays.create(folder / REGIONS, regions)
        regions_dtype = str(regions.dtype)
    facts = EntryFacts.from_mapping(
        {
            "image": image_facts(image),
            "shape": labels.shape,
            "offset": saved.prediction.offset,
            "labels_dtype": str(labels.dtype),
            "regions_dtype": regions_dtype,
            "pixel_size_um": saved.pixel_size_um,
            "geometry": saved.prediction.geometry.as_json(),
            "classes": class_facts(saved.classes),
            "region_classes": class_facts(saved.region_classes),
            "provenance": saved.provenance,
        }
    )
    write_generation(folder, facts, saved.table, saved.reviewed)


def _keepable(labels: np.ndarray, what: str) -> np.ndarray:
    if labels.ndim not in (2, 3) or not labels.size:
        raise WorkspaceError(f"{what} have shape {labels.shape}; expected (Y, X) or (Z, Y, X)")
    if labels.dtype.name in LABEL_DTYPES:
        return labels
    if labels.dtype.kind not in "iub":
        raise WorkspaceError(f"{what} are of type {labels.dtype}; convert them to whole numbers")
    raise WorkspaceError(
        f"{what} are of type {labels.dtype}; convert them to one of {', '.join(LABEL_DTYPES)}"
    )


def _kept(image: ImageReference, pixels: np.ndarray, folder: Path) -> ImageReference:
    """Keep an image that is in no file; returns what refers to it."""
    from dataclasses import replace

    if pixels.nbytes > LARGEST_KEPT_IMAGE:
        raise WorkspaceError(
            f"the image {image.name!r} is in no file and has {pixels.nbytes:,} bytes; save it as a "
            "file first, and open that"
        )
    path = folder / IMAGE
    np.save(path, np.ascontiguousarray(pixels), allow_pickle=False)
    place = f"{ENTRIES}/{folder.name.strip('.').removesuffix('.tmp')}/{IMAGE}"
    return replace(image, path=place, file_name=IMAGE, content=content_hash(path))
