"""The benchmark's frame: what is compared, refused, counted, told. No speed is judged here."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from bench import __main__ as program
from bench import decode, growth, harness, memory, padding, scan
from bench.data import checksum, first, make, simulated_sizes
from bench.harness import BenchError, Contender, Row, Table, Versus, race
from bench.report import entries, header, markdown
from hypothesis import given
from hypothesis import strategies as st

from bpsutils import build_metadata, read_header, read_image
from bpsutils.bucketing import padding_waste


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bench"), 40)


def counting(name, items=3, **options):
    """A contender whose outcome is its first few numbers."""
    return Contender(name, lambda _: range(items), items, checks=list, **options)


# ----------------------------------------------------------------------------------------------------------- race


def test_contenders_that_agree_get_a_row_each_after_as_many_rounds_as_asked():
    calls = []
    ours = Contender("ours", lambda _: calls.append("ours") or range(3), 3, list, floor=0.0)
    table = race("t", "title", [counting("base"), ours], rounds=5)
    assert [row.name for row in table.rows] == ["base", "ours"]
    assert table.rows[0].ratio == table.rows[0].low == table.rows[0].high == 1
    assert table.rows[1].low <= table.rows[1].ratio <= table.rows[1].high
    assert calls == ["ours"] * 6  # once to compare, five times in turn


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda _: [0, 1, 7], "wrong differs from base in 1 of 3 items, such as 7"),
        (lambda _: [0, 1, 1], "wrong differs from base in 1 of 3 items, such as 1"),
        (lambda _: [0, 1], "wrong gives 2 items, 3 are expected"),
        (lambda _: 1 / 0, "wrong failed: ZeroDivisionError"),
    ],
)
def test_a_wrong_contender_is_refused_before_anything_is_timed(work, message, monkeypatch):
    monkeypatch.setattr(harness, "time_in_turn", lambda *_: pytest.fail("timed before it was compared"))
    with pytest.raises(BenchError, match=message):
        race("t", "title", [counting("base"), Contender("wrong", work, 3, list)])


def test_a_slow_contender_may_do_some_of_the_items(monkeypatch):
    monkeypatch.setattr(harness, "time_in_turn", lambda *_: {"base": [8.0, 4.0], "slow": [4.0, 1.0]})
    slow = race("t", "title", [counting("base", 4), counting("slow", 2)]).rows[1]
    assert (slow.low, slow.high) == (1, 2)


def test_what_is_not_installed_is_named_with_the_rows_that_need_it():
    contenders = [counting("base"), counting("rival", needs="no_such_module")]
    table = race("t", "title", contenders, [Versus("base against rival", "base", "rival", 2.0)], rounds=1)
    assert [row.name for row in table.rows] == ["base"]
    assert table.notes == [
        "not installed: rival (pip install -r tests/bench/requirements.txt)",
        "not measured: base against rival (without rival)",
    ]


def test_a_baseline_that_is_not_installed_is_an_error():
    with pytest.raises(BenchError, match="baseline base needs no_such_module"):
        race("t", "title", [counting("base", needs="no_such_module")])


def test_further_rows_compare_with_others_than_the_baseline(monkeypatch):
    monkeypatch.setattr(harness, "time_in_turn", lambda *_: {"base": [8, 8], "a": [4, 2], "b": [2, 2]})
    contenders = [counting(name) for name in ("base", "a", "b")]
    table = race("t", "title", contenders, [Versus("b against a", "b", "a", 1.6)])
    assert [(row.name, row.ratio, row.low, row.high) for row in table.rows[1:]] == [
        ("a", 3, 2, 4),
        ("b", 4, 4, 4),
        ("b against a", 1.5, 1, 2),
    ]
    assert table.rows[-1].missed


def test_each_round_runs_all_after_their_preparation():
    log = []
    contenders = [
        Contender(
            name, lambda state: log.append(("work", state)), 1, before=lambda state: log.append(("before", state))
        )
        for name in "abc"
    ]
    seconds = harness.time_in_turn(contenders, {name: name.upper() for name in "abc"}, 4)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(log[i] == ("before", log[i + 1][1]) and log[i + 1][0] == "work" for i in range(0, len(log), 2))
    rounds = [[name for _, name in log[i : i + 6 : 2]] for i in range(0, len(log), 6)]
    assert all(sorted(names) == ["A", "B", "C"] for names in rounds)
    assert len(set(map(tuple, rounds))) > 1


def test_batches_are_consumed_within_the_timing():
    taken = []
    harness.timed(lambda _: (taken.append(n) for n in range(3)), None)
    assert taken == [0, 1, 2]


# ----------------------------------------------------------------------------------------------------------- told

ROWS = [Row("base", 1, 1, 1, more={"images/s": "12"}), Row("ours", 2.5, 2, 3.14159, 3), Row("other", 4, 4, 4, 4)]


def test_a_table_is_told_with_spread_floor_and_verdict():
    assert markdown(Table("scan", "sizes of files", ROWS, ["not installed: x"])).splitlines() == [
        "",
        "### scan: sizes of files",
        "",
        "| | images/s | ratio [min, max] | floor | |",
        "|---|---|---|---|---|",
        "| base | 12 | 1 |  |  |",
        "| ours |  | 2.5 [2, 3.14] | 3 | MISSED |",
        "| other |  | 4 | 4 | met |",
        "",
        "- not installed: x",
    ]


def test_an_entry_of_the_json_file_is_a_row():
    assert entries([Table("scan", "sizes of files", ROWS[:2])]) == [
        {"table": "scan", "name": "base", "ratio": 1, "low": 1, "high": 1, "floor": None},
        {"table": "scan", "name": "ours", "ratio": 2.5, "low": 2, "high": 3.14159, "floor": 3},
    ]


def test_the_header_names_versions_and_calls_the_data_simulated():
    assert "20,000 simulated files" in header(20_000)
    assert f"NumPy {np.__version__}" in header(20_000)


def _refuse():
    yield Table("scan", "sizes", ROWS[:1])
    raise BenchError("rival differs from base")


@pytest.mark.parametrize(
    ("tables", "code", "said", "count"),
    [
        (lambda: [Table("scan", "sizes", ROWS)], 1, "Floors missed: scan: ours", 3),
        (lambda: [Table("scan", "sizes", [ROWS[0], ROWS[2]])], 0, "All floors met.", 2),
        (_refuse, 2, "error: rival differs from base", 1),
    ],
)
def test_the_exit_code_and_the_json_file_tell_how_it_went(
    tables, code, said, count, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(program, "make", lambda *_: data)
    monkeypatch.setattr(program, "_run", lambda *_: tables())
    assert program.main(["--quick", "--json", str(tmp_path / "x.json")]) == code
    assert said in "".join(capsys.readouterr())
    assert len(json.loads((tmp_path / "x.json").read_text())) == count


# ----------------------------------------------------------------------------------------------------------- data


def test_files_differ_and_have_the_sizes_that_are_noted(data):
    assert len(data) == len({Path(path).read_bytes() for path in data.paths}) == 40
    assert data.sizes.tolist() == [list(read_header(path).shape) for path in data.paths]


def test_sizes_are_known_without_the_files(data):
    assert sorted(simulated_sizes(40).tolist()) == sorted(data.sizes.tolist())


def test_files_are_read_as_the_real_set_is(data, tmp_path):
    table = build_metadata(data.images, tmp_path / "index.parquet")
    assert table["path"].tolist() == data.paths
    assert table["simulated"].all()
    assert table[["plate", "particle_type", "dose_Gy"]].notna().all(axis=None)


def test_files_of_an_earlier_run_are_kept(data):
    before = [Path(path).stat().st_mtime_ns for path in data.paths]
    again = make(data.images.parent.parent, 40)
    assert again.paths == data.paths
    assert [Path(path).stat().st_mtime_ns for path in again.paths] == before


def test_a_part_of_the_files_keeps_their_sizes(data):
    part = first(data, 10)
    assert part.paths == first(data, 10).paths
    assert len(set(part.paths)) == len(part) == 10
    assert part.sizes.tolist() == [list(read_header(path).shape) for path in part.paths]


def test_the_checksum_sees_a_grey_level_and_a_shape(data):
    image = read_image(data.paths[0])
    changed = image.copy()
    changed[0, 0] += 1
    assert checksum(image) == checksum(image.copy())
    assert checksum(image) != checksum(changed)
    assert checksum(image) != checksum(image.reshape(1, -1))
    assert checksum(image[::-1]) == checksum(np.ascontiguousarray(image[::-1]))


# ---------------------------------------------------------------------------------------------------------- memory

needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system has no /proc")


@needs_proc
def test_memory_counts_what_a_process_fills():
    before = memory._tree(os.getpid())[0]
    filled = np.ones(50_000_000, np.uint8)
    assert memory._tree(os.getpid())[0] - before > 40_000
    assert filled.all()


@needs_proc
def test_memory_is_measured_in_a_process_of_its_own(data):
    assert memory.peak("decode", "PIL", data).split()[0].isdecimal()


# ---------------------------------------------------------------------------------------------------------- tables


def test_scanners_agree(data):
    table = race("scan", "sizes", scan.contenders(data), rounds=1)
    assert {scan.BASELINE, scan.OURS, scan.RESCAN, scan.LIST_STAT} <= {row.name for row in table.rows}


def test_decoders_agree_and_leave_the_packages_as_they_were(data):
    inflater = decode.tiff._inflater
    [table] = decode.tables(data, quick=True)
    assert {"tifffile", "PIL", "ours"} <= {row.name for row in table.rows}
    assert decode.tiff._inflater is inflater


def test_padding_is_told_against_width_bins(data, monkeypatch):
    monkeypatch.setattr(padding, "MANY", 1_000)
    monkeypatch.setattr(padding, "SIZES", 700)
    [table] = padding.tables(data, quick=True)
    ratios = {row.name: row.ratio for row in table.rows}
    assert ratios[padding.WIDTH_BINS] == 1
    assert ratios["lower bound"] == max(ratios.values())
    assert [row.name for row in table.rows if row.floor] == ["ours, jitter 0.03 (default)"]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_no_batches_pad_less_than_the_lower_bound(sizes, batch_size, seed):
    sizes, rng = np.array(sizes), np.random.default_rng(seed)
    cuts = np.arange(batch_size, len(sizes), batch_size)
    if len(sizes) % batch_size and len(cuts):  # the batch that is not full may be any
        cuts = cuts - (np.arange(len(cuts)) >= rng.integers(len(cuts) + 1)) * (batch_size - len(sizes) % batch_size)
    for order in (rng.permutation(len(sizes)), np.argsort(sizes.prod(axis=1)), np.argsort(sizes[:, 0])):
        waste = padding_waste(sizes, np.split(order, cuts))
        assert waste / (1 - waste) >= padding.lower_bound(sizes, batch_size) - 1e-9


def test_growth_is_told_by_item(data, monkeypatch):
    monkeypatch.setattr(growth, "COUNTS", (20, 60))
    monkeypatch.setattr(growth, "MORE_SIZES", (100,))
    monkeypatch.setattr(growth, "REFERENCE", 20)
    monkeypatch.setattr(growth, "ROUNDS", 1)
    [table] = growth.tables(data, quick=False)
    floors = {row.name: row.floor for row in table.rows}
    assert floors["scan, 60"] == growth.FLAT
    assert floors["sampler, 100"] == growth.LOGARITHMIC
    assert floors["pack, 20"] is None
    assert {row.ratio for row in table.rows if row.name.endswith(", 20")} == {1}
