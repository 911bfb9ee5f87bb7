"""Labels as NIfTI volumes, for ITK-SNAP, 3D Slicer and the tools of radiology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, Prediction

LARGEST_SIDE = 32_767
"""NIfTI-1 counts voxels along an axis in 16 bits."""


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """Regions as uint8 and objects as int32, X fastest; a plane is a volume of one slice.

    The affine gives voxels in mm and says that X runs to the left, Y to the back and Z to the
    head, which is how a volume is taken that says nothing of its pose, and how
    `napari_coseg.images.volumes` reads it back the same way round.

    Raises
    ------
    OutputError
        Where nibabel is missing, or a side has more than 32,767 voxels.
    """
    nibabel = import_nibabel()
    shape = prediction.semantic.shape
    if max(shape) > LARGEST_SIDE or min(shape) < 1:
        raise OutputError(
            f"NIfTI holds sides of 1 to {LARGEST_SIDE} voxels, and {image.name} has shape {shape}; "
            "write ome-tiff or ome-zarr"
        )
    sizes_mm = np.array([1000.0, *prediction.pixel_size_um])[-3:] / 1000
    affine = np.diag([-sizes_mm[2], -sizes_mm[1], sizes_mm[0], 1.0])
    for path, labels in zip(paths, (prediction.semantic, prediction.instances.labels), strict=True):
        volume = labels if labels.ndim == 3 else labels[None]
        found = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), affine)
        found.header.set_xyzt_units("mm")
        with atomic_write(path, overwrite) as partial:
            partial.write_bytes(_packed(found))


def _packed(image: Any) -> bytes:
    """The bytes of a .nii.gz; nibabel goes by endings, and a temporary file has another."""
    import gzip

    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def import_nibabel() -> Any:
    """The module, or an error that says how to get it."""
    try:
        import nibabel
    except ImportError as error:
        raise OutputError(
            "NIfTI files need the package nibabel; install it with "
            "`pip install 'napari-coseg[volumes]'`"
        ) from error
    return nibabel
