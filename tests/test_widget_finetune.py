"""The Fine-tune dock: the whole loop in a real window, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from cases.finetuning_cases import DOCK_STEPS, GLAND, TYPES, labelled_folder, reviewed_image
from cases.widget_values import RUN_MS, UM
from napari_coseg.core.types import Instances, Prediction
from napari_coseg.models.checkpoints.adapters import read_adapter_card
from napari_coseg.models.checkpoints.native import file_sha256

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures", "cases.workspace_viewers", "cases.finetune_docks"]
LONG = 100
"""Steps that take seconds: a window that is slow for once must not find the training over."""


def trained(qtbot: Any, dock: Any) -> Path:
    """Start, wait for the end; the adapter's file."""
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: dock.bar.is_busy, timeout=RUN_MS)
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    assert not dock.progress.result.isHidden(), dock.bar.text.text()
    return Path(dock._result["adapter"])


def truth(number: int = 0) -> tuple[np.ndarray, Prediction]:
    """A picture and its right labels."""
    from napari_coseg.labels.measure import class_table, object_table

    image = reviewed_image(number)
    assert (
        image.instances is not None
        and image.semantic is not None
        and image.instance_types is not None
    )
    ids, first = np.unique(image.instances, return_index=True)
    table = object_table(
        image.instances,
        image.semantic,
        pixel_size_um=(0.5, 0.5),
        known=class_table(image.instance_types.reshape(-1)[first[ids > 0]], np.ones(len(ids) - 1)),
        classes=TYPES,
        semantic_classes=GLAND,
    )
    objects = Instances(image.instances, table, TYPES)
    return image.image, Prediction(image.semantic, GLAND, objects, (0.5, 0.5), {"axes": "YXC"})


def corrected(viewer: Any, controller: Any, qtbot: Any, folder: Path) -> None:
    """Right labels of a picture, two of its regions reviewed, kept in a workspace."""
    from napari.layers._source import layer_source

    from cases.workspace_viewers import kept, session_on
    from napari_coseg.widgets import outputs

    pixels, prediction = truth()
    path = folder / "tissue.png"
    Image.fromarray(pixels).save(path)
    with layer_source(path=str(path)):
        layer = viewer.add_image(pixels, name="tissue", scale=(0.5, 0.5), units=(UM, UM))
    regions, objects = outputs.add_prediction(viewer, layer, "YXC", prediction)
    kept(controller, qtbot, folder, (layer, objects, regions))
    session = session_on(objects, regions)
    for columns in (np.s_[:, :50], np.s_[:, 50:]):
        part = np.zeros(pixels.shape[:2], bool)
        part[columns] = True
        session.mark("Review", session.reviewed.with_area(np.nonzero(part)))


# ---------------------------------------------------------------------------------------------
# The loop


def test_the_whole_loop_in_a_window(
    make_napari_viewer_proxy: Callable,
    make_dock: Callable,
    controllers: Any,
    base: Path,
    shelf: Path,
    tmp_path: Path,
    qtbot: Any,
) -> None:
    """Segment, correct, review, train, cancel, resume, use, segment again: it differs."""
    viewer = make_napari_viewer_proxy(show=True)
    corrected(viewer.__wrapped__, controllers(viewer), qtbot, tmp_path)
    _, segment = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    _, dock = viewer.window.add_plugin_dock_widget("napari-coseg", "Fine-tune")
    make_dock(viewer, dock)
    segment.model.choose_file(base)

    def segmented() -> tuple[np.ndarray, dict[str, Any]]:
        segment.bar.run_button.click()
        qtbot.waitUntil(lambda: not segment.bar.is_busy, timeout=RUN_MS)
        newest = [one for one in viewer.layers if one.name.startswith("tissue regions")][-1]
        return newest.data.copy(), newest.metadata["napari_coseg"]["provenance"]

    before, told = segmented()
    assert "adapter" not in str(told)
    segment_pid = segment.worker.pid

    dock.look()
    qtbot.waitUntil(lambda: "1 image" in dock.setup.counted.text(), timeout=RUN_MS)
    qtbot.waitUntil(lambda: "of memory" in dock.setup.estimate.text(), timeout=RUN_MS)
    dock.setup.more.boxes["steps"].setValue(LONG)
    dock.bar.run_button.click()
    qtbot.waitUntil(dock.pause_button.isEnabled, timeout=RUN_MS)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: dock.bar.text.text() == "paused", timeout=RUN_MS)
    assert dock.worker.pid != segment_pid
    training = psutil.Process(dock.worker.pid)
    dock.pause_button.click()
    qtbot.waitUntil(lambda: len(dock.progress.losses) >= 1, timeout=RUN_MS)
    dock.bar.cancel_button.click()
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    qtbot.waitUntil(lambda: dock.progress.loss_curve.getData()[0] is not None, timeout=RUN_MS)
    assert "Resume continues" in dock.bar.text.text() and not list(shelf.glob("*.safetensors"))
    qtbot.waitUntil(lambda: not training.is_running(), timeout=RUN_MS)
    assert not dock.left.isHidden()

    taken = len(dock.progress.losses)
    dock.left.resume_button.click()
    qtbot.waitUntil(lambda: dock.bar.is_busy, timeout=RUN_MS)
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    steps = [step for step, _ in dock.progress.losses]
    assert steps == list(range(1, LONG + 1)) and taken < LONG
    assert max(dock.progress.scores["object_f1"]) == LONG
    assert not dock.progress.picture.pixmap().isNull()
    words = [
        dock.progress.table.item(row, 0).text() for row in range(dock.progress.table.rowCount())
    ]
    assert {"objects F1", "objects PQ", "regions Dice"} <= set(words)
    (adapter,) = shelf.glob("*.safetensors")
    assert read_adapter_card(adapter).base_sha256 == file_sha256(base)

    dock.progress.use_button.click()
    assert segment.model.adapter == str(adapter)
    assert segment.worker.pid == segment_pid
    after, told = segmented()
    assert (after != before).any()
    assert told["weights"]["adapter"]["sha256"] == file_sha256(adapter)
    assert told["weights"]["sha256"] == file_sha256(base)
    dock.adapters.use("")
    again, _ = segmented()
    np.testing.assert_array_equal(again, before)


def test_two_trainings_in_a_row_in_a_window(
    make_napari_viewer_proxy: Callable,
    make_dock: Callable,
    controllers: Any,
    shelf: Path,
    tmp_path: Path,
    qtbot: Any,
) -> None:
    """More was reviewed between them: the second gives an adapter of its own."""
    viewer = make_napari_viewer_proxy(show=True)
    corrected(viewer.__wrapped__, controllers(viewer), qtbot, tmp_path)
    _, dock = viewer.window.add_plugin_dock_widget("napari-coseg", "Fine-tune")
    make_dock(viewer, dock)
    first = trained(qtbot, dock)
    kept = first.read_bytes()
    dock.progress.keep_button.click()
    labelled_folder(tmp_path / "more", 1)
    dock.setup.add_folder(tmp_path / "more")
    second = trained(qtbot, dock)
    assert second != first and sorted(shelf.glob("*.safetensors")) == sorted([first, second])
    assert first.read_bytes() == kept and second.read_bytes() != kept
    assert [read_adapter_card(path).images for path in (first, second)] == [1, 2]
    assert dock.adapters.adapters.count() == 3 and dock.adapters.chosen() == str(second)
    assert dock.left.isHidden() and len(dock.progress.losses) == DOCK_STEPS
