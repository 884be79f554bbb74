"""The leakage laboratory: what the numbers see, that the stored ones can be made again, and what splits then say."""

import numpy as np
import pandas as pd
import pytest

from bpsutils import leakage
from bpsutils.__main__ import main
from bpsutils.leakage import (
    MOUSE_EFFECTS,
    NUMBERS,
    NUMBERS_CSV,
    compare_splits,
    image_numbers,
    mean_interval,
    simulate_numbers,
)
from bpsutils.simulate import render, simulate_table


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(NUMBERS_CSV)


def nucleus(foci=0, area=24, background=500, step=400):
    image = np.full((60, 60), background)
    image[10 : 10 + area, 10 : 10 + area] += step
    for focus in range(foci):
        image[12 + 3 * focus, 12] = background + 5 * step
    return image


def test_the_stored_numbers_are_whole(stored):
    assert list(stored) == ["mouse_effect", "filename", "particle_type", "mouse", *NUMBERS]
    assert stored["mouse_effect"].value_counts().to_dict() == dict.fromkeys(MOUSE_EFFECTS, 393)
    assert stored.notna().all(axis=None)
    assert stored.groupby("mouse_effect")["mouse"].nunique().tolist() == [16, 16, 16]
    assert np.isfinite(stored[list(NUMBERS)]).all(axis=None)


@pytest.mark.parametrize("effect", MOUSE_EFFECTS)
def test_stored_numbers_are_made_again_by_rendering(stored, effect):
    table = simulate_table(leakage.IMAGES, mouse_effect=effect, plate_effect=0)
    rows = stored[stored["mouse_effect"] == effect].sample(5, random_state=0)
    drawn = table.set_index("filename", drop=False).loc[rows["filename"]]
    again = pd.DataFrame([image_numbers(render(row)) for row in drawn.to_dict("records")])
    np.testing.assert_allclose(again[list(NUMBERS)], rows[list(NUMBERS)], rtol=1e-3, atol=1e-3)
    assert drawn["mouse"].tolist() == rows["mouse"].tolist()


def test_the_command_writes_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(leakage.build, "__defaults__", (NUMBERS_CSV, 16))
    assert main(["leakage", "--out", str(tmp_path / "numbers.csv")]) == 0
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert capsys.readouterr().out == f"wrote {len(table)} rows to {tmp_path / 'numbers.csv'}\n"
    again = pd.concat([simulate_numbers(effect, 16) for effect in MOUSE_EFFECTS], ignore_index=True)
    pd.testing.assert_frame_equal(table, again, rtol=1e-4, check_dtype=False)


def test_each_number_sees_its_own_thing():
    plain = image_numbers(nucleus())
    assert (plain["area"], plain["background"], plain["nucleus"], plain["foci"]) == (576, 500, 900, 0)
    assert image_numbers(nucleus(foci=3))["foci"] == 3
    assert image_numbers(nucleus(foci=3))["peak"] == 5
    assert image_numbers(nucleus(area=28))["area"] == 784
    assert image_numbers(nucleus(background=600))["background"] == 600
    grained = nucleus() + 40 * (np.indices((60, 60)).sum(axis=0) // 4 % 2)
    assert image_numbers(grained)["texture"] > plain["texture"]


def test_an_empty_image_has_numbers_too():
    assert all(np.isfinite(value) for value in image_numbers(np.full((9, 7), 300, np.uint16)).values())


def test_both_splits_of_a_pair_hold_out_as_many_of_each_class(stored, monkeypatch):
    seen = []
    monkeypatch.setattr(leakage, "_score", lambda x, y, test, trees: seen.append((y, test)) or 0.5)
    rows = stored[stored["mouse_effect"] == 1]
    scores = compare_splits(rows, splits=4)
    assert (scores["inflation"] == 0).all()
    mice, drawn = rows["mouse"].to_numpy(), set()
    for (y, at_random), (_, by_mouse) in zip(seen[::2], seen[1::2], strict=True):
        assert all((at_random & (y == kind)).sum() == (by_mouse & (y == kind)).sum() for kind in np.unique(y))
        assert not set(mice[by_mouse]) & set(mice[~by_mouse])
        assert len(set(mice[by_mouse])) == 4
        assert set(mice[at_random]) & set(mice[~at_random])
        drawn.add(tuple(sorted(set(mice[by_mouse]))))
    assert len(drawn) > 1


def test_pairs_are_the_same_each_time_and_do_not_depend_on_how_many(stored):
    rows = stored[stored["mouse_effect"] == 2]
    first = compare_splits(rows, splits=2, trees=5)
    pd.testing.assert_frame_equal(compare_splits(rows, splits=3, trees=5)[:2], first)
    assert np.allclose(first["inflation"], first["at random"] - first["by mouse"])


def test_a_leak_flatters_only_where_mice_differ(stored):
    inflation = {}
    for effect in (0.0, 2.0):
        scores = compare_splits(stored[stored["mouse_effect"] == effect], splits=12, trees=15)
        inflation[effect] = mean_interval(scores["inflation"])
    assert abs(inflation[0.0][0]) < 0.06
    assert inflation[2.0][0] - inflation[2.0][1] > 0.02


def test_the_interval_is_narrower_with_more_values():
    values = pd.Series([0.0, 0.1] * 8)
    mean, half = mean_interval(values)
    assert mean == 0.05
    assert half < mean_interval(values[:4])[1]
