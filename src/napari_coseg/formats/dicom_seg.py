"""Labels as DICOM segmentations of the series that the image was read from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, Prediction
from napari_coseg.formats.dicom_slices import INSTEAD, Placement, find_slices
from napari_coseg.formats.segments import Segment, object_segments, region_segments
from napari_coseg.labels.measure.rows import row_lookup

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_SEGMENTS = 65_535
"""DICOM counts segments in 16 bits."""
MAX_LABEL = 64
"""Characters of a segment's label (value representation LO)."""
MAY_BE_EMPTY = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime"
)
"""Attributes that DICOM requires, with or without a value (type 2), and that some files lack."""


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> list[Path]:
    """Regions and objects, each as one file with a binary segment per class or object.

    Frames have the rows, columns and positions of the source's slices, also for labels of a part,
    and refer to them. Frames without a pixel of their segment are left out, as is usual. Segments
    are numbered from 1; label and tracking id say the class, and the id of an object ("tooth 12",
    "object 12"). Their type is SNOMED's "Tissue", since classes carry no code.

    Returns
    -------
    list of Path
        Without the file that would have no segments, which DICOM does not allow; one that lies
        there is removed.

    Raises
    ------
    OutputError
        Where the image does not come from a DICOM series, the labels do not lie on its slices, or
        there are none.
    """
    parts = (
        ("regions", prediction.semantic, region_segments(prediction)),
        ("objects", prediction.instances.labels, object_segments(prediction)),
    )
    placement = _placement(prediction, image)
    if not any(segments for _, _, segments in parts):
        raise OutputError(f"{image.name} has no labels, and a DICOM segmentation needs one")
    written = []
    for path, (kind, labels, segments) in zip(paths, parts, strict=True):
        if not segments:
            path.unlink(missing_ok=True)
            continue
        found = _segmentation(kind, labels, segments, placement, prediction)
        with atomic_write(path, overwrite) as partial:
            found.save_as(partial)
        written.append(path)
    return written


def _placement(prediction: Prediction, image: Image) -> Placement:
    if image.path is None:
        raise OutputError(
            f"dicom-seg refers to the DICOM series of the image, and {image.name} comes from no "
            f"file; {INSTEAD}, or give the folder of the series as the image"
        )
    if len(prediction.instances) > MAX_SEGMENTS:
        raise OutputError(
            f"{image.name} has {len(prediction.instances):,} objects, and DICOM counts segments up "
            f"to {MAX_SEGMENTS:,}; {INSTEAD}"
        )
    geometry = prediction.geometry
    is_labelled = (prediction.semantic > 0) | (prediction.instances.labels > 0)
    return find_slices(image.path, is_labelled, geometry, series=geometry.source.series)


def _segmentation(
    kind: str,
    labels: np.ndarray,
    segments: list[Segment],
    placement: Placement,
    prediction: Prediction,
) -> Any:
    import highdicom

    from napari_coseg import __version__

    numbered = row_lookup(np.array([one.value for one in segments]))(labels)
    dtype = np.uint8 if len(segments) < 256 else np.uint16
    sources = [_completed(header) for header in placement.headers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the source's own values break
        try:
            return highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=placement.in_slices(numbered, dtype),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=_descriptions(segments, prediction),
                series_instance_uid=highdicom.UID(),
                series_number=_series_number(sources[0]),
                series_description=f"Co-Seg {kind}",
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="napari-coseg",
                manufacturer_model_name="napari-coseg",
                software_versions=__version__,
                device_serial_number="none",
                content_label=kind.upper(),
                content_description=f"{kind} by napari-coseg",
                specific_character_set="ISO_IR 192",
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise OutputError(
                f"the series of the image cannot be referred to ({error}); {INSTEAD}"
            ) from error


def _descriptions(segments: list[Segment], prediction: Prediction) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    from napari_coseg import __version__

    model = prediction.provenance.get("model")
    kind, about = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL, None
    if model:  # a person may have corrected its labels
        kind = highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        about = highdicom.AlgorithmIdentificationSequence(
            name=_text(str(model)),
            version=str(prediction.provenance.get("napari_coseg", __version__)),
            family=codes.cid7162.ArtificialIntelligence,
        )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=_text(one.name),
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=kind,
            algorithm_identification=about,
            tracking_uid=highdicom.UID(),
            tracking_id=one.key,
            display_color=highdicom.color.CIELabColor.from_rgb(*one.color),
        )
        for number, one in enumerate(segments, start=1)
    ]


def _completed(header: Dataset) -> Dataset:
    """With the attributes of patient and study that may be empty."""
    for key in MAY_BE_EMPTY.split():
        if key not in header:
            setattr(header, key, "")
    return header


def _series_number(source: Dataset) -> int:
    """One that the study is unlikely to have; viewers sort by it."""
    return 1000 + int(source.get("SeriesNumber") or 0) % 1_000_000


def _text(text: str) -> str:
    """As the value representation LO allows: 64 characters, no backslash, no control characters."""
    return "".join(c if c.isprintable() and c != "\\" else " " for c in text)[:MAX_LABEL].strip()
