"""An edit of a layer without a session: napari's undo and redo take the rows of objects along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.label_editors import CLASSES, plane
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import delete, merge, set_class

pytestmark = pytest.mark.gui


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda editor: merge(editor, (3, 4)), id="two become one"),
        pytest.param(lambda editor: delete(editor, (5, 7)), id="two go"),
        pytest.param(lambda editor: set_class(editor, (6, 8), 0), id="classes without a pixel"),
    ],
)
def test_rows_go_back_and_come_again_with_the_pixels(
    qapp: Any, change: Callable[[LabelEditor], Edit]
) -> None:
    from napari.layers import Labels

    from napari_coseg.widgets import outputs
    from napari_coseg.widgets.refine.rows import apply_with_rows

    editor = plane()
    before = outputs.object_features(editor.table)
    layer = Labels(
        editor.labels.copy(),
        features=before,
        colormap=outputs.object_colormap(
            "class", editor.table["id"], editor.table["class"], CLASSES
        ),
        metadata={"napari_coseg": {"classes": [vars(entry) for entry in CLASSES]}},
    )
    edit = change(editor)
    apply_with_rows(layer, edit)
    editor.apply(edit)
    after = outputs.object_features(editor.table)
    assert not after.equals(before)
    for rows, step in ((after, layer.undo), (before, layer.redo), (after, layer.undo)):
        pd.testing.assert_frame_equal(layer.features, rows, check_dtype=False)
        step()
    pd.testing.assert_frame_equal(layer.features, before, check_dtype=False)
    layer.data_setitem((np.array([0]), np.array([0])), 999)  # what was undone is past
    layer.undo()
    layer.redo()
    pd.testing.assert_frame_equal(layer.features, before, check_dtype=False)
