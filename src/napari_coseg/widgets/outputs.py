"""From a prediction to Labels layers, and back: names, colours, features, metadata.

Every run adds a new pair of layers and changes no other, so that a user's edits are never
overwritten. Edited layers cannot be detected reliably, since undo and redo emit the same event as a
change of the data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass, LabelNotes, Prediction
from napari_coseg.widgets.background.tables import pack_classes, row_arrays
from napari_coseg.widgets.corrected import METADATA_KEY, layer_notes
from napari_coseg.widgets.geometry import (
    attributes_of,
    geometry_from_attributes,
    layer_geometry,
    note_of,
    noted,
    placed_like,
    placement,
    same_place,
    spatial_dims,
)
from napari_coseg.widgets.layers import axes_with, level_0

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels
    from napari.viewer import Viewer

COLOR_BY = ("class", "id")
OBJECT_OPACITY, REGION_OPACITY = 0.9, 0.35
OUTLINE_PX = 1
LARGEST_CLASS_COLORED_ID = 2**16 - 2
"""napari needs numba or PartSegCore-compiled-backend to colour larger ids individually."""
IMAGE_ID = "image_id"
"""Key, in this plugin's metadata of a layer, of napari's id of the image, which outlasts a new name
but not a restart."""
_PLAIN_COLOR = (0, 200, 200)
"""Colour of objects whose model has no object classes."""


def add_prediction(
    viewer: Viewer,
    layer: ImageLayer,
    axes: str,
    prediction: Prediction,
    *,
    color_by: str = "class",
    outlines: bool = True,
) -> tuple[Labels, Labels]:
    """Add the layers ``<image> regions`` and ``<image> objects``.

    Parameters
    ----------
    layer, axes
        What was segmented.
    prediction
        Of the whole layer, or of a part of it at ``provenance["region_offset"]``.
    color_by, outlines
        How objects are shown: coloured by one of `COLOR_BY`, as outlines or filled.
    """
    place = placement(layer, axes, prediction.provenance.get("region_offset", ()))
    about = {"image": layer.name, IMAGE_ID: str(layer.unique_id)}
    made = prediction_layers(
        prediction, free_names(viewer, layer.name), place, about, color_by=color_by
    )
    regions, objects = (viewer.add_labels(data, **keywords) for data, keywords, _ in made)
    outline_objects(objects, outlines)
    return regions, objects


def prediction_layers(
    prediction: Prediction,
    names: tuple[str, str],
    place: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    color_by: str = "class",
) -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Regions and objects as napari's layer data: array, keywords and type.

    Parameters
    ----------
    names
        Of the two layers.
    place
        Keywords that place them.
    about
        More entries of this plugin's metadata, at least "image", the name of the image.
    """
    instances = prediction.instances
    regions = {
        "name": names[0],
        "opacity": REGION_OPACITY,
        "colormap": region_colormap(prediction.semantic_classes),
        "features": region_features(prediction.semantic_classes),
        "metadata": _metadata("regions", about, prediction, prediction.semantic_classes),
    }
    objects = {
        "name": names[1],
        "opacity": OBJECT_OPACITY,
        "features": object_features(instances.table),
        "colormap": object_colormap(
            color_by, instances.table["id"], instances.table["class"], instances.classes
        ),
        "metadata": _metadata("objects", about, prediction, instances.classes),
    }
    return [
        (prediction.semantic, regions | dict(place), "labels"),
        (instances.labels, objects | dict(place), "labels"),
    ]


def free_names(viewer: Viewer, image: str) -> tuple[str, str]:
    """Unused names for a pair of outputs of `image`: the second pair ends in [2]."""
    taken = {layer.name for layer in viewer.layers}
    number = 1
    while True:
        ending = f" [{number}]" if number > 1 else ""
        names = (f"{image} regions{ending}", f"{image} objects{ending}")
        if not taken & set(names):
            return names
        number += 1


def region_features(classes: Sequence[LabelClass]) -> pd.DataFrame:
    """``index`` (the label) and ``class``, for napari's status bar and tooltip."""
    import pandas as pd

    return pd.DataFrame(
        {"index": [entry.id for entry in classes], "class": [entry.name for entry in classes]}
    )


def object_features(table: pd.DataFrame) -> pd.DataFrame:
    """``index`` (the label), ``class``, ``probability``, ``region`` and the size of each object.

    Probabilities are exact, since Measure and Export read them from here; napari rounds what it
    shows. Sizes are rounded, since both measure them again.
    """
    import pandas as pd

    columns = {
        "index": table["id"].to_numpy(),
        "class": table["class"].to_numpy(),
        "probability": table["class_probability"].to_numpy(),
        "region": table["region"].to_numpy(),
    }
    for size in ("area_um2", "volume_um3"):
        if size in table:
            columns[size] = table[size].to_numpy().round(2)
    return pd.DataFrame(columns)


def region_colormap(classes: Sequence[LabelClass]) -> Any:
    """Each class in its colour; background and unknown values transparent."""
    return direct_colormap({entry.id: entry.color for entry in classes}, unknown=None)


def object_colormap(
    by: str, ids: pd.Series, names: pd.Series, classes: Sequence[LabelClass]
) -> Any:
    """Each object in the colour of its class or, beyond `LARGEST_CLASS_COLORED_ID`, of its id."""
    from napari.utils.colormaps import label_colormap

    if by == "id" or int(ids.max() if len(ids) else 0) > LARGEST_CLASS_COLORED_ID:
        return label_colormap()
    known = {entry.name: entry.color for entry in classes}
    colors = {int(i): known.get(name, _PLAIN_COLOR) for i, name in zip(ids, names, strict=True)}
    return direct_colormap(colors, unknown=(160, 160, 160))


def color_objects(layer: Labels, by: str) -> None:
    """Recolour an objects layer from its features and metadata."""
    features = layer.features
    layer.colormap = object_colormap(by, features["index"], features["class"], classes_of(layer))


def outline_objects(layer: Labels, outlines: bool) -> None:
    """Show objects as outlines, so that the image under them is visible, or filled."""
    layer.contour = OUTLINE_PX if outlines else 0


def metadata_of(layer: Any) -> dict[str, Any]:
    """What this plugin wrote into a layer's metadata; empty for layers of others."""
    return dict(layer.metadata.get(METADATA_KEY, {}))


def update_metadata(layer: Any, **values: Any) -> None:
    """Add or replace some of this plugin's entries in a layer's metadata."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**metadata_of(layer), **values}}


def is_output(layer: Any, kind: str) -> bool:
    """Whether this plugin made the layer as `kind`: "regions", "objects", "reviewed", ..."""
    return metadata_of(layer).get("kind") == kind


def classes_of(layer: Labels) -> tuple[LabelClass, ...]:
    """Classes in an output layer's metadata."""
    return layer_notes(layer.metadata, None).classes


def made_of(labels: Labels) -> str | None:
    """Name that the image of a run's labels had then; None for labels that no run made."""
    name: str | None = metadata_of(labels).get("image")
    return name


def labels_of(layer: Labels | None) -> LabelNotes:
    """Classes and objects from a layer's metadata and features; empty where there is no layer."""
    return LabelNotes() if layer is None else layer_notes(layer.metadata, layer.features)


def label_request(
    objects: Labels | None, regions: Labels | None, image: ImageLayer | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and arrays with which the worker process measures labels (`tables.measured`).

    Parameters
    ----------
    image
        That the labels belong to, as for `geometry_of`.

    Raises
    ------
    ImageError
        Where there are no labels, or their pixel size is not known.
    """
    either = objects if objects is not None else regions
    if either is None:
        raise ImageError("there are no labels; run Segment, or add a labels layer")
    of_objects, of_regions = labels_of(objects), labels_of(regions)
    arguments = {
        "geometry": geometry_of(either, image).as_json(),
        "classes": pack_classes(of_objects.classes),
        "region_classes": pack_classes(of_regions.classes),
        "provenance": of_objects.provenance or of_regions.provenance,
    }
    arrays = {"labels": objects, "regions": regions}
    return arguments, {
        **{name: level_0(layer) for name, layer in arrays.items() if layer is not None},
        **row_arrays(of_objects),
    }


def geometry_of(layer: Labels, image: ImageLayer | None = None) -> Geometry:
    """Geometry of labels: that of their run, else from the attributes of the layer.

    Parameters
    ----------
    image
        Labels that no run made, and that lie exactly over this image, have its geometry, which may
        contain more than napari shows.

    Raises
    ------
    ImageError
        Where the pixel size is not known.
    """
    attributes = attributes_of(layer)
    found = None
    if image is not None and note_of(layer.metadata) is None:
        found = _same_as(image, layer, attributes)
    return _with_size(found or _geometry_of(attributes), layer.name)


def attributes_geometry(name: str, attributes: Mapping[str, Any]) -> Geometry:
    """As `geometry_of`, from the attributes that napari hands to writers."""
    return _with_size(_geometry_of(attributes), name)


def _geometry_of(attributes: Mapping[str, Any]) -> Geometry:
    metadata = attributes.get("metadata", {})
    note = note_of(metadata)
    if note is not None:
        return note
    found = geometry_from_attributes(attributes, "ZYX"[-len(attributes["scale"]) :])[0]
    by_run = dict(metadata.get(METADATA_KEY, {})).get("pixel_size_um")
    if by_run and not found.has_pixel_size(by_run):
        return found.with_pixel_size(by_run)
    return found


def _same_as(image: ImageLayer, labels: Labels, attributes: Mapping[str, Any]) -> Geometry | None:
    """The image's geometry, where its pixels lie exactly under those of the labels."""
    axes = axes_with(image, labels.ndim)
    if axes is None or note_of(image.metadata) is None:
        return None
    seen = geometry_from_attributes({**attributes, "metadata": {}}, "ZYX"[-labels.ndim :])[0]
    under = geometry_from_attributes({**attributes_of(image), "metadata": {}}, axes)[0]
    shape = [level_0(image).shape[dim] for dim in spatial_dims(axes)]
    fits = shape == list(level_0(labels).shape) and same_place(seen, under)
    return layer_geometry(image, axes) if fits else None


def _with_size(geometry: Geometry, name: str) -> Geometry:
    if not geometry.is_known:
        raise ImageError(
            f"the pixel size of {name!r} is not known; set the layer's scale and units, or create "
            "it over an image that has them"
        )
    return geometry


def direct_colormap(
    colors: Mapping[int, tuple[int, int, int]], unknown: tuple[int, int, int] | None
) -> Any:
    """A colormap of 8-bit colours by label; 0 is transparent.

    Parameters
    ----------
    unknown
        Colour of labels that are not listed, as new ones; None: transparent.
    """
    from napari.utils.colormaps import DirectLabelColormap

    rgba = {color: np.array([*color, 255], np.float32) / 255 for color in set(colors.values())}
    clear = np.zeros(4, np.float32)
    default = clear if unknown is None else np.array([*unknown, 255], np.float32) / 255
    color_dict: dict[int | None, np.ndarray] = {None: default, 0: clear}
    color_dict.update((label, rgba[color]) for label, color in colors.items())
    return DirectLabelColormap(color_dict=color_dict)


def add_helper_layer(
    viewer: Viewer,
    data: np.ndarray,
    like: Labels,
    *,
    name: str,
    kind: str,
    colormap: Any,
    contour: int = 0,
    is_blank: bool = False,
) -> Labels:
    """Add a labels layer of this plugin's own marks; the active layer stays active.

    Parameters
    ----------
    like
        Layer over which it lies.
    contour
        Width of outlines in pixels; 0: filled.
    is_blank
        Whether all labels are 0; then finding their outlines is skipped.
    """
    from napari.layers import Labels

    layer = Labels(
        data,
        name=name,
        colormap=colormap,
        metadata={METADATA_KEY: {"kind": kind, "image": like.name}},
        opacity=1.0,
        **placed_like(like),
    )
    with layer._block_refresh() if is_blank else contextlib.nullcontext():
        layer.contour = contour
    layer.editable = False
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    viewer.layers.selection.active = active or like
    return layer


def _metadata(
    kind: str, about: Mapping[str, Any], prediction: Prediction, classes: Sequence[LabelClass]
) -> dict[str, Any]:
    """Metadata of an output layer, as JSON values that can be written to a file."""
    listed = [{"id": e.id, "name": e.name, "color": list(e.color)} for e in classes]
    return {
        METADATA_KEY: {
            "kind": kind,
            **about,
            "classes": listed,
            "pixel_size_um": list(prediction.pixel_size_um),
            **noted(prediction.geometry),
            "provenance": prediction.provenance,
        }
    }
