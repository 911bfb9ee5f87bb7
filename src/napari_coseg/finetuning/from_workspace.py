"""Reads reviewed images from a workspace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.finetuning.reviewed import FoundBy, ReviewedImage, ReviewedSet, types_of
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.intensity import measure_intensity
from napari_coseg.images.readers.registry import read_image
from napari_coseg.images.slicing import slicing_of
from napari_coseg.inference.cutting import Cut
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import WORKSPACE, open_workspace
from napari_coseg.workspace.saved import Saved

BLOCK_PX = 256
"""An image is read only in blocks of this side around what was reviewed."""
CONTEXT_PX = 64
WITHOUT_OBJECTS = "without_objects"
"""In the provenance of an entry that was kept without a layer of objects."""


def is_workspace(path: Path) -> bool:
    """Whether the folder is one."""
    return (path / WORKSPACE).is_file()


def read_workspace(path: Path) -> list[ReviewedSet]:
    """For each image the parts with anything reviewed; of a stack each slice by itself.

    Volumes are cut by the rule `square` of `images.slicing`, as `segment` cuts them.

    A reviewed area counts for what it was marked for: objects, regions or both. An object that is
    marked as reviewed counts by itself. Where nothing of an image was reviewed for a task, its
    labels and their classes are left out; so are objects of an entry that was kept without them,
    as long as none were drawn.

    Grey values are those of the run that found the labels: its channels and its window, from the
    entry's provenance. Labels drawn by hand have no window, and their images are read by the rules
    of `napari_coseg.images.intensity`, without the window of a base's card. To fine-tune such a
    base on images of more than 8 bits, start from labels that the base found.

    Raises
    ------
    CosegError
        Where the workspace is damaged, or an image is not found or another than was labelled.
    """
    sets = []
    with open_workspace(path) as workspace:
        for entry in workspace.entries:
            saved = entry.load()
            if not saved.reviewed.is_empty:
                images = tuple(_parts(entry, saved))
                has_regions = any(image.semantic is not None for image in images)
                has_objects = any(image.instances is not None for image in images)
                classes = (
                    saved.region_classes if has_regions else (),
                    saved.classes if has_objects else (),
                )
                found_by = _found_by(saved.provenance)
                sets.append(ReviewedSet(images, *classes, source=str(path), found_by=found_by))
    return sets or [ReviewedSet((), source=str(path))]


def _parts(entry: Entry, saved: Saved) -> Iterator[ReviewedImage]:
    image = understand(read_image(entry.find_image()), entry.image.axes)
    provenance = saved.provenance
    whole_shape = (1, 1, *image.spatial_shape)[-3:]
    slicing = slicing_of(image.geometry, axes=image.axes)
    image = Cut(image, slicing).slices(image)
    source = RgbSource(image, provenance.get("channels"), window=provenance.get("window"))
    labels = saved.labels.reshape(-1, *saved.labels.shape[-2:])
    regions = None if saved.regions is None else saved.regions.reshape(labels.shape)
    has_types = bool(saved.classes)
    without_objects = bool(provenance.get(WITHOUT_OBJECTS)) and not labels.any()
    objects_seen, regions_seen = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    if not without_objects:
        seen = saved.reviewed_area("objects") | saved.reviewed_objects()
        objects_seen = seen.reshape(labels.shape)
    if regions is not None:
        regions_seen = saved.reviewed_area("regions").reshape(labels.shape)
    marked = objects_seen | regions_seen
    without_objects |= not objects_seen.any()
    regions = regions if regions_seen.any() else None
    whole = measure_intensity(source, stretch=True)
    low, high = source.intensity.apply(np.array([whole.low, whole.high])).tolist()
    offset = (0,) * (3 - len(entry.offset)) + tuple(entry.offset)
    _check_inside(entry, labels.shape, offset, whole_shape)
    sizes_um = (1.0, *saved.pixel_size_um)[-3:]
    y_um, x_um = (sizes_um[axis] for axis in slicing.order[1:])
    offset = slicing.start(offset, labels.shape, whole_shape)
    labels, marked, objects_seen, regions_seen = map(
        slicing.cut, (labels, marked, objects_seen, regions_seen)
    )
    regions = None if regions is None else slicing.cut(regions)
    for z in np.flatnonzero(marked.any(axis=(1, 2))).tolist():
        for rows, columns, own in _parts_of(marked[z]):
            here = (z, rows, columns)
            there = [
                slice(s.start + o, s.stop + o) for s, o in zip(here[1:], offset[1:], strict=True)
            ]
            rgb = source.read(z + offset[0], there[0], there[1])
            objects = labels[here].astype(LABEL_DTYPE)
            yield ReviewedImage(
                name=f"{entry.name}" + (f" z{z}" if len(labels) > 1 else ""),
                image=np.clip(np.rint(rgb), 0, 255).astype(np.uint8),
                pixel_size_um=math.sqrt(y_um * x_um),
                semantic=None if regions is None else regions[here].astype(np.uint8),
                instances=None if without_objects else objects,
                instance_types=types_of(objects, saved.table)
                if has_types and not without_objects
                else None,
                semantic_known=None if regions is None else regions_seen[here] & own,
                instances_known=None if without_objects else objects_seen[here] & own,
                range=(low, max(high, low + 1)),
            )


def _found_by(provenance: Mapping[str, Any]) -> tuple[FoundBy, ...]:
    weights = provenance.get("weights")
    sha256 = weights.get("sha256") if isinstance(weights, dict) else None
    return (FoundBy(str(provenance.get("model", "")), str(sha256)),) if sha256 else ()


def _parts_of(mask: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Windows around what is marked, with some context, and which pixels of each are its own.

    Blocks that touch are one part. Another part may lie inside the window of one (in the bend of an
    L): what is marked there belongs to that other one alone, else it would be counted twice.
    """
    from scipy.ndimage import find_objects, label

    height, width = mask.shape
    padded = np.pad(mask, [(0, -side % BLOCK_PX) for side in mask.shape])
    rows, columns = (side // BLOCK_PX for side in padded.shape)
    blocks = padded.reshape(rows, BLOCK_PX, columns, BLOCK_PX).any(axis=(1, 3))
    parts, _ = label(blocks, np.ones((3, 3)))
    for number, (y, x) in enumerate(find_objects(parts), 1):
        ys, xs = _window(y, height), _window(x, width)
        of_rows, of_columns = (np.arange(s.start, s.stop) // BLOCK_PX for s in (ys, xs))
        yield ys, xs, (parts == number)[np.ix_(of_rows, of_columns)]


def _window(blocks: slice, side: int) -> slice:
    start, stop = blocks.start * BLOCK_PX - CONTEXT_PX, blocks.stop * BLOCK_PX + CONTEXT_PX
    return slice(max(0, start), min(side, stop))


def _check_inside(
    entry: Entry, shape: tuple[int, ...], offset: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    if any(o + n > most for o, n, most in zip(offset, shape, whole, strict=True)):
        raise DatasetError(
            f"labels of {entry.name!r} have shape {shape} from {offset} on, but its image has "
            f"{whole}: the image is another than the one that was labelled"
        )
