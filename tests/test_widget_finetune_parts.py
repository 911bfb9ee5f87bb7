"""The Fine-tune dock without a window: errors before the start, trainings, adapters, restart."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cases.finetuning_cases import labelled_folder, tuned
from cases.widget_values import RUN_MS
from napari_coseg.core.errors import Cancelled, CheckpointError, OutputError, SettingsError
from napari_coseg.finetuning.request import (
    FinetuneRequest,
    forget,
    free_output,
    training_in,
    unfinished,
    write_request,
)
from napari_coseg.models.checkpoints.adapters import AdapterCard, read_adapter_card, save_adapter
from napari_coseg.models.checkpoints.native import file_sha256, load, save

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures", "cases.workspace_viewers", "cases.finetune_docks"]


def trained(qtbot: Any, dock: Any) -> Path:
    dock.bar.run_button.click()
    qtbot.waitUntil(lambda: dock.bar.is_busy, timeout=RUN_MS)
    qtbot.waitUntil(lambda: not dock.bar.is_busy, timeout=RUN_MS)
    assert not dock.progress.result.isHidden(), dock.bar.text.text()
    return Path(dock._result["adapter"])


def told_by(qtbot: Any, dock: Any) -> str:
    """What the counting or the estimate says once both are through."""
    setup = dock.setup
    dock.show()
    dock.look()
    qtbot.waitUntil(lambda: "⚠" in setup.counted.text() + setup.estimate.text(), timeout=RUN_MS)
    return str(setup.counted.text() + setup.estimate.text())


# ---------------------------------------------------------------------------------------------
# Before the start


def test_without_anything_reviewed_it_says_what_to_do(dock: Any, notes: list[str]) -> None:
    dock.look()
    assert "mark what is correct as reviewed" in dock.setup.counted.text()
    dock.bar.run_button.click()
    assert "mark what is correct as reviewed" in notes[-1] and not dock.bar.is_busy


def nothing_known(folder: Path) -> None:
    (folder / "known").mkdir()
    for path in (folder / "objects").iterdir():
        from PIL import Image

        Image.fromarray(np.zeros((96, 96), np.uint8)).save(folder / "known" / path.name)


def another_class(folder: Path) -> None:
    described = json.loads((folder / "dataset.json").read_text())
    described["semantic_classes"][0]["name"] = "cyst"
    (folder / "dataset.json").write_text(json.dumps(described))


def no_labels(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(no_labels, "There is no folder", id="gone"),
        pytest.param(nothing_known, "nothing is reviewed", id="nothing reviewed"),
        pytest.param(another_class, "does not know the region class 'cyst'", id="new class"),
    ],
)
def test_trouble_is_told_before_the_start(
    dock: Any, tmp_path: Path, qtbot: Any, spoil: Any, told: str
) -> None:
    folder = labelled_folder(tmp_path / "folder")
    spoil(folder)
    dock.setup.add_folder(folder)
    assert told.replace("'", "&#x27;") in told_by(qtbot, dock)


@pytest.mark.parametrize(
    ("edit", "text", "told"),
    [
        pytest.param("rename_edit", "round", "Rename takes NAME=NAME", id="rename"),
        pytest.param("merge_edit", "both=", "Merge takes NAME=NAME", id="merge"),
    ],
)
def test_a_form_that_makes_no_sense_is_told(dock: Any, edit: str, text: str, told: str) -> None:
    dock.setup.add_folder("somewhere")
    getattr(dock.setup, edit).setText(text)
    with pytest.raises(SettingsError, match=told):
        dock.setup.request("a.safetensors")


def test_lora_that_would_not_train_is_told(dock: Any, notes: list[str]) -> None:
    dock.setup.add_folder("somewhere")
    dock.setup.more.boxes["lora_rank"].setValue(4)
    dock.bar.run_button.click()
    assert "take speed 'adapters'" in notes[-1] and not dock.bar.is_busy


def test_the_form_reaches_the_request(dock: Any, tmp_path: Path) -> None:
    setup = dock.setup
    setup.add_folder(tmp_path / "one")
    setup.speed_box.setCurrentIndex(setup.speed_box.findData("adapters"))
    setup.part_boxes["neck"].setChecked(False)
    setup.more.boxes["lora_rank"].setValue(4)
    setup.rename_edit.setText("long=spindle")
    setup.merge_edit.setText("cell=round+long")
    asked = setup.request(tmp_path / "a.safetensors")
    assert asked.reviewed == (str(tmp_path / "one"),)
    assert (asked.settings.speed, asked.settings.lora_rank) == ("adapters", 4)
    assert set(asked.settings.parts or ()) == {"prompt_encoders", "decoders", "adapters", "lora"}
    assert asked.settings.rename == {"long": "spindle"}
    assert asked.settings.merge == {"cell": ("round", "long")}
    assert FinetuneRequest.from_mapping(json.loads(asked.model_dump_json())) == asked


# ---------------------------------------------------------------------------------------------
# Trainings and adapters


def test_two_trainings_then_adapters_go_round(
    dock: Any, shelf: Path, tmp_path: Path, qtbot: Any, notes: list[str]
) -> None:
    dock.setup.name_edit.setText("mine")
    dock.setup.add_folder(labelled_folder(tmp_path / "folder"))
    first = trained(qtbot, dock)
    kept = first.read_bytes()
    dock.progress.keep_button.click()
    assert dock.setup.model.source and "stays in the list" in dock.progress.verdict.text()
    second = trained(qtbot, dock)
    assert (first.name, second.name) == ("mine.safetensors", "mine-2.safetensors")
    assert first.read_bytes() == kept
    panel = dock.adapters
    assert panel.adapters.count() == 3
    words = panel.adapters.item(1).text()
    assert "mine" in words and "on tiny" in words and "MB" in words and "F1" in words

    given = tmp_path / "given.safetensors"
    panel.export_to(str(first), given)
    qtbot.waitUntil(given.exists, timeout=RUN_MS)
    assert given.read_bytes() == kept
    panel.import_from(str(given))
    qtbot.waitUntil(lambda: (shelf / "given.safetensors").exists(), timeout=RUN_MS)
    qtbot.waitUntil(lambda: panel.adapters.count() == 4, timeout=RUN_MS)

    from napari_coseg.widgets.model_choice import ModelChoice

    choice = ModelChoice()
    choice.choose_file(dock.setup.model.source)
    panel.use(str(second))
    assert choice.arguments()["adapter"] == str(second)
    assert choice.card == read_adapter_card(second).model
    panel.delete(str(second))
    assert "adapter" not in choice.arguments()

    other = tmp_path / "other.safetensors"
    network = load(dock.setup.model.source, "cpu")
    network.card = network.card.model_copy(update={"name": "another"})
    save(other, network)
    dock.setup.model.choose_file(other)
    for refused in (panel.import_from, panel.use):
        with pytest.raises(CheckpointError, match=r"adapts 'tiny' .* but the model is 'another'"):
            refused(str(given))
    assert file_sha256(other) != read_adapter_card(given).base_sha256


@pytest.mark.parametrize(
    ("typed", "yes", "asked", "replaced"),
    [
        pytest.param("there", False, 1, False, id="without a suffix, and no"),
        pytest.param("there", True, 1, True, id="without a suffix, and yes"),
        pytest.param("there.safetensors", False, 0, True, id="the dialog has asked"),
    ],
)
def test_nothing_is_replaced_that_nobody_named(
    dock: Any,
    tmp_path: Path,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    yes: bool,
    asked: int,
    replaced: bool,
) -> None:
    adapter = adapter_of(dock.setup.model.source, tmp_path / "mine.safetensors")
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"of before")
    questions, told = answers(monkeypatch, yes), list[str]()
    dock.adapters.happened.connect(told.append)
    dock.adapters.export_to(str(adapter), tmp_path / typed)
    if replaced:
        qtbot.waitUntil(lambda: bool(told), timeout=RUN_MS)
    wanted = adapter.read_bytes() if replaced else b"of before"
    assert there.read_bytes() == wanted and len(questions) == asked


def adapter_of(base: str, path: Path) -> Path:
    """An adapter that changes nothing."""
    network = load(base, "cpu")
    card = AdapterCard(
        name=path.stem,
        base_name="tiny",
        base_sha256=file_sha256(Path(base)),
        model=network.card,
        parts=(),
    )
    save_adapter(path, network, network, card)
    return path


@pytest.mark.parametrize(
    ("meanwhile", "offered", "told"),
    [
        pytest.param(lambda path, dock: None, True, "", id="nothing happens"),
        pytest.param(lambda path, dock: path.unlink(), False, "is gone", id="it is deleted"),
        pytest.param(lambda path, dock: kept_the_old(dock), False, "", id="the old one is kept"),
    ],
)
def test_the_adapter_in_use_after_a_restart(
    dock: Any,
    shelf: Path,
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Any,
    offered: bool,
    told: str,
) -> None:
    from napari_coseg.widgets.finetune import model_library as shelves
    from napari_coseg.widgets.model_choice import ModelChoice

    base = dock.setup.model.source
    path = adapter_of(base, shelf / "mine.safetensors")
    dock.adapters.use(str(path))
    meanwhile(path, dock)
    monkeypatch.setattr(shelves, "_LIBRARIES", [])
    for _ in range(2):
        choice = ModelChoice()
        choice.choose_file(base)
        assert choice.arguments().get("adapter") == (str(path) if offered else None)
    assert [told in note for note in notes if "no longer used" in note] == [True] * bool(told)


def kept_the_old(dock: Any) -> None:
    dock._result = {"base_sha256": file_sha256(Path(dock.setup.model.source))}
    dock.progress.decided.emit(False)


def left_behind(shelf: Path) -> FinetuneRequest:
    """What a training leaves that a crash has ended before its first step."""
    asked = FinetuneRequest(reviewed=("a",), output=str(shelf / "mine.safetensors"), name="mine")
    write_request(asked)
    (asked.run_folder / "plan.json").write_text('{"steps": 50}')
    return asked


def answers(monkeypatch: pytest.MonkeyPatch, yes: bool) -> list[str]:
    """Answer what a box asks; the texts that it asked with."""
    from qtpy.QtWidgets import QMessageBox

    asked: list[str] = []
    given = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *args: asked.append(args[2]) or given)
    return asked


@pytest.mark.parametrize("yes", [True, False])
def test_nothing_is_forgotten_unasked(
    dock: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch, yes: bool
) -> None:
    asked, questions = left_behind(shelf), answers(monkeypatch, yes)
    dock.left.refresh()
    dock.left.delete_button.click()
    assert questions == ["Delete the training of mine? What it has trained so far is lost."]
    assert asked.run_folder.exists() is not yes
    assert dock.left.isHidden() is yes


def test_a_failed_start_does_not_take_another_run_for_its_own(
    dock: Any, shelf: Path, notes: list[str]
) -> None:
    left_behind(shelf)
    dock._request = FinetuneRequest(reviewed=("b",), output=str(shelf / "other.safetensors"))
    dock._on_failed(SettingsError("there is no folder b"))
    assert "no folder b" in dock.setup.estimate.text()
    assert dock.bar.text.text() == "Failed." and not dock.left.isHidden()


def test_of_several_runs_the_one_that_was_stopped_is_offered(dock: Any, shelf: Path) -> None:
    mine = left_behind(shelf)
    other = mine.model_copy(update={"output": str(shelf / "later.safetensors"), "name": "later"})
    write_request(other)
    (other.run_folder / "plan.json").write_text('{"steps": 50}')
    os.utime(mine.run_folder / "plan.json", (1, 1))
    dock.left.refresh()
    assert "later: step" in dock.left.text.text()
    dock._request = mine
    dock._on_failed(Cancelled("stopped"))
    assert "Resume continues" in dock.bar.text.text() and "mine: step" in dock.left.text.text()


@pytest.mark.parametrize("seen", ["before", "after"])
def test_what_another_window_trains_is_not_touched(
    dock: Any, shelf: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """Whether its training began before this window looked, or after."""
    asked, _ = left_behind(shelf), answers(monkeypatch, True)
    begun: list[Any] = []
    dock.left.asked.connect(lambda request, how: begun.append(request))
    if seen == "before":
        dock.left.refresh()
    with training_in(asked.run_folder):
        if seen == "after":
            dock.left.refresh()
            assert dock.left.isHidden()
        dock.left.delete_button.click()
        dock.left.resume_button.click()
        with pytest.raises(OutputError, match="a training runs in"):
            forget(asked)
        with pytest.raises(OutputError, match="a training runs in"):
            write_request(asked)
    assert (asked.run_folder / "plan.json").exists() and not begun
    assert ["stop it there first" in note for note in notes] == [True] * (seen == "before")
    dock.left.refresh()
    assert not dock.left.isHidden(), "it has ended, unfinished"


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        training_in(tmp_path / "mine-run"),
        pytest.raises(OutputError, match="in another window or program"),
    ):
        tuned(tmp_path)
    assert [path.name for path in (tmp_path / "mine-run").iterdir()] == []


def test_what_a_crash_left_is_offered_and_forgotten(
    dock: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, True)
    asked = FinetuneRequest(reviewed=("a",), output=str(shelf / "mine.safetensors"), name="mine")
    write_request(asked)
    assert not unfinished(shelf), "nothing was planned yet"
    (asked.run_folder / "plan.json").write_text('{"steps": 50}')
    (asked.run_folder / "log.csv").write_text("step,name,value\n7,loss,0.5\n")
    dock.left.refresh()
    assert "mine: step 7 of 50" in dock.left.text.text()
    assert free_output(shelf, "mine").name == "mine-2.safetensors"
    dock.left.delete_button.click()
    assert dock.left.isHidden() and not asked.run_folder.exists()


def test_after_a_crash_the_curve_goes_on_from_the_saved_step(qapp: Any) -> None:
    from napari_coseg.widgets.finetune.progress import ProgressPanel

    panel = ProgressPanel()
    panel.show_event("logged", {"values": {"loss": [(1, 9.0), (2, 8.0), (3, 7.0)]}})
    for step, loss in ((2, 5.0), (3, 4.0), (4, 3.0)):
        panel.show_event("step", {"step": step, "loss": loss})
    assert panel.losses == [(1, 9.0), (2, 5.0), (3, 4.0), (4, 3.0)]


def test_after_a_crash_the_legend_tells_the_latest_score(qapp: Any) -> None:
    from napari_coseg.widgets.finetune.progress import ProgressPanel

    panel = ProgressPanel()
    panel.show_event("logged", {"values": {"validation_object_f1": [(6, 0.75), (12, 0.5)]}})
    panel.show_event("plan", {"scores_before": {"object_f1": 0.125}})
    panel.draw()
    assert "F1&nbsp;0.50" in panel.legend.text()


@pytest.mark.parametrize(
    ("paused", "heard"),
    [
        pytest.param(False, ["step 1"], id="soon after another"),
        pytest.param(True, ["step 1", "paused"], id="while it is to pause"),
    ],
)
def test_that_it_is_paused_arrives(
    monkeypatch: pytest.MonkeyPatch, paused: bool, heard: list[str]
) -> None:
    from napari_coseg.widgets.background import process

    sent: list[dict[str, Any]] = []
    connection = SimpleNamespace(kept={}, paused=set(), send=sent.append)
    monkeypatch.setattr(process, "REPORT_EVERY_S", 1000)
    job = process.JobContext(cast(Any, connection), 1, {})
    job.progress(0.1, "step 1")
    connection.paused |= {1} if paused else set()
    job.progress(0.1, "paused")
    assert [report["message"] for report in sent] == heard


@pytest.mark.parametrize(
    ("button", "how"),
    [
        pytest.param("original_button", {"original_labels": True}, id="as it began"),
        pytest.param("restart_button", {"restart": True}, id="anew"),
    ],
)
def test_where_more_was_reviewed_both_ways_are_offered(
    dock: Any, shelf: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch, button: str, how: Any
) -> None:
    asked = left_behind(shelf)
    begun: list[Any] = []
    monkeypatch.setattr(dock, "_saved", lambda then, failed: begun.append(dock._how))
    dock.left.refresh()
    dock.left.resume_button.click()
    dock._on_reported("differs", {"message": "it began with 1 image; 2 images are now"})
    dock._on_failed(SettingsError("it began with 1 image; 2 images are now"))
    assert "2 images are now" in dock.left.text.text() and not notes
    assert not dock.left.isHidden() and dock.left.resume_button.isHidden()
    getattr(dock.left, button).click()
    assert begun == [{}, how] and dock._request == asked
    dock.left.refresh()
    assert not dock.left.resume_button.isHidden() and getattr(dock.left, button).isHidden()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param('{"steps": 5', id="plan cut off"),
        pytest.param('{"other": 5}', id="plan of another kind"),
        pytest.param("[]", id="no plan"),
    ],
)
def test_a_damaged_run_is_passed_over(tmp_path: Path, damage: str) -> None:
    asked = FinetuneRequest(reviewed=("a",), output=str(tmp_path / "mine.safetensors"))
    write_request(asked)
    (asked.run_folder / "plan.json").write_text(damage)
    assert unfinished(tmp_path) == []
