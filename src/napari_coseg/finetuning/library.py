"""Adapters on the disk: where they are kept, and which there are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from napari_coseg.core.errors import CheckpointError, OutputError
from napari_coseg.models.checkpoints.adapters import AdapterCard, read_adapter_card

FOLDER_VARIABLE = "NAPARI_COSEG_ADAPTERS"
SUFFIX = ".safetensors"


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
        Where `output` is there already and may not be replaced, or the disk refuses.
    """
    if output.exists() and (not overwrite or output.samefile(source)):
        raise OutputError(f"{output} is there already; choose another name")
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def adapters_in(
    folders: Iterable[Path] = (), base_sha256: str | None = None
) -> list[tuple[Path, AdapterCard]]:
    """The adapters right in some folders, the newest first; other files are passed over.

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
