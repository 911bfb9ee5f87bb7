"""The Workspace widget: where corrections are kept, and how saving goes."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QWidget,
)

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.widgets import layer_box, outputs
from napari_coseg.widgets.dock_widget import (
    DockWidget,
    column_of,
    group,
    notify,
    notify_errors,
    row,
    sentence,
)
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.runs import regions_of
from napari_coseg.widgets.workspace.controller import ago, controller_of, in_words
from napari_coseg.widgets.workspace.guard import Buttons, ask_new_folder, guard_closing
from napari_coseg.widgets.workspace.layers import image_of
from napari_coseg.workspace import recent
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.image import ImageNotFound
from napari_coseg.workspace.journal import DamagedJournal

if TYPE_CHECKING:
    from napari.viewer import Viewer

ABOUT = (
    "A workspace is a folder that keeps labels, classes and what is reviewed. Corrections of the "
    "images that are open in it are saved by themselves, a second after they are made."
)
TELL_MS = 1000
SHOWN_RECENT = 4


class WorkspaceWidget(DockWidget):
    """Dock widget on a viewer's controller; closing the widget leaves the workspace open."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        guard_closing(napari_viewer)
        self.controller = controller_of(napari_viewer)
        self._keeps_at_once = False
        self._unfinished: Path | None = None
        self.new_button = QPushButton("New …")
        self.open_button = QPushButton("Open …")
        self.close_button = QPushButton("Close")
        self.resume_button = QPushButton()
        self.recent_box = narrow_box("Workspaces that were open lately")
        self.name = QLabel()
        self.images = QListWidget()
        self.show_button = QPushButton("Open image")
        self.image_box = narrow_box("The image that the labels are of")
        self.objects_box = narrow_box("Labels whose values are objects")
        self.regions_box = narrow_box("Labels whose values are region classes")
        self.add_button = QPushButton("Keep in workspace")
        self.state = QLabel()
        self._timer = QTimer(self)
        self._timer.setInterval(TELL_MS)
        self._build()
        self._connect()
        self._list_layers()
        self.follow()
        self._timer.start()

    def _build(self) -> None:
        for label in (self.name, self.state):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.RichText)
        self.state.setMinimumHeight(self.state.fontMetrics().lineSpacing() * 3)
        self.state.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.images.setMaximumHeight(150)
        self.images.setToolTip("Images of this workspace; double-click opens one")
        self.new_button.setToolTip("Make a folder that keeps corrections, and keep the labels here")
        self.open_button.setToolTip("Open such a folder")
        self.close_button.setToolTip("Save all and close the workspace; layers stay")
        self.resume_button.setToolTip("It was not closed, as after a crash; nothing saved is lost")
        about = QLabel(ABOUT)
        about.setWordWrap(True)
        place = column_of(
            self.name,
            row(self.new_button, self.open_button, self.close_button),
            self.resume_button,
            self.recent_box,
        )
        self.images_part = group("Images", column_of(self.images, row(self.show_button)))
        chosen = QWidget()
        form = QFormLayout(chosen)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Image", self.image_box)
        form.addRow("Objects", self.objects_box)
        form.addRow("Regions", self.regions_box)
        form.addRow("", row(self.add_button))
        self.add_part = group("Add labels", chosen)
        groups = (group("Workspace", place), self.images_part, self.add_part, about)
        self.lay_out(*groups, below=self.state)

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
        self.objects_box.currentIndexChanged.connect(self._propose_image)
        self._timer.timeout.connect(self._tell)
        self.controller.changed.connect(self.follow)
        self.controller.failed.connect(self._on_failed)
        for event in self._layer_events():
            event.connect(self._list_layers)

    def let_go(self) -> None:
        self._timer.stop()
        self.controller.changed.disconnect(self.follow)
        self.controller.failed.disconnect(self._on_failed)
        for event in self._layer_events():
            event.disconnect(self._list_layers)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed

    # -- what is shown -------------------------------------------------------------------------

    def follow(self) -> None:
        """Show what the controller has."""
        workspace = self.controller.workspace
        if workspace is None:
            self.name.setText("No workspace is open.")
        else:
            path = html.escape(str(workspace.path.parent))
            damaged = "".join(
                f"<br>⚠ {html.escape(str(error))}" for error in workspace.damaged.values()
            )
            name = html.escape(workspace.path.name)
            self.name.setText(f"<b>{name}</b><br><small>in {path}</small>{damaged}")
        if self._keeps_at_once and workspace is not None and not self.controller.busy:
            self._keeps_at_once = False
            if self._layer(self.image_box) and self._layer(self.objects_box):
                self._on_add()  # these are what a new workspace is made for
        self._list_images()
        self._list_recent()
        self._enable()
        self._tell()

    def _list_images(self) -> None:
        chosen = self.images.currentRow()
        self.images.clear()
        for entry in self._entries():
            is_open = entry.id in self.controller.links
            size = " × ".join(map(str, entry.shape))
            item = QListWidgetItem(f"{'● ' if is_open else '○ '}{entry.name}   {size}")
            item.setToolTip("open, corrections are saved" if is_open else "double-click to open")
            self.images.addItem(item)
        self.images.setCurrentRow(min(max(chosen, 0), self.images.count() - 1))

    def _list_recent(self) -> None:
        """The last ones, and first the one that was never closed."""
        workspace = self.controller.workspace
        listed = [
            one for one in recent.recent() if not workspace or one.path != str(workspace.path)
        ]
        self.recent_box.clear()
        self.recent_box.addItem("Recent …", None)
        for one in listed[:SHOWN_RECENT]:
            when = ago(time.time() - one.opened)
            self.recent_box.addItem(f"{Path(one.path).name}, {when}", one.path)
        self.recent_box.setVisible(bool(listed) and workspace is None)
        left = recent.unfinished() if workspace is None else []
        self.resume_button.setVisible(bool(left))
        if left:
            name, when = Path(left[0].path).name, ago(time.time() - left[0].opened)
            self.resume_button.setText(f"Resume {name}, left {when}")
            self._unfinished = Path(left[0].path)

    def _tell(self) -> None:
        controller = self.controller
        if controller.busy:
            self.state.setText(f"{controller.busy} …")
        elif controller.workspace is None:
            unsaved = controller.unsaved()
            names = html.escape(", ".join(layer.name for layer in unsaved))
            self.state.setText(f"⚠ Corrected, and kept nowhere: {names}" if unsaved else "")
        else:
            words, is_well = in_words(controller.state)
            mark = "<span style='color:#3fae5a'>●</span>" if is_well else "⚠"
            self.state.setText(f"{mark} {html.escape(words)}")

    def _enable(self) -> None:
        busy, is_open = bool(self.controller.busy), self.controller.workspace is not None
        self.new_button.setEnabled(not busy)
        self.open_button.setEnabled(not busy)
        self.close_button.setEnabled(is_open and not busy)
        self.resume_button.setEnabled(not busy)
        self.images_part.setVisible(is_open)
        self.add_part.setVisible(is_open)
        entry = self._chosen_entry()
        self.show_button.setEnabled(
            not busy and entry is not None and entry.id not in self.controller.links
        )
        self.add_button.setEnabled(not busy)

    # -- what is asked -------------------------------------------------------------------------

    def _entries(self) -> tuple[Entry, ...]:
        return self.controller.workspace.entries if self.controller.workspace else ()

    def _chosen_entry(self) -> Entry | None:
        at = self.images.currentRow()
        entries = self._entries()
        return entries[at] if 0 <= at < len(entries) else None

    def _on_new(self) -> None:
        path = ask_new_folder(self)
        if path is not None:
            self._keeps_at_once = True
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
        entry = self._chosen_entry()
        if entry is not None and entry.id not in self.controller.links:
            self.controller.open_entry(entry)

    def _on_add(self) -> None:
        with notify_errors():
            image = self._layer(self.image_box)
            if image is None:
                raise WorkspaceError("no image is chosen; open the one that the labels are of")
            self.controller.add(image, self._layer(self.objects_box), self._layer(self.regions_box))

    def _on_failed(self, error: Exception, entry: Entry | None) -> None:
        self._keeps_at_once = False
        if entry is not None and isinstance(error, ImageNotFound):
            self._ask_image(error, entry)
        elif entry is not None and isinstance(error, DamagedJournal):
            self._ask_salvage(error, entry)
        else:
            notify(error)

    def _ask_image(self, error: ImageNotFound, entry: Entry) -> None:
        """Where the image is now; without an answer, whether to go on without it."""
        box = QMessageBox(QMessageBox.Icon.Question, "Co-Seg", sentence(error))
        look = box.addButton("Look for it …", QMessageBox.ButtonRole.AcceptRole)
        without = box.addButton("Labels only", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(Buttons.Cancel)
        box.exec()
        if box.clickedButton() is look:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Where is {error.expected.file_name}?")
            if chosen:
                self.controller.open_entry(entry, [Path(chosen)])
        elif box.clickedButton() is without:
            self.controller.open_entry(entry, with_image=False)

    def _ask_salvage(self, error: DamagedJournal, entry: Entry) -> None:
        text = f"{error}. Open what is whole? The damaged file is kept beside it."
        answer = QMessageBox.question(self, "Co-Seg", sentence(text))
        if answer == Buttons.Yes:
            self.controller.open_entry(entry, salvage=True)

    # -- layers --------------------------------------------------------------------------------

    def _layer(self, box: QComboBox) -> Any:
        return layer_box.chosen(box, self._viewer)

    def _list_layers(self, _: Any = None) -> None:
        """List the layers; the newest of ours is chosen where nothing was."""
        for box, kind, which in (
            (self.image_box, "", ImageLayer),
            (self.objects_box, "objects", Labels),
            (self.regions_box, "regions", Labels),
        ):
            found = [layer for layer in self._viewer.layers if isinstance(layer, which)]
            ours = [layer for layer in found if outputs.is_output(layer, kind)]
            layer_box.fill(box, found, ours, none=which is Labels)
        self._propose_image()

    def _propose_image(self, _: Any = None) -> None:
        """The image and the regions that belong to the chosen objects."""
        objects = self._layer(self.objects_box)
        image = None if objects is None else image_of(self._viewer, objects)
        if image is not None:
            layer_box.choose(self.image_box, image)
        regions = None if objects is None else regions_of(self._viewer, objects)
        if regions is not None:
            layer_box.choose(self.regions_box, regions)
