"""Datasets by name.

To add a dataset, write ``datasets/<name>.py`` and add a line to `DATASETS`. The command line's help
imports this file, so imports must stay cheap.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_coseg.core.errors import DatasetError

if TYPE_CHECKING:
    from napari_coseg.datasets.base import Dataset

Value = TypeVar("Value")

DATASETS: dict[str, str] = {
    "consep": "napari_coseg.datasets.consep:Consep",
    "glas": "napari_coseg.datasets.glas:Glas",
    "glas-glands": "napari_coseg.datasets.glas:GlasGlands",
    "glas-lizard": "napari_coseg.datasets.gland_nuclei:GlasLizard",
    "crag": "napari_coseg.datasets.crag:Crag",
    "crag-glands": "napari_coseg.datasets.crag:CragGlands",
    "crag-lizard": "napari_coseg.datasets.gland_nuclei:CragLizard",
    "lizard": "napari_coseg.datasets.lizard:Lizard",
    "puma": "napari_coseg.datasets.puma:Puma",
    "puma-10": "napari_coseg.datasets.puma:Puma10",
    "bcss": "napari_coseg.datasets.bcss:Bcss",
    "bcss-5": "napari_coseg.datasets.bcss:Bcss5",
    "dsb2018": "napari_coseg.datasets.dsb2018:Dsb2018",
    "monuseg": "napari_coseg.datasets.monuseg:Monuseg",
    "tnbc": "napari_coseg.datasets.tnbc:Tnbc",
    "nuinsseg": "napari_coseg.datasets.nuinsseg:Nuinsseg",
    "ebhi": "napari_coseg.datasets.ebhi:Ebhi",
    "toothfairy2": "napari_coseg.datasets.toothfairy2:ToothFairy2",
    "synthetic-cbct": "napari_coseg.datasets.synthetic_cbct:SyntheticCbct",
    "nnunet-raw": "napari_coseg.datasets.nnunet_raw:NnunetRaw",
    "folder": "napari_coseg.datasets.folder:Folder",
}


SUBFOLDERS = {"glas-glands": "glas", "crag-glands": "crag", "puma-10": "puma", "bcss-5": "bcss"}
"""Folder names of variants that read the same files."""


def open_dataset(name: str, root: str | Path, partition: str | Path | None = None) -> Dataset:
    """Open a folder of labelled images: a released dataset, or your own.

    Parameters
    ----------
    name
        A key of `DATASETS`; "folder" is your own folder with a ``dataset.json``.
    root
        The dataset's folder, or one that holds it under its name (ignoring case).
    partition
        A split file, or the name of a shipped one: which images are "train", "validation" and
        "test", or which are held out, independent of folders. None keeps the dataset's own splits.

    Returns
    -------
    Dataset
        For `evaluate`; ``splits``, ``names(split)`` and ``load(split, name)`` access the images.

    Raises
    ------
    DatasetError
        If there is no such dataset or folder, or files are missing.
    """
    from napari_coseg.datasets.files import find_folder

    if name not in DATASETS:
        raise DatasetError(f"dataset {name!r} is not known; choose one of {', '.join(DATASETS)}")
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"dataset {name!r}: the folder {root} does not exist")
    root = find_folder(root, SUBFOLDERS.get(name, name), depth=1) or root
    module, class_name = DATASETS[name].split(":")
    kind: type[Dataset] = getattr(importlib.import_module(module), class_name)
    dataset = kind.open(root)
    return dataset if partition is None else _in_parts(dataset, partition)


def _in_parts(dataset: Dataset, partition: str | Path) -> Dataset:
    from napari_coseg.datasets.held_out import load_split
    from napari_coseg.datasets.partition import Partitioned, load_partition, names_parts, parts_of

    def value_of(known: dict[str, Value]) -> Value | None:
        return known.get(dataset.name) or known.get(SUBFOLDERS.get(dataset.name, ""))

    known = load_partition(partition) if names_parts(partition) else {}
    parts = value_of(known)
    if parts is None:
        held = load_split(partition)
        names = value_of(held)
        if names is None:
            raise DatasetError(
                f"the split {str(partition)!r} has no dataset {dataset.name!r}, only "
                f"{', '.join([*known, *held])}"
            )
        parts = parts_of(dataset, names)
    return Partitioned.of(dataset, parts)
