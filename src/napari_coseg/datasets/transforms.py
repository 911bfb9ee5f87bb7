"""Training crops: pixel size, scale, rotation, shear, flips and bending in one resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.stain import StainSettings, augment_stain
from napari_coseg.datasets.window import CropPlacement, SampleWindow


class AugmentationSettings(Settings):
    """Augmentation settings of training crops."""

    free_probability: float = Field(
        0.6, ge=0, le=1, description="share of crops with free rotation, scale and shear; others "
        "are flipped and rotated by quarter turns only"
    )  # fmt: skip
    scale_min: float = Field(0.8, gt=0.1, le=1, description="smallest magnification; factor")
    scale_max: float = Field(1.25, ge=1, lt=10, description="largest magnification; factor")
    rotation_max_deg: float = Field(180.0, ge=0, le=180, description="largest rotation; degrees")
    shear_max: float = Field(
        0.1, ge=0, le=1, description="largest shear: sideways shift per pixel of height"
    )
    elastic_probability: float = Field(
        0.2, ge=0, le=1, description="share of the free crops with elastic bending"
    )
    elastic_sigma_px: float = Field(
        3.0, ge=0, le=50, description="standard deviation of the bending; pixels of the crop"
    )
    elastic_grid_px: int = Field(64, ge=8, description="spacing of the bending grid; pixels")
    flip: bool = Field(True, description="mirror and rotate by quarter turns")
    sliver_px: int = Field(
        10, ge=0, description="objects cut by the border to fewer pixels are ignored"
    )
    stain: StainSettings = StainSettings()

    @classmethod
    def none(cls) -> AugmentationSettings:
        """No augmentation, for validation and display."""
        quiet = StainSettings(
            stain_probability=0,
            colour_probability=0,
            blur_probability=0,
            sharpen_probability=0,
            jpeg_probability=0,
            noise_probability=0,
        )
        return cls(free_probability=0, flip=False, stain=quiet)


@dataclass(frozen=True, eq=False)
class Crop:
    """One training example.

    Parameters
    ----------
    image
        float32 (3, Y, X), red, green, blue of 0..255; mirrored beyond the sample's border.
    semantic
        uint8 (Y, X), region classes; zeros if the sample has no such labels.
    instances
        int32 (Y, X), the sample's object ids; zeros if it has none.
    types
        uint8 (Y, X), object classes; zeros if it has none.
    semantic_known, instances_known, types_known
        bool (Y, X), where labels of that kind are known and may be trained on: not beyond the
        sample's border, and not on remains of objects cut by the border of the crop.
    derived
        uint8 (Y, X), the sample's derived region; None if it has none.
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: np.ndarray
    types: np.ndarray
    semantic_known: np.ndarray
    instances_known: np.ndarray
    types_known: np.ndarray
    derived: np.ndarray | None = None


def training_crop(
    sample: Sample,
    size_px: int,
    pixel_size_um: float,
    rng: np.random.Generator,
    settings: AugmentationSettings,
    near: tuple[float, float] | None = None,
) -> Crop:
    """Cut, resample and augment one square; deterministic for a generator state.

    Parameters
    ----------
    size_px
        Height and width of the crop.
    pixel_size_um
        Micrometres per pixel of the crop, before the random scale.
    near
        y, x in the sample that the crop contains, not always at its centre; None for anywhere.
    """
    placement = draw_placement(sample, size_px, pixel_size_um, rng, settings, near)
    window = SampleWindow.around(placement, size_px, sample.image.shape[:2])
    image = window.image(sample.image)
    semantic = window.labels(sample.semantic, np.uint8)
    instances = window.labels(sample.instances, LABEL_DTYPE)
    types = window.labels(sample.instance_types, np.uint8)
    valid = window.inside()
    sliver = _slivers(instances, valid, settings.sliver_px)
    if sliver is not None:
        instances[sliver], types[sliver], valid[sliver] = 0, 0, False

    def known(labels: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
        if labels is None:
            return np.zeros_like(valid)
        return valid if mask is None else valid & (window.labels(mask.view(np.uint8), np.uint8) > 0)

    instances_known = known(sample.instances, sample.instances_known)
    return Crop(
        image=augment_stain(image, rng, settings.stain),
        semantic=semantic,
        instances=instances,
        types=types,
        semantic_known=known(sample.semantic, sample.semantic_known),
        instances_known=instances_known,
        types_known=instances_known & known(sample.instance_types, sample.types_known),
        derived=None if sample.derived is None else window.labels(sample.derived, np.uint8),
    )


def draw_placement(
    sample: Sample,
    size_px: int,
    pixel_size_um: float,
    rng: np.random.Generator,
    settings: AugmentationSettings,
    near: tuple[float, float] | None = None,
) -> CropPlacement:
    """Draw the placement of one crop."""
    zoom = pixel_size_um / sample.pixel_size_um
    free = rng.random() < settings.free_probability
    matrix = _draw_flip(rng) if settings.flip else np.eye(2)
    bending = None
    if free:
        scale = np.exp(rng.uniform(np.log(settings.scale_min), np.log(settings.scale_max)))
        angle = np.deg2rad(rng.uniform(-1, 1) * settings.rotation_max_deg)
        shear = rng.uniform(-1, 1) * settings.shear_max
        matrix = _rotation(angle) @ np.array([[1, shear], [0, 1]]) @ matrix / scale
        if rng.random() < settings.elastic_probability:
            nodes = -(-size_px // settings.elastic_grid_px) + 1
            bending = rng.normal(0, settings.elastic_sigma_px * zoom, (nodes, nodes, 2))
    matrix = zoom * matrix
    centre = _draw_centre(matrix, size_px, sample.image.shape[:2], rng, near)
    if not free:
        # Crop pixels then coincide with sample pixels, or whole blocks of them, and stay sharp.
        centre = np.round(centre - zoom * size_px / 2) + zoom * size_px / 2
    return CropPlacement(matrix, centre, bending)


def _draw_flip(rng: np.random.Generator) -> np.ndarray:
    """One of the eight symmetries of a square."""
    quarter, mirror = rng.integers(4), rng.integers(2)
    return np.round(_rotation(quarter * np.pi / 2)) @ np.diag([1.0 - 2 * mirror, 1.0])


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _draw_centre(
    matrix: np.ndarray,
    size_px: int,
    shape: tuple[int, int],
    rng: np.random.Generator,
    near: tuple[float, float] | None,
) -> np.ndarray:
    """x, y of the crop's centre, with as little as possible outside the sample."""
    extent = np.array(shape[::-1], float)
    half = np.abs(matrix).sum(axis=1) * size_px / 2
    low, high = np.minimum(half, extent - half), np.maximum(half, extent - half)
    if near is None:
        return rng.uniform(low, high)
    offset = matrix @ rng.uniform(-0.35, 0.35, 2) * size_px
    return np.clip(np.array(near[::-1]) + offset, low, high)


def _slivers(instances: np.ndarray, valid: np.ndarray, least_px: int) -> np.ndarray | None:
    """Remains of objects that the border cut, bool (Y, X); None if there are none."""
    edge = np.zeros(instances.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    if not valid.all():
        from scipy.ndimage import binary_dilation

        edge |= binary_dilation(~valid)
    cut = np.unique(instances[edge])
    cut = cut[cut > 0]
    if not len(cut):
        return None
    sizes = np.bincount(instances.ravel())
    small = cut[sizes[cut] < least_px]
    return np.isin(instances, small) if len(small) else None
