"""Where in an image its labels lie: all of it, or a part that was segmented alone."""

from __future__ import annotations

from napari_coseg.core.errors import OutputError
from napari_coseg.core.types import Image, Prediction


def offset_in(prediction: Prediction, image: Image) -> tuple[int, ...]:
    """Of the labels' first pixel in the image, along the axes of the labels.

    Labels whose provenance tells of a ``region_offset`` lie there; others are of the whole image.

    Raises
    ------
    OutputError
        Where the image is not one that the labels could lie on.
    """
    shape, whole = prediction.semantic.shape, image.spatial_shape
    told = prediction.provenance.get("region_offset") or ()
    try:
        offset = tuple(int(at) for at in told) or (0,) * len(shape)
    except (TypeError, ValueError):
        offset = ()
    fits = len(offset) == len(shape) == len(whole) and all(
        0 <= at <= at + size <= most for at, size, most in zip(offset, shape, whole, strict=True)
    )
    if not fits or (not told and whole != shape):
        raise OutputError(
            f"the image {image.name} has shape {tuple(whole)} along {image.spatial_axes}, its "
            f"labels {shape} from {told or 'its corner'} on; they do not belong together: give the "
            "image that the labels were made of"
        )
    return offset
