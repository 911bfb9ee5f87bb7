"""One walk through the editor where labels are finished, from napari's menus on, and a crash in it.

A program of its own (`walk_first_half`) opens the sample image, segments it with the model that
the package ships, corrects, undoes, redoes, refines and keeps the result in a workspace, and is
then killed. This one resumes, measures, exports and reads back (`walk_second_half`). The
environment variable NAPARI_COSEG_WALK_PICTURES names a folder for a picture of each step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari")

from cases import walk_first_half
from napari_coseg.workspace import recent

pytestmark = [pytest.mark.gui, pytest.mark.slow]
TESTS = Path(__file__).parent
ERRORS = "errors.txt"


@pytest.fixture
def first_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """The running program; both halves share where recent workspaces are listed."""
    monkeypatch.setenv(recent.PLACE_VARIABLE, str(tmp_path / "state"))
    source = str(TESTS.parent / "src")
    paths = [source, str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, str(TESTS / "cases" / "walk_first_half.py"), str(tmp_path)]
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "NAPARI_CONFIG": str(tmp_path / "settings.yaml"),
    }
    with (tmp_path / ERRORS).open("w") as errors:
        process = subprocess.Popen(command, env=surroundings, stderr=errors)
    yield process
    process.kill()
    process.wait()


def test_a_session_survives_its_crash_and_is_taken_away_in_every_format(
    first_half: subprocess.Popen, make_napari_viewer: Callable[..., Any], tmp_path: Path
) -> None:
    from cases.walk_second_half import SecondHalf
    from cases.walk_window import PATIENCE_S, Window

    kill_when_ready(first_half, tmp_path, 5 * PATIENCE_S)
    earlier = json.loads((tmp_path / walk_first_half.FACTS).read_text("utf-8"))["seconds"]
    window = Window(make_napari_viewer(show=True), len(earlier))
    try:
        SecondHalf(window, tmp_path).walk()
    finally:
        window.close()
    for name, seconds in {**earlier, **window.seconds}.items():
        print(f"{seconds:6.1f} s  {name}")


def kill_when_ready(process: subprocess.Popen, folder: Path, patience_s: float) -> None:
    """Wait for the end of the walk's first half, then kill it as a crash would."""
    psutil = pytest.importorskip("psutil")
    ends = time.monotonic() + patience_s
    while not (folder / walk_first_half.READY).exists():
        if process.poll() is not None:
            errors = (folder / ERRORS).read_text("utf-8")
            pytest.fail(f"the first half ended by itself:\n{errors}")
        assert time.monotonic() < ends, "the first half takes too long"
        time.sleep(0.05)
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert helpers, "work is done by a process beside the window"
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(helpers, timeout=60)
    assert not alive, "the processes beside the window outlive it"
