"""Gain from fine-tuning on some corrected images: F1 and PQ on all others, before and after.

    python benchmarks/finetune.py DATA                              # DSB 2018, both kinds
    python benchmarks/finetune.py DATA --domains fluorescence --images 5 --minutes 10
    python benchmarks/finetune.py DATA --domains consep-type --new-type inflammatory --base FILE

Corrections are simulated from the labels: whole images, in random order, are reviewed. Each row
runs in a process of its own, to measure its peak memory. The base's own validation images (of its
recipe's split) are scored as well, to measure forgetting. ``--replay`` adds images that the base
was trained on. ``type PQ`` is that of the new type, for ``consep-type``.

DATA has ``dsb2018/``, ``consep/`` and ``glas/``. For ``consep-type`` the base must not have the new
type. ``--train-base FOLDER`` trains one with the shipped recipe, or a faster ``--recipe`` such as
colon-small: in its CoNSeP images nuclei of that type are unknown, neither objects nor background.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
DOMAINS = {"fluorescence": "dsb2018", "colour-bright": "dsb2018", "consep-type": "consep"}
SPLIT = "colon_default"
COLUMNS = (
    *("domain", "images", "speed", "objects", "F1", "F1 after", "PQ", "PQ after", "minutes"),
    *("steps", "of the change", "input", "MB of memory", "MB of file", "own PQ", "own PQ after"),
    *("own Dice", "own Dice after", "type PQ", "type PQ after"),
)


def main() -> None:
    arguments = parse()
    if arguments.train_base:
        print(train_base(arguments))
        return
    if arguments.row:
        print(json.dumps(row(arguments)))
        return
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)
    for domain in arguments.domains:
        for count in arguments.images:
            for speed in arguments.speeds:
                found = in_own_process(domain, count, speed)
                print("| " + " | ".join(str(found.get(key, "")) for key in COLUMNS) + " |")
                sys.stdout.flush()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS)[:2], choices=list(DOMAINS))
    parser.add_argument("--images", nargs="+", type=int, default=[1, 3, 5, 10])
    parser.add_argument("--speeds", nargs="+", default=["heads", "adapters"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--steps", type=int, help="training steps, instead of minutes")
    parser.add_argument("--base", default="default", help="weights file")
    parser.add_argument("--new-type", default="inflammatory", help="for consep-type")
    parser.add_argument(
        "--test", type=int, help="number of other images to score on (default: all)"
    )
    parser.add_argument(
        "--own", type=int, default=4, help="validation images per dataset of the base"
    )
    parser.add_argument(
        "--replay", type=int, default=0, help="replay images per dataset of the base"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--train-base", type=Path, metavar="FOLDER")
    parser.add_argument("--recipe", default="colon-default", help="recipe of --train-base")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(domain: str, count: int, speed: str) -> dict[str, Any]:
    """Run this script for one row."""
    one = ["--row", "--domains", domain, "--images", str(count), "--speeds", speed]
    command = [sys.executable, *sys.argv, *one]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def row(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune once and score on the other images."""
    from napari_coseg.finetuning.reviewed import ReviewedSet
    from napari_coseg.finetuning.run import finetune
    from napari_coseg.finetuning.scores import score
    from napari_coseg.inference import load_model

    domain, count, speed = arguments.domains[0], arguments.images[0], arguments.speeds[0]
    everything = images_of(domain, arguments)
    learnt = replace(everything, images=everything.images[:count])
    others = everything.images[count:][: arguments.test]
    own = own_images(arguments.data, arguments.own, held_out=True)
    replay = arguments.replay
    again = own_images(arguments.data, replay, held_out=False) if replay else None
    settings = settings_of(arguments, speed, domain)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        result = finetune(
            learnt,
            Path(folder) / "adapter.safetensors",
            base=arguments.base,
            settings=settings,
            device=arguments.device,
            replay=again,
        )
        minutes = (time.monotonic() - start) / 60
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        size = result.adapter.stat().st_size / 1e6
        base = load_model(arguments.base, arguments.device)
        adapted = load_model(arguments.base, arguments.device, adapter=result.adapter)
    found = {"domain": domain, "images": count, "speed": speed, "objects": result.card.objects}
    for model, after in ((base, ""), (adapted, " after")):
        scores = score(model, in_terms_of(model, ReviewedSet(others, *classes(everything))))
        own_scores = score(model, in_terms_of(model, own))
        found[f"F1{after}"] = f"{scores['object_f1']:.3f}"
        found[f"PQ{after}"] = f"{scores['object_pq']:.3f}"
        if domain == "consep-type":
            found[f"type PQ{after}"] = f"{scores.get('type_pq', {}).get(arguments.new_type, 0):.3f}"
        found[f"own PQ{after}"] = f"{own_scores.get('object_pq', float('nan')):.3f}"
        found[f"own Dice{after}"] = f"{own_scores.get('mean_region_dice', float('nan')):.3f}"
    used = result.card.settings
    more = {"steps": used["steps_taken"], "input": used["input"], "minutes": f"{minutes:.1f}"}
    more["of the change"] = f"{used['interpolation']:.0%}"
    return {**found, **more, "MB of memory": f"{peak:.0f}", "MB of file": f"{size:.2f}"}


def images_of(domain: str, arguments: argparse.Namespace) -> Any:
    """All images of a domain in random order, marked as reviewed."""
    from napari_coseg.datasets.registry import open_dataset
    from napari_coseg.finetuning.sources import from_samples

    dataset = open_dataset(DOMAINS[domain], arguments.data)
    split = "test" if domain == "consep-type" else domain
    names = dataset.names(split)
    order = np.random.default_rng(SEED).permutation(len(names))
    samples = [dataset.load(split, names[i]) for i in order]
    return from_samples(samples, dataset, domain)


def own_images(data: Path, count: int, *, held_out: bool) -> Any:
    """Some held-out or training images of the base's recipe."""
    from napari_coseg.datasets.held_out import load_split
    from napari_coseg.datasets.registry import open_dataset
    from napari_coseg.finetuning.sources import from_samples, together

    sets = []
    for name, held in load_split(SPLIT).items():
        dataset = open_dataset(name, data)
        learnt = [image for image in dataset.names("train") if image not in held]
        names = held if held_out else learnt
        samples = [dataset.load("train", image) for image in names[:count]]
        sets.append(from_samples(samples, dataset, name))
    return together(sets)


def in_terms_of(model: Any, reviewed: Any) -> Any:
    """Images with the class ids of a model's card, without classes that it lacks."""
    from napari_coseg.finetuning.classes import ClassPlan

    card = model.card
    semantic = {entry.name.lower(): entry.id for entry in card.semantic_classes}
    instance = {entry.name.lower(): entry.id for entry in card.instance_classes}
    return ClassPlan(card, (), (), semantic, instance).applied(reviewed).images


def classes(reviewed: Any) -> tuple[Any, Any]:
    return reviewed.semantic_classes, reviewed.instance_classes


def settings_of(arguments: argparse.Namespace, speed: str, domain: str) -> Any:
    from napari_coseg.finetuning import FinetuneSettings

    values: dict[str, Any] = {"speed": speed, "minutes": arguments.minutes}
    values |= {"steps": arguments.steps, "add_classes": domain == "consep-type"}
    values |= dict(text.split("=", 1) for text in arguments.set)
    return FinetuneSettings.from_mapping(values)


def leave_out(data: Path, left_out: str, folder: Path) -> None:
    """Write CoNSeP's training images as a labelled folder where nuclei of one type are unknown."""
    from PIL import Image

    from napari_coseg.datasets.registry import open_dataset

    dataset = open_dataset("consep", data)
    kept = [entry for entry in dataset.instance_classes if entry.name != left_out]
    number = {entry.id: n for n, entry in enumerate(kept, 1)}
    folders = [folder / kind for kind in ("images", "objects", "object_classes", "known")]
    for one in folders:
        one.mkdir(parents=True)
    for name in dataset.names("train"):
        sample = dataset.load("train", name)
        types = sample.instance_types
        unknown = ~np.isin(types, [0, *number])
        table = np.array([number.get(i, 0) for i in range(256)], np.uint8)
        arrays = (
            sample.image,
            np.where(unknown, 0, sample.instances).astype(np.uint16),
            table[types],
            (~unknown).astype(np.uint8),
        )
        for one, array in zip(folders, arrays, strict=True):
            Image.fromarray(array).save(one / f"{name}.png")
    entries = [{"id": number[c.id], "name": c.name, "color": c.color} for c in kept]
    values = {"pixel_size_um": dataset.pixel_size_um, "instance_classes": entries}
    (folder / "dataset.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def train_base(arguments: argparse.Namespace) -> Path:
    """Train a recipe without one type of nucleus, or resume that training."""
    from napari_coseg.datasets.held_out import load_split
    from napari_coseg.evaluation.run import score_held_out
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.recipe import Recipe, read_recipe
    from napari_coseg.training.run import train_recipe

    root = arguments.train_base
    if not (root / "folder").exists():
        leave_out(arguments.data, arguments.new_type, root / "folder")
        (root / "glas").symlink_to((arguments.data / "glas").resolve())
        held = {"consep": "folder", "glas": "glas"}
        split = {held[name]: names for name, names in load_split(SPLIT).items()}
        (root / "held-out.json").write_text(json.dumps({"validation": split}), encoding="utf-8")
    values = read_recipe(arguments.recipe).model_dump()
    types = [c for c in values["card"]["instance_classes"] if c["name"] != arguments.new_type]
    values["card"]["instance_classes"] = [{**c, "id": n} for n, c in enumerate(types, 1)]
    values |= {"name": f"without-{arguments.new_type}", "held_out": str(root / "held-out.json")}
    for part in values["batches"]:
        if part["dataset"] == "consep":
            part |= {"dataset": "folder", "split": "all"}
    if arguments.steps:
        values["steps"] = arguments.steps
    recipe = Recipe.from_mapping(values)
    device = choose_device(arguments.device)
    return train_recipe(recipe, root, root / "training", score_held_out, device=device)


if __name__ == "__main__":
    main()
