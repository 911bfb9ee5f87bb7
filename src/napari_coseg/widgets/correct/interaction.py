"""A session in use: the current tool, the keys, the camera."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers
from napari_coseg.widgets.connections import Connections
from napari_coseg.widgets.correct import tools
from napari_coseg.widgets.correct.actions import Corrector
from napari_coseg.widgets.correct.canvas import PAN_KEY, KeyBindings, MouseInput
from napari_coseg.widgets.correct.display import Display
from napari_coseg.widgets.correct.gesture import ObjectProposer
from napari_coseg.widgets.correct.run_proposer import RunProposer
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.correct.tools import ACTIONS, ADD, REVIEWED, TOOLS, Tool
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.runs import arguments_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

SMALL_PX, ZOOMED_PX = 24, 80
"""Screen pixels: an object smaller than the first is zoomed to the second when it is shown."""


class Interaction:
    """Tools, keys and display of one session; `close` leaves napari as it was.

    Signals
    -------
    tool_changed()
    class_changed()
        `corrector.object_class` or `corrector.region_class` has changed.
    message(str)
        Status: what was done, or what to do now.
    """

    tool_changed = Signal()
    class_changed = Signal()
    message = Signal(str)

    def __init__(self, viewer: Viewer, session: CorrectionSession) -> None:
        self.viewer, self.session = viewer, session
        self.tool: Tool | None = None
        self._is_switching = False
        self.display = Display(viewer, session)
        self.corrector = Corrector(session, self.display)
        self.mouse = MouseInput(viewer, session.objects)
        self.keys = KeyBindings(viewer, session.layers)
        self.keys.bind(self._calls())
        self.corrector.message.connect(self._show)
        self.set_proposer(None)
        self._connections = Connections()
        self._connections.connect(self._on_mode, *(one.events.mode for one in session.layers))
        self._connections.connect(self._on_active, viewer.layers.selection.events.active)

    def close(self) -> None:
        """End the tool, restore the keys and remove the helper layers."""
        self.use_tool(None)
        if self.corrector.proposer is not None:
            self.corrector.proposer.close()
        self._connections.close()
        self.keys.release()
        self.mouse.close()
        self.corrector.close()
        self.display.close()

    # -- tools ---------------------------------------------------------------------------------

    def use_tool(self, tool: Tool | None) -> None:
        """Use a tool in place of another; None: drags pan the canvas.

        Raises
        ------
        EditError
            For a tool of regions where there are none.
        """
        layer = None if tool is None else self._layer_for(tool.group == "regions")
        with self._switching():
            for one in self.session.layers:
                one.mode = "pan_zoom"
                one.mouse_pan = True
            self.corrector.forget_click()
            if tool is None or layer is None:
                self.mouse.send_to(None)
            else:
                self.mouse.send_to(
                    partial(tool.use, self.corrector),
                    closed=tool.closed,
                    is_box=lambda: tool.key == ADD and self._proposer_takes_boxes(),
                )
                self._activate(layer)
                layer.mouse_pan = False
        self.tool = tool
        self.tool_changed.emit()
        self._show(self._hint())

    def set_proposer(self, proposer: ObjectProposer | None) -> None:
        """Let the tool Add use SAM2; None: the model of the run, where it is known."""
        if self.corrector.proposer is not None:
            self.corrector.proposer.close()
        if proposer is None and arguments_of(self.session.objects):
            proposer = RunProposer(self.viewer, self.corrector)
        self.corrector.proposer = proposer
        if self.tool is not None and self.tool.key == ADD:
            self._show(self._hint())

    def _proposer_takes_boxes(self) -> bool:
        return self.corrector.proposer is not None and self.corrector.proposer.takes_boxes

    def _hint(self) -> str:
        if self.tool is None:
            return ""
        proposer = self.corrector.proposer if self.tool.key == ADD else None
        return (proposer.hint if proposer else "") or self.tool.hint

    def brush(self) -> None:
        """Use napari's brush for the selected object or, without a selection, for a new one.

        It paints only on background while napari's "preserve labels" is on.
        """
        selected, editor = self.display.selected, self.session.editor
        if len(selected) > 1:
            raise EditError(f"{len(selected)} objects are selected; select one to paint, or none")
        object_id = selected[0] if selected else editor.free_ids(1)[0]
        self.use_tool(None)
        self.session.objects.preserve_labels = True
        self._paint(self.session.objects, object_id)
        new = f"new object {object_id}: {self.corrector.class_name(self.corrector.object_class)}"
        self._show(f"Brush for {f'object {object_id}' if selected else new}")

    def region_brush(self) -> None:
        """Use napari's brush for the region class."""
        layer = self._layer_for(regions=True)
        self.use_tool(None)
        self._paint(layer, self.corrector.region_class)

    def _paint(self, layer: Labels, label: int) -> None:
        with self._switching():
            self._activate(layer)
            layer.selected_label = label
            layer.mode = "paint"

    def _layer_for(self, regions: bool) -> Labels:
        if not regions:
            return self.session.objects
        if self.session.regions is None:
            raise EditError("no layer of regions is being corrected; finish, and choose one")
        return self.session.regions

    def _activate(self, layer: Labels) -> None:
        layer.visible = True
        self.viewer.layers.selection.active = layer

    @contextmanager
    def _switching(self) -> Iterator[None]:
        """While modes and the active layer are changed by this class, not by the user."""
        before, self._is_switching = self._is_switching, True
        try:
            yield
        finally:
            self._is_switching = before

    def _on_mode(self, event: Any) -> None:
        """End the tool: the user has chosen one of napari's own."""
        mode = event.source.mode
        if not self._is_switching and self.tool is not None and mode != "pan_zoom":
            self.use_tool(None)
            with self._switching():
                event.source.mode = mode

    def _on_active(self, event: Any) -> None:
        """End the tool: another layer is active, and its drags are not ours."""
        if not self._is_switching and self.tool is not None and event.value is not None:
            self.use_tool(None)

    # -- actions -------------------------------------------------------------------------------

    def act(self, use: Callable[[Corrector, Collection[int]], None], *, pointer: bool) -> None:
        """Apply an action to the selected objects or, with `pointer`, to the one under it."""
        with notify_errors():
            use(self.corrector, self.targets(pointer))

    def targets(self, pointer: bool) -> list[int]:
        """Selected objects; without a selection and with `pointer`, the one under it.

        Raises
        ------
        EditError
            Where there is neither.
        """
        ids = list(self.display.selected)
        if not ids and pointer:
            ids = [i for i in (self.under_pointer(),) if i]
        if not ids:
            place = ", or point at one" if pointer else ""
            raise EditError(f"no object is selected; click one with Select (S){place}")
        return ids

    def under_pointer(self) -> int:
        """Id of the object under the pointer, 0 for none."""
        position = self.session.objects.world_to_data(self.viewer.cursor.position)
        return self.corrector.object_at(position)

    def give_class(self, class_id: int, *, pointer: bool) -> None:
        """Make a class the current one, and give it to the objects that `targets` finds."""
        with notify_errors():
            _check_class(class_id, self.session.editor.classes, "class")
            self.corrector.object_class = class_id
            self.class_changed.emit()
            ids = list(self.display.selected) or ([self.under_pointer()] if pointer else [])
            if any(ids):
                self.corrector.set_class(ids, class_id)

    def set_region_class(self, class_id: int) -> None:
        """Set the class that drawn regions get."""
        with notify_errors():
            _check_class(class_id, self.session.editor.region_classes, "region class")
            self.corrector.region_class = class_id
            self.class_changed.emit()
            regions = self.session.regions
            if regions is not None and regions.mode == "paint":
                regions.selected_label = class_id

    def go(self, step: int = 1) -> None:
        """Show the next unreviewed object by certainty or, with -1, the previous."""
        with notify_errors():
            self.show_object(self.corrector.select_next(step))

    def show_object(self, object_id: int) -> None:
        """Move the camera to an object, and zoom in where it is too small to see."""
        viewer, layer = self.viewer, self.session.objects
        row = self.session.editor.rows([object_id]).iloc[0]
        layers.centre_on(viewer, layer, [row[f"centroid_{axis}"] for axis in "zyx"[-layer.ndim :]])
        unit = layers.units_in_view(viewer, layer)
        extent = max(
            float((row[f"bbox_{axis}1"] - row[f"bbox_{axis}0"]) * abs(layer.scale[dim]) * unit[dim])
            for dim, axis in enumerate("zyx"[-layer.ndim :])
            if dim in layer._slice_input.displayed
        )
        if extent * viewer.scene.camera.zoom < SMALL_PX:
            viewer.scene.camera.zoom = ZOOMED_PX / extent

    # -- keys ----------------------------------------------------------------------------------

    def _calls(self) -> dict[str, Callable[[Any], Any]]:
        """What napari calls, with the viewer or layer, by key."""
        calls: dict[str, Callable[[], None]] = {
            **{tool.key: partial(self._on_tool_key, tool) for tool in TOOLS},
            **{one.key: partial(self.act, one.use, pointer=True) for one in (*ACTIONS, REVIEWED)},
            **{key: partial(self._on_class_key, int(key)) for key in tools.CLASS_KEYS},
            tools.BRUSH: self.brush,
            tools.REGION_BRUSH: self.region_brush,
            tools.NEXT: self.go,
            tools.PREVIOUS: partial(self.go, -1),
            tools.REST: self._on_rest,
        }
        return {**{key: _pressed(call) for key, call in calls.items()}, PAN_KEY: self._on_pan_key}

    def _on_tool_key(self, tool: Tool) -> None:
        if tool.key == tools.MERGE_SELECTED and len(self.display.selected) > 1:
            self.corrector.merge_ids(self.display.selected)
        else:
            self.use_tool(tool)

    def _on_class_key(self, class_id: int) -> None:
        regions = self.session.regions
        if (self.tool and self.tool.group == "regions") or (regions and regions.mode == "paint"):
            self.set_region_class(class_id)
        else:
            self.give_class(class_id, pointer=True)

    def _on_rest(self) -> None:
        """Clear the selection or, where there is none, end the tool."""
        if self.display.selected:
            self.display.select(())
        else:
            self.use_tool(None)

    def _on_pan_key(self, _: Any) -> Iterator[None]:
        layer = self.viewer.layers.selection.active
        if layer is not None:
            yield from self.mouse.hold_to_pan(layer)

    def _show(self, text: str) -> None:
        self.message.emit(text)
        if text:
            self.viewer.status = text


def _check_class(class_id: int, classes: Any, what: str) -> None:
    known = {0, *(entry.id for entry in classes)}
    if class_id not in known:
        raise EditError(f"there is no {what} {class_id}; use one of {sorted(known)}")


def _pressed(call: Callable[[], None]) -> Callable[[Any], None]:
    """A plain function, since napari asks for its name; errors become notifications."""

    def pressed(_: Any) -> None:
        with notify_errors():
            call()

    return pressed
