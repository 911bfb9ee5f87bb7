"""The image that a labels layer belongs to, and where in the image the labels lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image as ImageLayer

from napari_coseg.core.errors import ImageError
from napari_coseg.widgets import layers
from napari_coseg.widgets.outputs import IMAGE_ID, labels_of, made_of, metadata_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer


def run_image_of(viewer: Viewer, labels: Labels) -> ImageLayer | None:
    """The image that a run segmented into these labels, whatever it is called now.

    After a restart of napari, the image with the name of then. None where neither is in the viewer,
    and for labels that no run made.
    """
    about = metadata_of(labels)
    images = [layer for layer in viewer.layers if isinstance(layer, ImageLayer)]
    same = [layer for layer in images if str(layer.unique_id) == about.get(IMAGE_ID)]
    named = [layer for layer in images if layer.name == about.get("image")]
    return (same or named or [None])[0]


def image_of(viewer: Viewer, labels: Labels) -> ImageLayer | None:
    """The image that labels belong to: that of their run; else the topmost that they fit.

    Only labels that no run made may belong to an image by their shape.
    """
    if made_of(labels) is not None:
        return run_image_of(viewer, labels)
    fitting = (image for image in topmost_first(viewer) if fits(labels, image))
    return next(fitting, None)


def topmost_first(viewer: Viewer) -> list[ImageLayer]:
    """Image layers, visible ones first, and the topmost of these first."""
    newest = [layer for layer in reversed(viewer.layers) if isinstance(layer, ImageLayer)]
    return sorted(newest, key=lambda layer: not layer.visible)


def place_in(labels: Labels, image: ImageLayer) -> tuple[str, list[int]]:
    """The image's axes, and the pixel of it (along its spatial axes) at which the labels begin.

    Labels that a run made of a part of the image lie inside it; others have its shape.

    Raises
    ------
    ImageError
        Where the labels do not fit the image.
    """
    provenance = labels_of(labels).provenance
    offset = [int(at) for at in provenance.get("region_offset") or ()]
    shape = tuple(layers.level_0(labels).shape)
    for axes in likely_axes(image, provenance):
        whole = layers.layer_to_image(image, axes).spatial_shape
        if not offset and whole == shape:
            return axes, [0] * len(shape)
        if len(offset) == len(whole) == len(shape) and all(
            0 <= at <= at + size <= n for at, size, n in zip(offset, shape, whole, strict=True)
        ):
            return axes, offset
    raise ImageError(
        f"the image {image.name!r} has shape {tuple(layers.level_0(image).shape)}, the labels "
        f"{labels.name!r} {shape}; choose the image that the labels belong to"
    )


def fits(labels: Labels, image: ImageLayer) -> bool:
    """Whether `place_in` finds a place."""
    try:
        place_in(labels, image)
    except ImageError:
        return False
    return True


def likely_axes(image: ImageLayer, provenance: dict[str, Any]) -> list[str]:
    """Axes that the image may have, first those that a run took it to have.

    Raises
    ------
    ImageError
        For images of no or too many dimensions.
    """
    choices = layers.axes_choices(image)
    by_run = [axes for axes in choices if axes == provenance.get("axes")]
    return by_run + [axes for axes in choices if axes not in by_run]


def file_stem(viewer: Viewer, labels: Labels) -> str:
    """Beginning of file names: after the image of the labels' run, else after the labels."""
    image = run_image_of(viewer, labels)
    name = made_of(labels) if image is None else image.name
    return Path(name or labels.name).name.replace(" ", "_")
