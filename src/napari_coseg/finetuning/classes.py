"""Which classes an adapter has, and which of the base's each of them comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_coseg.card import ClassEntry, ModelCard
from napari_coseg.errors import DatasetError, SettingsError
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.types import LabelClass

Origins = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class ClassPlan:
    """The classes after fine-tuning.

    Parameters
    ----------
    card
        The base's, with these classes.
    semantic_origins, instance_origins
        For each class the ids of the base's classes it comes from; none of a new one.
    semantic_ids, instance_ids
        uint8 (256,), from the reviewed images' class ids to the card's; None where the reviewed
        images have no such classes.
    notes
        What is worth knowing before the start.
    """

    card: ModelCard
    semantic_origins: Origins
    instance_origins: Origins
    semantic_ids: np.ndarray | None
    instance_ids: np.ndarray | None
    notes: tuple[str, ...] = ()

    def applied(self, reviewed: ReviewedSet) -> ReviewedSet:
        """The set with the card's class ids; labels of a task without classes are left out."""
        return replace(
            reviewed,
            images=tuple(map(self._with_ids, reviewed.images)),
            semantic_classes=self.card.semantic_label_classes,
            instance_classes=self.card.instance_label_classes,
        )

    def _with_ids(self, image: ReviewedImage) -> ReviewedImage:
        regions, types = self.semantic_ids, self.instance_ids
        if image.semantic is not None and regions is None:
            image = replace(image, semantic=None, semantic_reviewed=None)
        if image.semantic is not None and regions is not None:
            image = replace(image, semantic=regions[image.semantic])
        if image.types is not None:
            image = replace(image, types=None if types is None else types[image.types])
        return image


def plan_classes(base: ModelCard, reviewed: ReviewedSet, settings: FinetuneSettings) -> ClassPlan:
    """Classes are the same where their names are, in any case of letters.

    Raises
    ------
    DatasetError
        Where the reviewed images have classes that the base does not know and none may be added,
        or a new class has nothing reviewed.
    SettingsError
        Where a class to be renamed or merged is not there, or a name would be given twice.
    """
    _check_names(base, settings)
    semantic = _Task.of(base.semantic_classes, reviewed.semantic_classes, settings)
    instance = _Task.of(base.instance_classes, reviewed.instance_classes, settings)
    unknown = [("region", semantic), ("object", instance)]
    if not settings.add_classes and any(task.new for _, task in unknown):
        raise DatasetError(
            f"{reviewed.source}: " + "; ".join(_told(kind, t) for kind, t in unknown if t.new)
        )
    counts = reviewed.reviews()
    notes = [
        *_check_empty("region", semantic, counts.region_px_by_class, reviewed.source),
        *_check_empty("object", instance, counts.objects_by_class, reviewed.source),
    ]
    card = base.model_copy(
        update={"semantic_classes": semantic.classes, "instance_classes": instance.classes}
    )
    return ClassPlan(
        card, semantic.origins, instance.origins, semantic.ids, instance.ids, tuple(notes)
    )


@dataclass(frozen=True, eq=False)
class _Task:
    classes: tuple[ClassEntry, ...]
    origins: Origins
    ids: np.ndarray | None
    new: tuple[str, ...]
    known: tuple[str, ...]

    @classmethod
    def of(
        cls,
        base: Sequence[ClassEntry],
        theirs: Sequence[LabelClass],
        settings: FinetuneSettings,
    ) -> _Task:
        found = _old_classes(base, settings)
        known = {entry.name.lower(): name.lower() for name, of in found.items() for entry in of}
        known |= {name.lower(): name.lower() for name in found}
        new = {c.name.lower(): c for c in theirs if c.name.lower() not in known}
        entries = [
            ClassEntry(id=number, name=name, color=of[0].color)
            for number, (name, of) in enumerate(found.items(), 1)
        ]
        entries += [
            ClassEntry(id=number, name=c.name, color=c.color)
            for number, c in enumerate(new.values(), len(entries) + 1)
        ]
        number_of = {entry.name.lower(): entry.id for entry in entries}
        ids = np.zeros(256, np.uint8)
        for c in theirs:
            name = c.name.lower()
            ids[c.id] = number_of[known.get(name, name)]
        origins = [tuple(entry.id for entry in of) for of in found.values()]
        return cls(
            tuple(entries),
            (*origins, *(() for _ in new)),
            ids if theirs else None,
            tuple(c.name for c in new.values()),
            tuple(entry.name for entry in base),
        )


def _old_classes(
    base: Sequence[ClassEntry], settings: FinetuneSettings
) -> dict[str, list[ClassEntry]]:
    """New name -> the base's classes of that name, in the base's order, or as they are merged."""
    by_name = {entry.name.lower(): entry for entry in base}
    merged = {
        old.lower(): (new, [by_name[o.lower()] for o in olds if o.lower() in by_name])
        for new, olds in settings.merge.items()
        for old in olds
    }
    renamed = {old.lower(): new for old, new in settings.rename.items()}
    found: dict[str, list[ClassEntry]] = {}
    for entry in base:
        name, entries = merged.get(entry.name.lower(), (entry.name, [entry]))
        name = renamed.get(name.lower(), name)
        if name.lower() in {n.lower() for n in found} and name not in found:
            raise SettingsError(
                f"two classes would be called {name!r}; rename or merge one of them"
            )
        if name in found and entry not in found[name]:
            raise SettingsError(f"two classes would be called {name!r}; merge them instead")
        found.setdefault(name, entries)
    return found


def _check_names(base: ModelCard, settings: FinetuneSettings) -> None:
    """What is renamed or merged is there, and in one place only."""
    known = [e.name for e in (*base.semantic_classes, *base.instance_classes)]
    lower = {name.lower() for name in known} | {name.lower() for name in settings.merge}
    asked = [*settings.rename, *(old for olds in settings.merge.values() for old in olds)]
    missing = [name for name in asked if name.lower() not in lower]
    if missing:
        raise SettingsError(
            f"the base has no class {', '.join(map(repr, missing))} to rename or merge; it has "
            f"{', '.join(known) or 'none'}"
        )
    olds = [old.lower() for olds in settings.merge.values() for old in olds]
    twice = sorted({old for old in olds if olds.count(old) > 1})
    if twice:
        raise SettingsError(f"{', '.join(twice)} cannot be merged into two classes")


def _told(kind: str, task: _Task) -> str:
    near = {
        name: difflib.get_close_matches(name.lower(), [k.lower() for k in task.known], n=1)
        for name in task.new
    }
    hints = [f"{name!r} ({close[0]!r}?)" if close else repr(name) for name, close in near.items()]
    return (
        f"the base does not know the {kind} class{'es' * (len(task.new) > 1)} {', '.join(hints)}; "
        f"it knows {', '.join(task.known) or 'none'}. Rename a class of the base to it, merge, or "
        "allow new classes to be added"
    )


def _check_empty(kind: str, task: _Task, counts: Mapping[str, int], source: str) -> Iterable[str]:
    """New classes need something reviewed; of old ones without any, a note."""
    lower = {name.lower(): count for name, count in counts.items()}
    empty = [name for name in task.new if not lower.get(name.lower())]
    if empty:
        raise DatasetError(
            f"{source}: nothing of the new {kind} class {', '.join(map(repr, empty))} is reviewed, "
            "so it cannot be learnt; label and review some, or take the class away"
        )
    if task.ids is None:
        return
    known = {int(task.ids[number]) for number in np.flatnonzero(task.ids)}
    none = [e.name for e in task.classes if e.id not in known or _none_of(e.name, lower)]
    if none and len(none) < len(task.classes):
        yield f"no reviewed {kind} of the class {', '.join(none)}: it may be found less well after"


def _none_of(name: str, counts: Mapping[str, int]) -> bool:
    return counts.get(name.lower(), 1) == 0
