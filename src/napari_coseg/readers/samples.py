"""Real images to try things on, without a download."""

from __future__ import annotations

from napari_coseg.types import Image

COLON_PIXEL_SIZE_UM = 0.45
"""Not recorded; judged from its nuclei, of which the round ones are about 6 um wide."""


def colon() -> Image:
    """A piece of colon with glands, 512 x 512, that scikit-image carries.

    Taken at the Center for Microscopy and Molecular Imaging (Gosselies); no known copyright
    restrictions. Hematoxylin with a brown DAB stain of FHL2 in the epithelium: not H&E.
    """
    from skimage.data import immunohistochemistry

    size = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
    return Image(immunohistochemistry(), "YXC", size, "colon")
