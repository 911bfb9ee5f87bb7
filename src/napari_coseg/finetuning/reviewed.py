"""What a person has reviewed: images with labels, and where these are known to be right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE, LabelClass
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.intensity import measure_intensity

NOTHING_REVIEWED = (
    "nothing is reviewed, so there is nothing to learn from: mark regions or objects as reviewed "
    "first (in a labelled folder, all of an image counts unless known/ says otherwise)"
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ReviewedImage:
    """One plane, or a part of one, with labels and where they were reviewed. Treat as read-only.

    A task whose labels are None has none here; its mask of what was reviewed is then None too.

    Parameters
    ----------
    name
        Of the image; the same for every part of it.
    image
        uint8, (Y, X, 3): red, green, blue, as a network is shown it.
    pixel_size_um
        Micrometres a pixel, the same along both axes; None where it is not known. It is then taken
        to be the base model's, as `napari_coseg.segment` does.
    semantic
        uint8, (Y, X): region class ids, 0 background.
    objects
        int32, (Y, X): object ids, 0 background.
    types
        uint8, (Y, X): the class of the object at each pixel, 0 where it is not known or there is
        none; None where objects have no classes.
    semantic_reviewed, objects_reviewed
        bool, (Y, X): where each task's labels are known to be right. Only there they are learnt.
    range
        Values of `image` that a stretch of the *whole* image makes 0 and 255
        (`napari_coseg.images.intensity`); None measures `image`, as if it were the whole.
    """

    name: str
    image: np.ndarray
    pixel_size_um: float | None
    semantic: np.ndarray | None = None
    objects: np.ndarray | None = None
    types: np.ndarray | None = None
    semantic_reviewed: np.ndarray | None = None
    objects_reviewed: np.ndarray | None = None
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DatasetError(
                f"image {self.name!r} has shape {self.image.shape} and dtype {self.image.dtype}; "
                "expected (Y, X, 3) of uint8"
            )
        for kind, dtype in _KINDS.items():
            labels = getattr(self, kind)
            if labels is not None and (labels.shape, labels.dtype) != (self.shape, dtype):
                raise DatasetError(
                    f"{kind} of {self.name!r} has shape {labels.shape} and dtype {labels.dtype}; "
                    f"its image has {self.shape}, and {np.dtype(dtype)} is expected: labels must "
                    "lie on the image's pixels"
                )
        for labels, reviewed in (
            ("semantic", "semantic_reviewed"),
            ("objects", "objects_reviewed"),
        ):
            if (getattr(self, labels) is None) != (getattr(self, reviewed) is None):
                raise DatasetError(
                    f"image {self.name!r} has only one of {labels} and {reviewed}; give both"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        y, x = self.image.shape[:2]
        return int(y), int(x)

    @property
    def reviewed(self) -> np.ndarray:
        """bool, (Y, X): where any task was reviewed."""
        mask = np.zeros(self.shape, bool)
        for part in (self.semantic_reviewed, self.objects_reviewed):
            if part is not None:
                mask |= part
        return mask

    def stretched(self) -> ReviewedImage:
        """Each image with its own range, as a model sees it whose card says so."""
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

    def within(self, regions: np.ndarray, objects: np.ndarray) -> ReviewedImage:
        """What was reviewed inside masks, bool (Y, X); objects that theirs cuts are not known."""
        semantic_known, objects_known = self.semantic_reviewed, self.objects_reviewed
        return replace(
            self,
            semantic_reviewed=None if semantic_known is None else semantic_known & regions,
            objects_reviewed=None if objects_known is None else objects_known & objects,
        ).without_cut_objects()

    def without_cut_objects(self) -> ReviewedImage:
        """Objects that reach beyond what was reviewed are known nowhere.

        What lies beyond was not looked at, so that neither their outline nor their centre is.
        """
        if self.objects is None or self.objects_reviewed is None:
            return self
        cut = np.unique(self.objects[~self.objects_reviewed])
        cut = cut[cut > 0]
        if not len(cut):
            return self
        return replace(self, objects_reviewed=self.objects_reviewed & ~np.isin(self.objects, cut))


def types_of(labels: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """uint8, of the labels' shape: the class of the object at each pixel, by ``id`` of a table."""
    of = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
    ids = table["id"].to_numpy()
    there = ids < len(of)
    of[ids[there]] = table["class_id"].to_numpy()[there]
    found: np.ndarray = of[labels]
    return found


def _range(image: np.ndarray) -> tuple[float, float]:
    found = measure_intensity(RgbSource(understand(image, "YXC")), stretch=True)
    return found.low, found.high


_KINDS: dict[str, type[np.generic]] = {
    "semantic": np.uint8,
    "objects": LABEL_DTYPE,
    "types": np.uint8,
    "semantic_reviewed": np.bool_,
    "objects_reviewed": np.bool_,
}


@dataclass(frozen=True)
class FoundBy:
    """The model whose labels a person then corrected.

    Parameters
    ----------
    model
        Its name.
    sha256
        Of its weights file, whatever adapter was on it.
    """

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
        As reviewed; objects that the border of a reviewed region cuts are left out by `checked`.
    semantic_classes, instance_classes
        Of all images.
    source
        Where they come from, for messages.
    found_by
        The models that found what was corrected; nothing of labels that were made by hand.
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
            regions, objects = image.semantic_reviewed, image.objects_reviewed
            self._check_ids(image, "region", image.semantic, regions, self.semantic_classes)
            self._check_ids(image, "object", image.types, objects, self.instance_classes)
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
                ids = image.semantic[image.semantic_reviewed]
                regions += Counter(dict(enumerate(np.bincount(ids, minlength=256).tolist())))
        return Reviews(
            images=len(names),
            area_px=area,
            objects=objects.total(),
            objects_by_class={c.name: objects[c.id] for c in self.instance_classes},
            region_px_by_class={c.name: regions[c.id] for c in self.semantic_classes},
        )

    def _check_ids(
        self,
        image: ReviewedImage,
        kind: str,
        labels: np.ndarray | None,
        reviewed: np.ndarray | None,
        classes: tuple[LabelClass, ...],
    ) -> None:
        if labels is None or reviewed is None:
            return
        strange = set(np.unique(labels[reviewed]).tolist()) - {0, *(c.id for c in classes)}
        if strange:
            raise DatasetError(
                f"{self.source}: {kind} labels of {image.name!r} hold the classes "
                f"{sorted(strange)}, which have no name; named are "
                f"{', '.join(f'{c.id} {c.name}' for c in classes) or 'none'}"
            )


def _count_objects(image: ReviewedImage) -> Counter[int]:
    """Reviewed objects by class id, 0 where it is not known."""
    if image.objects is None or image.objects_reviewed is None:
        return Counter()
    inside = np.where(image.objects_reviewed, image.objects, 0)
    ids, first = np.unique(inside, return_index=True)
    first = first[ids > 0]
    if image.types is None:
        return Counter({0: len(first)})
    return Counter(image.types.reshape(-1)[first].tolist())
