"""Base of the docks that run a model on an image layer: choices of image and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_coseg.core.errors import CosegError
from napari_coseg.core.geometry import Geometry
from napari_coseg.inference.cutting import slicing_for
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.image_choice import ChosenImage, ImageChoice
from napari_coseg.widgets.job_widget import JobWidget
from napari_coseg.widgets.model_choice import ModelChoice

if TYPE_CHECKING:
    from napari.viewer import Viewer


class ImageJobWidget(JobWidget):
    """Has `image` and `model`; asks the worker process for devices and for files' geometries."""

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer, worker)
        self._files: dict[str, tuple[Geometry, list[int]]] = {}
        self.image = ImageChoice(napari_viewer)
        self.model = ModelChoice()
        self.model.changed.connect(self._on_model)
        self.image.file_geometry_wanted.connect(self._ask_file)
        self._on_model()
        self.image.ask_file()  # of the layer that was chosen before the signal was connected

    def first_shown(self) -> None:
        """Ask for the devices; that starts the process, which is then ready for the first run."""
        job = self.submit(tasks.DEVICES)
        job.done.connect(lambda reply: self.model.set_devices(reply.values["devices"]))

    def let_go(self) -> None:
        self.image.disconnect_viewer()

    def sliced_across(self, chosen: ChosenImage) -> int:
        """The spatial axis of the chosen image that the chosen model cuts its slices across."""
        card = self.model.card
        return slicing_for(card, chosen.axes, chosen.geometry).axis if card else 0

    def _on_model(self) -> None:
        card = self.model.card
        if card is None:
            self.image.set_model_pixel_size(None)
        else:
            self.image.set_model_pixel_size(card.pixel_size_um, card.slicing)

    def _ask_file(self, path: str) -> None:
        if path in self._files:
            self.image.set_file_geometry(path, *self._files[path])
            return
        job = self.submit(tasks.FILE_GEOMETRY, {"path": path})
        job.done.connect(lambda reply: self._on_file(path, reply))
        job.failed.connect(_ignore_unreadable)

    def _on_file(self, path: str, reply: Reply) -> None:
        geometry = Geometry.from_json(reply.values["geometry"])
        self._files[path] = (geometry, reply.values["shape"])
        self.image.set_file_geometry(path, *self._files[path])


def _ignore_unreadable(error: Exception) -> None:
    """A file that none of our readers knows has no pixel size for us; nothing is wrong."""
    if not isinstance(error, CosegError):
        raise error
