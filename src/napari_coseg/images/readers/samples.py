"""Sample images that need no download."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE, Image

COLON_PIXEL_SIZE_UM = 0.45
"""Estimated from its round nuclei, about 6 um wide."""

FLUORESCENCE_PIXEL_SIZE_UM = 0.4
"""Estimated as in `napari_coseg.datasets.dsb2018`."""

HEMATOXYLIN = np.array([0.56, 0.72, 0.41])
EOSIN = np.array([0.16, 0.80, 0.50])
"""Optical density of red, green and blue of H&E in current scanners."""
FULL_HEMATOXYLIN, FULL_DAB = 0.0515, 0.19
"""Amounts of the two stains in the darkest 1 % of the sample image."""


def colon() -> Image:
    """A piece of colon with glands, 512 x 512, recoloured to look like H&E.

    The image ships with scikit-image (Center for Microscopy and Molecular Imaging, Gosselies; no
    known copyright restrictions) and shows hematoxylin and a brown DAB stain of the epithelium. No
    library ships a redistributable H&E image, so the stains are unmixed and recombined:
    hematoxylin stays, tissue is stained with eosin, and the brown becomes the paler, bluer
    cytoplasm of epithelium.
    """
    from skimage.data import immunohistochemistry

    size = (COLON_PIXEL_SIZE_UM, COLON_PIXEL_SIZE_UM)
    return Image(recoloured_to_he(immunohistochemistry()), "YXC", size, "colon")


def fluorescence() -> tuple[Image, np.ndarray]:
    """Nuclei of cultured cells in fluorescence, 520 x 696, with annotated nuclei.

    From the Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019; BBBC038, CC0). The shipped
    model was not trained on such images: an example for fine-tuning.

    Returns
    -------
    Image, numpy.ndarray
        uint8 (Y, X), and the ids of 123 nuclei, int32 (Y, X).
    """
    size = (FLUORESCENCE_PIXEL_SIZE_UM, FLUORESCENCE_PIXEL_SIZE_UM)
    image = Image(_picture("fluorescence.png"), "YX", size, "fluorescence")
    return image, _picture("fluorescence_nuclei.png").astype(LABEL_DTYPE)


def synthetic_cbct() -> Image:
    """A generated cone-beam CT of both jaws, 86 x 121 x 121 at 0.65 mm; it shows no real patient.

    Made by `napari_coseg.datasets.cbct_scan` from seeds that no model was trained on, after a label
    volume by G. Dot (Apache-2.0); grey values are cut to -1000 to 3000 and 64 levels.

    Returns
    -------
    Image
        uint8 (Z, Y, X) towards head, back and left.
    """
    from napari_coseg.images.readers.registry import read_image

    folder = Path(str(resources.files("napari_coseg.images"))) / "data"
    return replace(read_image(folder / "synthetic_cbct.nii.gz"), name="synthetic-cbct")


def _picture(name: str) -> np.ndarray:
    import PIL.Image

    with (resources.files("napari_coseg.images") / "data" / name).open("rb") as file:
        return np.asarray(PIL.Image.open(file))


def recoloured_to_he(image: np.ndarray) -> np.ndarray:
    """Recolour hematoxylin and DAB, uint8 (Y, X, 3), to hematoxylin and eosin."""
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
