"""From one label volume of jaws and teeth to the tissues that a synthetic cone-beam CT shows.

The labels name the upper skull, the mandible, upper teeth, lower teeth and the mandibular canals.
Everything else is derived by simple geometry: single teeth, enamel, dentine and pulp, ligament,
cortical and spongy bone, soft tissue, tongue and air. It is meant to look plausible in a slice, not
to be true anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from napari_coseg.core.errors import DatasetError


class Source(IntEnum):
    """Values of the label volume."""

    UPPER_JAW = 1
    LOWER_JAW = 2
    UPPER_TEETH = 3
    LOWER_TEETH = 4
    CANAL = 5


class Tissue(IntEnum):
    """Tissues of `Anatomy.tissues`."""

    AIR = 0
    SOFT = 1
    TONGUE = 2
    CORTICAL = 3
    SPONGY = 4
    ENAMEL = 5
    DENTINE = 6
    PULP = 7
    LIGAMENT = 8
    CANAL = 9
    METAL = 10


MARGIN_MM = 18.0
"""Kept around mandible and teeth; the skull above is cut off."""
ABOVE_TEETH_MM = 30.0
CORTEX_MM = 1.5
SKIN_MM = 9.0
"""Soft tissue in front of the bone."""
ENAMEL_MM = 1.3
PULP_DEPTH = 0.68
"""Part of a slice's largest depth below a tooth's surface at which its pulp begins."""
LARGEST_MARROW_MM2 = 150.0
"""Larger holes in an axial slice of the upper jaw are sinuses and the nasal cavity."""
TEETH_OF_A_QUADRANT = 8
PEAK_HEIGHT = 0.01
PEAK_BLUR_MM = 0.75


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a scan is made from; all arrays uint8 (Z, Y, X) towards head, back and left.

    Parameters
    ----------
    tissues
        Values of `Tissue`.
    teeth
        FDI numbers, 0 elsewhere.
    crowns
        1 in the part of a tooth beyond its bone.
    jaws
        1 lower jawbone, 2 upper jawbone, with their marrow and without teeth and canals.
    spacing_mm
        The same along all axes.
    """

    tissues: np.ndarray
    teeth: np.ndarray
    crowns: np.ndarray
    jaws: np.ndarray
    spacing_mm: float


def anatomy_of(labels: np.ndarray, spacing_mm: float) -> Anatomy:
    """Derive all tissues from a label volume with the values of `Source`.

    Parameters
    ----------
    labels
        uint8 (Z, Y, X) towards head, back and left.
    spacing_mm
        Side of the cubic voxels.

    Raises
    ------
    DatasetError
        Without both jaws and the teeth of both.
    """
    missing = [kind.name for kind in Source if kind != Source.CANAL and not (labels == kind).any()]
    if missing:
        raise DatasetError(
            f"the label volume has no {', '.join(missing)}; expected the values "
            + ", ".join(f"{kind.value} {kind.name}" for kind in Source)
        )
    labels = _cropped(labels, spacing_mm)
    jaws = _jaws(labels, spacing_mm)
    teeth = np.zeros(labels.shape, np.uint8)
    for kind, quadrants in ((Source.UPPER_TEETH, (1, 2)), (Source.LOWER_TEETH, (4, 3))):
        single = separate_teeth(labels == kind, spacing_mm)
        teeth += fdi_numbers(single, quadrants)
    crowns = _crowns(teeth, jaws, spacing_mm)
    tissues = _soft_tissues(labels, jaws, spacing_mm)
    _add_bone(tissues, labels, jaws, spacing_mm)
    _add_teeth(tissues, teeth, crowns, jaws, spacing_mm)
    return Anatomy(tissues, teeth, crowns, jaws, spacing_mm)


def separate_teeth(mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Single teeth of one jaw, int32 (Z, Y, X), numbered from 1.

    Teeth are taller than wide, and touch at their crowns: the squared depth below the surface in
    each axial slice, added up along z, has one peak per tooth. From there they grow by a watershed
    on that depth.
    """
    from scipy import ndimage
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = np.pad(mask[box], 1)
    in_plane = ndimage.distance_transform_edt(inside, sampling=(1e6, 1, 1))
    height = ndimage.gaussian_filter((in_plane**2).sum(axis=0), PEAK_BLUR_MM / spacing_mm)
    peaks, _ = ndimage.label(h_maxima(height, PEAK_HEIGHT * height.max()))
    columns = np.where(inside, ndimage.grey_dilation(peaks, 3), 0)
    depth = ndimage.gaussian_filter(in_plane, 0.5)
    teeth = np.zeros(mask.shape, np.int32)
    teeth[box] = watershed(-depth, columns, mask=inside)[1:-1, 1:-1, 1:-1]
    return teeth


def fdi_numbers(teeth: np.ndarray, quadrants: tuple[int, int]) -> np.ndarray:
    """FDI numbers of the teeth of one jaw, uint8, counted from the middle of the arch to the back.

    The arch is taken as complete from the first incisors on; x runs towards the patient's left.

    Parameters
    ----------
    quadrants
        Of the patient's right and left.
    """
    from scipy import ndimage

    ids = np.arange(1, int(teeth.max()) + 1)
    centres = np.array(ndimage.center_of_mass(teeth > 0, teeth, ids))
    y, x = centres[:, 1], centres[:, 2]
    angle = np.arctan2(x - (x.min() + x.max()) / 2, y.max() + 1 - y)
    table = np.zeros(len(ids) + 1, np.uint8)
    order = np.argsort(angle)
    middle = len(order) // 2
    for quadrant, side in ((quadrants[0], order[:middle][::-1]), (quadrants[1], order[middle:])):
        if len(side) > TEETH_OF_A_QUADRANT:
            raise DatasetError(
                f"{len(ids)} teeth were separated in one jaw; at most {2 * TEETH_OF_A_QUADRANT} "
                "can be numbered"
            )
        table[ids[side]] = 10 * quadrant + 1 + np.arange(len(side))
    return table[teeth]


def _cropped(labels: np.ndarray, spacing_mm: float) -> np.ndarray:
    margin = round(MARGIN_MM / spacing_mm)
    kept = (labels >= Source.LOWER_JAW).nonzero()
    low = [max(0, int(axis.min()) - margin) for axis in kept]
    high = [int(axis.max()) + margin + 1 for axis in kept]
    teeth = (labels == Source.UPPER_TEETH).any(axis=(1, 2)).nonzero()[0]
    high[0] = int(teeth.max()) + round(ABOVE_TEETH_MM / spacing_mm)
    return labels[tuple(map(slice, low, high))]


def _jaws(labels: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Jawbones with the marrow that the labels leave out."""
    from scipy import ndimage

    jaws = np.zeros(labels.shape, np.uint8)
    for number, bone, teeth, largest_mm2 in (
        (1, Source.LOWER_JAW, Source.LOWER_TEETH, np.inf),
        (2, Source.UPPER_JAW, Source.UPPER_TEETH, LARGEST_MARROW_MM2),
    ):
        solid = labels == bone
        closed = solid | (labels == teeth)
        if number == 1:
            closed |= labels == Source.CANAL
        for plane, filled in zip(closed, solid, strict=True):
            filled |= _small_holes(plane, filled, largest_mm2 / spacing_mm**2)
        other = ~np.isin(labels, (0, bone))
        jaws[solid & ~other & (jaws == 0)] = number
    jaws[ndimage.binary_dilation(labels == Source.CANAL) & (labels == 0) & (jaws == 0)] = 1
    return jaws


def _small_holes(closed: np.ndarray, bone: np.ndarray, largest: float) -> np.ndarray:
    """Holes of one slice that touch bone and have at most `largest` pixels."""
    from scipy import ndimage

    if not bone.any():
        return np.zeros_like(bone)
    ringed = ndimage.binary_closing(np.pad(closed, 4), iterations=2)[4:-4, 4:-4] | closed
    holes, count = ndimage.label(ndimage.binary_fill_holes(ringed) & ~closed)
    kept = np.bincount(holes.ravel(), minlength=count + 1) <= largest
    touching = np.bincount(holes[ndimage.binary_dilation(bone)], minlength=count + 1)
    whole = np.bincount(holes.ravel(), minlength=count + 1)
    kept &= touching > 0.15 * np.sqrt(whole)
    kept[0] = False
    return np.asarray(kept[holes])


def _crowns(teeth: np.ndarray, jaws: np.ndarray, spacing_mm: float) -> np.ndarray:
    """The part of each tooth on the other side of the crest of the bone around it."""
    from scipy import ndimage

    crowns = np.zeros(teeth.shape, np.uint8)
    reach = max(1, round(1.5 / spacing_mm))
    for number, box in enumerate(ndimage.find_objects(teeth), 1):
        if box is None:
            continue
        box = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        tooth = teeth[box] == number
        is_upper = number < 30
        around = ndimage.binary_dilation(tooth, iterations=reach) & (jaws[box] == 1 + is_upper)
        heights = around.nonzero()[0] if around.any() else tooth.nonzero()[0]
        crest = np.percentile(heights, 10 if is_upper else 90)
        z = np.arange(tooth.shape[0])[:, None, None]
        beyond = z < crest - 1 / spacing_mm if is_upper else z > crest + 1 / spacing_mm
        crowns[box][tooth & beyond] = 1
    return crowns


def _soft_tissues(labels: np.ndarray, jaws: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Air, soft tissue and tongue, computed on a grid of about 1.5 mm."""
    from scipy import ndimage

    step = max(1, round(1.5 / spacing_mm))
    grid_mm = step * spacing_mm
    hard = ((labels > 0) | (jaws > 0))[::step, ::step, ::step]
    head = np.stack([_head_outline(plane, grid_mm) for plane in hard])
    head = ndimage.gaussian_filter(head.astype(np.float32), (3, 1.5, 1.5)) > 0.5
    tissues = head.astype(np.uint8) * Tissue.SOFT
    upper = labels[::step, ::step, ::step] == Source.UPPER_JAW
    enclosed = _enclosed(upper, 12 / grid_mm) & (
        ndimage.distance_transform_edt(~hard, sampling=grid_mm) > 2
    )
    teeth = np.isin(labels[::step, ::step, ::step], (Source.UPPER_TEETH, Source.LOWER_TEETH))
    where = teeth.nonzero()
    z, y, x = np.ogrid[tuple(slice(0, size) for size in hard.shape)]
    palate = np.median(where[0]) + 12 / grid_mm
    tissues[enclosed & (z > palate)] = Tissue.AIR
    middle = (where[2].min() + where[2].max()) / 2
    front, back = where[1].min(), where[1].max()
    width = max(1.0, (where[2].max() - where[2].min()) / 2 - 9 / grid_mm)
    low, high = where[0].min(), palate - 4 / grid_mm
    tongue = (
        ((x - middle) / width) ** 2
        + ((y - (back + 5 / grid_mm)) / max(1.0, back - front)) ** 2
        + ((z - (low + high) / 2) / max(1.0, (high - low) / 2)) ** 2
    ) < 1
    mouth = (
        ((x - middle) / (width + 1)) ** 2
        + ((y - (back + 5 / grid_mm)) / max(1.0, back - front)) ** 2
        + ((z - (low + high) / 2 - 3 / grid_mm) / max(1.0, (high - low) / 2)) ** 2
    ) < 1
    tissues[mouth & head] = Tissue.AIR
    tissues[tongue & head] = Tissue.TONGUE
    throat = ((x - middle) / (9 / grid_mm)) ** 2 + (
        (y - (back + 38 / grid_mm)) / (6 / grid_mm)
    ) ** 2 < 1
    tissues[np.broadcast_to(throat, head.shape) & head] = Tissue.AIR
    for axis, size in enumerate(labels.shape):
        tissues = np.repeat(tissues, step, axis=axis).take(range(size), axis=axis)
    return tissues


def _head_outline(hard: np.ndarray, grid_mm: float) -> np.ndarray:
    """What lies within `SKIN_MM` of the convex hull of one slice's bones."""
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    pad = round(SKIN_MM / grid_mm) + 1
    if hard.sum() < 3:
        return np.zeros_like(hard)
    hull = convex_hull_image(np.pad(hard, pad))
    near = ndimage.distance_transform_edt(~hull, sampling=grid_mm) <= SKIN_MM
    return np.asarray(near[pad:-pad, pad:-pad])


def _enclosed(mask: np.ndarray, reach: float) -> np.ndarray:
    """Closing of a mask by `reach` voxels."""
    from scipy import ndimage

    pad = int(reach) + 2
    near = ndimage.distance_transform_edt(~np.pad(mask, pad)) <= reach
    inside = ndimage.distance_transform_edt(near) > reach
    return np.asarray(inside[pad:-pad, pad:-pad, pad:-pad])


def _add_bone(tissues: np.ndarray, labels: np.ndarray, jaws: np.ndarray, spacing_mm: float) -> None:
    from scipy import ndimage

    body = (jaws > 0) | np.isin(labels, (Source.CANAL, Source.UPPER_TEETH, Source.LOWER_TEETH))
    depth = ndimage.distance_transform_edt(body, sampling=spacing_mm)
    spongy = (depth > CORTEX_MM) | ~np.isin(labels, (Source.UPPER_JAW, Source.LOWER_JAW))
    tissues[jaws > 0] = np.where(spongy, Tissue.SPONGY, Tissue.CORTICAL)[jaws > 0]
    tissues[labels == Source.CANAL] = Tissue.CANAL


def _add_teeth(
    tissues: np.ndarray,
    teeth: np.ndarray,
    crowns: np.ndarray,
    jaws: np.ndarray,
    spacing_mm: float,
) -> None:
    """Enamel, dentine and pulp of each tooth, and the ligament around its root."""
    from scipy import ndimage

    roots = (teeth > 0) & (crowns == 0)
    tissues[ndimage.binary_dilation(roots) & (jaws > 0)] = Tissue.LIGAMENT
    for number, box in enumerate(ndimage.find_objects(teeth), 1):
        if box is None:
            continue
        tooth = teeth[box] == number
        crown = (crowns[box] > 0) & tooth
        padded = np.pad(tooth, 1)
        depth = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
        in_plane = ndimage.distance_transform_edt(padded, sampling=(1e6, 1, 1))[1:-1, 1:-1, 1:-1]
        pieces, count = ndimage.label(tooth, [np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
        deepest = np.append(0, ndimage.maximum(in_plane, pieces, range(1, count + 1)))[pieces]
        kinds = np.full(tooth.shape, Tissue.DENTINE, np.uint8)
        kinds[(in_plane > PULP_DEPTH * deepest) & (deepest * spacing_mm > 0.9) & (depth > 1.2)] = (
            Tissue.PULP
        )
        # Thicker towards the tip than at the neck.
        z = crown.nonzero()[0] if crown.any() else np.array([0])
        along = (np.arange(tooth.shape[0]) - z.min()) / max(1, np.ptp(z))
        along = along if number >= 30 else 1 - along
        thickness = ENAMEL_MM * (0.45 + 0.9 * np.clip(along, 0, 1))[:, None, None]
        kinds[crown & (depth <= thickness)] = Tissue.ENAMEL
        tissues[box][tooth] = kinds[tooth]
