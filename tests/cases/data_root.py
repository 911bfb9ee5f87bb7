"""Where the shared research images lie, if they do."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def data_root() -> Path | None:
    """Folder with ``consep``, ``glas`` and others; None where this machine has none.

    The environment variable NAPARI_COSEG_DATA names it; else ``../shared/data`` beside the
    repository's root is looked at.
    """
    named = os.environ.get("NAPARI_COSEG_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return root if root.is_dir() else None
