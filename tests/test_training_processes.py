"""Several processes that share every batch; the last test starts two of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.tiny_training import as_toml, losses_of, make_folder, tiny_recipe
from napari_coseg.cli.main import main
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.training.processes import ALONE, first_of_all, joined
from napari_coseg.training.run import step_source
from test_models import TINY, small_card

CROPS = 4
STEPS = 4


def recipe_values(root: Path) -> dict:
    """A training on the generated folder, without dropout, whose masks no two processes share."""
    card = small_card("coseg-plus", {**TINY, "fusion_dropout": 0.0}, regions=1, types=2)
    return {
        "name": "shared",
        "steps": STEPS,
        "precision": "fp32",
        "trained_parts": ["trunk", "adapters", "neck", "prompt_encoders", "decoders"],
        "held_out": str(root / "held-out.json"),
        "card": card.model_dump(mode="json", exclude_none=True),
        "batches": [{"dataset": "folder", "split": "all", "crop_px": 64, "crops": CROPS}],
        "optimiser": {"algorithm": "adam", "learning_rate": 1e-3},
        "validation": {"choose_by": ["region_dice"]},
        "checkpoint_every_steps": 2,
    }


def test_shares_put_together_are_the_batch(tmp_path: Path) -> None:
    make_folder(tmp_path)
    recipe = tiny_recipe(**recipe_values(tmp_path))
    (_, sampler), *_ = step_source(recipe, tmp_path).samplers
    whole, shares = sampler.draw(3), [sampler.draw(3, rank, 3) for rank in range(3)]
    assert [len(share.images) for share in shares] == [2, 1, 1]
    for name, values in vars(whole).items():
        if values is None:
            continue
        put_back = np.empty_like(values)
        for rank, share in enumerate(shares):
            put_back[rank::3] = getattr(share, name)
        assert np.array_equal(put_back, values), name


def test_more_processes_than_crops_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    recipe = tiny_recipe(**recipe_values(tmp_path))
    (_, sampler), *_ = step_source(recipe, tmp_path).samplers
    with pytest.raises(DatasetError, match="4 crops cannot be shared by 5 processes"):
        sampler.draw(0, 0, 5)


def test_outside_torchrun_there_is_one_process(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (ALONE, "cpu")
    assert first_of_all()


@pytest.mark.parametrize(
    ("device", "message"),
    [("mps", "cannot share 'mps'; give --device"), ("cuda", "process 2 of this machine finds 0")],
)
def test_a_device_that_cannot_be_shared(device: str, message: str, monkeypatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert not first_of_all()
    with pytest.raises(SettingsError, match=message), joined(device):
        pass


def test_one_process_has_nothing_to_add() -> None:
    value = torch.ones(2)
    assert ALONE.add(value) is value
    assert ALONE.add_up([1.0, 2.0], "cpu") == [1.0, 2.0]
    assert ALONE.least(3, "cpu") == 3
    assert ALONE.gather(value) == [value]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Through ``torchrun``: two with half of each batch, one with all of it.

    The sums are taken in another order, and Adam enlarges what differs in gradients near zero:
    the losses of four steps agree to one part in a thousand (the first to one in 100,000).
    """
    make_folder(tmp_path / "data")
    path = tmp_path / "shared.toml"
    path.write_text(as_toml(recipe_values(tmp_path / "data")))
    options = [str(path), "--data", str(tmp_path / "data"), "--device", "cpu", "--workers", "0"]
    assert main(["train", *options, "--output", str(tmp_path / "one")]) == 0
    told = torchrun(2, "train", *options, "--output", str(tmp_path / "two"))
    assert told.split() == [str(tmp_path / "two" / "shared.safetensors")]  # the first one alone

    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for step, tolerance in ((1, 1e-5), (STEPS, 1e-3)):
        terms = [key for key in one if key[0] <= step and not key[1].startswith("validation")]
        assert len(terms) > 10
        assert {key: two[key] for key in terms} == pytest.approx(
            {key: one[key] for key in terms}, rel=tolerance, abs=1e-6
        )
    state = torch.load(tmp_path / "two" / "training-state.pt", weights_only=True)
    assert state["step"] == STEPS


def torchrun(processes: int, *arguments: str) -> str:
    """What ``napari-coseg`` with these arguments writes on stdout, by all processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    source = str(Path(__file__).parent.parent / "src")
    environment["PYTHONPATH"] = os.pathsep.join([source, environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--standalone", f"--nproc_per_node={processes}"),
            *("-m", "napari_coseg.cli.main", *arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_batch_is_what_the_loop_expects(tmp_path: Path) -> None:
    make_folder(tmp_path)
    batches = step_source(tiny_recipe(**recipe_values(tmp_path)), tmp_path)(0)
    assert [type(batch) for batch in batches] == [Batch]
    assert batches[0].semantic_known.any(axis=(1, 2)).all()
    assert batches[0].instances_known.any(axis=(1, 2)).all()
