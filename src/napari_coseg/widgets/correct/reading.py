"""From labels layers as they are now to an editor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.core.types import LARGEST_ID, LabelNotes
from napari_coseg.labels.editing.label_editor import LabelEditor, check_images
from napari_coseg.widgets.geometry import layer_pixel_size
from napari_coseg.widgets.outputs import labels_of, metadata_of

if TYPE_CHECKING:
    from napari.layers import Labels


def editor_of(
    labels: np.ndarray,
    regions: np.ndarray | None,
    pixel_size_um: Sequence[float],
    of_labels: LabelNotes,
    of_regions: LabelNotes,
) -> LabelEditor:
    """An editor on the layers' own arrays, measured as they are now. May run in a thread.

    Parameters
    ----------
    labels, regions
        Integers, (Y, X) or (Z, Y, X), of one shape.
    of_labels, of_regions
        Classes of the layers; an object without a row has none.

    Raises
    ------
    EditError
        For arrays that cannot be edited, or do not fit each other.
    """
    for values, name in ((labels, "objects"), (regions, "regions")):
        if values is not None and not isinstance(values, np.ndarray):
            raise EditError(
                f"the {name} are a {type(values).__name__}, which cannot be corrected in place; "
                "convert the layer to a numpy array of one resolution first"
            )
    size = tuple(float(um) for um in pixel_size_um)
    check_images(labels, regions, size)
    largest = int(labels.max(initial=0))
    if largest > LARGEST_ID:
        raise EditError(
            f"the objects have ids up to {largest:,}, more than {LARGEST_ID:,}; renumber them, "
            "for example with skimage.segmentation.relabel_sequential"
        )
    return LabelEditor.of_labels(
        labels,
        size,
        regions,
        known=of_labels.known,
        classes=of_labels.classes,
        region_classes=of_regions.classes,
    )


def request_of(objects: Labels, regions: Labels | None) -> tuple[Any, ...]:
    """Arguments of `editor_of` for two layers. An unknown pixel size is taken as 1.

    Raises
    ------
    EditError
        For multiscale layers.
    """
    for layer in (objects, regions):
        if layer is not None and layer.multiscale:
            raise EditError(
                f"{layer.name!r} has several resolutions, and napari cannot edit such layers; "
                "choose one of a single resolution"
            )
    size = pixel_size_um(objects) or (1.0,) * objects.ndim
    region_data = None if regions is None else regions.data
    return objects.data, region_data, size, labels_of(objects), labels_of(regions)


def pixel_size_um(layer: Labels) -> tuple[float, ...] | None:
    """Pixel size of the run that made the layer, else from its scale; None where unknown."""
    by_run = metadata_of(layer).get("pixel_size_um")
    if by_run:
        return tuple(float(size) for size in by_run)
    return layer_pixel_size(layer, "ZYX"[-layer.ndim :]).um
