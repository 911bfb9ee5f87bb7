"""Refinement: what a session keeps, where a correction is felt, and what must stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases.stub_models import CrossedModel, disc_picture, spread_discs
from napari_coseg.core.errors import Cancelled, EditError, ImageError
from napari_coseg.inference import InferenceSettings, segment
from napari_coseg.inference.refine import refine
from napari_coseg.inference.session import Session
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
def session(picture: np.ndarray) -> Session:
    found = Session()
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=TILED, session=found)
    return found


def without(labels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    changed = labels.copy()
    changed[window] = 0
    return changed


def same_objects(one: np.ndarray, other: np.ndarray, where: Any = np.s_[:]) -> bool:
    """Whether both part the pixels alike, whatever the ids."""
    pairs = np.unique(np.stack([one[where].ravel(), other[where].ravel()]), axis=1)
    counts = [len(np.unique(row)) for row in pairs]
    return bool(counts[0] == counts[1] == pairs.shape[1])


# ---------------------------------------------------------------------------------------------
# The session


@pytest.mark.parametrize("flips", [False, True], ids=["plain", "flips"])
@pytest.mark.parametrize("limit", [2**30, 10**6, 0], ids=["all kept", "some", "none"])
def test_a_session_has_the_maps_of_the_run(picture, limit: int, flips: bool) -> None:
    settings = TILED.model_copy(update={"test_time_augmentation": flips})
    found = Session(limit)
    plain = segment(picture, CrossedModel(), pixel_size_um=0.5, settings=settings)
    kept = segment(picture, CrossedModel(), pixel_size_um=0.5, settings=settings, session=found)
    assert np.array_equal(plain.instances.labels, kept.instances.labels)
    assert np.array_equal(plain.semantic, kept.semantic)
    tiles = sum(len(row) for row in found.plan.tiles)
    assert found.kept_tiles == tiles if limit == 2**30 else found.kept_tiles < tiles
    assert found.nbytes <= limit
    maps = found.maps()
    assert maps.object_probability.shape == SHAPE
    assert np.array_equal(maps.region_probability.argmax(0), plain.semantic)
    assert ((maps.object_probability >= 0.5) >= (plain.instances.labels > 0)).all()


@pytest.mark.parametrize("pixel_um", [0.5, 0.25, 1.0], ids=["as the model", "finer", "coarser"])
def test_maps_of_a_window_are_those_of_the_whole(picture, pixel_um: float) -> None:
    found = Session()
    segment(picture, CrossedModel(), pixel_size_um=pixel_um, settings=TILED, session=found)
    window = (slice(31, 120), slice(77, 203))
    part, whole = found.maps(window), found.maps((slice(0, SHAPE[0]), slice(0, SHAPE[1])))
    for name, values in part._asdict().items():
        assert values.shape[-2:] == (89, 126)
        np.testing.assert_allclose(values, getattr(whole, name)[..., *window], atol=2e-3)
    on_model = found.maps()
    assert on_model.hv.shape == (2, *found.plan.model_shape)


def test_nothing_is_kept_of_a_stack(picture) -> None:
    found = Session()
    segment(picture[None], CrossedModel(), axes="ZYXC", settings=TILED, session=found)
    assert not found.is_filled
    with pytest.raises(EditError, match="nothing is kept of a run"):
        refine(found, np.zeros((1, *SHAPE), np.uint8))


def test_a_cancelled_run_leaves_an_empty_session(picture) -> None:
    found = Session()
    with pytest.raises(Cancelled):
        segment(
            picture,
            CrossedModel(),
            pixel_size_um=0.5,
            settings=TILED,
            session=found,
            should_cancel=lambda: found.kept_tiles > 2,
        )
    assert (found.kept_tiles, found.nbytes, found.is_filled) == (0, 0, False)


# ---------------------------------------------------------------------------------------------
# Corrections that help


def test_objects_follow_the_regions_that_a_person_corrected(session: Session) -> None:
    """Regions wiped out at the left: their objects go, those at the right stay as they are."""
    before = session.prediction
    regions = without(before.semantic, np.s_[:, :100])
    refined = refine(session, corrected_regions=regions)
    labels = refined.instances.labels
    assert before.instances.labels[:, :96].any()
    assert not labels[:, :96].any()
    assert same_objects(labels, before.instances.labels, np.s_[:, 110:])
    assert np.array_equal(refined.semantic, regions)
    assert refined.provenance["refined"]["prompted_by"] == ["regions"]
    assert len(refined.instances.table) == labels.max()


def test_regions_follow_the_objects_that_a_person_corrected(session: Session) -> None:
    """An object painted where there is no tissue makes tissue there, and nowhere else."""
    before = session.prediction
    labels = before.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    refined = refine(session, corrected_objects=labels)
    assert (refined.semantic[181:189, 281:289] == 1).all()
    assert np.array_equal(refined.semantic[:, :250], before.semantic[:, :250])
    assert same_objects(refined.instances.labels, labels)


def test_a_local_correction_decodes_a_part_and_encodes_nothing(session: Session) -> None:
    model = session.network.model
    encoded = len(model.seen)
    regions = without(session.prediction.semantic, np.s_[50:60, 60:70])
    refined = refine(session, corrected_regions=regions)
    assert len(model.seen) == encoded
    tiles = sum(len(row) for row in session.plan.tiles)
    assert 0 < refined.provenance["refined"]["tiles"] < tiles


def test_what_was_not_kept_is_encoded_again(picture, session: Session) -> None:
    empty = Session(0)
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=TILED, session=empty)
    regions = without(session.prediction.semantic, np.s_[:, :100])
    one, other = (refine(s, corrected_regions=regions) for s in (session, empty))
    assert np.array_equal(one.instances.labels, other.instances.labels)


def test_a_window_of_a_tile_gives_what_the_whole_tile_does(picture, monkeypatch) -> None:
    """The stub looks 8 pixels far, the halo is wider: its answer is the same."""
    found = Session()
    large = TILED.model_copy(update={"tile_size_px": 320})
    segment(picture, CrossedModel(), pixel_size_um=0.5, settings=large, session=found)
    regions = without(found.prediction.semantic, np.s_[50:70, 60:80])
    sizes: list[tuple[int, int]] = []
    again = found.network.again

    def seen(kept: Any, window: tuple[slice, slice], *rest: Any) -> np.ndarray:
        sizes.append((window[0].stop - window[0].start, window[1].stop - window[1].start))
        return again(kept, window, *rest)

    monkeypatch.setattr(found.network, "again", seen)
    whole = refine(found, corrected_regions=regions)
    monkeypatch.setattr("napari_coseg.inference.redo.LEAST_WINDOW_PX", 32)
    part = refine(found, corrected_regions=regions)
    assert sizes[0][1] > 2 * sizes[1][1]
    assert np.array_equal(part.instances.labels > 0, whole.instances.labels > 0)
    assert not part.instances.labels[52:68, 62:78].any()


@pytest.mark.parametrize("pixel_um", [0.25, 1.0], ids=["finer", "coarser"])
def test_grids_may_differ(picture, pixel_um: float) -> None:
    found = Session()
    segment(picture, CrossedModel(), pixel_size_um=pixel_um, settings=TILED, session=found)
    regions = without(found.prediction.semantic, np.s_[:, :100])
    labels = refine(found, corrected_regions=regions).instances.labels
    assert not labels[:, :90].any()
    assert same_objects(labels, found.prediction.instances.labels, np.s_[:, 150:])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_refined(family: str) -> None:
    """Prompt encoders of both networks take a corrected mask by the same contract."""
    model = small_model(*FAMILIES[family])
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3)).astype(np.uint8)
    found = Session()
    segment(image, model, pixel_size_um=0.5, session=found)
    regions = (np.indices((100, 120))[1] > 60).astype(np.uint8)
    refined = refine(found, corrected_regions=1 - found.prediction.semantic.clip(0, 1) | regions)
    assert refined.instances.labels.shape == (100, 120)


def test_the_mask_that_was_predicted_gives_the_maps_of_the_run() -> None:
    """A window of a tile, and half precision, change little; no prompt given changes nothing."""
    from napari_coseg.inference.session_network import Given

    model = small_model()
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    found = Session()
    segment(image, model, pixel_size_um=0.5, session=found)
    tile = found.plan.tiles[0][0]
    kept = found.tile(tile)
    whole = (slice(0, 128), slice(0, 128))
    again = found.network.again(kept.forwards, whole, Given(None, None), ("semantic", "instance"))
    np.testing.assert_allclose(again, kept.maps, atol=0.02)


# ---------------------------------------------------------------------------------------------
# What must stay


def objects_at(session: Session, count: int = 3) -> list[int]:
    """Ids of some objects in the left part of the tissue."""
    found = np.unique(session.prediction.instances.labels[60:140, 60:90])
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
def test_objects_that_a_person_made_stay(session: Session, correct: Any) -> None:
    ids = objects_at(session)
    labels = correct(session.prediction.instances.labels.copy(), ids)
    where = np.isin(session.prediction.instances.labels, ids[:2])
    regions = without(session.prediction.semantic, np.s_[:, :100])
    refined = refine(
        session, regions, corrected_objects=labels, prompt_with=("regions",)
    ).instances.labels
    by_hand = labels != session.prediction.instances.labels
    assert (refined[by_hand] > 0).all()
    assert same_objects(refined, labels, where & (refined > 0))
    assert not refined[:, :50].any()


def test_objects_of_another_class_stay(session: Session) -> None:
    instances = session.prediction.instances
    ids = objects_at(session)
    table = instances.table.copy()
    table.loc[table["id"] == ids[0], "class_id"] += 1
    regions = without(session.prediction.semantic, np.s_[:, :100])
    refined = refine(session, regions, replace(instances, table=table), prompt_with=["regions"])
    found = np.unique(refined.instances.labels[instances.labels == ids[0]])
    assert len(found) == 1 and found[0] > 0
    row = refined.instances.table.set_index("id").loc[found[0]]
    assert row["class_id"] == int(table.loc[table["id"] == ids[0], "class_id"].iloc[0])


def test_objects_that_a_person_deleted_do_not_come_back(session: Session) -> None:
    """A mark in the tissue beside them makes their tile decode again."""
    ids = objects_at(session)
    labels = session.prediction.instances.labels.copy()
    deleted = labels == ids[0]
    labels[deleted] = 0
    regions = session.prediction.semantic.copy()
    regions[45:48, 60:63] = 0
    refined = refine(session, regions, labels, prompt_with=["regions"])
    assert not refined.instances.labels[deleted].any()
    assert len(refined.instances) == len(session.prediction.instances) - 1


def test_what_is_reviewed_stays(session: Session) -> None:
    before = session.prediction
    reviewed = np.zeros(SHAPE, bool)
    reviewed[60:140, 60:90] = True
    regions = without(before.semantic, np.s_[:, :100])
    refined = refine(session, corrected_regions=regions, reviewed_objects=reviewed)
    touching = np.unique(before.instances.labels[reviewed])
    held = np.isin(before.instances.labels, touching[touching > 0])
    assert same_objects(refined.instances.labels, before.instances.labels, held | reviewed)
    assert not refined.instances.labels[:, :96][~held[:, :96]].any()


def test_regions_that_are_reviewed_stay_and_objects_beside_them_do_not(session: Session) -> None:
    labels = session.prediction.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    seen = np.zeros(SHAPE, bool)
    seen[:, :285] = True
    free = refine(session, corrected_objects=labels)
    held = refine(session, corrected_objects=labels, reviewed_regions=seen)
    assert np.array_equal(held.semantic[seen], session.prediction.semantic[seen])
    assert not np.array_equal(free.semantic[seen], session.prediction.semantic[seen])
    other = refine(session, corrected_objects=labels, reviewed_objects=seen)
    assert np.array_equal(other.semantic, free.semantic)


def test_regions_that_a_person_painted_stay(session: Session) -> None:
    labels = session.prediction.instances.labels.copy()
    labels[180:190, 280:290] = labels.max() + 1
    regions = session.prediction.semantic.copy()
    regions[185:188, 270:282] = 0
    regions[170:175, 280:290] = 1
    refined = refine(session, regions, labels, prompt_with=["objects"])
    assert (refined.semantic[170:175, 280:290] == 1).all()
    assert (refined.semantic[181:184, 281:289] == 1).all()


def test_what_a_refinement_made_is_no_correction(session: Session) -> None:
    """Taken or not, a second refinement may change what the first one changed."""
    before = session.prediction
    wiped = without(before.semantic, np.s_[:, :100])
    first = refine(session, corrected_regions=wiped)
    small = without(before.semantic, np.s_[50:60, 60:70])
    second = refine(session, small, first.instances, prompt_with=["regions"])
    third = refine(session, corrected_regions=small)
    window = np.s_[75:130, 90:250]
    assert same_objects(third.instances.labels, before.instances.labels, window)
    assert second.instances.labels[:, :96].any()


# ---------------------------------------------------------------------------------------------
# What cannot be


def test_nothing_corrected_is_told(session: Session) -> None:
    with pytest.raises(EditError, match="the regions cover the same pixels as after the run"):
        refine(session, corrected_regions=session.prediction.semantic)
    with pytest.raises(EditError, match="labels cover the same pixels"):
        refine(session)
    with pytest.raises(EditError, match="prompt_with names glands; expected some of regions"):
        refine(session, prompt_with=["glands"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"corrected_regions": np.zeros((3, 4), np.uint8)}, r"regions have shape \(3, 4\)"),
        ({"corrected_objects": np.zeros((3, 4), np.uint8)}, r"objects have shape \(3, 4\)"),
        ({"reviewed_regions": np.zeros((3, 4), bool)}, r"reviewed_regions have shape \(3, 4\)"),
        ({"corrected_regions": np.full(SHAPE, 700)}, "values up to 700"),
        ({"corrected_objects": np.full(SHAPE, 2**30)}, "ids from 1073741824"),
    ],
)
def test_labels_that_do_not_fit_are_told(session: Session, given: dict, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        refine(session, **given)


def test_refining_is_cancelled_and_reported(session: Session) -> None:
    regions = without(session.prediction.semantic, np.s_[:, :100])
    told: list[float] = []
    with pytest.raises(Cancelled):
        refine(session, regions, should_cancel=lambda: len(told) > 1,
               progress=lambda part, _: told.append(part))  # fmt: skip
    told.clear()
    refine(session, regions, progress=lambda part, _: told.append(part))
    assert told == sorted(told)
    assert told[-1] == 1
