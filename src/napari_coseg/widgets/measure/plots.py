"""Histogram and scatter plot of measured objects, coloured by class; a lasso selects objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy import API_NAME
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QVBoxLayout, QWidget

from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.columns import column
from napari_coseg.widgets.forms import ChoiceBox, form, text_label
from napari_coseg.widgets.model_choice import swatch

# pyqtgraph would take any Qt binding that it finds first; two in one window break each other.
os.environ.setdefault("PYQTGRAPH_QT_LIB", API_NAME)
import pyqtgraph as pg

if TYPE_CHECKING:
    import pandas as pd

SCATTER, HISTOGRAM = "scatter", "histogram"
FIRST_X = ("area_um2", "volume_um3")
FIRST_Y = ("hematoxylin_od_mean", "intensity_mean", "red_mean", "channel_0_mean", "circularity")
NOT_QUANTITIES = ("id", "class_id", "region_id")
MOST_BINS, FEWEST_BINS = 60, 10
POINT_PX, SELECTED_PX, REACH_PX = 6, 10, 10
OPACITY = 200
HINTS = {
    SCATTER: "Drag around points to select them, or click one. Shift adds. The wheel zooms; "
    "double-click shows everything.",
    HISTOGRAM: "Drag along the axis to select a range. Shift adds. The wheel zooms; double-click "
    "shows everything.",
}


class LassoBox(pg.ViewBox):
    """A plot area in which dragging draws a lasso or, with `picks_range`, a range of x.

    Signals
    -------
    drawn(ndarray, bool)
        x, y of the outline (N, 2) in plot coordinates; whether it adds to the selection.
    clicked(float, float, bool)
        x, y of a click, and whether it adds.
    """

    drawn = Signal(object, bool)
    clicked = Signal(float, float, bool)

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self.picks_range = False
        self.is_lasso_on = True
        self._points: list[tuple[float, float]] = []
        self._curve = pg.PlotCurveItem(pen=pg.mkPen("#ffd400", width=2))
        self.addItem(self._curve, ignoreBounds=True)

    def mouseDragEvent(self, event: Any, axis: Any = None) -> None:
        # Events of the axes come here too: a lasso may begin outside the outermost points.
        if not self.is_lasso_on or event.button() != Qt.MouseButton.LeftButton:
            super().mouseDragEvent(event, axis)
            return
        event.accept()
        if event.isStart():
            self._points = [self._at(event.buttonDownScenePos())]
        self._points.append(self._at(event.scenePos()))
        points = np.array(self._range() if self.picks_range else self._points)
        self._curve.setData(*np.concatenate([points, points[:1]]).T)
        if event.isFinish():
            self._curve.setData([], [])
            self.drawn.emit(points, _adds(event))

    def mouseClickEvent(self, event: Any) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            super().mouseClickEvent(event)
            return
        event.accept()
        if event.double():
            self.enableAutoRange()
        else:
            self.clicked.emit(*self._at(event.scenePos()), _adds(event))

    def _range(self) -> list[tuple[float, float]]:
        first, last = self._points[0][0], self._points[-1][0]
        low, high = self.viewRange()[1]
        return [(first, low), (last, low), (last, high), (first, high)]

    def _at(self, scene_point: Any) -> tuple[float, float]:
        point = self.mapSceneToView(scene_point)
        return float(point.x()), float(point.y())


class PlotPanel(QWidget):
    """Choice of plot and axes above the plot; objects are identified by their row number.

    Signals
    -------
    rows_selected(ndarray)
        The user selected objects here.
    """

    rows_selected = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._table: pd.DataFrame | None = None
        self._kinds: tuple[LabelClass, ...] = ()
        self._selected = np.zeros(0, np.int64)
        self._text = pg.mkColor("w")
        self._selected_item: Any = None
        self.kind_box = ChoiceBox("", [("Scatter plot", SCATTER), ("Histogram", HISTOGRAM)])
        self.x_box, self.y_box = ChoiceBox(), ChoiceBox()
        self.lasso_box = QCheckBox("drag to select")
        self.lasso_box.setChecked(True)
        self.lasso_box.setToolTip("Off: dragging pans the plot")
        self.legend, self.hint = text_label(rich=True), text_label()
        self.box = LassoBox()
        self.plot = pg.PlotWidget(viewBox=self.box, background=None)
        self.plot.hideButtons()
        for side in ("left", "bottom"):
            self.plot.getAxis(side).enableAutoSIPrefix(False)
        self.plot.setMinimumHeight(160)
        self._lay_out()
        for box in (self.kind_box, self.x_box, self.y_box):
            box.currentIndexChanged.connect(self._redraw)
        self.lasso_box.toggled.connect(self._on_lasso_toggled)
        self.box.drawn.connect(self._on_drawn)
        self.box.clicked.connect(self._on_clicked)
        self._redraw()

    def _lay_out(self) -> None:
        self._form = form(("Plot", self.kind_box), ("x", self.x_box), ("y", self.y_box))
        column_ = QVBoxLayout(self)
        column_.setContentsMargins(4, 6, 4, 4)
        column_.addWidget(self._form)
        column_.addWidget(self.legend)
        column_.addWidget(self.plot, 1)
        column_.addWidget(self.hint)
        column_.addWidget(self.lasso_box)

    # -- for the dock --------------------------------------------------------------------------

    def show_table(self, table: pd.DataFrame, kinds: Sequence[LabelClass]) -> None:
        """Plot another table with its classes in their colours; keep the axes that it has."""
        self._table, self._kinds = table, tuple(kinds)
        self._selected = np.zeros(0, np.int64)
        quantities = [
            name
            for name in table.columns
            if table[name].dtype.kind in "iuf"
            and name not in NOT_QUANTITIES
            and not name.startswith("bbox_")
        ]
        for box, first in ((self.x_box, FIRST_X), (self.y_box, FIRST_Y)):
            entries = [(column(name).title, name) for name in quantities]
            box.set_entries(entries, box.currentData(), *first)
        self._redraw()

    def select(self, rows: np.ndarray) -> None:
        """Show rows as selected, without a signal."""
        self._selected = np.asarray(rows, np.int64)
        self._draw_selected()

    def set_text_color(self, color: str) -> None:
        """Colour the axes and their titles."""
        self._text = pg.mkColor(color)
        for side in ("left", "bottom"):
            axis = self.plot.getAxis(side)
            axis.setPen(self._text)
            axis.setTextPen(self._text)

    @property
    def kind(self) -> str:
        return str(self.kind_box.currentData())

    # -- drawing -------------------------------------------------------------------------------

    def _redraw(self, _: Any = None) -> None:
        is_scatter = self.kind == SCATTER
        self._form.layout().setRowVisible(self.y_box, is_scatter)
        self.hint.setText(HINTS[self.kind])
        self.box.picks_range = not is_scatter
        for item in list(self.plot.getPlotItem().items):
            self.plot.removeItem(item)
        self._selected_item = None
        if self._table is None or not self.x_box.count():
            return
        self.plot.setLabel("bottom", column(self.x_box.currentData()).title)
        self.plot.setLabel(
            "left", column(self.y_box.currentData()).title if is_scatter else "Objects"
        )
        self.legend.setText(" ".join(swatch(kind) for kind in self._present()))
        (self._draw_points if is_scatter else self._draw_bars)()
        self._draw_selected()
        self.box.enableAutoRange()

    def _present(self) -> list[LabelClass]:
        """Classes of the objects in the table."""
        names = set(self._class_names())
        return [kind for kind in self._kinds if kind.name in names]

    def _class_names(self) -> np.ndarray:
        return np.asarray(self._column("class"), dtype=object)

    def _values(self, box: QComboBox) -> np.ndarray:
        return np.asarray(self._column(box.currentData()), dtype=float)

    def _column(self, name: str) -> Any:
        return [] if self._table is None else self._table[name]

    def _draw_points(self) -> None:
        x, y, names = self._values(self.x_box), self._values(self.y_box), self._class_names()
        known = np.isfinite(x) & np.isfinite(y)
        for kind in self._present():
            here = known & (names == kind.name)
            brush = pg.mkBrush(*kind.color, OPACITY)
            self.plot.addItem(
                pg.ScatterPlotItem(x[here], y[here], size=POINT_PX, pen=None, brush=brush)
            )

    def _draw_bars(self) -> None:
        values, names = self._values(self.x_box), self._class_names()
        edges = bin_edges(values)
        below = np.zeros(len(edges) - 1)
        for kind in self._present():
            counts, _ = np.histogram(_finite(values[names == kind.name]), edges)
            self.plot.addItem(_bars(edges, below, counts, brush=pg.mkBrush(*kind.color)))
            below = below + counts

    def _draw_selected(self) -> None:
        if self._selected_item is not None:
            self.plot.removeItem(self._selected_item)
            self._selected_item = None
        if self._table is None or not len(self._selected):
            return
        x = self._values(self.x_box)
        pen = pg.mkPen(self._text, width=1.5)
        if self.kind == SCATTER:
            y, rows = self._values(self.y_box), self._selected
            rows = rows[np.isfinite(x[rows]) & np.isfinite(y[rows])]
            item = pg.ScatterPlotItem(x[rows], y[rows], size=SELECTED_PX, pen=pen, brush=None)
        else:
            edges = bin_edges(x)
            counts, _ = np.histogram(_finite(x[self._selected]), edges)
            shade = pg.mkColor(self._text)
            shade.setAlpha(90)
            item = _bars(edges, np.zeros(len(counts)), counts, brush=shade, pen=pen)
        item.setZValue(10)
        # Without bounds: the view should not jump with each selection.
        self.plot.addItem(item, ignoreBounds=True)
        self._selected_item = item

    # -- selecting -----------------------------------------------------------------------------

    def _on_lasso_toggled(self, is_on: bool) -> None:
        self.box.is_lasso_on = is_on

    def _on_drawn(self, points: np.ndarray, adds: bool) -> None:
        if self._table is None:
            return
        x = self._values(self.x_box)
        if self.kind == HISTOGRAM:
            inside = (x >= points[:, 0].min()) & (x <= points[:, 0].max())
        else:
            inside = inside_lasso(x, self._values(self.y_box), points)
        self._select_by_user(np.flatnonzero(inside), adds)

    def _on_clicked(self, x: float, y: float, adds: bool) -> None:
        if self._table is None or self.kind == HISTOGRAM:
            return
        wide, high = (max(size, 1e-300) for size in self.box.viewPixelSize())
        apart = np.hypot(
            (self._values(self.x_box) - x) / wide, (self._values(self.y_box) - y) / high
        )
        apart = np.where(np.isfinite(apart), apart, np.inf)
        nearest = int(apart.argmin()) if len(apart) else -1
        hit = nearest >= 0 and apart[nearest] <= REACH_PX
        self._select_by_user(np.array([nearest] if hit else [], np.int64), adds)

    def _select_by_user(self, rows: np.ndarray, adds: bool) -> None:
        self.select(np.union1d(self._selected, rows) if adds else rows)
        self.rows_selected.emit(self._selected)


def inside_lasso(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points lie inside a closed outline; points that are not finite do not."""
    inside = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:  # even-odd rule
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of equal bins by the Freedman-Diaconis rule, their number within limits."""
    found = _finite(values)
    if not len(found):
        return np.array([0.0, 1.0])
    low, high = np.quantile(found, [0.25, 0.75])
    width = 2 * (high - low) / len(found) ** (1 / 3)
    count = np.ptp(found) / width if width > 0 else MOST_BINS
    edges: np.ndarray = np.histogram_bin_edges(found, int(np.clip(count, FEWEST_BINS, MOST_BINS)))
    return edges


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _bars(edges: np.ndarray, below: np.ndarray, counts: np.ndarray, **style: Any) -> Any:
    style.setdefault("pen", None)
    return pg.BarGraphItem(x0=edges[:-1], x1=edges[1:], y0=below, height=counts, **style)


def _adds(event: Any) -> bool:
    return bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
