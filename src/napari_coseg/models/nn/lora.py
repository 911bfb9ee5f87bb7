"""Low-rank changes of a frozen attention's queries and values (Co-Seg section 2.4; Hu et al. 2022).

    qkv(x)  ->  qkv(x) + (up_q(down_q(x)), 0, up_v(down_v(x)))

A hook on each block's `qkv` layer adds them, so that the trunk's entries keep SAM2's names and LoRA
is one module that can be saved alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class LowRank(nn.Sequential):
    """``up(down(x))`` without biases. `up` starts at zero, so that a new one changes nothing."""

    def __init__(self, width_in: int, width_out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, rank, bias=False)
        self.up = nn.Linear(rank, width_out, bias=False)
        nn.init.zeros_(self.up.weight)


class QueryValueLoRA(nn.Module):
    """Changes the queries and the values of one attention, without scaling.

    Parameters
    ----------
    qkv
        The attention's layer: its first third gives queries, its last third values.
    rank
        4 in the released code.
    uneven
        Change only as many channels as come *in*: the first of the queries, the last of the values.
        Where a stage begins, twice as many go out, so half are unchanged, as in the released code.
    """

    def __init__(self, qkv: nn.Linear, rank: int, uneven: bool) -> None:
        super().__init__()
        self.reach = qkv.in_features if uneven else qkv.out_features // 3
        self.query = LowRank(qkv.in_features, self.reach, rank)
        self.value = LowRank(qkv.in_features, self.reach, rank)

    def forward(self, tokens: Tensor, projected: Tensor) -> Tensor:
        """Tokens (..., C) and ``qkv(tokens)`` (..., 3 C') -> `projected`, changed in place."""
        projected[..., : self.reach] += self.query(tokens)
        projected[..., -self.reach :] += self.value(tokens)
        return projected

    def add_to(self, qkv: nn.Module, inputs: tuple[Any, ...], projected: Tensor) -> Tensor:
        """The forward hook of the `qkv` layer."""
        result: Tensor = self(inputs[0], projected)
        return result


def put_in_lora(layers: Iterable[nn.Linear], rank: int, uneven: bool = False) -> nn.ModuleList:
    """Add LoRA to every ``qkv`` layer; returns the modules in order.

    The caller registers the list as a module: the trunk does not hold it.
    """
    changes = nn.ModuleList()
    for qkv in layers:
        change = QueryValueLoRA(qkv, rank, uneven)
        qkv.register_forward_hook(change.add_to)
        changes.append(change)
    return changes
