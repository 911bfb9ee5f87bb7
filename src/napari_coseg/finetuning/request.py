"""The request of a fine-tuning, kept beside its state, so that it can be resumed."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.locks import held, is_held
from napari_coseg.core.settings import Settings
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.inference.loading import DEFAULT_MODEL
from napari_coseg.training.settings import STATE_FILE

REQUEST_FILE = "request.json"
PLAN_FILE, BEST_FILE = "plan.json", "best.safetensors"
RUN_SUFFIX = "-run"
LOG_FILE = "log.csv"
LOCK_FILE = ".training"
"""Locked while a training runs in the folder, in whatever program."""
HELD_S = 0.5
"""Longer than `is_training` holds it."""
LARGEST_REQUEST_BYTES = 1 << 20


class FinetuneRequest(Settings):
    """The arguments of `run.finetune`, as plain values."""

    reviewed: tuple[str, ...] = Field(min_length=1, description="workspaces, labelled folders")
    output: str = Field(description="the adapter's file")
    base: str = DEFAULT_MODEL
    device: str = "auto"
    name: str | None = None
    base_validation: str | None = Field(None, description="folder to measure forgetting on")
    replay: str | None = Field(None, description="folder of images to train on as well")
    settings: FinetuneSettings = FinetuneSettings()

    @property
    def run_folder(self) -> Path:
        """State, log and pictures."""
        return run_folder_of(Path(self.output))


@dataclass(frozen=True)
class Unfinished:
    """A fine-tuning that was stopped, or that a crash ended.

    Parameters
    ----------
    step, steps
        Last saved or logged, and of how many; 0 where none was taken.
    left_at
        When its state was last written, seconds since 1970.
    """

    request: FinetuneRequest
    step: int
    steps: int
    left_at: float


def run_folder_of(output: Path) -> Path:
    """Where a fine-tuning to this file keeps its state, unless another folder is named."""
    return output.with_name(f"{output.stem}{RUN_SUFFIX}")


def write_request(request: FinetuneRequest) -> None:
    """Keep it in its run folder; the file appears whole or not at all.

    Raises
    ------
    OutputError
        Where the disk refuses, or a training runs there.
    """
    folder = request.run_folder
    _check_idle(folder)
    with atomic_write(folder / REQUEST_FILE, overwrite=True) as partial:
        partial.write_text(request.model_dump_json(indent=2), encoding="utf-8")


def unfinished(folder: Path) -> list[Unfinished]:
    """Those among the run folders in `folder` that can be resumed, the last one first.

    Folders that are no run, are damaged, or are in use by any program are left out.
    """
    found = []
    for run in sorted(folder.glob(f"*{RUN_SUFFIX}")) if folder.is_dir() else ():
        one = _read(run)
        if one is not None and not is_training(run):
            found.append(one)
    return sorted(found, key=lambda one: one.left_at, reverse=True)


def forget(request: FinetuneRequest) -> None:
    """Delete the run folder of an unfinished fine-tuning.

    Raises
    ------
    OutputError
        Where the disk refuses, or it is in use.
    """
    _check_idle(request.run_folder)
    if not (request.run_folder / REQUEST_FILE).is_file():
        return
    try:
        shutil.rmtree(request.run_folder)
    except OSError as error:
        raise OutputError(f"{request.run_folder} cannot be deleted: {error}") from error


@contextmanager
def training_in(run: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, which is created where it is missing.

    The lock ends with the process, however that ends. A file system that knows no locks keeps
    nobody out.

    Raises
    ------
    OutputError
        Where one runs there already, or the disk refuses.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run folder {run} cannot be created: {error}") from error
    with held(run / LOCK_FILE, HELD_S, removed=True) as is_free:
        if not is_free:
            raise _in_use(run)
        yield


def is_training(run: Path) -> bool:
    """Whether a training runs in this folder, in whatever program."""
    return is_held(run / LOCK_FILE)


def _check_idle(run: Path) -> None:
    if is_training(run):
        raise _in_use(run)


def _in_use(run: Path) -> OutputError:
    return OutputError(
        f"a training runs in {run}, in another window or program; stop it there first"
    )


def free_output(folder: Path, name: str) -> Path:
    """A file name for an adapter that neither an adapter nor a run uses yet."""
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.") or "adapter"
    for number in range(1, 10_000):
        path = folder / (f"{stem}.safetensors" if number == 1 else f"{stem}-{number}.safetensors")
        if not path.exists() and not (run_folder_of(path) / PLAN_FILE).exists():
            return path
    raise OutputError(f"{folder} holds too many adapters called {name!r}; choose another name")


def _read(run: Path) -> Unfinished | None:
    files = run / REQUEST_FILE, run / PLAN_FILE
    try:
        if any(path.stat().st_size > LARGEST_REQUEST_BYTES for path in files):
            return None
        request, plan = (json.loads(path.read_text(encoding="utf-8")) for path in files)
        asked = FinetuneRequest.from_mapping(request)
        if asked.run_folder != run:
            return None  # copied from elsewhere
        latest = run / STATE_FILE
        left_at = (latest if latest.exists() else files[1]).stat().st_mtime
        return Unfinished(asked, _last_step(run), int(plan["steps"]), left_at)
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return None


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What a run has logged so far: step and value, by name; nothing where there is no log."""
    found: dict[str, list[tuple[int, float]]] = {}
    try:
        with (run / LOG_FILE).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    except (OSError, ValueError, KeyError, TypeError):
        return found
    return found


def _last_step(run: Path) -> int:
    """Of the log; after a crash a run resumes a little before."""
    return max((step for values in logged(run).values() for step, _ in values), default=0)
