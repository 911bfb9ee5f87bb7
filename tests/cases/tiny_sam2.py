"""A small SAM2.1 with random weights, sam2's image predictor, and worker jobs that use the former.

`use_tiny` makes `load_sam2` build the small network.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_coseg.inference.sam2 import model as sam2_model
from napari_coseg.inference.sam2.model import Sam2Kind
from napari_coseg.widgets.background.process import JobContext, Reply

SIDE = 128
TINY = Sam2Kind("sam2.1", "tiny")
_TRUNK = "++model.image_encoder.trunk"
_SMALLER = [
    f"++model.image_size={SIDE}",
    f"{_TRUNK}.embed_dim=16",
    f"{_TRUNK}.stages=[1,1,2,1]",
    f"{_TRUNK}.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
    "++model.memory_attention.num_layers=1",
]


def build_tiny(kind: Sam2Kind = TINY) -> Any:
    """sam2's own network from its own configuration, smaller."""
    from sam2.build_sam import build_sam2

    return build_sam2(kind.configuration, device="cpu", hydra_overrides_extra=_SMALLER)


def save_tiny(path: Path) -> Path:
    """A checkpoint as SAM2's are: the state dict under ``model``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_tiny()
    with torch.no_grad():
        for value in model.sam_mask_decoder.parameters():  # so that masks follow the prompts
            value.mul_(2)
    torch.save({"model": model.state_dict()}, path)
    return path


def use_tiny() -> None:
    """From now on this process takes every checkpoint for one of the tiny network."""
    sam2_model.recognise = lambda shapes, file="": TINY
    sam2_model.build = build_tiny


@contextmanager
def tiny_in_use() -> Iterator[None]:
    """`use_tiny`, and everything as it was afterwards."""
    before = sam2_model.recognise, sam2_model.build
    use_tiny()
    try:
        yield
    finally:
        sam2_model.recognise, sam2_model.build = before


# -- jobs --------------------------------------------------------------------------------------


def load(job: JobContext, **arguments: Any) -> Reply:
    from napari_coseg.widgets.correct import sam_tasks

    use_tiny()
    return sam_tasks.load(job, **arguments)


def answer(job: JobContext, **arguments: Any) -> Reply:
    """The real job; ``encoded`` of its reply counts the windows that this process has encoded."""
    from napari_coseg.inference.sam2.prompts import SamPrompts
    from napari_coseg.widgets.correct import sam_tasks

    use_tiny()
    encode = SamPrompts._encode

    def counted(self: Any, rgb: Any) -> Any:
        job.kept["encoded"] = job.kept.get("encoded", 0) + 1
        return encode(self, rgb)

    SamPrompts._encode = counted  # type: ignore[method-assign]
    try:
        reply = sam_tasks.answer(job, **arguments)
    finally:
        SamPrompts._encode = encode  # type: ignore[method-assign]
    return Reply({**reply.values, "encoded": job.kept.get("encoded", 0)}, reply.arrays)


# -- sam2's own predictor ----------------------------------------------------------------------


def predictor_of(model: Any) -> Any:
    """sam2's own image predictor on a model of any image size."""
    predictor = _predictor_module().SAM2ImagePredictor(model)
    side = model.image_size
    predictor._bb_feat_sizes = [(side // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def _predictor_module() -> ModuleType:
    """It imports torchvision for three simple steps, which stand here where it does not import."""
    try:
        return importlib.import_module("sam2.sam2_image_predictor")
    except (RuntimeError, ImportError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    transforms = ModuleType("torchvision.transforms")
    parts = {"Resize": _Resize, "Normalize": _Normalize, "ToTensor": _to_tensor_maker}
    transforms.__dict__.update(parts)
    torchvision = ModuleType("torchvision")
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    stand_ins = {"torchvision": torchvision, "torchvision.transforms": transforms}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("sam2.sam2_image_predictor")
    finally:
        for name in stand_ins:
            del sys.modules[name]


class _Resize(nn.Module):
    """As torchvision resizes tensors: bilinear, antialiased."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, image: Tensor) -> Tensor:
        size = [self.height, self.width]
        return F.interpolate(
            image[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class _Normalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor(self.mean).view(3, 1, 1)
        return (image - mean) / torch.tensor(self.std).view(3, 1, 1)


def _to_tensor_maker() -> Any:
    return lambda picture: torch.from_numpy(picture).permute(2, 0, 1).float() / 255
