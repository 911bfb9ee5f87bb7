"""Helpers of the screenshot scripts: waiting, saving, labels of the sample image."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from qtpy.QtWidgets import QApplication

IMAGES = Path(__file__).parent.parent / "docs" / "images"
LONGEST_WAIT_S = 900


def until(condition: Callable[[], bool]) -> None:
    """Run the event loop until a condition holds."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while not condition():
        wait(0.05)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no result after {LONGEST_WAIT_S} s")


def wait(seconds: float) -> None:
    """Run the event loop for some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def segment_the_sample(viewer: Any) -> tuple[Any, Any]:
    """Segment the sample image with the shipped model; returns its region and object layers."""
    viewer.open_sample("napari-coseg", "colon")
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    widget.run()
    until(lambda: len(viewer.layers) >= 3)
    return viewer.layers[-2], viewer.layers[-1]


def save(viewer: Any, path: Path) -> None:
    """Save the window with 160 colours, which look the same in a third of the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    few = PIL.Image.fromarray(picture).quantize(160, PIL.Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)


def nuclei_of_the_sample() -> tuple[np.ndarray, np.ndarray]:
    """Nuclei by a threshold, int32 (Y, X), and the sample's brown stain, without a network."""
    from scipy import ndimage
    from skimage.color import hdx_from_rgb, separate_stains
    from skimage.data import immunohistochemistry
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian, threshold_otsu
    from skimage.morphology import remove_small_objects
    from skimage.segmentation import watershed

    stains = separate_stains(immunohistochemistry(), hdx_from_rgb)
    blue = gaussian(stains[..., 0], 1.5)
    inside = remove_small_objects(blue > threshold_otsu(blue), max_size=40)
    depth = gaussian(ndimage.distance_transform_edt(inside), 1)
    seeds = np.zeros(inside.shape, np.int32)
    peaks = peak_local_max(depth, min_distance=5, labels=inside.astype(int))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, seeds, mask=inside).astype(np.int32), stains[..., 1]
