"""Several processes that train one model together, as torchrun starts them (notebook 12).

Each process is a *rank*; rank 0 scans, prints and writes for all. Every rank holds the whole model and takes its share
of each batch; the gradients are averaged before each step, so the weights stay the same everywhere. All machines reach
the images and ``Config.out_dir`` under the same path.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from bpsutils.datasets import rank_and_world_size
from bpsutils.device import usable_cores
from bpsutils.samplers import DistributedBatches

T = TypeVar("T")

# Not how long a dead rank is waited for (torchrun notices that at once), but the longest that rank 0 may scan or pack.
TIMEOUT = timedelta(minutes=30)


@contextmanager
def ranks() -> Iterator[None]:
    """Join the other processes that torchrun started, for as long as the block runs.

    GPUs talk by NCCL, CPUs by gloo. The ranks of a machine share its cores, unless ``OMP_NUM_THREADS`` says another
    number of threads than the 1 that torchrun sets. An error in the block ends the process; torchrun then prints the
    traceback and ends the other ranks. Without torchrun, or with a single process, nothing of this happens.

    Example:
        >>> with ranks():
        ...     gather("alone")
        ['alone']
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    local_rank, local_ranks = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, usable_cores() // local_ranks))
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield
    except Exception as error:
        _tell_torchrun(error)
        raise
    # not after an error: this waits for the others, and they for this one
    gather(None)
    gc.collect()  # what still holds the group, such as a model just trained, would keep its threads up to the exit
    dist.destroy_process_group()


def _tell_torchrun(error: Exception) -> None:
    """Leave the traceback to torchrun, which prints that of the rank that failed first: the others fail without it."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    raise SystemExit(1) from error


def is_first() -> bool:
    """Whether this is rank 0, the one that prints and writes; a process alone is."""
    return rank_and_world_size()[0] == 0


def announce(text: str) -> None:
    """Print once, not once a rank."""
    if is_first():
        print(text, flush=True)


def from_rank_0(function: Callable[[], T]) -> T:
    """What a function returns on rank 0, which alone calls it while the others wait.

    Args:
        function: Its result must be picklable. If it raises, the error is rank 0's alone, and the job ends.

    Example:
        >>> from_rank_0(lambda: "scanned once")
        'scanned once'
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return function()
    outcome: list[Any] = [None, False]
    if rank == 0:
        try:
            outcome = [function(), True]
        finally:
            dist.broadcast_object_list(outcome, src=0)
    else:
        dist.broadcast_object_list(outcome, src=0)
    if not outcome[1]:
        time.sleep(60)  # rank 0 says what is wrong, and torchrun ends this process
        raise SystemExit(1)
    result: T = outcome[0]
    return result


def gather(value: T) -> list[T]:
    """The values of all ranks in the order of ranks, on every rank; so also a place where all wait for all."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def gather_images(indices: torch.Tensor, *columns: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What all ranks found out about their images, each image once.

    Args:
        indices: Which images this rank had, shape ``(n,)``. One that several ranks had counts once.
        columns: What was found, on the CPU, each of shape ``(n, …)``.

    Returns:
        The columns for all images: in the order of ``indices``, or as they came where there is one rank only.

    Example:
        >>> gather_images(torch.tensor([1, 0]), torch.tensor([0.1, 0.7]))
        (tensor([0.1000, 0.7000]),)
    """
    parts = gather((indices, *columns))
    if len(parts) == 1:
        return columns
    all_indices, *all_columns = (torch.cat(column) for column in zip(*parts, strict=True))
    row_of = {index: row for row, index in enumerate(all_indices.tolist())}
    rows = torch.tensor([row_of[index] for index in sorted(row_of)])
    return tuple(column[rows] for column in all_columns)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of the ranks' values, element by element, on every rank."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return values
    dist.all_reduce(values)
    return values / world_size


def parallel(model: nn.Module) -> nn.Module:
    """The model as it is trained: its gradients averaged over the ranks, its first weights those of rank 0.

    Batch normalisation sees the share of its own rank; its running averages are those of rank 0.
    """
    return nn.parallel.DistributedDataParallel(model) if rank_and_world_size()[1] > 1 else model


def share_buffers(model: nn.Module) -> None:
    """Give every rank the running averages of rank 0, so that all evaluate the model that rank 0 saves."""
    if rank_and_world_size()[1] > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def with_totals(loader: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """Each batch of a loader, and how many images all ranks together have at this step.

    The order of an epoch is a function of the epoch, so no rank has to ask the others.

    Raises:
        ValueError: If there are several ranks, and the loader does not deal its batches out to them.
    """
    if rank_and_world_size()[1] == 1:
        for batch in loader:
            yield batch, len(batch["images"])
        return
    batches = getattr(loader, "batch_sampler", None)
    if not isinstance(batches, DistributedBatches):
        raise ValueError(
            f"several ranks cannot share the batches of a {type(batches).__name__}; "
            "make the loaders with make_loaders(config), or wrap the batch sampler in DistributedBatches"
        )
    yield from zip(loader, map(len, batches.batch_sampler), strict=True)


def divisor(total: int, images: float) -> float:
    """What a rank divides its summed loss by, so that the averaged gradients are those of a mean over ``images``.

    A batch with fewer images than ranks is dealt round again. Such a repeat must not count, so it is divided away.

    Args:
        total: How many images all ranks together have at this step.
        images: Over how many images the mean is.

    Example:
        >>> divisor(total=8, images=8)
        8.0
    """
    rank, world_size = rank_and_world_size()
    return images / world_size if rank < total else math.inf
