"""How good a model is on a labelled dataset: one tidy table, a row a number.

Rows are per image, the mean over the images that have the score (an image without an object of a
class has none), and pooled over all pixels or objects of the dataset. The means are what papers
report; false finds in images without the class cost nothing there, so read the pooled ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.errors import DatasetError
from napari_coseg.inference.run import segment
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.metrics.instances import (
    Contingency,
    PanopticQuality,
    aggregated_jaccard_index,
    by_class,
    contingency,
    panoptic_quality,
)
from napari_coseg.metrics.overlap import Overlap, mask_overlap
from napari_coseg.types import LabelClass, Prediction

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.models.base import CosegModel
    from napari_coseg.training.recipe import Recipe

COLUMNS = ("dataset", "split", "image", "task", "class", "metric", "value")
OBJECTS, REGIONS, ALL = "objects", "regions", "all"
MEAN, POOLED = "(mean)", "(pooled)"
"""Stand in the column ``image`` for what is not one image's."""


@dataclass
class _Scores:
    """What has been counted of one task and class so far."""

    quality: PanopticQuality = field(default_factory=lambda: PanopticQuality(0, 0, 0, 0.0))
    overlap: Overlap = field(default_factory=lambda: Overlap(0, 0, 0))
    values: list[tuple[str, str, float]] = field(default_factory=list)

    def add_quality(self, image: str, quality: PanopticQuality) -> None:
        self.quality += quality
        self.values += [(image, name, value) for name, value in _of_quality(quality)]

    def add_overlap(self, image: str, overlap: Overlap) -> None:
        self.overlap += overlap
        self.values += [(image, name, value) for name, value in _of_overlap(overlap)]

    def rows(self) -> list[tuple[str, str, float]]:
        """(image, metric, value): of every image, the means, the pooled ones."""
        names = list(dict.fromkeys(metric for _, metric, _ in self.values))
        means = [
            (MEAN, name, _mean(value for _, metric, value in self.values if metric == name))
            for name in names
        ]
        pooled = [*_of_quality(self.quality), *_of_overlap(self.overlap)]
        return [
            *self.values,
            *means,
            *((POOLED, name, value) for name, value in pooled if name in names),
        ]


def evaluate(
    model: CosegModel,
    dataset: Dataset,
    split: str,
    *,
    names: Sequence[str] | None = None,
    settings: InferenceSettings | None = None,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Segment the images of a split and compare with their labels.

    Classes of model and dataset are the same where their names are.

    Parameters
    ----------
    names
        Some images of the split; None takes all.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. Metrics of objects: PQ, DQ (the F1 at an IoU above 0.5), SQ, AJI, Dice
        (of all objects as one mask); of each object class PQ, DQ, SQ; of each region class Dice
        and IoU. AJI is not pooled.

    Raises
    ------
    DatasetError
        Where the dataset has no labels of a task that the model solves.
    """
    import pandas as pd

    names = tuple(names) if names is not None else dataset.names(split)
    scores: dict[tuple[str, str], _Scores] = {}
    for i, name in enumerate(names):
        sample = dataset.load(split, name)
        found = segment(
            sample.image,
            model,
            sample.pixel_size_um,
            settings=settings,
            progress=_part(progress, i, len(names), name),
            should_cancel=should_cancel,
        )
        _score_objects(scores, dataset, sample, found)
        _score_regions(scores, dataset, sample, found)
    if not scores:
        raise DatasetError(
            f"dataset {dataset.name!r} has no labels that {model.card.name!r} could be compared "
            f"with; it has object labels: {bool(dataset.layout.instances)}, region classes: "
            f"{', '.join(c.name for c in dataset.semantic_classes) or 'none'}"
        )
    rows = [
        (dataset.name, split, image, task, class_name, metric, value)
        for (task, class_name), counted in scores.items()
        for image, metric, value in counted.rows()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means and pooled scores alone, a row for each task and class, metrics as columns."""

    short = table[table["image"].isin([MEAN, POOLED])]
    index = ["dataset", "split", "task", "class", "image"]
    wide = short.pivot(index=index, columns="metric", values="value")
    order = [name for name in ("PQ", "DQ", "SQ", "AJI", "Dice", "IoU") if name in wide.columns]
    result: pd.DataFrame = wide[order].rename_axis(index={"image": "over images"})
    return result


def score_held_out(model: CosegModel, recipe: Recipe, data_root: Path) -> dict[str, float]:
    """Scores on the images that a recipe holds out, to choose weights by.

    ``object_panoptic_quality``, ``object_aji``, ``object_dice``, ``type_panoptic_quality`` (mean
    over the types), ``region_dice`` (mean over the region classes): each the mean over images, and
    over the datasets of the recipe that have such labels.
    """
    import pandas as pd

    from napari_coseg.training.run import validation_names

    tables = []
    for name, split in dict.fromkeys((part.dataset, part.split) for part in recipe.batches):
        dataset = open_dataset(name, data_root)
        names = validation_names(dataset, split, recipe.held_out)
        tables.append(evaluate(model, dataset, split, names=names))
    table = pd.concat(tables)
    means = table[table["image"] == MEAN]
    whole = means["class"] == ALL
    chosen = {
        "object_panoptic_quality": (OBJECTS, whole, "PQ"),
        "object_aji": (OBJECTS, whole, "AJI"),
        "object_dice": (OBJECTS, whole, "Dice"),
        "type_panoptic_quality": (OBJECTS, ~whole, "PQ"),
        "region_dice": (REGIONS, ~whole, "Dice"),
    }
    scores = {}
    for key, (task, rows, metric) in chosen.items():
        values = means[rows & (means["task"] == task) & (means["metric"] == metric)]["value"]
        if len(values):
            scores[key] = _mean(values)
    return scores


def _score_objects(
    scores: dict[tuple[str, str], _Scores], dataset: Dataset, sample: Sample, found: Prediction
) -> None:
    if sample.instances is None:
        return
    labels = found.instances.labels
    table = contingency(sample.instances, labels)
    whole = scores.setdefault((OBJECTS, ALL), _Scores())
    whole.add_quality(sample.name, panoptic_quality(table))
    whole.values.append((sample.name, "AJI", aggregated_jaccard_index(table)))
    overlap = mask_overlap(sample.instances, labels)
    whole.overlap += overlap
    whole.values.append((sample.name, "Dice", overlap.dice))
    shared = _shared(found.instances.classes, dataset.instance_classes)
    if sample.instance_types is None or not shared:
        return
    truth = object_types(sample.instances, sample.instance_types, table)
    predicted = found.instances.table["class_id"].to_numpy()
    # Both sides number the classes that they share from 1, in one order.
    ours = _renumbering(ours_id for ours_id, _, _ in shared)
    theirs = _renumbering(theirs_id for _, theirs_id, _ in shared)
    tables = by_class(table, theirs[truth], ours[predicted], range(1, len(shared) + 1))
    for number, (_, _, name) in enumerate(shared, 1):
        counted = scores.setdefault((OBJECTS, name), _Scores())
        counted.add_quality(sample.name, panoptic_quality(tables[number]))


def _score_regions(
    scores: dict[tuple[str, str], _Scores], dataset: Dataset, sample: Sample, found: Prediction
) -> None:
    if sample.semantic is None:
        return
    for ours, theirs, name in _shared(found.semantic_classes, dataset.semantic_classes):
        overlap = mask_overlap(sample.semantic == theirs, found.semantic == ours)
        scores.setdefault((REGIONS, name), _Scores()).add_overlap(sample.name, overlap)


def object_types(instances: np.ndarray, types: np.ndarray, table: Contingency) -> np.ndarray:
    """Type of every true object, (N,) in the order of ``table.truth_ids``: most of its pixels."""
    where = np.flatnonzero(instances)
    position = np.searchsorted(table.truth_ids, instances.reshape(-1)[where])
    votes = position * 256 + types.reshape(-1)[where]
    counts = np.bincount(votes, minlength=256 * len(table.truth_ids)).reshape(-1, 256)
    return counts.argmax(axis=1)


def _shared(ours: Iterable[LabelClass], theirs: Iterable[LabelClass]) -> list[tuple[int, int, str]]:
    """(our id, their id, name) of the classes that both know."""
    ids = {entry.name.lower(): entry.id for entry in theirs}
    return [(c.id, ids[c.name.lower()], c.name) for c in ours if c.name.lower() in ids]


def _renumbering(ids: Iterable[int]) -> np.ndarray:
    """Lookup from class ids to 1, 2, ... in the order given; 0 for all others."""
    table = np.zeros(256, np.int64)
    for number, class_id in enumerate(ids, 1):
        table[class_id] = number
    return table


def _of_quality(quality: PanopticQuality) -> list[tuple[str, float]]:
    return [("PQ", quality.pq), ("DQ", quality.dq), ("SQ", quality.sq)]


def _of_overlap(overlap: Overlap) -> list[tuple[str, float]]:
    return [("Dice", overlap.dice), ("IoU", overlap.intersection_over_union)]


def _mean(values: Iterable[float]) -> float:
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _part(
    progress: Callable[[float, str], None] | None, i: int, count: int, name: str
) -> Callable[[float, str], None] | None:
    if progress is None:
        return None

    def of_one(fraction: float, message: Any) -> None:
        progress((i + fraction) / count, f"{name} ({i + 1} of {count}), {message}")

    return of_one
