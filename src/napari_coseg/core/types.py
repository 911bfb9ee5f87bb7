"""The values that travel through the package: an image in, a prediction out.

All are frozen. Arrays are never copied on construction; treat them as read-only.
Spatial axes are always ordered (Z,) Y, X. Pixel sizes are in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError

if TYPE_CHECKING:
    import pandas as pd

LABEL_DTYPE = np.int32
"""Ids of objects. 16 bits would merge object 65,536 with background."""

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


@dataclass(frozen=True, eq=False)
class Image:
    """A picture or a stack, with what its axes mean.

    Parameters
    ----------
    data
        numpy, dask or zarr array; any real dtype.
    axes
        One letter an axis, in order: ``YX``, ``YXC``, ``CYX``, ``ZYX``, ``ZYXC`` or ``ZCYX``.
    pixel_size_um
        Micrometres a pixel along the spatial axes, in the order they stand in `axes`
        ((y, x) or (z, y, x)); None where it is not known.
    name
        As shown to people and used for the names of outputs.
    """

    data: Any
    axes: str
    pixel_size_um: tuple[float, ...] | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        known = ("YX", "YXC", "CYX", "ZYX", "ZYXC", "ZCYX")
        if self.axes not in known:
            raise ImageError(
                f"axes {self.axes!r} are not understood; use one of {', '.join(known)}"
            )
        if len(self.axes) != len(self.data.shape):
            raise ImageError(
                f"axes {self.axes!r} name {len(self.axes)} axes, but the image has shape "
                f"{tuple(self.data.shape)}; name every axis once"
            )
        if self.pixel_size_um is not None:
            if len(self.pixel_size_um) != len(self.spatial_axes):
                raise ImageError(
                    f"pixel size {self.pixel_size_um} has {len(self.pixel_size_um)} numbers; the "
                    f"spatial axes {self.spatial_axes} need {len(self.spatial_axes)}"
                )
            if not all(np.isfinite(size) and size > 0 for size in self.pixel_size_um):
                raise ImageError(
                    f"pixel size {self.pixel_size_um} must be positive, in micrometres"
                )

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


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects: a label image and one table row an object.

    Parameters
    ----------
    labels
        int32, (Y, X) or (Z, Y, X); 0 is background; ids are 1..N without holes.
    table
        One row an object, columns as in `napari_coseg.labels.measure.OBJECT_COLUMNS`.
    classes
        The classes that ``class_id`` refers to; empty where the model knows no types.
    """

    labels: np.ndarray
    table: pd.DataFrame
    classes: tuple[LabelClass, ...] = ()

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one run gives: regions, objects and where they came from.

    Parameters
    ----------
    semantic
        uint8 class ids, (Y, X) or (Z, Y, X), on the pixel grid of the image; 0 is background.
    semantic_classes
        What its values mean.
    instances
        The objects, on the same grid.
    pixel_size_um
        Along the spatial axes of the image; always known here (the model's own was assumed where
        the image had none, and `provenance` says so).
    provenance
        Plain JSON values: model, its hash, version, settings, what was assumed.
    """

    semantic: np.ndarray
    semantic_classes: tuple[LabelClass, ...]
    instances: Instances
    pixel_size_um: tuple[float, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
