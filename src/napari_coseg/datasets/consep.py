"""CoNSeP: nuclei of colorectal H&E at 40x, 27 training and 14 test images of 1000 x 1000.

Graham et al., "HoVer-Net: Simultaneous segmentation and classification of nuclei in multi-tissue
histology images", Medical Image Analysis 2019. Its seven types are grouped into four, as in the
paper. There is no region mask.
"""

from __future__ import annotations

from pathlib import Path

from napari_coseg.datasets.base import Dataset, Layout
from napari_coseg.types import LabelClass

NUCLEUS_CLASSES = (
    LabelClass(1, "inflammatory", (227, 62, 62)),
    LabelClass(2, "epithelial", (48, 176, 82)),
    LabelClass(3, "spindle", (52, 120, 235)),
    LabelClass(4, "miscellaneous", (240, 190, 40)),
)
"""Spindle-shaped: fibroblast, muscle, endothelial. Miscellaneous: necrotic, mitotic and others."""

FILE_TYPE_IDS = {1: 4, 2: 1, 3: 2, 4: 3}
"""The files order them miscellaneous, inflammatory, epithelial, spindle-shaped."""


class Consep(Dataset):
    """Folders ``train`` and ``test``, each with ``images``, ``inst`` and ``type4``."""

    @classmethod
    def open(cls, root: Path) -> Consep:
        return cls(
            root=root,
            name="consep",
            splits=("train", "test"),
            pixel_size_um=0.25,
            layout=Layout(instances="inst", instance_types="type4"),
            instance_classes=NUCLEUS_CLASSES,
            type_ids=FILE_TYPE_IDS,
        )
