"""Objects that are grown at a click from the maps of the run that made the objects layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.add import grow
from napari_coseg.labels.editing.edit import Box
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Worker
from napari_coseg.widgets.correct.actions import Corrector
from napari_coseg.widgets.correct.gesture import Gesture
from napari_coseg.widgets.dock_widget import notify, notify_errors
from napari_coseg.widgets.refine import tasks as refine_tasks
from napari_coseg.widgets.runs import hold, run_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

REACH_PX = 256
"""Half side of the maps' window; more than any object that grows from a click."""


class RunProposer:
    """An `ObjectProposer` that uses the worker process of the run, or repeats the run."""

    hint, takes_boxes = "", False

    def __init__(self, viewer: Viewer, corrector: Corrector) -> None:
        self._viewer, self._corrector = viewer, corrector
        self._own_worker: Worker | None = None
        self._is_closed = False

    def use(self, gesture: Gesture) -> None:
        """Grow an object at a click on background; raises `EditError`."""
        check_background(self._corrector, gesture)
        objects = self._corrector.session.objects
        run = run_of(self._viewer, objects)
        field = tuple(
            slice(max(0, round(at) - REACH_PX), min(size, round(at) + REACH_PX + 1))
            for at, size in zip(gesture.point[-2:], objects.data.shape, strict=True)
        )
        self._corrector.message.emit("Reading the model's maps …")
        worker = run.worker or self._worker()
        hold(run.arguments["key"], worker)
        window = [[part.start, part.stop] for part in field]
        job = worker.submit(
            refine_tasks.MAPS, {"run": run.arguments, "window": window}, {"image": run.image}
        )
        job.done.connect(partial(self._on_maps, gesture, field))
        job.failed.connect(self._on_failed)

    def close(self) -> None:
        """End the process that this started, if any, and ignore maps that arrive from now on."""
        self._is_closed = True
        if self._own_worker is not None:
            self._own_worker.close()

    def _worker(self) -> Worker:
        self._own_worker = self._own_worker or Worker()
        return self._own_worker

    def _on_maps(self, gesture: Gesture, field: Box, reply: Reply) -> None:
        if not self._is_closed:
            with notify_errors():
                add_grown(self._corrector, gesture, reply.arrays, field)

    def _on_failed(self, error: Exception) -> None:
        if not self._is_closed:
            self._corrector.message.emit("")
            notify(error)


def check_background(corrector: Corrector, gesture: Gesture) -> None:
    """Raise `EditError` where a click is on an object."""
    object_id = corrector.object_at(gesture.point)
    if object_id:
        raise EditError(f"object {object_id} is there already; click on background, or split it")


def add_grown(
    corrector: Corrector, gesture: Gesture, maps: Mapping[str, np.ndarray], field: Box
) -> None:
    """Add the object that the model's maps show at a click.

    Parameters
    ----------
    maps
        ``object_probability``, ``hv`` and ``class_probability`` (empty where the model has no
        object classes), as for `labels.editing.add.grow`.
    field
        Rows and columns of the labels that the maps cover, on a grid of any resolution.
    """
    types = maps["class_probability"]
    edit = grow(
        corrector.session.editor,
        gesture.point,
        maps["object_probability"],
        maps["hv"],
        class_probability=types if len(types) else None,
        field=field,
        class_id=corrector.object_class,
        reviewed=corrector.session.reviewed,
    )
    corrector.added(edit)
