"""What the tool Add asks for an object: the maps of the run's own model, or SAM2."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QWidget

from napari_coseg.inference.sam2.model import at_hand
from napari_coseg.widgets.background.worker import Job
from napari_coseg.widgets.correct.proposals import HINT
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.job_bar import JobBar

MAPS = "the model's maps"
CHOOSE = "SAM2: choose a file…"
TIP = (
    "What says which pixels are the object that you click: the maps that the run's own model left, "
    "or SAM2, whose weights you bring.\nTo get them: napari-coseg models download sam2.1-tiny"
)


class AddChoice(QWidget):
    """A list of the two, SAM2's downloaded files among it; how to use it; its progress and Cancel.

    Signals
    -------
    changed()
        `weights` is another.
    cancelled()
        What runs is to stop.
    """

    changed = Signal()
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.box = narrow_box(TIP)
        self.box.addItem(MAPS, "")
        for checkpoint, path in at_hand():
            version, _, size = checkpoint.name.partition("-")
            self._insert(f"{version.upper()} {size}", path)
        self.box.addItem(CHOOSE, None)
        self._former = 0
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.bar = JobBar()
        self.bar.run_button.hide()
        self.bar.text.hide()  # the panel's own line says what is done
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Add asks", self.box)
        form.addRow(self.about)
        form.addRow(self.bar)
        self.rest()
        self._tell()
        self.box.currentIndexChanged.connect(self._on_chosen)
        self.bar.cancel_button.clicked.connect(self.cancelled)

    @property
    def weights(self) -> Path | None:
        """The file of SAM2; None where the model's own maps are asked."""
        chosen = self.box.currentData()
        return Path(chosen) if chosen else None

    def choose_file(self, path: Path) -> None:
        """Take a file of SAM2, listed or not."""
        at = self.box.findData(str(path))
        if at < 0:
            at = self.box.count() - 1
            self._insert(f"SAM2: {path.name}", path)
        self.box.setCurrentIndex(at)

    def go_back(self) -> None:
        """Ask the model's own maps."""
        self.box.setCurrentIndex(0)

    def follow(self, job: Job) -> None:
        """Show the progress of a job."""
        self.bar.follow(job)

    def rest(self) -> None:
        """Nothing runs."""
        self.bar.finish("")

    def _insert(self, text: str, path: Path) -> None:
        at = self.box.findData(None)
        at = self.box.count() if at < 0 else at
        self.box.insertItem(at, text, str(path))
        self.box.setItemData(at, str(path), Qt.ItemDataRole.ToolTipRole)

    def _on_chosen(self, index: int) -> None:
        if self.box.itemText(index) != CHOOSE:
            self._former = index
            self._tell()
            self.changed.emit()
            return
        self.box.blockSignals(True)
        self.box.setCurrentIndex(self._former)
        self.box.blockSignals(False)
        path, _ = QFileDialog.getOpenFileName(
            self, "Weights of SAM2 or SAM2.1", "", "SAM2's weights (*.pt *.pth *.safetensors)"
        )
        if path:
            self.choose_file(Path(path))

    def _tell(self) -> None:
        self.about.setText(HINT)
        for one in (self.about, self.bar):  # nothing moves when a job begins or ends
            one.setVisible(self.weights is not None)
