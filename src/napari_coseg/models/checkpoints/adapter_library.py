"""The user's adapters on disk: which there are, and which one is used with which base.

The latter is remembered in a small JSON file beside the adapters, which may have been edited or
come from elsewhere: only adapters in the same folder are taken from it, and only if they still fit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from napari_coseg.core.errors import CheckpointError, OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.models.checkpoints.adapters import AdapterCard, read_adapter_card

FOLDER_VARIABLE = "NAPARI_COSEG_ADAPTERS"
SUFFIX = ".safetensors"
IN_USE_FILE = "in-use.json"
LARGEST_BYTES = 1 << 20
MOST_BASES = 1000
_SHA256 = re.compile("[0-9a-f]{64}")


def adapters_folder() -> Path:
    """Where adapters are kept unless one says otherwise; it may not exist yet."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("napari-coseg", appauthor=False) / "adapters"


def copy_adapter(source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Copy a file; it appears whole or not at all.

    Raises
    ------
    OutputError
        Where `output` exists and may not be replaced, or the disk refuses.
    """
    same = output.exists() and output.samefile(source)
    with atomic_write(output, overwrite=overwrite and not same) as partial:
        shutil.copyfile(source, partial)


def adapters_in(
    folders: Iterable[Path] = (), base_sha256: str | None = None
) -> list[tuple[Path, AdapterCard]]:
    """The adapters in some folders (not below them), the newest first; other files are ignored.

    Parameters
    ----------
    folders
        `adapters_folder` where none are named.
    base_sha256
        Only those of this base.
    """
    found = []
    for folder in tuple(folders) or (adapters_folder(),):
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            try:
                card = read_adapter_card(path)
            except CheckpointError:
                continue
            if base_sha256 in (None, card.base_sha256):
                found.append((path, card))
    return sorted(found, key=lambda entry: entry[1].date, reverse=True)


def recall(base_sha256: str) -> Path | None:
    """The adapter that was remembered for a base; None where none was.

    A file that cannot be read remembers nothing.

    Raises
    ------
    CheckpointError
        If the adapter is gone, broken or of another base. Then call `remember` with None, so that
        this is raised once.
    """
    name = _read().get(base_sha256)
    if name is None:
        return None
    path = adapters_folder() / name
    no_longer = f"the adapter {path.stem}, in use before, is no longer used"
    if not path.is_file():
        raise CheckpointError(f"{no_longer}: {path} is gone; choose another one, or train it again")
    try:
        card = read_adapter_card(path)
    except CheckpointError as error:
        raise CheckpointError(f"{no_longer}: {error}") from error
    if card.base_sha256 != base_sha256:
        raise CheckpointError(f"{no_longer}: {path} now adapts another base, {card.base_name!r}")
    return path


def remember(base_sha256: str, adapter: str | Path | None) -> None:
    """Remember the adapter of a base, or that it has none.

    One outside the adapters' folder is not remembered: it is not among those that are listed.

    Raises
    ------
    OutputError
        Where the disk refuses.
    """
    before = _read()
    listed = {sha256: name for sha256, name in before.items() if sha256 != base_sha256}
    if adapter and Path(adapter).parent == adapters_folder():
        listed[base_sha256] = Path(adapter).name
    if listed != before:
        kept = dict(list(listed.items())[-MOST_BASES:])
        try:
            with atomic_write(adapters_folder() / IN_USE_FILE, overwrite=True) as partial:
                partial.write_text(json.dumps({"in_use": kept}, indent=1), encoding="utf-8")
        except OutputError as error:
            raise OutputError(f"which adapter is in use cannot be remembered: {error}") from error


def _read() -> dict[str, str]:
    """Names of files by the hashes of their bases; anything else in the file is ignored."""
    path = adapters_folder() / IN_USE_FILE
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_BYTES:
            return {}
        listed = json.loads(path.read_text(encoding="utf-8"))["in_use"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        sha256: name
        for sha256, name in listed
        if _SHA256.fullmatch(sha256) and isinstance(name, str) and _is_file_name(name)
    }


def _is_file_name(name: str) -> bool:
    """Whether it is of a file in the folder itself, as adapters are called."""
    plain = not set(name) & set("/\\:\0") and not name.startswith(".")
    return plain and name.endswith(SUFFIX) and len(name) < 256
