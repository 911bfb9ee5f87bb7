"""Ablations: what a row changes, what is trained again, and how the table is made."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from cases.tiny_models import tiny_card
from napari_coseg.cli.ablate import TABLES
from napari_coseg.core.errors import Cancelled, SettingsError
from napari_coseg.evaluation.ablation import run as ablation
from napari_coseg.evaluation.ablation.rows import (
    ABLATIONS,
    UNCHANGED,
    Ablation,
    Row,
    changed,
    folder_name,
)
from napari_coseg.evaluation.ablation.run import NETWORK_FILE, run_ablation
from napari_coseg.evaluation.ablation.summary import as_markdown, summarise
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.native import load
from napari_coseg.models.registry import build
from napari_coseg.training.loss_settings import LossSettings
from napari_coseg.training.recipe import BatchPart, Recipe
from napari_coseg.training.settings import STATE_FILE

RECIPE = Recipe(
    name="small",
    steps=3,
    precision="fp32",
    trained_parts=("trunk", "adapters", "neck", "prompt_encoders", "decoders"),
    card=tiny_card(),
    batches=(BatchPart(dataset="folder", crop_px=64, crops=1),),
)


@pytest.mark.parametrize(
    ("table", "row"), [(name, row) for name, one in ABLATIONS.items() for row in one.rows]
)
def test_every_row_is_a_recipe_whose_network_runs(table: str, row: Row) -> None:
    recipe = changed(RECIPE, row.changes)
    with torch.inference_mode():
        maps = build(recipe.card).eval()(torch.zeros(1, 3, 64, 64)).second
    assert maps.semantic.shape == (1, 2, 64, 64)


@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_differ_and_the_last_is_the_recipe_itself(name: str) -> None:
    recipes = [changed(RECIPE, row.changes) for row in ABLATIONS[name].rows]
    assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])
    assert recipes[-1] == RECIPE
    assert len({row.name for row in ABLATIONS[name].rows}) == len(recipes)
    folders = [folder_name(RECIPE, row.changes) for row in ABLATIONS[name].rows]
    assert len(set(folders)) == len(recipes)
    assert folders[-1] == UNCHANGED


def test_the_command_offers_every_table() -> None:
    assert tuple(ABLATIONS) == TABLES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"card.config.decodre": "plain"}, "unknown setting 'decodre'; did you mean 'decoder'"),
        ({"losses.first_foward": 1.0}, "did you mean 'first_forward'"),
        ({"loss.first_forward": 1.0}, "has no settings 'loss'"),
        ({"losses.preset": "coseg"}, "should be 'coseg-plus-paper'"),
    ],
)
def test_an_unknown_setting_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(changed(RECIPE, changes).card)


PLUS_RELEASED = LossSettings(preset="coseg-plus-released")


@pytest.mark.parametrize(
    ("own", "changes", "expected"),
    [
        pytest.param({}, {}, PLUS_RELEASED, id="another preset, all of it"),
        pytest.param(
            {"hv_mse": 1.0},
            {},
            PLUS_RELEASED.model_copy(update={"hv_mse": 1.0}),
            id="the recipe's own setting stays",
        ),
        pytest.param(
            {},
            {"losses.consistency": 3.0},
            PLUS_RELEASED.model_copy(update={"consistency": 3.0}),
            id="a change beside it goes over it",
        ),
        pytest.param(
            {"preset": "coseg-released"}, {}, PLUS_RELEASED, id="nothing is left of the old preset"
        ),
    ],
)
def test_a_changed_preset_changes_the_losses(
    own: dict, changes: dict, expected: LossSettings
) -> None:
    recipe = RECIPE.model_copy(update={"losses": LossSettings.from_mapping(own)})
    for order in (1, -1):
        both = [*changes.items(), ("losses.preset", "coseg-plus-released")][::order]
        assert changed(recipe, dict(both)).losses == expected


class Trainings:
    """Stands in for the training; counts what was trained: the decoder, and the seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, int]] = []
        trainings = self

        def trained(maker: ablation._Maker, tell: object) -> CosegModel:
            model = build(maker.recipe.card)
            trainings.done.append((decoder_of(model), maker.recipe.seed))
            return model

        monkeypatch.setattr(ablation._Maker, "_trained", trained)


def decoder_of(model: CosegModel) -> str:
    return str(model.card.config.get("decoder", "mtc"))


def score(model: CosegModel, recipe: Recipe, root: Path) -> dict[str, float]:
    return {"quality": recipe.seed / 10 + (decoder_of(model) == "mtc"), "dice": 0.5}


PLAIN = Row("plain", {"card.config.decoder": "plain"})
TWO_ROWS = Ablation("a test", (PLAIN, Row("whole")))


def run(folder: Path, *seeds: int, ablation: Ablation = TWO_ROWS, **more: Any) -> pd.DataFrame:
    return run_ablation(RECIPE, ablation, folder, folder, score, seeds=seeds, **more)


def test_what_was_trained_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    first = run(tmp_path, 0)
    assert trainings.done == [("plain", 0), ("mtc", 0)]
    both = run(tmp_path, 0, 1)
    assert trainings.done[2:] == [("plain", 1), ("mtc", 1)]
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)


def test_rows_with_the_same_changes_are_one_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    run(tmp_path, 0)
    other = Ablation("another test", (Row("no MTC", PLAIN.changes), Row("all of it")))
    table = run(tmp_path, 0, ablation=other)
    assert trainings.done == [("plain", 0), ("mtc", 0)]
    assert table[table["metric"] == "quality"]["row"].tolist() == ["no MTC", "all of it"]


def test_other_images_are_scored_without_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    run(tmp_path, 0)
    scored: list[str] = []

    def on_test(model: CosegModel, recipe: Recipe, root: Path) -> dict[str, float]:
        scored.append(decoder_of(model))
        return {"quality": 0.25}

    table = run_ablation(RECIPE, TWO_ROWS, tmp_path, tmp_path, on_test, images="test", seeds=(0,))
    assert scored == ["plain", "mtc"] and len(trainings.done) == 2
    assert table["value"].tolist() == [0.25, 0.25]
    assert run(tmp_path, 0)["value"].max() == 1.0  # the held-out images' are kept beside


def test_networks_of_other_settings_are_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    run(tmp_path, 1)
    longer = changed(RECIPE, {"steps": 4})
    with pytest.raises(SettingsError, match="other settings"):
        run_ablation(longer, TWO_ROWS, tmp_path, tmp_path, score, seeds=(0, 1))
    assert [seed for _, seed in trainings.done] == [1, 1]


def test_what_another_program_trains_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)
    monkeypatch.setattr(ablation, "ASK_EVERY_S", 0.01)
    told: list[str] = []
    folder = tmp_path / folder_name(RECIPE, PLAIN.changes) / "seed-0"
    folder.mkdir(parents=True)
    with FileLock(folder / ablation.LOCK_FILE), pytest.raises(Cancelled, match="another program"):
        run(
            tmp_path,
            0,
            progress=lambda fraction, message: told.append(message),
            should_cancel=lambda: bool(told),
        )
    assert trainings.done == [("mtc", 0)]  # the other row, meanwhile
    assert told == ["plain, seed 0 (2 of 2): another program trains it"]
    run(tmp_path, 0)  # it went away without an end
    assert trainings.done == [("mtc", 0), ("plain", 0)]


def test_means_and_intervals_by_hand() -> None:
    values = {("a", 0): 0.1, ("a", 1): 0.2, ("a", 2): 0.3, ("b", 0): 0.5, ("b", 1): 0.6}
    values[("b", 2)] = 0.7
    table = pd.DataFrame(
        [(row, seed, "PQ", value) for (row, seed), value in values.items()],
        columns=["row", "seed", "metric", "value"],
    )
    summary = summarise(table, ["a", "b"]).set_index("row")
    # Student's 97.5 % quantile with two degrees of freedom is 4.303; the deviation is 0.1.
    assert summary.loc["a", "interval"] == pytest.approx(4.303 * 0.1 / 3**0.5, abs=1e-3)
    assert summary.loc["a", ["mean", "difference"]].tolist() == pytest.approx([0.2, -0.4])
    assert summary.loc["a", "difference_interval"] == pytest.approx(0, abs=1e-9)
    whole = summary.reset_index()
    assert "| a | 0.200 ± 0.248 |" in as_markdown(whole)
    assert as_markdown(whole, "difference").splitlines()[2:] == ["| a | -0.400 ± 0.000 |"]


def test_one_seed_has_no_interval() -> None:
    table = pd.DataFrame([("a", 0, "PQ", 0.25)], columns=["row", "seed", "metric", "value"])
    summary = summarise(table, ["a"])
    assert np.isnan(summary["interval"].item())
    assert "| a | 0.250 |" in as_markdown(summary)


def test_a_row_is_trained_and_its_last_weights_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_training import draw

    monkeypatch.setattr("napari_coseg.training.run.step_source", lambda recipe, root: draw)
    seen = []

    def score(model, recipe, root) -> dict[str, float]:
        seen.append(SimpleNamespace(training=model.training, seed=recipe.seed, model=model))
        return {"PQ": 0.5}

    one = Ablation("a test", (Row("whole"),))
    run_ablation(RECIPE, one, tmp_path, tmp_path, score, seeds=(7,), workers=0)
    assert [(s.training, s.seed) for s in seen] == [(False, 7)]
    folder = tmp_path / UNCHANGED / "seed-7"
    assert json.loads((folder / "scores-held-out.json").read_text()) == {"PQ": 0.5}
    assert not (folder / STATE_FILE).exists()  # four times the network's size, of no more use
    kept = load(folder / NETWORK_FILE).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[0].model.state_dict().items())
