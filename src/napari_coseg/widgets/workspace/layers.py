"""From layers to what a workspace keeps, and back. What looks at pixels is fit for a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import CosegError, ImageError
from napari_coseg.core.types import LABEL_DTYPE, Image, Instances, Prediction
from napari_coseg.finetuning.from_workspace import WITHOUT_OBJECTS
from napari_coseg.formats.place import geometry_of_labels
from napari_coseg.images.readers.registry import read_image
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.session import REVIEWED_KEY, marks_kept, session_of
from napari_coseg.widgets.corrected import METADATA_KEY, LabelsOf
from napari_coseg.widgets.geometry import note_of, noted, placement_of, spatial_dims
from napari_coseg.widgets.workspace.link import Known
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels
    from napari.viewer import Viewer


@dataclass(frozen=True, eq=False)
class Loaded:
    """An entry as it was read in a thread, ready to be shown.

    image is None where it could not be read, and then `why` says so.
    """

    entry: Entry
    saved: Saved
    known: Known
    path: Path | None
    image: Image | None
    why: str | None = None


# ---------------------------------------------------------------------------------------------
# Layers -> workspace


def adding(
    workspace: Workspace, image_layer: ImageLayer, objects: Labels | None, regions: Labels | None
) -> Callable[[], tuple[Entry, Known]]:
    """What adds a pair of layers to a workspace, to be called in a thread.

    Parameters
    ----------
    image_layer
        What they are labels of.
    objects, regions
        At least one of them.

    Raises
    ------
    CosegError
        Where layers do not belong together, or are of several resolutions.
    """
    either = objects if objects is not None else regions
    if either is None:
        raise ImageError("there are no labels to keep; run Segment, or add a labels layer")
    if objects is regions:
        raise ImageError(
            f"{either.name!r} is chosen as objects and as regions; choose the layer of regions, "
            "or none"
        )
    session = None if objects is None else session_of(objects)
    request = request_of(either, regions)
    ours = dict(either.metadata.get(METADATA_KEY, {}))
    provenance = dict(ours.get("provenance", {}))
    image = layers.layer_to_image(
        image_layer, _axes(image_layer, either, provenance), ours.get("pixel_size_um")
    )
    if objects is None:
        provenance[WITHOUT_OBJECTS] = True  # else no objects would read as: there are none
    offset = tuple(int(at) for at in provenance.get("region_offset", ()))
    _check_fit(image, either, offset)
    geometry = note_of(either.metadata) or image.geometry.crop(offset or (0,) * either.ndim)
    path = _file_of(image_layer)
    table, marks = (
        (None, marks_kept(either))
        if session is None
        else (
            session.editor.table,
            session.reviewed,
        )
    )

    def add() -> tuple[Entry, Known]:
        labels = _copied(request[0]) if objects is not None else _nothing(request[1])
        copied = None if request[1] is None else _copied(request[1])
        known = request[3] if objects is not None else LabelsOf()
        editor = editor_of(labels, copied, request[2], known, request[4])
        saved = Saved(
            labels,
            editor.pixel_size_um,
            copied,
            editor.table if table is None else table,
            marks,
            editor.classes,
            editor.region_classes,
            provenance,
            offset,
            geometry,
        )
        pixels = None if path is not None else np.asarray(image.data)
        reference = reference_of(image, path, workspace.path)
        return workspace.add(reference, saved, pixels), Known.of(saved)

    return add


def image_of(viewer: Viewer, labels: Labels) -> ImageLayer | None:
    """The image that labels were made of, or the topmost that they fit."""
    from napari.layers import Image as ImageLayer

    of_run = outputs.image_of(viewer, labels)
    if of_run is not None:
        return of_run
    images = (layer for layer in reversed(viewer.layers) if isinstance(layer, ImageLayer))
    return next((layer for layer in images if _fits(layer, labels)), None)


def _axes(image_layer: ImageLayer, labels: Labels, provenance: dict[str, Any]) -> str:
    """As the run understood the image; else those that leave as many spatial axes as labels."""
    choices = layers.axes_choices(image_layer)
    told = provenance.get("axes")
    if told in choices:
        return str(told)
    spatial = [axes for axes in choices if len(spatial_dims(axes)) == labels.ndim]
    return (spatial or list(choices))[0]


def _fits(image_layer: ImageLayer, labels: Labels) -> bool:
    try:
        image = layers.layer_to_image(image_layer, _axes(image_layer, labels, {}))
        _check_fit(image, labels, ())
    except CosegError:
        return False
    return True


def _check_fit(image: Image, labels: Labels, offset: Sequence[int]) -> None:
    shape = tuple(labels.data.shape)
    starts = tuple(offset) or (0,) * len(shape)
    ends = [start + size for start, size in zip(starts, shape, strict=False)]
    inside = len(shape) == len(image.spatial_shape) == len(starts)
    if not inside or any(e > n for e, n in zip(ends, image.spatial_shape, strict=True)):
        raise ImageError(
            f"{labels.name!r} has shape {shape}, the image {image.name!r} {image.spatial_shape}; "
            "choose the image that the labels belong to"
        )


def _file_of(layer: ImageLayer) -> Path | None:
    """The file that the layer was read from; None for what was not, or not from one alone."""
    path = layer.source.path
    return Path(path) if path and Path(path).is_file() else None


def _copied(image: Any) -> np.ndarray:
    """A copy; edits made while it is copied are found by the next scan."""
    return np.array(image)


def _nothing(regions: Any) -> np.ndarray:
    return np.zeros(regions.shape, LABEL_DTYPE)


# ---------------------------------------------------------------------------------------------
# Workspace -> layers


def loaded(entry: Entry, also: Sequence[Path] = (), *, salvage: bool, with_image: bool) -> Loaded:
    """Read an entry and find its image; for a thread.

    Raises
    ------
    ImageNotFound
        Where the image is to be shown and is not found.
    CosegError
        Where the entry is damaged.
    """
    path = entry.find_image(also) if with_image else None
    saved = entry.load(salvage=salvage)
    known = Known.of(saved)
    if path is None:
        return Loaded(entry, saved, known, None, None)
    try:
        image = replace(read_image(path), name=entry.name)
        if tuple(image.data.shape) != entry.image.shape:
            raise ImageError(
                f"{path} was read with shape {tuple(image.data.shape)}, expected "
                f"{entry.image.shape}; open the image in napari as you did before"
            )
        kept = entry.image
        geometry = kept.geometry or image.geometry
        fits = geometry.axes == kept.axes.replace("C", "")
        image = Image(
            image.data,
            kept.axes,
            kept.pixel_size_um,
            entry.name,
            geometry=geometry if fits else None,
        )
    except CosegError as error:
        return Loaded(entry, saved, known, path, None, str(error))
    return Loaded(entry, saved, known, path, image)


def show(viewer: Viewer, found: Loaded) -> tuple[Labels, Labels | None]:
    """Add the entry's image, unless it is there, and its labels; returns objects and regions."""
    layer = _shown_image(viewer, found)
    saved, axes = found.saved, found.entry.image.axes
    offset, stands_in = found.entry.offset, layer is None
    if layer is None:
        layer, axes, offset = _stand_in(viewer, found), "ZYX"[-saved.labels.ndim :], ()
    no_regions = saved.regions is None
    prediction = Prediction(
        np.zeros(saved.labels.shape, np.uint8) if saved.regions is None else saved.regions,
        saved.region_classes,
        Instances(saved.labels, saved.table, saved.classes),
        provenance={**saved.provenance, "region_offset": list(offset)},
        geometry=geometry_of_labels(saved.geometry, saved.labels.shape, offset, found.image),
    )
    regions, objects = outputs.add_prediction(viewer, layer, axes, prediction)
    for one in (objects, regions):
        one.metadata[METADATA_KEY]["provenance"] = saved.provenance
    objects.metadata[METADATA_KEY][REVIEWED_KEY] = saved.reviewed.as_json()
    if stands_in:
        viewer.layers.remove(layer)
    if no_regions:
        viewer.layers.remove(regions)
    return objects, None if no_regions else regions


def _stand_in(viewer: Viewer, found: Loaded) -> ImageLayer:
    """An empty image where the entry's would be, for the labels to lie over."""
    saved = found.saved
    layer: ImageLayer = viewer.add_image(
        np.zeros(saved.labels.shape, np.uint8),
        name=found.entry.name,
        metadata={METADATA_KEY: noted(saved.geometry)},
        **placement_of(saved.geometry, saved.geometry.axes),
    )
    return layer


def _shown_image(viewer: Viewer, found: Loaded) -> ImageLayer | None:
    from napari.layers import Image as ImageLayer
    from napari.layers._source import layer_source

    if found.image is None or found.path is None:
        return None
    for layer in viewer.layers:
        source = layer.source.path
        if isinstance(layer, ImageLayer) and source and Path(source) == found.path:
            return layer
    data, keywords = layers.image_to_layer(found.image)
    with layer_source(path=str(found.path)):
        shown: ImageLayer = viewer.add_image(data, **keywords)
    return shown
