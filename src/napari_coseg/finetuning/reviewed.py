"""Images with labels, and masks of where a person reviewed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE, LabelClass, id_lookup
from napari_coseg.datasets.base import Sample
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.intensity import measure_intensity
from napari_coseg.labels.measure.rows import classes_of_ids, ids_in, row_lookup

NOTHING_REVIEWED = (
    "nothing is reviewed, so there is nothing to train on: mark regions or objects as reviewed "
    "first (in a labelled folder, all of an image counts unless known/ says otherwise)"
)

if TYPE_CHECKING:
    import pandas as pd


LABEL_DTYPES: dict[str, type[np.generic]] = {
    "semantic": np.uint8,
    "instances": LABEL_DTYPE,
    "instance_types": np.uint8,
    "semantic_known": np.bool_,
    "instances_known": np.bool_,
}


@dataclass(frozen=True, eq=False)
class ReviewedImage(Sample):
    """One plane, or a part of one, with labels and where they were reviewed. Treat as read-only.

    As `Sample`, but a task that has labels has a mask of where they are known to be right, too.

    Parameters
    ----------
    name
        Of the image; the same for every part of it.
    pixel_size_um
        None where it is not known. It is then assumed to be the base model's, as
        `napari_coseg.segment` does.
    instance_types
        0 where the class of an object is not known.
    range
        Values of `image` that a stretch of the *whole* image makes 0 and 255
        (`napari_coseg.images.intensity`); None measures `image`, as if it were the whole.
    """

    pixel_size_um: float | None  # type: ignore[assignment]  # known by the time that crops are cut
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, dtype in LABEL_DTYPES.items():
            labels = getattr(self, kind)
            if labels is not None and labels.dtype != dtype:
                raise DatasetError(
                    f"{kind} of {self.name!r} has dtype {labels.dtype}; expected {np.dtype(dtype)}"
                )
        for kind in ("semantic", "instances"):
            if (getattr(self, kind) is None) != (getattr(self, f"{kind}_known") is None):
                raise DatasetError(
                    f"image {self.name!r} has only one of {kind} and {kind}_known; give both"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        y, x = self.image.shape[:2]
        return int(y), int(x)

    @property
    def reviewed(self) -> np.ndarray:
        """bool, (Y, X): where any task was reviewed."""
        masks = [m for m in (self.semantic_known, self.instances_known) if m is not None]
        return np.logical_or.reduce([np.zeros(self.shape, bool), *masks])

    def stretched(self) -> ReviewedImage:
        """The image stretched to its own range, as a model sees it whose card says so."""
        low, high = self.range or _range(self.image)
        image = (self.image.astype(np.float32) - low) * (255 / (high - low))
        return replace(self, image=np.rint(image.clip(0, 255)).astype(np.uint8), range=(0.0, 255.0))

    def crop(self, where: tuple[slice, ...]) -> ReviewedImage:
        """A part of the image; `where` are rows and columns."""
        parts: dict[str, Any] = {
            name: np.ascontiguousarray(array[where])
            for name, array in vars(self).items()
            if isinstance(array, np.ndarray)
        }
        return replace(self, **parts)

    def with_ids(self, regions: np.ndarray | None, types: np.ndarray | None) -> ReviewedImage:
        """With other class ids, from tables uint8 (256,); without the labels that have no table."""
        semantic, reviewed, kinds = self.semantic, self.semantic_known, self.instance_types
        if semantic is not None:
            semantic = None if regions is None else regions[semantic]
        return replace(
            self,
            semantic=semantic,
            semantic_known=None if semantic is None else reviewed,
            instance_types=None if types is None or kinds is None else types[kinds],
        )

    def within(self, regions: np.ndarray, objects: np.ndarray) -> ReviewedImage:
        """What was reviewed inside masks, bool (Y, X); objects that theirs cuts are not known."""
        semantic_known, objects_known = self.semantic_known, self.instances_known
        return replace(
            self,
            semantic_known=None if semantic_known is None else semantic_known & regions,
            instances_known=None if objects_known is None else objects_known & objects,
        ).without_cut_objects()

    def without_cut_objects(self) -> ReviewedImage:
        """Without the review of objects that reach beyond what was reviewed.

        Their outlines and centres were not looked at as a whole.
        """
        if self.instances is None or self.instances_known is None:
            return self
        cut = np.unique(self.instances[~self.instances_known])
        whole = (self.instances == 0) | ~np.isin(self.instances, cut)
        return replace(self, instances_known=self.instances_known & whole)


def class_lookup(theirs: Iterable[LabelClass], number_of: Mapping[str, int]) -> np.ndarray:
    """uint8 (256,): from class ids to the numbers of their names in lower case; 0 where unknown."""
    return id_lookup({entry.id: number_of.get(entry.name.lower(), 0) for entry in theirs})


def types_of(labels: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """uint8, of the labels' shape: the class of the object at each pixel, by ``id`` of a table."""
    ids = ids_in(labels)
    class_ids, _ = classes_of_ids(table, ids)
    by_row: np.ndarray = np.concatenate([[0], class_ids]).astype(np.uint8)
    return by_row[row_lookup(ids)(labels)]


def _range(image: np.ndarray) -> tuple[float, float]:
    found = measure_intensity(RgbSource(understand(image, "YXC")), stretch=True)
    return found.low, found.high


@dataclass(frozen=True)
class FoundBy:
    """The model whose labels a person then corrected: its name, and its weights file's hash."""

    model: str
    sha256: str


@dataclass(frozen=True)
class Reviews:
    """How much was reviewed.

    Parameters
    ----------
    images
        With anything reviewed, whatever their number of parts.
    area_px
        Pixels with any task reviewed.
    objects
        Whole reviewed objects.
    objects_by_class, region_px_by_class
        By name of class; classes without any have 0.
    """

    images: int
    area_px: int
    objects: int
    objects_by_class: dict[str, int]
    region_px_by_class: dict[str, int]


@dataclass(frozen=True, eq=False)
class ReviewedSet:
    """Reviewed images and what their class ids mean.

    Parameters
    ----------
    images
        Objects that the border of a reviewed region cuts are left out by `checked`.
    semantic_classes, instance_classes
        Of all images.
    source
        Where they come from, for messages.
    found_by
        The models whose labels were corrected; empty for labels drawn by hand.
    """

    images: tuple[ReviewedImage, ...]
    semantic_classes: tuple[LabelClass, ...] = ()
    instance_classes: tuple[LabelClass, ...] = ()
    source: str = "the reviewed images"
    found_by: tuple[FoundBy, ...] = ()

    def checked(self) -> ReviewedSet:
        """Images with anything reviewed, without the objects that a border cuts.

        Raises
        ------
        DatasetError
            Where nothing is reviewed, or labels hold classes that have no name.
        """
        whole = tuple(image.without_cut_objects() for image in self.images)
        images = tuple(image for image in whole if image.reviewed.any())
        if not images:
            raise DatasetError(f"{self.source}: {NOTHING_REVIEWED}")
        for image in images:
            for kind, labels, known, classes in (
                ("region", image.semantic, image.semantic_known, self.semantic_classes),
                ("object", image.instance_types, image.instances_known, self.instance_classes),
            ):
                if labels is not None and known is not None:
                    self._check_ids(image.name, kind, labels[known], classes)
        return replace(self, images=images)

    def reviews(self) -> Reviews:
        """Count what was reviewed."""
        objects: Counter[int] = Counter()
        regions: Counter[int] = Counter()
        area, names = 0, set()
        for image in self.images:
            reviewed = image.reviewed
            area += int(reviewed.sum())
            names |= {image.name} if reviewed.any() else set()
            objects += _count_objects(image)
            if image.semantic is not None:
                ids = image.semantic[image.semantic_known]
                regions += Counter(dict(enumerate(np.bincount(ids, minlength=256).tolist())))
        return Reviews(
            images=len(names),
            area_px=area,
            objects=objects.total(),
            objects_by_class={c.name: objects[c.id] for c in self.instance_classes},
            region_px_by_class={c.name: regions[c.id] for c in self.semantic_classes},
        )

    def _check_ids(
        self, name: str, kind: str, ids: np.ndarray, classes: tuple[LabelClass, ...]
    ) -> None:
        strange = set(np.unique(ids).tolist()) - {0, *(c.id for c in classes)}
        if strange:
            raise DatasetError(
                f"{self.source}: {kind} labels of {name!r} hold the classes {sorted(strange)}, "
                f"which have no name; named are "
                f"{', '.join(f'{c.id} {c.name}' for c in classes) or 'none'}"
            )


def _count_objects(image: ReviewedImage) -> Counter[int]:
    """Reviewed objects by class id, 0 where it is not known."""
    if image.instances is None or image.instances_known is None:
        return Counter()
    inside = np.where(image.instances_known, image.instances, 0)
    ids, first = np.unique(inside, return_index=True)
    first = first[ids > 0]
    if image.instance_types is None:
        return Counter({0: len(first)})
    return Counter(image.instance_types.reshape(-1)[first].tolist())
