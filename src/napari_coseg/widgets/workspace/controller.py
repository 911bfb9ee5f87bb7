"""The open workspace of a viewer, and its links to the viewer's layers.

One controller per viewer, whether the Workspace dock is shown or not; `controller_of` finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_coseg.core.errors import CosegError, WorkspaceError
from napari_coseg.widgets.correct.session import SESSIONS, CorrectionSession, session_of
from napari_coseg.widgets.dock_widget import notify, notify_errors
from napari_coseg.widgets.labelled_image import image_of
from napari_coseg.widgets.outputs import is_output
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.workspace.layers import Loaded, adding, loaded, show
from napari_coseg.widgets.workspace.link import Recorded, WorkspaceLink
from napari_coseg.workspace import recent
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace, create_workspace, open_workspace
from napari_coseg.workspace.writer import SaveState

if TYPE_CHECKING:
    from napari.viewer import Viewer

_CONTROLLERS: WeakKeyDictionary[Any, WorkspaceController] = WeakKeyDictionary()


def controller_of(viewer: Viewer) -> WorkspaceController:
    """The controller of this viewer; made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands proxies to plugins
    if viewer not in _CONTROLLERS:
        _CONTROLLERS[viewer] = WorkspaceController(viewer)
    return _CONTROLLERS[viewer]


class WorkspaceController(QObject):
    """Opens, fills and closes the workspace of a viewer. All methods are for the GUI thread.

    Work is done in threads, one task at a time.

    Signals
    -------
    changed()
        Workspace, entries, links, or whether a task is running.
    failed(Exception, Entry | None)
        What went wrong, and the entry that it is about.

    Attributes
    ----------
    busy
        The running task in words; empty where there is none.
    """

    changed = Signal()
    failed = Signal(object, object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer_ref = ref(viewer)  # a strong reference would keep the viewer alive
        self.workspace: Workspace | None = None
        self.links: dict[str, WorkspaceLink] = {}
        self.busy = ""
        self._modified: WeakSet[Labels] = WeakSet()
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in viewer.layers:
            self._watch(layer)
        SESSIONS.opened.connect(self._on_session)
        for session in list(SESSIONS.open):
            self._on_session(session)

    @property
    def _viewer(self) -> Viewer:
        viewer = self._viewer_ref()
        if viewer is None:
            raise RuntimeError("the controller is used after its viewer was deleted")
        return viewer

    # -- the workspace -------------------------------------------------------------------------

    def create(self, path: Path) -> None:
        """Create a workspace and use it from now on."""
        self._run("Creating the workspace", partial(create_workspace, path), self._on_open)

    def create_and_wait(self, path: Path) -> None:
        """As `create`, but waits: the window is closing. Raises `CosegError`."""
        self._on_open(create_workspace(path))

    def open(self, path: Path) -> None:
        """Open a workspace; its images are opened one by one, by `open_entry`."""
        work = partial(open_workspace, path, write=True)
        self._run("Opening the workspace", work, self._on_open)

    def close(self) -> None:
        """Save everything and close the workspace, in a thread; the layers stay."""
        workspace = self.workspace
        if workspace is None or self.busy:
            return
        with notify_errors():
            self._record_all()
            # Closed only once everything is on disk.
            self._run("Saving", self._flush, partial(self._on_flushed, workspace))

    def finish(self) -> None:
        """As `close`, but waits: the window is closing.

        Raises
        ------
        CosegError
            Where the disk refuses; then the workspace stays open.
        """
        if self.workspace is None:
            return
        self.save_now()
        workspace = self.workspace
        self._unlink_all()
        workspace.close()
        recent.closed(workspace.path)

    def abandon(self) -> None:
        """Close the workspace without what could not be saved; it can be resumed later."""
        workspace = self.workspace
        if workspace is not None:
            self._unlink_all()
            with suppress(CosegError):  # the user was asked, and chose this
                workspace.close(wait_s=1)

    def save_now(self) -> None:
        """Write everything to disk, and wait. Raises `CosegError` where the disk refuses."""
        self._record_all()
        self._flush()

    @property
    def state(self) -> SaveState | None:
        """Save state of all links together; None where nothing is linked."""
        states = [link.writer.state for link in self.links.values()]
        if not states:
            return None
        waiting_since = [state.since for state in states if state.since is not None]
        return SaveState(
            min(state.saved_at for state in states),
            sum(state.waiting for state in states),
            min(waiting_since, default=None),
            next((state.error for state in states if state.error is not None), None),
        )

    # -- its images ----------------------------------------------------------------------------

    def add(self, image: ImageLayer, objects: Labels | None, regions: Labels | None) -> None:
        """Add a pair of label layers to the workspace, and save their corrections from now on."""
        with notify_errors():
            work = self._adding(image, objects, regions)
            self._run("Adding the labels", work, partial(self._on_added, objects, regions))

    def add_unsaved(self) -> None:
        """Add all of `unsaved` in pairs, and wait: the window is closing. Raises `CosegError`."""
        for layer in self.unsaved():
            if layer not in self.unsaved():
                continue  # added together with another
            session, linked = session_of(layer), self._linked()
            objects, regions = (None, layer) if is_output(layer, "regions") else (layer, None)
            if session is not None and id(session.objects) not in linked:
                objects, regions = session.objects, session.regions
            image = image_of(self._viewer, layer)
            if image is None:
                raise WorkspaceError(
                    f"the image of {layer.name!r} is not in the viewer; open it, or save the layer "
                    "by File > Save"
                )
            self._on_added(objects, regions, self._adding(image, objects, regions)())

    def open_entry(
        self,
        entry: Entry,
        also: Sequence[Path] = (),
        *,
        salvage: bool = False,
        with_image: bool = True,
    ) -> None:
        """Show an entry's image and labels, and save their corrections from now on.

        `failed` is emitted with `ImageNotFound` or `DamagedJournal` where the user has to decide.
        """

        def work() -> Loaded:
            self._flush()  # its layers may have been removed a moment ago
            return loaded(entry, also, salvage=salvage, with_image=with_image)

        self._run(f"Opening {entry.name}", work, partial(self._on_loaded, salvage), entry)

    def unsaved(self) -> list[Labels]:
        """Layers that were corrected and are not in a workspace, in the viewer's order."""
        linked = self._linked()
        return [
            layer
            for layer in self._viewer.layers
            if layer in self._modified and id(layer) not in linked
        ]

    def discard_unsaved(self) -> None:
        """Count all layers as unmodified: the user wants none of their corrections."""
        self._modified.clear()

    # ------------------------------------------------------------------------------------------

    def _linked(self) -> set[int]:
        return {id(layer) for link in self.links.values() for layer in link.layers.values()}

    def _adding(
        self, image: ImageLayer, objects: Labels | None, regions: Labels | None
    ) -> Callable[[], tuple[Entry, Recorded]]:
        if self.workspace is None:
            raise WorkspaceError("no workspace is open; create or open one")
        linked = self._linked()
        for layer in (objects, regions):
            if layer is not None and id(layer) in linked:
                raise WorkspaceError(f"{layer.name!r} is in this workspace already")
        return adding(self.workspace, image, objects, regions)

    def _run(
        self,
        name: str,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        entry: Entry | None = None,
    ) -> None:
        """Run a task in a thread, unless another is running."""
        if self.busy:
            error = WorkspaceError(f"{self.busy} is still in progress; wait until it has finished")
            self.failed.emit(error, None)
            return
        self.busy = name
        self.changed.emit()

        def done(found: Any) -> None:
            self.busy = ""
            then(found)
            self.changed.emit()

        def failed(error: Exception) -> None:
            self.busy = ""
            self.changed.emit()
            self.failed.emit(error, entry)

        run_in_thread(work, done=done, failed=failed)

    def _flush(self) -> None:
        if self.workspace is not None:
            self.workspace.flush()

    def _on_flushed(self, workspace: Workspace, _: None) -> None:
        self._unlink_all()
        self._run("Closing", workspace.close, lambda _: recent.closed(workspace.path))

    def _on_open(self, workspace: Workspace) -> None:
        try:
            self.finish()
        except CosegError as error:  # keep the former one, which holds unsaved corrections
            workspace.close()
            self.failed.emit(error, None)
            return
        self.workspace = workspace
        recent.opened(workspace.path)

    def _on_added(
        self, objects: Labels | None, regions: Labels | None, found: tuple[Entry, Recorded]
    ) -> None:
        self._link(*found, objects, regions, salvage=False)

    def _on_loaded(self, salvage: bool, found: Loaded) -> None:
        if found.entry.id in self.links:
            return
        objects, regions = show(self._viewer, found)
        self._link(found.entry, found.recorded, objects, regions, salvage=salvage)
        if found.why is not None:
            message = f"the labels are shown without their image: {found.why}"
            self.failed.emit(WorkspaceError(message), None)

    def _link(
        self,
        entry: Entry,
        recorded: Recorded,
        objects: Labels | None,
        regions: Labels | None,
        *,
        salvage: bool,
    ) -> None:
        if self.workspace is None:
            return
        writer = self.workspace.writer(entry, salvage=salvage)
        link = WorkspaceLink(entry, writer, recorded, self)
        link.failed.connect(lambda message: notify(WorkspaceError(message)))
        link.attach(objects, regions)
        self.links[entry.id] = link

    def _record_all(self) -> None:
        for link in self.links.values():
            link.record_all()

    def _unlink_all(self) -> None:
        for link in self.links.values():
            for layer in link.layers.values():
                self._modified.discard(layer)
            link.close()
        self.links = {}
        self.workspace = None

    # -- layers --------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _watch(self, layer: Any) -> None:
        if isinstance(layer, Labels):
            layer.events.paint.connect(self._on_paint)

    def _on_paint(self, event: Any) -> None:
        if session_of(event.source) is None:
            self._modified.add(event.source)

    def _on_session(self, session: CorrectionSession) -> None:
        unmodified = {layer for layer in session.layers if layer not in self._modified}
        session.changed.connect(partial(self._on_session_changed, session, unmodified))

    def _on_session_changed(
        self, session: CorrectionSession, unmodified: set[Labels], _: Any
    ) -> None:
        if session.undo_name is None:  # everything was undone
            self._modified -= unmodified
        else:
            self._modified.update(one for one in session.layers if one in self._viewer.layers)

    def _on_removed(self, event: Any) -> None:
        """Record the last changes of a removed layer, and end its link."""
        layer = event.value
        for key, link in list(self.links.items()):
            if layer in link.layers.values():
                with notify_errors():
                    link.record_all()
                link.close()
                del self.links[key]
                self.changed.emit()


def ago(seconds: float) -> str:
    """A time in the past, rounded."""
    if seconds < 60:
        return f"{int(seconds)} s ago"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    return f"{int(seconds // 3600)} h ago"


def describe(state: SaveState | None) -> tuple[str, bool]:
    """A save state in words, and whether all is well."""
    if state is None:
        return "Nothing is saved yet: open an image from the list, or add labels", True
    if state.error is not None:
        return f"Not saved: {state.error}. Changes stay in memory; saving is retried", False
    if state.waiting:
        return "Saving …", True
    return f"Saved {ago(time.monotonic() - state.saved_at)}", True
