"""Read TIFF, OME-TIFF, ImageJ TIFF and slide scanners' TIFF, with axes and geometry."""

from __future__ import annotations

import json
import math
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import NOTE, Geometry, ImageSource
from napari_coseg.core.types import Image
from napari_coseg.images.readers.photometric import conversion_of, has_alpha, stains_first
from napari_coseg.images.readers.registry import stem_of
from napari_coseg.images.readers.resolution import UNITS_UM, from_dots
from napari_coseg.images.readers.tiff_whole import images_left_out, refuse_parts

if TYPE_CHECKING:
    import tifffile

LOADED_BYTES = 2**29
"""Images up to this size are loaded; larger ones are read lazily."""

BROKEN = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RuntimeError, ArithmeticError, MemoryError, struct.error, ElementTree.ParseError),
)
"""Errors that tifffile and its codecs raise on broken files."""

_OUR_AXIS = {"Y": "Y", "X": "X", "Z": "Z", "I": "Z", "Q": "Z", "C": "C", "S": "C"}
"""Unspecified pages (I, Q) are slices; samples per pixel are channels."""


def read(path: Path, stored: bool = False) -> Image:
    """Read the first series at its finest level, converted to its colours.

    `stored` leaves the values of grey and of palettes as they are, as labels need.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise ImageError(f"{path} holds no image")
            refuse_parts(file)
            series = file.series[0]
            kept, axes = _our_axes(series.axes, series.shape, path)
            geometry = _of_first(file, _geometry(file, axes))
            shown = None if stored else conversion_of(file, series.keyframe, axes)
            alpha = has_alpha(series.keyframe)
            loaded = series.nbytes <= LOADED_BYTES
            data = series.asarray() if loaded else None
        if data is None:
            data = _opened(path)
    except BROKEN as error:
        raise ImageError(f"{path} cannot be read as TIFF: {error}") from error
    image = replace(_in_our_order(data, kept, axes, geometry, stem_of(path)), alpha=alpha)
    if shown is None:
        return stains_first(image)
    data = image.data if loaded else _as_dask(image.data)
    return replace(image, data=shown(data), axes=image.axes + "C" * shown.adds_axis)


def _of_first(file: tifffile.TiffFile, geometry: Geometry) -> Geometry:
    """The geometry with a note, and a warning, where other images of the file are left out."""
    message = images_left_out(file)
    if not message:
        return geometry
    warnings.warn(f"{file.filename}: {message}; save another as a file to read it", stacklevel=3)
    source = geometry.source
    return replace(geometry, source=replace(source, assumed=(*source.assumed, message)))


def _our_axes(axes: str, shape: tuple[int, ...], path: Path) -> tuple[tuple[Any, ...], str]:
    """Index that drops axes of length one, and the axes that remain."""
    index: list[Any] = []
    letters = ""
    for axis, length in zip(axes, shape, strict=True):
        if length == 1 and axis not in "YX":
            index.append(0)
            continue
        index.append(slice(None))
        letters += _OUR_AXIS.get(axis, "?")
    if "?" in letters or len(set(letters)) < len(letters):
        raise ImageError(
            f"{path} has axes {axes} of lengths {shape}; expected one plane or stack, with one "
            "axis of channels at most: save the part to segment as a file"
        )
    return tuple(index), letters


def _in_our_order(
    data: Any, kept: tuple[Any, ...], axes: str, geometry: Geometry, name: str
) -> Image:
    lacks_z = (
        "Z" in geometry.axes and "Z" not in axes
    )  # a stack of one slice, written by this package
    index = (None, *kept) if lacks_z else kept
    if any(part in (0, None) for part in index if not isinstance(part, slice)):
        data = data[index] if isinstance(data, np.ndarray) else _as_dask(data)[index]
        axes = "Z" * lacks_z + axes
    if axes == "CZYX":
        data = np.moveaxis(data if isinstance(data, np.ndarray) else _as_dask(data), 0, 1)
        axes = "ZCYX"
    return Image(data, axes, name=name, geometry=geometry)


def _opened(path: Path) -> Any:
    """The finest level as a lazy zarr array."""
    import tifffile
    import zarr

    store: Any = tifffile.imread(path, aszarr=True, series=0, level=0)
    return zarr.open(store, mode="r")


def _as_dask(data: Any) -> Any:
    import dask.array

    return data if isinstance(data, dask.array.Array) else dask.array.from_array(data)


def _geometry(file: tifffile.TiffFile, axes: str) -> Geometry:
    """The geometry: as written by this package, else pixel size and position of the file.

    `axes` are the axes of the array that remain.
    """
    source = ImageSource(file.filename, file.series[0].name if file.ome_metadata else "")
    pixels = _ome_pixels(file.ome_metadata) if file.ome_metadata else None
    size = _pixel_size(file, axes, pixels)
    note = _note(file.ome_metadata) if file.ome_metadata else None
    if note is not None and note.ndim >= len(axes.replace("C", "")):
        written = note.known_size_um
        now = (*written[: -len(size)], *size) if size else written
        # Another program may have changed the pixel size since.
        return note if note.has_pixel_size(now) else note.with_pixel_size(now)
    if size is None:
        return Geometry.unknown(len(axes.replace("C", "")), source)
    if "Z" in axes and len(size) == 2:
        assumed = f"the distance of the slices: {size[0]:g} um, as between rows"
        warnings.warn(
            f"{file.filename} has no slice spacing; {size[0]:g} um is assumed, as between rows",
            stacklevel=3,
        )
        source = replace(source, assumed=(assumed,))
        size = (size[0], *size)
    return Geometry.from_spacing(size, _position(pixels, len(size)), source=source)


def _pixel_size(
    file: tifffile.TiffFile, axes: str, pixels: ElementTree.Element | None
) -> tuple[float, ...] | None:
    """(y, x) in micrometres, or (z, y, x) of a stack with a known slice spacing."""
    z, plane = None, None
    if pixels is not None:
        z, y, x = (_ome_length(pixels, f"PhysicalSize{axis}") for axis in "ZYX")
        plane = (y, x) if y and x and min(y, x) > 0 else None
    elif file.imagej_metadata:
        z, plane = _from_imagej(file)
    plane = plane or _from_scanner(file) or _from_tags(file)
    return (z, *plane) if plane and z and z > 0 and "Z" in axes else plane


def _ome_pixels(xml: str) -> ElementTree.Element | None:
    """The first Pixels element, which describes the first series."""
    elements = ElementTree.fromstring(xml).iter()
    return next((one for one in elements if one.tag.rsplit("}", 1)[-1] == "Pixels"), None)


def _note(xml: str) -> Geometry | None:
    """The geometry that `napari_coseg.formats.ome_tiff` writes to its map annotation."""
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.rsplit("}", 1)[-1] == "M" and element.get("K") == NOTE:
            return Geometry.from_json(json.loads(element.text or ""))
    return None


def _position(pixels: ElementTree.Element | None, ndim: int) -> list[float] | None:
    """(z,) y, x of the first plane in micrometres; None if the file gives no lengths."""
    planes = [] if pixels is None else pixels.iter()
    first = next((one for one in planes if one.tag.rsplit("}", 1)[-1] == "Plane"), None)
    if first is None:
        return None
    lengths = [_ome_length(first, f"Position{axis}", unit="") for axis in "ZYX"[-ndim:]]
    return [length or 0.0 for length in lengths]


def _ome_length(element: ElementTree.Element, key: str, unit: str = "µm") -> float | None:
    """An attribute in micrometres; `unit` is OME's default unit."""
    value = element.get(key)
    factor = UNITS_UM.get(element.get(f"{key}Unit", unit))
    if value is None or factor is None or not math.isfinite(float(value)):
        return None
    return float(value) * factor


def _from_imagej(file: tifffile.TiffFile) -> tuple[float | None, tuple[float, float] | None]:
    metadata = file.imagej_metadata or {}
    unit = UNITS_UM.get(str(metadata.get("unit", "")).strip().lower())
    dots = _dots(file)
    if unit is None or dots is None:
        return None, None
    spacing = metadata.get("spacing")
    z = abs(float(spacing)) * unit if spacing else None
    return z, (unit / dots[0], unit / dots[1])


def _from_scanner(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Aperio's description: "...|MPP = 0.2465|..."; None unless it is a number above 0."""
    found = re.search(r"\|\s*MPP\s*=([^|\r\n]*)", file.pages.first.description or "")
    try:
        size = float(found[1].replace(",", ".")) if found else 0.0
    except ValueError:
        return None
    return (size, size) if math.isfinite(size) and size > 0 else None


def _from_tags(file: tifffile.TiffFile) -> tuple[float, float] | None:
    dots, unit = _dots(file), file.pages.first.tags.valueof("ResolutionUnit", default=2)
    if dots is None or int(unit) not in (2, 3):
        return None
    return from_dots(*dots, UNITS_UM["inch" if int(unit) == 2 else "cm"])


def _dots(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Pixels per unit of length along y and x."""
    tags = file.pages.first.tags
    values = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags.valueof(name, default=(0, 1))
        if not numerator or not denominator:
            return None
        values.append(numerator / denominator)
    return values[0], values[1]
