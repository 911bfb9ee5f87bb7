"""`finetune`: from reviewed images and a base to an adapter, with scores before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from napari_coseg.core.errors import CheckpointError, OutputError
from napari_coseg.core.words import counted
from napari_coseg.finetuning.features import FeatureCache
from napari_coseg.finetuning.forgetting import REPLAYED, SCORED, is_shipped, predictions_of
from napari_coseg.finetuning.hooks import FinetuneHooks, RunControl
from napari_coseg.finetuning.inputs_snapshot import SNAPSHOT_FILE, write_snapshot
from napari_coseg.finetuning.learning import Learning
from napari_coseg.finetuning.plan import Origin, RunPlan
from napari_coseg.finetuning.planning import settle
from napari_coseg.finetuning.preparing import Prepared, prepare
from napari_coseg.finetuning.request import BEST_FILE, PLAN_FILE, run_folder_of, training_in
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.scores import Scores, score, selection_score
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.finetuning.sources import read_reviewed
from napari_coseg.inference.loading import DEFAULT_MODEL
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.adapters import (
    AdapterCard,
    read_adapter_card,
    save_adapter,
    start_of,
    with_adapter,
)
from napari_coseg.training.settings import STATE_FILE

NO_BETTER = (
    "the held-out part does not score better than before: review more, train longer, or keep the "
    "model as it was"
)
MUCH_IS_KEPT = 0.5
"""F1 of what the adapter finds in the sample, with what its base finds there as the truth."""
FORGOTTEN = (
    "much of what the base knew is forgotten: on a sample of its own kind the adapter finds "
    "something else; use the base without an adapter for such images"
)
NOT_REPLAYED = "the images to replay are not used, as images are taken"
FEATURES_FOLDER, DRAFT_FILE = "features", "draft.safetensors"


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gives.

    Parameters
    ----------
    adapter
        The file.
    card
        As written in it; `card.scores` has ``before`` and ``after`` of the held-out part, and
        of what was forgotten: ``base_before`` and ``base_after`` of the base's own validation
        images, where given, else for the shipped model ``kept``, which are scores against its own
        predictions on a sample (`forgetting.predictions_of`).
    run_folder
        With ``log.csv`` and pictures.
    improved
        Whether the held-out part scores better than before; None where nothing was held out.
    notes
        What a user should know.
    """

    adapter: Path
    card: AdapterCard
    run_folder: Path
    improved: bool | None
    notes: tuple[str, ...]


def finetune(
    reviewed: ReviewedSet | str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    base: str | Path = DEFAULT_MODEL,
    settings: FinetuneSettings | None = None,
    device: str = "auto",
    name: str | None = None,
    run_folder: str | Path | None = None,
    base_validation: ReviewedSet | None = None,
    replay: ReviewedSet | None = None,
    restart: bool = False,
    hooks: FinetuneHooks | None = None,
) -> FinetuneResult:
    """Fine-tune a base model on reviewed labels, or resume a fine-tuning that was stopped.

    Parameters
    ----------
    reviewed
        Workspaces or labelled folders (with ``dataset.json``), one path or several; or a
        `ReviewedSet`, read from such paths by `read_reviewed` or made of arrays.
    output
        The adapter's file; replaced when the training has ended, never before.
    base
        "default", or the path of a weights file, which is only read.
    settings
        Time, speed and what trains; the defaults where None.
    device
        As for `load_model`.
    name
        Of the adapter; the file's where None.
    run_folder
        State, log, pictures, features and a copy of the inputs; beside `output` where None. All
        but log and pictures are deleted at the end.
    base_validation
        Images of the base's own domain, to measure what is forgotten.
    replay
        Others of that domain, to train on as well.
    restart
        Discard a run that was stopped, and start over.
    hooks
        Callables for progress, events, pausing and cancelling.

    Returns
    -------
    FinetuneResult
        The adapter's path, its card, and scores of the held-out part before and after.

    Raises
    ------
    CosegError
        Where something does not fit, before anything is trained: `OtherReviewsError` where a run
        that was stopped started with other labels (`inputs_snapshot.read_snapshot` gives those).
        `Cancelled` when asked to stop, `DivergedError` where steps have no finite loss; the state
        is kept.
    """
    hooks = hooks or FinetuneHooks()
    if not isinstance(reviewed, ReviewedSet):
        paths = [reviewed] if isinstance(reviewed, (str, Path)) else reviewed
        reviewed = read_reviewed(*paths)
    output = Path(output).expanduser()
    folder = Path(run_folder or run_folder_of(output)).expanduser()
    _check_output(output)
    hooks.progress(0.0, "loading the base model")
    prepared = prepare(reviewed, base, settings or FinetuneSettings(), device)
    run = _Run(prepared, folder, RunControl(hooks), name or output.stem, reviewed)
    if base_validation is not None:
        run.base_images = prepared.of_base_kind(base_validation)
    if replay is not None:
        run.replayed = prepared.of_base_kind(replay)
    with training_in(folder), torch.random.fork_rng():
        if restart:
            run.forget()
        try:
            return run.go(output)
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


class _Run:
    """One call of `finetune`."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        control: RunControl,
        name: str,
        reviewed: ReviewedSet,
    ) -> None:
        self.prepared, self.folder, self.control, self.name = prepared, folder, control, name
        self.reviewed, self.settings = reviewed, prepared.settings
        self.base_images: tuple[ReviewedImage, ...] = ()
        self.replayed: tuple[ReviewedImage, ...] = ()
        self.started = control.clock()
        for note in prepared.notes:
            control.note(note)

    def go(self, output: Path) -> FinetuneResult:
        """Plan, train, score, write."""
        self.control()
        prepared, others = self.prepared, (self.base_images, self.replayed)
        origin = Origin.of(prepared.reviewed, prepared.base_sha256, self.settings, *others)
        if not (self.folder / PLAN_FILE).exists():
            self.forget()  # what is left is of a run whose plan went first, when it was killed
            write_snapshot(self.folder, self.reviewed)
        plan = settle(prepared, self.folder, origin, self.control, self.started, self.base_images)
        for note in plan.notes:
            self.control.note(note)
        learning = Learning(prepared, plan, self.folder, self.control, self._replayed(plan))
        learning.run(FeatureCache(self.folder / FEATURES_FOLDER))
        return self._finish(output, learning)

    def forget(self) -> None:
        """Delete what an unfinished run left, and nothing else; without the plan it is no run."""
        for name in (PLAN_FILE, STATE_FILE, BEST_FILE, SNAPSHOT_FILE, DRAFT_FILE):
            for path in (self.folder / name, *self.folder.glob(f".{name}.*.tmp")):
                path.unlink(missing_ok=True)
        FeatureCache(self.folder / FEATURES_FOLDER).clear()

    def _finish(self, output: Path, learning: Learning) -> FinetuneResult:
        """Check what was frozen, write, and score what was written, as it is loaded again."""
        prepared, control, plan = self.prepared, self.control, learning.plan
        fraction = learning.take_best()
        if prepared.fingerprint() != prepared.frozen_sha256:
            raise RuntimeError("weights changed that do not train; the adapter is not written")
        card = self._card(learning, fraction)
        draft, start = self.folder / DRAFT_FILE, start_of(prepared.base, card)
        save_adapter(draft, prepared.network, start, card)
        control.progress(0.95, "scoring the adapter")
        adapted = with_adapter(prepared.base, prepared.base_sha256, draft)
        after = self._scores_after(adapted, learning.step)
        scores = {"before": plan.scores_before, "base_before": plan.base_scores_before, **after}
        improved = None
        if plan.scores_before:
            improved = selection_score(after["after"]) > selection_score(plan.scores_before)
            if not improved:
                control.note(NO_BETTER)
        if after.get("kept", {}).get("object_f1", 1.0) < MUCH_IS_KEPT:
            control.note(FORGOTTEN)
        found = {"scores": {k: v for k, v in scores.items() if v}}
        update = {**found, "notes": "; ".join(control.notes)}
        card = save_adapter(output, prepared.network, start, card.model_copy(update=update))
        self.forget()
        control.progress(1.0, "done")
        return FinetuneResult(output, card, self.folder, improved, tuple(control.notes))

    def _scores_after(self, adapted: CosegModel, step: int) -> dict[str, Scores]:
        found: dict[str, Scores] = {"after": {}}
        for when, images in {
            "after": self.prepared.divided.held_out,
            "base_after": self.base_images,
            "kept": () if self.base_images else self._predictions(SCORED),
        }.items():
            if images:
                found[when] = score(adapted, images, should_cancel=self.control)
                values = {"when": when, "step": step, "scores": found[when]}
                self.control.hooks.report("scores", values)
        return found

    def _replayed(self, plan: RunPlan) -> tuple[ReviewedImage, ...]:
        """What is replayed; nothing where the images' colours are changed to those the base knows.

        Its own kind of images would look strange to it then, and cannot be kept by replaying them.
        """
        base = self.prepared.base.card.normalisation
        if (plan.normalisation.mean, plan.normalisation.std) != (base.mean, base.std):
            if self.replayed:
                self.control.note(f"{NOT_REPLAYED} {plan.input}")
            return ()
        if self.replayed or not self.settings.rehearse:
            return self.replayed
        return self._predictions(REPLAYED)

    def _predictions(self, columns: slice) -> tuple[ReviewedImage, ...]:
        """The shipped model's own on the sample, in place of labels that nobody has."""
        if not is_shipped(self.prepared.base_path):
            return ()
        found = predictions_of(self.prepared.base, columns, self.control)
        return self.prepared.classes.applied(found).images

    def _card(self, learning: Learning, fraction: float) -> AdapterCard:
        prepared, plan, settings = self.prepared, learning.plan, self.settings
        base, reviews = prepared.base.card, prepared.reviewed.reviews()
        history = f"fine-tuned from {base.name} on {counted(reviews.images, 'image')}"
        model = prepared.classes.card.model_copy(
            update={
                "name": self.name,
                "normalisation": plan.normalisation,
                "scores": {},
                "adapted_from": base.name,
                "notes": f"{base.notes} Adapted: {history}.".strip(),
            }
        )
        return AdapterCard(
            name=self.name,
            base_name=base.name,
            base_sha256=prepared.base_sha256,
            model=model,
            semantic_origins=prepared.classes.semantic_origins,
            instance_origins=prepared.classes.instance_origins,
            parts=prepared.parts,
            lora_rank=settings.lora_rank,
            frozen_sha256=prepared.frozen_sha256,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            images=reviews.images,
            objects=reviews.objects,
            settings={
                **settings.model_dump(mode="json", exclude_defaults=True),
                "speed": settings.speed,
                "steps_taken": learning.step,
                "interpolation": fraction,
                "input": plan.input,
                "precision": plan.precision,
                "crop_px": plan.crop_px,
                "minutes_taken": round((self.control.clock() - self.started) / 60, 2),
            },
        )


def _check_output(path: Path) -> None:
    """An adapter may be replaced, nothing else."""
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} must end in .safetensors, as adapters do")
    if not path.exists():
        return
    try:
        read_adapter_card(path)
    except CheckpointError as error:
        raise OutputError(
            f"{path} is there already and is no adapter; it is not replaced: name another file"
        ) from error
