"""Corrections: functions of a `LabelEditor` (labels, regions, table) that return an `Edit`.

    editor = LabelEditor(prediction)
    edit = merge(editor, ids_under_stroke(editor, points, width_px=5))   # changes nothing yet
    editor.apply(edit)                                                 # labels, index and table
    editor.revert(edit)                                                # restores every bit

`Edit.history_item` is an atom of the history of napari's Labels. Where napari itself writes the
pixels (undo, redo), `apply` and `revert` update index and table.
"""

from napari_coseg.labels.editing.add import grow
from napari_coseg.labels.editing.add_mask import add_mask
from napari_coseg.labels.editing.drawing import ids_inside_polygon, ids_under_stroke
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.interpolate import interpolate
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import (
    add_polygon,
    delete,
    fill_holes,
    merge,
    set_class,
    smooth,
)
from napari_coseg.labels.editing.regions import clean_regions, fill_region, set_region
from napari_coseg.labels.editing.rerun import merge_prediction, merge_regions
from napari_coseg.labels.editing.review import Reviewed, doubtful_first
from napari_coseg.labels.editing.split import split_along, split_at

__all__ = [
    "Edit",
    "LabelEditor",
    "Reviewed",
    "add_mask",
    "add_polygon",
    "clean_regions",
    "delete",
    "doubtful_first",
    "fill_holes",
    "fill_region",
    "grow",
    "ids_inside_polygon",
    "ids_under_stroke",
    "interpolate",
    "merge",
    "merge_prediction",
    "merge_regions",
    "set_class",
    "set_region",
    "smooth",
    "split_along",
    "split_at",
]
