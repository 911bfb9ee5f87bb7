"""DSB 2018: nuclei of the Data Science Bowl, in fluorescence and in stained tissue, without types.

Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
Nature Methods 2019. Two layouts are read:

    root/stage1_train/<id>/images/<id>.png       as released: one mask per object, 0 and 255
    root/stage1_train/<id>/masks/<any>.png       (`root` may also be stage1_train itself)

    root/colour-bright/images/<id>.png           one label image per image
    root/colour-bright/labels/<id>.png
    root/fluorescence/...

Grey images become RGB with equal channels. Where masks overlap, the smaller object wins, so that
none is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import IMAGE_SUFFIXES, natural_key, read_labels, read_rgb

PIXEL_SIZE_UM = 0.4
"""Estimate: not published and varying; nuclei have a median diameter of 18 px, about 7 um."""
GROUPED_SPLITS = ("colour-bright", "fluorescence")
OFFICIAL_SPLITS: tuple[str, ...] = ("stage1_train", "stage1_test")


@dataclass(frozen=True)
class Dsb2018(Dataset):
    """Nuclei; the splits depend on the layout of the folder.

    Parameters
    ----------
    mask_folders
        True for the layout as released: a folder per image, a file per object.
    """

    mask_folders: bool = False

    @classmethod
    def open(cls, root: Path) -> Self:
        """Detect the layout from its folders."""
        looked_for = OFFICIAL_SPLITS
        if root.name in OFFICIAL_SPLITS:
            root, looked_for = root.parent, (root.name,)
        splits = tuple(split for split in looked_for if _has_masks(root / split))
        grouped = tuple(split for split in GROUPED_SPLITS if (root / split).is_dir())
        if not (splits or grouped):
            raise DatasetError(
                f"dataset 'dsb2018': {root} has neither stage1_train with a folder per image "
                f"(images, masks), nor {' or '.join(GROUPED_SPLITS)} with images and labels"
            )
        return cls(
            root=root,
            name="dsb2018",
            splits=splits or grouped,
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(instances="masks" if splits else "labels"),
            mask_folders=bool(splits),
        )

    def names(self, split: str) -> tuple[str, ...]:
        """Ids of the images."""
        if not self.mask_folders:
            return super().names(split)
        folder = self.folder(split)
        if not folder.is_dir():
            raise DatasetError(f"dataset {self.name!r} needs the folder {folder}")
        names = [path.name for path in folder.iterdir() if (path / "images").is_dir()]
        if not names:
            raise DatasetError(f"no folder in {folder} has a folder 'images'")
        return tuple(sorted(names, key=natural_key))

    def load(self, split: str, name: str) -> Sample:
        """Read one image and its objects."""
        if not self.mask_folders:
            return super().load(split, name)
        folder = self.folder(split) / name
        pictures = _pictures_in(folder / "images")
        if len(pictures) != 1:
            raise DatasetError(f"{folder / 'images'} holds {len(pictures)} images; expected one")
        image = read_rgb(pictures[0])
        labels = merge_masks(_pictures_in(folder / "masks"), image.shape[:2])
        return Sample(name, image, self.pixel_size_um, instances=labels)


def merge_masks(paths: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    """Merge masks of one object each to int32 labels (Y, X); file i becomes object i, from 1.

    Raises
    ------
    DatasetError
        If a mask has another size than the image, or is empty.
    """
    objects = []
    for index, path in enumerate(paths, start=1):
        mask = read_labels(path)
        if mask.shape != tuple(shape):
            raise DatasetError(f"mask {path} has shape {mask.shape}, its image {tuple(shape)}")
        pixels = np.flatnonzero(mask)
        if not len(pixels):
            raise DatasetError(f"mask {path} marks no pixel; expected one object")
        objects.append((index, pixels))
    labels = np.zeros(tuple(shape), LABEL_DTYPE)
    for index, pixels in sorted(objects, key=lambda entry: -len(entry[1])):
        labels.reshape(-1)[pixels] = index
    return labels


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"dataset 'dsb2018' needs the folder {folder}")
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    shown = (path for path in found if not path.name.startswith("."))
    return sorted(shown, key=lambda path: natural_key(path.stem))


def _has_masks(folder: Path) -> bool:
    """Whether any image has masks; stage1_test was released without."""
    return folder.is_dir() and any((path / "masks").is_dir() for path in folder.iterdir())
