"""Measures labels: shape, intensity, distances, counts by region and class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from napari_coseg.core.errors import Cancelled, ImageError
from napari_coseg.core.settings import Settings
from napari_coseg.core.types import Image, Prediction
from napari_coseg.images.readers.registry import as_image
from napari_coseg.labels.measure.intensities import CHANNELS, Intensities, is_of_colours
from napari_coseg.labels.measure.labelled import named, remeasure
from napari_coseg.labels.measure.moments import Moments
from napari_coseg.labels.measure.neighbours import border_distances, nearest_distances
from napari_coseg.labels.measure.outline import Outlines
from napari_coseg.labels.measure.rows import ids_in
from napari_coseg.labels.measure.summary import Coverage, summarise
from napari_coseg.labels.measure.tables import with_positions
from napari_coseg.labels.measure.windows import count, windows

if TYPE_CHECKING:
    import pandas as pd

GREY = (160, 160, 160)
"""Of classes without a name."""


class MeasureSettings(Settings):
    """What is measured besides shape and position."""

    intensity: Literal["auto", "he", "hdab", "channels", "none"] = Field(
        "auto",
        description="of the image: stains, or channels as stored; auto takes the stains he of "
        "colour images, whose channels are the last axis, and channels of others",
    )


@dataclass(frozen=True, eq=False)
class Measurements:
    """What `measure` gives.

    Parameters
    ----------
    objects
        One row per object; `napari_coseg.labels.measure.columns` describes the columns.
    summary
        One row per region and class, see `napari_coseg.labels.measure.summary.summarise`.
    """

    objects: pd.DataFrame
    summary: pd.DataFrame


def measure(
    prediction: Prediction,
    image: Any = None,
    settings: MeasureSettings | None = None,
    *,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Measurements:
    """Measure shape, stains or channels, distances and densities of labels as they are now.

    Parameters
    ----------
    prediction
        Labels, regions, classes and pixel size. Of its table only classes and their probabilities
        are used, by id, so that labels may have been corrected since.
    image
        Whose intensities are measured, on the grid of the labels: an array, an `Image` or the path
        of an image file, read window by window. None measures none.
    settings
        Which intensities are measured; the defaults where None.
    progress
        Called with the part done (0..1) and one line of text.
    should_cancel
        Asked between windows; True ends the measuring.

    Returns
    -------
    Measurements
        One table with a row per object, and one with a row per region and class.

    Raises
    ------
    ImageError
        Where the image does not fit the labels, or stains are to be measured without colours.
    Cancelled
        Where `should_cancel` said so.
    """
    report = progress or (lambda fraction, message: None)

    def reached(fraction: float, doing: str) -> None:
        if should_cancel is not None and should_cancel():
            raise Cancelled("stopped while measuring")
        report(fraction, doing)

    labels, size = prediction.instances.labels, prediction.pixel_size_um
    image = None if image is None else as_image(image)
    _check_fit(labels, image)
    reached(0.0, "counting pixels")
    prediction = remeasure(_all_named(prediction))
    table = prediction.instances.table
    parts = _Parts.of(prediction, table, image, settings or MeasureSettings())
    number = count(labels.shape)
    for i, window in enumerate(windows(labels, table["id"].to_numpy())):
        reached(0.2 + 0.5 * i / number, "measuring shape and intensity")
        for part in parts.all():
            part.add(window)
    values = parts.columns(lambda: reached(0.7, "measuring outlines"))
    reached(0.9, "measuring distances")
    points = centroids(table, labels.ndim) * np.asarray(size)
    distances = nearest_distances(points, table["class_id"].to_numpy())
    distances["region_border_um"] = border_distances(points, prediction.semantic, size)
    summary = summarise(
        table,
        parts.coverage,
        pixel_size_um=size,
        classes=prediction.instances.classes,
        semantic_classes=prediction.semantic_classes,
    )
    reached(1.0, "measured")
    table = with_positions(table.assign(**values, **distances), prediction.geometry)
    return Measurements(table, summary)


def centroids(table: pd.DataFrame, ndim: int) -> np.ndarray:
    """(n, 2 or 3) y, x or z, y, x in pixels."""
    points: np.ndarray = table[[f"centroid_{axis}" for axis in "zyx"[-ndim:]]].to_numpy(float)
    return points


@dataclass(frozen=True, eq=False)
class _Parts:
    """Measurements that are added up window by window."""

    coverage: Coverage
    moments: Moments
    outlines: Outlines | None
    intensities: Intensities | None

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        table: pd.DataFrame,
        image: Image | None,
        settings: MeasureSettings,
    ) -> _Parts:
        size, ndim = prediction.pixel_size_um, prediction.instances.labels.ndim
        pixels = _pixels(table, size)
        around = np.zeros((len(table), 3))
        around[:, 3 - ndim :] = centroids(table, ndim)
        measured = _measured(image, settings)
        return cls(
            Coverage(
                table["class_id"].to_numpy(),
                prediction.semantic,
                max((entry.id for entry in prediction.semantic_classes), default=0),
            ),
            Moments(pixels, around, size),
            Outlines(pixels, size) if ndim == 2 else None,
            Intensities(image, measured, len(table)) if image and measured else None,
        )

    def all(self) -> list[Coverage | Moments | Outlines | Intensities]:
        parts = (self.coverage, self.moments, self.outlines, self.intensities)
        return [part for part in parts if part is not None]

    def columns(self, at_work: Callable[[], None]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if self.outlines:
            found |= self.outlines.columns(at_work)
        found |= self.moments.columns()
        if self.intensities:
            found |= self.intensities.columns()
        return found


def _check_fit(labels: np.ndarray, image: Image | None) -> None:
    if image is not None and image.spatial_shape != labels.shape:
        raise ImageError(
            f"the image {image.name!r} has {image.spatial_axes} of shape {image.spatial_shape}, "
            f"the labels {labels.shape}; give the image that the labels were made of"
        )


def _measured(image: Image | None, settings: MeasureSettings) -> str | None:
    """A key of `STAINS`, `CHANNELS`, or nothing."""
    if image is None or settings.intensity == "none":
        return None
    if settings.intensity == "auto":
        return "he" if is_of_colours(image) else CHANNELS
    return settings.intensity


def _pixels(table: pd.DataFrame, size: Sequence[float]) -> np.ndarray:
    column = "volume_um3" if len(size) == 3 else "area_um2"
    return np.rint(table[column].to_numpy(float) / math.prod(size))


def _all_named(prediction: Prediction) -> Prediction:
    """With a plain name for every region and class that occurs and has none."""
    instances = prediction.instances
    regions = ids_in(prediction.semantic)
    kinds = instances.table["class_id"].dropna().unique()
    return replace(
        prediction,
        semantic_classes=named(prediction.semantic_classes, regions, "region", GREY),
        instances=replace(instances, classes=named(instances.classes, kinds, "class", GREY)),
    )
