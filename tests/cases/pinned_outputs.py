"""Where the pinned outputs of released networks lie, and the rule that filled their weights."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor


def pinned_root(variable: str, folder: str, file: str) -> Path:
    """The folder that holds `file`: what the variable names, else beside the project; or skip."""
    named = os.environ.get(variable)
    beside = Path(__file__).resolve().parents[3] / "shared" / folder
    root = Path(named) if named else beside
    if not (root / file).is_file():
        pytest.skip(f"the pinned outputs are not on this machine; {variable} names their folder")
    return root


def value_by_rule(name: str, shape: Sequence[int]) -> Tensor:
    """The value of a checkpoint's entry, from its name and shape alone."""
    w = torch.randn(list(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) >= 2:
        return w / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * w if len(shape) == 1 and name.endswith("weight") else 0.1 * w
