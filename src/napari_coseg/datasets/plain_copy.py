"""Write any dataset as a plain folder (`folder`), with a split file beside it.

    output/dataset.json                     pixel size, classes
    output/split.json                       training, validation and test images
    output/<split>/images/<name>.png        8-bit RGB, and any of
    output/<split>/regions/<name>.png       region classes, 8 bits
    output/<split>/objects/<name>.png       object ids, 16 bits (.tif of 32 bits above 65,535)
    output/<split>/object_classes/<name>.png
    output/<split>/known/<name>.png         255 where annotated, 0 elsewhere

A dataset without splits ("all") has its folders directly in `output`. Formats that are slow to read
(volumes, polygons, many masks) are thus read once, and training can read the copy in any order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.files import atomic_folder
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.held_out import split_names
from napari_coseg.datasets.partition import PAPER_SHARES, Partition, draw_partition

SPLIT_FILE = "split.json"
ALIKE = 0.01
"""Pixel sizes that differ by less than 1 % count as equal."""
MOST_PIXELS = 2**27
"""Largest image after resampling; more suggests a pixel size in the wrong unit."""


@dataclass(frozen=True)
class CopyReport:
    """What was written: the folder, images by split, and the split file."""

    output: Path
    images: dict[str, int]
    split_file: Path | None


def write_plain_copy(
    dataset: Dataset,
    output: Path,
    *,
    pixel_size_um: float | None = None,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> CopyReport:
    """Copy every image of `dataset` to `output`; the folder is created atomically.

    Parameters
    ----------
    pixel_size_um
        Resample to it, images linearly and labels by nearest neighbour; None keeps the pixels and
        refuses images of different pixel sizes.
    seed
        Of the split file. See `draw_split`.

    Raises
    ------
    OutputError
        If `output` exists.
    DatasetError
        If an image is invalid, or pixel sizes differ.
    """
    if pixel_size_um is not None and not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise DatasetError(f"pixel size {pixel_size_um} must be positive, in micrometres")
    with atomic_folder(output) as partial:
        partial.mkdir()
        copy = _Copy(dataset, partial, pixel_size_um)
        copy.write_all(progress or (lambda fraction, message: None))
        parts = draw_split(dataset, copy.names, seed)
        if parts is not None:
            _write_json(partial / SPLIT_FILE, split_entries(parts, seed))
    images = {split: len(names) for split, names in copy.names.items()}
    return CopyReport(output, images, None if parts is None else output / SPLIT_FILE)


def draw_split(dataset: Dataset, names: dict[str, dict[str, str]], seed: int) -> Partition | None:
    """Split the written images into three parts; None if there are too few.

    If the dataset has splits named "train..." and others, those named "val..." are validation
    images and the rest test images; without "val..." an eighth of the training images is drawn.
    Other datasets are split 7:1:2, as in the papers. Images of one source (such as a volume) stay
    together.

    Parameters
    ----------
    names
        Split -> name in the dataset -> written name.
    """
    groups: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    for split, written in names.items():
        for name, as_written in written.items():
            source = f"{split} {dataset.source(name)}"
            groups[_part_of(split)].setdefault(source, []).append(as_written)
    train, validation, test = (tuple(part) for part in groups.values())
    members = groups["train"] | groups["validation"] | groups["test"]
    try:
        if not train or not (validation or test):
            drawn = draw_partition(members, seed)
            train, validation, test = drawn.train, drawn.validation, drawn.test
        elif not validation:
            share = PAPER_SHARES[1] / (PAPER_SHARES[0] + PAPER_SHARES[1])
            two = split_names(train, share, seed)
            train, validation = two.train, two.validation
    except DatasetError:
        return None  # too few
    return Partition(
        *(tuple(n for s in part for n in members[s]) for part in (train, validation, test))
    )


def _part_of(split: str) -> str:
    if "train" in split.lower():
        return "train"
    return "validation" if split.lower().startswith("val") else "test"


def split_entries(parts: Partition, seed: int) -> dict[str, object]:
    """Write the split file, which both `load_partition` and `load_split` can read."""
    three = {name: list(getattr(parts, name)) for name in ("train", "validation", "test")}
    return {
        "note": f"drawn with seed {seed}; images of one source are in one part",
        "validation": {"folder": three["validation"]},
        "datasets": {"folder": three},
    }


class _Copy:
    """Writes samples one by one and records their file names."""

    def __init__(self, dataset: Dataset, root: Path, pixel_size_um: float | None) -> None:
        self.dataset, self.root = dataset, root
        self.pixel_size_um, self.resampled = pixel_size_um, pixel_size_um is not None
        self.names: dict[str, dict[str, str]] = {}
        self.kinds: set[str] | None = None
        self.taken: set[str] = set()

    def write_all(self, progress: Callable[[float, str], None]) -> None:
        splits = self.dataset.splits
        for before, split in enumerate(splits):
            names = self.dataset.names(split)
            self.names[split] = {}
            for index, name in enumerate(names):
                progress((before + index / len(names)) / len(splits), f"{split} {name}")
                written = self._free_name(split, name)
                self.names[split][name] = written
                folder = self.root if split == "all" else self.root / split
                self._write(self._on_our_grid(self.dataset.load(split, name)), folder, written)
        _write_json(self.root / "dataset.json", self._description())
        progress(1.0, "done")

    def _free_name(self, split: str, name: str) -> str:
        """A file name that is unique, also ignoring case."""
        plain = re.sub(r"[^\w.() -]", "_", name)
        for candidate in (plain, f"{split}_{plain}"):
            if candidate.lower() not in self.taken:
                self.taken.add(candidate.lower())
                return candidate
        raise DatasetError(f"two images of dataset {self.dataset.name!r} would be named {plain!r}")

    def _on_our_grid(self, sample: Sample) -> Sample:
        if self.pixel_size_um is None:
            self.pixel_size_um = sample.pixel_size_um
        zoom = sample.pixel_size_um / self.pixel_size_um
        if abs(zoom - 1) <= ALIKE:
            return sample
        if not self.resampled:
            raise DatasetError(
                f"image {sample.name!r} has {sample.pixel_size_um:g} um per pixel, those before it "
                f"{self.pixel_size_um:g}; give a pixel size to resample all images to"
            )
        return resample(sample, self.pixel_size_um)

    def _write(self, sample: Sample, folder: Path, name: str) -> None:
        pictures = {
            "images": sample.image,
            "regions": sample.semantic,
            "objects": sample.instances,
            "object_classes": sample.instance_types,
        }
        kinds = {kind for kind, array in pictures.items() if array is not None}
        if self.kinds is None:
            self.kinds = kinds
        if kinds != self.kinds:
            raise DatasetError(
                f"image {sample.name!r} has {', '.join(sorted(kinds))}, those before it "
                f"{', '.join(sorted(self.kinds))}; all images of a plain folder need the same"
            )
        masks = (sample.semantic_known, sample.instances_known, sample.types_known)
        known = [mask for mask in masks if mask is not None]
        if known:  # a folder has one mask for all kinds
            pictures["known"] = np.where(np.all(known, axis=0), 255, 0).astype(np.uint8)
        for kind, array in pictures.items():
            if array is not None:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                _write_picture(folder / kind, name, array)

    def _description(self) -> dict[str, object]:
        return {
            "pixel_size_um": self.pixel_size_um,
            "semantic_classes": [_entry(c) for c in self.dataset.semantic_classes],
            "instance_classes": [_entry(c) for c in self.dataset.instance_classes],
        }


def resample(sample: Sample, pixel_size_um: float) -> Sample:
    """Resample to another pixel size.

    Images linearly, with area averaging where they shrink; labels by nearest neighbour.
    """
    zoom = sample.pixel_size_um / pixel_size_um
    height, width = (max(1, round(side * zoom)) for side in sample.image.shape[:2])
    if height * width > MOST_PIXELS:
        raise DatasetError(
            f"image {sample.name!r} would have {height} x {width} pixels at {pixel_size_um:g} um; "
            "check that the pixel size is in micrometres"
        )
    size, nearest = (width, height), PillowImage.Resampling.NEAREST

    def enlarge(labels: np.ndarray | None) -> np.ndarray | None:
        if labels is None:
            return None
        picture = PillowImage.fromarray(labels.astype(np.int32))
        return np.asarray(picture.resize(size, nearest)).astype(labels.dtype)

    image = PillowImage.fromarray(sample.image).resize(size, PillowImage.Resampling.BILINEAR)
    return replace(
        sample,
        image=np.asarray(image),
        pixel_size_um=pixel_size_um,
        semantic=enlarge(sample.semantic),
        instances=enlarge(sample.instances),
        instance_types=enlarge(sample.instance_types),
        semantic_known=enlarge(sample.semantic_known),
        instances_known=enlarge(sample.instances_known),
        types_known=enlarge(sample.types_known),
    )


def _write_picture(folder: Path, name: str, array: np.ndarray) -> None:
    if array.dtype.itemsize > 1 and array.size and array.max() > 65535:
        import tifffile

        tifffile.imwrite(folder / f"{name}.tif", array.astype(np.uint32), compression="zlib")
        return
    small = array if array.dtype.itemsize == 1 else array.astype(np.uint16)
    PillowImage.fromarray(small).save(folder / f"{name}.png")


def _entry(label: LabelClass) -> dict[str, object]:
    return {"id": label.id, "name": label.name, "color": list(label.color)}


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
