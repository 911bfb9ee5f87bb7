"""The white point: exposure and the light's colour undone, in a run as in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases.stub_models import StubModel
from napari_coseg import segment
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.images.intake import RgbSource, crop, understand
from napari_coseg.images.white_point import WHITE, whitened_image
from napari_coseg.inference.run import read_for
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.training.classes import ClassMap
from napari_coseg.training.run import _Reader

ALL = (0, slice(None), slice(None))


def tissue(light: tuple[float, float, float] = (1, 1, 1), shape=(96, 96)) -> np.ndarray:
    """uint8 (Y, X, 3): pink and violet on glass of 245, under a light of some colour."""
    rng = np.random.default_rng(0)
    image = np.full((*shape, 3), WHITE)
    image[: shape[0] // 2] = (220, 150, 190)
    image[: shape[0] // 2, ::4] = (90, 60, 140)
    image[: shape[0] // 2] += rng.normal(0, 4, (shape[0] // 2, shape[1], 3))
    return (image * light).clip(0, 255).astype(np.uint8)


def read(image: np.ndarray) -> np.ndarray:
    return RgbSource(understand(image), white_point=True).read(*ALL)


@pytest.mark.parametrize(
    "light",
    [(1, 1, 1), (1, 0.93, 0.75), (0.8, 0.8, 0.8), (0.55, 0.6, 0.65), (1, 1, 1.04)],
    ids=["as it is", "warm", "dark", "dark and cold", "a little bluer"],
)
def test_the_light_is_undone(light: tuple[float, float, float]) -> None:
    shown = read(tissue(light))
    np.testing.assert_allclose(shown[-1, 0], WHITE, atol=0.5)
    np.testing.assert_allclose(shown, read(tissue()), atol=4)
    assert np.abs(whitened_image(tissue(light)) - shown).max() <= 0.5


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (np.full((8, 8), 100, np.uint8), "8 bits, as they are"),
        (np.full((8, 8, 3), (40, 200, 200), np.uint8), "8 bits, as they are; white point none"),
        (tissue((0.5, 0.25, 0.1)), "white point none found"),
        (tissue((1, 0.9, 0.8)), "white point 245, 220, 196"),
    ],
    ids=["grey", "no red", "darker than light can be", "warm"],
)
def test_what_was_done_is_told(image: np.ndarray, rule: str) -> None:
    source = RgbSource(understand(image), white_point=True)
    assert rule in source.intensity.rule
    if source.intensity.white is None:
        np.testing.assert_array_equal(source.read(*ALL), RgbSource(understand(image)).read(*ALL))


def test_a_part_of_an_image_has_the_white_of_the_whole() -> None:
    image = understand(tissue((1, 0.9, 0.7)))
    source = RgbSource(image, white_point=True)
    part, _ = crop(image, ((0, 40), (8, 50)))
    shown = RgbSource(part, None, source.intensity, white_point=True).read(*ALL)
    np.testing.assert_array_equal(shown, source.read(0, slice(0, 40), slice(8, 50)))


def test_large_images_are_judged_from_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RgbSource(understand(tissue((1, 0.9, 0.7), (700, 900))), white_point=True)
    monkeypatch.setattr("napari_coseg.images.white_point.WHOLE_UP_TO_PX", 1000)
    monkeypatch.setattr("napari_coseg.images.sampling.BLOCK_PX", 32)
    sampled = RgbSource(understand(tissue((1, 0.9, 0.7), (700, 900))), white_point=True)
    np.testing.assert_allclose(sampled.intensity.white, whole.intensity.white, atol=1)


@pytest.mark.parametrize("white_point", [False, True])
def test_training_sees_what_a_run_sees(tmp_path: Path, white_point: bool) -> None:
    image = tissue((1, 0.9, 0.7))
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.json").write_text('{"pixel_size_um": 0.5}')
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    dataset = open_dataset("folder", tmp_path)
    reader = _Reader(dataset, "all", ClassMap(None, None), None, white_point)
    shown = RgbSource(understand(image), white_point=white_point).read(*ALL)
    assert np.abs(reader("a").image - shown).max() <= 0.5


@pytest.mark.parametrize(
    ("card", "asked", "done"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_the_run_goes_before_the_card(card: bool, asked: bool | None, done: bool) -> None:
    model = StubModel()
    normalisation = model.card.normalisation.model_copy(update={"white_point": card})
    model.card = model.card.model_copy(update={"normalisation": normalisation})
    settings = InferenceSettings(white_point=asked)
    image = understand(tissue((1, 0.9, 0.8)))
    assert (read_for(model.card, image, settings=settings).intensity.white is not None) == done
    found = segment(tissue((1, 0.9, 0.8)), model, 0.5, settings=settings)
    assert ("white point" in found.provenance["intensity"]) == done
    assert found.provenance["settings"]["white_point"] is asked
