"""As much of what was learnt is taken as scores best on what is held back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cases.finetuning_cases import base_file, tuned
from napari_coseg.finetuning import learning
from napari_coseg.finetuning.interpolation import FRACTIONS, take_fraction
from napari_coseg.inference import load_model


@pytest.mark.parametrize(
    ("worths", "taken"),
    [
        pytest.param({}, 1.0, id="all of it where parts are worth less"),
        pytest.param({0.5: 0.9, 0.25: 0.7}, 0.5, id="what is worth most"),
        pytest.param({0.75: 0.8, 0.5: 0.8}, 0.5, id="the smallest of equal ones"),
        pytest.param({0.75: 0.603}, 1.0, id="all of it where a part is hardly worth more"),
    ],
)
def test_the_part_that_is_worth_most_is_taken(worths: dict[float, float], taken: float) -> None:
    trained = {"weight": nn.Parameter(torch.tensor([3.0, -1.0]))}
    origin = {"weight": torch.tensor([1.0, 1.0])}
    seen = []

    def score(fraction: float) -> float:
        seen.append((fraction, trained["weight"].tolist()))
        return worths.get(fraction, 0.1)

    assert take_fraction(trained, origin, 0.6, score) == taken
    assert seen == [(f, [1 + 2 * f, 1 - 2 * f]) for f in FRACTIONS]
    assert trained["weight"].tolist() == [1 + 2 * taken, 1 - 2 * taken]


def test_weights_are_whole_again_where_scoring_was_stopped() -> None:
    trained = {"weight": nn.Parameter(torch.tensor([3.0]))}

    def score(_: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_fraction(trained, {"weight": torch.tensor([1.0])}, 0.6, score)
    assert trained["weight"].tolist() == [3.0]


@pytest.mark.parametrize("best", [0.5, 1.0])
def test_an_adapter_goes_that_part_of_the_way(
    best: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its differences to the base are so much of those of the whole change."""

    def score(self: Any, fraction: float) -> float:
        return 2.0 if fraction == best else -1.0

    monkeypatch.setattr(learning.Learning, "_score_of", score)
    whole, part = (tmp_path / name for name in ("whole", "part"))
    for folder, interpolate in ((whole, False), (part, True)):
        folder.mkdir()
        result = tuned(folder, interpolate=interpolate, speed="heads")
    assert result.card.settings["interpolation"] == best
    assert any(f"{best:.0%} of the change" in note for note in result.notes) == (best < 1)
    base = load_model(base_file(whole), "cpu").state_dict()
    all_of_it, some = (
        load_model(base_file(folder), "cpu", adapter=folder / "mine.safetensors").state_dict()
        for folder in (whole, part)
    )
    for name, start in base.items():
        if start.is_floating_point():
            expected = torch.lerp(start, all_of_it[name], best)
            torch.testing.assert_close(some[name], expected, atol=2e-4, rtol=2e-3)
