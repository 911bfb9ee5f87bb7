"""Which run made a pair of layers, and which process still holds what it encoded.

A run's request is written into the metadata of both layers, so that what the process has lost can
be had again by the same run.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.corrected import METADATA_KEY

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_coseg.widgets.background.worker import Worker

RUN_KEY = "run"
"""Of ``layer.metadata[METADATA_KEY]``: the arguments of `tasks.segment`, plain JSON values."""
_WORKERS: weakref.WeakValueDictionary[str, Worker] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Run:
    """A run whose layers are in the viewer.

    Parameters
    ----------
    arguments
        Of `tasks.segment`, with the run's ``key``.
    image
        The array that it segmented.
    objects, regions
        Its layers.
    worker
        The process that ran it, as long as it lives.
    """

    arguments: dict[str, Any]
    image: Any
    objects: Labels
    regions: Labels
    worker: Worker | None


def new_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `tasks.segment` with a key that no other run has."""
    return {**arguments, "key": uuid.uuid4().hex}


def remember(objects: Labels, regions: Labels, arguments: dict[str, Any], worker: Worker) -> None:
    """Both layers were made by this run, in this process."""
    for layer in (objects, regions):
        ours = dict(layer.metadata.get(METADATA_KEY, {}))
        layer.metadata = {**layer.metadata, METADATA_KEY: {**ours, RUN_KEY: dict(arguments)}}
    if arguments.get("key"):
        hold(arguments["key"], worker)


def hold(key: str, worker: Worker) -> None:
    """From now on this process holds what the run with this key encoded."""
    _WORKERS[key] = worker


def arguments_of(layer: Any) -> dict[str, Any] | None:
    """What the run that made a layer was asked; None where that is not known."""
    found = dict(layer.metadata.get(METADATA_KEY, {})).get(RUN_KEY)
    return dict(found) if found else None


def run_of(viewer: Viewer, objects: Labels) -> Run:
    """The run that made a layer of objects.

    Raises
    ------
    EditError
        Where that is not known, its image or its other layer is gone, or it was of a stack.
    """
    arguments = arguments_of(objects)
    if arguments is None or not arguments.get("key"):
        raise EditError(
            f"it is not known which run made {objects.name!r}; segment the image again, here"
        )
    if "Z" in arguments["axes"]:
        raise EditError("slices of a stack cannot be refined yet; segment a single slice")
    image = outputs.image_of(viewer, objects)
    if image is None:
        raise EditError(
            f"the image {outputs.made_of(objects)!r} is not in the viewer; open it again under "
            "that name"
        )
    regions = next((one for one in viewer.layers if _is_of(one, arguments["key"], "regions")), None)
    if regions is None:
        raise EditError(f"the regions that came with {objects.name!r} are gone; segment again")
    worker = _WORKERS.get(arguments["key"])
    alive = worker if worker is not None and worker.pid is not None else None
    return Run(arguments, layers.level_0(image), objects, regions, alive)


def regions_of(viewer: Viewer, objects: Any) -> Labels | None:
    """The layer of regions that came with a layer of objects, whatever both are called now.

    Told by what the run wrote into both; where that tells nothing, or several apart, by the name.
    None for objects that Segment did not make, and where no regions of ours are theirs.
    """
    if not outputs.is_output(objects, "objects"):
        return None
    found = [one for one in viewer.layers if outputs.is_output(one, "regions")]
    same_run = [one for one in found if _origin(one) == _origin(objects)]
    name = objects.name.replace(" objects", " regions")
    named = [[one for one in ones if one.name == name] for ones in (same_run, found)]
    return (named[0] or same_run[::-1] or named[1] or [None])[0]


def _origin(layer: Any) -> tuple[Any, ...]:
    """What a run writes alike into both of its layers."""
    ours = dict(layer.metadata.get(METADATA_KEY, {}))
    key = (arguments_of(layer) or {}).get("key")
    return key, ours.get("image"), ours.get("provenance")


def _is_of(layer: Any, key: str, kind: str) -> bool:
    ours = dict(layer.metadata.get(METADATA_KEY, {}))
    return ours.get("kind") == kind and (arguments_of(layer) or {}).get("key") == key
