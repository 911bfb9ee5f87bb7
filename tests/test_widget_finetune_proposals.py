"""What the Fine-tune dock proposes by itself: the base that found the labels, and a speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetuning_cases import base_file, labelled_folder
from napari_coseg.checkpoints.native import file_sha256, load, save
from widget_values import RUN_MS

pytestmark = pytest.mark.gui
pytest_plugins = ["widget_fixtures", "workspace_viewers", "finetune_docks"]


def test_a_speed_is_proposed_until_a_person_chooses_one(
    dock: Any, tmp_path: Path, qtbot: Any
) -> None:
    setup = dock.setup
    setup.more.boxes["steps"].setValue(setup.more.boxes["steps"].minimum())  # by time
    setup.add_folder(labelled_folder(tmp_path / "folder"))
    dock.show()
    dock.look()
    qtbot.waitUntil(lambda: "Proposed" in setup.estimate.text(), timeout=RUN_MS)
    assert setup.speed_box.currentData() == "adapters"  # of the tiny base many steps fit
    setup.speed_box.setCurrentIndex(setup.speed_box.findData("heads"))
    setup.speed_box.activated.emit(setup.speed_box.currentIndex())
    dock.look()
    qtbot.waitUntil(lambda: "Trains" in setup.estimate.text(), timeout=RUN_MS)
    assert setup.speed_box.currentData() == "heads"


def test_the_base_that_found_the_labels_is_proposed(dock: Any, tmp_path: Path) -> None:
    """It is in the list of every dock where one was given it."""
    from napari_coseg.widgets.finetune.shelf import shelf
    from napari_coseg.widgets.model_choice import ModelChoice

    setup, other = dock.setup, tmp_path / "other.safetensors"
    model = load(base_file(tmp_path))
    model.get_parameter("semantic_decoder.mask_tokens").data += 1
    save(other, model)
    mine = setup.model.source
    finders = [{"model": "other", "sha256": file_sha256(other)}]
    setup.propose_base([{"model": "mine", "sha256": file_sha256(mine)}, *finders])
    ModelChoice().choose_file(other)
    assert setup.model.source == mine, "labels are of this one, too"
    setup.propose_base(finders)
    assert setup.model.source == str(other)
    setup.model.choose_file(mine)
    shelf().weights.remove(str(other))
    setup.model.model_box.removeItem(setup.model.model_box.findData(str(other)))
    ModelChoice().choose_file(other)
    assert setup.model.source == str(other), "it was proposed as soon as a dock was given it"
    setup.model.choose_file(mine)
    setup.model.model_box.activated.emit(setup.model.model_box.currentIndex())
    setup.propose_base(finders)
    assert setup.model.source == mine
