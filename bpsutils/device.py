"""Where the work runs: choose a device, move batches to it, fix the seeds, check the machine (notebooks 00 and 01)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from bpsutils.config import SAMPLE_DIR

# A CPU's convolutions (oneDNN) keep what they prepared for each of the last 1024 image sizes. Buckets come in new sizes
# all the time: memory grew by 50 MB an epoch, and not at all with 64, at the same speed. Read at the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

Batch = TypeVar("Batch", torch.Tensor, dict[str, Any])

SUPPORTED_PYTHON = ((3, 11), (3, 13))
OLDEST_TORCH = (2, 11)
# what the package cannot do without: name to import -> name to install
PACKAGES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "sklearn": "scikit-learn",
    "tifffile": "tifffile",
    "matplotlib": "matplotlib",
    "pyarrow": "pyarrow",
    "tqdm": "tqdm",
    "tomli_w": "tomli-w",
    "ipywidgets": "ipywidgets",
}
FREE_DISK_GB = 2.0
FREE_MEMORY_GB = 2.0


def pick_device(name: str = "auto") -> torch.device:
    """The device to train on.

    Args:
        name: ``"cuda"`` (an NVIDIA GPU), ``"mps"`` (the GPU of an Apple computer), ``"cpu"``, or ``"auto"`` for the
            first of these that is there. Of several ranks that torchrun started, each gets a GPU of its own.

    Raises:
        ValueError: If there is no device of that name, or there are more ranks than GPUs.
        RuntimeError: If the device is asked for by name but cannot be used here.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    # several ranks average their gradients on NVIDIA GPUs or on CPUs, not on Apple's
    usable = {"cuda": torch.cuda.is_available(), "mps": alone and torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in usable.items() if there)
    if name not in usable:
        raise ValueError(f"device must be 'auto', 'cuda', 'mps' or 'cpu', got {name!r}")
    if not usable[name]:
        raise RuntimeError(
            f"device {name!r} was asked for, but PyTorch cannot use it here; set device='auto' to take what there is, "
            "and run `python -m bpsutils doctor` to see why"
        )
    return torch.device(name) if alone or name == "cpu" else torch.device(name, _gpu_of_rank())


def _gpu_of_rank() -> int:
    """With its number: "cuda" alone means the first GPU in every new thread."""
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"there are {count} GPUs for {os.environ['LOCAL_WORLD_SIZE']} ranks on this machine; start at most "
            f"{count} with --nproc-per-node, or set device='cpu'"
        )
    return number


def autocast_policy(device: torch.device) -> tuple[torch.dtype | None, bool]:
    """The half precision that a device computes fast, and whether gradients must be scaled for it.

    Turing (T4) has fast float16, whose small range makes small gradients vanish unless the loss is scaled up. Ampere
    and later have bfloat16 with the range of float32. Older GPUs, Apple's and CPUs stay at float32.

    Args:
        device: From `pick_device`.

    Returns:
        The type for ``torch.autocast``, or None for full precision; and whether a ``GradScaler`` is needed.

    Example:
        >>> autocast_policy(torch.device("cpu"))
        (None, False)
    """
    if device.type != "cuda":
        return None, False
    generation, _ = torch.cuda.get_device_capability(device)
    if generation >= 8:
        return torch.bfloat16, False
    return (torch.float16, True) if generation == 7 else (None, False)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a tensor, or all tensors of a batch, to a device.

    Args:
        batch: A tensor, or a dict such as `bpsutils.bucketing.collate_fn_pad` returns; what is no tensor stays.
        device: Where to.

    Example:
        >>> to_device({"labels": torch.tensor([1]), "paths": ["a.tif"]}, torch.device("cpu"))
        {'labels': tensor([1]), 'paths': ['a.tif']}
    """
    if isinstance(batch, torch.Tensor):
        return _copy(batch, device)
    return {name: _copy(value, device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _copy(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    # from memory that is not pinned the copy would wait anyway
    return tensor.to(device, non_blocking=device.type == "cuda" and tensor.is_pinned())


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and PyTorch on every device.

    Args:
        seed: Any whole number from 0 to 2**32 - 1.
        deterministic: Also refuse GPU operations that give other last digits from run to run. They are slower, so
            it is off unless you compare runs bit for bit. CPU results of one machine repeat either way.

    Raises:
        ValueError: If the seed is out of range.

    Example:
        >>> seed_everything(7)
        >>> first = torch.rand(2)
        >>> seed_everything(7)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that draw from the global generator; we do not
    torch.manual_seed(seed)
    if deterministic:
        # cuBLAS reads this once, when the GPU is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


class Finding(NamedTuple):
    """One line of the doctor's list.

    Attributes:
        name: What was looked at.
        found: What was found.
        fix: What to do about it; empty where all is well.
    """

    name: str
    found: str
    fix: str = ""


def doctor() -> list[Finding]:
    """Check this machine: print a line a check, with a fix for each problem. Nothing is installed or changed.

    Returns:
        The problems; an empty list on a healthy machine.

    Example:
        >>> problems = doctor()  # doctest: +ELLIPSIS
        OK ...
    """
    checks = (_python, _packages, _torch, _torchvision, _gpu, _cores, _memory, _disk, _sample)
    findings = [check() for check in checks]
    for finding in findings:
        fix = f"; fix: {finding.fix}" if finding.fix else ""
        print(f"{'PROBLEM' if finding.fix else 'OK':<8} {finding.name}: {finding.found}{fix}")
    return [finding for finding in findings if finding.fix]


def _python() -> Finding:
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    oldest, newest = (f"{major}.{minor}" for major, minor in SUPPORTED_PYTHON)
    fits = SUPPORTED_PYTHON[0] <= tuple(sys.version_info[:2]) <= SUPPORTED_PYTHON[1]
    return Finding("Python", found, "" if fits else f"make an environment with Python {oldest} to {newest}")


def _packages() -> Finding:
    missing = [install for name, install in PACKAGES.items() if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("packages", f"missing {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", f"all {len(PACKAGES)} are installed")


def _torch() -> Finding:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    oldest = ".".join(map(str, OLDEST_TORCH))
    fix = "" if version >= OLDEST_TORCH else f"pip install 'torch>={oldest}' torchvision, then restart the kernel"
    return Finding("torch", torch.__version__, fix)


def _torchvision() -> Finding:
    """A torchvision built for another torch imports with an error, or only fails at its first compiled operation."""
    try:
        torchvision = importlib.import_module("torchvision")
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        fix = f"pip install --force-reinstall torch=={torch.__version__} torchvision, then restart the kernel"
        return Finding("torchvision", f"does not work with torch {torch.__version__} ({reason})", fix)
    return Finding("torchvision", torchvision.__version__)


def _gpu() -> Finding:
    if torch.cuda.is_available():
        return _cuda_works()
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple GPU (mps)")
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        fix = "install torch as https://pytorch.org/get-started says for CUDA"
        return Finding("GPU", "an NVIDIA driver is there, but this torch is built for the CPU only", fix)
    if shutil.which("nvidia-smi"):
        found = f"torch is built for CUDA {torch.version.cuda}, but the NVIDIA driver does not serve it"
        return Finding(
            "GPU", found, "update the NVIDIA driver, or install a torch built for the CUDA that `nvidia-smi` shows"
        )
    if "google.colab" in sys.modules:
        return Finding("GPU", "none", "in Colab's menu choose Runtime > Change runtime type > T4 GPU")
    return Finding("GPU", "none; the course runs on the CPU")


def _cuda_works() -> Finding:
    """A GPU that torch lists may still be too old or too new for the kernels it ships."""
    name = torch.cuda.get_device_name()
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        return Finding(
            "GPU", f"{name} cannot compute ({reason})", "install a torch built for this GPU, or set device='cpu'"
        )
    return Finding("GPU", name)


def usable_cores() -> int:
    """Cores that this process may use: of a container or a cluster's job often not all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores() -> Finding:
    """Containers share tensors between workers through /dev/shm, which Docker makes 64 MB small."""
    cores = usable_cores()
    shared = Path("/dev/shm")
    if shared.is_dir() and (free := shutil.disk_usage(shared).free) < 256e6:
        found = f"{cores}, but only {free / 1e6:.0f} MB of shared memory for DataLoader workers"
        return Finding("cores", found, "set num_workers=0, or start the container with --shm-size=2g")
    return Finding("cores", f"{cores}; at most {cores} DataLoader workers are worth trying")


def _memory() -> Finding:
    free = _free_memory_gb()
    if free is None:
        return Finding("memory", "free memory is unknown on this system")
    fix = "close other programs or notebooks, or choose a smaller batch_size" if free < FREE_MEMORY_GB else ""
    return Finding("memory", f"{free:.1f} GB free", fix)


def _free_memory_gb() -> float | None:
    """Linux says what is available; elsewhere we do not guess."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) / 1e6


def _disk() -> Finding:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    if here.is_relative_to("/content/drive"):
        return Finding(
            "disk", f"{here} is on Google Drive", "copy the images to /content; use Drive for checkpoints only"
        )
    if not os.access(here, os.W_OK):
        return Finding("disk", f"{here} cannot be written", "change to a folder of yours, or choose another --out")
    fix = "free some space, or choose an --out on another disk" if free < FREE_DISK_GB else ""
    return Finding("disk", f"{free:.1f} GB free at {here}", fix)


def _sample() -> Finding:
    folder = SAMPLE_DIR / "bps"
    images = sum(1 for _ in folder.rglob("*.tif"))
    if not images or not (folder / "meta.csv").is_file():
        found = f"{folder} lacks {'meta.csv' if images else 'images'}"
        return Finding("sample", found, "run `git checkout -- data_sample` in the clone, or clone the repository again")
    return Finding("sample", f"{images} simulated images")
