"""Labels as NIfTI volumes, for ITK-SNAP, 3D Slicer and the tools of radiology."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.geometry import UNITS_UM, Geometry
from napari_coseg.core.types import Image, Prediction

LARGEST_SIDE = 32_767
"""NIfTI-1 counts voxels along an axis in 16 bits."""


THICKNESS = "thickness of the slice not known, 1 mm taken"


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """Regions as uint8 and objects as int32, over the image's voxels.

    Voxels are stored in the order in which the image's file stores them, with the affine that the
    geometry gives (sform, and qform where that can hold it), so that labels of a whole volume have
    its shape and affine. Codes: 1 (scanner) for coordinates of a patient; 0 where the image's
    file says no orientation either; 2 (aligned) for images that are of no patient, and then x, y
    and z are along the image's axes in mm. A plane is a volume of one slice, 1 mm thick.

    Raises
    ------
    OutputError
        Where a side has more than 32,767 voxels.
    """
    import nibabel

    shape = prediction.semantic.shape
    if max(shape) > LARGEST_SIDE or min(shape) < 1:
        raise OutputError(
            f"NIfTI holds sides of 1 to {LARGEST_SIDE} voxels, and {image.name} has shape {shape}; "
            "write ome-tiff or ome-zarr"
        )
    geometry = prediction.geometry
    geometry = geometry.expanded(1000 / UNITS_UM[geometry.unit])
    for path, labels in zip(paths, (prediction.semantic, prediction.instances.labels), strict=True):
        volume, stored = geometry.as_stored(labels if labels.ndim == 3 else labels[None])
        found = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), None)
        _place(found, stored)
        if labels.ndim == 2:
            found.header["descrip"] = THICKNESS.encode()
        with atomic_write(path, overwrite) as partial:
            partial.write_bytes(_packed(found))


def _place(found: Any, geometry: Geometry) -> None:
    """Write the geometry into the header, with its code and unit."""
    is_patient = geometry.space == "patient"
    keeps_um = is_patient and geometry.unit == "um"  # as a file in micrometres had it
    scale = 1.0 if keeps_um else UNITS_UM[geometry.unit] / 1000
    affine = np.diag([scale, scale, scale, 1.0]) @ geometry.ras_affine
    header = found.header
    header.set_xyzt_units("micron" if keeps_um else "mm")
    header.set_zooms([size * scale for size in geometry.spacing[::-1]])
    if not is_patient and np.allclose(affine, header.get_base_affine(), rtol=1e-5, atol=1e-5):
        found.set_sform(None, 0)
        found.set_qform(None, 0)
        return
    code = 1 if is_patient else 2
    found.set_sform(affine, code)
    found.set_qform(affine, code)
    if not np.allclose(found.get_qform(), affine, rtol=1e-4, atol=1e-4):  # sheared
        found.set_qform(affine, 0)


def _packed(image: Any) -> bytes:
    """The bytes of a .nii.gz; nibabel goes by endings, and a temporary file has another."""
    import gzip

    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
