"""Named intensity windows, in settings and cards."""

from __future__ import annotations

import pytest

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import SettingsError
from napari_coseg.core.windows import WINDOWS, window_name
from napari_coseg.images.intensity import window_rule
from napari_coseg.inference.settings import InferenceSettings


@pytest.mark.parametrize(
    ("value", "window"),
    [
        ("bone", WINDOWS["bone"]),
        ("Soft-Tissue", WINDOWS["soft tissue"]),
        ("soft_tissue", WINDOWS["soft tissue"]),
        ("-10,20", (-10.0, 20.0)),
        ((0, 9), (0.0, 9.0)),
    ],
)
def test_a_window_is_a_name_or_two_numbers(value: object, window: tuple[float, float]) -> None:
    assert InferenceSettings.from_mapping({"window": value}).window == window
    assert Normalisation.from_mapping({"window": value}).window == window


@pytest.mark.parametrize(
    ("value", "message"), [("bones", "bone, soft tissue"), ("9,1", "lower end"), ("a,b", "number")]
)
def test_others_are_told(value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        InferenceSettings.from_mapping({"window": value})


@pytest.mark.parametrize("name", WINDOWS)
def test_a_named_window_is_named_in_the_provenance(name: str) -> None:
    assert window_name(list(WINDOWS[name])) == name
    assert window_rule(WINDOWS[name]).rule.endswith(f"({name})")
