"""The state of a fine-tuning in one file, to go on as if nothing had happened.

Random states are not in it: crops and dropout are seeded by the number of the step.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_coseg.core.errors import CheckpointError, OutputError
from napari_coseg.finetuning.stepping import Tuner


@dataclass
class Progress:
    """What a run has come to, beside the network.

    Parameters
    ----------
    step
        Steps done.
    best
        The trained weights that scored best, by name; none where nothing that is held back can be
        scored.
    best_worth, best_step
        Of those; -1 before any were scored.
    scored_step
        The last one after which the held-back regions were scored; 0 for none.
    left_out
        Steps that changed nothing, as their loss or gradient was no finite number.
    """

    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_worth: float = -1.0
    best_step: int = 0
    scored_step: int = 0
    left_out: int = 0


def save_state(path: Path, tuner: Tuner, progress: Progress) -> None:
    """Write all that changes while a network trains; the file appears whole or not at all.

    Raises
    ------
    OutputError
        Where the disk refuses.
    """
    state = {
        "step": progress.step,
        "best": progress.best,
        "best_worth": progress.best_worth,
        "best_step": progress.best_step,
        "scored_step": progress.scored_step,
        "left_out": progress.left_out,
        "trained": {name: p.detach().cpu() for name, p in tuner.trained.items()},
        "optimiser": tuner.optimiser.state_dict(),
    }
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"the state cannot be written to {path}: {error}") from error


def resume_state(path: Path, tuner: Tuner) -> Progress:
    """Take over what `path` holds; a fresh start where there is no file.

    Raises
    ------
    CheckpointError
        Where the file is broken or of another fine-tuning.
    """
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_names(state, tuner, path)
        with torch.no_grad():
            for name, parameter in tuner.trained.items():
                parameter.copy_(state["trained"][name])
        tuner.optimiser.load_state_dict(state["optimiser"])
        names = ("step", "best", "best_worth", "best_step", "scored_step")
        left_out = state.get("left_out", 0)  # not counted before
        return Progress(**{name: state[name] for name in names}, left_out=left_out)
    except _BROKEN as error:
        raise CheckpointError(
            f"{path} is no state of this fine-tuning ({error}); start it anew"
        ) from error


_BROKEN = (
    *(KeyError, TypeError, ValueError, RuntimeError, EOFError, OSError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


def _check_names(state: dict[str, Any], tuner: Tuner, path: Path) -> None:
    if state["trained"].keys() != tuner.trained.keys():
        raise CheckpointError(f"{path} is of a fine-tuning of other parts; start it anew")
