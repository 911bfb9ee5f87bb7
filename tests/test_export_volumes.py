"""Volumes of radiology are where they were: other programs' readers find every label there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import zarr

from cases.dicom_phantoms import write_series
from cases.placed_volumes import CROP, PLACED, Placed, centroids_lps, lps_affine, phantom
from napari_coseg.core.errors import OutputError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LABEL_DTYPE, Image, LabelClass, Prediction
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.registry import export
from napari_coseg.images.readers.registry import read_image
from napari_coseg.labels.measure import class_table, labelled

sitk = pytest.importorskip("SimpleITK")
highdicom = pytest.importorskip("highdicom")

VOLUMES = [pytest.param(PLACED[name], id=name) for name in PLACED]
REGIONS = [pytest.param(None, id="whole"), pytest.param(CROP, id="crop")]
JAW = LabelClass(2, "mandible", (200, 100, 50))
TYPES = (LabelClass(1, "molar", (255, 0, 0)), LabelClass(3, "Schneidezähne, µ", (0, 0, 255)))
NAMES = ["molar 1", "Schneidezähne, µ 2", "molar 3", "object 4"]


def read(folder: Path, placed: Placed, values: np.ndarray | None = None) -> Image:
    """The phantom, or other upright values, as the reader gives them."""
    path = folder / f"v{placed.ending}"
    placed.write(path, phantom() if values is None else values)
    return read_image(path)


def prediction(image: Image, region=None, **provenance) -> Prediction:
    """Objects are the phantom's boxes; the second box is also a region."""
    labels, geometry = np.asarray(image.data).astype(LABEL_DTYPE), image.geometry
    if region is not None:
        labels = labels[tuple(slice(*bounds) for bounds in region)]
        geometry = geometry.crop([start for start, _ in region])
        provenance |= {"region_offset": [start for start, _ in region]}
    return labelled(
        labels,
        np.where(labels == 2, 2, 0).astype(np.uint8),
        geometry=geometry,
        known=class_table(np.array([1, 3, 1, 0])),
        classes=TYPES,
        region_classes=(JAW,),
        provenance=provenance,
    )


def expected(placed: Placed) -> dict[int, np.ndarray]:
    """Where the boxes lie, by SimpleITK's account of the source."""
    image = placed.image(phantom())
    return centroids_lps(sitk.GetArrayFromImage(image), lps_affine(image))


def assert_same_places(found: dict[int, np.ndarray], wanted: dict[int, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for label, position in wanted.items():
        np.testing.assert_allclose(found[label], position, atol=1e-6, err_msg=str(label))


def of_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (z, y, x) and the affine in LPS, by nibabel."""
    image = nibabel.load(path)
    return np.asarray(image.dataobj).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine


def of_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), lps_affine(image)


READERS = {"nifti": of_nifti, "seg-nrrd": of_nrrd}


def test_the_phantom_differs_in_every_direction() -> None:
    middle, left, back, head = (expected(PLACED["LPS"])[label] for label in (1, 2, 3, 4))
    assert left[0] > middle[0] + 5 and back[1] > middle[1] + 5 and head[2] > middle[2] + 2
    values = phantom()
    for axes in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        assert not np.array_equal(np.flip(values, axes), values)


# ---------------------------------------------------------------------------------------------
# NIfTI and NRRD


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("placed", VOLUMES)
@pytest.mark.parametrize("kind", READERS)
def test_every_box_stays_where_it_is(tmp_path: Path, kind: str, placed: Placed, region) -> None:
    image = read(tmp_path, placed)
    regions, objects = export(prediction(image, region), image, tmp_path / "out", [kind])
    # NIfTI's header has 32 bits for each number.
    found = centroids_lps(*READERS[kind](objects))
    wanted = expected(placed)
    if kind == "nifti":
        for label, position in wanted.items():
            np.testing.assert_allclose(found[label], position, atol=1e-4)
    else:
        assert_same_places(found, wanted)
    (jaw,) = centroids_lps(*READERS[kind](regions)).values()
    np.testing.assert_allclose(jaw, wanted[2], atol=1e-4)


@pytest.mark.parametrize("placed", VOLUMES)
def test_a_slicer_segmentation_has_the_voxels_of_its_volume(tmp_path: Path, placed: Placed) -> None:
    image = read(tmp_path, placed)
    for file in export(prediction(image), image, tmp_path / "out", ["seg-nrrd"]):
        found, source = sitk.ReadImage(str(file)), placed.image(phantom())
        np.testing.assert_allclose(lps_affine(found), lps_affine(source), atol=1e-6)
        assert found.GetSize() == source.GetSize()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(source))


def test_slicer_finds_names_and_colours_of_segments(tmp_path: Path) -> None:
    image = read(tmp_path, PLACED["oblique"])
    regions, objects = export(prediction(image), image, tmp_path / "out", ["seg-nrrd"])
    found = sitk.ReadImage(str(objects))
    said = {key: found.GetMetaData(key) for key in found.GetMetaDataKeys()}
    assert [said[f"Segment{i}_Name"] for i in range(4)] == NAMES
    assert [said[f"Segment{i}_LabelValue"] for i in range(4)] == ["1", "2", "3", "4"]
    assert said["Segment0_ID"] == "object_1" and "Segment4_ID" not in said
    assert said["Segment0_Color"] == "1.000000 0.000000 0.000000"
    assert said["Segment0_Extent"] == " ".join(f"0 {side - 1}" for side in found.GetSize())
    assert {said[f"Segment{i}_Layer"] for i in range(4)} == {"0"}
    assert said["Segmentation_SourceRepresentation"] == "Binary labelmap"
    assert sitk.ReadImage(str(regions)).GetMetaData("Segment0_Name") == "mandible"
    header = objects.read_bytes().partition(b"\n\n")[0].decode()
    assert "space: left-posterior-superior" in header and "dimension: 3" in header


@pytest.mark.parametrize(
    ("classes", "differ"), [([1, 1, 1, 1], True), ([1, 3, 1, 1], False)], ids=["one", "two"]
)
def test_objects_of_one_class_differ_in_colour(tmp_path: Path, classes, differ: bool) -> None:
    image = read(tmp_path, PLACED["LPS"])
    found = labelled(
        np.asarray(image.data).astype(LABEL_DTYPE),
        geometry=image.geometry,
        known=class_table(np.array(classes)),
        classes=TYPES,
    )
    _, objects = export(found, image, tmp_path, ["seg-nrrd"])
    one = sitk.ReadImage(str(objects))
    colors = [one.GetMetaData(f"Segment{i}_Color") for i in (0, 2, 3)]
    assert (len(set(colors)) == 3) is differ


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(np.ones((1, 1), LABEL_DTYPE), "1 voxels", id="one voxel"),
        pytest.param(
            np.arange(1, 5_002, dtype=LABEL_DTYPE)[None], "5,001 objects", id="many objects"
        ),
    ],
)
def test_what_slicer_cannot_show_is_refused(tmp_path: Path, labels, message: str) -> None:
    found = labelled(labels, pixel_size_um=(1.0, 1.0))
    with pytest.raises(OutputError, match=message):
        export(found, None, tmp_path, ["seg-nrrd"], name="a")
    assert not list(tmp_path.iterdir())


def test_a_stack_in_micrometres_lies_along_its_axes_in_mm(tmp_path: Path) -> None:
    labels = np.zeros((3, 8, 9), LABEL_DTYPE)
    labels[1, 2:4, 5:7] = 300
    geometry = Geometry.from_spacing((2.0, 0.5, 0.25), (7.0, -100.5, 40.0))
    found = labelled(labels, geometry=geometry)
    _, objects = export(found, None, tmp_path, ["seg-nrrd"], name="a")
    values, affine = of_nrrd(objects)
    np.testing.assert_array_equal(values, labels)
    np.testing.assert_allclose(np.diag(affine)[:3], (0.00025, 0.0005, 0.002), rtol=1e-12)
    np.testing.assert_allclose(affine[:3, 3], (0.04, -0.1005, 0.007), rtol=1e-12)


# ---------------------------------------------------------------------------------------------
# OME-Zarr


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("placed", VOLUMES)
def test_ome_zarr_has_mm_and_the_position_along_its_axes(
    tmp_path: Path, placed: Placed, region
) -> None:
    image = read(tmp_path, placed)
    whole = prediction(image, region)
    (path,) = export(whole, image, tmp_path / "out", ["ome-zarr"])
    root = zarr.open_group(path, mode="r")
    for group in (root, root["labels/objects"], root["labels/regions"]):
        (entry,) = group.attrs["multiscales"]
        axes = [(axis["name"], axis["type"], axis["unit"]) for axis in entry["axes"]]
        assert axes == [(name, "space", "millimeter") for name in "zyx"]
        scale, translation = entry["datasets"][0]["coordinateTransformations"]
        np.testing.assert_allclose(scale["scale"], whole.geometry.spacing, atol=1e-9)
        corner = [start for start, _ in region] if region else [0, 0, 0]
        moved = image.geometry.origin_along_axes + np.multiply(corner, image.geometry.spacing)
        np.testing.assert_allclose(translation["translation"], moved, atol=1e-6)
    back = read_ome_zarr(path)
    assert back.geometry == whole.geometry
    head_back_left = {
        label: back.geometry.world(np.argwhere(back.instances.labels == label).mean(axis=0))
        for label in (1, 2, 3, 4)
    }
    assert_same_places({k: v[::-1] for k, v in head_back_left.items()}, expected(placed))


def test_levels_of_ome_zarr_lie_on_each_other(tmp_path: Path) -> None:
    """A bright box and its label have one centre in mm at each level of a volume."""
    labels = np.zeros((3, 1100, 64), LABEL_DTYPE)
    labels[1, 400:480, 16:48] = 1
    geometry = Geometry.from_spacing((2.0, 0.5, 0.5), (-7.0, 100.0, 40.0), unit="mm")
    image = Image((labels * 200).astype(np.uint8), "ZYX", name="a", geometry=geometry)
    (path,) = export(labelled(labels, geometry=geometry), image, tmp_path, ["ome-zarr"])
    root = zarr.open_group(path, mode="r")
    for group in (root, root["labels/objects"]):
        (entry,) = group.attrs["multiscales"]
        assert len(entry["datasets"]) == 3
        for level, dataset in enumerate(entry["datasets"]):
            steps = {one["type"]: one[one["type"]] for one in dataset["coordinateTransformations"]}
            assert steps["scale"] == [2.0, 0.5 * 2**level, 0.5 * 2**level]
            centre = np.argwhere(group[str(level)][:] > 0).mean(axis=0)
            found = centre * steps["scale"] + steps["translation"]
            wanted = geometry.world([1, 439.5, 31.5])
            # A label keeps every second pixel, so that its centre moves by up to half a pixel.
            np.testing.assert_allclose(found, wanted, atol=0 if group is root else 0.25 * 2**level)


# ---------------------------------------------------------------------------------------------
# DICOM segmentations


def of_dicom(folder: Path, placed: Placed) -> tuple[Image, list[pydicom.Dataset]]:
    """The phantom as read from a DICOM series, and the datasets of its slices."""
    slices = write_series(folder / "series", placed, phantom())
    return replace(read(folder, placed), path=folder / "series"), slices


def centroids_of(seg: pydicom.Dataset) -> dict[int, np.ndarray]:
    """Position of each segment, from the frames' own positions."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    rows = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    points: dict[int, list[np.ndarray]] = {}
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        named = frame if "SegmentIdentificationSequence" in frame else shared  # by one for all
        number = int(named.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        row, column = np.nonzero(pixels)
        there = np.outer(column * spacing[1], rows[:3]) + np.outer(row * spacing[0], rows[3:])
        points.setdefault(number, []).append(position + there)
    return {number: np.concatenate(found).mean(axis=0) for number, found in points.items()}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("placed", VOLUMES)
def test_dicom_segments_lie_on_the_slices_of_the_series(
    tmp_path: Path, placed: Placed, region
) -> None:
    image, slices = of_dicom(tmp_path, placed)
    files = export(prediction(image, region), image, tmp_path / "out", ["dicom-seg"])
    regions, objects = (pydicom.dcmread(file) for file in files)
    assert_same_places(centroids_of(objects), expected(placed))
    (jaw,) = centroids_of(regions).values()
    np.testing.assert_allclose(jaw, expected(placed)[2], atol=1e-6)
    positions = {one.SOPInstanceUID: one.ImagePositionPatient for one in slices}
    assert (objects.Rows, objects.Columns) == (slices[0].Rows, slices[0].Columns)
    for frame in objects.PerFrameFunctionalGroupsSequence:
        derivation = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source = positions[derivation.ReferencedSOPInstanceUID]
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == list(source)
    (series,) = objects.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID
    for key in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "StudyDate"):
        assert objects[key].value == slices[0][key].value, key


def test_highdicom_reads_the_same_labels_names_and_affine(tmp_path: Path) -> None:
    placed = PLACED["oblique"]
    image, slices = of_dicom(tmp_path, placed)
    found = prediction(image, model="cbct, µ", napari_coseg="1.2")
    regions, objects = export(found, image, tmp_path / "out", ["dicom-seg"])
    seg = highdicom.seg.segread(objects)
    assert seg.segmentation_type == highdicom.seg.SegmentationTypeValues.BINARY
    descriptions = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [one.segment_label for one in descriptions] == NAMES
    assert [one.tracking_id for one in descriptions] == [f"object {i}" for i in (1, 2, 3, 4)]
    assert descriptions[0].algorithm_identification.name == "cbct, µ"
    assert descriptions[0].algorithm_type.value == "SEMIAUTOMATIC"
    pixels = seg.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in slices],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(pixels, [one.pixel_array for one in slices])
    volume = seg.get_volume(combine_segments=True)
    centroids = {
        label: (volume.affine @ [*np.argwhere(volume.array == label).mean(axis=0), 1.0])[:3]
        for label in (1, 2, 3, 4)
    }
    assert_same_places(centroids, expected(placed))
    (jaw,) = highdicom.seg.segread(regions).SegmentSequence
    assert jaw.SegmentLabel == "mandible"


def test_ids_with_gaps_are_numbered_from_1_and_kept_as_tracking_ids(tmp_path: Path) -> None:
    image, _ = of_dicom(tmp_path, PLACED["LPS"])
    labels = np.array([0, 70_000, 11, 5, 48], LABEL_DTYPE)[np.asarray(image.data)]
    found = labelled(labels, geometry=image.geometry)
    files = export(found, image, tmp_path / "out", ["dicom-seg"])
    assert [file.name for file in files] == ["v_objects.dcm"], "there are no regions"
    seg = pydicom.dcmread(files[0])
    tracked = [one.TrackingID for one in seg.SegmentSequence]
    assert tracked == [f"object {i}" for i in (5, 11, 48, 70_000)]
    wanted = expected(PLACED["LPS"])
    assert_same_places(centroids_of(seg), {1: wanted[3], 2: wanted[2], 3: wanted[4], 4: wanted[1]})
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
def test_the_series_that_the_labels_lie_on_is_found_among_others(
    tmp_path: Path, as_file: bool
) -> None:
    image, slices = of_dicom(tmp_path, PLACED["oblique"])
    folder = tmp_path / "series"
    for file in folder.iterdir():
        file.rename(file.with_name(f"ct_{file.name}"))
    write_series(folder, PLACED["sagittal"], phantom(), number=4)
    (folder / "notes.txt").write_text("not DICOM")
    path = next(folder.glob("ct_*")) if as_file else folder
    (objects,) = export(
        replace(prediction(image), regions=None),
        replace(image, path=path),
        tmp_path / "out",
        ["dicom-seg"],
    )
    (series,) = pydicom.dcmread(objects).ReferencedSeriesSequence
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID


def _twice(folder: Path) -> None:
    write_series(folder, PLACED["oblique"], phantom(), number=4)
    for file in list(folder.iterdir()):
        file.rename(file.with_name(f"b{file.name}"))
    write_series(folder, PLACED["oblique"], phantom())


def _other(folder: Path) -> None:
    write_series(folder, Placed(".nii.gz", "RAS", (12.0, -7.0, 21.0)), phantom())


def _without(folder: Path, plane: int) -> None:
    uid = write_series(folder, PLACED["oblique"], phantom())[plane].SOPInstanceUID
    next(file for file in folder.iterdir() if pydicom.dcmread(file).SOPInstanceUID == uid).unlink()


def _cut(folder: Path) -> None:
    _without(folder, 4)


def _doubled(folder: Path) -> None:
    write_series(folder, PLACED["oblique"], phantom())
    one = pydicom.dcmread(folder / "i0")
    one.save_as(folder / "copy")  # which does no harm
    one.SOPInstanceUID = pydicom.uid.generate_uid()
    one.save_as(folder / "j0")


def _changed(**values):
    def change(folder: Path) -> None:
        write_series(folder, PLACED["oblique"], phantom())
        for file in folder.iterdir():
            one = pydicom.dcmread(file)
            for key, value in values.items():
                setattr(one, key, value)
            one.save_as(file)

    return change


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda folder: folder.mkdir(), "no DICOM slices", id="an empty folder"),
        pytest.param(_twice, "lie on 2 series", id="two series at one place"),
        pytest.param(_other, "axes are not those", id="turned by a degree"),
        pytest.param(_cut, "away from the nearest", id="a slice is missing"),
        pytest.param(_doubled, "several of them are at one position", id="a slice is doubled"),
        pytest.param(_changed(PixelSpacing=[0.5, 0.6]), "pixels measure", id="other pixels"),
        pytest.param(_changed(Rows=20), "beyond them", id="smaller slices"),
        pytest.param(
            _changed(ImageOrientationPatient=[0] * 6), "no DICOM slices", id="no orientation"
        ),
        pytest.param(_changed(PixelSpacing=[0, 0]), "no DICOM slices", id="no pixel size"),
        pytest.param(
            _changed(FrameOfReferenceUID=""), "no DICOM slices", id="no frame of reference"
        ),
    ],
)
def test_a_series_that_does_not_fit_is_refused(tmp_path: Path, make, message: str) -> None:
    image = read(tmp_path, PLACED["oblique"])
    make(tmp_path / "series")
    image = replace(image, path=tmp_path / "series")
    with pytest.raises(OutputError, match=message) as raised:
        export(prediction(image), image, tmp_path / "out", ["dicom-seg"])
    assert "write nifti or seg-nrrd" in str(raised.value) or "give one file" in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_plane_without_labels_needs_no_slice(tmp_path: Path) -> None:
    image = read(tmp_path, PLACED["oblique"])
    _without(tmp_path / "series" / "below", 1)
    image = replace(image, path=tmp_path / "series")
    _, objects = export(prediction(image), image, tmp_path / "out", ["dicom-seg"])
    assert_same_places(centroids_of(pydicom.dcmread(objects)), expected(PLACED["oblique"]))


@pytest.mark.parametrize("key", ["AccessionNumber", "StudyTime", "PatientSex", "PatientBirthDate"])
def test_attributes_that_may_be_empty_may_be_missing(tmp_path: Path, key: str) -> None:
    image, _ = of_dicom(tmp_path, PLACED["LPS"])
    for file in (tmp_path / "series").iterdir():
        one = pydicom.dcmread(file)
        if key in one:
            delattr(one, key)
            one.save_as(file)
    files = export(prediction(image), image, tmp_path / "out", ["dicom-seg"])
    assert pydicom.dcmread(files[1])[key].value in ("", None)


@pytest.mark.parametrize(
    ("path", "message"),
    [(None, "comes from no file"), ("v.nii.gz", "no DICOM slices with positions")],
    ids=["an array", "another format"],
)
def test_an_image_that_is_not_from_dicom_is_refused_with_what_to_write(
    tmp_path, path, message
) -> None:
    image = read(tmp_path, PLACED["oblique"])
    image = replace(image, path=path and tmp_path / path)
    with pytest.raises(OutputError, match=message) as raised:
        export(prediction(image), image, tmp_path / "out", ["dicom-seg"])
    assert "write nifti or seg-nrrd" in str(raised.value)


def test_labels_without_a_patient_are_refused(tmp_path: Path) -> None:
    image, _ = of_dicom(tmp_path, PLACED["LPS"])
    found = labelled(np.ones((3, 4), LABEL_DTYPE), pixel_size_um=(1.0, 1.0))
    with pytest.raises(OutputError, match="no position in a patient"):
        export(found, replace(image, path=tmp_path / "series"), tmp_path / "out", ["dicom-seg"])
