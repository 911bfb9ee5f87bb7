"""The state of a training in one file: what it takes to go on as if nothing had happened.

Weights, moving average, optimiser, the scaler of fp16 and the random states of every process.
Micro batches leave nothing behind: a step is whole or has not been.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_coseg.core.errors import CheckpointError
from napari_coseg.training.processes import Processes

STATE_FILE = "training-state.pt"


@dataclass
class TrainingState:
    """All that changes while a network trains. `save` and `resume` are the two ends of it."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: str
    validated_step: int = 0
    """Steps that were done when it was last validated; states of old do not say."""

    def save(self, path: Path, step: int, processes: Processes) -> None:
        """Write the state after `step` steps; called by all processes, written by the first."""
        random = processes.gather(torch.get_rng_state())
        on_card = processes.gather(self._card_state())
        if not processes.is_first:
            return
        state = {
            "step": step,
            "validated_step": self.validated_step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random[0],
            "random_of_others": random[1:],
            "random_on_card": on_card,
        }
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def resume(self, path: Path, processes: Processes) -> int:
        """Take over what `path` holds, and return the number of steps done; 0 without a file.

        Raises
        ------
        CheckpointError
            The file is of another training, or not all processes see it.
        """
        step = 0
        if path.exists():
            step = self._take_over(path, processes.rank)
        if processes.least(step, self.device) != -processes.least(-step, self.device):
            raise CheckpointError(
                f"not all processes see the same {path}; the output folder must be shared by all"
            )
        return step

    def _take_over(self, path: Path, rank: int) -> int:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.scaler.is_enabled() and state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self._set_random(state, rank)
            self.validated_step = int(state.get("validated_step", 0))
            return int(state["step"])
        except (KeyError, RuntimeError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"{path} is not a state of this training: {error}; give another output folder"
            ) from error

    def _set_random(self, state: dict[str, Any], rank: int) -> None:
        random = [state["random"], *state.get("random_of_others", ())]
        if rank < len(random):  # with more processes than before the new ones keep their seed
            torch.set_rng_state(random[rank])
        on_card = state.get("random_on_card", ())
        if self.device.startswith("cuda") and rank < len(on_card) and on_card[rank].numel():
            torch.cuda.set_rng_state(on_card[rank], self.device)

    def _card_state(self) -> torch.Tensor:
        if self.device.startswith("cuda"):
            return torch.cuda.get_rng_state(self.device)
        return torch.empty(0, dtype=torch.uint8)
