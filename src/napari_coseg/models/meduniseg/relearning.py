"""MedUniSeg*: a trained and frozen network with low-rank changes that learn.

This is the paper's re-learning. It gives rank 32, alpha 64 and "new deconvolutions and heads that
produce residual outputs", and no layout: it counts about 6.8 million weights, ours are 6,210,656.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from napari_coseg.core.errors import SettingsError
from napari_coseg.models.meduniseg.layers import LowRankConvolution
from napari_coseg.models.meduniseg.model import MedUniSeg

LORA = "lora"
"""The part that trains: ``trained_parts = ["lora"]``."""


def with_lora(
    model: MedUniSeg, rank: int = 32, alpha: float = 64.0, tasks: Sequence[str] = ()
) -> MedUniSeg:
    """A copy of a network with new changes, which answers exactly as the network itself.

    Parameters
    ----------
    tasks
        Tasks that the changes serve; others bypass them. None for all.

    Raises
    ------
    SettingsError
        If the network has changes already, or a task is not the card's.
    """
    if model.config.lora_rank:
        raise SettingsError(f"{model.card.name} has LoRA already; merge it first, with `merged`")
    config = {"lora_rank": rank, "lora_alpha": alpha, "adapted_tasks": list(tasks)}
    changed = _with_config(model, config)
    changed.load_state_dict(changed.state_dict() | model.state_dict())
    return changed


@torch.no_grad()
def merged(model: MedUniSeg) -> MedUniSeg:
    """A copy whose kernels have the changes added, and no changes beside them.

    Raises
    ------
    SettingsError
        If the changes serve some tasks only: merged, they would change all.
    """
    served = set(model.config.adapted_tasks)
    if others := [task.name for task in model.card.tasks if served and task.name not in served]:
        raise SettingsError(
            f"the changes serve {', '.join(sorted(served))} alone; merged, they would also change "
            f"{', '.join(others)}"
        )
    plain = _with_config(model, {"lora_rank": 0, "adapted_tasks": []})
    state = model.state_dict()
    names = {module: name for name, module in model.named_modules()}
    for layer, change in model.changes():
        if isinstance(change, LowRankConvolution):
            added = change.weight_change()
        else:
            added = change.weight
        state[f"{names[layer]}.weight"] = layer.weight + added
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain


def _with_config(model: MedUniSeg, changed: dict[str, object]) -> MedUniSeg:
    """A new network of another config, on the same device and in the same mode."""
    card = model.card.model_copy(update={"config": model.card.config | changed})
    return MedUniSeg(card).to(model.pixel_mean.device).train(model.training)
