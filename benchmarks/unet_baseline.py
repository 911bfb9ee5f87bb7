"""Single-task baseline: a U-Net with about 1.3 million parameters, trained for some minutes.

    python benchmarks/unet_baseline.py --task nuclei --minutes 30 [--encoder NAME] [--root DATA]

Nuclei: crops of CoNSeP, 192 px at 0.25 um per pixel; outputs are object probability and horizontal
and vertical maps. Glands: crops of GlaS, 256 px at 1 um per pixel; one output. Crops, decoding and
metrics are the package's. The weights with the best validation score are scored on the test images.
With --encoder efficientnet-lite0 the network is the encoder of `multi-organ`, started from
ImageNet (extra "train"), and one convolution. A stopped run resumes when started again with the
same folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from baseline_scores import Scores, data_root, score_glands, score_nuclei, write_row
from torch import Tensor, nn

from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.batches import Batch, CropSampler, CropSource, drawn_ahead
from napari_coseg.datasets.held_out import hold_out, load_split
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.models.checkpoints.from_efficientnet import initialise_trunk
from napari_coseg.models.checkpoints.starting import starting_file
from napari_coseg.models.nn.encoders.registry import build_encoder, shape_of

WIDTHS = (24, 48, 80, 112, 144)
PATH_CHANNELS = (64, 48, 32)
"""Of a pretrained encoder's maps at strides 8, 4 and 2, as `multi-organ` has them."""
LEARNING_RATE = 2e-3
TRUNK_RATE = 0.25
"""Of a trunk that starts pretrained, as a share of the learning rate."""
HV_WEIGHT = 2.0


@dataclass(frozen=True)
class Task:
    """Settings of a task."""

    name: str
    dataset: str
    test_split: str
    pixel_size_um: float
    size_px: int
    channels: int
    selection_metric: str


TASKS = {
    "nuclei": Task("nuclei", "consep", "test", 0.25, 192, 3, "pq"),
    "glands": Task("glands", "glas", "testA", 1.0, 256, 1, "dice"),
}
BATCH_SIZE = 8


class UNet(nn.Module):
    """Two convolutions per level, max pooling down, bilinear up with skip connections."""

    size_multiple = 2 ** (len(WIDTHS) - 1)

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_level(i, o) for i, o in pairwise((3, *widths)))
        rising = list(reversed(widths))
        self.up = nn.ModuleList(_level(low + high, high) for low, high in pairwise(rising))
        self.head = nn.Conv2d(widths[0], channels, 1)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, Y, X) of 0..255 -> (B, channels, Y, X)
        x, skips = images / 128 - 1, []
        for level in self.down:
            x = level(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for level, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = level(torch.cat([larger, skip], dim=1))
        return self.head(x)


class PretrainedUNet(nn.Module):
    """An encoder of the project with its path up, and one convolution at stride 2 as the head."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.encoder = build_encoder(shape_of(name), 128, PATH_CHANNELS, 0.0, 0)
        self.size_multiple = self.encoder.size_multiple
        self.head = nn.Conv2d(PATH_CHANNELS[-1], channels, 1)
        print(initialise_trunk(self, starting_file(name)), flush=True)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, Y, X) of 0..255 -> (B, channels, Y, X)
        _, (finest, *_) = self.encoder((images - 127) / 128)
        return F.interpolate(
            self.head(finest), scale_factor=2, mode="bilinear", align_corners=False
        )


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """All parameters; what starts from elsewhere at a share of the learning rate."""
    trunk = network.encoder.parts()["trunk"] if isinstance(network, PretrainedUNet) else []
    known = {id(p) for p in trunk}
    rest = [p for p in network.parameters() if id(p) not in known]
    groups = [{"params": rest, "factor": 1.0}, {"params": trunk, "factor": TRUNK_RATE}]
    return [group for group in groups if group["params"]]


def _level(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in (channels_in, channels_out):
        layers += [nn.Conv2d(i, channels_out, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def loss_of(task: Task, maps: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy and Dice of the mask; for nuclei also the squared error of the HV maps."""
    kind, device = "semantic" if task.name == "glands" else "instances", maps.device
    labels, known = getattr(batch, kind), getattr(batch, f"{kind}_known")
    truth = torch.from_numpy(labels > 0).float().to(device)
    valid = torch.from_numpy(known).float().to(device)
    logit = maps[:, 0]
    crossed = F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    probability = logit.sigmoid() * valid
    overlap = 2 * (probability * truth).sum() + 1
    dice = 1 - overlap / (probability.sum() + (truth * valid).sum() + 1)
    loss = (crossed * valid).sum() / valid.sum() + dice
    if task.name == "nuclei":
        squared = (maps[:, 1:] - torch.from_numpy(batch.hv).to(device)) ** 2
        loss = loss + HV_WEIGHT * (squared.mean(dim=1) * truth).sum() / (truth.sum() + 1)
        loss = loss + 0.5 * HV_WEIGHT * (squared.mean(dim=1) * valid).sum() / valid.sum()
    return loss


@torch.no_grad()
def predict(network: nn.Module, image: np.ndarray, device: torch.device) -> np.ndarray:
    """Predict float32 maps (channels, Y, X) of uint8 (Y, X, 3) at the network's pixel size."""
    height, width, _ = image.shape
    multiple = int(network.size_multiple)
    below, right = -height % multiple, -width % multiple
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
    planes = torch.from_numpy(np.moveaxis(padded, 2, 0)[None].astype(np.float32)).to(device)
    network.eval()
    with torch.autocast(device.type, torch.bfloat16):
        maps = network(planes.contiguous(memory_format=torch.channels_last))
    network.train()
    return maps[0, :, :height, :width].float().cpu().numpy()


def segment_nuclei(network: nn.Module, sample: Sample, device: torch.device) -> np.ndarray:
    from napari_coseg.labels.decoding.hover import decode_instances

    maps = predict(network, sample.image, device)
    return decode_instances(_sigmoid(maps[0]), maps[1:])


def segment_glands(
    network: nn.Module, sample: Sample, device: torch.device, pixel_size_um: float
) -> np.ndarray:
    from PIL import Image

    from napari_coseg.labels.decoding.semantic import remove_small_regions

    shrink = round(pixel_size_um / sample.pixel_size_um)
    small = np.asarray(Image.fromarray(sample.image).reduce(shrink))
    mask = (predict(network, small, device)[0] > 0).astype(np.uint8)
    mask = remove_small_regions(mask, min_area_px=300, min_hole_px=300)
    full = mask.repeat(shrink, axis=0).repeat(shrink, axis=1)
    return full[: sample.image.shape[0], : sample.image.shape[1]]


def score(
    task: Task, network: nn.Module, samples: Sequence[Sample], device: torch.device
) -> Scores:
    if task.name == "nuclei":
        return score_nuclei(samples, lambda s: segment_nuclei(network, s, device))[0]
    um = task.pixel_size_um
    return score_glands(samples, lambda s: segment_glands(network, s, device, um))[0]


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


@dataclass
class Run:
    """A resumable training with its state in a folder."""

    task: Task
    network: nn.Module
    optimizer: torch.optim.Optimizer
    folder: Path
    device: torch.device
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0

    @property
    def latest(self) -> Path:
        return self.folder / f"{self.task.name}_latest.pt"

    @property
    def chosen(self) -> Path:
        return self.folder / f"{self.task.name}_best.pt"

    def save(self) -> None:
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"step": self.step, "seconds": self.seconds, "best": self.best}
        unfinished = self.latest.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.latest)

    def resume(self) -> None:
        if self.latest.exists():
            state = torch.load(self.latest, weights_only=True, map_location=self.device)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]

    def validate(self, samples: Sequence[Sample]) -> None:
        scores = score(self.task, self.network, samples, self.device)
        text = " ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"step {self.step}, {self.seconds / 60:.1f} min: validation {text}", flush=True)
        if scores[self.task.selection_metric] > self.best:
            self.best = scores[self.task.selection_metric]
            torch.save(self.network.state_dict(), self.chosen)
        self.save()


def train(
    run: Run,
    sampler: CropSampler,
    validation: Sequence[Sample],
    minutes: float,
    validations: int,
    threads: int,
) -> None:
    """Train with cosine decay over time instead of steps; validation time is not counted."""
    limit = 60 * minutes
    next_validation = limit / validations * (1 + int(run.seconds / limit * validations))
    for batch in drawn_ahead(sampler.draw, run.step, 10**9, threads):
        if run.seconds >= limit:
            break
        start = time.perf_counter()
        fraction = min(run.seconds / limit, 1.0)
        rate = LEARNING_RATE * min(1.0, (run.step + 1) / 50) * (1 + np.cos(np.pi * fraction)) / 2
        for group in run.optimizer.param_groups:
            group["lr"] = float(rate) * group["factor"]
        images = torch.from_numpy(batch.images).to(run.device)
        with torch.autocast(run.device.type, torch.bfloat16):
            maps = run.network(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(run.task, maps.float(), batch)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.optimizer.step()
        run.step += 1
        run.seconds += time.perf_counter() - start
        if run.step % 50 == 0:
            print(
                f"step {run.step}, {run.seconds / 60:.1f} min: loss {loss.item():.3f}", flush=True
            )
        if run.seconds >= next_validation:
            run.validate(validation)
            next_validation += limit / validations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--encoder", help="pretrained encoder, such as efficientnet-lite0")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="training time, without validation"
    )
    parser.add_argument("--validations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1, help="threads that prepare crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", help="folder with consep and glas")
    parser.add_argument("--run", type=Path, default=Path("runs/unet"), help="folder of the run")
    parser.add_argument("--csv", type=Path, help="file to append the row to")
    arguments = parser.parse_args()
    if arguments.task is None:
        parser.print_help()
        return
    task = TASKS[arguments.task]
    dataset = open_dataset(task.dataset, data_root(arguments.root))
    split = hold_out(dataset.names("train"), load_split("colon_default")[task.dataset])
    source = CropSource(dataset.load_all("train", split.train), BATCH_SIZE)
    sampler = CropSampler([source], task.size_px, task.pixel_size_um, arguments.seed)

    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network: nn.Module = (
        PretrainedUNet(arguments.encoder, task.channels)
        if arguments.encoder
        else UNet(WIDTHS, task.channels)
    )
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(network), weight_decay=1e-4)
    arguments.run.mkdir(parents=True, exist_ok=True)
    run = Run(task, network, optimizer, arguments.run, device)
    run.resume()
    validation = dataset.load_all("train", split.validation)
    train(run, sampler, validation, arguments.minutes, arguments.validations, arguments.threads)

    if not run.chosen.exists():
        run.validate(validation)
    network.load_state_dict(torch.load(run.chosen, weights_only=True, map_location=device))
    labels = {
        "baseline": f"unet {arguments.encoder}" if arguments.encoder else "unet",
        "task": task.name,
        "split": task.test_split,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": run.step,
        "minutes": f"{run.seconds / 60:.1f}",
        f"validation_{task.selection_metric}": f"{run.best:.4f}",
    }
    scores = score(task, network, dataset.load_all(task.test_split), device)
    write_row(labels, scores, arguments.csv)


if __name__ == "__main__":
    main()
