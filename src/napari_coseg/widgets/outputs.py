"""From a prediction to Labels layers: names, colours, features, provenance.

Every run adds a new pair of layers and touches no other, so a person's edits are never overwritten.
Telling edited layers from untouched ones is not possible for sure: undo and redo emit the same
event as a change of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass, Prediction
from napari_coseg.widgets.corrected import METADATA_KEY, LabelsOf
from napari_coseg.widgets.geometry import (
    attributes_of,
    layer_geometry,
    note_of,
    noted,
    placement,
    said_geometry,
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
"""Without numba or PartSegCore-compiled-backend, napari cannot colour larger ids one by one."""
IMAGE_ID = "image_id"
"""Of ``layer.metadata[METADATA_KEY]``: napari's own id of the image, which a new name leaves as it
is; another session gives another."""
_PLAIN_COLOR = (0, 200, 200)
"""Of objects whose model knows no types."""


def add_prediction(
    viewer: Viewer,
    layer: ImageLayer,
    axes: str,
    prediction: Prediction,
    *,
    color_by: str = "class",
    outlines: bool = True,
) -> tuple[Labels, Labels]:
    """Add ``<image> regions`` and ``<image> objects``; layers that are there stay as they are.

    Parameters
    ----------
    layer, axes
        What was segmented.
    prediction
        Of the whole layer, or of a part that begins at ``provenance["region_offset"]``.
    color_by, outlines
        How objects are shown: coloured by one of `COLOR_BY`, filled or not.
    """
    regions_name, objects_name = free_names(viewer, layer.name)
    place = placement(layer, axes, prediction.provenance.get("region_offset", ()))
    regions = viewer.add_labels(
        prediction.semantic,
        name=regions_name,
        opacity=REGION_OPACITY,
        colormap=region_colormap(prediction.semantic_classes),
        features=region_features(prediction.semantic_classes),
        metadata=_metadata("regions", layer, prediction, prediction.semantic_classes),
        **place,
    )
    instances = prediction.instances
    objects = viewer.add_labels(
        instances.labels,
        name=objects_name,
        opacity=OBJECT_OPACITY,
        features=object_features(instances.table),
        colormap=object_colormap(
            color_by, instances.table["id"], instances.table["class"], instances.classes
        ),
        metadata=_metadata("objects", layer, prediction, instances.classes),
        **place,
    )
    outline_objects(objects, outlines)
    return regions, objects


def free_names(viewer: Viewer, image: str) -> tuple[str, str]:
    """Names for a pair of outputs of `image` that no layer has: the second pair ends in [2]."""
    taken = {layer.name for layer in viewer.layers}
    number = 1
    while True:
        ending = f" [{number}]" if number > 1 else ""
        names = (f"{image} regions{ending}", f"{image} objects{ending}")
        if not taken & set(names):
            return names
        number += 1


def region_features(classes: Sequence[LabelClass]) -> pd.DataFrame:
    """``index`` (the label) and ``class``, as napari's status bar and tooltip show them."""
    import pandas as pd

    return pd.DataFrame(
        {"index": [entry.id for entry in classes], "class": [entry.name for entry in classes]}
    )


def object_features(table: pd.DataFrame) -> pd.DataFrame:
    """``index`` (the label), ``class``, ``probability``, ``region`` and the size of each object.

    Probabilities are as they were found: what is measured or exported later is read from here, and
    napari shows three digits of them by itself. Sizes are measured anew, so two decimals do.
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
    return _direct({entry.id: entry.color for entry in classes}, unknown=None)


def object_colormap(
    by: str, ids: pd.Series, names: pd.Series, classes: Sequence[LabelClass]
) -> Any:
    """Each object in the colour of its class, or of its id.

    Always by id where ids are too large for the other, see `LARGEST_CLASS_COLORED_ID`.
    """
    from napari.utils.colormaps import label_colormap

    if by == "id" or int(ids.max() if len(ids) else 0) > LARGEST_CLASS_COLORED_ID:
        return label_colormap()
    known = {entry.name: entry.color for entry in classes}
    colors = {int(i): known.get(name, _PLAIN_COLOR) for i, name in zip(ids, names, strict=True)}
    return _direct(colors, unknown=(160, 160, 160))


def color_objects(layer: Labels, by: str) -> None:
    """Colour an objects layer anew, from its features and metadata."""
    features = layer.features
    layer.colormap = object_colormap(by, features["index"], features["class"], classes_of(layer))


def outline_objects(layer: Labels, outlines: bool) -> None:
    """Show outlines, so that the tissue under them is seen, or filled objects."""
    layer.contour = OUTLINE_PX if outlines else 0


def is_output(layer: Any, kind: str) -> bool:
    """Whether the layer is one of ours: `kind` is "regions" or "objects"."""
    return dict(layer.metadata.get(METADATA_KEY, {})).get("kind") == kind


def classes_of(layer: Labels) -> tuple[LabelClass, ...]:
    """The classes that an output layer's metadata names."""
    return LabelsOf.read(layer.metadata, None).classes


def made_of(labels: Labels) -> str | None:
    """Name that the image of a run's labels had; None of labels that no run made."""
    name: str | None = dict(labels.metadata.get(METADATA_KEY, {})).get("image")
    return name


def image_of(viewer: Viewer, labels: Labels) -> ImageLayer | None:
    """The image that a run's labels were made of, under its name of today; else one of that name.

    None where neither is in the viewer, and for labels that no run made.
    """
    from napari.layers import Image as ImageLayer

    ours = dict(labels.metadata.get(METADATA_KEY, {}))
    images = [layer for layer in viewer.layers if isinstance(layer, ImageLayer)]
    same = [layer for layer in images if str(layer.unique_id) == ours.get(IMAGE_ID)]
    named = [layer for layer in images if layer.name == ours.get("image")]
    return (same or named or [None])[0]


def file_stem(viewer: Viewer, labels: Labels) -> str:
    """Beginning of the names of files of labels: after the image of their run, else after them."""
    image = image_of(viewer, labels)
    name = made_of(labels) if image is None else image.name
    return Path(name or labels.name).name.replace(" ", "_")


def labels_of(layer: Labels | None) -> LabelsOf:
    """What a layer's metadata and features say of its labels; nothing where there is no layer."""
    return LabelsOf() if layer is None else LabelsOf.read(layer.metadata, layer.features)


def geometry_of(layer: Labels, viewer: Viewer | None = None) -> Geometry:
    """Where labels lie: what the run took; of a layer painted by hand, what its place says.

    Parameters
    ----------
    viewer
        Where given, a layer painted by hand that lies right over an image has that image's
        geometry, which may say more than napari shows.

    Raises
    ------
    ImageError
        Where the size of a pixel is not known.
    """
    attributes = attributes_of(layer)
    found = _geometry_of(attributes)
    if viewer is not None and note_of(layer.metadata) is None:
        seen = said_geometry({**attributes, "metadata": {}}, "ZYX"[-layer.ndim :])[0]
        found = _of_image_under(viewer, layer, seen) or found
    return _sized(found, layer.name)


def attributes_geometry(name: str, attributes: Mapping[str, Any]) -> Geometry:
    """As `geometry_of`, of the attributes that napari hands to writers."""
    return _sized(_geometry_of(attributes), name)


def _geometry_of(attributes: Mapping[str, Any]) -> Geometry:
    metadata = attributes.get("metadata", {})
    note = note_of(metadata)
    if note is not None:
        return note
    found = said_geometry(attributes, "ZYX"[-len(attributes["scale"]) :])[0]
    by_run = dict(metadata.get(METADATA_KEY, {})).get("pixel_size_um")
    if by_run and not found.has_pixel_size(by_run):
        return found.with_pixel_size(by_run)
    return found


def _of_image_under(viewer: Viewer, labels: Labels, seen: Geometry) -> Geometry | None:
    """Of the topmost image whose pixels lie right under those of the labels."""
    from napari.layers import Image as ImageLayer

    for layer in reversed(viewer.layers):
        if not isinstance(layer, ImageLayer) or note_of(layer.metadata) is None:
            continue
        axes = axes_with(layer, labels.ndim)
        if axes is None:
            continue
        under = said_geometry({**attributes_of(layer), "metadata": {}}, axes)[0]
        shape = [level_0(layer).shape[dim] for dim in spatial_dims(axes)]
        if shape == list(level_0(labels).shape) and same_place(seen, under):
            return layer_geometry(layer, axes)
    return None


def _sized(geometry: Geometry, name: str) -> Geometry:
    if not geometry.is_known:
        raise ImageError(
            f"the pixel size of {name!r} is not known; set the layer's scale and units, or "
            "make it over an image that has them"
        )
    return geometry


def _direct(colors: dict[int, tuple[int, int, int]], unknown: tuple[int, int, int] | None) -> Any:
    """A colormap of 8-bit colours. `unknown` is for labels that are not listed, as new ones are."""
    from napari.utils.colormaps import DirectLabelColormap

    rgba = {color: np.array([*color, 255], np.float32) / 255 for color in set(colors.values())}
    clear = np.zeros(4, np.float32)
    default = clear if unknown is None else np.array([*unknown, 255], np.float32) / 255
    color_dict: dict[int | None, np.ndarray] = {None: default, 0: clear}
    color_dict.update((label, rgba[color]) for label, color in colors.items())
    return DirectLabelColormap(color_dict=color_dict)


def _metadata(
    kind: str, layer: ImageLayer, prediction: Prediction, classes: Sequence[LabelClass]
) -> dict[str, Any]:
    """Plain JSON values, so that they survive being written to a file."""
    listed = [{"id": e.id, "name": e.name, "color": list(e.color)} for e in classes]
    return {
        METADATA_KEY: {
            "kind": kind,
            "image": layer.name,
            IMAGE_ID: str(layer.unique_id),
            "classes": listed,
            "pixel_size_um": list(prediction.pixel_size_um),
            **noted(prediction.geometry),
            "provenance": prediction.provenance,
        }
    }
