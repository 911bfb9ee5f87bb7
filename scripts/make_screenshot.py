"""Make docs/images/segment.png: the real window, the sample image, the shipped model.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_screenshot.py
"""

from __future__ import annotations

import napari
from screenshots import IMAGES, save, until, wait


def main() -> None:
    """Do what a person does, then take the picture."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    viewer.open_sample("napari-coseg", "colon")
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    widget.run()
    until(lambda: len(viewer.layers) >= 3)
    viewer.layers[-1].contour = 2
    viewer.layers[-2].opacity = 0.35
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, IMAGES / "segment.png")
    viewer.close()


if __name__ == "__main__":
    main()
