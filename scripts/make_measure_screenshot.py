"""Make docs/images/measure.png: a lasso in the scatter plot of the sample image's objects.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_measure_screenshot.py

Nuclei and epithelium are thresholded from the sample's stains, without a model.
"""

from __future__ import annotations

import napari
import numpy as np
from scipy import ndimage
from screenshots import IMAGES, nuclei_of_the_sample, save, until, wait
from skimage.filters import gaussian, threshold_otsu

from napari_coseg.core.types import Instances, LabelClass, Prediction
from napari_coseg.images.readers.samples import COLON_PIXEL_SIZE_UM
from napari_coseg.labels.measure import class_table, object_table
from napari_coseg.widgets.outputs import add_prediction

PICTURE = IMAGES / "measure.png"
SIZE = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
CLASSES = (LabelClass(1, "epithelial", (213, 94, 0)), LabelClass(2, "stromal", (0, 158, 115)))
REGIONS = (LabelClass(1, "epithelium", (230, 159, 0)),)


def prediction() -> Prediction:
    """Thresholded labels of the sample image."""
    labels, brown = nuclei_of_the_sample()
    brown = gaussian(brown, 6)
    epithelium = (brown > threshold_otsu(brown)).astype(np.uint8)
    share = ndimage.mean(epithelium, labels, np.arange(1, labels.max() + 1))
    table = object_table(
        labels,
        epithelium,
        pixel_size_um=SIZE,
        known=class_table(np.where(np.nan_to_num(share) > 0.5, 1, 2), np.maximum(share, 1 - share)),
        classes=CLASSES,
        semantic_classes=REGIONS,
    )
    return Prediction(epithelium, REGIONS, Instances(labels, table, CLASSES), SIZE)


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    (layer,) = viewer.open_sample("napari-coseg", "colon")
    regions, _ = add_prediction(viewer, layer, "YXC", prediction())
    regions.opacity = 0.2
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Measure")
    widget.run()
    until(lambda: not widget.bar.is_busy)
    widget.tabs.setCurrentWidget(widget.plots)
    area, blue = widget.objects["area_um2"], widget.objects["hematoxylin_od_mean"]
    low, high = np.quantile(area, [0.85, 1]) + np.array([0, 1])
    points = [(low, blue.min()), (high, blue.min()), (high, blue.max()), (low, blue.max())]
    widget.plots.box.drawn.emit(np.array(points), False)
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, PICTURE)
    viewer.close()


if __name__ == "__main__":
    main()
