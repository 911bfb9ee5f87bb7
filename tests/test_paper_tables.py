"""Rows of the papers' tables: their columns, the averages under them, and what is said beside."""

from __future__ import annotations

import pandas as pd
import pytest

from napari_coseg.core.errors import SettingsError
from napari_coseg.labels.metrics.averaging import AS_RELEASED, MEAN, POOLED, SCORES
from napari_coseg.labels.metrics.paper_tables import OBJECTS, REGIONS, TABLES, paper_row, tables_of


def scores(*rows: tuple[str, str, str, str, float]) -> pd.DataFrame:
    """A tidy table of (task, class, image, metric, value)."""
    return pd.DataFrame(rows, columns=["task", "class", "image", "metric", "value"])


GLANDS = scores(
    ("regions", "Gland", "a", "HD_um", 4.0),
    ("regions", "Gland", "b", "HD_um", float("inf")),
    ("regions", "Gland", MEAN, "Dice", 0.1),
    ("regions", "Gland", AS_RELEASED, "Dice", 0.9156),
    ("regions", "Gland", AS_RELEASED, "IoU", 0.85471),
    ("regions", "Gland", AS_RELEASED, "HD_um", 135.283),
    ("regions", "Gland", AS_RELEASED, "PQ", 0.6532),
    ("regions", "Gland", POOLED, "Dice", 0.9),
    ("regions", "Gland", POOLED, "IoU", 0.81),
    ("regions", "Gland", POOLED, "PQ", 0.5),
    ("objects", "inflammatory", AS_RELEASED, "F1", 0.6946),
    ("objects", "inflammatory", AS_RELEASED, "PQ", float("nan")),
)


def lines_of(name: str, table: pd.DataFrame = GLANDS, pixel_size_um: float = 0.5) -> list[str]:
    return paper_row(table, name, "ours", pixel_size_um).splitlines()


def test_a_row_stands_under_the_papers_columns() -> None:
    assert lines_of("glas")[:6] == [
        "**Co-Seg++, table 1: semantic segmentation**",
        "",
        "|  | Gland Dice | Gland mIoU | Gland HD (um) |",
        "| --- | ---: | ---: | ---: |",
        "| ours | 91.56 | 85.47 | 135.28 |",
        "| ours, pooled | 90.00 | 81.00 | - |",
    ]


def test_the_papers_distance_stands_beside_ours_where_it_was_measured() -> None:
    more = scores(("regions", "Gland", AS_RELEASED, "HD_1024px", 277.06))
    text = lines_of("glas", pd.concat([GLANDS, more]))
    assert text[2:6] == [
        "|  | Gland Dice | Gland mIoU | Gland HD (um) | Gland HD (px at 1024 x 1024) |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| ours | 91.56 | 85.47 | 135.28 | 277.06 |",
        "| ours, pooled | 90.00 | 81.00 | - | - |",
    ]
    assert "stretched to 1024 x 1024 (next column), and a pixel" in text[-1]


def test_names_of_other_datasets_are_known_and_gaps_are_dashes() -> None:
    text = lines_of("glas")
    assert "| ours | - | - | 69.46 | - | - | - |" in text
    panoptic = "|  | Semantic Gland PQ | Instance Epithelial PQ | Instance LR PQ | "
    assert f"{panoptic}Instance Connective PQ |" in text
    assert "| ours | 65.32 | - | - | - |" in text


SAID = {
    "how many images a distance leaves out": ("glas", "Gland: 1 of 2 left out"),
    "what a pixel is": ("glas", "a pixel of this dataset is 0.5 um"),
    "which objects match": ("consep", "IoU above 0.5"),
    "which images count": ("glas", "false positives on other images cost nothing"),
    "how Dice counts images without the class": ("bcss", "1 where neither"),
    "that the second row is pooled": ("dsb2018", "Second row: pooled"),
}


@pytest.mark.parametrize("name, sentence", SAID.values(), ids=SAID)
def test_what_was_averaged_is_said(name: str, sentence: str) -> None:
    assert sentence in lines_of(name)[-1]


def test_nothing_is_said_of_what_is_not_in_the_table() -> None:
    assert "HD" not in lines_of("consep")[-1]
    assert "PQ" not in lines_of("bcss")[-1]
    assert "nan" not in lines_of("glas", pixel_size_um=float("nan"))[-1]


# name, number of columns of each table as the papers print them
COLUMNS = {
    "puma": (6, 6, 5),
    "crag": (3, 6, 4),
    "glas": (3, 6, 4),
    "toothfairy2": (9, 4, 5),
    "bcss": (6,),
    "dsb2018": (2,),
    "consep": (6,),
    "puma-co-seg": (3, 4, 6),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_the_papers_number_of_columns(name: str) -> None:
    assert tuple(len(table.headings) for table in TABLES[name]) == COLUMNS[name]
    for table in TABLES[name]:
        assert len(set(table.headings)) == len(table.headings)
        assert set(table.scores) <= set(SCORES)
        for structure in table.structures:
            assert structure.task in (OBJECTS, REGIONS)
            assert structure.classes == tuple(c.lower() for c in structure.classes)


def test_columns_stand_in_the_papers_order() -> None:
    assert TABLES["toothfairy2"][2].headings == [
        "Semantic Lower Jawbone PQ",
        "Instance Lower Teeth PQ",
        "Semantic Upper Jawbone PQ",
        "Instance Upper Teeth PQ",
        "Semantic Pharynx PQ",
    ]


def test_a_name_that_is_not_known_is_told_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="'pumas'; choose one of puma, crag"):
        tables_of("pumas")


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    assert "| a\\|b | 91.56" in paper_row(GLANDS, "glas", "a|b", 0.5)
