"""Refinement across tasks: what a person corrected in one task helps the other.

The second forward of a network takes the masks of the first as prompts, the region mask for the
objects and the object mask for the regions (Co-Seg++ section 3.3, Co-Seg 2.4). Here a corrected
mask takes the place of the predicted one. Nothing is encoded again: a `Session` holds what was.

    corrected mask --(where it differs from the run's)--> windows of tiles
    kept features of these + corrected mask --> prompt encoders, decoders --> maps
    maps, blended with the others --> objects and regions, put in around what must stay

A prompt says where there is any region, or any object, and nothing else: other classes, and objects
that were split or merged in place, do not change it.

What stays: what is reviewed, and what a person made. That is told by comparing with the results so
far (`handmade`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import Cancelled, EditError, ImageError
from napari_coseg.core.types import LABEL_DTYPE, Instances, Prediction
from napari_coseg.inference.handmade import by_id
from napari_coseg.inference.redo import Redo, ramp, windows_to_redo
from napari_coseg.inference.session import Place, Session, Window
from napari_coseg.inference.splice import Objects, grown, joined, numbered, splice_objects
from napari_coseg.labels.decoding.semantic import remove_small_regions
from napari_coseg.labels.measure import object_table
from napari_coseg.labels.tiling.blocks import Block, cut_plane, pad_to
from napari_coseg.labels.tiling.resample import resample_maps, source_range
from napari_coseg.labels.tiling.stitch import LabelCanvas

if TYPE_CHECKING:
    from napari_coseg.inference.plane import Progress
    from napari_coseg.models.base import Task

LARGEST_ID = 2**26
TASKS = ("regions", "objects")
OTHER = {"regions": "objects", "objects": "regions"}
"""Which a corrected mask renews."""
PROMPTED: dict[str, Task] = {"regions": "instance", "objects": "semantic"}
"""The same, as models name them."""


@dataclass(frozen=True, eq=False)
class _Corrected:
    """Labels as a person left them, and which of them are the prompt."""

    regions: np.ndarray
    objects: Objects
    prompting: tuple[str, ...]
    reviewed_objects: np.ndarray
    reviewed_regions: np.ndarray

    def mask(self, task: str) -> np.ndarray:
        return (self.regions if task == "regions" else self.objects.labels) > 0


def refine(
    session: Session,
    corrected_regions: np.ndarray | None = None,
    corrected_objects: Instances | np.ndarray | None = None,
    *,
    reviewed_objects: np.ndarray | None = None,
    reviewed_regions: np.ndarray | None = None,
    prompt_with: Sequence[str] | None = None,
    progress: Progress | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Prediction:
    """Decode again, prompted by corrected masks, where they differ from the run's.

    Corrected regions renew the objects, corrected objects the regions.

    Parameters
    ----------
    session
        Filled by `segment`; stays as it is but for remembering what it has made.
    corrected_regions
        Whole numbers (Y, X), class ids as a person left them; None: as the run gave them.
    corrected_objects
        Labels (Y, X), or with their table for the classes (``id``, ``class_id``,
        ``class_probability``); None: as the run gave them. Of labels alone, an id that the run gave
        too has its class.
    reviewed_objects
        Bool (Y, X): pixels that keep the object, or background, they have; objects that reach
        into them stay whole.
    reviewed_regions
        Bool (Y, X): pixels that keep their region.
    prompt_with
        Of "regions" and "objects", which to feed; None: those that are given.
    progress, should_cancel
        As for `segment`.

    Returns
    -------
    Prediction
        Of the whole plane: the corrected labels, renewed where the correction matters. Ids are
        given anew.

    Raises
    ------
    EditError
        Where nothing is kept of a run, or nothing was corrected that could help.
    ImageError
        Where labels do not fit the run's image.
    Cancelled
        Where `should_cancel` said so.
    """
    from napari_coseg.inference.network import evaluating

    unknown = set(prompt_with or ()) - set(TASKS)
    if unknown:
        raise EditError(
            f"prompt_with names {', '.join(sorted(unknown))}; expected some of {', '.join(TASKS)}"
        )
    given = {"regions": corrected_regions is not None, "objects": corrected_objects is not None}
    prompting = tuple(prompt_with) if prompt_with else tuple(task for task in TASKS if given[task])
    now = _Corrected(
        _regions(session, corrected_regions),
        _objects(session, corrected_objects),
        prompting,
        _fitting(reviewed_objects, session, "reviewed_objects").astype(bool),
        _fitting(reviewed_regions, session, "reviewed_regions").astype(bool),
    )
    run = _Refinement(
        session,
        now,
        progress or (lambda fraction, message: None),
        should_cancel or (lambda: False),
    )
    with evaluating(session.network.model):
        refined = run.predict()
    session.made.add(refined)
    return refined


class _Refinement:
    """One call of `refine`."""

    def __init__(
        self,
        session: Session,
        now: _Corrected,
        progress: Progress,
        should_cancel: Callable[[], bool],
    ) -> None:
        self.session, self.now, self.plan = session, now, session.plan
        self._progress, self._should_cancel = progress, should_cancel

    def predict(self) -> Prediction:
        redo = self._where()
        instead = {}
        for i, one in enumerate(redo):
            self._stop_if_asked()
            self._progress(0.7 * i / len(redo), f"tiles: {i} of {len(redo)}")
            instead[one.tile.row, one.tile.column] = self._maps(one)
        boxes = [one.on_image(self.plan) for one in redo]
        boxes = joined(boxes, self._margin, self.plan.image_shape)
        regions, objects = self._renewed(boxes, instead)
        self._progress(1.0, "done")
        return self._prediction(regions, numbered(objects), len(redo))

    def _where(self) -> list[Redo]:
        before = {
            "regions": self.session.prediction.semantic,
            "objects": self.session.prediction.instances.labels,
        }
        changed = np.zeros(self.plan.image_shape, bool)
        for task in self.now.prompting:
            changed |= self.now.mask(task) != (before[task] > 0)
        redo = windows_to_redo(self.plan, changed)
        if not redo:
            what = " and ".join(self.now.prompting) or "labels"
            raise EditError(
                f"the {what} cover the same pixels as after the run, so there is nothing to "
                "refine with: add, remove or reshape some first (their classes, and objects that "
                "are split or merged in place, prompt nothing)"
            )
        return redo

    # -- their maps ----------------------------------------------------------------------------

    def _maps(self, one: Redo) -> np.ndarray:
        """The tile's maps, with those of the window that the corrected masks prompt."""
        from napari_coseg.inference.session_network import Given

        kept = self.session.tile(one.tile)
        shares = {task: self._share(one.tile, task) for task in self.now.prompting}
        given = Given(shares.get("regions"), shares.get("objects"))
        tasks = [PROMPTED[task] for task in self.now.prompting]
        found = self.session.network.again(kept.forwards, one.window, given, tasks)
        y, x = (
            ramp(part, side, self.plan.halo_px)
            for part, side in zip(one.window, self.plan.network_shape, strict=True)
        )
        maps = kept.maps.astype(np.float32)
        weight = np.multiply.outer(y, x)
        for channel in self._renewed_channels(len(maps)):
            before = maps[channel, *one.window]
            before += (found[channel] - before) * weight
        return maps.astype(np.float16)

    def _renewed_channels(self, count: int) -> list[int]:
        """Those of the tasks that the corrected masks prompt."""
        of_regions = range(*self.session.channels.semantic.indices(count))
        kept = {"regions": of_regions, "objects": [c for c in range(count) if c not in of_regions]}
        return [channel for task in self.now.prompting for channel in kept[OTHER[task]]]

    def _share(self, tile: Block, task: str) -> np.ndarray:
        """What part of each pixel of a tile the corrected mask covers, as the network gets it."""
        shapes = self.plan.image_shape, self.plan.model_shape
        rows, columns = ((span.start, span.stop) for span in (tile.y, tile.x))
        window = tuple(
            slice(*source_range(n, m, *part))
            for n, m, part in zip(*shapes, (rows, columns), strict=True)
        )
        mask = self.now.mask(task)[window].astype(np.float32)[None]
        share = resample_maps(mask, *shapes, rows, columns)[0]
        return pad_to(share, self.plan.network_shape)

    # -- objects and regions -------------------------------------------------------------------

    @property
    def _margin(self) -> int:
        return self.plan.margin_px

    def _renewed(
        self, boxes: list[Window], instead: dict[Place, np.ndarray]
    ) -> tuple[np.ndarray, Objects]:
        now, made = self.now, self.session.made
        regions, objects = now.regions, now.objects
        hand = made.hand_objects(objects.labels, objects.class_ids)
        stays = now.reviewed_objects | hand[objects.labels] | made.hand_background(objects.labels)
        regions_stay = now.reviewed_regions | made.hand_regions(regions)
        for i, box in enumerate(boxes):
            self._progress(0.7 + 0.25 * i / len(boxes), f"objects: {i} of {len(boxes)}")
            outer = grown(box, self._margin, self.plan.image_shape)
            found_regions, found = self._decode(outer, instead)
            if "regions" in now.prompting:
                objects = splice_objects(objects, found, box, outer, stays)
            if "objects" in now.prompting:
                regions = self._with_regions(regions, found_regions, box, outer, regions_stay)
        return regions, objects

    def _decode(
        self, outer: Window, instead: dict[Place, np.ndarray]
    ) -> tuple[np.ndarray, Objects]:
        """Regions and objects of a window of the image, block by block as in a run."""
        from napari_coseg.inference.plane import BlockDecoder

        decode = BlockDecoder(self.plan, self.session.channels, self.session.settings)
        y0, x0 = outer[0].start, outer[1].start
        shape = (outer[0].stop - y0, outer[1].stop - x0)
        side = self.session.settings.decode_block_px + 2 * self._margin
        blocks = cut_plane(shape, (side, side), self._margin)
        regions, labels = np.zeros(shape, np.uint8), np.zeros(shape, LABEL_DTYPE)
        canvas = LabelCanvas(blocks, labels)
        for block in itertools.chain(*blocks):
            self._stop_if_asked()
            window = (
                slice(y0 + block.y.start, y0 + block.y.stop),
                slice(x0 + block.x.start, x0 + block.x.stop),
            )
            maps = self.session.blended(self.session.on_model_grid(window), instead)
            found = decode(maps, window)
            regions[block.core] = found.regions[block.core_in_window]
            ids, areas = canvas.place(block, found.labels, len(found.class_ids))
            canvas.votes.add(ids, found.class_ids, found.probabilities, areas)
        ids, count = canvas.finish()
        class_ids, sure = canvas.votes.count(ids, count)
        nothing = np.zeros(1)
        return regions, Objects(
            labels,
            np.concatenate([nothing.astype(np.int64), class_ids]),
            np.concatenate([nothing, sure]),
        )

    def _with_regions(
        self, regions: np.ndarray, found: np.ndarray, box: Window, outer: Window, stays: np.ndarray
    ) -> np.ndarray:
        from napari_coseg.inference.plane import smallest_px

        inside = tuple(
            slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True)
        )
        mixed = regions[outer].copy()
        mixed[inside] = found[inside]
        mixed = remove_small_regions(mixed, *smallest_px(self.plan, self.session.settings))
        renewed = regions.copy()
        renewed[box] = np.where(stays[box], regions[box], mixed[inside])
        return renewed

    def _prediction(self, regions: np.ndarray, objects: Objects, tiles: int) -> Prediction:
        before = self.session.prediction
        table = object_table(
            objects.labels,
            regions,
            pixel_size_um=before.pixel_size_um,
            class_ids=objects.class_ids[1:],
            class_probabilities=objects.probabilities[1:],
            classes=before.instances.classes,
            semantic_classes=before.semantic_classes,
        )
        told = {"prompted_by": list(self.now.prompting), "tiles": tiles}
        return replace(
            before,
            semantic=regions,
            instances=Instances(objects.labels, table, before.instances.classes),
            provenance={**before.provenance, "refined": told},
        )

    def _stop_if_asked(self) -> None:
        if self._should_cancel():
            raise Cancelled("the refinement was cancelled; nothing was changed")


# ---------------------------------------------------------------------------------------------
# What is given


def _regions(session: Session, given: np.ndarray | None) -> np.ndarray:
    if given is None:
        return session.prediction.semantic
    regions = _fitting(given, session, "regions")
    if regions.size and (regions.min() < 0 or regions.max() > 255):
        raise ImageError(f"regions have values up to {regions.max()}; class ids are 0 to 255")
    return regions.astype(np.uint8)


def _objects(session: Session, given: Instances | np.ndarray | None) -> Objects:
    run = session.prediction.instances
    if given is None:
        given = run
    labels = given.labels if isinstance(given, Instances) else given
    labels = _fitting(labels, session, "objects")
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST_ID):
        raise ImageError(
            f"objects have ids from {labels.min()} to {labels.max()}; expected 0 to {LARGEST_ID:,}"
        )
    table = given.table if isinstance(given, Instances) else run.table
    ids = table["id"].to_numpy()
    labels = labels.astype(LABEL_DTYPE)
    return Objects(
        labels,
        by_id(labels, ids, table["class_id"].to_numpy(np.int64)),
        by_id(labels, ids, table["class_probability"].to_numpy(np.float64)),
    )


def _fitting(labels: np.ndarray | None, session: Session, what: str) -> np.ndarray:
    shape = session.plan.image_shape
    if labels is None:
        return np.zeros(shape, bool)
    if labels.shape != shape:
        raise ImageError(
            f"the {what} have shape {labels.shape}, what was segmented last {shape}; use the "
            "layers of the last run, or run again"
        )
    return labels
