"""The image under a layer of objects, and which of its pixels lie under which of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.geometry import spatial_dims
from napari_coseg.widgets.runs import arguments_of

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels
    from napari.viewer import Viewer

_TURNED = 1e-6


@dataclass(frozen=True, eq=False)
class Under:
    """The plane of an image under a plane of labels.

    Parameters
    ----------
    data
        The image's array, of the finest resolution.
    axes, channels
        As for `napari_coseg.segment`.
    z
        The slice; 0 in a plane.
    to_image
        float (2, 3): from (y, x, 1) of the labels to (y, x) of the image.
    """

    name: str
    data: Any
    axes: str
    channels: list[int] | None
    z: int
    to_image: np.ndarray


def image_under(viewer: Viewer, objects: Labels, z: int | None = None) -> Under:
    """What is under a slice of the objects: the image that they were found in, or else the topmost.

    Raises
    ------
    EditError
        Where there is no image, or it is turned out of the objects' plane.
    """
    layer, axes, channels = _image_of(viewer, objects)
    dims = spatial_dims(axes)
    ours = _to_world(viewer, objects, list(range(objects.ndim)))
    theirs = _to_world(viewer, layer, dims)
    if abs(np.linalg.det(theirs)) < 1e-30:
        raise EditError(f"the scale of {layer.name!r} is 0 along an axis; set it right")
    matrix = np.linalg.solve(theirs, ours)[:-1]
    slice_at = 0
    if len(dims) == 3:
        size = np.abs(matrix[:, :-1]).max()
        if max(np.abs(matrix[0, 1:-1]).max(), np.abs(matrix[1:, 0]).max()) > _TURNED * size:
            raise EditError(f"{layer.name!r} is turned out of the plane of {objects.name!r}")
        slice_at = int(np.floor(matrix[0, 0] * (z or 0) + matrix[0, -1] + 0.5))
        count = layers.level_0(layer).shape[dims[0]]
        if not 0 <= slice_at < count:
            raise EditError(f"there is no slice of {layer.name!r} here; it has {count}")
        matrix = matrix[1:, 1:]
    return Under(layer.name, layers.level_0(layer), axes, channels, slice_at, matrix)


def _to_world(viewer: Viewer, layer: Any, dims: list[int]) -> np.ndarray:
    """Homogeneous (n + 1, n + 1): from these dimensions of the data to the canvas's units."""
    corners = np.zeros((len(dims) + 1, layer.ndim))
    corners[np.arange(1, len(dims) + 1), dims] = 1
    units = layers.units_in_view(viewer, layer)
    world = np.array([np.asarray(layer.data_to_world(corner)) * units for corner in corners])
    matrix = np.eye(len(dims) + 1)
    matrix[:-1, -1] = world[0, dims]
    matrix[:-1, :-1] = (world[1:] - world[0])[:, dims].T
    return matrix


def _image_of(viewer: Viewer, objects: Labels) -> tuple[ImageLayer, str, list[int] | None]:
    from napari.layers import Image as ImageLayer

    images = [layer for layer in viewer.layers if isinstance(layer, ImageLayer)]
    named = outputs.image_of(viewer, objects)
    run = arguments_of(objects)
    if named is not None and run is not None:
        return named, run["axes"], run["channels"]
    for layer in [named] if named is not None else _topmost_first(images):
        axes = layers.axes_with(layer, objects.ndim)
        if axes is not None:
            return layer, axes, _channels(viewer, layer, axes)
    raise EditError(
        f"there is no image under {objects.name!r} for SAM2 to look at; open it, with as many "
        "dimensions as the objects"
    )


def _channels(viewer: Viewer, layer: ImageLayer, axes: str) -> list[int] | None:
    """All where they are colours, else the one in view."""
    if "C" not in axes:
        return None
    at = axes.index("C")
    count = int(layers.level_0(layer).shape[at])
    if count in (1, 3, 4) or at >= layer.ndim:
        return None
    in_view = layer.world_to_data(viewer.dims.point)[at]
    return [int(np.clip(round(float(in_view)), 0, count - 1))]


def _topmost_first(images: list[ImageLayer]) -> list[ImageLayer]:
    """Those that are seen before those that are not."""
    newest = images[::-1]
    return [one for one in newest if one.visible] + [one for one in newest if not one.visible]
