"""Jobs of the Fine-tune dock in its worker process, without napari and Qt."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from napari_coseg.finetuning.request import (
    PLAN_FILE,
    FinetuneRequest,
    logged,
    write_request,
)
from napari_coseg.widgets.background.process import JobContext, Reply

REVIEWS = "napari_coseg.widgets.finetune.tasks:reviews"
ESTIMATE = "napari_coseg.widgets.finetune.tasks:estimate"
TRAIN = "napari_coseg.widgets.finetune.tasks:train"
TAKE_IN = "napari_coseg.widgets.finetune.tasks:take_in"
NICENESS = 10


def reviews(job: JobContext, *, paths: list[str]) -> Reply:
    """`Reviews` of workspaces and labelled folders together, names of images, and `FoundBy`."""
    from napari_coseg.finetuning.sources import read_reviewed

    found = read_reviewed(*paths)
    values = dataclasses.asdict(found.reviews())
    finders = [dataclasses.asdict(finder) for finder in found.found_by]
    names = sorted({image.name for image in found.images})
    return Reply({**values, "names": names, "found_by": finders})


def estimate(job: JobContext, *, request: dict[str, Any], propose: bool) -> Reply:
    """`Estimate` of a fine-tuning that is asked for; whatever would keep it from starting fails."""
    from napari_coseg.finetuning.estimate import estimate as estimated
    from napari_coseg.finetuning.sources import read_reviewed

    asked = FinetuneRequest.from_mapping(request)
    job.progress(0.1, "reading what is reviewed")
    reviewed = read_reviewed(*asked.reviewed)
    job.progress(0.3, "trying a step")
    found = estimated(
        reviewed, base=asked.base, settings=asked.settings, device=asked.device, propose=propose
    )
    return Reply(dataclasses.asdict(found))


def train(
    job: JobContext,
    *,
    request: dict[str, Any],
    restart: bool = False,
    original_labels: bool = False,
) -> Reply:
    """Start `run.finetune`, or resume it; its events are reported by their kinds.

    ``logged`` comes first where a run is resumed: what it logged before. ``differs`` comes last
    where something else is reviewed than it started with: message.

    Parameters
    ----------
    restart
        Discard what it has trained so far.
    original_labels
        Train on the labels that it started with, whatever is reviewed now.
    """
    from napari_coseg.finetuning.hooks import FinetuneHooks
    from napari_coseg.finetuning.inputs_snapshot import read_snapshot
    from napari_coseg.finetuning.plan import OtherReviewsError
    from napari_coseg.finetuning.run import finetune
    from napari_coseg.finetuning.sources import read_reviewed

    _lower_priority()
    asked = FinetuneRequest.from_mapping(request)
    job.progress(0.0, "reading what is reviewed")
    reviewed = (
        read_snapshot(asked.run_folder) if original_labels else read_reviewed(*asked.reviewed)
    )
    others = {"base_validation": asked.base_validation, "replay": asked.replay}
    sets = {name: read_reviewed(path) for name, path in others.items() if path}
    if not restart and (asked.run_folder / PLAN_FILE).exists():
        job.report("logged", {"values": logged(asked.run_folder)})
    write_request(asked)
    try:
        result = finetune(
            reviewed,
            asked.output,
            base=asked.base,
            settings=asked.settings,
            device=asked.device,
            name=asked.name,
            run_folder=asked.run_folder,
            restart=restart,
            hooks=FinetuneHooks(job.progress, job.report, job.should_cancel, job.should_pause),
            **sets,
        )
    except OtherReviewsError as error:
        job.report("differs", {"message": str(error)})
        raise
    return Reply(
        {
            "adapter": str(result.adapter),
            "base_sha256": result.card.base_sha256,
            "scores": result.card.scores,
            "improved": result.improved,
            "notes": list(result.notes),
        }
    )


def _lower_priority() -> None:
    """The window goes first where all processors are busy; this process ends with the training."""
    if hasattr(os, "nice") and os.nice(0) < NICENESS:
        os.nice(NICENESS - os.nice(0))


def take_in(job: JobContext, *, adapter: str, base: str, output: str) -> Reply:
    """Load an adapter on its base, and copy it to `output` where that works.

    Raises
    ------
    CheckpointError
        Where it is of another base, or broken.
    OutputError
        Where `output` is there already, or cannot be written.
    """
    from napari_coseg.inference.loading import load_model
    from napari_coseg.models.checkpoints.adapter_library import copy_adapter

    job.progress(0.1, "loading the adapter on its base")
    load_model(base, "cpu", adapter=adapter)
    copy_adapter(Path(adapter), Path(output))
    return Reply({"adapter": output})
