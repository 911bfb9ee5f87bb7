"""Draws mask prompts from the labels, so that the second forward learns to use corrected masks.

A network that only ever saw its own first masks as prompts may learn to ignore them, since they
hold no new information. So part of the crops are prompted with the labels of a task in place of the
predicted mask, and part of these with damaged labels, since people correct some things and leave
others, and draw roughly. The papers do none of this; it is off by default.

Damage is measured in radii of the mask's own objects, so that one set of amounts fits nuclei and
glands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.datasets.batches import NOT_GIVEN, Batch

REGIONS, OBJECTS = 0, 1
"""Channels of `Batch.prompts`."""
STREAM = 77
"""Keeps these random numbers apart from those of the crops, which have the same seed and step."""


class DamageSettings(Settings):
    """The most of each kind of damage; every crop draws its own amounts below it.

    Each kind is done to half of the damaged masks, the erasure to a quarter.
    """

    dropped: float = Field(0.4, ge=0, le=1, description="share of objects left out")
    added: float = Field(0.3, ge=0, le=1, description="false objects, as a share of the true ones")
    merged: float = Field(0.6, ge=0, le=4, description="gaps closed; radii of an object")
    border: float = Field(
        0.5, ge=0, le=2, description="how far borders wander out and in; radii of an object"
    )
    shifted: float = Field(0.4, ge=0, le=2, description="all moved at once; radii of an object")
    erased: float = Field(
        0.7, ge=0, le=1, description="side of a rectangle wiped out; sides of the crop"
    )


class PromptSettings(Settings):
    """How often the second forward is prompted by what is true, not by what was predicted."""

    truth: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops prompted with the truth of a task, drawn for each task; a crop "
        "without labels of the task keeps its predicted mask, or takes its derived region",
    )
    damaged: float = Field(0.5, ge=0, le=1, description="share of these whose truth is damaged")
    partial: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of these with the truth in a rectangle only, the prediction around it",
    )
    damage: DamageSettings = DamageSettings()


NO_PROMPTS = PromptSettings()
"""The papers' training: the first forward alone prompts the second."""


def draw_prompts(
    batch: Batch,
    settings: PromptSettings,
    seed: Sequence[int],
    first: int = 0,
    every: int = 1,
) -> Batch:
    """The batch with `prompts` drawn; as it is where `settings` asks for no truth.

    Parameters
    ----------
    seed
        Numbers of this step; with the crop's place in the batch they settle all that is drawn.
    first, every
        Of a process that holds every so many-th crop of the batch: which, so that the same crop is
        prompted alike however many processes share the batch.
    """
    if not settings.truth:
        return batch
    prompts = np.full((len(batch.images), 2, *batch.instances.shape[1:]), NOT_GIVEN, np.uint8)
    for i, channels in enumerate(prompts):
        rng = np.random.default_rng([*seed, first + i * every, STREAM])
        for channel, truth in ((REGIONS, _regions(batch, i)), (OBJECTS, _objects(batch, i))):
            asked = rng.random() < settings.truth
            if asked and truth is not None:
                channels[channel] = _draw_mask(*truth, settings, rng)
    return replace(batch, prompts=prompts)


def damage(
    mask: np.ndarray, objects: np.ndarray, amounts: DamageSettings, rng: np.random.Generator
) -> np.ndarray:
    """A mask with mistakes of the kinds that predictions and people make.

    Parameters
    ----------
    mask
        bool (Y, X).
    objects
        int (Y, X), ids from 1 on in the mask: what is dropped or added as a whole.
    """
    count = int(objects.max(initial=0))
    radius = np.sqrt(_typical_area(objects) / np.pi)
    draws = rng.random(6)  # at once: one kind's amount must not change another's random numbers
    if count and draws[0] < 0.5:
        mask = mask & _chosen(objects, 1 - amounts.dropped * rng.random(), rng)
    if count and draws[1] < 0.5:
        copies = _chosen(objects, amounts.added * rng.random(), rng)
        mask = mask | np.roll(copies, rng.integers(mask.shape[0], size=2), axis=(0, 1))
    if draws[2] < 0.5:
        mask = _merged(mask, amounts.merged * radius * rng.random())
    if draws[3] < 0.5:
        mask = _wandering(mask, amounts.border * radius * rng.random(), rng)
    if draws[4] < 0.5:
        mask = _shifted(mask, rng.uniform(-1, 1, 2) * amounts.shifted * radius)
    if amounts.erased and draws[5] < 0.25:
        mask = mask & ~_rectangle(mask.shape, 0.2 * amounts.erased, amounts.erased, rng)
    return mask


def _regions(batch: Batch, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Mask, its pieces, and where it is known; from the derived region where none is annotated."""
    from scipy.ndimage import label

    if batch.semantic_known[i].any():
        mask, known = batch.semantic[i] > 0, batch.semantic_known[i]
    elif batch.derived is not None and (batch.derived[i] != NOT_GIVEN).any():
        mask, known = batch.derived[i] == 1, batch.instances_known[i]
    else:
        return None
    return mask, label(mask)[0], known


def _objects(batch: Batch, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    if not batch.instances_known[i].any():
        return None
    ids, dense = np.unique(batch.instances[i], return_inverse=True)
    dense = dense.reshape(batch.instances[i].shape) + int(ids[0] > 0)
    return batch.instances[i] > 0, dense, batch.instances_known[i]


def _draw_mask(
    mask: np.ndarray,
    objects: np.ndarray,
    known: np.ndarray,
    settings: PromptSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8 (Y, X): 0, 1, and `NOT_GIVEN` where the prediction stays."""
    damaged, partial = rng.random(2) < (settings.damaged, settings.partial)
    if damaged:
        mask = damage(mask, objects, settings.damage, rng)
    given = known
    if partial:
        given = known & _rectangle(mask.shape, 0.3, 0.9, rng)
    return np.where(given, mask, NOT_GIVEN).astype(np.uint8)


def _typical_area(objects: np.ndarray) -> float:
    areas = np.bincount(objects.ravel())[1:]
    areas = areas[areas > 0]
    return float(np.median(areas)) if len(areas) else 0.0


def _chosen(objects: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The objects that a die of `share` picks, bool (Y, X)."""
    kept = rng.random(int(objects.max()) + 1) < share
    kept[0] = False
    return kept[objects]


def _merged(mask: np.ndarray, reach: float) -> np.ndarray:
    """Gaps narrower than twice `reach` pixels closed."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * round(reach) + 1
    padded = np.pad(mask, size, mode="edge")
    closed = minimum_filter(maximum_filter(padded, size), size)
    return np.asarray(closed[size:-size, size:-size])


def _wandering(mask: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Borders moved by up to `reach` pixels, here outwards and there inwards, and as a whole."""
    from scipy.ndimage import uniform_filter, zoom

    nodes = rng.uniform(0.02, 0.98, (6, 6))
    tendency = rng.uniform(0.02, 0.98)
    level = zoom((nodes + tendency) / 2, np.array(mask.shape) / 6, order=1)
    share = uniform_filter(mask.astype(np.float32), 2 * round(reach) + 1, mode="nearest")
    return np.asarray(share > level)


def _shifted(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
    from scipy.ndimage import shift

    moved = shift(mask.astype(np.uint8), np.round(by), order=0, mode="nearest")
    return np.asarray(moved > 0)


def _rectangle(
    shape: tuple[int, ...], least: float, most: float, rng: np.random.Generator
) -> np.ndarray:
    """True in a rectangle somewhere; its sides are parts of the shape's."""
    inside = np.zeros(shape, bool)
    sides = np.maximum(1, rng.uniform(least, max(least, most), 2) * shape).astype(int)
    y, x = (rng.integers(0, max(1, n - side + 1)) for n, side in zip(shape, sides, strict=True))
    inside[y : y + sides[0], x : x + sides[1]] = True
    return inside
