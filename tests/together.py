"""What several ranks do in test_distributed.py: ``torchrun … tests/together.py JOB FOLDER``. One rank can, too."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bpsutils.bucketing import BucketSampler, collate_fn_pad
from bpsutils.config import Config
from bpsutils.datasets import rank_and_world_size
from bpsutils.device import pick_device
from bpsutils.distributed import from_rank_0, gather, ranks
from bpsutils.evaluation import predict
from bpsutils.models import make_model
from bpsutils.samplers import DistributedBatches
from bpsutils.training import train

BATCH = 8  # images of all ranks together at a step


class Squares(Dataset):
    """Images of one size, noise with spots in every other; remembers what was read in which epoch."""

    def __init__(self, n, fails_in=None):
        rng = np.random.default_rng(n)
        self.labels = np.arange(n) % 3 % 2  # two thirds are of class 0: class weights matter
        self.images = rng.integers(300, 400, (n, 1, 16, 16)).astype(np.uint16)
        self.images[self.labels == 1, :, 4:7, 5:8] = 3000
        self.epoch, self.fails_in, self.seen = 0, fails_in, []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.epoch == self.fails_in:
            raise OSError("the disk is gone")
        self.seen.append((self.epoch, index))
        image = torch.from_numpy(self.images[index])
        return {"image": image, "label": int(self.labels[index]), "group": "g", "path": f"{index:03d}", "index": index}


def make_loaders(n, fails_in=None, batch=BATCH):
    sizes = np.full((n, 2), 16)
    batches = [DistributedBatches(BucketSampler(sizes, batch, seed=3, jitter=jitter)) for jitter in (0.03, 0)]
    images = [Squares(n, fails_in), Squares(n)]
    return {
        name: DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_fn_pad)
        for name, dataset, sampler in zip(("train", "val"), images, batches, strict=True)
    }


def settings(folder, **changes):
    return Config(out_dir=folder, batch_size=BATCH // rank_and_world_size()[1], device="cpu", **changes)


def trains(folder, n, epochs=2):
    """A whole run; what it found, and which images were read at each rank."""
    config, loaders = settings(folder, epochs=epochs), make_loaders(n)
    # another first model on each rank, so that they must be made alike
    model = make_model(dataclasses.replace(config, seed=rank_and_world_size()[0]))
    history = train(model, loaders, config)
    return {
        "history": history.to_dict("records"),
        "seen": gather(loaders["train"].dataset.seen),
        "weights": gather(model.state_dict()),
        "predictions": gather(predict(model, loaders["val"], config).to_dict("records")),
    }


def stops(folder, n=17, epochs=4):
    """A run that is interrupted in its third epoch; batches are of four images for each rank."""
    config = Config(out_dir=folder, batch_size=4, epochs=epochs, device="cpu")
    try:
        train(make_model(config), make_loaders(n, 3, batch=4 * rank_and_world_size()[1]), config)
    except OSError:
        return


def resumes(folder, n=17, epochs=4):
    """The rest of the same run, on as many ranks as there are."""
    config = Config(out_dir=folder, batch_size=4, epochs=epochs, device="cpu")
    loaders = make_loaders(n, batch=4 * rank_and_world_size()[1])
    return train(make_model(config), loaders, config, resume=True).to_dict("records")


def everything(folder):
    """All that one start of torchrun can show; starting is most of the time."""
    found = {str(n): trains(folder / str(n), n) for n in (24, 23, 17)}
    stops(folder / "two_then_one")
    found["one_then_two"] = resumes(folder / "one_then_two")
    found["asked"] = gather(from_rank_0(lambda: rank_and_world_size()[0]))
    found["threads"] = gather(torch.get_num_threads())
    found["devices"] = gather(str(pick_device("cpu")))
    if rank_and_world_size()[0] == 0:
        torch.save(found, folder / "found.pt")


def dies(folder):
    """Rank 1 alone meets an image that cannot be read, in the middle of the second epoch."""
    config = settings(folder, epochs=4)
    train(make_model(config), make_loaders(24, fails_in=2 if rank_and_world_size()[0] else None), config)


if __name__ == "__main__":
    with ranks():
        {"everything": everything, "dies": dies}[sys.argv[1]](Path(sys.argv[2]))
