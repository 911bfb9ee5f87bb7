"""Objects and regions of a plane as COCO JSON, with masks as uncompressed run lengths.

COCO's runs count pixels down the columns, background first. Lists of counts are what pycocotools
takes as "uncompressed RLE"; they need no library and lose no pixel, as polygons of whole corners
would. Box and area are in pixels; a box is x, y, width, height.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, LabelClass, Prediction
from napari_coseg.formats.place import offset_in

UNTYPED = "object"
"""Category of objects whose class is not known."""


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One file of one image; an annotation an object, and one a class of regions.

    Categories of objects (``isthing`` 1) are numbered first; those of regions
    (``supercategory`` "region", ``isthing`` 0, as in COCO's panoptic files) after them.
    ``object_id`` is the id in the label image, ``score`` the class probability where it is known.
    Sizes, masks and boxes are those of the whole image, also where only a part was segmented;
    ``file_name`` is its name without an ending.

    Raises
    ------
    OutputError
        For a stack: COCO knows planes only. For labels of a part where `image` is not the whole.
    """
    if prediction.semantic.ndim != 2:
        raise OutputError(
            f"COCO holds planes, and {image.name} is a stack of shape "
            f"{prediction.semantic.shape}; write ome-tiff, ome-zarr, nifti or geojson"
        )
    things = (*prediction.instances.classes, LabelClass(0, UNTYPED, (255, 235, 0)))
    thing_ids = {entry.id: number for number, entry in enumerate(things, start=1)}
    stuff = prediction.semantic_classes
    stuff_ids = {entry.id: number for number, entry in enumerate(stuff, start=len(things) + 1)}
    offset = offset_in(prediction, image)
    height, width = (int(n) for n in image.spatial_shape)
    about = prediction.provenance | {
        "pixel_size_um": list(prediction.pixel_size_um),
        "geometry": prediction.geometry.as_json(),
    }
    content = {
        "info": {"description": f"napari-coseg: {image.name}", "napari_coseg": about},
        "images": [{"id": 1, "file_name": image.name, "width": width, "height": height}],
        "categories": [
            *(_category(entry, thing_ids[entry.id], True) for entry in things),
            *(
                _category(entry, stuff_ids[entry.id], False)
                for entry in prediction.semantic_classes
            ),
        ],
        "annotations": _annotations(prediction, (height, width), offset, thing_ids, stuff_ids),
    }
    with atomic_write(paths[0], overwrite) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), "utf-8")


def _category(entry: LabelClass, number: int, thing: bool) -> dict[str, Any]:
    return {
        "id": number,
        "name": entry.name,
        "supercategory": "object" if thing else "region",
        "isthing": int(thing),
        "color": [int(part) for part in entry.color],
    }


def _annotations(
    prediction: Prediction,
    size: tuple[int, int],
    offset: Sequence[int],
    thing_ids: dict[int, int],
    stuff_ids: dict[int, int],
) -> list[dict[str, Any]]:
    table = prediction.instances.table
    columns = ("id", "class_id", "class_probability")
    rows = {int(row[0]): row[1:] for row in zip(*(table[c] for c in columns), strict=True)}
    found: list[dict[str, Any]] = []
    for label, mask in masks(prediction.instances.labels, size, offset):
        class_id, sure = rows.get(label, (0, math.nan))
        category = thing_ids.get(int(class_id), thing_ids[0])
        more: dict[str, Any] = {"object_id": label}
        if math.isfinite(sure):
            more["score"] = float(sure)
        found.append({"id": len(found) + 1, "image_id": 1, "category_id": category} | mask | more)
    for label, mask in masks(prediction.semantic, size, offset):
        if label in stuff_ids:
            category = stuff_ids[label]
            found.append({"id": len(found) + 1, "image_id": 1, "category_id": category} | mask)
    return found


def masks(
    labels: np.ndarray, size: tuple[int, int], offset: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each label of (Y, X), ascending, with its segmentation, box, area and ``iscrowd``.

    Parameters
    ----------
    size
        (Y, X) of the whole image, which `labels` are a part of.
    offset
        Of their first pixel in it.
    """
    height, (down, right_by) = labels.shape[0], offset
    flat = labels.T.ravel()
    begins = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1)) if flat.size else np.zeros(0, int)
    if height < size[0]:  # the whole image's columns go on, so a run ends with the part's column
        begins = np.union1d(begins, np.arange(0, flat.size, height))
    lengths = np.diff(begins, append=flat.size)
    values = flat[begins]
    order = np.argsort(values, kind="stable")[np.count_nonzero(values == 0) :]
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    for runs in np.split(order, cuts) if order.size else ():
        begin, length = begins[runs], lengths[runs]
        places = (begin // height + right_by) * size[0] + begin % height + down
        counts = _counts(places, length, size[0] * size[1])
        top, bottom = begin % height, (begin + length - 1) % height
        left, right = begin // height, (begin + length - 1) // height
        if (right > left).any():  # a run that goes on in the next column
            top, bottom = np.array([0]), np.array([height - 1])
        x, y = int(left.min()), int(top.min())
        corner = [x + int(right_by), y + int(down)]
        yield (
            int(values[runs[0]]),
            {
                "segmentation": {"size": list(size), "counts": counts},
                "bbox": [*corner, int(right.max()) - x + 1, int(bottom.max()) - y + 1],
                "area": int(length.sum()),
                "iscrowd": 0,
            },
        )


def _counts(begins: np.ndarray, lengths: np.ndarray, size: int) -> Sequence[int]:
    """Lengths of off, on, off and so on; the first may be 0, the last is left out where it is."""
    ends = begins + lengths
    edges = np.empty(2 * len(begins) + 2, np.int64)
    edges[0], edges[-1] = 0, size
    edges[1:-1:2], edges[2:-1:2] = begins, ends
    counts: list[int] = np.diff(edges).tolist()
    return counts if counts[-1] else counts[:-1]
