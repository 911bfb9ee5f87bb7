"""Which adapter a person wants on which base: remembered in a small file beside the adapters.

The file may have been edited, or come from elsewhere: only adapters right in its own folder are
taken from it, and only where they still are what they were.
"""

from __future__ import annotations

import re
from pathlib import Path

from napari_coseg.core.errors import CheckpointError, CosegError, OutputError
from napari_coseg.finetuning.library import SUFFIX, adapters_folder
from napari_coseg.models.checkpoints.adapters import read_adapter_card
from napari_coseg.workspace.files import read_json, refusals, write_json

IN_USE_FILE = "in-use.json"
LARGEST_BYTES = 1 << 20
MOST_BASES = 1000
_SHA256 = re.compile("[0-9a-f]{64}")


def recall(base_sha256: str) -> Path | None:
    """The adapter that was remembered for a base; None where none was.

    A file that cannot be read remembers nothing.

    Raises
    ------
    CheckpointError
        Where the adapter is gone, broken or of another base. `remember` none, to hear it once.
    """
    name = _read().get(base_sha256)
    if name is None:
        return None
    path = adapters_folder() / name
    told = f"the adapter {path.stem}, in use before, is not used any more"
    if not path.is_file():
        raise CheckpointError(f"{told}: {path} is gone; choose another one, or train it again")
    try:
        card = read_adapter_card(path)
    except CheckpointError as error:
        raise CheckpointError(f"{told}: {error}") from error
    if card.base_sha256 != base_sha256:
        raise CheckpointError(f"{told}: {path} now adapts another base, {card.base_name!r}")
    return path


def remember(base_sha256: str, adapter: str | Path | None) -> None:
    """Remember the adapter of a base, or that it has none.

    One outside the adapters' folder is not remembered: it is not among those that are listed.

    Raises
    ------
    OutputError
        Where the disk refuses.
    """
    listed = _read()
    before = dict(listed)
    listed.pop(base_sha256, None)
    if adapter and Path(adapter).parent == adapters_folder():
        listed[base_sha256] = Path(adapter).name
    if listed == before:
        return
    path = adapters_folder() / IN_USE_FILE
    kept = dict(list(listed.items())[-MOST_BASES:])
    try:
        with refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"in_use": kept})
    except CosegError as error:
        raise OutputError(f"which adapter is in use cannot be remembered: {error}") from error


def _read() -> dict[str, str]:
    """Names of files by the hashes of their bases; what is anything else is passed over."""
    path = adapters_folder() / IN_USE_FILE
    try:
        listed = read_json(path, "the adapters in use", LARGEST_BYTES).get("in_use")
    except CosegError:
        return {}
    if not isinstance(listed, dict):
        return {}
    return {
        sha256: name
        for sha256, name in listed.items()
        if _SHA256.fullmatch(sha256) and isinstance(name, str) and _is_file_name(name)
    }


def _is_file_name(name: str) -> bool:
    """Whether it is of a file right in the folder, as adapters are called."""
    plain = not set(name) & set("/\\:\0") and not name.startswith(".")
    return plain and name.endswith(SUFFIX) and len(name) < 256
