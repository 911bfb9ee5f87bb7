"""Where docks of this plugin come to lie in a real window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("napari")

from qtpy.QtWidgets import QDockWidget

from cases.widget_values import RUN_MS
from napari_coseg.widgets.dock_widget import DockWidget

pytestmark = pytest.mark.gui


class Plain(DockWidget):
    """One without a process."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self.lay_out()


def test_docks_of_this_plugin_are_tabs_beside_each_other(
    make_napari_viewer: Callable[..., Any], qtbot: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    docks = [viewer.window.add_dock_widget(Plain(viewer), name="first")]
    qtbot.wait(10)
    assert not window.tabifiedDockWidgets(docks[0]), "others' docks are left where they are"
    docks.append(viewer.window.add_dock_widget(Plain(viewer), name="second"))
    qtbot.waitUntil(lambda: window.tabifiedDockWidgets(docks[0]) == [docks[1]], timeout=RUN_MS)
    docks[1].setFloating(True)
    docks.append(viewer.window.add_dock_widget(Plain(viewer), name="third"))
    qtbot.waitUntil(lambda: window.tabifiedDockWidgets(docks[0]) == [docks[2]], timeout=RUN_MS)
    assert docks[1].isFloating(), "what a person has moved stays"
    assert all(isinstance(dock, QDockWidget) for dock in docks)
