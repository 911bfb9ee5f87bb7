"""Hold images out of training for the selection of weights.

For splits into training, validation and test images see `napari_coseg.datasets.partition`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.files import natural_key

MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Split:
    """Names of training and of validation images; disjoint."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def split_names(names: Iterable[str], validation_fraction: float, seed: int) -> Split:
    """Draw a validation part; the result does not depend on the order of the names.

    Parameters
    ----------
    validation_fraction
        Above 0, below 1; each part gets at least one name.
    """
    ordered = sorted(set(names), key=natural_key)
    if len(ordered) < 2:
        raise DatasetError(f"{len(ordered)} image cannot be split; at least 2 are needed")
    if not 0 < validation_fraction < 1:
        raise DatasetError(
            f"validation_fraction is {validation_fraction}; it must lie between 0 and 1"
        )
    count = min(max(round(validation_fraction * len(ordered)), 1), len(ordered) - 1)
    chosen = np.random.default_rng(seed).choice(len(ordered), size=count, replace=False)
    return hold_out(ordered, [ordered[i] for i in chosen])


def hold_out(names: Iterable[str], validation: Iterable[str]) -> Split:
    """Split `names` by a list of those to hold out; unknown names are an error."""
    ordered = sorted(set(names), key=natural_key)
    held = set(validation)
    unknown = held - set(ordered)
    if unknown:
        raise DatasetError(
            f"the split holds out {', '.join(sorted(unknown))}, which the dataset does not have"
        )
    return Split(
        train=tuple(name for name in ordered if name not in held),
        validation=tuple(name for name in ordered if name in held),
    )


def save_split(path: Path, validation: dict[str, tuple[str, ...]], note: str = "") -> None:
    """Write held-out names by dataset as JSON."""
    content = {"note": note, "validation": {name: list(held) for name, held in validation.items()}}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_split(name: str | Path) -> dict[str, tuple[str, ...]]:
    """Read held-out names by dataset, from a file or a shipped split.

    Parameters
    ----------
    name
        As `split_content` takes it: "colon_default".
    """
    try:
        content = split_content(name)
        # A file of three parts may name no held-out images.
        held = content.get("validation", {}) if "datasets" in content else content["validation"]
        return {dataset: tuple(names) for dataset, names in held.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f'split {str(name)!r} is not JSON of the form {{"validation": {{dataset: [names]}}}}'
        ) from error


def split_content(name: str | Path) -> dict[str, Any]:
    """Read a split file; datasets that it does not name are taken from its `base`.

    Parameters
    ----------
    name
        Path of a JSON file, or the bare name of a file in ``datasets/splits``.

    Raises
    ------
    DatasetError
        If there is no such split, it is too large, or its base has a base itself.
    ValueError, TypeError, RecursionError
        If it is not a JSON object; callers know the expected form.
    """
    content = _read(name)
    base = content.pop("base", None)
    if base is None:
        return content
    below = _read(base)
    if "base" in below:
        raise DatasetError(f"split {str(name)!r}: its base {base!r} has a base itself")
    kinds = {"validation", "datasets"} & (content.keys() | below.keys())
    return content | {kind: {**below.get(kind, {}), **content.get(kind, {})} for kind in kinds}


def _read(name: str | Path) -> dict[str, Any]:
    file = Path(name)
    shipped = resources.files("napari_coseg.datasets").joinpath("splits", f"{file.name}.json")
    if file.is_file():
        if file.stat().st_size > MAX_BYTES:
            raise DatasetError(f"split {file} is larger than {MAX_BYTES // 2**20} MiB")
        text = file.read_text(encoding="utf-8")
    elif str(name) == file.name and shipped.is_file():
        text = shipped.read_text(encoding="utf-8")
    else:
        raise DatasetError(f"no split {str(name)!r}: neither a file nor a shipped split")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("a split is a JSON object")
    return content
