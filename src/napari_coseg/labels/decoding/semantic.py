"""Class probabilities to a semantic label image; removal of specks and holes."""

from __future__ import annotations

import numpy as np

from napari_coseg.core.errors import ImageError


def decode_semantic(probability: np.ndarray) -> np.ndarray:
    """The likeliest class of every pixel.

    Parameters
    ----------
    probability
        Float (1 + K, Y, X) or (1 + K, Z, Y, X), background first.

    Returns
    -------
    np.ndarray
        uint8 class ids of the spatial shape, 0 is background. The lowest id wins a tie; a single
        class (K = 1) wins from 0.5 on.

    Raises
    ------
    ImageError
        Where there is no channel, or more classes than 8 bits hold.
    """
    channels = probability.shape[0]
    if not 1 <= channels <= 256:
        raise ImageError(
            f"semantic probabilities have {channels} channels; expected background and up to 255 "
            "classes"
        )
    if channels == 2:
        return (probability[1] >= 0.5).astype(np.uint8)
    return np.argmax(probability, axis=0).astype(np.uint8)


def remove_small_regions(labels: np.ndarray, min_area_px: int, min_hole_px: int) -> np.ndarray:
    """Remove connected regions below an area, then fill holes below an area.

    A region is a connected piece of one class (pixels that share an edge). A hole is a connected
    piece of background that does not touch the border of the image; it gets the class with most of
    the pixel edges around it. So a speck of one class inside another gets the other's class. Time
    and memory grow with the number of pixels.

    Parameters
    ----------
    labels
        uint8 class ids (Y, X) or (Z, Y, X); 0 is background.
    min_area_px
        Smaller regions become background. 0 or 1 keeps all.
    min_hole_px
        Smaller holes are filled. 0 or 1 fills none.

    Returns
    -------
    np.ndarray
        A new image of the same dtype and shape.
    """
    cleaned = labels.copy()
    if not labels.size:
        return cleaned
    if min_area_px > 1:
        cleaned = _without_specks(labels, min_area_px)
    if min_hole_px > 1:
        _fill_holes(cleaned, min_hole_px)
    return cleaned


def _without_specks(labels: np.ndarray, min_area_px: int) -> np.ndarray:
    from skimage.measure import label

    pieces = label(labels, background=0, connectivity=1)
    small = np.bincount(pieces.reshape(-1)) < min_area_px
    return np.where(small[pieces], 0, labels).astype(labels.dtype, copy=False)


def _fill_holes(labels: np.ndarray, min_hole_px: int) -> None:
    """Fill in place."""
    from scipy.ndimage import label

    pieces, count = label(labels == 0)
    hole = np.bincount(pieces.reshape(-1), minlength=count + 1) < min_hole_px
    hole[0] = False
    for axis in range(labels.ndim):
        hole[pieces.take([0, -1], axis=axis)] = False
    fill = np.zeros(count + 1, dtype=labels.dtype)
    piece, class_id = _commonest_neighbour(labels, pieces, hole)
    fill[piece] = class_id
    inside = hole[pieces]
    labels[inside] = fill[pieces[inside]]


def _commonest_neighbour(
    labels: np.ndarray, pieces: np.ndarray, hole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each hole the class on most of the pixel edges around it, on a tie the lowest id."""
    keys = []
    for axis in range(labels.ndim):
        line, line_pieces = np.moveaxis(labels, axis, 0), np.moveaxis(pieces, axis, 0)
        for piece, neighbour in ((line_pieces[:-1], line[1:]), (line_pieces[1:], line[:-1])):
            at = hole[piece] & (neighbour > 0)
            keys.append(piece[at].astype(np.int64) * 256 + neighbour[at])
    pairs, votes = np.unique(np.concatenate(keys), return_counts=True)
    piece, class_id = np.divmod(pairs, 256)
    order = np.lexsort((class_id, -votes, piece))
    first = np.diff(piece[order], prepend=-1) > 0
    return piece[order][first], class_id[order][first]
