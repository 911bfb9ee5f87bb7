"""One step of fine-tuning: micro batches, mixed precision, and the way back to the base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.network import set_training
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.models.base import (
    BOTH_TASKS,
    CosegModel,
    Features,
    MaskPrompts,
    Task,
    TwoForwards,
)
from napari_coseg.training.losses import two_forward_loss
from napari_coseg.training.memory import checkpointed_blocks
from napari_coseg.training.stepping import cut, to_tensors

CLIP_NORM = 1.0
BETAS = (0.9, 0.99)
DTYPES: dict[str, torch.dtype | None] = {"bf16": torch.bfloat16, "fp32": None}


class OutOfMemory(Exception):
    """A micro batch does not fit; caught by the run, never shown."""


@dataclass(frozen=True)
class StepCrops:
    """What one step learns from: crops, and their features where these are kept on disk."""

    batch: Batch
    features: Features | None = None

    def part(self, crops: slice) -> StepCrops:
        features = self.features
        if features is not None:
            fine = tuple(values[crops] for values in features.high_resolution)
            features = Features(features.embedding[crops], fine, features.image_size)
        return StepCrops(cut(self.batch, crops), features)

    def __len__(self) -> int:
        return len(self.batch.images)


@dataclass
class Tuner:
    """A network, what of it trains, and where it began.

    Parameters
    ----------
    trained
        Parameters by name.
    precision
        "bf16" or "fp32"; weights, losses and the optimiser are float32 either way.
    micro
        Crops in one forward and backward.
    gate, clock
        Asked between pieces of work, and what they take; the clock stands still while the gate
        waits.
    """

    network: CosegModel
    trained: dict[str, nn.Parameter]
    settings: FinetuneSettings
    precision: str
    micro: int
    gate: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.perf_counter
    origin: dict[str, Tensor] = field(init=False)
    optimiser: torch.optim.Optimizer = field(init=False)
    _within: ExitStack = field(default_factory=ExitStack, init=False)
    is_checkpointing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.origin = {name: p.detach().clone() for name, p in self.trained.items()}
        self.optimiser = torch.optim.AdamW(
            list(self.trained.values()),
            lr=self.settings.rate(),
            betas=BETAS,
            weight_decay=0.0,
        )
        set_training(self.network)

    @property
    def device(self) -> torch.device:
        return next(self.network.buffers()).device

    def checkpoint_activations(self) -> None:
        """From now on the trunk's blocks are computed twice, for less memory."""
        self._within.enter_context(checkpointed_blocks(self.network))
        self.is_checkpointing = True

    def ask_often(self) -> None:
        """From now on the gate is passed before each module of the network and each block, too.

        A step may take seconds on a CPU, and a person who stops it waits two at most.
        """
        encoder = self.network.image_encoder
        for module in (*self.network.children(), *(encoder.blocks() if encoder else ())):
            handle = module.register_forward_pre_hook(self._pass_gate)
            self._within.callback(handle.remove)

    def _pass_gate(self, module: nn.Module, inputs: object) -> None:
        if module.training:
            self.gate()

    def close(self) -> None:
        """Undo what was done to the network's modules."""
        self._within.close()
        self.is_checkpointing = False

    def learn(self, crops: StepCrops, rate: float) -> dict[str, float] | None:
        """Take one step; the weighted loss terms, or None where no step could be taken.

        A step whose loss or gradient is no finite number changes nothing.

        Raises
        ------
        OutOfMemory
            Where a micro batch does not fit, or the optimiser. No weight was changed.
        Cancelled
            By the gate, between micro batches. Nothing was changed.
        """
        self.optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for first in range(0, len(crops), self.micro):
            self.gate()
            part = crops.part(slice(first, first + self.micro))
            for name, value in self._backward(part, len(part) / len(crops)).items():
                terms[name] = terms.get(name, 0.0) + value
        self.gate()
        parameters = [p for p in self.trained.values() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        if not (bool(torch.isfinite(norm)) and all(map(math.isfinite, terms.values()))):
            return None
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._step()
        self._draw_back(rate)
        return terms

    def loss(self, crops: StepCrops) -> tuple[Tensor, dict[str, float]]:
        """Of some crops, as the network is now."""
        device = self.device
        dtype = DTYPES[self.precision]
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            output = self._output(crops)
        _, targets = to_tensors(crops.batch, str(device))
        return two_forward_loss(output, targets, self.settings.losses)

    @torch.no_grad()
    def measure_loss(self, crops: StepCrops) -> float:
        """Of some crops, without a gradient.

        Raises
        ------
        OutOfMemory
            Where the crops do not fit.
        """
        try:
            return float(self.loss(crops)[0])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._give_back()
        raise OutOfMemory

    def measure_gradient(self, crops: StepCrops) -> None:
        """A forward and a backward whose gradient is thrown away.

        Raises
        ------
        OutOfMemory
            Where the crops do not fit.
        """
        self._backward(crops, 1.0)
        self.optimiser.zero_grad(set_to_none=True)

    def _backward(self, part: StepCrops, share: float) -> dict[str, float]:
        try:
            loss, terms = self.loss(part)
            self.gate()
            if loss.requires_grad:
                (share * loss).backward()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return {name: share * value for name, value in terms.items()}
        # Outside the handler: the error's traceback keeps the tensors of the failed call alive.
        self._give_back()
        raise OutOfMemory

    def _step(self) -> None:
        """The optimiser's, whose first one takes memory for twice what trains."""
        is_first = not self.optimiser.state
        try:
            self.optimiser.step()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        if is_first:  # so the weights still were where they began
            self.optimiser.state.clear()
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(self.origin[name])
        self._give_back()
        raise OutOfMemory

    def _give_back(self) -> None:
        """What a failed call has taken."""
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _output(self, crops: StepCrops) -> TwoForwards:
        features = crops.features
        if features is None:
            images = torch.as_tensor(crops.batch.images).to(self.device)
            features = self.network.encode(self.network.normalise(images))
        first = self.network.first_forward(features)
        prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
        asked = _labelled(crops.batch)
        return TwoForwards(first, self.network.second_forward(features, prompts, asked))

    @torch.no_grad()
    def _draw_back(self, rate: float) -> None:
        """A part of the way back to the base (L2-SP; Li, Grandvalet and Davoine 2018).

        Apart from the gradient, as AdamW's decay is: the optimiser's scaling would undo it.
        """
        part = min(1.0, rate * self.settings.distance_to_base)
        if part:
            for name, parameter in self.trained.items():
                parameter.lerp_(self.origin[name], part)


def _labelled(batch: Batch) -> tuple[Task, ...]:
    """The tasks that anything is known of; decoding the others would teach nothing."""
    known = {"semantic": batch.semantic_known, "instance": batch.instances_known}
    return tuple(task for task in BOTH_TASKS if known[task].any()) or BOTH_TASKS


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device, or the machine, had no memory left."""
    text = str(error).lower()
    full = "out of memory" in text or "can't allocate memory" in text
    return full or isinstance(error, torch.OutOfMemoryError)
