"""Thresholds and temperatures of a card: how they are chosen, and that a run uses them."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import torch

from cases.stub_models import StubModel, disc_picture, stub_card
from napari_coseg.cli.main import main
from napari_coseg.core.card import Decoding
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.evaluation import calibration
from napari_coseg.evaluation.calibration import fit_temperature
from napari_coseg.inference.network import MapChannels, probabilities
from napari_coseg.inference.plane import BlockDecoder
from napari_coseg.inference.run import plan_plane, segment
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.labels.metrics.calibration import calibration_error
from napari_coseg.models.base import TaskMaps

SMALLEST_UM2 = calibration.CANDIDATES["min_object_area_um2"][0] * stub_card().pixel_size_um ** 2


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        pytest.param([1.0, 1.0], [True, True], 0.0, id="certain and right"),
        pytest.param([1.0, 1.0], [False, False], 1.0, id="certain and wrong"),
        pytest.param([0.75] * 4, [True, True, True, False], 0.0, id="0.75 is right in 3 of 4"),
        pytest.param([0.75] * 4, [True, True, False, False], 0.25, id="0.75 is right in 2 of 4"),
        pytest.param([0.6, 0.9], [True, True], (0.4 + 0.1) / 2, id="two bins"),
        pytest.param([], [], np.nan, id="no pixels"),
    ],
)
def test_calibration_error_is_the_mean_gap_of_bins(confidences, right, error):
    chances = np.array([[p, 1 - p] for p in confidences]).reshape(-1, 2)
    target = np.where(right, 0, 1).astype(int)
    assert calibration_error(chances, target) == pytest.approx(error, nan_ok=True)


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_logits(sharpened):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (20_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = (chances.cumsum(1) < generator.random((20_000, 1))).sum(1)
    found = fit_temperature(logits * sharpened, target)
    assert found.temperature == pytest.approx(sharpened, rel=0.05)
    assert found.after < 0.02
    assert found.pixels == 20_000
    assert sharpened == 1 or found.before > 3 * found.after


def test_logits_are_divided_by_the_temperatures_of_the_card():
    logits = {"semantic": 2.0, "object": 3.0, "classes": 4.0}
    plain = torch.zeros(1, 2, 1, 1)
    maps = TaskMaps(
        semantic=plain + torch.tensor([0.0, 2.0]).view(1, 2, 1, 1),
        object=torch.full((1, 1, 1, 1), 3.0),
        classes=plain + torch.tensor([0.0, 4.0]).view(1, 2, 1, 1),
        hv=plain,
    )
    card = stub_card(temperatures={"semantic": 2.0, "object": 3.0, "classes": 4.0})
    one = 1 / (1 + np.exp(-1))
    found = probabilities(maps, card, ()).flatten().tolist()
    assert found == pytest.approx([1 - one, one, one, 1 - one, one, 0, 0], abs=1e-6)
    untouched = probabilities(maps, stub_card(), ()).flatten().tolist()
    expected = [1 / (1 + np.exp(-logits[name])) for name in ("semantic", "object", "classes")]
    assert [untouched[i] for i in (1, 2, 4)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("of_card", "given", "used"),
    [
        pytest.param({}, {}, 4.0, id="default"),
        pytest.param({"min_object_area_um2": 9.0}, {}, 9.0, id="the card's"),
        pytest.param(
            {"min_object_area_um2": 9.0}, {"min_object_area_um2": 0.0}, 0.0, id="the caller's"
        ),
    ],
)
def test_a_run_decodes_as_the_card_says_unless_told_otherwise(of_card, given, used):
    image, _ = disc_picture((64, 64), [(20, 20)])
    model = StubModel(stub_card(decoding=Decoding(**of_card)))
    found = segment(image, model, 0.5, settings=InferenceSettings(**given))
    assert found.provenance["settings"]["min_object_area_um2"] == used


def test_an_area_of_the_card_removes_objects():
    image, _ = disc_picture((96, 96), [(20, 20), (60, 60)])
    counts = []
    for area in (0.0, 1000.0):
        model = StubModel(stub_card(decoding=Decoding(min_object_area_um2=area)))
        counts.append(len(segment(image, model, 0.5).instances))
    assert counts == [2, 0]


def test_smoothing_is_in_micrometres():
    image, _ = disc_picture((64, 64), [(20, 20)])
    model = StubModel(stub_card(decoding=Decoding(distance_smoothing_um=1.0)))
    plan = plan_plane((64, 64), (0.5, 0.5), model.card, InferenceSettings(), model.size_multiple)
    decoder = BlockDecoder(plan, MapChannels.of(model.card))
    assert decoder.hover.smoothing_px == 1.0 / model.card.pixel_size_um
    assert len(segment(image, model, 0.5).instances) == 1


@pytest.fixture
def folder(tmp_path):
    """A labelled folder with one image for validation."""
    root = tmp_path / "data/folder"
    image, labels = disc_picture((96, 96), [(20, 20), (60, 60)])
    description = {
        "pixel_size_um": 0.5,
        "semantic_classes": [],
        "instance_classes": [{"id": 1, "name": "red", "color": [1, 2, 3]}],
    }
    for name, array in (
        ("images", image),
        ("objects", labels.astype(np.uint16)),
        ("object_classes", (labels > 0).astype(np.uint8)),
    ):
        (root / name).mkdir(parents=True)
        PIL.Image.fromarray(array).save(root / name / "a.png")
    (root / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "parts.json").write_text(json.dumps({"validation": {"folder": ["a"]}}))
    return tmp_path


def arguments(folder, *more):
    data, parts, output = folder / "data", folder / "parts.json", folder / "out.safetensors"
    return [
        *("calibrate", str(folder / "m.safetensors"), "--data", str(data), "--datasets", "folder"),
        *("--partition", str(parts), "--output", str(output), "--device", "cpu", *more),
    ]


def test_the_command_writes_the_same_weights_with_another_card(folder, capsys, monkeypatch):
    from napari_coseg.models.checkpoints import native

    # The stub finds all objects; a card that removes small ones is corrected.
    strict = stub_card(decoding=Decoding(min_object_area_um2=10_000.0))
    native.save(folder / "m.safetensors", StubModel(strict))
    monkeypatch.setattr(native, "_build_to_be_filled", lambda card, *_: StubModel(card))
    assert main(arguments(folder)) == 0
    printed = capsys.readouterr().out
    assert "object: temperature" in printed
    assert "as it is: 0.0000" in printed
    card = native.read_card(folder / "out.safetensors")
    assert card.decoding.min_object_area_um2 == SMALLEST_UM2
    assert set(card.temperatures) == {"object", "classes"}
    assert main(arguments(folder)) == 2
    assert "exists" in capsys.readouterr().err
    assert main(arguments(folder, "--overwrite", "--temperatures-only")) == 0
    kept = native.read_card(folder / "out.safetensors")
    assert kept.decoding == strict.decoding


def test_a_search_runs_the_network_once_for_each_image(folder):
    model = StubModel(stub_card(decoding=Decoding(min_object_area_um2=10_000.0)))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    forward, inside = model.forward, []
    model.forward = lambda images: inside.append(1) or forward(images)
    dataset = open_dataset("folder", folder / "data/folder", folder / "parts.json")
    part = calibration.Part(dataset, "validation", dataset.names("validation"))
    chosen = calibration.choose_decoding(model, [part], lambda line: None)
    assert len(calls) > 1
    assert len(inside) == 1
    assert chosen.min_object_area_um2 == SMALLEST_UM2
