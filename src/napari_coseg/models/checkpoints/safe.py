"""Read untrusted weights files without running code or allocating unchecked sizes.

safetensors headers and PyTorch archives are checked before any tensor is made; PyTorch files are
read only with ``weights_only=True``.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_coseg.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 16 * 2**20
"""A header of 10,000 entries has about 1 MB."""

NESTS = ("model", "state_dict", "model_state_dict")
"""Keys of the weights in released PyTorch files."""

_DTYPE_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("BOOL", "I8", "U8"), 1),
}

_DTYPES = {
    *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
    *("uint64", "uint32", "uint16", "uint8", "bool"),
}
"""The same, by torch's names."""


class Header(NamedTuple):
    """Header of a safetensors file: text by key, and the shape of each entry."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a safetensors or PyTorch file, on the CPU.

    Parameters
    ----------
    path
        A safetensors file, or one of ``torch.save``: tensors by name, or nested under one of
        `NESTS`.

    Raises
    ------
    CheckpointError
        If the file is missing, broken, of another kind, or holds anything but named tensors.
    """
    path = Path(path)
    start = _first_bytes(path)
    if start[:4] == b"PK\x03\x04":
        return _load_torch(path)
    if start[8:9] == b"{":
        return _load_safetensors(path)
    raise CheckpointError(
        f"{path} is not a weights file: expected safetensors, or a file written by torch.save "
        f"(PyTorch 1.6 or later; save an older one again)"
    )


def named_tensors(
    source: str | Path | Mapping[str, Tensor], otherwise: str
) -> tuple[Mapping[str, Tensor], str]:
    """Tensors of a file and its path, or given tensors and the name `otherwise`."""
    if isinstance(source, Mapping):
        return source, otherwise
    return load_state_dict(source), str(source)


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file, checked against the file size.

    Raises
    ------
    CheckpointError
        If the file is missing, not safetensors, or its header has wrong sizes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (length,) = struct.unpack("<Q", file.read(8)) if size >= 8 else (0,)
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(
                    f"{path} is not a safetensors file, or is cut off: it has {size:,} bytes and "
                    f"claims a header of {length:,} (at most {MAX_HEADER_BYTES:,}); fetch it again"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a header that is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} has a header that is not a JSON object; fetch it again")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path} has metadata that is not text by key; fetch it again")
    payload = size - 8 - length
    shapes = {name: _checked_shape(path, name, entry, payload) for name, entry in entries.items()}
    claimed = sum(end - begin for begin, end in (e["data_offsets"] for e in entries.values()))
    if claimed > payload:  # otherwise a few bytes could claim a network of any size
        raise CheckpointError(
            f"{path} has a header whose entries claim {claimed:,} bytes of {payload:,}; "
            "download the file again"
        )
    return Header(metadata, shapes)


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Check that entries have exactly the expected names and shapes.

    Parameters
    ----------
    shapes, expected
        Shapes by name, of the file and of the network.
    source
        Name of the file in messages.

    Raises
    ------
    CheckpointError
        Names entries that are missing, unknown or misshapen.
    """
    findings = {
        "missing": [name for name in expected if name not in shapes],
        "unknown": [name for name in shapes if name not in expected],
        "misshapen": [
            f"{name} {tuple(shapes[name])} in place of {tuple(shape)}"
            for name, shape in expected.items()
            if name in shapes and tuple(shapes[name]) != tuple(shape)
        ],
    }
    differences = [f"{kind}: {listed(names)}" for kind, names in findings.items() if names]
    if differences:
        raise CheckpointError(f"{source} does not fit the network; {'; '.join(differences)}")


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights are finite; a `CheckpointError` names the others."""
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{source} holds weights that are not finite: {listed(broken)}")


def listed(names: Iterable[str], most: int = 12) -> str:
    """List the first names and the number of others."""
    names = list(names)
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _checked_shape(path: Path, name: str, entry: Any, payload: int) -> tuple[int, ...]:
    try:
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        numbers = (*shape, begin, end)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"shape {shape} and offsets {begin}, {end} must be whole numbers")
        needed = math.prod(shape) * _DTYPE_BYTES[entry["dtype"]]
        if end > payload or end - begin != needed:
            raise ValueError(
                f"{entry['dtype']} {shape} needs {needed:,} bytes, but bytes {begin:,} to {end:,} "
                f"of {payload:,} are given"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is broken at entry {name!r}: {error}; download the file again"
        ) from error
    return shape


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    read_header(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def _load_torch(path: Path) -> dict[str, Tensor]:
    _check_archive(path)
    import pickle

    import torch

    # Damaged pickles pop empty stacks and call objects that are no functions.
    broken = (
        *(RuntimeError, ValueError, KeyError, EOFError, IndexError, TypeError, AttributeError),
        *(AssertionError, OverflowError, MemoryError, pickle.UnpicklingError, struct.error),
    )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except broken as error:
        # torch's message goes on to advise weights_only=False, which is unsafe.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read safely as tensors ({reason[:200]}); save only the state dict: "
            f"torch.save(model.state_dict(), path)"
        ) from error
    state = _unwrap(content)
    _check_tensors(state, path)
    return state


def _check_archive(path: Path) -> None:
    """Refuse compressed archives: torch.save writes none, and they may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is cut off or broken: {error}; download it again") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type for member in members):
        raise CheckpointError(f"{path} is a compressed archive, which torch.save does not write")


def _unwrap(content: Any) -> Any:
    for _ in range(len(NESTS)):
        inner = next(
            (
                content[key]
                for key in NESTS
                if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
            ),
            None,
        )
        if inner is None:
            break
        content = inner
    return content


def _check_tensors(state: Any, path: Path) -> None:
    import torch

    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}; expected tensors by name (a state dict)"
        )
    others = [
        f"{name!r} ({type(value).__name__})"
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{path} holds more than tensors by name: {listed(others)}; save only the state dict"
        )
    if not state:
        raise CheckpointError(f"{path} holds no tensors")
    unread = [
        f"{name} ({value.dtype})"
        for name, value in state.items()
        if str(value.dtype).removeprefix("torch.") not in _DTYPES
    ]
    if unread:
        raise CheckpointError(f"{path} holds numbers of unsupported types: {listed(unread)}")
    # A view may claim any size over one stored number (stride 0).
    size = path.stat().st_size
    inflated = [
        f"{name} {tuple(value.shape)}"
        for name, value in state.items()
        if value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
        or value.numel() * value.element_size() > size
    ]
    if inflated:
        raise CheckpointError(
            f"{path} holds tensors that are larger than their stored data: {listed(inflated)}"
        )
