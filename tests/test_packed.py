import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bpsutils.__main__ import main
from bpsutils.bucketing import collate_fn_pad
from bpsutils.config import Config
from bpsutils.datasets import ImageDataset
from bpsutils.images import read_image, to_float, write_image
from bpsutils.packed import PackedImages, collate_fn_packed
from bpsutils.store import Store
from bpsutils.transforms import AddNoise, Compose, HorizontalFlip, QuarterTurn, Resize, ToFloat, ToTensor, VerticalFlip

MOVES = st.one_of(
    st.builds(HorizontalFlip, st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    st.builds(VerticalFlip, st.sampled_from([0.0, 0.5, 0.7, 1.0])),
    st.builds(QuarterTurn),
    st.builds(ToTensor),
)
OTHERS = st.sampled_from([Resize(9), AddNoise(30.0), ToFloat((200, 3000))])


def make_table(folder, sizes, colour=False, seed=0):
    """Images of these sizes, their values from the whole range, as a table."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, (height, width) in enumerate(sizes):
        path = folder / f"nucléus_{number:02d}.{'png' if colour else 'tif'}"
        shape = (height, width, 3) if colour else (height, width)
        write_image(path, rng.integers(0, 256 if colour else 65536, shape).astype(np.uint8 if colour else np.uint16))
        rows.append((str(path), ("X-ray", "Fe")[number % 2], f"well {number % 3}"))
    return pd.DataFrame(rows, columns=["path", "particle_type", "group"])


SIZES = [(8 + number, 20 - number) for number in range(12)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twelve small images of twelve sizes."""
    return make_table(tmp_path_factory.mktemp("images"), SIZES)


@pytest.fixture(scope="module")
def pack(table, tmp_path_factory):
    """A store of the images of `table`."""
    folder = tmp_path_factory.mktemp("store") / "images.pack"
    PackedImages.build(table, folder)
    return folder


def assert_same(batch, expected):
    assert list(batch) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert batch[key].dtype == value.dtype, key
            assert np.array_equal(batch[key].numpy(), value.numpy()), key
        else:
            assert batch[key] == value, key


def expected_batch(dataset, indices, scale=None):
    """What `ImageDataset` and `collate_fn_pad` give, scaled where the transform left whole numbers."""
    samples = [dataset[index] for index in indices]
    for sample in samples:
        if scale and not sample["image"].is_floating_point():
            sample["image"] = to_float(sample["image"], scale)
    return collate_fn_pad(samples)


# ------------------------------------------------------------------------------------ the same, bit for bit

INDICES = st.lists(st.integers(-12, 11), min_size=1, max_size=12)
RANGES = st.sampled_from([(0, 65535), (257, 2470), (0.1, 999.7), (-5, 4095)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indices=INDICES,
    parts=st.lists(MOVES, max_size=5),
    other=st.one_of(st.none(), OTHERS),
    scale=st.one_of(st.none(), RANGES),
    seed=st.integers(0, 2**33),
    epoch=st.integers(0, 1000),
    target=st.sampled_from(["particle_type", None]),
    on_device=st.booleans(),
)
@example([0, 11], [], None, (0, 65535), 0, 0, None, True)  # levels above 32767, which are below 0 as int16
def test_batches_are_those_of_the_files(table, pack, indices, parts, other, scale, seed, epoch, target, on_device):
    transform = Compose([Compose(parts), *([other] if other else [])])
    options = {"transform": transform, "target": target, "seed": seed}
    files = ImageDataset(table, **options)
    reading = {"dtype": torch.float32, "value_range": scale} if scale else {"dtype": torch.uint16}
    packed = PackedImages(pack, table, **options, **reading)
    if on_device:  # the way over a device's memory, walked on the CPU
        packed._resident = packed._upload(torch.device("cpu"))
    files.set_epoch(epoch)
    packed.set_epoch(epoch)
    assert_same(packed.__getitems__(indices), expected_batch(files, indices, scale))


@pytest.mark.parametrize("on_device", [False, True])
def test_colour_images_are_packed_as_they_are(tmp_path, on_device):
    table = make_table(tmp_path, SIZES[:4], colour=True)
    turned = {"transform": Compose([QuarterTurn(), HorizontalFlip()]), "seed": 3}
    for dtype, scale in ((torch.uint16, None), (torch.float32, (0, 255))):
        packed = PackedImages.build(table, tmp_path / "pack", **turned, dtype=dtype, value_range=scale or (0, 1))
        if on_device:
            packed._resident = packed._upload(torch.device("cpu"))
        batch = packed.__getitems__([3, 1, 0])
        assert_same(batch, expected_batch(ImageDataset(table, **turned), [3, 1, 0], scale))
        assert batch["images"].shape[1] == 3


def test_padding_is_zero_where_the_darkest_level_is_not(table, pack):
    batch = PackedImages(pack, table, value_range=(257, 2470)).__getitems__([0, 11])
    assert (batch["images"][:, 0][~batch["mask"]] == 0).all()
    assert not batch["mask"].all()


@pytest.mark.parametrize("transform", [None, QuarterTurn(), AddNoise(30.0)])
def test_one_sample_is_that_of_the_file(table, pack, transform):
    packed = PackedImages(pack, table, transform, dtype=torch.uint16)
    files = ImageDataset(table, transform)
    for index in (0, 7, -1):
        sample, expected = packed[index], files[index]
        assert np.array_equal(sample.pop("image").numpy(), expected.pop("image").numpy())
        assert sample == expected
    scaled = PackedImages(pack, table)[7]["image"]
    assert torch.equal(scaled, to_float(ImageDataset(table)[7]["image"]))


class Inverted(HorizontalFlip):
    def __call__(self, image):
        return torch.from_numpy(65535 - image.numpy())


def test_what_inherits_from_a_flip_is_called(table, pack):
    batch = PackedImages(pack, table, Inverted(), dtype=torch.uint16).__getitems__([0, 1])
    expected = collate_fn_pad([ImageDataset(table, Inverted())[index] for index in (0, 1)])
    assert torch.equal(batch["images"], expected["images"])


def test_pixels_are_uploaded_in_blocks_of_the_tables_own_rows(table, pack, monkeypatch):
    rows = table.iloc[[9, 3, 3, 5, 0]]
    monkeypatch.setattr("bpsutils.packed._UPLOAD", 2)
    packed = PackedImages(pack, rows, dtype=torch.uint16)
    expected = packed.__getitems__(range(5))
    packed._resident = packed._upload(torch.device("cpu"))
    assert packed._resident.nbytes == packed.nbytes == 2 * rows["path"].map(lambda path: read_image(path).size).sum()
    assert_same(packed.__getitems__(range(5)), expected)


def test_assembling_draws_nothing_from_the_global_generator(table, pack):
    packed = PackedImages(pack, table, Compose([HorizontalFlip(), QuarterTurn()]))
    before = torch.get_rng_state()
    packed.__getitems__([0, 1])
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------------------------------- as a dataset


def test_it_is_a_dataset_like_that_of_the_files(table, pack):
    packed = PackedImages(pack, table.iloc[:5], classes=["X-ray", "Fe"])
    assert len(packed) == 5
    assert packed.classes == ("X-ray", "Fe")
    assert packed.labels.tolist() == [0, 1, 0, 1, 0]
    assert packed.sizes.tolist() == list(map(list, SIZES[:5]))
    assert packed.groups.tolist() == [b"well 0", b"well 1", b"well 2", b"well 0", b"well 1"]
    packed.set_epoch(3)
    assert packed.epoch == 3


@pytest.mark.parametrize("context", [None, "spawn"])
def test_loaders_take_its_batches_also_from_workers(table, pack, context):
    options = {"transform": Compose([QuarterTurn(), VerticalFlip()])}
    packed = PackedImages(pack, table, **options)
    loader = DataLoader(
        packed, 5, collate_fn=collate_fn_packed, num_workers=1 if context else 0, multiprocessing_context=context
    )
    files = ImageDataset(table, **options)
    for epoch in (0, 1):
        packed.set_epoch(epoch)
        files.set_epoch(epoch)
        for start, batch in zip((0, 5, 10), loader, strict=True):
            assert_same(batch, expected_batch(files, range(12)[start : start + 5], (0, 65535)))


def test_a_pickle_holds_no_pixels(tmp_path):
    packed = PackedImages.build(make_table(tmp_path, [(500, 400)]), tmp_path / "pack")
    pickled = pickle.dumps(packed)
    assert len(pickled) < 20_000 < packed.nbytes
    assert_same(pickle.loads(pickled).__getitems__([0]), packed.__getitems__([0]))
    packed._resident = packed._upload(torch.device("cpu"))
    with pytest.raises(ValueError, match="pixels on cpu cannot be shared with workers; set num_workers=0"):
        pickle.dumps(packed)


def test_a_store_on_the_cpu_stays_in_its_file(table, pack):
    packed = PackedImages(pack, table)
    packed._resident = packed._upload(torch.device("cpu"))
    assert packed.to("cpu") is packed
    assert (packed._resident, packed.device) == (None, torch.device("cpu"))


def test_what_cannot_be_is_refused(table, pack, tmp_path):
    packed = PackedImages(pack, table)
    with pytest.raises(ValueError, match="got no indices"):
        packed.__getitems__([])
    with pytest.raises(IndexError, match="out of bounds"):
        packed.__getitems__([0, 12])
    with pytest.raises(IndexError, match="out of range"):
        packed[12]
    with pytest.raises(ValueError, match=r"dtype must be torch.float32 .*, got torch.float16"):
        PackedImages(pack, table, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"value_range must be \(low, high\)"):
        PackedImages(pack, table, value_range=(3, 3))
    with pytest.raises(ValueError, match="the table has no column path"):
        PackedImages.build(table.drop(columns="path"), tmp_path / "other")
    with pytest.raises(ValueError, match="12 new, the first is .*bpsutils pack"):
        PackedImages(tmp_path, table)


def test_pack_command_packs_once_and_then_verifies(tmp_path, capsys):
    make_table(tmp_path / "images", SIZES)
    Config(scheme="(?P<name>.+)").to_toml(tmp_path / "c.toml")
    folders = ["--data", str(tmp_path / "images"), "--out", str(tmp_path / "run")]
    options = ["--config", str(tmp_path / "c.toml"), *folders]
    assert main(["pack", *options]) == 0
    first = capsys.readouterr().out
    store = Store.read(tmp_path / "run" / "images.pack")
    assert len(store.rows) == 12
    assert "packed 12 images in" in first
    assert f"digest {store.digest[:16]}" in first
    assert "loads from it, once `packed = true`" in first
    assert main(["pack", *options]) == 0
    assert "nothing to do: the images are there" in capsys.readouterr().out
    (store.folder / "pixels.bin").write_bytes(b"x" * store.length)
    assert main(["pack", *options]) == 1
    assert "are not those that were packed; delete the folder" in capsys.readouterr().err
