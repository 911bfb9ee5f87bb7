"""A form for a settings class: one row per field, with its default, range and description."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSpinBox, QWidget

from napari_coseg.core.settings import Settings
from napari_coseg.widgets.forms import form

UNITS = {"px": "px", "um2": "µm²", "um": "µm"}
LARGEST = 10**6


class SettingsForm(QWidget):
    """Widgets for some fields of a settings class; the others keep their defaults.

    Fields are integers, floats or booleans. A number that may be None has None at the lower end of
    its range, a boolean that may be None is a choice of three.

    Parameters
    ----------
    none_text
        Shown where a field is None.
    """

    def __init__(
        self, settings: type[Settings], fields: Sequence[str], none_text: str = "automatic"
    ) -> None:
        super().__init__()
        self._settings = settings
        self._none_text = none_text
        self._read: dict[str, Callable[[], Any]] = {}
        self.boxes: dict[str, QWidget] = {}
        rows: list[Any] = []
        for name in fields:
            info = settings.model_fields[name]
            text, unit = label(name)
            box = self._box(name, info, unit, none_text)
            box.setToolTip((info.description or "").capitalize())
            self.boxes[name] = box
            if isinstance(box, QCheckBox):
                box.setText(text)
                rows.append(box)
            else:
                rows.append((text, box))
        form(*rows, parent=self)

    def values(self) -> dict[str, Any]:
        """Values of the form, for `Settings.from_mapping`."""
        return {name: read() for name, read in self._read.items()}

    def settings(self) -> Settings:
        """The settings object; raises `SettingsError` for values that the class refuses."""
        return self._settings.from_mapping(self.values())

    def show_none_as(self, values: dict[str, Any]) -> None:
        """Show in brackets what None stands for, for the numbers that `values` names."""
        for name, value in values.items():
            box = self.boxes.get(name)
            if isinstance(box, QSpinBox | QDoubleSpinBox) and box.specialValueText():
                box.setSpecialValueText(f"{self._none_text} ({value:g}{box.suffix()})")

    def _box(self, name: str, info: FieldInfo, unit: str, none_text: str) -> QWidget:
        kinds = getattr(info.annotation, "__args__", (info.annotation,))
        if bool in kinds and type(None) in kinds:
            choice = QComboBox()
            for words, value in ((none_text, None), ("on", True), ("off", False)):
                choice.addItem(words, value)
            choice.setCurrentIndex(choice.findData(info.default))
            self._read[name] = choice.currentData
            return choice
        if bool in kinds:
            switch = QCheckBox()
            switch.setChecked(bool(info.default))
            self._read[name] = switch.isChecked
            return switch
        box: QSpinBox | QDoubleSpinBox
        number: type[int] | type[float]
        if int in kinds:
            box, number = QSpinBox(), int
        else:
            box, number = QDoubleSpinBox(), float
            box.setDecimals(2)
        low, high = _range(info, step=1 if number is int else 0.01)
        may_be_none = type(None) in kinds
        if may_be_none:
            low -= 1 if number is int else 0.01
            box.setSpecialValueText(none_text)
        box.setRange(number(low), number(high))
        if high <= 1:
            box.setSingleStep(number(0.05))
        else:
            box.setStepType(box.StepType.AdaptiveDecimalStepType)
        box.setValue(number(low if info.default is None else info.default))
        box.setSuffix(f" {unit}" if unit else "")
        self._read[name] = lambda: (
            None if may_be_none and box.value() == box.minimum() else box.value()
        )
        return box


def label(name: str) -> tuple[str, str]:
    """Text and unit of a field's name.

    >>> label("min_region_area_um2")
    ('Min region area', 'µm²')
    """
    text, _, ending = name.rpartition("_")
    if ending not in UNITS:
        text, ending = name, ""
    return text.replace("_", " ").capitalize(), UNITS.get(ending, "")


def _range(info: FieldInfo, step: float) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for limit in info.metadata:
        low = max(low, getattr(limit, "ge", low), getattr(limit, "gt", low - step) + step)
        high = min(high, getattr(limit, "le", high), getattr(limit, "lt", high + step) - step)
    return max(low, -LARGEST), min(high, LARGEST)
