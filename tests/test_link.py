"""Pieces of slices to objects in 3D: one object, one id, through all slices."""

from __future__ import annotations

import numpy as np
import pytest

from cases.linking_cases import apart, damaged, generated_teeth, numbered
from napari_coseg.core.errors import Cancelled
from napari_coseg.labels.metrics.instances import contingency, panoptic_quality
from napari_coseg.labels.tiling.link import link_slices

# One line per slice, one letter per object that the slice tells apart, "." for background. The
# expected objects are written the same way, with the letters of the first slice that has them.
CASES = [
    pytest.param("aa.bb aa.bb", "aa.bb aa.bb", id="both continue"),
    pytest.param("aa... ...bb", "aa... ...bb", id="one ends, another begins elsewhere"),
    pytest.param("..... aa.bb", "..... aa.bb", id="after an empty slice"),
    pytest.param("..... .....", "..... .....", id="nothing at all"),
    pytest.param("aaaaa aa.cc", "aaaaa aa.aa", id="roots leave a crown"),
    pytest.param("aa.cc aaaaa", "aa.aa aaaaa", id="roots meet in a crown"),
    pytest.param(
        "aa.cc aaaaa aaaaa aaaaa aaaaa aa.cc",
        "aa.aa aaaaa aaaaa aaaaa aaaaa aa.aa",
        id="roots, crown and cusps",
    ),
    pytest.param("aaaaa aaacc", "aaaaa aaacc", id="what begins under its neighbour is its own"),
    pytest.param("aaacc aaaaa", "aaacc aaaaa", id="what ends under its neighbour was its own"),
    pytest.param("aabb aaaa aabb", "aabb aabb aabb", id="a merger of two that touch"),
    pytest.param("aa.bb aaaaa aa.bb", "aa.bb aa?bb aa.bb", id="a merger of two that lie apart"),
    pytest.param("aabb aaaa aaaa aabb", "aabb aabb aabb aabb", id="a merger of two slices"),
    pytest.param("aabbcc aaaaaa aabbcc", "aabbcc aabbcc aabbcc", id="a merger of three neighbours"),
    pytest.param(
        "aabb..cc aa....cc aaaa..cc aabb..cc",
        "aabb..cc aa....cc aabb..cc aabb..cc",
        id="a merger after one was missing",
    ),
    pytest.param("aaaa aabb aaaa", "aaaa aaaa aaaa", id="a split in one slice"),
    pytest.param("aa.bb ...bb aa.bb", "aa.bb ...bb aa.bb", id="missing in one slice"),
    pytest.param("aa .. .. .. aa", "aa .. .. .. aa", id="missing in as many as a gap may have"),
    pytest.param("aa .. .. .. .. aa", "aa .. .. .. .. bb", id="missing in more"),
    pytest.param("aaaa.. .bbbb. ..cccc", "aaaa.. .aaaa. ..aaaa", id="oblique"),
    pytest.param("aaaa.. ...bbb", "aaaa.. ...bbb", id="a third of the smaller is not enough"),
]


def volume(text: str) -> np.ndarray:
    """int32 (Z, 2, X): letters to 1.., "." to 0, "?" to -1."""
    letters = [[" .abcd".find(letter) - 1 for letter in line] for line in text.split()]
    letters = [[n if n >= 0 else -1 for n in line] for line in letters]
    return np.repeat(np.array(letters, np.int32)[:, None], 2, axis=1)


def linked(slices: np.ndarray, **settings) -> np.ndarray:
    pieces, count = numbered(slices)
    link_slices(pieces, count, **settings)
    return pieces


@pytest.mark.parametrize(("slices", "objects"), CASES)
@pytest.mark.parametrize("direction", [1, -1])
def test_pieces_of_slices_become_objects(slices, objects, direction):
    expected = volume(objects)[::direction]
    found = linked(volume(slices)[::direction])
    certain = expected >= 0
    pairs = np.unique(np.stack([expected[certain], found[certain]]), axis=1)
    assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]
    assert np.array_equal(found > 0, volume(slices)[::direction] > 0)


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"max_gap": 0}, 2), ({"max_gap": 1}, 1), ({"max_gap": 2}, 1)],
)
def test_the_gap_is_a_setting(settings, count):
    assert linked(volume("aa .. aa"), **settings).max() == count


@pytest.mark.parametrize(("part", "count"), [(0.5, 1), (0.75, 2)])
def test_the_part_that_a_branch_shares_is_a_setting(part, count):
    slices = volume("aaaaaa.. aaa.bbbb")
    assert linked(slices, join_overlap=part).max() == count


def test_ids_are_in_the_order_of_first_pieces_and_have_no_gaps():
    slices = volume("..b a.b a.. a.c")
    assert linked(slices)[:, 0].tolist() == [[0, 0, 1], [2, 0, 1], [2, 0, 0], [2, 0, 1]]


def test_final_ids_map_each_piece_to_its_object():
    pieces, count = numbered(volume("aabb aaaa aabb"))
    before = pieces.copy()
    final_ids, n = link_slices(pieces, count)
    assert (n, final_ids.size, final_ids[0]) == (2, count + 1, 0)
    kept = before != before[1, 0, 0]  # all but the merger
    assert np.array_equal(final_ids[before][kept], pieces[kept])


@pytest.mark.parametrize(
    ("kind", "least"), [(lambda objects: objects, 0.999), (apart, 0.999)], ids=["whole", "apart"]
)
@pytest.mark.parametrize("step", [1, 2], ids=["isotropic", "every second slice"])
def test_perfect_slices_of_touching_teeth_with_roots(kind, least, step):
    teeth = generated_teeth()[::step]
    assert panoptic_quality(contingency(teeth, linked(kind(teeth)))).pq >= least


@pytest.mark.parametrize("seed", range(3))
def test_bridges_pay_where_slices_are_imperfect(seed):
    teeth = generated_teeth()
    slices = damaged(teeth, seed)
    with_gaps, without = (
        panoptic_quality(contingency(teeth, linked(slices, max_gap=gap))).pq for gap in (3, 0)
    )
    assert with_gaps > 2 * without


def test_ids_stay_beyond_65535_pieces():
    slices = np.zeros((2, 300, 600), np.int32)
    slices[:, ::2, ::2] = np.arange(1, 45_001).reshape(150, 300)
    assert linked(slices).max() == 45_000


def test_progress_may_stop_it():
    def stop(part: float) -> None:
        raise Cancelled(f"at {part}")

    pieces, count = numbered(generated_teeth(2))
    with pytest.raises(Cancelled):
        link_slices(pieces, count, progress=stop)
