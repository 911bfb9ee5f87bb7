"""Make docs/images/segment.png: the sample image segmented by the shipped model.

xvfb-run -a -s "-screen 0 1920x1200x24" .venv/bin/python scripts/make_screenshot.py
"""

from __future__ import annotations

import napari
from screenshots import IMAGES, save, segment_the_sample, wait


def main() -> None:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 980)
    regions, objects = segment_the_sample(viewer)
    regions.opacity, objects.contour = 0.35, 2
    viewer.reset_view(margin=0.02)
    wait(1)
    save(viewer, IMAGES / "segment.png")
    viewer.close()


if __name__ == "__main__":
    main()
