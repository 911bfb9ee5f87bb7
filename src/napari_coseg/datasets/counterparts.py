"""Match equivalent classes of a model and a dataset, by name or by known synonyms.

CoNSeP and Lizard both group the nuclei of colon H&E. CoNSeP's inflammatory cells are Lizard's
lympho-reticular ones (neutrophils, lymphocytes, plasma cells, eosinophils); its spindle-shaped ones
(fibroblasts, muscle, endothelium) are closest to connective tissue cells, though not the same.
Co-Seg++, table 10, compares them so (a model with Lizard's classes on CoNSeP). CoNSeP's
miscellaneous nuclei have no counterpart.
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
"""Sets of equivalent object class names, in lower case."""
SAME_REGIONS: tuple[frozenset[str], ...] = (frozenset({"tumor", "tumour"}),)
"""Sets of equivalent region class names, in lower case."""


class Pair(NamedTuple):
    """A class of a model and the class of the labels that it is compared with."""

    ours: LabelClass
    theirs: LabelClass

    @property
    def is_same_name(self) -> bool:
        return self.ours.name.lower() == self.theirs.name.lower()

    @property
    def name(self) -> str:
        """Name in score tables: the model's spelling, or the labels' class if the two differ."""
        return self.ours.name if self.is_same_name else self.theirs.name


def pair_classes(
    ours: Sequence[LabelClass], theirs: Sequence[LabelClass], same: Sequence[frozenset[str]]
) -> tuple[Pair, ...]:
    """Pair our classes with theirs, in our order; each is in one pair at most.

    An equal name (ignoring case) takes precedence over an equivalent one of `same`.
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


def describe_pairs(
    pairs: Sequence[Pair], ours: Sequence[LabelClass], theirs: Sequence[LabelClass]
) -> str:
    """Describe what is compared, and which classes have no counterpart."""
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
