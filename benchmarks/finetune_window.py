"""Fine-tuning beside the window: responsiveness, time to cancel, and adapter sizes.

    xvfb-run -a python benchmarks/finetune_window.py [--seconds 60]

Half of the fluorescence sample is reviewed in a workspace, and the shipped model is fine-tuned on
it for some seconds in the Fine-tune dock. Prints the longest time between two calls of an event
loop timer, which is the longest that a click would have waited; the time from *Cancel* to the end
of the training and of its process, and that process' memory; the time to switch adapters on a
loaded base; and the size of adapter files for the shipped model and Co-Seg++ with Hiera-L, at both
speeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import napari
import numpy as np
import psutil
import torch
from gui_gap import Gaps, report, rest, wait

from napari_coseg.core.card import ModelCard
from napari_coseg.finetuning.settings import HEADS, THROUGH_ENCODER
from napari_coseg.inference.loading import load_model, switch_adapter
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.adapter_library import FOLDER_VARIABLE
from napari_coseg.models.checkpoints.adapters import AdapterCard, save_adapter
from napari_coseg.models.registry import build
from napari_coseg.widgets.correct.reading import editor_of, request_of
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.finetune.widget import FinetuneWidget
from napari_coseg.widgets.workspace.controller import controller_of
from napari_coseg.workspace import recent

SPEEDS = {"heads": HEADS, "adapters": (*HEADS, *THROUGH_ENCODER)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60, help="training time before it is cancelled"
    )
    seconds = parser.parse_args().seconds
    with TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = f"{folder}/adapters"
        os.environ[recent.PLACE_VARIABLE] = f"{folder}/state"
        in_the_window(Path(folder), seconds)
        switching(Path(folder))
        sizes(Path(folder))


def in_the_window(folder: Path, seconds: float) -> None:
    viewer = napari.Viewer(show=True)
    image, drawn = viewer.open_sample("napari-coseg", "fluorescence")
    controller = controller_of(viewer)
    controller.create(folder / "nuclei.coseg")
    wait(lambda: controller.workspace is not None and not controller.busy)
    controller.add(image, drawn, None)
    wait(lambda: bool(controller.links) and not controller.busy)
    session = CorrectionSession(drawn, None, editor_of(*request_of(drawn, None)))
    part = np.zeros(drawn.data.shape, bool)
    part[:, : part.shape[1] // 2] = True
    session.mark("Review", session.reviewed.with_area(np.nonzero(part)))
    dock = FinetuneWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.setup.main.boxes["minutes"].setValue(10)
    dock.look()
    wait(lambda: "of memory" in dock.setup.estimate.text())
    gaps = Gaps()
    start = time.perf_counter()
    dock.run()
    wait(lambda: len(dock.progress.losses) > 0)
    first_step = time.perf_counter()
    report("starting, until the first step", gaps.ms(start, first_step))
    rest(seconds)
    report("training", gaps.ms(first_step, time.perf_counter()))
    training = psutil.Process(dock.worker.pid)
    memory_mb = training.memory_info().rss / 1e6
    asked = time.perf_counter()
    dock.bar.cancel_button.click()
    wait(lambda: not dock.bar.is_busy)
    ended = time.perf_counter()
    wait(lambda: not training.is_running())
    gone = time.perf_counter()
    report("cancelling", gaps.ms(asked, gone))
    print(f"{len(dock.progress.losses)} steps; cancelled after {ended - asked:.2f} s")
    print(f"its process and {memory_mb:.0f} MB were released after {gone - asked:.2f} s")
    session.close()
    dock.close()
    controller.abandon()
    viewer.close()


def switching(folder: Path) -> None:
    base = load_model("default", "cpu")
    files = [folder / f"{speed}.safetensors" for speed in SPEEDS]
    for speed, file in zip(SPEEDS, files, strict=True):
        made(base, speed, file)
    seconds = []
    for file in files * 3:
        start = time.perf_counter()
        switch_adapter(base, file)
        seconds.append(time.perf_counter() - start)
    print(f"switching adapters: median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s")


def sizes(folder: Path) -> None:
    torch.manual_seed(0)
    shipped = load_model("default", "cpu")
    config = {"encoder": "large"}
    large = build(ModelCard(**{**shipped.card.model_dump(), "config": config}))
    for name, base in (("the shipped model", shipped), ("Co-Seg++, Hiera-L", large)):
        for speed in SPEEDS:
            file = folder / f"size-{speed}.safetensors"
            made(base, speed, file)
            print(f"adapter of {name}, {speed}: {file.stat().st_size / 1e6:.1f} MB")


def made(base: CosegModel, speed: str, file: Path) -> None:
    """Save an adapter that changes every parameter trained at this speed a little."""
    from copy import deepcopy

    from napari_coseg.inference.loading import model_origin

    network = deepcopy(base)
    parts = tuple(name for name in SPEEDS[speed] if name in network.parts())
    with torch.no_grad():
        for part in parts:
            for parameter in network.parts()[part]:
                parameter.add_(0.01 * torch.randn_like(parameter))
    values: dict[str, Any] = {
        "name": speed,
        "base_name": base.card.name,
        "base_sha256": model_origin(base).get("sha256", "0" * 64),
        "model": base.card,
        "semantic_origins": tuple((entry.id,) for entry in base.card.semantic_classes),
        "instance_origins": tuple((entry.id,) for entry in base.card.instance_classes),
        "parts": parts,
    }
    save_adapter(file, network, base, AdapterCard(**values))


if __name__ == "__main__":
    sys.exit(main())
