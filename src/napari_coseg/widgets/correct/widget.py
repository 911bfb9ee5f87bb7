"""The Correct widget: objects and regions mended by hand, the doubtful first, all to be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QLabel,
    QPushButton,
)

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.edit import Target
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.measure import BACKGROUND, UNTYPED
from napari_coseg.widgets.correct.add import MapsProvider
from napari_coseg.widgets.correct.add_choice import AddChoice
from napari_coseg.widgets.correct.pair import PairChoice
from napari_coseg.widgets.correct.panel import (
    AreaChoice,
    ClassButtons,
    SpecksForm,
    action_button,
    button,
    grid,
    tool_button,
)
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.sam_use import SamUse
from napari_coseg.widgets.correct.session import CorrectionSession, session_of
from napari_coseg.widgets.correct.specks import Specks
from napari_coseg.widgets.correct.tools import (
    ACTIONS,
    BEFORE,
    BRUSH,
    CLASS_KEYS,
    NEXT,
    REGION_BRUSH,
    REVIEWED,
    TOOLS,
    Tool,
)
from napari_coseg.widgets.correct.work import Work
from napari_coseg.widgets.dock_widget import (
    DockWidget,
    column_of,
    group,
    notify,
    notify_errors,
    row,
)
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.run_maps import RunMaps
from napari_coseg.widgets.runs import arguments_of
from napari_coseg.widgets.workspace.guard import guard_closing

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

START, FINISH = "Start correcting", "Finish"


class CorrectWidget(DockWidget):
    """Dock widget on a pair of labels layers: tools, classes, regions, review, undo.

    Parameters
    ----------
    maps
        Where objects are grown from a click; None asks the run that made the layer, where there
        was one.
    """

    def __init__(self, napari_viewer: Viewer, maps: MapsProvider | None = None) -> None:
        super().__init__(napari_viewer)
        guard_closing(napari_viewer)
        self.maps = maps
        self._run_maps: RunMaps | None = None
        self.work: Work | None = None
        self.specks: Specks | None = None
        self._reading = self._is_closed = False
        self.pair = PairChoice(napari_viewer)
        self.start_button = QPushButton(START)
        self.start_button.setToolTip(
            "Napari's undo begins anew then, and takes back corrections of both layers in the "
            "order they were made"
        )
        self.tools: dict[str, QPushButton] = {tool.key: tool_button(tool) for tool in TOOLS}
        self.actions = {action.key: action_button(action) for action in (*ACTIONS, REVIEWED)}
        self.brush_button = button(
            "Brush", BRUSH, "Napari's brush: the chosen object, or a new one"
        )
        self.region_brush_button = button("Brush", REGION_BRUSH, "Napari's brush: the class below")
        self.next_button = button("Next", NEXT, "The least sure object that is not reviewed")
        self.before_button = button("Before", BEFORE, "The one before it")
        self.classes, self.region_classes = ClassButtons(CLASS_KEYS), ClassButtons()
        self.area_choice = AreaChoice()
        self.add_choice = AddChoice()
        self.sam_use = SamUse(napari_viewer, self.add_choice, self._say)
        self.specks_form = SpecksForm()
        self.left_label, self.status = QLabel(), QLabel()
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self._doubt_timer = QTimer(self)
        self._doubt_timer.setSingleShot(True)
        self._doubt_timer.timeout.connect(self._tell_doubt)
        self._build()
        self._connect()
        self._enable()

    def _build(self) -> None:
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(self.status.fontMetrics().lineSpacing() * 2)
        tools = {
            name: [self.tools[tool.key] for tool in TOOLS if tool.group == name]
            for name in ("objects", "regions", "review")
        }
        own = [self.actions[action.key] for action in ACTIONS]
        self.parts = [
            group(
                "Objects",
                column_of(
                    grid([*tools["objects"], self.brush_button, *own]),
                    self.add_choice,
                    self.classes,
                ),
            ),
            group(
                "Review",
                column_of(
                    grid(
                        [
                            self.next_button,
                            self.before_button,
                            self.actions[REVIEWED.key],
                            *tools["review"],
                        ]
                    ),
                    row(QLabel("Area counts for"), self.area_choice),
                    self.left_label,
                ),
            ),
            group(
                "Regions",
                column_of(
                    grid([*tools["regions"], self.region_brush_button]),
                    self.region_classes,
                    self.specks_form,
                ),
            ),
        ]
        below = column_of(self.status, grid([self.undo_button, self.redo_button]))
        self.lay_out(
            group("Layers", column_of(self.pair, self.start_button)), *self.parts, below=below
        )

    def _connect(self) -> None:
        for event in self._layer_events():
            event.connect(self._on_layers)
        self.start_button.clicked.connect(self._on_start)
        for tool in TOOLS:
            self.tools[tool.key].clicked.connect(lambda down, tool=tool: self._on_tool(tool, down))
        for action in (*ACTIONS, REVIEWED):
            self.actions[action.key].clicked.connect(
                lambda _, use=action.use: self._told(lambda work: work.act(use, pointer=False))
            )
        self.brush_button.clicked.connect(lambda: self._told(lambda work: work.brush()))
        self.region_brush_button.clicked.connect(
            lambda: self._told(lambda work: work.region_brush())
        )
        self.next_button.clicked.connect(lambda: self._told(lambda work: work.go()))
        self.before_button.clicked.connect(lambda: self._told(lambda work: work.go(-1)))
        self.classes.clicked.connect(
            lambda i: self._told(lambda work: work.give_class(i, pointer=False))
        )
        self.region_classes.clicked.connect(
            lambda i: self._told(lambda work: work.tick_region_class(i))
        )
        self.area_choice.chosen.connect(self._on_area_choice)
        self.undo_button.clicked.connect(lambda: self._told(lambda work: work.session.undo()))
        self.redo_button.clicked.connect(lambda: self._told(lambda work: work.session.redo()))
        self.specks_form.previewed.connect(self._on_preview)
        self.specks_form.accepted.connect(lambda: self._on_specks("accept"))
        self.specks_form.dropped.connect(lambda: self._on_specks("drop"))

    # -- a session -----------------------------------------------------------------------------

    @property
    def session(self) -> CorrectionSession | None:
        """The one that is worked on."""
        return None if self.work is None else self.work.session

    def start(self) -> None:
        """Begin to correct the chosen layers; objects are measured in a thread first."""
        if self._reading or self.work is not None:
            return
        with notify_errors():
            objects, regions = self.pair.objects, self.pair.regions
            if objects is None:
                raise EditError("no layer of objects is chosen; run Segment, or add a labels layer")
            there = session_of(objects)
            if there is not None:
                self._begin(there)
                return
            request = request_of(objects, regions)
            self._reading = True
            self._enable()
            self.status.setText("Measuring the objects …")
            marks = [len(layer._undo_history) for layer in (objects, regions) if layer is not None]
            run_in_thread(
                editor_of,
                *request,
                done=lambda editor: self._on_editor(objects, regions, marks, editor),
                failed=self._not_read,
            )

    def finish(self) -> None:
        """End the session: what was done stays, and can no longer be undone."""
        if self.work is None:
            return
        self.sam_use.end()
        work, self.work = self.work, None
        if self.specks is not None:
            self.specks.close()
            self.specks = None
        work.close()
        work.session.close()
        if self._run_maps is not None:
            self._run_maps.close()
            self._run_maps = None
        self.status.setText("")
        self.left_label.setText("")
        self.pair.list_layers()
        self._enable()

    def _on_editor(
        self, objects: Labels, regions: Labels | None, marks: list[int], editor: LabelEditor
    ) -> None:
        if self._is_closed:
            return
        self._reading = False
        self.status.setText("")
        layers = [layer for layer in (objects, regions) if layer is not None]
        if not all(layer in self._viewer.layers for layer in layers):
            self._enable()
        elif marks != [len(layer._undo_history) for layer in layers]:
            self.start()  # somebody has painted meanwhile
        else:
            with notify_errors():
                self._begin(CorrectionSession(objects, regions, editor))
            self._enable()

    def _not_read(self, error: Exception) -> None:
        if self._is_closed:
            return
        self._reading = False
        self.status.setText("")
        self._enable()
        notify(error)

    def _begin(self, session: CorrectionSession) -> None:
        if self.maps is None and arguments_of(session.objects):
            self._run_maps = RunMaps(self._viewer, session.objects)
        self.work = work = Work(self._viewer, session, self.maps or self._run_maps)
        self.area_choice.choose(work.corrector.area_targets)
        self.specks = Specks(self._viewer, session)
        self.specks_form.set_previewing(False)
        editor = session.editor
        self.classes.set_classes(editor.classes, UNTYPED)
        self.region_classes.set_classes(editor.region_classes, BACKGROUND)
        session.new_class = editor.classes[0].id if editor.classes else 0
        self._tick()
        work.said.connect(self._say)
        work.class_changed.connect(self._tick)
        work.tool_changed.connect(self._on_tool_changed)
        work.display.chosen_changed.connect(self._enable)
        work.corrector.doubt_changed.connect(self._on_done)
        self.specks.changed.connect(self._on_specks_changed)
        session.closed.connect(self.finish)
        self._enable()
        self._tell_doubt()
        work.take(TOOLS[0])
        self.sam_use.begin(work)
        self._say(f"{len(editor.index):,} objects. {TOOLS[0].hint}")

    def _on_start(self) -> None:
        if self.work is None:
            self.start()
        else:
            self.finish()

    # -- the panel -----------------------------------------------------------------------------

    def _on_tool(self, tool: Tool, down: bool) -> None:
        self._told(lambda work: work.take(tool if down else None))
        self._on_tool_changed()  # where the tool was refused

    def _on_tool_changed(self) -> None:
        tool = self.work.tool if self.work else None
        for key, one in self.tools.items():
            one.setChecked(tool is not None and tool.key == key)

    def _tick(self) -> None:
        if self.work is not None:
            self.classes.tick(self.work.corrector.object_class)
            self.region_classes.tick(self.work.corrector.region_class)

    def _on_area_choice(self, targets: tuple[Target, ...]) -> None:
        if self.work is not None:
            self.work.corrector.area_targets = targets

    def _on_done(self) -> None:
        self._enable()
        self._doubt_timer.start(0)

    def _tell_doubt(self) -> None:
        if self.work is None:
            return
        doubt = self.work.corrector.doubt()
        self.left_label.setText(f"<b>{doubt.left:,}</b> of {doubt.total:,} objects left to review")

    def _on_preview(self, speck_um2: float, hole_um2: float) -> None:
        if self.specks is not None:
            self.specks.preview(speck_um2, hole_um2)

    def _on_specks(self, what: str) -> None:
        if self.specks is not None:
            with notify_errors():
                getattr(self.specks, what)()

    def _on_specks_changed(self, words: str) -> None:
        if self.specks is not None:
            self.specks_form.set_previewing(self.specks.previewing, self.specks.busy)
        self._say(words)

    def _say(self, words: str) -> None:
        self.status.setText(words)

    def _told(self, call: Any) -> None:
        if self.work is not None:
            with notify_errors():
                call(self.work)

    def _enable(self) -> None:
        work = self.work
        self.start_button.setText(START if work is None else FINISH)
        self.start_button.setEnabled(not self._reading)
        self.pair.setEnabled(work is None and not self._reading)
        for part in self.parts:
            part.setEnabled(work is not None)
        if work is not None:
            has_regions = work.session.regions is not None
            self.parts[-1].setEnabled(has_regions)
            self.area_choice.setEnabled(has_regions)
        for action in self.actions.values():
            action.setEnabled(work is not None and bool(work.display.chosen))
        session = None if work is None else work.session
        for one, name in (
            (self.undo_button, session and session.undo_name),
            (self.redo_button, session and session.redo_name),
        ):
            one.setEnabled(bool(name))
            one.setToolTip(name or "")

    def _on_layers(self, _: Any = None) -> None:
        """Where a layer that is corrected is gone, the session ends."""
        if self.work is None:
            self.pair.list_layers()
        elif not all(layer in self._viewer.layers for layer in self.work.session.layers):
            self.finish()

    def let_go(self) -> None:
        self._is_closed = True
        self.finish()
        for event in self._layer_events():
            event.disconnect(self._on_layers)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed
