"""Parts of images: those held back, and those that a workspace is cut into."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.finetuning_cases import GLAND, made_workspace, reviewed_image, reviewed_set
from napari_coseg.finetuning import from_workspace
from napari_coseg.finetuning.from_workspace import WITHOUT_OBJECTS
from napari_coseg.finetuning.held_out import hold_out
from napari_coseg.finetuning.sources import read_reviewed
from napari_coseg.images.readers.registry import read_image
from napari_coseg.labels.measure import labelled
from napari_coseg.workspace.folder import create_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

SMALL, LARGE = 60, 300


# ---------------------------------------------------------------------------------------------
# Held back


@pytest.mark.parametrize(
    ("sizes", "fraction", "whole"),
    [
        pytest.param([LARGE, SMALL, SMALL, SMALL], 0.2, False, id="a slide, first"),
        pytest.param([SMALL, LARGE, SMALL, SMALL], 0.2, False, id="a slide, second"),
        pytest.param([SMALL, SMALL, LARGE, SMALL], 0.2, False, id="a slide, third"),
        pytest.param([SMALL, SMALL, SMALL, LARGE], 0.2, False, id="a slide, last"),
        pytest.param([LARGE] + [SMALL * 2] * 10, 0.2, True, id="a slide and enough others"),
        pytest.param([SMALL] * 4, 0.1, False, id="each more than is wanted"),
        pytest.param([SMALL] * 4, 0.2, True, id="one of four"),
    ],
)
def test_about_as_much_is_held_out_as_is_wanted(
    sizes: list[int], fraction: float, whole: bool
) -> None:
    images = tuple(reviewed_image(i, size) for i, size in enumerate(sizes))
    reviewed = replace(reviewed_set(), images=images)
    learnt, held = hold_out(reviewed, fraction)
    areas = [sum(int(image.reviewed.sum()) for image in part) for part in (learnt, held)]
    assert 0.5 * fraction < areas[1] / sum(areas) < 1.6 * fraction
    assert ({image.name for image in learnt}.isdisjoint(image.name for image in held)) is whole
    again = hold_out(replace(reviewed, images=images[::-1]), fraction).held_out
    of = [{image.name: image.reviewed.sum() for image in part} for part in (held, again)]
    assert of[0] == of[1]


# ---------------------------------------------------------------------------------------------
# Parts of a workspace's image


def test_what_is_marked_is_in_one_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square in the bend of an L, with a gap between them."""
    monkeypatch.setattr(from_workspace, "BLOCK_PX", 16)
    monkeypatch.setattr(from_workspace, "CONTEXT_PX", 20)
    bend, square = np.zeros((2, 96, 96), bool)
    bend[:, :16] = bend[80:] = True
    square[32:48, 40:56] = True
    found = read_reviewed(made_workspace(tmp_path, reviewed_image(), bend | square))
    parts = [image.semantic_known for image in found.images]
    areas = [int(part.sum()) for part in parts if part is not None]
    assert sorted(areas) == sorted([int(bend.sum()), int(square.sum())])
    assert found.reviews().area_px >= sum(areas)
    assert found.reviews().images == 1, "parts are no images"


@pytest.mark.parametrize(
    ("told", "drawn", "learnt"),
    [
        pytest.param({WITHOUT_OBJECTS: True}, False, False, id="regions alone"),
        pytest.param({WITHOUT_OBJECTS: True}, True, True, id="regions alone, then objects drawn"),
        pytest.param({}, False, True, id="a layer of objects: there are none"),
    ],
)
def test_objects_that_nobody_kept_are_not_learnt(
    told: dict[str, Any], drawn: bool, learnt: bool, tmp_path: Path
) -> None:
    import tifffile

    image = reviewed_image()
    assert image.instances is not None
    tifffile.imwrite(tmp_path / "image.tif", image.image)
    labels = image.instances if drawn else np.zeros_like(image.instances)
    saved = Saved(
        labelled(
            labels, image.semantic, pixel_size_um=(0.5, 0.5), region_classes=GLAND, provenance=told
        )
    )
    whole = np.nonzero(np.ones(image.shape, bool))
    saved = replace(saved, reviewed=saved.reviewed.with_area(whole))
    with create_workspace(tmp_path / "mine.coseg") as workspace:
        file = tmp_path / "image.tif"
        workspace.add(reference_of(read_image(file), file, workspace.path), saved)
    (found,) = read_reviewed(tmp_path / "mine.coseg").images
    assert found.semantic_known is not None and found.semantic_known.all()
    assert (found.instances is not None) is (found.instances_known is not None) is learnt


@pytest.mark.gui
@pytest.mark.parametrize("kept", ["regions", "objects", "both"])
def test_a_workspace_tells_what_it_was_given(kept: str, tmp_path: Path, qapp: Any) -> None:
    from napari.components import ViewerModel

    from napari_coseg.widgets.workspace.layers import adding

    image, viewer = reviewed_image(), ViewerModel()
    assert image.instances is not None and image.semantic is not None
    picture = viewer.add_image(image.image, rgb=True)
    objects, regions = viewer.add_labels(image.instances), viewer.add_labels(image.semantic)
    with create_workspace(tmp_path / "mine.coseg") as workspace:
        chosen = (objects if kept != "regions" else None, regions if kept != "objects" else None)
        entry, _ = adding(workspace, picture, *chosen)()
        saved = entry.load()
    assert saved.provenance.get(WITHOUT_OBJECTS, False) is (kept == "regions")
    assert (saved.regions is None) is (kept == "objects")
