"""Volumes are cut across their largest spacing, by one rule, in training and in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.stub_models import StubModel, stub_card
from cases.tiny_models import tiny_card, tiny_model
from cases.volume_twins import write_mha
from napari_coseg.cli.main import main
from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Prediction
from napari_coseg.datasets.slices import slices_across
from napari_coseg.finetuning.sources import read_reviewed
from napari_coseg.images.readers.registry import read_image
from napari_coseg.images.slicing import slicing_of
from napari_coseg.inference import InferenceSettings, segment
from napari_coseg.inference.guidance import mutual_guidance
from napari_coseg.labels.measure import labelled
from napari_coseg.workspace.folder import create_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

THIN, THICK = 0.5, 4.0
EXACT = InferenceSettings(min_object_area_um2=0, min_region_area_um2=0, max_hole_area_um2=0)
PLANES = pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])


def model(**changes: Any) -> StubModel:
    return StubModel(stub_card(pixel_size_um=1000 * THIN, **changes))


def slices() -> np.ndarray:
    """uint8 (5, 48, 64): lopsided dark objects that differ from slice to slice."""
    values = np.full((5, 48, 64), 250, np.uint8)
    values[:, 4:40, 6:50] = 220
    for z in range(5):
        values[z, 8 : 16 + z, 10:26] = 50
        values[z, 24:33, 30 + z : 44] = 60
    return values


def volume(axis: int) -> np.ndarray:
    """Those slices as an upright volume that is cut across this axis, with the head on top."""
    return np.moveaxis(slices() if axis == 0 else slices()[:, ::-1], 0, axis)


def spacing(axis: int) -> tuple[float, float, float]:
    z, y, x = (THICK if i == axis else THIN for i in range(3))
    return z, y, x


def placed(axis: int) -> Image:
    geometry = Geometry.from_spacing(spacing(axis), (5, 6, 7), unit="mm", space="patient")
    return Image(volume(axis), "ZYX", name="v", geometry=geometry)


def as_slices(labels: np.ndarray, axis: int) -> np.ndarray:
    """The inverse of `volume`."""
    moved = np.moveaxis(labels, axis, 0)
    return moved if axis == 0 else moved[:, ::-1]


# ---------------------------------------------------------------------------------------------
# The rule


@pytest.mark.parametrize(
    ("sizes", "rule", "axis"),
    [
        ((1, 1, 1), "square", 0),
        ((0.7, 0.7, 5), "square", 2),
        ((0.7, 5, 0.7), "square", 1),
        ((0.5, 1, 1), "square", 0),
        ((0.7, 0.7, 5), "axial", 0),
        ((1, 2, 3), "axial", 0),
    ],
)
def test_the_axis(sizes: tuple[float, ...], rule: str, axis: int) -> None:
    assert slicing_of(Geometry.from_spacing(sizes), rule).axis == axis


@PLANES
def test_slices_are_those_of_training(axis: int) -> None:
    slicing = slicing_of(placed(axis).geometry)
    np.testing.assert_array_equal(slicing.cut(volume(axis)), slices())
    np.testing.assert_array_equal(slices_across(volume(axis), axis), slices())
    np.testing.assert_array_equal(slicing.back(slices()), volume(axis))


def test_voxels_of_three_sizes_are_refused() -> None:
    geometry = Geometry.from_spacing((1, 2, 3), unit="mm")
    with pytest.raises(ImageError, match=r"1, 2, 3 mm \(z, y, x\).*resample the volume"):
        segment(Image(volume(0), "ZYX", geometry=geometry), model())


# ---------------------------------------------------------------------------------------------
# A run


@PLANES
def test_labels_are_those_of_the_axial_volume_turned(axis: int) -> None:
    said: list[str] = []
    image = placed(axis)
    expected = segment(placed(0), model(), settings=EXACT)
    found = segment(
        image, model(), settings=EXACT, progress=lambda part, message: said.append(message)
    )
    assert len(expected.instances) == 2
    for one, other in (
        (found.instances.labels, expected.instances.labels),
        (found.semantic, expected.semantic),
    ):
        assert one.shape == image.spatial_shape
        np.testing.assert_array_equal(as_slices(one, axis), other)
    assert found.geometry == image.geometry
    assert found.provenance["shape"] == list(image.data.shape)
    assert found.provenance["pixel_size_um"] == [1000 * size for size in spacing(axis)]
    assert found.provenance.get("sliced_across") == [None, "Y", "X"][axis]
    table = found.instances.table
    where = np.argwhere(found.instances.labels == 1).mean(axis=0)
    assert table.loc[0, ["centroid_z", "centroid_y", "centroid_x"]].tolist() == pytest.approx(where)
    counted = "slice 2 of 5" + ["", " across Y", " across X"][axis]
    assert any(message.startswith(counted + ", ") for message in said)


@PLANES
def test_a_network_sees_the_head_on_top(axis: int) -> None:
    """Weights without any symmetry answer alike, so they got the same pixels."""
    network = tiny_model(tiny_card().model_copy(update={"pixel_size_um": 1000 * THIN}))
    settings = EXACT.model_copy(update={"tile_size_px": 64, "object_threshold": 0.3})
    expected, found = (segment(placed(i), network, settings=settings) for i in (0, axis))
    assert len(np.unique(expected.semantic)) + len(expected.instances) > 1
    np.testing.assert_array_equal(
        as_slices(found.instances.labels, axis), expected.instances.labels
    )
    np.testing.assert_array_equal(as_slices(found.semantic, axis), expected.semantic)


@PLANES
def test_slices_count_along_the_axis_of_the_cut(axis: int) -> None:
    found = segment(placed(axis), model(), slices=(1, 3), settings=EXACT)
    expected = segment(placed(0), model(), slices=(1, 3), settings=EXACT)
    assert found.provenance["region_offset"] == [1 if i == axis else 0 for i in range(3)]
    np.testing.assert_array_equal(
        as_slices(found.instances.labels, axis), expected.instances.labels
    )
    by_region = [(1, 3) if i == axis else (0, n) for i, n in enumerate(volume(axis).shape)]
    again = segment(placed(axis), model(), region=by_region, settings=EXACT)
    np.testing.assert_array_equal(again.instances.labels, found.instances.labels)
    assert again.geometry == found.geometry


def test_slices_that_are_not_there() -> None:
    with pytest.raises(ImageError, match=r"region 4\.\.9 along X"):
        segment(placed(2), model(), slices=(4, 9))
    with pytest.raises(ImageError, match="cut across X; give a region of z, y and x"):
        segment(placed(2), model(), slices=1, region=[(0, 9), (0, 9)])


@PLANES
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)], ids=str)
def test_an_array_in_the_order_of_its_file(axis: int, order: tuple[int, int, int]) -> None:
    """As other readers of napari give it: labels and sizes stay on the array's axes."""
    image = placed(axis)
    flipped = image.geometry.permuted(order).flipped([0], np.transpose(image.data, order).shape)
    stored = np.transpose(image.data, order)[::-1]
    found = segment(Image(stored, "ZYX", geometry=flipped), model(), settings=EXACT)
    assert found.pixel_size_um == tuple(1000 * spacing(axis)[i] for i in order)
    upright = np.transpose(found.instances.labels[::-1], np.argsort(order))
    expected = segment(image, model(), settings=EXACT).instances.labels
    np.testing.assert_array_equal(upright > 0, expected > 0)


@pytest.mark.parametrize(
    ("image", "changes"),
    [
        pytest.param(Image(volume(2), "ZYX"), {}, id="no size"),
        pytest.param(
            Image(np.stack([volume(2)] * 3, -1), "ZYXC", (500.0, 500.0, 4000.0)), {}, id="colour"
        ),
        pytest.param(placed(2), {"slicing": "axial"}, id="an axial model"),
    ],
)
def test_others_are_cut_across_z(image: Image, changes: dict[str, Any]) -> None:
    found = segment(image, model(**changes), settings=EXACT)
    assert "sliced_across" not in found.provenance
    assert found.instances.labels.shape == image.spatial_shape


def test_lazy_volumes_are_cut_as_well() -> None:
    dask_array = pytest.importorskip("dask.array")
    image = placed(2)
    lazy = Image(dask_array.from_array(image.data), "ZYX", geometry=image.geometry)
    found, expected = (
        segment(one, model(), slices=(0, 2), settings=EXACT) for one in (lazy, image)
    )
    np.testing.assert_array_equal(found.instances.labels, expected.instances.labels)


# ---------------------------------------------------------------------------------------------
# The command line


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_coseg.inference.loading.load_any_family", lambda *_, **__: model())


@PLANES
@pytest.mark.parametrize("some", [(), ("--slices", "1:3")], ids=["all", "some"])
@pytest.mark.usefixtures("stub")
def test_the_command_line_cuts_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], axis: int, some: tuple[str, ...]
) -> None:
    write_mha(tmp_path / "v.mha", volume(axis), spacing=" ".join(map(str, spacing(axis)[::-1])))
    assert main(["segment", str(tmp_path / "v.mha"), "--format", "nifti", *some]) == 0
    notice = capsys.readouterr().err
    assert (f"cut across {'ZYX'[axis]}" in notice) == (axis > 0)
    found = read_image(tmp_path / "v_objects.nii.gz")
    bounds = (1, 3) if some else None
    expected: Prediction = segment(placed(0), model(), slices=bounds)
    np.testing.assert_array_equal(
        as_slices(np.asarray(found.data), axis), expected.instances.labels
    )
    assert found.pixel_size_um == pytest.approx([1000 * size for size in spacing(axis)])


def test_a_card_tells_how_volumes_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "cbct-synthetic"]) == 0
    assert "cut across their largest spacing" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------
# What cannot be served


def test_a_model_of_another_scale_names_those_that_serve() -> None:
    with pytest.raises(ImageError, match=r"If 0\.5 mm is right, .* that scale: cbct-synthetic$"):
        segment(placed(0), StubModel())


def test_guidance_of_a_sagittal_volume_is_refused() -> None:
    with pytest.raises(ImageError, match="cut across X"):
        mutual_guidance(placed(2), model())


@PLANES
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_fine_tuning_learns_from_the_same_slices(axis: int, part: bool, tmp_path: Path) -> None:
    image = placed(axis)
    file = tmp_path / "v.mha"
    write_mha(
        file, np.asarray(image.data), packed=False, spacing=" ".join(map(str, spacing(axis)[::-1]))
    )
    whole = read_image(file)
    labels = (np.asarray(whole.data) < 100).astype(np.int32)
    start = (0, 0, 0)
    if part:  # all of every axis but some at its start
        start = tuple(3 if n > 10 else 1 for n in labels.shape)
        labels = labels[tuple(slice(n, None) for n in start)]
    origin = {"region_offset": list(start)}
    saved = Saved(labelled(labels, pixel_size_um=whole.pixel_size_um, provenance=origin))
    saved = replace(saved, reviewed=saved.reviewed.with_area(np.nonzero(labels >= 0)))
    with create_workspace(tmp_path / "mine.coseg") as workspace:
        reference = reference_of(whole, file, workspace.path)
        workspace.add(reference, saved)
    found = read_reviewed(tmp_path / "mine.coseg").images
    expected = slices()
    assert len(found) == len(expected) - part
    for slice_, picture in zip(found, expected[int(part) :], strict=True):
        assert slice_.pixel_size_um == pytest.approx(1000 * THIN)
        assert slice_.instances is not None
        np.testing.assert_array_equal(slice_.instances > 0, slice_.image[..., 0] < 100)
        rows, columns = slice_.instances.shape
        assert (rows, columns) == (48 - 3 * part, 64 - 3 * part)
        dark = np.sort((picture < 100).sum(axis=0))
        assert part or np.array_equal(np.sort((slice_.instances > 0).sum(axis=0)), dark)
