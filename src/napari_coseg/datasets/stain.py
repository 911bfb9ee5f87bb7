"""Stain and texture augmentation: vary H&E colours as between stains, scanners and laboratories.

The colour changes of a crop are two 3 x 3 matrices: one on optical densities, where stains are
additive (Beer-Lambert; stain vectors of Ruifrok and Johnston 2001), and one on intensities.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFilter
from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.datasets.base import Sample
from napari_coseg.images.white_point import whitened_image

STAIN_VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of red, green, blue: rows of hematoxylin, eosin and residual."""

LUMA = np.array([0.299, 0.587, 0.114])

# One is added so that black (0) has a logarithm.
_DENSITY_OF = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


class StainSettings(Settings):
    """Settings of colour and sharpness augmentation. A spread of 0 switches a change off.

    Factors are uniform in 1 - spread to 1 + spread, shifts in -spread to spread.
    """

    stain_probability: float = Field(0.85, ge=0, le=1, description="share of crops restained")
    stain_factor_spread: float = Field(0.35, ge=0, lt=1, description="amount of each stain; factor")
    stain_shift_spread: float = Field(
        0.03, ge=0, le=0.5, description="shift of each stain; optical density"
    )
    stain_vector_sigma: float = Field(
        0.05, ge=0, le=0.3, description="standard deviation of the stain vectors' components"
    )
    gamma_spread: float = Field(0.15, ge=0, lt=1, description="all densities; factor")
    density_probability: float = Field(
        0.0, ge=0, le=1, description="share of crops with a large change of density"
    )
    density_min: float = Field(0.3, gt=0, le=1, description="smallest optical density; factor")
    density_max: float = Field(2.5, ge=1, le=10, description="largest optical density; factor")
    white_probability: float = Field(
        0.0, ge=0, le=1, description="share of crops with another white point"
    )
    white_sigma: float = Field(
        0.08, ge=0, le=0.5, description="standard deviation of the gain of red, and of blue the "
        "other way; logarithm. A third of it for green"
    )  # fmt: skip
    exposure_min: float = Field(
        0.65, gt=0, le=1, description="darkest white point's largest gain; factor"
    )
    colour_probability: float = Field(
        0.6, ge=0, le=1, description="share of crops with changed camera colours"
    )
    brightness_spread: float = Field(0.1, ge=0, lt=1, description="intensity; factor")
    contrast_spread: float = Field(
        0.2, ge=0, lt=1, description="contrast around the crop's mean; factor"
    )
    saturation_spread: float = Field(
        0.25, ge=0, lt=1, description="saturation (distance to grey); factor"
    )
    hue_spread_deg: float = Field(
        10.0, ge=0, le=180, description="rotation around the grey axis; degrees"
    )
    blur_probability: float = Field(0.15, ge=0, le=1, description="share of crops blurred")
    blur_max_px: float = Field(1.3, ge=0, le=10, description="largest Gaussian sigma; pixels")
    sharpen_probability: float = Field(0.1, ge=0, le=1, description="share of crops sharpened")
    sharpen_max_percent: int = Field(150, ge=0, le=500, description="largest strength; percent")
    jpeg_probability: float = Field(0.15, ge=0, le=1, description="share of crops compressed")
    jpeg_quality_min: int = Field(40, ge=1, le=95, description="lowest JPEG quality; 1 to 95")
    noise_probability: float = Field(0.15, ge=0, le=1, description="share of crops with noise")
    noise_max: float = Field(6.0, ge=0, le=50, description="largest standard deviation; of 0..255")


class ColourChange(NamedTuple):
    """``camera @ exp(-(density_matrix @ density + density_shift))``, then contrast.

    density_matrix, camera   (3, 3)
    density_shift            (3,)
    contrast                 factor on the distance to the crop's mean intensity
    """

    density_matrix: np.ndarray
    density_shift: np.ndarray
    camera: np.ndarray
    contrast: float


def with_white_point(sample: Sample) -> Sample:
    """The sample with its own white point normalised, as in prediction."""
    return replace(sample, image=whitened_image(sample.image))


def augment_stain(
    image: np.ndarray, rng: np.random.Generator, settings: StainSettings
) -> np.ndarray:
    """Augment the colours and the texture of a crop.

    Parameters
    ----------
    image
        uint8 (Y, X, 3) red, green, blue.

    Returns
    -------
    np.ndarray
        float32 (3, Y, X), of 0..255.
    """
    image = _change_texture(image, rng, settings)
    planes = _change_colours(image, draw_colour_change(rng, settings))
    if rng.random() < settings.noise_probability:
        sigma = np.float32(rng.uniform(0, settings.noise_max))
        planes += sigma * rng.standard_normal(planes.shape, dtype=np.float32)
    return np.clip(planes, 0, 255, out=planes)


def draw_colour_change(rng: np.random.Generator, settings: StainSettings) -> ColourChange:
    """Draw the matrices of one crop; identity for crops without a change."""
    density_matrix, density_shift = np.eye(3), np.zeros(3)
    if rng.random() < settings.stain_probability:
        density_matrix, density_shift = _draw_stains(rng, settings)
    # Changes absent from older recipes draw no random numbers: their crops stay the same.
    if settings.density_probability and rng.random() < settings.density_probability:
        low, high = np.log(settings.density_min), np.log(settings.density_max)
        # Triangular in the logarithm, with its mode at the sample's own density.
        factor = np.exp(rng.triangular(low, 0, high)) if low < high else 1.0
        density_matrix, density_shift = factor * density_matrix, factor * density_shift
    camera, contrast = np.eye(3), 1.0
    if rng.random() < settings.colour_probability:
        saturation = rng.uniform(-1, 1) * settings.saturation_spread + 1
        hue = np.deg2rad(rng.uniform(-1, 1) * settings.hue_spread_deg)
        brightness = rng.uniform(-1, 1) * settings.brightness_spread + 1
        contrast = float(rng.uniform(-1, 1) * settings.contrast_spread + 1)
        camera = brightness * _saturation(saturation) @ _hue_rotation(hue)
    if settings.white_probability and rng.random() < settings.white_probability:
        # The colour temperature of light varies far more than its green-magenta tint.
        temperature, tint = rng.normal(0, settings.white_sigma, 2)
        gains = np.exp([temperature, tint / 3, -temperature])
        exposure = rng.uniform(settings.exposure_min, 1)
        camera = exposure * np.diag(gains / gains.max()) @ camera
    return ColourChange(density_matrix, density_shift, camera, contrast)


def _draw_stains(
    rng: np.random.Generator, settings: StainSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Unmix densities into stains, scale and shift them, and mix them with other vectors."""
    factors = 1 + rng.uniform(-1, 1, 3) * settings.stain_factor_spread
    shifts = rng.uniform(-1, 1, 3) * settings.stain_shift_spread
    gamma = 1 + rng.uniform(-1, 1) * settings.gamma_spread
    vectors = STAIN_VECTORS.copy()
    # The residual is not a stain and keeps its vector.
    vectors[:2] += rng.normal(0, settings.stain_vector_sigma, (2, 3))
    vectors = np.clip(vectors, 0, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    back = gamma * vectors.T
    unmix = np.linalg.inv((STAIN_VECTORS / np.linalg.norm(STAIN_VECTORS, axis=1, keepdims=True)).T)
    return back @ np.diag(factors) @ unmix, back @ shifts


def _saturation(factor: float) -> np.ndarray:
    return factor * np.eye(3) + (1 - factor) * np.outer(np.ones(3), LUMA)


def _hue_rotation(angle: float) -> np.ndarray:
    """Rotation around the grey axis (Rodrigues), which preserves white."""
    k = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _change_colours(image: np.ndarray, change: ColourChange) -> np.ndarray:
    """uint8 (Y, X, 3) -> float32 (3, Y, X) of about 0..255, not yet clipped."""
    height, width, _ = image.shape
    density = _DENSITY_OF[np.ascontiguousarray(image.reshape(-1, 3).T)]  # (3, Y * X)
    density = change.density_matrix.astype(np.float32) @ density
    density += change.density_shift.astype(np.float32)[:, None]
    np.exp(np.negative(density, out=density), out=density)
    camera = change.camera.astype(np.float32)
    planes = (256 * camera) @ np.minimum(density, 1, out=density)
    planes -= camera.sum(axis=1, keepdims=True)  # subtracts the one added before the logarithm
    if change.contrast != 1:
        mean = planes.mean()
        planes -= mean
        planes *= np.float32(change.contrast)
        planes += mean
    return planes.reshape(3, height, width)


def _change_texture(
    image: np.ndarray, rng: np.random.Generator, settings: StainSettings
) -> np.ndarray:
    """Blur or sharpen, then compress; uint8 in and out."""
    blur, sharpen, jpeg, amount = rng.random(4)
    picture = PillowImage.fromarray(image)
    if blur < settings.blur_probability:
        picture = picture.filter(ImageFilter.GaussianBlur(float(amount * settings.blur_max_px)))
    elif sharpen < settings.sharpen_probability:
        percent = round(amount * settings.sharpen_max_percent)
        picture = picture.filter(ImageFilter.UnsharpMask(1.5, percent, 0))
    if jpeg < settings.jpeg_probability:
        picture = _through_jpeg(picture, int(rng.integers(settings.jpeg_quality_min, 96)))
    return np.asarray(picture)


def _through_jpeg(picture: PillowImage.Image, quality: int) -> PillowImage.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return PillowImage.open(file).convert("RGB")
