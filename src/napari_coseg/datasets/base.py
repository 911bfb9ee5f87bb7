"""Base class of labelled datasets: samples by split and name, and a check of the folder.

A dataset is a folder of images next to folders of label images with the same stems:

    root/<split>/<images>/<stem>.jpg
    root/<split>/<semantic>/<stem>.png          region class of each pixel
    root/<split>/<instances>/<stem>.png         object id of each pixel
    root/<split>/<instance_types>/<stem>.png    object class of each pixel

A task without a folder in the layout has no labels: its field of the sample is None, not zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass, id_lookup
from napari_coseg.datasets.files import (
    IMAGE_SUFFIXES,
    as_labels,
    image_named,
    images_in,
    natural_key,
    read_labels,
    read_rgb,
)

MASK_VALUE = 255
VALIDATION_SPLITS = ("validation", "valid", "val")


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image. Treat the arrays as read-only.

    Parameters
    ----------
    name
        Stem of the image file.
    image
        uint8, (Y, X, 3): red, green, blue.
    pixel_size_um
        Micrometres per pixel, the same along both axes.
    semantic
        uint8, (Y, X): region class ids, 0 background; None without labels for this task.
    instances
        int32, (Y, X): object ids, 0 background; None without labels for this task.
    instance_types
        uint8, (Y, X): object class ids, 0 background; None where objects have no classes.
    semantic_known, instances_known
        bool, (Y, X): False where the task was not annotated: such pixels are neither trained on nor
        scored. None if the whole image was annotated.
    types_known
        bool, (Y, X): False where object classes were not annotated; None if they are known wherever
        objects are.
    derived
        uint8, (Y, X), 0 or 1: a region derived from the objects (`datasets.derived`). It may prompt
        a network but is never a training target. None if there is none.
    """

    name: str
    image: np.ndarray
    pixel_size_um: float
    semantic: np.ndarray | None = None
    instances: np.ndarray | None = None
    instance_types: np.ndarray | None = None
    semantic_known: np.ndarray | None = None
    instances_known: np.ndarray | None = None
    types_known: np.ndarray | None = None
    derived: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DatasetError(
                f"image {self.name!r} has shape {self.image.shape} and dtype {self.image.dtype}; "
                "expected (Y, X, 3) of uint8: convert it to 8-bit RGB"
            )
        for kind, labels in vars(self).items():
            if not isinstance(labels, np.ndarray) or kind == "image":
                continue
            if labels.shape != self.image.shape[:2]:
                raise DatasetError(
                    f"{kind} labels of {self.name!r} have shape {labels.shape}, its image has "
                    f"{self.image.shape[:2]}; labels must have the shape of the image"
                )


@dataclass(frozen=True)
class Layout:
    """Folder names inside a split; None for a task without labels."""

    images: str = "images"
    semantic: str | None = None
    instances: str | None = None
    instance_types: str | None = None

    @property
    def label_folders(self) -> tuple[str, ...]:
        folders = (self.semantic, self.instances, self.instance_types)
        return tuple(folder for folder in folders if folder)


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split: images, objects, pixels by region class, objects by class name."""

    images: int
    objects: int
    region_pixels: dict[str, int]
    objects_by_class: dict[str, int]


@dataclass(frozen=True)
class DatasetReport:
    """Result of `Dataset.check`; `problems` is empty for a valid dataset.

    `notes` are remarks that are no errors, such as a missing part of the official release.
    """

    name: str
    root: Path
    splits: dict[str, SplitReport]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def raise_if_broken(self) -> None:
        if self.problems:
            raise DatasetError(
                f"dataset {self.name!r} in {self.root}: " + "; ".join(self.problems[:5])
            )


@dataclass(frozen=True)
class Dataset:
    """A folder of labelled images; subclasses define file layout and classes.

    Parameters
    ----------
    root
        Folder that holds the splits.
    name
        Key of `napari_coseg.datasets.registry.DATASETS`.
    splits
        Names of the splits and of their folders; the split "all" is `root` itself.
    pixel_size_um
        Micrometres per pixel of every image.
    layout
        Folders inside a split.
    semantic_classes, instance_classes
        Classes of the label values, after `type_ids` was applied.
    type_ids
        Object class id in the files -> id here; empty if they are the same.
    official_images
        Number of images of each split as released; `check` notes deviations.
    """

    root: Path
    name: str
    splits: tuple[str, ...]
    pixel_size_um: float
    layout: Layout
    semantic_classes: tuple[LabelClass, ...] = ()
    instance_classes: tuple[LabelClass, ...] = ()
    type_ids: dict[int, int] = field(default_factory=dict)
    official_images: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the dataset in folder `root`; reads descriptions only, no images."""
        raise NotImplementedError(f"{cls.__name__} must implement open()")

    @property
    def split_to_score(self) -> str:
        """The split that a model is scored on by default.

        "test", else the first test set of another name (``testA``, ``stage1_test``), else
        "validation", "valid" or "val", else the last that is not for training, if any.
        """
        exact = [split for split in ("test",) if split in self.splits]
        tests = [split for split in self.splits if "test" in split]
        chosen_by = [split for split in VALIDATION_SPLITS if split in self.splits]
        others = [split for split in self.splits if "train" not in split]
        return [*exact, *tests, *chosen_by, *others[-1:], self.splits[-1]][0]

    def names(self, split: str) -> tuple[str, ...]:
        """Stems of the images of `split`, in natural order."""
        return tuple(sorted(self._files(split, self.layout.images), key=natural_key))

    def load(self, split: str, name: str) -> Sample:
        """Read one sample; a `DatasetError` names the faulty file."""
        image = read_rgb(self._file(split, self.layout.images, name))
        semantic = self._labels(split, self.layout.semantic, name)
        instances = self._labels(split, self.layout.instances, name)
        types = self._labels(split, self.layout.instance_types, name)
        return Sample(
            name=name,
            image=image,
            pixel_size_um=self.pixel_size_um,
            semantic=None if semantic is None else _as_classes(semantic, name),
            instances=None if instances is None else as_labels(instances, f"objects of {name!r}"),
            instance_types=None if types is None else self._types(types, name),
        )

    def load_all(self, split: str, names: tuple[str, ...] | None = None) -> tuple[Sample, ...]:
        """Iterate over the samples of `split`, or over those named."""
        return tuple(self.load(split, name) for name in names or self.names(split))

    def source(self, name: str) -> str:
        """The unit that splits keep together, such as a volume or a patient."""
        return name

    def check(self, progress: Callable[[float, str], None] | None = None) -> DatasetReport:
        """Read everything once and count it. Problems are collected, not raised.

        `progress` is called with the fraction done and the name of the next image.
        """
        problems: list[str] = []
        reports: dict[str, SplitReport] = {}
        for before, split in enumerate(self.splits):
            try:
                names = self.names(split)
            except DatasetError as error:
                problems.append(str(error))
                continue
            samples = []
            for index, name in enumerate(names):
                if progress:
                    progress((before + index / len(names)) / len(self.splits), f"{split} {name}")
                try:
                    sample = self.load(split, name)
                except DatasetError as error:
                    problems.append(str(error))
                    continue
                problems += self._strange_values(sample) + mask_as_objects(sample)
                samples.append(count_sample(sample))
            reports[split] = self._report(samples)
        notes: tuple[str, ...] = ()
        try:
            notes = self.notes({split: report.images for split, report in reports.items()})
        except DatasetError as error:
            problems.append(str(error))
        return DatasetReport(self.name, self.root, reports, tuple(problems), notes)

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        """Notes of `check`, given the number of images of each split."""
        return tuple(
            f"{split} has {images[split]} images; the official release has {count}"
            for split, count in self.official_images.items()
            if images.get(split, count) != count
        )

    def prepare(self) -> tuple[Path, ...]:
        """Write files that this dataset needs before it can be read; returns their paths.

        Most datasets need none.
        """
        return ()

    def unpack(self, progress: Callable[[float, str], None] | None = None) -> tuple[Path, ...]:
        """Write copies that are faster to read; returns their paths.

        Most datasets need none. `progress` is called as by `check`.
        """
        return ()

    def folder(self, split: str) -> Path:
        if split not in self.splits:
            raise DatasetError(
                f"dataset {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return self.root if split == "all" else self.root / split

    def _files(self, split: str, folder: str) -> dict[str, Path]:
        where = self.folder(split) / folder
        if not where.is_dir():
            raise DatasetError(
                f"dataset {self.name!r} needs the folder {where}, which does not exist; "
                f"expected {', '.join((self.layout.images, *self.layout.label_folders))} in "
                f"{self.folder(split)}"
            )
        return images_in(where)

    def _file(self, split: str, folder: str, name: str) -> Path:
        where = self.folder(split) / folder
        found = image_named(where, name)
        if found is not None:
            return found
        raise DatasetError(
            f"dataset {self.name!r}: no file {name} ({', '.join(IMAGE_SUFFIXES)}) in {where}"
        )

    def _labels(self, split: str, folder: str | None, name: str) -> np.ndarray | None:
        return None if folder is None else read_labels(self._file(split, folder, name))

    def _types(self, types: np.ndarray, name: str) -> np.ndarray:
        classes = _as_classes(types, name)
        if not self.type_ids:
            return classes
        unknown = sorted(set(np.unique(classes).tolist()) - {0, *self.type_ids})
        if unknown:
            raise DatasetError(
                f"object classes of {name!r} hold the values {unknown}; dataset {self.name!r} "
                f"knows {sorted(self.type_ids)}"
            )
        return id_lookup(self.type_ids)[classes]

    def _strange_values(self, sample: Sample) -> list[str]:
        """Class ids in the labels that are not in the list of classes."""
        problems = []
        for kind, labels, classes in (
            ("region", sample.semantic, self.semantic_classes),
            ("object", sample.instance_types, self.instance_classes),
        ):
            if labels is None:
                continue
            unknown = sorted(set(np.unique(labels).tolist()) - {0, *(c.id for c in classes)})
            if unknown:
                problems.append(f"{kind} classes of {sample.name!r} hold unknown ids {unknown}")
        return problems

    def _report(self, counts: list[tuple[int, Counter[int], Counter[int]]]) -> SplitReport:
        regions: Counter[int] = sum((c[1] for c in counts), Counter())
        types: Counter[int] = sum((c[2] for c in counts), Counter())
        return SplitReport(
            images=len(counts),
            objects=sum(c[0] for c in counts),
            region_pixels={c.name: regions[c.id] for c in self.semantic_classes},
            objects_by_class={c.name: types[c.id] for c in self.instance_classes},
        )


def mask_as_objects(sample: Sample) -> list[str]:
    """A problem where all objects have the id 255, the value of a mask."""
    if sample.instances is None:
        return []
    ids = np.unique(sample.instances)
    ids = ids[ids > 0].tolist()
    if ids != [MASK_VALUE]:
        return []
    return [
        f"objects of {sample.name!r} hold the values 0 and {MASK_VALUE} alone, as a mask does; "
        "give each object an id of its own"
    ]


def count_sample(sample: Sample) -> tuple[int, Counter[int], Counter[int]]:
    """Number of objects, pixels by region class id, objects by class id."""
    regions: Counter[int] = Counter()
    if sample.semantic is not None:
        ids, pixels = np.unique(sample.semantic, return_counts=True)
        regions = Counter(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
    if sample.instances is None:
        return 0, regions, Counter()
    ids, first = np.unique(sample.instances, return_index=True)
    first = first[ids > 0]
    if sample.instance_types is None:
        return len(first), regions, Counter()
    return len(first), regions, Counter(sample.instance_types.ravel()[first].tolist())


def _as_classes(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.size and (labels.min() < 0 or labels.max() > 255):
        raise DatasetError(
            f"class labels of {name!r} reach {labels.max()}; class ids must be 0 to 255"
        )
    return labels.astype(np.uint8)
