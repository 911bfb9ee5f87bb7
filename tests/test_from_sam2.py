"""SAM2's weights start our networks: same names, same shapes, same features.

No released weights here: sam2's own modules, built from its own configuration files, stand in.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from cases.tiny_models import TINY_TRUNK, tiny_card, tiny_model
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.from_sam2 import counterpart, initialise_encoder, trunk_size
from napari_coseg.models.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.nn.encoders.hiera import HIERA_SIZES, HieraEncoder

LETTERS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
WIDTH = 32


def without_numbers() -> FrugalBuilding:
    """Large networks cost no time and no memory so; their weights hold anything."""
    return FrugalBuilding(10**9)


def image_encoder(trunk: dict[str, Any], neck: dict[str, Any]) -> ImageEncoder:
    """sam2's own, as its configuration files describe it."""
    neck = {key: value for key, value in neck.items() if key != "_target_"}
    position = {key: value for key, value in neck["position_encoding"].items() if key[0] != "_"}
    return ImageEncoder(
        trunk=Hiera(**{key: value for key, value in trunk.items() if key != "_target_"}),
        neck=FpnNeck(**neck | {"position_encoding": PositionEmbeddingSine(**position)}),
        scalp=1,
    )


def from_configuration_file(version: str, size: str) -> ImageEncoder:
    name = f"configs/{version}/{version}_hiera_{LETTERS[size]}.yaml"
    text = (resources.files("sam2") / name).read_text()
    described = yaml.safe_load(text)["model"]["image_encoder"]
    return image_encoder(described["trunk"], described["neck"])


def shapes(state: dict[str, Tensor], prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(value.shape) for name, value in state.items()}


@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
@pytest.mark.parametrize("size", LETTERS)
def test_names_and_shapes_are_those_of_sam2(version: str, size: str) -> None:
    with without_numbers():
        theirs = from_configuration_file(version, size)
        ours = HieraEncoder(HIERA_SIZES[size])
    expected = shapes(theirs.state_dict(), "image_encoder.")
    renamed = {counterpart(f"encoder.{n}"): s for n, s in shapes(ours.state_dict()).items()}
    got = {name: s for name, s in renamed.items() if name and name.startswith("image_encoder.")}
    assert got == expected
    assert trunk_size(expected) == (HIERA_SIZES[size].embed_dim, HIERA_SIZES[size].stages)


@pytest.mark.parametrize("size", LETTERS)
def test_windows_and_global_attention_are_those_of_sam2(size: str) -> None:
    with without_numbers():
        theirs = from_configuration_file("sam2.1", size).trunk
        ours = HieraEncoder(HIERA_SIZES[size]).trunk

    def facts(trunk: Hiera) -> list[tuple[object, ...]]:
        return [(b.window_size, b.q_stride, b.attn.num_heads) for b in trunk.blocks]

    assert facts(ours) == facts(theirs)


def tiny_sam2(width: int = WIDTH) -> dict[str, Tensor]:
    """All of a SAM2 checkpoint that can start something, under its released names."""
    generator = torch.Generator().manual_seed(11)
    parts: dict[str, nn.Module] = {
        "image_encoder": tiny_image_encoder(width),
        "sam_mask_decoder": MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(2, width, 8, 24),
            use_high_res_features=True,
        ),
        "sam_prompt_encoder": PromptEncoder(width, (4, 4), (64, 64), 16),
    }
    state = {
        f"{part}.{name}": torch.randn(value.shape, generator=generator) * 0.2
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    return state | {"no_obj_ptr": torch.zeros(1, width), "memory_encoder.x": torch.zeros(3)}


def tiny_image_encoder(width: int) -> ImageEncoder:
    trunk = {
        "embed_dim": TINY_TRUNK.embed_dim,
        "num_heads": TINY_TRUNK.num_heads,
        "stages": TINY_TRUNK.stages,
        "global_att_blocks": TINY_TRUNK.global_attention_blocks,
        "window_spec": TINY_TRUNK.window_sizes,
        "window_pos_embed_bkg_spatial_size": TINY_TRUNK.background_position_size,
    }
    neck = {
        "position_encoding": {"num_pos_feats": width},
        "d_model": width,
        "backbone_channel_list": [TINY_TRUNK.embed_dim * 2**i for i in (3, 2, 1, 0)],
        "fpn_top_down_levels": [2, 3],
        "fpn_interp_model": "nearest",
    }
    return image_encoder(trunk, neck)


def fresh_model(**config: Any) -> CosegPlus:
    torch.manual_seed(2)
    # SAM2's decoder halves the channels to a quarter and an eighth.
    return CosegPlus(tiny_card(**{"upscaling_channels": [8, 4]} | config)).eval()


def test_features_are_those_of_sam2_while_adapters_are_zero() -> None:
    theirs = tiny_sam2()
    model = fresh_model()
    initialise_encoder(model, theirs)
    sam2 = tiny_image_encoder(WIDTH).eval()
    prefix = "image_encoder."
    sam2.load_state_dict(
        {name.removeprefix(prefix): v for name, v in theirs.items() if name.startswith(prefix)}
    )
    images = torch.randn(2, 3, 128, 96, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        fine, middle, expected = sam2(images)["backbone_fpn"]
        features = model.encode(images)
    torch.testing.assert_close(features.embedding, expected)
    decoder = {name.rsplit("sam_mask_decoder.")[-1]: value for name, value in theirs.items()}
    for got, level, name in zip(
        features.high_resolution, (fine, middle), ("conv_s0", "conv_s1"), strict=True
    ):
        projected = F.conv2d(level, decoder[f"{name}.weight"], decoder[f"{name}.bias"])
        torch.testing.assert_close(got, projected)


ENCODER = ["encoder.trunk", "encoder.neck", "encoder.project_f1", "encoder.project_f0"]
OTHERS_FROM_SAM2 = [
    "prompt.no_mask",
    "prompt.position",
    "prompt.mask_branch",
    "decoder.transformer",
    "decoder.upscaling",
]
OWN = [
    "prompt.sequence_branch",
    "prompt.fusion",
    "decoder.mask_tokens",
    "decoder.consistency",
    "decoder.token_mlps",
]


def of_both_tasks(parts: list[str]) -> list[str]:
    return [f"{task}_{part}" for task in ("semantic", "instance") for part in parts]


FROM_SAM2 = [*ENCODER, *of_both_tasks(OTHERS_FROM_SAM2)]
EVERY_PART = {*FROM_SAM2, *of_both_tasks(OWN), "encoder adapters"}


@pytest.mark.parametrize(
    ("config", "encoder_only", "expected"),
    [
        ({}, False, FROM_SAM2),
        ({}, True, ENCODER),
        (
            {"decoder_mlp_dim": 48},
            False,
            [part for part in FROM_SAM2 if "transformer" not in part],
        ),
        ({"upscaling_refinement": True}, False, [p for p in FROM_SAM2 if "upscaling" not in p]),
    ],
    ids=["all that fits", "encoder only", "another transformer", "another upscaling"],
)
def test_the_report_says_which_part_came_from_where(
    config: dict[str, Any], encoder_only: bool, expected: list[str]
) -> None:
    model = fresh_model(**config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = initialise_encoder(model, tiny_sam2(), encoder_only)
    assert sorted(report.filled) == sorted(expected)
    assert sorted(report.random) == sorted(EVERY_PART - {*expected})
    for name, value in model.state_dict().items():
        adapter = ".mlp.adapter." in name
        taken = not adapter and name.startswith(report.filled)
        assert torch.equal(value, before[name]) != taken, name


def test_parts_are_filled_with_the_counterparts_values() -> None:
    theirs, model = tiny_sam2(), fresh_model()
    initialise_encoder(model, theirs)
    ours = model.state_dict()
    for name, theirs_name in {
        "encoder.trunk.blocks.2.mlp.mlp.layers.0.weight": (
            "image_encoder.trunk.blocks.2.mlp.layers.0.weight"
        ),
        "encoder.project_f0.bias": "sam_mask_decoder.conv_s0.bias",
        "semantic_decoder.upscaling.0.norm.bias": "sam_mask_decoder.output_upscaling.1.bias",
        "instance_decoder.upscaling.1.up.weight": "sam_mask_decoder.output_upscaling.3.weight",
        "instance_prompt.mask_branch.6.weight": "sam_prompt_encoder.mask_downscaling.6.weight",
    }.items():
        assert torch.equal(ours[name], theirs[theirs_name]), name
    no_mask = theirs["sam_prompt_encoder.no_mask_embed.weight"]
    assert torch.equal(ours["semantic_prompt.no_mask"], no_mask[0])


def test_a_released_file_keeps_its_weights_under_model(tmp_path: Path) -> None:
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tiny_sam2()}, path)
    report = initialise_encoder(fresh_model(), path)
    assert str(path) in str(report)
    assert "not from SAM2: encoder adapters" in str(report)


@pytest.mark.parametrize("size", LETTERS)
def test_a_checkpoint_of_another_size_is_named(size: str) -> None:
    with without_numbers():
        theirs = from_configuration_file("sam2.1", size).state_dict()
        other = "tiny" if size != "tiny" else "large"
        model = CosegPlus(tiny_card(encoder=other))
    state = {f"image_encoder.{name}": value for name, value in theirs.items()}
    with pytest.raises(CheckpointError, match=rf"\({size}, .*; the network's encoder is {other}, "):
        initialise_encoder(model, state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_encoder.neck.convs.0.conv.bias", None, r"missing: .*convs\.0\.conv\.bias"),
        ("image_encoder.trunk.head.weight", torch.zeros(2), r"unknown: .*trunk\.head\.weight"),
        ("image_encoder.trunk.pos_embed", torch.zeros(1, 8, 3, 3), r"misshapen: .*pos_embed"),
        (
            "image_encoder.trunk.patch_embed.proj.bias",
            torch.full((8,), torch.nan),
            r"not finite: .*patch_embed\.proj\.bias",
        ),
        ("sam_mask_decoder.conv_s0.bias", torch.full((4,), torch.inf), "not finite"),
    ],
)
def test_a_trunk_or_neck_that_does_not_fit_is_refused_and_nothing_changes(
    name: str, value: Tensor | None, message: str
) -> None:
    model, state = tiny_model(tiny_card(upscaling_channels=[8, 4])), tiny_sam2()
    before = {entry: tensor.clone() for entry, tensor in model.state_dict().items()}
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(CheckpointError, match=message):
        initialise_encoder(model, state)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_checkpoint_without_a_trunk_is_no_sam2() -> None:
    with pytest.raises(CheckpointError, match="no Hiera trunk found"):
        initialise_encoder(fresh_model(), {"backbone.weight": torch.zeros(2)})
