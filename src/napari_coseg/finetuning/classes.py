"""Which classes an adapter has, and which of the base's each of them comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings

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
    semantic_numbers, instance_numbers
        Ids of `card` by name, in lower case; by the names that classes of the base had, too.
    notes
        What is worth knowing before the start.
    """

    card: ModelCard
    semantic_origins: Origins
    instance_origins: Origins
    semantic_numbers: dict[str, int]
    instance_numbers: dict[str, int]
    notes: tuple[str, ...] = ()

    def applied(self, reviewed: ReviewedSet) -> ReviewedSet:
        """A set with the card's class ids.

        Labels of a task without classes are left out. Regions that the card does not name are
        background; objects of such a class have none that is known.
        """
        regions = _ids(reviewed.semantic_classes, self.semantic_numbers)
        types = _ids(reviewed.instance_classes, self.instance_numbers)
        return replace(
            reviewed,
            images=tuple(_with_ids(image, regions, types) for image in reviewed.images),
            semantic_classes=self.card.semantic_label_classes,
            instance_classes=self.card.instance_label_classes,
        )

    def check_known(self, reviewed: ReviewedSet) -> None:
        """See that all that is labelled in other images than the user's has a class here.

        Raises
        ------
        DatasetError
            With the names that are unknown, and those that are known.
        """
        counts, told = reviewed.reviews(), []
        for kind, labelled, numbers, entries in (
            (
                "region",
                counts.region_px_by_class,
                self.semantic_numbers,
                self.card.semantic_classes,
            ),
            ("object", counts.objects_by_class, self.instance_numbers, self.card.instance_classes),
        ):
            unknown = [name for name, n in labelled.items() if n and name.lower() not in numbers]
            if unknown and numbers:  # without classes of its own a model takes no such labels
                known = ", ".join(entry.name for entry in entries)
                told.append(
                    f"the {kind} class{'es' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}; "
                    f"it knows {known}"
                )
        if told:
            raise DatasetError(
                f"{reviewed.source}: the model does not know {', nor '.join(told)}. Leave these "
                "labels out, or rename the classes"
            )


def _ids(classes: Sequence[LabelClass], numbers: Mapping[str, int]) -> np.ndarray | None:
    """Table, uint8 (256,), from a set's class ids to the card's; None where there are none."""
    if not classes or not numbers:
        return None
    table = np.zeros(256, np.uint8)
    for entry in classes:
        table[entry.id] = numbers.get(entry.name.lower(), 0)
    return table


def _with_ids(
    image: ReviewedImage, regions: np.ndarray | None, types: np.ndarray | None
) -> ReviewedImage:
    semantic, reviewed = image.semantic, image.semantic_reviewed
    if semantic is not None:
        semantic = None if regions is None else regions[semantic]
        reviewed = None if regions is None else reviewed
    kinds = None if types is None or image.types is None else types[image.types]
    return replace(image, semantic=semantic, semantic_reviewed=reviewed, types=kinds)


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
        card, semantic.origins, instance.origins, semantic.numbers, instance.numbers, tuple(notes)
    )


@dataclass(frozen=True, eq=False)
class _Task:
    classes: tuple[ClassEntry, ...]
    origins: Origins
    numbers: dict[str, int]
    new: tuple[str, ...]
    known: tuple[str, ...]
    theirs: tuple[str, ...]

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
        numbers = {entry.name.lower(): entry.id for entry in entries}
        numbers |= {old: numbers[name] for old, name in known.items()}
        origins = [tuple(entry.id for entry in of) for of in found.values()]
        return cls(
            tuple(entries),
            (*origins, *(() for _ in new)),
            numbers,
            tuple(c.name for c in new.values()),
            tuple(entry.name for entry in base),
            tuple(c.name for c in theirs),
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
    there = {task.numbers[name.lower()] for name in task.theirs if lower.get(name.lower())}
    none = [entry.name for entry in task.classes if entry.id not in there]
    if there and none:
        yield f"no reviewed {kind} of the class {', '.join(none)}: it may be found less well after"
