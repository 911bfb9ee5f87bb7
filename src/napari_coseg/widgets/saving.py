"""Writer for napari's own Save: labels layers as GeoJSON for QuPath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelNotes
from napari_coseg.widgets.corrected import METADATA_KEY, corrected_prediction, layer_notes
from napari_coseg.widgets.outputs import attributes_geometry

FullLayerData = tuple[Any, dict[str, Any], str]
"""Data, attributes and type of a layer, as napari hands them to a writer."""


def write_geojson(path: str, layer_data: Sequence[FullLayerData]) -> list[str]:
    """Write a layer of objects, one of regions, or both.

    A layer that Segment did not make is taken to hold objects. napari has already asked whether an
    existing file may be overwritten.

    Raises
    ------
    ImageError
        For two layers of one kind, and where the pixel size is not known.
    """
    from napari_coseg.formats.geojson import write
    from napari_coseg.formats.registry import stand_in

    chosen: dict[str, FullLayerData] = {}
    for layer in layer_data:
        kind = dict(layer[1].get("metadata", {}).get(METADATA_KEY, {})).get("kind", "objects")
        if kind in chosen:
            names = ", ".join(repr(one[1].get("name", "?")) for one in layer_data)
            raise ImageError(
                f"{names} cannot go into one file; select one layer of objects and one of regions"
            )
        chosen[kind] = layer
    labels, regions = chosen.get("objects"), chosen.get("regions")
    prediction = corrected_prediction(
        None if labels is None else np.asarray(labels[0]),
        None if regions is None else np.asarray(regions[0]),
        _geometry(labels or regions),
        _known(labels),
        _known(regions),
    )
    image = stand_in(prediction, Path(path).stem)
    write(prediction, image, [Path(path)], overwrite=True)
    return [path]


def _known(layer: FullLayerData | None) -> LabelNotes:
    if layer is None:
        return LabelNotes()
    return layer_notes(layer[1].get("metadata", {}), layer[1].get("features"))


def _geometry(layer: FullLayerData | None) -> Geometry:
    """What the run took, else what the layer's scale and units say."""
    if layer is None:
        raise ImageError("there are no labels to save")
    return attributes_geometry(layer[1].get("name", "?"), layer[1])
