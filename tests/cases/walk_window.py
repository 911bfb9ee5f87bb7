"""A person at napari's real window: menus, clicks, drags and keys by Qt's events, and pictures."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget

PICTURES = "NAPARI_COSEG_WALK_PICTURES"
"""Environment variable: a folder that a picture of each step goes to."""
PATIENCE_S = 120.0
"""For what takes seconds on an idle machine."""
STEP_PX = 60
"""Of the screen, from one event of a drag to the next."""
PLUGIN = "Co-Seg"


class Window:
    """A viewer with its window shown, what a person does to it, and how long that took.

    Parameters
    ----------
    viewer
        Of napari, with a window.
    steps_before
        How many an earlier window took; pictures are numbered on.

    Attributes
    ----------
    seconds
        By step, as `step` measured them.
    """

    def __init__(self, viewer: Any, steps_before: int = 0) -> None:
        from napari.utils.notifications import notification_manager

        self.viewer = viewer
        self.seconds: dict[str, float] = {}
        self._steps_before = steps_before
        self._messages: list[str] = []
        notification_manager.notification_ready.connect(self._on_notification)
        folder = os.environ.get(PICTURES)
        self._pictures = Path(folder) if folder else None
        viewer.window._qt_window.resize(1700, 1000)
        self.wait_ms(200)

    def close(self) -> None:
        from napari.utils.notifications import notification_manager

        notification_manager.notification_ready.disconnect(self._on_notification)

    def _on_notification(self, event: Any) -> None:
        self._messages.append(str(event.message))

    # -- time ----------------------------------------------------------------------------------

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step of the walk: timed, pictured, and nothing may have been refused in it."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        self.picture(name)
        assert not self._messages, f"{name}: {self._messages}"

    def wait_until(self, is_so: Callable[[], Any], what: str) -> None:
        """Let the window live until something is so."""
        ends = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < ends, f"not so: {what}; messages: {self._messages}"
            self.wait_ms(20)

    def wait_ms(self, milliseconds: int) -> None:
        QTest.qWait(milliseconds)

    def picture(self, name: str) -> None:
        """Save what the whole window looks like, where the environment asks for it."""
        if self._pictures is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self.wait_ms(300)
            number = self._steps_before + len(self.seconds)
            path = self._pictures / f"{number:02d} {name}.png"
            self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    # -- menus and docks -----------------------------------------------------------------------

    def choose(self, menu: str, *path: str) -> None:
        """Choose an entry of one of napari's menus, by the words that it begins with."""
        at = getattr(self.viewer.window, f"{menu}_menu")
        for words in path:
            at.aboutToShow.emit()
            found = [action for action in at.actions() if action.text().startswith(words)]
            assert found, f"{words!r} is not in {[action.text() for action in at.actions()]}"
            action, at = found[0], found[0].menu()
        assert action.isEnabled()
        action.trigger()
        self.wait_ms(50)

    def dock(self, name: str) -> Any:
        """Open a dock by Plugins > Co-Seg, in front of the others; the widget in it."""
        before = set(self.viewer.window._qt_window.findChildren(QDockWidget))
        self.choose("plugins", PLUGIN, name)
        (new,) = set(self.viewer.window._qt_window.findChildren(QDockWidget)) - before
        new.raise_()
        self.wait_ms(50)
        return _content(new)

    def front(self, widget: Any) -> None:
        """Bring the dock that a widget is in before the others, as a click on its tab does."""
        docks = self.viewer.window._qt_window.findChildren(QDockWidget)
        next(dock for dock in docks if dock.isAncestorOf(widget)).raise_()
        self.wait_ms(50)

    def close_dock(self, widget: Any) -> None:
        """Close the dock that a widget is in, as its cross does."""
        self.viewer.window.remove_dock_widget(widget)
        self.wait_ms(50)

    def click(self, button: Any) -> None:
        """Click a button that a person could click."""
        assert button.isEnabled(), f"{button.text()!r} is grey"
        assert button.isVisible(), f"{button.text()!r} is not to be seen"
        button.click()
        self.wait_ms(20)

    def job(self, widget: Any) -> str:
        """Click on what a dock does, wait for its end; what it says then."""
        self.click(widget.bar.run_button)
        self.wait_until(lambda: not widget.bar.is_busy, f"{type(widget).__name__} is done")
        return str(widget.bar.text.text())

    # -- the canvas ----------------------------------------------------------------------------

    def draw(self, layer: Any, points: Sequence[Sequence[float]], *, shift: bool = False) -> None:
        """Press at the first of the points (y, x) in pixels of the layer, drag on, let go."""
        places = [self._place(layer, point) for point in points]
        modifiers = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        self._mouse(QEvent.Type.MouseMove, places[0], none, none, modifiers)
        self._mouse(QEvent.Type.MouseButtonPress, places[0], left, left, modifiers)
        for start, end in itertools.pairwise(places):
            apart = QPointF.dotProduct(end - start, end - start) ** 0.5
            for part in np.linspace(0, 1, 2 + int(apart / STEP_PX))[1:]:
                at = start + (end - start) * float(part)
                self._mouse(QEvent.Type.MouseMove, at, none, left, modifiers)
        self._mouse(QEvent.Type.MouseButtonRelease, places[-1], left, none, modifiers)
        self.wait_ms(20)

    def tap(self, layer: Any, point: Sequence[float], *, shift: bool = False) -> None:
        """Click at a point (y, x) of the layer."""
        self.draw(layer, [point], shift=shift)

    def press(self, key: str) -> None:
        """Press a key, as "M" or "Ctrl+Z", while the canvas has the focus."""
        *held, name = key.split("+")
        modifiers = Qt.KeyboardModifier.NoModifier
        for one in held:
            modifiers |= {
                "Ctrl": Qt.KeyboardModifier.ControlModifier,
                "Shift": Qt.KeyboardModifier.ShiftModifier,
            }[one]
        QTest.keyClick(self._canvas.native, getattr(Qt.Key, f"Key_{name}"), modifiers)
        self.wait_ms(20)

    @property
    def _canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas

    def _place(self, layer: Any, point: Sequence[float]) -> QPointF:
        """Where on the canvas a point of a layer is; the 2D camera looks straight at it."""
        from napari_coseg.widgets.layers import units_in_view

        world = np.asarray(layer.data_to_world(point)) * units_in_view(self.viewer, layer)
        camera, size = self.viewer.scene.camera, self._canvas.native.size()
        y, x = (world[-2:] - np.asarray(camera.center[-2:])) * camera.zoom
        place = QPointF(x + size.width() / 2, y + size.height() / 2)
        inside = 0 <= place.x() < size.width() and 0 <= place.y() < size.height()
        assert inside, f"{point} is outside of the canvas"
        return place

    def _mouse(self, kind: Any, at: QPointF, button: Any, buttons: Any, modifiers: Any) -> None:
        native = self._canvas.native
        to_screen = QPointF(native.mapToGlobal(QPoint(round(at.x()), round(at.y()))))
        event = QMouseEvent(kind, at, to_screen, button, buttons, modifiers)
        QApplication.sendEvent(native, event)
        QApplication.processEvents()


def _content(dock: QDockWidget) -> Any:
    """Our widget in one of napari's docks."""
    from napari_coseg.widgets.dock_widget import DockWidget

    (found,) = dock.findChildren(DockWidget)
    return found
