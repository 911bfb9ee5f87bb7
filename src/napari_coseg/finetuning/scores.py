"""Scores a model on reviewed images, where they were reviewed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from napari_coseg.core.card import ModelCard
from napari_coseg.core.types import Prediction
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.inference import segment
from napari_coseg.labels.metrics.contingency import by_class, contingency
from napari_coseg.labels.metrics.instances import panoptic_quality
from napari_coseg.labels.metrics.overlap import mask_overlap
from napari_coseg.models.base import CosegModel

CONTEXT_PX = 64
"""Of the image around what was reviewed, that the model is shown."""
OBJECTS, MASK, TYPES, REGIONS = "object", "mask", "type_pq", "region_dice"
Scores = dict[str, Any]
Key = tuple[str, str]
"""Kind of score, and the name of a class or nothing."""
Look = Callable[[ReviewedImage, Prediction], None]


def score(
    model: CosegModel,
    images: Sequence[ReviewedImage],
    *,
    should_cancel: Callable[[], bool] | None = None,
    look: Look | None = None,
) -> Scores:
    """Segment and compare where the labels are known; counts are pooled over the images.

    Parameters
    ----------
    images
        With the class ids of the model's card.
    look
        Called with what was compared, cut to what was reviewed and its surroundings.

    Returns
    -------
    dict
        ``object_f1``, ``object_pq``, ``object_dice``, ``objects`` (true ones); ``type_pq`` and
        ``region_dice`` by class with any truth, and their means ``mean_type_pq`` and
        ``mean_region_dice``. What has no truth is left out.
    """
    totals: dict[Key, Any] = {}
    stretch = model.card.normalisation.stretch
    with _not_stretching(model):  # that depends on the whole of an image
        for whole in images:
            image = _cut(whole.stretched() if stretch else whole)
            found = segment(image.image, model, image.pixel_size_um, should_cancel=should_cancel)
            for key, counts in _counts(model.card, image, found):
                totals[key] = totals[key] + counts if key in totals else counts
            if look is not None:
                look(image, found)
    return _scores(totals)


@contextmanager
def _not_stretching(model: CosegModel) -> Iterator[None]:
    card = model.card
    plain = card.normalisation.model_copy(update={"stretch": False})
    model.card = card.model_copy(update={"normalisation": plain})
    try:
        yield
    finally:
        model.card = card


def selection_score(scores: Scores) -> float:
    """The mean of the tasks' scores, which weights are selected by; 0 where nothing was scored."""
    tasks = [scores[name] for name in ("mean_region_dice",) if name in scores]
    if "object_f1" in scores:
        tasks.append((scores["object_f1"] + scores["object_pq"]) / 2)
    if "mean_type_pq" in scores:
        tasks.append(scores["mean_type_pq"])
    return float(np.mean(tasks)) if tasks else 0.0


def _counts(card: ModelCard, image: ReviewedImage, found: Prediction) -> Iterator[tuple[Key, Any]]:
    """What one image adds to each kind of score and class; counts of several images add up."""
    if image.instances is not None and image.instances_known is not None:
        truth = np.where(image.instances_known, image.instances, 0)
        guess = _mostly_inside(found.instances.labels, image.instances_known)
        table = contingency(truth, guess)
        yield (OBJECTS, ""), panoptic_quality(table)
        yield (MASK, ""), mask_overlap(truth, guess)
        if image.instance_types is not None and card.instance_classes:
            ids, first = np.unique(truth, return_index=True)
            true_types = image.instance_types.reshape(-1)[first[ids > 0]].astype(np.int64)
            types = found.instances.table.set_index("id")["class_id"].loc[table.prediction_ids]
            names = {entry.id: entry.name for entry in card.instance_classes}
            for number, of in by_class(table, true_types, types.to_numpy(), list(names)).items():
                yield (TYPES, names[number]), panoptic_quality(of)
    if image.semantic is not None and image.semantic_known is not None:
        for entry in card.semantic_classes:
            truth = (image.semantic == entry.id) & image.semantic_known
            guess = (found.semantic == entry.id) & image.semantic_known
            yield (REGIONS, entry.name), mask_overlap(truth, guess)


def _scores(totals: dict[Key, Any]) -> Scores:
    scores: Scores = {}
    objects = totals.get((OBJECTS, ""))
    if objects is not None and objects.truth_count:
        scores |= {
            "object_f1": _rounded(objects.f1),
            "object_pq": _rounded(objects.pq),
            "object_dice": _rounded(totals[MASK, ""].dice),
            "objects": objects.truth_count,
        }
    for kind, value, truth in ((TYPES, "pq", "truth_count"), (REGIONS, "dice", "truth")):
        found = {
            name: _rounded(getattr(counts, value))
            for (of, name), counts in totals.items()
            if of == kind and getattr(counts, truth)
        }
        if found:
            scores |= {kind: found, f"mean_{kind}": _rounded(np.mean(list(found.values())))}
    return scores


def _rounded(value: Any) -> float:
    return round(float(np.nan_to_num(value)), 4)


def _mostly_inside(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The predicted objects of which more than half is known; the others cannot be judged."""
    areas = np.bincount(labels.reshape(-1))
    inside = np.bincount(labels[known], minlength=len(areas))
    keep = 2 * inside > areas
    keep[0] = False
    return np.where(keep[labels], labels, 0)


def _cut(image: ReviewedImage) -> ReviewedImage:
    """To what was reviewed and some context."""
    mask = image.reviewed
    parts = []
    for axis, side in enumerate(mask.shape):
        span = np.flatnonzero(mask.any(axis=1 - axis))
        parts.append(slice(max(0, span[0] - CONTEXT_PX), min(side, span[-1] + 1 + CONTEXT_PX)))
    return image.crop(tuple(parts))
