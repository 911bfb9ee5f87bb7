"""DICOM series made by pydicom, with positions that SimpleITK gives independently."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cases.placed_volumes import rotation

SPACING = (0.5, 0.75, 2.0)
"""Millimetres between columns, rows and slices."""
ORIGIN = (-31.25, 12.5, -374.0)
RNG = np.random.default_rng(3)
STORED = RNG.integers(0, 3000, (6, 8, 10)).astype(np.uint16)
"""(slice, row, column), towards the head, back and left where `tilt` is 0."""
SLOPE, INTERCEPT = 1, -1024


@dataclass(frozen=True)
class Series:
    """A series of slices of `STORED`.

    Parameters
    ----------
    tilt
        Degrees about the axes to the left, back and head.
    shear
        Millimetres by which each slice is shifted along its columns (gantry tilt).
    order
        Slices that are written; files are named by their place in this order, backwards.
    changes
        Elements by name; functions are called with the number of the slice.
    """

    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shear: float = 0.0
    order: Sequence[int] = (3, 0, 5, 1, 4, 2)
    uid: str = "1.2.3"
    prefix: str = ""
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from index x, y, z to LPS."""
        matrix = np.eye(4)
        sheared = np.diag(SPACING) + np.array([[0, 0, 0], [0, 0, self.shear], [0, 0, 0]])
        matrix[:3, :3] = rotation(self.tilt) @ sheared
        matrix[:3, 3] = ORIGIN
        return matrix

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for n, k in enumerate(self.order):
            name = f"{self.prefix}IM{len(self.order) - n:04d}"
            self.dataset(k, n).save_as(folder / name, enforce_file_format=True)
        return folder

    def dataset(self, k: int, n: int) -> FileDataset:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{self.uid}.{n + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID = data.FrameOfReferenceUID = "1.2"
        data.SeriesInstanceUID, data.SeriesNumber, data.Modality = self.uid, 2, "CT"
        data.SeriesDescription, data.InstanceNumber = "Axial", n + 1
        data.PatientName = "Somebody"
        data.Rows, data.Columns = STORED.shape[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelSpacing = [SPACING[1], SPACING[0]]
        data.SliceThickness = SPACING[2]
        directions = rotation(self.tilt)
        data.ImageOrientationPatient = rounded([*directions[:, 0], *directions[:, 1]])
        data.ImagePositionPatient = rounded((self.affine @ [0, 0, k, 1])[:3])
        data.RescaleSlope, data.RescaleIntercept = SLOPE, INTERCEPT
        data.WindowCenter, data.WindowWidth = 500, 2000
        data.PixelData = STORED[k % len(STORED)].tobytes()
        for name, value in self.changes.items():
            value = value(k) if callable(value) else value
            delattr(data, name) if value is None else setattr(data, name, value)
        return data


def rounded(values: Sequence[float]) -> list[str]:
    return [f"{value:.10f}"[:16] for value in values]


def zipped(folder: Path, **changes: Any) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, changes.get("prefix", "") + file.name)
    return path


def read_by_itk(folder: Path) -> SimpleITK.Image:
    """The series as GDCM sorts it."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def write_enhanced(path: Path, frames: Sequence[int], affine: np.ndarray) -> Path:
    """One file of several frames (enhanced CT), each with its position, in this order."""
    data = Series().dataset(0, 0)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(data, name)
    for name in ("SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(data, name)
    data.NumberOfFrames = len(frames)
    data.PixelData = STORED[list(frames)].tobytes()
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, item = pydicom.Dataset(), pydicom.Dataset
    plane, values, orientation = item(), item(), item()
    plane.PixelSpacing, plane.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    plane.SpacingBetweenSlices = SPACING[2]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = SLOPE, INTERCEPT, "HU"
    directions = affine[:3, :3] / SPACING
    orientation.ImageOrientationPatient = rounded([*directions[:, 0], *directions[:, 1]])
    shared.PixelMeasuresSequence = [plane]
    shared.PixelValueTransformationSequence = [values]
    shared.PlaneOrientationSequence = [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = []
    uid = generate_uid()
    organisation = item()
    organisation.DimensionOrganizationUID = uid
    data.DimensionOrganizationSequence = [organisation]
    index = item()
    index.DimensionOrganizationUID = uid
    index.DimensionIndexPointer = pydicom.tag.Tag("ImagePositionPatient")
    index.FunctionalGroupPointer = pydicom.tag.Tag("PlanePositionSequence")
    data.DimensionIndexSequence = [index]
    for k in frames:
        frame, place, content = item(), item(), item()
        place.ImagePositionPatient = rounded((affine @ [0, 0, k, 1])[:3])
        content.DimensionIndexValues = [k + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        data.PerFrameFunctionalGroupsSequence.append(frame)
    data.save_as(path, enforce_file_format=True)
    return path
