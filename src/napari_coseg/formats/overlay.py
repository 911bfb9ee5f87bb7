"""A picture for people: the image, regions tinted, objects outlined in their class's colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, LabelClass, Prediction
from napari_coseg.formats.place import offset_in
from napari_coseg.images.intake import RgbSource
from napari_coseg.labels.measure.rows import classes_of_ids

SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 1024, 4096
"""Smaller images are enlarged by a whole number, larger ones thinned out."""
TINT = 0.3
UNTYPED_COLOR = (255, 235, 0)
BAR_PX, SWATCH_PX, GAP_PX = 34, 18, 10


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """PNG of a plane, or of the slice of a stack with the most object pixels."""
    import PIL.Image

    picture = draw(prediction, image)
    with atomic_write(paths[0], overwrite) as partial:
        PIL.Image.fromarray(picture).save(partial, format="PNG")


def draw(prediction: Prediction, image: Image, z: int | None = None) -> np.ndarray:
    """The overlay as uint8 (Y, X, 3), with a legend below.

    Raises
    ------
    OutputError
        Where the labels do not lie on the image.
    """
    labels, semantic = prediction.instances.labels, prediction.semantic
    if labels.ndim == 3:
        if z is None:
            z = int(np.argmax([np.count_nonzero(plane) for plane in labels]))
        labels, semantic = labels[z], semantic[z]
    step, zoom = _sampling(labels.shape)
    labels, semantic = (_sampled(a, step, zoom) for a in (labels, semantic))
    rgb = _picture(prediction, image, z or 0, offset_in(prediction, image), step)
    rgb = rgb.repeat(zoom, 0).repeat(zoom, 1)
    _tint(rgb, semantic, prediction.semantic_classes)
    _outline(rgb, labels, prediction, thick=zoom > 1)
    legend = _legend(rgb.shape[1], prediction)
    return np.concatenate([np.clip(rgb, 0, 255).astype(np.uint8), legend])


def _sampling(shape: tuple[int, ...]) -> tuple[int, int]:
    """Every how many pixels one is taken, and how often it is repeated."""
    side = max(shape)
    return max(1, -(-side // LARGEST_SIDE_PX)), max(1, SMALLEST_SIDE_PX // side)


def _sampled(labels: np.ndarray, step: int, zoom: int) -> np.ndarray:
    return labels[::step, ::step].repeat(zoom, 0).repeat(zoom, 1)


def _picture(
    prediction: Prediction, image: Image, z: int, offset: Sequence[int], step: int
) -> np.ndarray:
    provenance = prediction.provenance
    source = RgbSource(image, provenance.get("channels"), window=provenance.get("window"))
    height, width = prediction.semantic.shape[-2:]
    top, left = offset[-2:]
    first_slice = offset[0] if len(offset) == 3 else 0
    bands = [
        source.read(
            z + first_slice,
            slice(top + y, top + min(y + 1024 * step, height)),
            slice(left, left + width),
        )[::step, ::step]
        for y in range(0, height, 1024 * step)
    ]
    return np.concatenate(bands)


def _tint(rgb: np.ndarray, semantic: np.ndarray, classes: Sequence[LabelClass]) -> None:
    from scipy.ndimage import binary_erosion

    for entry in classes:
        inside = semantic == entry.id
        color = np.asarray(entry.color, np.float32)
        rgb[inside] += TINT * (color - rgb[inside])
        rgb[inside & ~binary_erosion(inside, iterations=2)] = color


def _outline(rgb: np.ndarray, labels: np.ndarray, prediction: Prediction, thick: bool) -> None:
    from scipy.ndimage import binary_dilation
    from skimage.segmentation import find_boundaries

    edge = find_boundaries(labels, mode="inner")
    if thick:
        edge = binary_dilation(edge) & (labels > 0)
    ids, owners = np.unique(labels[edge], return_inverse=True)
    class_ids, _ = classes_of_ids(prediction.instances.table, ids)
    by_class = {entry.id: entry.color for entry in prediction.instances.classes}
    colors = [by_class.get(class_id, UNTYPED_COLOR) for class_id in class_ids.tolist()]
    rgb[edge] = np.array(colors, np.float32).reshape(-1, 3)[owners]


def _legend(width: int, prediction: Prediction) -> np.ndarray:
    """A white bar of names and counts, of as many rows as the width asks for."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    font = PIL.ImageFont.load_default(size=18)
    counts = prediction.instances.table["class_id"].value_counts()
    entries = [(entry.name, entry.color) for entry in prediction.semantic_classes]
    entries += [
        (f"{entry.name} ({counts.get(entry.id, 0)})", entry.color)
        for entry in prediction.instances.classes
    ]
    if not prediction.instances.classes:
        entries.append((f"objects ({len(prediction.instances)})", UNTYPED_COLOR))
    places, x, row = [], GAP_PX, 0
    for name, color in entries:
        needed = SWATCH_PX + 2 * GAP_PX + round(font.getlength(name)) + GAP_PX
        if x > GAP_PX and x + needed > width:
            x, row = GAP_PX, row + 1
        places.append((x, row * BAR_PX, name, color))
        x += needed
    bar = PIL.Image.new("RGB", (width, (row + 1) * BAR_PX), "white")
    pen = PIL.ImageDraw.Draw(bar)
    for x, y, name, color in places:
        top = y + (BAR_PX - SWATCH_PX) // 2
        pen.rectangle((x, top, x + SWATCH_PX, top + SWATCH_PX), fill=tuple(color), outline="black")
        pen.text((x + SWATCH_PX + GAP_PX, y + BAR_PX // 2), name, "black", font, anchor="lm")
    return np.asarray(bar)
