"""Scores of a model on a labelled dataset, as one tidy table.

Rows are per image, the means over images, and pooled over all pixels or objects of the dataset (see
`labels.metrics.averaging`). Papers report the means; false positives in images without the class
cost nothing there, so read the pooled scores too. Matching is at an IoU above 0.5. Hausdorff
distances are in micrometres; on request also as in the papers, in pixels of the image stretched to
1024 x 1024 (``HD_1024px``).

Volumes are scored slice by slice, as the papers do, or whole: then objects are those that the
linking of slices made, and distances are between surfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import Prediction, id_lookup
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.counterparts import (
    SAME_OBJECTS,
    SAME_REGIONS,
    describe_pairs,
    pair_classes,
)
from napari_coseg.datasets.labelled_volume import LabelledVolume
from napari_coseg.datasets.nnunet_raw import NnunetRaw
from napari_coseg.datasets.partition import Partitioned
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.inference.loading import load_model
from napari_coseg.inference.run import segment
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.labels.metrics.averaging import (
    AVERAGES,
    IMAGES,
    MEAN,
    POOLED,
    SCORES,
    Counts,
    Scores,
    finite_mean,
    mean_over_classes,
)
from napari_coseg.labels.metrics.contingency import Contingency, by_class, contingency
from napari_coseg.labels.metrics.instances import (
    aggregated_jaccard,
    connected_regions,
    object_dice,
    panoptic_quality,
)
from napari_coseg.labels.metrics.overlap import Overlap, mask_overlap
from napari_coseg.labels.metrics.paper_tables import ALL, OBJECTS, REGIONS
from napari_coseg.labels.metrics.surface import hausdorff, spacing_at_1024

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import CosegModel
    from napari_coseg.training.recipe import Recipe

COLUMNS = ("dataset", "split", "image", "task", "class", "metric", "value")
HELD_OUT, TEST = "held-out", "test"
"""Images of a recipe's datasets: to select weights, and to report."""
CLASSES = "(classes)"
"""In the column ``class``: the mean over the classes of a task."""

Key = tuple[str, str]
"""Task and class."""


def evaluate(
    model: str | Path | CosegModel,
    dataset: str | Path | Dataset,
    split: str | None = None,
    *,
    names: Sequence[str] | None = None,
    settings: InferenceSettings | None = None,
    distances_at_1024: bool = False,
    volumes: bool = False,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Segment the images of a dataset and compare with their labels.

    Classes of model and dataset are the same where their names are, or where
    `napari_coseg.datasets.counterparts` says so; `compared_classes` tells which those are. Objects
    of a class without a counterpart count among all objects, and as no class.

    Parameters
    ----------
    model
        What `load_model` returned, or a name or path that it takes.
    dataset
        What `open_dataset` returned, or the path of a labelled folder (with ``dataset.json``).
    split
        Which of ``dataset.splits``; None takes the test images, or those for validation where
        there are no test images.
    names
        Some images of the split; None takes all.
    settings
        As for `segment`.
    distances_at_1024
        Measure Hausdorff distances in the papers' way, too.
    volumes
        Segment and score whole volumes, each read from its file as `segment` does; ``names`` are
        then those of cases.
    progress
        Called with the part done (0..1) and one line of text.
    should_cancel
        As for `segment`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; metrics are `labels.metrics.averaging.SCORES`. ``image`` is an
        image's name or one of ``AVERAGES``, ``class`` a class's name or one of

        ``all``
            Objects of any class; Dice and IoU of all of them as one mask.
        ``(classes)``
            The mean over the classes of a task: its PQ is the mPQ, its IoU the mIoU. In one image
            a class that neither side has is left out; background is not a class.

        Object classes have no Dice, IoU or distance; the PQ of a region class is that of its
        connected components. Pixels that the dataset marks as unknown are left out.

    Raises
    ------
    DatasetError
        Where the dataset has no labels for any task of the model, or no volumes.
    SettingsError
        Where `volumes` and `distances_at_1024` are both asked for.
    """
    import pandas as pd

    if isinstance(model, (str, Path)):
        model = load_model(model)
    if isinstance(dataset, (str, Path)):
        dataset = open_dataset("folder", dataset)
    split = split or dataset.split_to_score
    if volumes and distances_at_1024:
        raise SettingsError(
            "distances at 1024 x 1024 are measured slice by slice; leave out one of the settings"
        )
    names_of, load = _whole_volumes(dataset) if volumes else (dataset.names, dataset.load)
    names = tuple(names) if names is not None else names_of(split)
    tally: dict[Key, dict[str, Counts]] = {}
    for i, name in enumerate(names):
        sample = load(split, name)
        found = segment(
            sample.image,
            model,
            sample.pixel_size_um,
            settings=settings,
            progress=_part(progress, i, len(names), name),
            should_cancel=should_cancel,
        )
        for key, counts in _counts(dataset, sample, found, distances_at_1024):
            tally.setdefault(key, {})[name] = counts
    if not tally:
        raise DatasetError(
            f"dataset {dataset.name!r} has no labels to compare {model.card.name!r} with; it has "
            f"object labels: {bool(dataset.layout.instances)}, region classes: "
            f"{', '.join(c.name for c in dataset.semantic_classes) or 'none'}"
        )
    rows = [
        (dataset.name, split, image, task, class_name, metric, value)
        for (task, class_name), by_image in _all_scores(tally).items()
        for image, scores in by_image.items()
        for metric, value in scores.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _whole_volumes(dataset: Dataset) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Functions that list and load the volumes of a split."""
    if not isinstance(dataset, NnunetRaw):
        raise DatasetError(
            f"dataset {dataset.name!r} is no folder of volumes; whole volumes are scored of "
            "nnunet-raw, toothfairy2 and synthetic-cbct, without a partition"
        )
    return dataset.cases, dataset.load_volume


def compared_classes(card: ModelCard, dataset: Dataset) -> tuple[str, ...]:
    """For each task with classes on both sides, a line that lists the corresponding classes."""
    tasks = (
        ("regions", card.semantic_label_classes, dataset.semantic_classes, SAME_REGIONS),
        ("object classes", card.instance_label_classes, dataset.instance_classes, SAME_OBJECTS),
    )
    return tuple(
        f"{task} {describe_pairs(pair_classes(ours, theirs, same), ours, theirs)}"
        for task, ours, theirs, same in tasks
        if ours and theirs
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means and pooled scores only, a row per task and class, metrics as columns."""
    short = table[table["image"].isin([MEAN, POOLED])]
    index = ["dataset", "split", "task", "class", "image"]
    wide = short.pivot(index=index, columns="metric", values="value")
    order = [name for name in (IMAGES, *SCORES) if name in wide.columns]
    result: pd.DataFrame = wide[order].rename_axis(index={"image": "over images"})
    return result


def score_held_out(model: CosegModel, recipe: Recipe, data_root: Path) -> dict[str, float]:
    """Scores on the images that a recipe holds out, to select weights.

    ``object_panoptic_quality``, ``object_aji``, ``object_dice``, ``type_panoptic_quality`` (mean
    over the types), ``region_dice`` (mean over the region classes): each the mean over images, and
    over the datasets of the recipe that have such labels. Unlike in a paper's mean, an image with
    false positives of a class that it does not have counts 0, so that weights which find a class
    everywhere are not preferred.
    """
    table = _of_recipe(model, recipe, data_root, HELD_OUT)
    images = table[~table["image"].isin(AVERAGES)]
    group = ["dataset", "split", "task", "class", "metric"]
    means = images.groupby(group)["value"].mean().reset_index()
    whole, typed = means["class"] == ALL, ~means["class"].isin([ALL, CLASSES])
    chosen = {
        "object_panoptic_quality": (OBJECTS, whole, "PQ"),
        "object_aji": (OBJECTS, whole, "AJI"),
        "object_dice": (OBJECTS, whole, "Dice"),
        "type_panoptic_quality": (OBJECTS, typed, "PQ"),
        "region_dice": (REGIONS, typed, "Dice"),
    }
    scores = {}
    for key, (task, rows, metric) in chosen.items():
        values = means[rows & (means["task"] == task) & (means["metric"] == metric)]["value"]
        if len(values):
            scores[key] = finite_mean(values)
    return scores


def score_for_ablation(
    model: CosegModel, recipe: Recipe, data_root: Path, images: str = HELD_OUT
) -> dict[str, float]:
    """Scores for ablations, to report and not to select by.

    ``region PQ: <class>`` and ``object PQ: <class>`` of every class and their mean, ``mean PQ``
    (Co-Seg++, tables 7, 8 and 11); ``region Dice: <class>``; PQ and AJI of objects of any class.
    Averaged over images as in the papers.

    Parameters
    ----------
    images
        `HELD_OUT`, or `TEST`: those of the recipe's datasets.

    Raises
    ------
    DatasetError
        Where a dataset has no test images and these are to be scored.
    """
    table = _of_recipe(model, recipe, data_root, images)
    means = table[table["image"] == MEAN]
    one_class = ~means["class"].isin([ALL, CLASSES])
    scores = {}
    for task, name in ((REGIONS, "region"), (OBJECTS, "object")):
        of_task = means[one_class & (means["task"] == task) & (means["metric"] == "PQ")]
        for row in of_task.itertuples():
            scores[f"{name} PQ: {row[1 + COLUMNS.index('class')]}"] = float(row.value)
    scores["mean PQ"] = finite_mean(list(scores.values()))
    for row in means[one_class & (means["metric"] == "Dice")].itertuples():
        scores[f"region Dice: {row[1 + COLUMNS.index('class')]}"] = float(row.value)
    for metric in ("PQ", "AJI"):
        values = means[(means["class"] == ALL) & (means["metric"] == metric)]["value"]
        if len(values):
            scores[f"all objects {metric}"] = finite_mean(values)
    return scores


def _of_recipe(model: CosegModel, recipe: Recipe, data_root: Path, images: str) -> pd.DataFrame:
    """`evaluate` on the held-out or test images of each dataset of a recipe."""
    import pandas as pd

    from napari_coseg.training.run import images_to_report_on, open_part, validation_names

    tables = []
    for name, split in dict.fromkeys((part.dataset, part.split) for part in recipe.batches):
        dataset = open_part(name, data_root, recipe)
        if images == TEST:
            where, names = images_to_report_on(dataset, split)
        else:
            where = "validation" if isinstance(dataset, Partitioned) else split
            names = validation_names(dataset, split, recipe.held_out)
        tables.append(evaluate(model, dataset, where, names=names))
    return pd.concat(tables)


def _counts(
    dataset: Dataset, sample: Sample | LabelledVolume, found: Prediction, distances_at_1024: bool
) -> Iterator[tuple[Key, Counts]]:
    """Counts of one image for each task and class that both dataset and model have."""
    if sample.instances is not None:
        labels = _where(sample.instances_known, found.instances.labels)
        truth = _where(sample.instances_known, sample.instances)
        table = contingency(truth, labels)
        yield (OBJECTS, ALL), _of_objects(table, mask_overlap(truth, labels))
        if sample.instance_types is not None:
            types = object_types(truth, sample.instance_types, table)
            for name, of_class in _by_type(dataset, found, types, table):
                yield (OBJECTS, name), _of_objects(of_class)
    if sample.semantic is not None:
        regions = _where(sample.semantic_known, found.semantic)
        truth = _where(sample.semantic_known, sample.semantic)
        pairs = pair_classes(found.semantic_classes, dataset.semantic_classes, SAME_REGIONS)
        for pair in pairs:
            masks = truth == pair.theirs.id, regions == pair.ours.id
            counts = _of_region(*masks, sample.pixel_size_um)
            if distances_at_1024:
                counts = replace(counts, at_1024=hausdorff(*masks, spacing_at_1024(truth.shape)))
            yield (REGIONS, pair.name), counts


def _of_objects(table: Contingency, overlap: Overlap | None = None) -> Counts:
    return Counts(
        panoptic_quality(table), aggregated_jaccard(table), overlap, object_dice=object_dice(table)
    )


def _of_region(
    truth: np.ndarray, prediction: np.ndarray, pixel_size_um: float | tuple[float, ...]
) -> Counts:
    parts = contingency(connected_regions(truth), connected_regions(prediction))
    return Counts(
        objects=panoptic_quality(parts),
        object_dice=object_dice(parts),
        overlap=mask_overlap(truth, prediction),
        surface=hausdorff(truth, prediction, pixel_size_um),
    )


def _by_type(
    dataset: Dataset, found: Prediction, truth_types: np.ndarray, table: Contingency
) -> Iterator[tuple[str, Contingency]]:
    """Name and table of each object class that both sides have."""
    pairs = pair_classes(found.instances.classes, dataset.instance_classes, SAME_OBJECTS)
    predicted = found.instances.table.set_index("id")["class_id"].loc[table.prediction_ids]
    # On both sides, the common classes are numbered from 1 in the same order.
    numbered = list(enumerate(pairs, 1))
    ours = id_lookup({pair.ours.id: number for number, pair in numbered})[predicted.to_numpy()]
    theirs = id_lookup({pair.theirs.id: number for number, pair in numbered})[truth_types]
    tables = by_class(table, theirs, ours, range(1, len(pairs) + 1))
    for number, pair in enumerate(pairs, 1):
        yield pair.name, tables[number]


def _all_scores(tally: dict[Key, dict[str, Counts]]) -> dict[Key, dict[str, Scores]]:
    """By task and class, then by image or average; `CLASSES` is the last one of a task."""
    found: dict[Key, dict[str, Scores]] = {}
    for key, images in tally.items():
        averages = {way: average(tuple(images.values())) for way, average in AVERAGES.items()}
        found[key] = {name: counts.scores() for name, counts in images.items()} | averages
    for task in dict.fromkeys(task for task, _ in tally):
        classes = [rows for (of, name), rows in found.items() if of == task and name != ALL]
        images_and_averages = dict.fromkeys(name for rows in classes for name in rows)
        if classes:
            found[task, CLASSES] = {
                name: mean_over_classes(rows[name] for rows in classes if name in rows)
                for name in images_and_averages
            }
    return found


def _where(known: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    return labels if known is None else np.where(known, labels, 0)


def object_types(instances: np.ndarray, types: np.ndarray, table: Contingency) -> np.ndarray:
    """Type of every true object, (N,) in the order of ``table.truth_ids``: that of most pixels."""
    where = np.flatnonzero(instances)
    position = np.searchsorted(table.truth_ids, instances.reshape(-1)[where])
    votes = position * 256 + types.reshape(-1)[where]
    counts = np.bincount(votes, minlength=256 * len(table.truth_ids)).reshape(-1, 256)
    return counts.argmax(axis=1)


def _part(
    progress: Callable[[float, str], None] | None, i: int, count: int, name: str
) -> Callable[[float, str], None] | None:
    if progress is None:
        return None

    def of_one(fraction: float, message: Any) -> None:
        progress((i + fraction) / count, f"{name} ({i + 1} of {count}), {message}")

    return of_one
