"""Read volumes on disk (NIfTI, MetaImage, NRRD), after validating their headers.

Axes. A file stores a volume plane by plane; `VolumeHeader.shape` has its slowest axis first. In an
*upright* volume Z grows towards the head, Y towards the back, X towards the patient's left, as
nearly as reordering and reversing axes allows; nothing is resampled. `VolumeHeader.geometry`
locates the voxels in the patient.

Planes are unpacked one at a time, in stored order, and counted: a truncated file is an error.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.core.geometry import Geometry, ImageSource
from napari_coseg.images.slicing import square_axis, upright_axes
from napari_coseg.images.text_header import MAX_HEADER_BYTES, read_text_header

VOLUME_SUFFIXES = (".mha", ".nii.gz", ".nii", ".nrrd", ".mhd", ".nhdr")
MAX_VOLUME_BYTES = 2**31
"""Largest unpacked volume, 2 GiB; 1,000 planes of CT take a quarter of that."""
DEFLATE_LIMIT = 1032
"""Largest compression ratio of zlib; headers that imply more are invalid."""
CHUNK_BYTES = 2**16

ITK_TYPES = dict(enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")))
"""numpy's types by SimpleITK's pixel ids; checked by the tests."""
NO_UNIT = "the file has no unit of length; mm is assumed"
NO_ORIENTATION = "the file has no orientation; the most common one is assumed"


@dataclass(frozen=True)
class VolumeHeader:
    """Layout of a volume in its file, and its position in the patient.

    Parameters
    ----------
    shape
        Lengths of the file's axes, slowest first.
    geometry
        Of the array in the file's order; its unit is "px" if the file gives no voxel size.
    dtype
        Of stored values, with byte order.
    data_file, start
        File of the voxels, and its bytes before them, as they are packed.
    packing
        "none", "zlib" or "gzip".
    offset
        Bytes before the first voxel, after unpacking.
    axes, flipped
        For Z, Y, X of the upright volume: the file's axis, and whether it is reversed.
    slope, intercept
        A voxel's value is ``slope * stored + intercept``.
    """

    path: Path
    shape: tuple[int, int, int]
    geometry: Geometry
    dtype: np.dtype
    start: int
    packing: str
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    data_file: Path
    offset: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_scaled(self) -> bool:
        """Whether values differ from the stored ones; they are then float32."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Millimetres per voxel along the file's axes; 1 if not given."""
        z, y, x = self.geometry.pixel_size_um or (1000.0,) * 3
        return z / 1000, y / 1000, x / 1000

    @property
    def upright_geometry(self) -> Geometry:
        """Of the upright volume."""
        return upright(np.broadcast_to(np.False_, self.shape), self.geometry)[1]

    @property
    def upright_shape(self) -> tuple[int, int, int]:
        z, y, x = (self.shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def upright_spacing_mm(self) -> tuple[float, float, float]:
        z, y, x = (self.spacing_mm[axis] for axis in self.axes)
        return z, y, x

    def upright(self, volume: np.ndarray) -> np.ndarray:
        """View an array in the file's order as (Z, Y, X) towards head, back and left."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return volume.transpose(self.axes)[steps]

    def slicing_axis(self) -> int:
        """The upright axis to cut across, 0, 1 or 2, so that pixels are square.

        See `images.slicing`.
        """
        try:
            return square_axis(self.upright_spacing_mm)
        except ImageError as error:
            raise DatasetError(f"{self.path}: {error}") from error


_Number = TypeVar("_Number", int, float)


def read_header(path: Path) -> VolumeHeader:
    """Read a header; `DatasetError` if it is invalid or not supported."""
    broken = (OSError, EOFError, ValueError, KeyError, OverflowError, ImageError, zlib.error)
    try:
        is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
        header = _read_nifti_header(path) if is_nifti else _read_itk_header(path)
        _refuse_impossible(header)
    except broken as error:
        raise DatasetError(f"cannot read the volume {path}: {error}") from error
    return header


def _refuse_impossible(header: VolumeHeader) -> None:
    """Check sizes and spacings before anything is allocated."""
    if min(header.shape) < 1:
        raise ValueError(f"its axes have {header.shape} voxels")
    if not (np.isfinite(header.slope) and np.isfinite(header.intercept)):
        raise ValueError(f"its values are scaled by {header.slope} and {header.intercept}")
    if not 0 <= header.start + header.offset <= MAX_HEADER_BYTES:
        raise ValueError(f"its voxels begin at byte {header.start + header.offset}")
    n_bytes = header.dtype.itemsize * math.prod(header.shape)
    in_memory = math.prod(header.shape) * max(header.dtype.itemsize, 4 if header.is_scaled else 1)
    if in_memory > MAX_VOLUME_BYTES:
        raise ValueError(
            f"it has {header.shape} voxels, {in_memory / 2**30:.1f} GiB; at most "
            f"{MAX_VOLUME_BYTES / 2**30:.0f} GiB are read: crop or resample it"
        )
    there = header.data_file.stat().st_size
    most = there - header.start if header.packing == "none" else there * DEFLATE_LIMIT
    if n_bytes > most:
        raise ValueError(
            f"its header claims {n_bytes} bytes of voxels; a file of {there} bytes cannot "
            "hold them: it was cut short or tampered with"
        )


def _read_itk_header(path: Path) -> VolumeHeader:
    """MetaImage and NRRD: sizes and geometry as SimpleITK reads them from the header.

    Voxels are read here: SimpleITK returns noise for packed MetaImage files that were cut short.
    """
    import SimpleITK

    text = read_text_header(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(f"its header is invalid: {str(error)[-300:].strip()}") from error
    size = reader.GetSize()
    kind = ITK_TYPES.get(reader.GetPixelIDValue())
    if len(size) not in (2, 3) or reader.GetNumberOfComponents() != 1 or kind is None:
        raise ValueError(
            f"it has {len(size)} axes {size} of "
            f"{SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue())}; expected 3 axes and "
            "one channel of numbers"
        )
    geometry = _itk_geometry(path, text.fields, reader)
    axes, flipped = upright_axes(geometry.directions)
    return VolumeHeader(
        path=path,
        shape=_three(size, 1),
        geometry=geometry,
        dtype=np.dtype((">" if text.is_big_endian else "<") + kind),
        start=text.start,
        packing=text.packing,
        axes=axes,
        flipped=flipped,
        data_file=text.data_file,
    )


def _itk_geometry(path: Path, fields: dict[str, str], reader: Any) -> Geometry:
    """Positions are LPS; what the header does not hold was made up by SimpleITK."""
    n = reader.GetDimension()
    steps, placed = np.ones(3), np.eye(4)
    steps[:n] = reader.GetSpacing()
    fallback = np.diag([*steps, 1.0])
    placed[:n, :n] = np.reshape(reader.GetDirection(), (n, n)) * steps[:n]
    placed[2, 2] *= 1.0 if n == 3 else steps[2]
    placed[:n, 3] = fallback[:n, 3] = reader.GetOrigin()
    has_orientation = "space" in fields or len(fields.get("transformmatrix", "").split()) == 9
    has_size = {"elementspacing", "elementsize", "spacings", "space directions"} & {*fields}
    is_um = any(word in fields.get("space units", "") for word in ("um", "micro", "\u00b5m"))
    unit = ("um" if is_um else "mm") if has_size else "px"
    source = ImageSource(path.name)
    return _geometry(placed if has_orientation else None, fallback, steps, unit, source)


def _geometry(
    placed: np.ndarray | None, fallback: np.ndarray, steps: Any, unit: str, source: ImageSource
) -> Geometry:
    """Geometry from an affine in LPS, or from the fallback if that is missing or invalid."""
    if not all(np.isfinite(step) and step > 0 for step in steps):
        raise ValueError(f"its voxels measure {tuple(map(float, steps[::-1]))} mm")
    if placed is not None:
        with suppress(ImageError):
            return Geometry.from_lps(placed, unit=unit, source=source)
    source = replace(source, assumed=(*source.assumed, NO_ORIENTATION))
    return Geometry.from_lps(fallback, unit=unit, space="image", source=source)


def _three(values: Sequence[_Number], filler: _Number) -> tuple[_Number, _Number, _Number]:
    """Two or three numbers, fastest axis first -> three, slowest first."""
    return values[2] if len(values) > 2 else filler, values[1], values[0]


def _read_nifti_header(path: Path) -> VolumeHeader:
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else path.open("rb") as file:
        # Only the header: nibabel's loader also reads extensions of any claimed size.
        block = file.read(540)
    size = int.from_bytes(block[:4], "little")
    second = 540 in (size, int.from_bytes(block[:4], "big"))
    kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    try:
        block = block[: 540 if second else 348]
        if not kind(block, check=False)["pixdim"][1:4].all():  # nibabel would make it 1 mm
            raise ValueError("its header has no voxel size")
        header = kind(block)
        geometry = _nifti_geometry(path, header)
        slope, intercept = header.get_slope_inter()
    except (HeaderDataError, WrapStructError) as error:
        raise ValueError(f"its NIfTI header is invalid: {error}") from error
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("its voxels lie in another file; save it as one .nii or .nii.gz file")
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or dtype.kind not in "iuf":
        raise ValueError(f"it has {len(shape)} axes {shape} of {dtype}; expected 3 axes of numbers")
    axes, flipped = upright_axes(geometry.directions)
    return VolumeHeader(
        path=path,
        shape=_three([int(n) for n in shape], 1),
        geometry=geometry,
        dtype=dtype,
        start=0 if packed else int(header.get_data_offset()),
        offset=int(header.get_data_offset()) if packed else 0,
        packing="gzip" if packed else "none",
        axes=axes,
        flipped=flipped,
        data_file=path,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _nifti_geometry(path: Path, header: Any) -> Geometry:
    """Geometry from the sform, else the qform, else the voxel size."""
    named = header.get_xyzt_units()[0]
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    if named == "meter":
        to_lps[:3] *= 1000
    is_placed = header["sform_code"] > 0 or header["qform_code"] > 0
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return _geometry(
        to_lps @ header.get_best_affine() if is_placed else None,
        to_lps @ header.get_base_affine(),
        header.get_zooms()[:3],
        "um" if named == "micron" else "mm",
        ImageSource(
            path.name,
            window=(low, high) if -np.inf < low < high < np.inf else None,
            assumed=() if named != "unknown" else (NO_UNIT,),
        ),
    )


def upright(volume: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """View an array in its file's order as (Z, Y, X) towards head, back and left.

    Also returns its geometry, in which the order of the file is noted.
    """
    axes, flipped = upright_axes(geometry.directions)
    turned = [axis for axis, is_flipped in enumerate(flipped) if is_flipped]
    view = volume.transpose(axes)
    steps = tuple(slice(None, None, -1 if is_flipped else 1) for is_flipped in flipped)
    return view[steps], geometry.permuted(axes).flipped(turned, view.shape)


def planes(header: VolumeHeader) -> Iterator[np.ndarray]:
    """Yield the planes in file order; `DatasetError` if the file ends early."""
    size = header.dtype.itemsize * header.shape[1] * header.shape[2]
    slope, intercept = np.float32(header.slope), np.float32(header.intercept)
    try:
        with _voxels(header) as stream:
            for index in range(header.shape[0]):
                data = stream.read(size)
                if len(data) < size:
                    raise DatasetError(
                        f"{header.path} ends in plane {index} of {header.shape[0]}; it was cut "
                        "short: copy or download it again"
                    )
                plane = np.frombuffer(data, header.dtype).reshape(header.shape[1:])
                yield plane.astype(np.float32) * slope + intercept if header.is_scaled else plane
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot read the volume {header.path}: {error}") from error


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def _voxels(header: VolumeHeader) -> Iterator[_Stream]:
    """Open the file, unpacked, at its first voxel."""
    with header.data_file.open("rb") as file:
        file.seek(header.start)
        if header.packing == "gzip":
            with gzip.GzipFile(fileobj=file) as unpacked:
                unpacked.seek(header.offset)
                yield unpacked
        else:
            yield _Inflate(file) if header.packing == "zlib" else file


class _Inflate:
    """Unpacks a zlib stream on demand, never more than requested."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate = file, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size > 0 and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK_BYTES)
            part = self._inflate.decompress(packed, size)
            if not packed and not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
