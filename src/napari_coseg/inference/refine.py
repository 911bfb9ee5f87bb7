"""Refinement: predict one task again, prompted by corrections of the other.

The second forward of a network takes the masks of the first as prompts: the region mask for the
objects, the object mask for the regions (Co-Seg++ section 3.3, Co-Seg 2.4). Here a corrected mask
replaces the predicted one. The image is not encoded again: a `RunState` caches its features.

    corrected mask --(where it differs from the run's)--> windows of tiles
    cached features + corrected mask --> prompt encoders, decoders --> maps of the windows
    maps, blended with those of the run --> objects and regions, spliced in

A prompt is a binary mask of all regions, or of all objects. Changed classes, and objects split or
merged in place, do not change it.

Reviewed pixels and manual edits stay. Manual edits are found by comparison with the results of the
run and its refinements (`manual_edits`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import Cancelled, EditError, ImageError
from napari_coseg.core.types import LARGEST_ID, Instances, Prediction
from napari_coseg.inference.run_state import Position, RunState, Window
from napari_coseg.inference.splice import Objects, merged_windows, numbered, padded, splice_objects
from napari_coseg.inference.tile_windows import TileWindow, changed_windows, ramp
from napari_coseg.labels.decoding.semantic import remove_small_regions
from napari_coseg.labels.measure import class_table, object_table
from napari_coseg.labels.tiling.blocks import Block, pad_to
from napari_coseg.labels.tiling.resample import resample_maps, source_range

if TYPE_CHECKING:
    from napari_coseg.inference.plane import Progress
    from napari_coseg.models.base import Task

TASKS = ("regions", "objects")
OTHER = {"regions": "objects", "objects": "regions"}
"""The task that a corrected mask prompts."""
PROMPTED: dict[str, Task] = {"regions": "instance", "objects": "semantic"}
"""The same by the models' names."""


@dataclass(frozen=True, eq=False)
class _Corrected:
    """Corrected labels, what of them is reviewed, and the tasks whose masks are prompts."""

    regions: np.ndarray
    objects: Objects
    prompting: tuple[str, ...]
    reviewed_objects: np.ndarray
    reviewed_regions: np.ndarray

    def mask(self, task: str) -> np.ndarray:
        return (self.regions if task == "regions" else self.objects.labels) > 0


def refine(
    state: RunState,
    corrected_regions: np.ndarray | None = None,
    corrected_objects: Instances | np.ndarray | None = None,
    *,
    reviewed_objects: np.ndarray | None = None,
    reviewed_regions: np.ndarray | None = None,
    prompt_with: Sequence[str] | None = None,
    progress: Progress | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Prediction:
    """Predict one task again from corrections of the other, where they differ from the run.

    Corrected regions renew the objects, corrected objects the regions. The image is not encoded
    again: ``segment(image, state=state)`` has cached its features in `state`.

    Parameters
    ----------
    state
        State of a run, filled by `segment`. The refinement is added to its results.
    corrected_regions
        Integers (Y, X), class ids; None for the run's.
    corrected_objects
        Labels (Y, X), with or without a table (``id``, ``class_id``, ``class_probability``); None
        for the run's. Without a table, ids of the run have their class.
    reviewed_objects
        Bool (Y, X): pixels whose object or background stays. Objects that touch them stay whole.
    reviewed_regions
        Bool (Y, X): pixels whose region stays.
    prompt_with
        "regions", "objects" or both: the masks that are prompts. None for those that are given.
    progress, should_cancel
        As for `segment`.

    Returns
    -------
    Prediction
        The corrected labels of the whole plane, predicted again near the corrections, with new
        ids.

    Raises
    ------
    EditError
        If `state` is empty, or no mask differs from the run's.
    ImageError
        If labels do not fit the image of the run.
    Cancelled
        If `should_cancel` returned True.
    """
    from napari_coseg.models.nn.modes import evaluating

    unknown = set(prompt_with or ()) - set(TASKS)
    if unknown:
        raise EditError(
            f"prompt_with has {', '.join(sorted(unknown))}; expected {' or '.join(TASKS)}"
        )
    given = {"regions": corrected_regions is not None, "objects": corrected_objects is not None}
    prompting = tuple(prompt_with) if prompt_with else tuple(task for task in TASKS if given[task])
    corrected = _Corrected(
        _regions(state, corrected_regions),
        _objects(state, corrected_objects),
        prompting,
        _fitting(reviewed_objects, state, "reviewed_objects").astype(bool),
        _fitting(reviewed_regions, state, "reviewed_regions").astype(bool),
    )
    run = _Refinement(
        state,
        corrected,
        progress or (lambda fraction, message: None),
        should_cancel or (lambda: False),
    )
    with evaluating(state.network.model):
        refined = run.predict()
    state.results.add(refined)
    return refined


class _Refinement:
    """One call of `refine`."""

    def __init__(
        self,
        state: RunState,
        corrected: _Corrected,
        progress: Progress,
        should_cancel: Callable[[], bool],
    ) -> None:
        self.state, self.corrected, self.plan = state, corrected, state.plan
        self._progress, self._should_cancel = progress, should_cancel

    def predict(self) -> Prediction:
        windows = self._windows()
        replaced = {}
        for i, one in enumerate(windows):
            self._stop_if_cancelled()
            self._progress(0.7 * i / len(windows), f"tiles: {i} of {len(windows)}")
            replaced[one.tile.row, one.tile.column] = self._maps(one)
        boxes = [one.on_image(self.plan) for one in windows]
        boxes = merged_windows(boxes, self._margin, self.plan.image_shape)
        regions, objects = self._updated(boxes, replaced)
        self._progress(1.0, "done")
        return self._prediction(regions, numbered(objects), len(windows))

    def _windows(self) -> list[TileWindow]:
        before = {
            "regions": self.state.prediction.semantic,
            "objects": self.state.prediction.instances.labels,
        }
        changed = np.zeros(self.plan.image_shape, bool)
        for task in self.corrected.prompting:
            changed |= self.corrected.mask(task) != (before[task] > 0)
        windows = changed_windows(self.plan, changed)
        if not windows:
            what = " and ".join(self.corrected.prompting) or "labels"
            raise EditError(
                f"the {what} cover the same pixels as after the run, so there is nothing to refine "
                "from; add, remove or reshape some first (changes of class, and splits and merges "
                "in place, have no effect)"
            )
        return windows

    # -- maps ----------------------------------------------------------------------------------

    def _maps(self, one: TileWindow) -> np.ndarray:
        """Maps of the tile, those in the window predicted again from the corrected masks."""
        from napari_coseg.inference.caching_network import CorrectedMasks

        cached = self.state.tile(one.tile)
        covered = {task: self._coverage(one.tile, task) for task in self.corrected.prompting}
        masks = CorrectedMasks(covered.get("regions"), covered.get("objects"))
        tasks = [PROMPTED[task] for task in self.corrected.prompting]
        found = self.state.network.decode_again(cached.forwards, one.window, masks, tasks)
        y, x = (
            ramp(part, side, self.plan.halo_px)
            for part, side in zip(one.window, self.plan.network_shape, strict=True)
        )
        maps = cached.maps.astype(np.float32)
        weight = np.multiply.outer(y, x)
        for channel in self._channels(len(maps)):
            before = maps[channel, *one.window]
            before += (found[channel] - before) * weight
        return maps.astype(np.float16)

    def _channels(self, count: int) -> list[int]:
        """Channels of the prompted tasks, of `count` channels."""
        regions = range(*self.state.channels.semantic.indices(count))
        of_task = {"regions": regions, "objects": [c for c in range(count) if c not in regions]}
        return [channel for task in self.corrected.prompting for channel in of_task[OTHER[task]]]

    def _coverage(self, tile: Block, task: str) -> np.ndarray:
        """Fraction of each pixel of a tile, as the network gets it, that the mask covers."""
        shapes = self.plan.image_shape, self.plan.model_shape
        rows, columns = ((span.start, span.stop) for span in (tile.y, tile.x))
        window = tuple(
            slice(*source_range(n, m, *part))
            for n, m, part in zip(*shapes, (rows, columns), strict=True)
        )
        mask = self.corrected.mask(task)[window].astype(np.float32)[None]
        return pad_to(resample_maps(mask, *shapes, rows, columns)[0], self.plan.network_shape)

    # -- objects and regions -------------------------------------------------------------------

    @property
    def _margin(self) -> int:
        return self.plan.margin_px

    def _updated(
        self, boxes: list[Window], replaced: dict[Position, np.ndarray]
    ) -> tuple[np.ndarray, Objects]:
        corrected, results = self.corrected, self.state.results
        regions, objects = corrected.regions, corrected.objects
        edited = results.edited_objects(objects.labels, objects.class_ids)
        stays = (
            corrected.reviewed_objects
            | edited[objects.labels]
            | results.deleted_objects(objects.labels)
        )
        regions_stay = corrected.reviewed_regions | results.edited_regions(regions)
        for i, box in enumerate(boxes):
            self._progress(0.7 + 0.25 * i / len(boxes), f"objects: {i} of {len(boxes)}")
            outer = padded(box, self._margin, self.plan.image_shape)
            found_regions, found = self._decode(outer, replaced)
            if "regions" in corrected.prompting:
                objects = splice_objects(objects, found, box, outer, stays)
            if "objects" in corrected.prompting:
                regions = self._with_regions(regions, found_regions, box, outer, regions_stay)
        return regions, objects

    def _decode(
        self, outer: Window, replaced: dict[Position, np.ndarray]
    ) -> tuple[np.ndarray, Objects]:
        """Decode regions and objects of a window of the image, block by block as in a run."""
        from napari_coseg.inference.plane import BlockCanvas, BlockDecoder

        decode = BlockDecoder(self.plan, self.state.channels)
        y0, x0 = outer[0].start, outer[1].start
        shape = (outer[0].stop - y0, outer[1].stop - x0)
        canvas = BlockCanvas(shape, self.plan, self.state.settings)
        for block in itertools.chain(*canvas.blocks):
            self._stop_if_cancelled()
            window = (
                slice(y0 + block.y.start, y0 + block.y.stop),
                slice(x0 + block.x.start, x0 + block.x.stop),
            )
            maps = self.state.blended(self.state.on_model_grid(window), replaced)
            canvas.add(block, decode(maps, window))
        found = canvas.finish()
        by_id = (np.insert(values, 0, 0) for values in (found.class_ids, found.probabilities))
        return found.regions, Objects(found.labels, *by_id)

    def _with_regions(
        self, regions: np.ndarray, found: np.ndarray, box: Window, outer: Window, stays: np.ndarray
    ) -> np.ndarray:
        from napari_coseg.inference.plane import smallest_px

        inside = tuple(
            slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True)
        )
        mixed = regions[outer].copy()
        mixed[inside] = found[inside]
        mixed = remove_small_regions(mixed, *smallest_px(self.plan))
        updated = regions.copy()
        updated[box] = np.where(stays[box], regions[box], mixed[inside])
        return updated

    def _prediction(self, regions: np.ndarray, objects: Objects, tiles: int) -> Prediction:
        before = self.state.prediction
        table = object_table(
            objects.labels,
            regions,
            pixel_size_um=before.pixel_size_um,
            known=class_table(objects.class_ids[1:], objects.probabilities[1:]),
            classes=before.instances.classes,
            semantic_classes=before.semantic_classes,
        )
        refined = {"prompted_by": list(self.corrected.prompting), "tiles": tiles}
        return replace(
            before,
            regions=regions,
            instances=Instances(objects.labels, table, before.instances.classes),
            provenance={**before.provenance, "refined": refined},
        )

    def _stop_if_cancelled(self) -> None:
        if self._should_cancel():
            raise Cancelled("the refinement was cancelled; no labels were changed")


# ---------------------------------------------------------------------------------------------
# Checks of arguments


def _regions(state: RunState, given: np.ndarray | None) -> np.ndarray:
    if given is None:
        return state.prediction.semantic
    regions = _fitting(given, state, "regions")
    if regions.size and (regions.min() < 0 or regions.max() > 255):
        raise ImageError(f"regions have values up to {regions.max()}; class ids are 0 to 255")
    return regions.astype(np.uint8)


def _objects(state: RunState, given: Instances | np.ndarray | None) -> Objects:
    run = state.prediction.instances
    if given is None:
        given = run
    labels = given.labels if isinstance(given, Instances) else given
    labels = _fitting(labels, state, "objects")
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST_ID):
        raise ImageError(
            f"objects have ids from {labels.min()} to {labels.max()}; expected 0 to {LARGEST_ID:,}"
        )
    return Objects.of(labels, given.table if isinstance(given, Instances) else run.table)


def _fitting(labels: np.ndarray | None, state: RunState, what: str) -> np.ndarray:
    shape = state.plan.image_shape
    if labels is None:
        return np.zeros(shape, bool)
    if labels.shape != shape:
        raise ImageError(
            f"the {what} have shape {labels.shape}, those of the last run {shape}; use the layers "
            "of the last run, or run again"
        )
    return labels
