"""Datasets as pairs of image and label files, for releases spread over many folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Dataset
from napari_coseg.datasets.files import IMAGE_SUFFIXES, image_named, natural_key


@dataclass(frozen=True, kw_only=True)
class PairedFiles(Dataset):
    """Image and label files by name; subclasses read them.

    Parameters
    ----------
    pairs
        Split -> name -> image file and label file.
    """

    pairs: dict[str, dict[str, tuple[Path, Path]]] = field(default_factory=dict)

    def names(self, split: str) -> tuple[str, ...]:
        self.folder(split)
        return tuple(sorted(self.pairs[split], key=natural_key))

    def pair(self, split: str, name: str) -> tuple[Path, Path]:
        """Image file and label file; `DatasetError` if one is missing."""
        self.folder(split)
        if name not in self.pairs[split]:
            raise DatasetError(f"dataset {self.name!r} has no image {name!r} in {split!r}")
        image, labels = self.pairs[split][name]
        if not labels.is_file():
            raise DatasetError(f"dataset {self.name!r}: no label file {labels} of image {image}")
        return image, labels


def pair_folders(
    folders: Iterable[tuple[Path, Path]], suffix: str = "", prefix: str = ""
) -> dict[str, tuple[Path, Path]]:
    """Pair the images of some folders with the label files of the same stem.

    Parameters
    ----------
    folders
        Folder of images, folder of labels.
    suffix
        Of the label files; "" for any image suffix.
    prefix
        Put before each stem to make the name.

    Raises
    ------
    DatasetError
        If two images have the same name.
    """
    pairs: dict[str, tuple[Path, Path]] = {}
    for images, labels in folders:
        for image in sorted(images.iterdir()):
            if image.suffix.lower() not in IMAGE_SUFFIXES or image.name.startswith("."):
                continue
            name = prefix + image.stem
            if name in pairs:
                raise DatasetError(f"{pairs[name][0]} and {image} have the same name")
            expected = labels / f"{image.stem}{suffix or image.suffix}"
            found = None if suffix else image_named(labels, image.stem)
            pairs[name] = image, found or expected
    return pairs
