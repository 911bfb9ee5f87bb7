"""A table of many objects that sorts and scrolls quickly, with a selection by row number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.columns import column

if TYPE_CHECKING:
    import pandas as pd

_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


class TableModel(QAbstractTableModel):
    """A read-only data frame; `order` holds the row numbers in the order they are shown.

    Columns are kept as arrays, since a lookup in pandas for each cell is slow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[str] = []
        self._values: list[np.ndarray] = []
        self._colors: dict[str, QColor] = {}
        self.order = np.zeros(0, np.int64)

    def show_table(
        self,
        table: pd.DataFrame,
        hidden: Sequence[str] = (),
        kinds: Sequence[LabelClass] = (),
    ) -> None:
        """Show another table; `kinds` give the colours of names in the column ``class``."""
        self.beginResetModel()
        self.columns = [name for name in table.columns if name not in hidden]
        self._values = [table[name].to_numpy() for name in self.columns]
        self._colors = {kind.name: QColor(*kind.color) for kind in kinds}
        self.order = np.arange(len(table))
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        values = self._values[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return shown(values[self.order[index.row()]], self.columns[index.column()])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _LEFT if values.dtype == object else _RIGHT
        if role == Qt.ItemDataRole.DecorationRole and self.columns[index.column()] == "class":
            return self._colors.get(values[self.order[index.row()]])
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or section >= len(self.columns):
            return None
        meaning = column(self.columns[section])
        if role == Qt.ItemDataRole.DisplayRole:
            return meaning.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{meaning.title}: {meaning.about}" if meaning.about else meaning.title
        return None

    def sort(self, section: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column, stably; unknown values come last in either order."""
        if not 0 <= section < len(self.columns):
            return
        values = self._values[section]
        if values.dtype == object:
            _, values = np.unique(values.astype(str), return_inverse=True)
        sign = -1 if order == Qt.SortOrder.DescendingOrder else 1
        self.arrange(np.argsort(sign * values.astype(float), kind="stable"))

    def arrange(self, order: np.ndarray) -> None:
        """Show the rows in another order; the caller restores the selection."""
        self.layoutAboutToBeChanged.emit()
        self.order = order
        self.changePersistentIndexList(
            self.persistentIndexList(), [QModelIndex()] * len(self.persistentIndexList())
        )
        self.layoutChanged.emit()


class ObjectTable(QTableView):
    """A table of objects; its selection is by row number in the data frame.

    Signals
    -------
    rows_selected(ndarray)
        The user selected rows with these numbers.
    """

    rows_selected = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.rows = TableModel()
        self.setModel(self.rows)
        self._selected = np.zeros(0, np.int64)
        self._emits = True
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSortingEnabled(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        header = self.horizontalHeader()
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setResizeContentsPrecision(30)  # number of rows measured, not all
        header.sortIndicatorChanged.connect(self._sort)
        self.selectionModel().selectionChanged.connect(self._on_selection)

    def show_table(
        self, table: pd.DataFrame, hidden: Sequence[str], kinds: Sequence[LabelClass]
    ) -> None:
        """Show another table, in its own order."""
        self._emits = False
        self._selected = np.zeros(0, np.int64)
        self.rows.show_table(table, hidden, kinds)
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.resizeColumnsToContents()
        self._emits = True

    def select(self, rows: np.ndarray) -> None:
        """Select rows by number, without a signal; several are moved to the top of the table."""
        self._selected = np.asarray(rows, np.int64)
        if len(self._selected) > 1:
            is_selected = np.isin(self.rows.order, self._selected)
            self.rows.arrange(
                np.concatenate([self.rows.order[is_selected], self.rows.order[~is_selected]])
            )
        self._restore_selection()

    def _sort(self, section: int, order: Qt.SortOrder) -> None:
        if section < 0:
            return
        self._emits = False
        self.rows.sort(section, order)
        self._emits = True
        self.select(self._selected)

    def _restore_selection(self) -> None:
        self._emits = False
        selection = QItemSelection()
        places = np.flatnonzero(np.isin(self.rows.order, self._selected))
        last = self.rows.columnCount() - 1
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            if len(run):
                selection.select(
                    self.rows.index(int(run[0]), 0), self.rows.index(int(run[-1]), last)
                )
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if len(places):
            self.scrollTo(self.rows.index(int(places[0]), 0))
        self._emits = True

    def _on_selection(self, *_: Any) -> None:
        if not self._emits:
            return
        ranges = self.selectionModel().selection()
        places = [np.arange(one.top(), one.bottom() + 1) for one in ranges]
        shown = np.unique(np.concatenate(places)) if places else np.zeros(0, np.int64)
        self._selected = self.rows.order[shown]
        self.rows_selected.emit(self._selected)


def shown(value: Any, name: str) -> str:
    """A cell's text: four significant digits, fractions in percent, empty where unknown.

    >>> shown(0.12345, "solidity"), shown(1234.5678, "area_um2"), shown(0.5, "area_fraction")
    ('0.1235', '1,235', '50.0 %')
    """
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return ""
        if name.endswith("_fraction") or name.startswith("share_"):
            return f"{value:.1%}".replace("%", " %")
        number = float(value)
        if name.endswith("_probability"):
            return f"{number:.3f}"
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    if isinstance(value, (int, np.integer)):
        return str(value) if name.endswith("id") else f"{value:,}"
    return str(value)
