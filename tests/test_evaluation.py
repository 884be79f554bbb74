import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from bpsutils import evaluation
from bpsutils.config import Config
from bpsutils.evaluation import (
    background_baseline,
    background_features,
    control_rates,
    evaluate,
    group_intervals,
    otsu_threshold,
    paired_gain,
    predict,
    roc_auc,
    score_interval,
)
from bpsutils.images import write_image

CONFIG = Config(device="cpu")


class Pretends(nn.Module):
    """Takes its logits from a table: pixel (0, 0) of an image says which row."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, images, mask=None):
        return self.logits[self.rows]


def batches(labels, groups, size=3):
    """Batches as a loader gives them; the images do not matter."""
    rows = list(range(len(groups)))
    for start in range(0, len(groups), size):
        chosen = rows[start : start + size]
        batch = {
            "images": torch.ones(len(chosen), 1, 2, 3, dtype=torch.uint16),
            "groups": [groups[i] for i in chosen],
            "paths": [f"{i:03d}.tif" for i in chosen],
            "indices": torch.tensor(chosen),
        }
        if labels is not None:
            batch["labels"] = torch.tensor([labels[i] for i in chosen])
        yield batch


@pytest.fixture(autouse=True)
def _rows_reach_the_model(monkeypatch):
    """`Pretends` is told which rows it gets by the batch on its way through prepare."""
    prepare = evaluation.forward_all.__wrapped__.__globals__["prepare"]

    def told(batch, device, config):
        Pretends.rows = batch.get("indices")
        return prepare(batch, device, config)

    monkeypatch.setitem(evaluation.forward_all.__wrapped__.__globals__, "prepare", told)


def logit(p):
    """Logits whose softmax is (1 - p, p)."""
    p = np.asarray(p, float)
    return np.stack([np.log(1 - p), np.log(p)], axis=1)


# -- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_by_hand():
    loader = list(batches([0, 1, 1, 0], ["X/a", "F/b", "F/b", "X/a"]))
    table = predict(Pretends(logit([0.2, 0.9, 0.3, 0.6])), loader, CONFIG)
    assert list(table) == ["path", "group", "label", "prediction", "score_X-ray", "score_Fe"]
    assert table["path"].tolist() == ["000.tif", "001.tif", "002.tif", "003.tif"]
    assert table["group"].tolist() == ["X/a", "F/b", "F/b", "X/a"]
    assert table["label"].tolist() == ["X-ray", "Fe", "Fe", "X-ray"]
    assert table["prediction"].tolist() == ["X-ray", "Fe", "X-ray", "Fe"]
    assert table["score_Fe"].tolist() == pytest.approx([0.2, 0.9, 0.3, 0.6])
    assert table["score_X-ray"].tolist() == pytest.approx([0.8, 0.1, 0.7, 0.4])


def test_predictions_do_not_depend_on_the_order_of_batches():
    loader = list(batches([0, 1, 1, 0, 1], list("abcde")))
    model = Pretends(logit([0.2, 0.9, 0.3, 0.6, 0.5]))
    pd.testing.assert_frame_equal(predict(model, loader, CONFIG), predict(model, loader[::-1], CONFIG))


def test_images_without_labels_are_predicted_too():
    table = predict(Pretends(logit([0.2, 0.9])), list(batches(None, ["a", "b"])), CONFIG)
    assert "label" not in table
    assert table["prediction"].tolist() == ["X-ray", "Fe"]


def test_nothing_to_predict():
    with pytest.raises(ValueError, match="the loader has no images to predict; check the split and the filters"):
        predict(Pretends(logit([0.5])), [], CONFIG)


def test_a_model_is_not_trained_by_predicting():
    model = Pretends(logit([0.2, 0.9])).train()
    predict(model, list(batches([0, 1], ["a", "b"])), CONFIG)
    assert not model.training
    assert model.logits.grad is None


# -- metrics ----------------------------------------------------------------------------------------------------------

#  X-ray: mice a, a, b, b      Fe: mice c, c, d, d
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
MICE = ["a", "a", "b", "b", "c", "c", "d", "d"]
SCORES = [0.1, 0.2, 0.3, 0.8, 0.9, 0.7, 0.6, 0.4]


@pytest.fixture
def evaluated():
    return evaluate(Pretends(logit(SCORES)), list(batches(LABELS, MICE)), CONFIG)


def test_metrics_by_hand(evaluated):
    metrics = evaluated.metrics
    assert metrics["accuracy"] == 6 / 8
    assert metrics["balanced_accuracy"] == (3 / 4 + 3 / 4) / 2
    # of 16 pairs the image 0.8 beats 0.7, 0.6 and 0.4 wrongly
    assert metrics["roc_auc"] == 13 / 16
    assert metrics["precision_Fe"] == metrics["recall_Fe"] == metrics["f1_Fe"] == 3 / 4
    assert metrics["precision_X-ray"] == 3 / 4


def test_confusion_has_true_classes_in_rows():
    labels, mice = [0, 0, 0, 1], ["a", "b", "a", "c"]
    result = evaluate(Pretends(logit([0.9, 0.8, 0.1, 0.9])), list(batches(labels, mice)), CONFIG)
    assert result.confusion.loc["X-ray"].tolist() == [1, 2]
    assert result.confusion.loc["Fe"].tolist() == [0, 1]
    assert (result.confusion.index.name, result.confusion.columns.name) == ("true", "predicted")
    assert result.per_class.loc["Fe", "precision"] == pytest.approx(1 / 3)
    assert result.per_class["images"].tolist() == [3, 1]


def test_intervals_by_hand(evaluated):
    """Mouse a is all right, b half; c all right, d half. A class scores 1, 0.75 or 0.5 in 1, 2, 1 of 4 resamples."""
    balanced = sorted((x + y) / 2 for x, y in itertools.product([1, 0.75, 0.75, 0.5], repeat=2))
    assert (balanced[0], balanced[-1]) == (0.5, 1)  # each in 1 of 16 resamples, which is more than 2.5 %
    assert (evaluated.metrics["balanced_accuracy_low"], evaluated.metrics["balanced_accuracy_high"]) == (0.5, 1)
    assert (evaluated.metrics["accuracy_low"], evaluated.metrics["accuracy_high"]) == (0.5, 1)
    # b and d alone: 0.8 beats both, 0.3 none, so 2 of 4 pairs are right; a and c alone: all are
    assert (evaluated.metrics["roc_auc_low"], evaluated.metrics["roc_auc_high"]) == (0.5, 1)


def test_evaluating_twice_gives_the_same(evaluated):
    again = evaluate(Pretends(logit(SCORES)), list(batches(LABELS, MICE, size=5)), CONFIG)
    assert again.metrics == evaluated.metrics


def test_metrics_are_flat_plain_numbers(evaluated):
    assert all(type(value) is float for value in evaluated.metrics.values())


def test_three_classes():
    config = dataclasses.replace(CONFIG, classes=("a", "b", "c"))
    labels, mice = [0, 0, 1, 1, 2, 2], list("uvwxyz")
    logits = np.log([[8, 1, 1], [3, 6, 1], [1, 8, 1], [2, 7, 1], [2, 2, 6], [5, 1, 4]])
    result = evaluate(Pretends(logits), list(batches(labels, mice)), config)
    assert result.metrics["accuracy"] == 4 / 6
    # against the rest: class a 0.8, 0.3 over 0.1, 0.2, 0.2, 0.5: 7 of 8; b 0.8, 0.7 over all: 1; c: 1
    assert result.metrics["roc_auc"] == pytest.approx((7 / 8 + 1 + 1) / 3)
    assert result.confusion.to_numpy().tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert 0 <= result.metrics["roc_auc_low"] <= result.metrics["roc_auc"] <= result.metrics["roc_auc_high"] <= 1


def test_a_class_that_the_test_images_lack_is_left_out_of_means():
    config = dataclasses.replace(CONFIG, classes=("a", "b", "c"))
    result = evaluate(Pretends(np.log([[8, 1, 1], [1, 8, 1]])), list(batches([0, 1], ["u", "v"])), config)
    assert result.metrics["balanced_accuracy"] == result.metrics["roc_auc"] == 1
    assert result.per_class.loc["c", "images"] == 0
    assert "0 of c" in result.note


def test_images_of_one_class_only():
    with pytest.raises(ValueError, match="all 2 images are of class Fe; accuracy by class needs two or more"):
        evaluate(Pretends(logit([0.5, 0.6])), list(batches([1, 1], ["a", "b"])), CONFIG)


def test_few_mice_are_noted(evaluated):
    assert evaluated.note.startswith("Intervals are unreliable: fewer than 5 groups")
    assert "2 of X-ray, 2 of Fe" in evaluated.note


def test_enough_mice_need_no_note():
    labels = [0] * 5 + [1] * 4
    scores = [0.4] * 5 + [0.6] * 4
    result = evaluate(Pretends(logit(scores)), list(batches(labels, list("abcdefghi"))), CONFIG)
    assert "(4 of Fe)" in result.note
    result = evaluate(Pretends(logit([*scores, 0.6])), list(batches([*labels, 1], list("abcdefghij"))), CONFIG)
    assert result.note == ""


@given(st.lists(st.tuples(st.integers(0, 2), *[st.sampled_from([0.1, 0.2, 0.5])] * 3), max_size=30))
def test_roc_auc_is_scikit_learns(drawn):
    rows = np.array([(0, 0.5, 0.1, 0.2), (1, 0.1, 0.2, 0.5), (2, 0.2, 0.1, 0.5), *drawn])
    labels, scores = rows[:, 0].astype(int), rows[:, 1:]
    expected = np.mean([roc_auc_score(labels == c, scores[:, c]) for c in range(3)])
    assert roc_auc(labels, scores) == pytest.approx(expected)


def test_roc_auc_of_two_classes_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, score = rng.integers(0, 2, 50), rng.random(50)
    assert roc_auc(labels, np.stack([1 - score, score], 1)) == pytest.approx(roc_auc_score(labels, score))


# -- intervals --------------------------------------------------------------------------------------------------------


def test_a_group_is_drawn_whole():
    seen = []
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    group_intervals(lambda rows: seen.append(sorted(rows)) or {"n": 0.0}, groups, np.zeros(6, int))
    members = {"a": [0, 2, 5], "b": [1, 4], "c": [3]}
    allowed = {tuple(sorted(sum(drawn, []))) for drawn in itertools.product(members.values(), repeat=3)}
    assert {tuple(rows) for rows in seen} == allowed


def test_each_branch_keeps_its_number_of_groups():
    labels = np.array([0, 0, 0, 1, 1])

    def statistic(rows):
        assert (np.bincount(labels[rows]) == [3, 2]).all()
        return {"n": float(len(rows))}

    assert group_intervals(statistic, list("abcde"), labels) == {"n_low": 5, "n_high": 5}


def test_a_group_of_several_classes_counts_to_its_most_frequent():
    labels = np.array([0, 0, 1, 1])

    def statistic(rows):
        return {"share": float(np.isin(rows, [3]).any())}

    # a holds two of class 0 and one of class 1, b is of class 1: each is the only group of its branch
    assert group_intervals(statistic, ["a", "a", "a", "b"], labels) == {"share_low": 1, "share_high": 1}


def test_interval_of_a_mean_of_many_groups_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(10, 2, 400)
    ends = group_intervals(
        lambda rows: {"m": float(values[rows].mean())}, np.arange(400).astype(str), np.zeros(400, int)
    )
    half = 1.96 * values.std() / 20
    assert ends["m_low"] == pytest.approx(values.mean() - half, abs=0.03)
    assert ends["m_high"] == pytest.approx(values.mean() + half, abs=0.03)


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_same_seed_same_interval(seed, images):
    rng = np.random.default_rng(seed)
    groups, values = np.repeat(list("abcdef"), images), rng.random(6 * images)

    def ends(seed):
        return group_intervals(lambda rows: {"m": float(values[rows].mean())}, groups, groups == "a", 30, seed)

    assert ends(seed) == ends(seed)
    assert ends(seed)["m_low"] <= ends(seed)["m_high"]


def test_other_seeds_draw_otherwise():
    values = np.arange(12.0)
    seeds = [
        group_intervals(lambda rows: {"m": float(values[rows].mean())}, values.astype(str), values > 99, 50, seed)[
            "m_low"
        ]
        for seed in (1, 2)
    ]
    assert seeds[0] != seeds[1]


# -- what else could explain it ---------------------------------------------------------------------------------------


def nucleus(background, bright=3000, size=60, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    image = background + noise * rng.standard_normal((size, size + 10))
    image[20:40, 25:45] = bright
    return image.clip(0, 65535).astype(np.uint16)


def test_background_features_by_hand():
    image = nucleus(400)
    image[0, :] = 100  # 70 of the background's pixels
    far = image.size - (20 + 16) * (20 + 16)  # the nucleus and 8 pixels around it
    mean = (70 * 100 + (far - 70) * 400) / far
    features = background_features(image, (0, 1000))
    assert features[0] == pytest.approx(mean / 1000)
    assert features[1] == pytest.approx(np.sqrt((70 * 100**2 + (far - 70) * 400**2) / far - mean**2) / 1000)
    assert features[2:].tolist() == pytest.approx([0.4] * 5, abs=1e-4)


def test_background_does_not_see_the_nucleus_nor_its_blurred_edge():
    dim, bright = nucleus(400, 2500, noise=5), nucleus(400, 9000, noise=5)
    bright[14:46, 19:51] = np.maximum(bright[14:46, 19:51], 700)  # glow around the bright one
    assert background_features(dim).tolist() == background_features(bright).tolist()


def test_background_of_an_image_full_of_nucleus_is_its_darkest_part():
    image = np.full((30, 30), 2000, np.uint16)
    image[::3, ::3] = 500
    assert background_features(image, (0, 1000))[0] == pytest.approx(0.5)


def test_background_of_a_flat_image():
    assert background_features(np.full((30, 30), 400, np.uint16), (0, 1000)).tolist() == pytest.approx(
        [0.4, 0, 0.4, 0.4, 0.4, 0.4, 0.4], abs=1e-6
    )


def test_background_of_an_rgb_image():
    rgb = np.stack([nucleus(300), nucleus(400), nucleus(500)], axis=2)
    assert background_features(rgb, (0, 1000))[0] == pytest.approx(0.4)


def test_otsu_splits_two_humps():
    levels = np.concatenate([np.full(90, 10.0), np.full(10, 50.0)])
    assert 10 < otsu_threshold(levels) < 50


def test_otsu_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    levels = np.concatenate([rng.normal(0, 1, 700), rng.normal(6, 2, 300)])

    def between(threshold):
        low, high = levels[levels <= threshold], levels[levels > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(threshold) for threshold in np.sort(levels)[1:-1])
    assert between(otsu_threshold(levels)) > 0.99 * best


@pytest.fixture
def experiment(tmp_path):
    """Per particle four mice for training and two each to validate and test; half the nuclei at 0 Gy."""

    def make(shift):
        rows = []
        for particle, mouse, number in itertools.product(("X-ray", "Fe"), range(8), range(4)):
            path = tmp_path / f"{particle}-{mouse}-{number}.tif"
            level = 500 + shift * (particle == "Fe")
            write_image(path, nucleus(level, noise=15, seed=hash((mouse, number)) % 1000))
            split = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
            dose = 1.0 if number % 2 else 0.0
            rows.append((str(path), particle, f"A{mouse}", f"{particle}/A{mouse}", split[mouse], dose))
        return pd.DataFrame(rows, columns=["path", "particle_type", "well", "group", "split", "dose_Gy"])

    return make


def test_background_gives_a_brighter_plate_away(experiment):
    baseline = background_baseline(experiment(shift=100), CONFIG)
    assert baseline == {"balanced_accuracy": 1, "balanced_accuracy_low": 1, "balanced_accuracy_high": 1}


def test_background_knows_nothing_where_plates_are_alike(experiment):
    table = experiment(shift=0)
    baseline = background_baseline(table, CONFIG)
    assert baseline["balanced_accuracy"] == 0.5  # X-ray and Fe images are the same, pixel by pixel
    assert baseline == background_baseline(table, CONFIG)


def test_background_baseline_learns_from_the_train_split_only(experiment):
    table = experiment(shift=100)
    swapped = table["split"] == "train"
    table.loc[swapped, "particle_type"] = table.loc[swapped, "particle_type"].map({"Fe": "X-ray", "X-ray": "Fe"})
    assert background_baseline(table, CONFIG)["balanced_accuracy"] == 0


def test_background_baseline_needs_two_classes(experiment):
    table = experiment(shift=0)
    table = table[(table["split"] != "test") | (table["particle_type"] == "Fe")]
    with pytest.raises(ValueError, match="the test split needs images of two classes of particle_type"):
        background_baseline(table, CONFIG)


class SaysFeTo(nn.Module):
    """Says Fe to images above a level; a model that sees the plate's brightness."""

    def __init__(self, level):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(level)))

    def forward(self, images, mask=None):
        above = images.flatten(1).mean(1) > self.level
        return torch.stack([~above, above], 1).float()


def test_control_rates_by_branch_on_held_out_mice_at_0_gy(experiment, monkeypatch):
    everything = experiment(shift=100)
    raw = {"prepare": lambda batch, device, config: (batch["images"].float(), batch["mask"], batch["labels"])}
    for name, function in raw.items():
        monkeypatch.setitem(evaluation.forward_all.__wrapped__.__globals__, name, function)
    table = everything[everything["dose_Gy"] > 0]
    plain = everything.drop(columns=["group", "split"])
    level = read_mean(everything, "X-ray") / 2 + read_mean(everything, "Fe") / 2
    rates = control_rates(SaysFeTo(level), plain, table, CONFIG)
    assert rates == {"control_rate": 0.5, "control_rate_Fe": 1, "control_rate_X-ray": 0, "n_control": 8}


def read_mean(table, particle):
    from bpsutils.images import read_image

    return np.mean([read_image(path).mean() for path in table.loc[table["particle_type"] == particle, "path"]])


def test_without_controls_there_are_no_rates(experiment):
    table = experiment(shift=0)
    irradiated = table[table["dose_Gy"] > 0]
    assert control_rates(SaysFeTo(0), irradiated, irradiated, CONFIG) == {}


# -- stored predictions -----------------------------------------------------------------------------------------------


def stored(scores):
    """Predictions as `bpsutils.predictions.load_predictions` gives them, of mice a, b (X-ray) and c, d (Fe)."""
    labels = np.array(["X-ray", "Fe"])[LABELS]
    said = np.where(np.array(scores) > 0.5, "Fe", "X-ray")
    paths = [f"{number}.tif" for number in range(len(labels))]
    return pd.DataFrame({"path": paths, "group": MICE, "label": labels, "score_Fe": scores, "prediction": said})


def test_the_interval_of_a_score_draws_mice_or_images():
    table = stored([0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1])  # right about mice a and c, wrong about b and d
    by_mouse, by_image = score_interval(table), score_interval(table, groups="path")
    assert by_mouse["value"] == by_image["value"] == 0.5
    assert (by_mouse["value_low"], by_mouse["value_high"]) == (0.0, 1.0)
    assert by_image["value_low"] > 0.0
    assert by_image["value_high"] < 1.0


def test_the_score_of_one_class_is_the_share_that_is_right_at_the_threshold():
    fe = stored(SCORES).query("label == 'Fe'")
    assert score_interval(fe)["value"] == 0.75
    assert score_interval(fe, threshold=0.8)["value"] == 0.25


def test_a_paired_gain_is_the_difference_of_balanced_accuracies_and_knows_what_is_shared():
    old, new = stored([0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9]), stored([0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.9])
    gain = paired_gain(new, old)
    assert gain["value"] == score_interval(new)["value"] - score_interval(old)["value"] == 0.25
    # one nucleus of each X-ray mouse is better, so every draw of mice finds the same
    assert gain["value_low"] == gain["value_high"] == 0.25


def test_a_paired_gain_averages_seeds_and_does_not_mind_the_order():
    old, new = stored(SCORES), stored([1 - score for score in SCORES])
    once = paired_gain(new, old)
    both = pd.concat([new, old]).sample(frac=1, random_state=0)
    assert paired_gain(both, old)["value"] == pytest.approx(once["value"] / 2)


def test_a_paired_gain_needs_the_same_images():
    table = stored(SCORES)
    with pytest.raises(ValueError, match="new has 7 images and old 8, not the same ones"):
        paired_gain(table[1:], table)
