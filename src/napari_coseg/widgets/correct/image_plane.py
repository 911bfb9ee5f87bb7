"""The image plane under a plane of labels, and the transform from labels to image pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.widgets import layers
from napari_coseg.widgets.geometry import spatial_dims
from napari_coseg.widgets.labelled_image import run_image_of, topmost_first
from napari_coseg.widgets.runs import arguments_of

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Labels
    from napari.viewer import Viewer

_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """A plane of an image under a plane of labels.

    Parameters
    ----------
    data
        The image's array at full resolution.
    axes, channels
        As for `napari_coseg.segment`.
    z
        Slice of the image; 0 in 2D.
    to_image
        float (2, 3): from (y, x, 1) of the labels to (y, x) of the image.
    """

    name: str
    data: Any
    axes: str
    channels: list[int] | None
    z: int
    to_image: np.ndarray


def plane_under(viewer: Viewer, objects: Labels, z: int | None = None) -> ImagePlane:
    """The plane under a slice of the objects: of the image of their run, else of the topmost.

    Raises
    ------
    EditError
        Where there is no image, or its planes are tilted against those of the objects.
    """
    layer, axes, channels = _image_of(viewer, objects)
    dims = spatial_dims(axes)
    ours = _to_world(viewer, objects, list(range(objects.ndim)))
    theirs = _to_world(viewer, layer, dims)
    if abs(np.linalg.det(theirs)) < 1e-30:
        raise EditError(f"the scale of {layer.name!r} is 0 along an axis; correct it")
    matrix = np.linalg.solve(theirs, ours)[:-1]
    slice_at = 0
    if len(dims) == 3:
        size = np.abs(matrix[:, :-1]).max()
        if max(np.abs(matrix[0, 1:-1]).max(), np.abs(matrix[1:, 0]).max()) > _TOLERANCE * size:
            raise EditError(f"{layer.name!r} is tilted against the planes of {objects.name!r}")
        slice_at = int(np.floor(matrix[0, 0] * (z or 0) + matrix[0, -1] + 0.5))
        count = layers.level_0(layer).shape[dims[0]]
        if not 0 <= slice_at < count:
            raise EditError(f"there is no slice of {layer.name!r} here; it has {count}")
        matrix = matrix[1:, 1:]
    return ImagePlane(layer.name, layers.level_0(layer), axes, channels, slice_at, matrix)


def _to_world(viewer: Viewer, layer: Any, dims: list[int]) -> np.ndarray:
    """Homogeneous (N + 1, N + 1): from these dimensions of the data to the canvas's units."""
    corners = np.zeros((len(dims) + 1, layer.ndim))
    corners[np.arange(1, len(dims) + 1), dims] = 1
    units = layers.units_in_view(viewer, layer)
    world = np.array([np.asarray(layer.data_to_world(corner)) * units for corner in corners])
    matrix = np.eye(len(dims) + 1)
    matrix[:-1, -1] = world[0, dims]
    matrix[:-1, :-1] = (world[1:] - world[0])[:, dims].T
    return matrix


def _image_of(viewer: Viewer, objects: Labels) -> tuple[ImageLayer, str, list[int] | None]:
    """The image with its axes and channels; need not have the shape of the objects."""
    of_run = run_image_of(viewer, objects)
    run = arguments_of(objects)
    if of_run is not None and run is not None:
        return of_run, run["axes"], run["channels"]
    for layer in [of_run] if of_run is not None else topmost_first(viewer):
        axes = layers.axes_with(layer, objects.ndim)
        if axes is not None:
            return layer, axes, _channels(viewer, layer, axes)
    raise EditError(
        f"there is no image under {objects.name!r} for SAM2; open it, with as many dimensions as "
        "the objects"
    )


def _channels(viewer: Viewer, layer: ImageLayer, axes: str) -> list[int] | None:
    """All channels (None) where they are colours, else the one in view."""
    if "C" not in axes:
        return None
    at = axes.index("C")
    count = int(layers.level_0(layer).shape[at])
    if count in (1, 3, 4) or at >= layer.ndim:
        return None
    in_view = layer.world_to_data(viewer.dims.point)[at]
    return [int(np.clip(round(float(in_view)), 0, count - 1))]
