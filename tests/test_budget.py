import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpsutils.budget import check_budget, cut_by_budget, split_largest

some_sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60).map(np.array)
caps = st.integers(1, 25)
budgets = st.integers(900, 9000)  # one image of 30 x 30 px fits alone
shares = st.integers(1, 4)


def padded(sizes, ranks=1):
    """Pixels of a batch that is dealt out to so many ranks, each share with as many images as the largest has."""
    return -(-len(sizes) // ranks) * ranks * int(sizes.max(axis=0).prod())


@given(some_sizes, caps, budgets, shares)
def test_every_batch_keeps_to_budget_and_cap_and_has_no_room_for_the_next_image(sizes, cap, budget, ranks):
    cuts = cut_by_budget(sizes, cap, budget * ranks, ranks)
    assert cuts[0] == 0
    assert cuts[-1] == len(sizes)
    for start, end in zip(cuts, cuts[1:], strict=False):
        assert 1 <= end - start <= cap
        assert padded(sizes[start:end], ranks) <= budget * ranks
        if end < len(sizes):
            assert end - start == cap or padded(sizes[start : end + 1], ranks) > budget * ranks


@given(some_sizes, caps, budgets)
def test_no_other_cuts_of_the_same_order_make_fewer_batches(sizes, cap, budget):
    fewest = [0]  # for the first image, the first two, ...
    for end in range(1, len(sizes) + 1):
        starts = [s for s in range(max(0, end - cap), end) if padded(sizes[s:end]) <= budget]
        fewest.append(1 + min(fewest[start] for start in starts))
    assert len(cut_by_budget(sizes, cap, budget)) - 1 == fewest[-1]


@given(some_sizes, caps, budgets, st.floats(0, 1))
def test_splitting_makes_so_many_batches_and_removes_no_cut(sizes, cap, budget, share):
    cuts = cut_by_budget(sizes, cap, budget)
    batches = round(len(cuts) - 1 + share * (len(sizes) - len(cuts) + 1))
    split = split_largest(cuts, batches)
    assert len(split) - 1 == batches
    assert np.all(np.diff(split) > 0)
    assert set(cuts) <= set(split)
    assert np.diff(split).max() <= np.diff(cuts).max()


def test_an_image_above_the_budget_is_named_with_the_smallest_that_works():
    sizes = np.array([[10, 20], [30, 50], [20, 20]])
    check_budget(sizes, 1500)
    check_budget(sizes, 3000, shares=2)
    with pytest.raises(ValueError, match=r"allows 1,499 pixels, and image 1 of 30 x 50 px has 1,500; allow at least"):
        check_budget(sizes, 1499)
    with pytest.raises(ValueError, match="allows 1,400 pixels, and image 1 of 30 x 50 px has 1,500"):
        check_budget(sizes, 2800, shares=2)


def test_areas_do_not_overflow_in_small_integers():
    assert cut_by_budget(np.full((3, 2), 200, np.uint8), 8, 80_000).tolist() == [0, 2, 3]
