"""What napari's File > Open makes of volumes and of what this plugin wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cases.dicom_series import Series, zipped
from cases.placed_volumes import PLACED, SPACING, model, upright_values
from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image
from napari_coseg.formats.registry import export
from napari_coseg.inference import segment
from napari_coseg.widgets import reader
from napari_coseg.widgets.geometry import layer_geometry


def opened(path: Path) -> list[reader.LayerData]:
    read = reader.get_reader(str(path))
    assert read is not None
    return read(str(path))


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.tif", "stack.tiff", "notes.txt"])
def test_pictures_are_left_to_other_readers(name: str) -> None:
    from npe2 import PluginManifest
    from npe2._plugin_manager import _ContributionsIndex

    index = _ContributionsIndex()
    index.index_contributions(
        PluginManifest.from_file(Path(reader.__file__).parents[1] / "napari.yaml")
    )
    assert not list(index.iter_compatible_readers([name]))
    for ours in ("a.nii.gz", "A.MHA", "a.nrrd", "a.dcm", "a.zip", "a.ome.tif", "a.b.geojson"):
        assert list(index.iter_compatible_readers([ours])), ours


@pytest.mark.parametrize("files", [("a.png",), ("a.txt", "b/c.bin"), ()])
def test_folders_of_other_things_are_left_to_other_readers(tmp_path: Path, files) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 300)
    assert reader.get_reader(str(tmp_path)) is None
    assert reader.get_reader([str(tmp_path), str(tmp_path)]) is None


@pytest.mark.parametrize("placed", PLACED.values(), ids=PLACED.keys())
def test_a_volume_is_a_layer_in_millimetres(tmp_path: Path, placed, make_napari_viewer) -> None:
    placed.write(tmp_path / f"v{placed.ending}")
    data, keywords, kind = opened(tmp_path / f"v{placed.ending}")[0]
    layer = make_napari_viewer().add_image(data, **keywords)
    np.testing.assert_array_equal(layer.data, upright_values())
    assert (kind, layer.name, str(layer.units[0])) == ("image", "v", "millimeter")
    np.testing.assert_allclose(layer.scale, SPACING[::-1], rtol=1e-5)
    from napari_coseg.images.readers.registry import read_image

    known = read_image(tmp_path / f"v{placed.ending}").geometry
    assert layer_geometry(layer, "ZYX") == known


def test_a_dicom_folder_is_a_layer_with_its_window(tmp_path: Path) -> None:
    folder = Series().write(tmp_path / "scan")
    for path in (folder, zipped(folder), folder / "IM0001"):
        _, keywords, _ = opened(path)[0]
        assert keywords["contrast_limits"] == (-500, 1500)
        assert keywords["scale"] == pytest.approx([2.0, 0.75, 0.5])


def test_of_several_series_the_user_chooses(tmp_path: Path, monkeypatch) -> None:
    folder = Series(uid="1.2.4", prefix="b", order=(0, 1, 2)).write(Series().write(tmp_path / "s"))
    for number, slices in ((1, 6), (2, 3)):
        monkeypatch.setattr(reader, "ask_series", lambda place, choices, n=number: n)
        assert opened(folder)[0][0].shape[0] == slices
    monkeypatch.setattr(reader, "ask_series", lambda place, choices: None)
    with pytest.raises(ImageError, match="2 series"):
        opened(folder)


PLANE = Geometry.from_spacing((0.5, 0.5), unit="mm")
SAVED = [
    ("ome-tiff", "biopsy_objects.ome.tif"),
    ("ome-tiff", "biopsy_regions.ome.tif"),
    ("ome-zarr", "biopsy.ome.zarr"),
    ("geojson", "biopsy.geojson"),
]


@pytest.mark.parametrize("is_stack", [False, True], ids=["plane", "stack"])
@pytest.mark.parametrize(("format_name", "file"), SAVED)
def test_what_was_saved_comes_back_with_classes_and_place(
    tmp_path: Path, make_napari_viewer: Callable, format_name: str, file: str, is_stack: bool
) -> None:
    values = upright_values()
    axes = "ZYX" if is_stack else "YX"
    image = Image(
        values if is_stack else values[6],
        axes,
        name="biopsy",
        geometry=Geometry.from_lps(np.diag([*SPACING, 1.0]), space="image") if is_stack else PLANE,
    )
    prediction = segment(image, model())
    formats = (format_name, "csv") if format_name == "ome-tiff" else (format_name,)
    export(prediction, image, tmp_path, formats)
    layers = opened(tmp_path / file)
    viewer = make_napari_viewer()
    regions, objects = (viewer.add_labels(data, **keywords) for data, keywords, _ in layers)
    np.testing.assert_array_equal(objects.data > 0, prediction.instances.labels > 0)
    np.testing.assert_array_equal(regions.data, prediction.semantic)
    names = [entry.name for entry in prediction.semantic_classes]
    assert list(regions.features["class"]) == names
    assert len(objects.features) == len(prediction.instances)
    for layer in (regions, objects):
        found = layer_geometry(layer, axes)
        np.testing.assert_allclose(found.affine, prediction.geometry.affine, atol=1e-6)
        assert found.unit == prediction.geometry.unit


def test_an_ome_tiff_stack_is_a_layer_with_its_scale(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (2.0, 0.5, 0.5), strict=True)}
    tifffile.imwrite(
        path, np.zeros((4, 8, 9), np.uint16), ome=True, metadata={"axes": "ZYX", **sizes}
    )
    _, keywords, kind = opened(path)[0]
    assert (kind, keywords["scale"], keywords["units"][0]) == (
        "image",
        [2.0, 0.5, 0.5],
        "micrometer",
    )
