"""Make docs/images/segment.png: the real window, the sample image, the shipped model.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_screenshot.py
"""

from __future__ import annotations

import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "segment.png"
LONGEST_WAIT_S = 300


def main() -> None:
    """Do what a person does, then take the picture."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    viewer.open_sample("napari-coseg", "colon")
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    widget.run()
    deadline = time.monotonic() + LONGEST_WAIT_S
    while len(viewer.layers) < 3:
        QApplication.processEvents()
        time.sleep(0.02)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no labels after {LONGEST_WAIT_S} s")
    viewer.layers[-1].contour = 2
    viewer.layers[-2].opacity = 0.35
    viewer.reset_view(margin=0.02)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.02)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(str(PICTURE), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
