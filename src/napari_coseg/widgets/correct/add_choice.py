"""What the tool Add uses: the maps of the run's own model, or SAM2."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_coseg.inference.sam2.model import downloaded
from napari_coseg.widgets.background.worker import Job
from napari_coseg.widgets.correct.proposals import HINT
from napari_coseg.widgets.forms import FileBox, form, text_label
from napari_coseg.widgets.job_bar import JobBar

TIP = (
    "What finds the object that you click: the maps of the model that made these labels, or SAM2, "
    "whose weights you bring.\nTo get them: napari-coseg models download sam2.1-tiny"
)


class AddChoice(QWidget):
    """A list of the two, with SAM2's downloaded files; how to use SAM2; its progress and Cancel.

    Signals
    -------
    changed()
        `weights` has changed.
    cancelled()
    """

    changed = Signal()
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.box = FileBox(
            TIP,
            [("the model's maps", "")],
            "SAM2: choose a file…",
            "Weights of SAM2 or SAM2.1",
            "SAM2's weights (*.pt *.pth *.safetensors)",
            prefix="SAM2: ",
        )
        for checkpoint, path in downloaded():
            version, _, size = checkpoint.name.partition("-")
            self.box.add_file(path, f"{version.upper()} {size}")
        self.about = text_label(HINT)
        self.bar = JobBar()
        self.bar.run_button.hide()
        self.bar.text.hide()  # the dock's status line says it
        form(("Add with", self.box), self.about, self.bar, parent=self)
        self.show_idle()
        self._show_details()
        self.box.entry_chosen.connect(self._on_chosen)
        self.bar.cancel_button.clicked.connect(self.cancelled)

    @property
    def weights(self) -> Path | None:
        """File of SAM2; None where the model's own maps are used."""
        chosen = self.box.currentData()
        return Path(chosen) if chosen else None

    def choose_file(self, path: Path) -> None:
        """Use a file of SAM2, listed or not."""
        self.box.choose_file(path)

    def choose_maps(self) -> None:
        """Use the model's own maps."""
        self.box.setCurrentIndex(0)

    def follow(self, job: Job) -> None:
        """Show the progress of a job."""
        self.bar.follow(job)

    def show_idle(self) -> None:
        self.bar.finish("")

    def _on_chosen(self) -> None:
        self._show_details()
        self.changed.emit()

    def _show_details(self) -> None:
        for one in (self.about, self.bar):  # both, so that the form does not jump during a job
            one.setVisible(self.weights is not None)
