"""An object stays where it is in the world: file, segmentation, export, file."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from cases.data_root import data_root
from cases.placed_volumes import CROP, PLACED, TOLERANCE_MM, centroid_ras, model
from napari_coseg.cli.main import main
from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.geometry import ONLY_SIZE, Geometry
from napari_coseg.core.types import LABEL_DTYPE, Image, Instances, Prediction
from napari_coseg.formats.place import geometry_of_labels
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.registry import export
from napari_coseg.images.readers.registry import read_image
from napari_coseg.inference.run import segment
from napari_coseg.labels.measure import object_table
from napari_coseg.workspace.folder import create_workspace, open_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

VOLUMES = [pytest.param(name, id=name) for name in PLACED]
REGIONS = [pytest.param(None, id="whole"), pytest.param(CROP, id="crop")]


def volume(folder: Path, name: str) -> Path:
    path = folder / f"v{PLACED[name].ending}"
    PLACED[name].write(path)
    return path


def world_ras(labels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Of all objects, in mm; by the geometry's own account."""
    assert (geometry.unit, geometry.space) == ("mm", "patient")
    head, back, left = geometry.world(np.argwhere(labels > 0).mean(axis=0))
    return np.array([-left, -back, head])


def read_back(path: Path) -> tuple[np.ndarray, Geometry]:
    if path.name.endswith(".ome.zarr"):
        found = read_ome_zarr(path)
    elif path.suffix == ".geojson":
        found = read_geojson(path)
    else:
        image = read_image(path)
        return np.asarray(image.data), image.geometry
    return found.instances.labels, found.geometry


# ---------------------------------------------------------------------------------------------
# From Python


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", VOLUMES)
def test_objects_stay_in_place_in_every_format(tmp_path: Path, name: str, region) -> None:
    path = volume(tmp_path, name)
    image = read_image(path)
    expected = centroid_ras(path, is_label=False)
    found = segment(image, model(), region=region)
    np.testing.assert_allclose(
        world_ras(found.instances.labels, found.geometry), expected, atol=TOLERANCE_MM
    )
    files = export(found, image, tmp_path / "out", ["nifti", "ome-tiff", "ome-zarr", "geojson"])
    assert centroid_ras(files[1], is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)
    for file in files:
        labels, geometry = read_back(file)
        if "_regions" in file.name:
            continue
        assert labels.any(), file
        np.testing.assert_allclose(
            world_ras(labels, geometry), expected, atol=TOLERANCE_MM, err_msg=file.name
        )


@pytest.mark.parametrize("name", [name for name in PLACED if PLACED[name].ending != ".mha"])
def test_labels_of_a_whole_volume_have_its_affine_and_shape(tmp_path: Path, name: str) -> None:
    path = volume(tmp_path, name)
    image = read_image(path)
    for file in export(segment(image, model()), image, tmp_path, ["nifti"]):
        labels, source = nibabel.load(file), nibabel.load(path)
        np.testing.assert_allclose(labels.affine, source.affine, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(labels.get_qform(), source.affine, rtol=1e-5, atol=1e-4)
        assert labels.shape == source.shape


def test_simpleitk_sees_labels_where_nibabel_does(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = volume(tmp_path, "oblique")
    image = read_image(path)
    _, objects = export(segment(image, model()), image, tmp_path, ["nifti"])
    labels, source = sitk.ReadImage(str(objects)), sitk.ReadImage(str(path))
    for key in ("Origin", "Spacing", "Direction", "Size"):
        ours, theirs = (getattr(one, f"Get{key}")() for one in (labels, source))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_an_orientation_labels_claim_none_either(tmp_path: Path) -> None:
    data = np.full((30, 20, 4), 250, np.uint8)
    data[5:15, 5:15] = 50
    header = nibabel.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_zooms((0.5, 0.5, 2.0))
    nibabel.save(nibabel.Nifti1Image(data, None, header), tmp_path / "v.nii.gz")
    image = read_image(tmp_path / "v.nii.gz")
    assert image.geometry.space == "image"
    assert any("orientation" in text for text in image.geometry.source.assumed)
    _, objects = export(segment(image, model()), image, tmp_path, ["nifti"])
    labels = nibabel.load(objects)
    assert (labels.header["sform_code"], labels.header["qform_code"]) == (0, 0)
    np.testing.assert_array_equal(np.asarray(labels.dataobj) > 0, data < 128)
    np.testing.assert_allclose(labels.header.get_zooms(), (0.5, 0.5, 2.0))


@pytest.mark.parametrize("unit", ["micron", "mm", "meter"])
def test_units_of_nifti_are_read_and_written(tmp_path: Path, unit: str) -> None:
    in_mm = {"micron": 1e-3, "mm": 1.0, "meter": 1000.0}[unit]
    image = nibabel.Nifti1Image(np.full((9, 8, 3), 250, np.uint8), np.diag([2.0, 2.0, 4.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "v.nii")
    read = read_image(tmp_path / "v.nii")
    assert read.pixel_size_um == pytest.approx(np.multiply((4.0, 2.0, 2.0), in_mm * 1000))
    labels = np.zeros((3, 8, 9), LABEL_DTYPE)
    size = read.geometry.known_size_um
    found = Prediction(
        labels.astype(np.uint8),
        (),
        Instances(labels, object_table(labels, pixel_size_um=size)),
        geometry=read.geometry,
    )
    _, objects = export(found, read, tmp_path, ["nifti"])
    assert read_image(objects).pixel_size_um == pytest.approx(read.pixel_size_um)
    if unit != "meter":  # which is written in mm
        np.testing.assert_allclose(nibabel.load(objects).affine, image.affine, rtol=1e-6)


def test_where_a_size_is_not_known_none_is_invented(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = tmp_path / "v.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8)), str(path))
    lines = [line for line in path.read_bytes().split(b"\n") if b"ElementSpacing" not in line]
    path.write_bytes(b"\n".join(lines))
    image = read_image(path)
    assert (image.pixel_size_um, image.geometry.unit) == (None, "px")
    found = segment(image, model())
    assert any("pixel" in text for text in found.geometry.source.assumed)


@pytest.mark.skipif(data_root() is None, reason="no shared images here (set NAPARI_COSEG_DATA)")
def test_labels_of_a_real_ct_lie_on_it(tmp_path: Path) -> None:
    root = data_root()
    assert root is not None
    ct, bones = (root / "ct" / f"example_{name}.nii.gz" for name in ("ct", "seg_fast_force_split"))
    image, labels = read_image(ct), read_image(bones)
    objects = labels.data.astype(LABEL_DTYPE)
    size = image.geometry.known_size_um
    instances = Instances(objects, object_table(objects, pixel_size_um=size))
    found = Prediction(objects.astype(np.uint8), (), instances, geometry=image.geometry)
    expected = nibabel.load(bones)
    for file in export(found, image, tmp_path, ["nifti"]):
        written = nibabel.load(file)
        np.testing.assert_allclose(written.affine, expected.affine, atol=1e-6)
        np.testing.assert_array_equal(written.dataobj, expected.dataobj)


# ---------------------------------------------------------------------------------------------
# By the command line


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_coseg.inference.loading.load_any_family", lambda *_, **__: model())


def labels_on_disk(folder: Path, path: Path, region) -> Path:
    """As `segment` writes them; of a part by Python, which the command line does not segment."""
    if region is None:
        assert main(["segment", str(path), "--output-dir", str(folder)]) == 0
    else:
        image = read_image(path)
        export(segment(image, model(), region=region), image, folder, ["ome-tiff", "csv"])
    return folder / "v_objects.ome.tif"


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", VOLUMES)
def test_segment_and_export_leave_objects_in_place(tmp_path: Path, name: str, region) -> None:
    path = volume(tmp_path, name)
    objects = labels_on_disk(tmp_path / "labels", path, region)
    assert main(["export", str(objects), "--format", "nifti", "--format", "geojson"]) == 0
    table = pd.read_csv(objects.with_name("v_objects.csv"))
    assert {"world_z_mm", "world_y_mm", "world_x_mm"} <= set(table.columns)
    expected = centroid_ras(path, is_label=False)
    written = objects.with_name("v_objects.nii.gz")
    assert centroid_ras(written, is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)
    # Once more, from what was written.
    for number, again in enumerate((written, objects.with_name("v.geojson"))):
        out = tmp_path / str(number)
        assert main(["export", str(again), "--format", "nifti", "--output-dir", str(out)]) == 0
        (labels,) = out.glob("*_objects.nii.gz")
        assert centroid_ras(labels, is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)


def sizes_alone(geometry: Geometry, lengths: dict[str, int]) -> dict[str, float]:
    return {f"PhysicalSize{a}": s for a, s in zip("ZYX", geometry.known_size_um, strict=True)}


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("region", REGIONS)
def test_labels_that_say_only_their_size_take_the_place_from_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, region
) -> None:
    path = volume(tmp_path, "oblique")
    with monkeypatch.context() as before:  # as versions without a geometry wrote them
        before.setattr("napari_coseg.formats.ome_tiff.NOTE", "something else")
        before.setattr("napari_coseg.formats.ome_tiff._placed", sizes_alone)
        objects = labels_on_disk(tmp_path, path, region)
    assert main(["export", str(objects), "--format", "nifti"]) == 0
    found = centroid_ras(tmp_path / "v_objects.nii.gz", is_label=True)
    assert found == pytest.approx(centroid_ras(path, is_label=False), abs=TOLERANCE_MM)


# ---------------------------------------------------------------------------------------------
# Workspaces


@pytest.mark.parametrize("region", REGIONS)
def test_a_workspace_keeps_where_its_labels_lie(tmp_path: Path, region) -> None:
    path = volume(tmp_path, "oblique")
    image = read_image(path)
    found = segment(image, model(), region=region)
    with create_workspace(tmp_path / "w") as workspace:
        reference = reference_of(image, path, workspace.path)
        entry = workspace.add(reference, Saved(found))
    with open_workspace(tmp_path / "w") as workspace:
        (entry,) = workspace.entries
        assert entry.load().prediction.geometry == entry.geometry == found.geometry
        assert entry.image.geometry == image.geometry
    described = tmp_path / "w" / "entries" / "0001" / "entry.json"
    facts = json.loads(described.read_text())
    described.write_text(json.dumps(facts | {"geometry": {"affine": 1}}))
    with pytest.raises(WorkspaceError, match="geometry"):
        open_workspace(tmp_path / "w")
    del facts["geometry"], facts["image"]["geometry"]  # of an older version
    described.write_text(json.dumps(facts))
    with open_workspace(tmp_path / "w") as workspace:
        (entry,) = workspace.entries
        old = entry.load().prediction.geometry
    assert old.has_pixel_size(found.pixel_size_um)
    assert old.source.assumed == (ONLY_SIZE,)
    placed = geometry_of_labels(old, found.semantic.shape, entry.offset, image)
    np.testing.assert_allclose(placed.affine, found.geometry.affine, atol=1e-9)


# ---------------------------------------------------------------------------------------------
# Microscopy


@pytest.mark.parametrize("axes", ["YXC", "CYX", "ZYX", "ZCYX"])
def test_ome_tiff_keeps_size_and_position(tmp_path: Path, axes: str) -> None:
    import tifffile

    from napari_coseg.formats.ome_tiff import write_image

    shape = tuple({"Z": 2, "C": 3, "Y": 8, "X": 9}[axis] for axis in axes)
    spatial = axes.replace("C", "")
    size, origin = (2.0, 0.5, 0.25)[-len(spatial) :], (7.0, -100.5, 40.0)[-len(spatial) :]
    geometry = Geometry.from_spacing(size, origin)
    path = tmp_path / "a.ome.tif"
    write_image(path, Image(np.zeros(shape, np.uint8), axes, geometry=geometry))
    assert read_image(path).geometry == geometry
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
    foreign = xml.replace("napari-coseg geometry", "a note of others")
    tifffile.tiffcomment(path, foreign.encode())
    found = read_image(path).geometry
    assert found.pixel_size_um == size
    np.testing.assert_allclose(found.origin, origin)
    doubled = xml.replace('PhysicalSizeX="0.25"', 'PhysicalSizeX="0.5"')
    tifffile.tiffcomment(path, doubled.encode())
    assert read_image(path).pixel_size_um == (*size[:-1], 0.5), "what was changed since counts"
