"""The model's maps around a click, from the worker process that ran the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CosegError
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.correct.add import Maps
from napari_coseg.widgets.refine import tasks as refine_tasks
from napari_coseg.widgets.runs import hold, run_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

REACH_PX = 256
"""Half side of the maps' window; more than any object that grows from a click."""


class RunMaps:
    """A `MapsProvider` for the objects layer of a run."""

    def __init__(self, viewer: Viewer, objects: Labels) -> None:
        self._viewer, self._objects = viewer, objects
        self._own_worker: Worker | None = None

    def ask(
        self,
        point: Sequence[float],
        done: Callable[[Maps], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """As `MapsProvider.ask`. Where the run's process has ended, the run is repeated first."""
        try:
            run = run_of(self._viewer, self._objects)
        except CosegError as error:
            failed(error)
            return
        rows, columns = (
            slice(max(0, round(at) - REACH_PX), min(size, round(at) + REACH_PX + 1))
            for at, size in zip(point[-2:], run.objects.data.shape, strict=True)
        )

        def receive(reply: Reply) -> None:
            types = reply.arrays["class_probability"]
            maps = reply.arrays["object_probability"], reply.arrays["hv"]
            done(Maps(*maps, types if len(types) else None, (rows, columns)))

        window = [[part.start, part.stop] for part in (rows, columns)]
        worker = run.worker or self._worker()
        hold(run.arguments["key"], worker)
        job = worker.submit(
            refine_tasks.MAPS, {"run": run.arguments, "window": window}, {"image": run.image}
        )
        job.done.connect(receive)
        job.failed.connect(failed)

    def close(self) -> None:
        """End the process that this started, if any."""
        if self._own_worker is not None:
            self._own_worker.close()

    def _worker(self) -> Worker:
        self._own_worker = self._own_worker or Worker()
        return self._own_worker
