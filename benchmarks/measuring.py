"""Time and memory of a function call, for the other benchmarks.

CPU seconds are of all threads together, and do not depend on other programs; wall time is printed
too.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Synthetic nuclei are among the tests: import this module before `cases.synthetic`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SIZES_PX = (1024, 2048, 4096)
NUCLEI_AT_4096 = 11_000
HEADER = f"{'':34}{'px':>6}{'CPU s':>9}{'wall s':>9}{'ns/px':>8}{'peak MiB':>10}"


class Measured(NamedTuple):
    """Time of a call, and its peak memory without its inputs."""

    result: object
    cpu_s: float
    wall_s: float
    peak_mib: float

    def line(self, name: str, size_px: int) -> str:
        """Format a row under `HEADER`."""
        ns = 1e9 * self.cpu_s / size_px**2
        return (
            f"{name:34}{size_px:6}{self.cpu_s:9.2f}{self.wall_s:9.2f}{ns:8.0f}{self.peak_mib:10.0f}"
        )


def measured(function: Callable[[], object]) -> Measured:
    """Call twice, first to measure time, then memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Measured(result, cpu, wall, peak / 2**20)
