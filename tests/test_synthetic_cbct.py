"""Synthetic cone-beam CT: single teeth, their numbers, tissues, scans, and the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cases.data_root import data_root
from cases.dental_twin import SPACING_MM, TEETH_OF_A_JAW, dental_labels, make_dental
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets import synthetic_cbct
from napari_coseg.datasets.cbct_anatomy import Anatomy, Source, Tissue, anatomy_of, fdi_numbers
from napari_coseg.datasets.cbct_scan import synthetic_scan
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.datasets.synthetic_cbct import SOURCE, read_anatomy

NUMBERS = {10 * quadrant + tooth for quadrant in (1, 2, 3, 4) for tooth in range(1, 5)}


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomy_of(dental_labels(), SPACING_MM)


def test_touching_teeth_are_separated_and_numbered(anatomy: Anatomy) -> None:
    numbers, sizes = np.unique(anatomy.teeth[anatomy.teeth > 0], return_counts=True)
    assert set(numbers.tolist()) == NUMBERS
    assert len(NUMBERS) == 2 * TEETH_OF_A_JAW
    assert sizes.max() < 1.6 * sizes.min()


@pytest.mark.parametrize(
    ("number", "is_upper", "is_left"), [(11, True, False), (24, True, True), (33, False, True)]
)
def test_quadrants_are_the_patients(
    anatomy: Anatomy, number: int, is_upper: bool, is_left: bool
) -> None:
    z, _, x = (axis.mean() for axis in np.nonzero(anatomy.teeth == number))
    middle_z, _, middle_x = (axis.mean() for axis in np.nonzero(anatomy.teeth))
    assert bool(z > middle_z) is is_upper  # z runs towards the head
    assert bool(x > middle_x) is is_left  # x runs towards the patient's left


def test_more_teeth_than_fdi_can_count_are_refused() -> None:
    row = np.arange(1, 19, dtype=np.int32)[None, None]
    with pytest.raises(DatasetError, match="18 teeth"):
        fdi_numbers(row, (1, 2))


@pytest.mark.parametrize(
    ("tissue", "where"),
    [
        (Tissue.ENAMEL, "crown"),
        (Tissue.DENTINE, "tooth"),
        (Tissue.CORTICAL, "jaw"),
        (Tissue.SPONGY, "jaw"),
        (Tissue.LIGAMENT, "jaw"),
        (Tissue.CANAL, "rest"),
        (Tissue.SOFT, "rest"),
        (Tissue.TONGUE, "rest"),
        (Tissue.AIR, "rest"),
    ],
)
def test_each_tissue_occurs_and_lies_where_it_belongs(
    anatomy: Anatomy, tissue: Tissue, where: str
) -> None:
    places = {
        "crown": anatomy.crowns > 0,
        "tooth": anatomy.teeth > 0,
        "jaw": anatomy.jaws > 0,
        "rest": (anatomy.teeth == 0) & (anatomy.jaws == 0),
    }
    found = anatomy.tissues == tissue
    assert found.any()
    assert places[where][found].all()


@pytest.mark.parametrize("missing", [Source.UPPER_JAW, Source.LOWER_TEETH])
def test_a_source_without_a_structure_is_refused(missing: Source) -> None:
    labels = dental_labels()
    labels[labels == missing] = 0
    with pytest.raises(DatasetError, match=f"no {missing.name}"):
        anatomy_of(labels, SPACING_MM)


def test_a_scan_depends_on_its_seed_alone(anatomy: Anatomy) -> None:
    one, again, other = (synthetic_scan(anatomy, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.values, again.values)
    assert np.array_equal(one.labels, again.labels)
    assert one.values.shape != other.values.shape or (one.values != other.values).any()


@pytest.mark.parametrize("seed", range(3))
def test_labels_lie_on_what_looks_like_it(anatomy: Anatomy, seed: int) -> None:
    scan = synthetic_scan(anatomy, seed, severity=0.5)
    assert set(np.unique(scan.labels).tolist()) <= {0, 1, 2, 3, 4} | NUMBERS
    teeth, jaws = scan.labels > 10, np.isin(scan.labels, (1, 2))
    rest = (scan.labels == 0) & (scan.values > -900)
    grey = [float(np.median(scan.values[mask])) for mask in (teeth, jaws, rest)]
    assert grey[0] > grey[1] > grey[2]


@pytest.mark.parametrize("seed", range(4))
def test_sides_are_right_in_mirrored_patients_too(anatomy: Anatomy, seed: int) -> None:
    labels = synthetic_scan(anatomy, seed, severity=0).labels
    x = np.broadcast_to(np.arange(labels.shape[2]), labels.shape)
    left, right = np.isin(labels // 10, (2, 3)), np.isin(labels // 10, (1, 4))
    assert x[left].mean() > x[right & (labels > 10)].mean()


def test_nothing_is_labelled_outside_the_field_of_view(anatomy: Anatomy) -> None:
    scan = synthetic_scan(anatomy, 0)
    assert not scan.labels[:, 0, 0].any()
    assert (scan.values[:, 0, 0] == -1000).all()


def test_the_folder_is_prepared_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = synthetic_cbct._Part
    parts = {"train": part("Tr", 1, 1.0, 2), "validation": part("Va", 1, 1.0, 4)}
    monkeypatch.setattr(synthetic_cbct, "PARTS", parts)
    dataset = open_dataset("synthetic-cbct", make_dental(tmp_path))
    written = dataset.prepare()
    assert [path.name for path in written] == [
        f"{split}_00{end}.nii.gz" for split in parts for end in ("_0000", "")
    ]
    assert dataset.prepare() == ()
    dataset.check().raise_if_broken()
    names = dataset.names("train")
    sample = max((dataset.load("train", name) for name in names), key=lambda s: s.instances.max())
    assert sample.pixel_size_um == pytest.approx(1000 * SPACING_MM)
    assert not sample.semantic[sample.instances > 0].any()
    volume = dataset.load_volume("train", "train_00")
    assert volume.image.spatial_shape == volume.semantic.shape
    assert set(np.unique(volume.instances).tolist()) <= {0} | NUMBERS


def test_without_the_label_volume_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=SOURCE):
        open_dataset("synthetic-cbct", tmp_path).prepare()


@pytest.mark.skipif(data_root() is None, reason="no shared research data here; the twin ran")
def test_28_teeth_come_out_of_the_real_label_volume() -> None:
    root = data_root()
    assert root is not None
    if not (root / "dental" / SOURCE).is_file():
        pytest.skip("no dental label volume among the shared data; the twin ran")
    teeth = read_anatomy(root / "dental" / SOURCE).teeth
    numbers, sizes = np.unique(teeth[teeth > 0], return_counts=True)
    assert set(numbers.tolist()) == {10 * q + tooth for q in (1, 2, 3, 4) for tooth in range(1, 8)}
    assert sizes.min() * 0.5**3 > 200  # mm3
    assert sizes.max() * 0.5**3 < 1300
