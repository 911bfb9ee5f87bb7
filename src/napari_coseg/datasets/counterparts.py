"""Classes of two lists that stand for the same: by their names, or by what is known of them.

CoNSeP and Lizard both group the nuclei of colon H&E. CoNSeP's inflammatory cells are Lizard's
lympho-reticular ones (neutrophils, lymphocytes, plasma cells, eosinophils); its spindle-shaped ones
(fibroblasts, muscle, endothelium) come nearest to connective tissue cells, which is not quite the
same. Co-Seg++ compares them so: its table 10 has a model of CRAG, with Lizard's classes, on CoNSeP.
CoNSeP's miscellaneous nuclei have no counterpart there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from napari_coseg.core.types import LabelClass

SAME_OBJECTS: tuple[frozenset[str], ...] = (
    frozenset({"inflammatory", "lympho-reticular"}),
    frozenset({"spindle", "connective"}),
    frozenset({"tumor", "tumour", "tumor cell", "tumour cell"}),
    frozenset({"lymphocyte", "lymph"}),
    frozenset({"other", "other cell", "other cells"}),
)
"""Names of object classes, small letters; those in one set stand for the same."""
SAME_REGIONS: tuple[frozenset[str], ...] = (frozenset({"tumor", "tumour"}),)
"""The same of region classes."""


class Pair(NamedTuple):
    """A class of a model and that of the labels which it is compared with."""

    ours: LabelClass
    theirs: LabelClass

    @property
    def is_same_name(self) -> bool:
        return self.ours.name.lower() == self.theirs.name.lower()

    @property
    def name(self) -> str:
        """What scores stand under: the model's spelling; the labels' class where they differ."""
        return self.ours.name if self.is_same_name else self.theirs.name


def pair_classes(
    ours: Sequence[LabelClass], theirs: Sequence[LabelClass], same: Sequence[frozenset[str]]
) -> tuple[Pair, ...]:
    """Which of our classes is which of theirs, in our order; each stands in one pair at most.

    A class of the same name, in upper or lower case, goes before another one that stands for the
    same by `same`.
    """
    found: dict[int, Pair] = {}
    taken: set[int] = set()
    for fits in (_same_name, lambda a, b: any({a, b} <= names for names in same)):
        for mine in ours:
            for other in theirs:
                alike = fits(mine.name.lower(), other.name.lower())
                if alike and mine.id not in found and other.id not in taken:
                    found[mine.id] = Pair(mine, other)
                    taken.add(other.id)
    return tuple(found[mine.id] for mine in ours if mine.id in found)


def _same_name(one: str, other: str) -> bool:
    return one == other


def told(pairs: Sequence[Pair], ours: Sequence[LabelClass], theirs: Sequence[LabelClass]) -> str:
    """In words: what is compared with what, and which classes have no counterpart."""
    compared = [
        pair.name if pair.is_same_name else f"{pair.theirs.name} (the model's {pair.ours.name})"
        for pair in pairs
    ]
    parts = [f"compared: {', '.join(compared) or 'none'}"]
    with_one = {pair.ours.id for pair in pairs}, {pair.theirs.id for pair in pairs}
    for whose, classes, paired in zip(("model", "labels"), (ours, theirs), with_one, strict=True):
        alone = [entry.name for entry in classes if entry.id not in paired]
        if alone:
            parts.append(f"only the {whose} {_has(whose)} {', '.join(alone)}, scored as no class")
    return "; ".join(parts)


def _has(whose: str) -> str:
    return "has" if whose == "model" else "have"
