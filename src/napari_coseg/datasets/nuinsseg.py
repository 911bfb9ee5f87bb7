"""NuInsSeg: nuclei of H&E of 31 human and mouse organs, 665 images of 512 x 512, no types.

Mahbod et al., "NuInsSeg: A fully annotated dataset for nuclei instance segmentation in H&E-stained
histological images", Scientific Data 2024. Two layouts are read:

    root/.../<organ>/{tissue images,label masks}/<name>.{png,tif}     as released
    root/.../<organ>/vague areas/[mask binary/]<name>.{png,tif}       ambiguous: not known
    root/{images,inst_or_ignore}/<name>.{jpg,png}                     unpacked

In the unpacked labels 65535 marks touching nuclei that were not separated: there objects are not
known (`Sample.instances_known`) and neither trained on nor scored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import (
    IMAGE_SUFFIXES,
    as_labels,
    folders_below,
    read_labels,
    read_rgb,
)
from napari_coseg.datasets.paired import PairedFiles, pair_folders

PIXEL_SIZE_UM = 0.25
"""Estimate; not published."""

IGNORE = 65535


class Nuinsseg(Dataset):
    """Nuclei as objects without classes; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Nuinsseg:
        if not (root / "images").is_dir():
            return NuinssegOrgans.open(root)
        return cls(
            root=root,
            name="nuinsseg",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(instances="inst_or_ignore"),
        )

    def load(self, split: str, name: str) -> Sample:
        sample = super().load(split, name)
        nuclei = np.asarray(sample.instances)
        known = np.not_equal(nuclei, IGNORE)
        return replace(
            sample, instances=np.where(known, nuclei, LABEL_DTYPE(0)), instances_known=known
        )


@dataclass(frozen=True, kw_only=True)
class NuinssegOrgans(PairedFiles, Nuinsseg):
    """As released: a folder per organ, whose name becomes the prefix of the image names."""

    @classmethod
    def open(cls, root: Path) -> NuinssegOrgans:
        organs = [path for path in folders_below(root, depth=2) if (path / "label masks").is_dir()]
        folders = [(organ / "tissue images", organ / "label masks") for organ in organs]
        pairs = pair_folders(pair for pair in folders if pair[0].is_dir())
        if not pairs:
            raise DatasetError(
                f"dataset 'nuinsseg': {root} has neither images and inst_or_ignore, nor folders of "
                "organs with tissue images and label masks"
            )
        return cls(
            root=root,
            name="nuinsseg",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(),
            official_images={"all": 665},
            pairs={"all": pairs},
        )

    def load(self, split: str, name: str) -> Sample:
        picture, truth = self.pair(split, name)
        nuclei = as_labels(read_labels(truth), f"nuclei of {name!r}")
        vague = _vague_area(truth.parent.parent / "vague areas", picture.stem)
        return Sample(
            name,
            read_rgb(picture),
            self.pixel_size_um,
            instances=nuclei,
            instances_known=None if vague is None else ~vague,
        )


def _vague_area(folder: Path, stem: str) -> np.ndarray | None:
    """Bool (Y, X); None without the file."""
    for parent in (folder, folder / "mask binary"):
        for suffix in IMAGE_SUFFIXES:
            if (parent / f"{stem}{suffix}").is_file():
                return read_rgb(parent / f"{stem}{suffix}", without_alpha=True).max(axis=-1) > 0
    return None
