"""Make docs/images/measure.png: the real window, the sample image, a lasso in the scatter plot.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_measure_screenshot.py

Nuclei are those of a threshold, and epithelium is where the sample's brown stain was, so that the
picture shows measuring and not a model.
"""

from __future__ import annotations

import time
from pathlib import Path

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

from napari_coseg.measure import object_table
from napari_coseg.readers.samples import COLON_PIXEL_SIZE_UM
from napari_coseg.types import Instances, LabelClass, Prediction
from napari_coseg.widgets.outputs import add_prediction

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "measure.png"
SIZE = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
CLASSES = (LabelClass(1, "epithelial", (213, 94, 0)), LabelClass(2, "stromal", (0, 158, 115)))
REGIONS = (LabelClass(1, "epithelium", (230, 159, 0)),)
LONGEST_WAIT_S = 300


def prediction() -> Prediction:
    """Labels of the sample image without a network."""
    stains = separate_stains(immunohistochemistry(), hdx_from_rgb)
    blue, brown = gaussian(stains[..., 0], 1.5), gaussian(stains[..., 1], 6)
    epithelium = (brown > threshold_otsu(brown)).astype(np.uint8)
    inside = remove_small_objects(blue > threshold_otsu(blue), max_size=40)
    depth = gaussian(ndimage.distance_transform_edt(inside), 1)
    seeds = np.zeros(inside.shape, np.int32)
    peaks = peak_local_max(depth, min_distance=5, labels=inside.astype(int))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, seeds, mask=inside).astype(np.int32)
    share = ndimage.mean(epithelium, labels, np.arange(1, labels.max() + 1))
    table = object_table(
        labels,
        epithelium,
        pixel_size_um=SIZE,
        class_ids=np.where(np.nan_to_num(share) > 0.5, 1, 2),
        class_probabilities=np.maximum(share, 1 - share),
        classes=CLASSES,
        semantic_classes=REGIONS,
    )
    return Prediction(epithelium, REGIONS, Instances(labels, table, CLASSES), SIZE)


def main() -> None:
    """Do what a person does, then take the picture."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    (layer,) = viewer.open_sample("napari-coseg", "colon")
    regions, _ = add_prediction(viewer, layer, "YXC", prediction())
    regions.opacity = 0.2
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Measure")
    widget.run()
    deadline = time.monotonic() + LONGEST_WAIT_S
    while widget.bar.is_busy:
        wait(0.05)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not measured after {LONGEST_WAIT_S} s")
    widget.tabs.setCurrentWidget(widget.plots)
    area, blue = widget.objects["area_um2"], widget.objects["hematoxylin_od_mean"]
    low, high = np.quantile(area, [0.85, 1]) + np.array([0, 1])
    points = [(low, blue.min()), (high, blue.min()), (high, blue.max()), (low, blue.max())]
    widget.plots.box.drawn.emit(np.array(points), False)
    viewer.reset_view(margin=0.02)
    wait(1)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    # 128 colours look the same and take a third of the room.
    PIL.Image.fromarray(picture).quantize(128).save(PICTURE, optimize=True)
    viewer.close()


def wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


if __name__ == "__main__":
    main()
