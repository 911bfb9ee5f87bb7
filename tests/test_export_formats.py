"""OME-Zarr, COCO, NIfTI, tables of regions, notes in OME-TIFF: round trips, others' validators."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import zarr

from cases.export_cases import (
    DIAGONAL,
    HOLES,
    ONE_PIXEL_EACH,
    OVER_65535,
    PLANES,
    REGIONS,
    STACK,
    TOUCHING,
    TYPES,
    drawn,
    grey,
    noise,
    prediction,
)
from napari_coseg.core.errors import ImageError, OutputError
from napari_coseg.core.files import atomic_folder
from napari_coseg.core.types import Image
from napari_coseg.formats.ome_tiff import read_notes
from napari_coseg.formats.registry import export, stand_in

ALL = [*PLANES, OVER_65535, STACK]


def zarr_of(folder, labels, image=None, **options):
    found = prediction(labels, **options)
    (path,) = export(found, image or grey(labels), folder, ["ome-zarr"])
    return found, zarr.open_group(path, mode="r")


# ---------------------------------------------------------------------------------------------
# OME-Zarr


@pytest.mark.parametrize("labels", ALL)
def test_ome_zarr_holds_the_same_labels_with_pixel_size(tmp_path, labels):
    found, root = zarr_of(tmp_path, labels)
    for name, expected in (("objects", labels), ("regions", found.semantic)):
        group = root["labels"][name]
        np.testing.assert_array_equal(group["0"][:], expected)
        assert group["0"].dtype == expected.dtype
        (entry,) = group.attrs["multiscales"]
        (scale,) = entry["datasets"][0]["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": list(found.pixel_size_um)}
        axes = [(axis["name"], axis["unit"]) for axis in entry["axes"]]
        assert axes == [(name, "micrometer") for name in "zyx"[-labels.ndim :]]
    assert root["labels"].attrs["labels"] == ["regions", "objects"]
    np.testing.assert_array_equal(root["0"][:], 200)


def test_ome_zarr_says_classes_colours_and_what_was_measured(tmp_path):
    _, root = zarr_of(tmp_path, TOUCHING)
    notes = root["labels/objects"].attrs["image-label"]
    assert notes["version"] == "0.4" and notes["source"] == {"image": "../../"}
    assert notes["colors"][:2] == [
        {"label-value": 1, "rgba": [255, 0, 0, 255]},
        {"label-value": 2, "rgba": [0, 0, 255, 255]},
    ]
    second = notes["properties"][1]
    assert (second["label-value"], second["class"], second["area_um2"]) == (2, "naïve, µ", 0.75)
    regions = root["labels/regions"].attrs["image-label"]
    assert regions["properties"][0] == {"label-value": 1, "class": "gland"}
    assert regions["colors"][1] == {"label-value": 2, "rgba": [200, 0, 200, 255]}


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        pytest.param("YXC", (1100, 700, 3), (3, 1100, 700), id="colours last"),
        pytest.param("CYX", (2, 1100, 700), (2, 1100, 700), id="channels first"),
        pytest.param("ZCYX", (2, 4, 600, 530), (4, 2, 600, 530), id="channels of a stack"),
        pytest.param("ZYXC", (2, 600, 530, 3), (3, 2, 600, 530), id="colours of a stack"),
    ],
)
def test_the_image_lies_beside_its_labels_at_every_level(tmp_path, axes, shape, expected):
    data = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image(data, axes, name="a")
    labels = np.zeros(image.spatial_shape, np.int32)
    labels[..., 1::2, :] = 1
    _, root = zarr_of(tmp_path, labels, image)
    order = "C" + axes.replace("C", "")
    np.testing.assert_array_equal(root["0"][:], np.moveaxis(data, axes.index("C"), 0))
    assert root["0"].shape == expected
    assert ("omero" in root.attrs) == (shape[axes.index("C")] == 3)
    (entry,) = root.attrs["multiscales"]
    assert [axis["name"] for axis in entry["axes"]] == list(order.lower())
    (of_labels,) = root["labels/objects"].attrs["multiscales"]
    assert len(entry["datasets"]) == len(of_labels["datasets"]) > 1
    mean = data.astype(float).mean(axis=axes.index("C"))[..., :2, :2].mean(axis=(-1, -2))
    np.testing.assert_allclose(root["1"][..., 0, 0].mean(axis=0), mean, atol=0.51)
    assert root["1"].shape[-2:] == root["labels/objects/1"].shape[-2:]
    assert not root["labels/objects/1"][:].any(), "labels keep every second pixel, from the first"


def test_of_an_image_segmented_in_part_that_part_is_written(tmp_path):
    data = np.arange(100, dtype=np.uint8).reshape(10, 10)
    _, root = zarr_of(tmp_path, ONE_PIXEL_EACH, Image(data, "YX", name="a"), region_offset=[2, 5])
    np.testing.assert_array_equal(root["0"][:], data[2:5, 5:8])


def test_another_image_is_refused(tmp_path):
    with pytest.raises(OutputError, match="do not belong together"):
        zarr_of(tmp_path, TOUCHING, Image(np.zeros((2, 2), np.uint8), "YX", name="a"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", [HOLES, np.zeros((7, 9), np.int32), np.stack([DIAGONAL] * 2)])
def test_ome_zarr_satisfies_the_models_of_its_library(tmp_path, labels):
    models = pytest.importorskip("ome_zarr_models.v04", reason="needs ome-zarr-models")
    colours = np.zeros((*labels.shape, 3), np.uint8)
    image = Image(colours, "ZYX"[-labels.ndim :] + "C", name="a")
    _, root = zarr_of(tmp_path, labels, image)
    assert models.Image.from_zarr(root).labels.attributes.labels == ["regions", "objects"]
    for name in ("regions", "objects"):
        models.ImageLabel.from_zarr(root["labels"][name])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.ome.zarr"
    with atomic_folder(path) as passing:
        passing.mkdir()
        (passing / "new").touch()
    with pytest.raises(OutputError, match="already exists"), atomic_folder(path):
        pass
    with pytest.raises(OutputError, match="cannot be written"):
        write_half(path)
    assert [file.name for file in tmp_path.rglob("*")] == ["a.ome.zarr", "new"]
    with atomic_folder(path, overwrite=True) as passing:
        passing.mkdir()
    assert [file.name for file in tmp_path.rglob("*")] == ["a.ome.zarr"]


def write_half(path):
    with atomic_folder(path, overwrite=True) as passing:
        passing.mkdir()
        raise OSError(28, "No space left on device")


# ---------------------------------------------------------------------------------------------
# COCO


def coco_of(folder, labels, **options):
    found = prediction(labels, **options)
    (path,) = export(found, grey(labels), folder, ["coco"])
    return found, path, json.loads(path.read_text("utf-8"))


def painted(content, shape, supercategory):
    """Object ids, or category names, from run lengths down the columns."""
    kinds = {c["id"]: c for c in content["categories"]}
    out = np.zeros(shape[0] * shape[1], object if supercategory == "region" else np.int32)
    for one in content["annotations"]:
        category = kinds[one["category_id"]]
        if category["supercategory"] == supercategory:
            counts = one["segmentation"]["counts"]
            on = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            assert len(on) == out.size, "the runs cover the image"
            out[on] = one.get("object_id", category["name"])
    return out.reshape(shape[::-1]).T


@pytest.mark.parametrize("labels", PLANES)
def test_coco_holds_the_same_labels(tmp_path, labels):
    found, _, content = coco_of(tmp_path, labels)
    np.testing.assert_array_equal(painted(content, labels.shape, "object"), labels)
    regions = painted(content, labels.shape, "region")
    for entry in found.semantic_classes:
        np.testing.assert_array_equal(regions == entry.name, found.semantic == entry.id)


def test_coco_holds_more_than_65535_objects(tmp_path):
    _, _, content = coco_of(tmp_path, np.arange(1, 66_001, dtype=np.int32).reshape(6, 11_000))
    ids = [one["object_id"] for one in content["annotations"] if "object_id" in one]
    assert ids == list(range(1, 66_001))


def test_coco_says_what_an_object_is(tmp_path):
    _, _, content = coco_of(tmp_path, drawn(".1.", "11.", ".2."))
    first, second = content["annotations"][:2]
    assert first["segmentation"] == {"size": [3, 3], "counts": [1, 1, 1, 2, 4]}
    assert first["bbox"] == [0, 0, 2, 2] and first["area"] == 3 and first["score"] == 0.5
    assert second["bbox"] == [1, 2, 1, 1] and second["iscrowd"] == 0
    names = {c["id"]: (c["name"], c["isthing"]) for c in content["categories"]}
    assert names[first["category_id"]] == ("epithelial", 1)
    assert names[second["category_id"]] == ("naïve, µ", 1)
    assert names[content["annotations"][-1]["category_id"]] == ("stroma", 0)
    assert content["images"] == [{"id": 1, "file_name": "a", "width": 3, "height": 3}]


@pytest.mark.parametrize("labels", [*PLANES, pytest.param(noise((9, 9), 2), id="long runs")])
@pytest.mark.parametrize(
    ("before", "behind"),
    [((0, 0), (0, 0)), ((4, 7), (3, 2)), ((0, 5), (0, 1)), ((2, 0), (0, 0)), ((0, 0), (1, 1))],
    ids=["all of it", "in the middle", "all rows", "all columns", "the first corner"],
)
def test_coco_of_a_part_lies_where_the_part_does(tmp_path, labels, before, behind):
    whole = np.pad(labels, list(zip(before, behind, strict=True)))
    found = prediction(labels, region_offset=list(before))
    (path,) = export(found, grey(whole), tmp_path, ["coco"])
    content = json.loads(path.read_text("utf-8"))
    about = content["images"][0]
    assert (about["height"], about["width"]) == whole.shape
    np.testing.assert_array_equal(painted(content, whole.shape, "object"), whole)
    regions = painted(content, whole.shape, "region")
    for entry in found.semantic_classes:
        inside = np.pad(found.semantic, list(zip(before, behind, strict=True))) == entry.id
        np.testing.assert_array_equal(regions == entry.name, inside)
    for one in content["annotations"]:
        if "object_id" in one:
            y, x = np.nonzero(whole == one["object_id"])
            box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert (one["bbox"], one["area"]) == (box, len(y))
            assert one["segmentation"]["size"] == list(whole.shape)
            assert 0 not in one["segmentation"]["counts"][1:]


def test_coco_of_a_part_asks_for_the_image(tmp_path):
    found = prediction(TOUCHING, region_offset=[100, 200])
    with pytest.raises(OutputError, match="give the image that the labels were made of"):
        export(found, stand_in(found, "a"), tmp_path, ["coco"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", [HOLES, noise((9, 7), 3), np.full((3, 5), 1, np.int32)])
def test_pycocotools_reads_the_same_masks_boxes_and_areas(tmp_path, labels):
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    mask = pytest.importorskip("pycocotools.mask")
    _, path, _ = coco_of(tmp_path, labels)
    index = coco.COCO(str(path))
    objects = [one for one in index.loadAnns(index.getAnnIds()) if "object_id" in one]
    assert len(objects) == len(np.unique(labels[labels > 0]))
    for one in objects:
        np.testing.assert_array_equal(index.annToMask(one) == 1, labels == one["object_id"])
        assert mask.toBbox(index.annToRLE(one)).tolist() == one["bbox"]
        assert mask.area(index.annToRLE(one)) == one["area"]


def test_coco_refuses_stacks(tmp_path):
    with pytest.raises(OutputError, match="COCO holds planes"):
        coco_of(tmp_path, np.stack([TOUCHING] * 2))


# ---------------------------------------------------------------------------------------------
# NIfTI


@pytest.mark.parametrize("labels", ALL)
def test_nifti_holds_the_same_labels_with_voxels_in_mm(tmp_path, labels):
    import nibabel

    found = prediction(labels)
    regions, objects = export(found, grey(labels), tmp_path, ["nifti"])
    for path, expected in ((regions, found.semantic), (objects, labels)):
        image = nibabel.load(path)
        volume = np.asarray(image.dataobj).T
        np.testing.assert_array_equal(volume.reshape(expected.shape), expected)
        assert image.get_data_dtype() == expected.dtype
        sizes = [size / 1000 for size in found.pixel_size_um[::-1]]
        np.testing.assert_allclose(image.header.get_zooms()[: labels.ndim], sizes, rtol=1e-6)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_nifti_is_read_the_same_way_round_as_the_volumes_of_datasets(tmp_path):
    from napari_coseg.images.volumes import read_header

    labels = noise((3, 4, 5))
    _, path = export(prediction(labels), grey(labels), tmp_path, ["nifti"])
    header = read_header(path)
    assert header.shape == (3, 4, 5)
    assert (header.axes, header.flipped) == ((0, 1, 2), (False, False, False))


def test_nifti_refuses_sides_that_its_header_cannot_hold(tmp_path):
    labels = np.zeros((1, 40_000), np.int32)
    with pytest.raises(OutputError, match="32767 voxels"):
        export(prediction(labels), grey(labels), tmp_path, ["nifti"])


# ---------------------------------------------------------------------------------------------
# CSV of regions and OME-TIFF


def test_the_table_of_regions_counts_areas_and_objects(tmp_path):
    found = prediction(drawn("11..", "..22"), semantic=np.array([[1] * 4, [0] * 4], np.uint8))
    (path,) = export(found, grey(found.semantic), tmp_path, ["csv-regions"])
    table = pd.read_csv(path)
    assert path.name == "a_regions.csv"
    assert table["region"].tolist() == ["background", "gland", "stroma"]
    assert table["area_um2"].tolist() == [0.5, 0.5, 0.0]
    assert table["objects"].tolist() == [1, 1, 0]


def test_ome_tiff_gives_back_classes_and_provenance(tmp_path):
    found = prediction(TOUCHING, model="m")
    regions, objects = export(found, grey(TOUCHING), tmp_path, ["ome-tiff"])
    for path, classes in ((objects, TYPES), (regions, REGIONS)):
        notes = read_notes(path)
        assert (notes.classes, notes.provenance) == (classes, {"model": "m"})


@pytest.mark.parametrize("content", [b"no tiff", b""])
def test_notes_of_a_broken_file_are_refused(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError, match="cannot be understood"):
        read_notes(tmp_path / "a.tif")


@pytest.mark.parametrize("labels", [TOUCHING, np.stack([TOUCHING] * 2), np.zeros((2, 2), np.int32)])
def test_the_xml_of_ome_tiff_satisfies_its_schema(tmp_path, labels):
    ome_types = pytest.importorskip("ome_types", reason="needs ome-types")
    pytest.importorskip("lxml", reason="needs ome-types[lxml]")
    tifffile = pytest.importorskip("tifffile")
    found = prediction(labels, note="<&> µ")
    for path in export(found, grey(labels), tmp_path, ["ome-tiff"]):
        with tifffile.TiffFile(path) as file:
            model = ome_types.from_xml(file.ome_metadata, validate=True)
        sizes = [getattr(model.images[0].pixels, f"physical_size_{a}") for a in "zyx"]
        assert sizes[-labels.ndim :] == list(found.pixel_size_um)
