"""One optimiser step: micro batches, mixed precision, and what happens where memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_coseg.core.errors import CosegError, SettingsError
from napari_coseg.core.words import counted
from napari_coseg.datasets.batches import NOT_GIVEN, Batch
from napari_coseg.models.base import CosegModel, Features, GivenMasks
from napari_coseg.training.losses import Shares, Targets, near_two_objects, two_forward_loss
from napari_coseg.training.memory import (
    OutOfMemory,
    blocks_of,
    catching_out_of_memory,
    checkpointed_blocks,
)
from napari_coseg.training.processes import ALONE, Processes
from napari_coseg.training.settings import OptimiserSettings, TrainingSettings
from napari_coseg.training.trainable import decay_groups

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
RECOMPUTED = "computing blocks twice"


class DivergedError(CosegError):
    """The loss or its gradient is not finite, step after step."""


@dataclass(frozen=True)
class Outcome:
    """What a step did: its weighted loss terms, and whether the weights were changed."""

    terms: dict[str, float]
    taken: bool


@dataclass
class Stepper:
    """Takes steps with one network, one optimiser and one scaler.

    A step whose gradient is not finite is skipped: with fp16 that is how the scaler finds its
    factor, otherwise a sign that something is wrong.

    Parameters
    ----------
    check
        Called between micro batches; may raise to stop. Weights have not changed then.
    accumulate
        Micro batches of a batch: as the settings say at first; `reduce_memory` doubles them.
    """

    model: CosegModel
    optimiser: torch.optim.Optimizer
    settings: TrainingSettings
    device: str
    processes: Processes = ALONE
    check: Callable[[], object] = lambda: None
    scaler: torch.amp.GradScaler = field(init=False)
    accumulate: int = field(init=False)
    recomputes: bool = field(default=False, init=False)
    _undo: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.scaler = make_scaler(self.settings.precision, self.device)
        self.accumulate = self.settings.accumulate
        if self.settings.activation_checkpointing:
            self._recompute_blocks()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()
        self.recomputes = False

    def __call__(self, batches: Sequence[Batch], rate: float) -> Outcome:
        """Train on the batches of one step, whose losses add up.

        Raises
        ------
        OutOfMemory
            Where a micro batch or the optimiser does not fit. No weight was changed.
        """
        self.set_rate(rate)
        self.optimiser.zero_grad(set_to_none=True)
        statistics = [value.clone() for value in self._statistics()]
        terms: dict[str, float] = {}
        try:
            for batch in batches:  # crops of different sizes share no tensor: gradients add up
                for part, shares in self._micro_batches(batch):
                    self.check()
                    for name, value in self.backward(part, shares).items():
                        terms[name] = terms.get(name, 0.0) + value
            self.check()
            taken = self._update(terms)
        except BaseException:
            self._restore(statistics)
            self.optimiser.zero_grad(set_to_none=True)
            raise
        if not taken:
            self._restore(statistics)  # which such a step may have spoilt
        return Outcome(terms, taken)

    def set_rate(self, rate: float) -> None:
        """The learning rate from here on; a part with a factor of its own has its share of it."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]

    def loss(self, batch: Batch, shares: Shares | None = None) -> tuple[Tensor, dict[str, float]]:
        """The loss of some crops, and its weighted terms, as `two_forward_loss`."""
        images, targets = to_tensors(batch, self.device)
        dtype = AUTOCAST.get(self.settings.precision)
        with torch.autocast(torch.device(self.device).type, dtype, enabled=dtype is not None):
            features = features_of(batch, self.device)
            if features is None:
                images = self.model.normalise(images).to(memory_format=torch.channels_last)
                features = self.model.encode(images)
            # Tasks without labels are not decoded.
            given = given_masks(batch, self.device)
            output = self.model.decode(features, given, targets.labelled)
        return two_forward_loss(output, targets, self.settings.losses, shares, self.processes.add)

    def backward(self, batch: Batch, shares: Shares | None = None) -> dict[str, float]:
        """Add the gradient of some crops; returns their weighted loss terms.

        Raises
        ------
        OutOfMemory
            Where the crops do not fit.
        """
        with catching_out_of_memory(self.device):
            loss, terms = self.loss(batch, shares)
            self.check()
            if loss.requires_grad:
                self.scaler.scale(loss).backward()
        return terms

    def reduce_memory(self, batches: Sequence[Batch]) -> str | None:
        """Make steps need less memory; returns the change in words, None where nothing is left."""
        allowed = self.settings.activation_checkpointing is not False
        if allowed and not self.recomputes and blocks_of(self.model):
            self._recompute_blocks()
            return RECOMPUTED
        crops = max(len(batch.images) for batch in batches)
        before = -(-crops // self.accumulate)
        if before <= 1:
            return None
        self.accumulate *= 2
        now = counted(-(-crops // self.accumulate), "crop")
        return f"{now} at once in place of {before}"

    def _recompute_blocks(self) -> None:
        self._undo.enter_context(checkpointed_blocks(self.model))
        self.recomputes = True

    def _update(self, terms: dict[str, float]) -> bool:
        """Move the weights, where the gradient is finite."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.processes.add_gradients(parameters)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.optimiser.clip_gradient_norm)
        taken = bool(torch.isfinite(norm)) and all(map(math.isfinite, terms.values()))
        if taken:
            self._move(parameters)
        self.scaler.update()
        return taken

    def _move(self, parameters: Sequence[nn.Parameter]) -> None:
        """The optimiser's step, whose first one allocates twice the memory of what trains."""
        is_first = not self.optimiser.state
        before = [p.detach().to("cpu", copy=True) for p in parameters] if is_first else []
        try:
            with catching_out_of_memory(self.device):
                self.scaler.step(self.optimiser)
        except OutOfMemory:
            if is_first:
                self.optimiser.state.clear()
                with torch.no_grad():
                    for parameter, value in zip(parameters, before, strict=True):
                        parameter.copy_(value)
            raise

    def _statistics(self) -> Iterator[Tensor]:
        """The running statistics of batch normalisation that are updated."""
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and module.training:
                yield from module.buffers()

    @torch.no_grad()
    def _restore(self, statistics: Sequence[Tensor]) -> None:
        for now, before in zip(self._statistics(), statistics, strict=True):
            now.copy_(before)

    def _micro_batches(self, batch: Batch) -> list[tuple[Batch, Shares]]:
        """The batch in as many parts as the recipe says, or as the smallest share has crops."""
        crops, count = len(batch.images), self.accumulate
        if count == 1:
            return [(batch, Shares())]
        count = min(count, self.processes.least(crops, self.device))
        parts = [batch.part(slice(first, None, count)) for first in range(count)]
        labels = [_labels(part) for part in parts]
        flat = self.processes.add_up([n for counts in labels for n in counts], self.device)
        kinds = len(Shares._fields)
        counts = [flat[kinds * i : kinds * (i + 1)] for i in range(count)]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        return [
            (part, Shares(*(n / max(total, 1) for n, total in zip(of_part, totals, strict=True))))
            for part, of_part in zip(parts, counts, strict=True)
        ]


@contextmanager
def checked_often(model: CosegModel, check: Callable[[], object]) -> Iterator[None]:
    """Within, `check` is called before each module of a network that trains, and each block.

    A step may take seconds on a CPU, and whoever stops it waits two at most.
    """

    def passed(module: nn.Module, inputs: object) -> None:
        if module.training:
            check()

    modules = (*model.children(), *blocks_of(model))
    handles = [module.register_forward_pre_hook(passed) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_optimiser(
    parts: Mapping[str, Sequence[nn.Parameter]], settings: OptimiserSettings
) -> torch.optim.Optimizer:
    """Adam as in the papers, where decay is added to the gradient, or AdamW, where it is not.

    SGD has Nesterov's momentum and adds the decay to the gradient (MedUniSeg, nnU-Net).

    Parameters
    ----------
    parts
        What trains, by the name that `settings.rates` calls it.
    """
    if unknown := sorted(settings.rates.keys() - parts.keys()):
        raise SettingsError(
            f"optimiser.rates names {', '.join(unknown)}; what trains is {', '.join(parts)}"
        )
    groups = [
        {**group, "factor": settings.rates.get(name, 1.0)}
        for name, parameters in parts.items()
        for group in decay_groups(parameters, settings.weight_decay)
    ]
    if settings.algorithm == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(
            groups, lr=settings.learning_rate, momentum=momentum, nesterov=momentum > 0
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.algorithm]
    return kind(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2))


def make_scaler(precision: str, device: str) -> torch.amp.GradScaler:
    """What keeps the small gradients of fp16 from vanishing; does nothing in other precisions."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")


def features_of(batch: Batch, device: str) -> Features | None:
    """The features that a batch carries, float32; None where the encoder has to be run."""
    if batch.features is None:
        return None
    embedding, *finer = (torch.as_tensor(maps).to(device).float() for maps in batch.features)
    height, width = batch.semantic.shape[-2:]
    return Features(embedding, tuple(finer), (int(height), int(width)))


def given_masks(batch: Batch, device: str) -> GivenMasks | None:
    """The prompts drawn for a batch; None where the first forward prompts the second alone."""
    if batch.prompts is None:
        return None
    masks = torch.as_tensor(batch.prompts).to(device, non_blocking=True)
    shares = masks.float().masked_fill(masks == NOT_GIVEN, float("nan"))
    return GivenMasks(shares[:, :1], shares[:, 1:])


def to_tensors(batch: Batch, device: str) -> tuple[Tensor, Targets]:
    """Arrays of a batch -> images (B, 3, Y, X) of 0..255 and their targets, on the device."""

    def put(array: object) -> Tensor:
        return torch.as_tensor(array).to(device, non_blocking=True)

    objects = put(batch.instances) > 0
    targets = Targets(
        semantic=put(batch.semantic).long(),
        objects=objects,
        classes=put(batch.types).long() * objects,
        hv=put(batch.hv).float(),
        semantic_known=put(batch.semantic_known),
        objects_known=put(batch.instances_known),
        classes_known=put(batch.types_known),
        crowded=near_two_objects(put(batch.instances)),
    )
    return put(batch.images), targets


def _labels(batch: Batch) -> tuple[float, ...]:
    """Crops with regions, with objects, with classes of objects, and all, as `Shares` has them."""
    masks = (batch.semantic_known, batch.instances_known, batch.types_known)
    return (*(float(mask.any(axis=(1, 2)).sum()) for mask in masks), float(len(batch.images)))
