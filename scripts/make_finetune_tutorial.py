"""Make docs/images/tutorial-*.png: the steps of the fine-tuning tutorial.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_finetune_tutorial.py

Prints the scores on the half that is not reviewed, before and after, for
docs/tutorial-fine-tuning.md. Takes MINUTES for the training.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import napari
import numpy as np
from screenshots import IMAGES, save, until, wait

from napari_coseg.labels.metrics.contingency import contingency
from napari_coseg.labels.metrics.instances import panoptic_quality
from napari_coseg.models.checkpoints.adapter_library import FOLDER_VARIABLE
from napari_coseg.widgets.correct.gesture import Gesture
from napari_coseg.widgets.workspace.controller import controller_of
from napari_coseg.workspace import recent

MINUTES = 3.0
HALF_PX = 348
REVIEWED = np.array([(-5.0, -5.0), (-5.0, HALF_PX), (525.0, HALF_PX), (525.0, -5.0)])
"""y, x: the left half."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = f"{folder}/adapters"
        os.environ[recent.PLACE_VARIABLE] = f"{folder}/state"
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1250, 900)
        image, drawn = viewer.open_sample("napari-coseg", "fluorescence")
        drawn.visible = False
        segment = dock(viewer, "Segment")
        before = segmented(viewer, segment)
        picture(viewer, "1-before")

        drawn.visible = True
        remove(viewer, before)
        keep(viewer, image, drawn, Path(folder) / "nuclei.coseg")
        correct = review(viewer, drawn)
        picture(viewer, "2-review")

        correct.finish()
        train(viewer, dock(viewer, "Fine-tune"))
        picture(viewer, "3-trained")

        fine_tune = viewer.window.dock_widgets["Fine-tune (napari-coseg)"]
        fine_tune.progress.use_button.click()
        drawn.visible = False
        raise_dock(viewer, segment)
        after = segmented(viewer, segment)
        picture(viewer, "4-after")
        for when, (_, objects) in (("before", before), ("after", after)):
            print_scores(when, drawn.data, objects.data)
        controller_of(viewer).abandon()
        viewer.close()


def dock(viewer: Any, name: str) -> Any:
    return viewer.window.add_plugin_dock_widget("napari-coseg", name)[1]


def raise_dock(viewer: Any, widget: Any) -> None:
    """Raise a dock above those in the same tabs."""
    from qtpy.QtWidgets import QDockWidget

    docks = viewer.window._qt_window.findChildren(QDockWidget)
    next(one for one in docks if one.isAncestorOf(widget)).raise_()


def segmented(viewer: Any, segment: Any) -> tuple[Any, Any]:
    """Run the segmentation; returns its layers."""
    count = len(viewer.layers)
    segment.run()
    until(lambda: len(viewer.layers) == count + 2 and not segment.bar.is_busy)
    return viewer.layers[-2], viewer.layers[-1]


def remove(viewer: Any, layers: tuple[Any, Any]) -> None:
    for layer in layers:
        viewer.layers.remove(layer)


def keep(viewer: Any, image: Any, drawn: Any, path: Path) -> None:
    """Add the drawn nuclei to a new workspace."""
    controller = controller_of(viewer)
    controller.create(path)
    until(lambda: controller.workspace is not None and not controller.busy)
    controller.add(image, drawn, None)
    until(lambda: bool(controller.links) and not controller.busy)


def review(viewer: Any, drawn: Any) -> Any:
    """Mark the left half as reviewed."""
    correct = dock(viewer, "Correct")
    correct.pair.objects_box.choose(drawn)
    correct.start()
    until(lambda: correct.interaction is not None)
    correct.interaction.corrector.review_area(Gesture(REVIEWED, is_click=False))
    return correct


def train(viewer: Any, fine_tune: Any) -> None:
    """Start the training and wait for its end."""
    fine_tune.setup.name_edit.setText("fluorescence nuclei")
    fine_tune.setup.main.boxes["minutes"].setValue(MINUTES)
    fine_tune.look()
    until(lambda: "of memory" in fine_tune.setup.estimate.text())
    fine_tune.run()
    until(lambda: fine_tune.bar.is_busy)
    until(lambda: not fine_tune.bar.is_busy)


def picture(viewer: Any, name: str) -> None:
    viewer.layers.selection.clear()
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, IMAGES / f"tutorial-{name}.png")


def print_scores(when: str, truth: np.ndarray, found: np.ndarray) -> None:
    """Print scores of the right half, which was not trained on."""
    quality = panoptic_quality(contingency(truth[:, HALF_PX:], found[:, HALF_PX:]))
    print(f"{when}: F1 {quality.f1:.3f}, PQ {quality.pq:.3f}")


if __name__ == "__main__":
    main()
