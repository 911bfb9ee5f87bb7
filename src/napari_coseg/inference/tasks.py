"""Segment images with a model that takes a task and a modality, in 2D or 3D.

    values --(each axis to the model's spacing)--> normalised --(windows)--> class probabilities
                                                                                 |
    objects <--(components, watershed)-- regions <--(largest)-- on the image's grid

A stack is segmented slice by slice by a task of 2D images, and as a whole by one of volumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import Cancelled, ImageError, SettingsError
from napari_coseg.core.types import LABEL_DTYPE, Image, Prediction
from napari_coseg.images.intake import RgbSource, crop
from napari_coseg.labels.decoding.semantic import decode_semantic, remove_small_regions
from napari_coseg.labels.decoding.separate import separate_objects
from napari_coseg.labels.measure import class_table, labelled
from napari_coseg.labels.tiling.resample import axis_weights, resample_rows

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard, TaskEntry
    from napari_coseg.inference.settings import InferenceSettings
    from napari_coseg.models.base import SegmentationModel

LARGEST_GRID_BYTES = 16 * 2**30
"""Of the probabilities of one plane or volume, on the grid of the image or of the model."""
TILES_FRACTION = 0.9


def chosen_task(card: ModelCard, settings: InferenceSettings, image: Image) -> TaskEntry | None:
    """The task that settings name; else the first whose images are like this one.

    Raises
    ------
    SettingsError
        If the card has no task of that name.
    """
    if settings.task is not None:
        for task in card.tasks:
            if task.name == settings.task:
                return task
        raise SettingsError(
            f"{card.name} has no task {settings.task!r}; its tasks are "
            f"{', '.join(task.name for task in card.tasks) or 'none'}"
        )
    channels = channel_count(image)
    like = {
        task.name: (
            card.for_task(task.name).dimensions == (3 if image.is_stack else 2),
            len(card.for_task(task.name).channels) == channels,
        )
        for task in card.tasks
    }
    # Of equals `max` takes the first.
    return max(card.tasks, key=lambda task: like[task.name], default=None)


def chosen_modality(
    card: ModelCard, task: TaskEntry | None, settings: InferenceSettings
) -> str | None:
    """The modality that settings name; else the first that the task was trained on.

    Raises
    ------
    SettingsError
        If it is not one of the task's.
    """
    known = (task.modalities if task else ()) or card.modalities
    if settings.modality is None:
        return known[0] if known else None
    if settings.modality not in known:
        of = f"the task {task.name!r}" if task else card.name
        raise SettingsError(
            f"{of} takes no modality {settings.modality!r}; expected one of "
            f"{', '.join(known) or 'none'}"
        )
    return settings.modality


def channel_count(image: Image) -> int:
    """Channels of an image; 1 where it has no such axis."""
    return int(image.data.shape[image.axes.index("C")]) if "C" in image.axes else 1


class TaskRun:
    """One call of `segment` with such a model.

    Parameters
    ----------
    channels
        Of the image, as many as the task takes; None for all.
    card
        With what the task says of its images (`ModelCard.for_task`).
    spacing_um
        Of the image, along its own axes.
    """

    def __init__(
        self,
        image: Image,
        channels: int | Sequence[int] | None,
        model: SegmentationModel,
        card: ModelCard,
        task: TaskEntry | None,
        modality: str | None,
        settings: InferenceSettings,
        progress: Callable[[float, str], None],
        should_cancel: Callable[[], bool],
        spacing_um: tuple[float, ...],
    ) -> None:
        self.image, self.channels, self.model = image, channels, model
        self.card, self.task, self.modality = card, task, modality
        self.settings, self.spacing_um = settings, spacing_um
        self.progress, self.should_cancel = progress, should_cancel
        if card.dimensions == 3 and not self.image.is_stack:
            name = f"the task {task.name!r}" if task else card.name
            raise ImageError(f"{name} needs a volume; got an image of {self.image.axes}")
        self.class_ids = self._class_ids()

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Regions uint8 and objects int32 of the image's shape, and classes (n,) of the objects."""
        regions = self._regions()
        wanted = self.settings.decoding(self.card)
        least, hole = self._px(wanted.min_region_area_um2), self._px(wanted.max_hole_area_um2)
        by_slice = self.image.is_stack and self.card.dimensions == 2
        for part in regions if by_slice else [regions]:
            part[...] = remove_small_regions(part, least, hole)
        how = self.task.objects if self.task else "none"
        if how == "none":
            return regions, np.zeros(regions.shape, LABEL_DTYPE), np.zeros(0, np.int64)
        smallest = self._px(wanted.min_object_area_um2)
        return regions, *separate_objects(regions, how, self.spacing_um, smallest)

    def _class_ids(self) -> np.ndarray:
        """Ids of the network's channels, background first."""
        every = tuple(entry.id for entry in self.card.semantic_classes)
        ids = self.model.channels_of(self.task.name) if self.task else every
        return np.array((0, *ids), np.uint8)

    def _px(self, area_um2: float) -> int:
        """An area in pixels; for volumes the cube whose faces have that area, in voxels."""
        sides = len(self.spacing_um) if self.card.dimensions == 3 else 2
        return math.ceil(area_um2 ** (sides / 2) / math.prod(self.spacing_um[-sides:]))

    def _regions(self) -> np.ndarray:
        if self.card.dimensions == 3 or not self.image.is_stack:
            return self._decoded(self._values(None), self.spacing_um, 0, 1)
        count = self.image.spatial_shape[0]
        found = np.zeros(self.image.spatial_shape, np.uint8)
        for z in range(count):
            found[z] = self._decoded(self._values(z), self.spacing_um[1:], z, count)
        return found

    def _decoded(
        self, values: np.ndarray, spacing_um: Sequence[float], z: int, of: int
    ) -> np.ndarray:
        """Values (C, [Z,] Y, X) -> class ids of the same grid."""
        from napari_coseg.inference.model_grid import side_on_model_grid

        shape = values.shape[1:]
        model_shape = [
            side_on_model_grid(n, have, wanted)
            for n, have, wanted in zip(shape, spacing_um, self.card.spacing_um, strict=True)
        ]
        grid = max(math.prod(shape), math.prod(model_shape))
        if grid * 4 * (len(self.class_ids) + len(values)) > LARGEST_GRID_BYTES:
            raise ImageError(
                f"the probabilities of {' x '.join(map(str, shape))} pixels in "
                f"{len(self.class_ids)} classes do not fit {LARGEST_GRID_BYTES / 2**30:g} GiB; "
                "segment a part of the image with `region`"
            )
        resampled = resampled_to(values, model_shape)
        probabilities = self._probabilities(resampled, z, of)
        return self.class_ids[decode_semantic(resampled_to(probabilities, shape))]

    def _probabilities(self, values: np.ndarray, z: int, of: int) -> np.ndarray:
        import torch

        from napari_coseg.inference.network import TaskNetwork, TileTooLargeError
        from napari_coseg.inference.windows import sliding_windows
        from napari_coseg.models.base import Conditions

        names = (self.task.name,) if self.task else ()
        conditions = Conditions((self.modality,) if self.modality else (), names)
        values = self.model.normalise(torch.from_numpy(values)[None], names)[0].numpy()
        network = TaskNetwork(self.model, conditions, self.class_ids, self.settings)

        def done(part: float) -> None:
            if self.should_cancel():
                raise Cancelled("the segmentation was cancelled; its results were discarded")
            where = f"slice {z + 1} of {of}" if of > 1 else "windows"
            self.progress(TILES_FRACTION * (z + part) / of, where)

        try:
            return sliding_windows(
                values,
                self.window_sides(values.shape[1:]),
                len(self.class_ids),
                network.maps,
                network.batch_size,
                self.settings.window_step,
                done,
            )
        except TileTooLargeError:
            raise SettingsError(
                f"the device has not enough memory for a window of {self._sides_text(values)} "
                "pixels; lower tile_size_px or tile_slices, or choose the device 'cpu'"
            ) from None
        finally:
            network.free()

    def _sides_text(self, values: np.ndarray) -> str:
        return " x ".join(map(str, self.window_sides(values.shape[1:])))

    def window_sides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Sides of a window: the card's tile, but no larger than the image needs."""
        model = self.model
        tile = self.settings.tile_size_px or self.card.tile_size_px
        least = 2 * model.size_multiple  # a network may need more than one pixel at its coarsest
        sides = [max(least, _multiple(min(n, tile), model.size_multiple)) for n in shape[-2:]]
        if self.card.dimensions == 2:
            return tuple(sides)
        slices = self.settings.tile_slices or self.card.tile_slices or max(1, tile // 3)
        return (_multiple(min(shape[0], slices), model.depth_multiple), *sides)

    def _values(self, z: int | None) -> np.ndarray:
        """Values of a slice, or of the whole image: float32 (C, [Z,] Y, X)."""
        if self.card.normalisation.values == "display":
            return self._display_values(z)
        wanted = self.card.normalisation
        index = {"Z": slice(None) if z is None else z}
        values = np.asarray(
            self.image.data[tuple(index.get(axis, slice(None)) for axis in self.image.axes)]
        )
        axes = [axis for axis in self.image.axes if z is None or axis != "Z"]
        values = np.moveaxis(values, axes.index("C"), 0) if "C" in axes else values[None]
        values = values[self._chosen_channels()].astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("the image has values that are no numbers; replace them")
        window = self.settings.window or wanted.window
        if window is not None:
            values = np.clip(values, *window)
        if wanted.values == "z-scores":
            values = z_scores(values)
        return np.ascontiguousarray(values)

    def _chosen_channels(self) -> list[int]:
        have, wanted = channel_count(self.image), self.card.channels
        given = range(have) if self.channels is None else np.atleast_1d(self.channels).tolist()
        chosen = [int(number) for number in given]
        if len(chosen) != len(wanted) or not all(0 <= number < have for number in chosen):
            raise ImageError(
                f"{self.card.name} reads the channels {', '.join(wanted)}; got channels {chosen} "
                f"of an image that has {have}: choose them by `channels`, name the axes, for "
                "example axes='ZYXC', or choose another task"
            )
        return chosen

    @cached_property
    def source(self) -> RgbSource:
        """How values become 0 to 255, for tasks that read display values."""
        from napari_coseg.inference.run import read_for

        return read_for(self.card, self.image, self.channels, self.settings)

    @property
    def intensity(self) -> str:
        """How values are read, for the provenance."""
        values = self.card.normalisation.values
        return self.source.intensity.rule if values == "display" else values

    def _display_values(self, z: int | None) -> np.ndarray:
        """0 to 255; one channel of grey, or three of colour."""
        count = len(self.card.channels)
        if count not in (1, 3):
            raise ImageError(
                f"{self.card.name} reads {count} channels of display values; expected 1 or 3"
            )
        if count == 1 and len(self.source.channels) == 3:
            raise ImageError(
                "the task reads one channel of grey, but the image is in colour; choose a channel, "
                "for example channels=0"
            )
        whole = slice(None)
        slices = range(self.source.n_slices) if z is None and self.image.is_stack else [z or 0]
        planes = [self.source.read(n, whole, whole)[..., :count] for n in slices]
        values = np.stack(planes) if z is None and self.image.is_stack else planes[0]
        return np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=np.float32)


def z_scores(values: np.ndarray) -> np.ndarray:
    """Each channel of (C, ...) less its mean, by its standard deviation; 0 where it is constant."""
    axes = tuple(range(1, values.ndim))
    mean, deviation = (f(values, axis=axes, keepdims=True) for f in (np.mean, np.std))
    return ((values - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def resampled_to(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample (C, [Z,] Y, X) linearly along each axis, antialiased where it shrinks."""
    for axis, (have, wanted) in enumerate(zip(values.shape[1:], shape, strict=True), start=1):
        if have != wanted:
            first = np.moveaxis(values, axis, 0)
            values = np.moveaxis(
                resample_rows(first, axis_weights(have, wanted, 0, wanted)), 0, axis
            )
    return np.ascontiguousarray(values, dtype=np.float32)


def _multiple(side: int, of: int) -> int:
    return -(-side // of) * of


def segment_task(
    image: Image,
    model: SegmentationModel,
    channels: int | Sequence[int] | None,
    settings: InferenceSettings,
    region: Sequence[tuple[int, int] | slice] | None,
    progress: Callable[[float, str], None] | None,
    should_cancel: Callable[[], bool] | None,
) -> Prediction:
    """`segment` with a model that takes a task and a modality; same parameters and errors."""
    from napari_coseg.inference.run import ASSUMED_SIZE, origin_of
    from napari_coseg.models.nn.modes import evaluating

    task = chosen_task(model.card, settings, image)
    modality = chosen_modality(model.card, task, settings)
    card = model.card.for_task(task.name if task else None)
    assumed = image.pixel_size_um is None
    offset = (0,) * len(image.spatial_axes)
    if region is not None:
        image, offset = crop(image, region)
    geometry = image.geometry
    if not geometry.is_known:
        own = (card.spacing_um[0], *card.spacing_um[-2:])[-len(image.spatial_axes) :]
        geometry = geometry.with_pixel_size(own, assumed=ASSUMED_SIZE)
    run = TaskRun(
        image,
        channels,
        model,
        card,
        task,
        modality,
        settings,
        progress or (lambda fraction, message: None),
        should_cancel or (lambda: False),
        geometry.known_size_um,
    )
    with evaluating(model):
        regions, objects, class_ids = run.run()
    run.progress(TILES_FRACTION, "table")
    classes = card.semantic_label_classes
    provenance = {
        **origin_of(image, model, card),
        "task": task.name if task else None,
        "modality": modality,
        "channels": channels,
        "intensity": run.intensity,
        "window": settings.window or card.normalisation.window,
        "pixel_size_um": list(geometry.known_size_um),
        "pixel_size_from": "assumed: the model's own" if assumed else "image or caller",
        "model_pixel_size_um": card.pixel_size_um,
        "model_spacing_um": list(card.spacing_um),
        "device": str(next(model.buffers()).device),
        "region_offset": list(offset),
        "settings": settings.model_dump() | settings.decoding(card).model_dump(),
    }
    return labelled(
        objects,
        regions,
        geometry=geometry,
        known=class_table(class_ids),
        classes=classes if len(class_ids) else (),
        region_classes=classes,
        provenance=provenance,
    )
