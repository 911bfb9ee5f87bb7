"""SAM2 in a worker process, while it is chosen for the tool Add."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_coseg.core.errors import Cancelled, CosegError
from napari_coseg.inference.sam2.windows import Prompt, SamMask
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Job, Worker
from napari_coseg.widgets.correct import sam_tasks
from napari_coseg.widgets.correct.add_choice import AddChoice
from napari_coseg.widgets.correct.image_plane import ImagePlane, plane_under
from napari_coseg.widgets.correct.proposals import Proposals
from napari_coseg.widgets.correct.reading import pixel_size_um
from napari_coseg.widgets.dock_widget import notify

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_coseg.widgets.correct.interaction import Interaction


class Sam(QObject):
    """SAM2's network and embeddings in a worker process; `close` frees them. A `Segmenter`.

    Parameters
    ----------
    objects
        Layer in whose pixels prompts and masks are expressed.
    weights
        A checkpoint of SAM2.
    worker
        None makes one that is closed with this; another is left running.

    Signals
    -------
    started(Job)
    idle()
        No job is left.
    """

    started = Signal(object)
    idle = Signal()

    def __init__(
        self, viewer: Viewer, objects: Labels, weights: Path, worker: Worker | None = None
    ) -> None:
        super().__init__()
        self._viewer, self._objects, self._weights = viewer, objects, weights
        self.worker, self._owns_worker = worker or Worker(), worker is None
        self._jobs: list[Job] = []
        self._image: tuple[Any, str] = (None, "")

    @property
    def is_busy(self) -> bool:
        return bool(self._jobs)

    def load(self, done: Callable[[str], None], failed: Callable[[Exception], None]) -> None:
        """Load the network; `done` gets its name."""
        job = self.worker.submit(sam_tasks.LOAD, {"weights": str(self._weights)})
        self._follow(job, lambda reply: done(reply.values["name"]), failed)

    def ask(
        self,
        prompt: Prompt,
        z: int | None,
        done: Callable[[SamMask], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """As `Segmenter.ask`."""
        try:
            plane = plane_under(self._viewer, self._objects, z)
        except CosegError as error:
            failed(error)
            return

        def receive(reply: Reply) -> None:
            values = reply.values
            y, x = values["corner"]
            done(SamMask(reply.arrays["mask"], (y, x), values["quality"], values["at_side"]))

        job = self.worker.submit(
            sam_tasks.ANSWER, self._arguments(prompt, plane), {"image": plane.data}
        )
        self._follow(job, receive, failed)

    def cancel(self) -> None:
        """Cancel all jobs."""
        for job in reversed(self._jobs.copy()):
            job.cancel()

    def close(self) -> None:
        """End the process; its jobs call nobody."""
        jobs, self._jobs = self._jobs, []
        if self._owns_worker:
            self.worker.close()
        else:
            for job in reversed(jobs):
                job.cancel()

    def _arguments(self, prompt: Prompt, plane: ImagePlane) -> dict[str, Any]:
        if self._image[0] is not plane.data:
            self._image = (plane.data, uuid.uuid4().hex)
        size = pixel_size_um(self._objects)
        if size is not None:  # of the image, whose pixels may have another size
            scale = [sum(abs(value) for value in row[:2]) for row in plane.to_image.tolist()]
            size = tuple(um / factor for um, factor in zip(size[-2:], scale, strict=True))
        return {
            "weights": str(self._weights),
            "key": f"{self._image[1]} {plane.axes} {plane.channels}",
            "name": plane.name,
            "axes": plane.axes,
            "channels": plane.channels,
            "pixel_size_um": size,
            "z": plane.z,
            "points": prompt.points,
            "positive": prompt.positive,
            "box": prompt.box,
            "to_image": plane.to_image.tolist(),
            "shape": list(self._objects.data.shape[-2:]),
        }

    def _follow(
        self, job: Job, done: Callable[[Reply], None], failed: Callable[[Exception], None]
    ) -> None:
        self._jobs.append(job)
        self.started.emit(job)

        def end(call: Callable[[Any], None], value: Any) -> None:
            if job not in self._jobs:
                return  # closed in the meantime
            self._jobs.remove(job)
            if not self._jobs:
                self.idle.emit()
            call(value)

        job.done.connect(lambda reply: end(done, reply))
        job.failed.connect(lambda error: end(failed, error))


class SamController:
    """Makes the tool Add of a session use SAM2 while the dock's choice says so.

    Parameters
    ----------
    show
        Shows a status message.
    """

    def __init__(self, viewer: Viewer, choice: AddChoice, show: Callable[[str], None]) -> None:
        self._viewer, self._choice, self._show = viewer, choice, show
        self._interaction: Interaction | None = None
        self.sam: Sam | None = None
        choice.changed.connect(self._follow_choice)
        choice.cancelled.connect(self._cancel)

    def begin(self, interaction: Interaction) -> None:
        """Follow the choice for this session."""
        self._interaction = interaction
        self._follow_choice()

    def end(self) -> None:
        """Free SAM2's process."""
        self._free()
        self._interaction = None

    def _follow_choice(self) -> None:
        self._free()
        interaction, weights = self._interaction, self._choice.weights
        if interaction is None or weights is None:
            return
        self.sam = sam = Sam(self._viewer, interaction.session.objects, weights)
        sam.started.connect(self._choice.follow)
        sam.idle.connect(self._choice.show_idle)
        interaction.set_proposer(Proposals(interaction.corrector, sam))
        self._show(f"Loading {weights.name} …")
        sam.load(lambda name: self._show(f"{name} is ready: use Add (A)"), self._on_not_loaded)

    def _free(self) -> None:
        sam, self.sam = self.sam, None
        if sam is not None:
            sam.close()
            self._choice.show_idle()
        if self._interaction is not None:
            self._interaction.set_proposer(None)

    def _cancel(self) -> None:
        if self.sam is not None:
            self.sam.cancel()

    def _on_not_loaded(self, error: Exception) -> None:
        self._choice.choose_maps()
        if not isinstance(error, Cancelled):
            notify(error)
