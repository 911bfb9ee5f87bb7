"""Derive regions from typed objects, for datasets without region labels.

CoNSeP has typed nuclei and no region mask. The epithelium is derived from its nuclei: what lies
near them, the gaps between them and the lumina they enclose. It stands in for a region that a
person would paint. Since it is made from the true object classes, scores that depend on it are
marked "derived".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Sample

REACH_UM = 9.0
"""Objects at most twice this apart belong to one region."""
MARGIN_UM = 3.0
"""Margin of the region around its outermost objects: the cytoplasm of a nucleus."""
LEAST_OBJECTS = 5
"""Smallest number of objects in a region."""
LUMEN_UM2 = 20_000.0
"""Largest hole that is filled, unless it holds objects of other classes."""
OTHERS_IN_LUMEN = 0.02
"""Largest fraction of a hole covered by other objects that still counts as lumen."""
GRID_UM = 1.0
"""Grid on which the region is computed; its border is not sharper than that."""


def derived_region(
    instances: np.ndarray, types: np.ndarray, class_id: int, pixel_size_um: float
) -> np.ndarray:
    """The region formed by the objects of one class, bool (Y, X).

    Parameters
    ----------
    instances
        Object ids (Y, X), 0 background.
    types
        Object class ids (Y, X).
    class_id
        The class whose objects are joined.
    pixel_size_um
        Micrometres per pixel.
    """
    from scipy import ndimage
    from skimage.transform import resize

    step = max(1, round(GRID_UM / pixel_size_um))
    kind = np.where(instances > 0, types, 0)[step // 2 :: step, step // 2 :: step]
    of_class, others = kind == class_id, (kind > 0) & (kind != class_id)
    if not of_class.any():
        return np.zeros(instances.shape, bool)
    grid_um = step * pixel_size_um
    region = _closed(of_class, REACH_UM / grid_um, MARGIN_UM / grid_um)
    pieces, _ = ndimage.label(region)
    ids = np.where(of_class, instances[step // 2 :: step, step // 2 :: step], 0)
    region = np.isin(pieces, _with_enough(pieces, ids))
    region |= _lumina(region, others, LUMEN_UM2 / grid_um**2)
    smooth = resize(region.astype(np.float32), instances.shape, order=1)
    return np.asarray(smooth > 0.5)


def with_derived_region(sample: Sample, class_id: int) -> Sample:
    """The sample with the region of its objects of one class in `derived`.

    Raises
    ------
    DatasetError
        If its objects have no classes.
    """
    if sample.instances is None or sample.instance_types is None:
        raise DatasetError(
            f"no region can be derived for {sample.name!r}: its objects have no classes; leave "
            "derived_region_of out for this dataset"
        )
    region = derived_region(sample.instances, sample.instance_types, class_id, sample.pixel_size_um)
    return replace(sample, derived=region.astype(np.uint8))


def class_id_of(name: str, classes: Iterable[LabelClass]) -> int:
    """The id of a class by its name, ignoring case.

    Raises
    ------
    SettingsError
        If there is no such class.
    """
    known = {entry.name.lower(): entry.id for entry in classes}
    if name.lower() not in known:
        raise SettingsError(
            f"there is no object class {name!r} to derive a region from; name one of "
            f"{', '.join(known) or 'none: objects have no classes here'}"
        )
    return known[name.lower()]


def _closed(mask: np.ndarray, reach: float, margin: float) -> np.ndarray:
    """Closing by `reach` that leaves a margin of `margin` around the mask, in pixels."""
    from scipy.ndimage import distance_transform_edt

    # The erosion must not start at the image border, beyond which nothing is known.
    pad = int(np.ceil(reach)) + 1
    near = distance_transform_edt(~np.pad(mask, pad, mode="edge")) <= reach
    kept = distance_transform_edt(near) > reach - margin
    return np.asarray(kept[pad:-pad, pad:-pad])


def _with_enough(pieces: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Numbers of the pieces that hold at least `LEAST_OBJECTS` ids."""
    held = ids > 0
    pairs = np.unique(np.column_stack([pieces[held], ids[held]]), axis=0)
    piece, count = np.unique(pairs[:, 0], return_counts=True)
    return piece[(count >= LEAST_OBJECTS) & (piece > 0)]


def _lumina(region: np.ndarray, others: np.ndarray, largest: float) -> np.ndarray:
    """Holes of a region that are small and nearly empty, bool (Y, X)."""
    from scipy import ndimage

    holes, count = ndimage.label(~region)
    area = np.bincount(holes.ravel(), minlength=count + 1)
    covered = np.bincount(holes.ravel(), weights=others.ravel(), minlength=count + 1)
    filled = (area <= largest) & (covered <= OTHERS_IN_LUMEN * area)
    border = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    filled[border] = False
    filled[0] = False
    return filled[holes]
