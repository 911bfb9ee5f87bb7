"""Regions derived from typed objects, where a dataset has objects and nobody drew its regions.

CoNSeP types its nuclei and has no region mask. The tissue that its epithelial nuclei make up is
found from the nuclei alone: what lies near them, with the gaps between them and the lumina they
enclose. It stands in for a region that a person would paint. It is made from the truth of the
objects, so that it says something of their classes: wherever a figure rests on it, it is called
derived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Sample

REACH_UM = 9.0
"""Two objects that are at most twice this apart belong to one region."""
MARGIN_UM = 3.0
"""How far the region reaches beyond its outermost objects: the cytoplasm around a nucleus."""
LEAST_OBJECTS = 5
"""Fewer objects together are no region."""
LUMEN_UM2 = 20_000.0
"""The largest hole that is filled, if no objects of other classes lie in it."""
OTHERS_IN_LUMEN = 0.02
"""Part of a hole that other objects may cover, for it to be a lumen and not stroma."""
GRID_UM = 1.0
"""The region is found on a grid this fine; its border is no sharper than that anyhow."""


def derived_region(
    instances: np.ndarray, types: np.ndarray, class_id: int, pixel_size_um: float
) -> np.ndarray:
    """The region that the objects of one class make up: bool (Y, X).

    Parameters
    ----------
    instances
        Object ids (Y, X), 0 background.
    types
        Object class ids (Y, X).
    class_id
        The class whose objects are joined.
    pixel_size_um
        Micrometres a pixel.
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
    """The sample with the region that its objects of one class make up in `derived`.

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
    """The id of a class by its name, in upper or lower case.

    Raises
    ------
    SettingsError
        If there is no such class.
    """
    known = {entry.name.lower(): entry.id for entry in classes}
    if name.lower() not in known:
        raise SettingsError(
            f"there is no object class {name!r} to derive a region from; name one of "
            f"{', '.join(known) or 'none, for objects have no classes here'}"
        )
    return known[name.lower()]


def _closed(mask: np.ndarray, reach: float, margin: float) -> np.ndarray:
    """All within `reach` of the mask, drawn back until it stands `margin` beyond it; in pixels."""
    from scipy.ndimage import distance_transform_edt

    # Beyond the border lies what the image did not show: drawing back must not start there.
    pad = int(np.ceil(reach)) + 1
    near = distance_transform_edt(~np.pad(mask, pad, mode="edge")) <= reach
    kept = distance_transform_edt(near) > reach - margin
    return np.asarray(kept[pad:-pad, pad:-pad])


def _with_enough(pieces: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Numbers of the pieces that hold `LEAST_OBJECTS` different ids or more."""
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
