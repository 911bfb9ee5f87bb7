"""What an adapter forgets is measured without labels, against the base's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cases.finetuning_cases import base_file, reviewed_set, settings, tuned
from napari_coseg.cli.finetune import score_lines
from napari_coseg.core.card import Normalisation
from napari_coseg.finetuning import forgetting, planning, run
from napari_coseg.finetuning.classes import plan_classes
from napari_coseg.finetuning.forgetting import REPLAYED, SCORED, predictions_of
from napari_coseg.finetuning.input_match import candidates
from napari_coseg.finetuning.learning import Learning
from napari_coseg.finetuning.run import FORGOTTEN, NOT_REPLAYED
from napari_coseg.finetuning.scores import score
from napari_coseg.inference import load_model
from napari_coseg.models.checkpoints.adapters import read_adapter_card


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny base in the place of the one that ships."""
    path = base_file(tmp_path)
    monkeypatch.setattr(forgetting, "weights_path", lambda _: path)
    return path


@pytest.mark.parametrize("columns", [REPLAYED, SCORED])
def test_the_base_agrees_with_itself_wholly(columns: slice) -> None:
    base = load_model()
    answers = predictions_of(base, columns)
    scores = score(base, answers.images)
    assert scores["objects"] > 50
    assert scores["object_pq"] == scores["object_f1"] == scores["mean_region_dice"] == 1
    assert set(scores["type_pq"].values()) == {1.0}


def test_answers_follow_classes_that_are_renamed_and_merged() -> None:
    base = load_model()
    answers = predictions_of(base, SCORED)
    first, second, *_ = [entry.name for entry in base.card.instance_classes]
    chosen = settings(merge={"both": (first, second)})
    applied = plan_classes(base.card, answers, chosen).applied(answers)
    names = {entry.name: entry.id for entry in applied.instance_classes}
    assert "both" in names and first not in names
    before, after = answers.images[0].instance_types, applied.images[0].instance_types
    assert before is not None and after is not None
    assert ((after == names["both"]) == ((before == 1) | (before == 2))).all()


@pytest.mark.usefixtures("shipped")
def test_the_shipped_model_is_measured_by_itself(tmp_path: Path) -> None:
    result = tuned(tmp_path, steps=1)
    kept = read_adapter_card(result.adapter).scores["kept"]
    assert kept == result.card.scores["kept"] and 0 <= kept["mean_region_dice"] <= 1
    told = "\n".join(score_lines(result.card.scores))
    assert "agreement with the base on a sample: mean_region_dice" in told
    assert (FORGOTTEN in result.notes) == (kept.get("object_f1", 1) < 0.5)
    assert read_adapter_card(result.adapter).notes == "; ".join(result.notes)


def test_other_bases_are_not(tmp_path: Path) -> None:
    assert "kept" not in tuned(tmp_path, steps=1).card.scores


def rehearsed(monkeypatch: pytest.MonkeyPatch, folder: Path, **chosen: Any) -> tuple[str, ...]:
    """Names of the images that were learnt along."""
    seen: list[tuple[str, ...]] = []

    class Watched(Learning):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append(tuple(image.name for image in self.replayed))

    monkeypatch.setattr(run, "Learning", Watched)
    tuned(folder, steps=1, **chosen)
    return seen[0]


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        pytest.param({}, ("sample of colon",), id="the sample"),
        pytest.param({"rehearse": False}, (), id="nothing where nobody wants it"),
        pytest.param({"replay": reviewed_set(1)}, ("image 0",), id="what is given instead"),
    ],
)
def test_the_shipped_model_rehearses_its_own_answers(
    chosen: dict[str, Any],
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert rehearsed(monkeypatch, tmp_path, **chosen) == names


def test_other_bases_rehearse_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rehearsed(monkeypatch, tmp_path) == ()


@pytest.mark.usefixtures("shipped")
def test_nothing_is_learnt_along_where_other_colours_are_brought_to_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inverted(base: Normalisation, images: Any, loss: Any) -> tuple[str, Normalisation]:
        return "inverted", candidates(base, images)["inverted"]

    monkeypatch.setattr(planning, "match_input", inverted)
    assert rehearsed(monkeypatch, tmp_path, match_input=True) == ()
    given = tmp_path / "given"
    given.mkdir()
    told = tuned(given, replay=reviewed_set(1), steps=1, match_input=True).notes
    assert any(note.startswith(NOT_REPLAYED) for note in told)
