"""A tiny label volume of two jaws with teeth that touch, in place of the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cases.volume_twins import write_nifti
from napari_coseg.datasets.cbct_anatomy import Source
from napari_coseg.datasets.synthetic_cbct import SOURCE

SPACING_MM = 1.0
TEETH_OF_A_JAW = 8
SHAPE = (60, 62, 70)


def dental_labels() -> np.ndarray:
    """uint8 (Z, Y, X) at 1 mm: eight teeth of 7 mm on a half circle in each jaw, front at y = 8.

    Lower teeth are at z 18 to 30, of which the mandible holds those up to 23; the upper ones mirror
    them at z = 31.
    """
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    angle = np.arctan2(x - 35, 36 - y)
    radius = np.hypot(x - 35, 36 - y)
    in_arch = np.abs(angle) < 1.75
    labels = np.zeros(SHAPE, np.uint8)
    below = np.where(z > 30, 61 - z, z)  # the upper half mirrored
    bone = in_arch & (np.abs(radius - 26) < 6) & (below > 8) & (below < 24)
    labels[bone] = np.where(z > 30, Source.UPPER_JAW, Source.LOWER_JAW)[bone]
    for centre in (np.arange(TEETH_OF_A_JAW) - (TEETH_OF_A_JAW - 1) / 2) * 0.27:
        cy, cx = 36 - 26 * np.cos(centre), 35 + 26 * np.sin(centre)
        wide = np.where(below > 21, 3.7, 2.6)  # touching at the crowns
        tooth = (np.hypot(y - cy, x - cx) < wide) & (below >= 18) & (below <= 30)
        labels[tooth] = np.where(z > 30, Source.UPPER_TEETH, Source.LOWER_TEETH)[tooth]
    canal = in_arch & (np.hypot(radius - 26, below - 12) < 1.5) & (np.abs(angle) > 0.6) & (z < 30)
    labels[canal] = Source.CANAL
    return labels


def make_dental(root: Path) -> Path:
    """The folder of a dataset that has not been prepared."""
    affine = np.diag((-SPACING_MM, -SPACING_MM, SPACING_MM, 1))
    write_nifti(root / SOURCE, dental_labels(), affine)
    return root
