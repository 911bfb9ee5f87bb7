"""The label editor: labels, regions and table that are edited together and stay consistent.

The functions of this package take a `LabelEditor` and return an `Edit`; they change nothing.
`LabelEditor.apply` makes the edit, `LabelEditor.revert` undoes it. After either, the table is what
measuring all labels again gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.core.types import LabelClass, Labelled, Prediction
from napari_coseg.labels.editing.edit import Edit, with_rows
from napari_coseg.labels.editing.index import ObjectIndex, pixels_of
from napari_coseg.labels.measure import (
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    labelled,
    table_of_pixels,
)

if TYPE_CHECKING:
    import pandas as pd


class Kind(NamedTuple):
    """Class of an object and its probability: 1 if a person chose it, nan if not known."""

    class_id: int = 0
    probability: float = float("nan")


NO_REGIONS = "there are no regions here; run a model that finds some"
BY_HAND = 1.0
"""Class probability of an object whose class a person chose."""


class LabelEditor(Labelled):
    """A prediction that is corrected: its labels, regions and table change together.

    Parameters
    ----------
    prediction
        Its label images are edited in place; its table must be that of its labels.

    Attributes
    ----------
    prediction
        As it is now.
    index
        Bounding boxes and sizes of the objects.

    Raises
    ------
    EditError
        Where shapes do not fit, values are not whole numbers from 0 on, or the table is of other
        labels.
    """

    def __init__(self, prediction: Prediction) -> None:
        labels = prediction.instances.labels
        check_images(labels, prediction.regions, prediction.pixel_size_um)
        self.index = ObjectIndex.of(labels)
        self.prediction = prediction
        self._set_table(self._checked(prediction.instances.table))

    @classmethod
    def of_labels(
        cls,
        labels: np.ndarray,
        pixel_size_um: Sequence[float],
        regions: np.ndarray | None = None,
        *,
        known: pd.DataFrame | None = None,
        classes: tuple[LabelClass, ...] = (),
        region_classes: tuple[LabelClass, ...] = (),
    ) -> Self:
        """On label images that are measured now; arguments as for `labels.measure.labelled`."""
        check_images(labels, regions, pixel_size_um)
        return cls(
            labelled(
                labels,
                regions,
                pixel_size_um=pixel_size_um,
                known=known,
                classes=classes,
                region_classes=region_classes,
            )
        )

    def apply(self, edit: Edit) -> None:
        """Apply an edit that was made for the editor as it is now.

        The pixels may already have the new values, as napari writes them itself on undo and redo.

        Raises
        ------
        EditError
            Where the pixels are neither as before nor as after the edit; then nothing is changed.
        """
        image = self.labels if edit.target == "objects" else self.regions
        if image is None:
            raise EditError(NO_REGIONS)
        present = image[edit.indices]
        if not ((present == edit.old_values) | (present == edit.new_values)).all():
            raise EditError(
                f"{edit.name!r} was made for other {edit.target}: they have changed since; undo "
                "the later edits first"
            )
        image[edit.indices] = edit.new_values
        self._set_table(with_rows(self.table, edit.old_rows, edit.new_rows))
        if edit.target == "objects" and len(edit.new_values):
            self.index.update(edit)

    def revert(self, edit: Edit) -> None:
        """Revert the edit that was applied last."""
        self.apply(edit.inverse())

    def rows(self, ids: Iterable[int]) -> pd.DataFrame:
        """Rows of the objects that exist among these, ordered by id."""
        known = self.table["id"].to_numpy()
        wanted = np.unique(np.fromiter(ids, dtype=np.int64))
        at = np.searchsorted(known, wanted[np.isin(wanted, known)])
        return self.table.take(at).reset_index(drop=True)

    def pixels(self, ids: Sequence[int]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Coordinates of all pixels of existing objects, and the id of each."""
        return pixels_of(self.labels, [self.index.box(i) for i in ids], ids)

    def free_ids(self, count: int) -> list[int]:
        """Ids for new objects."""
        return self.index.free_ids(count, self.labels.dtype)

    def measured(
        self,
        coordinates: tuple[np.ndarray, ...],
        owners: np.ndarray,
        kinds: Mapping[int, Kind],
        regions: np.ndarray | None,
    ) -> pd.DataFrame:
        """Rows of objects that are given by their pixels.

        Parameters
        ----------
        kinds
            Of objects whose kind differs from their present row.
        regions
            (n,): region class id at each pixel.
        """
        ids = np.unique(owners)
        present = self.rows(ids)
        known = dict(
            zip(
                present["id"].tolist(),
                zip(present["class_id"], present["class_probability"], strict=True),
                strict=True,
            )
        )
        found = [kinds.get(int(i), known.get(int(i), Kind())) for i in ids]
        rows = table_of_pixels(
            coordinates,
            owners,
            regions,
            pixel_size_um=self.pixel_size_um,
            class_ids=np.array([kind[0] for kind in found], dtype=np.int64),
            class_probabilities=np.array([kind[1] for kind in found], dtype=np.float64),
            classes=self.classes,
            semantic_classes=self.region_classes,
        )
        return rows.astype(self.table.dtypes.to_dict())

    def _set_table(self, table: pd.DataFrame) -> None:
        instances = replace(self.prediction.instances, table=table)
        self.prediction = replace(self.prediction, instances=instances)

    def _checked(self, table: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        columns = STACK_OBJECT_COLUMNS if self.labels.ndim == 3 else OBJECT_COLUMNS
        missing = [column for column in columns if column not in table]
        if missing:
            raise EditError(f"the table has no column {missing[0]!r}; measure the labels again")
        table = table[list(columns)].sort_values("id", ignore_index=True)
        if not np.array_equal(table["id"], self.index.ids):
            raise EditError(
                f"the table has {len(table)} objects and the labels {len(self.index)}, or others; "
                "measure the labels again"
            )
        # An empty table has another text dtype, and rows are added and removed.
        text = pd.Series(["text"]).dtype
        return table.astype({"class": text, "region": text})


def check_images(
    labels: np.ndarray, regions: np.ndarray | None, pixel_size_um: Sequence[float]
) -> None:
    """Raise `EditError` where these images cannot be edited."""
    if labels.ndim not in (2, 3):
        raise EditError(f"labels have shape {labels.shape}; expected (Y, X) or (Z, Y, X)")
    _check_numbers(labels, "labels")
    if len(pixel_size_um) != labels.ndim:
        raise EditError(
            f"pixel size {pixel_size_um} has {len(pixel_size_um)} numbers; labels of "
            f"shape {labels.shape} need {labels.ndim}"
        )
    if regions is None:
        return
    if regions.shape != labels.shape:
        raise EditError(
            f"regions have shape {regions.shape}, labels {labels.shape}; correct them on one grid"
        )
    _check_numbers(regions, "regions")


def _check_numbers(image: np.ndarray, name: str) -> None:
    if not (image.dtype.kind in "iu" and np.can_cast(image.dtype, np.int64)):
        raise EditError(
            f"{name} are of type {image.dtype}; convert them to whole numbers of 32 bits"
        )
    if image.dtype.kind == "i" and int(image.min(initial=0)) < 0:
        raise EditError(f"{name} have values below 0; number them from 1 on, 0 is background")


def regions_of(editor: LabelEditor) -> np.ndarray:
    """The regions of the editor; raises `EditError` where it has none."""
    if editor.regions is None:
        raise EditError(NO_REGIONS)
    return editor.regions


def known_ids(editor: LabelEditor, ids: Collection[int]) -> list[int]:
    """The ids in ascending order, each once.

    Raises
    ------
    EditError
        Where there are none, or one has no object.
    """
    wanted = sorted({int(i) for i in ids} - {0})
    if not wanted:
        raise EditError("no object is chosen; choose one first")
    for object_id in wanted:
        editor.index.box(object_id)
    return wanted
