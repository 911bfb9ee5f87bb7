"""Jobs of the worker process for refining: corrected masks in, another prediction out; maps.

Runs in the worker process; knows neither napari nor Qt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_coseg.core.types import Instances
from napari_coseg.labels.editing.area import Area
from napari_coseg.widgets.background.process import JobContext, Reply
from napari_coseg.widgets.background.tasks import kept_state, pack

REFINE = "napari_coseg.widgets.refine.tasks:refine"
MAPS = "napari_coseg.widgets.refine.tasks:maps"


def refine(job: JobContext, *, run: dict[str, Any], prompt_with: list[str]) -> Reply:
    """`inference.refine.refine` on the features of a run, which is repeated where they are lost.

    Arrays of the job: ``labels`` and ``regions`` as they are now; ``ids``, ``class_ids`` and
    ``probabilities`` of the objects; ``reviewed_ids``, ``reviewed_objects`` and
    ``reviewed_regions`` as in `Reviewed`, the areas as runs; ``image``, which is read only where a
    tile has to be encoded again.

    Parameters
    ----------
    run
        The arguments of `tasks.segment`, with the run's key.
    """
    import pandas as pd

    from napari_coseg.inference.refine import refine as refined

    job.progress(0.0, "loading the run's features")
    state = kept_state(job, **run)
    names = ("labels", "regions", "ids", "class_ids", "probabilities", "reviewed_ids")
    arrays = {name: np.asarray(job.arrays[name]) for name in names}
    labels = arrays["labels"]
    columns = {"id": "ids", "class_id": "class_ids", "class_probability": "probabilities"}
    table = pd.DataFrame({column: arrays[name] for column, name in columns.items()})
    marked = np.isin(labels, arrays["reviewed_ids"])
    area = {
        target: Area(labels.shape, np.asarray(job.arrays[f"reviewed_{target}"])).mask()
        for target in ("objects", "regions")
    }
    return pack(
        refined(
            state,
            arrays["regions"],
            Instances(labels, table, state.prediction.instances.classes),
            reviewed_objects=marked | area["objects"],
            reviewed_regions=area["regions"],
            prompt_with=prompt_with,
            progress=job.progress,
            should_cancel=job.should_cancel,
        )
    )


def maps(job: JobContext, *, run: dict[str, Any], window: list[list[int]]) -> Reply:
    """The network's maps in a window of the labels: half-open rows and columns.

    Arrays of the reply: ``object_probability`` (Y, X), ``hv`` (2, Y, X) and ``class_probability``
    (1 + T, Y, X), all float32, of the window's size.
    """
    state = kept_state(job, **run)
    (top, bottom), (left, right) = window
    found = state.maps((slice(top, bottom), slice(left, right)))
    return Reply(
        {},
        {
            "object_probability": found.object_probability,
            "hv": found.hv,
            "class_probability": found.class_probability,
        },
    )
