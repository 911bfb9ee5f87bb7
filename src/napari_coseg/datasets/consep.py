"""CoNSeP: nuclei of colorectal H&E at 40x, 27 training and 14 test images of 1000 x 1000.

Graham et al., "HoVer-Net: Simultaneous segmentation and classification of nuclei in multi-tissue
histology images", Medical Image Analysis 2019. Its seven types are grouped into four, as in the
paper. There is no region mask. Two layouts are read:

    root/{Train,Test}/Images/<name>.png, root/{Train,Test}/Labels/<name>.mat     as released
    root/{train,test}/{images,inst,type4}/<name>.png                             unpacked
"""

from __future__ import annotations

from pathlib import Path

from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import as_labels, find_folder, read_rgb
from napari_coseg.datasets.matlab import read_mat

NUCLEUS_CLASSES = (
    LabelClass(1, "inflammatory", (227, 62, 62)),
    LabelClass(2, "epithelial", (48, 176, 82)),
    LabelClass(3, "spindle", (52, 120, 235)),
    LabelClass(4, "miscellaneous", (240, 190, 40)),
)
"""Spindle-shaped: fibroblast, muscle, endothelial. Miscellaneous: necrotic, mitotic and others."""

FILE_TYPE_IDS = {1: 4, 2: 1, 3: 2, 4: 3}
"""The unpacked files order them miscellaneous, inflammatory, epithelial, spindle-shaped."""

MAT_TYPE_IDS = {1: 4, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}
"""The released ones: other, inflammatory, healthy epithelial, dysplastic or malignant epithelial,
fibroblast, muscle, endothelial."""


class Consep(Dataset):
    """Nuclei of four types; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Consep:
        train = find_folder(root, "Train")
        released = train is not None and (train / "Labels").is_dir()
        if train is not None and released:
            root = train.parent
        kind = ConsepMat if released else cls
        return kind(
            root=root,
            name="consep",
            splits=("train", "test"),
            pixel_size_um=0.25,
            layout=(
                Layout(images="Images", instances="Labels")
                if released
                else Layout(instances="inst", instance_types="type4")
            ),
            instance_classes=NUCLEUS_CLASSES,
            type_ids=MAT_TYPE_IDS if released else FILE_TYPE_IDS,
            official_images={"train": 27, "test": 14},
        )


class ConsepMat(Consep):
    """As released: labels are ``inst_map`` and ``type_map`` of MATLAB files."""

    def folder(self, split: str) -> Path:
        super().folder(split)
        return self.root / split.capitalize()

    def load(self, split: str, name: str) -> Sample:
        image = read_rgb(self._file(split, "Images", name))
        path = self.folder(split) / "Labels" / f"{name}.mat"
        arrays = read_mat(path, ("inst_map", "type_map"))
        types = as_labels(arrays["type_map"], f"type_map of {path}")
        return Sample(
            name=name,
            image=image,
            pixel_size_um=self.pixel_size_um,
            instances=as_labels(arrays["inst_map"], f"inst_map of {path}"),
            instance_types=self._types(types, name),
        )
