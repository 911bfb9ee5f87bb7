"""How good a model is where a person has reviewed: both tasks, before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from napari_coseg.core.types import Prediction
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.inference import segment
from napari_coseg.labels.metrics.contingency import by_class, contingency
from napari_coseg.labels.metrics.instances import PanopticQuality, panoptic_quality
from napari_coseg.labels.metrics.overlap import Overlap, mask_overlap
from napari_coseg.models.base import CosegModel

CONTEXT_PX = 64
"""Of the image around what was reviewed, that the model is shown."""
Scores = dict[str, Any]
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
    tally = _Tally(model)
    stretch = model.card.normalisation.stretch
    with _not_stretching(model):  # that depends on the whole of an image
        for whole in images:
            image = _cut(whole.stretched() if stretch else whole)
            found = segment(image.image, model, image.pixel_size_um, should_cancel=should_cancel)
            tally.add(image, found)
            if look is not None:
                look(image, found)
    return tally.scores()


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


class _Tally:
    def __init__(self, model: CosegModel) -> None:
        self.card = model.card
        self.objects: PanopticQuality | None = None
        self.mask: Overlap | None = None
        self.types: dict[int, PanopticQuality] = {}
        self.regions: dict[int, Overlap] = {}

    def add(self, image: ReviewedImage, found: Prediction) -> None:
        if image.objects is not None and image.objects_reviewed is not None:
            self._add_objects(image, image.objects, image.objects_reviewed, found)
        if image.semantic is not None and image.semantic_reviewed is not None:
            for entry in self.card.semantic_classes:
                truth = (image.semantic == entry.id) & image.semantic_reviewed
                guess = (found.semantic == entry.id) & image.semantic_reviewed
                overlap = mask_overlap(truth, guess)
                self.regions[entry.id] = _plus(self.regions.get(entry.id), overlap)

    def _add_objects(
        self, image: ReviewedImage, objects: np.ndarray, known: np.ndarray, found: Prediction
    ) -> None:
        truth = np.where(known, objects, 0)
        guess = _mostly_inside(found.instances.labels, known)
        table = contingency(truth, guess)
        self.objects = _plus(self.objects, panoptic_quality(table))
        self.mask = _plus(self.mask, mask_overlap(truth, guess))
        if image.types is None or not self.card.instance_classes:
            return
        ids, first = np.unique(truth, return_index=True)
        true_types = image.types.reshape(-1)[first[ids > 0]].astype(np.int64)
        of = found.instances.table.set_index("id")["class_id"].loc[table.prediction_ids]
        numbers = [entry.id for entry in self.card.instance_classes]
        for number, of_class in by_class(table, true_types, of.to_numpy(), numbers).items():
            self.types[number] = _plus(self.types.get(number), panoptic_quality(of_class))

    def scores(self) -> Scores:
        scores: Scores = {}
        if self.objects is not None and self.mask is not None and self.objects.truth_count:
            scores |= {
                "object_f1": _rounded(self.objects.f1),
                "object_pq": _rounded(self.objects.pq),
                "object_dice": _rounded(self.mask.dice),
                "objects": self.objects.truth_count,
            }
        names = {entry.id: entry.name for entry in self.card.instance_classes}
        types = {names[n]: _rounded(q.pq) for n, q in self.types.items() if q.truth_count}
        if types:
            scores |= {"type_pq": types, "mean_type_pq": _rounded(np.mean(list(types.values())))}
        names = {entry.id: entry.name for entry in self.card.semantic_classes}
        regions = {
            names[n]: _rounded(overlap.dice) for n, overlap in self.regions.items() if overlap.truth
        }
        if regions:
            mean = _rounded(np.mean(list(regions.values())))
            scores |= {"region_dice": regions, "mean_region_dice": mean}
        return scores


def _plus(one: Any, other: Any) -> Any:
    return other if one is None else one + other


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
