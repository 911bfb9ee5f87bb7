"""The Export widget: labels as they are now, in the formats of other programs."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.errors import ImageError, SettingsError
from napari_coseg.formats.registry import FORMATS, output_paths
from napari_coseg.widgets import layer_box, layers, outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.dock_widget import group, notify_errors, row
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget

if TYPE_CHECKING:
    from napari.viewer import Viewer

FORMAT_WORDS = {
    "ome-tiff": "OME-TIFF: regions and objects",
    "csv": "CSV: a row an object",
    "csv-regions": "CSV: a row a region class",
    "geojson": "GeoJSON: QuPath",
    "ome-zarr": "OME-Zarr: image and labels",
    "coco": "COCO JSON: objects",
    "nifti": "NIfTI: volumes",
    "overlay": "PNG: a picture to look at",
}
AT_FIRST = ("ome-tiff", "csv", "geojson")


class ExportWidget(JobWidget):
    """Dock widget that writes labels layers, measured anew, in a process beside the window."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self.objects_box = narrow_box("Labels whose values are objects")
        self.regions_box = narrow_box("Labels whose values are region classes")
        self.formats = {key: QCheckBox(FORMAT_WORDS.get(key, key)) for key in FORMATS}
        self.folder_edit = QLineEdit()
        self.folder_edit.setPlaceholderText("folder to write to")
        self.name_edit = QLineEdit()
        self.name_edit.setToolTip("Beginning of the file names")
        self._proposed_name = ""
        self._named_after: Labels | None = None
        self.overwrite_box = QCheckBox("replace files that are there")
        self._build()
        self.bar.run_button.setText("Export")
        for event in self._layer_events():
            event.connect(self._list_layers)
        for box in (self.objects_box, self.regions_box):
            box.currentIndexChanged.connect(self._propose_name)
        self._list_layers()

    def _build(self) -> None:
        labels = QWidget()
        form = QFormLayout(labels)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Objects", self.objects_box)
        form.addRow("Regions", self.regions_box)
        listed = QWidget()
        column = QVBoxLayout(listed)
        column.setContentsMargins(0, 0, 0, 0)
        for key, box in self.formats.items():
            box.setChecked(key in AT_FIRST)
            box.setToolTip(", ".join(f"*{suffix}" for suffix in FORMATS[key].suffixes))
            column.addWidget(box)
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        place = QWidget()
        where = QFormLayout(place)
        where.setContentsMargins(0, 0, 0, 0)
        where.addRow("Folder", self.folder_edit)
        where.addRow("", row(browse))
        where.addRow("Name", self.name_edit)
        where.addRow("", self.overwrite_box)
        about = QLabel("Objects are measured anew, as they are now.")
        about.setWordWrap(True)
        self.lay_out(
            group("Labels", labels), group("Formats", listed), group("Files", place), about
        )

    def run(self) -> None:
        """Write what is chosen; a `CosegError` becomes a notification."""
        if self.bar.is_busy:
            return
        with notify_errors():
            arguments, arrays = self._request()
            self.start(tasks.EXPORT, arguments, arrays)

    def receive(self, reply: Reply, seconds: float) -> None:
        files = [Path(path) for path in reply.values["files"]]
        names = "<br>".join(html.escape(path.name) for path in files)
        self.bar.finish(
            f"<b>{reply.values['objects']:,} objects, {len(files)} files</b> in "
            f"{in_words(seconds)}<br>{names}",
            done=True,
        )

    def let_go(self) -> None:
        for event in self._layer_events():
            event.disconnect(self._list_layers)

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.renamed

    # -- what is asked -------------------------------------------------------------------------

    def _request(self) -> tuple[dict[str, Any], dict[str, Any]]:
        objects, regions = self._layer(self.objects_box), self._layer(self.regions_box)
        either = objects or regions
        if either is None:
            raise ImageError("there are no labels to export; run Segment, or add a labels layer")
        formats = [key for key, box in self.formats.items() if box.isChecked()]
        folder, name = self.folder_edit.text().strip(), self.name_edit.text().strip()
        self._check(formats, folder, name)
        image, axes = self._image(either)
        if image is None and any(FORMATS[key].shows_image for key in formats):
            shown = ", ".join(key for key in formats if FORMATS[key].shows_image)
            raise ImageError(
                f"the image of {either.name!r} is not in the viewer, and {shown} shows it; open it "
                "again, or leave these formats out"
            )
        of_objects, of_regions = outputs.labels_of(objects), outputs.labels_of(regions)
        arrays: dict[str, Any] = {
            "ids": of_objects.ids,
            "class_ids": of_objects.class_ids,
            "probabilities": of_objects.probabilities,
        }
        for key, layer in (("labels", objects), ("regions", regions), ("image", image)):
            if layer is not None:
                arrays[key] = layers.level_0(layer)
        arguments = {
            "name": name,
            "axes": axes,
            "geometry": outputs.geometry_of(either, self._viewer).as_json(),
            "classes": [tasks.pack_class(entry) for entry in of_objects.classes],
            "region_classes": [tasks.pack_class(entry) for entry in of_regions.classes],
            "provenance": of_objects.provenance or of_regions.provenance,
            "formats": formats,
            "folder": folder,
            "overwrite": self.overwrite_box.isChecked(),
        }
        return arguments, arrays

    def _check(self, formats: list[str], folder: str, name: str) -> None:
        if not formats:
            raise SettingsError("no format is chosen; tick at least one")
        if not folder or not Path(folder).is_dir():
            raise SettingsError(
                f"{folder or 'nothing'} is not a folder that exists; choose where to write"
            )
        if not name or name != Path(name).name:
            raise SettingsError(f"{name!r} cannot begin a file name; give one without slashes")
        there = [path for path in output_paths(Path(folder), name, formats) if path.exists()]
        if there and not self.overwrite_box.isChecked():
            raise SettingsError(
                f"{there[0].name} is in {folder} already; choose another folder or name, or tick "
                "'replace files that are there'"
            )

    def _image(self, labels: Labels) -> tuple[ImageLayer | None, str | None]:
        """The image that the labels are of, or of a part of, where it is still here."""
        layer = outputs.image_of(self._viewer, labels)
        provenance = outputs.labels_of(labels).provenance
        axes = provenance.get("axes", "")
        if layer is None or len(axes) != len(layers.level_0(layer).shape):
            return None, None
        shape, part = layers.layer_to_image(layer, axes).spatial_shape, labels.data.shape
        offset = [int(at) for at in provenance.get("region_offset") or ()]
        if offset and len(offset) == len(shape) == len(part):  # only what was in view was segmented
            fits = all(0 <= at <= at + n <= m for at, n, m in zip(offset, part, shape, strict=True))
        else:
            fits = shape == part
        return (layer, axes) if fits else (None, None)

    # -- the form ------------------------------------------------------------------------------

    def _layer(self, box: QComboBox) -> Labels | None:
        layer: Labels | None = layer_box.chosen(box, self._viewer)
        return layer

    def _list_layers(self, _: Any = None) -> None:
        """List the labels layers; the newest of ours is chosen where nothing was."""
        for box, kind in ((self.objects_box, "objects"), (self.regions_box, "regions")):
            found = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
            ours = [layer for layer in found if outputs.is_output(layer, kind)]
            layer_box.fill(box, found, ours)
        self._propose_name()

    def _propose_name(self, _: Any = None) -> None:
        """After the image or the layer; a name that was typed stays while the layer does."""
        either = self._layer(self.objects_box) or self._layer(self.regions_box)
        is_typed = self.name_edit.text() not in ("", self._proposed_name)
        is_same, self._named_after = either is self._named_after, either
        if either is None or (is_typed and is_same):
            return
        name = outputs.file_stem(self._viewer, either)
        self._proposed_name = name.removesuffix(".ome")  # napari's name of *.ome.tif
        self.name_edit.setText(self._proposed_name)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Export to", self.folder_edit.text())
        if folder:
            self.folder_edit.setText(folder)
