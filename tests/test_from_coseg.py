"""A Co-Seg network written under the authors' names comes back exactly; what does not fit is told.

The twin of the pinned outputs in ``test_parity.py`` that runs everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cases.tiny_coseg import tiny_coseg, tiny_coseg_card
from cases.tiny_models import TINY_TRUNK, tiny_card, tiny_model
from napari_coseg.cli.main import main
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.from_coseg import convert, import_checkpoint, recognises
from napari_coseg.models.checkpoints.native import load
from napari_coseg.models.checkpoints.released import import_released
from napari_coseg.models.coseg.config import AS_RELEASED
from napari_coseg.models.coseg.model import Coseg
from napari_coseg.models.nn.encoders.hiera import HIERA_SIZES
from test_parity import BACK, as_the_authors_name_it, every_coseg_output

# Written out again, in the other direction; what both codes share is in test_parity.py.
BACK_FROM_LORA = (
    (r"^lora\.(\d+)\.", r"image_encoder.trunk.blocks.\1.attn."),
    (r"\.attn\.query\.down\.", ".attn.edge_w_a_lora_q."),
    (r"\.attn\.query\.up\.", ".attn.edge_w_b_lora_q."),
    (r"\.attn\.value\.down\.", ".attn.edge_w_a_lora_v."),
    (r"\.attn\.value\.up\.", ".attn.edge_w_b_lora_v."),
)
BACK_TO_COSEG = (("stp_encoder_", "RP_encoder_"), ("mct_decoder_", "MP_decoder_"))
NEVER_USED = (
    "no_obj_ptr",
    "mask_downsample.bias",
    "obj_ptr_proj.layers.2.weight",
    "RP_encoder_sem.point_embeddings.3.weight",
    "RP_encoder_ins.not_a_point_embed.weight",
    "MP_decoder_ins.iou_prediction_head.layers.1.bias",
    "MP_decoder_ins.output_hypernetworks_mlps.0.layers.0.weight",
    "MP_decoder_sem.output_hypernetworks_mlps.1.layers.2.bias",
)


def as_the_authors_keep_it(model: Coseg, prefix: str = "model.") -> dict[str, Tensor]:
    """Their names; the instance head's spare token and its MLP stand first, not last."""
    state = {f"{prefix}{name}": torch.zeros(1, 7) for name in NEVER_USED}
    for name, value in model.state_dict().items():
        theirs = re.sub(
            r"^(instance_decoder\.token_mlps\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 1}", name
        )
        for pattern, replacement in (*BACK, *BACK_FROM_LORA, *BACK_TO_COSEG):
            theirs = re.sub(pattern, replacement, theirs)
        if name == "instance_decoder.mask_tokens":
            value = torch.cat([value[-1:], value[:-1]])
        state[prefix + theirs] = value[None] if name.endswith(".no_mask") else value
    return state


@pytest.fixture(scope="module")
def released() -> Coseg:
    return tiny_coseg(tiny_coseg_card(**AS_RELEASED))


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_a_network_under_the_authors_names_comes_back_exactly(released: Coseg, prefix: str) -> None:
    imported = import_checkpoint(
        as_the_authors_keep_it(released, prefix), released.card, TINY_TRUNK
    )
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    expected = every_coseg_output(released, images)
    got = every_coseg_output(imported.model, images)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    assert set(imported.report.ignored) == {prefix + name for name in NEVER_USED}
    assert imported.report.used == len(released.state_dict())


def test_an_import_gets_the_settings_of_the_released_code(released: Coseg) -> None:
    model = import_checkpoint(as_the_authors_keep_it(released), None, TINY_TRUNK).model
    config, card = model.config, model.card
    assert (config.lora_uneven, config.mask_reduction, config.spare_token) == (True, "twice", True)
    assert (config.lora_rank, config.width, config.upscaling_channels) == (3, 32, (16, 8))
    assert card.normalisation.std == card.normalisation.mean == (123.675, 116.28, 103.53)
    assert [entry.name for entry in card.semantic_classes] == ["tumour"]


def test_a_single_logit_is_the_probability_of_the_region(released: Coseg) -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        logit = every_coseg_output(released, images)["pass2_semantic"]
        maps = released(images).second.semantic
    torch.testing.assert_close(maps.softmax(1)[:, 1:], logit.sigmoid())


def without(state: dict[str, Tensor]) -> None:
    del state["model.RP_encoder_ins.cross_att.norm2.weight"]


def without_one_lora(state: dict[str, Tensor]) -> None:
    del state["model.image_encoder.trunk.blocks.2.attn.edge_w_b_lora_v.weight"]


def with_a_stranger(state: dict[str, Tensor]) -> None:
    state["model.RP_encoder_sem.edge_head.weight"] = torch.zeros(2)
    state["model.edge_head.weight"] = torch.zeros(2)


def misshapen(state: dict[str, Tensor]) -> None:
    name = "model.image_encoder.trunk.blocks.1.attn.edge_w_b_lora_q.weight"
    state[name] = torch.zeros(16, 3)


def not_finite(state: dict[str, Tensor]) -> None:
    state["model.conv_s1.bias"] = torch.full((16,), torch.nan)


def without_lora(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if "_lora_" in name]:
        del state[name]


def with_a_size_of_nothing(state: dict[str, Tensor]) -> None:
    state["model.RP_encoder_sem.cross_att.linear1.weight"] = torch.zeros(2**45, 0)


def with_a_size_of_one_number(state: dict[str, Tensor]) -> None:
    state["model.RP_encoder_sem.cross_att.linear1.weight"] = torch.zeros(1).expand(2**45, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without, r"missing: instance_prompt\.fusion\.norm2\.weight"),
        (without_one_lora, r"missing: lora\.2\.value\.up\.weight"),
        (with_a_stranger, r"unknown: .*edge_head\.weight, model\.edge_head\.weight"),
        (misshapen, r"misshapen: lora\.1\.query\.up\.weight \(16, 3\) in place of \(8, 3\)"),
        (not_finite, r"not finite: encoder\.project_f1\.bias"),
        (without_lora, r"not a Co-Seg of the authors: lora\.0\.query\.down\.weight is missing"),
        (with_a_size_of_nothing, r"linear1\.weight .* is empty"),
        (with_a_size_of_one_number, "larger than the weights"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_does_not_fit_is_named(
    released: Coseg, spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    state = as_the_authors_keep_it(released)
    spoil(state)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(state, released.card, TINY_TRUNK)


@pytest.mark.parametrize(
    ("regions", "types", "message"),
    [
        (("a", "b"), (), "semantic classes need 3 channels, but the checkpoint has 1"),
        (("a",), ("round",), "instance classes need 5 channels, but the checkpoint has 3"),
    ],
    ids=["regions", "types"],
)
def test_classes_that_the_network_does_not_know_are_refused(
    released: Coseg, regions: tuple[str, ...], types: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(as_the_authors_keep_it(released), tiny_card(regions, types), TINY_TRUNK)


def test_a_trunk_of_no_known_size_must_be_told(released: Coseg) -> None:
    with pytest.raises(CheckpointError, match=r"8 channels and stages of \(1, 2, 1, 1\) blocks"):
        import_checkpoint(as_the_authors_keep_it(released), released.card)


def test_two_entries_for_one_place_are_refused(released: Coseg) -> None:
    state = as_the_authors_keep_it(released) | {"conv_s0.bias": torch.zeros(8)}
    with pytest.raises(CheckpointError, match=r"conv_s0\.bias is in the checkpoint twice"):
        convert(state)


def test_the_two_released_codes_are_told_apart(released: Coseg) -> None:
    plus = as_the_authors_name_it(
        tiny_model(tiny_card(types=(), scan_activation=True, scan_norm=False))
    )
    coseg = as_the_authors_keep_it(released)
    assert (recognises(coseg), recognises(plus), recognises({})) == (True, False, False)
    assert import_released(coseg, released.card, TINY_TRUNK).model.card.family == "coseg"
    card = tiny_card(types=())
    assert import_released(plus, card, TINY_TRUNK).model.card.family == "coseg-plus"


def test_the_command_imports_either(
    released: Coseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(HIERA_SIZES, "of this test", TINY_TRUNK)
    torch.save(as_the_authors_keep_it(released), tmp_path / "theirs.pth")
    (tmp_path / "card.json").write_text(json.dumps(released.card.model_dump(mode="json")))
    arguments = ["models", "import", str(tmp_path / "theirs.pth"), "--card"]
    assert main([*arguments, str(tmp_path / "card.json")]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(tmp_path / "theirs.safetensors")
    assert "model.MP_decoder_sem.output_hypernetworks_mlps.1.layers.2.bias" in printed.err
    loaded = load(tmp_path / "theirs.safetensors")
    assert isinstance(loaded, Coseg)
    torch.testing.assert_close(
        loaded.state_dict(), released.state_dict(), msg="weights changed on the way"
    )
