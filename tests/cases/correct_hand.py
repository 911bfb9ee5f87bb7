"""A mouse on a viewer's canvas: presses, drags and keys as napari's canvas hands them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cases.label_editors import CLASSES, REGIONS
from napari_coseg.labels.editing.label_editor import LabelEditor

SCREEN_PX = 8
"""Of the screen, a pixel of the labels."""


@dataclass
class MouseEvent:
    """What napari's callbacks look at."""

    type: str
    position: tuple[float, ...]
    pos: np.ndarray
    is_dragging: bool = False
    button: int = 1
    modifiers: list[str] = field(default_factory=list)
    view_direction: Any = None
    dims_displayed: tuple[int, ...] = (0, 1)
    handled: bool = False


def draw(
    viewer: Any,
    layer: Any,
    points: Sequence[Sequence[float]],
    *,
    shift: bool = False,
    control: bool = False,
) -> None:
    """Press at the first of the points (y, x), or (z, y, x), of the layer; move on; let go."""
    from napari.utils import interactions
    from napari.utils._proxies import ReadOnlyWrapper

    def call(kind: str, point: Sequence[float], function: Any) -> None:
        event = MouseEvent(
            kind,
            tuple(layer.data_to_world(point)),
            np.take(np.asarray(point, float), viewer.dims.displayed) * SCREEN_PX,
            is_dragging=kind != "mouse_press",
            modifiers=["Shift"] * shift + ["Control"] * control,
            dims_displayed=tuple(viewer.dims.displayed),
        )
        for owner in (viewer, viewer.layers.selection.active):
            function(owner, ReadOnlyWrapper(event, exceptions=("handled",)))

    call("mouse_press", points[0], interactions.mouse_press_callbacks)
    for point in points[1:]:
        call("mouse_move", point, interactions.mouse_move_callbacks)
    call("mouse_release", points[-1], interactions.mouse_release_callbacks)


def press(viewer: Any, key: str) -> None:
    """Press a key while the pointer is over the canvas, and let it go."""
    from napari.utils.key_bindings import KeymapHandler

    handler = KeymapHandler()
    handler.keymap_providers = [viewer.layers.selection.active, viewer]
    assert handler.press_key(key), f"{key} does nothing"
    handler.release_key(key)


def point_at(viewer: Any, layer: Any, point: Sequence[float]) -> None:
    """Move the pointer there."""
    viewer.cursor.position = tuple(layer.data_to_world(point))


def add_layers(viewer: Any, editor: LabelEditor, **place: Any) -> tuple[Any, Any]:
    """The editor's arrays as the two layers that a run adds: regions, objects."""
    from napari_coseg.widgets import outputs

    def about(kind: str, classes: Sequence[Any]) -> dict[str, Any]:
        listed = [{"id": e.id, "name": e.name, "color": list(e.color)} for e in classes]
        values = {"kind": kind, "image": "biopsy", "classes": listed, "provenance": {}}
        return {"napari_coseg": {**values, "pixel_size_um": list(editor.pixel_size_um)}}

    regions = viewer.add_labels(
        editor.regions,
        name="biopsy regions",
        metadata=about("regions", REGIONS),
        colormap=outputs.region_colormap(REGIONS),
        **place,
    )
    table = editor.table
    objects = viewer.add_labels(
        editor.labels,
        name="biopsy objects",
        metadata=about("objects", CLASSES),
        features=outputs.object_features(table),
        colormap=outputs.object_colormap("class", table["id"], table["class"], CLASSES),
        **place,
    )
    objects.contour = 1
    return regions, objects


def state(work: Any) -> dict[str, Any]:
    """All that a step may change, copied."""
    session = work.session
    return {
        "labels": session.objects.data.copy(),
        "regions": session.regions.data.copy(),
        "table": session.editor.table.copy(),
        "features": session.objects.features.copy(),
        "reviewed": session.reviewed.as_json(),
        "marks": work.display.marks_layer.data.copy(),
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit by bit."""
    for name, ours in one.items():
        theirs = other[name]
        if isinstance(ours, pd.DataFrame):
            pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
        elif isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            assert ours.dtype == theirs.dtype
        else:
            assert ours == theirs, name


def differs(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Names of what is not the same."""
    found = set()
    for name in one:
        try:
            assert_same({name: one[name]}, other)
        except AssertionError:
            found.add(name)
    return found


def assert_drawn(layer: Any) -> None:
    """The canvas holds what mapping every pixel again gives."""
    shown = layer._slice.image
    np.testing.assert_array_equal(shown.view, layer._raw_to_displayed(shown.raw))
