"""In the window a volume is cut as elsewhere, and sizes stay on the axes of the layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers._source import layer_source

from cases.placed_volumes import model
from cases.widget_values import RUN_MS
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image
from napari_coseg.images.readers.registry import read_image
from napari_coseg.inference import segment
from napari_coseg.models.checkpoints import native
from napari_coseg.widgets import layers
from test_slicing import THICK, THIN, as_slices, placed, spacing, volume

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
PLANES = pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the model that works at the size of the volumes' pixels."""
    path = tmp_path_factory.mktemp("weights") / "placed.safetensors"
    native.save(path, model())
    return path


def shown(viewer: Any, image: Image) -> Any:
    data, keywords = layers.image_to_layer(image)
    return viewer.add_image(data, **keywords)


@PLANES
@pytest.mark.parametrize("part", ["whole", "view"])
def test_segment_cuts_alike(
    viewer: Any, make_widget: Callable, qtbot: Any, axis: int, part: str
) -> None:
    shown(viewer, placed(axis))
    widget = make_widget(viewer)
    if part == "view":
        viewer.dims.order = (axis, *(i for i in range(3) if i != axis))
        viewer.dims.set_current_step(axis, 2)
        viewer.reset_view()
        widget.view_button.setChecked(True)
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    found = viewer.layers["v objects"]
    expected = segment(placed(0), model(), slices=None if part == "whole" else 2)
    np.testing.assert_array_equal(
        as_slices(np.asarray(found.data), axis), expected.instances.labels
    )
    assert (f"cut across {'ZYX'[axis]}" in widget.bar.text.text()) == (axis > 0)


@PLANES
def test_sizes_are_shown_in_the_plane_and_from_slice_to_slice(
    viewer: Any, make_widget: Callable, axis: int
) -> None:
    shown(viewer, placed(axis))
    choice = make_widget(viewer).image
    assert choice.size_box.value() == pytest.approx(1000 * THIN)
    assert choice.spacing_box.value() == pytest.approx(1000 * THICK)
    assert ("Slices are cut across" in choice.source.text()) == (axis > 0)
    choice.spacing_box.setValue(3000)
    sizes = choice.chosen().pixel_size_um
    assert sizes == pytest.approx([3000 if i == axis else 1000 * THIN for i in range(3)])


@PLANES
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)], ids=str)
def test_sizes_of_a_file_stay_on_the_axes_that_another_reader_gives(
    viewer: Any, make_widget: Callable, tmp_path: Path, axis: int, order: tuple[int, int, int]
) -> None:
    """A layer without a size of its own, as the file is stored."""
    import nibabel

    stored = np.transpose(volume(axis), order)
    columns = np.diag([*spacing(axis)[::-1]])[:, [2 - i for i in order[::-1]]]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ columns
    path = tmp_path / "v.nii.gz"
    nibabel.save(nibabel.Nifti1Image(stored.T, affine), path)
    image = read_image(path)
    np.testing.assert_array_equal(np.asarray(image.data), volume(axis))
    with layer_source(path=str(path)):
        viewer.add_image(stored, name="v")
    choice = make_widget(viewer).image
    choice.set_file_geometry(str(path), image.geometry, image.spatial_shape)
    chosen = choice.chosen()
    assert chosen.pixel_size_um == pytest.approx([1000 * spacing(axis)[i] for i in order])
    geometry: Geometry = chosen.geometry
    found = segment(Image(stored, "ZYX", geometry=geometry), model()).instances.labels
    expected = segment(placed(axis), model()).instances.labels
    np.testing.assert_array_equal(np.transpose(found, np.argsort(order)) > 0, expected > 0)
