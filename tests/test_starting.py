"""What a training may start from: a file, a name to download, and nothing by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cases.stub_models import StubModel
from cases.tiny_models import TINY_CONFIG, tiny_card
from napari_coseg.cli.main import main
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints import starting
from napari_coseg.models.checkpoints.download import FOLDER_VARIABLE, RemoteCheckpoint
from napari_coseg.models.checkpoints.starting import initialise, starting_file
from napari_coseg.models.registry import build
from test_from_sam2 import tiny_sam2

COMMON = ("encoder", "width", "decoder_mlp_dim", "fusion_mlp_dim")
CONFIGS = {
    "coseg-plus": TINY_CONFIG | {"upscaling_channels": [8, 4]},  # as SAM2's decoder has them
    "coseg": {name: TINY_CONFIG[name] for name in COMMON} | {"upscaling_channels": [8, 4]},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the downloads; and nothing is downloaded."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(starting, "download", no_download)
    return tmp_path / "cache"


def no_download(checkpoint: RemoteCheckpoint, *arguments: object, **options: object) -> Path:
    return Path("downloaded") / checkpoint.file_name


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("sam2.1-large", "sam2.1_hiera_large.pt"),
        ("sam2-base-plus", "sam2_hiera_base_plus.pt"),
    ],
)
def test_a_name_is_downloaded(given: str, file: str) -> None:
    assert starting_file(given) == Path("downloaded") / file


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sam2.1_hiera_large.pt"
    path.write_bytes(b"whatever the user has")
    assert starting_file(path) == starting_file(str(path)) == path


def test_a_file_name_is_looked_for_among_the_downloads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder / "sam2_hiera_tiny.pt"
    monkeypatch.setattr(starting, "downloaded", lambda checkpoint: there)
    assert starting_file("sam2_hiera_tiny.pt") == there


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sam2.1_hiera_large.pt", r"models download sam2.1-large` \(898 MB\), or fetch https://dl"),
        ("elsewhere/sam2_hiera_tiny.pt", "no file elsewhere.*models download sam2-tiny"),
        ("sam2.1-larg", "did you mean 'sam2.1-large'"),
        ("mine.pt", "there is no file mine.pt, and no checkpoint 'mine.pt' is known"),
    ],
    ids=["released, not there", "released, a wrong folder", "a name with a slip", "any file"],
)
def test_what_is_not_there_is_told_and_never_fetched(
    given: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "download", None)
    with pytest.raises(CheckpointError, match=message):
        starting_file(given)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_network_of_each_family_with_sam2_starts_from_it(family: str, tmp_path: Path) -> None:
    theirs = tiny_sam2()
    card = tiny_card().model_copy(update={"family": family, "config": CONFIGS[family]})
    torch.save({"model": theirs}, tmp_path / "sam2.1_hiera_tiny.pt")
    model = build(card)
    report = initialise(model, tmp_path / "sam2.1_hiera_tiny.pt")
    assert {"encoder.trunk", "encoder.neck"} < {*report.filled}
    own = {"encoder adapters"} | ({"encoder LoRA"} if family == "coseg" else set())
    assert own == {part for part in report.random if part.startswith("encoder")}
    ours = dict(model.named_parameters())["encoder.trunk.patch_embed.proj.weight"]
    assert torch.equal(ours, theirs["image_encoder.trunk.patch_embed.proj.weight"])


def test_a_network_without_an_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam2_hiera_tiny.pt"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="'discs' has no encoder that could start from"):
        initialise(StubModel(), path)


def test_the_command_lists_fetches_and_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["models", "download"]) == 0
    assert "sam2.1-large        898 MB  https://dl.fbaipublicfiles.com" in capsys.readouterr().out
    monkeypatch.setattr("napari_coseg.models.checkpoints.download.download", no_download)
    assert main(["models", "download", "sam2-tiny", "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"sam2_hiera_tiny.pt, 156 MB, to {tmp_path / 'sam2_hiera_tiny.pt'}" in told.err
    assert told.out.strip() == str(Path("downloaded") / "sam2_hiera_tiny.pt")
    assert main(["models", "download", "sam2-huge"]) == 2
    assert "no checkpoint 'sam2-huge' is known" in capsys.readouterr().err
