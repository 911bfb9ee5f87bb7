"""Read the ``dataset.json`` of an nnU-Net raw folder, version 1 or 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass, distinct_color, id_lookup
from napari_coseg.images.volumes import VOLUME_SUFFIXES

MAX_JSON_BYTES = 2**24
IGNORE = "ignore"


@dataclass(frozen=True)
class VolumeLabels:
    """Meaning of the values in label volumes.

    Parameters
    ----------
    regions, objects
        Value in the files -> region class id, object class id. An object's id is its value.
    unlabelled
        Further values that may occur and belong to no class.
    ignored
        The value of pixels without annotation; None if there is none.
    """

    regions: Mapping[int, int] = field(default_factory=dict)
    objects: Mapping[int, int] = field(default_factory=dict)
    unlabelled: frozenset[int] = frozenset()
    ignored: int | None = None

    @property
    def region_table(self) -> np.ndarray:
        """uint8 (256,): region class id of each value."""
        return id_lookup(self.regions)

    @property
    def object_table(self) -> np.ndarray:
        """uint8 (256,): object class id of each value."""
        return id_lookup(self.objects)

    @property
    def known(self) -> set[int]:
        """Every value that may occur."""
        own = {0} if self.ignored is None else {0, self.ignored}
        return own | set(self.regions) | set(self.objects) | self.unlabelled


@dataclass(frozen=True)
class Description:
    """Contents of ``dataset.json``.

    Parameters
    ----------
    channels
        Names of the channels, in the order of their numbers.
    classes
        Value in the label files -> name, without background and the ignore label.
    ignored
        Number of what nobody annotated; None where there is none.
    file_ending
        Of images and labels.
    cases
        Number of training cases; None if not given.
    """

    channels: tuple[str, ...]
    classes: Mapping[int, str]
    ignored: int | None
    file_ending: str
    cases: int | None

    def semantic_classes(self) -> tuple[LabelClass, ...]:
        """Classes with consecutive ids from 1, in the order of the values."""
        names = [self.classes[number] for number in sorted(self.classes)]
        return tuple(
            LabelClass(i, name, distinct_color(i)) for i, name in enumerate(names, start=1)
        )

    def labels(self) -> VolumeLabels:
        """Every class as a region."""
        regions = {number: i for i, number in enumerate(sorted(self.classes), start=1)}
        return VolumeLabels(regions=regions, ignored=self.ignored)


def read_description(path: Path) -> Description:
    """Read and check a ``dataset.json``; a `DatasetError` names the faulty entry."""
    values = _read_json(path)
    try:
        classes, ignored = _classes(values)
        return Description(
            channels=_channels(values),
            classes=classes,
            ignored=ignored,
            file_ending=_file_ending(values),
            cases=int(values["numTraining"]) if "numTraining" in values else None,
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DatasetError(f"{path} does not follow nnU-Net's format: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DatasetError(
                f"{path} is larger than {MAX_JSON_BYTES} bytes; is it the right file?"
            )
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise DatasetError(
            f"no {path.name} in {path.parent}; an nnU-Net raw folder has {path.name}, imagesTr and "
            "labelsTr"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path} holds {type(values).__name__}; expected a JSON object")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; of equal keys the json module takes the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} is given twice")
    return found


def _channels(values: dict[str, Any]) -> tuple[str, ...]:
    named = values.get("channel_names", values.get("modality"))
    if not isinstance(named, dict) or not named:
        raise ValueError('it has no "channel_names", such as {"0": "CT"}')
    numbers = sorted(int(number) for number in named)
    if numbers != list(range(len(numbers))):
        raise ValueError(f'"channel_names" are numbered {numbers}; expected 0, 1, 2 ...')
    return tuple(str(named[str(number)]) for number in numbers)


def _file_ending(values: dict[str, Any]) -> str:
    ending = str(values.get("file_ending", ".nii.gz"))
    if ending not in VOLUME_SUFFIXES:
        raise ValueError(f'"file_ending" is {ending!r}; read are {", ".join(VOLUME_SUFFIXES)}')
    return ending


def _classes(values: dict[str, Any]) -> tuple[dict[int, str], int | None]:
    """Names by value, and the value of the ignore label."""
    labels = values["labels"]
    if all(name.isdigit() for name in labels):  # version 1: {"1": "liver"}
        names = [str(name) for name in labels.values()]
        if len(set(names)) < len(names):
            raise ValueError(f'"labels" give two numbers one name: {labels}')
        labels = {str(name): int(number) for number, name in labels.items()}
    ignored = labels.get(IGNORE)
    named = {name: n for name, n in labels.items() if name not in ("background", IGNORE)}
    if any(isinstance(numbers, list) for numbers in named.values()):
        classes = _classes_of_regions(named, values.get("regions_class_order"))
    else:
        classes = {int(number): name for name, number in named.items()}
    classes.pop(0, None)
    if len(classes) < len(named):
        raise ValueError(f'"labels" give two names one number: {named}')
    wrong = [n for n in (*classes, *([] if ignored is None else [ignored])) if not 1 <= n <= 255]
    if wrong:
        raise ValueError(f'"labels" hold the numbers {wrong}; expected 1 to 255')
    return classes, ignored


def _classes_of_regions(named: dict[str, Any], order: Any) -> dict[int, str]:
    """Resolve labels with several values: the i-th of `order` belongs to the i-th label."""
    if not isinstance(order, list) or len(order) != len(named):
        raise ValueError(
            f'"labels" name {len(named)} regions of several numbers each; "regions_class_order" '
            f"must give each its own number, got {order}"
        )
    return {int(number): name for number, name in zip(order, named, strict=True)}
