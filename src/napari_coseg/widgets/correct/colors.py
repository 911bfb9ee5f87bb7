"""A colormap of objects that recolours a few of them without mapping every pixel again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from pydantic import PrivateAttr

from napari_coseg.core.types import LabelClass

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN, CLEAR, SELECTED, FIRST = range(4)
"""Palette indices: unlisted ids, background, selected objects, the first of the others."""
GREY = (160, 160, 160)
PLAIN = (0, 200, 200)
"""Colour of objects without a class."""
_SELECTED_COLORS = ((255, 255, 0), (0, 255, 255), (255, 0, 255))
_BY_ID_COLORS = 49


class ObjectColormap(DirectLabelColormap):
    """Objects coloured by class or by id, with one colour of its own for selected objects.

    napari's direct colormap holds a dict of all ids; when one object changes its colour, the dict
    and with it the whole picture are rebuilt (0.3 s at 4,096 x 4,096 pixels). This colormap looks
    up the palette index in an array by id, which is changed in place. The palette never changes,
    so that what the canvas holds stays valid.
    """

    _palette: np.ndarray = PrivateAttr()  # float32 (colours, 4), at most 255
    _number: np.ndarray = PrivateAttr()  # uint8 (largest id + 2,); the last is for all larger ids
    _shown: np.ndarray = PrivateAttr()  # the same, with selected objects
    _of_class: dict[int, int] | None = PrivateAttr(default=None)  # None: by id

    @classmethod
    def of(
        cls, classes: Sequence[LabelClass], table: pd.DataFrame, by: str = "class"
    ) -> ObjectColormap:
        """For the objects of a table with ``id`` and ``class_id``, by "class" or by "id"."""
        found = cls(color_dict={None: np.array([*GREY, 255]) / 255, 0: np.zeros(4)})
        selected = selected_color([entry.color for entry in classes] or [PLAIN])
        listed: list[Any] = [np.array([*GREY, 255]) / 255, np.zeros(4)]
        listed.append(np.array([*selected, 255]) / 255)
        if by == "class":
            found._of_class = {e.id: FIRST + 1 + n for n, e in enumerate(classes[:250])}
            rgb = [PLAIN, *(entry.color for entry in classes[:250])]
            listed.extend(np.array([*color, 255]) / 255 for color in rgb)
        else:
            listed.extend(label_colormap(_BY_ID_COLORS).colors[1:])
        found._palette = np.array(listed, np.float32)
        found._number = np.array([CLEAR, UNKNOWN], np.uint8)
        found._shown = found._number.copy()
        found.set_classes(table["id"].to_numpy(), table["class_id"].to_numpy())
        return found

    @property
    def by(self) -> str:
        """What objects are coloured by: "class" or "id"."""
        return "id" if self._of_class is None else "class"

    @property
    def highlight(self) -> tuple[int, int, int]:
        """Colour of selected objects, 0 to 255."""
        red, green, blue = (self._palette[SELECTED, :3] * 255).round().astype(int).tolist()
        return red, green, blue

    def set_classes(self, ids: np.ndarray, class_ids: np.ndarray) -> None:
        """Colour objects that are new or reclassified."""
        if not len(ids):
            return
        self._grow(int(ids.max()))
        if self._of_class is None:
            numbers = FIRST + ids % (len(self._palette) - FIRST)
        else:
            numbers = np.array([self._of_class.get(int(i), FIRST) for i in class_ids])
        marked = ids[self._shown[ids] == SELECTED]
        self._number[ids] = numbers
        self._shown[ids] = numbers
        self._shown[marked] = SELECTED

    def select(self, ids: Collection[int], selected: bool) -> None:
        """Colour objects as selected, or as before."""
        at = np.array(sorted(i for i in ids if 0 < i < len(self._number) - 1), dtype=np.int64)
        self._shown[at] = SELECTED if selected else self._number[at]

    def _grow(self, largest: int) -> None:
        if largest + 2 <= len(self._number):
            return
        more = np.full(max(largest + 2, len(self._number) * 5 // 4), UNKNOWN, np.uint8)
        for name in ("_number", "_shown"):
            old = getattr(self, name)
            table = more.copy()
            table[: len(old)] = old
            setattr(self, name, table)

    # -- for napari ----------------------------------------------------------------------------

    def _lookup(self, values: Any) -> Any:
        return np.take(self._shown, values, mode="clip")

    def _data_to_texture(self, values: Any) -> Any:
        if values.dtype.itemsize <= 2:  # the canvas holds ids and looks colours up
            return super()._data_to_texture(values)
        if self.use_selection:
            return (values == self.selection).astype(np.uint8)
        return self._lookup(values)

    def map(self, values: Any) -> Any:
        if isinstance(values, (int, np.integer)):
            return self._rgba(np.asarray([values]))[0]
        return self._rgba(np.asarray(values))

    def _rgba(self, values: np.ndarray) -> np.ndarray:
        colors = self._palette[self._lookup(values)]
        if self.use_selection:
            colors[values != self.selection] = 0
        return colors

    def _map_without_cache(self, values: np.ndarray) -> np.ndarray:
        return self._palette[self._lookup(values)]

    @property
    def _num_unique_colors(self) -> int:
        return len(self._palette)

    def _values_mapping_to_minimum_values_set(
        self, apply_selection: bool = True
    ) -> tuple[dict[int | None, int], dict[int, np.ndarray]]:
        if self.use_selection and apply_selection:
            colors = {0: np.zeros(4), 1: self.map(self.selection)}
            return {self.selection: 1, None: 0}, colors
        return {None: UNKNOWN, 0: CLEAR}, dict(enumerate(self._palette))


def selected_color(taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The one of a few bright colours that is farthest from all colours in use."""

    def distance(color: tuple[int, int, int]) -> float:
        return float(np.abs(np.array(taken, int) - color).sum(axis=1).min())

    return max(_SELECTED_COLORS, key=distance)
