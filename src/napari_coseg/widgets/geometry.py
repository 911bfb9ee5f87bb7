"""From a layer's scale, units, translation and rotation to a `Geometry`, and back.

napari slices a volume along its own axes only: in a volume that is tilted against the world it
would show one plane and paint in another. A stack is therefore placed along its own axes (by scale
and translation, so that crops are in place), and its full geometry is kept in the layer's metadata;
a plane gets its rotation as well. Where such a layer was moved since, the same move applies in the
world.

A scale with a unit of length is converted. napari's default unit is the pixel: a scale of 1 pixel
means that the size is unknown, and any other scale is taken as micrometres, as most plugins that
set a scale without a unit mean it. The result is always shown, and can be changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.geometry import SAME_SIZE, UNITS_UM, Geometry
from napari_coseg.core.types import SPATIAL_AXES
from napari_coseg.widgets.corrected import METADATA_KEY

if TYPE_CHECKING:
    from napari.layers import Layer

NOTE = "geometry"
"""Key, in this plugin's metadata of a layer, of the geometry of its array (JSON)."""
NAPARI_UNITS = {"um": "micrometer", "mm": "millimeter", "px": "pixel"}
PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""Attributes that place a layer."""
IN_PLACE = 1e-4
"""Fraction of a pixel by which positions may differ, since napari rounds."""


@dataclass(frozen=True)
class PixelSize:
    """Micrometres per pixel along the spatial axes, None where unknown, and their source."""

    um: tuple[float, ...] | None
    source: str


def spatial_dims(axes: str) -> list[int]:
    """Which of a layer's dimensions are spatial, in the order z, y, x.

    >>> spatial_dims("ZCYX"), spatial_dims("YXC")
    ([0, 2, 3], [0, 1])
    """
    return [axes.index(axis) for axis in SPATIAL_AXES if axis in axes]


# ---------------------------------------------------------------------------------------------
# Layer -> geometry


def layer_geometry(layer: Layer, axes: str) -> Geometry:
    """Geometry of the layer's spatial dimensions: from its metadata, else from its attributes."""
    return geometry_from_attributes(attributes_of(layer), axes)[0]


def layer_pixel_size(layer: Layer, axes: str) -> PixelSize:
    """Pixel size from the layer's scale and units, by the rule at the top of this module."""
    geometry, source = geometry_from_attributes(attributes_of(layer), axes)
    return PixelSize(geometry.pixel_size_um, source)


def attributes_of(layer: Layer) -> dict[str, Any]:
    """The attributes that `geometry_from_attributes` reads."""
    return {key: getattr(layer, key) for key in (*PLACE, "metadata")}


def geometry_from_attributes(attributes: Mapping[str, Any], axes: str) -> tuple[Geometry, str]:
    """Geometry from a layer's attributes, as napari also hands them to writers, and its source.

    Parameters
    ----------
    attributes
        At least ``scale`` and ``units``, of all dimensions of the layer.
    axes
        One letter per dimension.
    """
    dims = spatial_dims(axes)
    matrix = _matrix(attributes, dims)
    sizes = np.linalg.norm(matrix[:-1, :-1], axis=0)
    if not (np.isfinite(matrix).all() and sizes.all() and np.linalg.det(matrix)):
        return Geometry.unknown(len(dims)), "not known: the layer's scale is not a number"
    units = [attributes["units"][dim] for dim in dims]
    lengths = [unit.is_compatible_with("micrometer") for unit in units]
    scales = [float(attributes["scale"][dim]) for dim in dims]
    source = "from the layer's scale and units"
    if not all(lengths[-2:]):
        if not any(lengths[-2:]) and all(abs(scale) == 1 for scale in scales[-2:]):
            linear, origin = matrix[:-1, :-1], matrix[:-1, -1]
            unknown = Geometry.from_parts(linear, origin, unit="px")
            return _noted(unknown, attributes), "not known"
        source = "from the layer's scale, which has no unit: taken as µm"
    unit = "mm" if all(str(one) == "millimeter" for one in units) else "um"
    factors = [
        float((1 * one).to(NAPARI_UNITS[unit]).magnitude) if is_length else 1.0
        for one, is_length in zip(units, lengths, strict=True)
    ]
    matrix[:-1] *= np.array(factors)[:, None]
    seen = Geometry.from_parts(matrix[:-1, :-1], matrix[:-1, -1], unit=unit)
    return _noted(seen, attributes), source


def of_layers_array(
    geometry: Geometry, shape: Sequence[int], layers_shape: Sequence[int]
) -> Geometry | None:
    """Of a layer that another program's reader made of a file whose geometry we read.

    A volume may come as we turn it, as its file stores it (slowest axis first), or with its axes
    reversed. Where the shapes allow several of these, no more than a size they share is certain.

    Parameters
    ----------
    geometry, shape
        Of the file's image as our reader turns it.
    layers_shape
        Of the layer's spatial axes.

    Returns
    -------
    Geometry or None
        None where nothing is certain.
    """
    wanted = tuple(layers_shape)
    if len(shape) == len(wanted) == 3:
        stored, in_file = geometry.as_stored(np.broadcast_to(np.False_, shape))
        turned = in_file.permuted((2, 1, 0))
        candidates = [(tuple(shape), geometry), (stored.shape, in_file)]
        candidates.append((stored.shape[::-1], turned))
    else:
        candidates = [(tuple(shape), geometry)] if len(shape) == len(wanted) else []
    fitting = [one for size, one in candidates if size == wanted]
    if fitting and all(same_place(one, fitting[0]) for one in fitting):
        return fitting[0]
    sizes = [one.pixel_size_um for one in fitting]
    if not fitting and not geometry.source.axes and len(shape) >= len(wanted):
        sizes = [geometry.pixel_size_um]  # of a part: another plane or series
    known = [size[-len(wanted) :] for size in sizes if size is not None]
    if not known or not np.allclose(known, known[0], rtol=SAME_SIZE):
        return None
    return Geometry.from_spacing(known[0], source=replace(geometry.source, axes=(), flipped=()))


def note_of(metadata: Mapping[str, Any]) -> Geometry | None:
    """The geometry that is noted in a layer's metadata."""
    values = dict(metadata.get(METADATA_KEY, {})).get(NOTE)
    return None if values is None else Geometry.from_json(values)


def noted(geometry: Geometry) -> dict[str, Any]:
    """What to put under `METADATA_KEY` of a layer's metadata."""
    return {NOTE: geometry.as_json()}


def _noted(seen: Geometry, attributes: Mapping[str, Any]) -> Geometry:
    """What is noted of a layer that is seen here; moved in the world as the layer was since."""
    note = note_of(attributes.get("metadata", {}))
    if note is None or note.ndim != seen.ndim:
        return seen
    if not (note.is_known and seen.is_known):
        return replace(seen, source=note.source)
    shown = frame_of(note)
    if same_place(seen, shown):
        return note
    linear, offset = _between(seen, shown)
    source = note.source
    if (linear.diagonal() <= 0).any():  # turned, and so no longer in a known order
        source = replace(source, axes=(), flipped=())
    about: dict[str, Any] = {"unit": note.unit, "space": note.space, "source": source}
    return Geometry.from_parts(note.linear @ linear, note.world(offset), **about)


def _matrix(attributes: Mapping[str, Any], dims: Sequence[int]) -> np.ndarray:
    """(N + 1, N + 1): from indices of these dimensions to the layer's world, in its units."""
    from napari.utils.transforms import Affine

    names = ("scale", "translate", "rotate")
    given = {key: attributes[key] for key in names if attributes.get(key) is not None}
    ndim = len(attributes["scale"])
    if not np.isfinite(np.asarray(attributes["scale"], float)).all():
        return np.full((len(dims) + 1,) * 2, np.nan)
    shear = shear_matrix(attributes.get("shear"), ndim)
    matrix = np.array(Affine(**given, shear=shear, ndim=ndim).affine_matrix)
    affine = attributes.get("affine")
    if affine is not None:
        matrix = np.asarray(getattr(affine, "affine_matrix", affine)) @ matrix
    keep = [*dims, ndim]
    return matrix[np.ix_(keep, keep)]


def shear_matrix(shear: Any, ndim: int) -> np.ndarray:
    """Shear as a matrix; napari gives the numbers above the diagonal where those say it all."""
    values = np.zeros(0) if shear is None else np.asarray(shear, float)
    if values.ndim == 2:
        return values
    matrix = np.eye(ndim)
    if values.size:
        matrix[np.triu_indices(ndim, k=1)] = values
    return matrix


# ---------------------------------------------------------------------------------------------
# Geometry -> layer


def frame_of(geometry: Geometry) -> Geometry:
    """The coordinates that napari shows an image in: of a stack along its own axes."""
    if geometry.ndim == 2:
        return geometry
    return Geometry.from_spacing(
        geometry.spacing, geometry.origin_along_axes.tolist(), unit=geometry.unit
    )


def placement_of(geometry: Geometry, axes: str) -> dict[str, Any]:
    """Keywords that place a layer; nothing where no size is known and nothing was cropped.

    Parameters
    ----------
    axes
        One letter per dimension of the layer.
    """
    if not geometry.is_known and geometry.is_plain:
        return {}
    frame = frame_of(geometry)
    turned = not np.allclose(frame.directions, np.eye(frame.ndim), atol=1e-9)
    dims = spatial_dims(axes)
    scale, start = np.ones(len(axes)), np.zeros(len(axes))
    scale[dims] = frame.spacing
    units = ["pixel"] * len(axes)
    for dim in dims:
        units[dim] = NAPARI_UNITS[geometry.unit]
    found: dict[str, Any] = {"scale": scale.tolist(), "units": units}
    if turned:
        affine = np.eye(len(axes) + 1)
        affine[np.ix_(dims, [*dims, len(axes)])] = np.column_stack([frame.directions, frame.origin])
        return found | {"affine": affine}
    start[dims] = frame.origin
    return found | ({"translate": start.tolist()} if start.any() else {})


def placed_like(layer: Layer) -> dict[str, Any]:
    """Keywords that place a layer of the same dimensions where another one lies."""
    return {key: getattr(layer, key) for key in PLACE}


def placement(layer: Layer, axes: str, offset: Sequence[int] = ()) -> dict[str, Any]:
    """Keywords that place a labels layer over (a part of) an image layer.

    Parameters
    ----------
    axes
        Of the image, one letter per dimension of its layer.
    offset
        Along the spatial axes, in pixels, of the part's first pixel.
    """
    from napari.utils.transforms import Affine

    dims = spatial_dims(axes)
    block = np.ix_(dims, dims)
    shear = shear_matrix(layer.shear, layer.ndim)
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


def same_place(one: Geometry, other: Geometry) -> bool:
    """Whether two geometries place an array alike, but for rounding."""
    if one.ndim != other.ndim or one.is_known != other.is_known:
        return False
    linear, offset = _between(one, other)
    aligned = np.allclose(linear, np.eye(one.ndim), atol=IN_PLACE)
    return bool(aligned and np.allclose(offset, 0, atol=IN_PLACE))


def _between(one: Geometry, other: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """From indices of one array to those of another at the same place: matrix and offset."""
    factor = UNITS_UM.get(one.unit, 1.0) / UNITS_UM.get(other.unit, 1.0)
    linear = np.linalg.solve(other.linear, one.linear * factor)
    return linear, np.linalg.solve(other.linear, one.origin * factor - other.origin)
