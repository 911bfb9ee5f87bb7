"""What a run tells of itself: what is understood where it comes back from a file of any format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cases.export_cases import TOUCHING, grey, prediction
from napari_coseg.core.errors import ImageError
from napari_coseg.core.provenance import checked_provenance
from napari_coseg.formats.ome_tiff import read_notes
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.registry import export

FINE = [
    {},
    {"model": "m", "anything": [1, {"else": None}]},
    {"channels": [0, 2], "window": [-1000, 1000.0], "region_offset": [0, 4], "axes": "YXC"},
    {"channels": None, "window": None, "axes": None},
    {"channels": 1},
]
WRONG: dict[str, Any] = {
    "channels in words": {"channels": "red"},
    "a channel below zero": {"channels": [-1]},
    "a window of one value": {"window": [3.0]},
    "a window without end": {"window": [0.0, float("inf")]},
    "an offset beyond any image": {"region_offset": [2**40, 0]},
    "axes of any length": {"axes": "Y" * 5},
}


@pytest.mark.parametrize("values", FINE)
def test_what_a_run_writes_is_kept_as_it_is(values: dict[str, Any]) -> None:
    assert checked_provenance(values) == values


@pytest.mark.parametrize("values", [*WRONG.values(), [], "text", None])
def test_what_no_run_writes_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="RunFacts"):
        checked_provenance(values)


@pytest.mark.parametrize("of", ["ome-tiff", "ome-zarr", "geojson"])
def test_every_format_refuses_it_while_reading(tmp_path: Path, of: str) -> None:
    if of == "ome-zarr":
        pytest.importorskip("zarr", reason="writes OME-Zarr: needs zarr")
    found = prediction(TOUCHING, channels="red")
    path = export(found, grey(TOUCHING), tmp_path, [of])[-1]
    read = {"ome-tiff": read_notes, "ome-zarr": read_ome_zarr, "geojson": read_geojson}[of]
    with pytest.raises(ImageError, match="understood"):
        read(path)
