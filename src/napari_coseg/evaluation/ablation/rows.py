"""The rows of the papers' ablations, as changes of a recipe's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_coseg.core.errors import SettingsError
from napari_coseg.training.recipe import Recipe

FRACTIONS = (0.1, 0.3, 0.5)
UNCHANGED = "as-it-is"
"""Folder of the unchanged recipe, the last row of every table."""


@dataclass(frozen=True)
class Row:
    """One network of an ablation.

    Parameters
    ----------
    name
        In the table.
    changes
        Values of the recipe's settings by dotted name, such as ``card.config.decoder``.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """Rows to compare with the last one."""

    source: str
    rows: tuple[Row, ...]


# Without crossed prompts and without an SSP-Encoder nothing remains of the first forward.
_ONE_FORWARD = {
    "card.config.forwards": 1,
    "losses.first_forward": 0.0,
    "losses.consistency": 0.0,
}
_NO_SSP = {"card.config.prompt_encoder": "mask"}
_NO_MTC = {"card.config.decoder": "plain"}
_OWN_MASKS = {"card.config.crossed": False}


def _factor(value: float) -> Row:
    return Row(f"factor {value:g}", {"losses.first_forward": value})


def _forwards(count: int) -> Row:
    return Row(f"{count} forwards", {"card.config.forwards": count})


ABLATIONS: dict[str, Ablation] = {
    # The paper does not say what replaces a part. Here: the SSP-Encoder by SAM's convolutions of
    # the mask, the MTC-Decoder by upscaling without the two-way transformer; without the
    # co-segmentation paradigm each task is prompted by its own mask or, without an SSP-Encoder,
    # decoded once.
    "components": Ablation(
        "Co-Seg++, table 7",
        (
            Row("baseline", {**_NO_MTC, **_NO_SSP, **_ONE_FORWARD}),
            Row("SSP", {**_NO_MTC, **_OWN_MASKS}),
            Row("MTC", {**_NO_SSP, **_ONE_FORWARD}),
            Row("co-seg", {**_NO_SSP, **_NO_MTC}),
            Row("SSP + MTC", {**_OWN_MASKS}),
            Row("SSP + co-seg", {**_NO_MTC}),
            Row("MTC + co-seg", {**_NO_SSP}),
            Row("SSP + MTC + co-seg"),
        ),
    ),
    # The paradigm only, with fewer rows.
    "paradigm": Ablation(
        "Co-Seg++, rows of table 7",
        (
            Row("one forward", {**_NO_SSP, **_ONE_FORWARD}),
            Row("own masks", {**_OWN_MASKS}),
            Row("co-seg"),
        ),
    ),
    "scan": Ablation(
        "Co-Seg++, table 8",
        (
            Row("SSP + SiLU", {"card.config.scan_activation": True}),
            Row(
                "SSP + SiLU + gate",
                {"card.config.scan_activation": True, "card.config.scan_gate": True},
            ),
            Row("SSP"),
        ),
    ),
    "loss-factor": Ablation(
        "Co-Seg++, figure 8 (1)",
        (*(_factor(value) for value in (0.1, 0.3, 0.7, 0.9, 1.0)), _factor(0.5)),
    ),
    "fractions": Ablation(
        "Co-Seg++, table 11",
        (
            *(Row(f"{part:.0%} of the images", {"training_fraction": part}) for part in FRACTIONS),
            Row("all images"),
        ),
    ),
    "forwards": Ablation(
        "Co-Seg++, figure 8 (2)",
        (Row("1 forward", _ONE_FORWARD), _forwards(3), _forwards(4), Row("2 forwards")),
    ),
}


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings replaced; an unknown one is rejected with the nearest name.

    A change of ``losses.preset`` changes every loss that neither the recipe nor another change sets
    to other values than the preset.
    """
    values = recipe.model_dump(mode="json")
    values["losses"] = recipe.losses.over_preset()
    for name, value in changes.items():
        *path, last = name.split(".")
        place: Any = values
        for step in path:
            place = place.get(step)
            if not isinstance(place, dict):
                raise SettingsError(f"recipe {recipe.name!r} has no settings {step!r} for {name!r}")
        place[last] = value
    return Recipe.from_mapping(values)


def folder_name(recipe: Recipe, changes: Mapping[str, Any]) -> str:
    """Name from the differences to the recipe, so that tables with the same row share a folder.

    ``{"card.config.decoder": "plain", "losses.consistency": 0.0}`` gives
    ``decoder-plain_consistency-0.0``; without differences it is `UNCHANGED`.
    """
    differs = {
        key: value for key, value in changes.items() if changed(recipe, {key: value}) != recipe
    }
    parts = (f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in differs.items())
    return "_".join(re.sub(r"[^\w.+-]", "-", part) for part in parts) or UNCHANGED
