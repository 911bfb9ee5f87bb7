"""PUMA: tissue and nuclei of melanoma H&E at 40x, 206 training images of 1024 x 1024.

Schuiveling et al., "A novel dataset for nuclei and tissue segmentation in melanoma", GigaScience
2025, and the challenge of that name. As released:

    root/01_training_dataset_tif_ROIs/<name>.tif
    root/01_training_dataset_geojson_nuclei/<name>_nuclei.geojson
    root/01_training_dataset_geojson_tissue/<name>_tissue.geojson

All files in one folder are read too. Without tissue files there are no regions; `check` notes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE, LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import find_folder, images_in, natural_key, read_rgb
from napari_coseg.datasets.geojson import Outline, draw, read_outlines

# The challenge's names, in its order.
_NUCLEI = (
    LabelClass(1, "tumor", (200, 60, 60)),
    LabelClass(2, "lymphocyte", (60, 100, 220)),
    LabelClass(3, "plasma_cell", (140, 90, 220)),
    LabelClass(4, "histiocyte", (240, 160, 60)),
    LabelClass(5, "melanophage", (130, 90, 50)),
    LabelClass(6, "neutrophil", (230, 110, 200)),
    LabelClass(7, "stroma", (70, 170, 90)),
    LabelClass(8, "epithelium", (90, 200, 200)),
    LabelClass(9, "endothelium", (200, 200, 60)),
    LabelClass(10, "apoptosis", (120, 120, 120)),
)
_TISSUES = (
    LabelClass(1, "tumor", (190, 80, 110)),
    LabelClass(2, "stroma", (130, 200, 140)),
    LabelClass(3, "epidermis", (110, 140, 210)),
    LabelClass(4, "necrosis", (110, 80, 70)),
    LabelClass(5, "blood_vessel", (220, 170, 60)),
)
_BACKGROUND = "white_background"  # bare glass; outlined in some files


@dataclass(frozen=True, kw_only=True)
class Puma(Dataset):
    """The classes of Co-Seg++ (section 4.1): tumour and stroma; three kinds of nuclei.

    Plasma cells count as lymphocytes, as in the challenge's first track (tumour-infiltrating
    lymphocytes); the seven other types form one class. Other tissues are background.

    Parameters
    ----------
    images, nuclei, tissue
        Folders; None without such files.
    """

    images: Path
    nuclei: Path | None
    tissue: Path | None

    NAME: ClassVar[str] = "puma"
    NUCLEI: ClassVar[tuple[LabelClass, ...]] = (
        *_NUCLEI[:2],
        LabelClass(3, "other", (150, 150, 150)),
    )
    TISSUES: ClassVar[tuple[LabelClass, ...]] = _TISSUES[:2]
    NUCLEUS_IDS: ClassVar[Mapping[str, int]] = {
        f"nuclei_{kind.name}": {"tumor": 1, "lymphocyte": 2, "plasma_cell": 2}.get(kind.name, 3)
        for kind in _NUCLEI
    }
    TISSUE_IDS: ClassVar[Mapping[str, int]] = {
        f"tissue_{kind.name}": kind.id if kind.id <= 2 else 0 for kind in _TISSUES
    } | {f"tissue_{_BACKGROUND}": 0}

    @classmethod
    def open(cls, root: Path) -> Puma:
        images = find_folder(root, "01_training_dataset_tif_ROIs") or root
        images_in(images)
        nuclei = find_folder(root, "01_training_dataset_geojson_nuclei") or images
        tissue = find_folder(root, "01_training_dataset_geojson_tissue") or images
        return cls(
            root=root,
            name=cls.NAME,
            splits=("all",),
            pixel_size_um=0.23,
            layout=Layout(),
            semantic_classes=cls.TISSUES,
            instance_classes=cls.NUCLEI,
            official_images={"all": 206},
            images=images,
            nuclei=nuclei if any(nuclei.glob("*_nuclei.geojson")) else None,
            tissue=tissue if any(tissue.glob("*_tissue.geojson")) else None,
        )

    def names(self, split: str) -> tuple[str, ...]:
        self.folder(split)
        return tuple(sorted(images_in(self.images), key=natural_key))

    def load(self, split: str, name: str) -> Sample:
        self.folder(split)
        files = images_in(self.images)
        if name not in files:
            raise DatasetError(f"dataset {self.name!r}: no image {name} in {self.images}")
        image = read_rgb(files[name])
        semantic, instances, types = None, None, None
        if self.tissue is not None:
            path = self.tissue / f"{name}_tissue.geojson"
            outlines, ids = _read(path, self.TISSUE_IDS)
            semantic = draw(outlines, ids, image.shape[:2], np.uint8)
        if self.nuclei is not None:
            outlines, ids = _read(self.nuclei / f"{name}_nuclei.geojson", self.NUCLEUS_IDS)
            numbers = range(1, len(outlines) + 1)
            instances = draw(outlines, numbers, image.shape[:2], LABEL_DTYPE)
            types = np.array([0, *ids], np.uint8)[instances]
        return Sample(name, image, self.pixel_size_um, semantic, instances, types)

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        without = (
            f"no file *_{kind}.geojson: {what} are not known"
            for kind, what, there in (
                ("tissue", "regions", self.tissue),
                ("nuclei", "objects", self.nuclei),
            )
            if there is None
        )
        return (*super().notes(images), *without)


@dataclass(frozen=True, kw_only=True)
class Puma10(Puma):
    """The classes of the challenge: five tissues; ten kinds of nuclei."""

    NAME: ClassVar[str] = "puma-10"
    NUCLEI: ClassVar[tuple[LabelClass, ...]] = _NUCLEI
    TISSUES: ClassVar[tuple[LabelClass, ...]] = _TISSUES
    NUCLEUS_IDS: ClassVar[Mapping[str, int]] = {f"nuclei_{kind.name}": kind.id for kind in _NUCLEI}
    TISSUE_IDS: ClassVar[Mapping[str, int]] = {
        f"tissue_{kind.name}": kind.id for kind in _TISSUES
    } | {f"tissue_{_BACKGROUND}": 0}


def _read(path: Path, ids: Mapping[str, int]) -> tuple[tuple[Outline, ...], list[int]]:
    """Outlines of a file and the class id of each."""
    outlines = read_outlines(path)
    unknown = sorted({outline.name for outline in outlines} - set(ids))
    if unknown:
        raise DatasetError(
            f"{path} holds the unknown classes {unknown}; known are {', '.join(ids)}"
        )
    return outlines, [ids[outline.name] for outline in outlines]
