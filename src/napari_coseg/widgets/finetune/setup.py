"""The Set up page of the Fine-tune dock: labels, base model, settings and the estimate."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_coseg.core.errors import SettingsError
from napari_coseg.finetuning.request import FinetuneRequest
from napari_coseg.finetuning.settings import (
    FEWEST_USEFUL_STEPS,
    HEADS,
    THROUGH_ENCODER,
    FinetuneSettings,
)
from napari_coseg.widgets.finetune.model_library import model_library
from napari_coseg.widgets.finetune.telling import PART_WORDS, estimate_lines, review_lines
from napari_coseg.widgets.forms import ChoiceBox, column_of, group, row
from napari_coseg.widgets.model_choice import ModelChoice
from napari_coseg.widgets.settings_form import SettingsForm

ADVANCED = (
    "steps",
    "crops",
    "crop_px",
    "held_out_fraction",
    "validations",
    "distance_to_base",
    "replay_fraction",
    "lora_rank",
    "match_input",
)
SPEEDS = {
    "heads": "heads: images like the model's own",
    "adapters": "adapters: other stains, microscopes",
}
NOTHING_YET = (
    "No reviewed labels yet. Keep corrections in a workspace (dock Workspace) and mark what is "
    "correct as reviewed (dock Correct), or add a folder of images with label files."
)


class SetupPanel(QWidget):
    """Sources, base model and settings; shows what was counted and estimated.

    Signals
    -------
    sources_changed()
        Other folders were chosen.
    changed()
        The base or a setting was changed, so that the estimate is no longer valid.
    """

    sources_changed = Signal()
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._workspace = ""
        self._base_is_chosen = self._speed_is_chosen = False
        """By the user; then it is no longer proposed."""
        self._finders: Sequence[Mapping[str, str]] = ()
        self._proposed_for: tuple[Any, ...] = ()
        self.sources = QListWidget()
        self.add_button = QPushButton("Add folder …")
        self.again_button = QPushButton("Count again")
        self.counted, self.estimate = _text(), _text()
        self.model = ModelChoice(adapters=False)
        self.name_edit = QLineEdit("my adapter")
        self.speed_box = ChoiceBox(
            "heads: the frozen encoder runs once, and the layers after it train, which is fast. "
            "adapters: trains through the encoder, which is slower and adapts more"
        )
        self.main = SettingsForm(FinetuneSettings, ("minutes", "add_classes"))
        self.more = SettingsForm(FinetuneSettings, ADVANCED)
        self.part_boxes = {
            part: QCheckBox(words) for part, words in PART_WORDS.items() if part != "lora"
        }
        self.rename_edit, self.merge_edit = QLineEdit(), QLineEdit()
        self.replay_edit, self.forgetting_edit = QLineEdit(), QLineEdit()
        self._build()
        self._connect()
        self._on_speed()

    def _build(self) -> None:
        self.sources.setMaximumHeight(72)
        self.sources.setToolTip("Workspaces and labelled folders; those that are ticked are used")
        self.add_button.setToolTip("A workspace, or a folder with images and label files")
        self.again_button.setToolTip("After more was corrected and marked as reviewed")
        for speed, words in SPEEDS.items():
            self.speed_box.addItem(words, speed)
        self.name_edit.setToolTip("Name of the adapter and of its file")
        basic = QWidget()
        form = QFormLayout(basic)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Name", self.name_edit)
        form.addRow("Speed", self.speed_box)
        form.addRow(self.main)
        advanced = QCollapsible("Advanced")
        advanced.addWidget(self._advanced())
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        buttons = row(self.add_button, self.again_button)
        column.addWidget(group("Reviewed", column_of(self.sources, buttons, self.counted)))
        column.addWidget(group("Base model", self.model))
        column.addWidget(group("Training", column_of(basic, advanced)))
        column.addWidget(group("Estimate for this machine", self.estimate))
        self.main.boxes["minutes"].setSuffix(" min")
        self.main.boxes["add_classes"].setText("allow new classes")

    def _advanced(self) -> QWidget:
        content = QWidget()
        form = QFormLayout(content)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(QLabel("What trains"))
        for box in self.part_boxes.values():
            form.addRow("", box)
        form.addRow(self.more)
        for words, edit, example, tip in (
            ("Rename", self.rename_edit, "old=new, …", "New names for classes of the base"),
            ("Merge", self.merge_edit, "new=old+old, …", "Merge classes of the base"),
        ):
            edit.setPlaceholderText(example)
            edit.setToolTip(tip)
            form.addRow(words, edit)
        for words, edit, tip in (
            ("Replay", self.replay_edit, "Images of the base's own kind to train on as well"),
            (
                "Forgetting",
                self.forgetting_edit,
                "Images of the base's own kind that measure what is forgotten",
            ),
        ):
            edit.setPlaceholderText("no folder")
            edit.setToolTip(tip)
            button = QPushButton("…")
            button.setMaximumWidth(28)
            button.clicked.connect(lambda _, edit=edit: self._ask_folder(edit))
            line = row(edit, button)
            form.addRow(words, line)
        return content

    def _connect(self) -> None:
        self.add_button.clicked.connect(self._on_add)
        self.again_button.clicked.connect(self.sources_changed)
        self.sources.itemChanged.connect(lambda _: self.sources_changed.emit())
        self.speed_box.currentIndexChanged.connect(self._on_speed)
        self.speed_box.activated.connect(self._on_speed_chosen)
        self.model.model_box.activated.connect(self._on_base_chosen)
        for signal in (
            model_library().changed,
            model_library().listed,
        ):  # a hash is known by now, or a file
            signal.connect(self._propose_base)
        self.model.changed.connect(self.changed)
        self.model.device_box.activated.connect(self.changed)
        for form in (self.main, self.more):
            for box in form.boxes.values():
                for name in ("valueChanged", "toggled"):
                    if hasattr(box, name):
                        getattr(box, name).connect(self.changed)
        for box in self.part_boxes.values():
            box.clicked.connect(self._on_speed_chosen)
            box.clicked.connect(self.changed)
        for edit in (self.rename_edit, self.merge_edit, self.replay_edit, self.forgetting_edit):
            edit.editingFinished.connect(self.changed)

    # -- the request --------------------------------------------------------------------------

    def paths(self) -> tuple[str, ...]:
        """Folders that are ticked."""
        items = [self.sources.item(i) for i in range(self.sources.count())]
        chosen = [item for item in items if item.checkState() == Qt.CheckState.Checked]
        return tuple(str(item.data(Qt.ItemDataRole.UserRole)) for item in chosen)

    def set_workspace(self, path: Path | None) -> bool:
        """List the open workspace first, in place of the previous one; whether it has changed."""
        text = "" if path is None else str(path)
        if text == self._workspace:
            return False
        if self._workspace:
            self._remove(self._workspace)
        self._workspace = text
        if path is not None:
            self._remove(text)
            self._list(text, f"{path.name} (open here)", at=0)
            if self.name_edit.text() == "my adapter":
                self.name_edit.setText(path.stem)
        return True

    def add_folder(self, path: str | Path) -> None:
        """Use this one as well."""
        self._remove(str(path))
        self._list(str(path), Path(path).name, at=self.sources.count())
        self.sources_changed.emit()

    def request(self, output: str | Path) -> FinetuneRequest:
        """What is chosen.

        Raises
        ------
        SettingsError
            Where no labels are chosen, or a setting is out of range.
        """
        if not self.paths():
            raise SettingsError(NOTHING_YET)
        parts = [part for part, box in self.part_boxes.items() if box.isChecked()]
        if self.more.values()["lora_rank"]:
            parts.append("lora")
        if not parts:
            raise SettingsError("nothing would train; choose a part under Advanced")
        settings = {
            "speed": self.speed_box.currentData(),
            **self.main.values(),
            **self.more.values(),
            "rename": _pairs("Rename", self.rename_edit.text()),
            "merge": {
                new: [old.strip() for old in olds.split("+")]
                for new, olds in _pairs("Merge", self.merge_edit.text()).items()
            },
        }
        if {*parts, "lora"} != {*self._usual_parts(), "lora"}:
            settings["parts"] = parts
        chosen = FinetuneSettings.from_mapping(settings)
        chosen.check_lora()
        return FinetuneRequest.from_mapping(
            {
                "reviewed": self.paths(),
                "output": str(output),
                "base": self.model.source,
                "device": self.model.device,
                "name": self.name_edit.text().strip() or None,
                "base_validation": self.forgetting_edit.text().strip() or None,
                "replay": self.replay_edit.text().strip() or None,
                "settings": chosen,
            }
        )

    # -- what is shown -------------------------------------------------------------------------

    def show_reviews(self, values: Mapping[str, Any]) -> None:
        """`Reviews` as plain values, and the names of the images."""
        self.counted.setText("<br>".join(review_lines(values)))
        self.counted.setToolTip("\n".join(values["names"][:30]))

    def show_estimate(self, values: Mapping[str, Any]) -> None:
        """`Estimate` as plain values."""
        notes = [f"⚠ {html.escape(note)}" for note in values["notes"]]
        proposed = self._propose_speed(values["proposed_speed"])
        self.estimate.setText("<br>".join([*estimate_lines(values), *proposed, *notes]))

    def show_error(self, label: QLabel, error: Exception) -> None:
        """Show why it cannot start."""
        message = str(error)
        label.setText(f"⚠ {html.escape(message[:1].upper() + message[1:])}")

    def propose_base(self, finders: Sequence[Mapping[str, str]]) -> None:
        """Propose the model whose labels were corrected, where it is listed and none was chosen."""
        self._finders = finders
        self._propose_base()

    def _propose_base(self, _: str = "") -> None:
        if self._base_is_chosen or not self._finders:
            return
        found_by = {finder["sha256"] for finder in self._finders}
        if model_library().sha256(self.model.source) in found_by:
            return
        for at in range(self.model.model_box.count()):
            source = self.model.model_box.itemData(at)
            if source and model_library().sha256(str(source)) in found_by:
                self.model.model_box.setCurrentIndex(at)
                return

    @property
    def proposes_speed(self) -> bool:
        """Whether the user has chosen none."""
        return not self._speed_is_chosen

    def _propose_speed(self, speed: str | None) -> list[str]:
        """Choose it, where the user chose none; returns a line that says why."""
        if speed is None or self._speed_is_chosen:
            return []
        steps = FEWEST_USEFUL_STEPS
        if speed == "adapters":
            why = f"at least {steps} steps through the encoder fit into the time"
        else:
            why = f"through the encoder fewer than {steps} steps fit into the time"
        basis = self.main.values()["minutes"], self.model.source, self.paths()
        if basis != self._proposed_for:  # once: two timings differ
            self._proposed_for = basis
            self.speed_box.setCurrentIndex(self.speed_box.findData(speed))
        return [f"Proposed: speed <b>{speed}</b>, as {why}"]

    # ------------------------------------------------------------------------------------------

    def _on_speed_chosen(self, _: Any) -> None:
        self._speed_is_chosen = True

    def _on_base_chosen(self, _: Any) -> None:
        self._base_is_chosen = True

    def _usual_parts(self) -> tuple[str, ...]:
        speed = self.speed_box.currentData()
        return HEADS if speed == "heads" else (*HEADS, *THROUGH_ENCODER)

    def _on_speed(self, _: int = 0) -> None:
        usual = self._usual_parts()
        for part, box in self.part_boxes.items():
            box.setChecked(part in usual)
            box.setEnabled(part in usual)
        self.changed.emit()

    def _on_add(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A workspace, or a folder with labels")
        if chosen:
            self.add_folder(chosen)

    def _ask_folder(self, edit: QLineEdit) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A workspace, or a folder with labels")
        if chosen:
            edit.setText(chosen)
            self.changed.emit()

    def _list(self, path: str, words: str, at: int) -> None:
        item = QListWidgetItem(words)
        item.setData(Qt.ItemDataRole.UserRole, path)
        item.setToolTip(path)
        item.setCheckState(Qt.CheckState.Checked)
        self.sources.blockSignals(True)
        self.sources.insertItem(at, item)
        self.sources.blockSignals(False)

    def _remove(self, path: str) -> None:
        for at in reversed(range(self.sources.count())):
            if self.sources.item(at).data(Qt.ItemDataRole.UserRole) == path:
                self.sources.takeItem(at)


def _pairs(what: str, text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (key.strip() and value.strip()) for key, _, value in parts):
        raise SettingsError(f"{what} takes NAME=NAME, several with commas, got {text!r}")
    return {key.strip(): value.strip() for key, _, value in parts}


def _text() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    return label
