"""The Guidance widget: maps of what is in view, where they lie, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.tiny_models import tiny_model
from cases.widget_values import PICTURE, RUN_MS, UM
from napari_coseg.models.checkpoints import native

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
TITLES = [
    "region mask, prompts objects",
    "object mask, prompts regions",
    "attention for regions",
    "attention for objects",
]


@pytest.fixture
def widget(viewer: Any, worker: Any, tmp_path: Path) -> Any:
    from napari_coseg.widgets.guidance import GuidanceWidget

    weights = tmp_path / "tiny.safetensors"
    native.save(weights, tiny_model())
    widget = GuidanceWidget(viewer, worker)
    widget.model.choose_file(weights)
    yield widget
    widget.close()


def run(qtbot: Any, widget: Any) -> None:
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)


def test_maps_come_as_layers_over_the_image(viewer: Any, widget: Any, qtbot: Any) -> None:
    viewer.add_image(PICTURE, name="biopsy", scale=(0.5, 0.5), units=(UM, UM), translate=(7, 9))
    run(qtbot, widget)
    assert [layer.name for layer in viewer.layers][1:] == [f"biopsy: {t}" for t in TITLES]
    for layer in list(viewer.layers)[1:]:
        assert layer.data.shape == PICTURE.shape[:2]
        np.testing.assert_array_equal(layer.translate, (7, 9))
    assert [layer.visible for layer in viewer.layers] == [True, True, False, False, False]


def test_of_a_stack_the_slice_in_view_is_shown(viewer: Any, widget: Any, qtbot: Any) -> None:
    stack = np.stack([PICTURE[..., 0]] * 3)
    viewer.add_image(stack, name="stack", scale=(2, 0.5, 0.5), units=(UM, UM, UM))
    viewer.dims.set_current_step(0, 2)
    run(qtbot, widget)
    shown = viewer.layers[f"stack: {TITLES[0]}"]
    assert shown.data.shape == (1, *PICTURE.shape[:2])
    np.testing.assert_array_equal(shown.translate, (4, 0, 0))


def test_without_an_image_a_notification_says_what_to_do(
    widget: Any, notes: list[str], viewer: Any
) -> None:
    widget.bar.run_button.click()
    assert not widget.bar.is_busy
    assert len(notes) == 1
    assert "image" in notes[0]


def test_the_file_and_the_devices_are_asked_for_as_in_segment(
    viewer: Any, worker: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.layers._source import layer_source

    from napari_coseg.core.types import Image
    from napari_coseg.formats.ome_tiff import write_image
    from napari_coseg.widgets.guidance import GuidanceWidget

    path = tmp_path / "biopsy.ome.tif"
    write_image(path, Image(PICTURE, "YXC", (0.5, 0.25), "biopsy"))
    with layer_source(path=str(path)):
        viewer.add_image(PICTURE, name="biopsy")
    widget = GuidanceWidget(viewer, worker)
    received: list[Any] = []
    monkeypatch.setattr(widget.model, "set_devices", received.append)
    widget.first_shown()
    qtbot.waitUntil(lambda: bool(widget.image.pixel_size.um and received), timeout=RUN_MS)
    assert widget.image.pixel_size.um == (0.5, 0.25)
    assert received[0][:2] == ["auto", "cpu"]
    widget.close()
