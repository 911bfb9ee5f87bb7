"""Where reviewed images come from: workspaces and labelled folders, one or several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.finetuning_cases import (
    GLAND,
    TYPES,
    base_file,
    labelled_folder,
    made_workspace,
    reviewed_image,
    reviewed_set,
    settings,
)
from cases.tiny_models import tiny_card
from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning.inputs_snapshot import read_snapshot, write_snapshot
from napari_coseg.finetuning.preparing import prepare
from napari_coseg.finetuning.reviewed import LABEL_DTYPES, FoundBy
from napari_coseg.finetuning.sources import read_reviewed, together
from napari_coseg.images.intake import understand
from napari_coseg.models.checkpoints.native import file_sha256


def left_half(size: int) -> np.ndarray:
    part = np.zeros((size, size), bool)
    part[:, : size // 2] = True
    return part


def test_a_labelled_folder_is_read(tmp_path: Path) -> None:
    found = read_reviewed(labelled_folder(tmp_path / "mine"))
    expected = reviewed_set()
    assert found.reviews().objects_by_class == expected.checked().reviews().objects_by_class
    assert [c.name for c in found.instance_classes] == [c.name for c in TYPES]
    for image, other in zip(found.images, expected.images, strict=True):
        assert np.array_equal(image.image, other.image)
        assert np.array_equal(image.semantic, other.semantic)


@pytest.mark.parametrize("target", ["objects", "regions"])
def test_an_area_reviewed_for_one_task_teaches_that_alone(target: Any, tmp_path: Path) -> None:
    """Labels of the other, and their classes, are as if they were not there."""
    image, part = reviewed_image(), left_half(96)
    found = read_reviewed(made_workspace(tmp_path, image, part, [target], marked=False))
    whole = replace(image, semantic_known=part, instances_known=part).without_cut_objects()
    (one,) = found.checked().images
    if target == "regions":
        assert np.array_equal(one.semantic_known, part)
        assert one.instances is one.instance_types is one.instances_known is None
        assert found.semantic_classes == GLAND and found.instance_classes == ()
    else:
        assert np.array_equal(one.instances_known, whole.instances_known)
        assert one.semantic is one.semantic_known is None
        assert found.semantic_classes == () and found.instance_classes == TYPES


def test_objects_alone_are_learnt_beside_regions_that_the_base_does_not_know(
    tmp_path: Path,
) -> None:
    follicle = (LabelClass(1, "follicle", (1, 2, 3)),)
    workspace = made_workspace(
        tmp_path, reviewed_image(), left_half(96), ["objects"], region_classes=follicle
    )
    prepared = prepare(read_reviewed(workspace), base_file(tmp_path), settings(), "cpu")
    assert [entry.name for entry in prepared.classes.card.semantic_classes] == ["gland"]
    assert prepared.reviewed.reviews().objects > 0


def test_an_area_that_cuts_every_object_teaches_nothing(tmp_path: Path) -> None:
    """Regions are there, but nobody has reviewed them."""
    image = reviewed_image()
    assert image.instances is not None
    rows = np.zeros((96, 96), bool)
    rows[np.argwhere(image.instances > 0)[20, 0]] = True
    cut = replace(image, semantic_known=np.zeros_like(rows), instances_known=rows)
    reviewed = replace(reviewed_set(1), images=(cut,))
    with pytest.raises(DatasetError, match="no whole object and no region is reviewed"):
        prepare(reviewed, base_file(tmp_path), settings(), "cpu")


def test_a_workspace_is_read(tmp_path: Path) -> None:
    image = reviewed_image()
    assert image.instances is not None
    part = left_half(96)
    found = read_reviewed(made_workspace(tmp_path, image, part)).images
    last = image.instances == image.instances.max()
    assert len(found) == 1 and found[0].pixel_size_um == 0.5
    expected = replace(image, semantic_known=part, instances_known=part | last)
    expected = expected.without_cut_objects()
    for name in ("image", *LABEL_DTYPES):
        assert np.array_equal(getattr(found[0], name), getattr(expected, name)), name


def test_a_workspace_tells_which_model_found_what_was_corrected(tmp_path: Path) -> None:

    base = base_file(tmp_path)
    told = {"model": "discs", "weights": {"file": base.name, "sha256": file_sha256(base)}}
    image, part = reviewed_image(), left_half(96)
    found = read_reviewed(made_workspace(tmp_path, image, part, provenance=told))
    (finder,) = found.found_by
    assert (finder.model, finder.sha256) == ("discs", file_sha256(base))
    assert together([found, found]).found_by == found.found_by
    assert not any("discs" in note for note in prepare(found, base, settings(), "cpu").notes)
    write_snapshot(tmp_path, found)
    assert read_snapshot(tmp_path).found_by == found.found_by


@pytest.mark.parametrize(
    ("names", "told"),
    [
        pytest.param(["a"], "the labels that were corrected are of a, and another", id="another"),
        pytest.param(["a", "a", "b"], "the labels that were corrected are of a, b, and", id="two"),
        pytest.param(["a", "base"], "some of the labels that were corrected are of a", id="some"),
        pytest.param([""], "are of a model without a name, and", id="without a name"),
    ],
)
def test_that_another_models_labels_were_corrected_is_told(
    names: list[str], told: str, tmp_path: Path
) -> None:
    base = base_file(tmp_path)
    own = file_sha256(base)
    finders = tuple(FoundBy(n, own if n == "base" else str(i)) for i, n in enumerate(names))
    reviewed = replace(reviewed_set(1), found_by=finders)
    notes = prepare(reviewed, base, settings(), "cpu").notes
    assert [told in note for note in notes].count(True) == 1


@pytest.mark.parametrize("weights", [{}, None, "a word", {"sha256": None}, {"file": "a"}])
def test_without_a_model_nothing_is_told_of_one(weights: Any, tmp_path: Path) -> None:
    workspace = made_workspace(
        tmp_path, reviewed_image(), left_half(96), provenance={"weights": weights}
    )
    assert read_reviewed(workspace).found_by == ()


@pytest.mark.parametrize(
    ("provenance", "window"),
    [
        pytest.param({"window": [-160.0, 240.0]}, (-160.0, 240.0), id="the run's window"),
        pytest.param({"window": None}, None, id="a run without a window"),
        pytest.param({}, None, id="labels made by hand"),
    ],
)
def test_grey_values_of_a_workspace_are_those_of_the_run(
    provenance: dict[str, Any], window: tuple[float, float] | None, tmp_path: Path
) -> None:
    """A slice of computed tomography, in Hounsfield units."""
    import tifffile

    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.inference.run import read_for
    from napari_coseg.labels.measure import labelled
    from napari_coseg.workspace.folder import create_workspace
    from napari_coseg.workspace.image import reference_of
    from napari_coseg.workspace.saved import Saved

    file = tmp_path / "ct.tif"
    tifffile.imwrite(file, np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50))
    labels = np.zeros((40, 50), np.int32)
    labels[5:15, 5:15] = 1
    saved = Saved(labelled(labels, pixel_size_um=(0.5, 0.5), provenance=provenance))
    saved = replace(saved, reviewed=saved.reviewed.with_area(np.nonzero(labels >= 0)))
    with create_workspace(tmp_path / "mine.coseg") as workspace:
        workspace.add(reference_of(read_image(file), file, workspace.path), saved)
    found = read_reviewed(tmp_path / "mine.coseg").images[0]

    card = tiny_card()
    normalisation = card.normalisation.model_copy(update={"window": window})
    card = card.model_copy(update={"normalisation": normalisation})
    shown = read_for(card, understand(read_image(file))).read(0, slice(0, 40), slice(0, 50))
    np.testing.assert_array_equal(found.image, np.rint(shown).astype(np.uint8))


def test_several_sources_share_classes(tmp_path: Path) -> None:
    first = labelled_folder(tmp_path / "a", 1)
    other = [
        {"id": 1, "name": "long", "color": (0, 0, 0)},
        {"id": 2, "name": "oval", "color": TYPES[0].color},
    ]
    second = labelled_folder(tmp_path / "b", 1, instance_classes=other)
    found = read_reviewed(first, second)
    assert [c.name for c in found.instance_classes] == ["round", "long", "oval"]
    types = [set(np.unique(image.instance_types)) for image in found.images]
    assert types == [{0, 1, 2}, {0, 2, 3}]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(lambda root: root / "nowhere", "there is no folder", id="no folder"),
        pytest.param(lambda root: root, "neither a workspace", id="any folder"),
    ],
)
def test_folders_that_are_neither(make: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=told):
        read_reviewed(make(tmp_path))


def test_a_workspace_without_reviews(tmp_path: Path) -> None:
    from napari_coseg.workspace.folder import create_workspace

    create_workspace(tmp_path / "mine.coseg").close()
    with pytest.raises(DatasetError, match="nothing is reviewed"):
        read_reviewed(tmp_path / "mine.coseg")
