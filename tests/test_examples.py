"""The scripts in examples/ run, on the sample images that ship and on halves of one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

import napari_coseg
from napari_coseg.images.readers.samples import colon, fluorescence

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.png"
    PIL.Image.fromarray(np.asarray(colon().data)[:256, :256]).save(path)
    return path


def labelled_folder(folder: Path, image: np.ndarray, objects: np.ndarray) -> Path:
    for kind, pixels in (("images", image), ("objects", objects.astype(np.uint16))):
        (folder / kind).mkdir(parents=True)
        PIL.Image.fromarray(pixels).save(folder / kind / "one.png")
    (folder / "dataset.json").write_text(json.dumps({"pixel_size_um": 0.4}))
    return folder


def test_segment_and_export(slide: Path, tmp_path: Path) -> None:
    written = example("segment_and_export").main(slide, tmp_path / "results", 0.45)
    assert [path.name for path in written] == [
        "slide_regions.ome.tif",
        "slide_objects.ome.tif",
        "slide_objects.csv",
        "slide_overlay.png",
        "slide.geojson",
    ]
    assert all(path.stat().st_size for path in written)


def test_correct_refine_measure(slide: Path, tmp_path: Path) -> None:
    measured = example("correct_refine_measure").main(slide, tmp_path, 0.45)
    assert len(measured.objects) > 10
    assert {"area_um2", "hematoxylin_od_mean"} <= set(measured.objects)
    assert (tmp_path / "objects.csv").exists() and (tmp_path / "summary.csv").exists()


def test_fine_tune(tmp_path: Path) -> None:
    image, nuclei = fluorescence()
    left, right = (slice(0, 128), slice(0, 128)), (slice(0, 128), slice(400, 528))
    pixels = np.asarray(image.data)
    train = labelled_folder(tmp_path / "train", pixels[left], nuclei[left])
    test = labelled_folder(tmp_path / "test", pixels[right], nuclei[right])
    few: dict[str, Any] = {"steps": 2, "crops": 1, "crop_px": 64, "variants": 1, "validations": 1}
    settings = napari_coseg.FinetuneSettings(**few, rehearse=False, match_input=False)
    scores = example("fine_tune").main(train, test, tmp_path / "mine.safetensors", settings)
    assert list(scores.index) == ["before", "after"]
    assert scores.between(0, 1).all()
    assert (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_imports_nothing_internal(path: Path) -> None:
    assert "import napari_coseg." not in path.read_text(encoding="utf-8")
    assert "from napari_coseg." not in path.read_text(encoding="utf-8")
