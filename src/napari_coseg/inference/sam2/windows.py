"""Prompts for SAM2, the windows of an image that it encodes, and its masks.

A nucleus of 8 um is about 60 of SAM2's 1,024 pixels wide in a window of 128 um, which is therefore
the window of a click; a box has a window of twice its size. Later prompts reuse a window if they
are well inside.

Coordinates are (y, x) in pixels of the image's plane; pixel centres are at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_coseg.core.errors import EditError

FIELD_UM = 128.0
UNKNOWN_FIELD_PX = 512
"""If the pixel size is unknown."""
FIELD_LIMITS_PX = (128, 1024)
LARGEST_WINDOW_PX = 4096
PROMPT_FRACTION = 0.5
"""Largest fraction of a new window that a box, or points, may fill along an axis."""
MARGIN = 0.2
"""Margin of a window, as a fraction of its side, in which prompts need a new window."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Prompt:
    """Positive and negative points, a box, or both, for one object.

    Parameters
    ----------
    points
        (y, x) each.
    positive
        For each point whether it is on the object.
    box
        Top, left, bottom, right; corners included.

    Raises
    ------
    EditError
        If there is neither a positive point nor a box, or numbers are not finite.
    """

    points: tuple[tuple[float, float], ...] = ()
    positive: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.positive):
            raise EditError(
                f"{len(self.points)} points have {len(self.positive)} values of `positive`; give "
                "one for each"
            )
        if self.box is None and not any(self.positive):
            raise EditError("the prompt is empty; click on an object, or draw a box around it")
        if not np.isfinite(self._corners()).all():
            raise EditError(f"the prompt {self} has numbers that are not finite; click again")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise EditError(f"the box {self.box} has no area; drag from corner to corner")

    def with_point(self, point: tuple[float, float], positive: bool) -> Prompt:
        """Return a copy with one more point."""
        return Prompt((*self.points, point), (*self.positive, positive), self.box)

    def mapped(self, to_image: np.ndarray) -> Prompt:
        """Transform to another grid; a rotated box becomes its bounding box.

        Parameters
        ----------
        to_image
            float (2, 3): maps (y, x, 1) of this grid to (y, x) of the other.
        """
        linear, shift = np.asarray(to_image, float)[:, :2], np.asarray(to_image, float)[:, 2]
        points = np.array(self.points, float).reshape(-1, 2) @ linear.T + shift
        box = None
        if self.box is not None:
            top, left, bottom, right = self.box
            corners = np.array([(y, x) for y in (top, bottom) for x in (left, right)])
            mapped = corners @ linear.T + shift
            (top, left), (bottom, right) = mapped.min(axis=0).tolist(), mapped.max(axis=0).tolist()
            box = (top, left, bottom, right)
        return Prompt(tuple((y, x) for y, x in points.tolist()), self.positive, box)

    def inside(self, shape: tuple[int, int]) -> Prompt:
        """Clip the box to an image; raises `EditError` if a point or the whole box is outside."""
        last = np.array(shape) - 1.0
        points = np.array(self.points, float).reshape(-1, 2)
        top_left, bottom_right = (
            (points.min(axis=0), points.max(axis=0))
            if self.box is None
            else (np.array(self.box[:2]), np.array(self.box[2:]))
        )
        outside = (bottom_right < -0.5).any() or (top_left > last + 0.5).any()
        if outside or (points < -0.5).any() or (points > last + 0.5).any():
            raise EditError(
                f"the click or box is outside the image of {shape[0]} x {shape[1]} pixels; "
                "click inside it"
            )
        if self.box is None:
            return self
        corners = np.clip([self.box[:2], self.box[2:]], 0, last).ravel().tolist()
        return replace(self, box=(corners[0], corners[1], corners[2], corners[3]))

    @property
    def is_ambiguous(self) -> bool:
        """Whether the prompt is one click, which may mean a nucleus, its gland or the tissue."""
        return self.box is None and len(self.points) == 1

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest (y, x)."""
        corners = self._corners()
        return corners.min(axis=0), corners.max(axis=0)

    def _corners(self) -> np.ndarray:
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        return np.array([*self.points, *corners], dtype=float)


@dataclass(frozen=True, eq=False)
class SamMask:
    """A mask from SAM2.

    Parameters
    ----------
    mask
        bool (Y, X).
    corner
        y and x of its first pixel.
    quality
        IoU (0 to 1) with the object, as predicted by SAM2.
    at_side
        Whether it touches a side of the window inside the image, and may be cut there.
    """

    mask: np.ndarray
    corner: tuple[int, int]
    quality: float
    at_side: bool


def field_px(pixel_size_um: Sequence[float] | None) -> int:
    """Side in pixels of the window around a click.

    >>> field_px((0.25, 0.25)), field_px((2.0, 2.0)), field_px(None)
    (512, 128, 512)
    """
    if pixel_size_um is None:
        return UNKNOWN_FIELD_PX
    return int(np.clip(round(FIELD_UM / max(pixel_size_um)), *FIELD_LIMITS_PX))


def window_around(prompt: Prompt, shape: tuple[int, int], field: int) -> Window:
    """Make a square around the prompt, moved into the image, and cut if the image is smaller.

    Raises
    ------
    EditError
        If it is larger than `LARGEST_WINDOW_PX`.
    """
    low, high = prompt.bounds
    side = max(field, int(np.ceil((high - low).max() / PROMPT_FRACTION)))
    if side > LARGEST_WINDOW_PX:
        raise EditError(
            f"the prompt is {int((high - low).max())} pixels wide, too large for SAM2; draw a box "
            f"of at most {int(LARGEST_WINDOW_PX * PROMPT_FRACTION)} pixels, or outline the object"
        )
    parts = []
    for middle, length in zip((low + high) / 2, shape, strict=True):
        size = min(side, length)
        start = int(np.clip(round(middle - size / 2), 0, length - size))
        parts.append(slice(start, start + size))
    return parts[0], parts[1]


def is_reusable(window: Window, new: Window, prompt: Prompt, shape: tuple[int, int]) -> bool:
    """Whether a window can replace a new one.

    The prompt must be inside its margin, and it may be at most twice as wide as the new one, so
    that objects are not too small.
    """
    sides = [part.stop - part.start for part in window]
    if any(s > 2 * (part.stop - part.start) for s, part in zip(sides, new, strict=True)):
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
    """Resample a mask to the grid of labels.

    Parameters
    ----------
    to_image
        float (2, 3): maps (y, x, 1) of the labels to (y, x) of the image.
    shape
        (Y, X) of the labels' plane.

    Returns
    -------
    mask
        bool (Y, X): pixels of the labels whose centres are on a pixel of `found`.
    corner
        y and x of its first pixel.

    Raises
    ------
    EditError
        If the mask is outside the labels, or `to_image` is singular.
    """
    linear, shift = np.asarray(to_image, float)[:, :2], np.asarray(to_image, float)[:, 2]
    if abs(np.linalg.det(linear)) < 1e-12:
        raise EditError("the labels' scale is 0 along an axis; correct it")
    low = np.array(found.corner) - 0.5
    high = low + found.mask.shape
    corners = np.array([(y, x) for y in (low[0], high[0]) for x in (low[1], high[1])])
    mapped = (corners - shift) @ np.linalg.inv(linear).T
    first = np.clip(np.floor(mapped.min(axis=0)), 0, shape).astype(int)
    last = np.clip(np.ceil(mapped.max(axis=0)) + 1, 0, shape).astype(int)
    grid = np.mgrid[first[0] : last[0], first[1] : last[1]].astype(float)
    # Pixels span -0.5 to 0.5: rounding half up never skips or repeats one.
    at = np.floor(np.tensordot(linear, grid, axes=1) + shift[:, None, None] + 0.5).astype(int)
    at -= np.array(found.corner)[:, None, None]
    inside = ((at >= 0) & (at < np.array(found.mask.shape)[:, None, None])).all(axis=0)
    mask = np.zeros(inside.shape, bool)
    mask[inside] = found.mask[at[0][inside], at[1][inside]]
    if not mask.any():
        raise EditError("SAM2's mask is outside the objects layer; click inside it")
    return mask, (int(first[0]), int(first[1]))
