"""Measure parameters, FLOPs and latency of a prediction (Co-Seg++ section 4.6, table 9).

The network is also run as in the released code: images of a batch one by one, encoded once per
forward. Latencies are comparable within one run, not between machines.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_coseg.models.base import CosegModel, MaskPrompts, TaskMaps

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.core.card import ModelCard


COUNTER = "torch.utils.flop_counter, two a multiply-add, attention counted"
"""Counters differ: thop counts multiply-adds and omits attention."""


@dataclass(frozen=True)
class Cost:
    """One way to run a network.

    Parameters
    ----------
    name
        Label in the table.
    gflop
        Per image: matrix products, convolutions and attention, two FLOPs per multiply-add.
    latency_ms
        Median per image over the repeats; None if not measured.
    """

    name: str
    gflop: float
    latency_ms: float | None = None


@dataclass(frozen=True)
class CostTable:
    """Parameters in millions, and the ways of running, ours first."""

    parameters_m: float
    learnable_m: float
    rows: tuple[Cost, ...]


def encoded_once(model: CosegModel, images: Tensor) -> TaskMaps:
    """Predict (B, 3, Y, X) as one batch, as this package does."""
    return model(images).second


def encoded_twice(model: CosegModel, images: Tensor) -> list[TaskMaps]:
    """Predict as the released code: image by image, encoded once per forward."""
    found = []
    for image in images.split(1):
        first = model.first_forward(model.encode(image))
        prompts = MaskPrompts(first.semantic_mask, first.instance_mask)
        found.append(model.second_forward(model.encode(image), prompts))
    return found


WAYS: dict[str, Callable[[CosegModel, Tensor], object]] = {
    "encoded once, whole batch": encoded_once,
    "encoded twice, image by image": encoded_twice,
}


def measure_costs(
    card: ModelCard,
    size_px: int,
    *,
    batch: int = 1,
    repeats: int = 5,
    device: str = "cpu",
    learnable: tuple[str, ...] | None = None,
) -> CostTable:
    """Count and time a network with random weights.

    Parameters
    ----------
    size_px
        Side of the images; a multiple of the model's `size_multiple`.
    repeats
        Timed runs of each way, alternating, after one warm-up; 0 measures no latency.
    learnable
        Trainable parts; None: all but the trunk, which the paper freezes (section 3.4).
    """
    from napari_coseg.models.base import as_two_task
    from napari_coseg.models.outline import build_outline

    outline = as_two_task(build_outline(card))
    counts = {
        name: sum(p.numel() for p in parameters) / 1e6
        for name, parameters in outline.parts().items()
    }
    latencies = _latencies(card, size_px, batch, repeats, device) if repeats else {}
    rows = tuple(
        Cost(name, gflop(outline, size_px, way), latencies.get(name)) for name, way in WAYS.items()
    )
    if learnable is None:
        learnable = tuple(name for name in counts if name != "trunk")
    learnt = sum(count for name, count in counts.items() if name in learnable)
    return CostTable(sum(counts.values()), learnt, rows)


def gflop(
    model: CosegModel,
    size_px: int,
    way: Callable[[CosegModel, Tensor], object] = encoded_once,
) -> float:
    """GFLOP per image, counted on the meta device without computing.

    The counter does not know the fused attention of the CPU. Element-wise operations are left out
    (those of the scan are below 0.1 %).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # The counter's hooks fail on parameters that require gradients when gradients are off.
    model.requires_grad_(False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        way(model, torch.zeros(1, 3, size_px, size_px, device="meta"))
    return float(counter.get_total_flops()) / 1e9


def as_markdown(table: CostTable) -> str:
    """A table with one row per way and ratios to the first."""
    ours = table.rows[0]
    lines = [
        f"{table.parameters_m:.2f} M parameters, {table.learnable_m:.2f} M of them learnable",
        f"FLOPs counted by {COUNTER}",
        "",
        "| | GFLOP | ratio | ms an image | ratio |",
        "|---|---|---|---|---|",
    ]
    for row in table.rows:
        times = ["-", "-"]
        if row.latency_ms is not None and ours.latency_ms is not None:
            times = [f"{row.latency_ms:.0f}", f"{row.latency_ms / ours.latency_ms:.2f}"]
        cells = [f"{row.gflop:.1f}", f"{row.gflop / ours.gflop:.2f}", *times]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latencies(
    card: ModelCard, size_px: int, batch: int, repeats: int, device: str
) -> dict[str, float]:
    import torch

    from napari_coseg.models.registry import build_two_task

    model = build_two_task(card).to(device).eval()
    images = torch.zeros(batch, 3, size_px, size_px, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, way in WAYS.items():
                _wait_for(device)
                began = time.perf_counter()
                way(model, images)
                _wait_for(device)
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(runs[1:]) / batch for name, runs in seconds.items()}


def _wait_for(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
