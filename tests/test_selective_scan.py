"""The chunked selective scan equals the recurrence it stands for, and so do its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_coseg.core.errors import SettingsError
from napari_coseg.models.nn import selective_scan as module
from napari_coseg.models.nn.selective_scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")

SHAPES = [
    # batch, channels, state, length
    (1, 1, 1, 1),
    (3, 5, 8, 1),
    (2, 7, 8, 2),
    (1, 1, 8, 3),
    (2, 64, 8, 17),
    (3, 33, 1, 63),
    (2, 16, 16, 64),
    (1, 3, 16, 65),
    (2, 128, 8, 255),
    (3, 32, 8, 257),
    (1, 256, 8, 500),
    (2, 4, 8, 1023),
    (1, 16, 8, 4096),
    (1, 2, 1, 4099),
    (1, 2, 8, 9000),
]

STEP_SIZES = {
    # mean and spread of delta before its bias and softplus
    "usual": (-3.0, 1.0),
    "tiny": (-18.0, 1.0),
    "large, decay underflows to 0": (120.0, 60.0),
    "tiny and large by turns": (0.0, 80.0),
}


def make_inputs(
    shape: tuple[int, int, int, int], step_size: str = "usual", dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    batch, channels, state, length = shape
    generator = torch.Generator().manual_seed(length + channels)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype)

    mean, spread = STEP_SIZES[step_size]
    rates = torch.arange(1, state + 1, dtype=dtype) * (1 + 0.1 * normal(channels, state).abs())
    values = (
        normal(batch, channels, length),
        mean + spread * normal(batch, channels, length),
        -rates,
        normal(batch, state, length),
        normal(batch, state, length),
        normal(channels),
        0.1 * normal(channels),
    )
    return {name: value.requires_grad_() for name, value in zip(NAMES, values, strict=True)}


def output_and_gradients(inputs: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    y = selective_scan(**inputs, backend=backend)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    grads = torch.autograd.grad((y * weights).sum(), list(inputs.values()))
    return {"y": y.detach()} | dict(zip(inputs, grads, strict=True))


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert torch.isfinite(expected).all()
    if not expected.any():
        return float(got.abs().max())
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("step_size", STEP_SIZES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunked_equals_recurrence_with_all_gradients(
    shape: tuple[int, int, int, int], step_size: str
) -> None:
    if step_size != "usual" and shape[-1] > 600:
        shape = (*shape[:-1], 600 + shape[-1] % 7)  # the long ones once, for the time's sake
    inputs = make_inputs(shape, step_size)
    expected = output_and_gradients(inputs, "reference")
    got = output_and_gradients(inputs, "chunked")
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    assert max(errors.values()) < 1e-5, errors


def test_large_steps_do_underflow() -> None:
    inputs = make_inputs((1, 4, 8, 100), "large, decay underflows to 0")
    exponent = inputs["delta"].detach().mean() * inputs["A"].detach().min()
    assert math.exp(exponent) == 0.0


@pytest.mark.parametrize("shape", [(2, 3, 2, 7), (1, 2, 3, 1), (1, 2, 2, 16)], ids=str)
def test_gradients_agree_with_finite_differences(shape: tuple[int, int, int, int]) -> None:
    inputs = make_inputs(shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *values: selective_scan(*values, backend="chunked"), tuple(inputs.values())
    )


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_without_softplus_and_bias_decay_is_a_plain_exponential(backend: str) -> None:
    delta = torch.full((1, 1, 6), 0.5)
    u = torch.tensor([[[1.0, 0, 0, 0, 0, 0]]])
    ones = torch.ones(1, 1, 6)
    y = selective_scan(
        u,
        delta,
        torch.tensor([[-2.0]]),
        ones,
        ones,
        torch.tensor([3.0]),
        delta_softplus=False,
        backend=backend,
    )
    expected = torch.tensor([0.5 * math.exp(-t) for t in range(6)])
    expected[0] += 3.0
    torch.testing.assert_close(y[0, 0], expected)


@pytest.mark.parametrize("shape", [(2, 8, 4, 50)], ids=str)
def test_autocast_keeps_float32_inside_and_the_dtype_outside(
    shape: tuple[int, int, int, int],
) -> None:
    halves = {
        name: tensor.detach().bfloat16() if name in ("u", "delta", "B", "C") else tensor.detach()
        for name, tensor in make_inputs(shape).items()
    }
    floats = {name: tensor.float() for name, tensor in halves.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = selective_scan(**halves, backend="chunked")
        same = selective_scan(**floats, backend="chunked")
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, same.bfloat16())
    torch.testing.assert_close(same, selective_scan(**floats, backend="reference"))


def test_gradients_flow_under_autocast() -> None:
    inputs = make_inputs((2, 8, 4, 50))
    expected = output_and_gradients(inputs, "chunked")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = output_and_gradients(inputs, "chunked")
    for name in expected:
        torch.testing.assert_close(got[name], expected[name])


@pytest.mark.parametrize("length", [4096, 100_000])
def test_python_steps_do_not_grow_with_length(length: int) -> None:
    assert module._chunk_length(length) == module.LONGEST_CHUNK == 64


def test_only_inputs_and_chunk_starts_are_kept_for_the_backward() -> None:
    inputs = make_inputs((1, 16, 8, 1024))
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        selective_scan(**inputs, backend="chunked")
    assert max(kept) < 16 * 8 * 1024  # never a state for each step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["chunked", "auto"])
def test_on_a_gpu(backend: str) -> None:
    inputs = make_inputs((2, 32, 8, 257))
    expected = selective_scan(**inputs, backend="reference")
    moved = {name: tensor.detach().cuda() for name, tensor in inputs.items()}
    torch.testing.assert_close(selective_scan(**moved, backend=backend).cpu(), expected)


@pytest.mark.parametrize(
    ("backend", "message"),
    [("fast", "unknown"), ("mamba", "CUDA")],
)
def test_a_backend_that_cannot_be_used_is_refused(backend: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        selective_scan(**make_inputs((1, 2, 2, 4)), backend=backend)


@pytest.mark.parametrize("name", NAMES[1:])
def test_misfitting_shapes_are_refused_by_name(name: str) -> None:
    inputs = make_inputs((2, 3, 4, 5))
    inputs[name] = inputs[name].detach().repeat_interleave(2, 0)
    with pytest.raises(ValueError, match=name):
        selective_scan(**inputs)
