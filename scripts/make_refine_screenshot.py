"""Make docs/images/refine.png: a refinement from a corrected gland.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_refine_screenshot.py
"""

from __future__ import annotations

import napari
import numpy as np
from screenshots import IMAGES, save, segment_the_sample, until, wait
from skimage.draw import polygon2mask

GLAND = np.array([(365, 262), (358, 320), (372, 372), (440, 374), (452, 300), (440, 258)])
"""y, x of the lumen that is missing from a gland in the sample's lower half."""


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    regions, objects = segment_the_sample(viewer)
    regions.data_setitem(np.nonzero(polygon2mask(regions.data.shape, GLAND)), 1)
    regions.opacity, objects.contour = 0.35, 1
    _, refine = viewer.window.add_plugin_dock_widget("napari-coseg", "Refine")
    refine.run()
    until(lambda: refine.accept_button.isEnabled())
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, IMAGES / "refine.png")
    viewer.close()


if __name__ == "__main__":
    main()
