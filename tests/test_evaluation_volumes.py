"""Whole volumes scored in 3D: what a prediction of known faults gets, and which datasets can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.stub_models import StubModel, disc_picture, stub_card
from cases.volume_twins import make_raw, make_toothfairy2
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import Instances, LabelClass, Prediction
from napari_coseg.datasets.base import Dataset, Layout
from napari_coseg.datasets.labelled_volume import LabelledVolume
from napari_coseg.datasets.nnunet_raw import NnunetRaw
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.datasets.toothfairy2 import REGION_CLASSES, TOOTH_CLASSES
from napari_coseg.evaluation import run as evaluation
from napari_coseg.evaluation.run import evaluate
from napari_coseg.inference.run import segment


def perfect(volume: LabelledVolume) -> tuple[np.ndarray, np.ndarray]:
    assert volume.semantic is not None
    assert volume.instances is not None
    return volume.semantic.copy(), volume.instances.copy()


def one_slice_late(volume: LabelledVolume) -> tuple[np.ndarray, np.ndarray]:
    regions, objects = perfect(volume)
    return np.roll(regions, 1, axis=0), objects


def merged(volume: LabelledVolume) -> tuple[np.ndarray, np.ndarray]:
    regions, objects = perfect(volume)
    return regions, (objects > 0).astype(np.int32)


def one_more(volume: LabelledVolume) -> tuple[np.ndarray, np.ndarray]:
    regions, objects = perfect(volume)
    objects[0, 0, 0] = 99
    return regions, objects


def evaluated(monkeypatch: pytest.MonkeyPatch, dataset: NnunetRaw, answer: Any) -> pd.Series:
    cases = iter(dataset.cases("train"))

    def answering(image: Any, model: Any, pixel_size_um: Any, **_: Any) -> Prediction:
        volume = dataset.load_volume("train", next(cases))
        assert image.spatial_shape == volume.semantic.shape
        regions, objects = answer(volume)
        ids = np.unique(objects[objects > 0])
        table = pd.DataFrame({"id": ids, "class_id": np.where(ids < 30, 2, 1)})
        found = Instances(objects, table, TOOTH_CLASSES)
        return Prediction(regions, REGION_CLASSES, found, pixel_size_um)

    monkeypatch.setattr(evaluation, "segment", answering)
    table = evaluate(StubModel(), dataset, "train", volumes=True)
    assert set(table["image"]) >= set(dataset.cases("train"))
    return table.set_index(["image", "class", "metric"])["value"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            perfect,
            {
                ("all", "PQ"): 1,
                ("all", "Count_error"): 0,
                ("lower jawbone", "Dice"): 1,
                ("lower jawbone", "HD95_um"): 0,
            },
            id="perfect",
        ),
        pytest.param(
            one_slice_late,
            # Three of four slices overlap; the surfaces are a slice of 0.3 mm apart.
            {("pharynx", "Dice"): 0.5, ("pharynx", "HD_um"): 300, ("all", "PQ"): 1},
            id="one slice late",
        ),
        pytest.param(merged, {("all", "PQ"): 0, ("all", "Count_error"): 2}, id="merged teeth"),
        pytest.param(one_more, {("all", "F1"): 6 / 7, ("all", "Count_error"): 1}, id="one more"),
    ],
)
def test_scores_of_known_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, expected: dict
) -> None:
    dataset = open_dataset("toothfairy2", make_toothfairy2(tmp_path))
    assert isinstance(dataset, NnunetRaw)
    found = evaluated(monkeypatch, dataset, answer)
    scores = {key: found["ToothFairy2F_001", *key] for key in expected}
    assert scores == pytest.approx(expected)


def test_a_model_segments_the_volumes_of_an_nnunet_folder(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    tissue = LabelClass(1, "tissue", (0, 0, 0))
    object.__setattr__(dataset, "semantic_classes", (tissue, dataset.semantic_classes[1]))
    model = StubModel(stub_card(pixel_size_um=300.0))
    table = evaluate(model, dataset, "train", volumes=True)
    assert set(table["image"]) >= {"a_2", "a_10"}
    assert set(table["class"]) == {"tissue", "(classes)"}


def test_images_have_no_volumes() -> None:
    dataset = Dataset(Path(), "glas", ("test",), 0.5, Layout())
    with pytest.raises(DatasetError, match="no folder of volumes"):
        evaluate(StubModel(), dataset, "test", volumes=True)


def test_several_channels_are_refused(tmp_path: Path) -> None:
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "a": 1, "b": 2},
    }
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path, description=description))
    with pytest.raises(DatasetError, match="T1, T2"):
        evaluate(StubModel(), dataset, "train", volumes=True)


def test_a_volume_is_not_stretched_to_the_papers_size(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    with pytest.raises(SettingsError, match="slice by slice"):
        evaluate(StubModel(), dataset, "train", volumes=True, distances_at_1024=True)


@pytest.mark.parametrize(("smallest", "count"), [(0, 2), (300, 2), (1500, 1), (10_000, 0)])
def test_small_objects_of_a_stack_are_removed_by_volume(smallest: float, count: int) -> None:
    """Two cylinders through six slices, of about 680 and 2,700 voxels of 1 um3."""
    card = stub_card(pixel_size_um=1.0, decoding={"min_object_volume_um3": smallest})
    small, large = (disc_picture((96, 96), [at], r)[0] for at, r in (((20, 20), 6), ((60, 60), 12)))
    volume = np.stack([np.minimum(small, large)] * 6)
    found = segment(volume, StubModel(card), 1.0)
    assert len(found.instances) == count
    assert set(np.unique(found.instances.labels)) == set(range(count + 1))
