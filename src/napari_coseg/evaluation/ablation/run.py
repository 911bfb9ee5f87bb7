"""Train and score the rows of an ablation, every network once for all tables.

A network is identified by the settings that its row changes, so rows of several tables share it,
and so do several programs that work in one folder: each takes a network that no other works on, and
at the end waits for those that others have started. Finished networks are not trained again, so an
interrupted ablation continues, and seeds or tables may be added later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.core.errors import Cancelled, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.locks import held
from napari_coseg.evaluation.ablation.rows import Ablation, changed, folder_name
from napari_coseg.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.models.base import CosegModel

Score = Callable[["CosegModel", Recipe, Path], dict[str, float]]
"""Scores of a model by name, as `napari_coseg.evaluation.run.score_for_ablation` returns."""
Progress = Callable[[float, str], None]

COLUMNS = ("row", "seed", "metric", "value")
SETTINGS_FILE = "settings.json"
NETWORK_FILE = "network.safetensors"
LOCK_FILE = "in-use.lock"
ASK_EVERY_S = 1.0
"""Interval at which a program that waits for another's training checks whether it has ended."""


def run_ablation(
    recipe: Recipe,
    ablation: Ablation,
    data_root: Path,
    output_dir: Path,
    score: Score,
    *,
    images: str = "held-out",
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
    workers: int = 1,
    progress: Progress | None = None,
    should_cancel: Callable[[], bool] | None = None,
    start: Callable[[CosegModel], None] | None = None,
    started_from: str | None = None,
) -> pd.DataFrame:
    """Train and score every row with every seed.

    The last weights of each training are scored, not selected ones, so that no row profits from
    more frequent validation.

    Parameters
    ----------
    output_dir
        Gets ``<changes of the row>/seed-<n>/`` with the network, its log and its scores. Several
        programs may work in it at once.
    images
        Name of the images that `score` uses; their scores are stored under it.
    seeds
        Each changes the initial weights and the crops. All rows are trained with a seed before the
        next seed, so that early results compare all rows.
    start
        Gives each new network its initial weights, as in `napari_coseg.training.run.train_recipe`.
    started_from
        Description of these weights; networks with another start are not used.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`.

    Raises
    ------
    SettingsError
        Where the folder has networks with other settings.
    """
    import pandas as pd

    report, stop = progress or (lambda *_: None), should_cancel or (lambda: False)
    makers = {
        (row.name, seed): _Maker(
            output_dir / folder_name(recipe, row.changes) / f"seed-{seed}",
            changed(recipe, {**row.changes, "seed": seed}),
            data_root,
            device,
            workers,
            start,
            started_from,
            stop,
        )
        for seed in seeds
        for row in ablation.rows
    }
    for maker in makers.values():
        maker.check_settings()
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for patiently in (False, True):  # networks that other programs train come last
        for job, maker in makers.items():
            if job in scores:
                continue
            of_job = _part(report, len(scores), len(makers), f"{job[0]}, seed {job[1]}")
            with maker.alone(patiently, of_job) as is_alone:
                if is_alone:
                    scores[job] = maker.scores(images, score, of_job)
    found = [(*job, name, value) for job in makers for name, value in scores[job].items()]
    return pd.DataFrame(found, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Maker:
    """Makes one network and its scores, in its own folder."""

    folder: Path
    recipe: Recipe
    data_root: Path
    device: str
    workers: int
    start: Callable[[CosegModel], None] | None
    started_from: str | None
    should_cancel: Callable[[], bool]

    def check_settings(self) -> None:
        """Check that a network in the folder, if any, is of this recipe, data and start."""
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            return
        found, wanted = json.loads(path.read_text("utf-8")), self._settings()
        names = [name for name in wanted if found.get(name) != wanted[name]]
        if names:
            raise SettingsError(
                f"{self.folder} has a network with other settings ({', '.join(names)}); choose "
                "another output folder, or remove it"
            )

    def alone(self, patiently: bool, report: Progress) -> AbstractContextManager[bool]:
        """Lock this network against other programs; gives False where another has it.

        Waits for the other if `patiently`. On a file system without locks it is always free.
        """

        def waiting() -> None:
            report(0.0, "another program trains it")
            if self.should_cancel():
                raise Cancelled("cancelled while another program trains")

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOCK_FILE
        return held(path, ASK_EVERY_S, waiting) if patiently else held(path, 0)

    def scores(self, images: str, score: Score, report: Progress) -> dict[str, float]:
        """Stored scores, or those of the network, which is trained if it is missing."""
        self.check_settings()  # another program may have started it since the first check
        path = self.folder / f"scores-{images}.json"
        if not path.is_file():
            _write(path, score(self._network(report), self.recipe, self.data_root))
        kept: dict[str, float] = json.loads(path.read_text("utf-8"))
        return kept

    def _network(self, report: Progress) -> CosegModel:
        """Trained before, or now; the training's state is removed at the end."""
        from napari_coseg.models.base import as_two_task
        from napari_coseg.models.checkpoints import native
        from napari_coseg.training.settings import STATE_FILE

        path = self.folder / NETWORK_FILE
        if path.is_file():
            return as_two_task(native.load(path, self.device))
        _write(self.folder / SETTINGS_FILE, self._settings())
        model = self._trained(report)
        native.save(path, model)
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        return model

    def _trained(self, report: Progress) -> CosegModel:
        import torch

        from napari_coseg.models.registry import build_two_task
        from napari_coseg.training.loop import TrainingHooks, train
        from napari_coseg.training.run import step_source
        from napari_coseg.training.schedule import with_steps
        from napari_coseg.training.settings import STATE_FILE

        torch.manual_seed(self.recipe.seed)
        source = step_source(self.recipe, self.data_root)
        recipe = self.recipe
        if recipe.epochs is not None:
            recipe = with_steps(recipe, source.steps_per_epoch)
        fresh = build_two_task(recipe.card)
        if self.start is not None and not (self.folder / STATE_FILE).exists():
            self.start(fresh)
        hooks = TrainingHooks(progress=report, should_cancel=self.should_cancel)
        return train(
            fresh, source, recipe, self.folder, hooks, device=self.device, workers=self.workers
        )

    def _settings(self) -> dict[str, Any]:
        return {
            **self.recipe.model_dump(mode="json"),
            "data": str(self.data_root.resolve()),
            "started_from": self.started_from,
        }


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace a file by JSON in one step."""
    with atomic_write(path, overwrite=True) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _part(report: Progress, number: int, count: int, name: str) -> Progress:
    def of_one(fraction: float, message: str) -> None:
        report((number + fraction) / count, f"{name} ({number + 1} of {count}): {message}")

    return of_one
