"""The recipes that ship: as the papers train, with networks that build and the data's classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import pytest

from napari_coseg.core.errors import SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets import glas, lizard, partition, puma, toothfairy2
from napari_coseg.datasets.registry import DATASETS
from napari_coseg.models.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.registry import build
from napari_coseg.training.loss_settings import LossSettings
from napari_coseg.training.recipe import Recipe, read_recipe, recipe_names

Classes = tuple[LabelClass, ...]


@dataclass(frozen=True)
class Shipped:
    """What a paper's recipe says; sections 4.1 of Co-Seg++ and 3.1 of Co-Seg.

    Parameters
    ----------
    regions, types
        As the reader of the dataset has them.
    learnable_millions
        Counted on the released code: 22.18 and 21.14, of which 0.52 are never used, less what the
        released code's spare channels need.
    """

    dataset: str
    split: str
    regions: Classes
    types: Classes
    learnable_millions: float
    family: str = "coseg-plus"
    preset: str = "coseg-plus-paper"
    trained: set[str] = field(
        default_factory=lambda: {"adapters", "neck", "prompt_encoders", "decoders"}
    )


COLON = (glas.GLAND_CLASSES, lizard.NUCLEUS_CLASSES, 21.24)
TEETH = (toothfairy2.REGION_CLASSES, toothfairy2.TOOTH_CLASSES, 21.38)
RECIPES = {
    "puma": Shipped("puma", "puma_coseg", puma.Puma.TISSUES, puma.Puma.NUCLEI, 21.38),
    "glas": Shipped("glas-lizard", "7:1:2", *COLON),
    "crag": Shipped("crag-lizard", "7:1:2", *COLON),
    "toothfairy2": Shipped("toothfairy2", "7:1:2", *TEETH),
    "coseg-puma": Shipped(
        "puma",
        "puma_coseg",
        puma.Puma.TISSUES[:1],  # tumour or not
        (),  # nuclei without types
        20.40,
        family="coseg",
        preset="coseg-paper",
        trained={"adapters", "lora", "neck", "prompt_encoders", "decoders"},
    ),
}
# The shipped model's own, its small one, and the next one's.
OTHERS = {"colon-default", "colon-small", "multi-organ", "cbct-synthetic"}


def test_every_shipped_recipe_stands_in_the_table() -> None:
    assert set(recipe_names()) == set(RECIPES) | OTHERS


@pytest.fixture(params=RECIPES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def recipe(name: str) -> Recipe:
    return read_recipe(name)


def test_it_trains_as_the_paper_does(name: str, recipe: Recipe) -> None:
    optimiser = recipe.optimiser
    assert recipe.name == name
    assert (recipe.epochs, recipe.steps) == (300, None)
    assert (optimiser.algorithm, optimiser.learning_rate) == ("adam", 1e-4)
    assert (optimiser.schedule, optimiser.decay) == ("exponential", 0.98)
    assert (optimiser.weight_decay, optimiser.warmup_steps, optimiser.ema_decay) == (0, 0, 0)
    assert optimiser.clip_gradient_norm >= 1e6
    assert recipe.losses == LossSettings(preset=RECIPES[name].preset)
    assert set(recipe.trained_parts) == RECIPES[name].trained
    assert recipe.augmentation == recipe.augmentation.none()


def test_a_batch_is_sixteen_images_of_1024(name: str, recipe: Recipe) -> None:
    (part,) = recipe.batches
    assert part.dataset == RECIPES[name].dataset
    assert part.dataset in DATASETS
    assert (part.crops, part.crop_px, recipe.card.tile_size_px) == (16, 1024, 1024)
    assert part.crops % recipe.accumulate == 0


def test_its_classes_are_those_of_the_dataset(name: str, recipe: Recipe) -> None:
    """Id by id, with the same names and colours."""
    assert recipe.card.semantic_label_classes == RECIPES[name].regions
    assert recipe.card.instance_label_classes == RECIPES[name].types


def test_its_network_can_be_built(name: str, recipe: Recipe) -> None:
    with FrugalBuilding(10**9):  # reserves memory and writes none
        model = build(recipe.card)
    assert recipe.card.family == RECIPES[name].family
    parts = model.parts()
    learnable = sum(p.numel() for part in recipe.trained_parts for p in parts[part])
    assert learnable / 1e6 == pytest.approx(RECIPES[name].learnable_millions, abs=0.01)
    assert sum(p.numel() for p in parts["trunk"]) == 212_149_296  # Hiera-L


def test_whole_images_fit_into_a_crop() -> None:
    sizes = {
        "puma": (1024, 0.23),
        "coseg-puma": (1024, 0.23),
        "glas": (775, glas.PIXEL_SIZE_UM),
        "crag": (1516, 0.55),
    }
    for name, (pixels, pixel_size_um) in sizes.items():
        longest = pixels * pixel_size_um / read_recipe(name).card.pixel_size_um
        assert 1000 < longest <= 1024, name


def test_its_split_is_known(recipe: Recipe, name: str) -> None:
    assert recipe.held_out == RECIPES[name].split
    if recipe.held_out != "7:1:2":
        assert recipe.batches[0].dataset in partition.load_partition(recipe.held_out)


def changed(written: str, slip: str, path: Path) -> Path:
    """The shipped recipe of PUMA with a slip in it."""
    text = (resources.files("napari_coseg.training") / "recipes" / "puma.toml").read_text("utf-8")
    assert written in text
    path.write_text(text.replace(written, slip, 1), "utf-8")
    return path


@pytest.mark.parametrize(
    ("written", "slip", "message"),
    [
        ("epochs =", "epoch =", r"unknown setting 'epoch'; did you mean 'epochs'"),
        ("accumulate =", "acumulate =", r"unknown setting 'acumulate'; did you mean 'accumulate'"),
        ("decay =", "decy =", r"unknown setting 'optimiser\.decy'; did you mean 'decay'"),
        ("preset =", "pre_set =", r"unknown setting 'losses\.pre_set'; did you mean 'preset'"),
        ("halo_px =", "halo =", r"unknown setting 'card\.halo'; did you mean 'halo_px'"),
        ('"coseg-plus-paper"', '"coseg-plus"', r"setting 'losses\.preset'.*coseg-plus-paper"),
        ("crop_px = 1024", "crop_px = 1000", r"'batches\.0\.crop_px'.*multiple of 32"),
        ("epochs = 300", "", "give steps or epochs"),
    ],
)
def test_a_slip_in_a_recipe_is_refused_with_the_nearest_name(
    written: str, slip: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        read_recipe(changed(written, slip, tmp_path / "mine.toml"))


def test_a_slip_in_the_networks_shape_is_refused_too(tmp_path: Path) -> None:
    recipe = read_recipe(changed("encoder =", "encodr =", tmp_path / "mine.toml"))
    with pytest.raises(SettingsError, match="unknown setting 'encodr'; did you mean 'encoder'"):
        build(recipe.card)
