"""``napari-coseg finetune`` and ``adapters`` on a small folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cases.finetuning_cases import base_file, labelled_folder, reviewed_set, settings
from napari_coseg.cli.main import USERS_MISTAKE, main
from napari_coseg.finetuning.estimate import estimate
from napari_coseg.finetuning.inputs_snapshot import size_mb
from napari_coseg.models.checkpoints.adapter_library import adapters_folder, adapters_in
from napari_coseg.models.checkpoints.adapters import read_adapter_card

QUICK = ("crops=2", "crop_px=64", "match_input=false", "variants=1", "validations=1")


def command(folder: Path, *more: str) -> list[str]:
    """Fine-tune on a folder's images for two steps."""
    if not (folder / "mine").exists():
        labelled_folder(folder / "mine")
    arguments = ["finetune", str(folder / "mine"), "--model", str(base_file(folder))]
    arguments += ["--steps", "2", "--device", "cpu", "--output", str(folder / "a.safetensors")]
    return [*arguments, *more, "--set", *QUICK]


def test_finetune_and_look_at_the_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, "--speed", "adapters", "--name", "my colon")) == 0
    out = capsys.readouterr().out
    assert "held-out part: object_f1" in out and out.endswith("a.safetensors\n")
    path = tmp_path / "a.safetensors"
    assert main(["adapters", "list", str(tmp_path)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 1 and listed[0].startswith("my colon  2") and "on tiny" in listed[0]
    assert main(["adapters", "info", str(path)]) == 0
    assert "trained on   2 images" in capsys.readouterr().out
    assert main(["adapters", "info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "my colon"
    exported = str(tmp_path / "b.safetensors")
    assert (
        main(["adapters", "export", str(path), exported, "--model", str(base_file(tmp_path))]) == 0
    )
    assert read_adapter_card(exported) == read_adapter_card(path)


def test_an_estimate_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "--estimate")) == 0
    out = capsys.readouterr().out
    assert "reviewed   2 images" in out and "2 steps of" in out and "held out" in out
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "base.safetensors"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        pytest.param(["--rename", "round"], "--rename takes NAME=VALUE", id="no pair"),
        pytest.param(["--rename", "square=oval"], "has no class 'square'", id="no such class"),
        pytest.param(["--parts", "trunk"], "trunk cannot train", id="a part that never trains"),
        pytest.param(["--lora", "4"], "does not train at speed 'heads'", id="LoRA that is frozen"),
        pytest.param(["--minutes", "0"], "setting 'minutes'", id="no time"),
        pytest.param(["--base-validation", "nowhere"], "there is no folder", id="no folder"),
        pytest.param(["--output", "a.pt"], "must end in .safetensors", id="no adapter's name"),
    ],
)
def test_mistakes_are_told(
    more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, *more)) == USERS_MISTAKE
    assert told in capsys.readouterr().err


def test_an_adapter_of_another_base_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    assert main(command(tmp_path)) == 0
    other = base_file(tmp_path / "other")
    other.write_bytes(base_file(tmp_path).read_bytes())
    _touch(other)
    arguments = ["adapters", "export", str(tmp_path / "a.safetensors"), str(tmp_path / "b")]
    assert main([*arguments, "--model", str(other)]) == USERS_MISTAKE
    assert "its changes do not apply there" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_an_export_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Path, output: Path) -> None:
        Path(output).write_bytes(Path(source).read_bytes()[:100])
        raise OSError("no space left")

    assert main(command(tmp_path)) == 0
    there = tmp_path / "b.safetensors"
    there.write_bytes(b"of before")
    monkeypatch.setattr(shutil, "copyfile", half)
    arguments = ["adapters", "export", str(tmp_path / "a.safetensors"), str(there), "--overwrite"]
    assert main([*arguments, "--model", str(base_file(tmp_path))]) == USERS_MISTAKE
    assert "no space left" in capsys.readouterr().err
    assert there.read_bytes() == b"of before" and not list(tmp_path.glob(".*"))


def _touch(path: Path) -> None:
    """The same network with one weight changed."""
    from napari_coseg.models.checkpoints.native import load, save

    model = load(path)
    model.get_parameter("semantic_decoder.mask_tokens").data += 1
    save(path, model)


@pytest.mark.parametrize("speed", ["heads", "adapters"])
def test_estimates_tell_what_a_user_asks(speed: str, tmp_path: Path) -> None:
    chosen = settings(speed=speed, steps=None, minutes=1)
    found = estimate(reviewed_set(2), base=base_file(tmp_path), settings=chosen, device="cpu")
    assert found.reviews.images == 2 and found.held_out_objects > 0
    assert found.steps >= 20 and found.seconds_a_step > 0 and found.memory_mb > 100
    copy_mb = size_mb(reviewed_set(2))
    assert (found.disk_mb > round(copy_mb, 1) > 0) is (speed == "heads")
    assert ("adapters" in found.parts) is (speed == "adapters")
    assert 0 <= found.base_scores["object_f1"] <= 1


@pytest.mark.parametrize("speed", ["heads", "adapters"])
@pytest.mark.parametrize(
    ("time", "proposed"),
    [
        pytest.param({"minutes": 60}, "adapters", id="an hour"),
        pytest.param({"minutes": 0.01}, "heads", id="less than a second"),
        pytest.param({"steps": 7}, None, id="steps in place of time"),
    ],
)
def test_the_speed_that_is_proposed_is_the_one_there_is_time_for(
    time: dict[str, Any], proposed: str | None, speed: str, tmp_path: Path
) -> None:
    chosen = settings(speed=speed, **{"steps": None, **time})
    found = estimate(reviewed_set(2), base=base_file(tmp_path), settings=chosen, device="cpu")
    assert found.proposed_speed == proposed


def test_adapters_have_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_COSEG_ADAPTERS", str(tmp_path / "mine"))
    assert adapters_folder() == tmp_path / "mine" and adapters_in() == []
