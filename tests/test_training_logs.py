"""What a training writes beside its weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases.tiny_training import SIZE, make_batch, tiny_recipe, trained
from napari_coseg.core.errors import SettingsError
from napari_coseg.training.logs import Logs
from napari_coseg.training.pictures import GAP_PX, save_picture
from napari_coseg.training.processes import ALONE, Processes
from napari_coseg.training.settings import LogSettings
from test_models import small_model


def test_pictures_come_when_asked_for(tmp_path: Path) -> None:
    trained(tmp_path, tiny_recipe(logs={"pictures_every_steps": 2}, steps=5))
    found = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert found == ["step-000002.png", "step-000004.png"]


def test_pictures_change_nothing_that_is_learnt(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", tiny_recipe(steps=3))
    drawn = trained(tmp_path / "drawn", tiny_recipe(steps=3, logs={"pictures_every_steps": 1}))
    assert all((plain[name] == drawn[name]).all() for name in plain)


def test_a_picture_shows_image_truth_and_prediction(tmp_path: Path) -> None:
    batch = make_batch(0, crops=6)
    model = small_model()
    pixels = save_picture(tmp_path / "a" / "b.png", batch, model, "cpu")
    assert pixels.shape == (4 * SIZE + 3 * GAP_PX, 3 * SIZE, 3)  # four crops at most
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), pixels)
    image, truth = pixels[:SIZE, :SIZE].astype(int), pixels[:SIZE, SIZE : 2 * SIZE].astype(int)
    objects = batch.instances[0] > 0
    assert np.array_equal(image, batch.images[0].transpose(1, 2, 0).astype(int))
    assert np.array_equal(truth[~objects], image[~objects])
    colour = np.array(model.card.instance_classes[1].color)  # type 2
    drawn = truth[objects]
    assert np.abs(drawn - colour).mean() < 0.5 * np.abs(image[objects] - colour).mean()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    settings = LogSettings(pictures_every_steps=1)
    with Logs.open(tmp_path, 0, settings, Processes(rank=1, count=2)) as logs:
        logs.write(1, {"loss": 1.0})
        logs.draw(1, [make_batch(0)], small_model(), "cpu")
    assert list(tmp_path.iterdir()) == []


def test_later_rows_of_a_log_are_dropped_when_going_on(tmp_path: Path) -> None:
    for start, steps in ((0, (1, 2, 3)), (2, (3,))):
        with Logs.open(tmp_path, start, LogSettings(), ALONE) as logs:
            for step in steps:
                logs.write(step, {"loss": start + step})
    assert (tmp_path / "log.csv").read_text().split() == [
        "step,name,value",
        "1,loss,1",
        "2,loss,2",
        "3,loss,5",
    ]


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"napari-coseg\[train\]"):
        trained(tmp_path, tiny_recipe(logs={"tensorboard": True}))


def test_tensorboard_gets_the_same_values(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra train")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = LogSettings(tensorboard=True, pictures_every_steps=1)
    with Logs.open(tmp_path, 0, settings, ALONE) as logs:
        logs.write(7, {"hv_mse": 0.25})
        logs.draw(7, [make_batch(0)], small_model(), "cpu")
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("hv_mse")] == [(7, 0.25)]
    assert [event.step for event in found.Images("image, truth, prediction")] == [7]
