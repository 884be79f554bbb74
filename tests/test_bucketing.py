import hashlib
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpsutils.bucketing import (
    METHODS,
    BucketSampler,
    _jittered,
    collate_fn_pad,
    make_boundaries_for_batches,
    mates_met_again,
    padding_waste,
)
from bpsutils.loaders import TRAIN_JITTER

few_sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=90).map(np.array)
batch_sizes = st.integers(1, 20)
methods = st.sampled_from(METHODS)


def real_sizes(n, seed=0):
    """Heights 79 to 170, widths 114 to 182, one in 200 larger: ranges read off real images."""
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.normal(125, 18, n).clip(79, 170), rng.normal(148, 14, n).clip(114, 182)], axis=1)
    large = rng.random(n) < 0.005
    sizes[large] = rng.uniform(190, 300, (large.sum(), 2))
    return sizes.astype(np.int64)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def random_batches(n, batch_size, seed=0):
    return np.split(np.random.default_rng(seed).permutation(n), range(batch_size, n, batch_size))


# ------------------------------------------------------------------------------------------- boundaries


def test_boundaries_cut_different_widths_into_a_bin_a_batch():
    widths = np.random.default_rng(0).permutation(np.arange(100, 420))
    edges = make_boundaries_for_batches(np.stack([widths * 0 + 90, widths], axis=1), 32)
    assert np.bincount(np.searchsorted(edges, widths)).tolist() == [32] * 10


@given(few_sizes, batch_sizes)
def test_boundaries_rise_and_leave_no_bin_empty(sizes, batch_size):
    edges = make_boundaries_for_batches(sizes, batch_size)
    counts = np.bincount(np.searchsorted(edges, sizes[:, 1]), minlength=len(edges) + 1)
    assert np.all(np.diff(edges) > 0)
    assert counts.all()
    assert len(counts) <= -(-len(sizes) // batch_size)


@given(few_sizes, batch_sizes)
def test_only_bins_with_a_repeated_width_exceed_a_batch(sizes, batch_size):
    widths = sizes[:, 1]
    bins = np.searchsorted(make_boundaries_for_batches(sizes, batch_size), widths)
    for number in np.unique(bins):
        _, repeats = np.unique(widths[bins == number], return_counts=True)
        assert (bins == number).sum() <= batch_size + repeats.max() - 1


def test_boundaries_of_one_width_are_none():
    assert make_boundaries_for_batches(np.full((50, 2), 128), 8).tolist() == []


# ------------------------------------------------------------------------------------------- sampler


@given(few_sizes, batch_sizes, methods, st.sampled_from([0, 0.03, 0.3]), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_every_image_exactly_once_in_batches_that_fit(sizes, batch_size, method, jitter, seed, epoch):
    sampler = BucketSampler(sizes, batch_size, seed=seed, method=method, jitter=jitter)
    batches = epoch_of(sampler, epoch)
    assert sorted(sum(batches, [])) == list(range(len(sizes)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == len(sampler)


@given(few_sizes, batch_sizes, methods, st.integers(0, 5))
@settings(deadline=None)
def test_drop_last_leaves_out_the_remainder_and_fills_every_batch(sizes, batch_size, method, epoch):
    sampler = BucketSampler(sizes, batch_size, drop_last=True, method=method)
    batches = epoch_of(sampler, epoch)
    assert [len(batch) for batch in batches] == [batch_size] * (len(sizes) // batch_size)
    assert len(set(sum(batches, []))) == len(sizes) // batch_size * batch_size
    assert len(batches) == len(sampler)


def test_drop_last_leaves_out_other_images_in_each_epoch():
    sampler = BucketSampler(real_sizes(70), 32, drop_last=True)
    kept = [set(sum(epoch_of(sampler, epoch), [])) for epoch in range(60)]
    assert set.union(*kept) == set(range(70))
    assert not set.intersection(*kept)


@pytest.mark.parametrize("method", METHODS)
def test_order_is_made_of_seed_and_epoch_alone(method):
    sizes = real_sizes(500)
    sampler = BucketSampler(sizes, 32, seed=3, method=method)
    later = epoch_of(sampler, 4)
    epoch_of(sampler, 9)
    assert epoch_of(sampler, 4) == later
    assert epoch_of(BucketSampler(sizes, 32, seed=3, method=method), 4) == later
    assert epoch_of(sampler, 5) != later
    assert epoch_of(BucketSampler(sizes, 32, seed=4, method=method), 4) != later


def test_order_does_not_draw_from_global_generators():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(BucketSampler(real_sizes(100), 8))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", METHODS)
def test_without_jitter_batches_stay_and_their_order_changes(method):
    sampler = BucketSampler(real_sizes(600), 32, method=method, jitter=0)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert {frozenset(batch) for batch in first} == {frozenset(batch) for batch in second}
    assert first != second


def test_batches_are_not_in_order_of_size():
    """A network that sees small images first and large ones last learns in waves."""
    sizes = real_sizes(3200)
    areas = [sizes[batch].prod(axis=1).mean() for batch in BucketSampler(sizes, 32)]
    assert abs(np.corrcoef(areas, np.arange(len(areas)))[0, 1]) < 0.4


def test_width_batches_never_cross_an_edge():
    sizes = real_sizes(700)
    edges = make_boundaries_for_batches(sizes, 32)
    batches = list(BucketSampler(sizes, 32, method="width", jitter=0))
    bins = [np.unique(np.searchsorted(edges, sizes[batch, 1])) for batch in batches]
    assert all(len(numbers) == 1 for numbers in bins)
    assert set(np.concatenate(bins)) == set(range(len(edges) + 1))


def test_a_bin_of_one_width_is_cut_at_batch_size():
    batches = list(BucketSampler(np.full((70, 2), 128), 32, method="width"))
    assert sorted(map(len, batches)) == [6, 32, 32]


def test_two_dimensional_strips_pad_least():
    sizes = real_sizes(20_000)
    waste = {
        method: padding_waste(sizes, list(BucketSampler(sizes, 64, method=method, jitter=0))) for method in METHODS
    }
    random = padding_waste(sizes, random_batches(len(sizes), 64))
    assert waste["2d"] < waste["width"] / 3 < random / 3
    assert waste["2d"] < waste["area"] / 3 < random / 3


def test_jitter_is_the_largest_change_of_a_side():
    sizes = np.array([[100, 200]] * 5000)
    change = np.abs(_jittered(sizes, 0.03, np.random.default_rng(0)).T / sizes - 1)
    assert change.max() <= 0.03 + 1e-6
    assert change.max(axis=0).min() > 0.0299


def test_batches_of_training_stay_those_that_all_trained_numbers_come_from():
    sizes = np.random.default_rng(0).integers([79, 114], [171, 183], (393, 2))
    orders = [
        epoch_of(BucketSampler(sizes, 32, seed, jitter=TRAIN_JITTER), epoch) for seed in range(3) for epoch in range(5)
    ]
    digest = hashlib.sha256(json.dumps(orders).encode()).hexdigest()
    assert digest == "843cf66e4be589c0acdb00f4798a53b026c3e395649082c12d5a1510524bc12c"


@pytest.mark.parametrize("batch_size", [32, 64])
def test_padding_with_jitter_is_at_most_a_third_of_that_of_width_bins(batch_size):
    """Relative to the real pixels; where height and width go together, width bins are better than this."""
    sizes = real_sizes(20_000)
    bins, *ours = (
        padding_waste(sizes, batches)
        for batches in (
            list(BucketSampler(sizes, batch_size, method="width", jitter=0)),
            *(epoch_of(BucketSampler(sizes, batch_size), epoch) for epoch in range(3)),
        )
    )
    assert max(ours) / (1 - max(ours)) <= bins / (1 - bins) / 3


def test_jitter_keeps_most_of_the_saving_and_few_meet_again():
    sizes = real_sizes(20_000)
    sampler = BucketSampler(sizes, 64)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert padding_waste(sizes, first) <= 0.42 * padding_waste(sizes, random_batches(len(sizes), 64))
    assert mates_met_again(first, second) <= 0.2


def test_more_jitter_pads_more_and_shuffles_more():
    sizes = real_sizes(4000)
    waste, met = [], []
    for jitter in (0, 0.01, 0.03, 0.1):
        sampler = BucketSampler(sizes, 32, jitter=jitter)
        first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
        waste.append(padding_waste(sizes, first))
        met.append(mates_met_again(first, second))
    assert waste == sorted(waste)
    assert met == sorted(met, reverse=True)
    assert met[0] == 1


def test_images_of_one_size_are_shuffled_as_if_at_random():
    sampler = BucketSampler(np.full((2000, 2), 64), 20)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert mates_met_again(first, second) < 0.03


@given(few_sizes, batch_sizes, methods, st.sampled_from([0, 0.03, 0.3]), st.integers(3600, 40_000), st.integers(1, 3))
@settings(deadline=None)
def test_a_budget_holds_in_every_epoch_and_all_epochs_have_as_many_batches(sizes, cap, method, jitter, budget, ranks):
    sampler = BucketSampler(sizes, cap, 0, False, method, jitter, budget * ranks, shares=ranks)
    for epoch in range(4):
        batches = epoch_of(sampler, epoch)
        assert sorted(sum(batches, [])) == list(range(len(sizes)))
        assert len(batches) == len(sampler)
        for batch in batches:
            assert 1 <= len(batch) <= cap
            assert -(-len(batch) // ranks) * sizes[batch].max(axis=0).prod() <= budget


@pytest.mark.parametrize("method", METHODS)
def test_order_within_a_budget_is_made_of_seed_and_epoch_alone(method):
    sizes = real_sizes(500)
    sampler = BucketSampler(sizes, 64, seed=3, method=method, pixel_budget=600_000)
    later = epoch_of(sampler, 4)
    epoch_of(sampler, 9)
    assert epoch_of(sampler, 4) == later
    assert epoch_of(BucketSampler(sizes, 64, seed=3, method=method, pixel_budget=600_000), 4) == later
    assert epoch_of(sampler, 5) != later
    assert epoch_of(BucketSampler(sizes, 64, seed=4, method=method, pixel_budget=600_000), 4) != later


def test_an_epoch_that_needs_more_batches_than_there_are_gets_less_noise():
    sizes = real_sizes(3000)
    sampler = BucketSampler(sizes, 200, pixel_budget=1_000_000)
    still = BucketSampler(sizes, 200, pixel_budget=1_000_000, jitter=0)
    assert len(still) < len(sampler)
    sampler.batches = len(still)  # as if there were no reserve
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert len(first) == len(second) == len(still)
    assert mates_met_again(first, second) > 0.3
    assert max(len(batch) * sizes[batch].max(axis=0).prod() for batch in first) <= 1_000_000


def test_a_budget_makes_larger_batches_of_small_images_and_fills_most_of_it():
    sizes = real_sizes(20_000)
    budget = 64 * int(sizes.prod(axis=1).mean())
    batches = list(BucketSampler(sizes, 1000, pixel_budget=budget))
    counts = np.array([len(batch) for batch in batches])
    means = [sizes[batch].prod(axis=1).mean() for batch in batches]
    assert np.corrcoef(counts, means)[0, 1] < -0.5
    filled = counts * [sizes[batch].max(axis=0).prod() for batch in batches] / budget
    assert np.median(filled) > 0.97
    assert padding_waste(sizes, batches) <= padding_waste(sizes, list(BucketSampler(sizes, 64)))


@pytest.mark.parametrize("method", METHODS)
def test_one_huge_image_does_not_blur_the_sizes_of_the_others(method):
    sizes = real_sizes(2000, seed=1)
    with_huge = BucketSampler(np.concatenate([sizes, [[50_000, 50_000]]]), 20, method=method, jitter=0)
    alone = padding_waste(sizes, list(BucketSampler(sizes, 20, method=method, jitter=0)))
    assert padding_waste(sizes, [batch for batch in with_huge if 2000 not in batch]) < 1.1 * alone


@pytest.mark.parametrize(
    ("sizes", "arguments", "message"),
    [
        (np.ones((3, 2)), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (np.ones(3), {"batch_size": 2}, r"array \(N, 2\) of heights and widths.*got shape \(3,\)"),
        (np.ones((0, 2)), {"batch_size": 2}, "N at least 1"),
        (np.array([[3, 0]]), {"batch_size": 2}, "sizes must be at least 1 pixel"),
        (np.ones((3, 2)), {"batch_size": 2, "method": "height"}, "method must be one of 2d, width, area, got 'height'"),
        (np.ones((3, 2)), {"batch_size": 2, "jitter": -0.1}, "jitter must be a share"),
        (
            np.full((3, 2), 9),
            {"batch_size": 2, "pixel_budget": 80},
            "image 0 of 9 x 9 px has 81; allow at least as many",
        ),
        (np.ones((3, 2)), {"batch_size": 2, "pixel_budget": 9, "drop_last": True}, "drop_last fills batches up to"),
        (np.ones((3, 2)), {"batch_size": 2, "shares": 0}, "shares must be the number of ranks"),
    ],
)
def test_sampler_refuses_what_cannot_be_right(sizes, arguments, message):
    with pytest.raises(ValueError, match=message):
        BucketSampler(sizes, **arguments)


# ------------------------------------------------------------------------------------------- waste


@given(few_sizes, batch_sizes)
def test_waste_is_the_share_of_pixels_that_collate_pads(sizes, batch_size):
    batches = random_batches(len(sizes), batch_size)
    masks = [collate_fn_pad([{"image": torch.zeros(1, *sizes[i])} for i in batch])["mask"] for batch in batches]
    padded = sum(int((~mask).sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert padding_waste(sizes, batches) == pytest.approx(padded)


@pytest.mark.parametrize("batches", [[], [[0], []]])
def test_waste_refuses_empty_batches(batches):
    with pytest.raises(ValueError, match="at least one batch, and an image in each"):
        padding_waste(np.ones((3, 2)), batches)


@pytest.mark.parametrize("index", [-1, 3])
def test_waste_refuses_images_that_are_not_there(index):
    with pytest.raises(ValueError, match="there are sizes for 0 to 2"):
        padding_waste(np.ones((3, 2)), [[0], [index]])


# ------------------------------------------------------------------------------------------- shuffling


@given(st.integers(2, 60), batch_sizes.filter(lambda size: size > 1), st.integers(0, 5))
def test_mates_are_counted_pair_by_pair(n, batch_size, seed):
    first, second = ([batch.tolist() for batch in random_batches(n, batch_size, seed + k)] for k in (0, 1))
    pairs, again = (
        {pair for batch in batches for pair in itertools.combinations(sorted(batch), 2)} for batches in (first, second)
    )
    assert mates_met_again(first, second) == pytest.approx(len(pairs & again) / len(pairs))
    assert mates_met_again(first, first) == 1


def test_an_image_left_out_meets_nobody():
    assert mates_met_again([[0, 1, 2]], [[0, 1]]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="a batch of at least two images"):
        mates_met_again([[0], [1]], [[0, 1]])
