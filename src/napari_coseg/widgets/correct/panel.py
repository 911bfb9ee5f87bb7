"""Parts of the Correct widget: buttons of tools and actions, classes, reviewed areas, cleanup."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Target
from napari_coseg.widgets.correct.display import AREA_COLORS
from napari_coseg.widgets.correct.tools import Action, Tool
from napari_coseg.widgets.forms import form, number_box, row

COLUMNS = 2
SWATCH_PX = 12


def key_label(key: str) -> str:
    """A key as it is printed on a keyboard.

    >>> key_label("Shift-R"), key_label("Escape")
    ('⇧R', 'Esc')
    """
    return key.replace("Shift-", "⇧").replace("Escape", "Esc")


def button(name: str, key: str, tip: str, *, checkable: bool = False) -> QPushButton:
    """A button that shows its key."""
    made = QPushButton(f"{name}  {key_label(key)}")
    made.setToolTip(f"{tip}\nKey: {key_label(key)}")
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
    """A button that stays down while the tool is in use."""
    return button(tool.name, tool.key, tool.hint, checkable=True)


def action_button(action: Action) -> QPushButton:
    """A button for the selected objects."""
    tip = f"{action.tip}: the selected ones or, with the key, the one under the pointer"
    return button(action.name, action.key, tip)


def swatch_icon(color: tuple[int, int, int]) -> QIcon:
    """A square in a colour of 0 to 255."""
    picture = QPixmap(SWATCH_PX, SWATCH_PX)
    picture.fill(QColor(*color))
    return QIcon(picture)


class ClassButtons(QWidget):
    """Classes in their colours, as a legend; the current one is given to what is made next.

    Signals
    -------
    clicked(int)
        Id of the class that was clicked, which may be the current one.
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

    def set_classes(self, classes: Sequence[LabelClass], none: str) -> None:
        """List these classes, and class 0 under the name `none`."""
        for old in self._group.buttons():
            self._group.removeButton(old)
            old.deleteLater()
        for entry in (*classes, LabelClass(0, none, (128, 128, 128))):
            key = self._keys[entry.id] if 0 <= entry.id < len(self._keys) else ""
            text = f" {key}  {entry.name}" if key else f" {entry.name}"
            made = QPushButton(swatch_icon(entry.color), text)
            made.setStyleSheet("text-align: left; padding-left: 6px;")
            made.setCheckable(True)
            made.setToolTip(f"{entry.name}\nKey: {key}" if key else entry.name)
            self._group.addButton(made, entry.id)
            self._column.addWidget(made)

    def button(self, class_id: int) -> QPushButton | None:
        found: QPushButton | None = self._group.button(class_id)
        return found

    def set_current(self, class_id: int) -> None:
        found = self.button(class_id)
        if found is not None:
            found.setChecked(True)

    @property
    def current(self) -> int:
        """Id of the current class; 0 where there is none."""
        return max(self._group.checkedId(), 0)


class AreaChoice(QComboBox):
    """What a reviewed area counts for, in the colours of its outline.

    Signals
    -------
    chosen(object)
        The targets, a tuple.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        for targets, color in AREA_COLORS.items():
            text = "both" if len(targets) > 1 else targets[0]
            self.addItem(swatch_icon(color), text, targets)
        # Narrow, so that the dock keeps its width.
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setToolTip(
            "What you have checked in the area that you outline. Fine-tuning learns only this from "
            "the area, and only this stays as it is in a new run"
        )
        self.currentIndexChanged.connect(lambda: self.chosen.emit(self.targets))

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self.currentData())

    def set_targets(self, targets: tuple[Target, ...]) -> None:
        """Show these as chosen, without a signal."""
        with QSignalBlocker(self):
            self.setCurrentIndex(list(AREA_COLORS).index(targets))


class CleanupForm(QWidget):
    """Areas below which pieces and holes of regions are removed, after a preview.

    Signals
    -------
    previewed(float, float), accepted(), discarded()
        With the areas in um2.
    """

    previewed = Signal(float, float)
    accepted = Signal()
    discarded = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.piece_box = _area_box("Pieces of a region below this area become background")
        self.hole_box = _area_box("Background below this area, enclosed by a region, joins it")
        self.preview_button = QPushButton("Preview")
        self.accept_button = QPushButton("Accept")
        self.discard_button = QPushButton("Discard")
        form(
            ("Pieces below", self.piece_box),
            ("Holes below", self.hole_box),
            row(self.preview_button, self.accept_button, self.discard_button),
            parent=self,
        )
        self.preview_button.clicked.connect(
            lambda: self.previewed.emit(self.piece_box.value(), self.hole_box.value())
        )
        self.accept_button.clicked.connect(self.accepted)
        self.discard_button.clicked.connect(self.discarded)
        self.set_previewing(False)

    def set_previewing(self, previewing: bool, busy: bool = False) -> None:
        self.preview_button.setEnabled(not busy)
        self.accept_button.setEnabled(previewing and not busy)
        self.discard_button.setEnabled(previewing and not busy)


def _area_box(tip: str) -> QDoubleSpinBox:
    return number_box(tip, suffix=" µm²", maximum=1e7, value=1000)
