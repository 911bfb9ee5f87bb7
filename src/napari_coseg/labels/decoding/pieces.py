"""Objects of one piece each, without small holes."""

from __future__ import annotations

import numpy as np

GoesOn = tuple[tuple[bool, bool], tuple[bool, bool]]
WHOLE_IMAGE: GoesOn = ((False, False), (False, False))


def tidy_objects(labels: np.ndarray, max_hole_px: int, goes_on: GoesOn = WHOLE_IMAGE) -> np.ndarray:
    """Keep the largest connected piece of each object, and fill small holes in it.

    Pieces and holes are connected by edges of pixels. A hole is background that one object alone
    encloses. Time and memory grow with the number of pixels.

    Parameters
    ----------
    labels
        int32 (Y, X); 0 is background.
    max_hole_px
        Holes of up to this many pixels are filled; 0 fills none.
    goes_on
        Whether the image continues beyond the first and last row, and the first and last column.
        An object that lies there may be connected outside; it keeps its pieces.

    Returns
    -------
    np.ndarray
        A new image of the same dtype and shape. No object vanishes.
    """
    tidy = np.where(_strays(labels, goes_on), 0, labels).astype(labels.dtype, copy=False)
    if max_hole_px > 0:
        _fill_holes(tidy, max_hole_px)
    return tidy


def _strays(labels: np.ndarray, goes_on: GoesOn) -> np.ndarray:
    """Bool (Y, X): all pieces of objects but the largest; of equal ones the first stays."""
    from skimage.measure import label

    pieces, count = label(labels, background=0, connectivity=1, return_num=True)
    if not count:
        return np.zeros(labels.shape, bool)
    areas = np.bincount(pieces.ravel(), minlength=count + 1)
    owner = np.zeros(count + 1, labels.dtype)
    owner[pieces.ravel()] = labels.ravel()
    order = np.lexsort((-areas[1:], owner[1:])) + 1
    loose = np.zeros(count + 1, bool)
    loose[order[1:]] = owner[order[1:]] == owner[order[:-1]]
    cut = [
        labels.take(place, axis=axis)
        for axis, sides in enumerate(goes_on)
        for place, beyond in zip((0, -1), sides, strict=True)
        if beyond
    ]
    if cut:
        loose &= ~np.isin(owner, np.concatenate(cut))
    return loose[pieces]


def _fill_holes(labels: np.ndarray, max_hole_px: int) -> None:
    """Fill in place."""
    from scipy.ndimage import label

    pieces, count = label(labels == 0)
    hole = np.bincount(pieces.ravel(), minlength=count + 1) <= max_hole_px
    hole[0] = False
    for axis in range(2):
        hole[pieces.take([0, -1], axis=axis)] = False
    lowest = np.full(count + 1, np.iinfo(labels.dtype).max, labels.dtype)
    highest = np.zeros(count + 1, labels.dtype)
    for axis in range(2):
        line, line_pieces = np.moveaxis(labels, axis, 0), np.moveaxis(pieces, axis, 0)
        for piece, neighbour in ((line_pieces[:-1], line[1:]), (line_pieces[1:], line[:-1])):
            at = hole[piece] & (neighbour > 0)
            np.minimum.at(lowest, piece[at], neighbour[at])
            np.maximum.at(highest, piece[at], neighbour[at])
    inside = (hole & (lowest == highest))[pieces]
    labels[inside] = highest[pieces[inside]]
