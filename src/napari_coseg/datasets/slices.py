"""Read label volumes plane by plane, and volumes as stacks of 8-bit slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import RgbSource
from napari_coseg.images.intensity import window_rule
from napari_coseg.images.slicing import slicing_across
from napari_coseg.images.volumes import VolumeHeader, planes


def label_planes(header: VolumeHeader) -> Iterator[np.ndarray]:
    """`planes` as uint8; `DatasetError` unless values are integers from 0 to 255."""
    for plane in planes(header):
        if plane.dtype == np.uint8:
            yield plane
            continue
        labels = plane.astype(np.uint8) if _fits(plane) else None
        if labels is None or not np.array_equal(labels, plane):
            raise DatasetError(
                f"labels {header.path} hold values from {plane.min():g} to {plane.max():g}; "
                "expected whole numbers of 0 to 255"
            )
        yield labels


def occupied_slices(
    header: VolumeHeader, axis: int, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the slices that hold wanted labels, and all labels of the volume.

    Parameters
    ----------
    axis
        Axis of the upright volume that counts the slices.
    wanted
        bool (256,), by label.

    Returns
    -------
    tuple
        bool per slice; bool (256,) per label.
    """
    file_axis = header.axes[axis]
    occupied = np.zeros(header.shape[file_axis], bool)
    present = np.zeros(256, bool)
    for index, plane in enumerate(label_planes(header)):
        present |= np.bincount(plane.ravel(), minlength=256) > 0
        if file_axis == 0:
            occupied[index] = wanted[plane].any()
        else:
            occupied |= wanted[plane].any(axis=2 - file_axis)
    return occupied[::-1] if header.flipped[axis] else occupied, present


def read_numbers(header: VolumeHeader) -> np.ndarray:
    """A label volume as uint8, in the file's order of axes."""
    numbers = np.empty(header.shape, np.uint8)
    for index, plane in enumerate(label_planes(header)):
        numbers[index] = plane
    return numbers


def read_8_bits(header: VolumeHeader, window: tuple[float, float] | None) -> np.ndarray:
    """A volume as uint8, in the file's order of axes.

    Parameters
    ----------
    window
        Values that become 0 and 255; None for the rules of `napari_coseg.images.intensity`.
    """
    eight = np.empty(header.shape, np.uint8)
    if window is not None:
        try:
            rule = window_rule(window)
        except ImageError as error:
            raise DatasetError(f"cannot show the volume {header.path}: {error}") from error
        for index, plane in enumerate(planes(header)):
            eight[index] = np.rint(rule.apply(plane))
        return eight
    kind = np.dtype(np.float32) if header.is_scaled else header.dtype.newbyteorder("=")
    volume = np.empty(header.shape, kind)
    for index, plane in enumerate(planes(header)):
        volume[index] = plane
    try:
        rule = RgbSource(Image(volume, "ZYX", name=header.path.name)).intensity
    except ImageError as error:
        raise DatasetError(f"cannot show the volume {header.path}: {error}") from error
    for index, plane in enumerate(volume):
        eight[index] = np.rint(rule.apply(plane))
    return eight


def slices_across(upright: np.ndarray, axis: int) -> np.ndarray:
    """Contiguous slices (slice, Y, X); if Z is one of their axes, the head is on top."""
    return np.ascontiguousarray(slicing_across(axis).cut(upright))


def _fits(plane: np.ndarray) -> bool:
    """Whether all values lie in 0..255; NaN does not."""
    return bool(plane.min() >= 0 and plane.max() <= 255)
