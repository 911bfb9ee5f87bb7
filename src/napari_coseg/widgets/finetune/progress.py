"""The Progress page of the Fine-tune dock: losses, scores, a held-out image, and the result."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from typing import Any

from qtpy import API_NAME
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import (
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.types import LabelClass
from napari_coseg.widgets.forms import group, row
from napari_coseg.widgets.model_choice import swatch

# pyqtgraph would take any Qt binding that it finds first; two in one window break each other.
os.environ.setdefault("PYQTGRAPH_QT_LIB", API_NAME)
import pyqtgraph as pg

DRAW_EVERY_MS = 200
LOSS_COLOR, SMOOTH_COLOR = "#6b7b8c", "#ffb000"
SMOOTHED_OVER = 0.9
PLOT_HEIGHT_PX, PICTURE_HEIGHT_PX = 130, 60
CURVES = {
    "object_f1": LabelClass(1, "objects F1", (86, 180, 233)),
    "object_pq": LabelClass(2, "objects PQ", (0, 158, 115)),
    "mean_region_dice": LabelClass(3, "regions Dice", (230, 159, 0)),
    "mean_type_pq": LabelClass(4, "types PQ", (204, 121, 167)),
}
WORDS = {
    **{name: entry.name for name, entry in CURVES.items()},
    "object_dice": "objects Dice",
    "type_pq": "PQ of",
    "region_dice": "Dice of",
}
ROWS = (
    ("", "before", "after", "On the held-out part"),
    ("own ", "base_before", "base_after", "On the base's own images: what is forgotten"),
    (
        "kept ",
        "",
        "kept",
        "Agreement with the base's own predictions on a sample of its own kind: 1 where nothing "
        "is forgotten",
    ),
)
"""Of the table: prefix of the scores' names, keys of their values, and what they mean."""
KEPT = ("object_f1", "mean_region_dice")
GAINED, LOST = "#3fae5a", "#d9534f"


class ProgressPanel(QWidget):
    """Shows the events of a fine-tuning.

    Signals
    -------
    decided(bool)
        Whether the new adapter is to be used.
    """

    decided = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[tuple[int, float]] = []
        self.scores: dict[str, dict[int, float]] = {}
        self._notes: list[str] = []
        self._pixmap = QPixmap()
        self.loss_plot, self.score_plot = _plot("loss"), _plot("score")
        self.score_plot.setYRange(0, 1)
        self.loss_curve = self.loss_plot.plot(pen=pg.mkPen(LOSS_COLOR, width=1))
        self.smooth_curve = self.loss_plot.plot(pen=pg.mkPen(SMOOTH_COLOR, width=2))
        self.score_curves = {
            name: self.score_plot.plot(
                pen=pg.mkPen(entry.color, width=2), symbol="o", symbolSize=6, symbolPen=None,
                symbolBrush=pg.mkBrush(entry.color),
            )
            for name, entry in CURVES.items()
        }  # fmt: skip
        self.legend, self.picture, self.caption, self.notes = (QLabel() for _ in range(4))
        self.table = QTableWidget(0, 3)
        self.use_button, self.keep_button = QPushButton("Use it"), QPushButton("Use the base")
        self.verdict = QLabel()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DRAW_EVERY_MS)
        self._timer.timeout.connect(self.draw)
        self._build()
        self.clear()

    def _build(self) -> None:
        for label in (self.legend, self.caption, self.notes, self.verdict):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.RichText)
        self.picture.setMinimumHeight(PICTURE_HEIGHT_PX)
        self.picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.picture.setToolTip("The first of the held-out images")
        self.table.setHorizontalHeaderLabels(["Held out", "Before", "After"])
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.use_button.setToolTip("Segment with it from now on, in all docks of this window")
        self.keep_button.setToolTip("Segment with the base as it is; the adapter stays in the list")
        self.use_button.clicked.connect(lambda: self.decided.emit(True))
        self.keep_button.clicked.connect(lambda: self.decided.emit(False))
        result = QWidget()
        inside = QVBoxLayout(result)
        inside.setContentsMargins(0, 0, 0, 0)
        for widget in (self.table, self.verdict, row(self.use_button, self.keep_button)):
            inside.addWidget(widget)
        self.result = group("Result", result)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.result)
        for widget in (self.loss_plot, self.score_plot, self.legend):
            column.addWidget(widget)
        column.addWidget(self.picture)
        column.addWidget(self.caption)
        column.addWidget(self.notes)
        column.addStretch(1)

    # -- events -------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove what is shown of an earlier fine-tuning."""
        self.losses, self.scores, self._notes = [], {}, []
        self._pixmap = QPixmap()
        self.picture.clear()
        self.caption.setText("The plots start with the first step.")
        self.notes.clear()
        self.result.hide()
        self.draw()

    def show_event(self, kind: str, values: Mapping[str, Any]) -> None:
        """An event as `finetuning.hooks.FinetuneHooks.report` gives it, or ``logged``."""
        if kind == "step" and values["loss"] is not None:
            while self.losses and self.losses[-1][0] >= values["step"]:
                self.losses.pop()  # after a crash it resumes before the end of its log
            self.losses.append((values["step"], values["loss"]))
        elif kind == "plan":
            self._add_scores(0, values["scores_before"])
        elif kind == "scores" and values["when"] in ("before", "validation"):
            self._add_scores(values["step"], values["scores"])
        elif kind == "logged":
            self._show_logged(values["values"])
        elif kind == "picture":
            self._show_picture(values["path"], values["step"])
        elif kind == "note":
            self._notes.append(values["message"])
            self.notes.setText("<br>".join(f"• {html.escape(note)}" for note in self._notes))
        if not self._timer.isActive():
            self._timer.start()

    def show_result(self, values: Mapping[str, Any]) -> None:
        """Before and after, and whether to use it."""
        scores, rows = values["scores"], []
        for title, first, last, tip in ROWS:
            before = dict(_flat(scores.get(first, {})))
            found = scores.get(last, {})
            if last == "kept":  # all of it would be longer than the rest
                found = {name: found[name] for name in KEPT if name in found}
            for name, value in _flat(found):
                rows.append((f"{title}{name}", before.get(name), value, tip))
        self.table.setRowCount(len(rows))
        for at, (name, before_, after, tip) in enumerate(rows):
            texts = (name, "" if before_ is None else f"{before_:.3f}", f"{after:.3f}")
            for column, text in enumerate(texts):
                self.table.setItem(at, column, QTableWidgetItem(text))
                self.table.item(at, column).setToolTip(tip)
            if before_ is not None and round(after - before_, 3):
                color = QColor(GAINED if after > before_ else LOST)
                self.table.item(at, 2).setForeground(color)
                self.table.item(at, 2).setText(f"{after:.3f} ({after - before_:+.3f})")
        self.table.setVisible(bool(rows))
        self.table.resizeRowsToContents()
        height = self.table.horizontalHeader().height() + self.table.verticalHeader().length()
        self.table.setFixedHeight(height + 2 * self.table.frameWidth())
        self.verdict.setText(
            {
                True: "The held-out part scores better than before.",
                False: "⚠ The held-out part scores <b>no better</b> than before: review more, "
                "train longer, or keep the model as it was.",
                None: "⚠ Nothing was held out, so it is not known whether it is better.",
            }[values["improved"]]
        )
        self._allow(True)
        self.result.show()
        self.draw()

    def close_result(self, text: str) -> None:
        """Show what was decided."""
        self.verdict.setText(text)
        self._allow(False)

    def set_text_color(self, color: str) -> None:
        """Of axes and their titles."""
        for plot in (self.loss_plot, self.score_plot):
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(pg.mkColor(color))
                axis.setTextPen(pg.mkColor(color))

    def draw(self) -> None:
        """Draw all events so far; called at most every `DRAW_EVERY_MS`."""
        steps = [step for step, _ in self.losses]
        values = [value for _, value in self.losses]
        self.loss_curve.setData(steps, values)
        self.smooth_curve.setData(steps, _smoothed(values))
        for name, curve in self.score_curves.items():
            points = sorted(self.scores.get(name, {}).items())
            curve.setData([step for step, _ in points], [value for _, value in points])
        legend = [
            swatch(entry, f"{entry.name} {self.scores[name][max(self.scores[name])]:.2f}")
            for name, entry in CURVES.items()
            if name in self.scores
        ]
        self.legend.setText(" ".join(legend))

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self._fit_picture()

    # ------------------------------------------------------------------------------------------

    def _allow(self, on: bool) -> None:
        self.use_button.setEnabled(on)
        self.keep_button.setEnabled(on)

    def _add_scores(self, step: int, scores: Mapping[str, Any]) -> None:
        for name in CURVES:
            if name in scores:
                self.scores.setdefault(name, {})[step] = scores[name]

    def _show_logged(self, logged: Mapping[str, Any]) -> None:
        self.losses = [(step, value) for step, value in logged.get("loss", ()) if value == value]
        for name in CURVES:
            for step, value in logged.get(f"validation_{name}", ()):
                self.scores.setdefault(name, {})[step] = value

    def _show_picture(self, path: str, step: int) -> None:
        self._pixmap = QPixmap(path)
        self.caption.setText(f"Held out: image, your labels, found after step {step}")
        self._fit_picture()

    def _fit_picture(self) -> None:
        if self._pixmap.isNull() or self.width() < 50:
            return
        ratio = self.devicePixelRatioF()
        shown = self._pixmap.scaledToWidth(
            round(self.width() * ratio), Qt.TransformationMode.SmoothTransformation
        )
        shown.setDevicePixelRatio(ratio)
        self.picture.setPixmap(shown)
        self.picture.setFixedHeight(max(PICTURE_HEIGHT_PX, round(shown.height() / ratio)))


def _plot(title: str) -> Any:
    plot = pg.PlotWidget(background=None)
    plot.setFixedHeight(PLOT_HEIGHT_PX)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setLabel("left", title)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.setMouseEnabled(False, False)
    plot.getAxis("left").setWidth(46)
    for side in ("left", "bottom"):
        plot.getAxis(side).enableAutoSIPrefix(False)
    return plot


def _smoothed(values: list[float]) -> list[float]:
    """A running mean, without a bias towards 0 at the start."""
    found: list[float] = []
    total = weight = 0.0
    for value in values:
        total = SMOOTHED_OVER * total + value
        weight = SMOOTHED_OVER * weight + 1
        found.append(total / weight)
    return found


def _flat(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Scores in words; those of classes end with the class."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from ((f"{WORDS.get(name, name)} {key}", one) for key, one in value.items())
        elif name != "objects":
            yield WORDS.get(name, name), value
