"""The Export widget: labels as they are now, in the formats of other programs."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QPushButton

from napari_coseg.core.errors import ImageError, SettingsError
from napari_coseg.formats.registry import FORMATS, output_paths
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.forms import column_of, form, group, row, text_label
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.labelled_image import file_stem, image_of, place_in
from napari_coseg.widgets.layer_choice import LayerChoice

if TYPE_CHECKING:
    from napari.viewer import Viewer

FORMAT_LABELS = {
    "ome-tiff": "OME-TIFF: regions and objects",
    "csv": "CSV: one row per object",
    "csv-regions": "CSV: one row per region class",
    "geojson": "GeoJSON: QuPath",
    "ome-zarr": "OME-Zarr: image and labels",
    "coco": "COCO JSON: objects",
    "nifti": "NIfTI: volumes",
    "stl": "STL: surfaces of objects",
    "ply": "PLY: surfaces with ids",
    "seg-nrrd": "NRRD: segmentation of 3D Slicer",
    "dicom-seg": "DICOM-SEG: of a DICOM series",
    "overlay": "PNG: overlay picture",
}
CHECKED_FIRST = ("ome-tiff", "csv", "geojson")


class ExportWidget(JobWidget):
    """Dock widget that measures label layers and writes them, in the worker process."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self.layers = LayerChoice(napari_viewer)
        self.formats = {key: QCheckBox(FORMAT_LABELS.get(key, key)) for key in FORMATS}
        for key, box in self.formats.items():
            box.setChecked(key in CHECKED_FIRST)
            box.setToolTip(", ".join(f"*{suffix}" for suffix in FORMATS[key].suffixes))
        self.folder_edit = QLineEdit()
        self.folder_edit.setPlaceholderText("folder to write to")
        self.name_edit = QLineEdit()
        self.name_edit.setToolTip("Prefix of the file names")
        self.overwrite_box = QCheckBox("overwrite existing files")
        self._proposed_name = ""
        self._named_after: Labels | None = None
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        files = form(
            ("Folder", self.folder_edit),
            ("", row(browse)),
            ("Name", self.name_edit),
            ("", self.overwrite_box),
        )
        about = text_label("Objects are measured again, so that corrections count.")
        self.lay_out(
            group("Labels", self.layers),
            group("Formats", column_of(*self.formats.values())),
            group("Files", files),
            about,
        )
        self.bar.run_button.setText("Export")
        self.layers.changed.connect(self._propose_name)
        self._propose_name()

    def begin(self) -> None:
        """Write the chosen layers."""
        self.start(tasks.EXPORT, *self.request())

    def receive(self, reply: Reply, seconds: float) -> None:
        files = [Path(path) for path in reply.values["files"]]
        names = "<br>".join(html.escape(path.name) for path in files)
        self.bar.finish(
            f"<b>{reply.values['objects']:,} objects, {len(files)} files</b> in "
            f"{in_words(seconds)}<br>{names}",
            done=True,
        )

    def let_go(self) -> None:
        self.layers.connections.close()

    # -- the request ---------------------------------------------------------------------------

    def request(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments and arrays of `tasks.export`.

        Raises
        ------
        CosegError
            Where something needed is missing or would be overwritten.
        """
        objects, regions = self.layers.objects, self.layers.regions
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
        source = image_of(self._viewer, either)
        arguments, arrays = outputs.label_request(objects, regions, source)
        if image is not None:
            arrays["image"] = layers.level_0(image)
        arguments |= {
            "name": name,
            "axes": axes,
            "path": source.source.path if source else None,
            "formats": formats,
            "folder": folder,
            "overwrite": self.overwrite_box.isChecked(),
        }
        return arguments, arrays

    def _check(self, formats: list[str], folder: str, name: str) -> None:
        if not formats:
            raise SettingsError("no format is chosen; tick at least one")
        if not folder:
            raise SettingsError("no folder is chosen; choose where to write")
        if not Path(folder).is_dir():
            raise SettingsError(f"{folder} is not an existing folder; choose another")
        if not name or name != Path(name).name:
            raise SettingsError(f"{name!r} cannot begin a file name; give one without slashes")
        existing = [path for path in output_paths(Path(folder), name, formats) if path.exists()]
        if existing and not self.overwrite_box.isChecked():
            raise SettingsError(
                f"{existing[0].name} already exists in {folder}; choose another folder or name, or "
                f"tick {self.overwrite_box.text()!r}"
            )

    def _image(self, labels: Labels) -> tuple[ImageLayer | None, str | None]:
        """The image of the labels and its axes, where it is in the viewer and they fit."""
        image = image_of(self._viewer, labels)
        try:
            return (None, None) if image is None else (image, place_in(labels, image)[0])
        except ImageError:
            return None, None

    # -- the form ------------------------------------------------------------------------------

    def _propose_name(self) -> None:
        """Name files after the image or the layer; a name that was typed stays with its layer."""
        either = self.layers.objects or self.layers.regions
        is_typed = self.name_edit.text() not in ("", self._proposed_name)
        is_same, self._named_after = either is self._named_after, either
        if either is None or (is_typed and is_same):
            return
        name = file_stem(self._viewer, either)
        self._proposed_name = name.removesuffix(".ome")  # napari's name of *.ome.tif
        self.name_edit.setText(self._proposed_name)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Export to", self.folder_edit.text())
        if folder:
            self.folder_edit.setText(folder)
