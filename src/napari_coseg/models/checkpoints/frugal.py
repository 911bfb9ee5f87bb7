"""Build networks that will be filled from a file, within a memory limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from napari_coseg.core.errors import CheckpointError

_MAKES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.linspace}
_MULTIPLIES = {torch.Tensor.repeat}
_RANDOM_TENSORS = {torch.rand, torch.randn}
_RANDOM_STARTS = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    init.uniform_,
    init.normal_,
    init.kaiming_uniform_,
}

SLACK = 2**24
"""Allowance for constants and temporaries besides the weights: 64 MB."""


class FrugalBuilding(TorchFunctionMode):
    """While active, weights are not randomly initialised, and too large networks are refused.

    This speeds up loading and leaves the caller's random state alone. A small card may describe a
    network of any size, so numbers are counted before memory is allocated.

    Parameters
    ----------
    numbers
        Number of weights in the file; networks with more than twice that plus `SLACK` are refused.
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
        if func in _MAKES:
            self._count(_numbers_made(func, args, kwargs))
        elif func in _MULTIPLIES:
            self._count(func(args[0].to("meta"), *args[1:], **kwargs).numel())
        return func(*args, **kwargs)

    def _count(self, numbers: int) -> None:
        self.made += numbers
        if self.made > self.allowed:
            raise CheckpointError(
                "the file describes a network larger than the weights in it; download it again"
            )


def _numbers_made(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    if func is torch.arange and not {"start", "end", "step"} & kwargs.keys():
        # The first `arange` on the meta device takes torch two seconds.
        start, end, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        return math.ceil((end - start) / step)
    outline: Tensor = func(*args, **kwargs | {"device": "meta"})
    return outline.numel()
