"""Jobs of the worker process that Segment, Guidance and Export ask for, and their results.

The first half runs in the worker process, the second half in napari. Neither knows napari or Qt.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_coseg.core.errors import Cancelled
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Instances, Prediction
from napari_coseg.widgets.background.process import JobContext, Reply
from napari_coseg.widgets.background.tables import (
    measured,
    pack_classes,
    pack_table,
    unpack_classes,
    unpack_table,
)

if TYPE_CHECKING:
    from napari_coseg.inference.run_state import RunState

TABLE = "column"
"""Prefix of the object table's columns among a reply's arrays."""
DEVICES = "napari_coseg.widgets.background.tasks:devices"
SEGMENT = "napari_coseg.widgets.background.tasks:segment"
GUIDANCE = "napari_coseg.widgets.background.tasks:guidance"
EXPORT = "napari_coseg.widgets.background.tasks:export"
FILE_GEOMETRY = "napari_coseg.widgets.background.tasks:file_geometry"


# ---------------------------------------------------------------------------------------------
# In the worker process


def devices(job: JobContext) -> Reply:
    """Names of this machine's devices that torch can use, the default first."""
    import torch

    names = ["auto", "cpu"]
    names += [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return Reply({"devices": names})


def file_geometry(job: JobContext, path: str) -> Reply:
    """Geometry from an image file's metadata, and the shape of its spatial axes."""
    from napari_coseg.images.readers.registry import read_image

    image = read_image(path)
    return Reply({"geometry": image.geometry.as_json(), "shape": list(image.spatial_shape)})


def segment(job: JobContext, *, key: str | None = None, **arguments: Any) -> Reply:
    """`napari_coseg.segment` on the job's array ``image``.

    With a `key` this process keeps what refining needs, until the next run (`kept_state`).
    """
    return pack(_segment(job, None if key is None else _new_state(job, key), **arguments))


def kept_state(job: JobContext, *, key: str, **arguments: Any) -> RunState:
    """What the run with this key left here; the run is repeated where nothing is left.

    A process may have ended since, and it keeps the last run only.
    """
    found = job.kept.get("state")
    if found is not None and found[0] == key and found[1].is_filled:
        return cast("RunState", found[1])
    state = _new_state(job, key)
    _segment(job, state, **arguments)
    return state


def _new_state(job: JobContext, key: str) -> RunState:
    from napari_coseg.inference.run_state import RunState

    job.kept.pop("state", None)  # free its memory first
    state = RunState()
    job.kept["state"] = (key, state)
    return state


def _segment(
    job: JobContext,
    state: RunState | None,
    *,
    region: list[list[int]] | None,
    settings: dict[str, Any],
    **source: Any,
) -> Prediction:
    from napari_coseg.inference import InferenceSettings
    from napari_coseg.inference import segment as run

    chosen = InferenceSettings.from_mapping(settings)
    image, network, channels = _image_and_model(job, **source)
    return run(
        image,
        network,
        channels=channels,
        settings=chosen,
        region=[(start, stop) for start, stop in region] if region else None,
        state=state,
        progress=job.progress,
        should_cancel=job.should_cancel,
    )


def guidance(job: JobContext, *, region: list[list[int]], z: int, **source: Any) -> Reply:
    """`mutual_guidance` on the job's array ``image``: maps by name, and ``offset`` in the image."""
    from napari_coseg.inference.guidance import mutual_guidance

    image, network, channels = _image_and_model(job, **source)
    job.progress(0.5, "predicting")
    (top, bottom), (left, right) = region
    found = mutual_guidance(
        image, network, channels=channels, region=[(top, bottom), (left, right)], z=z
    )
    offset = [z, *found.offset] if image.is_stack else list(found.offset)
    return Reply({"offset": offset}, found.maps())


def export(
    job: JobContext,
    *,
    name: str,
    axes: str | None,
    path: str | None,
    formats: list[str],
    folder: str,
    overwrite: bool,
    **labels: Any,
) -> Reply:
    """Measure labels as they are now and write them; ``files`` are the paths written.

    Arrays of the job: those of `measured`; ``image`` where `axes` are given. `path` is that of the
    image's file or folder.
    """
    from napari_coseg.formats.registry import export as write
    from napari_coseg.formats.registry import stand_in

    job.progress(0.0, "measuring")
    found = measured(job.arrays, **labels)
    image = stand_in(found, name)
    if axes is not None:
        image = Image(job.arrays["image"], axes, name=name)
    image = replace(image, path=Path(path) if path else None)
    files: list[Path] = []
    for number, one in enumerate(formats):
        job.progress((1 + number) / (1 + len(formats)), f"writing {one}")
        if job.should_cancel():
            raise Cancelled(f"cancelled; {len(files)} files were written before")
        files += write(found, image, folder, [one], overwrite=overwrite)
    return Reply({"files": [str(path) for path in files], "objects": len(found.instances)})


def _image_and_model(
    job: JobContext,
    *,
    model: str,
    device: str,
    adapter: str | None = None,
    name: str,
    axes: str,
    channels: list[int] | None,
    geometry: dict[str, Any],
) -> tuple[Image, Any, list[int] | None]:
    job.progress(0.0, "loading the model")
    network = _model(job, model, device, adapter)
    image = Image(job.arrays["image"], axes, name=name, geometry=Geometry.from_json(geometry))
    return image, network, channels


def _model(job: JobContext, source: str, device: str, adapter: str | None = None) -> Any:
    """The loaded model, with an adapter or without; both are kept for the next run."""
    from napari_coseg.inference.loading import switch_adapter

    base = _base(job, source, device)
    if adapter is None:
        return base
    key = (adapter, _changed_at(Path(adapter)))
    if job.kept.get("adapter_key") != key:
        job.kept.pop("adapted", None)
        job.kept["adapted"] = switch_adapter(base, adapter)
        job.kept["adapter_key"] = key
    return job.kept["adapted"]


def _base(job: JobContext, source: str, device: str) -> Any:
    """The loaded base model, kept for the next run; loaded again where its file has changed."""
    from napari_coseg.inference.loading import load_model, weights_path

    path = weights_path(source)
    key = (str(path), _changed_at(path), device)
    if job.kept.get("model_key") != key:
        state = job.kept.get("state")
        job.kept.clear()  # free the former model's memory first
        if state is not None and not state[1].is_filled:
            job.kept["state"] = state  # the one that this run fills
        job.kept["model"] = load_model(path, device)
        job.kept["model_key"] = key
    return job.kept["model"]


def _changed_at(path: Path) -> int:
    """Modification time in nanoseconds; 0 for no file, which loading it then reports."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def pack(prediction: Prediction) -> Reply:
    """A prediction as JSON values and arrays.

    ``region_pixels`` are counted here, as counting in napari would block the window.
    """
    arrays = {"semantic": prediction.semantic, "labels": prediction.instances.labels}
    table, columns = pack_table(prediction.instances.table, TABLE)
    values = {
        "semantic_classes": pack_classes(prediction.semantic_classes),
        "classes": pack_classes(prediction.instances.classes),
        "geometry": prediction.geometry.as_json(),
        "provenance": prediction.provenance,
        "region_pixels": np.bincount(prediction.semantic.ravel(), minlength=256).tolist(),
        "table": table,
    }
    return Reply(values, arrays | columns)


# ---------------------------------------------------------------------------------------------
# In napari


def unpack(reply: Reply) -> Prediction:
    """What `pack` packed."""
    values, arrays = reply.values, reply.arrays
    table = unpack_table(values["table"], arrays, TABLE)
    instances = Instances(arrays["labels"], table, unpack_classes(values["classes"]))
    return Prediction(
        arrays["semantic"],
        unpack_classes(values["semantic_classes"]),
        instances,
        provenance=values["provenance"],
        geometry=Geometry.from_json(values["geometry"]),
    )
