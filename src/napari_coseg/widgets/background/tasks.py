"""What the widgets have done by the worker process, and how its results cross the pipe.

The first half runs over there, the second half in napari; neither knows napari or Qt.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_coseg.core.errors import Cancelled
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Instances, LabelClass, Prediction
from napari_coseg.widgets.background.process import JobContext, Reply
from napari_coseg.widgets.background.tables import pack_table, unpack_table

if TYPE_CHECKING:
    from napari_coseg.inference.run_state import RunState

TABLE = "column"
"""Under which the columns of the objects cross the pipe."""
DEVICES = "napari_coseg.widgets.background.tasks:devices"
SEGMENT = "napari_coseg.widgets.background.tasks:segment"
GUIDANCE = "napari_coseg.widgets.background.tasks:guidance"
EXPORT = "napari_coseg.widgets.background.tasks:export"
FILE_GEOMETRY = "napari_coseg.widgets.background.tasks:file_geometry"


# ---------------------------------------------------------------------------------------------
# In the worker process


def devices(job: JobContext) -> Reply:
    """Names of the devices of this machine that torch can use, the default first."""
    import torch

    names = ["auto", "cpu"]
    names += [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return Reply({"devices": names})


def file_geometry(job: JobContext, path: str) -> Reply:
    """Where the pixels of an image file lie, by its metadata, and the shape of its spatial axes."""
    from napari_coseg.images.readers.registry import read_image

    image = read_image(path)
    return Reply({"geometry": image.geometry.as_json(), "shape": list(image.spatial_shape)})


def segment(job: JobContext, *, key: str | None = None, **arguments: Any) -> Reply:
    """`napari_coseg.segment` on the array ``image`` of the job.

    With a `key` this process keeps what refining needs, until another run does (`kept_session`).
    """
    return pack(_segment(job, None if key is None else _new_session(job, key), **arguments))


def kept_session(job: JobContext, *, key: str, **arguments: Any) -> RunState:
    """What the run with this key left here; without it that run is done again.

    A process may have ended in between, and keeps the last run alone.
    """
    found = job.kept.get("session")
    if found is not None and found[0] == key and found[1].is_filled:
        return cast("RunState", found[1])
    session = _new_session(job, key)
    _segment(job, session, **arguments)
    return session


def _new_session(job: JobContext, key: str) -> RunState:
    from napari_coseg.inference.run_state import RunState

    job.kept.pop("session", None)  # the former one's memory first
    session = RunState()
    job.kept["session"] = (key, session)
    return session


def _segment(
    job: JobContext,
    session: RunState | None,
    *,
    model: str,
    device: str,
    adapter: str | None = None,
    name: str,
    axes: str,
    channels: list[int] | None,
    geometry: dict[str, Any],
    region: list[list[int]] | None,
    settings: dict[str, Any],
) -> Prediction:
    from napari_coseg.inference import InferenceSettings
    from napari_coseg.inference import segment as run

    chosen = InferenceSettings.from_mapping(settings)
    job.progress(0.0, "loading the model")
    network = _model(job, model, device, adapter)
    return run(
        Image(job.arrays["image"], axes, name=name, geometry=Geometry.from_json(geometry)),
        network,
        channels=channels,
        settings=chosen,
        region=[(start, stop) for start, stop in region] if region else None,
        state=session,
        progress=job.progress,
        should_cancel=job.should_cancel,
    )


def guidance(
    job: JobContext,
    *,
    model: str,
    device: str,
    adapter: str | None = None,
    name: str,
    axes: str,
    channels: list[int] | None,
    geometry: dict[str, Any],
    region: list[list[int]],
    z: int,
) -> Reply:
    """`mutual_guidance` on the array ``image`` of the job: its maps by name, and where they lie."""
    from napari_coseg.inference.guidance import mutual_guidance

    job.progress(0.0, "loading the model")
    network = _model(job, model, device, adapter)
    job.progress(0.5, "looking")
    found = mutual_guidance(
        Image(job.arrays["image"], axes, name=name, geometry=Geometry.from_json(geometry)),
        network,
        channels=channels,
        region=[(region[0][0], region[0][1]), (region[1][0], region[1][1])],
        z=z,
    )
    offset = [z, *found.offset] if "Z" in axes else list(found.offset)
    return Reply({"offset": offset}, found.maps())


def export(
    job: JobContext,
    *,
    name: str,
    axes: str | None,
    geometry: dict[str, Any],
    classes: list[list[Any]],
    region_classes: list[list[Any]],
    provenance: dict[str, Any],
    formats: list[str],
    folder: str,
    overwrite: bool,
) -> Reply:
    """Measure labels as they are now and write them; ``files`` are the paths written.

    Arrays of the job: ``labels`` and ``regions``, of which one may be missing; ``ids``,
    ``class_ids`` and ``probabilities`` of the objects; ``image`` where `axes` are given.
    """
    from napari_coseg.formats.registry import export as write
    from napari_coseg.formats.registry import stand_in
    from napari_coseg.widgets.corrected import LabelsOf, corrected_prediction

    job.progress(0.0, "measuring")
    arrays = {key: np.asarray(array) for key, array in job.arrays.items() if key != "image"}
    of_labels = LabelsOf(
        unpack_classes(classes),
        arrays["ids"],
        arrays["class_ids"],
        arrays["probabilities"],
        provenance,
    )
    found = corrected_prediction(
        arrays.get("labels"),
        arrays.get("regions"),
        Geometry.from_json(geometry),
        of_labels,
        LabelsOf(unpack_classes(region_classes)),
    )
    image = stand_in(found, name)
    if axes is not None:
        image = Image(job.arrays["image"], axes, name=name)
    files: list[Path] = []
    for number, one in enumerate(formats):
        job.progress((1 + number) / (1 + len(formats)), f"writing {one}")
        if job.should_cancel():
            raise Cancelled(f"cancelled; {len(files)} files were written before")
        files += write(found, image, folder, [one], overwrite=overwrite)
    return Reply({"files": [str(path) for path in files], "objects": len(found.instances)})


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
    """The loaded model, kept for the next run; loaded again where its file has changed."""
    from napari_coseg.inference.loading import load_model, weights_path

    path = weights_path(source)
    key = (str(path), _changed_at(path), device)
    if job.kept.get("model_key") != key:
        session = job.kept.get("session")
        job.kept.clear()  # the former model's memory first
        if session is not None and not session[1].is_filled:
            job.kept["session"] = session  # the one that this run fills
        job.kept["model"] = load_model(path, device)
        job.kept["model_key"] = key
    return job.kept["model"]


def _changed_at(path: Path) -> int:
    """Nanoseconds; 0 where there is no such file, which loading it then tells."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def pack(prediction: Prediction) -> Reply:
    """A prediction as JSON values and arrays.

    ``region_pixels`` comes with it: counting them in napari would block the window.
    """
    arrays = {"semantic": prediction.semantic, "labels": prediction.instances.labels}
    table, columns = pack_table(prediction.instances.table, TABLE)
    values = {
        "semantic_classes": [pack_class(entry) for entry in prediction.semantic_classes],
        "classes": [pack_class(entry) for entry in prediction.instances.classes],
        "geometry": prediction.geometry.as_json(),
        "provenance": prediction.provenance,
        "region_pixels": np.bincount(prediction.semantic.ravel(), minlength=256).tolist(),
        "table": table,
    }
    return Reply(values, arrays | columns)


def pack_class(entry: LabelClass) -> list[Any]:
    """A class as JSON values."""
    return [entry.id, entry.name, list(entry.color)]


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


def unpack_classes(entries: list[Any]) -> tuple[LabelClass, ...]:
    """What `pack_class` packed."""
    return tuple(LabelClass(id_, name, tuple(color)) for id_, name, color in entries)
