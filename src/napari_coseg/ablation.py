"""Ablations: one recipe with a few settings changed, each row trained with several seeds.

    table = run_ablation(recipe, ABLATIONS["components"], seeds=(0, 1, 2), ...)
    summarise(table, rows)  # mean over the seeds, interval, difference to the last row

Co-Seg++ tables 7, 8 and 11 and figure 8. Rows are trained and scored one after the other, each in a
folder of its own; what is there already is not trained again, so that an interrupted ablation goes
on where it stopped, and more seeds may be added later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.errors import SettingsError
from napari_coseg.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.models.base import CosegModel

Score = Callable[["CosegModel", Recipe, Path], dict[str, float]]
"""Scores of a model by name, as `napari_coseg.evaluation.score_held_out` gives."""

COLUMNS = ("row", "seed", "metric", "value")
SCORES_FILE = "scores.json"
CONFIDENCE = 0.95
FRACTIONS = (0.1, 0.3, 0.5)


@dataclass(frozen=True)
class Row:
    """One network of an ablation.

    Parameters
    ----------
    name
        What stands in the table.
    changes
        Settings of the recipe by dotted name, ``card.config.decoder``, and their values.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """Rows to compare. The last one is what the others are compared with."""

    source: str
    rows: tuple[Row, ...]


# Without crossed prompts and without an SSP-Encoder nothing is left of the first forward.
_ONE_FORWARD = {
    "card.config.forwards": 1,
    "losses.first_forward": 0.0,
    "losses.consistency": 0.0,
}
_NO_SSP = {"card.config.prompt_encoder": "mask"}
_NO_MTC = {"card.config.decoder": "plain"}
_OWN_MASKS = {"card.config.crossed": False}


def _factor(value: float) -> Row:
    return Row(f"factor {value:g}", {"losses.first_forward": value})


def _forwards(count: int) -> Row:
    return Row(f"{count} forwards", {"card.config.forwards": count})


ABLATIONS: dict[str, Ablation] = {
    # The paper leaves open what stands in for a part. Ours: for the SSP-Encoder SAM's convolutions
    # of the mask, for the MTC-Decoder upscaling without the two-way transformer; without the
    # co-segmentation paradigm each task is prompted by its own mask, or, where there is no
    # SSP-Encoder either, decoded once.
    "components": Ablation(
        "Co-Seg++, table 7",
        (
            Row("baseline", {**_NO_MTC, **_NO_SSP, **_ONE_FORWARD}),
            Row("SSP", {**_NO_MTC, **_OWN_MASKS}),
            Row("MTC", {**_NO_SSP, **_ONE_FORWARD}),
            Row("co-seg", {**_NO_SSP, **_NO_MTC}),
            Row("SSP + MTC", {**_OWN_MASKS}),
            Row("SSP + co-seg", {**_NO_MTC}),
            Row("MTC + co-seg", {**_NO_SSP}),
            Row("SSP + MTC + co-seg"),
        ),
    ),
    # The question of the paradigm alone, with fewer rows.
    "paradigm": Ablation(
        "Co-Seg++, rows of table 7",
        (
            Row("one forward", {**_NO_SSP, **_ONE_FORWARD}),
            Row("own masks", {**_OWN_MASKS}),
            Row("co-seg"),
        ),
    ),
    "scan": Ablation(
        "Co-Seg++, table 8",
        (
            Row("SSP + SiLU", {"card.config.scan_activation": True}),
            Row(
                "SSP + SiLU + gate",
                {"card.config.scan_activation": True, "card.config.scan_gate": True},
            ),
            Row("SSP"),
        ),
    ),
    "loss-factor": Ablation(
        "Co-Seg++, figure 8 (1)",
        (*(_factor(value) for value in (0.1, 0.3, 0.7, 0.9, 1.0)), _factor(0.5)),
    ),
    "fractions": Ablation(
        "Co-Seg++, table 11",
        (
            *(Row(f"{part:.0%} of the images", {"training_fraction": part}) for part in FRACTIONS),
            Row("all images"),
        ),
    ),
    "forwards": Ablation(
        "Co-Seg++, figure 8 (2)",
        (Row("1 forward", _ONE_FORWARD), _forwards(3), _forwards(4), Row("2 forwards")),
    ),
}


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings replaced; an unknown one is refused with the nearest name.

    A change of ``losses.preset`` changes every loss that the recipe, or another change, does not
    set apart from its preset.
    """
    values = recipe.model_dump(mode="json")
    values["losses"] = recipe.losses.over_preset()
    for name, value in changes.items():
        *path, last = name.split(".")
        place: Any = values
        for step in path:
            place = place.get(step)
            if not isinstance(place, dict):
                raise SettingsError(f"recipe {recipe.name!r} has no settings {step!r} for {name!r}")
        place[last] = value
    return Recipe.from_mapping(values)


def run_ablation(
    recipe: Recipe,
    ablation: Ablation,
    data_root: Path,
    output_dir: Path,
    score: Score,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
    workers: int = 1,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    start: Callable[[CosegModel], None] | None = None,
) -> pd.DataFrame:
    """Train and score every row with every seed.

    The weights at the end of each training are scored, not chosen ones, so that no row profits
    from being validated more often.

    Parameters
    ----------
    output_dir
        Gets ``<row>/seed-<n>/`` with the training's files and its scores.
    seeds
        Each changes the first weights and the crops. Seeds go round before rows do, so that an
        early look already compares all rows.
    start
        Gives each fresh network its first weights, as in `napari_coseg.training.run.train_recipe`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`.
    """
    import pandas as pd

    jobs = [(seed, row) for seed in seeds for row in ablation.rows]
    found: list[tuple[str, int, str, float]] = []
    for number, (seed, row) in enumerate(jobs):
        folder = output_dir / row.name.replace(" ", "-") / f"seed-{seed}"
        scores = _read_scores(folder, recipe, row)
        if scores is None:
            told = _part(progress, number, len(jobs), f"{row.name}, seed {seed}")
            one = changed(recipe, {**row.changes, "seed": seed})
            scores = _train_and_score(
                one, data_root, folder, score, device, workers, told, should_cancel, start
            )
            _write_scores(folder, recipe, row, scores)
        found += [(row.name, seed, metric, value) for metric, value in scores.items()]
    return pd.DataFrame(found, columns=list(COLUMNS))


def summarise(table: pd.DataFrame, rows: Iterable[str]) -> pd.DataFrame:
    """Mean over the seeds and its 95 % interval, and the same of the difference to the last row.

    Differences are taken seed by seed, which share crops; intervals are Student's.

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


def as_markdown(summary: pd.DataFrame) -> str:
    """The table a person reads: a line a row, a column a metric, mean ± half the interval."""
    metrics = list(dict.fromkeys(summary["metric"]))
    lines = [
        "| | " + " | ".join(name.replace("_", " ") for name in metrics) + " |",
        "|---|" + "---|" * len(metrics),
    ]
    for row, of_row in summary.groupby("row", sort=False):
        cells = of_row.set_index("metric")
        lines.append(
            f"| {row} | " + " | ".join(_cell(cells.loc[metric]) for metric in metrics) + " |"
        )
    return "\n".join(lines)


def _cell(line: pd.Series) -> str:
    text = f"{line['mean']:.3f}"
    return text if line["seeds"] < 2 else f"{text} ± {line['interval']:.3f}"


def _half_width(values: pd.Series) -> float:
    from scipy import stats

    known = values.dropna()
    if len(known) < 2:
        return float("nan")
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, len(known) - 1)
    return float(quantile * known.std(ddof=1) / len(known) ** 0.5)


def _train_and_score(
    recipe: Recipe,
    data_root: Path,
    folder: Path,
    score: Score,
    device: str,
    workers: int,
    progress: Callable[[float, str], None] | None,
    should_cancel: Callable[[], bool] | None,
    start: Callable[[CosegModel], None] | None,
) -> dict[str, float]:
    import torch

    from napari_coseg.models.registry import build
    from napari_coseg.training.loop import TrainingHooks, train
    from napari_coseg.training.run import step_source
    from napari_coseg.training.saving import STATE_FILE
    from napari_coseg.training.schedule import with_steps

    torch.manual_seed(recipe.seed)
    hooks = TrainingHooks(
        progress=progress or (lambda fraction, message: None),
        should_cancel=should_cancel or (lambda: False),
    )
    source = step_source(recipe, data_root)
    if recipe.steps is None:
        recipe = with_steps(recipe, source.steps_per_epoch)
    fresh = build(recipe.card)
    if start is not None and not (folder / STATE_FILE).exists():
        start(fresh)
    model = train(
        fresh,
        source,
        recipe,
        folder,
        hooks,
        device=device,
        workers=workers,
    )
    return score(model, recipe, data_root)


def _fingerprint(recipe: Recipe, row: Row) -> dict[str, Any]:
    """What a row's scores belong to: the recipe's settings and the row's."""
    return {"recipe": recipe.model_dump(mode="json"), "changes": dict(row.changes)}


def _read_scores(folder: Path, recipe: Recipe, row: Row) -> dict[str, float] | None:
    path = folder / SCORES_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("of") != _fingerprint(recipe, row):
        raise SettingsError(
            f"{path} holds the scores of other settings; give another output folder, or remove it"
        )
    scores: dict[str, float] = content["scores"]
    return scores


def _write_scores(folder: Path, recipe: Recipe, row: Row, scores: dict[str, float]) -> None:
    content = {"of": _fingerprint(recipe, row), "scores": scores}
    (folder / SCORES_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _part(
    progress: Callable[[float, str], None] | None, number: int, count: int, name: str
) -> Callable[[float, str], None] | None:
    if progress is None:
        return None

    def of_one(fraction: float, message: str) -> None:
        progress((number + fraction) / count, f"{name} ({number + 1} of {count}): {message}")

    return of_one
