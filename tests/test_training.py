import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bpsutils import training
from bpsutils.bucketing import collate_fn_pad
from bpsutils.config import Config
from bpsutils.models import SmallCNN, make_model
from bpsutils.training import balanced_accuracy, class_weights, load_checkpoint, prepare, schedule, train
from bpsutils.transforms import HorizontalFlip


class Spots(Dataset):
    """Twelve noisy images of different sizes; those of class 1 have spots."""

    def __init__(self, n=12, seed=0, fail_after=None):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(n) % 2
        self.images = [rng.integers(300, 400, (1, 12 + i % 5, 18 - i % 4)).astype(np.uint16) for i in range(n)]
        for image in self.images[1::2]:
            image[:, 4:6, 5:7] = image[:, 9:11, 8:10] = 3000
        self.fail_after, self.read, self.epoch = fail_after, 0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read += 1
        if self.fail_after is not None and self.read > self.fail_after:
            raise OSError("the disk is gone")
        image = torch.from_numpy(self.images[index].copy())
        if (self.epoch + index) % 2:  # augmentation by epoch, as a real dataset has
            image = HorizontalFlip(1.0)(image)
        return {"image": image, "label": int(self.labels[index]), "group": "g", "path": f"{index}.tif", "index": index}


class Shuffled(torch.utils.data.Sampler):
    """An order that is a function of the epoch, as our samplers'."""

    def __init__(self, n):
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(self.n).tolist())


def make_loaders(fail_after=None, n=12):
    images = Spots(n, fail_after=fail_after)
    return {
        "train": DataLoader(images, 4, sampler=Shuffled(n), collate_fn=collate_fn_pad),
        "val": DataLoader(Spots(seed=1), 4, collate_fn=collate_fn_pad),
    }


@pytest.fixture
def config(tmp_path):
    return Config(out_dir=tmp_path / "out", epochs=4, batch_size=4, device="cpu")


def checkpoint(config, name):
    return config.out_dir / "checkpoints" / name


def assert_same_weights(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class WithDropout(nn.Module):
    """Draws random numbers while it trains, so that resuming must bring back the generator as well."""

    def __init__(self):
        super().__init__()
        self.net, self.dropout = SmallCNN(), nn.Dropout(0.2)

    def forward(self, images, mask=None):
        return self.net(self.dropout(images), mask)


def dropout_model():
    torch.manual_seed(5)
    return WithDropout()


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_learns_and_reports_every_epoch(config):
    config = dataclasses.replace(config, epochs=12)
    history = train(make_model(config), make_loaders(), config)
    assert list(history) == ["epoch", "train_loss", "val_loss", "val_balanced_accuracy", "learning_rate"]
    assert history["epoch"].tolist() == list(range(1, 13))
    assert history["train_loss"].iloc[-1] < 0.2 < history["train_loss"].iloc[0]
    assert history["val_balanced_accuracy"].iloc[-1] == 1
    assert history["learning_rate"].max() <= config.learning_rate
    assert history["learning_rate"].iloc[-1] < history["learning_rate"].iloc[2]


def test_each_epoch_and_the_best_one_are_kept(config):
    history = train(make_model(config), make_loaders(), config)
    assert [path.name for path in sorted((config.out_dir / "checkpoints").iterdir())] == [
        "best.pt",
        "epoch_0001.pt",
        "epoch_0002.pt",
        "epoch_0003.pt",
        "epoch_0004.pt",
    ]
    best = load_checkpoint(checkpoint(config, "best.pt"), make_model(config))
    assert best["epoch"] == history.loc[history["val_loss"].idxmin(), "epoch"]


def test_the_best_epoch_need_not_be_the_last(config, monkeypatch):
    losses = iter([0.9, 0.4, 0.6, 0.5])
    monkeypatch.setattr(training, "_validate", lambda *_: {"val_loss": next(losses), "val_balanced_accuracy": 0.5})
    train(make_model(config), make_loaders(), config)
    assert load_checkpoint(checkpoint(config, "best.pt"), make_model(config))["epoch"] == 2


def test_a_checkpoint_holds_the_whole_run_as_plain_values(config):
    history = train(make_model(config), make_loaders(), config)
    saved = torch.load(checkpoint(config, "epoch_0004.pt"), weights_only=True)
    assert saved["config"]["out_dir"] == str(config.out_dir)
    assert saved["config"]["classes"] == ("X-ray", "Fe")
    assert saved["history"] == history.to_dict("records")
    assert (saved["epoch"], saved["seed"], saved["steps"]) == (4, 0, 12)
    assert saved["versions"]["torch"] == str(torch.__version__)
    assert {"model", "optimizer", "scheduler", "scaler"} <= set(saved)


def test_loaded_weights_are_those_of_the_end_of_the_run(config):
    model, other = make_model(config), make_model(dataclasses.replace(config, seed=9))
    train(model, make_loaders(), config)
    load_checkpoint(checkpoint(config, "epoch_0004.pt"), other)
    assert_same_weights(model, other)


def test_frozen_parameters_stay_and_the_others_move(config):
    config = dataclasses.replace(config, trainable=("head",), epochs=1)
    model, before = make_model(config), make_model(config)
    train(model, make_loaders(), config)
    changed = {
        name.split(".")[0]
        for (name, a), b in zip(model.state_dict().items(), before.state_dict().values(), strict=True)
        if not torch.equal(a, b)
    }
    assert changed == {"head"}


def test_every_epoch_is_announced_to_the_loader(config):
    loaders = make_loaders()
    train(make_model(config), loaders, config)
    assert loaders["train"].sampler.epoch == 4


def test_weights_of_a_class_scale_its_share_of_the_loss(config):
    """Two images: class 0 twice as dear as class 1 gives the loss 2/3 · 2 · a + 1/3 … as computed by hand."""
    loss = nn.CrossEntropyLoss(weight=torch.tensor([2.0, 1.0]), reduction="sum")
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert (loss(logits, torch.tensor([0, 1])) / 2).item() == pytest.approx(1.5 * np.log(2))
    run = training._Run.start(make_model(config), DataLoader(Spots(), 4), config)
    assert run.loss.weight.tolist() == [1, 1]
    assert run.loss.reduction == "sum"
    plain = dataclasses.replace(config, class_weights=False)
    assert training._Run.start(make_model(plain), DataLoader(Spots(), 4), plain).loss.weight is None


def test_losses_are_means_over_images_in_batches_of_any_size(config, monkeypatch):
    """Without steps worth the name, train and val loss of the same images are the same number."""
    monkeypatch.setattr("bpsutils.training.transpose_batch", lambda images, mask: (images, mask))
    config = dataclasses.replace(config, learning_rate=1e-12, epochs=1)
    images = Spots()
    images.set_epoch(1)
    loaders = {name: DataLoader(images, size, collate_fn=collate_fn_pad) for name, size in (("train", 5), ("val", 3))}
    history = train(make_model(config), loaders, config)
    assert history["train_loss"][0] == pytest.approx(history["val_loss"][0], rel=1e-5)


def test_chance_takes_no_part_in_validation(config):
    config = dataclasses.replace(config, learning_rate=1e-12, epochs=3)
    history = train(dropout_model(), make_loaders(), config)
    assert history["val_loss"].nunique() == 1
    assert history["train_loss"].nunique() == 3


def test_train_loss_is_the_mean_over_images_not_over_batches(config):
    losses = training._mean_loss(np.array([1.0, 4.0]), np.array([3, 1]), 1, config)
    assert losses == pytest.approx(7 / 4)


# -- options ----------------------------------------------------------------------------------------------------------


def test_half_precision_is_for_those_who_ask(config, monkeypatch):
    """And in training as in validation."""
    monkeypatch.setattr(training, "autocast_policy", lambda device: (torch.bfloat16, True))
    for asked, expected in ((False, torch.float32), (True, torch.bfloat16)):
        seen, half = [], dataclasses.replace(config, mixed_precision=asked, epochs=1)
        model = make_model(half)
        model.head.register_forward_hook(lambda module, inputs, logits, seen=seen: seen.append(logits.dtype))
        train(model, make_loaders(), half)
        assert seen == 6 * [expected]  # three batches each
        saved = torch.load(checkpoint(half, "best.pt"), weights_only=True)
        assert bool(saved["scaler"]) == asked


def test_channels_last_changes_the_layout_and_not_the_loss(config):
    plain = train(make_model(config), make_loaders(), config)
    seen = []
    model = make_model(config)
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    last = train(model, make_loaders(), dataclasses.replace(config, channels_last=True))
    assert all(seen)
    assert model.blocks[1].conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert last["train_loss"].tolist() == pytest.approx(plain["train_loss"].tolist(), rel=1e-3)


def test_compiling_is_for_any_size_and_leaves_the_names_of_the_weights(config, monkeypatch):
    """The compiler itself takes a minute, so it is left out here."""
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: calls.append(options))
    train(make_model(config), make_loaders(), config)
    assert calls == []
    model = make_model(config)
    train(model, make_loaders(), dataclasses.replace(config, compile=True))
    assert calls == [{"dynamic": True}]
    load_checkpoint(checkpoint(config, "best.pt"), make_model(config))


def test_under_a_pixel_budget_every_image_weighs_the_same(config, monkeypatch):
    """Gradients of two steps of three and one images add up to those of twice the mean over all four."""
    monkeypatch.setattr("bpsutils.training.transpose_batch", lambda images, mask: (images, mask))
    gradients = {}
    for sizes in ([3, 1], [4]):
        rows = torch.arange(4).split(sizes)
        loader = DataLoader(Spots(4), batch_sampler=[part.tolist() for part in rows], collate_fn=collate_fn_pad)
        budget = dataclasses.replace(config, pixel_budget=10_000, epochs=1)
        run = training._Run.start(make_model(config), loader, budget)
        monkeypatch.setattr(run.optimizer, "step", lambda: None)
        monkeypatch.setattr(run.optimizer, "zero_grad", lambda: None)  # so that gradients add up
        loss = training._train_epoch(run, loader, budget, type("Bar", (), {"update": lambda self: None})())
        gradients[len(sizes)] = run.model.head.weight.grad / len(sizes), loss
    torch.testing.assert_close(gradients[2][0], gradients[1][0])
    assert gradients[2][1] == pytest.approx(gradients[1][1])


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_half_precision_trains_and_resumes_alike(config, tmp_path, monkeypatch):
    """A CPU has bfloat16 as well: slow, but the way of a T4, scaler included."""
    monkeypatch.setattr(training, "autocast_policy", lambda device: (torch.bfloat16, True))
    config = dataclasses.replace(config, epochs=12, mixed_precision=True)
    whole, resumed = make_model(config), make_model(config)
    history = train(whole, make_loaders(), config)
    assert history["train_loss"].iloc[-1] < 0.3
    saved = load_checkpoint(checkpoint(config, "epoch_0012.pt"), whole)
    assert saved["scaler"]["_growth_tracker"] == 36  # steps, none of them lost
    assert all(weights.dtype == torch.float32 for weights in saved["model"].values())
    config = dataclasses.replace(config, out_dir=tmp_path / "interrupted")
    with pytest.raises(OSError, match="the disk is gone"):
        train(make_model(config), make_loaders(fail_after=30), config)
    train(resumed, make_loaders(), config, resume=True)
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("images_read", [24, 31, 45])  # at an epoch's end, within an epoch, within the last
def test_an_interrupted_run_resumes_to_the_same_weights_bit_for_bit(config, tmp_path, images_read):
    whole = dropout_model()
    history = train(whole, make_loaders(), config)
    config = dataclasses.replace(config, out_dir=tmp_path / "interrupted")
    with pytest.raises(OSError, match="the disk is gone"):
        train(dropout_model(), make_loaders(fail_after=images_read), config)
    torch.rand(100)  # whatever happened in between
    resumed = WithDropout()  # and other weights to begin with
    again = train(resumed, make_loaders(), config, resume=True)
    assert again.to_dict() == history.to_dict()
    assert_same_weights(resumed, whole)


def test_a_killed_process_resumes_to_the_same_weights_bit_for_bit(config, tmp_path):
    whole = make_model(config)
    train(whole, make_loaders(), config)
    config = dataclasses.replace(config, out_dir=tmp_path / "killed")
    script = f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training import Config, Spots, make_loaders, make_model, train
        class Slow(Spots):
            def __getitem__(self, index):
                if self.epoch == 3:
                    print("middle of epoch 3", flush=True)
                    time.sleep(60)
                return super().__getitem__(index)
        loaders = make_loaders()
        loaders["train"].dataset.__class__ = Slow
        config = Config(out_dir=Path({str(config.out_dir)!r}), epochs=4, batch_size=4, device="cpu")
        train(make_model(config), loaders, config)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == b"middle of epoch 3\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = make_model(config)
    train(resumed, make_loaders(), config, resume=True)
    assert_same_weights(resumed, whole)


def interrupted(config, after=24):
    with pytest.raises(OSError, match="the disk is gone"):
        train(make_model(config), make_loaders(fail_after=after), config)


def test_a_truncated_checkpoint_is_skipped_with_a_note(config, tmp_path):
    whole = make_model(config)
    train(whole, make_loaders(), dataclasses.replace(config, out_dir=tmp_path / "whole"))
    interrupted(config)
    newest = checkpoint(config, "epoch_0002.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = make_model(config)
    with pytest.warns(UserWarning, match=r"skipped: .*epoch_0002.pt is not a whole checkpoint"):
        train(resumed, make_loaders(), config, resume=True)
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_a_file_that_is_no_checkpoint_is_skipped_with_a_note(config, content):
    interrupted(config)
    checkpoint(config, "epoch_0002.pt").write_bytes(content)
    with pytest.warns(UserWarning, match=r"skipped: .*epoch_0002.pt"):
        history = train(make_model(config), make_loaders(), config, resume=True)
    assert len(history) == 4


def test_an_unfinished_file_is_noted_and_removed(config):
    interrupted(config)
    part = checkpoint(config, ".0123abcd.tmp")
    part.write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"removed .*.0123abcd.tmp: its writing was interrupted"):
        train(make_model(config), make_loaders(), config, resume=True)
    assert not part.exists()


def test_a_failed_write_leaves_the_old_file(config, monkeypatch):
    train(make_model(config), make_loaders(), config)
    before = checkpoint(config, "best.pt").read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        training._write({"model": {}}, checkpoint(config, "best.pt"))
    assert checkpoint(config, "best.pt").read_bytes() == before


def test_killed_between_its_two_files_the_epoch_is_done_again(config, monkeypatch, tmp_path):
    """best.pt is written first; then the run dies."""
    whole = dataclasses.replace(config, out_dir=tmp_path / "whole")
    train(make_model(config), make_loaders(), whole)
    write = training._write

    def dies(content, path):
        if path.name == "epoch_0002.pt":
            raise KeyboardInterrupt
        write(content, path)

    monkeypatch.setattr(training, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        train(make_model(config), make_loaders(), config)
    monkeypatch.undo()
    train(make_model(config), make_loaders(), config, resume=True)
    models = make_model(config), make_model(config)
    best = [load_checkpoint(checkpoint(c, "best.pt"), m) for c, m in zip((config, whole), models, strict=True)]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert_same_weights(*models)


def test_resuming_without_a_checkpoint_starts(config):
    assert len(train(make_model(config), make_loaders(), config, resume=True)) == 4


def test_resuming_a_finished_run_trains_no_more(config):
    history = train(make_model(config), make_loaders(), config)
    again = train(make_model(config), make_loaders(fail_after=0), config, resume=True)
    assert again.to_dict() == history.to_dict()


def test_starting_again_forgets_the_earlier_run(config):
    train(make_model(config), make_loaders(), config)
    interrupted(config, after=12)
    assert not checkpoint(config, "epoch_0004.pt").exists()
    assert checkpoint(config, "epoch_0001.pt").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 1}, r"Config.seed was 0, is 1"),
        ({"batch_size": 8}, r"Config.batch_size was 4, is 8"),
        ({"learning_rate": 0.5}, r"Config.learning_rate was 0.003, is 0.5"),
        ({"classes": ("Fe", "X-ray")}, r"Config.classes was \('X-ray', 'Fe'\), is \('Fe', 'X-ray'\)"),
        ({"epochs": 6}, r"Config.epochs was 4, is 6.*resume=False.*more epochs too need a new run"),
    ],
)
def test_another_experiment_is_not_resumed(config, changes, match):
    config = dataclasses.replace(config, learning_rate=0.003)
    interrupted(config)
    other = dataclasses.replace(config, **changes)
    with pytest.raises(ValueError, match=match):
        train(make_model(other), make_loaders(), other, resume=True)


def test_another_network_is_not_resumed(config):
    interrupted(config)
    other = dataclasses.replace(config, model="resnet18")
    with pytest.raises(ValueError, match="Config.model was 'small_cnn', is 'resnet18'"):
        train(make_model(config), make_loaders(), other, resume=True)


def test_other_training_images_are_not_resumed(config):
    interrupted(config)
    with pytest.raises(ValueError, match="the run had 12 training images, has 20"):
        train(make_model(config), make_loaders(n=20), config, resume=True)


def test_another_cut_into_batches_is_not_resumed(config):
    """The same number of images, but their batches are others."""
    interrupted(config)
    loaders = make_loaders()
    loaders["train"] = DataLoader(Spots(), 3, sampler=Shuffled(12), collate_fn=collate_fn_pad)
    with pytest.raises(ValueError, match="the run had 12 steps, has 16: the training images changed"):
        train(make_model(config), loaders, config, resume=True)


def test_what_does_not_change_the_result_may_change(config):
    interrupted(config)
    other = dataclasses.replace(config, packed=True, pack_path=Path("pack"), mixed_precision=True, channels_last=True)
    assert len(train(make_model(other), make_loaders(), other, resume=True)) == 4


def test_a_checkpoint_of_an_earlier_version_is_resumed(config, tmp_path):
    """It says neither how many ranks it had nor how many images, and knows fewer settings."""
    whole = make_model(config)
    train(whole, make_loaders(), dataclasses.replace(config, out_dir=tmp_path / "whole"))
    interrupted(config)
    path = checkpoint(config, "epoch_0002.pt")
    saved = torch.load(path, weights_only=True)
    del saved["world_size"], saved["images"], saved["config"]["mixed_precision"], saved["config"]["packed"]
    torch.save(saved, path)
    resumed = make_model(config)
    train(resumed, make_loaders(), config, resume=True)
    assert_same_weights(resumed, whole)


def test_a_run_goes_on_from_another_number_of_ranks(config):
    """As it would be left by ranks that took twice as many steps: the rate goes on from the middle all the same."""
    interrupted(config)
    path = checkpoint(config, "epoch_0002.pt")
    saved = torch.load(path, weights_only=True)
    saved["world_size"], saved["steps"], saved["scheduler"]["last_epoch"] = 2, 24, 12
    torch.save(saved, path)
    with pytest.warns(UserWarning, match=r"on 2 ranks, which goes on with 1: .* run has 12 steps, not 24; the lea"):
        history = train(make_model(config), make_loaders(), config, resume=True)
    assert history["learning_rate"].tolist() == pytest.approx(
        [config.learning_rate * schedule(step, 12) for step in (3, 6, 9, 12)]
    )


def test_a_run_from_a_gpu_goes_on_on_a_cpu(config):
    """A fused optimiser is the GPU's; the CPU's must not turn into one."""
    interrupted(config)
    path = checkpoint(config, "epoch_0002.pt")
    saved = torch.load(path, weights_only=True)
    saved["optimizer"]["param_groups"][0]["fused"] = True
    torch.save(saved, path)
    train(make_model(config), make_loaders(), config, resume=True)
    groups = torch.load(checkpoint(config, "epoch_0004.pt"), weights_only=True)["optimizer"]["param_groups"]
    assert groups[0]["fused"] is None


def test_a_run_whose_folder_moved_is_resumed(config, tmp_path):
    interrupted(config)
    config.out_dir.rename(tmp_path / "moved")
    moved = dataclasses.replace(config, out_dir=tmp_path / "moved", num_workers=1, image_dir=tmp_path)
    assert len(train(make_model(moved), make_loaders(), moved, resume=True)) == 4
    assert not config.out_dir.exists()


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_says_where_and_what_to_try(config):
    config = dataclasses.replace(config, learning_rate=0.01)
    with pytest.raises(RuntimeError, match=r"the loss is nan at epoch 1, step 2; try .*learning_rate=0.001, "):
        train(NanAt(2), make_loaders(), config)
    assert not checkpoint(config, "epoch_0001.pt").exists()


def test_a_loss_that_is_no_number_in_validation(config):
    with pytest.raises(RuntimeError, match=r"the loss is nan at epoch 1, validation; try"):
        train(NanAt(4), make_loaders(), config)
    assert not checkpoint(config, "best.pt").exists()


def test_class_weights_of_a_dataset_without_labels(config):
    loaders = make_loaders()
    del loaders["train"].dataset.labels
    with pytest.raises(ValueError, match=r"Spots of loaders\['train'\] has no `labels`.*Config.class_weights=False"):
        train(make_model(config), loaders, config)


class NanAt(SmallCNN):
    """Gives no number at one step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, images, mask=None):
        self.calls += 1
        logits = super().forward(images, mask)
        return logits * float("nan") if self.calls == self.step else logits


def test_no_training_batches(config):
    loaders = {**make_loaders(), "train": DataLoader(Spots(3), 4, drop_last=True)}
    with pytest.raises(ValueError, match=r"loaders\['train'\] has no batches.*drop_last"):
        train(make_model(config), loaders, config)


def test_no_validation_batches(config):
    loaders = {**make_loaders(), "val": DataLoader(Spots(3), 4, drop_last=True)}
    with pytest.raises(ValueError, match=r"loaders\['val'\] has no batches"):
        train(make_model(config), loaders, config)


def test_everything_frozen(config):
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        train(make_model(config).requires_grad_(False), make_loaders(), config)


def test_checkpoint_that_is_not_there(config):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*best.pt; train first, or check Config.out_dir"):
        load_checkpoint(checkpoint(config, "best.pt"), make_model(config))


def test_checkpoint_of_another_network(config):
    train(make_model(config), make_loaders(), dataclasses.replace(config, epochs=1))
    other = make_model(Config(classes=("a", "b", "c")))
    with pytest.raises(
        ValueError, match=r"holds weights of 'small_cnn' for X-ray, Fe, which do not fit .*size mismatch"
    ):
        load_checkpoint(checkpoint(config, "best.pt"), other)


def test_a_checkpoint_runs_no_code(tmp_path, config):
    torch.save({"model": print}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt is not a whole checkpoint"):
        load_checkpoint(tmp_path / "evil.pt", make_model(config))


# -- small pieces -----------------------------------------------------------------------------------------------------


def test_prepare_scales_and_standardises_over_real_pixels():
    images = torch.tensor([[[[100, 300, 0]]]], dtype=torch.uint16)
    mask = torch.tensor([[[True, True, False]]])
    batch = {"images": images, "mask": mask, "labels": torch.tensor([1]), "paths": ["a"]}
    prepared, real, labels = prepare(batch, torch.device("cpu"), Config())
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, torch.tensor([[[[-1.0, 1.0, 0.0]]]]))
    assert torch.equal(real, mask)
    assert labels.tolist() == [1]
    assert batch["images"].dtype == torch.uint16


def test_prepare_takes_batches_without_mask_and_labels():
    images = torch.tensor([[[[100, 300]]]], dtype=torch.uint16)
    prepared, mask, labels = prepare({"images": images}, torch.device("cpu"), Config())
    torch.testing.assert_close(prepared, torch.tensor([[[[-1.0, 1.0]]]]))
    assert mask is labels is None


@given(st.integers(2, 500))
def test_schedule_rises_to_one_and_falls_to_nothing(steps):
    shares = [schedule(step, steps) for step in range(steps + 1)]
    top = shares.index(max(shares))
    assert max(shares) == 1
    assert all(a < b for a, b in zip(shares[:top], shares[1 : top + 1], strict=True))
    assert min(shares[:steps]) > 0
    assert shares[steps] == pytest.approx(0, abs=1e-9)
    assert top <= max(1, steps // 10)


def test_class_weights_by_hand():
    assert class_weights(np.array([0, 0, 0, 1, 2, 2]), ("a", "b", "c")).tolist() == pytest.approx([2 / 3, 2, 1])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_class_weights_make_classes_count_alike_and_average_to_one(drawn):
    labels = np.array([0, 1, 2, *drawn])
    weights = class_weights(labels, ("a", "b", "c")).numpy()[labels]
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    assert [weights[labels == c].sum() for c in range(3)] == pytest.approx([len(labels) / 3] * 3, rel=1e-5)


def test_a_class_without_training_images():
    with pytest.raises(ValueError, match="no training image of class Fe; check Config.classes and the split"):
        class_weights(np.array([0, 0]), ("X-ray", "Fe"))


def test_balanced_accuracy_by_hand():
    assert balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])) == pytest.approx((2 / 3 + 0) / 2)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_is_scikit_learns(pairs):
    labels, predicted = np.array(pairs).T
    assert balanced_accuracy(labels, predicted) == pytest.approx(balanced_accuracy_score(labels, predicted))
