"""Build networks on the meta device: names, shapes and FLOPs without memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from napari_coseg.core.card import ModelCard
from napari_coseg.models.base import SegmentationModel
from napari_coseg.models.registry import build


class _LinspaceOnCPU(TorchFunctionMode):
    """sam2 computes drop rates by `linspace`, which has no values on the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def build_outline(card: ModelCard) -> SegmentationModel:
    """The network that `card` names, on torch's meta device: no memory, whatever its size.

    The first call takes seconds, since torch imports its compiler.
    """
    with torch.device("meta"), _LinspaceOnCPU():
        return build(card)
