"""Make docs/images/fine-tune.png: the real window, the sample image, a training that has ended.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_finetune_screenshot.py

Nuclei of a threshold in the upper part of the image stand for what a person has corrected and
reviewed. With an argument the picture is of the first page of the dock, before the start.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import PIL.Image
from qtpy.QtWidgets import QApplication
from scipy import ndimage
from skimage.color import hdx_from_rgb, separate_stains
from skimage.data import immunohistochemistry
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from napari_coseg.finetuning.library import FOLDER_VARIABLE
from napari_coseg.measure import object_table
from napari_coseg.readers.samples import COLON_PIXEL_SIZE_UM
from napari_coseg.types import Instances, Prediction
from napari_coseg.widgets.correct.reading import desk_of, request_of
from napari_coseg.widgets.correct.session import Session
from napari_coseg.widgets.outputs import add_prediction
from napari_coseg.widgets.workspace.keeper import keeper_of
from napari_coseg.workspace import recent

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZE = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
REVIEWED = (slice(0, 256), slice(0, 512))
LONGEST_WAIT_S = 900
FEW = {"steps": 80, "crops": 2, "crop_px": 128, "validations": 6}


def nuclei() -> Prediction:
    """Objects of the sample image without a network, and without classes."""
    stains = separate_stains(immunohistochemistry(), hdx_from_rgb)
    blue = gaussian(stains[..., 0], 1.5)
    inside = remove_small_objects(blue > threshold_otsu(blue), max_size=40)
    depth = gaussian(ndimage.distance_transform_edt(inside), 1)
    seeds = np.zeros(inside.shape, np.int32)
    peaks = peak_local_max(depth, min_distance=5, labels=inside.astype(int))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, seeds, mask=inside).astype(np.int32)
    regions = np.zeros(labels.shape, np.uint8)
    table = object_table(labels, regions, pixel_size_um=SIZE)
    return Prediction(regions, (), Instances(labels, table, ()), SIZE, {"axes": "YXC"})


def main() -> None:
    """Do what a person does, then take the picture."""
    first_page = len(sys.argv) > 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = f"{folder}/adapters"
        os.environ[recent.PLACE_VARIABLE] = f"{folder}/state"
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1250, 1000)
        (layer,) = viewer.open_sample("napari-coseg", "colon")
        regions, objects = add_prediction(viewer, layer, "YXC", nuclei())
        viewer.layers.remove(regions)
        keeper = keeper_of(viewer)
        keeper.create(Path(folder) / "colon.coseg")
        until(lambda: keeper.workspace is not None and not keeper.busy)
        keeper.add(layer, objects, None)
        until(lambda: bool(keeper.links) and not keeper.busy)
        session = Session(objects, None, desk_of(*request_of(objects, None)))
        part = np.zeros(objects.data.shape, bool)
        part[REVIEWED] = True
        session.mark("Review", session.reviewed.with_region(np.nonzero(part)))
        _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Fine-tune")
        widget.setup.name_edit.setText("colon nuclei")
        for name, value in FEW.items():
            widget.setup.more.boxes[name].setValue(value)
        widget.look()
        until(lambda: "of memory" in widget.setup.estimate.text())
        if not first_page:
            train(widget)
        viewer.layers.selection.clear()
        viewer.reset_view(margin=0.02)
        wait(1)
        save(viewer, IMAGES / ("fine-tune-setup.png" if first_page else "fine-tune.png"))
        session.close()
        keeper.give_up()
        viewer.close()


def train(widget: Any) -> None:
    """Start, and wait for the end."""
    widget.run()
    until(lambda: widget.bar.is_busy)
    until(lambda: not widget.bar.is_busy)


def save(viewer: Any, path: Path) -> None:
    """The whole window; 160 colours look the same and take a third of the room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    few = PIL.Image.fromarray(picture).quantize(160, PIL.Image.Quantize.MAXCOVERAGE)
    few.save(path, optimize=True)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_S
    while not is_so():
        wait(0.05)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {LONGEST_WAIT_S} s")


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


if __name__ == "__main__":
    main()
