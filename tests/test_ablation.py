"""Ablations: what a row changes, what is trained again, and how the table is made."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from napari_coseg import ablation
from napari_coseg.ablation import (
    ABLATIONS,
    Ablation,
    Row,
    as_markdown,
    changed,
    run_ablation,
    summarise,
)
from napari_coseg.cli.ablate import TABLES
from napari_coseg.errors import SettingsError
from napari_coseg.models.registry import build
from napari_coseg.training.loss_settings import LossSettings
from napari_coseg.training.recipe import BatchPart, Recipe
from tiny_models import tiny_card

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
    """Stands in for the training; counts what was trained, and scores by seed and row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, int]] = []
        monkeypatch.setattr(ablation, "_train_and_score", self)

    def __call__(self, recipe: Recipe, data: Path, folder: Path, *others) -> dict[str, float]:
        folder.mkdir(parents=True)
        decoder = recipe.card.config.get("decoder", "mtc")
        self.done.append((decoder, recipe.seed))
        return {"quality": recipe.seed / 10 + (decoder == "mtc"), "dice": 0.5}


TWO_ROWS = Ablation("a test", (Row("plain", {"card.config.decoder": "plain"}), Row("whole")))


def test_what_was_scored_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(monkeypatch)

    def run(*seeds: int) -> pd.DataFrame:
        return run_ablation(RECIPE, TWO_ROWS, tmp_path, tmp_path, lambda *_: {}, seeds=seeds)

    first = run(0)
    assert trainings.done == [("plain", 0), ("mtc", 0)]
    both = run(0, 1)
    assert trainings.done[2:] == [("plain", 1), ("mtc", 1)]
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)


def test_scores_of_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainings(monkeypatch)
    run_ablation(RECIPE, TWO_ROWS, tmp_path, tmp_path, lambda *_: {}, seeds=(0,))
    longer = changed(RECIPE, {"steps": 4})
    with pytest.raises(SettingsError, match="other settings"):
        run_ablation(longer, TWO_ROWS, tmp_path, tmp_path, lambda *_: {}, seeds=(0,))


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
    assert "| a | 0.200 ± 0.248 |" in as_markdown(summary.reset_index())


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
        seen.append(SimpleNamespace(training=model.training, seed=recipe.seed))
        return {"PQ": 0.5}

    one = Ablation("a test", (Row("whole"),))
    run_ablation(RECIPE, one, tmp_path, tmp_path, score, seeds=(7,), workers=0)
    assert [(s.training, s.seed) for s in seen] == [(False, 7)]
    content = json.loads((tmp_path / "whole" / "seed-7" / "scores.json").read_text())
    assert content["scores"] == {"PQ": 0.5}
