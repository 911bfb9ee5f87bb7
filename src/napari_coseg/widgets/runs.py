"""Which run made a pair of label layers, and which worker process still holds its features.

A run's request is written into the metadata of both layers, so that the same run can be repeated
where its process has ended.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers
from napari_coseg.widgets.labelled_image import run_image_of
from napari_coseg.widgets.outputs import is_output, made_of, metadata_of, update_metadata

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_coseg.widgets.background.worker import Worker

RUN_KEY = "run"
"""Key, in this plugin's metadata of a layer, of the arguments of `tasks.segment` (JSON values)."""
_WORKERS: weakref.WeakValueDictionary[str, Worker] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Run:
    """A run whose layers are in the viewer.

    Parameters
    ----------
    arguments
        Of `tasks.segment`, with the run's ``key``.
    image
        The array that was segmented.
    objects, regions
        Layers that the run made.
    worker
        The process that ran it, while it lives.
    """

    arguments: dict[str, Any]
    image: Any
    objects: Labels
    regions: Labels
    worker: Worker | None


def new_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `tasks.segment` with a unique key."""
    return {**arguments, "key": uuid.uuid4().hex}


def remember(objects: Labels, regions: Labels, arguments: dict[str, Any], worker: Worker) -> None:
    """Note in both layers which run made them, and in which process."""
    for layer in (objects, regions):
        update_metadata(layer, **{RUN_KEY: dict(arguments)})
    if arguments.get("key"):
        hold(arguments["key"], worker)


def hold(key: str, worker: Worker) -> None:
    """Note that this process holds the features of the run with this key."""
    _WORKERS[key] = worker


def arguments_of(layer: Any) -> dict[str, Any] | None:
    """Arguments of the run that made a layer; None where they are not known."""
    found = metadata_of(layer).get(RUN_KEY)
    return dict(found) if found else None


def run_of(viewer: Viewer, objects: Labels) -> Run:
    """The run that made a layer of objects.

    Raises
    ------
    EditError
        Where the run is not known or was of a stack, or its image or regions were removed.
    """
    arguments = arguments_of(objects)
    if arguments is None or not arguments.get("key"):
        raise EditError(
            f"the run that made {objects.name!r} is not known; segment the image again in this "
            "window"
        )
    if "Z" in arguments["axes"]:
        raise EditError("slices of a stack cannot be refined yet; segment a single slice")
    image = run_image_of(viewer, objects)
    if image is None:
        raise EditError(
            f"the image {made_of(objects)!r} is not in the viewer; open it again under that name"
        )
    regions = next(
        (
            one
            for one in viewer.layers
            if is_output(one, "regions") and _key(one) == arguments["key"]
        ),
        None,
    )
    if regions is None:
        raise EditError(
            f"the regions layer of the run that made {objects.name!r} was removed; segment again"
        )
    worker = _WORKERS.get(arguments["key"])
    alive = worker if worker is not None and worker.pid is not None else None
    return Run(arguments, layers.level_0(image), objects, regions, alive)


def regions_of(viewer: Viewer, objects: Any) -> Labels | None:
    """The regions layer of the run that made an objects layer, whatever both are called now.

    Identified by what the run wrote into both; where that fits none or several, by the name. None
    for objects that Segment did not make, and where there is no such layer.
    """
    if not is_output(objects, "objects"):
        return None
    found = [one for one in viewer.layers if is_output(one, "regions")]
    same_run = [one for one in found if _origin(one) == _origin(objects)]
    name = objects.name.replace(" objects", " regions")
    named = [[one for one in ones if one.name == name] for ones in (same_run, found)]
    return (named[0] or same_run[::-1] or named[1] or [None])[0]


def _origin(layer: Any) -> tuple[Any, ...]:
    """What a run writes alike into both of its layers."""
    about = metadata_of(layer)
    return _key(layer), about.get("image"), about.get("provenance")


def _key(layer: Any) -> str | None:
    return (arguments_of(layer) or {}).get("key")
