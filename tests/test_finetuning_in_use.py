"""The adapter in use is remembered for each base; a file that was tampered with does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases.finetuning_cases import base_file
from napari_coseg.core.errors import CheckpointError, OutputError
from napari_coseg.models.checkpoints.adapter_library import (
    FOLDER_VARIABLE,
    IN_USE_FILE,
    LARGEST_BYTES,
    recall,
    remember,
)
from napari_coseg.models.checkpoints.adapters import AdapterCard, save_adapter
from napari_coseg.models.checkpoints.native import load

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "adapters"))
    return tmp_path / "adapters"


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter that changes nothing, of a base with this hash."""
    network = load(base_file(tmp_path), "cpu")

    def made(name: str, sha256: str = ONE) -> Path:
        card = AdapterCard(
            name=name, base_name="tiny", base_sha256=sha256, model=network.card, parts=()
        )
        path = folder / f"{name}.safetensors"
        save_adapter(path, network, network, card)
        return path

    return made


def test_each_base_has_its_own_and_none_is_remembered_as_well(adapter: Any) -> None:
    assert recall(ONE) is None
    mine, theirs = adapter("mine"), adapter("theirs", OTHER)
    remember(ONE, mine)
    remember(OTHER, theirs)
    assert (recall(ONE), recall(OTHER)) == (mine, theirs)
    remember(ONE, None)
    assert (recall(ONE), recall(OTHER)) == (None, theirs)


def gone(path: Path, adapter: Any) -> None:
    path.unlink()


def broken(path: Path, adapter: Any) -> None:
    path.write_bytes(b"nothing of the kind")


def of_another_base(path: Path, adapter: Any) -> None:
    adapter("mine", OTHER)


@pytest.mark.parametrize(
    ("happen", "told"),
    [
        pytest.param(gone, "is gone; choose another one", id="gone"),
        pytest.param(broken, "mine.safetensors", id="broken"),
        pytest.param(of_another_base, "now adapts another base, 'tiny'", id="of another base"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_told_of(adapter: Any, happen: Any, told: str) -> None:
    path = adapter("mine")
    remember(ONE, path)
    happen(path, adapter)
    with pytest.raises(CheckpointError, match=f"mine, in use before, is no longer used.*{told}"):
        recall(ONE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="cut off"),
        pytest.param("[" * 100_000, id="nested deeply"),
        pytest.param("[]", id="no object"),
        pytest.param('{"in_use": 3}', id="no names"),
        pytest.param(
            json.dumps({"in_use": {ONE: ["mine.safetensors"]}}), id="name of another kind"
        ),
        pytest.param(json.dumps({"in_use": {ONE: "../mine.safetensors"}}), id="leads elsewhere"),
        pytest.param(json.dumps({"in_use": {ONE: "\\\\host\\a.safetensors"}}), id="a network's"),
        pytest.param(json.dumps({"in_use": {ONE: "mine.pkl"}}), id="no adapter's name"),
        pytest.param(json.dumps({"in_use": {"1": "mine.safetensors"}}), id="no hash"),
        pytest.param(" " * LARGEST_BYTES + "{}", id="too large"),
    ],
)
def test_a_file_that_makes_no_sense_remembers_nothing(adapter: Any, text: str) -> None:
    path = adapter("mine")
    adapter("../mine")
    (path.parent / IN_USE_FILE).write_text(text)
    assert recall(ONE) is None
    remember(ONE, path)
    assert recall(ONE) == path


def test_an_adapter_elsewhere_is_not_remembered(adapter: Any) -> None:
    remember(ONE, adapter("mine"))
    remember(ONE, adapter("../mine"))
    assert recall(ONE) is None


def test_a_folder_that_cannot_be_written_is_told_of(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file in its place")
    with pytest.raises(OutputError, match="which adapter is in use cannot be remembered"):
        remember(ONE, folder / "mine.safetensors")
