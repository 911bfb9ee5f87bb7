"""Weights files: what goes in comes out, and what is wrong with a file is said by name."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints import native
from napari_coseg.models.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.checkpoints.safe import load_state_dict, read_header
from napari_coseg.models.coseg_plus.model import CosegPlus
from test_models import DETAILED, small_model

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


# Building without trust


@pytest.mark.parametrize(
    "make",
    [
        lambda many: torch.zeros(many),
        lambda many: torch.ones(1, many),
        lambda many: torch.full((many,), 3.0),
        lambda many: torch.arange(many),
        lambda many: torch.linspace(0, 1, many),
        lambda many: torch.randn(many),
        lambda many: torch.ones(4).repeat(many),
    ],
    ids=["zeros", "ones", "full", "arange", "linspace", "randn", "repeat"],
)
def test_numbers_are_counted_before_memory_is_taken(make: Callable[[int], Tensor]) -> None:
    with FrugalBuilding(0):
        assert make(8).numel() >= 8
        with pytest.raises(CheckpointError, match="larger than the weights"):
            make(2**45)  # 128 TiB


# Reading without trust


def raw_safetensors(path: Path, header: object, payload: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


def entry(shape: object, begin: int = 0, end: int = 8, dtype: str = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


def recompressed(path: Path) -> None:
    torch.save({"w": torch.zeros(10_000)}, path.with_suffix(".stored"))
    with (
        zipfile.ZipFile(path.with_suffix(".stored")) as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))


def repickled(path: Path, pickled: bytes) -> None:
    """A file of torch.save with other contents of its data.pkl."""
    torch.save(STATE, path.with_suffix(".whole"))
    with (
        zipfile.ZipFile(path.with_suffix(".whole")) as whole,
        zipfile.ZipFile(path, "w") as damaged,
    ):
        for name in whole.namelist():
            is_pickle = name.endswith("data.pkl")
            damaged.writestr(name, pickled if is_pickle else whole.read(name))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: safetensors.torch.save_file(STATE, path),
        lambda path: torch.save(STATE, path),
        lambda path: torch.save({"model": STATE}, path),
        lambda path: torch.save({"state_dict": STATE, "epoch": 3}, path),
        lambda path: torch.save({"model": {"state_dict": STATE}, "optimizer": {}}, path),
    ],
    ids=["safetensors", "torch", "in model", "in state_dict", "nested twice"],
)
def test_named_tensors_are_read(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "weights")
    torch.testing.assert_close(load_state_dict(tmp_path / "weights"), STATE)


UNTRUSTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (lambda path: None, "No such file"),
    "an empty file": (lambda path: path.touch(), "not a weights file"),
    "a text file": (lambda path: path.write_text("weights of the network\n"), "not a weights file"),
    "PyTorch's old format": (
        lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
        "save an older one again",
    ),
    "a header longer than the file": (
        lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
        "header of 1,152,921,504,606,846,976",
    ),
    "a header that is no JSON": (lambda path: raw_safetensors(path, b"{,}"), "not JSON"),
    "a header nested too deeply": (
        lambda path: raw_safetensors(path, b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "not JSON",
    ),
    "an entry that is no object": (lambda path: raw_safetensors(path, {"w": 3}), "entry 'w'"),
    "a shape that is no number": (
        lambda path: raw_safetensors(path, entry(["2"]), b"\0" * 8),
        "whole numbers",
    ),
    "a negative shape": (
        lambda path: raw_safetensors(path, entry([-2]), b"\0" * 8),
        "whole numbers",
    ),
    "a type nobody knows": (
        lambda path: raw_safetensors(path, entry([2], dtype="F3"), b"\0" * 8),
        "'F3'",
    ),
    "a shape larger than its bytes": (
        lambda path: raw_safetensors(path, entry([10**6, 10**6]), b"\0" * 8),
        "needs 4,000,000,000,000 bytes",
    ),
    "bytes beyond the end": (
        lambda path: raw_safetensors(path, entry([2], 8, 16), b"\0" * 8),
        "bytes 8 to 16 of 8",
    ),
    "entries that share their bytes": (
        lambda path: raw_safetensors(path, entry([2]) | {"v": entry([2])["w"]}, b"\0" * 8),
        "entries claim 16 bytes of 8",
    ),
    "metadata that is no text": (
        lambda path: raw_safetensors(path, {"__metadata__": {"napari_coseg": 3}}),
        "not text by key",
    ),
    "an archive cut off": (
        lambda path: (torch.save(STATE, path), path.write_bytes(path.read_bytes()[:600])),
        "cut off or broken",
    ),
    "a compressed archive": (recompressed, "compressed archive"),
    "a pickled function": (
        lambda path: torch.save({"w": print}, path),
        "cannot be read safely",
    ),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), "holds a list"),
    "a single tensor": (lambda path: torch.save(torch.zeros(2), path), "holds a Tensor"),
    "numbers among the tensors": (
        lambda path: torch.save(STATE | {"epoch": 3}, path),
        r"'epoch' \(int\)",
    ),
    "nothing": (lambda path: torch.save({}, path), "no tensors"),
    "one number that claims to be many": (
        lambda path: torch.save({"w": torch.zeros(1).expand(10**9)}, path),
        r"larger than their stored data: w \(1000000000,\)",
    ),
    "numbers of 8 bits": (
        lambda path: torch.save({"w": torch.ones(4).to(torch.float8_e4m3fn)}, path),
        r"unsupported types: w \(torch.float8_e4m3fn\)",
    ),
    "complex numbers": (
        lambda path: torch.save({"w": torch.ones(4, dtype=torch.complex64)}, path),
        r"unsupported types: w \(torch.complex64\)",
    ),
    "a sparse tensor": (
        lambda path: torch.save({"w": torch.eye(3).to_sparse()}, path),
        "larger than their stored data|cannot be read safely",
    ),
}


DAMAGED_PICKLES = {
    "takes from an empty stack": b"\x80\x02\x85.",
    "gives nothing": b"\x80\x02.",
    "gives a storage no name": b"\x80\x02K\x02Q.",
    "gives a storage no dtype": b"\x80\x02(U\x07storageK\x01U\x01xU\x03cpuK\x04tQ.",
    "makes a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "ends within a name": b"\x80\x02X\x05\x00",
}
UNTRUSTED |= {
    f"a pickle that {what}": (partial(repickled, pickled=pickled), "cannot be read safely")
    for what, pickled in DAMAGED_PICKLES.items()
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path: Path, case: str) -> None:
    write, message = UNTRUSTED[case]
    write(tmp_path / "weights")
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(tmp_path / "weights")


# The native format


@pytest.fixture(scope="module")
def model() -> CosegPlus:
    return tiny_model()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.safetensors"


def changed(path: Path, card: dict[str, Any] | None = None, **entries: Tensor | None) -> None:
    """Rewrite a native file with other card fields and entries (``__`` for a dot, None: gone)."""
    state, metadata = load_state_dict(path), read_header(path).metadata
    for name, value in entries.items():
        if value is None:
            del state[name.replace("__", ".")]
        else:
            state[name.replace("__", ".")] = value
    values = json.loads(metadata[native.CARD_KEY]) | (card or {})
    safetensors.torch.save_file(state, path, {native.CARD_KEY: json.dumps(values)})


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(None, 0.0), (torch.float16, 2e-3)], ids=["as it is", "float16"]
)
def test_what_is_saved_is_loaded(
    model: CosegPlus, path: Path, dtype: torch.dtype | None, tolerance: float
) -> None:
    native.save(path, model, dtype=dtype)
    loaded = native.load(path)
    assert loaded.card == model.card == native.read_card(path)
    assert not loaded.training
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(
        loaded.state_dict(), model.state_dict(), rtol=tolerance, atol=tolerance
    )
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = model(images).second, loaded(images).second
    torch.testing.assert_close(got, expected, rtol=20 * tolerance, atol=20 * tolerance)


def test_float16_takes_half_the_space_for_weights(model: CosegPlus, path: Path) -> None:
    weights = sum(value.numel() for value in model.parameters())
    others = sum(value.numel() for value in model.state_dict().values()) - weights
    native.save(path, model, dtype=torch.float16)
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert path.stat().st_size == header + 2 * weights + 4 * others


def test_statistics_beyond_float16_are_kept(path: Path) -> None:
    model = small_model(config=DETAILED)
    name = next(name for name, _ in model.named_buffers() if name.endswith("running_var"))
    model.get_buffer(name).fill_(1e5)
    native.save(path, model, dtype=torch.float16)
    assert native.load(path).get_buffer(name).max() == 1e5


def test_saving_keeps_another_card_where_one_is_given(model: CosegPlus, path: Path) -> None:
    card = model.card.model_copy(update={"licence": "CC BY 4.0", "scores": {"dice": 0.9}})
    native.save(path, model, card)
    assert native.read_card(path) == card != model.card


def test_the_card_is_read_without_the_weights(model: CosegPlus, path: Path) -> None:
    native.save(path, model)
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))  # NaN everywhere
    assert native.read_card(path) == model.card
    with pytest.raises(CheckpointError, match=r"not finite: .* and \d+ more"):
        native.load(path)


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "an entry is missing": (
        {"semantic_prompt__no_mask": None},
        r"missing: semantic_prompt\.no_mask",
    ),
    "an entry is unknown": ({"extra": torch.zeros(1)}, "unknown: extra"),
    "an entry has another shape": (
        {"semantic_prompt__no_mask": torch.zeros(5)},
        r"misshapen: semantic_prompt\.no_mask \(5,\) in place of \(32,\)",
    ),
    "a weight is infinite": (
        {"semantic_prompt__no_mask": torch.full((32,), torch.inf)},
        r"not finite: semantic_prompt\.no_mask",
    ),
    "the card names another class": (
        {"card": tiny_card(regions=("gland", "stroma")).model_dump()},
        r"semantic_decoder\.mask_tokens \(3, 32\) in place of \(4, 32\)",
    ),
    "the card's classes need more channels than its config gives": (
        {"card": tiny_card(instance_channels=4).model_dump()},
        "instance classes need 6 channels, but its config gives 4",
    ),
    "the card's ids have a hole": (
        {"card": {"semantic_classes": [{"id": 2, "name": "gland", "color": [0, 0, 0]}]}},
        r"semantic classes of its card have ids \[2\]",
    ),
    "the card is of a later format": ({"card": {"format_version": 2}}, "update it"),
    "the card lacks what it must have": ({"card": {"pixel_size_um": None}}, "pixel_size_um"),
    "the card has a field nobody knows": ({"card": {"licens": "MIT"}}, "did you mean 'licence'"),
    "the family is unknown": ({"card": {"family": "other"}}, "family 'other' is not known"),
    "the config has a typo": (
        {"card": {"config": {"widht": 32}}},
        "no network for its weights can be built .*did you mean 'width'",
    ),
    "the config cannot be built": (
        {"card": tiny_card(decoder_heads=7).model_dump()},
        "no network for its weights can be built",
    ),
    "the config names a network far too large": (
        {"card": tiny_card(width=2**20).model_dump()},
        "larger than the weights",
    ),
    "the config names a grid of positions far too large": (
        {
            "card": tiny_card(
                encoder=tiny_card().config["encoder"] | {"background_position_size": [2**22, 2**22]}
            ).model_dump()
        },
        "larger than the weights",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_native_file_says_what_is_wrong(model: CosegPlus, path: Path, case: str) -> None:
    changes, message = SPOILT[case]
    native.save(path, model)
    changed(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        native.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no model card"),
        ({native.CARD_KEY: "{"}, "cannot be read"),
        ({native.CARD_KEY: "[]"}, "not a JSON object"),
    ],
    ids=["no card", "no JSON", "no object"],
)
def test_a_file_without_a_readable_card_is_refused(
    path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    safetensors.torch.save_file(STATE, path, metadata)
    with pytest.raises(CheckpointError, match=message):
        native.read_card(path)


@pytest.mark.parametrize(
    ("value", "dtype"), [(float("nan"), None), (1e5, torch.float16)], ids=["NaN", "beyond float16"]
)
def test_weights_that_would_not_be_finite_leave_the_old_file_alone(
    path: Path, value: float, dtype: torch.dtype | None
) -> None:
    path.write_bytes(b"old")
    broken = tiny_model()
    with torch.no_grad():
        broken.semantic_prompt.no_mask.fill_(value)
    with pytest.raises(CheckpointError, match=r"not finite: semantic_prompt\.no_mask"):
        native.save(path, broken, dtype=dtype)
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_where_nothing_can_be_written_is_an_error(model: CosegPlus, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        native.save(tmp_path / "missing" / "tiny.safetensors", model)


def test_loading_leaves_the_random_numbers_alone(model: CosegPlus, path: Path) -> None:
    native.save(path, model)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    native.load(path)
    assert torch.equal(torch.rand(3), expected)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert native.file_sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
