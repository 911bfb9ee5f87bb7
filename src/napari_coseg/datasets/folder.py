"""A plain folder of images and labels, described by a ``dataset.json``.

    root/dataset.json       {"pixel_size_um": 0.25,
                             "semantic_classes": [{"id": 1, "name": "gland",
                                                   "color": [160, 90, 200]}],
                             "instance_classes": [...]}
    root/images/            and any of regions/, objects/, object_classes/, with the same stems
    root/known/             for partly annotated images: 0 where not annotated

Subfolders such as ``root/train/images`` in place of ``root/images`` make splits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import Field, field_validator

from napari_coseg.core.card import ClassEntry
from napari_coseg.core.errors import DatasetError
from napari_coseg.core.settings import Settings
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import image_named, read_labels


class FolderDescription(Settings):
    """Contents of ``dataset.json``."""

    pixel_size_um: float = Field(gt=0, description="micrometres per pixel of every image")
    semantic_classes: tuple[ClassEntry, ...] = ()
    instance_classes: tuple[ClassEntry, ...] = ()

    @field_validator("semantic_classes", "instance_classes")
    @classmethod
    def _differ(cls, classes: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
        for what in ("id", "name"):
            given = [str(getattr(entry, what)) for entry in classes]
            twice = sorted({one for one in given if given.count(one) > 1})
            if twice:
                raise ValueError(
                    f"the {what} {twice[0]} is given to two classes; give each class its own {what}"
                )
        return classes


class Folder(Dataset):
    """Images with those of regions, objects and object classes whose folders exist."""

    @classmethod
    def open(cls, root: Path) -> Folder:
        description = _read_description(root / "dataset.json")
        splits = _find_splits(root)
        first = root if splits == ("all",) else root / splits[0]
        return cls(
            root=root,
            name="folder",
            splits=splits,
            pixel_size_um=description.pixel_size_um,
            layout=Layout(
                semantic=_if_there(first, "regions"),
                instances=_if_there(first, "objects"),
                instance_types=_if_there(first, "object_classes"),
            ),
            semantic_classes=tuple(c.as_label_class() for c in description.semantic_classes),
            instance_classes=tuple(c.as_label_class() for c in description.instance_classes),
        )

    def load(self, split: str, name: str) -> Sample:
        """Read a sample with its known mask; without one in ``known`` all was annotated."""
        sample = super().load(split, name)
        path = image_named(self.folder(split) / "known", name)
        if path is None:
            return sample
        known = read_labels(path) > 0
        return replace(sample, semantic_known=known, instances_known=known)


def _read_description(path: Path) -> FolderDescription:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(
            f"no {path.name} in {path.parent}; write one with at least "
            '{"pixel_size_um": 0.25}, the micrometres per pixel of your images'
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path} holds {type(values).__name__}; expected a JSON object")
    return FolderDescription.from_mapping(values)


def _find_splits(root: Path) -> tuple[str, ...]:
    if (root / "images").is_dir():
        return ("all",)
    splits = tuple(sorted(path.parent.name for path in root.glob("*/images") if path.is_dir()))
    if not splits:
        raise DatasetError(f"neither {root / 'images'} nor {root / '<split>' / 'images'} exists")
    return splits


def _if_there(where: Path, folder: str) -> str | None:
    return folder if (where / folder).is_dir() else None
