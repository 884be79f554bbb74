"""The drawn digits and simulated slide patches."""

import csv
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import MNIST

from bpsutils.config import SAMPLE_DIR
from bpsutils.drawings import draw_case, draw_digit, draw_digits, draw_patch, draw_slides
from bpsutils.images import read_header, read_image
from bpsutils.metadata import build_metadata, read_labels

DIGITS, SLIDES = SAMPLE_DIR / "digits", SAMPLE_DIR / "slides"


@pytest.mark.parametrize(("train", "count"), [(True, 300), (False, 100)])
def test_torchvision_reads_the_digits_as_mnist(train, count):
    digits = MNIST(DIGITS, train=train, download=False)
    assert len(digits) == count
    assert Counter(digits.targets.tolist()) == dict.fromkeys(range(10), count // 10)
    image, label = digits[0]
    assert image.size == (28, 28)
    assert 0 <= label <= 9


def test_digits_are_told_apart_by_their_nearest_neighbour():
    """A drawing that nobody could read would not be learnt either."""
    train, test = MNIST(DIGITS, train=True), MNIST(DIGITS, train=False)
    known, new = (digits.data.reshape(len(digits), -1).float() for digits in (train, test))
    nearest = (new[:, None] - known[None]).square().sum(-1).argmin(1)
    assert (train.targets[nearest] == test.targets).float().mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.integers(0, 1000))
def test_a_digit_is_bright_on_dark_and_inside_its_frame(digit, seed):
    image = draw_digit(digit, np.random.default_rng(seed))
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert image.max() > 180
    assert np.median(image) < 20
    assert max(image[0].max(), image[:, 0].max()) < 60


def test_committed_digits_are_what_the_generator_draws(tmp_path):
    draw_digits(tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "MNIST" / "raw").iterdir()}
    kept = {path.name: path.read_bytes() for path in (DIGITS / "MNIST" / "raw").iterdir()}
    assert made == kept


def test_slides_have_three_stains_twelve_cases_and_labels_elsewhere(tmp_path):
    table = build_metadata(
        SLIDES / "images", tmp_path / "index.parquet", "slides", labels=SLIDES / "annotations" / "labels.csv"
    )
    assert len(table) == 120
    assert Counter(table["stain"]) == {"h&e": 48, "melan": 36, "sox10": 36}
    labels = read_labels(SLIDES / "annotations" / "labels.csv")
    assert set(table["case"]) == set(labels)
    assert (table["label"] == table["case"].map(labels)).all()
    assert Counter(labels.values()) == {"benign": 6, "malignant": 6}


def test_slides_differ_in_size_by_a_factor_of_several_and_say_that_they_are_simulated():
    headers = [read_header(path) for path in (SLIDES / "images").glob("*.png")]
    shorter = [min(header.height, header.width) for header in headers]
    assert max(shorter) > 3 * min(shorter)
    assert all(header.channels == 3 and header.dtype == np.uint8 for header in headers)
    assert all(header.software.startswith("bpsutils simulation") for header in headers)


def test_committed_slides_are_what_the_generator_draws(tmp_path):
    draw_slides(tmp_path, cases=1)
    made = sorted((tmp_path / "images").iterdir())
    assert len(made) == 10
    for path in made:
        assert np.array_equal(read_image(path), read_image(SLIDES / "images" / path.name)), path.name
    with (SLIDES / "annotations" / "labels.csv").open() as file:
        assert next(csv.DictReader(file)) == {"case": "case01", "label": "benign"}


def test_malignant_nuclei_stain_more_of_a_patch_in_every_stain():
    def darkness(label, stain):
        return np.mean(
            [
                255 - draw_patch(draw_case(label, rng), stain, 120, 120, rng).mean()
                for rng in map(np.random.default_rng, range(8))
            ]
        )

    for stain in ("h&e", "melan", "sox10"):
        assert darkness("malignant", stain) > darkness("benign", stain)


def test_an_unknown_stain_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'h&e', 'melan' or 'sox10', got 'pas'"):
        draw_patch(draw_case("benign", rng), "pas", 40, 40, rng)
