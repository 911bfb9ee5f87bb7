"""Corrections: functions of a `Desk` (labels, regions, table) that give an `Edit`.

    desk = Desk(layer.data, pixel_size_um, regions_layer.data, table, classes, region_classes)
    edit = merge(desk, ids_under_stroke(desk, points, width_px=5))   # changes nothing yet
    desk.apply(edit)                                                 # labels, index and table
    desk.revert(edit)                                                # all as they were, bit by bit

`Edit.history_item` is an atom of the history of napari's Labels. Where napari itself writes the
pixels (undo, redo), `apply` and `revert` still bring index and table along.
"""
