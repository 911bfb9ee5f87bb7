"""Time and memory of segmenting a lazy image, by size, without the cost of a network.

    python benchmarks/segmenting.py

The model is a stub, so reading, tiling, decoding, stitching and the table are measured. The last
column is memory beyond the two label images; it should grow with the image's width, not its area.
"""

from __future__ import annotations

import numpy as np
from measuring import measured

from cases.stub_models import StubModel, disc_picture, spread_discs, stub_card
from napari_coseg.inference import InferenceSettings, segment

SHAPES = ((2048, 2048), (4096, 2048), (8192, 2048), (16384, 2048), (4096, 4096))
PATTERN_PX = 512
BYTES_PER_PIXEL = 5  # uint8 regions and int32 objects


class Repeated:
    """A large lazy image that repeats a small one."""

    def __init__(self, shape: tuple[int, int]) -> None:
        tissue = (slice(50, 400), slice(50, 400))
        centres = spread_discs((PATTERN_PX, PATTERN_PX), step=38)
        self.pattern, _ = disc_picture((PATTERN_PX, PATTERN_PX), centres, tissue=tissue)
        self.shape, self.dtype = (*shape, 3), self.pattern.dtype

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        rows, columns = (
            np.arange(*part.indices(length)) % PATTERN_PX
            for part, length in zip(index[:2], self.shape[:2], strict=True)
        )
        return self.pattern[np.ix_(rows, columns)][..., index[2]]


def main() -> None:
    model = StubModel(stub_card(tile_size_px=512, halo_px=64))
    settings = InferenceSettings(decode_block_px=1024)
    print(f"{'rows x columns':>15}{'objects':>9}{'CPU s':>8}{'ns/px':>7}{'MiB beyond outputs':>20}")
    for rows, columns in SHAPES:
        image = Repeated((rows, columns))
        run = measured(lambda image=image: segment(image, model, 0.5, settings=settings))
        outputs = rows * columns * BYTES_PER_PIXEL / 2**20
        print(
            f"{rows:>7} x {columns:<5}{len(run.result.instances):>9}{run.cpu_s:8.1f}"
            f"{1e9 * run.cpu_s / (rows * columns):7.0f}{run.peak_mib - outputs:20.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
