import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from bpsutils.bucketing import collate_fn_pad
from bpsutils.datasets import ImageDataset, ImageStream, rank_and_world_size, sample_seed
from bpsutils.images import ImageError, read_image, write_image
from bpsutils.transforms import AddNoise, Compose, HorizontalFlip, QuarterTurn, RandomCrop

AUGMENT = Compose([QuarterTurn(), HorizontalFlip(), AddNoise(sigma=50.0)])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twelve small images of twelve sizes, no two pixels of one image alike, half of them above 32767."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        path = folder / f"nucléus_{number:02d}.tif"
        height, width = 8 + number, 20 - number
        write_image(path, rng.choice(65536, (height, width), replace=False).astype(np.uint16))
        particle, well = ("Fe", "A6") if number % 3 else ("X-ray", "C7")
        rows.append((str(path), particle, well, height, width))
    # An index that does not count from 0, as tables have that were filtered.
    columns = ["path", "particle_type", "well", "height", "width"]
    return pd.DataFrame(rows, columns=columns, index=range(100, 112))


def pixels(samples):
    return [sample["image"].numpy() for sample in samples]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def loaded(dataset, workers, epochs=(0,), **options):
    """Images by index from a loader that keeps its workers from epoch to epoch."""
    loader = DataLoader(
        dataset, batch_size=4, collate_fn=list, num_workers=workers, persistent_workers=workers > 0, **options
    )
    found = []
    for epoch in epochs:
        dataset.set_epoch(epoch)
        samples = sorted((sample for batch in loader for sample in batch), key=lambda sample: sample["index"])
        found.append(pixels(samples))
    return found


# ------------------------------------------------------------------------------------------- samples


def test_sample_is_the_file_untouched(table):
    dataset = ImageDataset(table)
    for number, (path, sample) in enumerate(zip(table["path"], dataset, strict=True)):
        assert np.array_equal(sample["image"].numpy(), read_image(path)[None])
        assert sample["image"].dtype == torch.uint16
        assert (sample["path"], sample["index"]) == (path, number)
        assert sample["label"] == (0 if number % 3 else 1)
        assert set(sample) == {"image", "label", "group", "path", "index"}


def test_colour_images_have_their_channels_first(tmp_path):
    colour = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(4, 5, 3)
    write_image(tmp_path / "a.png", colour)
    sample = ImageDataset(pd.DataFrame({"path": [tmp_path / "a.png"]}), target=None)[0]
    assert np.array_equal(sample["image"].numpy(), np.moveaxis(colour, 2, 0))


def test_samples_as_tuples(table):
    image, label = ImageDataset(table, as_tuple=True)[3]
    assert (image.shape, label) == ((1, 11, 17), 1)
    assert len(ImageDataset(table, target=None, as_tuple=True)[3]) == 1


def test_images_without_labels(table):
    dataset = ImageDataset(table.drop(columns="particle_type"), target=None)
    assert "label" not in dataset[0]
    assert (dataset.labels, dataset.classes) == (None, ())


def test_classes_give_the_numbers(table):
    assert ImageDataset(table).classes == ("Fe", "X-ray")
    dataset = ImageDataset(table, classes=["neutron", "X-ray", "Fe"])
    assert dataset.labels.tolist() == [1 if number % 3 == 0 else 2 for number in range(12)]
    doubled = ImageDataset(table, classes=["X-ray", "Fe"], target_transform=lambda number: 10 * number)
    assert [doubled[index]["label"] for index in (0, 1)] == [0, 10]


def test_numbers_can_be_classes(table):
    doses = table.assign(dose_Gy=[0.82, 0.0, 0.3] * 4)
    assert ImageDataset(doses, target="dose_Gy").classes == ("0.0", "0.3", "0.82")
    assert ImageDataset(doses, target="dose_Gy", classes=("0.0", "0.3", "0.82")).labels.tolist() == [2, 0, 1] * 4


def test_group_comes_from_columns_or_from_the_tables_own(table):
    assert ImageDataset(table, group=("particle_type", "well"))[0]["group"] == "X-ray/C7"
    assert ImageDataset(table.assign(group="Fe/é"))[0]["group"] == "Fe/é"
    assert ImageDataset(table)[0]["group"] == ""


def test_sizes_are_those_of_the_table(table):
    assert ImageDataset(table).sizes.tolist() == table[["height", "width"]].to_numpy().tolist()
    assert ImageDataset(table.drop(columns="height")).sizes is None


def test_index_follows_the_rules_of_a_list(table):
    dataset = ImageDataset(table)
    assert dataset[-1]["index"] == 11
    assert dataset[np.int64(2)]["index"] == 2
    with pytest.raises(IndexError, match="out of range"):
        dataset[12]


def test_dataset_keeps_no_table_and_no_list(table):
    """Either would grow every worker's memory; bytes of one width do not."""
    dataset = ImageDataset(table, group=("well",))
    assert {dataset.paths.dtype.kind, dataset.groups.dtype.kind} == {"S"}
    assert not any(isinstance(value, list | pd.DataFrame | pd.Series) for value in vars(dataset).values())


def test_reading_waits_until_a_sample_is_asked_for(table):
    gone = table.assign(path=[*table["path"][:11], "/nowhere/gone.tif"])
    dataset = ImageDataset(gone)
    assert dataset[10]["index"] == 10
    with pytest.raises(FileNotFoundError, match="/nowhere/gone.tif"):
        dataset[11]


# ------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize(
    "transform",
    [
        AUGMENT,
        v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomCrop(7),
            ]
        ),
    ],
    ids=["ours", "torchvision"],
)
def test_same_samples_whatever_the_workers(table, transform):
    dataset = ImageDataset(table, transform, seed=3)
    alone = loaded(dataset, 0, epochs=(0, 1, 0))
    assert same(alone[0], alone[2])
    assert not same(alone[0], alone[1])
    workers = loaded(dataset, 2, epochs=(0, 1, 0))
    assert all(same(*epochs) for epochs in zip(alone, workers, strict=True))


def test_a_sample_does_not_depend_on_what_was_read_before(table):
    dataset = ImageDataset(table, AUGMENT)
    in_order = pixels(dataset[index] for index in range(12))
    backwards = pixels(dataset[index] for index in reversed(range(12)))
    assert same(in_order, backwards[::-1])


def test_seeds_and_indices_get_numbers_of_their_own(table):
    def draw(_):
        return torch.randint(2**60, (1,))

    drawn = {int(ImageDataset(table, draw, seed=seed)[index]["image"]) for seed in range(5) for index in range(12)}
    assert len(drawn) == 60


def test_sample_seeds_do_not_collide_between_epochs():
    seeds = {sample_seed(seed, epoch, index) for seed in range(5) for epoch in range(20) for index in range(50)}
    assert len(seeds) == 5 * 20 * 50


def test_global_generator_is_left_as_it_was(table):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert len(pixels(ImageDataset(table, AUGMENT))) == 12
    assert torch.equal(torch.get_rng_state(), before)


def test_global_generator_is_left_as_it_was_by_a_transform_that_fails(table):
    def fails(image):
        raise RuntimeError(f"no luck {torch.rand(())}")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no luck") as caught:
        ImageDataset(table, fails)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert caught.value.__notes__ == [f"while transforming {table['path'].iloc[0]}, torch.uint16 of shape (1, 8, 20)"]


# ------------------------------------------------------------------------------------------- refusals


def test_dataset_refuses_a_table_it_cannot_use(table):
    with pytest.raises(ValueError, match="no column particle_type; its columns are path, well"):
        ImageDataset(table[["path", "well"]])
    with pytest.raises(ValueError, match="no column dose_Gy, mouse; its columns are"):
        ImageDataset(table, target="dose_Gy", group=("mouse",))
    with pytest.raises(ValueError, match="the table has no rows: the filters or the split left no image"):
        ImageDataset(table[:0])


def test_dataset_refuses_missing_and_unknown_classes(table):
    with pytest.raises(ValueError, match="unknown class Fe; classes are X-ray, neutron"):
        ImageDataset(table, classes=["X-ray", "neutron"])
    missing = table.assign(particle_type=[None, *table["particle_type"][1:]])
    with pytest.raises(ValueError, match="1 rows have no particle_type, the first is .*_00.tif; leave them out"):
        ImageDataset(missing)


def test_unreadable_file_is_named(table, tmp_path):
    (tmp_path / "empty.tif").touch()
    dataset = ImageDataset(pd.DataFrame({"path": [str(tmp_path / "empty.tif")]}), target=None)
    with pytest.raises(ImageError, match="empty.tif"):
        dataset[0]


# ------------------------------------------------------------------------------------------- stream


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_stream_gives_every_row_once_over_workers_and_ranks(table, monkeypatch, workers, world_size, shuffle):
    shares = []
    for rank in range(world_size):
        stream = ImageStream(table, shuffle=shuffle, rank=rank, world_size=world_size)
        for worker in range(max(workers, 1)):
            info = SimpleNamespace(id=worker, num_workers=workers) if workers else None
            monkeypatch.setattr("bpsutils.datasets.get_worker_info", lambda info=info: info)
            shares.append([sample["index"] for sample in stream])
    assert sorted(sum(shares, [])) == list(range(12))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_stream_through_loaders_with_workers(table):
    batches = []
    for rank in (0, 1):
        stream = ImageStream(table, rank=rank, world_size=2)
        batches += list(DataLoader(stream, batch_size=2, num_workers=2, collate_fn=collate_fn_pad))
    assert sorted(sum((batch["indices"].tolist() for batch in batches), [])) == list(range(12))


def test_stream_is_in_the_tables_order_or_shuffled_by_seed_and_epoch(table):
    assert [sample["index"] for sample in ImageStream(table)] == list(range(12))

    def order(seed, epoch):
        stream = ImageStream(table, shuffle=True, seed=seed)
        stream.set_epoch(epoch)
        return stream.share().tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_stream_gives_the_samples_of_the_dataset(table):
    dataset, stream = ImageDataset(table, AUGMENT, seed=2), ImageStream(table, AUGMENT, seed=2)
    assert same(loaded(dataset, 0, epochs=(3,))[0], loaded(stream, 2, epochs=(3,))[0])


def test_living_workers_of_a_stream_see_the_epoch(table):
    stream = ImageStream(table, AUGMENT, shuffle=True)
    workers, alone = loaded(stream, 2, epochs=(0, 1)), loaded(stream, 0, epochs=(0, 1))
    assert same(workers[1], alone[1])
    assert not same(workers[0], workers[1])


def test_stream_keeps_its_rank_when_it_is_sent_to_a_spawned_worker(table, monkeypatch):
    stream = ImageStream(table)
    with monkeypatch.context() as running:
        running.setattr(torch.distributed, "is_initialized", lambda: True)
        running.setattr(torch.distributed, "get_rank", lambda: 1)
        running.setattr(torch.distributed, "get_world_size", lambda: 3)
        assert rank_and_world_size() == (1, 3)
        sent = pickle.dumps(stream)
    assert pickle.loads(sent).share().tolist() == [1, 4, 7, 10]
    assert stream.share().tolist() == list(range(12))


def test_stream_refuses_an_impossible_rank(table):
    with pytest.raises(ValueError, match="rank must be from 0 to below world_size, got 3 of 3"):
        ImageStream(table, rank=3, world_size=3)


def test_crops_are_cut_elsewhere_in_each_epoch(table):
    """What the epoch is for: a fixed set of random crops would be no augmentation."""
    dataset = ImageDataset(table, RandomCrop(4))
    epochs = loaded(dataset, 0, epochs=range(8))
    assert len({epoch[0].tobytes() for epoch in epochs}) > 3
