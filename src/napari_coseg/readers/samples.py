"""Real images to try things on, without a download."""

from __future__ import annotations

import numpy as np

from napari_coseg.types import Image

COLON_PIXEL_SIZE_UM = 0.45
"""Not recorded; judged from its nuclei, of which the round ones are about 6 um wide."""

HEMATOXYLIN = np.array([0.56, 0.72, 0.41])
EOSIN = np.array([0.16, 0.80, 0.50])
"""Optical density of red, green and blue in H&E as scanners of these days show it."""
FULL_HEMATOXYLIN, FULL_DAB = 0.0515, 0.19
"""Amounts of the two stains in the darkest hundredth of the sample image."""


def colon() -> Image:
    """A piece of colon with glands, 512 x 512, recoloured to look like H&E.

    The picture is one that scikit-image carries, taken at the Center for Microscopy and Molecular
    Imaging (Gosselies), with no known copyright restrictions: hematoxylin and a brown DAB stain in
    the epithelium. No H&E image that may be passed on comes with a library, so its stains are
    separated and put together again: hematoxylin stays, tissue is stained with eosin, and the
    brown becomes the paler, bluer cytoplasm of epithelium. Shapes and nuclei are as they were.
    """
    from skimage.data import immunohistochemistry

    size = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
    return Image(recoloured_to_he(immunohistochemistry()), "YXC", size, "colon")


def recoloured_to_he(image: np.ndarray) -> np.ndarray:
    """Hematoxylin and DAB, uint8 (Y, X, 3) -> as if stained with hematoxylin and eosin."""
    from skimage.color import hdx_from_rgb, separate_stains
    from skimage.filters import gaussian

    stains = separate_stains(image, hdx_from_rgb)
    hematoxylin = np.clip(stains[..., 0] / FULL_HEMATOXYLIN, 0, 1.4)
    dab = np.clip(stains[..., 1] / FULL_DAB, 0, 1.2)
    tissue = 1 - np.exp(-6 * gaussian(np.clip(hematoxylin + dab - 0.08, 0, None), 2))
    blue = 1.25 * hematoxylin + 0.25 * dab
    pink = 0.42 * tissue - 0.12 * np.clip(dab, 0, 1)
    density = blue[..., None] * HEMATOXYLIN + pink[..., None] * EOSIN
    return (243 * np.exp(-np.clip(density, 0, None))).astype(np.uint8)
