"""Recipes: schedules, epochs, who is held out, turns, and what a slip is told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cases.histology_twins import make_glas_bmp
from cases.tiny_training import make_folder, tiny_recipe
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.models.checkpoints.native import read_card
from napari_coseg.training.recipe import Recipe, read_recipe, recipe_names
from napari_coseg.training.run import (
    StepSource,
    Turn,
    _KeepBest,
    images_to_report_on,
    open_part,
    some_of,
    step_source,
    train_recipe,
    validation_names,
)
from napari_coseg.training.schedule import learning_rate, steps_of, with_steps
from napari_coseg.training.settings import OptimiserSettings
from test_models import small_model


@pytest.mark.parametrize(
    ("step", "settings", "rate"),
    [
        (0, {"warmup_steps": 10}, 0.1),
        (9, {"warmup_steps": 10}, 1.0),
        (50, {"schedule": "cosine"}, 0.5),
        (99, {"schedule": "cosine"}, 0.5 * (1 + math.cos(math.pi * 0.99))),
        (40, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.2),
        (70, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.1),
        (20, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.5),
        (0, {"schedule": "poly", "steps_per_epoch": 10}, 1.0),
        (59, {"schedule": "poly", "steps_per_epoch": 10}, 0.5**0.9),
        (25, {"schedule": "exponential", "steps_per_epoch": 10}, 0.98**2),
    ],
)
def test_learning_rate(step: int, settings: dict, rate: float) -> None:
    chosen = OptimiserSettings(learning_rate=1.0, **settings)
    assert learning_rate(step, 100, chosen) == pytest.approx(rate)


# ---------------------------------------------------------------------------------------------
# Epochs


def parts(*parts: tuple[int, int]) -> list[dict]:
    """(crops, every_steps) of each."""
    return [
        {"dataset": "folder", "split": "all", "crop_px": 32, "crops": crops, "every_steps": every}
        for crops, every in parts
    ]


@pytest.mark.parametrize(
    ("batches", "steps"),
    [
        (parts((1, 1)), 6),
        (parts((4, 1)), 2),  # 6 images, 4 crops a step: one step is not enough
        (parts((16, 1)), 1),
        (parts((4, 1), (1, 5)), 30),  # the slower part sets the length
    ],
)
def test_an_epoch_shows_as_many_crops_as_there_are_images(batches, steps, tmp_path) -> None:
    make_folder(tmp_path, images=7)  # one of them is held out
    recipe = tiny_recipe(batches=batches, held_out=str(tmp_path / "held-out.json"))
    assert step_source(recipe, tmp_path).steps_per_epoch == steps


def test_epochs_are_counted_out_in_steps() -> None:
    recipe = tiny_recipe(steps=None, epochs=300, validation={"every_epochs": 10})
    with pytest.raises(SettingsError, match="counts in epochs"):
        steps_of(recipe)
    counted = with_steps(recipe, 9)
    assert steps_of(counted) == 2700
    assert counted.validation.every_steps == 90
    rates = [learning_rate(step, 2700, counted.optimiser) for step in (0, 8, 9, 2699)]
    assert rates == pytest.approx([1e-3, 1e-3, 0.98e-3, 0.98**299 * 1e-3])
    values = counted.model_dump(mode="json")
    assert Recipe.from_mapping(values).model_dump(mode="json") == values


def test_steps_go_before_epochs() -> None:
    recipe = tiny_recipe(steps=5, epochs=300)
    counted = with_steps(recipe, 9)
    assert counted.steps == 5
    assert counted.optimiser.steps_per_epoch == 9  # the rate's epochs are as long as the data's
    assert with_steps(tiny_recipe(steps=5), 9).optimiser.steps_per_epoch == 100


# ---------------------------------------------------------------------------------------------
# Who is held out


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 1), (0.1, 2), (0.3, 6), (0.5, 10), (1.0, 20)]
)
def test_a_fraction_of_the_images_holds_every_smaller_one(fraction: float, count: int) -> None:
    names = [f"image_{i}" for i in range(20)]
    drawn = some_of(names, fraction, seed=4)
    assert len(drawn) == count
    assert set(some_of(names, fraction / 2, seed=4)) <= set(drawn) <= set(names)
    assert sorted(drawn, key=names.index) == list(drawn)
    if 0.05 < fraction < 1:
        assert drawn != some_of(names, fraction, seed=5)


@pytest.mark.parametrize(
    ("held_out", "train", "validation", "test"),
    [
        pytest.param(
            {"validation": {"folder": ["s1"]}}, {"s0", "s2", "s3"}, {"s1"}, None, id="names"
        ),
        pytest.param(
            {"datasets": {"folder": {"train": ["s0"], "validation": ["s3"], "test": ["s1", "s2"]}}},
            {"s0"},
            {"s3"},
            {"s1", "s2"},
            id="partition",
        ),
    ],
)
def test_held_out_images_are_not_learnt_from(held_out, train, validation, test, tmp_path) -> None:
    make_folder(tmp_path, images=4)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(held_out))
    recipe = tiny_recipe(batches=parts((1, 1)), held_out=str(path))
    (_, sampler), *_ = step_source(recipe, tmp_path).samplers
    assert {sample.name for sample in sampler.sources[0].samples} == train
    dataset = open_part("folder", tmp_path, recipe)
    assert set(validation_names(dataset, "all", str(path))) == validation
    if test is None:
        with pytest.raises(DatasetError, match="no test images beside those of 'all'"):
            images_to_report_on(dataset, "all")
    else:
        where, names = images_to_report_on(dataset, "all")
        assert where == "test" and set(names) == test


def test_parts_of_a_file_are_found_in_whatever_folder_they_lie(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_folder(tmp_path / split, images=3)
        for file in (tmp_path / split).glob("*/*.png"):
            file.rename(file.with_name(f"{split}_{file.name}"))
    (tmp_path / "train" / "dataset.json").rename(tmp_path / "dataset.json")
    three = {
        "train": ["train_s0", "train_s1", "valid_s2"],
        "validation": ["valid_s0"],
        "test": ["valid_s1"],
    }
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"datasets": {"folder": three}}))
    part = {"dataset": "folder", "split": "train", "crop_px": 32, "crops": 1}
    recipe = tiny_recipe(batches=[part], held_out=str(path))
    (_, sampler), *_ = step_source(recipe, tmp_path).samplers
    assert {sample.name for sample in sampler.sources[0].samples} == set(three["train"])
    dataset = open_part("folder", tmp_path, recipe)
    assert validation_names(dataset, "train", str(path)) == ("valid_s0",)
    assert images_to_report_on(dataset, "train") == ("test", ("valid_s1",))


def test_test_images_are_not_learnt_from_where_the_parts_are_wrong(tmp_path: Path) -> None:
    make_folder(tmp_path, images=4)
    path = tmp_path / "split.json"
    twice = {"train": ["s0"], "validation": ["s1"], "test": ["s2", "s0"]}
    held = {"validation": {"folder": ["s1"]}, "datasets": {"folder": twice}}
    path.write_text(json.dumps(held))
    with pytest.raises(DatasetError, match="s0 are in a split more than once"):
        step_source(tiny_recipe(batches=parts((1, 1)), held_out=str(path)), tmp_path)


def test_images_to_choose_by_are_missed_before_the_first_step(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", images=3)
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"validation": {"folder": []}}))
    recipe = tiny_recipe(batches=parts((1, 1)), held_out=str(path))
    with pytest.raises(DatasetError, match="no image of 'folder' out to choose weights by"):
        train_recipe(recipe, tmp_path / "data", tmp_path / "out", lambda *_: {})
    assert not (tmp_path / "out").exists()


def test_a_test_split_of_its_own_is_reported_on(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    dataset = open_dataset("glas", tmp_path)
    where, names = images_to_report_on(dataset, "train")
    assert where == dataset.split_to_score == "testA"
    assert set(names) == set(dataset.names("testA"))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"validation": {"glas": ["a"]}}, "does not name dataset 'folder', only glas"),
        (
            {"datasets": {"folder": {"train": [], "validation": ["s0"], "test": []}}},
            "leaves no image of 'all'",
        ),
        ({"held": []}, "not JSON of the form"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(held_out, message, tmp_path: Path) -> None:
    make_folder(tmp_path)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(held_out))
    recipe = tiny_recipe(batches=parts((1, 1)), held_out=str(path))
    with pytest.raises(DatasetError, match=message):
        step_source(recipe, tmp_path)


# ---------------------------------------------------------------------------------------------
# Turns and files


@pytest.mark.parametrize(
    ("step", "sizes"),
    [(0, [32, 64]), (1, [32]), (4, [32, 64, 96]), (5, [32]), (6, [32, 96]), (8, [32, 96])],
)
def test_parts_take_turns(step: int, sizes: list[int]) -> None:
    class Sampler:
        def __init__(self, size: int) -> None:
            self.size = size

        def draw(self, step: int, rank: int, of: int) -> int:
            return self.size

    turns = (Turn(0, None, 1, 32), Turn(0, 6, 2, 64), Turn(3, None, 2, 96))
    source = StepSource(tuple((turn, Sampler(turn.crop_px)) for turn in turns))
    assert source(step) == sizes


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name: str) -> None:
    assert read_recipe(name).name == name


def test_the_shipped_model_is_trained_as_it_was() -> None:
    """What the recipe does not name must go on meaning what it meant."""
    recipe = read_recipe("colon-default")
    assert (recipe.steps, recipe.precision, recipe.accumulate) == (3600, "bf16", 1)
    assert (recipe.optimiser.algorithm, recipe.optimiser.clip_gradient_norm) == ("adamw", 1.0)
    assert (recipe.losses.first_forward, recipe.losses.consistency) == (0.5, 1.0)
    assert (recipe.losses.dice_over, recipe.losses.gradient_axis) == ("batch", "right")
    assert not recipe.activation_checkpointing and not recipe.deterministic


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp = 3", "unknown setting 'stesp'; did you mean 'steps'"),
        ("steps = 0", "setting 'steps'.*greater than or equal to 1"),
        ("[losses]\npresett = 'coseg-paper'", "did you mean 'preset'"),
        ("[optimiser]\nalgorithm = 'lion'", "'optimiser.algorithm'.*'adam', 'adamw' or 'sgd'"),
        (
            "batches = [{dataset = 'glas', crop_px = 64, crops = 1, mosaic = 3}]",
            "64 pixels cannot be put together from 3 a side",
        ),
        (
            "batches = [{dataset = 'glas', crop_px = 64, crops = 1, from_step = 5, to_step = 5}]",
            "from step 5 to before step 5 never takes part",
        ),
        ("precision = 'fp8'", "setting 'precision'.*'fp16', 'bf16' or 'fp32'"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_a_recipe_with_a_slip_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_recipe(path)


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "parent.toml").write_text(
        "base = 'colon-default'\nsteps = 7\n[optimiser]\nwarmup_steps = 3\n"
    )
    (tmp_path / "child.toml").write_text(
        "base = 'parent.toml'\nname = 'child'\n"
        "batches = [{dataset = 'glas', crop_px = 64, crops = 1}]\n[card]\nhalo_px = 8\n"
    )
    child, shipped = read_recipe(tmp_path / "child.toml"), read_recipe("colon-default")
    assert (child.name, child.steps, child.optimiser.warmup_steps) == ("child", 7, 3)
    assert [part.dataset for part in child.batches] == ["glas"]
    assert child.card == shipped.card.model_copy(update={"halo_px": 8})
    assert child.optimiser.model_copy(update={"warmup_steps": 100}) == shipped.optimiser
    assert child.losses == shipped.losses


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("'colon-defualt'", "no recipe 'colon-defualt'"),
        ("'mine.toml'", "its own base"),
        ("'gone.toml'", "no recipe file .*gone.toml"),
        ("['glas', 'crag']", "name one recipe"),
    ],
)
def test_a_base_that_cannot_be_is_refused(base: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"base = {base}\n")
    with pytest.raises(SettingsError, match=message):
        read_recipe(path)


def test_a_recipe_without_an_end_is_refused() -> None:
    with pytest.raises(SettingsError, match="give steps or epochs"):
        tiny_recipe(steps=None)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(SettingsError, match=r"'colon'.*colon-default"):
        read_recipe("colon")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"name": "../x"}, "name", id="a name that is a path"),
        pytest.param(
            {"validation": {"choose_by": ["region_dise"]}}, "choose_by", id="no such score"
        ),
        pytest.param(
            {"batches": [{"dataset": "folder", "crop_px": 32, "crop": 2}]},
            "unknown setting 'batches.0.crop'; did you mean 'crops'",
            id="a slip in a batch",
        ),
    ],
)
def test_a_slip_in_a_recipe_is_told(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tiny_recipe(**changes)


@pytest.mark.parametrize(
    ("scores", "worth"),
    [
        ({"object_panoptic_quality": 0.5, "region_dice": 0.25}, 0.75),
        ({"object_panoptic_quality": 0.5}, 0.5),
    ],
    ids=["both tasks", "objects alone"],
)
def test_weights_are_chosen_by_what_the_labels_give(
    scores: dict[str, float], worth: float, tmp_path: Path
) -> None:
    chosen = _KeepBest(tiny_recipe(), lambda *_: scores, tmp_path, tmp_path / "a.safetensors")
    chosen(1, small_model())
    assert chosen.best == worth


def test_no_score_to_choose_by_is_told(tmp_path: Path) -> None:
    chosen = _KeepBest(tiny_recipe(), lambda *_: {"object_aji": 1.0}, tmp_path, tmp_path / "a")
    with pytest.raises(SettingsError, match="the held-out images give object_aji"):
        chosen(1, small_model())


def test_a_hardly_worse_score_does_not_replace_the_chosen_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    first = {"region_dice": 0.80004}
    _KeepBest(tiny_recipe(), lambda *_: first, tmp_path, path)(1, small_model())
    resumed = _KeepBest(tiny_recipe(), lambda *_: {"region_dice": 0.80003}, tmp_path, path)
    resumed(2, small_model())
    assert read_card(path).scores["validation"]["step"] == 1
