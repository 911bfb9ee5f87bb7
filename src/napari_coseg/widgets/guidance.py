"""The Guidance widget: how regions and objects guide each other, as layers over the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_coseg.widgets import layers
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.forms import group, text_label
from napari_coseg.widgets.geometry import placement
from napari_coseg.widgets.image_choice import ChosenImage
from napari_coseg.widgets.image_job import ImageJobWidget
from napari_coseg.widgets.job_bar import in_words

if TYPE_CHECKING:
    from napari.viewer import Viewer

ABOUT = (
    "The network decodes an image twice. The first pass predicts a region mask and an object mask; "
    "each of them prompts the other task's second pass. The layers show both masks, and where the "
    "second pass attends, in the middle of the current view."
)
COLORMAP, OPACITY = "inferno", 0.65


class GuidanceWidget(ImageJobWidget):
    """Dock widget that shows the mask prompts and attention maps of the current view."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self.lay_out(text_label(ABOUT), group("Image", self.image), group("Model", self.model))

    def begin(self) -> None:
        """Predict the current view."""
        chosen = self.image.chosen()
        *depth, rows, columns = layers.view_region(self._viewer, chosen.layer, chosen.axes)
        arguments = {
            **self.model.arguments(),
            **chosen.arguments(),
            "region": [rows, columns],
            "z": depth[0][0] if depth else 0,
        }
        arrays = {"image": layers.level_0(chosen.layer)}
        self.start(tasks.GUIDANCE, arguments, arrays, asked=chosen)

    def receive(self, reply: Reply, seconds: float) -> None:
        chosen: ChosenImage = self.asked
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
