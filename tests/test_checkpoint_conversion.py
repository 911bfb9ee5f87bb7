"""What the imports of both families share: entries renamed, reshaped, told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.conversion import as_vector, convert_entries, size_of

NAMES = {"A": "a", "B": "b", "also A": "a", "video": None}


@pytest.mark.parametrize(
    ("given", "used", "ignored"),
    [
        ("A", {"a": 2}, ()),
        ("A,B", {"a": 2, "b": 2}, ()),
        ("video,B", {"b": 2}, ("video",)),
        ("video", {}, ("video",)),
    ],
)
def test_entries_come_under_our_names(given: str, used: dict, ignored: tuple) -> None:
    state = {name: torch.ones(1) for name in given.split(",")}
    converted, report = convert_entries(state, NAMES.get, lambda ours, value: value * 2)
    assert {name: value.item() for name, value in converted.items()} == used
    assert (report.used, report.ignored) == (len(used), ignored)


def test_two_entries_for_one_place_are_refused() -> None:
    state = {name: torch.ones(1) for name in ("A", "also A")}
    with pytest.raises(CheckpointError, match="also A is in the checkpoint twice, for a"):
        convert_entries(state, NAMES.get, lambda ours, value: value)


@pytest.mark.parametrize(
    ("name", "value", "shape"),
    [
        ("semantic_prompt.no_mask", torch.ones(1, 5), (5,)),
        ("semantic_prompt.no_mask", torch.ones(5), (5,)),
        ("semantic_prompt.no_mask", torch.ones(2, 5), (2, 5)),
        ("semantic_decoder.mask_tokens", torch.ones(1, 5), (1, 5)),
    ],
    ids=["a table", "a vector", "two rows", "another entry"],
)
def test_tables_of_one_vector_become_vectors(name: str, value: Tensor, shape: tuple) -> None:
    assert as_vector(name, value).shape == shape


@pytest.mark.parametrize(("name", "axis"), [("a", 2), ("gone", 0)])
def test_sizes_that_cannot_be_told_are_refused(name: str, axis: int) -> None:
    state = {"a": torch.ones(3, 4)}
    assert size_of(state, "a", 1, "Co-Seg") == 4
    with pytest.raises(CheckpointError, match=f"not a Co-Seg of the authors: {name} is missing"):
        size_of(state, name, axis, "Co-Seg")
