"""From layers to what a workspace keeps, and back. Whatever reads pixels may run in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import CosegError, ImageError
from napari_coseg.core.types import LABEL_DTYPE, Image, LabelNotes, geometry_of
from napari_coseg.finetuning.from_workspace import WITHOUT_OBJECTS
from napari_coseg.formats.place import geometry_of_labels
from napari_coseg.images.readers.registry import read_image
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.session import REVIEWED_KEY, marks_kept, session_of
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.geometry import note_of, noted, placement_of
from napari_coseg.widgets.labelled_image import place_in
from napari_coseg.widgets.outputs import metadata_of, update_metadata
from napari_coseg.widgets.workspace.link import Recorded
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

    Parameters
    ----------
    path
        File of the image; None where the labels are shown without it.
    image
        None where it could not be read; `why` then says so.
    """

    entry: Entry
    saved: Saved
    recorded: Recorded
    path: Path | None
    image: Image | None
    why: str | None = None


# ---------------------------------------------------------------------------------------------
# Layers -> workspace


def adding(
    workspace: Workspace, image_layer: ImageLayer, objects: Labels | None, regions: Labels | None
) -> Callable[[], tuple[Entry, Recorded]]:
    """A function that adds a pair of layers to a workspace; it may be called in a thread.

    Parameters
    ----------
    image_layer
        The image that they belong to.
    objects, regions
        At least one of them.

    Raises
    ------
    CosegError
        Where the layers do not fit each other, or are multiscale.
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
    labels, region_data, size, of_labels, of_regions = request_of(either, regions)
    about = metadata_of(either)
    provenance = dict(about.get("provenance", {}))
    axes, offset = place_in(either, image_layer)
    image = layers.layer_to_image(image_layer, axes, about.get("pixel_size_um"))
    if objects is None:
        provenance[WITHOUT_OBJECTS] = True  # else read as an image without any object
    geometry = note_of(either.metadata) or image.geometry.crop(offset)
    path = _file_of(image_layer)
    table = None if session is None else session.editor.table
    marks = marks_kept(either) if session is None else session.reviewed

    def add() -> tuple[Entry, Recorded]:
        # Edits made while arrays are copied are found by the next scan.
        regions_copy = None if region_data is None else np.array(region_data)
        if objects is None:
            copy, known = np.zeros(region_data.shape, LABEL_DTYPE), LabelNotes()
        else:
            copy, known = np.array(labels), of_labels
        editor = editor_of(copy, regions_copy, size, known, of_regions)
        found = replace(
            editor.prediction,
            provenance=provenance,
            geometry=geometry_of(editor.pixel_size_um, geometry, editor.geometry.axes),
        )
        if table is not None:
            found = replace(found, instances=replace(found.instances, table=table))
        saved = Saved(found, marks)
        pixels = None if path is not None else np.asarray(image.data)
        reference = reference_of(image, path, workspace.path)
        return workspace.add(reference, saved, pixels), Recorded.of(saved)

    return add


def _file_of(layer: ImageLayer) -> Path | None:
    """The one file that the layer was read from; else None."""
    path = layer.source.path
    return Path(path) if path and Path(path).is_file() else None


# ---------------------------------------------------------------------------------------------
# Workspace -> layers


def loaded(entry: Entry, also: Sequence[Path] = (), *, salvage: bool, with_image: bool) -> Loaded:
    """Read an entry and its image; may run in a thread.

    Parameters
    ----------
    also
        Where else to look for the image.

    Raises
    ------
    ImageNotFound
        Where the image is to be shown and is not found.
    CosegError
        Where the entry is damaged.
    """
    path = entry.find_image(also) if with_image else None
    saved = entry.load(salvage=salvage)
    found = Loaded(entry, saved, Recorded.of(saved), path, None)
    if path is None:
        return found
    try:
        image = read_image(path)
        if tuple(image.data.shape) != entry.image.shape:
            raise ImageError(
                f"{path} was read with shape {tuple(image.data.shape)}, expected "
                f"{entry.image.shape}; open the image in napari as you did before"
            )
    except CosegError as error:
        return replace(found, why=str(error))
    about = entry.image
    geometry = about.geometry or image.geometry
    image = Image(
        image.data,
        about.axes,
        about.pixel_size_um,
        entry.name,
        geometry=geometry if geometry.axes == about.axes.replace("C", "") else None,
        alpha=image.alpha,
    )
    return replace(found, image=image)


def show(viewer: Viewer, found: Loaded) -> tuple[Labels, Labels | None]:
    """Add an entry's image, unless it is shown, and its labels; returns objects and regions."""
    saved, provenance = found.saved, found.saved.provenance
    layer = _shown_image(viewer, found)
    if layer is not None:
        axes, offset, stand_in = found.entry.image.axes, found.entry.offset, None
    else:  # an empty image where the entry's would lie, removed below
        axes, offset = "ZYX"[-saved.labels.ndim :], ()
        layer = stand_in = viewer.add_image(
            np.zeros(saved.labels.shape, np.uint8),
            name=found.entry.name,
            metadata={METADATA_KEY: noted(saved.geometry)},
            **placement_of(saved.geometry, saved.geometry.axes),
        )
    prediction = replace(
        saved.prediction,
        provenance={**provenance, "region_offset": list(offset)},
        geometry=geometry_of_labels(saved.geometry, saved.labels.shape, offset, found.image),
    )
    regions, objects = outputs.add_prediction(viewer, layer, axes, prediction)
    update_metadata(regions, provenance=provenance)
    update_metadata(objects, provenance=provenance, **{REVIEWED_KEY: saved.reviewed.as_json()})
    if stand_in is not None:
        viewer.layers.remove(stand_in)
    if saved.regions is None:
        viewer.layers.remove(regions)
        return objects, None
    return objects, regions


def _shown_image(viewer: Viewer, found: Loaded) -> ImageLayer | None:
    """The entry's image in the viewer, added where it is not there; None where it was not read."""
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
