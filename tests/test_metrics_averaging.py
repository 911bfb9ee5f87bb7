"""From images to a dataset: which images count in which average, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_coseg.labels.metrics.averaging import (
    AS_RELEASED,
    AVERAGES,
    IMAGES,
    MEAN,
    POOLED,
    SCORES,
    Counts,
    mean,
    mean_over_classes,
    pooled,
)
from napari_coseg.labels.metrics.instances import AggregatedJaccard, ObjectDice, PanopticQuality
from napari_coseg.labels.metrics.overlap import Overlap
from napari_coseg.labels.metrics.surface import HausdorffDistance

NAN, INF = float("nan"), float("inf")


def image(tp: int, fp: int, fn: int, iou: float, shared: int, truth: int, found: int, hd: float):
    """One image in which matched pairs have one IoU."""
    overlap = Overlap(shared, truth, found)
    jaccard = AggregatedJaccard(shared, truth + found - shared)
    surface = HausdorffDistance(hd, hd)
    dice = ObjectDice(shared, truth, shared, found)
    return Counts(
        PanopticQuality(tp, fp, fn, tp * iou), jaccard, overlap, surface, object_dice=dice
    )


GOOD = image(2, 0, 0, 0.8, 80, 100, 80, 4)
POOR = image(1, 1, 1, 0.6, 20, 100, 60, 8)
MISSED = image(0, 0, 1, 0, 0, 40, 0, INF)
UNMATCHED = image(0, 1, 1, 0, 20, 60, 60, 6)
FALSE_FIND = image(0, 2, 0, 0, 0, 0, 40, INF)
EMPTY = image(0, 0, 0, 0, 0, 0, 0, NAN)

# images, score, (mean), (mean as released), (pooled)
AVERAGED = {
    "PQ of images with the class": ([GOOD, POOR], "PQ", 0.55, 0.55, 2.2 / 4),
    "a false find elsewhere costs PQ nothing": ([GOOD, FALSE_FIND], "PQ", 0.8, 0.8, 1.6 / 3),
    "an empty image neither": ([GOOD, EMPTY], "PQ", 0.8, 0.8, 0.8),
    "a missed object counts 0": ([GOOD, MISSED], "PQ", 0.4, 0.4, 1.6 / 2.5),
    "F1 likewise": ([GOOD, FALSE_FIND], "F1", 1.0, 1.0, 2 / 3),
    "SQ where nothing matched": ([GOOD, UNMATCHED], "SQ", 0.8, 0.4, 0.8),
    "precision where nothing was found": ([GOOD, MISSED], "Precision", 1.0, 1.0, 1.0),
    "recall where nothing was found": ([GOOD, MISSED], "Recall", 0.5, 0.5, 2 / 3),
    "AJI": ([GOOD, POOR], "AJI", (0.8 + 1 / 7) / 2, (0.8 + 1 / 7) / 2, 100 / 240),
    "a false find elsewhere costs Dice as released": (
        [GOOD, FALSE_FIND],
        "Dice",
        160 / 180,
        80 / 180,
        160 / 220,
    ),
    "an empty image counts 1 as released": (
        [POOR, EMPTY],
        "IoU",
        20 / 140,
        (20 / 140 + 1) / 2,
        20 / 140,
    ),
    "distance of what is on both sides": ([GOOD, POOR, MISSED], "HD_um", 6, 6, None),
    "distance of false finds": ([GOOD, FALSE_FIND, EMPTY], "HD95_um", 4, 4, None),
    "nowhere in the truth": ([FALSE_FIND, EMPTY], "PQ", NAN, NAN, 0),
    "nowhere at all": ([EMPTY], "Dice", NAN, 1, NAN),
}


@pytest.mark.parametrize("images, score, one, two, three", AVERAGED.values(), ids=AVERAGED)
def test_averages(images: list[Counts], score: str, one: float, two: float, three) -> None:
    found = {name: average(images) for name, average in AVERAGES.items()}
    assert found[MEAN][score] == pytest.approx(one, nan_ok=True)
    assert found[AS_RELEASED][score] == pytest.approx(two, nan_ok=True)
    if three is None:
        assert score not in found[POOLED]
    else:
        assert found[POOLED][score] == pytest.approx(three, nan_ok=True)


def test_averages_say_over_how_many_images() -> None:
    images = [GOOD, MISSED, FALSE_FIND, EMPTY]
    assert (mean(images)[IMAGES], pooled(images)[IMAGES]) == (2, 4)
    assert pooled([]) == mean([]) == {IMAGES: 0}


def test_pooled_equals_one_large_image() -> None:
    from napari_coseg.labels.metrics.contingency import contingency
    from napari_coseg.labels.metrics.instances import (
        aggregated_jaccard,
        object_dice,
        panoptic_quality,
    )
    from napari_coseg.labels.metrics.overlap import mask_overlap

    def counts(truth: np.ndarray, prediction: np.ndarray) -> Counts:
        table = contingency(truth, prediction)
        overlap = mask_overlap(truth, prediction)
        return Counts(
            panoptic_quality(table),
            aggregated_jaccard(table),
            overlap,
            object_dice=object_dice(table),
        )

    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(60) * rng.integers(0, 2, 60), 5).reshape(3, 100)
    prediction = np.where(rng.uniform(size=truth.shape) < 0.2, 0, truth)
    images = [counts(truth[[i]], prediction[[i]]) for i in range(3)]
    whole = counts(truth, prediction).scores()
    assert pooled(images) == pytest.approx({IMAGES: 3, **whole})
    assert 0 < whole["PQ"] < 1


def test_scores_are_those_that_were_counted() -> None:
    assert tuple(replace(GOOD, at_1024=GOOD.surface).scores()) == SCORES
    assert tuple(GOOD.scores()) == SCORES[:-1]
    assert tuple(Counts(overlap=Overlap(1, 2, 2)).scores()) == ("Dice", "IoU")
    assert (GOOD + Counts(overlap=Overlap(1, 2, 2))).objects is None


@pytest.mark.parametrize(
    "counts, truth, prediction",
    [(GOOD, True, True), (MISSED, True, False), (FALSE_FIND, False, True), (EMPTY, False, False)],
    ids=["both", "missed", "false find", "neither"],
)
def test_which_side_has_the_class(counts: Counts, truth: bool, prediction: bool) -> None:
    for part in (counts, Counts(counts.objects), Counts(overlap=counts.overlap)):
        assert (part.in_truth, part.in_prediction) == (truth, prediction)


def test_mean_over_classes_leaves_out_what_is_no_number() -> None:
    classes = [
        {"IoU": 0.5, "HD_um": INF, IMAGES: 3},
        {"IoU": 0.0, "HD_um": 2.0, IMAGES: 1},
        {"IoU": NAN, "PQ": NAN},
    ]
    found = mean_over_classes(iter(classes))
    assert found == pytest.approx({"IoU": 0.25, "HD_um": 2.0, "PQ": NAN}, nan_ok=True)
