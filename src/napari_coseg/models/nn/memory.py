"""Recognise that a device ran out of memory."""

from __future__ import annotations

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device, or the machine, had no memory left."""
    text = str(error).lower()
    full = "out of memory" in text or "can't allocate memory" in text
    return full or isinstance(error, torch.OutOfMemoryError)
