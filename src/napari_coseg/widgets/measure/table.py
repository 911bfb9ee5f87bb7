"""A table of many rows: sorted by a click, quick to scroll, and the rows that stand for objects."""

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
    """A data frame to look at; `order` says which of its rows stands where.

    Columns are kept as arrays, so that showing a cell does not ask pandas.
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
        """Take another table; `kinds` tell the colours of what stands in the column ``class``."""
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
        """By a column, ties as they were; what is not known stands last either way."""
        if not 0 <= section < len(self.columns):
            return
        values = self._values[section]
        falls = order == Qt.SortOrder.DescendingOrder
        if values.dtype == object:
            _, values = np.unique(values.astype(str), return_inverse=True)
        keys = values.astype(float) * (-1 if falls else 1)
        self.arrange(np.argsort(keys, kind="stable"))

    def arrange(self, order: np.ndarray) -> None:
        """Put the rows in an order; selections are the caller's to make again."""
        self.layoutAboutToBeChanged.emit()
        self.order = order
        self.changePersistentIndexList(
            self.persistentIndexList(), [QModelIndex()] * len(self.persistentIndexList())
        )
        self.layoutChanged.emit()


class ObjectTable(QTableView):
    """A table whose rows stand for objects, selected by their numbers in the data frame.

    Signals
    -------
    rows_chosen(ndarray)
        A person selected rows here: their numbers in the data frame.
    """

    rows_chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.rows = TableModel()
        self.setModel(self.rows)
        self._chosen = np.zeros(0, np.int64)
        self._is_telling = True
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
        header.setResizeContentsPrecision(30)  # rows that are looked at, not all
        header.sortIndicatorChanged.connect(self._sort)
        self.selectionModel().selectionChanged.connect(self._on_selection)

    def show_table(
        self, table: pd.DataFrame, hidden: Sequence[str], kinds: Sequence[LabelClass]
    ) -> None:
        """Take another table, in its own order."""
        self._is_telling = False
        self._chosen = np.zeros(0, np.int64)
        self.rows.show_table(table, hidden, kinds)
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.resizeColumnsToContents()
        self._is_telling = True

    def choose(self, rows: np.ndarray) -> None:
        """Select rows by their numbers in the data frame; `rows_chosen` is not emitted.

        Several are put on top, where they are seen together.
        """
        self._chosen = np.asarray(rows, np.int64)
        if len(self._chosen) > 1:
            chosen = np.isin(self.rows.order, self._chosen)
            self.rows.arrange(np.concatenate([self.rows.order[chosen], self.rows.order[~chosen]]))
        self._select_again()

    def _sort(self, section: int, order: Qt.SortOrder) -> None:
        if section < 0:
            return
        self._is_telling = False
        self.rows.sort(section, order)
        self._is_telling = True
        self.choose(self._chosen)

    def _select_again(self) -> None:
        self._is_telling = False
        selection = QItemSelection()
        places = np.flatnonzero(np.isin(self.rows.order, self._chosen))
        last = self.rows.columnCount() - 1
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            if len(run):
                selection.select(
                    self.rows.index(int(run[0]), 0), self.rows.index(int(run[-1]), last)
                )
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if len(places):
            self.scrollTo(self.rows.index(int(places[0]), 0))
        self._is_telling = True

    def _on_selection(self, *_: Any) -> None:
        if not self._is_telling:
            return
        ranges = self.selectionModel().selection()
        places = [np.arange(one.top(), one.bottom() + 1) for one in ranges]
        chosen = np.unique(np.concatenate(places)) if places else np.zeros(0, np.int64)
        self._chosen = self.rows.order[chosen]
        self.rows_chosen.emit(self._chosen)


def shown(value: Any, name: str) -> str:
    """A cell's text: four digits that count, parts in percent, nothing where not known.

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
