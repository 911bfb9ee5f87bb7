"""Train and score the rows of an ablation: every network once, whatever tables it stands in.

A network is told by the settings that its row changes, so that rows of several tables share it, and
so do several programs that work in one folder: each takes what no other is at, and waits at the end
for what the others have begun. What is there is not trained again, so that an interrupted ablation
goes on where it stopped, and more seeds or tables may be added later.
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
"""Scores of a model by name, as `napari_coseg.evaluation.run.score_for_ablation` gives."""
Progress = Callable[[float, str], None]

COLUMNS = ("row", "seed", "metric", "value")
SETTINGS_FILE = "settings.json"
NETWORK_FILE = "network.safetensors"
LOCK_FILE = "in-use.lock"
ASK_EVERY_S = 1.0
"""How often a program that waits for another's training looks whether it has ended."""


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

    The weights at the end of each training are scored, not chosen ones, so that no row profits
    from being validated more often.

    Parameters
    ----------
    output_dir
        Gets ``<changes of the row>/seed-<n>/`` with the network, its log and its scores. Several
        calls may work in it at once, in as many programs.
    images
        Name of the images that `score` looks at; their scores are kept under it.
    seeds
        Each changes the first weights and the crops. Seeds go round before rows do, so that an
        early look already compares all rows.
    start
        Gives each fresh network its first weights, as in `napari_coseg.training.run.train_recipe`.
    started_from
        What `start` takes them from, in words: networks of another start are not taken for these.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`.

    Raises
    ------
    SettingsError
        Where the folder holds networks of other settings.
    """
    import pandas as pd

    tell, stop = progress or (lambda *_: None), should_cancel or (lambda: False)
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
    for patiently in (False, True):  # what another program is at comes last
        for job, maker in makers.items():
            if job in scores:
                continue
            told = _part(tell, len(scores), len(makers), f"{job[0]}, seed {job[1]}")
            with maker.alone(patiently, told) as is_alone:
                if is_alone:
                    scores[job] = maker.scores(images, score, told)
    found = [(*job, name, value) for job in makers for name, value in scores[job].items()]
    return pd.DataFrame(found, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Maker:
    """Makes one network and its scores, in a folder of its own."""

    folder: Path
    recipe: Recipe
    data_root: Path
    device: str
    workers: int
    start: Callable[[CosegModel], None] | None
    started_from: str | None
    should_cancel: Callable[[], bool]

    def check_settings(self) -> None:
        """See that what lies in the folder, if anything, is of this recipe, data and start."""
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            return
        there, wanted = json.loads(path.read_text("utf-8")), self._settings()
        names = [name for name in wanted if there.get(name) != wanted[name]]
        if names:
            raise SettingsError(
                f"{self.folder} holds a network of other settings ({', '.join(names)}); give "
                "another output folder, or remove it"
            )

    def alone(self, patiently: bool, tell: Progress) -> AbstractContextManager[bool]:
        """Within, no other program is at this network; False where one is.

        Waits for the other where asked to. A file system that knows no locks keeps nobody out.
        """

        def waiting() -> None:
            tell(0.0, "another program trains it")
            if self.should_cancel():
                raise Cancelled("stopped waiting for what another program trains")

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOCK_FILE
        return held(path, ASK_EVERY_S, waiting) if patiently else held(path, 0)

    def scores(self, images: str, score: Score, tell: Progress) -> dict[str, float]:
        """Those that were kept, or of the network, which is trained where it is missing."""
        self.check_settings()  # another program may have begun it since the first look
        path = self.folder / f"scores-{images}.json"
        if not path.is_file():
            _write(path, score(self._network(tell), self.recipe, self.data_root))
        kept: dict[str, float] = json.loads(path.read_text("utf-8"))
        return kept

    def _network(self, tell: Progress) -> CosegModel:
        """Trained before, or now; a training's state is not kept once it has ended."""
        from napari_coseg.models.base import as_two_task
        from napari_coseg.models.checkpoints import native
        from napari_coseg.training.settings import STATE_FILE

        path = self.folder / NETWORK_FILE
        if path.is_file():
            return as_two_task(native.load(path, self.device))
        _write(self.folder / SETTINGS_FILE, self._settings())
        model = self._trained(tell)
        native.save(path, model)
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        return model

    def _trained(self, tell: Progress) -> CosegModel:
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
        hooks = TrainingHooks(progress=tell, should_cancel=self.should_cancel)
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


def _part(tell: Progress, number: int, count: int, name: str) -> Progress:
    def of_one(fraction: float, message: str) -> None:
        tell((number + fraction) / count, f"{name} ({number + 1} of {count}): {message}")

    return of_one
