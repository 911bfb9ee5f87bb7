"""Event connections that end together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Connections:
    """Callbacks of napari's events and of signals, which `close` disconnects all at once."""

    def __init__(self) -> None:
        self._open: list[tuple[Any, Callable[..., Any]]] = []

    def connect(self, callback: Callable[..., Any], *emitters: Any) -> None:
        """Call `callback` whenever one of the emitters fires."""
        for emitter in emitters:
            emitter.connect(callback)
            self._open.append((emitter, callback))

    def close(self) -> None:
        """Disconnect everything; more may be connected afterwards."""
        while self._open:
            emitter, callback = self._open.pop()
            emitter.disconnect(callback)


def layer_list_events(viewer: Viewer) -> tuple[Any, ...]:
    """Events after which a list of the viewer's layers is out of date."""
    events = viewer.layers.events
    return events.inserted, events.removed, events.reordered, events.renamed
