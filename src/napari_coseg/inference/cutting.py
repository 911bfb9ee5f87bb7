"""Cut a volume into slices for a model of planes, by the rule of its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.slicing import Slicing, slicing_of

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.core.geometry import Geometry

Bounds = tuple[int, int] | slice


def slicing_for(card: ModelCard, axes: str, geometry: Geometry) -> Slicing:
    """How the model of `card` cuts an image of these axes; see `images.slicing`.

    Raises
    ------
    ImageError
        If all sides of a voxel differ.
    """
    return slicing_of(geometry, card.slicing, axes)


@dataclass(frozen=True, eq=False)
class Cut:
    """An image on its own axes, and how it is cut."""

    image: Image
    slicing: Slicing

    @classmethod
    def of(cls, card: ModelCard, image: Image) -> Cut:
        slicing = slicing_for(card, image.axes, image.geometry)
        if not slicing.is_plain:  # slices of a file would each read all of it
            image = replace(image, data=_values(image))
        return cls(image, slicing)

    @property
    def across(self) -> str:
        """The image's axis that slices are counted along: "Z", "Y" or "X"."""
        return "ZYX"[self.slicing.axis]

    def slices(self, image: Image) -> Image:
        """Slices of the image, or of a part of it, as a stack."""
        if self.slicing.is_plain:
            return image
        data = self.slicing.cut(_values(image))
        return replace(image, data=data, geometry=self.slicing.geometry(image.geometry, data.shape))

    def back(self, labels: np.ndarray) -> np.ndarray:
        """Labels of slices on the image's own axes."""
        if self.slicing.is_plain:
            return labels
        return np.ascontiguousarray(self.slicing.back(labels))

    def with_slices(
        self, region: Sequence[Bounds] | None, slices: int | tuple[int, int]
    ) -> list[Bounds]:
        """Bounds along z, y and x of some slices, within a region of y and x."""
        image, axis = self.image, self.slicing.axis
        if not image.is_stack:
            raise ImageError(f"slices {slices} were asked for, but {image.name!r} is no stack")
        if region is not None and len(region) != 2:
            raise ImageError("give slices by a region of z, y and x or by slices, not by both")
        if region is not None and axis:
            raise ImageError(
                f"slices of this volume are cut across {self.across}; give a region of z, y and x "
                "instead of slices"
            )
        bounds: list[Bounds] = [(0, n) for n in image.spatial_shape]
        bounds[1:] = bounds[1:] if region is None else region
        bounds[axis] = (slices, slices + 1) if isinstance(slices, int) else slices
        return bounds

    def facts(self) -> dict[str, Any]:
        """For the provenance: along which axis, where that is not Z."""
        if not self.slicing.axis:
            return {}
        return {"sliced_across": self.across}


def sliced_across(provenance: dict[str, Any]) -> str:
    """A sentence on how a run cut its volume; empty where it was across Z."""
    axis = provenance.get("sliced_across")
    return f"slices were cut across {axis}, not Z, as in training" if axis in ("Y", "X") else ""


def _values(image: Image) -> np.ndarray:
    return np.asarray(image.data[(slice(None),) * len(image.axes)])
