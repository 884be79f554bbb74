"""The table: what names, headers, meta file and labels say, and a report of what does not fit together."""

import errno
import os
import re
import shutil
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bpsutils import metadata
from bpsutils.config import SAMPLE_DIR, Config
from bpsutils.images import write_image
from bpsutils.index import SCHEMA
from bpsutils.metadata import build_metadata, load_table, parse_names, read_labels, read_meta

NAMES = [
    "P242_73665006707-A6_003_013_proj.tif",
    "P242_73665006707-A6_008_034_proj.tif",
    "P278_88242417182-C7_009_007_proj.tif",
]
META = "filename,dose_Gy,particle_type,hr_post_exposure\n" + "".join(
    f"{name},{rest}\n" for name, rest in zip(NAMES, ["0.82,Fe,4", "0.82,Fe,4", "0,X-ray,4"], strict=True)
)
SLIDES = ["case01_h&e_s1_001.png", "case01_melan_s2_014.png", "case02_h&e_s1_002.png", "case03_sox10_s1_001.png"]
LABELS = "case,label\ncase01,benign\ncase02,tumour\ncase03,benign\n"


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def bps(tmp_path):
    folder = tmp_path / "bps"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_image(folder / name, np.full((79 + 10 * number, 120 - 10 * number), 500, np.uint16))
    (folder / "meta.csv").write_text(META)
    return folder


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate(SLIDES):
        write_image(folder / name, np.full((20 + 10 * number, 30, 3), 200, np.uint8))
    (tmp_path / "labels.csv").write_text(LABELS)
    return folder


def build(folder, **options):
    return build_metadata(folder, folder.parent / "out" / "index.parquet", **options)


def reported(kind, count, pattern=""):
    """Expect one warning of this kind, with its count."""
    return pytest.warns(UserWarning, match=f"^{re.escape(metadata.PROBLEMS[kind])}: {count}, such as .*{pattern}")


# ------------------------------------------------------------------------------------------- the whole table


def test_one_row_an_image_with_all_that_is_known(bps):
    table = build(bps)
    names = ["plate", "barcode", "well", "field", "nucleus"]
    facts = ["height", "width", "dtype", "channels", "simulated"]
    assert list(table) == ["path", *names, *facts, "dose_Gy", "particle_type", "hr_post_exposure"]
    assert table["path"].tolist() == [str(bps / name) for name in NAMES]
    assert table.loc[0, names].tolist() == ["P242", "73665006707", "A6", "003", "013"]
    assert table[facts].values.tolist() == [[79 + 10 * n, 120 - 10 * n, "uint16", 1, True] for n in range(3)]
    assert table["dose_Gy"].tolist() == [0.82, 0.82, 0.0]
    assert table["particle_type"].tolist() == ["Fe", "Fe", "X-ray"]
    assert table["hr_post_exposure"].tolist() == [4, 4, 4]
    assert table.index.equals(pd.RangeIndex(3))
    assert table.attrs["report"] == {}


def test_meta_may_lie_elsewhere_or_be_missing(bps, tmp_path):
    (bps / "meta.csv").rename(tmp_path / "other.csv")
    assert "dose_Gy" not in build(bps)
    assert build(bps, meta=tmp_path / "other.csv")["dose_Gy"].tolist() == [0.82, 0.82, 0.0]
    with pytest.raises(FileNotFoundError, match="no table .*none.csv"):
        build(bps, meta=tmp_path / "none.csv")


def test_paths_are_absolute_and_follow_a_moved_folder(bps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = build_metadata("bps/../bps", "out/index.parquet")
    assert table["path"].tolist() == [str(bps / name) for name in NAMES]
    moved = bps.rename(tmp_path / "moved")
    again = build_metadata(moved, "out/index.parquet")
    assert again["path"].tolist() == [str(moved / name) for name in NAMES]
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))


def test_images_in_folders_are_matched_by_their_names(bps):
    (bps / "plate/a").mkdir(parents=True)
    shutil.move(bps / NAMES[1], bps / "plate/a" / NAMES[1])
    assert build(bps)["dose_Gy"].tolist() == [0.82, 0.0, 0.82]  # sorted by path: P242, P278, plate/...


def test_a_table_from_the_index_is_the_table_of_a_full_rebuild(bps):
    build(bps)
    (bps / NAMES[0]).unlink()
    write_image(bps / "P243_1-A6_001_001_proj.tif", np.ones((90, 91), np.uint16))
    with pytest.warns(UserWarning, match="file"):
        incremental = build(bps)
    with pytest.warns(UserWarning, match="file"):
        full = build(bps, force_rebuild_metadata_full=True)
    pd.testing.assert_frame_equal(incremental, full)
    assert incremental.attrs["report"] == full.attrs["report"] != {}


def test_a_changed_meta_file_counts_at_once(bps):
    build(bps)
    (bps / "meta.csv").write_text(META.replace("Fe", "Si"))
    assert build(bps)["particle_type"].tolist() == ["Si", "Si", "X-ray"]


def test_load_table_uses_the_paths_and_filters_of_the_config(bps, tmp_path, monkeypatch):
    config = Config(image_dir=bps, out_dir=tmp_path / "run", min_size=85)
    assert len(load_table(config)) == 2
    assert (tmp_path / "run/index.parquet").is_file()
    asked = {}
    monkeypatch.setattr(metadata, "build_metadata", lambda *args, **options: asked.update(options, args=args))
    everything = {"meta": "m.csv", "labels": "l.csv", "stain": "h&e", "min_size": 2, "max_size": 3}
    config = Config(
        image_dir=bps, index_path="i.parquet", scheme="slides", force_rebuild_metadata_full=True, **everything
    )
    load_table(config)
    assert asked.pop("args") == (bps, config.index, "slides")
    assert asked.pop("force_rebuild_metadata_full") is True
    assert {name: value if isinstance(value, int) else str(value) for name, value in asked.items()} == everything


def test_the_shipped_sample_is_whole_and_says_that_it_is_simulated(tmp_path):
    table = load_table(Config(index_path=tmp_path / "i.parquet"))
    assert table.groupby(["plate", "well"]).size().min() >= 4
    assert table["simulated"].all()
    assert not table.isna().any(axis=None)
    assert table.groupby("particle_type")["well"].nunique().tolist() == [8, 8]
    assert len(table[["plate", "well"]].drop_duplicates()) == 135


# ------------------------------------------------------------------------------------------- schemes


def test_slides_are_read_by_their_scheme_and_labels(slides, tmp_path):
    table = build(slides, scheme="slides", labels=tmp_path / "labels.csv")
    assert table["case"].tolist() == ["case01", "case01", "case02", "case03"]
    assert table["stain"].tolist() == ["h&e", "melan", "h&e", "sox10"]
    assert table["slice"].tolist() == ["1", "2", "1", "1"]
    assert table["patch"].tolist() == ["001", "014", "002", "001"]
    assert table["label"].tolist() == ["benign", "benign", "tumour", "benign"]
    assert table["channels"].tolist() == [3] * 4


def test_a_pattern_of_ones_own_reads_names_and_folders():
    names = ["m7/day2_x.png", "m8/day3_y.png", "m8/other.png"]
    by_name = parse_names(names, r"^day(?P<day>\d)_(?P<position>\w)")
    assert by_name["day"].tolist()[:2] == ["2", "3"]
    assert by_name["position"].isna().tolist() == [False, False, True]
    by_path = parse_names(names, r"^m(?P<mouse>\d)/day(?P<day>\d)")
    assert by_path.iloc[:2].values.tolist() == [["7", "2"], ["8", "3"]]


def test_an_optional_group_may_be_missing():
    parsed = parse_names(["a1.png", "a.png"], r"^(?P<letter>[a-z])(?P<number>\d)?")
    assert parsed["letter"].tolist() == ["a", "a"]
    assert parsed["number"].isna().tolist() == [False, True]


def test_names_of_nothing_give_an_empty_table():
    assert parse_names([]).shape == (0, 5)


@pytest.mark.parametrize("name", [NAMES[0].upper(), "x" + NAMES[0], NAMES[0] + "f", "P242_7366-A6_03_013_proj.tif"])
def test_other_names_do_not_fit_the_bps_scheme(name):
    assert parse_names([name]).isna().all(axis=None)


@pytest.mark.parametrize(
    ("scheme", "match"),
    [
        ("(?P<case>", "must be 'bps', 'slides', or a regular expression"),
        (r"^(\d+)\.tif$", "must be 'bps', 'slides', or a regular expression with named groups"),
        ("bsp", "scheme 'bsp' must be"),
        (r"(?P<height>\d+)_(?P<path>\d+)", r"not named \['height', 'path'\]"),
    ],
)
def test_a_scheme_that_cannot_be_used_is_refused(scheme, match):
    with pytest.raises(ValueError, match=match):
        parse_names(NAMES, scheme)


# ------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"stain": "h&e"}, [0, 2]),
        ({"min_size": 30}, [1, 2, 3]),  # shorter sides: 20, 30, 30, 30
        ({"max_size": 40}, [0, 1, 2]),  # longer sides: 30, 30, 40, 50
        ({"min_size": 30, "max_size": 30}, [1]),
        ({"stain": "h&e", "min_size": 21}, [2]),
    ],
)
def test_filters_apply_to_the_table_and_not_to_the_index(slides, options, rows):
    whole = build(slides, scheme="slides")
    stored = slides.parent / "out/index.parquet"
    before = stored.read_bytes()
    table = build(slides, scheme="slides", **options)
    pd.testing.assert_frame_equal(table, whole.iloc[rows].reset_index(drop=True))
    assert stored.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stain": "HE"}, r"stain 'HE' is not among the images; there are: \['h&e', 'melan', 'sox10'\]"),
        ({"min_size": 31}, "min_size=31.*shorter sides are 20 to 30 px, longer sides 30 to 50 px"),
        ({"max_size": 29}, "no image passes the filters"),
        ({"stain": "sox10", "max_size": 40}, "no image passes the filters stain=sox10"),
    ],
)
def test_filters_that_leave_nothing_say_what_there_is(slides, options, match):
    with pytest.raises(ValueError, match=match):
        build(slides, scheme="slides", **options)


def test_a_stain_needs_a_scheme_that_gives_it(bps):
    with pytest.raises(ValueError, match="there are: none, the scheme gives no stain"):
        build(bps, stain="h&e")


# ------------------------------------------------------------------------------------------- what does not fit


def test_a_folder_in_order_gives_no_warning(bps, slides, tmp_path):
    build(bps)
    build(slides, scheme="slides", labels=tmp_path / "labels.csv")


def test_files_without_a_row_stay_with_empty_columns(bps):
    (bps / "meta.csv").write_text("".join(META.splitlines(keepends=True)[:3]))
    with reported("without_row", 1, NAMES[2]):
        table = build(bps)
    assert len(table) == 3
    assert table["particle_type"].isna().tolist() == [False, False, True]
    assert table["dose_Gy"].isna().tolist() == [False, False, True]
    assert table.attrs["report"] == {"without_row": {"count": 1, "examples": [str(bps / NAMES[2])]}}


def test_rows_without_a_file_are_left_out(bps):
    (bps / NAMES[0]).unlink()
    with reported("without_file", 1, NAMES[0]):
        table = build(bps)
    assert len(table) == 2
    assert table["hr_post_exposure"].tolist() == [4, 4]


def test_a_repeated_row_counts_once(bps):
    (bps / "meta.csv").write_text(META + META.splitlines()[1] + "\n")
    with reported("duplicates", 1, NAMES[0]):
        table = build(bps)
    assert table["dose_Gy"].tolist() == [0.82, 0.82, 0.0]


def test_rows_that_differ_are_believed_neither(bps):
    (bps / "meta.csv").write_text(META + f"{NAMES[0]},0.3,Fe,4\n")
    with reported("conflicts", 1, NAMES[0]), reported("without_row", 1, NAMES[0]):
        table = build(bps)
    assert table["dose_Gy"].isna().tolist() == [True, False, False]


def test_spaces_beside_commas_are_ignored_and_reported(bps):
    (bps / "meta.csv").write_text(META.replace(",", " , "))
    with reported("spaces", 4, "meta.csv line 1"):
        table = build(bps)
    assert table["dose_Gy"].tolist() == [0.82, 0.82, 0.0]
    assert table["particle_type"].tolist() == ["Fe", "Fe", "X-ray"]
    assert table["hr_post_exposure"].tolist() == [4, 4, 4]


def test_columns_that_the_files_give_are_taken_from_the_files(bps):
    lines = META.splitlines()
    (bps / "meta.csv").write_text("\n".join([lines[0] + ",well,height", *(line + ",Z9,1" for line in lines[1:])]))
    with reported("hidden_columns", 2, "well, height"):
        table = build(bps)
    assert table["well"].tolist() == ["A6", "A6", "C7"]
    assert table["height"].tolist() == [79, 89, 99]
    assert table.columns.is_unique


def test_unreadable_images_and_other_names_are_left_out_and_named(bps):
    (bps / NAMES[1]).write_bytes(b"")
    write_image(bps / "thumbnail.png", np.ones((5, 5), np.uint16))
    with (
        reported("unreadable", 1, f"{NAMES[1]}: not a TIFF or PNG"),
        reported("unmatched", 1, "thumbnail.png"),
        reported("without_file", 1),
    ):
        table = build(bps)
    assert table["path"].tolist() == [str(bps / NAMES[0]), str(bps / NAMES[2])]
    assert sorted(table.attrs["report"]) == ["unmatched", "unreadable", "without_file"]


def test_a_folder_that_cannot_be_listed_is_named_with_its_errno(bps, monkeypatch):
    (bps / "sub").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("sub"):
            raise OSError(errno.EIO, "I/O error")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with reported("unreadable", 1, r"sub: .*\(errno 5\)"):
        assert len(build(bps)) == 3


def test_a_corrupt_index_is_made_again_with_a_note(bps):
    table = build(bps)
    (bps.parent / "out/index.parquet").write_bytes(b"PAR1 and rubbish")
    with reported("index", 1, "index.parquet is not readable"):
        again = build(bps)
    pd.testing.assert_frame_equal(again, table)


def test_the_report_is_given_before_an_error_too(bps):
    for name in NAMES:
        (bps / name).write_bytes(b"")
    with (
        reported("unreadable", 3, NAMES[0]),
        pytest.raises(FileNotFoundError, match="no image below .* can be used: 3 are unreadable, 0 have names"),
    ):
        build(bps)


def test_the_wrong_scheme_is_named(slides):
    with reported("unmatched", 4), pytest.raises(FileNotFoundError, match="4 have names that do not fit scheme 'bps'"):
        build(slides)


def test_the_report_keeps_few_examples_of_many(bps):
    (bps / "meta.csv").write_text(META + "".join(f"{n}.tif,0,Fe,4\n" for n in range(5000)))
    with reported("without_file", 5000):
        table = build(bps)
    assert table.attrs["report"]["without_file"]["count"] == 5000
    assert len(table.attrs["report"]["without_file"]["examples"]) == 20


# ------------------------------------------------------------------------------------------- meta and labels files


def test_read_meta_gives_each_file_once_and_says_what_it_did(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("filename, dose_Gy\nb.tif,1\n\na.tif ,0.5\nb.tif,1\nc.tif,1\nc.tif,2\n")
    with reported("spaces", 2), reported("duplicates", 1, "b.tif"), reported("conflicts", 1, "c.tif"):
        table = read_meta(path)
    assert table.values.tolist() == [["b.tif", 1.0], ["a.tif", 0.5]]
    assert sorted(table.attrs["report"]) == ["conflicts", "duplicates", "spaces"]


def test_spreadsheet_habits_do_no_harm(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_bytes(b'\xef\xbb\xbffilename,note\r\n"a.tif","one, two"\r\n')
    assert read_meta(path).values.tolist() == [["a.tif", "one, two"]]


def test_file_names_of_digits_stay_text(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("dose_Gy,filename\n1,001\n")
    assert read_meta(path)["filename"].tolist() == ["001"]


@pytest.mark.parametrize("read", [read_meta, read_labels])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "table.csv is no CSV table in UTF-8"),
        (b"a,b\n1,2,3\n", "table.csv is no CSV table in UTF-8"),
        (b"\xff\xfe\n", "table.csv is no CSV table in UTF-8"),
        (b"name,value\na,b\n", r"table.csv needs the columns .* in its first line; it has name, value"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, read, content, match):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "table.csv")


def test_a_missing_table_is_named(tmp_path):
    for read in (read_meta, read_labels):
        with pytest.raises(FileNotFoundError, match="no table .*none.csv; check Config.meta and Config.labels"):
            read(tmp_path / "none.csv")


def test_labels_are_a_map_of_cases(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("label,site,case\n1,arm,007\n0,leg,010\n1,arm,007\n,arm,011\n")
    assert read_labels(path) == {"007": 1, "010": 0}


def test_spaces_in_labels_are_reported(tmp_path):
    (tmp_path / "labels.csv").write_text("case, label\ncase01, benign\n")
    with reported("spaces", 2, "labels.csv line 1"):
        assert read_labels(tmp_path / "labels.csv") == {"case01": "benign"}


def test_conflicting_labels_are_listed(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("case,label\ncase01,benign\ncase02,benign\ncase01,tumour\ncase03,x\ncase03,y\ncase03,z\n")
    with pytest.raises(ValueError, match="2 .*case01: benign, tumour; case03: x, y, z") as caught:
        read_labels(path)
    assert "case02" not in str(caught.value)


def test_other_columns_of_the_labels_come_along_where_a_case_has_one_value(slides, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "case,label,site,slide\ncase01,benign,arm,1\ncase01,benign,arm,2\ncase02,tumour,leg,1\ncase03,benign,,1\n"
    )
    table = build(slides, scheme="slides", labels=tmp_path / "labels.csv")
    assert table["label"].tolist() == ["benign", "benign", "tumour", "benign"]
    assert table["site"].tolist()[:3] == ["arm", "arm", "leg"]
    assert "slide" not in table


def test_a_case_without_label_is_reported(slides, tmp_path):
    (tmp_path / "labels.csv").write_text("case,label\ncase01,benign\ncase02,\ncase99,tumour\n")
    with reported("without_row", 2, SLIDES[2]):
        table = build(slides, scheme="slides", labels=tmp_path / "labels.csv")
    assert table["label"].isna().tolist() == [False, False, True, True]


def test_labels_need_a_scheme_with_cases(bps, tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    with pytest.raises(ValueError, match="labels go by case, but the scheme's groups are .*well"):
        build(bps, labels=tmp_path / "labels.csv")


# ------------------------------------------------------------------------------------------- the real structure


@pytest.fixture(scope="module")
def real_counts():
    return pd.read_csv(SAMPLE_DIR / "bps" / "real_counts.csv", dtype={"barcode": "str"})


def real_rows(counts):
    """A row for each image of the data set, with the real number in each well and made-up fields and nuclei."""
    rows = counts.loc[counts.index.repeat(counts["n"])].reset_index(drop=True)
    number = rows.groupby(["plate", "barcode", "well"]).cumcount()
    place = (number // 25 + 1).map("{:03d}".format) + "_" + (number % 25 + 1).map("{:03d}".format)
    rows["filename"] = rows["plate"] + "_" + rows["barcode"] + "-" + rows["well"] + "_" + place + "_proj.tif"
    return rows[["filename", "dose_Gy", "particle_type", "hr_post_exposure"]]


def test_the_real_structure_joins_on_file_names(real_counts, tmp_path, monkeypatch):
    rows = real_rows(real_counts)
    rows.sample(frac=1, random_state=0).to_csv(tmp_path / "meta.csv", index=False)
    fact = dict(zip(SCHEMA.names[1:], (29701, 0, 141, 149, "uint16", 1, False), strict=True))
    index = pa.Table.from_pylist([{"path": name, **fact} for name in sorted(rows["filename"])], SCHEMA)
    monkeypatch.setattr(metadata, "update_index", lambda *args: index)
    table = build_metadata(tmp_path, tmp_path / "index.parquet")
    assert len(table) == 77_177
    assert table["plate"].nunique() == 17
    assert len(table[["plate", "well"]].drop_duplicates()) == 135
    assert table["barcode"].nunique() == 18
    counts = table.groupby(["particle_type", "dose_Gy", "hr_post_exposure"])["plate"].agg(["size", "unique"])
    found = {key: (int(size), *plates) for key, size, plates in counts.itertuples()}
    assert found == REAL_CONDITIONS
    assert table["path"].is_monotonic_increasing


REAL_CONDITIONS = {  # particle, dose, hours: nuclei and plate, as measured on the real meta.csv
    ("Fe", 0.0, 4): (4632, "P244"),
    ("Fe", 0.0, 24): (4651, "P250"),
    ("Fe", 0.0, 48): (4507, "P253"),
    ("Fe", 0.3, 4): (4582, "P243"),
    ("Fe", 0.3, 24): (4668, "P249"),
    ("Fe", 0.82, 4): (4416, "P242"),
    ("Fe", 0.82, 24): (4515, "P248"),
    ("Fe", 0.82, 48): (4593, "P251"),
    ("X-ray", 0.0, 4): (4803, "P278"),
    ("X-ray", 0.0, 24): (4437, "P282"),
    ("X-ray", 0.0, 48): (4448, "P286"),
    ("X-ray", 0.1, 4): (4726, "P279"),
    ("X-ray", 0.1, 24): (4408, "P283"),
    ("X-ray", 0.1, 48): (4451, "P287"),
    ("X-ray", 1.0, 4): (4450, "P280"),
    ("X-ray", 1.0, 24): (4519, "P284"),
    ("X-ray", 1.0, 48): (4371, "P288"),
}
