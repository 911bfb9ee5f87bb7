"""The Segment widget: run a model on an image layer, and get two labels layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QRadioButton
from superqt import QCollapsible

from napari_coseg.core.types import LabelClass, Prediction
from napari_coseg.core.windows import WINDOWS
from napari_coseg.inference.cutting import sliced_across
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.widgets import layers, outputs, runs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.forms import column_of, group, row
from napari_coseg.widgets.image_job import ImageJobWidget
from napari_coseg.widgets.job_bar import in_words
from napari_coseg.widgets.model_choice import swatch
from napari_coseg.widgets.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

ADVANCED = (
    "tile_size_px",
    "batch_size",
    "white_point",
    "object_threshold",
    "min_object_area_um2",
    "max_object_hole_area_um2",
    "min_region_area_um2",
    "max_hole_area_um2",
    "link_overlap",
    "link_join_overlap",
    "link_max_gap",
    "test_time_augmentation",
)


class SegmentWidget(ImageJobWidget):
    """Dock widget that segments an image layer in the worker process."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self.settings = SettingsForm(InferenceSettings, ADVANCED, none_text="model's own")
        self._build()
        self.model.changed.connect(self._show_own_settings)
        self._show_own_settings()
        self.color_box.currentTextChanged.connect(self._restyle)
        self.outline_box.toggled.connect(self._restyle)

    def _build(self) -> None:
        self.whole_button = QRadioButton("whole image")
        self.whole_button.setChecked(True)
        self.view_button = QRadioButton("current view")
        self.view_button.setToolTip("Only what the canvas shows; in a stack, the current slice")
        self.color_box = QComboBox()
        self.color_box.addItems(outputs.COLOR_BY)
        self.color_box.setToolTip("Applies to all object layers of this plugin")
        self.outline_box = QCheckBox("outlines")
        self.outline_box.setChecked(True)
        self.limits_box = QCheckBox("Use the layer's contrast limits")
        self.limits_box.setToolTip(
            "Values that are shown black and white are black and white for the model as well,\n"
            "for example for CT in Hounsfield units. Otherwise the model's own intensity window,\n"
            "or a contrast stretch. No effect on colour images"
        )
        self.window_box = QComboBox()
        self.window_box.addItem("model's own", None)
        for name, (low, high) in WINDOWS.items():
            self.window_box.addItem(f"{name} ({low:g} to {high:g})", (low, high))
        self.window_box.setToolTip(
            "Values of CT (Hounsfield units) that are black and white, in the layer and for the\n"
            "model. No effect on colour images"
        )
        self.window_box.activated.connect(self._show_window)
        advanced = QCollapsible("Advanced")
        advanced.addWidget(column_of(self.limits_box, self.settings))
        self.lay_out(
            group("Image", self.image, row(QLabel("Intensity window"), self.window_box)),
            group("Model", self.model),
            group("Part of the image", row(self.whole_button, self.view_button)),
            advanced,
            group("Show objects", row(QLabel("coloured by"), self.color_box, self.outline_box)),
        )

    def _show_own_settings(self) -> None:
        if card := self.model.card:
            own = card.decoding.model_dump() | {"tile_size_px": card.tile_size_px}
            self.settings.show_none_as(own)

    # -- a run ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Segment what is chosen."""
        chosen = self.image.chosen()
        region = None
        if self.view_button.isChecked():
            region = layers.view_region(
                self._viewer, chosen.layer, chosen.axes, self.sliced_across(chosen)
            )
        arguments = runs.new_run(
            {
                **self.model.arguments(),
                **chosen.arguments(),
                "region": region,
                "settings": self.settings_for(chosen.layer),
            }
        )
        arrays = {"image": layers.level_0(chosen.layer)}
        self.start(tasks.SEGMENT, arguments, arrays, asked=(chosen, arguments))

    def settings_for(self, layer: Image) -> dict[str, Any]:
        """Inference settings of a run on this layer, as JSON values."""
        values = self.settings.values()
        if not layer.rgb:
            values["window"] = self.window_box.currentData()
        if self.limits_box.isChecked() and not layer.rgb:
            low, high = layer.contrast_limits
            values["window"] = (float(low), float(high))
        return InferenceSettings.from_mapping(values).model_dump()

    def _show_window(self, _: int) -> None:
        layer, window = self.image.layer, self.window_box.currentData()
        if layer is not None and window is not None and not layer.rgb:
            layer.contrast_limits = window

    def receive(self, reply: Reply, seconds: float) -> None:
        chosen, arguments = self.asked
        prediction = tasks.unpack(reply)
        self.bar.finish(summary(prediction, reply.values["region_pixels"], seconds), done=True)
        regions, objects = outputs.add_prediction(
            self._viewer,
            chosen.layer,
            chosen.axes,
            prediction,
            color_by=self.color_box.currentText(),
            outlines=self.outline_box.isChecked(),
        )
        runs.remember(objects, regions, arguments, self.worker)

    def _restyle(self, _: Any = None) -> None:
        for layer in self._viewer.layers:
            if outputs.is_output(layer, "objects"):
                outputs.color_objects(layer, self.color_box.currentText())
                outputs.outline_objects(layer, self.outline_box.isChecked())


def summary(prediction: Prediction, region_pixels: list[int], seconds: float) -> str:
    """Number of objects and area of regions by class, as a few lines of HTML.

    Parameters
    ----------
    region_pixels
        By region id, 0 first.
    """
    instances = prediction.instances
    counts = instances.table["class_id"].value_counts()
    lines = [f"<b>{len(instances):,} objects</b> in {in_words(seconds)}"]
    if instances.classes:
        lines.append(_listed(instances.classes, {int(i): f"{n:,}" for i, n in counts.items()}))
    if prediction.semantic_classes:
        total = sum(region_pixels)
        fractions = {i: f"{n / total:.0%}" for i, n in enumerate(region_pixels)}
        lines.append(_listed(prediction.semantic_classes, fractions) + " of the area")
    if how := sliced_across(prediction.provenance):
        lines.append(f"S{how[1:]}")
    return "<br>".join(lines)


def _listed(classes: tuple[LabelClass, ...], values: dict[int, str]) -> str:
    return " ".join(swatch(entry, f"{entry.name} {values.get(entry.id, '0')}") for entry in classes)
