"""The pixel size of an image without one: estimated from its objects, never assumed unasked."""

from __future__ import annotations

import itertools

import numpy as np
import PIL.Image
import pytest

from cases.stub_models import StubModel, disc_picture, stub_card
from napari_coseg.cli.main import main
from napari_coseg.core.types import Image
from napari_coseg.images.readers.registry import read_image
from napari_coseg.inference import loading
from napari_coseg.inference.pixel_size import estimate_pixel_size

RADIUS_PX = 10
CENTRES = list(itertools.product(range(20, 300, 40), repeat=2))


def discs(count: int = len(CENTRES)) -> np.ndarray:
    return disc_picture((300, 300), CENTRES[:count], RADIUS_PX)[0]


def model(diameter_um: float | None) -> StubModel:
    return StubModel(stub_card(object_diameter_um=diameter_um))


@pytest.mark.parametrize("um", [0.15, 0.25, 0.4, 0.5, 0.8])
@pytest.mark.parametrize("axes", ["YXC", "CYX", "ZYXC"])
def test_the_size_is_that_at_which_objects_measure_what_they_should(um, axes):
    image = discs()
    pixels = {"YXC": image, "CYX": np.moveaxis(image, -1, 0), "ZYXC": np.stack([image] * 3)}[axes]
    found = estimate_pixel_size(Image(pixels, axes), model(2 * RADIUS_PX * um))
    assert found is not None
    assert found.um == pytest.approx(um, rel=0.1)
    assert found.objects >= 10
    low, high = found.range_um
    assert low < um < high


@pytest.mark.parametrize(
    ("diameter_um", "count"),
    [
        pytest.param(None, len(CENTRES), id="the card does not say how large they are"),
        pytest.param(5.0, 4, id="too few objects"),
        pytest.param(500.0, len(CENTRES), id="too small at every size"),
    ],
)
def test_no_estimate_without_grounds(diameter_um, count):
    assert estimate_pixel_size(Image(discs(count), "YXC"), model(diameter_um)) is None


@pytest.fixture
def picture(tmp_path, monkeypatch):
    own = model(2 * RADIUS_PX * 0.25)
    monkeypatch.setattr(loading, "load_any_family", lambda *_, **__: own)
    PIL.Image.fromarray(discs()).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def test_the_command_asks_for_a_size_and_tells_its_estimate(picture, capsys):
    assert main(["segment", str(picture)]) == 2
    message = capsys.readouterr().err
    assert "the file has no pixel size; judged by its nuclei it is about 0.2" in message
    assert "--pixel-size-um" in message
    assert "--estimate-pixel-size" in message
    assert [path.name for path in picture.parent.iterdir()] == ["slide.png"]


def test_the_command_takes_the_estimate_where_asked_and_says_so(picture, capsys):
    assert main(["segment", str(picture), "--estimate-pixel-size"]) == 0
    assert "the pixel size is estimated from the nuclei, about 0.2" in capsys.readouterr().err
    objects = read_image(picture.with_name("slide_objects.ome.tif"))
    assert objects.pixel_size_um == pytest.approx((0.25, 0.25), rel=0.1)


def test_the_command_says_where_no_estimate_is_possible(picture, capsys, monkeypatch):
    for own, why in ((model(500.0), "too few nuclei"), (model(None), "for H&E alone")):
        monkeypatch.setattr(loading, "load_any_family", lambda *_, own=own, **__: own)
        monkeypatch.setattr(
            "napari_coseg.inference.pixel_size.load_model",
            lambda name: StubModel(stub_card(instance_classes=[])),
        )
        assert main(["segment", str(picture), "--estimate-pixel-size"]) == 2
        assert why in capsys.readouterr().err
