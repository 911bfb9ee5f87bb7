"""Co-Seg's own parts: LoRA, the RP-Encoder's grids, its size, and a run on an image."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import nn

from cases.tiny_coseg import tiny_coseg, tiny_coseg_card
from napari_coseg.core.errors import SettingsError
from napari_coseg.inference import InferenceSettings, segment
from napari_coseg.labels.measure import OBJECT_COLUMNS
from napari_coseg.models.base import MaskPrompts
from napari_coseg.models.checkpoints.from_coseg import AS_PUMA
from napari_coseg.models.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.coseg.config import AS_RELEASED
from napari_coseg.models.coseg.model import Coseg
from napari_coseg.models.nn.lora import QueryValueLoRA, put_in_lora

RELEASED_LEARNABLE_LARGE = 21_140_000


def images(size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------
# LoRA


@pytest.mark.parametrize(
    ("width_in", "width_out", "uneven", "changed"),
    [
        (4, 4, False, "qqqq....vvvv"),
        (4, 4, True, "qqqq....vvvv"),
        (2, 4, False, "qqqq....vvvv"),
        (2, 4, True, "qq........vv"),
    ],
    ids=["within a stage", "within a stage, uneven", "stage begins", "stage begins, uneven"],
)
def test_which_channels_lora_changes(
    width_in: int, width_out: int, uneven: bool, changed: str
) -> None:
    qkv = nn.Linear(width_in, 3 * width_out)
    lora = QueryValueLoRA(qkv, rank=2, uneven=uneven)
    nn.init.ones_(lora.query.up.weight)
    nn.init.constant_(lora.value.up.weight, 2.0)
    tokens = torch.randn(5, width_in, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(5, 3 * width_out)
    for channel, letter in enumerate(changed):
        if letter == "q":
            expected[:, channel] = lora.query.down(tokens).sum(1)
        if letter == "v":
            expected[:, channel] = 2 * lora.value.down(tokens).sum(1)
    torch.testing.assert_close(lora(tokens, qkv(tokens)) - qkv(tokens), expected)


def small_trunk() -> Hiera:
    torch.manual_seed(0)
    return Hiera(16, 1, stages=(1, 2, 1, 1), global_att_blocks=(2,), window_spec=(8, 4, 4, 4))


@torch.no_grad()
def test_lora_starts_by_changing_nothing_and_keeps_the_trunks_names() -> None:
    trunk = small_trunk()
    names, before = list(trunk.state_dict()), trunk(images())
    lora = put_in_lora([block.attn.qkv for block in trunk.blocks], rank=4)
    assert list(trunk.state_dict()) == names
    assert [change.reach for change in lora] == [16, 32, 32, 64, 128]
    for level, expected in zip(trunk(images()), before, strict=True):
        torch.testing.assert_close(level, expected)
    nn.init.ones_(lora[0].value.up.weight)
    assert not torch.allclose(trunk(images())[0], before[0])


@torch.no_grad()
def test_a_copy_of_a_model_has_a_lora_of_its_own() -> None:
    model = tiny_coseg()
    twin = copy.deepcopy(model)
    before = model.encode(images()).embedding
    for parameter in twin.lora.parameters():
        parameter.zero_()
    assert torch.equal(model.encode(images()).embedding, before)
    assert not torch.allclose(twin.encode(images()).embedding, before)


def test_only_lora_may_learn() -> None:
    model = tiny_coseg()
    model.requires_grad_(False)
    for parameter in model.parts()["lora"]:
        parameter.requires_grad_(True)
    model(images()).second.hv.square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parts()["lora"])


# ---------------------------------------------------------------------------------------------
# The network


@pytest.mark.parametrize(
    ("config", "absent"),
    [({"lora_rank": 0}, "lora"), ({"adapter_ratio": 0}, "adapters")],
    ids=["no LoRA", "no adapters"],
)
def test_a_part_may_be_left_out(config: dict, absent: str) -> None:
    parts = tiny_coseg(tiny_coseg_card(**config)).parts()
    assert [name for name, parameters in parts.items() if not parameters] == [absent]


@pytest.mark.parametrize("config", [{}, AS_RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("size", [(16, 16), (64, 96), (128, 64)], ids=str)
@torch.inference_mode()
def test_masks_of_any_size_may_prompt(config: dict, size: tuple[int, int]) -> None:
    """A person may have painted them on another grid."""
    model = tiny_coseg(tiny_coseg_card(**config))
    features = model.encode(images((64, 96)))
    mask = torch.full((1, 1, *size), 3.0)
    expected = model.instance_prompt(torch.full((1, 1, 64, 96), 3.0), features.embedding)
    torch.testing.assert_close(model.instance_prompt(mask, features.embedding), expected)


def test_a_model_that_has_predicted_can_be_trained() -> None:
    model = tiny_coseg()
    with torch.inference_mode():
        model(images())
    model.train()(images()).second.hv.mean().backward()
    assert model.semantic_prompt.fusion.self_attn.q_proj.weight.grad is not None


@torch.inference_mode()
def test_the_prompting_mask_is_the_log_odds_of_any_region() -> None:
    several = tiny_coseg_card().model_copy(
        update={"semantic_classes": AS_PUMA.semantic_classes * 3}
    )
    model = tiny_coseg(several)
    features = model.encode(images())
    semantic, _ = model.first_forward_channels(features)
    coarse = features._replace(image_size=tuple(semantic.shape[-2:]))
    mask = model.first_forward(coarse).semantic_mask
    torch.testing.assert_close(mask.sigmoid(), semantic.softmax(1)[:, 1:].sum(1, keepdim=True))


def test_both_forwards_answer_at_the_size_of_the_image() -> None:
    model = tiny_coseg()
    with torch.inference_mode():
        first, second = model(images((64, 96)))
    assert first.semantic_mask.shape == first.instance_mask.shape == (1, 1, 64, 96)
    assert second.object.shape == (1, 1, 64, 96)
    assert (first.semantic_consistency, first.instance_consistency) == (None, None)


@torch.inference_mode()
def test_channels_are_distance_maps_then_object_then_classes() -> None:
    model = tiny_coseg(tiny_coseg_card(types=("round", "long")))
    features = model.encode(images())
    first = model.first_forward(features)
    prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
    _, instance = model.second_forward_channels(features, prompts)
    maps = model.second_forward(features._replace(image_size=tuple(instance.shape[-2:])), prompts)
    assert torch.equal(torch.cat([maps.hv, maps.object, maps.classes], 1), instance)


def test_no_more_learns_than_in_the_released_code() -> None:
    with FrugalBuilding(10**9):
        model = Coseg(AS_PUMA.model_copy(update={"config": {"encoder": "large"}}))
    parts = model.parts()
    learnable = sum(p.numel() for name in parts if name != "trunk" for p in parts[name])
    assert 0.8 * RELEASED_LEARNABLE_LARGE < learnable <= RELEASED_LEARNABLE_LARGE


def test_a_setting_of_co_seg_plus_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown setting 'scan_rank'"):
        Coseg(tiny_coseg_card(scan_rank=4))


# ---------------------------------------------------------------------------------------------
# A run


@pytest.mark.parametrize("types", [(), ("round", "long")], ids=["no types", "types"])
def test_segment_gives_a_prediction(types: tuple[str, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    settings = InferenceSettings(tile_size_px=64, halo_px=8)
    found = segment(picture, tiny_coseg(tiny_coseg_card(types=types)), 0.5, settings=settings)
    assert found.semantic.shape == found.instances.labels.shape == (90, 150)
    assert set(np.unique(found.semantic)) <= {0, 1}
    assert tuple(found.instances.table.columns) == OBJECT_COLUMNS
    assert [entry.name for entry in found.instances.classes] == list(types)
    assert len(found.instances) == found.instances.labels.max()
