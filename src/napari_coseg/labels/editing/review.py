"""Review marks on objects and areas, and which objects are left to review."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.area import Area
from napari_coseg.labels.editing.edit import Target

if TYPE_CHECKING:
    import pandas as pd


BOTH: tuple[Target, ...] = ("objects", "regions")


@dataclass(frozen=True, eq=False)
class Reviewed:
    """Objects and areas that a person has checked: a new run never overwrites them.

    An area counts for its objects, its regions, or both: they are checked separately.

    Ids stay marked when their object is removed, so that undo restores the mark with the object.
    When writing to a file, keep only ids with an object (`among`), as ids may be used again.

    Parameters
    ----------
    shape
        Of the labels.
    ids
        Objects.
    objects, regions
        Where the objects, and where the regions, are correct, including background; None: nowhere.
    """

    shape: tuple[int, ...]
    ids: frozenset[int] = frozenset()
    objects: Area = None  # type: ignore[assignment]  # made in __post_init__
    regions: Area = None  # type: ignore[assignment]  # made in __post_init__

    def __post_init__(self) -> None:
        for target in BOTH:
            if cast(object, self.area(target)) is None:
                object.__setattr__(self, target, Area(self.shape))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is marked."""
        return not (self.ids or self.objects or self.regions)

    def area(self, target: Target) -> Area:
        """Where the labels of a kind were checked; does not include single reviewed objects."""
        return self.objects if target == "objects" else self.regions

    def with_objects(self, ids: Iterable[int]) -> Reviewed:
        return replace(self, ids=self.ids | {int(i) for i in ids})

    def without_objects(self, ids: Iterable[int]) -> Reviewed:
        return replace(self, ids=self.ids - {int(i) for i in ids})

    def among(self, ids: Iterable[int]) -> Reviewed:
        """With marks on these objects only."""
        return replace(self, ids=self.ids & {int(i) for i in ids})

    def with_area(
        self, pixels: tuple[np.ndarray, ...], targets: Iterable[Target] = BOTH
    ) -> Reviewed:
        """With more pixels, one array per axis, as `drawing.polygon_pixels` returns them."""
        return self._changed(targets, lambda area: area.with_pixels(pixels))

    def without_area(
        self, pixels: tuple[np.ndarray, ...], targets: Iterable[Target] = BOTH
    ) -> Reviewed:
        return self._changed(targets, lambda area: area.without_pixels(pixels))

    def protects(self, indices: tuple[np.ndarray, ...], labels: np.ndarray) -> np.ndarray:
        """Which pixels of objects, bool (n,), lie in a reviewed area or in a reviewed object.

        Parameters
        ----------
        indices
            One int array per axis.
        labels
            Image of object ids.
        """
        found = self.objects.holds(indices)
        return found | np.isin(labels[indices], list(self.ids)) if self.ids else found

    def holds(self, table: pd.DataFrame) -> np.ndarray:
        """Bool per row: objects that are marked, or have their centroid in a reviewed area."""
        marked = np.isin(table["id"].to_numpy(), list(self.ids))
        axes = "zyx"[-len(self.shape) :]
        centres = [np.rint(table[f"centroid_{axis}"].to_numpy()).astype(np.int64) for axis in axes]
        return marked | self.objects.holds(tuple(centres))

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "shape": list(self.shape),
            "ids": sorted(self.ids),
            "runs": self.objects.runs.tolist(),
            "region_runs": self.regions.runs.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], shape: tuple[int, ...]) -> Reviewed:
        """From what `as_json` returned, for labels of this shape.

        Marks of earlier versions have no ``region_runs``: their areas count for both kinds.

        Raises
        ------
        EditError
            Where the values are not as `as_json` writes them, or of another shape.
        """
        try:
            written = tuple(int(size) for size in values["shape"])
            ids = frozenset(int(i) for i in values["ids"])
            of_objects = values["runs"]
            of_regions = values.get("region_runs", of_objects)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EditError(f"reviewed marks cannot be read: {error!r}; mark again") from error
        if written != tuple(shape):
            raise EditError(f"reviewed marks are for shape {written}, the labels have {shape}")
        areas = (Area.of_runs(runs, tuple(shape)) for runs in (of_objects, of_regions))
        return cls(tuple(shape), ids, *areas)

    def _changed(self, targets: Iterable[Target], change: Callable[[Area], Area]) -> Reviewed:
        wanted = set(targets)
        now = (change(self.area(one)) if one in wanted else self.area(one) for one in BOTH)
        return Reviewed(self.shape, self.ids, *now)


class Doubtful(NamedTuple):
    """Objects to review, and how many.

    ids    int64 (left,): lowest class probability first, those without one last; ties by id
    left   how many are not reviewed
    total  how many there are
    """

    ids: np.ndarray
    left: int
    total: int


def doubtful_first(table: pd.DataFrame, reviewed: Reviewed | None = None) -> Doubtful:
    """Objects that are not reviewed, by ascending class probability."""
    probabilities = table["class_probability"].to_numpy()
    order = np.lexsort((table["id"].to_numpy(), probabilities))  # nan sorts last
    if reviewed is not None:
        order = order[~reviewed.holds(table)[order]]
    return Doubtful(table["id"].to_numpy()[order].astype(np.int64), len(order), len(table))
