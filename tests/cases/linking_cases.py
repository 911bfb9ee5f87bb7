"""Objects in 3D, their slices as a model would label them, and what damages such slices."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

CORNERS = np.ones((3, 3))


def generated_teeth(count: int = 8, seed: int = 0) -> np.ndarray:
    """int32 (40, 26, 22 * count): crowns that touch, each with two cusps and one to three roots."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((40, 26, 22 * count), dtype=np.float32)
    nearest, labels = np.full(z.shape, np.inf), np.zeros(z.shape, np.int32)
    for tooth in range(count):
        centre = 22 * tooth + 10.5 + rng.uniform(-1, 1)
        axes = [((16, 12.5, centre), (7, 9, 11.5))]
        axes += [((22, 12.5, centre + shift), (6, 5, 3.5)) for shift in (-5, 5)]
        roots = tooth % 3 + 1
        for shift in (np.arange(roots) - (roots - 1) / 2) * (13 / roots):
            axes.append(((10, 12.5, centre + shift), (9, 4, 1.9)))
        for middle, radii in axes:
            parts = zip((z, y, x), middle, radii, strict=True)
            away = sum(((at - m) / r) ** 2 for at, m, r in parts)
            labels[(away < 1) & (away < nearest)] = tooth + 1
            nearest = np.minimum(nearest, away)
    return labels


def numbered(slices: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy in which each label of each slice has an id of its own, 1..n, and n."""
    pieces, count = np.zeros(slices.shape, np.int32), 0
    for z, labels in enumerate(slices):
        ids, where = np.unique(labels, return_inverse=True)
        new = np.where(ids > 0, np.cumsum(ids > 0) + count, 0)
        pieces[z] = new[where].reshape(labels.shape)
        count = max(count, int(new.max()))
    return pieces, count


def apart(objects: np.ndarray) -> np.ndarray:
    """The connected pieces of each object in each slice, as labels of their own."""
    pieces = np.zeros_like(objects)
    for labels, found in zip(objects, pieces, strict=True):
        for i, box in enumerate(ndi.find_objects(labels), 1):
            if box is not None:
                piece, _ = ndi.label(labels[box] == i, CORNERS)
                found[box][piece > 0] = piece[piece > 0] + found.max()
    return pieces


def damaged(
    slices: np.ndarray, seed: int = 0, drop: float = 0.1, merge: float = 0.1, split: float = 0.05
) -> np.ndarray:
    """Leave out, merge (with a touching neighbour) and split labels of slices at random."""
    rng, pieces = np.random.default_rng(seed), np.zeros_like(slices)
    for z, labels in enumerate(slices):
        n = int(labels.max())
        new = np.arange(n + 1)
        for a, b in _touching(labels):
            if rng.random() < merge:
                new[new == new[b]] = new[a]
        new[1:][rng.random(n) < drop] = 0
        pieces[z] = new[labels]
        for i in np.unique(pieces[z])[1:]:
            if rng.random() < split:
                y, x = np.nonzero(pieces[z] == i)
                angle = rng.uniform(0, np.pi)
                along = np.cos(angle) * y + np.sin(angle) * x
                half = along > np.median(along)
                n += 1
                pieces[z, y[half], x[half]] = n
    return pieces


def _touching(labels: np.ndarray) -> list[tuple[int, int]]:
    larger = ndi.grey_dilation(labels, size=(3, 3))
    border = (labels > 0) & (larger != labels)
    pairs = np.stack([labels[border], larger[border]], axis=1)
    return [(int(a), int(b)) for a, b in np.unique(pairs, axis=0)] if pairs.size else []
