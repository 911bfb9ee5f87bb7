"""MoNuSeg: nuclei of H&E at 40x, 30 or 37 training and 14 test images of 1000 x 1000, no types.

Kumar et al., "A dataset and a technique for generalized nuclear segmentation for computational
pathology", IEEE Transactions on Medical Imaging 2017; the challenge of 2018 added images. The
training images show seven organs, one image per patient. Two layouts are read:

    root/.../{Tissue Images/<name>.tif, Annotations/<name>.xml}     as released, for training
    root/.../<any folder with "test" in its name>/<name>.{tif,xml}  as released, for the test
    root/<split>/{images,inst}/<name>.{jpg,png}                     unpacked

Where nuclei overlap, the smaller one wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.aperio import read_regions
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import folders_below, read_rgb
from napari_coseg.datasets.geojson import draw
from napari_coseg.datasets.paired import PairedFiles, pair_folders

PIXEL_SIZE_UM = 0.25
SPLITS = ("train", "test")


class Monuseg(Dataset):
    """Nuclei as objects without classes; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Monuseg:
        splits = tuple(split for split in SPLITS if (root / split / "images").is_dir())
        if not splits:
            return MonusegXml.open(root)
        return cls(
            root=root,
            name="monuseg",
            splits=splits,
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(instances="inst"),
        )


@dataclass(frozen=True, kw_only=True)
class MonusegXml(PairedFiles, Monuseg):
    """As released: the outlines are annotations of Aperio ImageScope."""

    @classmethod
    def open(cls, root: Path) -> MonusegXml:
        folders: dict[str, list[tuple[Path, Path]]] = {split: [] for split in SPLITS}
        for labels in folders_below(root, depth=3):
            if not any(labels.glob("*.xml")):
                continue
            beside = labels.parent / "Tissue Images"
            images = beside if beside.is_dir() else labels
            below = labels.relative_to(root).as_posix() if labels != root else root.name
            in_test = "test" in below.lower()
            folders["test" if in_test else "train"].append((images, labels))
        pairs = {split: pair_folders(found, ".xml") for split, found in folders.items() if found}
        if not pairs:
            raise DatasetError(
                f"dataset 'monuseg': {root} has neither train/images with train/inst, nor *.xml "
                "annotations beside their images or a folder 'Tissue Images'"
            )
        return cls(
            root=root,
            name="monuseg",
            splits=tuple(pairs),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(),
            pairs=pairs,
        )

    def load(self, split: str, name: str) -> Sample:
        picture, annotations = self.pair(split, name)
        image = read_rgb(picture)
        outlines = read_regions(annotations, "nucleus")
        height, width = image.shape[:2]
        nuclei = draw(outlines, range(1, len(outlines) + 1), (height, width), LABEL_DTYPE)
        return Sample(name, image, self.pixel_size_um, instances=nuclei)
