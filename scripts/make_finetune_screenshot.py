"""Make docs/images/fine-tune.png: a finished fine-tuning on the sample image.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_finetune_screenshot.py

Thresholded nuclei in the upper half of the image serve as reviewed corrections. With any argument,
make fine-tune-setup.png of the dock before the start.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import napari
import numpy as np
from screenshots import IMAGES, nuclei_of_the_sample, save, until, wait

from napari_coseg.core.types import Instances, Prediction
from napari_coseg.images.readers.samples import COLON_PIXEL_SIZE_UM
from napari_coseg.labels.measure import object_table
from napari_coseg.models.checkpoints.adapter_library import FOLDER_VARIABLE
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.outputs import add_prediction
from napari_coseg.widgets.workspace.controller import controller_of
from napari_coseg.workspace import recent

SIZE = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
REVIEWED = (slice(0, 256), slice(0, 512))
FEW = {"steps": 80, "crops": 2, "crop_px": 128, "validations": 6}


def nuclei() -> Prediction:
    """Thresholded objects of the sample image, without classes."""
    labels, _ = nuclei_of_the_sample()
    regions = np.zeros(labels.shape, np.uint8)
    table = object_table(labels, regions, pixel_size_um=SIZE)
    return Prediction(regions, (), Instances(labels, table, ()), SIZE, {"axes": "YXC"})


def main() -> None:
    first_page = len(sys.argv) > 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = f"{folder}/adapters"
        os.environ[recent.PLACE_VARIABLE] = f"{folder}/state"
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1250, 1000)
        (layer,) = viewer.open_sample("napari-coseg", "colon")
        regions, objects = add_prediction(viewer, layer, "YXC", nuclei())
        viewer.layers.remove(regions)
        controller = controller_of(viewer)
        controller.create(Path(folder) / "colon.coseg")
        until(lambda: controller.workspace is not None and not controller.busy)
        controller.add(layer, objects, None)
        until(lambda: bool(controller.links) and not controller.busy)
        session = CorrectionSession(objects, None, editor_of(*request_of(objects, None)))
        part = np.zeros(objects.data.shape, bool)
        part[REVIEWED] = True
        session.mark("Review", session.reviewed.with_area(np.nonzero(part)))
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
        controller.abandon()
        viewer.close()


def train(widget: Any) -> None:
    """Start the training and wait for its end."""
    widget.run()
    until(lambda: widget.bar.is_busy)
    until(lambda: not widget.bar.is_busy)


if __name__ == "__main__":
    main()
