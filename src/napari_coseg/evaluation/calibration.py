"""Choose a model's decoding thresholds and temperatures on labelled images, for its card.

Thresholds are chosen one after the other, each by the mean panoptic quality of the images; a
temperature is fitted to the negative log-likelihood of labelled pixels (Guo et al. 2017, "On
calibration of modern neural networks", section 4.2), and judged by the expected calibration error
(their equation 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_coseg.core.card import Decoding, ModelCard
from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import Image, id_lookup
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.counterparts import SAME_OBJECTS, SAME_REGIONS, pair_classes
from napari_coseg.evaluation.run import evaluate
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.labels.metrics.averaging import MEAN
from napari_coseg.labels.metrics.calibration import calibration_error
from napari_coseg.labels.metrics.paper_tables import ALL, OBJECTS

if TYPE_CHECKING:
    from torch import Tensor

    from napari_coseg.models.base import CosegModel, TaskMaps

CANDIDATES: dict[str, tuple[float, ...]] = {
    "object_threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "distance_smoothing_um": (0.5, 1.0, 1.5, 2.0, 3.0),
    "border_threshold": (0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3),
    "min_object_area_um2": (16.0, 32.0, 64.0, 96.0, 128.0),
}
"""Lengths and areas are in pixels of the model, whose size makes them micrometres."""
LEAST_GAIN = 0.001
"""In panoptic quality; what gains less than this is noise, and the default stays."""
PIXELS_OF_AN_IMAGE = 50_000
"""At most this many pixels of an image, drawn at random, fit a temperature."""
LARGEST_SIDE_PX = 1024
"""Of the part of an image, from its centre, that fits a temperature."""


class Fit(NamedTuple):
    """A map's temperature, and its expected calibration error without and with it."""

    temperature: float
    before: float
    after: float
    pixels: int


@dataclass(frozen=True)
class Part:
    """A dataset, one of its splits, and which images of that."""

    dataset: Dataset
    split: str
    names: tuple[str, ...]


def choose_decoding(
    model: CosegModel, parts: Sequence[Part], report: Callable[[str], None] = print
) -> Decoding:
    """The decoding with the best panoptic quality of objects, averaged over the parts.

    Each of `CANDIDATES` in turn, the others being the best so far.

    Parameters
    ----------
    parts
        Images that the model was not trained on and is not tested on.
    report
        Called with a line for every value tried.
    """
    best = model.card.decoding
    with _remembering(model):
        best_score = _object_quality(model, parts, best)
        report(f"as it is: {best_score:.4f}")
        for name, values in CANDIDATES.items():
            axes = {"um": 1, "um2": 2}.get(name.rpartition("_")[2], 0)
            for value in (round(v * model.card.pixel_size_um**axes, 4) for v in values):
                if value == getattr(best, name):
                    continue
                candidate = best.model_copy(update={name: value})
                score = _object_quality(model, parts, candidate)
                report(f"{name} {value:g}: {score:.4f}")
                if score > best_score + LEAST_GAIN:
                    best, best_score = candidate, score
    return best


@contextmanager
def _remembering(model: CosegModel) -> Iterator[None]:
    """Run the network once for each input: a search changes only what comes after it."""
    forward = model.forward
    known: dict[bytes, Any] = {}

    def remembered(images: Tensor) -> Any:
        key = hashlib.sha256(images.cpu().numpy().tobytes()).digest()
        if key not in known:
            known[key] = forward(images)
        return known[key]

    model.forward = remembered  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del model.forward


def fit_temperatures(model: CosegModel, parts: Sequence[Part], seed: int = 0) -> dict[str, Fit]:
    """A temperature for each map that the parts have labels for.

    Classes of objects count where there is an object.

    Raises
    ------
    DatasetError
        Where no part has a label of any map.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for part in parts:
        for name in part.names:
            sample = _centre(part.dataset.load(part.split, name))
            maps = _logits(model, sample)
            for of, logits, target in _labelled_pixels(model.card, part.dataset, sample, maps):
                some = generator.permutation(len(target))[:PIXELS_OF_AN_IMAGE]
                drawn.setdefault(of, []).append((logits[some], target[some]))
    if not drawn:
        raise DatasetError("the images have no labels of what the model predicts")
    found = {}
    for of, pixels in drawn.items():
        logits, target = (np.concatenate(arrays) for arrays in zip(*pixels, strict=True))
        found[of] = fit_temperature(logits, target)
    return found


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> Fit:
    """The temperature with the lowest negative log-likelihood.

    Parameters
    ----------
    logits
        Float (N, C), of a softmax.
    target
        Integer (N,), the right channel.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[rows, target].mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))
    before, after = (
        calibration_error(softmax(logits / t, axis=1), target) for t in (1.0, temperature)
    )
    return Fit(temperature, before, after, len(target))


def _object_quality(model: CosegModel, parts: Sequence[Part], decoding: Decoding) -> float:
    settings = InferenceSettings(**decoding.model_dump())
    scores = []
    for part in parts:
        table = evaluate(model, part.dataset, part.split, names=part.names, settings=settings)
        chosen = (table["image"] == MEAN) & (table["task"] == OBJECTS) & (table["class"] == ALL)
        scores += list(table[chosen & (table["metric"] == "PQ")]["value"])
    if not scores:
        raise DatasetError("the images have no object labels")
    return float(np.mean(scores))


def _centre(sample: Sample) -> Sample:
    """The middle of a sample, at most `LARGEST_SIDE_PX` wide and high."""
    window = tuple(
        slice(max(0, (side - LARGEST_SIDE_PX) // 2), (side + LARGEST_SIDE_PX) // 2)
        for side in sample.image.shape[:2]
    )
    arrays = (
        "image",
        "semantic",
        "semantic_known",
        "instances",
        "instances_known",
        "instance_types",
    )
    cut = {name: getattr(sample, name) for name in arrays}
    return replace(
        sample, **{name: array[window] for name, array in cut.items() if array is not None}
    )


def _logits(model: CosegModel, sample: Sample) -> TaskMaps:
    """Maps of the second forward, (1, C, Y, X) on the sample's own grid, without temperatures."""
    import torch
    import torch.nn.functional as F

    from napari_coseg.inference.plane import read_tile
    from napari_coseg.inference.run import plan_plane, read_for
    from napari_coseg.models.nn.modes import evaluating

    size = (sample.pixel_size_um,) * 2
    source = read_for(model.card, Image(sample.image, "YXC", size))
    settings = InferenceSettings(tile_size_px=16384)
    shape = (sample.image.shape[0], sample.image.shape[1])
    plan = plan_plane(shape, size, model.card, settings, model.size_multiple)
    tile = torch.from_numpy(read_tile(source, plan, 0, plan.tiles[0][0]))
    device = next(model.buffers()).device
    with evaluating(model), torch.inference_mode():
        images = model.normalise(tile.permute(2, 0, 1)[None].contiguous().to(device))
        maps: TaskMaps = model(images).second

    def on_image(values: Tensor) -> Tensor:
        y, x = plan.model_shape
        inside = values[..., :y, :x].float()
        if not inside.shape[1]:
            return inside
        return F.interpolate(inside, shape, mode="bilinear", align_corners=False)

    return type(maps)(*(on_image(values) for values in maps))


def _labelled_pixels(
    card: ModelCard, dataset: Dataset, sample: Sample, maps: TaskMaps
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a map, logits (N, C) and right channels (N,) of the pixels that have a label."""
    if sample.semantic is not None:
        pairs = pair_classes(card.semantic_label_classes, dataset.semantic_classes, SAME_REGIONS)
        if pairs:
            known = _known(sample.semantic_known, sample.semantic)
            truth = id_lookup({pair.theirs.id: pair.ours.id for pair in pairs})[sample.semantic]
            yield "semantic", _rows(maps.semantic, known), truth[known]
    if sample.instances is not None:
        known = _known(sample.instances_known, sample.instances)
        objects = _rows(maps.object, known)
        yield (
            "object",
            np.hstack([np.zeros_like(objects), objects]),
            (sample.instances[known] > 0).astype(np.int64),
        )
    if sample.instances is not None and sample.instance_types is not None and maps.classes.shape[1]:
        pairs = pair_classes(card.instance_label_classes, dataset.instance_classes, SAME_OBJECTS)
        truth = id_lookup({pair.theirs.id: pair.ours.id for pair in pairs})[sample.instance_types]
        known = _known(sample.instances_known, sample.instances) & (truth > 0)
        if known.any():
            yield "classes", _rows(maps.classes, known), truth[known]


def _known(known: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    return np.ones(labels.shape, bool) if known is None else known


def _rows(values: Tensor, where: np.ndarray) -> np.ndarray:
    found: np.ndarray = values[0].cpu().numpy()[:, where].T
    return found
