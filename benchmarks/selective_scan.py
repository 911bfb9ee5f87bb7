"""Speed of the chunked selective scan compared with the sequential recurrence.

    python benchmarks/selective_scan.py [--repeats 5]

Both run alternately on one thread. Prints the ratio of their median CPU times for the forward pass
and for forward and backward, at the lengths of inference and of training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from napari_coseg.models.nn.selective_scan import selective_scan

CASES = {
    # batch, channels, state, length
    "one 1024 x 1024 image, length 4,096": (1, 256, 8, 4096),
    "training, length 1,024": (8, 128, 8, 1024),
    "training, length 256": (8, 128, 8, 256),
}


def make_inputs(batch: int, channels: int, state: int, length: int) -> list[Tensor]:
    torch.manual_seed(0)
    rates = torch.arange(1, state + 1).float().repeat(channels, 1)
    values = [
        torch.randn(batch, channels, length),
        torch.randn(batch, channels, length),
        -rates,
        torch.randn(batch, state, length),
        torch.randn(batch, state, length),
        torch.ones(channels),
        torch.randn(channels) - 4,
    ]
    return [value.requires_grad_() for value in values]


def forward(inputs: list[Tensor], backend: str) -> None:
    with torch.no_grad():
        selective_scan(*inputs, backend=backend)


def forward_backward(inputs: list[Tensor], backend: str) -> None:
    torch.autograd.grad(selective_scan(*inputs, backend=backend).sum(), inputs)


def median_seconds(
    run: Callable[[list[Tensor], str], None], inputs: list[Tensor], repeats: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {"reference": [], "chunked": []}
    for repeat in range(repeats + 1):
        for backend, found in times.items():
            start = time.process_time()
            run(inputs, backend)
            if repeat:  # the first round warms up
                found.append(time.process_time() - start)
    return {backend: statistics.median(found) for backend, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"one thread, CPU time, median of {repeats}, float32")
    for name, shape in CASES.items():
        inputs = make_inputs(*shape)
        for kind, run in (("forward", forward), ("forward + backward", forward_backward)):
            seconds = median_seconds(run, inputs, repeats)
            ratio = seconds["reference"] / seconds["chunked"]
            print(
                f"{name}, {kind}: recurrence {seconds['reference'] * 1e3:.1f} ms, "
                f"chunked {seconds['chunked'] * 1e3:.1f} ms, {ratio:.1f} times faster"
            )


if __name__ == "__main__":
    main()
