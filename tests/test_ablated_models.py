"""Co-Seg++ with a part left out or changed, as the rows of the paper's ablations."""

from __future__ import annotations

import pytest
import torch

from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.models.base import Features, FirstForward, MaskPrompts, TaskMaps
from napari_coseg.models.coseg_plus.model import CosegPlus

WHOLE: dict = {}
IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def parts_of(model: CosegPlus) -> set[str]:
    """What the network is made of, by the second word of its parameters' names."""
    return {".".join(name.split(".")[:2]) for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("config", "without"),
    [
        ({"prompt_encoder": "mask"}, {"sequence_branch", "fusion"}),
        ({"decoder": "plain"}, {"transformer", "consistency"}),
        ({"crossed": False}, set()),
        ({"forwards": 1}, set()),
    ],
    ids=["no SSP-Encoder", "no MTC-Decoder", "prompted by itself", "one forward"],
)
def test_what_is_left_out_is_not_built(config: dict, without: set[str]) -> None:
    whole, ablated = parts_of(tiny_model(tiny_card())), parts_of(tiny_model(tiny_card(**config)))
    assert {name.split(".")[1] for name in whole - ablated} == without
    assert ablated <= whole


@pytest.mark.parametrize(
    ("config", "semantic_hears", "instance_hears"),
    [
        (WHOLE, {"instance"}, {"semantic"}),
        ({"prompt_encoder": "mask"}, {"instance"}, {"semantic"}),
        ({"decoder": "plain"}, {"instance"}, {"semantic"}),
        ({"crossed": False}, {"semantic"}, {"instance"}),
        ({"forwards": 1}, set(), set()),
        # Crossed twice: the first masks come back to their own task by way of the other's.
        ({"forwards": 3}, {"semantic"}, {"instance"}),
        ({"forwards": 4}, {"instance"}, {"semantic"}),
    ],
    ids=["whole", "no SSP", "no MTC", "own masks", "1 forward", "3 forwards", "4 forwards"],
)
@torch.inference_mode()
def test_which_mask_each_task_hears(
    config: dict, semantic_hears: set[str], instance_hears: set[str]
) -> None:
    model = tiny_model(tiny_card(**config))
    features = model.encode(IMAGES)
    first = model.first_forward(features)
    plain = _answer(model, features, first)
    for task in ("semantic", "instance"):
        painted = torch.full_like(first.semantic_mask, 8.0)
        changed = _answer(model, features, first._replace(**{f"{task}_mask": painted}))
        assert (not torch.equal(plain.semantic, changed.semantic)) == (task in semantic_hears)
        assert (not torch.equal(plain.object, changed.object)) == (task in instance_hears)


def _answer(model: CosegPlus, features: Features, first: FirstForward) -> TaskMaps:
    prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
    return model.second_forward(features, prompts)


@pytest.mark.parametrize(("decoder", "has"), [("mtc", True), ("plain", False)])
@torch.inference_mode()
def test_consistency_maps_come_from_the_mtc_decoder(decoder: str, has: bool) -> None:
    first = tiny_model(tiny_card(decoder=decoder))(IMAGES).first
    assert (first.semantic_consistency is not None) == has
    assert (first.instance_consistency is not None) == has
