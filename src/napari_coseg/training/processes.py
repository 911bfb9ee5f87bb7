"""Processes that share every batch, as ``torchrun`` starts them, or a single one.

    torchrun --nproc_per_node=2 -m napari_coseg.cli.main train RECIPE --data DIR

A recipe's batch is divided: every process draws its share of the crops, losses are quotients of
sums over all shares (`losses.Sum`), and the gradients are added once at the end of a step. So a
recipe means the same on one process and on several, Dice included. torch's
DistributedDataParallel averages gradients of losses that each process computes alone, which for
Dice or for tasks labelled in some images only is another loss; and a step here may run the network
several times (crops of several sizes, micro batches) and leave parameters out. One addition of the
trained parameters a step (22 million for Hiera-L) costs little beside 1024 x 1024 pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_coseg.core.errors import SettingsError

PATIENCE = timedelta(hours=4)
"""How long the others wait while the first process validates."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is. The methods are no-ops where it is the only one."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes, validates and reports."""
        return self.rank == 0

    def add(self, local: Tensor) -> Tensor:
        """The sum over the processes; its gradient reaches this process' part only."""
        if self.count == 1:
            return local
        others = local.detach().clone()
        dist.all_reduce(others)
        return local + (others - local.detach())

    def add_up(self, numbers: list[float], device: str) -> list[float]:
        """Element by element over the processes."""
        if self.count == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def least(self, number: int, device: str) -> int:
        """The smallest over the processes."""
        if self.count == 1:
            return number
        tensor = torch.tensor(number, device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return int(tensor)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum over the processes in place of every gradient; none counts as zero."""
        if self.count == 1:
            return
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
            parameter.grad = gradient.copy_(part.view(gradient.shape))

    def copy_from_first(self, network: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.count == 1:
            return
        for value in network.state_dict().values():
            whole = value.contiguous()
            dist.broadcast(whole, src=0)
            value.copy_(whole)

    def gather(self, value: Tensor) -> list[Tensor]:
        """The CPU tensors of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        parts: list[Tensor | None] = [None] * self.count
        dist.all_gather_object(parts, value)
        return [part for part in parts if part is not None]


ALONE = Processes()


def started_by_torchrun() -> bool:
    """Whether the environment has the variables that ``torchrun`` sets."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def first_of_all() -> bool:
    """Whether this process is the one that speaks; known before any of them is joined."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the processes of ``torchrun``; gives which one this is and the device it takes.

    On CUDA every process takes the card of its local rank (NCCL), elsewhere they meet by gloo.
    Outside ``torchrun`` nothing happens.
    """
    if not started_by_torchrun():
        yield Processes(), device
        return
    if device.startswith("cuda"):
        device = _own_card()
        torch.cuda.set_device(device)
    elif device != "cpu":
        raise SettingsError(f"several processes cannot share {device!r}; give --device cpu or cuda")
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


def _own_card() -> str:
    number, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= cards:
        raise SettingsError(
            f"process {number + 1} of this machine finds {cards} CUDA cards; start no more "
            "processes (--nproc_per_node) than there are cards"
        )
    return f"cuda:{number}"
