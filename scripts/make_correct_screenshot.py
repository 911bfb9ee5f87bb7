"""Make docs/images/correct.png: the sample image with two reviewed areas.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_correct_screenshot.py

Nuclei and regions are those of `make_measure_screenshot`.
"""

from __future__ import annotations

import napari
import numpy as np
from make_measure_screenshot import prediction
from screenshots import IMAGES, save, until, wait

from napari_coseg.widgets.correct.gesture import Gesture
from napari_coseg.widgets.outputs import add_prediction

AREA = np.array([(40.0, 5.0), (30.0, 190.0), (185.0, 200.0), (190.0, 25.0)])
"""y, x."""
OF_OBJECTS = np.array([(60.0, 230.0), (50.0, 380.0), (170.0, 390.0), (200.0, 250.0)])


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 1060)
    (layer,) = viewer.open_sample("napari-coseg", "colon")
    regions, _ = add_prediction(viewer, layer, "YXC", prediction())
    regions.opacity = 0.2
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Correct")
    widget.start()
    until(lambda: widget.interaction is not None)
    widget.interaction.corrector.review_area(Gesture(AREA, is_click=False))
    widget.area_choice.setCurrentIndex(1)
    widget.interaction.corrector.review_area(Gesture(OF_OBJECTS, is_click=False))
    widget.next_button.click()
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, IMAGES / "correct.png")
    viewer.close()


if __name__ == "__main__":
    main()
