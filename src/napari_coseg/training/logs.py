"""Logs of a training: CSV, TensorBoard, pictures of crops."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from napari_coseg.core.errors import SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import CosegModel
from napari_coseg.training.pictures import save_picture
from napari_coseg.training.processes import Processes
from napari_coseg.training.settings import LogSettings

LOG_FILE, TENSORBOARD_FOLDER, PICTURES_FOLDER = "log.csv", "tensorboard", "pictures"


@dataclass
class Logs:
    """All logs of a training together; those of any process but the first stay silent.

    ``log.csv``          one row a value
    ``tensorboard/``     the same values as curves, and the pictures, where asked for
    ``pictures/``        ``step-000500.png``: image, truth, prediction, where asked for
    """

    output_dir: Path
    pictures_every_steps: int = 0
    table: CsvLog | None = None
    board: Any = None
    _within: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(
        cls, output_dir: Path, start: int, settings: LogSettings, processes: Processes
    ) -> Self:
        """Continue the logs of `output_dir`; rows of later steps are dropped."""
        logs = cls(output_dir)
        if not processes.is_first:
            return logs
        if settings.tensorboard:
            logs.board = open_tensorboard(output_dir / TENSORBOARD_FOLDER, start)
            logs._within.callback(logs.board.close)
        logs.table = CsvLog(output_dir / LOG_FILE, start)
        logs._within.callback(logs.table.close)
        logs.pictures_every_steps = settings.pictures_every_steps
        return logs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._within.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Numbers of one step by name."""
        if self.table is not None:
            self.table.write(step, values)
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def draw(self, step: int, batches: Sequence[Batch], model: CosegModel, device: str) -> None:
        """A picture of the step's first crops, if one is due."""
        if not self.pictures_every_steps or step % self.pictures_every_steps or not batches:
            return
        path = self.output_dir / PICTURES_FOLDER / f"step-{step:06d}.png"
        pixels = save_picture(path, batches[0], model, device)
        if self.board is not None:
            self.board.add_image("image, truth, prediction", pixels, step, dataformats="HWC")


class CsvLog:
    """One row a value (step, name, value): tidy, and new names need no new columns."""

    def __init__(self, path: Path, start: int) -> None:
        keep = []
        if path.exists():
            with path.open(newline="") as file:
                keep = [
                    row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) <= start
                ]
        self.file = path.open("w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(("step", "name", "value"))
        self.writer.writerows(keep)

    def write(self, step: int, values: dict[str, float]) -> None:
        self.writer.writerows((step, name, f"{value:.6g}") for name, value in values.items())
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def open_tensorboard(folder: Path, start: int) -> Any:
    """A writer of curves that continues after step `start`.

    Raises
    ------
    SettingsError
        Where the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "logs.tensorboard needs the package tensorboard, which is not installed: "
            "pip install 'napari-coseg[train]', or set logs.tensorboard = false (log.csv has the "
            "same values)"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)
