"""Corrections: functions of a `LabelEditor` (labels, regions, table) that give an `Edit`.

    editor = LabelEditor(
        layer.data, pixel_size_um, regions_layer.data, table, classes, region_classes
    )
    edit = merge(editor, ids_under_stroke(editor, points, width_px=5))   # changes nothing yet
    editor.apply(edit)                                                 # labels, index and table
    editor.revert(edit)                                    # restores every bit

`Edit.history_item` is an atom of the history of napari's Labels. Where napari itself writes the
pixels (undo, redo), `apply` and `revert` still bring index and table along.
"""
