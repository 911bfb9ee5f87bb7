"""Synthetic cone-beam CT of jaws and teeth, made from one label volume; none of it is a real scan.

    root/PostDentalSurgery_Segmentation.nii.gz      the label volume (see `cbct_anatomy.Source`)
    root/imagesTr, labelsTr                         written by `prepare`: train_00_0000.nii.gz, ...
    root/imagesVa, labelsVa, imagesTs, labelsTs     the same for validation and test

The volumes have the layout and the labels of ToothFairy2. All show one dentition: the splits differ
in the seeds of shape, teeth and scanner, and those of "test" are deformed and disturbed more. A
score on them says how well a network copes with that, and nothing about other patients.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Layout, Sample
from napari_coseg.datasets.cbct_anatomy import Anatomy, anatomy_of
from napari_coseg.datasets.cbct_scan import SyntheticScan, synthetic_scan
from napari_coseg.datasets.nnunet_json import VolumeLabels
from napari_coseg.datasets.nnunet_raw import NnunetRaw
from napari_coseg.datasets.slices import read_numbers
from napari_coseg.datasets.toothfairy2 import (
    FILE_REGIONS,
    FILE_TEETH,
    OTHER_STRUCTURES,
    REGION_CLASSES,
    TOOTH_CLASSES,
    WINDOW_HU,
)
from napari_coseg.images.volumes import read_header

SOURCE = "PostDentalSurgery_Segmentation.nii.gz"
ENDING = ".nii.gz"


@dataclass(frozen=True)
class _Part:
    """One split: its folders' ending, and what is generated for it."""

    ending: str
    volumes: int
    severity: float
    every_slices: int
    """Neighbouring slices show nearly the same: one in so many is a sample."""


PARTS = {
    "train": _Part("Tr", 16, 1.0, 2),
    "validation": _Part("Va", 2, 1.0, 12),
    "test": _Part("Ts", 4, 1.2, 4),
}


@dataclass(frozen=True)
class SyntheticCbct(NnunetRaw):
    """Axial slices of generated volumes, with jawbones and teeth; there is no pharynx.

    A tooth that a slice cuts into several roots is one object per root there, and one in 3D.
    """

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the folder of the label volume; `prepare` writes what is to be read."""
        return cls(
            root=root,
            name="synthetic-cbct",
            splits=tuple(PARTS),
            pixel_size_um=float("nan"),
            layout=Layout("imagesTr", "labelsTr", "labelsTr", "labelsTr"),
            semantic_classes=REGION_CLASSES[:2],
            instance_classes=TOOTH_CLASSES,
            labels=VolumeLabels(
                {value: kind for value, kind in FILE_REGIONS.items() if kind < 3},
                FILE_TEETH,
                OTHER_STRUCTURES,
            ),
            channels=("CBCT",),
            file_ending=ENDING,
            n_cases=PARTS["train"].volumes,
            window_hu=WINDOW_HU,
            every_slice=True,
        )

    def names(self, split: str) -> tuple[str, ...]:
        """Every few slices (`PARTS`) of each volume."""
        names = super().names(split)
        return names[:: PARTS[split].every_slices]

    def load(self, split: str, name: str) -> Sample:
        """One slice, with an object per connected piece of a tooth."""
        from skimage.measure import label

        sample = super().load(split, name)
        return replace(
            sample, instances=label(sample.instances, connectivity=2).astype(LABEL_DTYPE)
        )

    def prepare(self) -> tuple[Path, ...]:
        """Generate the volumes that are not there yet, some 20 s each on one core."""
        wanted = {
            (split, number): self._paths(split, f"{split}_{number:02d}")
            for split, part in PARTS.items()
            for number in range(part.volumes)
        }
        missing = {
            key: paths for key, paths in wanted.items() if not all(p.is_file() for p in paths)
        }
        if not missing:
            return ()
        anatomy = read_anatomy(self.root / SOURCE)
        for (split, number), paths in missing.items():
            seed = (list(PARTS).index(split), number)
            write_scan(synthetic_scan(anatomy, seed, PARTS[split].severity), *paths)
        self._write_description()
        return tuple(path for paths in missing.values() for path in paths)

    def _folders(self, split: str) -> tuple[Path, Path]:
        self.folder(split)  # refuses an unknown split
        ending = PARTS[split].ending
        return self.root / f"images{ending}", self.root / f"labels{ending}"

    def _paths(self, split: str, case: str) -> tuple[Path, Path]:
        images, labels = self._folders(split)
        return images / f"{case}_0000{ENDING}", labels / f"{case}{ENDING}"

    def _write_description(self) -> None:
        """As nnU-Net and the reader of ToothFairy2 expect it."""
        labels = {"background": 0, "lower jawbone": 1, "upper jawbone": 2}
        labels |= {"left alveolar canal": 3, "right alveolar canal": 4}
        labels |= {f"tooth {number}": number for number in FILE_TEETH}
        content = {
            "name": "synthetic-cbct: generated, no real scans",
            "channel_names": {"0": "CBCT"},
            "labels": labels,
            "numTraining": PARTS["train"].volumes,
            "file_ending": ENDING,
        }
        with atomic_write(self.root / "dataset.json", overwrite=True) as partial:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_anatomy(path: Path) -> Anatomy:
    """Tissues from the file of a label volume.

    Raises
    ------
    DatasetError
        If it is missing, is no such volume, or its voxels are not cubes.
    """
    if not path.is_file():
        raise DatasetError(
            f"there is no {path}; put the label volume there that the synthetic scans are made from"
        )
    header = read_header(path)
    spacing = header.upright_spacing_mm
    if not np.allclose(spacing, spacing[0], rtol=0.01):
        raise DatasetError(
            f"voxels of {path} measure {spacing} mm (z, y, x); expected cubes: resample the volume"
        )
    return anatomy_of(header.upright(read_numbers(header)), spacing[0])


def write_scan(scan: SyntheticScan, image: Path, labels: Path) -> None:
    """Write values and labels as .nii.gz."""
    for array, path in ((scan.values, image), (scan.labels, labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, overwrite=True) as partial:
            partial.write_bytes(_nifti(array, scan.spacing_mm))


def _nifti(array: np.ndarray, spacing_mm: float) -> bytes:
    """(Z, Y, X) towards head, back and left; NIfTI's world runs to the right and to the front."""
    import gzip

    import nibabel

    affine: Any = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    found = nibabel.Nifti1Image(np.ascontiguousarray(array.T), affine)
    found.header.set_xyzt_units("mm")
    found.header["descrip"] = b"synthetic, no real scan"
    return gzip.compress(found.to_bytes(), compresslevel=1, mtime=0)
