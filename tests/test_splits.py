"""Splits: no group in two of them, shares as near as whole groups allow, and a measure of every leak."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpsutils.config import SAMPLE_DIR, SPLITS, Config
from bpsutils.splits import group_ids, leakage_report, split_by_group, split_table

MOUSE = ("particle_type", "well")
FRACTIONS = (0.5, 0.25, 0.25)


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def cases(counts):
    """A table with ``counts[group][class]`` rows; groups are called a, b, c and so on."""
    rows = [
        (chr(97 + group), label)
        for group, per_class in enumerate(counts)
        for label, count in enumerate(per_class)
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["case", "label"])


def mice(n_plates=3, per_well=6):
    wells = {
        "Fe": ["A6", "A8", "C6", "C7", "C8", "E4", "G3", "G4"],
        "X-ray": ["A7", "C7", "D5", "E1", "E2", "E5", "E6", "F5"],
    }
    rows = [
        (f"P{plate}{particle}", "1", particle, well, f"{nucleus:03d}", 1.0)
        for particle in wells
        for well in wells[particle]
        for plate in range(n_plates)
        for nucleus in range(per_well)
    ]
    return pd.DataFrame(rows, columns=["plate", "barcode", "particle_type", "well", "field", "dose_Gy"])


# ------------------------------------------------------------------------------------------- group_ids


def test_groups_are_named_by_all_their_columns():
    table = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}, index=[5, 3])
    ids = group_ids(table, ("a", "b"))
    assert ids.tolist() == ["x/1", "y/2"]
    assert ids.index.tolist() == [5, 3]
    assert group_ids(table, "b").tolist() == group_ids(table, ["b"]).tolist() == ["1", "2"]


def test_one_well_of_two_branches_is_two_mice():
    ids = group_ids(mice(), MOUSE)
    assert ids.nunique() == 16
    assert {"Fe/C7", "X-ray/C7"} < set(ids)


@pytest.mark.parametrize("group", [("case", "mouse"), "mouse", ()])
def test_groups_need_their_columns(group):
    with pytest.raises(ValueError, match="the table has no column .*; it has case, label"):
        group_ids(cases([[1, 1]]), group)


def test_a_row_without_a_group_is_an_error():
    table = cases([[1], [1], [1]]).astype("object")
    table.loc[1, "case"] = None
    with pytest.raises(ValueError, match="column 'case' is empty in 1 rows, first at index 1"):
        split_by_group(table, "case", "label")
    table = cases([[1], [1], [1]]).astype({"label": float})
    table.loc[2, "label"] = np.nan
    with pytest.raises(ValueError, match="column 'label' is empty in 1 rows, first at index 2"):
        split_by_group(table, "case", "label")


# ------------------------------------------------------------------------------------------- split_by_group

COUNTS = st.integers(1, 3).flatmap(
    lambda n_classes: st.lists(
        st.lists(st.integers(0, 30), min_size=n_classes, max_size=n_classes).filter(any), min_size=3, max_size=6
    )
)
SHARES = st.sampled_from(
    [FRACTIONS, (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.05, 0.05, 0.9), (0.7, 0.3, 0), (0.5, 0, 0.5)]
)


def badness(counts, places, fractions):
    """What the documentation promises, written another way: first classes missing from splits, then distance."""
    missing, distance = 0, 0.0
    for column in [*zip(*counts, strict=True), [sum(row) for row in counts]]:
        total = sum(column)
        if total == 0:
            continue
        for split, fraction in enumerate(fractions):
            rows = sum(count for count, place in zip(column, places, strict=True) if place == split)
            missing += fraction > 0 and rows == 0
            distance += (rows / total - fraction) ** 2
    return missing, distance


@given(counts=COUNTS, fractions=SHARES, seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_shares_are_as_near_as_whole_groups_allow(counts, fractions, seed):
    table = cases(counts)
    split = split_by_group(table, "case", "label", fractions, seed)
    chosen = split.groupby(table["case"]).unique()
    assert all(len(places) == 1 for places in chosen)  # no group in two splits
    found = badness(counts, [SPLITS.index(places[0]) for places in chosen], fractions)
    used = [split for split in range(3) if fractions[split] > 0]
    best = min(badness(counts, places, fractions) for places in itertools.product(used, repeat=len(counts)))
    assert found[0] == best[0]
    assert found[1] == pytest.approx(best[1], abs=1e-6)
    assert set(split) == {SPLITS[place] for place in used}


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1)), min_size=6, max_size=40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=10, deadline=None)
def test_many_groups_are_split_without_overlap_and_in_the_shares_asked_for(sizes, seed):
    counts = [[size * (label == 0), size * (label == 1)] for size, label in sizes]
    table = cases(counts)
    split = split_by_group(table, "case", "label", FRACTIONS, seed)
    assert split.index.equals(table.index)
    assert split.groupby(table["case"]).nunique().max() == 1
    pd.testing.assert_series_equal(split, split_by_group(table, "case", "label", FRACTIONS, seed))
    of_class = {label: [size for size, own in sizes if own == label] for label in (0, 1)}
    for label, groups in of_class.items():
        inside = table["label"] == label
        if len(groups) >= 3:
            assert set(split[inside]) == set(SPLITS)
        largest = max(groups, default=0) / max(1, sum(groups))
        shares = split[inside].value_counts(normalize=True)
        for name, fraction in zip(SPLITS, FRACTIONS, strict=True):
            assert not groups or abs(shares.get(name, 0.0) - fraction) <= largest + 0.25


def test_eight_equal_mice_of_each_particle_go_four_two_two():
    table = mice()
    split = split_by_group(table, MOUSE, "particle_type")
    counted = pd.crosstab(table["particle_type"], split)[list(SPLITS)]
    assert counted.to_numpy().tolist() == [[72, 36, 36]] * 2
    assert split.name == "split"
    assert split.attrs == {"group": ["particle_type", "well"]}


def test_seeds_draw_different_mice_and_each_draws_the_same_again():
    table = mice()
    drawn = [tuple(split_by_group(table, MOUSE, "particle_type", seed=seed)) for seed in range(5)]
    assert len(set(drawn)) == 5
    assert drawn == [tuple(split_by_group(table, MOUSE, "particle_type", seed=seed)) for seed in range(5)]
    in_test = np.array([np.array(one) == "test" for one in drawn]).mean(axis=0)
    assert in_test.max() < 1  # no mouse is in the test set whatever the seed


def test_the_order_of_rows_changes_nothing():
    table = mice()
    shuffled = table.sample(frac=1, random_state=1)
    split = split_by_group(table, MOUSE, "particle_type")
    pd.testing.assert_series_equal(split_by_group(shuffled, MOUSE, "particle_type").sort_index(), split)


def test_many_small_groups_meet_the_shares_closely():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"case": np.repeat(np.arange(900), rng.integers(1, 30, 900))})
    table["label"] = table["case"] % 2
    split = split_by_group(table, "case", "label", (0.7, 0.2, 0.1))
    shares = pd.crosstab(table["label"], split, normalize="index")[list(SPLITS)]
    np.testing.assert_allclose(shares, [[0.7, 0.2, 0.1]] * 2, atol=1e-3)


def test_without_classes_only_the_rows_count():
    split = split_by_group(cases([[4, 0], [2, 0], [1, 1]]), "case", None)
    assert split.value_counts().to_dict() == {"train": 4, "val": 2, "test": 2}


def test_a_share_of_nothing_leaves_a_split_empty():
    split = split_by_group(cases([[5], [5]]), "case", "label", (0.5, 0.5, 0))
    assert sorted(set(split)) == ["train", "val"]


def test_too_few_groups_are_an_error_that_names_them():
    with pytest.raises(ValueError, match="2 groups cannot fill 3 splits.*: a, b"):
        split_by_group(cases([[5], [5]]), "case", "label")


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.6, 0.6, -0.2), (0.5, 0.2, 0.2), (0.5, 0.25, float("nan"))])
def test_fractions_must_be_shares(fractions):
    with pytest.raises(ValueError, match="fractions must be three shares"):
        split_by_group(mice(), MOUSE, "particle_type", fractions)


def test_stratify_must_be_a_column():
    with pytest.raises(ValueError, match="no column dose; it has plate"):
        split_by_group(mice(), MOUSE, "dose")


# ------------------------------------------------------------------------------------------- leakage_report


def test_an_honest_split_leaks_nothing():
    table = mice()
    report = leakage_report(table, split_by_group(table, MOUSE, "particle_type"), MOUSE)
    assert report.to_dict() == {"group": 0, "field": 0, "well": 0}


def test_each_share_counts_its_own_relatives():
    columns = ["plate", "barcode", "well", "field", "particle_type"]
    rows = {
        "train": [("P1", "1", "A1", "001", "Fe")],
        "val": [("P4", "1", "A3", "001", "Fe")],  # validation rows are no training rows
        "test": [
            ("P1", "1", "A1", "001", "Fe"),  # same field, well and mouse
            ("P1", "1", "A1", "002", "Fe"),  # another field
            ("P2", "1", "A1", "001", "Fe"),  # another plate, the same mouse
            ("P1", "2", "A1", "001", "Fe"),  # another barcode, the same mouse
            ("P1", "1", "A1", "001", "X-ray"),  # another mouse in a well of that name
            ("P4", "1", "A3", "001", "Fe"),
            ("P4", "1", "A3", "001", "Fe"),
            ("P4", "1", "A3", "001", "Fe"),
        ],
    }
    table = pd.DataFrame([row for split in SPLITS for row in rows[split]], columns=columns)
    split = pd.Series([split for split in SPLITS for _ in rows[split]])
    assert leakage_report(table, split, MOUSE).to_dict() == {"group": 4 / 8, "field": 2 / 8, "well": 3 / 8}
    assert leakage_report(table.drop(columns="field"), split, MOUSE).to_dict() == {"group": 4 / 8, "well": 3 / 8}
    assert list(leakage_report(table[["particle_type"]], split, "particle_type").index) == ["group"]


def test_a_random_split_of_the_real_structure_leaks_every_well():
    counts = pd.read_csv(SAMPLE_DIR / "bps" / "real_counts.csv", dtype={"barcode": "str"})
    table = counts.loc[counts.index.repeat(counts["n"])].reset_index(drop=True)
    assert len(table) == 77_177
    split = pd.Series(np.where(np.random.default_rng(0).random(len(table)) < 0.8, "train", "test"))
    report = leakage_report(table, split, MOUSE)
    assert report["group"] == 1.0
    assert report["well"] > 0.9995  # 100 %, but for a well of two nuclei that may fall into the test set whole
    honest = split_by_group(table, MOUSE, "particle_type")
    assert leakage_report(table, honest, MOUSE).to_dict() == {"group": 0.0, "well": 0.0}
    assert group_ids(table, MOUSE).groupby([table["particle_type"], honest]).nunique().tolist() == [2, 4, 2] * 2


@pytest.mark.parametrize(
    ("split", "match"),
    [
        (["train"] * 2, "needs some of both"),
        (["test", "val"], "0 rows 'train' and 1 rows 'test'"),
        (["train", "test", "test"], "3 rows that do not match the table's 2"),
    ],
)
def test_leakage_needs_a_split_of_this_table(split, match):
    with pytest.raises(ValueError, match=match):
        leakage_report(cases([[2]]), pd.Series(split), "case")
    with pytest.raises(ValueError, match="do not match"):
        leakage_report(cases([[2]]), pd.Series(["train", "test"], index=[1, 2]), "case")


# ------------------------------------------------------------------------------------------- split_table


def test_split_table_adds_group_and_split_to_irradiated_rows():
    table = mice()
    control = table.assign(dose_Gy=0.0)
    result = split_table(pd.concat([control, table], ignore_index=True), Config())
    assert len(result) == len(table)
    assert result.index.equals(pd.RangeIndex(len(table)))
    assert result["group"].tolist() == group_ids(table, MOUSE).tolist()
    assert result["split"].tolist() == split_by_group(table, MOUSE, "particle_type").tolist()
    assert result.attrs["group"] == list(MOUSE)
    both = split_table(pd.concat([control, table], ignore_index=True), Config(irradiated_only=False))
    assert len(both) == 2 * len(table)


def test_split_table_leaves_its_input_alone():
    table = mice()
    before = table.copy()
    split_table(table, Config())
    pd.testing.assert_frame_equal(table, before)


def test_split_table_follows_seed_and_fractions():
    table = mice()
    splits = [tuple(split_table(table, Config(seed=seed))["split"]) for seed in range(5)]
    assert len(set(splits)) == 5
    counts = split_table(table, Config(fractions=(0.25, 0.25, 0.5)))["split"].value_counts()
    assert counts.to_dict() == {"test": 144, "train": 72, "val": 72}


def test_named_cases_decide_and_others_are_left_out_with_a_warning():
    config = Config(
        train_cases=("Fe/A6", "X-ray/A7"), val_cases=("Fe/A8", "X-ray/C7"), test_cases=("Fe/C7", "X-ray/E1")
    )
    with pytest.warns(UserWarning, match="180 of 288 rows left out: the case is not in Config"):
        result = split_table(mice(), config)
    chosen = result.groupby("split")["group"].unique().map(sorted).to_dict()
    assert chosen == {
        "train": ["Fe/A6", "X-ray/A7"],
        "val": ["Fe/A8", "X-ray/C7"],
        "test": ["Fe/C7", "X-ray/E1"],
    }


def test_a_named_case_that_is_not_there_is_an_error():
    config = Config(train_cases=("Fe/A6",), val_cases=("Fe/A7",), test_cases=("Fe/C7",))
    with pytest.raises(ValueError, match="no images of the cases Fe/A7 .*there are Fe/A6, Fe/A8"):
        split_table(mice(), config)


def test_rows_of_no_class_are_left_out_with_a_warning():
    table = mice().astype({"particle_type": "object"})
    extra = table.iloc[:5].assign(particle_type=[None, "Si", "Si", None, "Si"])
    with pytest.warns(UserWarning, match="5 of 293 rows left out: the particle_type is not a class"):
        result = split_table(pd.concat([table, extra], ignore_index=True), Config())
    assert set(result["particle_type"]) == {"Fe", "X-ray"}


def test_labels_of_cases_split_without_a_dose():
    table = cases([[5, 0], [5, 0], [5, 0], [0, 5], [0, 5], [0, 5]]).assign(label=["x"] * 15 + ["y"] * 15)
    config = Config(target="label", classes=("x", "y"), group=("case",))
    assert split_table(table, config).groupby(["label", "split"]).size().tolist() == [5] * 6


def test_split_table_needs_its_target_and_some_rows():
    with pytest.raises(ValueError, match=r"no column 'label' \(Config.target\); it has plate"):
        split_table(mice(), Config(target="label"))
    with pytest.raises(ValueError, match="no row is left of 288: in each, the particle_type is not a class"):
        split_table(mice(), Config(classes=("Si", "He")))
    with pytest.raises(ValueError, match="no row is left of 288: in each, the dose is 0"):
        split_table(mice().assign(dose_Gy=0.0), Config())
