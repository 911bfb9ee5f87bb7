"""Batch normalisation frozen late in a training, so that the last steps fit a prediction's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.tiny_training import make_batch, tiny_recipe, trained
from napari_coseg.core.errors import Cancelled
from napari_coseg.datasets.batches import Batch
from test_models import DETAILED, small_card

PLAIN = tiny_recipe().optimiser.model_dump()


def draw(step: int) -> list[Batch]:
    """Crops of 64 pixels, as a network with a stem wants them."""
    small = make_batch(step)
    spatial = {
        name: value.repeat(2, axis=-1).repeat(2, axis=-2)
        for name, value in vars(small).items()
        if isinstance(value, np.ndarray) and value.ndim > 1
    }
    return [replace(small, **spatial)]


@pytest.mark.parametrize(
    ("from_step", "batches_seen"),
    [
        pytest.param(None, 6, id="never"),
        pytest.param(0, 0, id="from the first step on"),
        pytest.param(4, 4, id="after four of six steps"),
        pytest.param(99, 6, id="after the end"),
    ],
)
def test_statistics_are_frozen_from_a_step_on(
    from_step: int | None, batches_seen: int, tmp_path: Path
) -> None:
    """Also where the training was interrupted after that step."""
    recipe = tiny_recipe(
        card=small_card("coseg-plus", DETAILED).model_dump(),
        optimiser={**PLAIN, "freeze_statistics_from_step": from_step},
    )
    whole = trained(tmp_path / "whole", recipe, draw)
    counted = [int(v) for n, v in whole.items() if n.endswith("stem.down.0.1.num_batches_tracked")]
    assert counted == [batches_seen]
    with pytest.raises(Cancelled):
        trained(tmp_path / "cut", recipe, draw, should_cancel=_After(5))
    resumed = trained(tmp_path / "cut", recipe, draw)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class _After:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0
