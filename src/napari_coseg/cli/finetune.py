"""Fine-tune a model on corrected labels: workspaces, or folders of images with label files.

The same command resumes a run that was stopped.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.arguments import add_device_argument
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import Cancelled, SettingsError

if TYPE_CHECKING:
    from napari_coseg.finetuning.estimate import Estimate
    from napari_coseg.finetuning.reviewed import ReviewedSet
    from napari_coseg.finetuning.run import FinetuneResult
    from napari_coseg.finetuning.settings import FinetuneSettings

HELP = "fine-tune a model on corrected labels"
STOPPED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument(
        "reviewed", nargs="+", type=Path, help="workspaces, or folders with dataset.json"
    )
    parser.add_argument("--model", default="default", help="base: a weights file, or: default")
    parser.add_argument("--speed", choices=("heads", "adapters"), help="default: heads")
    parser.add_argument("--minutes", type=float, help="how long it may take, about (default: 5)")
    parser.add_argument("--steps", type=int, help="number of steps, in place of minutes")
    parser.add_argument(
        "--output", type=Path, default=Path("adapter.safetensors"), help="the adapter's file"
    )
    parser.add_argument("--name", help="name of the adapter (default: that of the file)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="parts of the model that train")
    parser.add_argument("--lora", type=int, metavar="RANK", help="put LoRA into the encoder")
    parser.add_argument("--add-classes", action="store_true", help="allow new classes")
    parser.add_argument("--rename", nargs="+", metavar="OLD=NEW", help="rename classes of the base")
    parser.add_argument(
        "--merge", nargs="+", metavar="NEW=OLD,OLD", help="merge classes of the base"
    )
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", help="any other setting")
    parser.add_argument(
        "--base-validation",
        type=Path,
        metavar="FOLDER",
        help="images of the base's own kind that measure what is forgotten",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FOLDER",
        help="images of the base's own kind to train on as well",
    )
    parser.add_argument("--run-folder", type=Path, help="folder of the state, log and pictures")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--restart", action="store_true", help="discard a run that was stopped")
    again.add_argument(
        "--original-labels",
        action="store_true",
        help="resume a run that was stopped with the labels that it started with",
    )
    add_device_argument(parser)
    parser.add_argument(
        "--estimate", action="store_true", help="print what it would take, without training"
    )


def run(arguments: argparse.Namespace) -> int:
    """Fine-tune, then print the scores before and after, and the adapter's path."""
    from napari_coseg.finetuning.sources import read_reviewed

    settings = _settings(arguments)
    reviewed = (
        _snapshot(arguments) if arguments.original_labels else read_reviewed(*arguments.reviewed)
    )
    if arguments.estimate:
        from napari_coseg.finetuning.estimate import estimate

        found = estimate(reviewed, base=arguments.model, settings=settings, device=arguments.device)
        _print_estimate(found)
        return 0
    try:
        result = _finetuned(arguments, reviewed, settings)
    except Cancelled as stopped:
        print(f"napari-coseg: {stopped}", file=sys.stderr)
        return STOPPED
    for note in result.notes:
        print(f"note: {note}")
    for line in score_lines(result.card.scores):
        print(line)
    print(result.adapter)
    return 0


def _snapshot(arguments: argparse.Namespace) -> ReviewedSet:
    from napari_coseg.finetuning.inputs_snapshot import read_snapshot
    from napari_coseg.finetuning.request import run_folder_of

    return read_snapshot((arguments.run_folder or run_folder_of(arguments.output)).expanduser())


def _finetuned(
    arguments: argparse.Namespace, reviewed: ReviewedSet, settings: FinetuneSettings
) -> FinetuneResult:
    """Fine-tune with a line of progress."""
    from napari_coseg.finetuning.hooks import FinetuneHooks
    from napari_coseg.finetuning.plan import OtherReviewsError
    from napari_coseg.finetuning.run import finetune
    from napari_coseg.finetuning.sources import read_reviewed

    others = {"base_validation": arguments.base_validation, "replay": arguments.replay}
    progress = ProgressLine("finetune")

    def show(fraction: float, message: str) -> None:
        """The line shows the time left itself."""
        before, comma, last = message.rpartition(", ")
        progress(fraction, before if comma and last.endswith(" left") else message)

    try:
        with _stopped_by_signals() as asked:
            return finetune(
                reviewed,
                arguments.output,
                base=arguments.model,
                settings=settings,
                device=arguments.device,
                name=arguments.name,
                run_folder=arguments.run_folder,
                restart=arguments.restart,
                hooks=FinetuneHooks(progress=show, should_cancel=lambda: bool(asked)),
                **{name: read_reviewed(path) for name, path in others.items() if path},
            )
    except OtherReviewsError as error:
        raise SettingsError(f"{error}: --original-labels, or --restart") from error
    finally:
        progress.close()


def score_lines(scores: dict[str, Any]) -> Iterator[str]:
    """Scores of an adapter's card before and after, one to a line."""
    for title, first, last in (
        ("held-out part", "before", "after"),
        ("base's own images", "base_before", "base_after"),
        ("agreement with the base on a sample", "", "kept"),
    ):
        before, after = scores.get(first, {}), scores.get(last, {})
        for name, value in _flat(after):
            was = dict(_flat(before)).get(name)
            shown = f"{was:.3f} -> {value:.3f}" if was is not None else f"{value:.3f}"
            yield f"{title}: {name} {shown}"


def _flat(scores: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Scores by readable names; those of classes end with the class."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from ((f"{name} of {key}", number) for key, number in value.items())
        elif name != "objects":
            yield name, value


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Within, the first interruption asks to stop, so that the state is saved; a second one ends.

    The list then holds the signal. In a thread other than the main one nothing changes.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _print_estimate(found: Estimate) -> None:
    reviews = found.reviews
    kinds = {**reviews.objects_by_class, **reviews.region_px_by_class}
    counts = ", ".join(f"{name} {count}" for name, count in kinds.items() if count)
    steps = f"{found.steps} steps of {found.seconds_a_step} s"
    scores = ", ".join(f"{name} {value:.3f}" for name, value in _flat(found.base_scores))
    lines = {
        "reviewed": f"{reviews.images} images, {reviews.objects} objects ({counts})",
        "held out": f"{found.held_out_objects} objects in {found.held_out_images} images",
        "trains": f"{', '.join(found.parts)} ({found.trained_weights / 1e6:.2f} M weights)",
        "device": f"{found.device}, {found.precision}",
        "time": f"{found.seconds / 60:.1f} minutes: {steps}",
        "memory": f"{found.memory_mb:.0f} MB",
        "disk": f"{found.disk_mb:.0f} MB until it ends",
        "now": f"{scores}, on the first held-out image" if scores else "",
        "proposed": f"--speed {found.proposed_speed}" if found.proposed_speed else "",
    }
    for key, value in lines.items():
        if value:
            print(f"  {key:<11}{value}")
    for note in found.notes:
        print(f"note: {note}")


def _settings(arguments: argparse.Namespace) -> FinetuneSettings:
    from napari_coseg.finetuning.settings import FinetuneSettings

    named = {
        "speed": arguments.speed,
        "minutes": arguments.minutes,
        "steps": arguments.steps,
        "parts": arguments.parts,
        "lora_rank": arguments.lora,
        "add_classes": arguments.add_classes or None,
        "rename": dict(_pairs("--rename", arguments.rename)) or None,
        "merge": {
            new: [old.strip() for old in olds.split(",")]
            for new, olds in _pairs("--merge", arguments.merge)
        }
        or None,
    }
    values: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    return FinetuneSettings.from_mapping({**values, **dict(_pairs("--set", arguments.set))})


def _pairs(option: str, texts: list[str] | None) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts or ()]
    broken = [key for key, sign, value in pairs if not (key and sign and value)]
    if broken:
        raise SettingsError(f"{option} takes NAME=VALUE, got {', '.join(broken)!r}")
    return [(key.strip(), value.strip()) for key, _, value in pairs]
