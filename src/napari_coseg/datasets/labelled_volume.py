"""A volume with its labels as a whole, and the check that they lie on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import Image
from napari_coseg.images.volumes import VolumeHeader

LARGEST_SHIFT = 0.5
"""Largest distance of labels from their image in voxels; files round positions."""


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """One case as a whole: the fields of `Sample`, as arrays (Z, Y, X).

    Axes run towards head, back and left.

    Parameters
    ----------
    image
        Values as in the file, read on demand, with their geometry.
    pixel_size_um
        Micrometres per voxel along z, y, x.
    """

    name: str
    image: Image
    pixel_size_um: tuple[float, float, float]
    semantic: np.ndarray | None
    instances: np.ndarray | None
    instance_types: np.ndarray | None
    semantic_known: np.ndarray | None
    instances_known: np.ndarray | None


def refuse_misplaced(image: VolumeHeader, labels: VolumeHeader) -> None:
    """`DatasetError` unless labels have their image's shape, spacing and position."""
    if image.upright_shape != labels.upright_shape or not np.allclose(
        image.upright_spacing_mm, labels.upright_spacing_mm, rtol=0.01
    ):
        raise DatasetError(
            f"{image.path} has {image.upright_shape} voxels of {image.upright_spacing_mm} mm, "
            f"{labels.path} {labels.upright_shape} of {labels.upright_spacing_mm} mm (z, y, "
            "x); labels must have the image's shape and spacing"
        )
    away = farthest_apart(image, labels)
    if away > LARGEST_SHIFT:
        raise DatasetError(
            f"{labels.path} is displaced from {image.path}: voxels of the same index are up to "
            f"{away:.3g} voxels apart; labels must have the image's origin and directions"
        )


def farthest_apart(one: VolumeHeader, other: VolumeHeader) -> float:
    """Largest distance between equal corners of two volumes, in voxels of `one`.

    0 if one of the files gives no position.
    """
    here, there = one.upright_geometry, other.upright_geometry
    if (here.unit, here.space) != (there.unit, there.space):
        return 0.0
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(one.upright_shape) - 1)
    away = here.index(there.world(corners)) - corners
    return float(np.linalg.norm(away, axis=1).max())
