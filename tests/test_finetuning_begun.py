"""A training that was stopped, and something has changed until it is gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cases.finetuning_cases import (
    StopAfter,
    base_file,
    labelled_folder,
    reviewed_image,
    reviewed_set,
    settings,
    tuned,
)
from napari_coseg.cli.main import USERS_MISTAKE, main
from napari_coseg.core.errors import Cancelled, CheckpointError, CosegError, SettingsError
from napari_coseg.finetuning.inputs_snapshot import (
    SNAPSHOT_FILE,
    read_snapshot,
    size_mb,
    write_snapshot,
)
from napari_coseg.finetuning.learning import Learning
from napari_coseg.finetuning.plan import Origin, OtherReviewsError, RunPlan, read_plan, write_plan
from napari_coseg.finetuning.reviewed import ReviewedSet
from test_finetuning_cli import command

MINE = "mine-run"


def origin(reviewed: ReviewedSet, base: str = "1", **more: Any) -> Origin:
    others = more.pop("base_images", ()), more.pop("replayed", ())
    return Origin.of(reviewed, base, settings(**more), *others)


def relabelled() -> ReviewedSet:
    """Two objects of the first image have changed their types."""
    one, other = reviewed_set().images
    assert one.instance_types is not None
    types = np.where(
        np.isin(one.instances, (1, 2)), 3 - one.instance_types, one.instance_types
    ).astype(np.uint8)
    return replace(reviewed_set(), images=(replace(one, instance_types=types), other))


THERE = (reviewed_image(5),)
OTHERWISE = "unfinished fine-tuning that started otherwise"


@pytest.mark.parametrize(
    ("now", "error", "told"),
    [
        pytest.param(
            origin(reviewed_set(3)),
            OtherReviewsError,
            r"mine-run was started with other labels: 2 images, .* whole objects and 0.018 Mpx "
            r"were reviewed then; 3 images, .* are now. Resume it with the original labels, or "
            r"start over",
            id="another image",
        ),
        pytest.param(
            origin(relabelled()), OtherReviewsError, "labels of these have changed", id="labels"
        ),
        pytest.param(
            origin(reviewed_set(), steps=5),
            SettingsError,
            f"{OTHERWISE}: steps was 4, is 5. Repeat the same call, start over",
            id="settings",
        ),
        pytest.param(
            origin(reviewed_set(), base="2"), SettingsError, "base model is another", id="base"
        ),
        pytest.param(
            origin(reviewed_set(3), base_images=THERE),
            SettingsError,
            "images to measure forgetting on, or to replay, are others",
            id="images to measure forgetting, and reviews",
        ),
        pytest.param(
            origin(reviewed_set(), replayed=THERE), SettingsError, "or to replay", id="replay"
        ),
    ],
)
def test_what_differs_is_told(
    now: Origin, error: type[CosegError], told: str, tmp_path: Path
) -> None:
    before = origin(reviewed_set())
    folder = tmp_path / MINE
    folder.mkdir()
    plan = RunPlan(origin=before, steps=4, validate_every=2, precision="fp32", crop_px=64)
    write_plan(folder, plan)
    assert read_plan(folder, before) == plan
    with pytest.raises(SettingsError, match=told) as found:
        read_plan(folder, now)
    assert type(found.value) is error


# ---------------------------------------------------------------------------------------------
# Both ways to go on


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run folder after one step."""
    with pytest.raises(Cancelled):
        tuned(tmp_path, hooks=StopAfter("step", 1).hooks())
    return tmp_path


def steps_of(watch: StopAfter) -> list[int]:
    return [values["step"] for kind, values in watch.seen if kind == "step"]


@pytest.mark.parametrize(
    ("go_on", "images", "steps"),
    [
        pytest.param(
            lambda folder, hooks: tuned(folder, read_snapshot(folder / MINE), hooks=hooks),
            2,
            [2, 3, 4],
            id="with what it began with",
        ),
        pytest.param(
            lambda folder, hooks: tuned(folder, reviewed_set(3), restart=True, hooks=hooks),
            3,
            [1, 2, 3, 4],
            id="anew with all that is reviewed now",
        ),
    ],
)
def test_both_ways_to_go_on(
    stopped: Path, go_on: Callable[..., Any], images: int, steps: list[int]
) -> None:
    with pytest.raises(OtherReviewsError):
        tuned(stopped, reviewed_set(3))
    watch = StopAfter("never", 1)
    assert go_on(stopped, watch.hooks()).card.images == images
    assert steps_of(watch) == steps
    assert not (stopped / MINE / SNAPSHOT_FILE).exists(), "what it began with is kept to its end"


def test_a_refused_restart_keeps_what_was_learnt(stopped: Path) -> None:
    nothing = ReviewedSet((), source="nothing")
    with pytest.raises(CosegError, match="nothing is reviewed"):
        tuned(stopped, nothing, restart=True)
    assert tuned(stopped).card.images == 2


# ---------------------------------------------------------------------------------------------
# The file


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    plain = reviewed_image(3, semantic=None, semantic_known=None, instance_types=None)
    odd = replace(plain, name="ö", pixel_size_um=None, range=(1.5, 200.0))
    kept = replace(reviewed_set(), images=(*reviewed_set().images, odd))
    write_snapshot(tmp_path, kept)
    found = read_snapshot(tmp_path)
    assert origin(found) == origin(kept)
    assert (found.semantic_classes, found.source) == (kept.semantic_classes, kept.source)
    assert (tmp_path / SNAPSHOT_FILE).stat().st_size == pytest.approx(1e6 * size_mb(kept), rel=0.1)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_kind(path: Path) -> None:
    shutil.copy(base_file(path.parent), path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(Path.unlink, "has no copy", id="gone"),
        pytest.param(damaged, "is broken at entry", id="cut off"),
        pytest.param(lambda path: path.write_bytes(b""), "safetensors", id="empty"),
        pytest.param(of_another_kind, "is damaged", id="of another kind"),
    ],
)
def test_a_damaged_file_is_told(damage: Any, told: str, tmp_path: Path) -> None:
    write_snapshot(tmp_path, reviewed_set(1))
    damage(tmp_path / SNAPSHOT_FILE)
    with pytest.raises(CheckpointError, match=told):
        read_snapshot(tmp_path)


# ---------------------------------------------------------------------------------------------
# The command line


def test_the_command_line_offers_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at_once(*_: Any) -> None:
        raise Cancelled("stopped")

    asked = command(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Learning, "_train", stopped_at_once)
        assert main(asked) == 130
    shutil.rmtree(tmp_path / "mine")
    labelled_folder(tmp_path / "mine", images=3)
    capsys.readouterr()
    assert main(asked) == USERS_MISTAKE
    told = capsys.readouterr().err
    assert "2 images" in told and "3 images" in told
    assert "--original-labels, or --restart" in told
    assert main(command(tmp_path, "--original-labels")) == 0


# ---------------------------------------------------------------------------------------------
# The task of the dock


class Heard:
    """A job's context that keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[str] = []

    def report(self, kind: str, values: dict[str, Any]) -> None:
        self.reports.append(kind)

    def progress(self, fraction: float, message: str) -> None:
        pass

    def should_cancel(self) -> bool:
        return False

    should_pause = should_cancel


@pytest.mark.parametrize(
    ("how", "images", "reports"),
    [
        pytest.param({}, 3, ["logged", "differs"], id="gone on with"),
        pytest.param({"original_labels": True}, 2, ["logged", "differs"], id="as it began"),
        pytest.param({"restart": True}, 3, ["differs"], id="anew"),
    ],
)
def test_the_task_learns_what_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any, images: int, reports: list[str]
) -> None:
    from napari_coseg.finetuning import run
    from napari_coseg.widgets.finetune import tasks

    given: list[Any] = []

    def refused(reviewed: ReviewedSet, *_: Any, restart: bool, **more: Any) -> None:
        given.append((len(reviewed.images), restart))
        raise OtherReviewsError("it differs")

    monkeypatch.setattr(run, "finetune", refused)
    monkeypatch.setattr(tasks, "_lower_priority", lambda: None)
    request = {
        "reviewed": [str(labelled_folder(tmp_path / "folder", images=3))],
        "output": str(tmp_path / "mine.safetensors"),
    }
    (tmp_path / MINE).mkdir()
    (tmp_path / MINE / "plan.json").touch()
    write_snapshot(tmp_path / MINE, reviewed_set(2))
    job = Heard()
    with pytest.raises(OtherReviewsError):
        tasks.train(cast(Any, job), request=request, **how)
    assert (given, job.reports) == ([(images, "restart" in how)], reports)
