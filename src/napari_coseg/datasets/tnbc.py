"""TNBC: nuclei of triple-negative breast cancer H&E at 40x, 50 images of 512 x 512, no types.

Naylor et al., "Segmentation of nuclei in histopathology images by deep regression of the distance
map", IEEE Transactions on Medical Imaging 2019. Image names begin with the number of the
patient and "_". Two layouts are read:

    root/.../Slide_<patient>/<name>.png and root/.../GT_<patient>/<name>.png     as released
    root/{images,inst}/<name>.{jpg,png}                                          unpacked

A released label image with a single value besides 0 is a mask; its connected components are nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import as_labels, folders_below, read_labels, read_rgb
from napari_coseg.datasets.paired import PairedFiles, pair_folders

PIXEL_SIZE_UM = 0.25


class Tnbc(Dataset):
    """Nuclei as objects without classes; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Tnbc:
        if not (root / "images").is_dir():
            return TnbcSlides.open(root)
        return cls(
            root=root,
            name="tnbc",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(instances="inst"),
            official_images={"all": 50},
        )

    def source(self, name: str) -> str:
        """The patient."""
        return f"patient {name.split('_')[0]}"


@dataclass(frozen=True, kw_only=True)
class TnbcSlides(PairedFiles, Tnbc):
    """As released: a folder of images and one of labels per patient."""

    @classmethod
    def open(cls, root: Path) -> TnbcSlides:
        slides = [path for path in folders_below(root, depth=2) if path.name.startswith("Slide_")]
        if not slides:
            raise DatasetError(
                f"dataset 'tnbc': {root} has neither images and inst, nor folders Slide_<patient> "
                "and GT_<patient>"
            )
        folders = [(path, path.with_name(path.name.replace("Slide_", "GT_"))) for path in slides]
        return cls(
            root=root,
            name="tnbc",
            splits=("all",),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(),
            official_images={"all": 50},
            pairs={"all": pair_folders(folders)},
        )

    def load(self, split: str, name: str) -> Sample:
        from scipy.ndimage import label

        picture, truth = self.pair(split, name)
        nuclei = as_labels(read_labels(truth), f"nuclei of {name!r}")
        if len(np.unique(nuclei[nuclei > 0])) == 1:
            nuclei = label(nuclei)[0].astype(LABEL_DTYPE)
        return Sample(name, read_rgb(picture), self.pixel_size_um, instances=nuclei)
