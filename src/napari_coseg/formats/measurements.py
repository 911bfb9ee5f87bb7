"""What was measured as two CSV files: one row per object, one row per region and class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.files import atomic_write, refuse_existing

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = ("_measurements.csv", "_summary.csv")


def measurement_paths(folder: Path, name: str) -> list[Path]:
    """The files that `write_measurements` writes."""
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]


def write_measurements(
    objects: pd.DataFrame,
    summary: pd.DataFrame,
    folder: str | Path,
    name: str,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write both tables; UTF-8, dots in numbers, nothing where a number is not known.

    Parameters
    ----------
    objects, summary
        Of `napari_coseg.labels.measure.run.Measurements`.
    name
        Beginning of the file names.

    Returns
    -------
    list of Path
        ``<name>_measurements.csv`` and ``<name>_summary.csv``.

    Raises
    ------
    OutputError
        Where a file exists and may not be overwritten, or the disk refuses.
    """
    paths = measurement_paths(Path(folder), name)
    refuse_existing(paths, overwrite)
    for table, path in zip((objects, summary), paths, strict=True):
        with atomic_write(path, overwrite) as partial:
            table.to_csv(partial, index=False)
    return paths
