"""EBHI-Seg: glands and lesions of colorectal biopsies, H&E, images of 224 x 224, no nuclei.

Shi et al., "EBHI-Seg: A novel enteroscope biopsy histopathological hematoxylin and eosin image
dataset for image segmentation tasks", Frontiers in Medicine 2023. Splits keep the images
of a case together. The pixel size is not published; crypts suggest about 1 um. The outlines
enclose the lumen and are slightly generous. Two layouts are read:

    root/.../<class>/{image,label}/<name>.png     as released; a name begins with case and "-"
    root/{images,gland}/<case>_<name>.{jpg,png}   unpacked
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import folders_below, read_rgb
from napari_coseg.datasets.glas import GLAND_CLASSES
from napari_coseg.datasets.paired import PairedFiles, pair_folders

PIXEL_SIZE_UM = 1.0


class Ebhi(Dataset):
    """Glands as a region; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Ebhi:
        if not (root / "images").is_dir():
            return EbhiClasses.open(root)
        return cls(
            root=root,
            name="ebhi",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(semantic="gland"),
            semantic_classes=GLAND_CLASSES,
        )

    def source(self, name: str) -> str:
        """The case."""
        return f"case {name.split('_')[0]}"


@dataclass(frozen=True, kw_only=True)
class EbhiClasses(PairedFiles, Ebhi):
    """As released: a folder per diagnosis, whose name becomes the prefix of the image name."""

    @classmethod
    def open(cls, root: Path) -> EbhiClasses:
        pairs: dict[str, tuple[Path, Path]] = {}
        for folder in folders_below(root, depth=2):
            images, labels = folder / "image", folder / "label"
            if images.is_dir() and labels.is_dir():
                diagnosis = folder.name.replace(" ", "-")
                pairs |= pair_folders([(images, labels)], prefix=f"{diagnosis}_")
        if not pairs:
            raise DatasetError(
                f"dataset 'ebhi': {root} has neither images and gland, nor folders of diagnoses "
                "with image and label"
            )
        return cls(
            root=root,
            name="ebhi",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(),
            semantic_classes=GLAND_CLASSES,
            pairs={"all": pairs},
        )

    def load(self, split: str, name: str) -> Sample:
        picture, truth = self.pair(split, name)
        glands = read_rgb(truth, without_alpha=True).max(axis=-1) > 0  # masks of any mode
        return Sample(name, read_rgb(picture), self.pixel_size_um, semantic=glands.astype(np.uint8))

    def source(self, name: str) -> str:
        """The case: the part of the file name before the first "-"."""
        stem = name.split("_", 1)[1]
        return f"case {stem.split('-')[0]}"
