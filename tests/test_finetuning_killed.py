"""A training that is killed, in a window and from the command line: it goes on, and nothing else
has noticed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from cases.finetuning_cases import base_file, labelled_folder
from cases.widget_values import PICTURE, RUN_MS, UM
from napari_coseg.cli.finetune import STOPPED
from napari_coseg.finetuning.request import PLAN_FILE, logged, run_folder_of
from napari_coseg.inference.loading import load_model
from napari_coseg.models.checkpoints.adapters import read_adapter_card
from napari_coseg.models.checkpoints.native import file_sha256
from napari_coseg.models.checkpoints.safe import load_state_dict
from napari_coseg.training.settings import STATE_FILE

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL, and no SIGINT for one process")
pytest_plugins = ["cases.widget_fixtures", "cases.workspace_viewers", "cases.finetune_docks"]
STEPS = 16
LONG = 50
"""Steps that take seconds: a window that is slow for once must not find the training over."""
PATIENCE_S = RUN_MS / 1000
STOPS_WITHIN_S = 10
"""Two are promised, on a machine that is not busy: Python takes most of them to take down torch."""
OPTIONS = (
    *("crops=2", "crop_px=64", "match_input=false", "variants=2", "validations=4"),
    "precision=fp32",  # "auto" takes what is faster at the moment, which may be another each time
)


def saved_step(run: Path) -> int:
    """Where the state in a run folder stands; 0 where none was saved."""
    path = run / STATE_FILE
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


def logged_steps(run: Path) -> list[int]:
    return [step for step, _ in logged(run).get("loss", ())]


def is_midway(run: Path) -> bool:
    """A state is saved, and steps were taken since, which a crash loses."""
    return 0 < saved_step(run) < max(logged_steps(run), default=0)


# ---------------------------------------------------------------------------------------------
# In a window


def saving_often(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a state every few steps in place of every half a minute."""
    chosen = dock.setup.request

    def request(output: Path) -> Any:
        asked = chosen(output)
        often = asked.settings.model_copy(update={"checkpoint_every_s": 0.3})
        return asked.model_copy(update={"settings": often})

    monkeypatch.setattr(dock.setup, "request", request)


def segmented(qtbot: Any, viewer: Any, segment: Any) -> list[np.ndarray]:
    """What the Segment dock finds: regions and objects."""
    segment.bar.run_button.click()
    assert segment.bar.is_busy
    qtbot.waitUntil(lambda: not segment.bar.is_busy, timeout=RUN_MS)
    found = viewer.layers[-2:]
    assert ["regions" in found[0].name, "objects" in found[1].name] == [True, True]
    return [layer.data.copy() for layer in found]


@pytest.mark.gui
@pytest.mark.slow
def test_a_training_that_is_killed_takes_nothing_along_and_goes_on(
    make_napari_viewer_proxy: Callable,
    make_dock: Callable,
    base: Path,
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notes: list[str],
    qtbot: Any,
) -> None:
    """The window and the model of Segment live on; Resume takes the steps that are left."""
    viewer = make_napari_viewer_proxy(show=True)
    viewer.add_image(PICTURE, name="tissue", scale=(0.5, 0.5), units=(UM, UM))
    _, segment = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    segment.model.choose_file(base)
    before, untrained = segmented(qtbot, viewer, segment), base.read_bytes()
    segment_pid = segment.worker.pid
    _, dock = viewer.window.add_plugin_dock_widget("napari-coseg", "Fine-tune")
    make_dock(viewer, dock)
    saving_often(dock, monkeypatch)
    dock.setup.more.boxes["steps"].setValue(LONG)
    dock.setup.name_edit.setText("mine")
    dock.setup.add_folder(labelled_folder(tmp_path / "reviewed"))
    run = run_folder_of(shelf / "mine.safetensors")

    dock.bar.run_button.click()
    state = run / STATE_FILE
    qtbot.waitUntil(lambda: len(dock.progress.losses) > 5 and state.exists(), timeout=RUN_MS)
    training = psutil.Process(dock.worker.pid)
    assert training.pid != segment_pid
    os.kill(training.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    saved = saved_step(run)
    assert not training.is_running() and 0 < saved < LONG
    assert "was killed by signal 9" in notes[-1] and "Nothing in the viewer was lost" in notes[-1]
    assert dock.bar.text.text().startswith("Failed; what was trained is kept: Resume continues")
    assert not dock.left.isHidden() and not dock.left.resume_button.isHidden()
    assert f"of {LONG}, left" in dock.left.text.text() and "mine" in dock.left.text.text()
    assert dock.bar.run_button.isEnabled() and not dock.pause_button.isEnabled()
    assert not list(shelf.glob("*.safetensors"))

    viewer.add_points(np.zeros((1, 2)), name="added since", units=(UM, UM))
    qtbot.waitUntil(lambda: "added since" in viewer.layers and dock.isVisible(), timeout=RUN_MS)
    assert base.read_bytes() == untrained
    for found, expected in zip(segmented(qtbot, viewer, segment), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert segment.worker.pid == segment_pid, "its process was started anew"

    taken: list[int] = []
    dock.left.resume_button.click()
    dock._job.reported.connect(
        lambda kind, values: taken.append(values["step"]) if kind == "step" else None
    )
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    assert not dock.progress.result.isHidden(), dock.bar.text.text()
    assert taken == list(range(saved + 1, LONG + 1)), "it went on from the saved state"
    assert [step for step, _ in dock.progress.losses] == list(range(1, LONG + 1))
    (adapter,) = shelf.glob("*.safetensors")
    assert read_adapter_card(adapter).base_sha256 == file_sha256(base)
    assert load_model(base, "cpu", adapter=adapter).card.name == "mine"
    assert base.read_bytes() == untrained and segment.worker.pid == segment_pid
    assert dock.left.isHidden() and len(notes) == 1


# ---------------------------------------------------------------------------------------------
# From the command line


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base and labelled images."""
    folder = tmp_path_factory.mktemp("given")
    base_file(folder)
    labelled_folder(folder / "reviewed")
    return folder


@contextmanager
def begun(given: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """``napari-coseg finetune``, always the same; it does not outlive the test."""
    command = [sys.executable, "-m", "napari_coseg.cli.main", "finetune", str(given / "reviewed")]
    command += ["--model", str(base_file(given)), "--output", str(output), "--device", "cpu"]
    command += ["--steps", str(STEPS), "--set", *OPTIONS]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> str:
    """What it told on stderr until its end."""
    return process.communicate(timeout=PATIENCE_S)[1]


def until_midway(process: subprocess.Popen[str], run: Path) -> None:
    began = time.monotonic()
    while not is_midway(run):
        assert process.poll() is None, ended(process)
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.02)


def finished(given: Path, output: Path) -> str:
    """Give the command, and let it end; what it told."""
    with begun(given, output) as process:
        told = ended(process)
    assert process.returncode == 0, told
    return told


@pytest.fixture(scope="module")
def whole(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "a.safetensors"
    finished(given, output)
    return output


@pytest.mark.slow
def test_the_command_that_was_killed_gives_the_same_adapter_when_given_again(
    given: Path, whole: Path, tmp_path: Path
) -> None:
    output, base = tmp_path / "a.safetensors", base_file(given).read_bytes()
    run = run_folder_of(output)
    with begun(given, output) as process:
        until_midway(process, run)
        process.send_signal(signal.SIGKILL)
        ended(process)
    assert process.returncode == -signal.SIGKILL and not output.exists()

    saved = saved_step(run)
    first = re.search(r"step (\d+) of", finished(given, output))
    assert first is not None and int(first[1]) == saved + 1, "it goes on from the saved state"
    assert logged_steps(run) == list(range(1, STEPS + 1))
    expected, found = load_state_dict(whole), load_state_dict(output)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert read_adapter_card(output).scores == read_adapter_card(whole).scores
    assert base_file(given).read_bytes() == base
    assert {path.name for path in run.iterdir()} == {"log.csv", "pictures"}


@pytest.mark.slow
def test_an_interruption_stops_soon_and_keeps_all_steps(
    given: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    output = tmp_path / "a.safetensors"
    run = run_folder_of(output)
    with begun(given, output) as process:
        until_midway(process, run)
        asked_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        told = ended(process)
        seconds = time.monotonic() - asked_at
    record_property("seconds_to_stop", seconds)
    print(f"stopped within {seconds:.2f} s")
    assert process.returncode == STOPPED and seconds < STOPS_WITHIN_S
    assert told.endswith("the fine-tuning was stopped; the same call resumes it\n")
    assert "Traceback" not in told and not output.exists()
    assert (run / PLAN_FILE).exists() and saved_step(run) == logged_steps(run)[-1]
