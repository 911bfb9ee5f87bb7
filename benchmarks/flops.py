"""FLOPs of a two-forward prediction and learnable parameters of Co-Seg++, by encoder size.

    python benchmarks/flops.py

Counted for one image of 1024 x 1024 by `models.costs`. The released code encodes the image once
for each forward; its counts include attention too. For latency:
``napari-coseg ablate puma --table cost``.
"""

from __future__ import annotations

from napari_coseg.models.checkpoints.from_coseg_plus import AS_PUMA
from napari_coseg.models.costs import measure_costs

SIDE_PX = 1024
AS_RELEASED_GFLOP = {"tiny": 711, "small": 851, "base-plus": 1445, "large": 3888}
AS_RELEASED_MILLIONS = {"tiny": 14.22, "small": 14.51, "base-plus": 16.04, "large": 22.18}


def main() -> None:
    print("encoder     GFLOP  released  ratio   learnable M  released M")
    for name, released in AS_RELEASED_GFLOP.items():
        card = AS_PUMA.model_copy(update={"config": {"encoder": name}})
        costs = measure_costs(card, SIDE_PX, repeats=0)
        learnable, count = costs.learnable_m, costs.rows[0].gflop
        print(
            f"{name:<10}{count:>7.1f}  {released:>8}  {count / released:>5.3f}  "
            f"{learnable:>12.2f}  {AS_RELEASED_MILLIONS[name]:>10}"
        )


if __name__ == "__main__":
    main()
