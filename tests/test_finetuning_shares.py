"""What the time of a fine-tuning goes into: crops to encode, and steps."""

from __future__ import annotations

from typing import Any

import pytest

from napari_coseg.finetuning.costs import StepCost
from napari_coseg.finetuning.plan import LEAST_CACHED, LEAST_STEPS, divide_time
from napari_coseg.finetuning.settings import FinetuneSettings

COST = StepCost(
    step_s=0.5,
    encode_s=0.25,
    activations_mb=100,
    features_mb=5,
    weights_mb=50,
    precision="fp32",
)
PLACE_PX = 256**2 / 2
"""Crops overlap by half."""


@pytest.mark.parametrize(
    ("settings", "places", "seconds", "budget"),
    [
        pytest.param({}, 1, 300, (32, 560), id="every place as often as there are variants"),
        pytest.param({"variants": 4}, 10, 300, (40, 556), id="of ten places forty"),
        pytest.param({}, 100, 300, (300, 426), id="a quarter of the time at most"),
        pytest.param({"cache_mb": 500}, 100, 300, (100, 526), id="as the disk allows"),
        pytest.param({"variants": 1}, 1, 300, (LEAST_CACHED, 572), id="a few at least"),
        pytest.param({}, 100, 12, (12, LEAST_STEPS), id="hardly any time"),
        pytest.param({"steps": 1000}, 10, 0, (320, 1000), id="steps in place of minutes"),
        pytest.param({"steps": 20}, 100, 0, (80, 20), id="no more than the steps look at"),
        pytest.param({"speed": "adapters"}, 10, 300, (0, 576), id="through the encoder"),
        pytest.param({"interpolate": True}, 1, 300, (32, 542), id="parts of the way tried"),
    ],
)
def test_time_is_shared_out(
    settings: dict[str, Any], places: int, seconds: float, budget: tuple[int, int]
) -> None:
    chosen = FinetuneSettings.from_mapping({"validations": 4, "interpolate": False, **settings})
    assert divide_time(chosen, COST, places * PLACE_PX, seconds, scoring_s=3) == budget
