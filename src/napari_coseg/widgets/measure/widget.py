"""The Measure widget: tables, plots and densities of the labels as they are now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSize
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.errors import SettingsError
from napari_coseg.formats.measurements import SUFFIXES, write_measurements
from napari_coseg.labels.measure.summary import ALL
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.forms import group, text_label
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.measure.layers import ChosenLayers, LayerWatch, MeasureChoice
from napari_coseg.widgets.measure.plots import PlotPanel
from napari_coseg.widgets.measure.table import ObjectTable
from napari_coseg.widgets.measure.task import MEASURE, unpack
from napari_coseg.widgets.measure.viewer import ViewerLink

if TYPE_CHECKING:
    import pandas as pd
    from napari.viewer import Viewer

WIDTH_PX = 400
HIDDEN = ("class_id", "region_id")
CHANGED = "⚠ The labels have changed since they were measured."
REMOVED = "⚠ A measured layer was removed; these are its last measurements."


class MeasureWidget(JobWidget):
    """Dock widget that measures labels in the worker process.

    A selection in the table, the plots, the summary or the viewer is made in all of them.
    """

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self.objects: pd.DataFrame | None = None
        self.summary: pd.DataFrame | None = None
        self._measured: ChosenLayers | None = None
        self._selected = np.zeros(0, np.int64)
        self.layers = MeasureChoice(napari_viewer)
        self.table, self.plots, self.summary_table = ObjectTable(), PlotPanel(), ObjectTable()
        self.link, self.watch = ViewerLink(napari_viewer), LayerWatch()
        self.notice, self.selection_text = text_label(), QLabel()
        self.clear_button, self.save_button = QPushButton("Clear"), QPushButton("Save CSV…")
        self._build()
        self._connect()
        self._follow_theme()
        self._show_selection()

    def _build(self) -> None:
        self.bar.run_button.setText("Measure")
        self.bar.text.setText("Measures the labels as they are now, with all corrections.")
        self.notice.hide()
        self.clear_button.setToolTip("Clear the selection")
        self.save_button.setToolTip("Save both tables, objects and summary, as CSV")
        self.tabs = QTabWidget()
        for title, page in (
            ("Objects", self.table),
            ("Plot", self.plots),
            ("Summary", self.summary_table),
        ):
            self.tabs.addTab(page, title)
        below = QHBoxLayout()
        below.addWidget(self.selection_text, 1)
        below.addWidget(self.clear_button)
        below.addWidget(self.save_button)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 4, 8, 8)
        outer.addWidget(group("Layers", self.layers))
        outer.addWidget(self.bar)
        outer.addWidget(self.notice)
        outer.addWidget(self.tabs, 1)
        outer.addLayout(below)

    def _connect(self) -> None:
        self.table.rows_selected.connect(lambda rows: self.select(rows, self.table))
        self.plots.rows_selected.connect(lambda rows: self.select(rows, self.plots))
        self.summary_table.rows_selected.connect(self._on_summary)
        self.link.clicked.connect(self._on_clicked)
        self.watch.changed.connect(self._on_changed)
        self.clear_button.clicked.connect(lambda: self.select(np.zeros(0, np.int64)))
        self.save_button.clicked.connect(self._ask_where)
        self.connections.connect(self._on_removed, self._viewer.layers.events.removed)
        self.connections.connect(self._follow_theme, self._viewer.events.theme)

    # -- measuring -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Measure what is chosen."""
        asked = self.layers.chosen()
        # Remembered before the labels are read, so that a later edit counts as a change.
        self.watch.remember(*asked.labels)
        self.start(MEASURE, asked.arguments, asked.arrays, asked=asked)

    def receive(self, reply: Reply, seconds: float) -> None:
        asked: ChosenLayers = self.asked
        self.objects, self.summary = unpack(reply)
        self._measured = dataclasses.replace(asked, arrays={})  # frees the pixels
        self.bar.finish(f"<b>{len(self.objects):,} objects</b> in {in_words(seconds)}", done=True)
        self._on_changed(self.watch.differs)
        self.link.follow(asked.objects)
        unknown = [name for name in self.objects if self.objects[name].isna().all()]
        boxes = [name for name in self.objects if name.startswith("bbox_")]
        places = [name for name in self.objects if name.startswith("centroid_")]
        last = [*(name for name in self.objects if name not in places), *places]
        self.table.show_table(self.objects[last], [*HIDDEN, *boxes, *unknown], asked.kinds)
        self.summary_table.show_table(self.summary, HIDDEN, asked.kinds)
        self.plots.show_table(self.objects.drop(columns=unknown), asked.kinds)
        self.select(np.zeros(0, np.int64))

    def let_go(self) -> None:
        self.layers.connections.close()
        self.watch.stop()
        self.link.close()

    def _on_changed(self, differs: bool) -> None:
        self._show_notice(CHANGED if differs else "")

    def _on_removed(self, event: Any) -> None:
        if self._measured is not None and event.value in self._measured.labels:
            self.watch.stop()
            self.link.follow(None)
            self._show_notice(REMOVED)

    def _show_notice(self, text: str) -> None:
        if self.objects is not None:
            self.notice.setText(text)
            self.notice.setVisible(bool(text))
            self.bar.run_button.setText("Measure again" if text else "Measure")

    # -- one selection -------------------------------------------------------------------------

    def select(self, rows: np.ndarray, source: QWidget | None = None) -> None:
        """Select objects, by their rows in `objects`, everywhere but in the `source`."""
        if self.objects is None or self._measured is None:
            return
        self._selected = np.asarray(rows, np.int64)
        if source is not self.table:
            self.table.select(self._selected)
        if source is not self.plots:
            self.plots.select(self._selected)
        if source is not self.summary_table:
            self.summary_table.select(np.zeros(0, np.int64))
        self.link.show_objects(
            self.objects.iloc[self._selected], self._measured.geometry.known_size_um
        )
        self._show_selection()

    @property
    def selected_ids(self) -> list[int]:
        """Ids of the selected objects."""
        return [] if self.objects is None else self.objects["id"].iloc[self._selected].tolist()

    def _show_selection(self) -> None:
        total = 0 if self.objects is None else len(self.objects)
        text = f"{len(self._selected):,} of {total:,} selected" if total else ""
        self.selection_text.setText(text)
        self.clear_button.setEnabled(len(self._selected) > 0)
        self.save_button.setEnabled(self.objects is not None)

    def _on_summary(self, rows: np.ndarray) -> None:
        """Select the objects that rows of the summary count."""
        if self.objects is None or self.summary is None:
            return
        selected = np.zeros(len(self.objects), bool)
        for row in self.summary.iloc[rows].to_dict("records"):
            counted = np.ones(len(self.objects), bool)
            for name in HIDDEN:
                if row[name] != ALL:
                    counted &= self.objects[name].to_numpy() == row[name]
            selected |= counted
        self.select(np.flatnonzero(selected), self.summary_table)

    def _on_clicked(self, label: int) -> None:
        if self.objects is not None:
            rows = np.flatnonzero(self.objects["id"].to_numpy() == label)
            if len(rows):  # none for objects that were made since
                self.select(rows)

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: Path, overwrite: bool = False) -> list[Path]:
        """Write the objects' table to `path`, and the summary's beside it.

        Raises
        ------
        CosegError
            Where nothing has been measured, a file exists, or the disk refuses.
        """
        if self.objects is None or self.summary is None:
            raise SettingsError("nothing has been measured yet; click on Measure first")
        name = path.name.removesuffix(SUFFIXES[0]).removesuffix(".csv")
        return write_measurements(
            self.objects, self.summary, path.parent, name, overwrite=overwrite
        )

    def _ask_where(self) -> None:
        if self._measured is None:
            return
        proposed = f"{self._measured.name}{SUFFIXES[0]}"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save tables", proposed, "CSV (*.csv)")
        if chosen:
            with notify_errors():
                # The dialog has already asked whether this file may be overwritten.
                files = self.save(Path(chosen), overwrite=Path(chosen).exists())
                self.bar.text.setText("Saved " + " and ".join(file.name for file in files))

    # -- looks ---------------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        """Narrower than the plot's own hint, in favour of the canvas."""
        return QSize(WIDTH_PX, super().sizeHint().height())

    def _follow_theme(self, _: Any = None) -> None:
        from napari.utils.theme import get_theme

        self.plots.set_text_color(get_theme(self._viewer.theme).text.as_hex())
