"""Time of MedUniSeg on a plane: with the layers cut to 2D, and with its 3D kernels.

    OMP_NUM_THREADS=1 python benchmarks/planes.py [SIDE]

Both give the same answer; the last line is how far apart they are (relative 2-norm).
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from measuring import measured
from torch import Tensor, nn

from napari_coseg.core.card import ClassEntry, ModelCard, OutputMap
from napari_coseg.models.base import Conditions
from napari_coseg.models.meduniseg import layers
from napari_coseg.models.meduniseg.model import MedUniSeg


def card() -> ModelCard:
    """The paper's widths, one task of histology."""
    return ModelCard(
        name="MedUniSeg",
        family="meduniseg",
        config={},
        modalities=("pathology",),
        tasks=({"name": "glands", "classes": ("gland",)},),
        semantic_classes=(ClassEntry(id=1, name="gland", color=(0, 0, 0)),),
        maps=(OutputMap(name="semantic", channels=2, activation="softmax"),),
        pixel_size_um=1.0,
    )


def convolve(self: layers.Convolution, maps: Tensor, adapted: object = None) -> Tensor:
    return nn.Conv3d.forward(self, maps)


def upscale(self: layers.Upscaling, maps: Tensor, is_plane: bool, adapted: object = None) -> Tensor:
    return F.conv_transpose3d(maps, self.weight, stride=self.stride).mean(2, keepdim=True)


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    model = MedUniSeg(card()).eval()
    image, names = torch.randn(1, 3, side, side), Conditions(("pathology",), ("glands",))

    @torch.inference_mode()
    def run() -> Any:
        return model(image, names)[0]

    run()  # makes the kernels of both ways ready
    flat = measured(run)
    with (
        patch.object(layers.Convolution, "forward", convolve),
        patch.object(layers.Upscaling, "forward", upscale),
    ):
        run()
        deep = measured(run)
    apart = (flat.result - deep.result).norm() / deep.result.norm()
    print(f"{side} x {side}: 2D {flat.cpu_s:.1f} s, 3D {deep.cpu_s:.1f} s of CPU", end="")
    print(f" ({deep.cpu_s / flat.cpu_s:.1f} times), {apart:.1e} apart")


if __name__ == "__main__":
    main()
