"""A session in the hand: which tool is used, what keys do, where the camera goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers
from napari_coseg.widgets.correct.actions import Corrector
from napari_coseg.widgets.correct.add import MapsProvider
from napari_coseg.widgets.correct.canvas import PAN_KEY, Hand, Keys
from napari_coseg.widgets.correct.display import Display
from napari_coseg.widgets.correct.gesture import ObjectProposer
from napari_coseg.widgets.correct.proposals import HINT
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.correct.tools import (
    ACTIONS,
    ADD,
    BEFORE,
    BRUSH,
    CLASS_KEYS,
    MERGE_CHOSEN,
    NEXT,
    REGION_BRUSH,
    REST,
    REVIEWED,
    TOOLS,
    Tool,
)
from napari_coseg.widgets.dock_widget import notify_errors

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

SMALL_PX, ZOOMED_PX = 24, 80
"""Of the screen: an object to look at that is smaller than the first is shown as large as the
second."""


class Work:
    """What one session needs beside a panel; `close` leaves napari as it was.

    Signals
    -------
    tool_changed()
        `tool` is another, or none.
    class_changed()
        `corrector.object_class` or `corrector.region_class` is another.
    said(str)
        What was done, or is to be done now.
    """

    tool_changed = Signal()
    class_changed = Signal()
    said = Signal(str)

    def __init__(
        self, viewer: Viewer, session: CorrectionSession, maps: MapsProvider | None = None
    ) -> None:
        self._viewer, self.session = viewer, session
        self.tool: Tool | None = None
        self._switching = False
        self.display = Display(viewer, session)
        self.corrector = Corrector(session, self.display, maps)
        self.hand = Hand(viewer, session.objects)
        self.keys = Keys(viewer, session.layers)
        self.keys.bind(self._calls())
        self.corrector.said.connect(self._say)
        for layer in session.layers:
            layer.events.mode.connect(self._on_mode)
        viewer.layers.selection.events.active.connect(self._on_active)

    def close(self) -> None:
        """Put the tool down, give the keys back and take the helping layers away."""
        self.take(None)
        self._viewer.layers.selection.events.active.disconnect(self._on_active)
        for layer in self.session.layers:
            layer.events.mode.disconnect(self._on_mode)
        self.keys.release()
        self.hand.close()
        self.corrector.close()
        self.display.close()

    # -- tools ---------------------------------------------------------------------------------

    def take(self, tool: Tool | None) -> None:
        """Take a tool in the hand, in the place of another; None: drags move the picture.

        Raises
        ------
        EditError
            For a tool of regions where there are none.
        """
        if tool is not None:
            layer = self._layer_for(tool.group == "regions")
        self._switching = True
        try:
            for one in self.session.layers:
                one.mode = "pan_zoom"
                one.mouse_pan = True
            self.corrector.forget_click()
            if tool is None:
                self.hand.take(None)
            else:
                self.hand.take(
                    partial(tool.use, self.corrector),
                    closed=tool.closed,
                    is_box=lambda: tool.key == ADD and self.corrector.proposals is not None,
                )
                self._activate(layer)
                layer.mouse_pan = False
        finally:
            self._switching = False
        self.tool = tool
        self.tool_changed.emit()
        self._say(self._hint())

    def ask_sam(self, proposals: ObjectProposer | None) -> None:
        """Have the tool Add ask SAM2; None: the model's own maps."""
        if self.corrector.proposals is not None:
            self.corrector.proposals.close()
        self.corrector.proposals = proposals
        if self.tool is not None and self.tool.key == ADD:
            self._say(self._hint())

    def _hint(self) -> str:
        if self.tool is None:
            return ""
        is_sam = self.tool.key == ADD and self.corrector.proposals is not None
        return HINT if is_sam else self.tool.hint

    def brush(self) -> None:
        """Napari's brush, for the chosen object or, where none is chosen, for a new one.

        It paints over background alone, as long as napari's "preserve labels" is ticked.
        """
        chosen, editor = self.display.chosen, self.session.editor
        if len(chosen) > 1:
            raise EditError(f"{len(chosen)} objects are chosen; choose one to go on with, or none")
        object_id = chosen[0] if chosen else editor.free_ids(1)[0]
        self.take(None)
        layer = self.session.objects
        layer.preserve_labels = True
        self._paint(layer, object_id)
        new = f"new object {object_id}: {self.corrector.class_name(self.corrector.object_class)}"
        self._say(f"Brush for {f'object {object_id}' if chosen else new}")

    def region_brush(self) -> None:
        """Napari's brush for the region class."""
        layer = self._layer_for(regions=True)
        self.take(None)
        self._paint(layer, self.corrector.region_class)

    def _paint(self, layer: Labels, label: int) -> None:
        self._switching = True
        try:
            self._activate(layer)
            layer.selected_label = label
            layer.mode = "paint"
        finally:
            self._switching = False

    def _layer_for(self, regions: bool) -> Labels:
        if not regions:
            return self.session.objects
        if self.session.regions is None:
            raise EditError("no layer of regions is being corrected; finish, and choose one")
        return self.session.regions

    def _activate(self, layer: Labels) -> None:
        layer.visible = True
        self._viewer.layers.selection.active = layer

    def _on_mode(self, event: Any) -> None:
        """Somebody has taken a tool of napari's own."""
        if not self._switching and self.tool is not None and event.source.mode != "pan_zoom":
            mode = event.source.mode
            self.take(None)
            self._switching = True
            event.source.mode = mode
            self._switching = False

    def _on_active(self, event: Any) -> None:
        """Another layer is active: its drags are not ours."""
        if not self._switching and self.tool is not None and event.value is not None:
            self.take(None)

    # -- actions -------------------------------------------------------------------------------

    def act(self, use: Callable[[Corrector, Collection[int]], None], *, pointer: bool) -> None:
        """Do something to the chosen objects or, where none is and `pointer`, to that under it."""
        with notify_errors():
            use(self.corrector, self.targets(pointer))

    def targets(self, pointer: bool) -> list[int]:
        """Chosen objects or, where none is, the one under the pointer.

        Raises
        ------
        EditError
            Where there is neither.
        """
        ids = list(self.display.chosen)
        if not ids and pointer:
            under = self.under_pointer()
            ids = [under] if under else []
        if not ids:
            place = ", or point at one" if pointer else ""
            raise EditError(f"no object is chosen; click one with Select (S){place}")
        return ids

    def under_pointer(self) -> int:
        """Id of the object under the pointer, 0 for none."""
        position = self.session.objects.world_to_data(self._viewer.cursor.position)
        return self.corrector.object_at(position)

    def give_class(self, class_id: int, *, pointer: bool) -> None:
        """Tick a class of objects and give it to the chosen ones or, by key, under the pointer."""
        with notify_errors():
            self.corrector.class_name(class_id)
            known = {0, *(entry.id for entry in self.session.editor.classes)}
            if class_id not in known:
                raise EditError(f"there is no class {class_id}; use one of {sorted(known)}")
            self.corrector.object_class = class_id
            self.class_changed.emit()
            ids = list(self.display.chosen) or ([self.under_pointer()] if pointer else [])
            if any(ids):
                self.corrector.set_class(ids, class_id)

    def tick_region_class(self, class_id: int) -> None:
        """What drawn regions become."""
        known = {0, *(entry.id for entry in self.session.editor.region_classes)}
        with notify_errors():
            if class_id not in known:
                raise EditError(f"there is no region class {class_id}; use one of {sorted(known)}")
            self.corrector.region_class = class_id
            self.class_changed.emit()
            regions = self.session.regions
            if regions is not None and regions.mode == "paint":
                regions.selected_label = class_id

    def go(self, step: int = 1) -> None:
        """Show the next object in the order of doubt, or the one before."""
        with notify_errors():
            self.show_object(self.corrector.next_doubtful(step))

    def show_object(self, object_id: int) -> None:
        """Move the camera to an object, closer where it is too small to be seen."""
        viewer, layer = self._viewer, self.session.objects
        row = self.session.editor.rows([object_id]).iloc[0]
        axes = "zyx"[-layer.ndim :]
        factors = layers.units_in_view(viewer, layer)
        centre = [row[f"centroid_{axis}"] for axis in axes]
        world = np.asarray(layer.data_to_world(centre)) * factors
        shown = viewer.dims.displayed
        for axis, value in enumerate(world, start=viewer.dims.ndim - layer.ndim):
            if axis not in shown:
                viewer.dims.set_point(axis, float(value))
        camera = viewer.scene.camera
        at = world[[axis - viewer.dims.ndim for axis in shown]]
        camera.center = (*camera.center[: 3 - len(at)], *at.tolist())
        size = max(row["bbox_y1"] - row["bbox_y0"], row["bbox_x1"] - row["bbox_x0"])
        extent = float(size * abs(layer.scale[-1]) * factors[-1])
        if extent * camera.zoom < SMALL_PX:
            camera.zoom = ZOOMED_PX / extent

    # -- keys ----------------------------------------------------------------------------------

    def _calls(self) -> dict[str, Callable[[Any], Any]]:
        calls: dict[str, Callable[[Any], Any]] = {
            tool.key: _key(self._on_tool_key, tool) for tool in TOOLS
        }
        for action in (*ACTIONS, REVIEWED):
            calls[action.key] = _key(self._on_action_key, action.use)
        for key in CLASS_KEYS:
            calls[key] = _key(self._on_class_key, int(key))
        calls[BRUSH] = _key(self._told, self.brush)
        calls[REGION_BRUSH] = _key(self._told, self.region_brush)
        calls[NEXT] = _key(self.go)
        calls[BEFORE] = _key(self.go, -1)
        calls[REST] = _key(self._on_rest)
        calls[PAN_KEY] = self._on_pan_key
        return calls

    def _on_tool_key(self, tool: Tool) -> None:
        with notify_errors():
            if tool.key == MERGE_CHOSEN and len(self.display.chosen) > 1:
                self.corrector.merge_ids(self.display.chosen)
            else:
                self.take(tool)

    def _on_action_key(self, use: Callable[[Corrector, Collection[int]], None]) -> None:
        self.act(use, pointer=True)

    def _on_class_key(self, class_id: int) -> None:
        regions = self.session.regions
        if (self.tool and self.tool.group == "regions") or (regions and regions.mode == "paint"):
            self.tick_region_class(class_id)
        else:
            self.give_class(class_id, pointer=True)

    def _on_rest(self) -> None:
        """First nothing is chosen, then no tool is in the hand."""
        if self.display.chosen:
            self.display.choose(())
        else:
            self.take(None)

    def _on_pan_key(self, _: Any) -> Iterator[None]:
        layer = self._viewer.layers.selection.active
        if layer is None:
            return
        yield from self.hand.hold_to_pan(layer)

    def _told(self, call: Callable[[], None]) -> None:
        with notify_errors():
            call()

    def _say(self, words: str) -> None:
        self.said.emit(words)
        if words:
            self._viewer.status = words


def _key(call: Callable[..., None], *arguments: Any) -> Callable[[Any], None]:
    """What napari calls with the viewer or layer; a plain function, since it asks for a name."""

    def pressed(_: Any) -> None:
        call(*arguments)

    return pressed
