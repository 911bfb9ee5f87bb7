"""A DICOM series written by pydicom alone, one file a slice, under names in no order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cases.placed_volumes import Placed


def write_series(folder: Path, placed: Placed, values: np.ndarray, number: int = 3) -> list[Any]:
    """Datasets of the slices in their order in space, as written to `folder`."""
    import pydicom
    import SimpleITK as sitk
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    image = placed.image(values)
    planes = sitk.GetArrayFromImage(image).astype(np.int16)
    study, series, frame = (generate_uid() for _ in range(3))
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(number).permutation(len(planes))
    directions = np.array(image.GetDirection()).reshape(3, 3)
    written = []
    for index, plane in enumerate(planes):
        one = pydicom.Dataset()
        one.SpecificCharacterSet = "ISO_IR 192"
        one.SOPClassUID = pydicom.uid.CTImageStorage
        one.SOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", number, int(names[index]) + 1
        one.PatientName, one.PatientID = "Müller^Zoë", "p1"
        one.StudyDate, one.StudyTime, one.AccessionNumber = "20260101", "120000", ""
        one.PositionReferenceIndicator = ""
        one.Rows, one.Columns = plane.shape
        one.ImageOrientationPatient = [_decimal(v) for v in directions.T[:2].ravel()]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        one.ImagePositionPatient = [_decimal(value) for value in position]
        one.PixelSpacing = [_decimal(image.GetSpacing()[axis]) for axis in (1, 0)]
        one.SliceThickness = _decimal(image.GetSpacing()[2])
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = plane.tobytes()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.save_as(folder / f"i{names[index]}", enforce_file_format=True)
        written.append(one)
    return written


def _decimal(value: float) -> str:
    """At most 16 characters, as DICOM's decimal strings."""
    return f"{value:.10f}"[:16]
