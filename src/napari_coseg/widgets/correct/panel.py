"""Parts of the Correct widget's panel: buttons of tools, classes as a legend, specks and holes."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Target
from napari_coseg.widgets.correct.display import AREA_COLORS
from napari_coseg.widgets.correct.tools import Action, Tool

COLUMNS = 2
SWATCH_PX = 12


def shown_key(key: str) -> str:
    """A key as a keyboard has it.

    >>> shown_key("Shift-R"), shown_key("Escape")
    ('⇧R', 'Esc')
    """
    return key.replace("Shift-", "⇧").replace("Escape", "Esc")


def button(name: str, key: str, tip: str, *, checkable: bool = False) -> QPushButton:
    """A button that names its key."""
    made = QPushButton(f"{name}  {shown_key(key)}")
    made.setToolTip(f"{tip}\nKey: {shown_key(key)}")
    made.setCheckable(checkable)
    return made


def grid(buttons: Sequence[QWidget], columns: int = COLUMNS) -> QWidget:
    """Buttons of equal width, in rows."""
    container = QWidget()
    layout = QGridLayout(container)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for number, one in enumerate(buttons):
        layout.addWidget(one, number // columns, number % columns)
        layout.setColumnStretch(number % columns, 1)
    return container


def tool_button(tool: Tool) -> QPushButton:
    """A button that stays down while the tool is in the hand."""
    return button(tool.name, tool.key, tool.hint, checkable=True)


def action_button(action: Action) -> QPushButton:
    """A button for the chosen objects."""
    tip = f"{action.tip}: those chosen, or with the key that under the pointer"
    return button(action.name, action.key, tip)


def swatch_icon(color: tuple[int, int, int]) -> QIcon:
    """A square in a colour of 0 to 255."""
    picture = QPixmap(SWATCH_PX, SWATCH_PX)
    picture.fill(QColor(*color))
    return QIcon(picture)


class ClassButtons(QWidget):
    """The classes in their colours, one of them ticked: the legend, and what is given next.

    Signals
    -------
    clicked(int)
        This class was clicked, which may be the ticked one.
    """

    clicked = Signal(int)

    def __init__(self, keys: str = "") -> None:
        super().__init__()
        self._keys = keys
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self._group.idClicked.connect(self.clicked)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)

    def set_classes(self, classes: Sequence[LabelClass], none: str | None = None) -> None:
        """List these, and `none` as what class 0 is called where it can be given."""
        for old in self._group.buttons():
            self._group.removeButton(old)
            old.deleteLater()
        grey = LabelClass(0, none or "", (128, 128, 128))
        for entry in (*classes, *([grey] if none else [])):
            key = f"{self._keys[entry.id]}  " if 0 <= entry.id < len(self._keys) else ""
            made = QPushButton(swatch_icon(entry.color), f" {key}{entry.name}")
            made.setStyleSheet("text-align: left; padding-left: 6px;")
            made.setCheckable(True)
            made.setToolTip(f"{entry.name}" + (f"\nKey: {key.strip()}" if key else ""))
            self._group.addButton(made, entry.id)
            self._column.addWidget(made)

    def tick(self, class_id: int) -> None:
        found = self._group.button(class_id)
        if found is not None:
            found.setChecked(True)

    @property
    def ticked(self) -> int:
        """Id of the class; 0 where none is."""
        return max(self._group.checkedId(), 0)


class AreaChoice(QComboBox):
    """What a reviewed area counts for, in the colours of its outline.

    Signals
    -------
    chosen(object)
        These targets, a tuple.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        for targets, color in AREA_COLORS.items():
            words = "both" if len(targets) > 1 else targets[0]
            self.addItem(swatch_icon(color), words, targets)
        # The dock keeps its width: what is beside it would move.
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setToolTip(
            "What you have checked in an area that you draw around. Only that is learnt from it in "
            "fine-tuning, and only that stays as it is in a new run"
        )
        self.currentIndexChanged.connect(lambda: self.chosen.emit(self.targets))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Those that are chosen."""
        return tuple(self.currentData())

    def choose(self, targets: tuple[Target, ...]) -> None:
        """Show these as chosen; nothing is emitted."""
        self.blockSignals(True)
        self.setCurrentIndex(list(AREA_COLORS).index(targets))
        self.blockSignals(False)


class SpecksForm(QWidget):
    """Areas below which specks and holes of regions go, seen before they do.

    Signals
    -------
    previewed(float, float), accepted(), dropped()
        With the areas in um2.
    """

    previewed = Signal(float, float)
    accepted = Signal()
    dropped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.speck_box = _area_box("Pieces of a region below this become background")
        self.hole_box = _area_box("Background enclosed by a region below this joins it")
        self.preview_button = QPushButton("Preview")
        self.accept_button = QPushButton("Accept")
        self.drop_button = QPushButton("Drop")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Specks below", self.speck_box)
        form.addRow("Holes below", self.hole_box)
        line = QHBoxLayout()
        for one in (self.preview_button, self.accept_button, self.drop_button):
            line.addWidget(one)
        form.addRow(line)
        self.preview_button.clicked.connect(self._ask)
        self.accept_button.clicked.connect(self.accepted)
        self.drop_button.clicked.connect(self.dropped)
        self.set_previewing(False)

    def set_previewing(self, previewing: bool, busy: bool = False) -> None:
        self.preview_button.setEnabled(not busy)
        self.accept_button.setEnabled(previewing and not busy)
        self.drop_button.setEnabled(previewing and not busy)

    def _ask(self) -> None:
        self.previewed.emit(self.speck_box.value(), self.hole_box.value())


def _area_box(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, 1e7)
    box.setDecimals(0)
    box.setValue(1000)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setSuffix(" µm²")
    box.setToolTip(tip)
    return box
