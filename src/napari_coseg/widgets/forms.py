"""Qt building blocks that the docks share: groups, rows, forms, labels, lists and number boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

Entry = tuple[str, Any]
"""Text and data of a list's entry."""


# ---------------------------------------------------------------------------------------------
# Layouts


def group(title: str, *contents: QWidget) -> QGroupBox:
    """A titled frame around widgets, one below the other."""
    box = QGroupBox(title)
    QVBoxLayout(box).addWidget(contents[0] if len(contents) == 1 else column_of(*contents))
    return box


def column_of(*widgets: QWidget) -> QWidget:
    """Widgets one below the other."""
    return _stacked(QVBoxLayout(), widgets, spacing=6)


def row(*widgets: QWidget) -> QWidget:
    """Widgets side by side, with the remaining space at the right."""
    line = QHBoxLayout()
    container = _stacked(line, widgets)
    line.addStretch(1)
    return container


def _stacked(layout: QHBoxLayout | QVBoxLayout, widgets: Sequence[QWidget], **spacing: int) -> Any:
    container = QWidget()
    container.setLayout(layout)
    layout.setContentsMargins(0, 0, 0, 0)
    if spacing:
        layout.setSpacing(spacing["spacing"])
    for widget in widgets:
        layout.addWidget(widget)
    return container


def form(*rows: tuple[str, QWidget | QLayout] | QWidget, parent: QWidget | None = None) -> QWidget:
    """A form without margins; a row is a label and its field, or one widget across both columns.

    Parameters
    ----------
    parent
        Widget to lay the form out in; None makes one.
    """
    parent = QWidget() if parent is None else parent
    layout = QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for one in rows:
        layout.addRow(*one) if isinstance(one, tuple) else layout.addRow(one)
    return parent


class ScrollColumn(QScrollArea):
    """Scrolls vertically, and is as wide as its content needs."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        width = self.widget().minimumSizeHint().width()
        return QSize(width + self.verticalScrollBar().sizeHint().width(), 150)


# ---------------------------------------------------------------------------------------------
# Fields


def text_label(text: str = "", *, rich: bool = False) -> QLabel:
    """A label that wraps its lines; `rich` always reads the text as HTML."""
    label = QLabel(text)
    label.setWordWrap(True)
    if rich:
        label.setTextFormat(Qt.TextFormat.RichText)
    return label


def number_box(
    tooltip: str, *, suffix: str, maximum: float, decimals: int = 0, value: float = 0.0
) -> QDoubleSpinBox:
    """A spin box for numbers from 0, whose step follows the size of the number."""
    box = QDoubleSpinBox()
    box.setDecimals(decimals)
    box.setRange(0.0, maximum)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setSuffix(suffix)
    box.setValue(value)
    box.setToolTip(tooltip)
    return box


class ChoiceBox(QComboBox):
    """A drop-down list that stays narrow however long its entries are, as file names may be."""

    def __init__(self, tooltip: str = "", entries: Sequence[Entry] = ()) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self.setToolTip(tooltip)
        self.set_entries(entries)

    def set_entries(self, entries: Sequence[Entry], *preferred: Any) -> None:
        """List other entries, without a signal.

        Chosen is the first of the `preferred` data that is listed, else the first entry.
        """
        with QSignalBlocker(self):
            self.clear()
            for text, data in entries:
                self.addItem(text, data)
            found = (self.index_of(data) for data in preferred)
            self.setCurrentIndex(next((at for at in found if at >= 0), min(0, self.count() - 1)))

    def index_of(self, data: Any) -> int:
        """Index of the entry with these data; -1 where there is none."""
        listed = [self.itemData(at) for at in range(self.count())]
        return next((at for at, one in enumerate(listed) if one is data or one == data), -1)

    def choose(self, data: Any) -> None:
        """Choose the entry with these data; does nothing where there is none."""
        at = self.index_of(data)
        if at >= 0:
            self.setCurrentIndex(at)


class FileBox(ChoiceBox):
    """A list of files and other entries whose last one asks for another file.

    The data of a file's entry are its path; those of the last entry are None.

    Parameters
    ----------
    ask_text, title, pattern
        Text of the last entry; title and file pattern of the dialog that it opens.
    prefix
        Put before the names of files.

    Signals
    -------
    entry_chosen()
        Another entry than the last is current.
    file_added(str)
        Path of a file that was not listed before.
    """

    entry_chosen = Signal()
    file_added = Signal(str)

    def __init__(
        self,
        tooltip: str,
        entries: Sequence[Entry],
        ask_text: str,
        title: str,
        pattern: str,
        prefix: str = "",
    ) -> None:
        super().__init__(tooltip, [*entries, (ask_text, None)])
        self._title, self._pattern, self._prefix = title, pattern, prefix
        self._former = 0
        self.currentIndexChanged.connect(self._on_index)

    def add_file(self, path: str | Path, text: str | None = None) -> None:
        """List a file, unless it is listed, by its name with the prefix or by another text."""
        if self.index_of(str(path)) < 0:
            at = self.count() - 1
            self.insertItem(at, text or self._prefix + Path(path).name, str(path))
            self.setItemData(at, str(path), Qt.ItemDataRole.ToolTipRole)
            self.file_added.emit(str(path))

    def choose_file(self, path: str | Path) -> None:
        """Choose a file, listed or not."""
        self.add_file(path)
        self.choose(str(path))

    def _on_index(self, index: int) -> None:
        if index != self.count() - 1:
            self._former = index
            self.entry_chosen.emit()
            return
        with QSignalBlocker(self):
            self.setCurrentIndex(self._former)
        path, _ = QFileDialog.getOpenFileName(self, self._title, "", self._pattern)
        if path:
            self.choose_file(path)
