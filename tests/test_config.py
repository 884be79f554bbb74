"""The configuration: it refuses what cannot be right, and a file holds all of it."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpsutils.config import SAMPLE_DIR, Config, atomically

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_defaults_are_the_shipped_sample_and_the_main_task():
    config = Config()
    assert config.image_dir == SAMPLE_DIR / "bps"
    assert (config.target, config.classes, config.group) == (
        "particle_type",
        ("X-ray", "Fe"),
        ("particle_type", "well"),
    )
    assert config.index == Path("runs/sample/index.parquet")


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError, match="epochs"):
        Config().epochs = 3  # type: ignore[misc]
    assert dataclasses.replace(Config(), epochs=3).epochs == 3


def test_the_index_can_be_kept_elsewhere():
    assert Config(index_path="cache/i.parquet").index == Path("cache/i.parquet")
    assert Config(out_dir="elsewhere").index == Path("elsewhere/index.parquet")


def test_the_packed_store_can_be_kept_elsewhere():
    assert Config(pack_path="cache/images.pack").pack == Path("cache/images.pack")
    assert Config(out_dir="elsewhere").pack == Path("elsewhere/images.pack")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("epochs", 0, "Config.epochs must be at least 1"),
        ("batch_size", -1, "Config.batch_size must be at least 1"),
        ("pixel_budget", 0, "Config.pixel_budget must be at least 1"),
        ("packed", "yes", "Config.packed must be true or false"),
        ("min_size", 0, "Config.min_size must be at least 1"),
        ("resize", 0, "Config.resize must be at least 1"),
        ("seed", -1, "Config.seed must not be negative"),
        ("num_workers", -1, "Config.num_workers must not be negative"),
        ("weight_decay", -0.1, "Config.weight_decay must not be negative"),
        ("learning_rate", 0, "Config.learning_rate must be above 0"),
        ("learning_rate", float("nan"), "Config.learning_rate must be a finite number"),
        ("learning_rate", float("inf"), "Config.learning_rate must be a finite number"),
        ("fractions", (0.5, 0.5), "Config.fractions must be three shares"),
        ("fractions", (0.5, 0.4, 0.2), "Config.fractions must be three shares"),
        ("fractions", (1.5, -0.25, -0.25), "Config.fractions must be three shares"),
        ("classes", ("Fe",), "at least two classes"),
        ("classes", ("Fe", "Fe"), "at least two classes"),
        ("classes", ("Fe", "X-ray", "Fe"), "each once"),
        ("group", (), "Config.group must name at least one column"),
        ("value_range", (5, 5), "low < high"),
        ("value_range", (5,), "low < high"),
        ("device", "gpu", "'auto', 'cuda', 'mps' or 'cpu'"),
        ("epochs", 2.5, "Config.epochs must be a whole number"),
        ("epochs", True, "Config.epochs must be a whole number"),
        ("epochs", "3", "Config.epochs must be a whole number"),
        ("class_weights", 1, "Config.class_weights must be true or false"),
        ("classes", "Fe", "Config.classes must be a list"),
        ("image_dir", 3, "Config.image_dir must be a path"),
        ("stain", 3, "Config.stain must be text"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(field, value, match):
    with pytest.raises(ValueError, match=match):
        Config(**{field: value})


def test_sizes_must_be_in_order():
    assert Config(min_size=50, max_size=50).max_size == 50
    with pytest.raises(ValueError, match="Config.min_size 51 is above Config.max_size 50"):
        Config(min_size=51, max_size=50)


def test_cases_are_named_for_all_splits_and_once():
    named = Config(train_cases=("Fe/A6",), val_cases=("Fe/A8",), test_cases=("Fe/C6",))
    assert named.test_cases == ("Fe/C6",)
    with pytest.raises(ValueError, match="empty: Config.val_cases, Config.test_cases"):
        Config(train_cases=("Fe/A6",))
    with pytest.raises(ValueError, match="more than once among the splits: Fe/A6"):
        Config(train_cases=("Fe/A6",), val_cases=("Fe/A8",), test_cases=("Fe/A6",))


@given(
    stain=st.none() | TEXT,
    classes=st.lists(TEXT, min_size=2, max_size=4, unique=True),
    rate=st.floats(1e-9, 1e3),
    meta=st.none() | TEXT.map(lambda text: Path("data") / text.replace("\0", "")),
    resize=st.none() | st.integers(1, 10**6),
    weights=st.booleans(),
)
def test_a_file_holds_all_of_a_config(tmp_path_factory, stain, classes, rate, meta, resize, weights):
    config = Config(stain=stain, classes=classes, learning_rate=rate, meta=meta, resize=resize, class_weights=weights)
    path = tmp_path_factory.mktemp("config") / "config.toml"
    config.to_toml(path)
    assert Config.from_toml(path) == config


def test_changes_replace_what_the_file_says(tmp_path):
    Config(epochs=7, seed=3).to_toml(tmp_path / "config.toml")
    config = Config.from_toml(tmp_path / "config.toml", epochs=2)
    assert (config.epochs, config.seed) == (2, 3)


def test_a_file_that_is_no_config_is_refused(tmp_path):
    path = tmp_path / "config.toml"
    with pytest.raises(FileNotFoundError, match="no configuration file .*config.toml"):
        Config.from_toml(path)
    path.write_text("epochs = = 3")
    with pytest.raises(ValueError, match="config.toml is not valid TOML"):
        Config.from_toml(path)
    path.write_bytes(b"stain = '\xff'")
    with pytest.raises(ValueError, match="config.toml is not valid TOML"):
        Config.from_toml(path)
    path.write_text("epoch = 3")
    with pytest.raises(ValueError, match="unknown field epoch; known are .*epochs"):
        Config.from_toml(path)
    path.write_text("epochs = 0")
    with pytest.raises(ValueError, match="config.toml: Config.epochs must be at least 1"):
        Config.from_toml(path)


def test_atomically_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(TypeError, match="str"), atomically(path) as temporary, temporary.open("w") as file:
        file.writelines(["half of it", None])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomically_shows_nothing_before_the_end_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomically(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        same_file = temporary.stat().st_ino
    assert path.read_text() == "whole"
    assert path.stat().st_ino == same_file  # renamed, not copied
