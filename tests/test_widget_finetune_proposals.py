"""What the Fine-tune dock tells by itself: which base, which speed, what was forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cases.finetuning_cases import base_file, labelled_folder
from cases.widget_values import RUN_MS
from napari_coseg.models.checkpoints.native import file_sha256, load, save

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures", "cases.workspace_viewers", "cases.finetune_docks"]


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
    from napari_coseg.widgets.finetune.model_library import model_library
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
    model_library().weights.remove(str(other))
    setup.model.model_box.removeItem(setup.model.model_box.findData(str(other)))
    ModelChoice().choose_file(other)
    assert setup.model.source == str(other), "it was proposed as soon as a dock was given it"
    setup.model.choose_file(mine)
    setup.model.model_box.activated.emit(setup.model.model_box.currentIndex())
    setup.propose_base(finders)
    assert setup.model.source == mine


def test_of_what_is_kept_the_table_shows_a_score_for_each_task(qapp: Any) -> None:
    from napari_coseg.widgets.finetune.progress import ProgressPanel

    kept = {"object_f1": 0.4, "object_pq": 0.3, "objects": 70, "type_pq": {"long": 0.2}}
    scores = {
        "before": {"object_f1": 0.5},
        "after": {"object_f1": 0.7},
        "kept": {**kept, "mean_region_dice": 0.9, "region_dice": {"gland": 0.9}},
    }
    panel = ProgressPanel()
    panel.show_result({"scores": scores, "improved": True})
    shown = [
        [panel.table.item(row, column).text() for column in range(3)]
        for row in range(panel.table.rowCount())
    ]
    assert shown == [
        ["objects F1", "0.500", "0.700 (+0.200)"],
        ["kept objects F1", "", "0.400"],
        ["kept regions Dice", "", "0.900"],
    ]
    assert "the base's own predictions" in panel.table.item(1, 2).toolTip()
