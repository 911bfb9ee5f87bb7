"""Checkpoints of the authors' released code give the outputs that code gives.

The twin of Co-Seg, which needs no pinned file, is in ``test_from_coseg.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cases.pinned_outputs import pinned_root, value_by_rule
from cases.tiny_models import TINY_TRUNK, tiny_card, tiny_model
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.base import MaskPrompts
from napari_coseg.models.checkpoints import from_coseg
from napari_coseg.models.checkpoints.from_coseg_plus import convert, import_checkpoint, rename
from napari_coseg.models.checkpoints.released import import_released
from napari_coseg.models.coseg.model import Coseg
from napari_coseg.models.coseg_plus.config import AS_RELEASED
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.nn.encoders.hiera import HieraConfig

PINNED_TRUNK = HieraConfig(
    embed_dim=16, num_heads=1, stages=(1, 2, 3, 1), global_attention_blocks=(4, 5)
)
COSEG_STRIDES = {
    "fpn0": 8,
    "fpn1": 8,
    "embedding": 4,
    "pass1_instance": 16,
    "pass1_semantic": 16,
    "pass2_instance": 16,
    "pass2_semantic": 16,
}
STRIDES = {
    "fpn0": 8,
    "fpn1": 8,
    "embedding": 4,
    "pass1_instance": 4,
    "pass1_semantic": 4,
    "consistency_a": 4,
    "consistency_b": 4,
    "prompt_of_instance_mask": 4,
    "prompt_of_semantic_mask": 4,
    "pass2_instance": 16,
    "pass2_semantic": 16,
}


def parity_root() -> Path:
    return pinned_root("NAPARI_COSEG_PARITY", "parity", "coseg_plus_outputs.npz")


def every_output(model: CosegPlus, images: Tensor) -> dict[str, Tensor]:
    """All that is pinned, under the names of the pinned file, at full resolution."""
    with torch.no_grad():
        features = model.encode(images)
        first = model.first_forward(features)
        prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
        semantic, instance = model.second_forward_channels(features, prompts)
        from_instance = model.instance_prompt(first.instance_mask, features.embedding)
        from_semantic = model.semantic_prompt(first.semantic_mask, features.embedding)
    size = images.shape[-2:]
    consistency = (first.instance_consistency, first.semantic_consistency)
    assert consistency[0] is not None and consistency[1] is not None
    return {
        "fpn0": features.high_resolution[0],
        "fpn1": features.high_resolution[1],
        "embedding": features.embedding,
        "pass1_instance": first.instance_mask,
        "pass1_semantic": first.semantic_mask,
        "consistency_a": consistency[0],
        "consistency_b": consistency[1],
        "prompt_of_instance_mask": from_instance,
        "prompt_of_semantic_mask": from_semantic,
        "pass2_instance": F.interpolate(instance, size, mode="bilinear", align_corners=False),
        "pass2_semantic": F.interpolate(semantic, size, mode="bilinear", align_corners=False),
    }


def every_coseg_output(model: Coseg, images: Tensor) -> dict[str, Tensor]:
    """All that is pinned of Co-Seg, at full resolution."""
    with torch.no_grad():
        features = model.encode(images)
        first = model.first_forward(features)
        prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
        passes = (
            model.first_forward_channels(features),
            model.second_forward_channels(features, prompts),
        )
    size = images.shape[-2:]
    outputs = {
        "fpn0": features.high_resolution[0],
        "fpn1": features.high_resolution[1],
        "embedding": features.embedding,
    }
    for number, tasks in enumerate(passes, 1):
        for task, maps in zip(("semantic", "instance"), tasks, strict=True):
            full = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            outputs[f"pass{number}_{task}"] = full
    return outputs


PINNED = {
    **{f"coseg {name}": ("coseg", name, COSEG_STRIDES[name]) for name in COSEG_STRIDES},
    **{f"coseg_plus {name}": ("coseg_plus", name, STRIDES[name]) for name in STRIDES},
}


@pytest.fixture(scope="module")
def pinned_and_ours(
    request: pytest.FixtureRequest,
) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    root, family = parity_root(), request.param
    keys = json.loads((root / f"{family}_keys.json").read_text())["keys"]
    state = {name: value_by_rule(name, shape) for name, shape in keys}
    model = import_released(state, encoder=PINNED_TRUNK).model
    images = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(20251121))
    ours = (every_coseg_output if isinstance(model, Coseg) else every_output)(model, images)
    with np.load(root / f"{family}_outputs.npz") as pinned:
        assert pinned.keys() == ours.keys()
        return dict(pinned), ours


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("pinned_and_ours", "name", "stride"),
    PINNED.values(),
    ids=PINNED.keys(),
    indirect=["pinned_and_ours"],
    scope="module",
)
def test_pinned_outputs_of_the_released_code(
    pinned_and_ours: tuple[dict[str, np.ndarray], dict[str, Tensor]], name: str, stride: int
) -> None:
    pinned, ours = pinned_and_ours
    got = ours[name][..., ::stride, ::stride].numpy()
    assert got.shape == pinned[name].shape
    assert np.linalg.norm(got - pinned[name]) < 1e-4 * np.linalg.norm(pinned[name])


@pytest.mark.data
@pytest.mark.parametrize(
    ("family", "rename", "count"),
    [("coseg", from_coseg.rename, 440), ("coseg_plus", rename, 492)],
    ids=["coseg", "coseg_plus"],
)
def test_every_entry_of_the_released_code_is_known(
    family: str, rename: Callable[[str], str | None], count: int
) -> None:
    keys = json.loads((parity_root() / f"{family}_keys.json").read_text())["keys"]
    renamed = {name: rename(name) for name, _ in keys}
    assert not [name for name, ours in renamed.items() if ours == name]
    used = [ours for ours in renamed.values() if ours is not None]
    assert len(used) == len(set(used)) == count


# A twin that needs no pinned file: our entries under the authors' names, written out again here.
BACK = (
    (r"^encoder\.project_f", "conv_s"),
    (r"^encoder\.", "image_encoder."),
    (r"\.mlp\.mlp\.", ".mlp."),
    (r"\.mlp\.adapter\.down\.", ".train_edge.D_fc1."),
    (r"\.mlp\.adapter\.up\.", ".train_edge.D_fc2."),
    (r"^semantic_prompt\.", "stp_encoder_sem."),
    (r"^instance_prompt\.", "stp_encoder_ins."),
    (r"^semantic_decoder\.", "mct_decoder_sem."),
    (r"^instance_decoder\.", "mct_decoder_ins."),
    (r"\.position\.", ".pe_layer."),
    (r"\.no_mask$", ".no_mask_embed.weight"),
    (r"\.mask_branch\.", ".mask_downscaling."),
    (r"\.fusion\.", ".cross_att."),
    (r"\.sequence_branch\.log_decay$", ".mixer.A_log"),
    (r"\.sequence_branch\.skip$", ".mixer.D"),
    (r"\.sequence_branch\.project_in\.", ".mixer.in_proj."),
    (r"\.sequence_branch\.convolution\.", ".mixer.conv1d_x."),
    (r"\.sequence_branch\.project_scan\.", ".mixer.x_proj."),
    (r"\.sequence_branch\.project_step\.", ".mixer.dt_proj."),
    (r"\.sequence_branch\.project_out\.", ".mixer.out_proj."),
    (r"\.mask_tokens$", ".mask_tokens.weight"),
    (r"\.consistency\.", ".spatial_cons."),
    (r"\.upscaling\.0\.up\.", ".output_upscaling.0."),
    (r"\.upscaling\.0\.norm\.", ".output_upscaling.1."),
    (r"\.upscaling\.1\.up\.", ".output_upscaling.3."),
    (r"\.token_mlps\.", ".output_hypernetworks_mlps."),
)
NEVER_USED = (
    "no_obj_ptr",
    "mask_downsample.weight",
    "obj_ptr_proj.layers.0.weight",
    "stp_encoder_sem.point_embeddings.2.weight",
    "stp_encoder_ins.not_a_point_embed.weight",
    "mct_decoder_ins.iou_prediction_head.layers.1.bias",
    "mct_decoder_sem.conv_s0.weight",
    "mct_decoder_ins.conv_s1.bias",
)


def as_the_authors_name_it(model: CosegPlus, prefix: str = "model.") -> dict[str, Tensor]:
    state = {f"{prefix}{name}": torch.zeros(1, 7) for name in NEVER_USED}
    for name, value in model.state_dict().items():
        theirs = name
        for pattern, replacement in BACK:
            theirs = re.sub(pattern, replacement, theirs)
        state[prefix + theirs] = value[None] if name.endswith(".no_mask") else value
    return state


@pytest.fixture(scope="module")
def released() -> CosegPlus:
    """4 instance channels: object, no types, two of distance, one unused; as imports may carry."""
    return tiny_model(tiny_card(types=(), semantic_channels=4, instance_channels=4, **AS_RELEASED))


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_a_network_under_the_authors_names_comes_back_exactly(
    released: CosegPlus, prefix: str
) -> None:
    theirs = as_the_authors_name_it(released, prefix)
    imported = import_checkpoint(theirs, released.card, TINY_TRUNK)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    expected, got = every_output(released, images), every_output(imported.model, images)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    assert set(imported.report.ignored) == {prefix + name for name in NEVER_USED}
    assert imported.report.used == len(released.state_dict())


def test_an_import_gets_the_settings_of_the_released_code(released: CosegPlus) -> None:
    model = import_checkpoint(
        as_the_authors_name_it(released), tiny_card(types=()), TINY_TRUNK
    ).model
    config, normalisation = model.config, model.card.normalisation
    assert (config.scan_activation, config.scan_norm, config.scan_bias_twice) == (True, False, True)
    assert (config.semantic_channels, config.instance_channels) == (4, 4)
    assert normalisation.std == normalisation.mean == (123.675, 116.28, 103.53)
    assert model.second_forward(
        model.encode(torch.zeros(1, 3, 64, 64)),
        MaskPrompts(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)),
    ).semantic.shape == (1, 2, 64, 64)


def without(state: dict[str, Tensor]) -> None:
    del state["model.stp_encoder_ins.mixer.D"]


def with_a_stranger(state: dict[str, Tensor]) -> None:
    state["model.edge_head.weight"] = torch.zeros(2)


def misshapen(state: dict[str, Tensor]) -> None:
    state["model.conv_s0.bias"] = torch.zeros(3)


def not_finite(state: dict[str, Tensor]) -> None:
    state["model.conv_s1.bias"] = torch.full((16,), torch.nan)


def without_a_trunk(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if "trunk" in name]:
        del state[name]


def without_a_scan(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if "mixer" in name]:
        del state[name]


def with_a_size_of_nothing(state: dict[str, Tensor]) -> None:
    state["model.stp_encoder_sem.cross_att.linear1.weight"] = torch.zeros(2**45, 0)


def with_a_size_of_one_number(state: dict[str, Tensor]) -> None:
    state["model.stp_encoder_sem.cross_att.linear1.weight"] = torch.zeros(1).expand(2**45, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without, r"missing: instance_prompt\.sequence_branch\.skip"),
        (with_a_stranger, r"unknown: model\.edge_head\.weight"),
        (misshapen, r"misshapen: encoder\.project_f0\.bias \(3,\) in place of \(8,\)"),
        (not_finite, r"not finite: encoder\.project_f1\.bias"),
        (without_a_trunk, r"missing: encoder\.trunk\.pos_embed.* and \d+ more"),
        (without_a_scan, r"not a Co-Seg\+\+ of the authors"),
        (with_a_size_of_nothing, r"linear1\.weight .* is empty"),
        (with_a_size_of_one_number, "larger than the weights"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_does_not_fit_is_named(released: CosegPlus, spoil: object, message: str) -> None:
    state = as_the_authors_name_it(released)
    assert callable(spoil)
    spoil(state)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(state, released.card, TINY_TRUNK)


def test_a_trunk_of_no_known_size_must_be_told(released: CosegPlus) -> None:
    with pytest.raises(CheckpointError, match=r"8 channels and stages of \(1, 2, 1, 1\) blocks"):
        import_checkpoint(as_the_authors_name_it(released), released.card)


def test_more_classes_than_channels_are_refused(released: CosegPlus) -> None:
    card = tiny_card(regions=("a", "b", "c", "d"), types=())
    with pytest.raises(CheckpointError, match=r"semantic classes need 5 channels, but .* gives 4"):
        import_checkpoint(as_the_authors_name_it(released), card, TINY_TRUNK)


def test_two_entries_for_one_place_are_refused(released: CosegPlus) -> None:
    state = as_the_authors_name_it(released) | {"conv_s0.bias": torch.zeros(8)}
    with pytest.raises(CheckpointError, match=r"conv_s0\.bias is in the checkpoint twice"):
        convert(state)
