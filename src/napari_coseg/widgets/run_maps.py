"""Maps to grow an object on, from the process that ran the model."""

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
"""How far the maps reach from the point; farther than any object that grows from a click."""


class RunMaps:
    """A `MapsProvider` for the objects of a run.

    Parameters
    ----------
    objects
        The layer that the run made.
    """

    def __init__(self, viewer: Viewer, objects: Labels) -> None:
        self._viewer, self._objects = viewer, objects
        self._own: Worker | None = None

    def ask(
        self,
        point: Sequence[float],
        done: Callable[[Maps], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """As `MapsProvider.ask`. Where the run's process has ended, the run is done again first."""
        try:
            run = run_of(self._viewer, self._objects)
        except CosegError as error:
            failed(error)
            return
        rows, columns = (
            slice(max(0, round(at) - REACH_PX), min(size, round(at) + REACH_PX + 1))
            for at, size in zip(point[-2:], run.objects.data.shape, strict=True)
        )

        def take(reply: Reply) -> None:
            types = reply.arrays["class_probability"]
            done(
                Maps(
                    reply.arrays["object_probability"],
                    reply.arrays["hv"],
                    types if len(types) else None,
                    (rows, columns),
                )
            )

        window = [[rows.start, rows.stop], [columns.start, columns.stop]]
        worker = run.worker or self._worker()
        hold(run.arguments["key"], worker)
        job = worker.submit(
            refine_tasks.MAPS, {"run": run.arguments, "window": window}, {"image": run.image}
        )
        job.done.connect(take)
        job.failed.connect(failed)

    def close(self) -> None:
        """End the process that was started for it, if any."""
        if self._own is not None:
            self._own.close()

    def _worker(self) -> Worker:
        self._own = self._own or Worker()
        return self._own
