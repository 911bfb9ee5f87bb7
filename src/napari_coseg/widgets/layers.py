"""From an image layer to an `Image`, and to where a layer over it lies: scale, units, axes, view.

`napari_coseg.widgets.outputs` is the way back, from a prediction to layers.

An image layer's dimensions are those of its array, less the colours of an RGB layer. Of an array
with a channel axis (``CYX``, ``ZCYX``) a prediction has one dimension fewer; every function below
that takes `axes` picks the spatial dimensions out.

Pixel sizes: a scale with a unit of length is converted to micrometres. napari's default unit is the
pixel; there a scale of 1 says nothing, and any other scale is taken to be in micrometres, as most
plugins that set a scale but no unit mean it. What was taken is always shown, and can be changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import SPATIAL_AXES, Image
from napari_coseg.images.intake import guess_axes

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer
    from napari.viewer import Viewer


# ---------------------------------------------------------------------------------------------
# Image layer -> Image


@dataclass(frozen=True)
class PixelSize:
    """Micrometres a pixel along the spatial axes, and who says so. None where nobody does."""

    um: tuple[float, ...] | None
    source: str


def axes_choices(layer: ImageLayer) -> tuple[str, ...]:
    """What the layer's axes may be, the likeliest first.

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
    if _says_channel(layer) and len(found) > 1:
        return ("CYX", "ZYX")
    guess = guess_axes(data.shape) if len(found) > 1 else found[0]
    return (guess, *(axes for axes in found if axes != guess)) if guess in found else found


def level_0(layer: ImageLayer) -> Any:
    """The layer's array; of a multiscale layer the one of full resolution. Stays lazy."""
    return layer.data[0] if layer.multiscale else layer.data


def layer_pixel_size(layer: ImageLayer, axes: str) -> PixelSize:
    """What the layer's scale and units say, by the rule at the top of this file."""
    return said_pixel_size(layer.scale, layer.units, axes)


def said_pixel_size(scale: Sequence[float], units: Sequence[Any], axes: str) -> PixelSize:
    """As `layer_pixel_size`, of a layer's attributes, of all its dimensions, alone."""
    dims = spatial_dims(axes)
    scales = [abs(float(scale[dim])) for dim in dims]
    units = [units[dim] for dim in dims]
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        return PixelSize(None, "not known: the layer's scale is not a number")
    lengths = [unit.is_compatible_with("micrometer") for unit in units]
    factors = [
        float((1 * unit).to("micrometer").magnitude) if is_length else 1.0
        for unit, is_length in zip(units, lengths, strict=True)
    ]
    size = tuple(scale * factor for scale, factor in zip(scales, factors, strict=True))
    if all(lengths[-2:]):
        return PixelSize(size, "from the layer's scale and units")
    if any(lengths[-2:]) or any(scale != 1 for scale in scales[-2:]):
        return PixelSize(size, "from the layer's scale, which has no unit: taken as µm")
    return PixelSize(None, "not known")


def layer_to_image(
    layer: ImageLayer, axes: str | None = None, pixel_size_um: Sequence[float] | None = None
) -> Image:
    """The layer's array and what its axes mean; nothing is read.

    Parameters
    ----------
    axes
        None takes the likeliest of `axes_choices`.
    pixel_size_um
        None takes what the layer says, which may be nothing.
    """
    axes = axes or axes_choices(layer)[0]
    size = tuple(pixel_size_um) if pixel_size_um else layer_pixel_size(layer, axes).um
    return Image(level_0(layer), axes, size, layer.name)


def spatial_dims(axes: str) -> list[int]:
    """Which of a layer's dimensions are spatial, in the order z, y, x.

    >>> spatial_dims("ZCYX"), spatial_dims("YXC")
    ([0, 2, 3], [0, 1])
    """
    return [axes.index(axis) for axis in SPATIAL_AXES if axis in axes]


def view_region(viewer: Viewer, layer: ImageLayer, axes: str) -> tuple[tuple[int, int], ...]:
    """Half-open bounds, along the spatial axes, of what the canvas shows of the layer.

    Of a stack that is the slice in view.

    Raises
    ------
    ImageError
        In 3D, where another plane than y, x is shown, and where nothing of the layer is in view.
    """
    dims, shape = spatial_dims(axes), layer_to_image(layer, axes).spatial_shape
    shown = [dim - viewer.dims.ndim + layer.ndim for dim in viewer.dims.displayed]
    if viewer.dims.ndisplay != 2 or shown != dims[-2:]:
        raise ImageError(
            "the current view does not show the plane y, x of the image; switch to the 2D display "
            "and set the order of dimensions back, or segment the whole image"
        )
    corners = np.array([layer.world_to_data(corner) for corner in _view_corners(viewer, layer)])
    # A pixel reaches half a pixel to either side of its coordinate.
    low = np.floor(corners.min(axis=0) + 0.5)[dims]
    high = np.ceil(corners.max(axis=0) + 0.5)[dims]
    if len(dims) == 3:
        high[0] = low[0] + 1
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


def units_in_view(viewer: Viewer, layer: ImageLayer) -> np.ndarray:
    """How many of the canvas's units one of the layer's is; 1 where units are mixed up."""
    world = viewer.layers.extent.units
    if world is None:
        return np.ones(layer.ndim)
    pairs = zip(layer.units, world[-layer.ndim :], strict=True)
    return np.array([float((1 * ours).to(theirs).magnitude) for ours, theirs in pairs])


def _says_channel(layer: ImageLayer) -> bool:
    return str(layer.axis_labels[0]).lower() in ("c", "channel", "channels")


# ---------------------------------------------------------------------------------------------
# Where a layer over it lies


def placed_like(layer: Layer) -> dict[str, Any]:
    """Keywords that place a layer of the same dimensions where another one lies."""
    keys = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
    return {key: getattr(layer, key) for key in keys}


def geometry(layer: ImageLayer, axes: str, offset: Sequence[int] = ()) -> dict[str, Any]:
    """Keywords that place a labels layer over (a part of) the image layer.

    Parameters
    ----------
    offset
        Along the spatial axes, in pixels, of the part's first pixel.
    """
    from napari.utils.transforms import Affine

    dims = spatial_dims(axes)
    block = np.ix_(dims, dims)
    shear = _shear_matrix(layer)
    to_world = Affine(
        scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=shear
    )
    corner = np.zeros(layer.ndim)
    corner[dims] = offset if len(offset) else 0
    return {
        "scale": np.asarray(layer.scale)[dims],
        "rotate": np.asarray(layer.rotate)[block],
        "shear": shear[block],
        "translate": np.asarray(to_world(corner))[dims],
        "affine": np.asarray(layer.affine.set_slice(dims).affine_matrix),
        "units": [layer.units[dim] for dim in dims],
        "axis_labels": [layer.axis_labels[dim] for dim in dims],
    }


def _shear_matrix(layer: ImageLayer) -> np.ndarray:
    """Shear as a matrix; napari gives the numbers above the diagonal where those say it all."""
    shear = np.asarray(layer.shear, float)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, k=1)] = shear
    return matrix


def image_to_layer(image: Image) -> tuple[Any, dict[str, Any]]:
    """Data and keywords of an image layer: `viewer.add_image(data, **keywords)`."""
    axes = image.axes
    rgb = axes.endswith("C") and image.data.shape[-1] in (3, 4)
    keywords: dict[str, Any] = {"name": image.name, "rgb": rgb}
    if image.pixel_size_um is not None:
        sizes = dict(zip(image.spatial_axes, image.pixel_size_um, strict=True))
        shown = axes.removesuffix("C") if rgb else axes
        keywords["scale"] = [sizes.get(axis, 1.0) for axis in shown]
        keywords["units"] = ["micrometer" if axis in sizes else "pixel" for axis in shown]
    return image.data, keywords
