"""A recipe meets its data: parts drawn by seed, classes by name, first weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.histology_twins import (
    GLANDS,
    make_crag,
    make_glas_bmp,
    make_lizard,
    make_puma,
    picture,
    write,
)
from cases.tiny_training import as_toml, make_folder, tiny_recipe
from cases.volume_twins import make_toothfairy2
from napari_coseg.cli.main import main
from napari_coseg.core.errors import SettingsError
from napari_coseg.datasets.partition import Partitioned, load_partition
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.evaluation.run import score_held_out
from napari_coseg.models.base import CosegModel
from napari_coseg.training.recipe import Recipe, read_recipe
from napari_coseg.training.run import DRAWN, open_part, step_source, train_recipe
from test_models import DETAILED

IMAGES = 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_folder(tmp_path / "data", images=IMAGES)
    return tmp_path / "data"


def recipe_values(**changes: Any) -> dict[str, Any]:
    part = {"dataset": "folder", "split": "train", "crop_px": 32, "crops": 2}
    values = {"batches": [part], "held_out": DRAWN, "steps": 1}
    return tiny_recipe(**values | changes).model_dump(mode="json", exclude_none=True)


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_mapping(recipe_values(**changes))


def learnt_from(data: Path, recipe: Recipe) -> dict[str, Any]:
    (_, sampler), *_ = step_source(recipe, data).samplers
    return {sample.name: sample for sample in sampler.sources[0].samples}


def quiet(model: CosegModel, recipe: Recipe, data: Path) -> dict[str, float]:
    return {"object_panoptic_quality": 0.0, "region_dice": 0.0}


def test_a_drawn_split_is_seven_to_one_to_two(data: Path) -> None:
    parts = {
        part: set(open_part("folder", data, recipe()).names(part))
        for part in ("train", "validation", "test")
    }
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(set.union(*parts.values())) == IMAGES
    assert set(learnt_from(data, recipe())) == parts["train"]


def test_another_seed_draws_another_split(data: Path) -> None:
    drawn = [set(learnt_from(data, recipe(seed=seed))) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_drawn_split_is_written_and_opens_the_test_images(data: Path, tmp_path: Path) -> None:
    train_recipe(recipe(), data, tmp_path / "run", quiet, workers=0)
    drawn = load_partition(tmp_path / "run" / "split.json")["folder"]
    dataset = open_dataset("folder", data, tmp_path / "run" / "split.json")
    assert isinstance(dataset, Partitioned)
    assert dataset.names("test") == drawn.test
    assert not set(drawn.test) & set(learnt_from(data, recipe()))


def test_validation_looks_at_the_drawn_images_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def evaluate(model: CosegModel, dataset: Partitioned, split: str, names: tuple[str, ...]):
        seen.append((split, names, dataset.parts.validation))
        raise RuntimeError("seen")

    monkeypatch.setattr("napari_coseg.evaluation.run.evaluate", evaluate)
    with pytest.raises(RuntimeError, match="seen"):
        score_held_out(None, recipe(), data)
    ((split, names, drawn),) = seen
    assert (split, names) == ("validation", drawn)


def test_classes_are_learnt_by_their_names(data: Path) -> None:
    """The data's second object class is the card's first, and the region has no place on it."""
    described = json.loads((data / "dataset.json").read_text())
    names = [entry["name"] for entry in described["instance_classes"]]
    values = recipe_values()
    values["card"]["semantic_classes"] = []
    values["card"]["instance_classes"] = [
        {"id": i, "name": name, "color": [1, 2, 3]} for i, name in enumerate(reversed(names), 1)
    ]
    reader = open_dataset("folder", data)
    for name, sample in learnt_from(data, Recipe.from_mapping(values)).items():
        theirs = reader.load("all", name).instance_types
        assert sample.semantic is None
        assert np.array_equal(sample.instance_types, np.array([0, 2, 1], np.uint8)[theirs])


def test_a_fresh_network_is_started_and_a_resumed_one_is_not(data: Path, tmp_path: Path) -> None:
    started: list[CosegModel] = []
    for steps in (1, 2):
        train_recipe(
            recipe(steps=steps), data, tmp_path / "run", quiet, workers=0, start=started.append
        )
        assert len(started) == 1


def test_crops_that_the_network_cannot_halve_are_refused_at_once(
    data: Path, tmp_path: Path
) -> None:
    values = recipe_values()
    values["card"]["config"] = DETAILED
    values["batches"][0]["crop_px"] = 96
    with pytest.raises(
        SettingsError, match=r"crop_px 96 of 'folder' is no multiple of 64.*take 64 or 128"
    ):
        train_recipe(Recipe.from_mapping(values), data, tmp_path / "run", quiet, workers=0)


# ---------------------------------------------------------------------------------------------
# napari-coseg train RECIPE --init CHECKPOINT


@pytest.fixture
def command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "mine.toml").write_text(as_toml(recipe_values()))
    monkeypatch.setattr("napari_coseg.evaluation.train.score_held_out", quiet)
    monkeypatch.setenv("NAPARI_COSEG_CACHE", str(tmp_path / "cache"))
    arguments = ["train", str(tmp_path / "mine.toml"), "--data", str(data), "--workers", "0"]
    return [*arguments, "--output", str(tmp_path / "run"), "--device", "cpu"]


def test_init_starts_the_network_and_tells_from_what(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "sam2_hiera_tiny.pt"
    path.write_bytes(b"")
    told = "starts encoder.trunk"
    monkeypatch.setattr(
        "napari_coseg.evaluation.train.initialise", lambda model, path: f"{path} {told}"
    )
    assert main([*command, "--init", str(path)]) == 0
    assert f"{path} {told}" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0  # with its own weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "does not train the encoder's trunk, .*--init"),
        (["--init", "sam2.1_hiera_large.pt"], "napari-coseg models download sam2.1-large"),
        (["--init", "sam2.1-huge"], "no checkpoint 'sam2.1-huge' is known"),
    ],
    ids=["a frozen trunk and nothing to start from", "not there", "not known"],
)
def test_a_training_without_its_first_weights_does_not_begin(
    options: list[str],
    message: str,
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*command, *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------
# The papers' recipes on tiny copies of their data


def glas_lizard(root: Path) -> None:
    """Three images of GlaS are in Lizard, as many as a split in three needs."""
    make_glas_bmp(root / "glas")
    make_lizard(root / "lizard", {"glas_1": 0, "glas_2": 2, "glas_3": 4})
    open_dataset("glas-lizard", root).prepare()


def crag_lizard(root: Path) -> None:
    make_crag(root / "crag")
    for kind, array in (("Images", picture(12)), ("Annotation", GLANDS)):
        write(root / "crag" / "CRAG" / "train" / kind / "train_2.png", array)
    make_lizard(root / "lizard", {"crag_1": 10, "crag_2": 11, "crag_3": 12})
    open_dataset("crag-lizard", root).prepare()


def toothfairy2(root: Path) -> None:
    folder = make_toothfairy2(root) / "Dataset112_ToothFairy2"
    for kind, ending in (("imagesTr", "_0000.mha"), ("labelsTr", ".mha")):
        shutil.copy(
            folder / kind / f"ToothFairy2F_001{ending}", folder / kind / f"ToothFairy2F_003{ending}"
        )


@pytest.mark.parametrize(
    ("name", "make", "types"),
    [
        pytest.param("puma", make_puma, True, id="puma"),
        pytest.param("coseg-puma", make_puma, False, id="coseg-puma"),
        pytest.param("glas", glas_lizard, True, id="glas"),
        pytest.param("crag", crag_lizard, True, id="crag"),
        pytest.param("toothfairy2", toothfairy2, True, id="toothfairy2"),
    ],
)
def test_a_papers_recipe_reads_its_data(name: str, make, types: bool, tmp_path: Path) -> None:
    make(tmp_path)
    shipped = read_recipe(name)
    samples = learnt_from(tmp_path, shipped)
    assert samples
    regions = set().union(*(np.unique(sample.semantic) for sample in samples.values()))
    assert regions <= {0, *(entry.id for entry in shipped.card.semantic_classes)}
    assert max(regions) > 0
    assert all((sample.instance_types is not None) == types for sample in samples.values())
