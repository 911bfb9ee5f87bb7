"""SAM2 in a process of its own, for the objects of one session."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_coseg.core.errors import CosegError
from napari_coseg.inference.sam2.windows import Prompt, SamMask
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Job, Worker
from napari_coseg.widgets.correct import sam_tasks
from napari_coseg.widgets.correct.reading import pixel_size_um
from napari_coseg.widgets.correct.under import Under, image_under

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer


class Sam(QObject):
    """A file's network, and what it has encoded, in a worker process; `close` frees all of it.

    Parameters
    ----------
    objects
        The layer whose pixels prompts and masks are told in.
    weights
        A checkpoint of SAM2.
    worker
        None makes one of its own, which is closed with this; another is left running.

    Signals
    -------
    began(Job)
        To show its progress.
    rested()
        No job is left.
    """

    began = Signal(object)
    rested = Signal()

    def __init__(
        self, viewer: Viewer, objects: Labels, weights: Path, worker: Worker | None = None
    ) -> None:
        super().__init__()
        self._viewer, self._objects, self._weights = viewer, objects, weights
        self._worker, self._owns_worker = worker or Worker(), worker is None
        self._jobs: list[Job] = []
        self._image: tuple[Any, str] = (None, "")

    @property
    def is_busy(self) -> bool:
        return bool(self._jobs)

    def load(self, done: Callable[[str], None], failed: Callable[[Exception], None]) -> None:
        """Have the network ready; `done` gets its name."""
        job = self._worker.submit(sam_tasks.LOAD, {"weights": str(self._weights)})
        self._follow(job, lambda reply: done(reply.values["name"]), failed)

    def ask(
        self,
        prompt: Prompt,
        z: int | None,
        done: Callable[[SamMask], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """What a prompt means; one of the two is called in the GUI thread.

        Parameters
        ----------
        prompt
            In pixels of the labels, as is the answer.
        z
            The slice of the labels; None in a plane.
        """
        try:
            under = image_under(self._viewer, self._objects, z)
        except CosegError as error:
            failed(error)
            return

        def take(reply: Reply) -> None:
            values = reply.values
            y, x = values["corner"]
            mask = reply.arrays["mask"]
            done(SamMask(mask, (y, x), values["quality"], values["at_side"]))

        job = self._worker.submit(
            sam_tasks.ANSWER, self._arguments(prompt, under), {"image": under.data}
        )
        self._follow(job, take, failed)

    def cancel(self) -> None:
        """Stop all that is asked."""
        for job in reversed(self._jobs.copy()):
            job.cancel()

    def close(self) -> None:
        """End the process, without a word from its jobs."""
        jobs, self._jobs = self._jobs, []
        if self._owns_worker:
            self._worker.close()
        else:
            for job in reversed(jobs):
                job.cancel()

    def _arguments(self, prompt: Prompt, under: Under) -> dict[str, Any]:
        if self._image[0] is not under.data:
            self._image = (under.data, uuid.uuid4().hex)
        size = pixel_size_um(self._objects)
        if size is not None:  # of the image's pixels, which may be others
            scale = [sum(abs(value) for value in row[:2]) for row in under.to_image.tolist()]
            size = tuple(um / factor for um, factor in zip(size[-2:], scale, strict=True))
        return {
            "weights": str(self._weights),
            "key": f"{self._image[1]} {under.axes} {under.channels}",
            "name": under.name,
            "axes": under.axes,
            "channels": under.channels,
            "pixel_size_um": size,
            "z": under.z,
            "points": prompt.points,
            "positive": prompt.positive,
            "box": prompt.box,
            "to_image": under.to_image.tolist(),
            "shape": list(self._objects.data.shape[-2:]),
        }

    def _follow(
        self, job: Job, done: Callable[[Reply], None], failed: Callable[[Exception], None]
    ) -> None:
        self._jobs.append(job)
        self.began.emit(job)

        def end(call: Callable[[Any], None], value: Any) -> None:
            if job not in self._jobs:
                return  # closed meanwhile
            self._jobs.remove(job)
            if not self._jobs:
                self.rested.emit()
            call(value)

        job.done.connect(lambda reply: end(done, reply))
        job.failed.connect(lambda error: end(failed, error))
