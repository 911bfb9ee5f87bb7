"""Measures what a fine-tuning step costs on this machine, before the start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.features import with_features
from napari_coseg.finetuning.hooks import RunControl
from napari_coseg.finetuning.preparing import Prepared
from napari_coseg.training.memory import OutOfMemory

MB = 1e6
CLEARLY_FASTER = 0.9
"""Of the time a step takes in float32, to train in bfloat16 on a CPU."""
COPIES_WHILE_TRAINING = 5
"""Of each trained weight: itself, its origin, its gradient and two of the optimiser's; float32."""


@dataclass(frozen=True)
class StepCost:
    """Of one step on this machine.

    Parameters
    ----------
    step_s
        Seconds a step of all crops.
    encode_s
        Seconds to encode one crop for the features on disk; 0 where none are kept.
    activations_mb
        Kept for the gradient of one crop.
    features_mb
        On disk, one crop.
    weights_mb
        The network, and what training adds to it.
    precision
        "bf16" or "fp32"; of both the first where it is clearly faster.
    """

    step_s: float
    encode_s: float
    activations_mb: float
    features_mb: float
    weights_mb: float
    precision: str


def measure(
    prepared: Prepared, crop_px: int, recompute: bool, control: RunControl | None = None
) -> StepCost:
    """Try forwards and backwards; the weights stay as they are.

    Raises
    ------
    OutOfMemory
        Where one crop does not fit.
    """
    settings, on_card = prepared.settings, prepared.device.startswith("cuda")
    crops = settings.crops if on_card else 1  # a card takes many at once for little more than one
    batch = prepared.crops(crop_px).draw(0, crops)
    choices: tuple[str, ...] = (settings.precision,)
    if choices == ("auto",):
        # Some CPUs multiply bfloat16 faster than float32, others only pretend to.
        choices = ("bf16",) if on_card else ("fp32", "bf16")
    one = batch.part(slice(0, 1))
    trials = [_try(prepared, one, name, recompute, control) for name in choices]
    # By a margin: one timing is no more exact, and a choice that flips gives other weights.
    faster = trials[-1].step_s < CLEARLY_FASTER * trials[0].step_s
    cost = trials[-1 if faster else 0]
    step_s = cost.step_s
    if crops > 1:
        with suppress(OutOfMemory):
            step_s = _try(prepared, batch, cost.precision, recompute, control).step_s / crops
    return replace(cost, step_s=step_s * settings.crops)


def _try(
    prepared: Prepared,
    batch: Batch,
    precision: str,
    recompute: bool,
    control: RunControl | None,
) -> StepCost:
    """The cost of a step that takes just these crops."""
    control = control or RunControl()
    encode_s = features_mb = 0.0
    with prepared.stepper(precision, control, recompute) as stepper:

        def seconds(call: Callable[[], object]) -> float:
            """Of one call, without pauses; a card is waited for."""
            began = control.clock()
            call()
            if prepared.device.startswith("cuda"):
                torch.cuda.synchronize()
            return control.clock() - began

        def gradient() -> None:
            stepper.backward(batch)
            stepper.optimiser.zero_grad(set_to_none=True)

        try:
            if prepared.settings.speed == "heads":
                images = batch
                batch = with_features(prepared.network, images, precision)
                encode_s = seconds(lambda: with_features(prepared.network, images, precision))
                features_mb = 2 * sum(maps.numel() for maps in batch.features or ()) / MB
            counting = _Counting()
            with counting:
                gradient()  # the first of its kind takes longer
            step_s = seconds(gradient)
        finally:
            stepper.optimiser.zero_grad(set_to_none=True)
    weights = sum(v.numel() * v.element_size() for v in prepared.network.state_dict().values())
    weights += sum((COPIES_WHILE_TRAINING - 1) * 4 * p.numel() for p in prepared.trained.values())
    return StepCost(step_s, encode_s, counting.megabytes, features_mb, weights / MB, precision)


class _Counting(torch.autograd.graph.saved_tensors_hooks):
    """Adds up what autograd keeps; tensors that share memory count once."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        super().__init__(self._keep, lambda kept: kept)

    @property
    def megabytes(self) -> float:
        return sum(self.sizes.values()) / MB

    def _keep(self, value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        self.sizes[storage.data_ptr()] = storage.nbytes()
        return value
