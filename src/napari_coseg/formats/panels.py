"""Pictures side by side for people: an image, and maps of it as heat over its grey."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SMALLEST_SIDE_PX = 384
TITLE_PX, GAP_PX = 30, 8
# From low to high; dark to light, so that it reads in grey too.
HEAT = np.array([(20, 10, 60), (120, 30, 110), (220, 70, 60), (250, 170, 40), (255, 250, 180)])
HEAT_OPACITY = 0.65


def draw(rgb: np.ndarray, maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """A row of panels with titles.

    Parameters
    ----------
    rgb
        uint8 (Y, X, 3).
    maps
        Float (Y, X) by title; each is spread from its lowest to its highest value.

    Returns
    -------
    np.ndarray
        uint8 (rows, columns, 3).
    """
    grey = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2)
    pictures = {"image": rgb.astype(np.float32)}
    for title, values in maps.items():
        pictures[title] = (1 - HEAT_OPACITY) * grey + HEAT_OPACITY * heat(values)
    zoom = max(1, -(-SMALLEST_SIDE_PX // max(1, min(rgb.shape[:2]))))
    panels = [_titled(title, picture, zoom) for title, picture in pictures.items()]
    gap = np.full((panels[0].shape[0], GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def heat(values: np.ndarray) -> np.ndarray:
    """float32 (Y, X, 3) of 0..255; a constant map is all lowest."""
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    place = (values - low) / max(high - low, 1e-12) * (len(HEAT) - 1)
    steps = np.arange(len(HEAT))
    return np.stack([np.interp(place, steps, HEAT[:, i]) for i in range(3)], -1).astype(np.float32)


def _titled(title: str, picture: np.ndarray, zoom: int) -> np.ndarray:
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    shown = np.clip(picture, 0, 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    bar = PIL.Image.new("RGB", (shown.shape[1], TITLE_PX), "white")
    font = PIL.ImageFont.load_default(size=18)
    PIL.ImageDraw.Draw(bar).text((4, TITLE_PX // 2), title, "black", font, anchor="lm")
    return np.concatenate([np.asarray(bar), shown])
