"""Memory of the device: recomputed activations, and what happens where it runs out.

Also the switch to operations that give the same bits every time.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from napari_coseg.core.errors import CosegError, SettingsError
from napari_coseg.models.base import CosegModel
from napari_coseg.models.nn.memory import is_out_of_memory


class OutOfMemory(CosegError):
    """The device has no memory for a batch."""


@contextmanager
def catching_out_of_memory(device: str | torch.device) -> Iterator[None]:
    """Within, running out of memory raises `OutOfMemory`, with the failed call's tensors freed."""
    try:
        yield
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    raise OutOfMemory(
        "the device has not enough memory; close other programs that use it, take smaller crops, "
        "or choose the device 'cpu'"
    )


def blocks_of(model: CosegModel) -> Sequence[nn.Module]:
    """The encoder's blocks; none where it has no such."""
    encoder = model.image_encoder
    return encoder.blocks() if encoder else ()


@contextmanager
def checkpointed_blocks(model: CosegModel, wanted: bool = True) -> Iterator[None]:
    """Within, the trunk's blocks keep their inputs only and are computed again for the gradient.

    The gradients are the same. The parameters and their names are untouched. Batch normalisation
    that learns its statistics would count each batch twice.

    Raises
    ------
    SettingsError
        Where it is wanted and the network has no encoder with blocks.
    """
    blocks = blocks_of(model) if wanted else ()
    if wanted and not blocks:
        raise SettingsError(
            f"{model.card.name!r} has no encoder whose blocks could be computed again; "
            "set activation_checkpointing = false"
        )
    for block in blocks:
        # On the instance, over the class's own: taken away again below.
        block.__dict__["forward"] = partial(_again, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _again(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)


@contextmanager
def reproducible(wanted: bool = True) -> Iterator[None]:
    """Within, only operations that give the same bits every time; slower on CUDA.

    An operation that has no such version ends with torch's own error, which names it.
    """
    if not wanted:
        yield
        return
    # Read by cuBLAS when its first handle is made; without it torch refuses matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        cudnn.deterministic, cudnn.benchmark = cudnn_before
