"""BCSS: tissue of breast cancer H&E, 151 TCGA images at 0.25 um, about 1000 to 7000 px wide.

Amgad et al., "Structured crowdsourcing enables convolutional segmentation of histology images",
Bioinformatics 2019. As released, in the given folder or one below it:

    rgbs_colorNormalized/<name>.png     ``images`` if fetched by the authors' script
    masks/<name>.png                    region codes, as in their ``meta/gtruth_codes.tsv``

Code 0 is outside the annotated region, not background: there, and for the code "exclude",
`Sample.semantic_known` is False.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import find_folder, images_in, natural_key, read_labels, read_rgb

CODES = (
    "outside_roi", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris",
    "glandular_secretions", "blood", "exclude", "metaplasia_NOS", "fat", "plasma_cells",
    "other_immune_infiltrate", "mucoid_material", "normal_acinus_or_duct", "lymphatics",
    "undetermined", "nerve", "skin_adnexa", "blood_vessel", "angioinvasion", "dcis", "other",
)  # fmt: skip
"""Names of the mask values 0 to 21."""

UNKNOWN = ("outside_roi", "exclude")

_CLASSES = (
    LabelClass(1, "tumor", (190, 80, 110)),
    LabelClass(2, "stroma", (130, 200, 140)),
    LabelClass(3, "inflammatory", (60, 100, 220)),
    LabelClass(4, "necrosis", (110, 80, 70)),
    LabelClass(5, "other", (200, 200, 120)),
)
_GROUPS = {
    "tumor": 1, "angioinvasion": 1, "dcis": 1,
    "stroma": 2,
    "lymphocytic_infiltrate": 3, "plasma_cells": 3, "other_immune_infiltrate": 3,
    "necrosis_or_debris": 4,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bcss(Dataset):
    """Tumour and stroma, with the ids of PUMA, for transfer from it (Co-Seg++, section 4.7).

    Angioinvasion and DCIS count as tumour, as in the dataset's own groups; the paper does not say.
    Everything else that is annotated is background.
    """

    images: Path
    masks: Path

    NAME: ClassVar[str] = "bcss"
    CLASSES: ClassVar[tuple[LabelClass, ...]] = _CLASSES[:2]
    IDS: ClassVar[Mapping[str, int]] = {name: id_ for name, id_ in _GROUPS.items() if id_ <= 2}

    @classmethod
    def open(cls, root: Path) -> Bcss:
        images = find_folder(root, "rgbs_colorNormalized", "rgbs", "rgb", "images")
        masks = find_folder(root, "masks", "mask")
        if images is None or masks is None:
            missing = "masks" if images else "rgbs_colorNormalized (or images)"
            raise DatasetError(f"no folder {missing} of BCSS in {root}")
        return cls(
            root=root,
            name=cls.NAME,
            splits=("all",),
            pixel_size_um=0.25,
            layout=Layout(images=images.name, semantic=masks.name),
            semantic_classes=cls.CLASSES,
            official_images={"all": 151},
            images=images,
            masks=masks,
        )

    def names(self, split: str) -> tuple[str, ...]:
        self.folder(split)
        return tuple(sorted(images_in(self.images), key=natural_key))

    def load(self, split: str, name: str) -> Sample:
        self.folder(split)
        image = read_rgb(self.images / f"{name}.png")
        codes = read_labels(self.masks / f"{name}.png")
        if codes.size and codes.max() >= len(CODES):
            raise DatasetError(f"the mask of {name!r} holds {codes.max()}; codes are 0 to 21")
        table = np.array([self.IDS.get(code, 0) for code in CODES], np.uint8)
        known = np.array([code not in UNKNOWN for code in CODES])
        return Sample(name, image, self.pixel_size_um, table[codes], semantic_known=known[codes])


@dataclass(frozen=True, kw_only=True)
class Bcss5(Bcss):
    """The five groups of the dataset's authors."""

    NAME: ClassVar[str] = "bcss-5"
    CLASSES: ClassVar[tuple[LabelClass, ...]] = _CLASSES
    IDS: ClassVar[Mapping[str, int]] = {
        code: _GROUPS.get(code, 5) for code in CODES if code not in UNKNOWN
    }
