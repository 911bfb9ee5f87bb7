"""The state of a training in one file, from which it resumes as if nothing had happened.

Weights, moving average, optimiser and the scaler of fp16. Random states are not in it: crops and
dropout are seeded by the number of the step. A step is whole or has not been.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_coseg.core.errors import CheckpointError
from napari_coseg.core.files import atomic_write
from napari_coseg.training.processes import Processes

_BROKEN = (
    *(KeyError, TypeError, ValueError, RuntimeError, EOFError, OSError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


@dataclass
class TrainingState:
    """All that changes while a network trains. `save` and `resume` are the two ends of it.

    Parameters
    ----------
    average
        The moving average of the weights; None where there is none.
    whole
        Whether the file holds all weights, or only those that train.
    step, validated_step
        Steps done, and those after which it was last validated; old files lack the latter.
    skipped
        Steps that changed nothing, as their loss or gradient was not finite.
    """

    model: nn.Module
    average: nn.Module | None
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: str
    whole: bool = True
    step: int = 0
    validated_step: int = 0
    skipped: int = 0

    def save(self, path: Path) -> None:
        """Write the state; the file appears whole or not at all.

        Raises
        ------
        OutputError
            Where the disk refuses.
        """
        state = {
            "step": self.step,
            "validated_step": self.validated_step,
            "skipped": self.skipped,
            "model": self._weights(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        with atomic_write(path, overwrite=True, failures=(RuntimeError,)) as partial:
            torch.save(state, partial)

    def resume(self, path: Path, processes: Processes) -> None:
        """Take over what `path` holds; nothing without a file.

        Raises
        ------
        CheckpointError
            The file is of another training, or not all processes see it.
        """
        if path.exists():
            self._take_over(path)
        step = self.step
        if processes.least(step, self.device) != -processes.least(-step, self.device):
            raise CheckpointError(
                f"not all processes see the same {path}; the output folder must be shared by all"
            )

    def _weights(self) -> dict[str, Any]:
        if self.whole:
            return self.model.state_dict()
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        return {name: v for name, v in self.model.state_dict().items() if name in trained}

    def _take_over(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["model"].keys() != self._weights().keys():
                raise ValueError("it is of other weights")
            self.model.load_state_dict(state["model"], strict=self.whole)
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.scaler.is_enabled() and state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self.validated_step = int(state.get("validated_step", 0))
            self.skipped = int(state.get("skipped", 0))
            self.step = int(state["step"])
        except _BROKEN as error:
            raise CheckpointError(
                f"{path} is not a state of this training: {error}; start over, or give another "
                "output folder"
            ) from error
