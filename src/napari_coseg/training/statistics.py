"""Statistics of batch normalisation: frozen at last, or measured anew for averaged weights.

What batch normalisation keeps while it trains is a mean of its last ten batches or so, of weights
that were still moving: of two crops a batch, that is chance. The moving average of the weights is
another network, whose own statistics are measured here over many batches (Wu and Johnson 2021,
"Rethinking 'Batch' in BatchNorm", section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import CosegModel


@torch.no_grad()
def with_measured_statistics(
    model: CosegModel,
    steps: Iterable[Sequence[Batch]],
    device: str,
    autocast: torch.dtype | None = None,
) -> CosegModel:
    """A copy whose running means and variances are those of all crops of `steps`.

    The second forward is prompted by the first, as in a prediction. Nothing random is drawn, and a
    network without batch normalisation comes back as it is.
    """
    model = deepcopy(model).eval()
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return model
    for layer in layers:
        layer.reset_running_stats()
    # In training mode one by one: dropout, elsewhere, stays off.
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None  # the plain mean of all batches
        layer.train()
    kind = torch.device(device).type
    for batches in steps:
        for batch in batches:
            images = model.normalise(torch.as_tensor(batch.images).to(device))
            with torch.autocast(kind, autocast, enabled=autocast is not None):
                model(images.to(memory_format=torch.channels_last))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
    return model


def freeze_statistics(model: CosegModel) -> None:
    """Normalise with the running statistics from now on, and leave them as they are."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
