"""Read outlines from Aperio ImageScope XML annotations.

    <Annotations><Annotation><Regions><Region><Vertices><Vertex X="1.5" Y="2"/>...

Coordinates are continuous: pixel i of an axis spans i to i + 1. The parser builds no tree. Files
with a document type are refused, because it can declare entities.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.geojson import Outline

MAX_BYTES = 64 * 2**20
"""Largest file read; MoNuSeg files have up to 8 MiB."""


def read_regions(path: Path, name: str) -> tuple[Outline, ...]:
    """Read the regions with at least three vertices, in file order.

    Parameters
    ----------
    name
        Class of all outlines; MoNuSeg files name none.

    Raises
    ------
    DatasetError
        If the file is too large, is not XML, declares a document type, has no `Annotations`, or
        has vertices without finite X and Y.
    """
    regions: list[list[tuple[float, float]]] = []
    root: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        root.append(tag) if not root else None
        if tag == "Region":
            regions.append([])
        elif tag == "Vertex" and regions:
            regions[-1].append((float(attributes["X"]), float(attributes["Y"])))

    def refuse(*_: object) -> None:
        raise DatasetError(f"{path} declares a document type; Aperio annotations have none")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
        with path.open("rb") as file:
            parser.ParseFile(file)
        corners = [np.array([*region, region[0]]) for region in regions if len(region) > 2]
        if root != ["Annotations"] or not all(np.isfinite(ring).all() for ring in corners):
            raise ValueError("expected Annotations with vertices of finite X and Y")
    except (OSError, expat.ExpatError, ValueError, KeyError) as error:
        raise DatasetError(f"cannot read the Aperio annotations {path}: {error}") from error
    return tuple(Outline(name, (ring,)) for ring in corners)
