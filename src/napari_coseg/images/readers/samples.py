"""Real images to try things on, without a download."""

from __future__ import annotations

from importlib import resources

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE, Image

COLON_PIXEL_SIZE_UM = 0.45
"""Not recorded; judged from its nuclei, of which the round ones are about 6 um wide."""

FLUORESCENCE_PIXEL_SIZE_UM = 0.4
"""Not recorded either; as in `napari_coseg.datasets.dsb2018`."""

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


def fluorescence() -> tuple[Image, np.ndarray]:
    """Nuclei of cultured cells in fluorescence, 520 x 696, and the nuclei that people drew.

    Of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019; BBBC038, CC0): what the
    shipped model has never seen, to learn fine-tuning with.

    Returns
    -------
    Image, numpy.ndarray
        uint8 (Y, X), and the ids of 123 nuclei, int32 (Y, X).
    """
    size = (FLUORESCENCE_PIXEL_SIZE_UM, FLUORESCENCE_PIXEL_SIZE_UM)
    image = Image(_picture("fluorescence.png"), "YX", size, "fluorescence")
    return image, _picture("fluorescence_nuclei.png").astype(LABEL_DTYPE)


def _picture(name: str) -> np.ndarray:
    import PIL.Image

    with (resources.files("napari_coseg.images") / "data" / name).open("rb") as file:
        return np.asarray(PIL.Image.open(file))


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
