"""Small volumes that lie in a patient in awkward ways, with one dark object in each.

Positions are computed from the files by nibabel or SimpleITK, independently of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.stub_models import StubModel, stub_card

SPACING = (0.5, 0.5, 0.8)
"""Millimetres per voxel to the left, to the back, to the head."""
ORIGIN = (-31.25, 12.5, -374.0)
"""LPS of the first voxel of the upright volume."""
TOLERANCE_MM = 0.1 * min(SPACING)


def model() -> StubModel:
    """Finds the object: works at the in-plane size of the voxels, 0.5 mm."""
    return StubModel(stub_card(pixel_size_um=500.0))


def upright_values() -> np.ndarray:
    """uint8 (Z, Y, X) towards head, back and left: white, with a lopsided dark object."""
    values = np.full((9, 40, 52), 250, np.uint8)
    z, y, x = np.indices(values.shape)
    values[((y - 12) / 7) ** 2 + ((x - 33) / 9) ** 2 + ((z - 5) / 3) ** 2 < 1] = 50
    values[6:8, 18:24, 30:37] = 50
    return values


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (a for a in range(3) if a != axis)
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@dataclass(frozen=True)
class Placed:
    """How a volume is stored.

    Parameters
    ----------
    ending
        Of the file: ".mha" is written by SimpleITK, others by nibabel.
    stored
        Letters of the file's axes, fastest first, as SimpleITK names them: "LPS" runs to the left,
        back and head.
    tilt
        Degrees about the axes to the left, back and head.
    """

    ending: str
    stored: str = "LPS"
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def image(self, values: np.ndarray | None = None) -> Any:
        """SimpleITK's image of upright values, stored and placed in this way."""
        sitk = pytest.importorskip("SimpleITK")
        image = sitk.GetImageFromArray(upright_values() if values is None else values)
        image.SetSpacing(SPACING)
        image = sitk.DICOMOrient(image, self.stored)
        turn = rotation(self.tilt)
        directions = turn @ np.array(image.GetDirection()).reshape(3, 3)
        image.SetOrigin((turn @ image.GetOrigin() + ORIGIN).tolist())
        image.SetDirection(directions.ravel().tolist())
        return image

    def write(self, path: Path, values: np.ndarray | None = None) -> None:
        sitk = pytest.importorskip("SimpleITK")
        image = self.image(values)
        if self.ending == ".mha":
            sitk.WriteImage(image, str(path))
            return
        import nibabel

        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine(image)
        nibabel.save(nibabel.Nifti1Image(sitk.GetArrayFromImage(image).T, affine), path)


def lps_affine(image: Any) -> np.ndarray:
    """(4, 4) of a SimpleITK image: (x, y, z) index to left, back, head."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def phantom() -> np.ndarray:
    """uint8 (9, 40, 52): 1 in the middle, 2 to the left of it, 3 behind, 4 above; each one box."""
    values = np.zeros((9, 40, 52), np.uint8)
    values[3:5, 16:22, 20:28] = 1
    values[3:5, 17:20, 38:47] = 2
    values[3:4, 29:36, 22:25] = 3
    values[6:8, 18:20, 24:26] = 4
    return values


def centroids_lps(values: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """World position of each label of (z, y, x) values; `affine` as of `lps_affine`."""
    labels = (int(label) for label in np.unique(values) if label)
    return {
        label: (affine @ [*np.argwhere(values == label).mean(axis=0)[::-1], 1.0])[:3]
        for label in labels
    }


PLACED = {
    "LPS": Placed(".nii.gz"),
    "sagittal": Placed(".nii.gz", stored="PSL"),
    "oblique": Placed(".nii.gz", stored="RAS", tilt=(12.0, -7.0, 20.0)),
    "oblique sagittal mha": Placed(".mha", stored="AIR", tilt=(5.0, 9.0, -15.0)),
}
CROP = ((2, 9), (4, 38), (15, 50))
"""Half-open bounds of the upright axes; holds the whole object."""


def centroid_ras(path: Path, is_label: bool) -> np.ndarray:
    """World position (RAS, mm) of the dark object of a volume, or of all objects of labels."""
    if path.name.endswith(".mha"):
        sitk = pytest.importorskip("SimpleITK")
        image = sitk.ReadImage(str(path))
        values = sitk.GetArrayFromImage(image)
        index = np.argwhere(values > 0 if is_label else values < 128).mean(axis=0)[::-1]
        left, back, head = image.TransformContinuousIndexToPhysicalPoint(index.tolist())
        return np.array([-left, -back, head])
    import nibabel

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    index = np.argwhere(values > 0 if is_label else values < 128).mean(axis=0)
    found: np.ndarray = image.affine @ [*index, 1.0]
    return found[:3]
