"""Draw batches of training crops, each a pure function of a seed and a step.

A resumed training therefore sees the same batches, and steps can be drawn ahead, in any order, by
any number of threads or processes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.transforms import AugmentationSettings, Crop, training_crop

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, eq=False)
class Batch:
    """Stacked crops; see `Crop` for the fields.

    images float32 (B, 3, Y, X) of 0..255; semantic, types uint8 (B, Y, X); instances int32
    (B, Y, X); hv float32 (B, 2, Y, X) of -1..1; semantic_known, instances_known, types_known
    bool (B, Y, X): where labels of that kind are trained on.

    derived   uint8 (B, Y, X), `NOT_GIVEN` for a crop without one; None if no crop has one
    features  feature maps of a frozen encoder, (B, C, y, x) each, the coarsest first; None if the
              encoder has to be run
    prompts   uint8 (B, 2, Y, X): masks of regions and objects that prompt the second forward;
              `NOT_GIVEN` and None stand for the first forward's own
    """

    images: np.ndarray
    semantic: np.ndarray
    instances: np.ndarray
    types: np.ndarray
    hv: np.ndarray
    semantic_known: np.ndarray
    instances_known: np.ndarray
    types_known: np.ndarray
    derived: np.ndarray | None = None
    prompts: np.ndarray | None = None
    features: tuple[Any, ...] | None = None

    def part(self, crops: slice) -> Batch:
        """A batch of some of the crops."""

        def cut(value: Any) -> Any:
            return tuple(map(cut, value)) if isinstance(value, tuple) else value[crops]

        return Batch(**{name: cut(v) for name, v in vars(self).items() if v is not None})


NOT_GIVEN = 2
"""Value of unknown pixels in a mask of 0 and 1."""


@dataclass(frozen=True, eq=False)
class CropSource:
    """Samples of one kind and their share of every batch.

    Parameters
    ----------
    samples
        In memory, or read on demand (`napari_coseg.datasets.kept`).
    per_batch
        Number of crops in every batch; on average, if it is not a whole number.
    object_fraction
        Share of the crops placed around an object whose class is drawn first, uniformly, so that
        rare classes are seen. Ignored without objects.
    mosaic
        Each crop is composed of `mosaic` x `mosaic` smaller ones from different places, so that a
        batch of large crops still shows many kinds of tissue.
    """

    samples: Sequence[Sample]
    per_batch: float
    object_fraction: float = 0.5
    mosaic: int = 1

    def __post_init__(self) -> None:
        if not self.samples or self.per_batch <= 0:
            raise DatasetError(
                f"a source has {len(self.samples)} samples and {self.per_batch} crops per batch; "
                "both must be positive"
            )

    @property
    def share(self) -> Fraction:
        """`per_batch` as an exact fraction: three thirds add up to one."""
        return Fraction(self.per_batch).limit_denominator(100)


class CropSampler:
    """Draws batches of square crops of one size and one pixel size.

    Parameters
    ----------
    sources
        Their crops follow each other in a batch, in this order; the total is a whole number.
    size_px, pixel_size_um, settings
        As in `training_crop`.
    seed
        Determines the sequence of batches.
    """

    def __init__(
        self,
        sources: Sequence[CropSource],
        size_px: int,
        pixel_size_um: float,
        seed: int,
        settings: AugmentationSettings | None = None,
    ) -> None:
        self.sources = tuple(sources)
        size = sum(source.share for source in self.sources)
        if size.denominator != 1:
            raise DatasetError(
                f"a batch of {float(size):g} crops cannot be drawn; parts with crops of one size, "
                "which share a batch, must have a whole number together"
            )
        self.size = int(size)
        self.size_px = size_px
        self.pixel_size_um = pixel_size_um
        self.seed = seed
        self.settings = settings or AugmentationSettings()
        # Only if crops are placed around objects, since this reads every sample.
        self._objects = [
            objects_by_class(source.samples) if source.object_fraction else []
            for source in self.sources
        ]

    def draw(self, step: int, rank: int = 0, of: int = 1) -> Batch:
        """The batch of `step`.

        If `of` processes share it, process `rank` gets every `of`-th crop.
        """
        slots = self._slots(step)
        if len(slots) < of:
            raise DatasetError(
                f"a batch of {len(slots)} crops cannot be shared by {of} processes; start fewer, "
                "or give the recipe more crops per batch"
            )
        return stack(
            [
                self._crop(number, np.random.default_rng([self.seed, step, number, slot]))
                for number, slot in slots[rank::of]
            ]
        )

    def _slots(self, step: int) -> list[tuple[int, int]]:
        """For each crop of a batch, the number of its source and its index within the source.

        Systematic sampling: sources lie on a line, each as long as its share, and one crop is
        taken at every whole step from a random start below 1. Each source gets its share, rounded
        up or down; whole shares are exact.
        """
        ends = list(accumulate(source.share for source in self.sources))
        start = Fraction(0)
        if any(end.denominator != 1 for end in ends):
            start = Fraction(np.random.default_rng([self.seed, step]).random())
        numbers = [bisect_right(ends, place + start) for place in range(self.size)]
        return [(number, numbers[:i].count(number)) for i, number in enumerate(numbers)]

    def _crop(self, number: int, rng: np.random.Generator) -> Crop:
        side = self.sources[number].mosaic
        if side == 1:
            return self._piece(number, self.size_px, rng)
        size = self.size_px // side
        return put_together(
            [[self._piece(number, size, rng) for _ in range(side)] for _ in range(side)]
        )

    def _piece(self, number: int, size_px: int, rng: np.random.Generator) -> Crop:
        source, objects = self.sources[number], self._objects[number]
        sample, near = source.samples[int(rng.integers(len(source.samples)))], None
        if objects and rng.random() < source.object_fraction:
            number, near = objects[rng.integers(len(objects))].draw(rng)
            sample = source.samples[number]
        return training_crop(sample, size_px, self.pixel_size_um, rng, self.settings, near)


def drawn_ahead(
    draw: Callable[[int], Drawn], first_step: int, last_step: int, threads: int = 1
) -> Iterator[Drawn]:
    """Draw ``range(first_step, last_step)`` in order, ahead of time in `threads`."""
    with ThreadPoolExecutor(threads, thread_name_prefix="crops") as pool:
        waiting: deque[Future[Drawn]] = deque()
        try:
            for step in range(first_step, last_step):
                waiting.append(pool.submit(draw, step))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def put_together(pieces: Sequence[Sequence[Crop]]) -> Crop:
    """Join rows of crops with the same kinds of labels; objects of different crops stay apart."""
    last_id, apart = 0, []
    for row in pieces:
        numbered = []
        for piece in row:
            ids = np.where(piece.instances > 0, piece.instances + last_id, 0)
            last_id = int(ids.max(initial=last_id))
            numbered.append(replace(piece, instances=ids.astype(LABEL_DTYPE)))
        apart.append(numbered)

    def joined(name: str) -> np.ndarray:
        rows = [np.concatenate([getattr(piece, name) for piece in row], -1) for row in apart]
        return np.concatenate(rows, -2)

    present = (name for name, array in vars(apart[0][0]).items() if array is not None)
    return replace(apart[0][0], **{name: joined(name) for name in present})


def stack(crops: Sequence[Crop]) -> Batch:
    """Stack crops of one size to a batch and compute the HoVer maps of their objects.

    The maps are computed in the process or thread that draws the batch. They are not cached, since
    an object cut by the border has another centre in every crop. They cost 10 ms of the 60 ms of a
    1024 x 1024 crop with 325 objects (110 ms with augmentation); a cache would take 8 MB per image
    and worker.
    """
    from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps

    shape = crops[0].instances.shape
    hv = np.zeros((len(crops), 2, *shape), np.float32)
    for maps, crop in zip(hv, crops, strict=True):
        if crop.instances_known.any():
            maps[:] = horizontal_vertical_maps(crop.instances)
    kinds = ("semantic", "instances", "types")
    names = (*kinds, *(f"{kind}_known" for kind in kinds))
    labels: dict[str, Any] = {n: np.stack([getattr(crop, n) for crop in crops]) for n in names}
    return Batch(
        images=np.stack([crop.image for crop in crops]),
        hv=hv,
        derived=_stack_derived(crops),
        **labels,
    )


def _stack_derived(crops: Sequence[Crop]) -> np.ndarray | None:
    if all(crop.derived is None for crop in crops):
        return None
    nothing = np.full(crops[0].instances.shape, NOT_GIVEN, np.uint8)
    return np.stack([nothing if crop.derived is None else crop.derived for crop in crops])


class Places(NamedTuple):
    """Objects to place crops around: index of the sample, y, x."""

    sample: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[float, float]]:
        """Draw the index of a sample, and y, x in it."""
        i = rng.integers(len(self.sample))
        return int(self.sample[i]), (float(self.y[i]), float(self.x[i]))


def objects_by_class(samples: Iterable[Sample]) -> list[Places]:
    """Centres of the known objects, one entry per class; unknown classes form one entry."""
    found = [_objects_of(number, sample) for number, sample in enumerate(samples)]
    table = np.concatenate(found)  # columns: class, sample, y, x
    return [
        Places(rows[:, 1].astype(int), rows[:, 2], rows[:, 3])
        for rows in (table[table[:, 0] == kind] for kind in np.unique(table[:, 0]))
    ]


def _objects_of(number: int, sample: Sample) -> np.ndarray:
    """(objects, 4): class (0 where unknown), sample number, y and x of the centre of mass."""
    if sample.instances is None:
        return np.zeros((0, 4))
    objects = sample.instances > 0
    if sample.instances_known is not None:
        objects &= sample.instances_known
    y, x = np.nonzero(objects)
    _, first, owner, area = np.unique(
        sample.instances[y, x], return_index=True, return_inverse=True, return_counts=True
    )
    kinds = np.zeros(len(area))
    if sample.instance_types is not None:
        kinds = sample.instance_types[y[first], x[first]].astype(float)
    centre_y = np.bincount(owner, weights=y, minlength=len(area)) / np.maximum(area, 1)
    centre_x = np.bincount(owner, weights=x, minlength=len(area)) / np.maximum(area, 1)
    return np.column_stack([kinds, np.full(len(area), number), centre_y + 0.5, centre_x + 0.5])
