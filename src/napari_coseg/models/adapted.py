"""A base network as the start of an adapter: its own copy, with other classes and with LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import SettingsError
from napari_coseg.models.base import CosegModel
from napari_coseg.models.growing import Origins, grow
from napari_coseg.models.nn.lora import put_in_lora
from napari_coseg.models.registry import build_two_task

LORA = "lora"


def starting_network(
    base: CosegModel,
    card: ModelCard,
    semantic_origins: Origins,
    instance_origins: Origins,
    lora_rank: int = 0,
    building: Callable[[ModelCard], CosegModel] = build_two_task,
) -> CosegModel:
    """What an adapter begins from: always the same for the same base and arguments.

    Parameters
    ----------
    base
        Stays as it is; nothing of it is shared.
    card, semantic_origins, instance_origins, building
        As in `growing.grow`.
    lora_rank
        Of LoRA put into a trunk that has none; 0 for none.

    Raises
    ------
    SettingsError
        Where LoRA is asked for and has no trunk to go into, or is there already.
    """
    same = (_kept(base.card.semantic_classes), _kept(base.card.instance_classes))
    if (semantic_origins, instance_origins) == same:
        card = card.model_copy(update={"config": base.card.config})
        network = copy.deepcopy(base)
    else:
        network = grow(base, card, semantic_origins, instance_origins, building)
        card = card.model_copy(update={"config": network.card.config})
    take_over(network, card)
    if lora_rank:
        _put_in_lora(network, lora_rank)
    return network


def parts_of(network: CosegModel) -> dict[str, list[nn.Parameter]]:
    """`CosegModel.parts`, and ``lora`` where it was put in from outside; empty parts left out."""
    parts = network.parts()
    lora = getattr(network, LORA, None)
    if isinstance(lora, nn.Module) and LORA not in parts:
        parts = {**parts, LORA: list(lora.parameters())}
    return {name: parameters for name, parameters in parts.items() if parameters}


def take_over(network: CosegModel, card: ModelCard) -> None:
    """Names of classes and normalisation as `card` has them; as many classes as before."""
    network.card = card
    for buffer, values in (
        (network.pixel_mean, card.normalisation.mean),
        (network.pixel_std, card.normalisation.std),
    ):
        buffer.copy_(torch.tensor(values).view_as(buffer))


def _kept(classes: tuple[Any, ...]) -> Origins:
    return tuple((entry.id,) for entry in classes)


def _put_in_lora(network: CosegModel, rank: int) -> None:
    encoder = network.image_encoder
    layers = encoder.attention_layers() if encoder else ()
    if not layers:
        raise SettingsError(
            f"the encoder of {network.card.name!r} has no attention to put LoRA beside; choose "
            "other parts"
        )
    if len(getattr(network, LORA, ())):
        raise SettingsError("the model has LoRA of its own already; set lora_rank to 0")
    device = next(network.buffers()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lora = put_in_lora(layers, rank)
    cast(nn.Module, network).add_module(LORA, lora.to(device))
