"""Prompts for SAM2, the part of an image it is shown for them, and where its masks lie.

A nucleus of 8 um fills some 60 of SAM2's 1,024 pixels where the window is 128 um wide, and 4 of
them in a whole slide. So the window is as wide as that where a click is meant, and twice as wide as
a box. It serves further prompts as long as they lie well inside.

Coordinates are (y, x) in pixels of the image's plane, a pixel's centre at whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_coseg.core.errors import EditError

FIELD_UM = 128.0
UNKNOWN_FIELD_PX = 512
"""Where nobody knows how large a pixel is."""
FIELD_LIMITS_PX = (128, 1024)
LARGEST_WINDOW_PX = 4096
BOX_SHARE = 0.5
"""The most of a new window that a box, or points, may fill along an axis."""
MARGIN = 0.2
"""Of a window's side: prompts nearer to it get a window of their own."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Prompt:
    """What is meant: points on it and beside it, a box around it, or both.

    Parameters
    ----------
    points
        (y, x) each.
    positive
        For each point whether it lies on what is meant.
    box
        Top, left, bottom, right; both corners are in the box.

    Raises
    ------
    EditError
        Where nothing says what is meant, or numbers are not finite.
    """

    points: tuple[tuple[float, float], ...] = ()
    positive: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.positive):
            raise EditError(
                f"{len(self.points)} points and {len(self.positive)} words on which of them lie on "
                "the object; give one for each"
            )
        if self.box is None and not any(self.positive):
            raise EditError("nothing says what is meant; click on it, or draw a box around it")
        if not np.isfinite(self._corners()).all():
            raise EditError(f"the prompt {self} has numbers that are not finite; click again")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise EditError(f"the box {self.box} has no area; drag from corner to corner")

    def with_point(self, point: tuple[float, float], positive: bool) -> Prompt:
        """The same with one more point."""
        return Prompt((*self.points, point), (*self.positive, positive), self.box)

    def mapped(self, to_image: np.ndarray) -> Prompt:
        """The same in another plane; a box that is turned is the box around it.

        Parameters
        ----------
        to_image
            float (2, 3): from (y, x, 1) here to (y, x) there.
        """
        turn, shift = np.asarray(to_image, float)[:, :2], np.asarray(to_image, float)[:, 2]
        points = np.array(self.points, float).reshape(-1, 2) @ turn.T + shift
        box = None
        if self.box is not None:
            top, left, bottom, right = self.box
            corners = np.array([(y, x) for y in (top, bottom) for x in (left, right)])
            there = corners @ turn.T + shift
            (top, left), (bottom, right) = there.min(axis=0).tolist(), there.max(axis=0).tolist()
            box = (top, left, bottom, right)
        return Prompt(tuple((y, x) for y, x in points.tolist()), self.positive, box)

    def inside(self, shape: tuple[int, int]) -> Prompt:
        """The same on an image of this shape: a box ends at its border.

        Raises
        ------
        EditError
            Where a point, or all of the box, lies outside.
        """
        last = np.array(shape) - 1.0
        points = np.array(self.points, float).reshape(-1, 2)
        top_left, bottom_right = (
            (points.min(axis=0), points.max(axis=0))
            if self.box is None
            else (np.array(self.box[:2]), np.array(self.box[2:]))
        )
        away = (bottom_right < -0.5).any() or (top_left > last + 0.5).any()
        if away or (points < -0.5).any() or (points > last + 0.5).any():
            raise EditError(
                f"the click or box lies outside the image of {shape[0]} x {shape[1]} pixels; "
                "click inside it"
            )
        if self.box is None:
            return self
        corners = np.clip([self.box[:2], self.box[2:]], 0, last).ravel().tolist()
        return replace(self, box=(corners[0], corners[1], corners[2], corners[3]))

    @property
    def is_ambiguous(self) -> bool:
        """One click alone: a nucleus, the gland it stands in, or all the tissue."""
        return self.box is None and len(self.points) == 1

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest (y, x)."""
        corners = self._corners()
        return corners.min(axis=0), corners.max(axis=0)

    def _corners(self) -> np.ndarray:
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        return np.array([*self.points, *corners], dtype=float)


@dataclass(frozen=True, eq=False)
class SamMask:
    """What SAM2 answers.

    Parameters
    ----------
    mask
        bool (Y, X).
    corner
        y and x of its first pixel.
    quality
        The overlap (0 to 1) that SAM2 predicts its mask to have with what is meant.
    at_side
        Whether it reaches a side of the window that is not the image's, so that it may go on there.
    """

    mask: np.ndarray
    corner: tuple[int, int]
    quality: float
    at_side: bool


def field_px(pixel_size_um: Sequence[float] | None) -> int:
    """Side of the window around a click, in pixels.

    >>> field_px((0.25, 0.25)), field_px((2.0, 2.0)), field_px(None)
    (512, 128, 512)
    """
    if pixel_size_um is None:
        return UNKNOWN_FIELD_PX
    return int(np.clip(round(FIELD_UM / max(pixel_size_um)), *FIELD_LIMITS_PX))


def window_around(prompt: Prompt, shape: tuple[int, int], field: int) -> Window:
    """A square with the prompt in its middle, moved (and only then cut) to lie in the image.

    Raises
    ------
    EditError
        Where it would be larger than `LARGEST_WINDOW_PX`.
    """
    low, high = prompt.bounds
    side = max(field, int(np.ceil((high - low).max() / BOX_SHARE)))
    if side > LARGEST_WINDOW_PX:
        raise EditError(
            f"what is meant is {int((high - low).max())} pixels wide, too much for SAM2 at once; "
            f"draw a box of at most {int(LARGEST_WINDOW_PX * BOX_SHARE)}, or outline it by hand"
        )
    parts = []
    for middle, length in zip((low + high) / 2, shape, strict=True):
        size = min(side, length)
        start = int(np.clip(round(middle - size / 2), 0, length - size))
        parts.append(slice(start, start + size))
    return parts[0], parts[1]


def serves(window: Window, wanted: Window, prompt: Prompt, shape: tuple[int, int]) -> bool:
    """Whether a window may stand for the wanted one: it holds the prompt well inside.

    One that is more than twice as wide does not: objects would be too small in it.
    """
    sides = [part.stop - part.start for part in window]
    if any(s > 2 * (part.stop - part.start) for s, part in zip(sides, wanted, strict=True)):
        return False
    bounds = zip(*prompt.bounds, window, sides, shape, strict=True)
    return all(
        (part.start == 0 or low >= part.start + MARGIN * side)
        and (part.stop == length or high <= part.stop - 1 - MARGIN * side)
        for low, high, part, side, length in bounds
    )


def on_labels(
    found: SamMask, to_image: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask on the pixels of labels that lie over the image, whatever their grid.

    Parameters
    ----------
    to_image
        float (2, 3): from (y, x, 1) of the labels to (y, x) of the image.
    shape
        Of the labels' plane.

    Returns
    -------
    mask
        bool (Y, X): the labels' pixels whose centre lies on a pixel of `found`.
    corner
        y and x of its first pixel.

    Raises
    ------
    EditError
        Where none does, or the grids are turned into a line.
    """
    turn, shift = np.asarray(to_image, float)[:, :2], np.asarray(to_image, float)[:, 2]
    if abs(np.linalg.det(turn)) < 1e-12:
        raise EditError("the labels' scale is 0 along an axis; set it right")
    low = np.array(found.corner) - 0.5
    high = low + found.mask.shape
    corners = np.array([(y, x) for y in (low[0], high[0]) for x in (low[1], high[1])])
    there = (corners - shift) @ np.linalg.inv(turn).T
    first = np.clip(np.floor(there.min(axis=0)), 0, shape).astype(int)
    last = np.clip(np.ceil(there.max(axis=0)) + 1, 0, shape).astype(int)
    grid = np.mgrid[first[0] : last[0], first[1] : last[1]].astype(float)
    # Rounded half up, as pixels reach from -0.5 to 0.5: neighbours never share or skip one.
    at = np.floor(np.tensordot(turn, grid, axes=1) + shift[:, None, None] + 0.5).astype(int)
    at -= np.array(found.corner)[:, None, None]
    inside = ((at >= 0) & (at < np.array(found.mask.shape)[:, None, None])).all(axis=0)
    mask = np.zeros(inside.shape, bool)
    mask[inside] = found.mask[at[0][inside], at[1][inside]]
    if not mask.any():
        raise EditError("what SAM2 found lies outside the objects layer; click inside it")
    return mask, (int(first[0]), int(first[1]))
