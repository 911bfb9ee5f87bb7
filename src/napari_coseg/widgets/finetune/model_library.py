"""Chosen weights files, their adapters, and which is in use, shared by all docks."""

from __future__ import annotations

from pathlib import Path

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_coseg.core.errors import CheckpointError, CosegError
from napari_coseg.inference.loading import weights_path
from napari_coseg.models.checkpoints.adapter_library import adapters_in, recall, remember
from napari_coseg.models.checkpoints.adapters import AdapterCard
from napari_coseg.models.checkpoints.native import file_sha256
from napari_coseg.widgets.run_in_thread import run_in_thread

HASHED_AT_ONCE = 64 << 20
"""Bytes; larger files are hashed in a thread."""
_HASHES: dict[tuple[str, int, int], str] = {}
_LIBRARIES: list[ModelLibrary] = []


class ModelLibrary(QObject):
    """Lists the folder of adapters, and notifies the docks when one is used.

    Signals
    -------
    changed()
        Adapters were added or removed.
    used(str, str)
        Hash of a base, and path of the adapter that is used with it from now on; "" for none.
    listed(str)
        Path of a weights file that was chosen in a dock, so that the others list it as well.
    """

    changed = Signal()
    used = Signal(str, str)
    listed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[str] = []
        """Paths of weights files, in the order they were chosen."""
        self._in_use: dict[str, str] = {}
        self._hashing: set[Path] = set()

    def list_weights(self, path: str | Path) -> None:
        """Let all docks list a weights file."""
        if str(path) not in self.weights:
            self.weights.append(str(path))
            self.listed.emit(str(path))

    def of_base(self, source: str) -> list[tuple[Path, AdapterCard]]:
        """The adapters of the base that `source` names, the newest first.

        None of them until the hash of a large base is known; then `changed` follows.
        """
        sha256 = self.sha256(source)
        return adapters_in(base_sha256=sha256) if sha256 else []

    def sha256(self, source: str) -> str:
        """Of a base; "" where there is none, or until a large one is read (`changed` follows)."""
        try:
            path = weights_path(source)
            if _key(path) in _HASHES or path.stat().st_size <= HASHED_AT_ONCE:
                return base_sha256(source)
        except CheckpointError:
            return ""
        if path not in self._hashing:
            self._hashing.add(path)

            def ended(_: object) -> None:
                self._hashing.discard(path)
                self.changed.emit()

            run_in_thread(base_sha256, source, done=ended, failed=ended)
        return ""

    def in_use(self, source: str) -> str:
        """Path of the adapter in use with a base, in this session or remembered; "" for none."""
        sha256 = self.sha256(source)
        if sha256 and sha256 not in self._in_use:
            self._in_use[sha256] = _recalled(sha256)
        path = self._in_use.get(sha256, "")
        return path if path and Path(path).is_file() else ""

    def use(self, sha256: str, path: str | Path | None) -> None:
        """Use this adapter, or none, with the base of this hash, also after a restart."""
        self._in_use[sha256] = str(path or "")
        _remember(sha256, path)
        self.changed.emit()
        self.used.emit(sha256, str(path or ""))


def model_library() -> ModelLibrary:
    """The library of this program."""
    if not _LIBRARIES:
        _LIBRARIES.append(ModelLibrary())
    return _LIBRARIES[0]


def _recalled(sha256: str) -> str:
    """What was in use before the start; a warning, once, where it cannot be used."""
    try:
        return str(recall(sha256) or "")
    except CheckpointError as error:
        _warn(error)
        _remember(sha256, None)
        return ""


def _remember(sha256: str, path: str | Path | None) -> None:
    """Only the next start depends on it, so a failure to write is a warning."""
    try:
        remember(sha256, path)
    except CosegError as error:
        _warn(error)


def _warn(error: CosegError) -> None:
    message = str(error)
    show_warning(message[:1].upper() + message[1:])


def base_sha256(source: str) -> str:
    """Hash of the weights file that `source` names; computed again where the file has changed.

    Raises
    ------
    CheckpointError
        Where there is no such file.
    """
    path = weights_path(source)
    key = _key(path)
    if key not in _HASHES:
        _HASHES[key] = file_sha256(path)
    return _HASHES[key]


def _key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size
