"""Fine-tuning on tiny networks: what trains, what stays, going on, and what is told before."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.finetuning_cases import (
    StopAfter,
    base_file,
    reviewed_image,
    reviewed_set,
    settings,
    tuned,
)
from cases.tiny_models import tiny_card
from napari_coseg.core.errors import Cancelled, CosegError, DatasetError, OutputError, SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.hooks import FinetuneHooks
from napari_coseg.finetuning.preparing import prepare
from napari_coseg.finetuning.reviewed import ReviewedSet
from napari_coseg.finetuning.run import finetune
from napari_coseg.inference.loading import load_model
from napari_coseg.models.checkpoints.adapters import fingerprint, read_adapter_card
from napari_coseg.models.checkpoints.safe import load_state_dict
from napari_coseg.training.settings import STATE_FILE
from napari_coseg.training.stepping import DivergedError, Outcome, Stepper
from test_models import DETAILED

SPEEDS = ("heads", "adapters")


# ---------------------------------------------------------------------------------------------
# What trains


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"speed": "heads"}, {"prompt_encoders", "decoders"}),
        ({"speed": "heads", "parts": ["decoders"]}, {"decoders"}),
        ({"speed": "adapters"}, {"adapters", "neck", "prompt_encoders", "decoders"}),
        ({"speed": "adapters", "parts": ["adapters"]}, {"adapters"}),
        ({"speed": "adapters", "parts": ["lora"], "lora_rank": 2}, {"lora"}),
        ({"speed": "adapters", "parts": ["neck", "decoders"]}, {"neck", "decoders"}),
    ],
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value)),
)
def test_only_the_chosen_parts_change(choice: Any, expected: set[str], tmp_path: Path) -> None:
    result = tuned(tmp_path, steps=2, **choice)
    assert set(result.card.parts) == expected
    prepared = prepare(reviewed_set(), base_file(tmp_path), settings(**choice), "cpu")
    names = {name.split("/", 1)[1] for name in load_state_dict(result.adapter)}
    assert names and names <= prepared.trained.keys()
    assert result.card.frozen_sha256 == prepared.frozen_sha256


def test_statistics_of_normalisation_stay(tmp_path: Path) -> None:
    card = tiny_card().model_copy(update={"config": DETAILED})
    base = base_file(tmp_path, card)
    result = tuned(tmp_path, base=base, speed="adapters", steps=2)
    before, after = load_model(base, "cpu"), load_model(base, "cpu", adapter=result.adapter)
    statistics = [name for name in before.state_dict() if "running" in name or "num_batch" in name]
    assert statistics
    states = before.state_dict(), after.state_dict()
    assert fingerprint(states[0], statistics) == fingerprint(states[1], statistics)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"speed": "heads", "parts": ["adapters"]}, "adapters cannot train at speed 'heads'"),
        ({"speed": "adapters", "parts": ["trunk"]}, "trunk cannot train"),
        ({"speed": "adapters", "parts": ["lora"]}, "lora cannot train"),
        ({"speed": "heads", "lora_rank": 2}, "take speed 'adapters', or lora_rank 0"),
        ({"speed": "adapters", "lora_rank": 2, "parts": ["neck"]}, "name lora among them"),
        ({"parts": []}, "no part cannot train"),
        ({"rename": {"nothing": "x"}}, "no class 'nothing' to rename"),
        ({"merge": {"any": ["round", "oval"]}}, "no class 'oval' to rename or merge"),
    ],
    ids=str,
)
def test_choices_that_do_not_fit(choice: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        tuned(tmp_path, **choice)
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_base_file_is_never_written(speed: str, tmp_path: Path) -> None:
    base = base_file(tmp_path)
    before = base.read_bytes()
    result = tuned(tmp_path, speed=speed)
    assert base.read_bytes() == before
    assert read_adapter_card(result.adapter) == result.card
    assert result.card.base_sha256 == prepare(reviewed_set(), base, settings()).base_sha256


def test_a_strong_pull_keeps_weights_near_the_base(tmp_path: Path) -> None:
    sizes = {}
    for pull in (0.0, 500.0):
        tuned(tmp_path, distance_to_base=pull, steps=4)
        changes = load_state_dict(tmp_path / "mine.safetensors").values()
        sizes[pull] = sum(float(change.float().square().sum()) for change in changes)
    assert sizes[500.0] < 0.9 * sizes[0.0]


# ---------------------------------------------------------------------------------------------
# Going on


@pytest.fixture(scope="module", params=SPEEDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Speed, entries of an uninterrupted run, and how often it asked whether to stop."""
    asked = count()
    folder = tmp_path_factory.mktemp("whole")
    hooks = FinetuneHooks(should_cancel=lambda: next(asked) < 0)
    adapter = tuned(folder, speed=request.param, hooks=hooks).adapter
    return request.param, load_state_dict(adapter), next(asked)


def same(folder: Path, entries: Any) -> bool:
    again = load_state_dict(folder / "mine.safetensors")
    return entries.keys() == again.keys() and all(
        torch.equal(entries[name], again[name]) for name in entries
    )


@pytest.mark.parametrize("stop", [("plan", 1), ("step", 1), ("step", 4)], ids=str)
def test_going_on_gives_what_one_run_gives(
    whole: Any, stop: tuple[str, int], tmp_path: Path
) -> None:
    speed, entries, _ = whole
    with pytest.raises(Cancelled, match="the same call resumes it"):
        tuned(tmp_path, speed=speed, hooks=StopAfter(*stop).hooks())
    assert not (tmp_path / "mine.safetensors").exists()
    watch = StopAfter("never", 1)
    tuned(tmp_path, speed=speed, hooks=watch.hooks())
    assert same(tmp_path, entries)
    steps = [values["step"] for kind, values in watch.seen if kind == "step"]
    assert steps == list(range({"plan": 1}.get(stop[0], stop[1] + 1), 5))


@pytest.mark.parametrize("part", [0.4, 0.7])
def test_a_stop_in_the_middle_of_a_step_loses_nothing(
    whole: Any, part: float, tmp_path: Path
) -> None:
    speed, entries, questions = whole
    asked = count()
    stop = FinetuneHooks(should_cancel=lambda: next(asked) > part * questions)
    with pytest.raises(Cancelled):
        tuned(tmp_path, speed=speed, hooks=stop)
    tuned(tmp_path, speed=speed)
    assert same(tmp_path, entries)


def test_pausing_waits_and_changes_nothing(whole: Any, tmp_path: Path) -> None:
    speed, entries, _ = whole
    told: list[str] = []
    pauses = iter([False] * 12 + [True] * 3 + [False] * 10_000)
    hooks = FinetuneHooks(
        progress=lambda fraction, message: told.append(message),
        should_pause=lambda: next(pauses),
    )
    tuned(tmp_path, speed=speed, hooks=hooks)
    assert told.count("paused") == 1 and same(tmp_path, entries)


def test_two_trainings_in_a_row_are_two(tmp_path: Path) -> None:
    first = tuned(tmp_path).adapter.read_bytes()
    assert tuned(tmp_path, seed=1).adapter.read_bytes() != first
    left = {path.name for path in (tmp_path / "mine-run").iterdir()}
    assert left == {"log.csv", "pictures"}


# ---------------------------------------------------------------------------------------------
# Trouble


@pytest.mark.parametrize(
    ("speed", "crops", "too_large", "told"),
    [
        pytest.param(
            "adapters",
            4,
            lambda pixels, side, began: pixels > 2 * 64**2,
            [
                "computing blocks twice",
                "crops of 128 -> 64 pixels",
                "2 crops at once in place of 4",
            ],
            id="before the start, and in the first step",
        ),
        pytest.param(
            "heads",
            1,
            lambda pixels, side, began: side > 64 and began,
            ["crops of 128 -> 64 pixels"],
            id="later: features are kept anew",
        ),
    ],
)
def test_memory_that_is_short_is_made_do_with(
    speed: str,
    crops: int,
    too_large: Any,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Stepper.loss

    def loss(self: Stepper, batch: Batch, *shares: Any) -> Any:
        labels = batch.semantic
        if too_large(labels.size, labels.shape[-1], bool(self.optimiser.state)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, batch, *shares)

    monkeypatch.setattr(Stepper, "loss", loss)
    result = tuned(tmp_path, speed=speed, crops=crops, crop_px=128, steps=3)
    assert list(result.notes)[: len(told)] == [f"out of memory: {change}" for change in told]
    assert result.card.settings["crop_px"] == 64


@pytest.mark.parametrize("speed", SPEEDS)
def test_no_finite_loss_ends_and_keeps_the_state(
    speed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Stepper.__call__
    taken = iter(range(10_000))

    def spoilt(self: Stepper, *arguments: Any) -> Outcome:
        return plain(self, *arguments) if next(taken) < 2 else Outcome({}, False)

    monkeypatch.setattr(Stepper, "__call__", spoilt)
    with pytest.raises(DivergedError, match="is kept"):
        tuned(tmp_path, speed=speed, steps=60, checkpoint_every_s=1e-6)
    assert (tmp_path / "mine-run" / STATE_FILE).exists()
    assert not (tmp_path / "mine.safetensors").exists()


def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path: Path) -> None:
    prepared = prepare(reviewed_set(), base_file(tmp_path), settings(speed="adapters"), "cpu")
    batch = prepared.crops(64).draw(0, 2)
    batch.images[:] = np.inf
    before = fingerprint(prepared.network.state_dict(), prepared.network.state_dict())
    with prepared.stepper() as step:
        assert not step([batch], 1e-3).taken
    after = fingerprint(prepared.network.state_dict(), prepared.network.state_dict())
    assert after == before


NOWHERE = np.zeros((96, 96), bool)
CORNER = NOWHERE.copy()
CORNER[:3, :3] = True
STRANGE = (LabelClass(1, "roundish", (0, 0, 0)), LabelClass(2, "long", (0, 0, 0)))
WITH_NEW = (
    *(LabelClass(1, "round", (0, 0, 0)), LabelClass(2, "long", (0, 0, 0))),
    LabelClass(3, "new", (0, 0, 0)),
)


def without_review(**masks: Any) -> ReviewedSet:
    return reviewed_set(2, **masks)


@pytest.mark.parametrize(
    ("make", "more", "told"),
    [
        pytest.param(
            lambda: without_review(semantic_known=NOWHERE, instances_known=NOWHERE),
            {},
            "nothing is reviewed",
            id="nothing is reviewed",
        ),
        pytest.param(
            lambda: without_review(semantic=None, semantic_known=None, instances_known=CORNER),
            {"held_out_fraction": 0},
            "no whole object",
            id="no whole object",
        ),
        pytest.param(
            lambda: replace(reviewed_set(), instance_classes=STRANGE),
            {},
            r"does not know the object class 'roundish' \('round'\?\)",
            id="other classes",
        ),
        pytest.param(
            lambda: replace(reviewed_set(), instance_classes=WITH_NEW),
            {"add_classes": True},
            "nothing of the new object class 'new' is reviewed",
            id="an empty class",
        ),
        pytest.param(
            lambda: replace(reviewed_set(), instance_classes=()),
            {},
            r"hold the classes \[1, 2\], which have no name",
            id="classes without a name",
        ),
    ],
)
def test_reviews_that_do_not_fit(make: Any, more: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=told):
        tuned(tmp_path, make(), **more)


def test_labels_that_do_not_fit_the_image() -> None:
    with pytest.raises(DatasetError, match="must have the shape of the image"):
        reviewed_image(instances=np.zeros((10, 10), np.int32))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("mine.pt", None, "must end in .safetensors"),
        ("mine.safetensors", b"not an adapter", "is no adapter; it is not replaced"),
    ],
)
def test_outputs_that_are_refused(
    name: str, content: bytes | None, told: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OutputError, match=told):
        finetune(reviewed_set(), tmp_path / name, base=base_file(tmp_path), settings=settings())


def test_the_base_cannot_be_the_output(tmp_path: Path) -> None:
    base = base_file(tmp_path)
    with pytest.raises(CosegError, match="is no adapter; it is not replaced"):
        finetune(reviewed_set(), base, base=base, settings=settings())


# ---------------------------------------------------------------------------------------------
# Classes, and the base's own domain


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_new_class_is_learnt_and_old_ones_keep_their_place(speed: str, tmp_path: Path) -> None:
    renamed = replace(reviewed_set(), instance_classes=(*WITH_NEW[:1], replace(WITH_NEW[2], id=2)))
    result = tuned(tmp_path, renamed, speed=speed, add_classes=True)
    names = [entry.name for entry in result.card.model.instance_classes]
    assert names == ["round", "long", "new"] and result.card.instance_origins == ((1,), (2,), ())
    adapted = load_model(base_file(tmp_path), "cpu", adapter=result.adapter)
    with torch.inference_mode():
        maps = adapted(torch.zeros(1, 3, 64, 64)).second
    assert maps.classes.shape[1] == 4


def test_what_is_forgotten_is_measured(tmp_path: Path) -> None:
    result = tuned(tmp_path, base_validation=reviewed_set(1), replay=reviewed_set(1))
    assert {"before", "after", "base_before", "base_after"} <= result.card.scores.keys()
    assert result.card.scores["base_before"]["objects"] > 0
