import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpsutils.bucketing import collate_fn_pad
from bpsutils.datasets import ImageDataset
from bpsutils.images import to_float, write_image
from bpsutils.packed import PackedImages
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
