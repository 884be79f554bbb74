import numpy as np
import pandas as pd
import pytest

from bpsutils import rare_kinds
from bpsutils.samplers import HardExampleSampler


@pytest.fixture(scope="module")
def crops():
    return rare_kinds.simulate_crops(64)


def test_both_classes_of_all_mice_are_there_as_ordinary_and_as_dark_crops(crops):
    assert crops.normal.shape == crops.dark.shape == (64, 4)
    assert np.isfinite(crops.normal).all()
    assert np.isfinite(crops.dark).all()
    assert crops.table.groupby("mouse")["dose_Gy"].agg(lambda dose: (dose > 0).mean()).between(0.2, 0.8).all()
    assert (crops.dark[:, 0] < crops.normal[:, 0]).all()  # a lower background


def test_plates_do_not_give_the_answer_away(crops):
    assert crops.table[["gain", "offset"]].nunique().tolist() == [1, 1]


def test_numbers_of_a_flat_image_are_finite():
    assert np.isfinite(rare_kinds.crop_numbers(np.full((9, 9), 300))).all()


def trials(crops, seen, n=2):
    """Runs the comparison with a training loop that only looks on."""

    def fit(x, y, sampler, step):
        seen.append((x, y, sampler, step))
        yield 1, np.array([0.0, 0.0, 0.0, 1.0, 0.0])
        yield 5, np.array([0.0, 0.0, 0.0, -1.0, 0.0])

    return rare_kinds.compare_orders(crops, fit, trials=n)


def test_every_way_gets_the_same_training_crops_and_a_sampler_for_them(crops):
    seen = []
    trials(crops, seen, n=1)
    assert len(seen) == 6  # two settings, three ways
    for x, y, sampler, _ in seen:
        assert len(x) == len(y) == len(list(sampler)) < 64
        assert set(sampler) <= set(range(len(x)))
        assert np.allclose(x.mean(axis=0), [0, 0, 0, 0, 1], atol=1e-9)
    for one, other in ((0, 1), (1, 2), (3, 4), (4, 5)):
        assert np.array_equal(seen[one][0], seen[other][0])
    assert [isinstance(sampler, HardExampleSampler) for _, _, sampler, _ in seen] == [False, True, False] * 2
    assert [step for *_, step in seen] == pytest.approx([0.1, 0.1, 0.3] * 2)


def test_tossed_labels_differ_from_the_truth_and_dark_crops_do_not(crops):
    seen = []
    trials(crops, seen, n=1)
    (dark_x, truth, *_), (tossed_x, tossed, *_) = seen[0], seen[3]
    assert not np.array_equal(dark_x, tossed_x)
    assert 0 < (truth != tossed).sum() < 0.25 * len(truth)


def test_the_result_has_a_score_for_each_way_epoch_and_test(crops):
    result = trials(crops, [])
    keys = ["trial", "setting", "drawn", "epoch", "images"]
    assert len(result) == 2 * 2 * 3 * 2 * 2
    assert not result.duplicated(keys).any()
    assert result["score"].between(0, 1).all()
    pairs = result.pivot_table(index=["trial", "setting", "drawn", "images"], columns="epoch", values="score")
    assert np.allclose(pairs[1] + pairs[5], 1)  # the opposite weights are wrong where the others are right


def test_emphasis_is_how_much_likelier_rare_crops_become():
    sampler, rare = HardExampleSampler(4, floor=0.2), np.array([True, False, False, False])
    assert rare_kinds._emphasis(sampler, rare) == 1
    sampler.update([0, 1, 2, 3], [3.0, 1.0, 1.0, 1.0])
    assert rare_kinds._emphasis(sampler, rare) == pytest.approx((0.05 + 0.4) / (0.05 + 0.8 / 6))


def test_the_lead_is_the_mean_difference_to_each_rival():
    scores = {"random": [0.5, 0.7], "hard first": [0.8, 0.8], "random, step x 3": [0.9, 0.9]}
    rows = [
        {"setting": "dark crops", "images": "rare", "epoch": 3, "drawn": drawn, "trial": trial, "score": score}
        for drawn, both in scores.items()
        for trial, score in enumerate(both)
    ]
    lead = rare_kinds.lead(pd.DataFrame(rows)).loc["dark crops", "rare"].loc[3]
    assert lead.round(6).to_dict() == {"random": 0.2, "random, step x 3": -0.1}
