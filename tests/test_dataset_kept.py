"""Samples beyond what fits into memory, and volumes unpacked so that they are read fast enough."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cases.volume_twins import NNUNET, make_raw, make_toothfairy2, write_mha
from napari_coseg.cli.main import main
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.batches import CropSampler, CropSource
from napari_coseg.datasets.kept import KeptSamples, memory_of
from napari_coseg.datasets.nnunet_raw import NnunetRaw
from napari_coseg.datasets.registry import open_dataset

NAMES = ("a", "b", "c", "d", "e")


class Disk:
    """Five images of 32 x 32; counts what is read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, name: str) -> Sample:
        self.read.append(name)
        rng = np.random.default_rng(NAMES.index(name))
        objects = rng.integers(0, 3, (32, 32)).astype(np.int32)
        image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        return Sample(name, image, 0.5, (objects > 1).astype(np.uint8), objects)


ONE_GIB = memory_of(Disk()("a")) / 2**30


@pytest.mark.parametrize(
    ("keep", "kept"), [(0, 0), (0.9, 0), (2, 2), (2.5, 2), (5, 5), (99, 5)], ids=str
)
def test_what_does_not_fit_is_read_when_it_is_asked_for(keep: float, kept: int) -> None:
    disk = Disk()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        samples = KeptSamples(disk, NAMES, keep * ONE_GIB, hint="Buy more.")
    disk.read.clear()
    assert [sample.name for sample in samples] == list(NAMES)
    assert [samples[i].name for i in (-1, 0, 4)] == ["e", "a", "e"]
    assert [sample.name for sample in samples[1:3]] == ["b", "c"]
    beyond = list(NAMES[kept:])
    again = [name for name in ("e", "a", "e", "b", "c") if name in beyond]
    assert disk.read == beyond + again
    message = f"{len(beyond)} of 5 images do not fit"
    assert [str(one.message).startswith(message) for one in told] == [True] * bool(beyond)
    assert all(str(one.message).endswith("for each crop. Buy more.") for one in told)
    with pytest.raises(IndexError):
        samples[5]


@pytest.mark.filterwarnings("ignore:.*do not fit")
@pytest.mark.parametrize("object_fraction", [0.0, 0.7])
def test_batches_are_the_same_whatever_is_kept(object_fraction: float) -> None:
    batches = []
    for keep in (0, 2, 5):
        source = CropSource(KeptSamples(Disk(), NAMES, keep * ONE_GIB), 4, object_fraction)
        batches.append(CropSampler([source], size_px=32, pixel_size_um=0.5, seed=3).draw(1))
    for other in batches[1:]:
        np.testing.assert_array_equal(other.images, batches[0].images)
        np.testing.assert_array_equal(other.instances, batches[0].instances)


# ---------------------------------------------------------------------------------------------
# Unpacked volumes


@pytest.fixture
def no_volume_is_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: object) -> None:
        raise AssertionError("a volume was read")

    return lambda: monkeypatch.setattr(NnunetRaw, "_read", refuse)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("nnunet-raw", make_raw),
        ("nnunet-raw", lambda root: make_raw(root, description=NNUNET | {"channel_names": TWO})),
        ("toothfairy2", make_toothfairy2),
    ],
    ids=["one channel", "two channels", "ToothFairy2"],
)
def test_unpacked_volumes_give_the_same_samples(
    tmp_path: Path, no_volume_is_read, name: str, make
) -> None:
    make(tmp_path)
    before = open_dataset(name, tmp_path).load_all("train")
    told: list[tuple[float, str]] = []
    dataset = open_dataset(name, tmp_path)
    written = dataset.unpack(lambda part, case: told.append((part, case)))
    assert [part for part, _ in told] == [0, 0.5] and all(path.is_file() for path in written)
    assert (len(written), open_dataset(name, tmp_path).unpack()) == (2, ())
    no_volume_is_read()
    after = open_dataset(name, tmp_path).load_all("train")
    for one, other in zip(before, after, strict=True):
        assert (one.name, one.pixel_size_um) == (other.name, other.pixel_size_um)
        for kind in ("image", "semantic", "instances", "instance_types", "semantic_known"):
            np.testing.assert_array_equal(getattr(one, kind), getattr(other, kind))


TWO = {"0": "CT", "1": "PET"}


@pytest.mark.parametrize("change", ["values", "labels", "window"])
def test_what_was_changed_since_is_read_from_the_volume(tmp_path: Path, change: str) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    dataset.unpack()
    path = tmp_path / ("labelsTr/a_2.mha" if change == "labels" else "imagesTr/a_2_0000.mha")
    if change in ("values", "labels"):
        ones = np.ones((5, 4, 6), np.uint8 if change == "labels" else np.int16)
        write_mha(path, ones)
    dataset = open_dataset("nnunet-raw", tmp_path)
    if change == "window":
        dataset = replace(dataset, window_hu=(0.0, 255.0))
    sample = dataset.load("train", "a_2_0001")
    for written in (tmp_path / "unpacked").rglob("*"):
        if written.is_file():
            written.unlink()
    again = replace(dataset).load("train", "a_2_0001")
    np.testing.assert_array_equal(sample.image, again.image)
    np.testing.assert_array_equal(sample.semantic, again.semantic)


@pytest.mark.parametrize(
    ("ending", "content"),
    [(".npy", b""), (".npy", b"\x93NUMPY"), (".npy", None), (".json", b"{}"), (".json", b"[" * 9)],
    ids=["empty", "cut in its header", "cut short", "says nothing", "not JSON"],
)
def test_a_broken_unpacked_volume_is_told(tmp_path: Path, ending: str, content) -> None:
    open_dataset("nnunet-raw", make_raw(tmp_path)).unpack()
    path = tmp_path / "unpacked" / "train" / f"a_2{ending}"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DatasetError, match=r"a_2\.npy is broken .* remove it"):
        open_dataset("nnunet-raw", tmp_path).load("train", "a_2_0001")


def test_the_command_unpacks_volumes(tmp_path: Path, capsys) -> None:
    make_raw(tmp_path)
    assert main(["datasets", "prepare", "nnunet-raw", "--root", str(tmp_path)]) == 0
    folder = tmp_path / "unpacked" / "train"
    printed = capsys.readouterr().out.split()
    assert printed == [str(folder / "a_2.npy"), str(folder / "a_10.npy")]
