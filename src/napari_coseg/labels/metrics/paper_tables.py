"""Scores in the columns of the papers' tables, as Markdown.

Tables 1 to 6 and 10 of Co-Seg++, and 1 to 3 of Co-Seg, by dataset: ``TABLES["puma"]`` are the
columns of PUMA in tables 1, 3 and 5. To add a table, add an entry there.

A paper's number is a mean over images, `labels.metrics.averaging.mean_as_released`. The pooled
scores are in the row below, because false positives on images without a class cost nothing in most
columns of such a mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_coseg.core.errors import SettingsError
from napari_coseg.labels.metrics.averaging import AS_RELEASED, AVERAGES, POOLED

if TYPE_CHECKING:
    import pandas as pd

OBJECTS, REGIONS = "objects", "regions"
"""Tasks."""
ALL = "all"
"""In place of a class: all objects, of any class."""


@dataclass(frozen=True)
class Structure:
    """The class of a group of columns.

    Parameters
    ----------
    heading
        As in the paper.
    task
        `OBJECTS` or `REGIONS`.
    classes
        Its possible names in a dataset, in lower case; the first one found is taken.
    """

    heading: str
    task: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PaperTable:
    """The columns of one dataset in one table: every score of every structure, in order.

    Parameters
    ----------
    title
        Paper, number and topic.
    structures
        From left to right.
    scores
        Of each structure, from left to right; of `napari_coseg.labels.metrics.averaging.SCORES`.
    """

    title: str
    structures: tuple[Structure, ...]
    scores: tuple[str, ...]

    def with_scores(self, known: Iterable[str]) -> PaperTable:
        """With the papers' distance after that in micrometres, if it is among `known`."""
        if "HD_um" not in self.scores or "HD_1024px" not in known:
            return self
        at = self.scores.index("HD_um") + 1
        return replace(self, scores=(*self.scores[:at], "HD_1024px", *self.scores[at:]))

    @property
    def headings(self) -> list[str]:
        """Of the columns, with the task if the table has both."""
        both = len({structure.task for structure in self.structures}) > 1
        named = [
            f"{TASK_HEADINGS[s.task]} {s.heading}" if both else s.heading for s in self.structures
        ]
        return [f"{name} {SCORE_HEADINGS.get(s, s)}" for name in named for s in self.scores]


TASK_HEADINGS = {REGIONS: "Semantic", OBJECTS: "Instance"}
SCORE_HEADINGS = {
    "IoU": "mIoU",
    "HD_um": "HD (um)",
    "HD_1024px": "HD (px at 1024 x 1024)",
    "Precision": "Prec.",
    "Recall": "Rec.",
}
"""The papers' names of scores, where they differ from ours."""

_SEMANTIC, _INSTANCE, _PANOPTIC = ("Dice", "IoU", "HD_um"), ("F1", "AJI"), ("PQ",)

_TISSUES = (
    Structure("Tumor", REGIONS, ("tumor", "tumour")),
    Structure("Stroma", REGIONS, ("stroma",)),
)
_PUMA_NUCLEI = (
    Structure("Tumor", OBJECTS, ("tumor", "tumour")),
    Structure("Lymph", OBJECTS, ("lymphocyte", "lymph")),
    Structure("Other Cells", OBJECTS, ("other", "other cells")),
)
_GLAND = (Structure("Gland", REGIONS, ("gland",)),)
_COLON_NUCLEI = (
    Structure("Epithelial", OBJECTS, ("epithelial",)),
    # CoNSeP's names stand last.
    Structure("LR", OBJECTS, ("lympho-reticular", "inflammatory")),
    Structure("Connective", OBJECTS, ("connective", "spindle")),
)
_LOWER_JAWBONE = Structure("Lower Jawbone", REGIONS, ("lower jawbone",))
_UPPER_JAWBONE = Structure("Upper Jawbone", REGIONS, ("upper jawbone",))
_PHARYNX = Structure("Pharynx", REGIONS, ("pharynx",))
_LOWER_TEETH = Structure("Lower Teeth", OBJECTS, ("lower tooth", "lower teeth"))
_UPPER_TEETH = Structure("Upper Teeth", OBJECTS, ("upper tooth", "upper teeth"))
_TISSUE = (Structure("Tissue", REGIONS, ("tumor", "tumour", "tissue")),)
_NUCLEI = (Structure("Nuclei", OBJECTS, (ALL,)),)

_COLON = (
    PaperTable("Co-Seg++, table 1: semantic segmentation", _GLAND, _SEMANTIC),
    PaperTable("Co-Seg++, table 3: instance segmentation", _COLON_NUCLEI, _INSTANCE),
    PaperTable("Co-Seg++, table 5: panoptic segmentation", (*_GLAND, *_COLON_NUCLEI), _PANOPTIC),
)
TABLES: dict[str, tuple[PaperTable, ...]] = {
    "puma": (
        PaperTable("Co-Seg++, table 1: semantic segmentation", _TISSUES, _SEMANTIC),
        PaperTable("Co-Seg++, table 3: instance segmentation", _PUMA_NUCLEI, _INSTANCE),
        PaperTable(
            "Co-Seg++, table 5: panoptic segmentation", (*_TISSUES, *_PUMA_NUCLEI), _PANOPTIC
        ),
    ),
    "crag": _COLON,
    "glas": _COLON,
    "toothfairy2": (
        PaperTable(
            "Co-Seg++, table 2: semantic segmentation",
            (_LOWER_JAWBONE, _UPPER_JAWBONE, _PHARYNX),
            _SEMANTIC,
        ),
        PaperTable(
            "Co-Seg++, table 4: instance segmentation", (_LOWER_TEETH, _UPPER_TEETH), _INSTANCE
        ),
        PaperTable(
            "Co-Seg++, table 6: panoptic segmentation",
            (_LOWER_JAWBONE, _LOWER_TEETH, _UPPER_JAWBONE, _UPPER_TEETH, _PHARYNX),
            _PANOPTIC,
        ),
    ),
    "bcss": (PaperTable("Co-Seg++, table 10: PUMA to BCSS", _TISSUES, _SEMANTIC),),
    "dsb2018": (
        PaperTable(
            "Co-Seg++, table 10: PUMA to DSB", (Structure("Nucleus", OBJECTS, (ALL,)),), _INSTANCE
        ),
    ),
    "consep": (PaperTable("Co-Seg++, table 10: CRAG to CoNSeP", _COLON_NUCLEI, _INSTANCE),),
    "puma-co-seg": (
        PaperTable("Co-Seg, table 1: tissue", _TISSUE, _SEMANTIC),
        PaperTable("Co-Seg, table 2: nuclei", _NUCLEI, ("F1", "Precision", "Recall", "AJI")),
        PaperTable("Co-Seg, table 3: panoptic", (*_TISSUE, *_NUCLEI), ("PQ", "DQ", "SQ")),
    ),
}
"""By the names for ``napari-coseg evaluate --table``."""

Scores = Mapping[tuple[str, str, str, str], float]
"""By task, class in lower case, image or average, and score."""


def tables_of(name: str) -> tuple[PaperTable, ...]:
    """The tables of a dataset.

    Raises
    ------
    SettingsError
        Where there is none of that name.
    """
    if name not in TABLES:
        raise SettingsError(f"there is no table {name!r}; choose one of {', '.join(TABLES)}")
    return TABLES[name]


def paper_row(scores: pd.DataFrame, name: str, row_name: str, pixel_size_um: float) -> str:
    """A model's rows in the tables ``TABLES[name]``, and the conventions of the averages.

    Parameters
    ----------
    scores
        From `napari_coseg.evaluation.run.evaluate`; with `distances_at_1024` there is a column of
        the papers' distances after that in micrometres.
    row_name
        For the first column.
    pixel_size_um
        Of the dataset, to convert distances; nan if its images differ.

    Returns
    -------
    str
        Markdown: a table with two rows for each of the paper's, then the conventions. A dash means
        that dataset or model lack the class.

    Raises
    ------
    SettingsError
        Where there is no table of that name.
    """
    measured = set(scores["metric"])
    papers = [table.with_scores(measured) for table in tables_of(name)]
    row_name = row_name.replace("|", "\\|")
    known = {
        (row.task, row.class_name.lower(), row.image, row.metric): float(row.value)
        for row in scores.rename(columns={"class": "class_name"}).itertuples()
    }
    tables = [_markdown(table, known, row_name) for table in papers]
    return "\n\n".join([*tables, _conventions(papers, known, pixel_size_um)])


def _markdown(table: PaperTable, known: Scores, row_name: str) -> str:
    lines = [
        ["", *table.headings],
        ["---"] + ["---:"] * len(table.headings),
        [row_name, *_cells(table, known, AS_RELEASED)],
        [f"{row_name}, pooled", *_cells(table, known, POOLED)],
    ]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _cells(table: PaperTable, known: Scores, average: str) -> list[str]:
    return [
        _cell(score, _value(structure, known, average, score))
        for structure in table.structures
        for score in table.scores
    ]


def _value(structure: Structure, known: Scores, average: str, score: str) -> float:
    keys = ((structure.task, name, average, score) for name in structure.classes)
    return next((known[key] for key in keys if key in known), math.nan)


def _cell(score: str, value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value if score.startswith('HD') else 100 * value:.2f}"


def _conventions(tables: Iterable[PaperTable], known: Scores, pixel_size_um: float) -> str:
    used = {score for table in tables for score in table.scores}
    sentences = ["Percent. First row: means over images, as in the released code of Co-Seg++."]
    if used & {"PQ", "F1", "AJI"}:
        sentences.append(
            "PQ, DQ, SQ, F1, precision, recall and AJI are over the images whose labels have the "
            "class, at an IoU above 0.5: false positives on other images cost nothing. PQ of a "
            "region class takes its connected components as objects."
        )
    if "Dice" in used:
        sentences.append(
            "Dice and mIoU are over all images, 1 where neither labels nor prediction have the "
            "class, 0 where only one has; mIoU of one class is the mean of its IoU."
        )
    if "HD_um" in used:
        pixel = (
            f", and a pixel of this dataset is {pixel_size_um:g} um" if pixel_size_um > 0 else ""
        )
        sentences.append(
            "HD is in micrometres, over the images where both have the class "
            f"({_left_out(tables, known)}); the papers give it in pixels of images stretched to "
            f"1024 x 1024{' (next column)' if 'HD_1024px' in used else ''}{pixel}."
        )
    sentences.append(
        "Second row: pooled; pixels and objects of all images are summed before dividing, so false "
        "positives count on every image. A Hausdorff distance is not pooled."
    )
    return " ".join(sentences)


def _left_out(tables: Iterable[PaperTable], known: Scores) -> str:
    """How many images are left out of each class's Hausdorff distance."""
    parts = []
    for table in tables:
        for structure in table.structures if "HD_um" in table.scores else ():
            values = [
                value
                for (task, name, image, score), value in known.items()
                if task == structure.task and name in structure.classes
                if score == "HD_um" and image not in AVERAGES
            ]
            missing = sum(not math.isfinite(value) for value in values)
            parts.append(f"{structure.heading}: {missing} of {len(values)} left out")
    return "; ".join(parts)
