"""Where in an image its labels lie: all of it, or a part that was segmented alone."""

from __future__ import annotations

from collections.abc import Sequence

from napari_coseg.core.errors import OutputError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Prediction


def offset_in(prediction: Prediction, image: Image) -> tuple[int, ...]:
    """Index of the labels' first pixel in the image, along the axes of the labels.

    Labels whose provenance has a ``region_offset`` lie there; others are of the whole image.

    Raises
    ------
    OutputError
        Where the image is not one that the labels could lie on.
    """
    shape, given = prediction.semantic.shape, prediction.provenance.get("region_offset") or ()
    offset = _offset(shape, given, image)
    if offset is None:
        raise OutputError(
            f"the image {image.name} has shape {image.spatial_shape} along {image.spatial_axes}, "
            f"its labels {shape} from {given or 'its corner'} on; they do not belong together: "
            "give the image that the labels were made of"
        )
    return offset


def geometry_of_labels(
    said: Geometry, shape: Sequence[int], given: Sequence[int], image: Image | None
) -> Geometry:
    """Of labels whose file says `said`: that, or the image's where it says more and they fit it.

    Parameters
    ----------
    shape, given
        Of the labels, and their ``region_offset`` in the image, if they have one.
    """
    offset = _offset(shape, given, image) if image is not None and said.is_plain else None
    if image is None or offset is None or image.geometry.is_plain:
        return said
    size = said.pixel_size_um
    found = image.geometry.crop(offset)
    return found if size is None or found.has_pixel_size(size) else found.with_pixel_size(size)


def _offset(shape: Sequence[int], given: Sequence[int], image: Image) -> tuple[int, ...] | None:
    whole = image.spatial_shape
    try:
        offset = tuple(int(at) for at in given) or (0,) * len(shape)
    except (TypeError, ValueError):
        return None
    fits = len(offset) == len(shape) == len(whole) and all(
        0 <= at <= at + size <= most for at, size, most in zip(offset, shape, whole, strict=True)
    )
    return offset if fits and (given or whole == tuple(shape)) else None
