"""A colormap of objects that changes the colour of a few without mapping every pixel anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from pydantic import PrivateAttr

from napari_coseg.core.types import LabelClass

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN, CLEAR, CHOSEN, FIRST = range(4)
"""Numbers of colours: of ids that are not listed, of background, of chosen objects, of others."""
GREY = (160, 160, 160)
PLAIN = (0, 200, 200)
"""Of objects without a class."""
_FOR_CHOSEN = ((255, 255, 0), (0, 255, 255), (255, 0, 255))
_BY_ID_COLORS = 49


class ObjectColormap(DirectLabelColormap):
    """Objects in the colour of their class, or of their id, and chosen ones in one of their own.

    napari's own direct colormap keeps a dict of all ids; where one object changes its colour, it is
    built anew and with it the whole picture (0.3 s at 4,096 x 4,096 pixels). This one looks the
    number of the colour up in an array by id, which changes where the objects change. Colours
    themselves never change, so what the canvas holds stays right.
    """

    _palette: np.ndarray = PrivateAttr()  # float32 (colours, 4), at most 255
    _number: np.ndarray = PrivateAttr()  # uint8 (largest id + 2,); the last is of all larger ids
    _shown: np.ndarray = PrivateAttr()  # the same, with the chosen ones as such
    _of_class: dict[int, int] | None = PrivateAttr(default=None)  # None: by id

    @classmethod
    def of(
        cls, classes: Sequence[LabelClass], table: pd.DataFrame, by: str = "class"
    ) -> ObjectColormap:
        """For the objects of a table with ``id`` and ``class_id``, by "class" or by "id"."""
        found = cls(color_dict={None: np.array([*GREY, 255]) / 255, 0: np.zeros(4)})
        chosen = chosen_color([entry.color for entry in classes] or [PLAIN])
        listed: list[Any] = [np.array([*GREY, 255]) / 255, np.zeros(4)]
        listed.append(np.array([*chosen, 255]) / 255)
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
        """What the colours say: "class" or "id"."""
        return "id" if self._of_class is None else "class"

    @property
    def highlight(self) -> tuple[int, int, int]:
        """Colour of chosen objects, 0 to 255."""
        red, green, blue = (self._palette[CHOSEN, :3] * 255).round().astype(int).tolist()
        return red, green, blue

    def set_classes(self, ids: np.ndarray, class_ids: np.ndarray) -> None:
        """Objects that are new, or of another class."""
        if not len(ids):
            return
        self._reach(int(ids.max()))
        if self._of_class is None:
            numbers = FIRST + ids % (len(self._palette) - FIRST)
        else:
            numbers = np.array([self._of_class.get(int(i), FIRST) for i in class_ids])
        marked = ids[self._shown[ids] == CHOSEN]
        self._number[ids] = numbers
        self._shown[ids] = numbers
        self._shown[marked] = CHOSEN

    def choose(self, ids: Collection[int], chosen: bool) -> None:
        """Objects that are chosen, or are so no longer."""
        at = np.array(sorted(i for i in ids if 0 < i < len(self._number) - 1), dtype=np.int64)
        self._shown[at] = CHOSEN if chosen else self._number[at]

    def _reach(self, largest: int) -> None:
        if largest + 2 <= len(self._number):
            return
        more = np.full(max(largest + 2, len(self._number) * 5 // 4), UNKNOWN, np.uint8)
        for name in ("_number", "_shown"):
            old = getattr(self, name)
            table = more.copy()
            table[: len(old)] = old
            setattr(self, name, table)

    # -- what napari asks ----------------------------------------------------------------------

    def _lookup(self, values: Any) -> Any:
        return np.take(self._shown, values, mode="clip")

    def _data_to_texture(self, values: Any) -> Any:
        if values.dtype.itemsize <= 2:  # the canvas holds ids, and their colours in a table
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


def chosen_color(taken: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Of a few loud colours the one that is farthest from all that are taken."""

    def distance(color: tuple[int, int, int]) -> float:
        return float(np.abs(np.array(taken, int) - color).sum(axis=1).min())

    return max(_FOR_CHOSEN, key=distance)
