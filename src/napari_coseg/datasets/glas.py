"""GlaS: glands of colon H&E at 20x, 85 training and 60 test images, mostly 775 x 522.

Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest",
Medical Image Analysis 2017. Read here as a binary region mask; there are no nuclei.
"""

from __future__ import annotations

from pathlib import Path

from napari_coseg.datasets.base import Dataset, Layout
from napari_coseg.types import LabelClass

GLAND_CLASSES = (LabelClass(1, "gland", (160, 90, 200)),)


class Glas(Dataset):
    """Folders ``train`` and ``testA``, each with ``images`` and ``gland``."""

    @classmethod
    def open(cls, root: Path) -> Glas:
        return cls(
            root=root,
            name="glas",
            splits=("train", "testA"),
            # Sources say 0.465 and 0.62; 0.5 lies between them.
            pixel_size_um=0.5,
            layout=Layout(semantic="gland"),
            semantic_classes=GLAND_CLASSES,
        )
