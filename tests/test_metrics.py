"""Scores of masks and objects: hand-computed, against brute force and against other libraries."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from cases.synthetic import nuclei
from napari_coseg.core.errors import ImageError
from napari_coseg.labels.metrics.contingency import by_class, contingency
from napari_coseg.labels.metrics.instances import (
    aggregated_jaccard,
    aggregated_jaccard_index,
    connected_regions,
    object_dice,
    object_f1,
    panoptic_quality,
)
from napari_coseg.labels.metrics.overlap import (
    class_overlaps,
    dice,
    intersection_over_union,
    mask_overlap,
    mean_intersection_over_union,
)

NAN = float("nan")


def row(text: str) -> np.ndarray:
    """``"11.2"`` is the image [[1, 1, 0, 2]]."""
    return np.array([[0 if c == "." else int(c) for c in text]])


# truth, prediction, Dice, intersection over union
MASKS = {
    "same": ("11..", "11..", 1.0, 1.0),
    "half": ("11..", ".11.", 0.5, 1 / 3),
    "apart": ("11..", "..11", 0.0, 0.0),
    "nothing predicted": ("11..", "....", 0.0, 0.0),
    "nothing there": ("....", "11..", 0.0, 0.0),
    "both empty": ("....", "....", NAN, NAN),
    "any id is inside": ("12..", "77..", 1.0, 1.0),
}


@pytest.mark.parametrize(
    "truth, prediction, expected_dice, expected_iou", MASKS.values(), ids=MASKS
)
def test_masks(truth: str, prediction: str, expected_dice: float, expected_iou: float) -> None:
    assert dice(row(truth), row(prediction)) == pytest.approx(expected_dice, nan_ok=True)
    iou = intersection_over_union(row(truth), row(prediction))
    assert iou == pytest.approx(expected_iou, nan_ok=True)


def test_masks_pool_by_adding() -> None:
    pooled = mask_overlap(row("11"), row("11")) + mask_overlap(row("1111"), row("...."))
    assert pooled.dice == pytest.approx(4 / 8)
    assert pooled.intersection_over_union == pytest.approx(2 / 6)


# truth, prediction, IoU of classes 1 and 2, their mean
SEMANTIC = {
    "same": ("1122", "1122", 1.0, 1.0, 1.0),
    "one class half right": ("1122", "1.22", 0.5, 1.0, 0.75),
    "swapped": ("1122", "2211", 0.0, 0.0, 0.0),
    "a class that neither has does not count": ("11..", "11..", 1.0, NAN, 1.0),
    "a class that only the truth has counts 0": ("1122", "11..", 1.0, 0.0, 0.5),
    "a class that is only found counts 0": ("11..", "1122", 1.0, 0.0, 0.5),
    "background is no class": ("....", "....", NAN, NAN, NAN),
}


@pytest.mark.parametrize("truth, prediction, one, two, mean", SEMANTIC.values(), ids=SEMANTIC)
def test_mean_over_classes(
    truth: str, prediction: str, one: float, two: float, mean: float
) -> None:
    overlaps = class_overlaps(row(truth), row(prediction), (1, 2))
    found = [overlaps[c].intersection_over_union for c in (1, 2)]
    assert found == pytest.approx([one, two], nan_ok=True)
    assert mean_intersection_over_union(overlaps.values()) == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize("shape", [(40, 50), (9, 14, 11)], ids=["2D", "3D"])
def test_masks_equal_monai(shape: tuple[int, ...]) -> None:
    monai = pytest.importorskip("monai.metrics", reason="monai is not installed")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    truth, prediction = rng.integers(0, 4, shape), rng.integers(0, 4, shape)
    truth, prediction = np.minimum(truth, 2), np.minimum(prediction, 2)
    one_hot = [torch.tensor(np.stack([x == c for c in (1, 2)])[None]) for x in (prediction, truth)]
    overlaps = class_overlaps(truth, prediction, (1, 2))
    ious = [overlaps[c].intersection_over_union for c in (1, 2)]
    assert ious == pytest.approx(monai.compute_iou(*one_hot)[0].tolist(), abs=1e-6)
    dices = [overlaps[c].dice for c in (1, 2)]
    assert dices == pytest.approx(monai.compute_dice(*one_hot)[0].tolist(), abs=1e-6)


# truth, prediction, (tp, fp, fn), PQ, DQ, SQ, AJI
OBJECTS = {
    "same, other ids": ("11.22", "77.33", (2, 0, 0), 1.0, 1.0, 1.0, 1.0),
    "an IoU of a half does not match": ("1111", "11..", (0, 1, 1), 0.0, 0.0, NAN, 0.5),
    "two thirds match": ("111.", "11..", (1, 0, 0), 2 / 3, 1.0, 2 / 3, 2 / 3),
    "one found, one missed": ("11.22", "11...", (1, 0, 1), 2 / 3, 2 / 3, 1.0, 0.5),
    "one found, one too many": ("11...", "11.22", (1, 1, 0), 2 / 3, 2 / 3, 1.0, 0.5),
    # both truths take the one prediction: (3 + 2) / (5 + 5)
    "merged": ("11122", "11111", (1, 0, 1), 0.6 / 1.5, 2 / 3, 0.6, 0.5),
    # the truth takes the larger half, the other is left over: 3 / (5 + 2)
    "split": ("11111", "11122", (1, 1, 0), 0.6 / 1.5, 2 / 3, 0.6, 3 / 7),
    # equal IoU: the lower id is taken, 2 / (4 + 2)
    "split in equal halves": ("1111", "2211", (0, 2, 1), 0.0, 0.0, NAN, 2 / 6),
    "nothing predicted": ("11.22", ".....", (0, 0, 2), 0.0, 0.0, NAN, 0.0),
    "nothing there": (".....", "11.22", (0, 2, 0), 0.0, 0.0, NAN, 0.0),
    "both empty": (".....", ".....", (0, 0, 0), NAN, NAN, NAN, NAN),
}


@pytest.mark.parametrize(
    "truth, prediction, counts, pq, dq, sq, aji", OBJECTS.values(), ids=OBJECTS
)
def test_objects(
    truth: str, prediction: str, counts: tuple, pq: float, dq: float, sq: float, aji: float
) -> None:
    table = contingency(row(truth), row(prediction))
    quality = panoptic_quality(table)
    found = (quality.true_positives, quality.false_positives, quality.false_negatives)
    assert found == counts
    assert (quality.pq, quality.dq, quality.sq) == pytest.approx((pq, dq, sq), nan_ok=True)
    assert (quality.f1, object_f1(table)) == pytest.approx((dq, dq), nan_ok=True)
    assert aggregated_jaccard_index(table) == pytest.approx(aji, nan_ok=True)


# truth, prediction, Dice of objects
OBJECT_DICE = {
    "same, other ids": ("11.22", "77.33", 1.0),
    "too small": ("111.", "11..", 4 / 5),
    # 4 true pixels, half of them found; all that is found is right
    "one found, one missed": ("11.22", "11...", (2 / 4 + 1) / 2),
    "one found, one too many": ("11...", "11.22", (1 + 2 / 4) / 2),
    # both truths have the one prediction as partner, which has the larger truth
    "merged": ("11122", "11111", ((3 * 6 / 8 + 2 * 4 / 7) / 5 + 6 / 8) / 2),
    # the partner shares most pixels, which need not be the highest IoU
    "the larger part": ("11111", "11122", (6 / 8 + (3 * 6 / 8 + 2 * 4 / 7) / 5) / 2),
    "nothing predicted": ("11.22", ".....", 0.0),
    "nothing there": (".....", "11.22", 0.0),
    "both empty": (".....", ".....", NAN),
}


@pytest.mark.parametrize("truth, prediction, dice", OBJECT_DICE.values(), ids=OBJECT_DICE)
def test_dice_of_objects(truth: str, prediction: str, dice: float) -> None:
    table = contingency(row(truth), row(prediction))
    assert object_dice(table).dice == pytest.approx(dice, nan_ok=True)


def test_precision_recall_and_pooling() -> None:
    one = panoptic_quality(contingency(row("11.22.3"), row("11....4")))
    assert (one.precision, one.recall) == (1.0, pytest.approx(2 / 3))
    none = panoptic_quality(contingency(row("..."), row("1.2")))
    assert none.precision == 0 and isnan(none.recall)
    pooled = one + none
    assert (pooled.precision, pooled.recall) == (0.5, pytest.approx(2 / 3))
    assert pooled.pq == pytest.approx(2 / (2 + 0.5 * (2 + 1)))
    assert pooled.f1 == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert (pooled.truth_count, pooled.prediction_count) == (3, 4)


def test_jaccard_indices_pool_by_adding() -> None:
    one = aggregated_jaccard(contingency(row("111."), row("11..")))
    none = aggregated_jaccard(contingency(row("..."), row("1.2")))
    assert (one.index, none.index) == (pytest.approx(2 / 3), 0)
    assert (one + none).index == pytest.approx(2 / (3 + 2))


def test_regions_are_connected_across_corners() -> None:
    mask = np.array([[7, 0, 0, 0], [0, 7, 0, 7], [0, 0, 0, 7]])
    assert connected_regions(mask).tolist() == [[1, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 2]]
    assert connected_regions(np.eye(3)[None] * np.ones((2, 1, 1))).max() == 1


def test_a_higher_threshold_matches_fewer() -> None:
    table = contingency(row("111.2222"), row("11..2222"))
    assert [object_f1(table, t) for t in (0.5, 0.7)] == [1.0, 0.5]
    with pytest.raises(ValueError, match="unique only"):
        object_f1(table, 0.3)


def random_labels(seed: int, shape: tuple[int, ...] = (17, 19)) -> np.ndarray:
    """Blocks of random ids with holes, sharp and noisy edges alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 0, 1, 2, 5, 9, 70_000], [n // 4 + 1 for n in shape])
    fine = coarse
    for axis, n in enumerate(shape):
        fine = np.repeat(fine, 4, axis=axis).take(np.arange(n), axis=axis)
    return np.where(rng.uniform(size=shape) < 0.15, 0, fine)


def brute_force(truth: np.ndarray, prediction: np.ndarray) -> list[float]:
    """PQ, F1, precision, recall and AJI by comparing every mask with every mask."""
    truths = [truth == i for i in np.unique(truth) if i]
    predictions = [prediction == i for i in np.unique(prediction) if i]
    ious = np.array([[(t & p).sum() / (t | p).sum() for p in predictions] for t in truths])
    ious = ious.reshape(len(truths), len(predictions))
    matched = ious[ious > 0.5]
    precision, recall = len(matched) / len(predictions), len(matched) / len(truths)
    f1 = 2 * precision * recall / (precision + recall) if len(matched) else 0.0
    pq = matched.sum() / ((len(truths) + len(predictions)) / 2)
    left, inter, union = set(range(len(predictions))), 0, 0
    for t, row_ in zip(truths, ious, strict=True):
        best = int(row_.argmax()) if row_.size and row_.max() > 0 else None
        inter += 0 if best is None else (t & predictions[best]).sum()
        union += t.sum() if best is None else (t | predictions[best]).sum()
        left.discard(best)
    aji = inter / (union + sum(predictions[k].sum() for k in left))
    one_way, other_way = dice_one_way(truths, predictions), dice_one_way(predictions, truths)
    return [pq, f1, precision, recall, aji, (one_way + other_way) / 2]


def dice_one_way(ones: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Mean Dice of masks with the other that shares most, weighted by area."""
    total = 0.0
    for one in ones:
        partner = max(others, key=lambda other: (one & other).sum())
        total += one.sum() * 2 * (one & partner).sum() / (one.sum() + partner.sum())
    return total / sum(one.sum() for one in ones)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(17, 19), (5, 9, 11)], ids=["2D", "3D"])
def test_equals_brute_force(seed: int, shape: tuple[int, ...]) -> None:
    truth = random_labels(seed, shape)
    prediction = np.where(random_labels(seed + 100, shape) > 5, 3, truth)
    table = contingency(truth, prediction)
    q = panoptic_quality(table)
    found = [q.pq, q.f1, q.precision, q.recall, aggregated_jaccard_index(table)]
    found.append(object_dice(table).dice)
    assert found == pytest.approx(brute_force(truth, prediction))


def test_table_equals_scikit_image() -> None:
    from skimage.metrics import contingency_table

    truth, prediction = nuclei(128, 25), np.roll(nuclei(128, 25), 5, axis=1)
    table = contingency(truth, prediction)
    theirs = contingency_table(truth, prediction).toarray()
    ours = np.zeros_like(theirs)
    pairs = table.truth_ids[table.pair_truth], table.prediction_ids[table.pair_prediction]
    ours[pairs] = table.intersections
    np.testing.assert_array_equal(ours[1:, 1:], theirs[1:, 1:])
    np.testing.assert_array_equal(table.truth_areas, theirs.sum(axis=1)[1:])
    np.testing.assert_array_equal(table.prediction_areas, theirs.sum(axis=0)[1:])
    assert len(table.truth_ids) > 20


def test_panoptic_quality_equals_monai() -> None:
    panoptic = pytest.importorskip(
        "monai.metrics.panoptic_quality", reason="monai is not installed"
    )
    torch = pytest.importorskip("torch")
    truth, prediction = nuclei(128, 25), np.roll(nuclei(128, 25), 2, axis=1)
    ours = panoptic_quality(contingency(truth, prediction))
    theirs = [
        float(panoptic.compute_panoptic_quality(torch.tensor(prediction), torch.tensor(truth), m))
        for m in ("pq", "rq", "sq")
    ]
    assert [ours.pq, ours.f1, ours.sq] == pytest.approx(theirs, abs=1e-4)
    assert 0 < ours.pq < ours.f1 <= 1


def test_by_class_equals_erasing_the_others() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = nuclei(192, 36) * 3, np.roll(nuclei(192, 36), 2, axis=0) * 2
    table = contingency(truth, prediction)
    truth_classes = rng.integers(1, 4, len(table.truth_ids))
    prediction_classes = rng.integers(1, 4, len(table.prediction_ids))
    tables = by_class(table, truth_classes, prediction_classes)
    assert list(tables) == [1, 2, 3]
    for c, restricted in tables.items():
        only_truth = np.where(np.isin(truth, table.truth_ids[truth_classes == c]), truth, 0)
        of_class = table.prediction_ids[prediction_classes == c]
        only_prediction = np.where(np.isin(prediction, of_class), prediction, 0)
        erased = contingency(only_truth, only_prediction)
        assert panoptic_quality(restricted) == panoptic_quality(erased)
        assert aggregated_jaccard_index(restricted) == aggregated_jaccard_index(erased)
        np.testing.assert_array_equal(restricted.truth_ids, erased.truth_ids)


def test_by_class_names_absent_classes_when_asked() -> None:
    tables = by_class(contingency(row("11.2"), row("11.2")), [1, 2], [1, 1], class_ids=(2, 3))
    assert list(tables) == [2, 3]
    assert panoptic_quality(tables[2]).pq == 0
    assert isnan(panoptic_quality(tables[3]).pq)


def test_by_class_wants_one_class_an_object() -> None:
    with pytest.raises(ValueError, match="one each"):
        by_class(contingency(row("11.2"), row("11.2")), [1], [1, 1])


@pytest.mark.parametrize("score", [contingency, mask_overlap], ids=["contingency", "mask_overlap"])
def test_shapes_that_differ_are_refused(score) -> None:
    with pytest.raises(ImageError, match="one pixel grid"):
        score(row("11"), row("111"))


def test_ids_that_are_not_integers_are_refused() -> None:
    with pytest.raises(ImageError, match="integer ids"):
        contingency(row("11") / 2, row("11"))


def test_an_image_without_pixels_gives_nan() -> None:
    empty = np.zeros((0, 3), dtype=np.int32)
    assert isnan(panoptic_quality(contingency(empty, empty)).pq)
