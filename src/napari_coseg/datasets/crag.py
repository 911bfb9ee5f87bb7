"""CRAG: glands of colorectal adenocarcinoma H&E at 20x, 173 and 40 images of about 1512 x 1516.

Graham et al., "MILD-Net: Minimal information loss dilated network for gland instance segmentation
in colon histology images", Medical Image Analysis 2019. As released:

    root/train/{Images,Annotation}/<name>.png
    root/valid/{Images,Annotation}/<name>.png        ``test`` in some copies

Annotation values are gland ids. `Crag` reads them as a region, `CragGlands` as objects too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import find_folder, read_labels, read_rgb
from napari_coseg.datasets.glas import GLAND_CLASSES, gland_sample


@dataclass(frozen=True)
class Crag(Dataset):
    """Glands as a region."""

    NAME: ClassVar[str] = "crag"
    AS_OBJECTS: ClassVar[bool] = False

    @classmethod
    def open(cls, root: Path) -> Crag:
        images = find_folder(root, "Images", depth=3)
        if images is None:
            raise DatasetError(f"no folder train/Images of CRAG in {root}")
        root = images.parent.parent
        splits = tuple(
            split for split in ("train", "valid", "test") if (root / split / "Images").is_dir()
        )
        annotations = find_folder(images.parent, "Annotation", "Annotations", depth=1)
        return cls(
            root=root,
            name=cls.NAME,
            splits=splits or ("train",),
            pixel_size_um=0.55,
            layout=Layout(
                images="Images", semantic=annotations.name if annotations else "Annotation"
            ),
            semantic_classes=GLAND_CLASSES,
            instance_classes=GLAND_CLASSES if cls.AS_OBJECTS else (),
            official_images={"train": 173, "valid" if "valid" in splits else "test": 40},
        )

    def load(self, split: str, name: str) -> Sample:
        image = read_rgb(self._file(split, self.layout.images, name))
        glands = read_labels(self._file(split, self.layout.semantic or "", name))
        return gland_sample(name, image, glands, self.pixel_size_um, self.AS_OBJECTS)


@dataclass(frozen=True)
class CragGlands(Crag):
    """Glands as a region and as objects."""

    NAME: ClassVar[str] = "crag-glands"
    AS_OBJECTS: ClassVar[bool] = True
