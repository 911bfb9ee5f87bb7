"""FLOPs of a two-forward prediction and learnable parameters of Co-Seg++, by encoder size.

    python benchmarks/flops.py

Counted by torch's FlopCounterMode on one image of 1024 x 1024: 2 FLOPs a multiply-add of matrix
products, convolutions and attention; element by element work is left out (the scan's is below
0.1 % of the whole). Counted on the meta device, where nothing is computed; a run on the CPU would
be counted short, since the counter does not know the CPU's fused attention. The released code
encodes the image once for each forward; its numbers were counted with attention too.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_coseg.checkpoints.from_coseg_plus import AS_PUMA
from napari_coseg.models.base import CosegModel
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.outline import build_outline

AS_RELEASED_GFLOP = {"tiny": 711, "small": 851, "base-plus": 1445, "large": 3888}
AS_RELEASED_MILLIONS = {"tiny": 14.22, "small": 14.51, "base-plus": 16.04, "large": 22.18}


def gflop(model: CosegModel) -> float:
    """One image, both forwards."""
    # The counter's hooks fail on parameters that want gradients where gradients are off.
    model.requires_grad_(False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 1024, 1024, device="meta"))
    return counter.get_total_flops() / 1e9


def learnable_millions(model: CosegPlus) -> float:
    """Parameters outside the trunk, which the paper freezes."""
    parts = model.parts().items()
    return sum(p.numel() for name, part in parts if name != "trunk" for p in part) / 1e6


def main() -> None:
    print("encoder     GFLOP  released  ratio   learnable M  released M")
    for name, released in AS_RELEASED_GFLOP.items():
        model = build_outline(AS_PUMA.model_copy(update={"config": {"encoder": name}}))
        assert isinstance(model, CosegPlus)
        learnable = learnable_millions(model)
        count = gflop(model)
        print(
            f"{name:<10}{count:>7.1f}  {released:>8}  {count / released:>5.3f}  "
            f"{learnable:>12.2f}  {AS_RELEASED_MILLIONS[name]:>10}"
        )


if __name__ == "__main__":
    main()
