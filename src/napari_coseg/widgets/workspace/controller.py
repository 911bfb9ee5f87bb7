"""What keeps a viewer's corrections: the open workspace, its links to layers, and the end.

One of these a viewer, whether the Workspace dock is shown or not; `controller_of` finds it.
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
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import notify, notify_errors
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.widgets.workspace.layers import Loaded, adding, image_of, loaded, show
from napari_coseg.widgets.workspace.link import Known, WorkspaceLink
from napari_coseg.workspace import recent
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace, create_workspace, open_workspace
from napari_coseg.workspace.writer import SaveState

if TYPE_CHECKING:
    from napari.viewer import Viewer

_KEEPERS: WeakKeyDictionary[Any, WorkspaceController] = WeakKeyDictionary()


def controller_of(viewer: Viewer) -> WorkspaceController:
    """The one of this viewer; made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands proxies to plugins
    if viewer not in _KEEPERS:
        _KEEPERS[viewer] = WorkspaceController(viewer)
    return _KEEPERS[viewer]


class WorkspaceController(QObject):
    """Opens, fills and closes the workspace of a viewer.

    Work is done in threads; `failed` tells what a person can mend. All methods are for the GUI
    thread.

    Signals
    -------
    changed()
        Workspace, entries, links, or whether something is being done.
    failed(Exception, Entry | None)
        What went wrong, and the entry that it is about.
    """

    changed = Signal()
    failed = Signal(object, object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer_ref = ref(viewer)  # or no viewer would ever be let go of
        self.workspace: Workspace | None = None
        self.links: dict[str, WorkspaceLink] = {}
        self.busy = ""
        """What is being done, in words; empty while nothing is."""
        self._touched: WeakSet[Labels] = WeakSet()
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in viewer.layers:
            self._listen(layer)
        SESSIONS.opened.connect(self._on_session)
        for session in list(SESSIONS.open):
            self._on_session(session)

    @property
    def _viewer(self) -> Viewer:
        viewer = self._viewer_ref()
        if viewer is None:
            raise RuntimeError("the viewer is gone, and its controller is asked")
        return viewer

    # -- the workspace -------------------------------------------------------------------------

    def create(self, path: Path) -> None:
        """Make a workspace and keep corrections in it from now on."""
        self._do("Making the workspace", partial(create_workspace, path), self._on_open)

    def create_and_wait(self, path: Path) -> None:
        """As `create`, but waits: the window is closing. Raises `CosegError`."""
        self._on_open(create_workspace(path))

    def open(self, path: Path) -> None:
        """Open a workspace; its images are opened one by one, by `open_entry`."""
        work = partial(open_workspace, path, write=True)
        self._do("Opening the workspace", work, self._on_open)

    def close(self) -> None:
        """Save what is left and close the workspace, in a thread; its layers stay."""
        workspace = self.workspace
        if workspace is None or self.busy:
            return
        with notify_errors():
            self._tell_all()
            # Only what is on the disk is let go of.
            self._do("Saving", self._flush, partial(self._on_flushed, workspace))

    def finish(self) -> None:
        """As `close`, but waits: the window is closing.

        Raises
        ------
        CosegError
            Where the disk refuses; then all is as before, and the workspace open.
        """
        if self.workspace is None:
            return
        self.save_now()
        workspace = self.workspace
        self._let_go()
        workspace.close()
        recent.closed(workspace.path)

    def give_up(self) -> None:
        """Close the workspace without what could not be saved; it is offered again."""
        workspace = self.workspace
        if workspace is not None:
            self._let_go()
            with suppress(CosegError):  # a person was told, and chose this
                workspace.close(wait_s=1)

    def save_now(self) -> None:
        """Bring everything to the disk, and wait. Raises `CosegError` where it refuses."""
        self._tell_all()
        self._flush()

    @property
    def state(self) -> SaveState | None:
        """Of all links together; None where nothing is linked."""
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
        """Keep a pair of layers in the workspace from now on."""
        with notify_errors():
            work = self._adding(image, objects, regions)
            self._do("Adding the labels", work, partial(self._on_added, objects, regions))

    def add_unsaved(self) -> None:
        """Add all of `unsaved` in pairs, and wait: the window is closing. Raises `CosegError`."""
        for layer in self.unsaved():
            if layer not in self.unsaved():
                continue  # it went with another
            session = session_of(layer)
            kept = {id(one) for link in self.links.values() for one in link.layers.values()}
            kind = dict(layer.metadata.get(METADATA_KEY, {})).get("kind")
            objects, regions = (None, layer) if kind == "regions" else (layer, None)
            if session is not None and id(session.objects) not in kept:
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
        """Show an entry's image and labels, and keep what is corrected.

        `failed` is told with `ImageNotFound` or `DamagedJournal` where a person must say more.
        """

        def work() -> Loaded:
            self._flush()  # where its layers were removed a moment ago
            return loaded(entry, also, salvage=salvage, with_image=with_image)

        self._do(f"Opening {entry.name}", work, partial(self._on_loaded, salvage), entry)

    def unsaved(self) -> list[Labels]:
        """Layers that were corrected and are kept by no workspace, objects first."""
        kept = {id(layer) for link in self.links.values() for layer in link.layers.values()}
        return [
            layer
            for layer in self._viewer.layers
            if layer in self._touched and id(layer) not in kept
        ]

    def forget_unsaved(self) -> None:
        """A person wants none of it."""
        self._touched.clear()

    # ------------------------------------------------------------------------------------------

    def _adding(
        self, image: ImageLayer, objects: Labels | None, regions: Labels | None
    ) -> Callable[[], tuple[Entry, Known]]:
        if self.workspace is None:
            raise WorkspaceError("no workspace is open; make one, or open one")
        for link in self.links.values():
            names = [layer.name for layer in link.layers.values() if layer in (objects, regions)]
            if names:
                raise WorkspaceError(f"{names[0]!r} is kept in this workspace already")
        return adding(self.workspace, image, objects, regions)

    def _do(
        self,
        words: str,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        entry: Entry | None = None,
    ) -> None:
        """Do something in a thread, one thing at a time."""
        if self.busy:
            error = WorkspaceError(f"{self.busy} is still going on; wait for its end")
            self.failed.emit(error, None)
            return
        self.busy = words
        self.changed.emit()

        def done(found: Any) -> None:
            self.busy = ""
            then(found)
            self.changed.emit()

        def refused(error: Exception) -> None:
            self.busy = ""
            self.changed.emit()
            self.failed.emit(error, entry)

        run_in_thread(work, done=done, failed=refused)

    def _flush(self) -> None:
        if self.workspace is not None:
            self.workspace.flush()

    def _on_flushed(self, workspace: Workspace, _: None) -> None:
        self._let_go()
        self._do("Closing", workspace.close, lambda _: recent.closed(workspace.path))

    def _on_open(self, workspace: Workspace) -> None:
        try:
            self.finish()
        except CosegError as error:  # nothing that could not be saved is let go of
            workspace.close()
            self.failed.emit(error, None)
            return
        self.workspace = workspace
        recent.opened(workspace.path)

    def _on_added(
        self, objects: Labels | None, regions: Labels | None, found: tuple[Entry, Known]
    ) -> None:
        entry, known = found
        self._link(entry, known, objects, regions, salvage=False)

    def _on_loaded(self, salvage: bool, found: Loaded) -> None:
        if found.entry.id in self.links:
            return
        objects, regions = show(self._viewer, found)
        self._link(found.entry, found.known, objects, regions, salvage=salvage)
        if found.why is not None:
            self.failed.emit(
                WorkspaceError(f"the labels are shown without image: {found.why}"), None
            )

    def _link(
        self,
        entry: Entry,
        known: Known,
        objects: Labels | None,
        regions: Labels | None,
        *,
        salvage: bool,
    ) -> None:
        if self.workspace is None:
            return
        writer = self.workspace.writer(entry, salvage=salvage)
        link = WorkspaceLink(entry, writer, known, self)
        link.troubled.connect(lambda message: notify(WorkspaceError(message)))
        link.attach(objects, regions)
        self.links[entry.id] = link

    def _tell_all(self) -> None:
        for link in self.links.values():
            link.tell_all()

    def _let_go(self) -> None:
        for link in self.links.values():
            for layer in link.layers.values():
                self._touched.discard(layer)
            link.close()
        self.links = {}
        self.workspace = None

    # -- layers --------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        self._listen(event.value)

    def _listen(self, layer: Any) -> None:
        if isinstance(layer, Labels):
            layer.events.paint.connect(self._on_paint)

    def _on_paint(self, event: Any) -> None:
        if session_of(event.source) is None:
            self._touched.add(event.source)

    def _on_session(self, session: CorrectionSession) -> None:
        as_before = {layer for layer in session.layers if layer not in self._touched}
        session.changed.connect(partial(self._touch, session, as_before))

    def _touch(self, session: CorrectionSession, as_before: set[Labels], _: Any) -> None:
        if session.undo_name is None:  # all was taken back
            self._touched -= as_before
        else:
            self._touched.update(layer for layer in session.layers if layer in self._viewer.layers)

    def _on_removed(self, event: Any) -> None:
        """A layer is gone from the viewer: what was not told yet is told, and its link ends."""
        layer = event.value
        for key, link in list(self.links.items()):
            if layer in link.layers.values():
                with notify_errors():
                    link.tell_all()
                link.close()
                del self.links[key]
                self.changed.emit()


def ago(seconds: float) -> str:
    """A time in the past, in words that need not change every second for long."""
    if seconds < 60:
        return f"{int(seconds)} s ago"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    return f"{int(seconds // 3600)} h ago"


def in_words(state: SaveState | None) -> tuple[str, bool]:
    """How saving goes, for people, and whether all is well."""
    if state is None:
        return "Nothing is kept yet: open an image of the list, or add labels", True
    if state.error is not None:
        return f"Not saved: {state.error}. Kept in memory, and tried again", False
    if state.waiting:
        return "Saving …", True
    return f"Saved {ago(time.monotonic() - state.saved_at)}", True
