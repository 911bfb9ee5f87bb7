"""What an adapter forgets is measured without labels, against the base's own answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetuning_cases import base_file, settings, tuned
from napari_coseg.checkpoints.adapters import read_adapter_card
from napari_coseg.cli.finetune import score_lines
from napari_coseg.finetuning import forgetting
from napari_coseg.finetuning.classes import plan_classes
from napari_coseg.finetuning.forgetting import answers_of
from napari_coseg.finetuning.run import FORGOTTEN
from napari_coseg.finetuning.scores import score
from napari_coseg.inference import load_model


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny base in the place of the one that ships."""
    path = base_file(tmp_path)
    monkeypatch.setattr(forgetting, "weights_path", lambda _: path)
    return path


def test_the_base_agrees_with_itself_wholly() -> None:
    base = load_model()
    answers = answers_of(base)
    scores = score(base, answers.images)
    assert scores["objects"] > 100
    assert scores["object_pq"] == scores["object_f1"] == scores["mean_region_dice"] == 1
    assert set(scores["type_pq"].values()) == {1.0}


def test_answers_follow_classes_that_are_renamed_and_merged() -> None:
    base = load_model()
    answers = answers_of(base)
    first, second, *_ = [entry.name for entry in base.card.instance_classes]
    chosen = settings(merge={"both": (first, second)})
    applied = plan_classes(base.card, answers, chosen).applied(answers)
    names = {entry.name: entry.id for entry in applied.instance_classes}
    assert "both" in names and first not in names
    before, after = answers.images[0].types, applied.images[0].types
    assert before is not None and after is not None
    assert ((after == names["both"]) == ((before == 1) | (before == 2))).all()


@pytest.mark.usefixtures("shipped")
def test_the_shipped_model_is_measured_by_itself(tmp_path: Path) -> None:
    result = tuned(tmp_path, steps=1)
    kept = read_adapter_card(result.adapter).scores["kept"]
    assert kept == result.card.scores["kept"] and 0 <= kept["mean_region_dice"] <= 1
    told = "\n".join(score_lines(result.card.scores))
    assert "as the base answers on a sample: mean_region_dice" in told
    assert (FORGOTTEN in result.notes) == (kept.get("object_f1", 1) < 0.5)
    assert read_adapter_card(result.adapter).notes == "; ".join(result.notes)


def test_other_bases_are_not(tmp_path: Path) -> None:
    assert "kept" not in tuned(tmp_path, steps=1).card.scores
