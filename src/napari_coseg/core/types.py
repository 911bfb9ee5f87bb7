"""The values that travel through the package: an image in, a prediction out.

All are frozen. Arrays are never copied on construction; treat them as read-only.
Spatial axes are always ordered (Z,) Y, X. Where their pixels lie is said by a `Geometry`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry

if TYPE_CHECKING:
    import pandas as pd

LABEL_DTYPE = np.int32
"""Ids of objects. 16 bits would merge object 65,536 with background."""

LARGEST_ID = 2**26
"""Largest id of an object that is read or edited; a larger one is a sign of a damaged file."""

SPATIAL_AXES = "ZYX"


@dataclass(frozen=True)
class LabelClass:
    """One class of a task.

    Parameters
    ----------
    id
        The value in a semantic label image, or in the table's ``class_id`` column. 0 is background
        and is never listed.
    name
        As shown to people.
    color
        Red, green, blue, each 0 to 255.
    """

    id: int
    name: str
    color: tuple[int, int, int]


def id_lookup(ids: Mapping[int, int]) -> np.ndarray:
    """uint8 (256,): from class ids to other class ids; 0 for those that `ids` does not name."""
    table = np.zeros(256, np.uint8)
    for given, wanted in ids.items():
        table[given] = wanted
    return table


def distinct_color(number: int) -> tuple[int, int, int]:
    """Colours that differ for neighbouring numbers: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.65, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True, eq=False, init=False)
class Image:
    """A picture or a stack, with what its axes mean and where its pixels lie.

    Parameters
    ----------
    data
        numpy, dask or zarr array; any real dtype.
    axes
        One letter per axis, in order: ``YX``, ``YXC``, ``CYX``, ``ZYX``, ``ZYXC`` or ``ZCYX``.
    pixel_size_um
        Micrometres per pixel along the spatial axes, ordered as in `axes` ((y, x) or (z, y, x)),
        if it is not that of `geometry`; None where it is, or is not known.
    name
        As shown to people and used for the names of outputs.
    geometry
        Of the spatial axes; None where no more than the pixel size is known.
    path
        File or folder that it was read from; None where it was not.
    alpha
        Whether the last of four channels is how opaque a pixel is; None where nothing says so: then
        it is, if the channels are the last axis, as in pictures.

    Raises
    ------
    ImageError
        Where axes, array, pixel size and geometry do not fit each other.
    """

    data: Any
    axes: str
    geometry: Geometry
    name: str
    path: Path | None
    alpha: bool | None

    def __init__(
        self,
        data: Any,
        axes: str,
        pixel_size_um: Sequence[float] | None = None,
        name: str = "image",
        *,
        geometry: Geometry | None = None,
        path: Path | None = None,
        alpha: bool | None = None,
    ) -> None:
        known = ("YX", "YXC", "CYX", "ZYX", "ZYXC", "ZCYX")
        if axes not in known:
            raise ImageError(f"axes {axes!r} are not understood; use one of {', '.join(known)}")
        if len(axes) != len(data.shape):
            raise ImageError(
                f"axes {axes!r} name {len(axes)} axes, but the image has shape "
                f"{tuple(data.shape)}; name every axis once"
            )
        geometry = geometry_of(pixel_size_um, geometry, axes.replace("C", ""))
        for key, value in (
            ("data", data),
            ("axes", axes),
            ("geometry", geometry),
            ("name", name),
            ("path", path),
            ("alpha", alpha),
        ):
            object.__setattr__(self, key, value)

    @property
    def pixel_size_um(self) -> tuple[float, ...] | None:
        """Micrometres per pixel along the spatial axes; None where it is not known."""
        return self.geometry.pixel_size_um

    @property
    def spatial_axes(self) -> str:
        return self.axes.replace("C", "")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(
            int(n) for axis, n in zip(self.axes, self.data.shape, strict=True) if axis != "C"
        )

    @property
    def is_stack(self) -> bool:
        return "Z" in self.axes

    @property
    def n_channels(self) -> int:
        """1 where there is no axis of channels."""
        return int(self.data.shape[self.axes.index("C")]) if "C" in self.axes else 1

    @property
    def has_alpha(self) -> bool:
        """Whether its channels are red, green, blue and how opaque a pixel is."""
        says = self.axes.endswith("C") if self.alpha is None else self.alpha
        return says and self.n_channels == 4


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects: a label image and one table row per object.

    Parameters
    ----------
    labels
        (Y, X) or (Z, Y, X), 0 is background. From a run int32, and ids are 1..N without gaps; from
        elsewhere any whole numbers from 0 on.
    table
        One row per object, columns as in `napari_coseg.labels.measure.OBJECT_COLUMNS`.
    classes
        The classes that ``class_id`` refers to; empty where the model knows no types.
    """

    labels: np.ndarray
    table: pd.DataFrame
    classes: tuple[LabelClass, ...] = ()

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True, eq=False, init=False)
class Prediction:
    """Labels of one image: regions, objects, their geometry and how they were made.

    What a run returns, what a workspace keeps, what is corrected and what is exported.

    Parameters
    ----------
    regions
        Class ids, (Y, X) or (Z, Y, X), on the pixel grid of the image; 0 is background. uint8 from
        a run, other whole numbers from elsewhere. None where there are no regions.
    semantic_classes
        What the values of `regions` mean.
    instances
        The objects, on the same grid.
    pixel_size_um
        Micrometres per pixel along these axes, if it is not that of `geometry`.
    provenance
        Plain JSON values: model, its hash, version, settings, what was assumed.
    geometry
        Of these labels (of a part of an image, that part's). The size of a pixel is always known:
        the model's own was assumed where the image had none, and `provenance` and the geometry's
        source say so.

    Raises
    ------
    ImageError
        Where the size of a pixel is not known, or does not fit the labels.
    """

    regions: np.ndarray | None
    semantic_classes: tuple[LabelClass, ...]
    instances: Instances
    geometry: Geometry
    provenance: dict[str, Any]

    def __init__(
        self,
        regions: np.ndarray | None,
        semantic_classes: tuple[LabelClass, ...],
        instances: Instances,
        pixel_size_um: Sequence[float] | None = None,
        provenance: dict[str, Any] | None = None,
        *,
        geometry: Geometry | None = None,
    ) -> None:
        geometry = geometry_of(pixel_size_um, geometry, "ZYX"[-instances.labels.ndim :])
        _ = geometry.known_size_um
        for key, value in (
            ("regions", regions),
            ("semantic_classes", semantic_classes),
            ("instances", instances),
            ("geometry", geometry),
            ("provenance", {} if provenance is None else provenance),
        ):
            object.__setattr__(self, key, value)

    @property
    def pixel_size_um(self) -> tuple[float, ...]:
        """Micrometres per pixel along the axes of the labels."""
        return self.geometry.known_size_um

    @cached_property
    def semantic(self) -> np.ndarray:
        """`regions`; all background where there are none."""
        if self.regions is None:
            return np.zeros(self.instances.labels.shape, np.uint8)
        return self.regions

    @property
    def offset(self) -> tuple[int, ...]:
        """Index of the first pixel in the image; () where the labels cover all of it."""
        return tuple(int(at) for at in self.provenance.get("region_offset") or ())


class Labelled:
    """Base of what holds a `prediction`: names for the parts of it."""

    prediction: Prediction

    @property
    def labels(self) -> np.ndarray:
        """Object ids, (Y, X) or (Z, Y, X)."""
        return self.prediction.instances.labels

    @property
    def regions(self) -> np.ndarray | None:
        """Region class ids of the same shape; None where there are none."""
        return self.prediction.regions

    @property
    def table(self) -> pd.DataFrame:
        """One row per object, ordered by id."""
        return self.prediction.instances.table

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Of objects."""
        return self.prediction.instances.classes

    @property
    def region_classes(self) -> tuple[LabelClass, ...]:
        return self.prediction.semantic_classes

    @property
    def geometry(self) -> Geometry:
        return self.prediction.geometry

    @property
    def pixel_size_um(self) -> tuple[float, ...]:
        return self.prediction.pixel_size_um

    @property
    def provenance(self) -> dict[str, Any]:
        return self.prediction.provenance


@dataclass(frozen=True, eq=False)
class LabelNotes:
    """What is known of one label image beside its pixels.

    Parameters
    ----------
    classes
        What its values, or the classes of its objects, mean; empty where not known.
    known
        Classes of its objects: a table with ``id``, ``class_id`` and ``class_probability``; None
        where not known, and for regions.
    provenance
        Of the run that made it; empty for one that was drawn.
    """

    classes: tuple[LabelClass, ...] = ()
    known: pd.DataFrame | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def geometry_of(
    pixel_size_um: Sequence[float] | None, geometry: Geometry | None, axes: str
) -> Geometry:
    """The geometry of these spatial axes; a given pixel size goes before the geometry's own.

    Raises
    ------
    ImageError
        Where it does not fit the axes.
    """
    if geometry is None:
        if pixel_size_um is None:
            return Geometry.unknown(len(axes))
        if len(pixel_size_um) != len(axes):
            raise ImageError(
                f"pixel size {tuple(pixel_size_um)} has {len(pixel_size_um)} numbers; the spatial "
                f"axes {axes} need {len(axes)}"
            )
        return Geometry.from_spacing(pixel_size_um)
    if geometry.axes != axes:
        raise ImageError(f"a geometry of {geometry.axes} does not fit the spatial axes {axes}")
    if pixel_size_um is not None and not geometry.has_pixel_size(pixel_size_um):
        return geometry.with_pixel_size(pixel_size_um)
    return geometry
