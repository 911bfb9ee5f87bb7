"""nnU-Net raw folders of volumes, cut into slices: .mha, .nii.gz or .nii with a ``dataset.json``.

    root/dataset.json                     {"channel_names": {"0": "CT"},
                                           "labels": {"background": 0, "liver": 1, ...},
                                           "file_ending": ".nii.gz"}
    root/imagesTr/<case>_0000.nii.gz      one file a channel: _0000, _0001, ...
    root/labelsTr/<case>.nii.gz
    root/imagesTs/, labelsTs/             where there are labels for them: the split "test"

Every label of ``dataset.json`` is a region class; a label named "ignore" marks pixels without
annotation. For labels of several values, "regions_class_order" gives each its own value.

Slices. A volume is turned upright and cut across its largest spacing (see `volumes`), across Z if
all are equal. A sample is named by case and slice, ``case_0042``; slices along Z count from the
feet. Slices without labels are left out unless `every_slice` is set; label volumes are read once
to find them. Training reads slices in random order, which is slow for packed volumes: unpack them
first with ``napari-coseg datasets prepare`` (see `unpacked`).

Values become 8 bits. A channel named CT or CBCT is clipped to a window of Hounsfield units (default
-1000 to 1000); others follow the rules of `images.intensity`, chosen per volume. One channel
becomes grey; of several, the first three become red, green and blue.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Dataset, DatasetReport, Layout, Sample
from napari_coseg.datasets.files import natural_key
from napari_coseg.datasets.labelled_volume import LabelledVolume, refuse_misplaced
from napari_coseg.datasets.nnunet_json import Description, VolumeLabels, read_description
from napari_coseg.datasets.slices import (
    occupied_slices,
    read_8_bits,
    read_numbers,
    slices_across,
)
from napari_coseg.datasets.unpacked import FOLDER, made_from, read_unpacked, write_unpacked
from napari_coseg.images.readers.registry import read_image
from napari_coseg.images.volumes import VolumeHeader, read_header

CT_WINDOW_HU = (-1000.0, 1000.0)
"""From air to dense bone, 8 HU per grey level."""
CT_NAMES = ("ct", "cbct")
FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
MOST_CHANNELS = 3
MOST_THREADS = 4


@dataclass(frozen=True, eq=False)
class _Volume:
    """One case, uint8 (slice, Y, X) each; labels hold the values of the files.

    In memory, or memory-mapped if the volume was unpacked.
    """

    channels: tuple[np.ndarray, ...]
    labels: np.ndarray
    pixel_size_um: float


@dataclass
class _Cache:
    """The last volume or its error, and the labelled slices of every case."""

    key: tuple[str, str] | None = None
    volume: _Volume | DatasetError | None = None
    slices: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class NnunetRaw(Dataset):
    """Volumes of an nnU-Net raw folder, slice by slice.

    Every sample has its own pixel size; that of the dataset is nan.

    Parameters
    ----------
    labels
        Meaning of the values in the label files.
    channels
        Names of the channels, in the order of their files.
    file_ending
        Of images and labels.
    n_cases
        Expected number of training cases; None if not given.
    window_hu
        Values that become 0 and 255, for CT channels.
    every_slice
        Include slices without labels.
    """

    labels: VolumeLabels = field(default_factory=VolumeLabels)
    channels: tuple[str, ...] = ()
    file_ending: str = ".nii.gz"
    n_cases: int | None = None
    window_hu: tuple[float, float] = CT_WINDOW_HU
    every_slice: bool = False
    _cache: _Cache = field(default_factory=_Cache, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read ``dataset.json``; volumes are read on demand."""
        description = read_description(root / "dataset.json")
        return cls(
            name="nnunet-raw",
            layout=Layout(images="imagesTr", semantic="labelsTr"),
            semantic_classes=description.semantic_classes(),
            labels=description.labels(),
            **described(root, description),
        )

    def cases(self, split: str) -> tuple[str, ...]:
        """Names of the label volumes of `split`, in natural order."""
        folder = self._folders(split)[1]
        if not folder.is_dir():
            raise DatasetError(f"dataset {self.name!r} needs the folder {folder}")
        names = [path.name for path in folder.iterdir() if _is_case(path.name, self.file_ending)]
        if not names:
            raise DatasetError(f"no label volumes (*{self.file_ending}) in {folder}")
        return tuple(sorted((n.removesuffix(self.file_ending) for n in names), key=natural_key))

    def names(self, split: str) -> tuple[str, ...]:
        """``<case>_<slice>`` of every sample, case by case."""
        cases = self.cases(split)
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda case: self._slices(split, case), cases))
        broken = [str(slices) for slices in found if isinstance(slices, DatasetError)]
        if broken:
            raise DatasetError("; ".join(broken))
        return tuple(
            f"{case}_{index:04d}"
            for case, slices in zip(cases, found, strict=True)
            if not isinstance(slices, DatasetError)
            for index in slices
        )

    def source(self, name: str) -> str:
        """The case of a slice; splits keep its slices together."""
        return _case_and_slice(name)[0]

    def load(self, split: str, name: str) -> Sample:
        """Read one slice; its volume stays in memory until another is needed."""
        case, index = _case_and_slice(name)
        volume = self._volume(split, case)
        if index >= len(volume.labels):
            raise DatasetError(f"{case!r} has {len(volume.labels)} slices; there is no {name!r}")
        channels = [channel[index] for channel in volume.channels]
        if len(channels) == 2:
            channels.append(np.zeros_like(channels[0]))
        return Sample(
            name=name,
            image=np.stack(channels * 3 if len(channels) == 1 else channels, axis=-1),
            pixel_size_um=volume.pixel_size_um,
            **self._meaning(volume.labels[index]),
        )

    def load_volume(self, split: str, case: str) -> LabelledVolume:
        """Read the labels of a whole case, and open its image.

        Raises
        ------
        DatasetError
            If a file is faulty, or the case has several channels.
        """
        if len(self.channels) > 1:
            raise DatasetError(
                f"cases of {self.name!r} have the channels {', '.join(self.channels)}; whole "
                "volumes are read with one channel only"
            )
        header = read_header(self._label_file(split, case))
        numbers = header.upright(read_numbers(header))
        self._refuse_unknown(np.bincount(numbers.ravel(), minlength=256) > 0, header.path)
        image_file = self._image_file(split, case, 0)
        refuse_misplaced(_image_header(self.name, image_file), header)
        z, y, x = (1000 * side for side in header.upright_spacing_mm)
        return LabelledVolume(case, read_image(image_file), (z, y, x), **self._meaning(numbers))

    def _meaning(self, numbers: np.ndarray) -> dict[str, Any]:
        """Label arrays of a sample from the values of the files."""
        types = self.labels.object_table[numbers] if self.labels.objects else None
        ignored = self.labels.ignored
        known = None if ignored is None else numbers != ignored
        objects = None if types is None else np.where(types > 0, numbers, 0).astype(LABEL_DTYPE)
        return {
            "semantic": self.labels.region_table[numbers] if self.labels.regions else None,
            "instances": objects,
            "instance_types": types,
            "semantic_known": known,
            "instances_known": known,
        }

    def unpack(self, progress: Callable[[float, str], None] | None = None) -> tuple[Path, ...]:
        """Unpack every volume (see `unpacked`) that is not unpacked yet."""
        jobs = [(split, case) for split in self.splits for case in self.cases(split)]
        written = []
        for number, (split, case) in enumerate(jobs):
            if progress:
                progress(number / len(jobs), f"{split} {case}")
            if self._read_unpacked(split, case) is None:
                volume = self._read(split, case)
                arrays = (*volume.channels, volume.labels)
                path, source = self._unpacked_file(split, case), self._made_from(split, case)
                written.append(write_unpacked(path, arrays, volume.pixel_size_um, source))
        return tuple(written)

    def check(self, progress: Callable[[float, str], None] | None = None) -> DatasetReport:
        """Check the samples and the number of cases that ``dataset.json`` gives."""
        report = super().check(progress)
        problems = list(dict.fromkeys(report.problems))  # a broken volume is reported once
        folder = self._folders("train")[1]
        there = len(self.cases("train")) if folder.is_dir() else 0
        if self.n_cases is not None and there and there != self.n_cases:
            problems.append(
                f"dataset.json lists {self.n_cases} training cases; {folder} holds {there}"
            )
        return dataclasses.replace(report, problems=tuple(problems))

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        """Also names cases without any slice."""
        empty = [case for (_, case), slices in self._cache.slices.items() if not slices]
        unlabelled = (
            (f"{len(empty)} cases hold no labels: {', '.join(empty[:5])}",) if empty else ()
        )
        return super().notes(images) + unlabelled

    def _folders(self, split: str) -> tuple[Path, Path]:
        self.folder(split)  # refuses an unknown split
        images, labels = FOLDERS[split]
        return self.root / images, self.root / labels

    def _slices(self, split: str, case: str) -> tuple[int, ...] | DatasetError:
        """Slices of a case that are samples; errors are returned, so that other cases go on."""
        known = self._cache.slices.get((split, case))
        if known is not None:
            return known
        try:
            header = read_header(self._label_file(split, case))
            axis = header.slicing_axis()
            if self.every_slice:
                slices = tuple(range(header.upright_shape[axis]))
            else:
                wanted = (self.labels.region_table > 0) | (self.labels.object_table > 0)
                occupied, present = occupied_slices(header, axis, wanted)
                self._refuse_unknown(present, header.path)
                slices = tuple(np.flatnonzero(occupied).tolist())
        except DatasetError as error:
            return error
        self._cache.slices[split, case] = slices
        return slices

    def _label_file(self, split: str, case: str) -> Path:
        return self._folders(split)[1] / f"{case}{self.file_ending}"

    def _volume(self, split: str, case: str) -> _Volume:
        cache = self._cache
        if cache.key != (split, case):
            cache.key, cache.volume = None, None  # release the last volume first
            try:
                cache.volume = self._read_unpacked(split, case) or self._read(split, case)
            except DatasetError as error:
                cache.volume = error
            cache.key = (split, case)
        if isinstance(cache.volume, _Volume):
            return cache.volume
        raise DatasetError(str(cache.volume))

    def _read_unpacked(self, split: str, case: str) -> _Volume | None:
        path = self._unpacked_file(split, case)
        if not path.is_file():
            return None
        n_arrays = len(self._shown_channels) + 1
        found = read_unpacked(path, n_arrays, self._made_from(split, case))
        if found is None:
            return None
        arrays, pixel_size_um = found
        return _Volume(tuple(arrays[:-1]), arrays[-1], pixel_size_um)

    def _unpacked_file(self, split: str, case: str) -> Path:
        return self.root / FOLDER / split / f"{case}.npy"

    def _made_from(self, split: str, case: str) -> dict[str, Any]:
        images = [self._image_file(split, case, number) for number in self._shown_channels]
        return made_from([*images, self._label_file(split, case)], self.window_hu)

    @property
    def _shown_channels(self) -> range:
        return range(min(len(self.channels), MOST_CHANNELS))

    def _image_file(self, split: str, case: str, number: int) -> Path:
        return self._folders(split)[0] / f"{case}_{number:04d}{self.file_ending}"

    def _read(self, split: str, case: str) -> _Volume:
        label_file = self._label_file(split, case)
        if not label_file.is_file():
            raise DatasetError(f"dataset {self.name!r}: there is no {label_file}")
        header = read_header(label_file)
        axis, spacing = header.slicing_axis(), header.upright_spacing_mm
        labels = read_numbers(header)
        present = np.zeros(256, bool)
        for plane in labels:  # plane by plane: counting takes eight bytes per voxel
            present |= np.bincount(plane.ravel(), minlength=256) > 0
        self._refuse_unknown(present, label_file)
        channels = tuple(
            slices_across(self._channel(split, case, number, header), axis)
            for number in self._shown_channels
        )
        side = max(size for i, size in enumerate(spacing) if i != axis)
        return _Volume(channels, slices_across(header.upright(labels), axis), side * 1000)

    def _refuse_unknown(self, present: np.ndarray, path: Path) -> None:
        """`present` is bool (256,), one per value."""
        unknown = sorted(set(np.flatnonzero(present).tolist()) - self.labels.known)
        if unknown:
            raise DatasetError(
                f"labels {path} hold the values {', '.join(map(str, unknown))}, which dataset "
                f"{self.name!r} does not know"
            )

    def _channel(self, split: str, case: str, number: int, labels: VolumeHeader) -> np.ndarray:
        """One channel as uint8, upright (Z, Y, X)."""
        header = _image_header(self.name, self._image_file(split, case, number))
        refuse_misplaced(header, labels)
        is_ct = self.channels[number].lower() in CT_NAMES
        return header.upright(read_8_bits(header, self.window_hu if is_ct else None))


def _image_header(dataset: str, path: Path) -> VolumeHeader:
    if not path.is_file():
        raise DatasetError(f"dataset {dataset!r}: there is no {path}")
    return read_header(path)


def described(root: Path, description: Description) -> dict[str, Any]:
    """Constructor arguments from the folder and its description."""
    splits = tuple(split for split, (_, labels) in FOLDERS.items() if (root / labels).is_dir())
    return {
        "root": root,
        "splits": splits or ("train",),
        "pixel_size_um": float("nan"),
        "channels": description.channels,
        "file_ending": description.file_ending,
        "n_cases": description.cases,
    }


def _case_and_slice(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)_(\d{4,6})", name)
    if match is None:
        raise DatasetError(f"{name!r} is not the name of a slice, such as 'case_0042'")
    return match[1], int(match[2])


def _is_case(file_name: str, ending: str) -> bool:
    return file_name.endswith(ending) and not file_name.startswith(".")
