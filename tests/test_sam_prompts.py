"""SAM2's checkpoints, windows and masks, compared with sam2's own predictor on random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.tiny_sam2 import TINY, build_tiny, predictor_of, save_tiny, tiny_in_use
from napari_coseg.core.errors import Cancelled, CheckpointError, EditError
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.inference.sam2 import model as sam2_model
from napari_coseg.inference.sam2.model import Sam2Kind, load_sam2, recognise
from napari_coseg.inference.sam2.prompts import CACHED_WINDOWS, SamPrompts
from napari_coseg.inference.sam2.windows import (
    LARGEST_WINDOW_PX,
    Prompt,
    SamMask,
    field_px,
    is_reusable,
    on_labels,
    window_around,
)
from napari_coseg.models.checkpoints.frugal import FrugalBuilding

SIZES = ("tiny", "small", "base-plus", "large")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam2") / "tiny.pt")


@pytest.fixture(scope="module")
def model(weights: Path) -> Any:
    with tiny_in_use():
        return load_sam2(weights).model


@pytest.fixture
def prompts(model: Any) -> SamPrompts:
    return SamPrompts(model)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def source(*shape: int, seed: int = 0) -> RgbSource:
    return RgbSource(understand(picture(*shape, seed=seed)))


# ---------------------------------------------------------------------------------------------
# The file


@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_sam2_is_recognised(version: str, size: str) -> None:
    kind = Sam2Kind(version, size)
    with FrugalBuilding(10**9):  # without numbers
        state = sam2_model.build(kind).state_dict()
    assert recognise({name: tuple(value.shape) for name, value in state.items()}) == kind


def test_a_checkpoint_is_loaded_exactly(model: Any, weights: Path) -> None:
    saved = torch.load(weights, weights_only=True)["model"]
    found = model.state_dict()
    assert set(found) == set(saved)
    assert all(torch.equal(found[name], value) for name, value in saved.items())
    assert not model.training
    assert not any(value.requires_grad for value in model.parameters())


def test_an_incomplete_checkpoint_is_an_error(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(weights, weights_only=True)["model"]
    state.pop("no_obj_ptr")
    torch.save(state, tmp_path / "part.pt")
    monkeypatch.setattr(sam2_model, "recognise", lambda shapes, file: TINY)
    monkeypatch.setattr(sam2_model, "build", build_tiny)
    with pytest.raises(CheckpointError, match=r"part\.pt does not fit.* missing: no_obj_ptr"):
        load_sam2(tmp_path / "part.pt")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(None, "there is no file .*models download", id="missing"),
        pytest.param(
            lambda path: path.write_bytes(b"no weights" * 9), "not a weights file", id="text"
        ),
        pytest.param(
            lambda path: torch.save({"a": torch.zeros(2)}, path),
            "is no checkpoint of SAM2: no Hiera trunk .*models download",
            id="other weights",
        ),
        pytest.param(
            lambda path: torch.save({"model": image_encoder_alone()}, path),
            "trunk of 16 channels .* no size of SAM2",
            id="other size",
        ),
        pytest.param(lambda path: truncate(path), "SAM2 has at most 0.9 GB", id="too large"),
    ],
)
def test_other_files_are_an_error(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "file.pt"
    if make is not None:
        make(path)
    with pytest.raises(CheckpointError, match=message):
        load_sam2(path)


def image_encoder_alone() -> dict[str, torch.Tensor]:
    with FrugalBuilding(10**9):
        state = build_tiny().state_dict()
    return {name: value for name, value in state.items() if name.startswith("image_encoder.")}


def truncate(path: Path) -> None:
    """A sparse file of 5 GB."""
    with path.open("wb") as file:
        file.truncate(5 * 10**9)


def test_downloaded_checkpoints_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_COSEG_CACHE", str(tmp_path))
    assert sam2_model.downloaded() == []
    half = tmp_path / "sam2.1_hiera_small.pt"
    half.write_bytes(b"cut off")
    whole = tmp_path / "sam2.1_hiera_tiny.pt"
    with whole.open("wb") as file:
        file.truncate(156_008_466)
    assert [(one.name, path) for one, path in sam2_model.downloaded()] == [("sam2.1-tiny", whole)]


# ---------------------------------------------------------------------------------------------
# The window


@pytest.mark.parametrize(
    ("prompt", "shape", "expected"),
    [
        pytest.param(Prompt(((500, 600),), (True,)), (2000, 2000), (372, 472, 256), id="a click"),
        pytest.param(Prompt(((3, 1990),), (True,)), (2000, 2000), (0, 1744, 256), id="in a corner"),
        pytest.param(Prompt(box=(100, 100, 700, 400)), (2000, 2000), (0, 0, 1200), id="a box"),
        pytest.param(
            Prompt(((500, 500), (500, 900)), (True, False)), (2000, 2000), (100, 300, 800), id="far"
        ),
    ],
)
def test_a_window_is_centred_on_the_prompt_and_inside_the_image(
    prompt: Prompt, shape: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    top, left, side = expected
    window = window_around(prompt, shape, 256)
    assert window == (slice(top, top + side), slice(left, left + side))
    assert is_reusable(window, window, prompt, shape)


def test_a_window_is_cut_if_the_image_is_smaller() -> None:
    window = window_around(Prompt(((5, 400),), (True,)), (100, 3000), 512)
    assert window == (slice(0, 100), slice(144, 656))


@pytest.mark.parametrize(
    ("point", "expected"),
    [((500, 500), True), ((560, 440), True), ((590, 500), False), ((700, 500), False)],
    ids=["the same", "well inside", "in the margin", "outside"],
)
def test_a_window_is_reused_for_prompts_well_inside(point: tuple[int, int], expected: bool) -> None:
    shape, field = (2000, 2000), 256
    window = window_around(Prompt(((500, 500),), (True,)), shape, field)
    prompt = Prompt((point,), (True,))
    assert is_reusable(window, window_around(prompt, shape, field), prompt, shape) is expected


def test_a_window_of_a_gland_is_not_reused_for_a_nucleus() -> None:
    shape = (4000, 4000)
    gland = window_around(Prompt(box=(1000, 1000, 2200, 2200)), shape, 512)
    nucleus = Prompt(((1600, 1600),), (True,))
    assert not is_reusable(gland, window_around(nucleus, shape, 512), nucleus, shape)


@pytest.mark.parametrize(
    ("size", "expected"), [((0.5, 0.5), 256), ((0.05, 0.05), 1024), ((9, 9), 128), (None, 512)]
)
def test_the_window_of_a_click_has_a_fixed_width_in_um(size: Any, expected: int) -> None:
    assert field_px(size) == expected


# ---------------------------------------------------------------------------------------------
# Masks are those of sam2's predictor

PROMPTS = [
    pytest.param(Prompt(((60.0, 110.0),), (True,)), id="a click"),
    pytest.param(Prompt(((60.0, 110.0), (80.5, 90.0)), (True, False)), id="and a negative point"),
    pytest.param(Prompt(((60.0, 110.0), (80.5, 90.0)), (True, True)), id="two positive points"),
    pytest.param(Prompt(box=(40.0, 80.0, 75.0, 141.0)), id="a box"),
    pytest.param(Prompt(((50.0, 90.0),), (False,), (40.0, 80.0, 75.0, 141.0)), id="box and point"),
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("where", [(0, 0), (300, 200)], ids=["small image", "part of a large one"])
def test_a_mask_is_that_of_sam2s_predictor(
    prompts: SamPrompts, prompt: Prompt, where: tuple[int, int]
) -> None:
    y, x = where
    image = picture(160 + 4 * y, 200 + 4 * x, 3)
    there = moved(prompt, where)
    rgb = RgbSource(understand(image))
    found = prompts.answer(rgb, there, pixel_size_um=(0.5, 0.5))
    window = window_around(there, rgb.plane_shape, 256)
    mask, quality = with_sam2(prompts.model, image[window], moved(there, window, -1))
    full = np.zeros(mask.shape, bool)
    top, left = (at - part.start for at, part in zip(found.corner, window, strict=True))
    full[top : top + found.mask.shape[0], left : left + found.mask.shape[1]] = found.mask
    np.testing.assert_array_equal(full, mask)
    assert found.quality == pytest.approx(quality, abs=1e-5)
    assert 0 < mask.mean() < 1


def moved(prompt: Prompt, by: Any, sign: int = 1) -> Prompt:
    y, x = (sign * getattr(one, "start", one) for one in by)
    points = tuple((p[0] + y, p[1] + x) for p in prompt.points)
    box = prompt.box and (
        prompt.box[0] + y,
        prompt.box[1] + x,
        prompt.box[2] + y,
        prompt.box[3] + x,
    )
    return Prompt(points, prompt.positive, box)


def with_sam2(model: Any, crop: np.ndarray, prompt: Prompt) -> tuple[np.ndarray, float]:
    predictor = predictor_of(model)
    predictor.set_image(np.ascontiguousarray(crop))
    points = np.array([(x, y) for y, x in prompt.points]) if prompt.points else None
    labels = np.array(prompt.positive, int) if prompt.points else None
    box = None
    if prompt.box:
        top, left, bottom, right = prompt.box
        box = np.array([left, top, right, bottom])
    alone = box is None and len(prompt.points) == 1
    masks, qualities, _ = predictor.predict(points, labels, box, multimask_output=alone)
    best = int(np.argmax(qualities))
    return masks[best].astype(bool), float(qualities[best])


@pytest.mark.parametrize(
    ("data", "axes", "channels"),
    [
        pytest.param(lambda rgb: rgb[..., 0], "YX", None, id="grey"),
        pytest.param(lambda rgb: rgb.astype(np.uint16) * 257, "YXC", None, id="16 bits"),
        pytest.param(lambda rgb: rgb / 255, "YXC", None, id="floats of 0..1"),
        pytest.param(lambda rgb: np.moveaxis(rgb, -1, 0), "CYX", [2], id="one channel of three"),
        pytest.param(lambda rgb: np.stack([rgb[..., 1], rgb[..., 0]]), "ZYX", None, id="a slice"),
    ],
)
def test_every_image_that_segment_supports_is_supported(
    prompts: SamPrompts, data: Any, axes: str, channels: Any
) -> None:
    rgb = picture(90, 100, 3)
    shown = {"YX": rgb[..., [0, 0, 0]], "CYX": rgb[..., [2, 2, 2]], "ZYX": rgb[..., [0, 0, 0]]}
    image = understand(data(rgb), axes)
    found = prompts.answer(RgbSource(image, channels), CLICK, z=int("Z" in axes))
    mask, _ = with_sam2(prompts.model, shown.get(axes, rgb), CLICK)
    assert found.mask.sum() == mask.sum()


CLICK = Prompt(((40.0, 50.0),), (True,))


def test_a_window_is_encoded_once_for_all_prompts_in_it(
    prompts: SamPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = prompts._encode
    monkeypatch.setattr(prompts, "_encode", lambda rgb: (encoded.append(rgb.shape), encode(rgb))[1])
    rgb = source(600, 600, 3)

    def ask(prompt: Prompt, **options: Any) -> int:
        prompts.answer(rgb, prompt, pixel_size_um=(1, 1), **options)
        return len(encoded)

    click = Prompt(((300.0, 300.0),), (True,))
    assert ask(click) == 1
    assert ask(click.with_point((310, 320), False)) == 1
    assert ask(Prompt(box=(280, 280, 330, 320))) == 1
    assert ask(Prompt(((100.0, 100.0),), (True,))) == 2, "outside the first window"
    assert ask(click) == 2, "the first is still cached"
    assert ask(click, key="another image") == 3
    assert encoded == [(128, 128, 3)] * 3
    for y in range(64, 64 + 100 * CACHED_WINDOWS, 100):
        ask(Prompt(((float(y), 500.0),), (True,)))
    assert len(prompts._cache) == CACHED_WINDOWS


def test_cancelling_keeps_the_embedding(prompts: SamPrompts) -> None:
    rgb, calls = source(90, 90, 3), []

    def after_encoding() -> bool:
        calls.append(0)
        return len(calls) > 1

    with pytest.raises(Cancelled):
        prompts.answer(rgb, CLICK, should_cancel=after_encoding)
    assert len(prompts._cache) == 1
    assert prompts.answer(rgb, CLICK).mask.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Prompt(), "the prompt is empty", id="nothing"),
        pytest.param(
            lambda: Prompt(((1, 1),), (False,)), "the prompt is empty", id="only a negative point"
        ),
        pytest.param(lambda: Prompt(((1, np.nan),), (True,)), "not finite", id="not a number"),
        pytest.param(lambda: Prompt(((1, 1),), ()), "one for each", id="a missing value"),
        pytest.param(lambda: Prompt(box=(5, 5, 5, 9)), "no area", id="a box without area"),
        pytest.param(lambda: Prompt(((95, 3),), (True,)), "outside the image", id="outside"),
        pytest.param(lambda: Prompt(box=(-9, -9, -2, -3)), "outside the image", id="box outside"),
    ],
)
def test_invalid_prompts_are_an_error(prompts: SamPrompts, make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        prompts.answer(source(90, 90, 3), make())


def test_a_box_that_is_too_large_is_an_error() -> None:
    side = LARGEST_WINDOW_PX
    with pytest.raises(EditError, match="too large for SAM2"):
        window_around(Prompt(box=(0, 0, side, side)), (10**5, 10**5), 512)


def test_a_box_is_clipped_to_the_image() -> None:
    assert Prompt(box=(-5, 3, 50, 200)).inside((90, 100)).box == (0, 3, 50, 99)


# ---------------------------------------------------------------------------------------------
# Masks on labels


@pytest.mark.parametrize(
    ("to_image", "shape"),
    [
        pytest.param([[1, 0, 0], [0, 1, 0]], (60, 70), id="the same grid"),
        pytest.param([[1, 0, 12], [0, 1, -7]], (60, 70), id="shifted"),
        pytest.param([[2, 0, 0.5], [0, 2, 0.5]], (30, 35), id="half the resolution"),
        pytest.param([[0.5, 0, -0.25], [0, 0.25, 0]], (120, 280), id="finer"),
        pytest.param([[0, 1, 0], [1, 0, 0]], (70, 60), id="transposed"),
        pytest.param([[-1, 0, 59], [0, 1, 0]], (60, 70), id="mirrored"),
    ],
)
def test_a_mask_is_resampled_to_the_labels(
    to_image: list[list[float]], shape: tuple[int, int]
) -> None:
    """Compared with a lookup for each pixel of the labels."""
    full = np.zeros((60, 70), bool)
    full[20:33, 30:51] = np.random.default_rng(0).random((13, 21)) > 0.3
    found = SamMask(full[20:33, 30:51], (20, 30), 1.0, False)
    expected = np.zeros(shape, bool)
    for y, x in np.ndindex(shape):
        row, column = np.floor(np.array(to_image) @ (y, x, 1) + 0.5).astype(int)
        if 0 <= row < 60 and 0 <= column < 70:
            expected[y, x] = full[row, column]
    mask, (top, left) = on_labels(found, np.array(to_image, float), shape)
    got = np.zeros(shape, bool)
    got[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    np.testing.assert_array_equal(got, expected)


def test_a_mask_outside_the_labels_is_an_error() -> None:
    found = SamMask(np.ones((4, 4), bool), (0, 0), 1.0, False)
    with pytest.raises(EditError, match="outside the objects layer"):
        on_labels(found, np.array([[1.0, 0, 50], [0, 1, 50]]), (20, 20))
