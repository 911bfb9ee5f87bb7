"""The Segment widget: an image layer, a model, Run; two labels layers come back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QRadioButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_coseg.errors import Cancelled, CosegError
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.types import LabelClass, Prediction
from napari_coseg.widgets import layers, outputs, tasks
from napari_coseg.widgets.image_choice import ChosenImage, ImageChoice
from napari_coseg.widgets.job_bar import JobBar, in_words
from napari_coseg.widgets.model_choice import ModelChoice, swatch
from napari_coseg.widgets.process import Reply
from napari_coseg.widgets.settings_form import SettingsForm
from napari_coseg.widgets.worker import Worker

if TYPE_CHECKING:
    from napari.viewer import Viewer

ADVANCED = (
    "tile_size_px",
    "batch_size",
    "object_threshold",
    "min_object_area_um2",
    "min_region_area_um2",
    "max_hole_area_um2",
    "link_overlap",
    "test_time_augmentation",
)


class SegmentWidget(QWidget):
    """Dock widget that segments an image layer in a process beside the window.

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    worker
        None makes one of its own, which is closed with the widget; another is left running.
    """

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._chosen: ChosenImage | None = None
        self._began = 0.0
        self._was_docked = False
        self._file_sizes: dict[str, list[float] | None] = {}
        self.worker = worker or Worker()
        self._owns_worker = worker is None
        self.image = ImageChoice(napari_viewer)
        self.model = ModelChoice()
        self.settings = SettingsForm(InferenceSettings, ADVANCED, none_words="model's own")
        self.bar = JobBar()
        self._build()
        self.bar.run_clicked.connect(self.run)
        self.model.changed.connect(self._on_model)
        self.image.file_asked.connect(self._ask_file)
        self.color_box.currentTextChanged.connect(self._restyle)
        self.outline_box.toggled.connect(self._restyle)
        if self._owns_worker:
            self.destroyed.connect(self.worker.close)
        self._on_model()

    def _build(self) -> None:
        self.whole_button = QRadioButton("whole image")
        self.whole_button.setChecked(True)
        self.view_button = QRadioButton("current view")
        self.view_button.setToolTip("Only what the canvas shows; of a stack, the slice in view")
        self.color_box = QComboBox()
        self.color_box.addItems(outputs.COLOR_BY)
        self.color_box.setToolTip("Of all object layers of this plugin")
        self.outline_box = QCheckBox("outlines")
        self.outline_box.setChecked(True)
        advanced = QCollapsible("Advanced")
        advanced.addWidget(self.settings)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 8, 4)
        column.setSpacing(10)
        column.addWidget(_group("Image", self.image))
        column.addWidget(_group("Model", self.model))
        column.addWidget(_group("Region", _row(self.whole_button, self.view_button)))
        column.addWidget(advanced)
        column.addWidget(
            _group("Show objects", _row(QLabel("coloured by"), self.color_box, self.outline_box))
        )
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 8)
        outer.addWidget(_UprightScroll(content), 1)
        outer.addWidget(self.bar)

    # -- a run -------------------------------------------------------------------------------

    def run(self) -> None:
        """Segment what is chosen; a `CosegError` becomes a notification."""
        if self.bar.is_busy:
            return
        with told():
            chosen = self.image.chosen()
            region = None
            if self.view_button.isChecked():
                region = layers.view_region(self._viewer, chosen.layer, chosen.axes)
            arguments = {
                "model": self.model.source,
                "device": self.model.device,
                "name": chosen.layer.name,
                "axes": chosen.axes,
                "channels": chosen.channels,
                "pixel_size_um": chosen.pixel_size_um,
                "region": region,
                "settings": self.settings.settings().model_dump(),
            }
            array = layers.level_0(chosen.layer)
            job = self.worker.submit(tasks.SEGMENT, arguments, {"image": array})
            self._chosen, self._began = chosen, time.monotonic()
            self.bar.follow(job)
            job.done.connect(self._on_done)
            job.failed.connect(self._on_failed)

    def _on_done(self, reply: Reply) -> None:
        chosen, self._chosen = self._chosen, None
        if chosen is None:
            return
        prediction = tasks.unpack(reply)
        seconds = time.monotonic() - self._began
        found = summary(prediction, reply.values["region_pixels"], seconds)
        self.bar.finish(found, done=True)
        outputs.add_prediction(
            self._viewer,
            chosen.layer,
            chosen.axes,
            prediction,
            color_by=self.color_box.currentText(),
            outlines=self.outline_box.isChecked(),
        )

    def _on_failed(self, error: Exception) -> None:
        self._chosen = None
        if isinstance(error, Cancelled):
            self.bar.finish("Cancelled.")
            return
        self.bar.finish("Failed.")
        with told():
            raise error

    def _restyle(self, _: Any = None) -> None:
        for layer in self._viewer.layers:
            if outputs.is_output(layer, "objects"):
                outputs.color_objects(layer, self.color_box.currentText())
                outputs.outline_objects(layer, self.outline_box.isChecked())

    # -- what the worker process is asked beside ---------------------------------------------

    def _on_model(self) -> None:
        card = self.model.card
        self.image.set_model_pixel_size(card.pixel_size_um if card else None)

    def _ask_devices(self) -> None:
        job = self.worker.submit(tasks.DEVICES)
        job.done.connect(lambda reply: self.model.set_devices(reply.values["devices"]))

    def _ask_file(self, path: str) -> None:
        if path in self._file_sizes:
            self._use_file_size(path)
            return
        job = self.worker.submit(tasks.FILE_PIXEL_SIZE, {"path": path})
        job.done.connect(lambda reply: self._on_file_size(path, reply))
        job.failed.connect(_pass_over)

    def _on_file_size(self, path: str, reply: Reply) -> None:
        self._file_sizes[path] = reply.values["pixel_size_um"]
        self._use_file_size(path)

    def _use_file_size(self, path: str) -> None:
        size = self._file_sizes[path]
        if size:
            self.image.set_file_pixel_size(path, size)

    # -- from the first show to the end ------------------------------------------------------

    def showEvent(self, event: Any) -> None:
        """Start the process when the widget is first seen: it is warm when Run is clicked."""
        super().showEvent(event)
        if self.worker.pid is None:
            self._ask_devices()

    def event(self, event: Any) -> bool:
        """Napari takes a closed dock widget's content out of it, and closes nothing."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self.shut_down()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Stop what runs, end the worker process and let go of the viewer."""
        self.bar.cancel()
        if self._owns_worker:
            self.worker.close()
        self.image.disconnect_viewer()


class _UprightScroll(QScrollArea):
    """Scrolls up and down, and is as wide as its content needs."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        width = self.widget().minimumSizeHint().width()
        return QSize(width + self.verticalScrollBar().sizeHint().width(), 150)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what a person can mend into a notification; a bug goes on to napari's own handler."""
    try:
        yield
    except CosegError as error:
        message = str(error)
        show_error(message[:1].upper() + message[1:])


def _pass_over(error: Exception) -> None:
    """A file that no reader of ours knows says nothing of its pixel size; nothing is wrong."""
    if not isinstance(error, CosegError):
        raise error


def summary(prediction: Prediction, region_pixels: list[int], seconds: float) -> str:
    """What was found, as a few lines of HTML: objects by number, regions by part of the area.

    Parameters
    ----------
    region_pixels
        By region id, 0 first.
    """
    instances = prediction.instances
    counts = instances.table["class_id"].value_counts()
    lines = [f"<b>{len(instances):,} objects</b> in {in_words(seconds)}"]
    if instances.classes:
        lines.append(_listed(instances.classes, {int(i): f"{n:,}" for i, n in counts.items()}))
    if prediction.semantic_classes:
        total = sum(region_pixels)
        shares = {i: f"{n / total:.0%}" for i, n in enumerate(region_pixels)}
        lines.append(_listed(prediction.semantic_classes, shares) + " of the area")
    return "<br>".join(lines)


def _listed(classes: tuple[LabelClass, ...], values: dict[int, str]) -> str:
    return " ".join(swatch(entry, f"{entry.name} {values.get(entry.id, '0')}") for entry in classes)


def _group(title: str, content: QWidget) -> QGroupBox:
    group = QGroupBox(title)
    column = QVBoxLayout(group)
    column.addWidget(content)
    return group


def _row(*widgets: QWidget) -> QWidget:
    row = QWidget()
    line = QHBoxLayout(row)
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        line.addWidget(widget)
    line.addStretch(1)
    return row
