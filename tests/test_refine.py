"""Refinement: what a run state caches, which windows a correction changes, and what stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases.stub_models import CrossedModel, disc_picture, spread_discs
from napari_coseg.core.errors import Cancelled, EditError, ImageError
from napari_coseg.inference import InferenceSettings, segment
from napari_coseg.inference.refine import refine
from napari_coseg.inference.run_state import RunState
from test_models import FAMILIES, small_model

SHAPE = (200, 312)
TISSUE = (slice(40, 160), slice(50, 260))
TILED = InferenceSettings(
    min_object_area_um2=0,
    min_region_area_um2=0,
    max_hole_area_um2=0,
    tile_size_px=96,
    halo_px=24,
    decode_block_px=96,
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return disc_picture(SHAPE, spread_discs(SHAPE), tissue=TISSUE)[0]


@pytest.fixture
def state(picture: np.ndarray) -> RunState:
    found = RunState()
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=TILED, state=found)
    return found


def without(labels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    changed = labels.copy()
    changed[window] = 0
    return changed


def same_objects(one: np.ndarray, other: np.ndarray, where: Any = np.s_[:]) -> bool:
    """Whether both divide the pixels alike, whatever the ids."""
    pairs = np.unique(np.stack([one[where].ravel(), other[where].ravel()]), axis=1)
    counts = [len(np.unique(row)) for row in pairs]
    return bool(counts[0] == counts[1] == pairs.shape[1])


# ---------------------------------------------------------------------------------------------
# The run state


@pytest.mark.parametrize("flips", [False, True], ids=["plain", "flips"])
@pytest.mark.parametrize("limit", [2**30, 10**6, 0], ids=["all cached", "some", "none"])
def test_a_run_state_has_the_maps_of_the_run(picture, limit: int, flips: bool) -> None:
    settings = TILED.model_copy(update={"test_time_augmentation": flips})
    found = RunState(limit)
    plain = segment(picture, CrossedModel(), pixel_size_um=0.5, settings=settings)
    cached = segment(picture, CrossedModel(), pixel_size_um=0.5, settings=settings, state=found)
    assert np.array_equal(plain.instances.labels, cached.instances.labels)
    assert np.array_equal(plain.semantic, cached.semantic)
    tiles = sum(len(row) for row in found.plan.tiles)
    assert found.cached_tiles == tiles if limit == 2**30 else found.cached_tiles < tiles
    assert found.nbytes <= limit
    maps = found.maps()
    assert maps.object_probability.shape == SHAPE
    assert np.array_equal(maps.region_probability.argmax(0), plain.semantic)
    assert ((maps.object_probability >= 0.5) >= (plain.instances.labels > 0)).all()


@pytest.mark.parametrize("pixel_um", [0.5, 0.25, 1.0], ids=["as the model", "finer", "coarser"])
def test_maps_of_a_window_are_those_of_the_whole(picture, pixel_um: float) -> None:
    found = RunState()
    segment(picture, CrossedModel(), pixel_size_um=pixel_um, settings=TILED, state=found)
    window = (slice(31, 120), slice(77, 203))
    part, whole = found.maps(window), found.maps((slice(0, SHAPE[0]), slice(0, SHAPE[1])))
    for name, values in part._asdict().items():
        assert values.shape[-2:] == (89, 126)
        np.testing.assert_allclose(values, getattr(whole, name)[..., *window], atol=2e-3)
    on_model = found.maps()
    assert on_model.hv.shape == (2, *found.plan.model_shape)


def test_stacks_are_not_cached(picture) -> None:
    found = RunState()
    segment(picture[None], CrossedModel(), axes="ZYXC", settings=TILED, state=found)
    assert not found.is_filled
    with pytest.raises(EditError, match="no run on this image is cached"):
        refine(found, np.zeros((1, *SHAPE), np.uint8))


def test_a_cancelled_run_leaves_an_empty_state(picture) -> None:
    found = RunState()
    with pytest.raises(Cancelled):
        segment(
            picture,
            CrossedModel(),
            pixel_size_um=0.5,
            settings=TILED,
            state=found,
            should_cancel=lambda: found.cached_tiles > 2,
        )
    assert (found.cached_tiles, found.nbytes, found.is_filled) == (0, 0, False)


# ---------------------------------------------------------------------------------------------
# What a correction changes


def test_objects_follow_the_regions_that_a_person_corrected(state: RunState) -> None:
    """Without regions at the left the objects there are gone; those at the right stay."""
    before = state.prediction
    regions = without(before.semantic, np.s_[:, :100])
    refined = refine(state, corrected_regions=regions)
    labels = refined.instances.labels
    assert before.instances.labels[:, :96].any()
    assert not labels[:, :96].any()
    assert same_objects(labels, before.instances.labels, np.s_[:, 110:])
    assert np.array_equal(refined.semantic, regions)
    assert refined.provenance["refined"]["prompted_by"] == ["regions"]
    assert len(refined.instances.table) == labels.max()


def test_regions_follow_the_objects_that_a_person_corrected(state: RunState) -> None:
    """An object painted where there is no tissue makes tissue there, and nowhere else."""
    before = state.prediction
    labels = before.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    refined = refine(state, corrected_objects=labels)
    assert (refined.semantic[181:189, 281:289] == 1).all()
    assert np.array_equal(refined.semantic[:, :250], before.semantic[:, :250])
    assert same_objects(refined.instances.labels, labels)


def test_a_local_correction_decodes_a_part_and_encodes_nothing(state: RunState) -> None:
    model = state.network.model
    encoded = len(model.seen)
    regions = without(state.prediction.semantic, np.s_[50:60, 60:70])
    refined = refine(state, corrected_regions=regions)
    assert len(model.seen) == encoded
    tiles = sum(len(row) for row in state.plan.tiles)
    assert 0 < refined.provenance["refined"]["tiles"] < tiles


def test_tiles_that_are_not_cached_are_encoded_again(picture, state: RunState) -> None:
    empty = RunState(0)
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=TILED, state=empty)
    regions = without(state.prediction.semantic, np.s_[:, :100])
    one, other = (refine(s, corrected_regions=regions) for s in (state, empty))
    assert np.array_equal(one.instances.labels, other.instances.labels)


def test_a_window_of_a_tile_gives_what_the_whole_tile_does(picture, monkeypatch) -> None:
    """The stub model's receptive field is 8 pixels and the halo wider, so both agree."""
    found = RunState()
    large = TILED.model_copy(update={"tile_size_px": 320})
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=large, state=found)
    regions = without(found.prediction.semantic, np.s_[50:70, 60:80])
    sizes: list[tuple[int, int]] = []
    decode_again = found.network.decode_again

    def seen(forwards: Any, window: tuple[slice, slice], *rest: Any) -> np.ndarray:
        sizes.append((window[0].stop - window[0].start, window[1].stop - window[1].start))
        return decode_again(forwards, window, *rest)

    monkeypatch.setattr(found.network, "decode_again", seen)
    whole = refine(found, corrected_regions=regions)
    monkeypatch.setattr("napari_coseg.inference.tile_windows.SMALLEST_WINDOW_PX", 32)
    part = refine(found, corrected_regions=regions)
    assert sizes[0][1] > 2 * sizes[1][1]
    assert np.array_equal(part.instances.labels > 0, whole.instances.labels > 0)
    assert not part.instances.labels[52:68, 62:78].any()


@pytest.mark.parametrize("pixel_um", [0.25, 1.0], ids=["finer", "coarser"])
def test_grids_may_differ(picture, pixel_um: float) -> None:
    found = RunState()
    segment(picture, CrossedModel(), pixel_size_um=pixel_um, settings=TILED, state=found)
    regions = without(found.prediction.semantic, np.s_[:, :100])
    labels = refine(found, corrected_regions=regions).instances.labels
    assert not labels[:, :90].any()
    assert same_objects(labels, found.prediction.instances.labels, np.s_[:, 150:])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_refined(family: str) -> None:
    """Prompt encoders of both families take a corrected mask."""
    model = small_model(*FAMILIES[family])
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3)).astype(np.uint8)
    found = RunState()
    segment(image, model, pixel_size_um=0.5, state=found)
    regions = (np.indices((100, 120))[1] > 60).astype(np.uint8)
    refined = refine(found, corrected_regions=1 - found.prediction.semantic.clip(0, 1) | regions)
    assert refined.instances.labels.shape == (100, 120)


def test_predicted_masks_give_the_maps_of_the_run() -> None:
    """Half precision changes the maps a little; without corrected masks nothing else does."""
    from napari_coseg.inference.caching_network import CorrectedMasks

    model = small_model()
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    found = RunState()
    segment(image, model, pixel_size_um=0.5, state=found)
    tile = found.plan.tiles[0][0]
    cached = found.tile(tile)
    whole = (slice(0, 128), slice(0, 128))
    masks, tasks = CorrectedMasks(None, None), ("semantic", "instance")
    again = found.network.decode_again(cached.forwards, whole, masks, tasks)
    np.testing.assert_allclose(again, cached.maps, atol=0.02)


# ---------------------------------------------------------------------------------------------
# What stays


def objects_at(state: RunState, count: int = 3) -> list[int]:
    """Ids of some objects in the left part of the tissue."""
    found = np.unique(state.prediction.instances.labels[60:140, 60:90])
    return found[found > 0][:count].tolist()


def split_in_place(labels: np.ndarray, ids: list[int]) -> np.ndarray:
    y, x = np.nonzero(labels == ids[0])
    labels[y[y > y.mean()], x[y > y.mean()]] = labels.max() + 1
    return labels


def merged(labels: np.ndarray, ids: list[int]) -> np.ndarray:
    labels[labels == ids[1]] = ids[0]
    return labels


def painted(labels: np.ndarray, ids: list[int]) -> np.ndarray:
    y, x = np.nonzero(labels == ids[0])
    labels[y.min() - 2 : y.max() + 3, x.min() - 2 : x.max() + 3] = ids[0]
    return labels


@pytest.mark.parametrize(
    "correct",
    [
        pytest.param(split_in_place, id="split"),
        pytest.param(merged, id="merged"),
        pytest.param(painted, id="painted larger"),
    ],
)
def test_objects_that_a_person_made_stay(state: RunState, correct: Any) -> None:
    ids = objects_at(state)
    labels = correct(state.prediction.instances.labels.copy(), ids)
    where = np.isin(state.prediction.instances.labels, ids[:2])
    regions = without(state.prediction.semantic, np.s_[:, :100])
    refined = refine(
        state, regions, corrected_objects=labels, prompt_with=("regions",)
    ).instances.labels
    by_hand = labels != state.prediction.instances.labels
    assert (refined[by_hand] > 0).all()
    assert same_objects(refined, labels, where & (refined > 0))
    assert not refined[:, :50].any()


def test_objects_of_another_class_stay(state: RunState) -> None:
    instances = state.prediction.instances
    ids = objects_at(state)
    table = instances.table.copy()
    table.loc[table["id"] == ids[0], "class_id"] += 1
    regions = without(state.prediction.semantic, np.s_[:, :100])
    refined = refine(state, regions, replace(instances, table=table), prompt_with=["regions"])
    found = np.unique(refined.instances.labels[instances.labels == ids[0]])
    assert len(found) == 1 and found[0] > 0
    row = refined.instances.table.set_index("id").loc[found[0]]
    assert row["class_id"] == int(table.loc[table["id"] == ids[0], "class_id"].iloc[0])


def test_objects_that_a_person_deleted_do_not_come_back(state: RunState) -> None:
    """A change of the region beside them has their tile decoded again."""
    ids = objects_at(state)
    labels = state.prediction.instances.labels.copy()
    deleted = labels == ids[0]
    labels[deleted] = 0
    regions = state.prediction.semantic.copy()
    regions[45:48, 60:63] = 0
    refined = refine(state, regions, labels, prompt_with=["regions"])
    assert not refined.instances.labels[deleted].any()
    assert len(refined.instances) == len(state.prediction.instances) - 1


def test_what_is_reviewed_stays(state: RunState) -> None:
    before = state.prediction
    reviewed = np.zeros(SHAPE, bool)
    reviewed[60:140, 60:90] = True
    regions = without(before.semantic, np.s_[:, :100])
    refined = refine(state, corrected_regions=regions, reviewed_objects=reviewed)
    touching = np.unique(before.instances.labels[reviewed])
    held = np.isin(before.instances.labels, touching[touching > 0])
    assert same_objects(refined.instances.labels, before.instances.labels, held | reviewed)
    assert not refined.instances.labels[:, :96][~held[:, :96]].any()


def test_regions_that_are_reviewed_stay_and_objects_beside_them_do_not(state: RunState) -> None:
    labels = state.prediction.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    seen = np.zeros(SHAPE, bool)
    seen[:, :285] = True
    free = refine(state, corrected_objects=labels)
    held = refine(state, corrected_objects=labels, reviewed_regions=seen)
    assert np.array_equal(held.semantic[seen], state.prediction.semantic[seen])
    assert not np.array_equal(free.semantic[seen], state.prediction.semantic[seen])
    other = refine(state, corrected_objects=labels, reviewed_objects=seen)
    assert np.array_equal(other.semantic, free.semantic)


def test_regions_that_a_person_painted_stay(state: RunState) -> None:
    labels = state.prediction.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    regions = state.prediction.semantic.copy()
    regions[185:188, 270:282] = 0
    regions[170:175, 280:290] = 1
    refined = refine(state, regions, labels, prompt_with=["objects"])
    assert (refined.semantic[170:175, 280:290] == 1).all()
    assert (refined.semantic[181:184, 281:289] == 1).all()


def test_what_a_refinement_made_is_no_correction(state: RunState) -> None:
    """A second refinement may change what the first changed, accepted or not."""
    before = state.prediction
    wiped = without(before.semantic, np.s_[:, :100])
    first = refine(state, corrected_regions=wiped)
    small = without(before.semantic, np.s_[50:60, 60:70])
    second = refine(state, small, first.instances, prompt_with=["regions"])
    third = refine(state, corrected_regions=small)
    window = np.s_[75:130, 90:250]
    assert same_objects(third.instances.labels, before.instances.labels, window)
    assert second.instances.labels[:, :96].any()


# ---------------------------------------------------------------------------------------------
# Errors


def test_nothing_corrected_is_an_error(state: RunState) -> None:
    with pytest.raises(EditError, match="the regions cover the same pixels as after the run"):
        refine(state, corrected_regions=state.prediction.semantic)
    with pytest.raises(EditError, match="labels cover the same pixels"):
        refine(state)
    with pytest.raises(EditError, match="prompt_with has glands; expected regions or objects"):
        refine(state, prompt_with=["glands"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"corrected_regions": np.zeros((3, 4), np.uint8)}, r"regions have shape \(3, 4\)"),
        ({"corrected_objects": np.zeros((3, 4), np.uint8)}, r"objects have shape \(3, 4\)"),
        ({"reviewed_regions": np.zeros((3, 4), bool)}, r"reviewed_regions have shape \(3, 4\)"),
        ({"corrected_regions": np.full(SHAPE, 700)}, "values up to 700"),
        ({"corrected_objects": np.full(SHAPE, 2**30)}, "ids from 1073741824"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(state: RunState, given: dict, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        refine(state, **given)


def test_refining_is_cancelled_and_reported(state: RunState) -> None:
    regions = without(state.prediction.semantic, np.s_[:, :100])
    fractions: list[float] = []
    with pytest.raises(Cancelled):
        refine(state, regions, should_cancel=lambda: len(fractions) > 1,
               progress=lambda part, _: fractions.append(part))  # fmt: skip
    fractions.clear()
    refine(state, regions, progress=lambda part, _: fractions.append(part))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
