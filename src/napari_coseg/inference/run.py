"""`segment`: predict regions, objects and their table from an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import Cancelled, SettingsError
from napari_coseg.core.types import LABEL_DTYPE, Image, Prediction
from napari_coseg.images.intake import RgbSource, crop
from napari_coseg.images.readers.registry import as_image
from napari_coseg.images.slicing import Slicing
from napari_coseg.inference.cutting import Cut
from napari_coseg.inference.loading import DEFAULT_MODEL, load_any_family, model_origin
from napari_coseg.inference.model_grid import side_on_model_grid
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.labels.measure import class_table, labelled
from napari_coseg.labels.tiling.link import link_slices, remove_small
from napari_coseg.labels.tiling.stitch import Votes

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.inference.network import TileNetwork
    from napari_coseg.inference.plane import Decoded, Progress, TileMaps, TilePlan
    from napari_coseg.inference.run_state import RunState
    from napari_coseg.models.base import CosegModel, SegmentationModel

ASSUMED_SIZE = "the size of a pixel: the model's own"
SMALLEST_MARGIN_PX, LARGEST_MARGIN_PX = 16, 512


def segment(
    image: Any,
    model: str | Path | SegmentationModel = DEFAULT_MODEL,
    pixel_size_um: float | Sequence[float] | None = None,
    *,
    axes: str | None = None,
    channels: int | Sequence[int] | None = None,
    settings: InferenceSettings | None = None,
    region: Sequence[tuple[int, int] | slice] | None = None,
    slices: int | tuple[int, int] | None = None,
    state: RunState | None = None,
    progress: Progress | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Prediction:
    """Find regions and objects of an image in one run.

    Parameters
    ----------
    image
        numpy, dask or zarr array, an `Image`, or the path of an image file. Axes are guessed from
        the shape: (Y, X), (Y, X, 3 or 4), (Z, Y, X) or (Z, Y, X, 3 or 4). Slices of a stack are
        segmented separately, then objects are linked across slices (`labels.tiling.link`). A volume
        of one channel is cut by the card's rule (`ModelCard.slicing`): across its largest spacing,
        so that pixels are square.
    model
        "default", the path of a weights file, or a model from `load_model`.
    pixel_size_um
        Micrometres: one number, or (z,) y, x. None for that of `image`, or if that is unknown, of
        the model; ``provenance`` records which.
    axes
        Overrides the guess, for example "CYX".
    channels
        Indices of the red, green and blue channels, or of one grey channel.
    settings
        Tiles, thresholds, smallest areas; None for the defaults.
    region
        Half-open bounds for y and x, or for z, y and x, of the part to segment. Results have its
        shape and coordinates from its corner, which is ``provenance["region_offset"]``.
    slices
        Of a stack, one slice or half-open bounds along z, or along the axis that a volume is cut
        across, counted from 0; None for all, or for what `region` says. Results stay stacks.
    state
        Caches the features and maps of a plane for `refine`; stacks are not cached.
    progress
        Called with the fraction done (0 to 1) and one line of text.
    should_cancel
        Called before every tile and block; the run is cancelled if it returns True.

    Returns
    -------
    Prediction
        Regions, objects and their table on the image's pixel grid.

    Raises
    ------
    ImageError
        If the image is not supported, or no slice of a volume has square pixels.
    SettingsError
        If settings contradict each other, or one tile does not fit the device's memory.
    Cancelled
        If `should_cancel` returned True. All memory of the run is freed.
    """
    from napari_coseg.models.base import CosegModel, SegmentationModel

    understood = as_image(image, axes, pixel_size_um)
    if not isinstance(model, SegmentationModel):
        model = load_any_family(model)
    settings = settings or InferenceSettings()
    whole = not isinstance(model, CosegModel)  # these cut no volume
    cut = Cut(understood, Slicing()) if whole else Cut.of(model.card, understood)
    if slices is not None:
        region = cut.with_slices(region, slices)
    if not isinstance(model, CosegModel):
        from napari_coseg.inference.tasks import segment_task

        return segment_task(understood, model, channels, settings, region, progress, should_cancel)
    source = read_for(model.card, cut.slices(cut.image), channels, settings)
    part, offset = cut.image, (0,) * len(understood.spatial_axes)
    if region is not None:
        part, offset = crop(cut.image, region)
        source = RgbSource(cut.slices(part), channels, source.intensity, window=source.window)
    if state is not None:
        state.clear()
    run = _Run(source, replace(cut, image=part), model, settings, progress, should_cancel, state)
    try:
        prediction = run.predict()
    except Cancelled as cancelled:
        # A new exception: the old one's traceback would keep the run's arrays in memory.
        message = str(cancelled)
    else:
        prediction.provenance["region_offset"] = list(offset)
        if state is not None:
            state.finish(prediction)
        return prediction
    del run
    if state is not None:
        state.clear()
    raise Cancelled(message)


def read_for(
    card: ModelCard,
    image: Image,
    channels: int | Sequence[int] | None = None,
    settings: InferenceSettings | None = None,
) -> RgbSource:
    """Read an image with the intensities that the model of `card` expects.

    Window and white point in `settings` override the card's; the card's window is for images of
    more than 8 bits.
    """
    wanted = card.normalisation
    window = settings.window if settings else None
    if window is None and np.dtype(image.data.dtype) not in (np.uint8, np.bool_):
        window = wanted.window
    white_point = settings.white_point if settings else None
    if white_point is None:
        white_point = wanted.white_point
    return RgbSource(
        image, channels, stretch=wanted.stretch, window=window, white_point=white_point
    )


def plan_plane(
    image_shape: tuple[int, int],
    pixel_size_um: tuple[float, float],
    card: ModelCard,
    settings: InferenceSettings,
    size_multiple: int,
) -> TilePlan:
    """Plan how a plane is resampled and tiled for the model of `card`.

    Raises
    ------
    ImageError
        If the pixel sizes of image and model differ by more than `LARGEST_FACTOR`.
    SettingsError
        If the halo is as large as the tile.
    """
    from napari_coseg.inference.plane import TilePlan

    model_shape = [
        side_on_model_grid(side, size, card.pixel_size_um)
        for side, size in zip(image_shape, pixel_size_um, strict=True)
    ]
    tile = settings.tile_size_px or card.tile_size_px
    tile = math.ceil(tile / size_multiple) * size_multiple
    halo = card.halo_px if settings.halo_px is None else settings.halo_px
    if settings.halo_px is None:
        halo = min(halo, tile // 4)
    if 2 * halo >= tile:
        raise SettingsError(
            f"a tile of {tile} pixels must be larger than twice its halo_px, {halo}; set "
            f"tile_size_px above {2 * halo}"
        )
    margin = math.ceil(card.halo_px * card.pixel_size_um / min(pixel_size_um))
    return TilePlan(
        image_shape,
        (model_shape[0], model_shape[1]),
        pixel_size_um,
        card.pixel_size_um,
        tile,
        halo,
        min(max(margin, SMALLEST_MARGIN_PX), LARGEST_MARGIN_PX),
        size_multiple,
        settings.decoding(card),
    )


def origin_of(image: Image, model: SegmentationModel, card: ModelCard) -> dict[str, Any]:
    """The part of a provenance that says which model ran on which image."""
    from napari_coseg import __version__

    return {
        "napari_coseg": __version__,
        "model": card.name,
        "family": card.family,
        "weights": model_origin(model),
        "image": image.name,
        "source": image.geometry.as_json()["source"],
        "axes": image.axes,
        "shape": [int(n) for n in image.data.shape],
        "dtype": str(image.data.dtype),
    }


class _Run:
    """One call of `segment`."""

    def __init__(
        self,
        source: RgbSource,
        cut: Cut,
        model: CosegModel,
        settings: InferenceSettings,
        progress: Progress | None,
        should_cancel: Callable[[], bool] | None,
        state: RunState | None = None,
    ) -> None:
        self.state = state
        self.source, self.model, self.settings = source, model, settings
        self.cut, self.image, self.card = cut, cut.image, model.card
        self._progress = progress or (lambda fraction, message: None)
        self._should_cancel = should_cancel or (lambda: False)
        self._fraction = 0.0
        self.adapted: list[str] = []
        self.geometry = self.image.geometry
        if not self.geometry.is_known:
            own = (self.card.pixel_size_um,) * len(self.image.spatial_axes)
            self.geometry = self.geometry.with_pixel_size(own, assumed=ASSUMED_SIZE)
        size = self.pixel_size_um
        y, x = (size[i] for i in cut.slicing.order[1:]) if self.image.is_stack else size
        self.plan = plan_plane(source.plane_shape, (y, x), self.card, settings, model.size_multiple)

    @property
    def pixel_size_um(self) -> tuple[float, ...]:
        return self.geometry.known_size_um

    def predict(self) -> Prediction:
        from napari_coseg.inference.network import TileNetwork
        from napari_coseg.models.nn.modes import evaluating

        settings = self.settings
        network_class: type[TileNetwork] = TileNetwork
        if self._caches:
            from napari_coseg.inference.caching_network import CachingNetwork as network_class
        network = network_class(
            self.model,
            settings.batch_size,
            settings.test_time_augmentation,
            settings.half_precision,
            self._adapt,
        )
        try:
            with evaluating(self.model):
                is_stack = self.image.is_stack
                result = self._stack(network) if is_stack else self._plane(network, 0)
        finally:
            network.free()
        return self._prediction(result, str(network.device))

    @property
    def _caches(self) -> bool:
        """Whether features are cached; those of a stack would take too much memory."""
        return self.state is not None and not self.image.is_stack

    def _stack(self, network: TileNetwork) -> Decoded:
        from napari_coseg.inference.plane import Decoded

        shape = self.source.image.spatial_shape
        regions, labels = np.zeros(shape, np.uint8), np.zeros(shape, LABEL_DTYPE)
        votes, count = Votes(), 0
        for z in range(shape[0]):
            found = self._plane(network, z)
            regions[z] = found.regions
            areas = np.bincount(found.labels.ravel(), minlength=len(found.class_ids) + 1)[1:]
            ids = np.arange(count + 1, count + 1 + areas.size)
            votes.add(ids, found.class_ids, found.probabilities, areas)
            labels[z] = np.where(found.labels > 0, found.labels + count, 0)
            count += areas.size
        settings = self.settings
        by = {"overlap": settings.link_overlap, "join_overlap": settings.link_join_overlap}
        final_ids, n_objects = link_slices(
            labels, count, **by, max_gap=settings.link_max_gap, progress=self._linked
        )
        kinds, probabilities = votes.count(final_ids, n_objects)
        least_um3 = self.plan.decoding.min_object_volume_um3
        kept = remove_small(labels, n_objects, least_um3 / math.prod(self.pixel_size_um))
        return Decoded(regions, labels, kinds[kept], probabilities[kept])

    def _linked(self, part: float) -> None:
        if self._should_cancel():
            raise Cancelled("the segmentation was cancelled; its results were discarded")
        self._progress(self._fraction, f"linking objects through slices: {part:.0%}")

    def _plane(self, network: TileNetwork, z: int) -> Decoded:
        from napari_coseg.inference.network import MapChannels, TileTooLargeError
        from napari_coseg.inference.plane import FreshTiles, PlaneRun

        channels = MapChannels.of(self.card)
        while True:
            fresh = FreshTiles(self.source, self.plan, z, network)
            tiles: TileMaps = fresh
            if self.state is not None and self._caches:
                tiles = self.state.start(fresh, channels, self.settings)
            run = PlaneRun(
                tiles,
                self.plan,
                channels,
                self.settings,
                lambda part, what: self._report(z, part, what),
                self._should_cancel,
            )
            try:
                return run.run()
            except TileTooLargeError:
                smaller = self.plan.with_smaller_tile()
            self._adapt(f"out of memory: tile {self.plan.tile_px} -> {smaller.tile_px}")
            self.plan = smaller

    def _report(self, z: int, part: float, what: str) -> None:
        slices = self.source.n_slices
        across = f" across {self.cut.across}" if self.cut.slicing.axis else ""
        where = f"slice {z + 1} of {slices}{across}, " if slices > 1 else ""
        # Never backwards, even if a plane is restarted with smaller tiles.
        self._fraction = max(self._fraction, (z + part) / slices)
        self._progress(self._fraction, where + what)

    def _adapt(self, change: str) -> None:
        self.adapted.append(change)
        self._progress(self._fraction, change)

    def _prediction(self, result: Decoded, device: str) -> Prediction:
        card = self.card
        return labelled(
            self.cut.back(result.labels),
            self.cut.back(result.regions),
            geometry=self.geometry,
            known=class_table(result.class_ids, result.probabilities),
            classes=card.instance_label_classes,
            region_classes=card.semantic_label_classes,
            provenance=self._provenance(device),
        )

    def _provenance(self, device: str) -> dict[str, Any]:
        image, card = self.image, self.card
        assumed = image.pixel_size_um is None
        return {
            **origin_of(image, self.model, card),
            "channels": self.source.channels,
            "intensity": self.source.intensity.rule,
            "window": self.source.window,
            "pixel_size_um": list(self.pixel_size_um),
            "pixel_size_from": "assumed: the model's own" if assumed else "image or caller",
            **self.cut.facts(),
            "model_pixel_size_um": card.pixel_size_um,
            "tile_size_px": self.plan.tile_px,
            "halo_px": self.plan.halo_px,
            "device": device,
            "adapted": list(self.adapted),
            "settings": self.settings.model_dump() | self.plan.decoding.model_dump(),
        }
