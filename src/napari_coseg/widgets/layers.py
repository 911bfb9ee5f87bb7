"""From an image layer to an `Image` and back; the part of it that the canvas shows.

`napari_coseg.widgets.outputs` adds predictions, and `napari_coseg.widgets.geometry` reads and sets
where layers lie.

An image layer's dimensions are those of its array, without the colours of an RGB layer. For an
array with a channel axis (``CYX``, ``ZCYX``) a prediction has one dimension fewer; every function
below that takes `axes` selects the spatial dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import guess_axes
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.geometry import layer_geometry, noted, placement_of, spatial_dims

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.viewer import Viewer


# ---------------------------------------------------------------------------------------------
# Image layer -> Image


def axes_choices(layer: ImageLayer) -> tuple[str, ...]:
    """Possible axes of the layer, the likeliest first.

    Raises
    ------
    ImageError
        For layers of no or too many dimensions.
    """
    data = level_0(layer)
    ndim = len(data.shape)
    if layer.rgb:
        choices: dict[int, tuple[str, ...]] = {3: ("YXC",), 4: ("ZYXC",)}
    else:
        choices = {2: ("YX",), 3: ("ZYX", "CYX"), 4: ("ZCYX",)}
    if ndim not in choices:
        raise ImageError(
            f"layer {layer.name!r} has {ndim} dimensions {tuple(data.shape)}; expected a picture "
            "or a stack, with or without channels. Choose one time point (right click the "
            "layer: Split Stack), or open a picture"
        )
    found = choices[ndim]
    if _is_channel_first(layer) and len(found) > 1:
        return ("CYX", "ZYX")
    guess = guess_axes(data.shape) if len(found) > 1 else found[0]
    return (guess, *(axes for axes in found if axes != guess)) if guess in found else found


def axes_with(layer: ImageLayer, ndim: int) -> str | None:
    """The likeliest axes of which so many are spatial; None where none are likely."""
    try:
        choices = axes_choices(layer)
    except ImageError:
        return None
    return next((axes for axes in choices if len(spatial_dims(axes)) == ndim), None)


def level_0(layer: ImageLayer) -> Any:
    """The layer's array; of a multiscale layer the one of full resolution. Stays lazy."""
    return layer.data[0] if layer.multiscale else layer.data


def layer_to_image(
    layer: ImageLayer, axes: str | None = None, pixel_size_um: Sequence[float] | None = None
) -> Image:
    """The layer's array, what its axes mean and where it lies; nothing is read.

    Parameters
    ----------
    axes
        None takes the likeliest of `axes_choices`.
    pixel_size_um
        None takes what the layer says, which may be nothing.
    """
    axes = axes or axes_choices(layer)[0]
    geometry = layer_geometry(layer, axes)
    return Image(level_0(layer), axes, pixel_size_um, layer.name, geometry=geometry)


def view_region(
    viewer: Viewer, layer: ImageLayer, axes: str, across: int = 0
) -> tuple[tuple[int, int], ...]:
    """Half-open bounds, along the spatial axes, of what the canvas shows of the layer.

    Of a stack that is the slice in view.

    Parameters
    ----------
    across
        Of a stack: the spatial axis that its slices are cut across.

    Raises
    ------
    ImageError
        In 3D, where another plane is shown, and where nothing of the layer is in view.
    """
    dims, shape = spatial_dims(axes), layer_to_image(layer, axes).spatial_shape
    shown = [dim - viewer.dims.ndim + layer.ndim for dim in viewer.dims.displayed]
    plane = [dim for i, dim in enumerate(dims) if len(dims) == 2 or i != across]
    is_plane = shown == plane if across == 0 else sorted(shown) == plane
    if viewer.dims.ndisplay != 2 or not is_plane:
        names = ", ".join(axes[dim].lower() for dim in plane)
        how = "set the order of dimensions back" if across == 0 else "roll the order of dimensions"
        raise ImageError(
            f"the current view does not show the plane {names} of the image; switch to the 2D "
            f"display and {how}, or segment the whole image"
        )
    corners = np.array([layer.world_to_data(corner) for corner in _view_corners(viewer, layer)])
    # A pixel reaches half a pixel to either side of its coordinate.
    low = np.floor(corners.min(axis=0) + 0.5)[dims]
    high = np.ceil(corners.max(axis=0) + 0.5)[dims]
    if len(dims) == 3:
        high[across] = low[across] + 1
    low, high = np.clip(low, 0, shape).astype(int), np.clip(high, 0, shape).astype(int)
    if (low >= high).any():
        raise ImageError(
            f"nothing of {layer.name!r} is in view; move it into view, or segment the whole image"
        )
    return tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))


def _view_corners(viewer: Viewer, layer: ImageLayer) -> list[np.ndarray]:
    """The canvas's four corners in the layer's world coordinates."""
    camera = viewer.scene.camera
    half = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) / camera.zoom / 2
    center = np.asarray(camera.center)[-2:]
    factors = units_in_view(viewer, layer)
    corners = []
    for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        point = np.array(viewer.dims.point, dtype=float)
        point[list(viewer.dims.displayed)] = center + half * signs
        corners.append(point[-layer.ndim :] / factors)
    return corners


def centre_on(
    viewer: Viewer, layer: Any, point: Sequence[float], *, if_hidden: bool = False
) -> None:
    """Show the slice of a point of a layer's data, and move the camera there; the zoom stays.

    Parameters
    ----------
    if_hidden
        Moves the camera only where the point is out of view; for the 2D display.
    """
    dims, camera = viewer.dims, viewer.scene.camera
    world = np.zeros(dims.ndim)
    first = dims.ndim - layer.ndim
    world[first:] = np.asarray(layer.data_to_world(point)) * units_in_view(viewer, layer)
    for axis in range(first, dims.ndim):
        if axis not in dims.displayed:
            dims.set_point(axis, float(world[axis]))
    target = world[list(dims.displayed)]
    if if_hidden:
        half = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) / camera.zoom / 2
        if (np.abs(target - np.asarray(camera.center)[-2:]) <= half).all():
            return
    camera.center = (*camera.center[: 3 - len(target)], *target.tolist())


def units_in_view(viewer: Viewer, layer: ImageLayer) -> np.ndarray:
    """Factors from the layer's units to the canvas's; 1 where units are incompatible."""
    world = viewer.layers.extent.units
    if world is None:
        return np.ones(layer.ndim)
    pairs = zip(layer.units, world[-layer.ndim :], strict=True)
    return np.array([float((1 * ours).to(theirs).magnitude) for ours, theirs in pairs])


def _is_channel_first(layer: ImageLayer) -> bool:
    return str(layer.axis_labels[0]).lower() in ("c", "channel", "channels")


# ---------------------------------------------------------------------------------------------
# Image -> image layer


def image_to_layer(image: Image) -> tuple[Any, dict[str, Any]]:
    """Data and keywords of an image layer: `viewer.add_image(data, **keywords)`."""
    rgb = image.axes.endswith("C") and image.data.shape[-1] in (3, 4)
    shown = image.axes.removesuffix("C") if rgb else image.axes
    keywords = {"name": image.name, "rgb": rgb, **placement_of(image.geometry, shown)}
    return image.data, keywords | {"metadata": {METADATA_KEY: noted(image.geometry)}}
