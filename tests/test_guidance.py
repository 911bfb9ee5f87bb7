"""Guidance: its maps, their place in the image, and no side effects on the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from cases.tiny_coseg import tiny_coseg, tiny_coseg_card
from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.cli.main import main
from napari_coseg.formats.panels import draw, heat
from napari_coseg.inference.guidance import mutual_guidance
from napari_coseg.models.checkpoints.native import save

RNG = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "pixel_size_um", "window", "offset"),
    [
        pytest.param((60, 90), 0.5, (60, 90), (0, 0), id="small"),
        pytest.param((50, 70), 0.25, (50, 70), (0, 0), id="finer than the model"),
        pytest.param((200, 300), 0.5, (128, 128), (36, 86), id="centre of a large one"),
        pytest.param((300, 300), 0.25, (256, 256), (22, 22), id="large and fine"),
        pytest.param((1, 37), 1.0, (1, 37), (0, 0), id="a line"),
        pytest.param((200, 300), 0.499, (128, 128), (36, 86), id="hardly finer"),
        pytest.param((200, 300), 0.4901, (128, 128), (36, 86), id="finest not resampled"),
        pytest.param((200, 300), 0.5099, (128, 128), (36, 86), id="coarsest not resampled"),
        pytest.param((200, 300), 0.485, (131, 131), (34, 84), id="a bit finer"),
    ],
)
def test_maps_lie_on_the_pixels_of_the_image(shape, pixel_size_um, window, offset) -> None:
    image = picture(*shape)
    model = tiny_model(tiny_card().model_copy(update={"tile_size_px": 128}))
    found = mutual_guidance(image, model, pixel_size_um)
    assert found.offset == offset
    assert {values.shape for values in found.maps().values()} == {window}
    (top, left), (height, width) = offset, window
    np.testing.assert_array_equal(found.rgb, image[top : top + height, left : left + width])


def test_prompts_are_the_first_forwards_masks() -> None:
    image, model = picture(64, 64), tiny_model()
    with torch.inference_mode():
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        first = model(model.normalise(planes.float())).first
    found = mutual_guidance(image, model, 0.5)
    for prompt, mask in (
        (found.region_prompt, first.semantic_mask),
        (found.object_prompt, first.instance_mask),
    ):
        shrunk = prompt.reshape(16, 4, 16, 4).mean(axis=(1, 3))
        assert np.corrcoef(shrunk.ravel(), mask[0, 0].sigmoid().numpy().ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(tiny_model, id="Co-Seg++"),
        pytest.param(tiny_coseg, id="Co-Seg, one token of regions"),
        pytest.param(lambda: tiny_coseg(tiny_coseg_card(spare_token=True)), id="with a spare one"),
    ],
)
def test_attention_is_relative_to_uniform_attention(make: Callable) -> None:
    found = mutual_guidance(picture(128, 128), make(), 0.5)
    for attention in (found.region_attention, found.object_attention):
        assert attention is not None
        assert attention.min() >= 0
        assert attention.mean() == pytest.approx(1, abs=0.05)
    assert not np.allclose(found.region_attention, found.object_attention)


def test_attention_of_a_spare_token_is_ignored() -> None:
    image, model = picture(64, 64), tiny_coseg(tiny_coseg_card(spare_token=True))
    before = mutual_guidance(image, model, 0.5).region_attention
    # Tokens attend to each other, so only the slice of tokens changes here, not the network.
    seen: list[int] = []
    attention = model.semantic_decoder.transformer.final_attn_token_to_image
    attention.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs["q"].shape[1]), with_kwargs=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.semantic_decoder, "answering", slice(None))
        with_spare = mutual_guidance(image, model, 0.5).region_attention
    assert seen and set(seen) == {2}
    assert not np.allclose(before, with_spare)


def test_a_decoder_without_attention_has_no_attention_maps() -> None:
    found = mutual_guidance(picture(64, 64), tiny_model(tiny_card(decoder="plain")), 0.5)
    assert list(found.maps()) == ["region mask, prompts objects", "object mask, prompts regions"]


def test_the_model_is_unchanged_afterwards() -> None:
    model = tiny_model().train()
    mutual_guidance(picture(64, 64), model, 0.5)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((1, 2)), [(20, 10, 60), (20, 10, 60)]),
        (np.array([[0.0, 1.0]]), [(20, 10, 60), (255, 250, 180)]),
        (np.array([[-2.0, 2.0]]), [(20, 10, 60), (255, 250, 180)]),
    ],
    ids=["constant", "0 to 1", "negative"],
)
def test_heat_runs_from_dark_to_light(values, expected) -> None:
    assert [tuple(color) for color in heat(values)[0]] == expected


def test_panels_for_the_image_and_each_map() -> None:
    one = draw(picture(400, 400), {})
    three = draw(picture(400, 400), {"a": np.zeros((400, 400)), "b": np.eye(400)})
    assert one.shape == (430, 400, 3)
    assert three.shape == (430, 3 * 400 + 2 * 8, 3)


def test_the_command_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    weights, image = tmp_path / "tiny.safetensors", tmp_path / "tissue.png"
    save(weights, tiny_model())
    PIL.Image.fromarray(picture(64, 96)).save(image)
    command = ["explain", str(image), "--model", str(weights), "--pixel-size-um", "0.5"]
    assert main(command) == 0
    written = tmp_path / "tissue_guidance.png"
    assert capsys.readouterr().out.strip() == str(written)
    with PIL.Image.open(written) as opened:
        assert opened.width > 4 * opened.height
    assert main(command) == 2  # existing files are kept without --overwrite
