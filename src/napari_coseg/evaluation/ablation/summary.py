"""Summarise the scores of all trainings of an ablation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95


def summarise(table: pd.DataFrame, rows: Iterable[str]) -> pd.DataFrame:
    """Mean over the seeds with its 95 % interval, and the same for the difference to the last row.

    Differences are per seed, as rows with one seed share crops; intervals are Student's.

    Returns
    -------
    pandas.DataFrame
        Columns row, metric, seeds, mean, interval, difference, difference_interval. The intervals
        are half widths, nan for one seed.
    """
    import pandas as pd

    rows = tuple(rows)
    lines = []
    for metric, of_metric in table.groupby("metric", sort=False):
        by_seed = of_metric.pivot(index="seed", columns="row", values="value")
        for row in rows:
            values, to_last = by_seed[row], by_seed[row] - by_seed[rows[-1]]
            lines.append(
                (
                    row,
                    metric,
                    int(values.notna().sum()),
                    values.mean(),
                    _half_width(values),
                    to_last.mean(),
                    _half_width(to_last),
                )
            )
    columns = ["row", "metric", "seeds", "mean", "interval", "difference", "difference_interval"]
    return pd.DataFrame(lines, columns=columns)


def as_markdown(summary: pd.DataFrame, what: Literal["mean", "difference"] = "mean") -> str:
    """A table with a line per row and a column per metric: mean ± half the interval.

    Parameters
    ----------
    what
        "difference": the differences to the last row instead.
    """
    metrics = list(dict.fromkeys(summary["metric"]))
    lines = [
        "| | " + " | ".join(name.replace("_", " ") for name in metrics) + " |",
        "|---|" + "---|" * len(metrics),
    ]
    rows = list(dict.fromkeys(summary["row"]))
    for row in rows if what == "mean" else rows[:-1]:
        cells = summary[summary["row"] == row].set_index("metric")
        texts = " | ".join(_cell(cells.loc[metric], what) for metric in metrics)
        lines.append(f"| {row} | {texts} |")
    return "\n".join(lines)


def _cell(line: pd.Series, what: str) -> str:
    if what == "mean":
        text, interval = f"{line['mean']:.3f}", line["interval"]
    else:
        text, interval = f"{line['difference']:+.3f}", line["difference_interval"]
    return text if line["seeds"] < 2 else f"{text} ± {interval:.3f}"


def _half_width(values: pd.Series) -> float:
    from scipy import stats

    known = values.dropna()
    if len(known) < 2:
        return float("nan")
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, len(known) - 1)
    return float(quantile * known.std(ddof=1) / len(known) ** 0.5)
