"""The Correct widget: tools on objects and regions, review of uncertain objects first, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QPushButton

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.edit import Target
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.measure import BACKGROUND, UNTYPED
from napari_coseg.widgets.connections import layer_list_events
from napari_coseg.widgets.correct import tools
from napari_coseg.widgets.correct.add_choice import AddChoice
from napari_coseg.widgets.correct.interaction import Interaction
from napari_coseg.widgets.correct.panel import (
    AreaChoice,
    ClassButtons,
    CleanupForm,
    action_button,
    button,
    grid,
    tool_button,
)
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.region_cleanup import RegionCleanup
from napari_coseg.widgets.correct.sam import SamController
from napari_coseg.widgets.correct.session import CorrectionSession, session_of
from napari_coseg.widgets.correct.tools import ACTIONS, REVIEWED, TOOLS, Tool
from napari_coseg.widgets.dock_widget import DockWidget, notify, notify_errors
from napari_coseg.widgets.forms import column_of, group, row, text_label
from napari_coseg.widgets.layer_choice import LayerChoice
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.workspace.guard import guard_closing

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

START, FINISH = "Start correcting", "Finish"


class CorrectWidget(DockWidget):
    """Dock widget that corrects a pair of labels layers."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        guard_closing(napari_viewer)
        self.interaction: Interaction | None = None
        self.cleanup: RegionCleanup | None = None
        self._reading = self._is_closed = False
        self.pair = LayerChoice(napari_viewer)
        self.start_button = QPushButton(START)
        self.start_button.setToolTip(
            "Clears napari's undo history; from then on undo covers both layers, in the order of "
            "the corrections"
        )
        self.tools: dict[str, QPushButton] = {tool.key: tool_button(tool) for tool in TOOLS}
        self.actions = {action.key: action_button(action) for action in (*ACTIONS, REVIEWED)}
        self.brush_button = button(
            "Brush", tools.BRUSH, "napari's brush: paints the selected object, or a new one"
        )
        self.region_brush_button = button(
            "Brush", tools.REGION_BRUSH, "napari's brush: paints the region class selected below"
        )
        self.next_button = button(
            "Next", tools.NEXT, "The least certain object that is not reviewed"
        )
        self.previous_button = button("Previous", tools.PREVIOUS, "The object before it")
        self.classes, self.region_classes = ClassButtons(tools.CLASS_KEYS), ClassButtons()
        self.area_choice = AreaChoice()
        self.add_choice = AddChoice()
        self.sam_control = SamController(napari_viewer, self.add_choice, self._show)
        self.cleanup_form = CleanupForm()
        self.left_label, self.status = QLabel(), text_label()
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self._left_timer = QTimer(self)
        self._left_timer.setSingleShot(True)
        self._left_timer.timeout.connect(self._show_left)
        self._build()
        self._connect()
        self._enable()

    def _build(self) -> None:
        self.status.setMinimumHeight(self.status.fontMetrics().lineSpacing() * 2)
        by_group = {
            name: [self.tools[tool.key] for tool in TOOLS if tool.group == name]
            for name in ("objects", "regions", "review")
        }
        actions = [self.actions[action.key] for action in ACTIONS]
        review = [self.next_button, self.previous_button, self.actions[REVIEWED.key]]
        self.parts = [
            group(
                "Objects",
                grid([*by_group["objects"], self.brush_button, *actions]),
                self.add_choice,
                self.classes,
            ),
            group(
                "Review",
                grid([*review, *by_group["review"]]),
                row(QLabel("Area counts for"), self.area_choice),
                self.left_label,
            ),
            group(
                "Regions",
                grid([*by_group["regions"], self.region_brush_button]),
                self.region_classes,
                self.cleanup_form,
            ),
        ]
        below = column_of(self.status, grid([self.undo_button, self.redo_button]))
        self.lay_out(group("Layers", self.pair, self.start_button), *self.parts, below=below)

    def _connect(self) -> None:
        self.connections.connect(self._on_layers, *layer_list_events(self._viewer))
        self.start_button.clicked.connect(self._on_start)
        for tool in TOOLS:
            self.tools[tool.key].clicked.connect(lambda down, tool=tool: self._on_tool(tool, down))
        for action in (*ACTIONS, REVIEWED):
            self._on_click(self.actions[action.key], Interaction.act, action.use, pointer=False)
        self._on_click(self.brush_button, Interaction.brush)
        self._on_click(self.region_brush_button, Interaction.region_brush)
        self._on_click(self.next_button, Interaction.go)
        self._on_click(self.previous_button, Interaction.go, -1)
        self._on_click(self.undo_button, lambda one: one.session.undo())
        self._on_click(self.redo_button, lambda one: one.session.redo())
        self.classes.clicked.connect(
            lambda i: self._call(lambda one: one.give_class(i, pointer=False))
        )
        self.region_classes.clicked.connect(
            lambda i: self._call(lambda one: one.set_region_class(i))
        )
        self.area_choice.chosen.connect(self._on_area_choice)
        self.cleanup_form.previewed.connect(self._on_preview)
        self.cleanup_form.accepted.connect(lambda: self._on_cleanup(RegionCleanup.accept))
        self.cleanup_form.discarded.connect(lambda: self._on_cleanup(RegionCleanup.discard))

    def _on_click(
        self, clicked: QPushButton, call: Callable[..., None], *args: Any, **kwargs: Any
    ) -> None:
        clicked.clicked.connect(lambda: self._call(lambda one: call(one, *args, **kwargs)))

    def _call(self, call: Callable[[Interaction], None]) -> None:
        if self.interaction is not None:
            with notify_errors():
                call(self.interaction)

    # -- a session -----------------------------------------------------------------------------

    @property
    def session(self) -> CorrectionSession | None:
        """The session in use."""
        return None if self.interaction is None else self.interaction.session

    def start(self) -> None:
        """Start to correct the chosen layers; objects are measured in a thread first."""
        if self._reading or self.interaction is not None:
            return
        with notify_errors():
            objects, regions = self.pair.objects, self.pair.regions
            if objects is None:
                raise EditError("no layer of objects is chosen; run Segment, or add a labels layer")
            existing = session_of(objects)
            if existing is not None:
                self._begin(existing)
                return
            request = request_of(objects, regions)
            self._set_reading(True)
            layers = [layer for layer in (objects, regions) if layer is not None]
            histories = [len(layer._undo_history) for layer in layers]
            run_in_thread(
                editor_of,
                *request,
                done=lambda editor: self._on_editor(objects, regions, histories, editor),
                failed=self._on_not_read,
            )

    def finish(self) -> None:
        """End the session: corrections stay, and can no longer be undone."""
        if self.interaction is None:
            return
        self.sam_control.end()
        interaction, self.interaction = self.interaction, None
        if self.cleanup is not None:
            self.cleanup.close()
            self.cleanup = None
        interaction.close()
        interaction.session.close()
        self.status.setText("")
        self.left_label.setText("")
        self.pair.list_layers()
        self._enable()

    def _set_reading(self, reading: bool) -> None:
        self._reading = reading
        self.status.setText("Measuring the objects …" if reading else "")
        self._enable()

    def _on_editor(
        self, objects: Labels, regions: Labels | None, histories: list[int], editor: LabelEditor
    ) -> None:
        if self._is_closed:
            return
        self._set_reading(False)
        layers = [layer for layer in (objects, regions) if layer is not None]
        if not all(layer in self._viewer.layers for layer in layers):
            return
        if histories != [len(layer._undo_history) for layer in layers]:
            self.start()  # the user has painted in the meantime
            return
        with notify_errors():
            self._begin(CorrectionSession(objects, regions, editor))

    def _on_not_read(self, error: Exception) -> None:
        if not self._is_closed:
            self._set_reading(False)
            notify(error)

    def _begin(self, session: CorrectionSession) -> None:
        self.interaction = interaction = Interaction(self._viewer, session)
        self.area_choice.set_targets(interaction.corrector.area_targets)
        self.cleanup = RegionCleanup(self._viewer, session)
        self.cleanup_form.set_previewing(False)
        editor = session.editor
        self.classes.set_classes(editor.classes, UNTYPED)
        self.region_classes.set_classes(editor.region_classes, BACKGROUND)
        session.new_class = editor.classes[0].id if editor.classes else 0
        self._show_classes()
        interaction.message.connect(self._show)
        interaction.class_changed.connect(self._show_classes)
        interaction.tool_changed.connect(self._show_tool)
        interaction.display.selection_changed.connect(self._enable)
        interaction.corrector.review_changed.connect(self._on_step)
        self.cleanup.changed.connect(self._on_cleanup_changed)
        session.closed.connect(self.finish)
        self._enable()
        self._show_left()
        interaction.use_tool(TOOLS[0])
        self.sam_control.begin(interaction)
        self._show(f"{len(editor.index):,} objects. {TOOLS[0].hint}")

    def _on_start(self) -> None:
        if self.interaction is None:
            self.start()
        else:
            self.finish()

    # -- the panel -----------------------------------------------------------------------------

    def _on_tool(self, tool: Tool, down: bool) -> None:
        self._call(lambda one: one.use_tool(tool if down else None))
        self._show_tool()  # also where the tool was refused

    def _show_tool(self) -> None:
        tool = self.interaction.tool if self.interaction else None
        for key, one in self.tools.items():
            one.setChecked(tool is not None and tool.key == key)

    def _show_classes(self) -> None:
        if self.interaction is not None:
            self.classes.set_current(self.interaction.corrector.object_class)
            self.region_classes.set_current(self.interaction.corrector.region_class)

    def _on_area_choice(self, targets: tuple[Target, ...]) -> None:
        if self.interaction is not None:
            self.interaction.corrector.area_targets = targets

    def _on_step(self) -> None:
        self._enable()
        self._left_timer.start(0)

    def _show_left(self) -> None:
        if self.interaction is not None:
            left, total = self.interaction.corrector.unreviewed()[1:]
            self.left_label.setText(f"<b>{left:,}</b> of {total:,} objects left to review")

    def _on_preview(self, piece_um2: float, hole_um2: float) -> None:
        if self.cleanup is not None:
            self.cleanup.preview(piece_um2, hole_um2)

    def _on_cleanup(self, call: Callable[[RegionCleanup], None]) -> None:
        if self.cleanup is not None:
            with notify_errors():
                call(self.cleanup)

    def _on_cleanup_changed(self, text: str) -> None:
        if self.cleanup is not None:
            self.cleanup_form.set_previewing(self.cleanup.previewing, self.cleanup.busy)
        self._show(text)

    def _show(self, text: str) -> None:
        self.status.setText(text)

    def _enable(self) -> None:
        interaction = self.interaction
        is_open = interaction is not None
        self.start_button.setText(FINISH if is_open else START)
        self.start_button.setEnabled(not self._reading)
        self.pair.setEnabled(not is_open and not self._reading)
        for part in self.parts:
            part.setEnabled(is_open)
        if interaction is not None:
            has_regions = interaction.session.regions is not None
            self.parts[-1].setEnabled(has_regions)
            self.area_choice.setEnabled(has_regions)
        for action in self.actions.values():
            action.setEnabled(interaction is not None and bool(interaction.display.selected))
        session = self.session
        for one, name in (
            (self.undo_button, session and session.undo_name),
            (self.redo_button, session and session.redo_name),
        ):
            one.setEnabled(bool(name))
            one.setToolTip(name or "")

    def _on_layers(self, _: Any = None) -> None:
        """End the session where one of its layers was removed."""
        session = self.session
        if session is not None and not all(one in self._viewer.layers for one in session.layers):
            self.finish()

    def let_go(self) -> None:
        self._is_closed = True
        self.finish()
        self.pair.connections.close()
