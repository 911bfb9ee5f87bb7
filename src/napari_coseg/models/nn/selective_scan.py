"""The selective scan of Mamba (Gu and Dao 2023, algorithm 2), with three backends.

For each image, channel ``c`` and state ``n``, with ``t`` along the sequence::

    h[t] = exp(delta[t] * A[c, n]) * h[t - 1] + delta[t] * B[n, t] * u[c, t]        h[-1] = 0
    y[c, t] = sum over n of C[n, t] * h[t] + D[c] * u[c, t]

``mamba``      the CUDA kernel of the package mamba-ssm, if installed
``chunked``    plain torch, on any device, forward and backward
``reference``  the two lines above, step by step; slow, for tests

The ``chunked`` algorithm. The sequence is cut into K chunks of S steps, S about sqrt(length) and
at most 64. (1) All chunks run their S steps in parallel from an empty state, which gives what each
adds to the state. (2) A prefix scan in log2(K) rounds gives the state that each chunk starts from.
(3) The chunks run again from there and write y. This takes 2 S + log2(K) steps in Python: about
2 sqrt(length) up to 4,096 and 128 + log2(length / 64) beyond. Decays are only multiplied, never
divided by, so that a decay of 0 (large delta) is exact.

Running the chunks twice is faster than a prefix scan over the whole sequence: each step touches
only (batch, K, state, channels) numbers, which stay in the cache, and the forward never writes
the full state (33 MB at length 4,096, 256 channels and state 8). Steps are the first axis and
channels the last, so that memory access is contiguous. Half of the forward is `exp`; chunks of 32
or 64 steps, or matrix products in place of sums, are not faster.

The backward saves only the inputs and the K starting states, recomputes the states (one temporary
tensor of full size; another for the decays saves no time) and solves the reverse recurrence in the
same three parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from napari_coseg.core.errors import SettingsError

BACKENDS = ("auto", "mamba", "chunked", "reference")

LONGEST_CHUNK = 64


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    backend: str = "auto",
) -> Tensor:
    """Selective scan along the last axis; differentiable in every tensor.

    Computes in float32 (float64 if `u` is), also under autocast.

    Parameters
    ----------
    u
        The sequence, (batch, channels, length).
    delta
        Step sizes before bias and softplus, (batch, channels, length).
    A
        Decay rates, (channels, state); negative for a decaying state.
    B, C
        Input and output projections of the state, (batch, state, length).
    D
        The skip, (channels,).
    delta_bias
        Added to `delta`, (channels,).
    delta_softplus
        Whether to apply softplus to `delta` plus bias.
    backend
        One of `BACKENDS`; ``auto`` uses mamba-ssm for CUDA tensors if installed, else ``chunked``.

    Returns
    -------
    Tensor
        (batch, channels, length), of the dtype of `u`.

    Raises
    ------
    SettingsError
        If `backend` is unknown, or ``mamba`` is not available.
    ValueError
        If the shapes do not fit each other.
    """
    _check_shapes(u, delta, A, B, C, D, delta_bias)
    kernel = _mamba_kernel() if _uses_mamba(backend, u) else None
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, delta, A, B, C, D = (tensor.to(dtype) for tensor in (u, delta, A, B, C, D))
    bias = None if delta_bias is None else delta_bias.to(dtype)
    if kernel is not None:
        contiguous = (tensor.contiguous() for tensor in (x, delta, A, B, C, D))
        y = kernel(*contiguous, delta_bias=bias, delta_softplus=delta_softplus)
        return y.to(u.dtype)
    if bias is not None:
        delta = delta + bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    recurrence = _recurrence_by_steps if backend == "reference" else _ChunkedRecurrence.apply
    last = (tensor.transpose(1, 2) for tensor in (delta, delta * x, B, C))
    delta, entering, B, C = last
    y = recurrence(delta, entering, A, B, C).transpose(1, 2) + D[:, None] * x
    return y.to(u.dtype)


def _check_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor | None
) -> None:
    if u.ndim != 3 or A.ndim != 2 or 0 in u.shape:
        raise ValueError(
            f"u must be (batch, channels, length) and A (channels, state), none of them empty; "
            f"got {tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, channels, length = u.shape
    state = A.shape[1]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("delta", delta, (batch, channels, length)),
        ("A", A, (channels, state)),
        ("B", B, (batch, state, length)),
        ("C", C, (batch, state, length)),
        ("D", D, (channels,)),
        ("delta_bias", bias, (channels,)),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; u of {tuple(u.shape)} and state {state} "
                f"need {shape}"
            )


def _uses_mamba(backend: str, u: Tensor) -> bool:
    if backend not in BACKENDS:
        raise SettingsError(f"scan backend {backend!r} is unknown; use one of {BACKENDS}")
    fits = u.is_cuda and u.dtype != torch.float64
    if backend == "auto":
        return fits and _mamba_kernel() is not None
    if backend == "mamba" and not fits:
        raise SettingsError(
            f"scan backend 'mamba' works on CUDA tensors up to float32, got {u.dtype} on "
            f"{u.device}; use 'auto'"
        )
    if backend == "mamba" and _mamba_kernel() is None:
        raise SettingsError(
            "scan backend 'mamba' needs the package mamba-ssm: use 'auto', or install it beside "
            "torch by `pip install --no-build-isolation mamba-ssm`"
        )
    return backend == "mamba"


@cache
def _mamba_kernel() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn


# From here on the sequence is the second axis: delta and x are (batch, length, channels), B and C
# (batch, length, state), and x is what enters the state, delta * u.


def _recurrence_by_steps(delta: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Sum over n of C[n] * h[n], step by step; (batch, length, channels)."""
    h = x.new_zeros(x.shape[0], *A.shape)  # (batch, channels, state)
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(delta[:, t, :, None] * A) * h + x[:, t, :, None] * B[:, t, None, :]
        outputs.append((h * C[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1)


class _ChunkedRecurrence(torch.autograd.Function):
    """The same as `_recurrence_by_steps`, for all chunks at once."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        steps = _chunk_length(x.shape[1])
        rates = A.T.contiguous()  # (n, c)
        d, xs, Bs, Cs = _cut_all(steps, delta, x, B, C)
        starts = _chunk_starts(d, xs, Bs, rates)  # (b, K, n, c)
        y = torch.empty_like(d[:, :, :, 0])  # (S, b, K, c)
        h = starts.clone()
        scratch = torch.empty_like(h)
        for j in range(steps):
            decay = torch.mul(d[j], rates, out=scratch).exp_()
            h.mul_(decay).addcmul_(xs[j], Bs[j])
            torch.sum(torch.mul(h, Cs[j], out=scratch), 2, out=y[j])
        ctx.save_for_backward(delta, x, A, B, C, starts)
        return _join(y, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        delta, x, A, B, C, starts = ctx.saved_tensors
        length = x.shape[1]
        rates = A.T.contiguous()
        d, xs, Bs, Cs = _cut_all(_chunk_length(length), delta, x, B, C)
        gy = _cut(grad_y, d.shape[0]).unsqueeze(3)
        faded, grad_C = _states_again(d, xs, Bs, gy, rates, starts)
        g = _gradient_entering(d, Cs, gy, rates)
        grads = _reverse_walk(d, xs, Bs, Cs, gy, rates, faded, g)
        grad_delta, grad_x, grad_A, grad_B = grads
        return (
            _join(grad_delta, length),
            _join(grad_x, length),
            grad_A,
            _join(grad_B, length),
            _join(grad_C, length),
        )


def _chunk_length(length: int) -> int:
    """The power of two at or above sqrt(length), `LONGEST_CHUNK` at most."""
    steps = 1
    while steps < LONGEST_CHUNK and steps * steps < length:
        steps *= 2
    return steps


def _cut(sequence: Tensor, steps: int) -> Tensor:
    """(b, length, m) -> (S, b, K, m). Zeros at the end: no decay, nothing enters."""
    missing = -sequence.shape[1] % steps
    if missing:
        sequence = F.pad(sequence, (0, 0, 0, missing))
    # Two copies are faster than one: a plain transpose, then whole rows of channels.
    chunks = sequence.contiguous().unflatten(1, (-1, steps))
    return chunks.permute(2, 0, 1, 3).contiguous()


def _join(steps: Tensor, length: int) -> Tensor:
    """The inverse of `_cut`: (S, b, K, m) -> (b, length, m)."""
    return steps.permute(1, 2, 0, 3).flatten(1, 2)[:, :length]


def _cut_all(
    steps: int, delta: Tensor, x: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """delta, x -> (S, b, K, 1, c); B, C -> (S, b, K, n, 1): they broadcast to (n, c)."""
    d, xs = (_cut(tensor, steps).unsqueeze(3) for tensor in (delta, x))
    Bs, Cs = (_cut(tensor, steps).unsqueeze(4) for tensor in (B, C))
    return d, xs, Bs, Cs


def _chunk_starts(d: Tensor, xs: Tensor, Bs: Tensor, rates: Tensor) -> Tensor:
    """The state each chunk starts from, (b, K, n, c)."""
    steps, b, K = d.shape[:3]
    added = d.new_zeros(b, K, *rates.shape)
    if K == 1:
        return added
    scratch = torch.empty_like(added)
    for j in range(steps):
        decay = torch.mul(d[j], rates, out=scratch).exp_()
        added.mul_(decay).addcmul_(xs[j], Bs[j])
    return _states_before(_whole_decay(d, rates), added)


def _whole_decay(d: Tensor, rates: Tensor) -> Tensor:
    """The decay over all steps of each chunk, (b, K, n, c)."""
    return torch.exp(d.sum(0) * rates)


def _states_before(decay: Tensor, added: Tensor) -> Tensor:
    """State before each chunk, from each chunk's decay and addition; all (b, K, n, c).

    Prefix scan: after a round with `reach`, `added` is the sum over the last 2 * reach chunks.
    """
    reach = 1
    while reach < added.shape[1]:
        further = added.clone()
        further[:, reach:].addcmul_(decay[:, reach:], added[:, :-reach])
        longer = decay.clone()
        longer[:, reach:].mul_(decay[:, :-reach])
        added, decay, reach = further, longer, 2 * reach
    before = torch.zeros_like(added)
    before[:, 1:] = added[:, :-1]
    return before


def _states_again(
    d: Tensor, xs: Tensor, Bs: Tensor, gy: Tensor, rates: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Run forward again for the values that the backward needs.

    Returns
    -------
    faded
        (S, b, K, n, c): exp(delta A) of each step times the state before that step.
    grad_C
        (S, b, K, n).
    """
    steps = d.shape[0]
    faded = starts.new_empty(steps, *starts.shape)
    grad_C = torch.empty_like(Bs[..., 0])
    h = starts.clone()
    scratch = torch.empty_like(h)
    for j in range(steps):
        decay = torch.mul(d[j], rates, out=scratch).exp_()
        torch.mul(h, decay, out=faded[j])
        torch.addcmul(faded[j], xs[j], Bs[j], out=h)
        torch.sum(torch.mul(h, gy[j], out=scratch), 3, out=grad_C[j])
    return faded, grad_C


def _gradient_entering(d: Tensor, Cs: Tensor, gy: Tensor, rates: Tensor) -> Tensor:
    """Gradient of the state that each chunk gets from the next one, (b, K, n, c)."""
    steps, b, K = d.shape[:3]
    given = d.new_zeros(b, K, *rates.shape)
    if K == 1:
        return given
    scratch = torch.empty_like(given)
    for j in reversed(range(steps)):
        decay = torch.mul(d[j], rates, out=scratch).exp_()
        given.addcmul_(gy[j], Cs[j]).mul_(decay)
    return _states_before(_whole_decay(d, rates).flip(1), given.flip(1)).flip(1).contiguous()


def _reverse_walk(
    d: Tensor,
    xs: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    gy: Tensor,
    rates: Tensor,
    faded: Tensor,
    g: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve g[t] = C[t] gy[t] + decay[t + 1] g[t + 1], the gradient of the state, from the end.

    Returns
    -------
    grad_delta, grad_x
        (S, b, K, c).
    grad_A
        (c, n).
    grad_B
        (S, b, K, n).
    """
    grad_delta, grad_x = torch.empty_like(d[:, :, :, 0]), torch.empty_like(d[:, :, :, 0])
    grad_B = torch.empty_like(Bs[..., 0])
    grad_rates = torch.zeros_like(g)
    scratch = torch.empty_like(g)
    for j in reversed(range(d.shape[0])):
        g.addcmul_(gy[j], Cs[j])
        torch.sum(torch.mul(g, Bs[j], out=scratch), 2, out=grad_x[j])
        torch.sum(torch.mul(g, xs[j], out=scratch), 3, out=grad_B[j])
        by_exponent = torch.mul(g, faded[j], out=scratch)
        grad_rates.addcmul_(by_exponent, d[j])
        torch.sum(by_exponent.mul_(rates), 2, out=grad_delta[j])
        g.mul_(torch.mul(d[j], rates, out=scratch).exp_())
    return grad_delta, grad_x, grad_rates.sum((0, 1)).T, grad_B
