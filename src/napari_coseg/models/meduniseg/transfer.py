"""Start a network for another task from a trained one (the paper's transfer learning)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import SettingsError
from napari_coseg.models.meduniseg.model import MedUniSeg

TRAINED_PARTS = ("encoder", "modal_map", "decoder", "heads")
"""All but the modal prompt, which stays frozen."""


def transferred(model: MedUniSeg, card: ModelCard) -> MedUniSeg:
    """A network for the classes of `card`, with the encoder, decoder and modal prompts of `model`.

    There is no task prior: the first upscaling loses the channel that read it. Heads are new.

    Parameters
    ----------
    card
        Channels, classes and modalities, of which each that `model` knows keeps its prompt. Its
        config is replaced by that of `model`; stems are those for the channels it names.

    Raises
    ------
    SettingsError
        If `model` has changes that are not merged, lacks a stem, or knows none of the modalities.
    """
    source = model.config
    if source.lora_rank:
        raise SettingsError(f"{model.card.name} has LoRA; merge it first")
    stems = sorted({len(card.for_task(task.name).channels) for task in card.tasks})
    stems = stems or [len(card.channels)]
    if missing := set(stems) - set(source.stems):
        raise SettingsError(
            f"{model.card.name} has no first convolution for {min(missing)} channels; it has them "
            f"for {', '.join(map(str, source.stems))}"
        )
    config = model.card.config | {"task_prior": False, "stems": stems, "head_channels": None}
    changed = MedUniSeg(card.model_copy(update={"config": config}))
    if changed.modal is not None:
        _check_modalities(model, card)
    theirs, ours = model.state_dict(), changed.state_dict()
    for name, value in ours.items():
        if ".head." in name:
            continue
        if name == "modal.prompts":
            value.copy_(_prompts(model, card, value))
        elif name == "decoder.0.up.weight":
            value.copy_(theirs[name][: len(value)])  # without the prior's channel, the last
        else:
            value.copy_(theirs[name])
    return changed.train(model.training)


def _check_modalities(model: MedUniSeg, card: ModelCard) -> None:
    known = model.card.modalities if model.modal is not None else ()
    if not set(known) & set(card.modalities):
        raise SettingsError(
            f"{model.card.name} knows the modalities {', '.join(known) or 'none'}, and none of "
            f"{', '.join(card.modalities)}; choose the nearest and call it by that name"
        )


@torch.no_grad()
def _prompts(model: MedUniSeg, card: ModelCard, new: Tensor) -> Tensor:
    """Prompts of known modalities; those of others stay as they started, to be trained."""
    if model.modal is None:
        return new
    known = model.card.modalities
    rows = [
        model.modal.prompts[known.index(name)] if name in known else start
        for name, start in zip(card.modalities, new, strict=True)
    ]
    return torch.stack(rows)
