"""What a fine-tuning costs here, measured on one step of it before the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_coseg.finetuning.features import encode
from napari_coseg.finetuning.stepping import DTYPES, OutOfMemory, StepCrops, Tuner
from napari_coseg.models.base import Features

MB = 1e6
CLEARLY_FASTER = 0.9
"""Of the time a step takes in float32, to train in bfloat16 on a CPU."""
COPIES_WHILE_TRAINING = 5
"""Of each trained weight: itself, its origin, its gradient and two of the optimiser's; float32."""


@dataclass(frozen=True)
class Cost:
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


def measure(tuner: Tuner, crops: StepCrops, with_features: bool) -> Cost:
    """Try forwards and backwards; the weights stay as they are.

    Parameters
    ----------
    crops
        Without features. As many as a step has on a card, which takes many at once for little
        more than one; elsewhere one is enough.
    with_features
        Whether features are kept, and what follows the encoder trains alone.

    Raises
    ------
    OutOfMemory
        Where one crop does not fit.
    """
    choices: tuple[str, ...] = (tuner.settings.precision,)
    if choices == ("auto",):
        # Some CPUs multiply bfloat16 faster than float32, others only pretend to.
        choices = ("bf16",) if tuner.device.type == "cuda" else ("fp32", "bf16")
    one = crops.part(slice(0, 1))
    trials = {name: _try(tuner, one, name, with_features) for name in choices}
    precision = choices[0]
    for name in choices[1:]:
        # By a margin: one timing is no more exact, and a choice that flips gives other weights.
        if trials[name].step_s < CLEARLY_FASTER * trials[precision].step_s:
            precision = name
    trial, share = trials[precision], 1
    if len(crops) > 1:
        try:
            trial, share = _try(tuner, crops, precision, with_features), len(crops)
        except OutOfMemory:
            tuner.optimiser.zero_grad(set_to_none=True)
    weights = sum(v.numel() * v.element_size() for v in tuner.network.state_dict().values())
    weights += sum((COPIES_WHILE_TRAINING - 1) * 4 * p.numel() for p in tuner.trained.values())
    return Cost(
        step_s=trial.step_s / share * tuner.settings.crops,
        encode_s=trials[precision].encode_s,
        activations_mb=trials[precision].activations_mb,
        features_mb=trials[precision].features_mb,
        weights_mb=weights / MB,
        precision=precision,
    )


class _Trial(NamedTuple):
    """Of some crops together."""

    step_s: float
    encode_s: float
    activations_mb: float
    features_mb: float


def _try(tuner: Tuner, crops: StepCrops, precision: str, with_features: bool) -> _Trial:
    tuner.precision = precision
    encoding = features_mb = 0.0
    if with_features:
        dtype = DTYPES[precision]

        def encoded() -> Features:
            return encode(tuner.network, crops.batch, tuner.device, dtype)

        features = encoded()
        encoding = _seconds(encoded, tuner)
        numbers = features.embedding.numel()
        numbers += sum(values.numel() for values in features.high_resolution)
        features_mb = 2 * numbers / MB
        crops = StepCrops(crops.batch, features)
    counting = _Counting()
    with counting:
        tuner.measure_gradient(crops)  # the first of its kind takes longer
    seconds = _seconds(lambda: tuner.measure_gradient(crops), tuner)
    return _Trial(seconds, encoding, counting.megabytes, features_mb)


def _seconds(call: Any, tuner: Tuner) -> float:
    """Of one call, without what it was paused for; on a card it is waited for."""
    began = tuner.clock()
    call()
    if tuner.device.type == "cuda":
        torch.cuda.synchronize()
    return tuner.clock() - began


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
