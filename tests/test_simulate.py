"""The simulated nuclei: their format, their structure, their physics, and that the same seed makes the same pixels."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from bpsutils.config import SAMPLE_DIR
from bpsutils.images import read_header, read_image
from bpsutils.simulate import (
    META_COLUMNS,
    REAL_COUNTS,
    foci_left,
    iron_tracks,
    render,
    simulate_folder,
    simulate_table,
    xray_foci,
)

BPS = SAMPLE_DIR / "bps"
# Percentiles 1 to 99 of the real image of plate P242 (Fe, 0.82 Gy, 4 h).
REAL_PERCENTILES = {1: 323, 5: 347, 25: 408, 50: 508, 75: 729, 95: 984, 99: 1165}
CONDITIONS = {
    ("Fe", 0.0): (4632, 4651, 4507),
    ("Fe", 0.3): (4582, 4668),
    ("Fe", 0.82): (4416, 4515, 4593),
    ("X-ray", 0.0): (4803, 4437, 4448),
    ("X-ray", 0.1): (4726, 4408, 4451),
    ("X-ray", 1.0): (4450, 4519, 4371),
}


@pytest.fixture(scope="module")
def truth():
    return pd.read_csv(BPS / "truth.csv", dtype={"barcode": str, "field": str, "nucleus": str})


@pytest.fixture(scope="module")
def many():
    return simulate_table(6750, seed=1)


def test_counts_rebuild_the_structure_of_the_real_set():
    counts = pd.read_csv(REAL_COUNTS)
    assert counts["n"].sum() == 77_177
    assert counts["plate"].nunique() == 17
    assert counts["barcode"].nunique() == 18
    assert len(counts) == len(counts[["plate", "well"]].drop_duplicates()) == 135
    by_condition = counts.groupby(["particle_type", "dose_Gy", "hr_post_exposure"])["n"].sum()
    assert {key: tuple(by_condition[key]) for key in CONDITIONS} == CONDITIONS


def test_sample_has_every_plate_well_and_the_real_names(truth):
    meta = pd.read_csv(BPS / "meta.csv")
    assert list(meta.columns) == META_COLUMNS
    assert (BPS / "meta.csv").read_text().splitlines()[0] == "filename,dose_Gy,particle_type,hr_post_exposure"
    assert meta["filename"].str.fullmatch(r"P\d+_\d+-[A-Z]\d+_\d{3}_\d{3}_proj\.tif").all()
    assert meta["filename"].tolist() == truth["filename"].tolist()
    assert set(meta["filename"]) == {path.name for path in BPS.glob("*.tif")}
    real = pd.read_csv(REAL_COUNTS, dtype={"barcode": str})
    keys = ["plate", "barcode", "well", "dose_Gy", "particle_type", "hr_post_exposure"]
    assert len(truth[keys].drop_duplicates().merge(real, on=keys)) == 135
    assert truth.groupby(["plate", "well"]).size().between(4, 5).all()


def test_sample_is_in_the_real_format_and_says_that_it_is_simulated(truth):
    name = truth["filename"][0]
    with tifffile.TiffFile(BPS / name) as tiff:
        (page,) = tiff.pages
        assert (page.dtype, page.compression, page.predictor) == (np.uint16, 32946, 1)
        assert page.rowsperstrip * page.imagewidth * 2 <= 8192
    for name in truth["filename"]:
        assert read_header(BPS / name).software.startswith("bpsutils simulation")


def test_sizes_are_like_the_real_ones(many):
    usual = many[many["width"] <= 182]
    assert usual["height"].between(79, 170).all()
    assert usual["width"].between(114, 182).all()
    assert 0.002 < (many["width"] > 182).mean() < 0.02
    assert (many[["height", "width"]].max(axis=1) > 256).any()


def test_shipped_images_stay_small():
    assert sum(path.stat().st_size for path in BPS.iterdir()) < 15.5e6
    assert sum(path.stat().st_size for path in SAMPLE_DIR.rglob("*") if path.is_file()) <= 20e6


def test_percentiles_agree_with_the_real_image():
    """Within 15 % of the real image's, for the condition that it has; the foci's tail may differ by 25 %."""
    table = simulate_table(6000, plate_effect=0)
    alike = (table["plate"] == "P242") & (table["focus"] == "sharp") & (table["kind"] == "normal")
    rows = table[alike].head(80).to_dict("records")
    levels = np.median([np.percentile(render(row), list(REAL_PERCENTILES)) for row in rows], axis=0)
    for (percent, real), level in zip(REAL_PERCENTILES.items(), levels, strict=True):
        assert level == pytest.approx(real, rel=0.25 if percent == 99 else 0.15), percent


def test_committed_sample_is_what_the_generator_makes(truth):
    pd.testing.assert_frame_equal(simulate_table(len(truth)), truth, rtol=1e-12)
    for row in truth.iloc[::100].to_dict("records"):
        assert np.array_equal(render(row), read_image(BPS / row["filename"])), row["filename"]


def test_same_seed_same_pixels_on_every_python_and_numpy():
    rows = simulate_table(135, seed=3).iloc[::27].to_dict("records")
    digest = hashlib.sha256(b"".join(render(row, seed=3).tobytes() for row in rows)).hexdigest()
    assert digest[:16] == "8cfcab1f863e4102"


def test_another_seed_makes_other_nuclei():
    row = simulate_table(135).iloc[0].to_dict()
    assert not np.array_equal(render(row, seed=0), render(row, seed=1))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 599))
def test_without_foci_only_foci_are_gone(number):
    row = pd.read_csv(BPS / "truth.csv").iloc[number].to_dict()
    whole, bare = render(row).astype(int), render(row, foci=False).astype(int)
    n_foci = row["spontaneous_foci"] + row["radiation_foci"]
    if n_foci == 0:
        assert np.array_equal(whole, bare)
    elif row["focus"] == "sharp" and row["kind"] == "normal":
        changed = np.abs(whole - bare) > 0.25 * row["gain"] * 100
        assert 0 < changed.sum() < 150 * n_foci
        assert (whole - bare).sum() > 0


def test_mice_are_alike_across_plates_and_vanish_at_effect_0(many):
    spread = many.groupby("mouse")["area_px"].mean().std()
    none = simulate_table(6750, seed=1, mouse_effect=0)
    assert none["texture_px"].nunique() == none["autofluorescence"].nunique() == 1
    assert none.groupby("mouse")["area_px"].mean().std() < spread / 4
    assert (many.groupby("mouse")["texture_px"].nunique() == 1).all()


def test_branches_have_the_same_mice(many):
    """Else the particle could be told from the nucleus's size or texture, in images without a single focus."""
    mice = many.drop_duplicates("mouse")
    for trait in ("texture_px", "autofluorescence"):
        fe, xray = (sorted(mice.loc[mice["particle_type"] == particle, trait]) for particle in ("Fe", "X-ray"))
        assert fe == xray


def test_plate_effect_scales_the_shift_of_brightness_only(many):
    plates = many.groupby("plate")[["gain", "offset"]].nunique()
    assert (plates == 1).all(axis=None)
    assert many["gain"].nunique() > 14
    none = simulate_table(270, plate_effect=0)
    assert (none["gain"] == 1).all()
    assert (none["offset"] == 0).all()
    row = none.iloc[0].to_dict()
    plain, brighter = render(row).astype(float), render(row | {"gain": 1.5, "offset": 40.0}).astype(float)
    assert np.abs(brighter - (1.5 * (plain - 100) + 140)).max() <= 1.3  # rounding: the same noise, scaled


def test_foci_follow_dose_time_and_particle(many):
    mean = many.groupby(["particle_type", "dose_Gy", "hr_post_exposure"])["radiation_foci"].mean()
    assert mean["Fe", 0.0, 4] == mean["X-ray", 0.0, 48] == 0
    for particle, dose in (("Fe", 0.82), ("X-ray", 1.0)):
        assert mean[particle, dose, 4] > mean[particle, dose, 24] > mean[particle, dose, 48] > 0
    assert mean["X-ray", 1.0, 4] > 2 * mean["X-ray", 0.1, 4]
    assert mean["X-ray", 1.0, 4] == pytest.approx(xray_foci(1.0) * foci_left("X-ray", 4), rel=0.1)
    tracks = many[many["dose_Gy"] == 0.82]["tracks"].mean()
    assert tracks == pytest.approx(iron_tracks(0.82), rel=0.1)
    assert (many.loc[many["particle_type"] == "X-ray", "tracks"] == 0).all()
    assert many["spontaneous_foci"].mean() > 0.3


def test_iron_foci_lie_on_lines_and_xray_foci_do_not():
    def straightness(row):
        light = render(row | {"spontaneous_foci": 0}).astype(float) - render(row, foci=False)
        bright = np.argwhere(light > 150)
        sides = np.linalg.svd(bright - bright.mean(axis=0), compute_uv=False)
        return sides[1] / sides[0]

    table = simulate_table(2700, mouse_effect=0, plate_effect=0)
    table = table[(table["kind"] == "normal") & (table["focus"] == "sharp")]
    iron = table[(table["tracks"] == 1) & (table["radiation_foci"] >= 6)].head(10).to_dict("records")
    xray = table[(table["tracks"] == 0) & (table["radiation_foci"] >= 6)].head(10).to_dict("records")
    assert np.median([straightness(row) for row in iron]) < 0.2
    assert np.median([straightness(row) for row in xray]) > 0.4


def test_dark_and_saturated_crops(many):
    assert 0.01 < (many["kind"] == "dark").mean() < 0.03
    assert 0.01 < (many["kind"] == "saturated").mean() < 0.03
    row = many[many["kind"] == "normal"].iloc[0].to_dict()
    assert np.median(render(row | {"kind": "dark"})) < 0.5 * np.median(render(row))
    saturated = many[many["kind"] == "saturated"].head(8).to_dict("records")
    assert all((render(row, seed=1) == 65535).any() for row in saturated)


def test_blurred_crops_lose_their_points(many):
    row = many[(many["radiation_foci"] > 5) & (many["kind"] == "normal")].iloc[0].to_dict()
    sharp, blurred = (render(row | {"focus": focus}).astype(float).max() for focus in ("sharp", "blurred"))
    assert blurred < 0.8 * sharp


def test_folder_is_finished_by_the_same_call_and_safe_from_others(tmp_path):
    simulate_folder(tmp_path, 5, workers=1, progress=False)
    first, *others = sorted(tmp_path.glob("*.tif"))
    pixels, kept = read_image(first), others[0].stat().st_mtime_ns
    first.unlink()
    simulate_folder(tmp_path, 5, workers=1, progress=False)
    assert np.array_equal(read_image(first), pixels)
    assert others[0].stat().st_mtime_ns == kept
    with pytest.raises(FileExistsError, match="holds other files"):
        simulate_folder(tmp_path, 6, workers=1, progress=False)
    assert len(list(tmp_path.glob("*.tif"))) == 5


def test_number_of_images_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        simulate_folder(tmp_path / "new", 0, progress=False)
    assert not (tmp_path / "new").exists()
