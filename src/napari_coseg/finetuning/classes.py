"""Plans an adapter's classes: which it has, and which of the base's each of them comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning.reviewed import ReviewedSet, class_lookup
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
        Ids of `card` by name, in lower case, and by the names that classes of the base had.
    notes
        For the user.
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
        background; the class of an object whose class it does not name is unknown.
        """

        def table(theirs: Sequence[LabelClass], numbers: Mapping[str, int]) -> np.ndarray | None:
            return class_lookup(theirs, numbers) if theirs and numbers else None

        regions = table(reviewed.semantic_classes, self.semantic_numbers)
        types = table(reviewed.instance_classes, self.instance_numbers)
        return replace(
            reviewed,
            images=tuple(image.with_ids(regions, types) for image in reviewed.images),
            semantic_classes=self.card.semantic_label_classes,
            instance_classes=self.card.instance_label_classes,
        )

    def check_known(self, reviewed: ReviewedSet) -> None:
        """Check that every class labelled in other images than the user's exists here.

        Raises
        ------
        DatasetError
            With the names that are unknown, and those that are known.
        """
        counts, card, found = reviewed.reviews(), self.card, []
        for kind, labelled, numbers, entries in (
            ("region", counts.region_px_by_class, self.semantic_numbers, card.semantic_classes),
            ("object", counts.objects_by_class, self.instance_numbers, card.instance_classes),
        ):
            unknown = [name for name, n in labelled.items() if n and name.lower() not in numbers]
            if unknown and numbers:  # a model without classes of its own takes no such labels
                names = ", ".join(entry.name for entry in entries)
                found.append(f"{_classes(kind, map(repr, unknown))}; it knows {names}")
        if found:
            raise DatasetError(
                f"{reviewed.source}: the model does not know {', nor '.join(found)}. Leave these "
                "labels out, or rename the classes"
            )


def plan_classes(base: ModelCard, reviewed: ReviewedSet, settings: FinetuneSettings) -> ClassPlan:
    """Classes of the same name are the same, in upper or lower case.

    Raises
    ------
    DatasetError
        Where the reviewed images have classes that the base does not know and none may be added,
        or a new class has nothing reviewed.
    SettingsError
        Where a class to be renamed or merged does not exist, or a name would be given twice.
    """
    _check_names(base, settings)
    counts = reviewed.reviews()
    semantic = _TaskClasses.of(base.semantic_classes, reviewed.semantic_classes, settings)
    instance = _TaskClasses.of(base.instance_classes, reviewed.instance_classes, settings)
    tasks = [
        ("region", semantic, reviewed.semantic_classes, counts.region_px_by_class),
        ("object", instance, reviewed.instance_classes, counts.objects_by_class),
    ]
    unknown = [_unknown(kind, task) for kind, task, *_ in tasks if task.new]
    if unknown and not settings.add_classes:
        raise DatasetError(f"{reviewed.source}: " + "; ".join(unknown))
    notes = [note for task in tasks for note in _check_empty(*task, reviewed.source)]
    card = base.model_copy(
        update={"semantic_classes": semantic.classes, "instance_classes": instance.classes}
    )
    return ClassPlan(
        card, semantic.origins, instance.origins, semantic.numbers, instance.numbers, tuple(notes)
    )


class _TaskClasses(NamedTuple):
    """Classes of one task: as `ClassPlan`, the names that are new, and those of the base."""

    classes: tuple[ClassEntry, ...]
    origins: Origins
    numbers: dict[str, int]
    new: tuple[str, ...]
    known: tuple[str, ...]

    @classmethod
    def of(
        cls,
        base: Sequence[ClassEntry],
        theirs: Sequence[LabelClass],
        settings: FinetuneSettings,
    ) -> _TaskClasses:
        kept = _kept_classes(base, settings)
        names = {entry.name.lower(): name.lower() for name, of in kept.items() for entry in of}
        names |= {name.lower(): name.lower() for name in kept}
        new = {c.name.lower(): c for c in theirs if c.name.lower() not in names}
        colors = [(name, of[0].color) for name, of in kept.items()]
        colors += [(c.name, c.color) for c in new.values()]
        entries = tuple(
            ClassEntry(id=number, name=name, color=color)
            for number, (name, color) in enumerate(colors, 1)
        )
        numbers = {entry.name.lower(): entry.id for entry in entries}
        numbers |= {old: numbers[name] for old, name in names.items()}
        origins = [tuple(entry.id for entry in of) for of in kept.values()]
        return cls(
            entries,
            (*origins, *(() for _ in new)),
            numbers,
            tuple(c.name for c in new.values()),
            tuple(entry.name for entry in base),
        )


def _kept_classes(
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
    kept: dict[str, list[ClassEntry]] = {}
    for entry in base:
        name, entries = merged.get(entry.name.lower(), (entry.name, [entry]))
        name = renamed.get(name.lower(), name)
        taken = name.lower() in {n.lower() for n in kept}
        if taken and entry not in kept.get(name, ()):
            raise SettingsError(
                f"two classes would be called {name!r}; rename one of them, or merge them"
            )
        kept.setdefault(name, entries)
    return kept


def _check_names(base: ModelCard, settings: FinetuneSettings) -> None:
    """Check that what is renamed or merged exists, and is merged into one class only."""
    known = [e.name for e in (*base.semantic_classes, *base.instance_classes)]
    olds = [old for group in settings.merge.values() for old in group]
    lower = {name.lower() for name in (*known, *settings.merge)}
    missing = [name for name in (*settings.rename, *olds) if name.lower() not in lower]
    if missing:
        raise SettingsError(
            f"the base has no class {', '.join(map(repr, missing))} to rename or merge; it has "
            f"{', '.join(known) or 'none'}"
        )
    olds = [old.lower() for old in olds]
    twice = sorted({old for old in olds if olds.count(old) > 1})
    if twice:
        raise SettingsError(f"{', '.join(twice)} cannot be merged into two classes")


def _unknown(kind: str, task: _TaskClasses) -> str:
    hints = []
    for name in task.new:
        near = difflib.get_close_matches(name.lower(), [k.lower() for k in task.known], n=1)
        hints.append(f"{name!r} ({near[0]!r}?)" if near else repr(name))
    return (
        f"the base does not know {_classes(kind, hints)}; it knows "
        f"{', '.join(task.known) or 'none'}. Rename a class of the base to it, merge, or allow new "
        "classes to be added"
    )


def _classes(kind: str, names: Iterable[str]) -> str:
    found = list(names)
    return f"the {kind} class{'es' * (len(found) > 1)} {', '.join(found)}"


def _check_empty(
    kind: str,
    task: _TaskClasses,
    theirs: Sequence[LabelClass],
    counts: Mapping[str, int],
    source: str,
) -> Iterator[str]:
    """New classes need something reviewed; old ones without any give a note."""
    lower = {name.lower(): count for name, count in counts.items()}
    empty = [name for name in task.new if not lower.get(name.lower())]
    if empty:
        raise DatasetError(
            f"{source}: nothing of the new {kind} class {', '.join(map(repr, empty))} is reviewed, "
            "so it cannot be trained; label and review some, or remove the class"
        )
    present = {task.numbers[c.name.lower()] for c in theirs if lower.get(c.name.lower())}
    none = [entry.name for entry in task.classes if entry.id not in present]
    if present and none:
        yield f"no reviewed {kind} of the class {', '.join(none)}: it may be found less well after"
