"""Draw, save and check splits of a dataset into training, validation and test images.

For datasets without an official split the papers draw 7:1:2. Only the names of the PUMA split of
Co-Seg++ are published: `load_partition("puma_coseg")`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError, OutputError
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.files import natural_key
from napari_coseg.datasets.held_out import hold_out, split_content

PAPER_SHARES = (7, 1, 2)
"""Co-Seg++, section 4.1, and Co-Seg, section 3.1."""


@dataclass(frozen=True)
class Partition:
    """Names of three disjoint parts.

    Images in `left_out` belong to no part; a dataset may or may not have them.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.names + self.left_out
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1}, key=natural_key)
            raise DatasetError(f"{', '.join(twice[:5])} are in a split more than once")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the three parts."""
        return self.train + self.validation + self.test

    def within(self, names: Iterable[str]) -> Partition:
        """The parts restricted to existing images; other images are left out."""
        there = set(names)

        def kept(part: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name in part if name in there)

        return Partition(
            train=kept(self.train),
            validation=kept(self.validation),
            test=kept(self.test),
            left_out=tuple(sorted(there - set(self.names))),
        )

    def check(self, names: Iterable[str]) -> None:
        """`DatasetError` unless `names` are those of the parts, apart from those left out."""
        given, ours = set(names) - set(self.left_out), set(self.names)
        if given != ours:
            lacking = ", ".join(sorted(ours - given, key=natural_key)[:5]) or "none"
            unknown = ", ".join(sorted(given - ours, key=natural_key)[:5]) or "none"
            raise DatasetError(
                f"the split and the dataset differ: {len(ours - given)} of the split's images are "
                f"not in the dataset ({lacking}), {len(given - ours)} of the dataset's not in the "
                f"split ({unknown}); draw a split of this dataset"
            )


PARTS = ("train", "validation", "test")


def draw_partition(
    names: Iterable[str], seed: int, shares: tuple[float, float, float] = PAPER_SHARES
) -> Partition:
    """Draw three parts by `seed`; the result does not depend on the order of the names.

    Sizes are rounded, each part gets at least one name, and the first takes the rest.
    """
    ordered = sorted(set(names), key=natural_key)
    if len(ordered) < len(PARTS):
        raise DatasetError(f"{len(ordered)} images cannot be split into three parts")
    if not all(np.isfinite(share) and share > 0 for share in shares):
        raise DatasetError(f"shares of a split must be positive, got {shares}")
    total = sum(shares)
    held = [max(round(len(ordered) * share / total), 1) for share in shares[1:]]
    while sum(held) >= len(ordered):
        held[int(np.argmax(held))] -= 1
    shuffled = np.random.default_rng(seed).permutation(len(ordered))
    validation = set(shuffled[: held[0]].tolist())
    test = set(shuffled[held[0] : sum(held)].tolist())
    return Partition(
        train=tuple(n for i, n in enumerate(ordered) if i not in validation | test),
        validation=tuple(n for i, n in enumerate(ordered) if i in validation),
        test=tuple(n for i, n in enumerate(ordered) if i in test),
    )


def draw_partition_of(
    dataset: Dataset, seed: int, shares: tuple[float, float, float] = PAPER_SHARES
) -> Partition:
    """Draw three parts of all images of a dataset, ignoring its own splits.

    Images of one source (`Dataset.source`: a volume, a patient) stay in one part; `shares` refer to
    sources. The papers do not say whether theirs do.
    """
    names = [name for split in dataset.splits for name in dataset.names(split)]
    source = {name: dataset.source(name) for name in names}
    parts = draw_partition(source.values(), seed, shares)
    members = {part: set(getattr(parts, part)) for part in PARTS}
    return Partition(
        **{part: tuple(n for n in names if source[n] in members[part]) for part in PARTS}
    )


def parts_of(dataset: Dataset, held: Iterable[str]) -> Partition:
    """Make three parts from held-out names of one split: the rest, those names, test images.

    Test images are those of the split to score, if that is another one.

    Raises
    ------
    DatasetError
        If no split has all the names.
    """
    held = set(held)
    home = next((s for s in dataset.splits if held <= set(dataset.names(s))), dataset.splits[0])
    split = hold_out(dataset.names(home), held)
    score = dataset.split_to_score
    test = dataset.names(score) if score != home and "test" in score else ()
    there = {name for other in dataset.splits for name in dataset.names(other)}
    left_out = there - set(split.train + split.validation + test)
    return Partition(split.train, split.validation, test, tuple(sorted(left_out)))


def save_partition(path: Path, partitions: Mapping[str, Partition], note: str = "") -> None:
    """Write the parts by dataset as JSON; `note` describes their origin."""
    datasets = {
        name: {part: list(names) for part, names in vars(partition).items() if names}
        for name, partition in partitions.items()
    }
    text = json.dumps({"note": note, "datasets": datasets}, indent=2) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the split {path}: {error}") from error


def load_partition(name: str | Path) -> dict[str, Partition]:
    """Read the parts by dataset from a file or a shipped split.

    Parameters
    ----------
    name
        As `split_content` takes it: "puma_coseg".
    """
    try:
        datasets = split_content(name)["datasets"]
        return {
            dataset: Partition(
                **{part: _names(parts[part]) for part in PARTS},
                left_out=_names(parts.get("left_out", [])),
            )
            for dataset, parts in datasets.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f'split {str(name)!r} is not JSON of the form {{"datasets": {{dataset: {{"train": '
            '[names], "validation": [names], "test": [names]}}}}'
        ) from error


def names_parts(name: str | Path) -> bool:
    """Whether a split file names three parts (valid or not) rather than held-out images."""
    try:
        return "datasets" in split_content(name)
    except (ValueError, TypeError, RecursionError):
        return False


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names are a list of text")
    return tuple(values)


@dataclass(frozen=True, kw_only=True)
class Partitioned(Dataset):
    """A dataset whose splits are the parts of a partition, independent of folders.

    Parameters
    ----------
    whole
        The dataset that reads the images.
    parts
        Part -> names.
    home
        Name -> its split in `whole`.
    """

    whole: Dataset
    parts: Partition
    home: dict[str, str]

    @classmethod
    def of(cls, whole: Dataset, parts: Partition) -> Partitioned:
        """`whole` in three parts; `DatasetError` if the names differ."""
        home: dict[str, str] = {}
        for split in whole.splits:
            for name in whole.names(split):
                if name in home:
                    raise DatasetError(
                        f"{name} is an image of {home[name]} and of {split}; a split by name "
                        "cannot distinguish them"
                    )
                home[name] = split
        parts.check(home)
        shared = {f.name: getattr(whole, f.name) for f in fields(Dataset)}
        changed = {"splits": PARTS, "official_images": {}}
        return cls(**shared | changed, whole=whole, parts=parts, home=home)

    def names(self, split: str) -> tuple[str, ...]:
        if split not in self.splits:
            raise DatasetError(f"a partition has {', '.join(PARTS)}, and no {split!r}")
        return tuple(getattr(self.parts, split))

    def load(self, split: str, name: str) -> Sample:
        if name not in self.names(split):
            raise DatasetError(f"{name!r} is not an image of {split}")
        return self.whole.load(self.home[name], name)

    def source(self, name: str) -> str:
        return self.whole.source(name)

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        return ()
