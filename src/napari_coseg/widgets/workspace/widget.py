"""The Workspace widget: where corrections are saved, and how saving goes."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QListWidget, QListWidgetItem, QMessageBox, QPushButton

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.widgets.dock_widget import DockWidget, notify, notify_errors, sentence
from napari_coseg.widgets.forms import ChoiceBox, group, row, text_label
from napari_coseg.widgets.layer_choice import LayerChoice
from napari_coseg.widgets.workspace.controller import ago, controller_of, describe
from napari_coseg.widgets.workspace.guard import Buttons, ask_new_folder, guard_closing
from napari_coseg.workspace import recent
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.image import ImageNotFound
from napari_coseg.workspace.journal import DamagedJournal

if TYPE_CHECKING:
    from napari.viewer import Viewer

ABOUT = (
    "A workspace is a folder that keeps labels, classes and review marks. Corrections of images "
    "that are open in it are saved automatically, about a second after they are made."
)
REFRESH_MS = 1000
SHOWN_RECENT = 4


class WorkspaceWidget(DockWidget):
    """Dock widget for a viewer's controller; closing it leaves the workspace open."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        guard_closing(napari_viewer)
        self.controller = controller_of(napari_viewer)
        self._adds_at_once = False
        self._unfinished: Path | None = None
        self.new_button = _button("New …", "Create a workspace, and add the current labels to it")
        self.open_button = _button("Open …", "Open a workspace folder")
        self.close_button = _button("Close", "Save all and close the workspace; the layers stay")
        self.resume_button = _button(
            "", "This workspace was not closed, for example after a crash; nothing saved is lost"
        )
        self.recent_box = ChoiceBox("Recently opened workspaces")
        self.name, self.state = text_label(rich=True), text_label(rich=True)
        self.images = QListWidget()
        self.show_button = QPushButton("Open image")
        self.layers = LayerChoice(
            napari_viewer, "Image that the labels belong to", image_optional=False
        )
        self.add_button = QPushButton("Add to workspace")
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._build()
        self._connect()
        self.refresh()
        self._timer.start()

    def _build(self) -> None:
        self.state.setMinimumHeight(self.state.fontMetrics().lineSpacing() * 3)
        self.state.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.images.setMaximumHeight(150)
        self.images.setToolTip("Images of this workspace; double-click to open one")
        self.images_part = group("Images", self.images, row(self.show_button))
        self.add_part = group("Add labels", self.layers, row(self.add_button))
        workspace = group(
            "Workspace",
            self.name,
            row(self.new_button, self.open_button, self.close_button),
            self.resume_button,
            self.recent_box,
        )
        about = text_label(ABOUT)
        self.lay_out(workspace, self.images_part, self.add_part, about, below=self.state)

    def _connect(self) -> None:
        self.new_button.clicked.connect(self._on_new)
        self.open_button.clicked.connect(self._on_open)
        self.close_button.clicked.connect(self.controller.close)
        self.resume_button.clicked.connect(self._on_resume)
        self.recent_box.activated.connect(self._on_recent)
        self.images.itemDoubleClicked.connect(lambda _: self._on_show())
        self.images.currentRowChanged.connect(lambda _: self._enable())
        self.show_button.clicked.connect(self._on_show)
        self.add_button.clicked.connect(self._on_add)
        self._timer.timeout.connect(self.show_state)
        self.connections.connect(self.refresh, self.controller.changed)
        self.connections.connect(self._on_failed, self.controller.failed)

    def let_go(self) -> None:
        self._timer.stop()
        self.layers.connections.close()

    # -- what is shown -------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the controller's workspace."""
        workspace = self.controller.workspace
        if workspace is None:
            self.name.setText("No workspace is open.")
        else:
            path = workspace.path
            folder, name = html.escape(str(path.parent)), html.escape(path.name)
            damaged = [f"<br>⚠ {html.escape(str(one))}" for one in workspace.damaged.values()]
            self.name.setText(f"<b>{name}</b><br><small>in {folder}</small>{''.join(damaged)}")
        if self._adds_at_once and workspace is not None and not self.controller.busy:
            self._adds_at_once = False
            if self.layers.image and self.layers.objects:
                self._on_add()
        self._list_images()
        self._list_recent()
        self._enable()
        self.show_state()

    def _list_images(self) -> None:
        chosen = self.images.currentRow()
        self.images.clear()
        for entry in self._entries():
            is_open = entry.id in self.controller.links
            size = " × ".join(map(str, entry.shape))
            item = QListWidgetItem(f"{'● ' if is_open else '○ '}{entry.name}   {size}")
            item.setToolTip("Open; corrections are saved" if is_open else "Double-click to open")
            self.images.addItem(item)
        self.images.setCurrentRow(min(max(chosen, 0), self.images.count() - 1))

    def _list_recent(self) -> None:
        """List recent workspaces, and offer to resume the last one that was never closed."""
        is_open = self.controller.workspace is not None
        listed = [] if is_open else recent.recent()
        entries = [(_name_and_age(one), one.path) for one in listed[:SHOWN_RECENT]]
        self.recent_box.set_entries([("Recent …", None), *entries])
        self.recent_box.setVisible(bool(listed))
        left = [] if is_open else recent.unfinished()
        self.resume_button.setVisible(bool(left))
        if left:
            self._unfinished = Path(left[0].path)
            self.resume_button.setText(f"Resume {_name_and_age(left[0])}")

    def show_state(self) -> None:
        """Show what is being done, or how saving goes."""
        controller = self.controller
        if controller.busy:
            self.state.setText(f"{controller.busy} …")
        elif controller.workspace is None:
            names = html.escape(", ".join(layer.name for layer in controller.unsaved()))
            text = f"⚠ Corrected, but not saved in a workspace: {names}" if names else ""
            self.state.setText(text)
        else:
            text, is_well = describe(controller.state)
            mark = "<span style='color:#3fae5a'>●</span>" if is_well else "⚠"
            self.state.setText(f"{mark} {html.escape(text)}")

    def _enable(self) -> None:
        busy, is_open = bool(self.controller.busy), self.controller.workspace is not None
        for button in (self.new_button, self.open_button, self.resume_button, self.add_button):
            button.setEnabled(not busy)
        self.close_button.setEnabled(is_open and not busy)
        self.images_part.setVisible(is_open)
        self.add_part.setVisible(is_open)
        self.show_button.setEnabled(not busy and self._entry_to_open() is not None)

    # -- what the user asks for ----------------------------------------------------------------

    def _entries(self) -> tuple[Entry, ...]:
        return self.controller.workspace.entries if self.controller.workspace else ()

    def _entry_to_open(self) -> Entry | None:
        """The chosen entry, unless it is open."""
        at, entries = self.images.currentRow(), self._entries()
        entry = entries[at] if 0 <= at < len(entries) else None
        return None if entry is None or entry.id in self.controller.links else entry

    def _on_new(self) -> None:
        path = ask_new_folder(self)
        if path is not None:
            self._adds_at_once = True
            self.controller.create(path)

    def _on_open(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Open a workspace", str(Path.home()))
        if chosen:
            self.controller.open(Path(chosen))

    def _on_resume(self) -> None:
        if self._unfinished is not None:
            self.controller.open(self._unfinished)

    def _on_recent(self, _: int) -> None:
        path = self.recent_box.currentData()
        if path:
            self.controller.open(Path(path))

    def _on_show(self) -> None:
        entry = self._entry_to_open()
        if entry is not None:
            self.controller.open_entry(entry)

    def _on_add(self) -> None:
        with notify_errors():
            image = self.layers.image
            if image is None:
                raise WorkspaceError("no image is chosen; open the one that the labels belong to")
            self.controller.add(image, self.layers.objects, self.layers.regions)

    def _on_failed(self, error: Exception, entry: Entry | None) -> None:
        self._adds_at_once = False
        if entry is not None and isinstance(error, ImageNotFound):
            self._ask_image(error, entry)
        elif entry is not None and isinstance(error, DamagedJournal):
            self._ask_salvage(error, entry)
        else:
            notify(error)

    def _ask_image(self, error: ImageNotFound, entry: Entry) -> None:
        """Ask where the image is now, or whether to open the labels without it."""
        box = QMessageBox(QMessageBox.Icon.Question, "Co-Seg", sentence(error))
        locate = box.addButton("Locate …", QMessageBox.ButtonRole.AcceptRole)
        without = box.addButton("Labels only", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(Buttons.Cancel)
        box.exec()
        if box.clickedButton() is locate:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Where is {error.expected.file_name}?")
            if chosen:
                self.controller.open_entry(entry, [Path(chosen)])
        elif box.clickedButton() is without:
            self.controller.open_entry(entry, with_image=False)

    def _ask_salvage(self, error: DamagedJournal, entry: Entry) -> None:
        text = f"{error}. Recover what is readable? The damaged file is kept beside it."
        if QMessageBox.question(self, "Co-Seg", sentence(text)) == Buttons.Yes:
            self.controller.open_entry(entry, salvage=True)


def _name_and_age(workspace: recent.Recent) -> str:
    return f"{Path(workspace.path).name}, opened {ago(time.time() - workspace.opened)}"


def _button(text: str, tooltip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tooltip)
    return button
