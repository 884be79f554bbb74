import os
import random
import shutil
import subprocess
import sys
import textwrap
import types
from collections import namedtuple

import numpy as np
import pytest
import torch

from bpsutils import device as module
from bpsutils.device import Finding, autocast_policy, doctor, pick_device, seed_everything, to_device

Usage = namedtuple("Usage", "total used free")


def have(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    have(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device() == torch.device(expected)


def test_cpu_is_had_when_asked_for_beside_a_gpu(monkeypatch):
    have(monkeypatch, cuda=True)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_rank_gets_a_gpu_of_its_own(monkeypatch, name):
    have(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for variable, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(variable, value)
    assert pick_device(name) == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")


def test_more_ranks_than_gpus(monkeypatch):
    have(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for variable, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=r"2 GPUs for 3 ranks.*at most 2 with --nproc-per-node, or set device='cpu'"):
        pick_device("auto")


def test_ranks_on_apple_train_on_the_cpu(monkeypatch):
    have(monkeypatch, mps=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_told_otherwise(before, after):
    """Read once, when torch is imported: so it must be set by then."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if before:
        environment["OMP_WAIT_POLICY"] = before
    script = """
        import builtins, os, sys
        real = builtins.__import__
        def spy(name, *rest):
            if name.partition(".")[0] == "torch" and "torch" not in sys.modules:
                print(os.environ.get("OMP_WAIT_POLICY"))
                builtins.__import__ = real
            return real(name, *rest)
        builtins.__import__ = spy
        import bpsutils
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [after]


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_asked_for_by_name_is_never_replaced_silently(monkeypatch, name):
    have(monkeypatch)
    with pytest.raises(RuntimeError, match=f"'{name}' was asked for.*device='auto'.*doctor"):
        pick_device(name)


def test_unknown_device_name():
    with pytest.raises(ValueError, match="'auto', 'cuda', 'mps' or 'cpu', got 'tpu'"):
        pick_device("tpu")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), (None, False)),  # Pascal
        ((7, 0), (torch.float16, True)),  # Volta
        ((7, 5), (torch.float16, True)),  # Turing, T4
        ((8, 0), (torch.bfloat16, False)),  # Ampere
        ((9, 0), (torch.bfloat16, False)),  # Hopper
        ((12, 0), (torch.bfloat16, False)),  # Blackwell
    ],
)
def test_precision_follows_the_generation_of_the_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_policy(torch.device("cuda")) == expected


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_full_precision_without_an_nvidia_gpu(name):
    assert autocast_policy(torch.device(name)) == (None, False)


def test_to_device_moves_tensors_and_keeps_the_rest():
    batch = {"images": torch.zeros(2, 1, 3, 4, dtype=torch.uint16), "groups": ["Fe/A6", "Fe/A8"]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["images"].device.type == "meta"
    assert moved["images"].dtype == torch.uint16
    assert moved["groups"] == ["Fe/A6", "Fe/A8"]
    assert batch["images"].device.type == "cpu"


def test_to_device_moves_a_tensor_alone():
    assert to_device(torch.zeros(2), torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize(
    ("kind", "pinned", "expected"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_only_a_copy_from_pinned_memory_to_cuda_does_not_block(monkeypatch, kind, pinned, expected):
    calls = []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: calls.append(non_blocking) or self)
    to_device({"images": torch.zeros(1)}, torch.device(kind))
    assert calls == [expected]


def test_same_seed_same_numbers_everywhere():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    seed_everything(3)
    first = draw()
    assert draw() != first
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=f"seed must be from 0 to 4294967295, got {seed}"):
        seed_everything(seed)


def test_deterministic_mode_is_switched_on_and_off(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        seed_everything(0, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.benchmark
    finally:
        seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()


def test_convolutions_keep_few_sizes_unless_told_otherwise():
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    script = "import os, bpsutils.device; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    told = {**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "9"}
    assert subprocess.check_output([sys.executable, "-c", script], env=told) == b"9\n"


# -- doctor: one test a line ------------------------------------------------------------------------------------------


def test_doctor_prints_one_line_a_check_and_returns_the_problems(monkeypatch, capsys):
    monkeypatch.setattr(module, "_python", lambda: Finding("Python", "3.9", "make an environment"))
    monkeypatch.setattr(module, "_sample", lambda: Finding("sample", "810 simulated images"))
    problems = doctor()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[0] == "PROBLEM  Python: 3.9; fix: make an environment"
    assert lines[-1] == "OK       sample: 810 simulated images"
    assert [line.split(":")[0] for line in lines if line.startswith("PROBLEM")] == [
        f"PROBLEM  {p.name}" for p in problems
    ]


@pytest.mark.parametrize(("version", "fine"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_python_version(monkeypatch, version, fine):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    finding = module._python()
    assert finding.found == f"{version[0]}.{version[1]}"
    assert finding.fix == ("" if fine else "make an environment with Python 3.11 to 3.13")


def test_missing_packages_are_named_as_they_are_installed(monkeypatch):
    found = module.importlib.util.find_spec
    gone = {"sklearn", "tomli_w"}
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name in gone else found(name))
    assert module._packages() == Finding(
        "packages", "missing scikit-learn, tomli-w", "pip install scikit-learn tomli-w"
    )


def test_all_packages_are_there():
    assert module._packages().fix == ""


@pytest.mark.parametrize(("version", "fine"), [("2.9.1", False), ("2.11.0+cu128", True), ("3.0.0", True)])
def test_torch_version(monkeypatch, version, fine):
    monkeypatch.setattr(torch, "__version__", version)
    assert (module._torch().fix == "") is fine
    assert fine or "torch>=2.11" in module._torch().fix


def test_torchvision_that_works():
    assert module._torchvision().fix == ""


def _broken_torchvision(error):
    def nms(*_):
        raise error

    return types.SimpleNamespace(__version__="0.1", ops=types.SimpleNamespace(nms=nms))


def test_torchvision_of_another_torch(monkeypatch):
    broken = _broken_torchvision(RuntimeError("operator torchvision::nms does not exist\nmore"))
    monkeypatch.setitem(sys.modules, "torchvision", broken)
    finding = module._torchvision()
    assert finding.found.endswith("(operator torchvision::nms does not exist)")
    assert finding.fix.startswith("pip install --force-reinstall torch==")


def test_torchvision_that_does_not_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "does not work with torch" in module._torchvision().found


def no_gpu(monkeypatch, *, driver, built_for):
    have(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


def test_no_gpu_is_no_problem_on_a_laptop(monkeypatch):
    no_gpu(monkeypatch, driver=False, built_for="12.8")
    assert module._gpu() == Finding("GPU", "none; the course runs on the CPU")


def test_no_gpu_in_colab_names_the_menu(monkeypatch):
    no_gpu(monkeypatch, driver=False, built_for="12.8")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert "Runtime > Change runtime type > T4 GPU" in module._gpu().fix


def test_driver_that_torch_cannot_use(monkeypatch):
    no_gpu(monkeypatch, driver=True, built_for="13.2")
    assert "built for CUDA 13.2, but the NVIDIA driver" in module._gpu().found
    assert "update the NVIDIA driver" in module._gpu().fix


def test_torch_without_cuda_beside_a_driver(monkeypatch):
    no_gpu(monkeypatch, driver=True, built_for=None)
    assert "built for the CPU only" in module._gpu().found
    assert "pytorch.org" in module._gpu().fix


def test_gpu_that_computes(monkeypatch):
    have(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    assert module._gpu() == Finding("GPU", "Tesla T4")


def test_gpu_that_torch_has_no_kernels_for(monkeypatch):
    def ones(*_, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    have(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla K80")
    monkeypatch.setattr(torch, "ones", ones)
    finding = module._gpu()
    assert finding.found.startswith("Tesla K80 cannot compute (CUDA error: no kernel image")
    assert "device='cpu'" in finding.fix


def test_apple_gpu(monkeypatch):
    have(monkeypatch, mps=True)
    assert module._gpu() == Finding("GPU", "Apple GPU (mps)")


@pytest.mark.parametrize(("free", "fine"), [(64e6, False), (2e9, True)])
def test_shared_memory_of_a_container(monkeypatch, free, fine):
    monkeypatch.setattr(module.Path, "is_dir", lambda self: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    assert (module._cores().fix == "") is fine
    assert fine or "--shm-size" in module._cores().fix


@pytest.mark.parametrize(("free", "fine"), [(0.5, False), (8.0, True), (None, True)])
def test_free_memory(monkeypatch, free, fine):
    monkeypatch.setattr(module, "_free_memory_gb", lambda: free)
    assert (module._memory().fix == "") is fine


def test_free_memory_is_read_where_the_system_tells(monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(module, "Path", lambda path: meminfo if path == "/proc/meminfo" else None)
    assert module._free_memory_gb() is None
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:    3500000 kB\n")
    assert module._free_memory_gb() == 3.5


@pytest.mark.parametrize(("free", "fine"), [(1e9, False), (50e9, True)])
def test_free_disk(monkeypatch, free, fine):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    assert (module._disk().fix == "") is fine


def test_work_on_google_drive(monkeypatch):
    monkeypatch.setattr(module.Path, "cwd", lambda: module.Path("/content/drive/MyDrive/course"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e11, 0, 1e11))
    assert "on Google Drive" in module._disk().found


def test_folder_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in module._disk().found


def test_sample_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SAMPLE_DIR", tmp_path)
    (tmp_path / "bps").mkdir()
    assert "lacks images" in module._sample().found
    (tmp_path / "bps" / "a.tif").touch()
    assert "lacks meta.csv" in module._sample().found
    assert "git checkout" in module._sample().fix
    (tmp_path / "bps" / "meta.csv").touch()
    assert module._sample() == Finding("sample", "1 simulated images")
