"""The Guidance widget: what each task tells the other, as layers over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QLabel

from napari_coseg.widgets import layers
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import group, notify_errors
from napari_coseg.widgets.geometry import placement
from napari_coseg.widgets.image_choice import ChosenImage
from napari_coseg.widgets.image_job import ImageJobWidget
from napari_coseg.widgets.job_bar import in_words

if TYPE_CHECKING:
    from napari.viewer import Viewer

ABOUT = (
    "The network looks at an image twice. The first look gives a mask of regions and a mask of "
    "objects; each prompts the other task's second look. The layers show both masks, and where the "
    "second look attends, in the middle of what the canvas shows."
)
COLORMAP, OPACITY = "inferno", 0.65


class GuidanceWidget(ImageJobWidget):
    """Dock widget that shows mask prompts and attention of what is in view."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self._chosen: ChosenImage | None = None
        about = QLabel(ABOUT)
        about.setWordWrap(True)
        self.lay_out(about, group("Image", self.image), group("Model", self.model))

    def run(self) -> None:
        """Look into the prediction of the view; a `CosegError` becomes a notification."""
        if self.bar.is_busy:
            return
        with notify_errors():
            chosen = self.image.chosen()
            *depth, rows, columns = layers.view_region(self._viewer, chosen.layer, chosen.axes)
            arguments = {
                **self.model.arguments(),
                **chosen.arguments(),
                "region": [rows, columns],
                "z": depth[0][0] if depth else 0,
            }
            self._chosen = chosen
            self.start(tasks.GUIDANCE, arguments, {"image": layers.level_0(chosen.layer)})

    def receive(self, reply: Reply, seconds: float) -> None:
        chosen, self._chosen = self._chosen, None
        if chosen is None:
            return
        self.bar.finish(f"<b>{len(reply.arrays)} maps</b> in {in_words(seconds)}", done=True)
        place = placement(chosen.layer, chosen.axes, reply.values["offset"])
        for number, (name, values) in enumerate(reply.arrays.items()):
            self._viewer.add_image(
                values if len(reply.values["offset"]) == 2 else values[None],
                name=f"{chosen.layer.name}: {name}",
                colormap=COLORMAP,
                opacity=OPACITY,
                blending="translucent_no_depth",
                visible=number == 0,
                metadata={METADATA_KEY: {"kind": "guidance", "image": chosen.layer.name}},
                **place,
            )

    def failed(self) -> None:
        self._chosen = None
