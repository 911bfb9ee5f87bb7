"""Synthetic cone-beam CT scans of one anatomy: each time another shape, other teeth and scanner.

The anatomy is bent smoothly, the mouth opens, teeth are missing or filled; then come the faults of
a cone-beam scanner: partial volume, scatter, streaks from metal, rings, noise, a limited field of
view and grey values that are not calibrated. They are drawn to look alike, not computed from
projections.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from napari_coseg.datasets.cbct_anatomy import Anatomy, Tissue

GREY: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (-1000, -1000),
    Tissue.SOFT: (-40, 80),
    Tissue.TONGUE: (30, 110),
    Tissue.CORTICAL: (1050, 1600),
    Tissue.SPONGY: (150, 550),
    Tissue.ENAMEL: (2100, 2800),
    Tissue.DENTINE: (1250, 1700),
    Tissue.PULP: (100, 350),
    Tissue.LIGAMENT: (350, 750),
    Tissue.CANAL: (50, 250),
    Tissue.METAL: (3500, 9000),
}
"""Range that the grey value of a tissue is drawn from, once per scan; in Hounsfield-like units."""
LOWER_JAW, UPPER_JAW, LEFT_CANAL, RIGHT_CANAL = 1, 2, 3, 4
"""Values of the labels, as in ToothFairy2; teeth have their FDI numbers."""
PADDING_HU = -1000


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A generated volume.

    Parameters
    ----------
    values
        int16 (Z, Y, X), Hounsfield-like, towards head, back and left.
    labels
        uint8 (Z, Y, X): 1 lower jawbone, 2 upper jawbone, 3 and 4 left and right canal, 11 to 48
        teeth; 0 also outside the field of view.
    spacing_mm
        Of both.
    """

    values: np.ndarray
    labels: np.ndarray
    spacing_mm: float


@dataclass(frozen=True, eq=False)
class _Patient:
    """An anatomy with its missing and filled teeth, all (Z, Y, X); `grey` is float32."""

    tissues: np.ndarray
    teeth: np.ndarray
    jaws: np.ndarray
    grey: np.ndarray

    @property
    def lower(self) -> np.ndarray:
        """bool: what moves with the lower jaw."""
        found: np.ndarray = (self.jaws == 1) | (self.teeth >= 30) | (self.tissues == Tissue.CANAL)
        return found

    @property
    def numbers(self) -> np.ndarray:
        """uint8: values of the labels."""
        canal = np.where(self.tissues == Tissue.CANAL, LEFT_CANAL, 0)
        right = canal[..., : canal.shape[2] // 2]
        right[right > 0] = RIGHT_CANAL
        rest = np.where(canal > 0, canal, self.jaws)
        return np.where(self.teeth > 0, self.teeth, rest).astype(np.uint8)


@dataclass(frozen=True)
class _Field:
    """A cylinder around z: what the scanner saw. Positions in voxels of the anatomy."""

    shape: tuple[int, int, int]
    centre: np.ndarray

    @property
    def radius(self) -> float:
        return self.shape[1] / 2


def synthetic_scan(
    anatomy: Anatomy, seed: int | tuple[int, ...], severity: float = 1.0
) -> SyntheticScan:
    """One scan; the same for the same seed.

    Parameters
    ----------
    severity
        Multiplies deformations and artefacts; 0 for the anatomy as it is, without faults.
    """
    rng = np.random.default_rng(seed)
    patient = _patient(anatomy, rng, severity)
    field = _field_of_view(anatomy, rng)
    where = _deformed_grid(field, anatomy, rng, severity)
    values, labels, metal = _resampled(patient, where, rng, severity)
    del patient, where
    values = _scanned(values, metal, field, anatomy.spacing_mm, rng, severity)
    outside = _outside(field)
    values[:, outside], labels[:, outside] = PADDING_HU, 0
    if rng.random() < 0.5:  # the mirrored patient: left teeth become right ones
        values, labels = values[:, :, ::-1], _mirrored(labels)
    return SyntheticScan(
        np.ascontiguousarray(np.clip(np.rint(values), -1024, 12000).astype(np.int16)),
        np.ascontiguousarray(labels),
        anatomy.spacing_mm,
    )


def _patient(anatomy: Anatomy, rng: np.random.Generator, severity: float) -> _Patient:
    tissues, teeth, jaws = _with_dental_work(anatomy, rng, severity)
    return _Patient(tissues, teeth, jaws, _grey_values(tissues, rng, anatomy.spacing_mm))


def _with_dental_work(
    anatomy: Anatomy, rng: np.random.Generator, severity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tissues, teeth and jaws with some teeth missing, and some filled or crowned."""
    tissues, teeth, jaws = anatomy.tissues.copy(), anatomy.teeth.copy(), anatomy.jaws.copy()
    there = np.unique(teeth)[1:]
    missing = rng.random(len(there)) < rng.choice([0.0, 0.04, 0.12]) * severity
    for number in there[missing]:
        tooth = teeth == number
        crown = tooth & (anatomy.crowns > 0)
        tissues[tooth], teeth[tooth] = Tissue.SPONGY, 0
        jaws[tooth & ~crown] = 1 if number >= 30 else 2
        tissues[crown] = Tissue.SOFT
    filled = rng.random(len(there)) < rng.choice([0.0, 0.08, 0.2]) * severity
    for number in there[filled & ~missing]:
        crown = np.argwhere((teeth == number) & (anatomy.crowns > 0))
        if not len(crown):
            continue
        z = crown[:, 0] if number >= 30 else -crown[:, 0]
        if rng.random() < 0.25:
            part = crown[z > np.quantile(z, 0.2)]  # a metal crown
        else:
            middle = crown[rng.choice(np.flatnonzero(z > np.quantile(z, 0.6)))]
            radius = rng.uniform(1.0, 2.5) / anatomy.spacing_mm
            part = crown[np.linalg.norm(crown - middle, axis=1) < radius]
        tissues[tuple(part.T)] = Tissue.METAL
    return tissues, teeth, jaws


def _grey_values(tissues: np.ndarray, rng: np.random.Generator, spacing_mm: float) -> np.ndarray:
    """float32, with the trabeculae of spongy bone as coloured noise."""
    from scipy import ndimage

    table = np.array([rng.uniform(*GREY[kind]) for kind in Tissue], np.float32)
    grey = table[tissues]
    texture = rng.standard_normal(tissues.shape, np.float32)
    texture = ndimage.gaussian_filter(texture, 0.35 / spacing_mm)
    texture *= rng.uniform(100, 250) / texture.std()
    grey += np.where(tissues == Tissue.SPONGY, texture, 0.3 * texture * (tissues > Tissue.AIR))
    grey[tissues == Tissue.AIR] = table[Tissue.AIR]
    return grey


def _field_of_view(anatomy: Anatomy, rng: np.random.Generator) -> _Field:
    """From one arch with little around it to both jaws."""
    step = anatomy.spacing_mm
    diameter = min(rng.uniform(75, 130), max(anatomy.teeth.shape[1:]) * step)
    height = min(rng.uniform(45, 85), anatomy.teeth.shape[0] * step)
    where = np.nonzero(anatomy.teeth)
    middle = np.array([(axis.min() + axis.max()) / 2 for axis in where])
    # Towards the back, where the branches of the mandible are.
    offset = np.array([rng.uniform(-8, 8), rng.uniform(-2, 14), rng.uniform(-6, 6)])
    sides = (round(height / step), round(diameter / step), round(diameter / step))
    return _Field(sides, middle + offset / step)


def _deformed_grid(
    field: _Field, anatomy: Anatomy, rng: np.random.Generator, severity: float
) -> np.ndarray:
    """Position in the anatomy of every voxel of the scan, float32 (3, Z, Y, X)."""
    from scipy.spatial.transform import Rotation

    angles = rng.uniform(-1, 1, 3) * np.array([8, 6, 6]) * severity
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    scale = np.exp(rng.uniform(-1, 1, 3) * np.log(1.14) * severity)
    scale *= np.exp(rng.uniform(-1, 1) * np.log(1.1) * severity)
    matrix = turn / scale
    axes = [np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in field.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    grid = np.empty((3, *field.shape), np.float32)
    for axis in range(3):
        grid[axis] = matrix[axis, 0] * z + matrix[axis, 1] * y + matrix[axis, 2] * x
        grid[axis] += field.centre[axis]
        for wavelength_mm, sigma_mm in ((40, 1.8), (14, 0.5)):
            nodes = [max(4, round(s * anatomy.spacing_mm / wavelength_mm) + 3) for s in field.shape]
            sigma = sigma_mm * severity / anatomy.spacing_mm
            grid[axis] += _smooth(rng.normal(0, sigma, nodes), field.shape)
    return grid


def _smooth(nodes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A cubic spline through `nodes`, which span `shape`; one axis at a time."""
    from scipy.interpolate import make_interp_spline

    field = nodes.astype(np.float32)
    for size in shape:  # each turn takes the first axis and appends its fine one
        count = len(field)
        spline = make_interp_spline(np.arange(count), np.eye(count))
        basis = spline(np.linspace(0, count - 1, size)).astype(np.float32)
        field = np.tensordot(field, basis, axes=(0, 1))
    return field


def _resampled(
    patient: _Patient, where: np.ndarray, rng: np.random.Generator, severity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey values, labels and metal of the scan; the lower jaw opens against the upper one.

    `where` is changed: in the end it holds the positions in the lower jaw.
    """
    lower, numbers, grey = patient.lower, patient.numbers, patient.grey
    metal = patient.tissues == Tissue.METAL
    soft = np.float32(np.median(grey[patient.tissues == Tissue.SOFT]))
    values = _at(np.where(lower, soft, grey), where, 1, PADDING_HU)
    labels = _at(np.where(lower, 0, numbers), where, 0, 0)
    in_upper = _at((metal & ~lower).view(np.uint8), where, 0, 0)
    _open_mouth(where, rng, severity)
    share = _at(lower.astype(np.float32), where, 1, 0)
    of_lower = _at(np.where(lower, grey, 0), where, 1, 0)
    below = _at(np.where(lower, numbers, 0), where, 0, 0)
    in_lower = _at((metal & lower).view(np.uint8), where, 0, 0)
    free = labels == 0  # the upper jaw is not cut by the lower one
    share = np.clip(share, 0, 1) * free
    values = np.where(free, values * (1 - share) + of_lower * (share > 0), values)
    metal = (in_upper > 0) | ((in_lower > 0) & free)
    return values, np.where(free, below, labels), metal


def _open_mouth(where: np.ndarray, rng: np.random.Generator, severity: float) -> None:
    """Turn the lower jaw about the joints behind, and shift it a little, in place."""
    opening = abs(rng.normal(0, 4)) * severity
    front = np.linspace(1.2, 0.4, where.shape[2], dtype=np.float32)[:, None]
    where[0] += opening * front
    where[1] += rng.normal(0, 1.5) * severity
    where[2] += rng.normal(0, 1.0) * severity


def _at(volume: np.ndarray, where: np.ndarray, order: int, beyond: float) -> np.ndarray:
    """Values of a volume at positions (3, Z, Y, X), of its dtype."""
    from scipy import ndimage

    return np.asarray(ndimage.map_coordinates(volume, where, order=order, cval=beyond))


def _scanned(
    values: np.ndarray,
    metal: np.ndarray,
    field: _Field,
    spacing_mm: float,
    rng: np.random.Generator,
    severity: float,
) -> np.ndarray:
    """Faults of the scanner, in the order in which they arise."""
    from scipy import ndimage

    values = ndimage.gaussian_filter(values, rng.uniform(0.15, 0.45) / spacing_mm)
    _add_scatter(values, spacing_mm, rng, severity)
    _add_streaks(values, metal, spacing_mm, rng, severity)
    noise = rng.standard_normal(values.shape, np.float32)
    blur = rng.uniform(0.0, 0.4) / spacing_mm
    noise = ndimage.gaussian_filter(noise, (0.5 * blur, blur, blur))
    # More noise in slices with more bone.
    bone = np.clip((values > 700).mean(axis=(1, 2)), 0.01, 1) ** 0.3
    level = rng.uniform(25, 130) * severity * bone / bone.mean()
    values += noise * (level / max(float(noise.std()), 1e-6))[:, None, None].astype(np.float32)
    _add_rings(values, field, rng, severity)
    # Not calibrated: gain and offset differ between scanners.
    gain = np.exp(rng.uniform(-1, 1) * np.log(1.25) * severity)
    offset = rng.uniform(-150, 150) * severity
    scaled: np.ndarray = (values + 1000) * gain - 1000 + offset
    return scaled


def _add_scatter(
    values: np.ndarray, spacing_mm: float, rng: np.random.Generator, severity: float
) -> None:
    """Cupping: dense surroundings lower the grey values, most where they are densest."""
    from scipy import ndimage

    step = 4
    coarse = np.clip(values[::step, ::step, ::step], -1000, 3000) + 1000
    wide = ndimage.gaussian_filter(coarse, 14 / spacing_mm / step, mode="constant")
    wide = ndimage.gaussian_filter(np.repeat(wide, step, axis=0)[: len(values)], (2, 0, 0))
    share = rng.uniform(0.05, 0.25) * severity
    for plane, of_plane in zip(values, wide, strict=True):
        near = of_plane.repeat(step, axis=0).repeat(step, axis=1)
        near = ndimage.uniform_filter(near, step)[: plane.shape[0], : plane.shape[1]]
        plane -= share * near * (plane > -900)


def _add_streaks(
    values: np.ndarray,
    metal: np.ndarray,
    spacing_mm: float,
    rng: np.random.Generator,
    severity: float,
) -> None:
    """Rays of light and dark from each piece of metal, and dark bands between pieces."""
    from scipy import ndimage

    strength = rng.uniform(150, 700) * severity
    angles = 360
    y, x = np.ogrid[tuple(slice(0, size) for size in values.shape[1:])]
    rays = ndimage.gaussian_filter1d(rng.standard_normal((8, angles)), 1.5, axis=1, mode="wrap")
    rays /= rays.std()
    for index in np.flatnonzero(metal.any(axis=(1, 2))):
        pieces, count = ndimage.label(metal[index])
        sizes = np.bincount(pieces.ravel())[1:]
        centres = np.array(ndimage.center_of_mass(metal[index], pieces, range(1, count + 1)))
        biggest = np.argsort(sizes)[::-1][:6]
        for piece in biggest:
            dy, dx = y - centres[piece][0], x - centres[piece][1]
            distance = np.hypot(dy, dx) * spacing_mm
            turn = (np.degrees(np.arctan2(dy, dx)) % 360 * angles / 360).astype(int) % angles
            power = strength * min(1.0, np.sqrt(sizes[piece] * spacing_mm**2) / 3)
            values[index] += power * rays[piece % 8][turn] * 6 / (6 + distance)
        for one, other in itertools.pairwise(biggest):
            _darken_between(values[index], centres[one], centres[other], strength, spacing_mm)


def _darken_between(
    plane: np.ndarray, one: np.ndarray, other: np.ndarray, strength: float, spacing_mm: float
) -> None:
    length = float(np.linalg.norm(other - one))
    if length < 4:
        return
    along = (other - one) / length
    y, x = np.ogrid[tuple(slice(0, size) for size in plane.shape)]
    dy, dx = y - one[0], x - one[1]
    across = (dy * along[1] - dx * along[0]) * spacing_mm
    t = (dy * along[0] + dx * along[1]) / length
    plane -= strength * np.exp(-((across / 2) ** 2)) * ((t > 0) & (t < 1))


def _add_rings(
    values: np.ndarray, field: _Field, rng: np.random.Generator, severity: float
) -> None:
    """Rings about the axis of the scanner, each over some slices."""
    middle = (field.shape[1] - 1) / 2
    y, x = np.ogrid[tuple(slice(0, size) for size in values.shape[1:])]
    ring = np.hypot(y - middle, x - middle).astype(int)
    for _ in range(rng.integers(0, 7)):
        profile = np.zeros(int(ring.max()) + 1, np.float32)
        profile[rng.integers(5, max(6, int(field.radius)))] = rng.normal(0, 90) * severity
        first = rng.integers(0, len(values))
        values[first : first + rng.integers(5, 60)] += profile[ring]


def _outside(field: _Field) -> np.ndarray:
    y, x = np.ogrid[: field.shape[1], : field.shape[2]]
    middle = (field.shape[1] - 1) / 2
    return np.asarray((y - middle) ** 2 + (x - middle) ** 2 > field.radius**2)


def _mirrored(labels: np.ndarray) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    table[LEFT_CANAL], table[RIGHT_CANAL] = RIGHT_CANAL, LEFT_CANAL
    for tooth in range(1, 9):
        for one, other in ((10, 20), (30, 40)):
            table[one + tooth], table[other + tooth] = other + tooth, one + tooth
    return table[labels[:, :, ::-1]]
