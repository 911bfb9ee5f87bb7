"""Lizard: nuclei of colon H&E at 20x, 238 images put together from six datasets.

Graham et al., "Lizard: A large-scale dataset for colonic nuclear instance segmentation and
classification", ICCV workshops 2021. As released; folders may be nested in one of the same name:

    root/lizard_images1/<name>.png, root/lizard_images2/<name>.png
    root/lizard_labels/Labels/<name>.mat, root/lizard_labels/info.csv

A label file has ``inst_map`` (nucleus ids) and ``id`` and ``class``, (N, 1) each, the class of each
id. The six types are grouped as in Co-Seg++ (section 4.1 and the authors' code):
neutrophils, lymphocytes, plasma cells and eosinophils are lympho-reticular.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import (
    as_labels,
    find_folder,
    images_in,
    natural_key,
    read_rgb,
)
from napari_coseg.datasets.matlab import read_mat

NUCLEUS_CLASSES = (
    LabelClass(1, "epithelial", (48, 176, 82)),
    LabelClass(2, "lympho-reticular", (227, 62, 62)),
    LabelClass(3, "connective", (52, 120, 235)),
)

FILE_TYPE_IDS = {1: 2, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3}
"""Neutrophil, epithelial, lymphocyte, plasma, eosinophil, connective."""

MAX_TABLE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Lizard(Dataset):
    """Nuclei of three types, in the three folds of ``info.csv`` if it exists.

    Parameters
    ----------
    labels
        Folder of the ``.mat`` files.
    images
        Name -> image file.
    parts
        Name -> "fold1", "fold2" or "fold3"; empty without ``info.csv``.
    """

    labels: Path
    images: dict[str, Path]
    parts: dict[str, str]

    @classmethod
    def open(cls, root: Path) -> Lizard:
        labels = find_folder(root, "Labels", depth=4)
        folders = [find_folder(root, f"lizard_images{i}", depth=3) for i in (1, 2)]
        if labels is None or not any(folders):
            raise DatasetError(
                f"no folders lizard_images1, lizard_images2 and lizard_labels/Labels in {root}"
            )
        images = {
            name: path for folder in folders if folder for name, path in images_in(folder).items()
        }
        parts = _read_parts(labels.parent / "info.csv")
        return cls(
            root=root,
            name="lizard",
            splits=tuple(sorted(set(parts.values()))) or ("all",),
            pixel_size_um=0.5,
            layout=Layout(),
            instance_classes=NUCLEUS_CLASSES,
            type_ids=FILE_TYPE_IDS,
            labels=labels,
            images=images,
            parts=parts,
        )

    def names(self, split: str) -> tuple[str, ...]:
        self.folder(split)
        found = (n for n in self.images if not self.parts or self.parts.get(n) == split)
        return tuple(sorted(found, key=natural_key))

    def load(self, split: str, name: str) -> Sample:
        self.folder(split)
        if name not in self.images:
            raise DatasetError(f"dataset {self.name!r}: no image {name}")
        image = read_rgb(self.images[name])
        instances, types = self.nuclei(name)
        return Sample(name, image, self.pixel_size_um, None, instances, types)

    def nuclei(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int32 (Y, X), and grouped classes, uint8 (Y, X), of the nuclei of one image."""
        path = self.labels / f"{name}.mat"
        arrays = read_mat(path, ("inst_map", "id", "class"))
        instances = as_labels(arrays["inst_map"], f"inst_map of {path}")
        ids = as_labels(arrays["id"], f"id of {path}").ravel()
        classes = as_labels(arrays["class"], f"class of {path}").ravel()
        if len(ids) != len(classes) or len(np.unique(ids)) != len(ids):
            raise DatasetError(
                f"{path} has {len(ids)} ids, {len(np.unique(ids))} of them different, and "
                f"{len(classes)} classes; each nucleus needs one of each"
            )
        there, position = np.unique(instances, return_inverse=True)
        unlisted = np.setdiff1d(there[there > 0], ids)
        if len(unlisted):
            raise DatasetError(f"{path} has no class for the nuclei {unlisted[:5].tolist()}")
        class_of = dict(zip(ids.tolist(), classes.tolist(), strict=True))
        types = np.array([class_of[i] if i else 0 for i in there.tolist()], np.int64)
        return instances, self._types(types, name)[position.reshape(instances.shape)]


def _read_parts(path: Path) -> dict[str, str]:
    """Columns ``Filename`` and ``Split`` of ``info.csv``."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DatasetError(f"{path} is larger than 1 MiB; that is not the table of Lizard")
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        return {row["Filename"].strip(): f"fold{int(row['Split'])}" for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise DatasetError(f"{path} lacks a column Filename or a whole number Split") from error
