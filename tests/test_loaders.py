import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from bpsutils.bucketing import padding_waste
from bpsutils.config import Config
from bpsutils.datasets import ImageDataset, ImageStream
from bpsutils.images import write_image
from bpsutils.loaders import make_loaders, measure_workers, set_epoch
from bpsutils.packed import PackedImages
from bpsutils.samplers import DistributedBatches

SPLITS = ["train"] * 24 + ["val"] * 9 + ["test"] * 7
CONFIG = Config(batch_size=4, device="cpu", seed=5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Forty images of forty sizes, split and grouped by hand."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for number, split in enumerate(SPLITS):
        height, width = rng.integers(6, 30, 2)
        path = folder / f"{number:02d}.tif"
        write_image(path, rng.choice(65536, (height, width), replace=False).astype(np.uint16))
        particle = ("X-ray", "Fe")[number % 2]
        rows.append((str(path), particle, f"{particle}/{split}", split, height, width))
    columns = ["path", "particle_type", "group", "split", "height", "width"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def by_path(loader, epoch=0):
    """Unpadded images of an epoch by path."""
    set_epoch(loader, epoch)
    return {
        path: image[:, :h, :w].numpy()
        for batch in loader
        for path, image, (h, w) in zip(batch["paths"], batch["images"], batch["sizes"], strict=True)
    }


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


def batches_of(loader, epoch):
    set_epoch(loader, epoch)
    return [frozenset(batch["paths"]) for batch in loader]


def test_each_split_gets_its_own_images_once(table):
    loaders = make_loaders(CONFIG, table)
    assert list(loaders) == ["train", "val", "test"]
    for split, loader in loaders.items():
        paths = [path for batch in loader for path in batch["paths"]]
        assert sorted(paths) == sorted(table.loc[table["split"] == split, "path"])


def test_batches_carry_uint16_labels_and_groups(table):
    rows = table.set_index("path")
    for loader in make_loaders(CONFIG, table).values():
        for batch in loader:
            assert batch["images"].dtype == torch.uint16
            assert batch["groups"] == rows.loc[batch["paths"], "group"].tolist()
            assert [CONFIG.classes[label] for label in batch["labels"]] == rows.loc[
                batch["paths"], "particle_type"
            ].tolist()


def test_a_pixel_budget_bounds_every_padded_batch(table):
    config = dataclasses.replace(CONFIG, batch_size=10, pixel_budget=2000)
    for loader in make_loaders(config, table).values():
        shapes = [batch["mask"].shape for batch in loader]
        assert len(shapes) == len(loader)
        assert max(np.prod(shape) for shape in shapes) <= 2000
        assert max(shape[0] for shape in shapes) > 2


def test_training_changes_with_the_epoch_and_repeats_with_it(table):
    loader = make_loaders(CONFIG, table)["train"]
    first, second = by_path(loader, 0), by_path(loader, 1)
    assert not same(first, second)
    assert same(first, by_path(loader, 0))
    assert set(batches_of(loader, 0)) != set(batches_of(loader, 1))
    other_seed = make_loaders(dataclasses.replace(CONFIG, seed=6), table)["train"]
    assert not same(first, by_path(other_seed))
    assert set(batches_of(loader, 0)) != set(batches_of(other_seed, 0))


def test_set_epoch_reaches_sampler_and_dataset(table):
    loader = make_loaders(CONFIG, table)["train"]
    set_epoch(loader, 7)
    assert (loader.batch_sampler.epoch, loader.dataset.epoch) == (7, 7)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_sees_the_files_untouched_in_the_same_batches(table, split):
    loader = make_loaders(CONFIG, table)[split]
    assert same(by_path(loader, 0), by_path(loader, 1))
    assert len({frozenset(batches_of(loader, epoch)) for epoch in range(8)}) == 1
    plain = ImageDataset(table[table["split"] == split])
    assert same(by_path(loader), {sample["path"]: sample["image"].numpy() for sample in plain})


def test_batches_are_bucketed_by_size(table):
    loader = make_loaders(CONFIG, table)["train"]
    sizes = loader.dataset.sizes
    at_random = np.split(np.random.default_rng(0).permutation(24), 6)
    assert padding_waste(sizes, list(loader.batch_sampler)) < padding_waste(sizes, at_random)


def test_resized_images_are_not_batched_by_the_size_they_had(table):
    loader = make_loaders(dataclasses.replace(CONFIG, resize=8), table)["train"]
    assert {batch["images"].shape[2:] for batch in loader} == {(8, 8)}
    assert set(map(tuple, loader.batch_sampler.sizes.tolist())) == {(8, 8)}


def test_workers_change_nothing(table):
    alone = make_loaders(CONFIG, table)["train"]
    workers = make_loaders(dataclasses.replace(CONFIG, num_workers=2), table)["train"]
    assert workers.persistent_workers
    for epoch in (0, 1):
        assert batches_of(alone, epoch) == batches_of(workers, epoch)
        assert same(by_path(alone, epoch), by_path(workers, epoch))


def test_spawned_workers_change_nothing_and_see_the_epoch(table):
    spawned = make_loaders(dataclasses.replace(CONFIG, num_workers=1), table)["train"]
    spawned.multiprocessing_context = "spawn"
    alone = make_loaders(CONFIG, table)["train"]
    for epoch in (0, 1):
        assert same(by_path(spawned, epoch), by_path(alone, epoch))


def test_iterating_leaves_the_global_generator_as_it_was(table):
    loader = make_loaders(CONFIG, table)["train"]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    by_path(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_pinned_for_cuda_only(table, monkeypatch):
    assert not any(loader.pin_memory for loader in make_loaders(CONFIG, table).values())
    monkeypatch.setattr("bpsutils.loaders.pick_device", lambda name: torch.device("cuda"))
    assert all(loader.pin_memory for loader in make_loaders(CONFIG, table).values())


def test_ranks_share_what_one_process_would_see(table, monkeypatch):
    whole = make_loaders(dataclasses.replace(CONFIG, batch_size=8), table)["train"].batch_sampler
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("bpsutils.loaders.rank_and_world_size", lambda rank=rank: (rank, 2))
        sampler = make_loaders(CONFIG, table)["train"].batch_sampler
        assert isinstance(sampler, DistributedBatches)
        shares.append(list(sampler))
    together = [sorted(first + second) for first, second in zip(*shares, strict=True)]
    assert together == [sorted(batch) for batch in whole]


def test_workers_of_several_ranks_are_not_forked(table, monkeypatch):
    config = dataclasses.replace(CONFIG, num_workers=1)
    assert make_loaders(config, table)["val"].multiprocessing_context is None
    monkeypatch.setattr("bpsutils.loaders.rank_and_world_size", lambda: (0, 2))
    loaders = make_loaders(config, table).values()
    assert [loader.multiprocessing_context.get_start_method() for loader in loaders] == ["spawn"] * 3
    assert all(loader.multiprocessing_context is None for loader in make_loaders(CONFIG, table).values())


def test_classes_are_those_of_the_whole_table_where_none_are_named(table):
    config = dataclasses.replace(CONFIG, classes=())
    one_class = table[(table["split"] != "val") | (table["particle_type"] == "X-ray")]
    assert make_loaders(config, one_class)["val"].dataset.classes == ("Fe", "X-ray")


def test_loaders_refuse_a_table_they_cannot_use(table):
    with pytest.raises(ValueError, match="no column height, split; make it with split_table"):
        make_loaders(CONFIG, table.drop(columns=["height", "split"]))
    with pytest.raises(ValueError, match="the val split has no image; check Config.val_cases"):
        make_loaders(CONFIG, table[table["split"] != "val"])


def test_measured_workers(table):
    dataset = ImageDataset(table)
    measured = measure_workers(dataset, candidates=(0, 1))
    assert measured["num_workers"].tolist() == [0, 1]
    assert (measured["images_per_second"] > 0).all()
    assert len(measure_workers(make_loaders(CONFIG, table)["val"], candidates=[0])) == 1
    with pytest.raises(ValueError, match="streams have no batch sampler"):
        measure_workers(DataLoader(ImageStream(table), batch_size=None))


# ------------------------------------------------------------------------------------------------- packed


def assert_same_batches(loaders, others):
    for epoch in (0, 1):
        for split, loader in loaders.items():
            set_epoch(loader, epoch)
            set_epoch(others[split], epoch)
            for batch, other in zip(loader, others[split], strict=True):
                assert list(batch) == list(other)
                for key, value in batch.items():
                    tensor = isinstance(value, torch.Tensor)
                    assert np.array_equal(value.numpy(), other[key].numpy()) if tensor else value == other[key], key
                assert batch["images"].dtype == other["images"].dtype


@pytest.mark.parametrize("resize", [None, 9])
def test_packed_batches_are_those_of_the_files_bit_for_bit(table, tmp_path, resize):
    config = dataclasses.replace(CONFIG, out_dir=tmp_path, resize=resize)
    packed = make_loaders(dataclasses.replace(config, packed=True, num_workers=2), table)
    assert all(isinstance(loader.dataset, PackedImages) and loader.num_workers == 0 for loader in packed.values())
    assert (tmp_path / "images.pack" / "pixels.bin").exists()
    assert_same_batches(packed, make_loaders(dataclasses.replace(config, packed=False), table))


def is_packed(config, table):
    return isinstance(make_loaders(config, table)["train"].dataset, PackedImages)


def test_many_images_of_one_kind_are_packed_unless_told_otherwise(table, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, pack_path=tmp_path / "pack")
    assert not is_packed(config, table)
    monkeypatch.setattr("bpsutils.loaders.PACK_FROM", len(table))
    assert is_packed(config, table)
    assert not is_packed(config, table.iloc[1:])
    assert not is_packed(dataclasses.replace(config, packed=False), table)
    assert is_packed(config, table.assign(dtype="uint16", channels=1))
    assert not is_packed(config, table.assign(dtype="uint16", channels=[1, 3] * 20))
    assert not is_packed(config, table.assign(dtype="float32", channels=1))


def test_a_store_is_brought_up_to_date(table, tmp_path):
    config = dataclasses.replace(CONFIG, out_dir=tmp_path, packed=True)
    few = table[table["split"] != "train"]
    make_loaders(config, pd.concat([few, table[table["split"] == "train"].iloc[:4]]))
    assert len(list(make_loaders(config, table)["train"])) == 6


@pytest.mark.parametrize(("free", "resize", "resident"), [(10**9, None, True), (1000, None, False), (10**9, 9, False)])
def test_pixels_go_to_a_gpu_that_has_room_for_them(table, tmp_path, monkeypatch, free, resize, resident):
    sent = []
    monkeypatch.setattr("bpsutils.loaders.pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10**9))
    monkeypatch.setattr(PackedImages, "to", lambda self, device: sent.append(device))
    monkeypatch.setattr(PackedImages, "device", property(lambda self: torch.device("cuda" if sent else "cpu")))
    config = dataclasses.replace(CONFIG, out_dir=tmp_path, packed=True, resize=resize)
    loaders = make_loaders(config, table)
    assert sent == [torch.device("cuda")] * 3 * resident
    assert all(loader.pin_memory is not resident for loader in loaders.values())


def test_measured_workers_of_a_packed_dataset(table, tmp_path):
    dataset = PackedImages.build(table, tmp_path)
    assert measure_workers(dataset, candidates=[0])["num_workers"].tolist() == [0]
