"""The contract of every model family, on networks small enough to run in a blink."""

from __future__ import annotations

import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError, SettingsError
from napari_coseg.models.base import MAPS_OF, CosegModel, MaskPrompts
from napari_coseg.models.coseg.config import AS_RELEASED as COSEG_AS_RELEASED
from napari_coseg.models.coseg_plus.config import AS_RELEASED
from napari_coseg.models.nn.encoders.hiera import HieraConfig, put_in_adapters
from napari_coseg.models.registry import build

TINY_HIERA = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": (1, 1, 1, 1),
    "global_attention_blocks": (),
    "window_sizes": (8, 4, 4, 4),
}
TINY = {
    "encoder": TINY_HIERA,
    "width": 32,
    "upscaling_channels": (16, 8),
    "decoder_heads": 4,
    "decoder_mlp_dim": 32,
    "fusion_mlp_dim": 32,
    "scan_rank": 4,
}
DETAILED = {
    **TINY,
    "encoder": {
        **TINY_HIERA,
        "stages": (1, 1, 1),
        "window_sizes": (8, 4, 4),
        "stem_channels": (8, 12),
        "background_position_size": None,
    },
    "upscaling_channels": (16, 8, 8),
    "upscaling_refinement": True,
    "adapter_kernel_size": 3,
}
WHOLE_RESOLUTION = {
    **DETAILED,
    "encoder": {**DETAILED["encoder"], "stem_channels": (4, 8, 12)},
    "upscaling_channels": (16, 8, 8, 4),
}
TOP_DOWN = {
    **WHOLE_RESOLUTION,
    "encoder": {**WHOLE_RESOLUTION["encoder"], "top_down": True},
    "upscaling_refinement": False,
}
NORMALISED = {
    **TOP_DOWN,
    "encoder": {**TOP_DOWN["encoder"], "embedding_norm": True},
    "prompt_norm": True,
    "mask_skip": True,
}
COSEG = {name: TINY[name] for name in TINY if name != "scan_rank"}
COSEG_WITH_STEM = {name: DETAILED[name] for name in DETAILED if name != "scan_rank"}
FAMILIES = {
    "coseg": ("coseg", COSEG),
    "coseg with a stem": ("coseg", COSEG_WITH_STEM),
    "coseg as released": ("coseg", {**COSEG, **COSEG_AS_RELEASED}),
    "coseg-plus": ("coseg-plus", TINY),
    "coseg-plus with a stem": ("coseg-plus", DETAILED),
    "coseg-plus with a stem from stride 1": ("coseg-plus", WHOLE_RESOLUTION),
    "coseg-plus with a top-down path": ("coseg-plus", TOP_DOWN),
    "coseg-plus with a normalised embedding": ("coseg-plus", NORMALISED),
    "coseg-plus as released": ("coseg-plus", {**TINY, **AS_RELEASED}),
    "coseg-plus gated": ("coseg-plus", {**TINY, "scan_gate": True}),
}


def classes(count: int) -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(id=i, name=f"class {i}", color=(i, 0, 0)) for i in range(1, count + 1))


def small_card(family: str, config: dict, regions: int = 1, types: int = 4) -> ModelCard:
    return ModelCard(
        name="small",
        family=family,
        config=config,
        semantic_classes=classes(regions),
        instance_classes=classes(types),
        pixel_size_um=0.5,
    )


def small_model(
    family: str = "coseg-plus", config: dict = TINY, regions: int = 1, types: int = 4
) -> CosegModel:
    torch.manual_seed(0)
    return build(small_card(family, config, regions, types)).eval()


def images(batch: int = 1, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def model(request: pytest.FixtureRequest) -> CosegModel:
    return small_model(*request.param)


@pytest.mark.parametrize("family", [("coseg", COSEG), ("coseg-plus", TINY)], ids=lambda f: f[0])
@pytest.mark.parametrize(("regions", "types"), [(0, 1), (1, 0), (1, 4), (3, 1)])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)], ids=str)
def test_maps_have_a_channel_for_each_class(family, regions, types, size) -> None:
    with torch.inference_mode():
        output = small_model(*family, regions=regions, types=types)(images(size=size))
    maps = output.second
    assert output.first.semantic_mask.shape[:2] == output.first.instance_mask.shape[:2] == (1, 1)
    assert maps.semantic.shape == (1, 1 + regions, *size)
    assert maps.object.shape == (1, 1, *size)
    assert maps.classes.shape == (1, 1 + types if types else 0, *size)
    assert maps.hv.shape == (1, 2, *size)


@torch.inference_mode()
def test_a_batch_is_its_images(model: CosegModel) -> None:
    batch = images(3)
    together = model(batch)
    apart = [model(image[None]) for image in batch]
    for forward in ("first", "second"):
        for name, value in getattr(together, forward)._asdict().items():
            if value is None:  # a family without consistency maps
                continue
            alone = torch.cat([getattr(getattr(output, forward), name) for output in apart])
            torch.testing.assert_close(value, alone, rtol=1e-4, atol=1e-4, msg=name)


@torch.inference_mode()
def test_the_image_is_encoded_once(model: CosegModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda x: calls.append(x.shape) or encode(x))
    model(images(2))
    assert calls == [(2, 3, 64, 64)]


@torch.inference_mode()
def test_each_mask_prompts_the_other_task_only(model: CosegModel) -> None:
    features = model.encode(images())
    first = model.first_forward(features)
    full = torch.full_like(first.instance_mask, 8.0)
    plain = model.second_forward(features, MaskPrompts(first.semantic_mask, first.instance_mask))
    painted = model.second_forward(features, MaskPrompts(first.semantic_mask, full))
    assert not torch.allclose(plain.semantic, painted.semantic)
    torch.testing.assert_close(plain.object, painted.object)


def test_losses_of_the_second_forward_reach_the_first(model: CosegModel) -> None:
    """Section 3.4: the gradient flows back through the masks into the first forward."""
    features = model.encode(images())
    first = model.first_forward(features)
    first.instance_mask.retain_grad()
    prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
    model.second_forward(features, prompts).semantic.square().mean().backward()
    assert first.instance_mask.grad.abs().max() > 0


@torch.inference_mode()
def test_a_fresh_mask_skip_is_silent_and_a_taught_one_is_heard_where_the_mask_is() -> None:
    """On a transformer that hears no prompt at all."""
    torch.manual_seed(0)
    model = small_model(config={**TINY, "mask_skip": True})
    for encoder in (model.semantic_prompt, model.instance_prompt):
        encoder.forward = lambda mask, embedding: torch.zeros_like(embedding)
    features = model.encode(images(1))
    outside = torch.full((1, 1, 16, 16), -8.0)
    inside = outside.clone()
    inside[..., :8] = 8.0

    def difference() -> torch.Tensor:
        without = model.second_forward(features, MaskPrompts(outside, outside)).object
        return (model.second_forward(features, MaskPrompts(inside, outside)).object - without).abs()

    assert not difference().any()
    torch.nn.init.normal_(model.instance_decoder.mask_skip.tell.weight)
    heard = difference()
    assert heard[..., :32].min() > 0
    assert not heard[..., 48:].any()


@pytest.mark.parametrize(
    ("semantic", "instance"),
    [([1, 1, 1], [1, 1, 1]), ([1, 0, 1], [0, 1, 0]), ([0, 0, 0], [1, 0, 1])],
    ids=["all of both", "one task each", "no regions at all"],
)
@torch.inference_mode()
def test_only_what_is_asked_for_is_answered(
    model: CosegModel, semantic: list[int], instance: list[int]
) -> None:
    asked = {"semantic": torch.tensor(semantic) > 0, "instance": torch.tensor(instance) > 0}
    whole, part = model(images(3)).second, model(images(3), asked=asked).second
    for task, names in MAPS_OF.items():
        for name in names:
            expected, found = getattr(whole, name), getattr(part, name)
            rows = asked[task]
            torch.testing.assert_close(found[rows], expected[rows], rtol=1e-4, atol=1e-5)
            assert found.shape == expected.shape and not found[~rows].any()


def test_a_model_that_has_predicted_can_learn(model: CosegModel) -> None:
    with torch.inference_mode():
        model(images())
    model.train()(images()).second.object.square().mean().backward()


def test_parts_hold_every_parameter_once(model: CosegModel) -> None:
    held = [id(parameter) for part in model.parts().values() for parameter in part]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}


def test_every_parameter_learns(model: CosegModel) -> None:
    output = model.train()(images())
    total = sum(maps.square().mean() for forward in output for maps in forward if maps is not None)
    total.backward()
    # A zeroed second matrix keeps the first from learning in the very first step.
    asleep = {id(p) for p in model.parts()["adapters"]}
    lazy = [n for n, p in model.named_parameters() if p.grad is None and id(p) not in asleep]
    assert lazy == []


def test_fresh_adapters_leave_sam2_alone() -> None:
    torch.manual_seed(0)
    trunk = Hiera(16, 1, stages=(1, 2, 1, 1), global_att_blocks=(2,), window_spec=(8, 4, 4, 4))
    before = trunk(images())
    put_in_adapters(trunk, ratio=0.25)
    for level, expected in zip(trunk(images()), before, strict=True):
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": "giant"}, "unknown encoder 'giant'.*tiny"),
        ({"widht": 32}, "unknown setting 'widht'; did you mean 'width'"),
        ({"encoder": {**TINY_HIERA, "stem_channels": (8, 8)}}, "with a stem there are 3 of each"),
        ({"encoder": {**TINY_HIERA, "top_down": True}}, "give stem_channels as well"),
        (
            {"encoder": {**TINY_HIERA, "global_attention_blocks": (1,)}},
            r"blocks \[1\] are the first of their stages",
        ),
        ({"width": 33}, "setting 'width'.*multiple of 16"),
    ],
)
def test_settings_that_cannot_be(config: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(small_card("coseg-plus", config))


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"'unet' is not known.*coseg-plus"):
        build(small_card("unet", TINY))


def test_a_shape_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        HieraConfig.model_validate(TINY_HIERA).embed_dim = 3
