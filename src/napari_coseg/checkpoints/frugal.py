"""Building a network that a file is about to fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from napari_coseg.errors import CheckpointError

_MAKES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange}
_RANDOM_TENSORS = {torch.rand, torch.randn}
_RANDOM_STARTS = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    init.uniform_,
    init.normal_,
    init.kaiming_uniform_,
}

SLACK = 2**24
"""Numbers beyond the weights themselves, for constants and helpers made on the way: 64 MB."""


class FrugalBuilding(TorchFunctionMode):
    """While active, weights get no random start, and a network too large is refused.

    Loading is faster so, and takes nothing from the caller's random numbers.

    A model card is a few lines of text that may name a network of any size. `torch.empty` only
    reserves memory; what would be written to it first is counted here.

    Parameters
    ----------
    numbers
        Numbers of all weights in the file; a network that makes more than twice that (and `SLACK`)
        cannot be the one it was saved from.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.allowed = 2 * numbers + SLACK
        self.made = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _RANDOM_STARTS:
            return args[0] if args else kwargs["tensor"]
        if func in _RANDOM_TENSORS:
            func = torch.empty
            kwargs.pop("generator", None)
        result = func(*args, **kwargs)
        if func in _MAKES and isinstance(result, Tensor):
            self.made += result.numel()
            if self.made > self.allowed:
                raise CheckpointError("its card describes a network larger than the weights")
        return result
