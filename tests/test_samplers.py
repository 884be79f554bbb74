import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from bpsutils.bucketing import BucketSampler
from bpsutils.samplers import ClassBalancedSampler, DistributedBatches, HardExampleSampler, set_epoch

LABELS = np.array(["X-ray"] * 60 + ["Fe"] * 9)
some_labels = st.lists(st.integers(0, 3), min_size=4, max_size=60)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


# ------------------------------------------------------------------------------------------- class-balanced


@given(some_labels, st.integers(4, 150), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None)
def test_every_class_is_drawn_as_often_and_each_image_as_evenly_as_can_be(labels, num_samples, seed, epoch):
    sampler = ClassBalancedSampler(labels, seed=seed, num_samples=num_samples)
    drawn = epoch_of(sampler, epoch)
    assert len(drawn) == len(sampler) == num_samples
    times = Counter(drawn)
    per_class = [sum(times[i] for i, one in enumerate(labels) if one == label) for label in set(labels)]
    assert max(per_class) - min(per_class) <= 1
    for label in set(labels):
        of_class = [times[i] for i, one in enumerate(labels) if one == label]
        assert max(of_class) - min(of_class) <= 1


def test_num_samples_chooses_between_under_and_oversampling():
    under = list(ClassBalancedSampler(LABELS, num_samples=18))
    assert len(set(under)) == 18
    over = list(ClassBalancedSampler(LABELS, num_samples=120))
    assert set(over) == set(range(69))


def test_undersampling_shows_other_images_in_each_epoch():
    sampler = ClassBalancedSampler(LABELS, num_samples=18)
    assert set().union(*(epoch_of(sampler, epoch) for epoch in range(40))) == set(range(69))


def test_classes_are_mixed():
    drawn = LABELS[list(ClassBalancedSampler(LABELS))]
    assert 10 < (drawn[1:] != drawn[:-1]).sum() < 60


@pytest.mark.parametrize(
    ("labels", "num_samples", "message"),
    [
        ([], None, r"class of each image, got shape \(0,\)"),
        (np.zeros((3, 2)), None, r"got shape \(3, 2\)"),
        ([0, 1, 2], 2, "at least 1 for each of 3 classes, got 2"),
    ],
)
def test_class_balance_refuses_what_cannot_be(labels, num_samples, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedSampler(labels, num_samples=num_samples)


# ------------------------------------------------------------------------------------------- hard examples


def test_hard_examples_come_more_often_and_easy_ones_still_come():
    sampler = HardExampleSampler(100, floor=0.2, num_samples=20_000)
    sampler.update(np.arange(100), np.repeat([0.0, 1.0], [90, 10]))
    times = np.bincount(list(sampler), minlength=100)
    assert times[:90].min() > 10
    assert times[:90].sum() == pytest.approx(0.18 * 20_000, rel=0.1)
    assert times[90:].sum() == pytest.approx(0.82 * 20_000, rel=0.05)


def test_without_losses_all_images_are_as_likely():
    sampler = HardExampleSampler(4)
    assert sampler.probabilities().tolist() == [0.25] * 4
    sampler.update([0, 1, 2, 3], [0.0] * 4)
    assert sampler.probabilities().tolist() == [0.25] * 4


@given(
    st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=30),
    st.floats(0.01, 1),
)
@example([5e-324], 0.5)
def test_probabilities_add_up_to_1_and_none_falls_below_the_floor(losses, floor):
    sampler = HardExampleSampler(len(losses), floor=floor)
    for index, loss in enumerate(losses):
        if loss is not None:
            sampler.update([index], [loss])
    probabilities = sampler.probabilities()
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.min() >= floor / len(losses) * (1 - 1e-9)


def test_an_image_without_a_record_counts_as_average():
    sampler = HardExampleSampler(3)
    sampler.update([0, 1], [1.0, 3.0])
    first, second, unseen = sampler.probabilities()
    assert unseen == pytest.approx((first + second) / 2)


def test_update_takes_tensors_that_need_a_gradient():
    sampler = HardExampleSampler(3)
    sampler.update(torch.tensor([2, 0]), torch.tensor([4.0, 1.0], requires_grad=True))
    assert sampler.losses[[0, 2]].tolist() == [1.0, 4.0]
    assert np.isnan(sampler.losses[1])


@pytest.mark.parametrize(
    ("indices", "losses", "error", "message"),
    [
        ([0, 1], 0.5, ValueError, 'compute the loss with reduction="none"'),
        ([0, 1], [0.5, np.nan], ValueError, "losses must be finite and not negative"),
        ([0, 1], [0.5, np.inf], ValueError, "losses must be finite and not negative"),
        ([0], [-1.0], ValueError, "losses must be finite and not negative"),
        ([3], [1.0], IndexError, "indices must be from 0 to 2, got up to 3"),
        ([-1], [1.0], IndexError, "indices must be from 0 to 2"),
    ],
)
def test_update_refuses_what_is_no_loss_of_an_image(indices, losses, error, message):
    with pytest.raises(error, match=message):
        HardExampleSampler(3).update(indices, losses)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be the number of images, at least 1, got 0"),
        ({"n": 3, "floor": 0}, "floor must be above 0 and at most 1, or some images are never seen; got 0"),
        ({"n": 3, "num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_hard_examples_refuse_what_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        HardExampleSampler(**arguments)


def test_order_follows_the_losses():
    told, untold = HardExampleSampler(50), HardExampleSampler(50)
    told.update(np.arange(50), np.arange(50.0))
    assert list(told) != list(untold)


# ------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize(
    "make", [lambda seed: ClassBalancedSampler(LABELS, seed), lambda seed: HardExampleSampler(69, seed)]
)
def test_order_is_made_of_seed_and_epoch_alone(make):
    sampler = make(3)
    later = epoch_of(sampler, 4)
    epoch_of(sampler, 9)
    assert epoch_of(sampler, 4) == later
    assert epoch_of(make(3), 4) == later
    assert epoch_of(sampler, 5) != later
    assert epoch_of(make(4), 4) != later


# ------------------------------------------------------------------------------------------- distributed


@given(n=st.integers(1, 60), batch_size=st.integers(1, 12), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_ranks_take_equal_steps_and_share_every_batch(n, batch_size, world_size, epoch):
    sizes = np.random.default_rng(0).integers(79, 182, (n, 2))
    whole = epoch_of(BucketSampler(sizes, batch_size), epoch)
    ranks = [
        epoch_of(DistributedBatches(BucketSampler(sizes, batch_size), rank, world_size), epoch)
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(whole)}
    for batch, *shares in zip(whole, *ranks, strict=True):
        together = sorted(sum(shares, []))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= 1
        if len(batch) >= world_size:
            assert together == sorted(batch)
        else:
            assert set(together) == set(batch)
            assert len(together) == world_size


def test_ranks_hold_similar_sizes_at_each_step():
    sizes = np.random.default_rng(0).integers([79, 114], [171, 183], (4000, 2))
    ranks = [list(DistributedBatches(BucketSampler(sizes, 64), rank, 2)) for rank in (0, 1)]
    means = np.array([[sizes[batch].prod(axis=1).mean() for batch in batches] for batches in ranks])
    assert np.corrcoef(means)[0, 1] > 0.95


@given(n=st.integers(1, 60), cap=st.integers(1, 12), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_each_rank_keeps_to_its_share_of_a_pixel_budget(n, cap, world_size, epoch):
    sizes, budget = np.random.default_rng(0).integers(79, 182, (n, 2)), 4 * 150 * 150

    def sampler():
        return BucketSampler(sizes, cap * world_size, pixel_budget=budget * world_size, shares=world_size)

    ranks = [epoch_of(DistributedBatches(sampler(), rank, world_size), epoch) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(sampler())}
    assert set(sum(itertools.chain(*ranks), [])) == set(range(n))
    for batch in itertools.chain(*ranks):
        assert 1 <= len(batch) <= cap
        assert len(batch) * sizes[batch].max(axis=0).prod() <= budget


def test_rank_must_be_one_of_the_world():
    with pytest.raises(ValueError, match="rank must be from 0 to below world_size, got 2 of 2"):
        DistributedBatches([[0]], 2, 2)
    with pytest.raises(ValueError, match="give both rank and world_size or neither, got 1 and None"):
        DistributedBatches([[0]], rank=1)


def test_distributed_steps_have_a_length():
    assert len(DistributedBatches([[0, 1], [2, 3], [4]], 1, 2)) == 3


# ------------------------------------------------------------------------------------------- set_epoch


def test_set_epoch_reaches_a_sampler_inside_a_batch_sampler_inside_the_distribution():
    sampler = ClassBalancedSampler(LABELS)
    DistributedBatches(BatchSampler(sampler, 4, drop_last=False), 0, 2).set_epoch(7)
    assert sampler.epoch == 7


def test_set_epoch_reaches_all_parts_of_a_loader():
    class Numbers(list):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    numbers = Numbers(range(69))
    by_one = DataLoader(numbers, batch_size=4, sampler=ClassBalancedSampler(LABELS))
    by_batch = DataLoader(numbers, batch_sampler=BucketSampler(np.ones((69, 2)), 4))
    set_epoch(by_one, 5)
    assert (by_one.sampler.epoch, numbers.epoch) == (5, 5)
    set_epoch(by_batch, 6)
    assert (by_batch.batch_sampler.epoch, numbers.epoch) == (6, 6)


def test_set_epoch_passes_over_what_has_no_epoch():
    set_epoch(DataLoader([1, 2, 3], batch_size=2), 1)
