# %% [markdown]
# # 12 · Scaling up
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/12_scaling_up.ipynb)
#
# You will find out where an epoch spends its time, make loading many times faster by one small idea after the other,
# and take the same pipeline to 77,177 images and several GPUs.
#
# One rule leads through all of it: measure, then remove the slowest thing. Then measure again.
#
# **You need** notebooks 03 and 07, and 09 for the part on training. **Time:** 45 minutes. The images are the shipped
# 600 **simulated** nuclei; nothing here needs a large download.

# %%
# Setup. In Colab this fetches the course, about 20 MB; on your own machine it fetches nothing.
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if "google.colab" in sys.modules and Path.cwd().name != "notebooks":
    if not Path("course").exists():
        clone = "git clone --quiet --depth 1 --branch main https://github.com/OWNER/REPO course"
        subprocess.run(clone.split(), check=True)
    for package in ("tomli_w", "obstore"):
        if find_spec(package) is None:  # nothing that Colab has is replaced
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", package]
            subprocess.run(install, check=True)
    os.chdir("course/notebooks")
sys.path.insert(0, str(Path.cwd().parent))
print("Setup complete")


# %%
import cProfile
import pstats
import struct
import zlib
from shutil import rmtree
from time import perf_counter
import numpy as np
import tifffile
from bpsutils import SAMPLE_DIR, BucketSampler, Config, ImageDataset, ImageStream, PackedImages, widgets
from bpsutils import SmallCNN, Standardise, collate_fn_pad, download_images, load_checkpoint, load_table
from bpsutils import make_loaders, make_model, plots, read_headers, stream_table, train_transform
from bpsutils.device import autocast_policy
from bpsutils.exercises.scaling_up import q1, q2, q3, q4
import torch  # after bpsutils: why, says the part on threads
from torchvision.transforms.v2.functional import to_dtype

# %% [markdown] tags=["instructor"]
# > *Show:* after the profile below, `stats.sort_stats("tottime").print_stats(10)`. Later, in `bpsutils/packed.py`,
# > `_assemble` and `_gather`, which are rungs 4 and 7; then a terminal with the `torchrun` command.
# >
# > *Say:* guess first, then let the profiler prove you wrong. After each rung, guess again: the slowest thing is
# > another one now.
# >
# > *Minutes:* 15

# %% [markdown]
# ## Where does the time go?
#
# The first rung of our ladder is what most people write: [tifffile](https://github.com/cgohlke/tifffile) reads a file,
# torchvision makes floats of its pixels, `collate_fn_pad` pads the batch. One sample after the other.

# %%
rmtree("runs/scaling", ignore_errors=True)  # what an earlier visit left
table = load_table(Config(out_dir="runs/scaling"))
paths, sizes = table["path"].tolist(), table[["height", "width"]].to_numpy()
order = np.split(np.random.default_rng(0).permutation(len(table)), range(64, len(table), 64))
print(len(paths), "images, in", len(order), "batches of at most 64, in random order")


# %%
def one_by_one(batches, read=tifffile.imread):
    for batch in batches:
        pixels = (torch.from_numpy(read(paths[i]))[None] for i in batch)
        samples = [{"image": to_dtype(x, torch.float32, scale=True)} for x in pixels]
        yield collate_fn_pad(samples)["images"]


# %% [markdown]
# A [profiler](GLOSSARY.md#profiler) writes down which function runs how often and for how long. Python brings one,
# `cProfile`. **Predict.** Reading files, converting them to floats, padding: which takes longest, and what share of the
# time? And how many function calls does it take until *one* image is there?

# %%
profile = cProfile.Profile()
profile.runcall(lambda: [images.shape for images in one_by_one(order)])
stats = pstats.Stats(profile)
seconds = {name: found.cumtime for name, found in stats.get_stats_profile().func_profiles.items()}
for name in ("imread", "to_dtype", "collate_fn_pad"):
    print(f"{name}: {1000 * seconds[name]:.0f} ms")
print("most of it is reading:", seconds["imread"] > stats.total_tt / 2)
print("more than 300 calls for one image:", stats.total_calls > 300 * len(paths))

# %% [markdown]
# Reading, by far. (Your times are others than those printed here, and a profiler slows down what it watches: trust its
# shares roughly.) The files lie in the system's memory by now, so no disk is to blame. It is Python, which looks up tag
# after tag of each file; to decompress the pixels takes only a fraction of it.
#
# ### Exercise 1: what is it worth?
#
# A faster part does not make everything faster. Loading takes `share` of an epoch, from 0 to 1, training the rest.
# Loading is made `times` faster. Write `speedup`: how many times faster is the epoch?
#
# **Predict** for the figure below it, too: loading is three quarters of a step. What are 3, 10 and 100 times worth?


# %%
def speedup(share, times):
    return ...


q1.check(speedup)

# %%
control = widgets.amdahl(value=3)

# %% [markdown]
# Ten times faster loading is worth 3 times, and ten times that is worth little: by then training is the slowest thing.
# This is Amdahl's law. So tune nothing that the profile does not show, and profile again after each success.
#
# ## The ladder
#
# Each rung is one idea, written as a function that yields the batches of an epoch.
#
# **Rung 2: read only what you need.** Our files are all of one kind: a header, some strips of compressed pixels, a
# directory of *tags* that says where the strips are. A few lines read that.
#
# Scanning a folder (notebook 05) gains by the same idea: `read_headers` opens each file once, reads only its tags, and
# parses those of *all* files together, as columns of one NumPy array.


# %%
def read_strips(path):
    data = Path(path).read_bytes()
    (start,) = struct.unpack_from("<I", data, 4)  # where the directory is
    (count,) = struct.unpack_from("<H", data, start)
    entries = struct.iter_unpack("<HHII", data[start + 2 : start + 2 + 12 * count])
    tags = {tag: (n, value) for tag, _, n, value in entries}
    places, lengths = (struct.unpack_from(f"<{n}I", data, at) for n, at in (tags[273], tags[279]))
    strips = [zlib.decompress(data[at : at + n]) for at, n in zip(places, lengths, strict=True)]
    return np.frombuffer(bytearray().join(strips), "<u2").reshape(tags[257][1], tags[256][1])


# %%
found = [header.shape for header in read_headers(paths).headers]
print("heights and widths as in the table:", np.array_equal(found, sizes))

# %% [markdown]
# `read_strips` is right for these files and wrong for others. `read_image` does the same with all checks, and hands
# whatever else it meets to tifffile.
#
# **Rung 3: decode once.** Pixels do not change between epochs. Keep them in memory, as `uint16`.
#
# **Rung 4: one flat array.** 600 arrays are 600 Python objects. Lay all pixels in one row instead, a
# [packed store](GLOSSARY.md#packed-store), and note the [offset](GLOSSARY.md#offset) at which each image begins.
#
# ### Exercise 2: offsets
#
# Write `offsets`: from `sizes` `(N, 2)`, height first, an array of N + 1 numbers, such that the pixels of image `i` are
# `flat[offsets[i] : offsets[i + 1]]`.


# %%
def offsets(sizes):
    return ...


q2.check(offsets)

# %%
arrays = {path: read_strips(path) for path in paths}
flat = np.concatenate([pixels.ravel() for pixels in arrays.values()])
ends = sizes.prod(axis=1).cumsum()
starts = ends - sizes.prod(axis=1)
print("as tifffile reads them:", all((arrays[p] == tifffile.imread(p)).all() for p in paths))
figure = plots.flat_store([arrays[path] for path in paths[:5]], caption=plots.SIMULATED)
plots.show(figure, "Five nuclei of different sizes, and the one row in which their pixels lie.")

# %% [markdown]
# What is gained? A *whole batch* can be made at once: one block of memory for all frames, a copy for each image, in
# which `uint16` becomes `float32` on the way, one division at the end. No small tensors, no list of samples.


# %%
def whole_batches(batches, dtype=np.float32):
    for batch in batches:
        frames = np.zeros((len(batch), 1, *sizes[batch].max(axis=0)), dtype)
        for frame, i in zip(frames, batch, strict=True):
            frame[0, : sizes[i, 0], : sizes[i, 1]] = flat[starts[i] : ends[i]].reshape(sizes[i])
        if dtype == np.float32:
            frames /= 65535
        yield torch.from_numpy(frames)


pairs = zip(one_by_one(order), whole_batches(order), strict=True)
print("the same batches:", all(torch.allclose(slow, fast) for slow, fast in pairs))

# %% [markdown]
# **Rung 5: buckets.** Only copying is left, and so each padded pixel counts: batches of similar size (notebook 07) are
# smaller. **Rung 6: leave it `uint16`.** Half the bytes to write, and half to send to a GPU, which makes floats of them
# in no time.
#
# The largest batch decides how much memory you need. A [pixel budget](GLOSSARY.md#pixel-budget) instead of a
# number of images makes batches alike in pixels: few large images, or many small ones. **Predict.** How many pixels
# does an epoch write in random order, in buckets, in buckets with a budget? And the largest batch?

# %%
buckets = list(BucketSampler(sizes, 64))
budget = list(BucketSampler(sizes, 64, pixel_budget=1_300_000))
for name, batches in {"random order": order, "buckets": buckets, "budget": budget}.items():
    padded = np.array([len(batch) * sizes[batch].max(axis=0).prod() / 1e6 for batch in batches])
    print(f"{name}: {len(batches)} steps, {padded.sum():.1f} million pixels, up to {padded.max():.2f}")

# %% [markdown]
# Buckets halve what an epoch writes, and the budget caps the largest batch, here for two steps more. (In training it is
# `Config.pixel_budget`; each image then counts the same in the loss, in however large a batch it comes.)
#
# **Rung 7: the store on the GPU.** What is there need not travel. But 64 little copies a batch would keep a GPU waiting
# for orders, so a batch is made by *index arithmetic*: for every pixel of the frames, compute where in the store it
# lies, and fetch all of them by one order. (The store goes there as `int16`, for PyTorch knows few operations on
# `uint16`; `& 0xFFFF` gives the levels back.) Without a GPU the cell computes the same on the CPU.


# %%
def on_device(batches, store):
    for batch in batches:
        plan = torch.from_numpy(np.stack([starts, *sizes.T])[:, batch]).to(store.device)
        start, high, wide = plan[..., None, None]
        height, width = sizes[batch].max(axis=0).tolist()  # asked of a GPU, it would have to wait
        row = torch.arange(height, device=store.device)[:, None]
        column = torch.arange(width, device=store.device)
        inside = (row < high) & (column < wide)
        levels = store[(start + row * wide + column) * inside].int() & 0xFFFF
        yield (levels * inside / 65535)[:, None]


# %%
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
store = torch.from_numpy(flat.view(np.int16)).to(device)
pairs = zip(on_device(buckets, store), whole_batches(buckets), strict=True)
print("the same batches:", all(torch.allclose(a.cpu(), b) for a, b in pairs))

# %% [markdown]
# ### Exercise 3: a mirror, by arithmetic
#
# Flips come for free here: the same pixels, fetched from other places. Write `mirrored`, which returns an array
# `(height, width)`: the place in the store of each pixel of one image, mirrored left and right. As it is stored, its
# row 0 and column 0 lie at `offset`.


# %%
def mirrored(offset, height, width):
    return ...


q3.check(mirrored)

# %% [markdown]
# ### Which rung gains most?
#
# Every rung makes one epoch of batches, in each of five rounds: a neighbour who disturbs the machine disturbs all of
# them. A GPU returns before it has done its work, so the clock waits for it.
#
# **Predict.** How many times as fast as the first is each rung? Write your numbers into the dict, and run both cells:
# the figure marks them.

# %%
predicted = {}  # such as {"own strips": 2, "left as uint16": 20}
rungs = {"a file per sample": lambda: one_by_one(order)}
rungs["own strips"] = lambda: one_by_one(order, read_strips)
rungs["decoded once"] = lambda: one_by_one(order, arrays.get)
rungs["one flat array"] = lambda: whole_batches(order)
rungs["in buckets"] = lambda: whole_batches(buckets)
rungs["left as uint16"] = lambda: whole_batches(buckets, np.uint16)
if device.type == "cuda":
    rungs["on the GPU"] = lambda: on_device(buckets, store)
print(*rungs, sep=" → ")

# %% tags=["nbval-ignore-output"]
times = {name: [] for name in rungs}
for name in 5 * list(rungs):
    start = perf_counter()
    shapes = [images.shape for images in rungs[name]()]
    if device.type == "cuda":
        torch.cuda.synchronize()
    times[name].append(1000 * (perf_counter() - start))
figure = plots.ladder(times, predicted, caption=plots.SIMULATED)
plots.show(figure, "Bars: how many times as fast as the first rung is each? They grow downwards.")

# %% [markdown]
# *Times differ between machines, so this figure is not compared when the notebooks are tested.* It has seven rungs
# where there is a GPU; only the batches of the seventh are already where the model is.
#
# On the machine that built this page, the last rung is many dozen times as fast as the first. Each gain became visible
# only when the one before it was made: buckets would have gained hardly anything on the first rung, where copying was
# hidden behind reading. (Padding also costs the network, which is why notebook 07 had buckets without all this.)
#
# What holds on any machine is less, and is compared:

# %%
first = min(times["a file per sample"])
print("decoded once, at least twice as fast:", min(times["decoded once"]) < first / 2)
print("one flat array, at least 4 times:", min(times["one flat array"]) < first / 4)

# %% [markdown]
# ### The hardened version
#
# `PackedImages` is rungs 2 to 7 with care: decoded by several threads into one file; resumed after a kill; refused when
# an image has changed since; flips and turns included, by the same coins as `ImageDataset`. `make_loaders` makes such a
# store by itself where there are 300 images or more (`Config.packed` says otherwise), and reads it without workers: to
# send a batch from one process to another would cost more than to make it. On the command line it is
# `python -m bpsutils pack`. `packed.to("cuda")` takes the last rung, and so does `make_loaders` where the store takes
# less than half of a GPU's free memory (unless images are resized, which is done on the CPU). Read
# [`bpsutils/packed.py`](../bpsutils/packed.py); you know its ideas.
#
# **Predict.** Are its batches those of the files, bit for bit, augmentation and all? (The answer is below; then comes
# the exercise.)
#
# ### Exercise 4: where do the pixels live?
#
# Design it: from the number of images, their mean area in pixels, and the memory of GPU and machine in GB (1 GB is a
# billion bytes; no GPU is 0), `home` returns `"gpu"`, `"ram"` or `"disk"`: the nearest place to the model where the
# `uint16` store takes **at most half** of the memory.

# %%
files = ImageDataset(table, train_transform(Config()))
options = {"transform": files.transform, "dtype": torch.uint16}
packed = PackedImages.build(table, "runs/scaling/images.pack", **options)
pairs = ((packed.__getitems__(b), collate_fn_pad([files[i] for i in b])) for b in buckets[:4])
print("bit for bit:", all(torch.equal(a["images"], b["images"]) for a, b in pairs))


# %%
def home(n, area, gpu_gb, ram_gb):
    return ...


q4.check(home)

# %% [markdown]
# ## The training step
#
# Now loading is nothing, and the model is the slowest thing. Three switches promise speed, and each is a field of
# `Config`, off unless you turn it on: `mixed_precision` ([notebook 09](09_training.ipynb)) computes in 16 bits where
# that is safe; `channels_last` lays the [channels of a pixel side by side](GLOSSARY.md#channels-last) in memory, which
# some convolutions like better; `compile` lets PyTorch write one program for several operations, which takes a while at
# first. **Predict.** Which of them helps on your device? And do 16 bits change the loss?

# %%
images = Standardise()(next(on_device(buckets, store)))
model, labels = SmallCNN().to(device), torch.arange(len(images), device=device) % 2


def step(model, images, half=False):
    with torch.autocast(device.type, autocast_policy(device)[0] or torch.bfloat16, enabled=half):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    return loss.item()  # waits for a GPU


print("16 bits, same loss to 1 %:", abs(step(model, images, True) / step(model, images) - 1) < 0.01)

# %% tags=["nbval-ignore-output"]
last = SmallCNN().to(device, memory_format=torch.channels_last)
compact = images.to(memory_format=torch.channels_last)
options = {"float32": lambda: step(model, images), "16 bits": lambda: step(model, images, True)}
options["channels last"] = lambda: step(last, compact)
if device.type == "cuda" and find_spec("triton"):  # its compiler; not on Windows
    compiled = torch.compile(model)
    options["compiled"] = lambda: step(compiled, images)
times = {name: [] for name in options}
for name in 5 * list(options):
    start = perf_counter()
    options[name]()
    times[name].append(1000 * (perf_counter() - start))
measured = {name: rounds[1:] for name, rounds in times.items()}  # the first warmed up
figure = plots.step_times(measured, device.type.upper(), caption=plots.SIMULATED)
plots.show(figure, "Milliseconds of one training step, plain and with each option.")

# %% [markdown]
# *This output is a verdict on one machine, so it is not compared.* On the CPU that built this page, channels last and
# 16 bits made a step faster. CPUs without units for 16 bits get slower, so `Config.mixed_precision` leaves every
# CPU at `float32`. Compiling is left out here, for it needs a C++ compiler: on that machine it took 22 seconds, and
# made a step of one image size 2.4 times as fast.
#
# We had no GPU to measure on: your figure is the verdict, and here is what to expect. Sixteen bits pay on a GPU with
# units for them (`float16` on a T4, `bfloat16` from Ampere on). Compiling pays in long trainings, if image sizes do not
# change too often. Where a network is as small as ours, a GPU mostly waits for orders, and larger batches may help more
# than any switch. So none of them is on until you have measured it.
#
# **Threads.** On a CPU, PyTorch shares work among threads by OpenMP. A thread that waits for its share spins: it keeps
# a core busy doing nothing. Beside a busy neighbour, one of our loaders fell from 1,649 images a second to about 100.
# `OMP_WAIT_POLICY=PASSIVE` lets threads sleep instead. It is read once, when PyTorch is imported; `bpsutils` sets it,
# so import `bpsutils` first. And several processes on one machine need fewer threads each, cores divided by processes:
# that is `OMP_NUM_THREADS`. (`torchrun` sets it to 1; `run` then shares the cores out.)
#
# ## The whole set
#
# The real set is 77,177 images in an [object store](GLOSSARY.md#object-store), in NASA's open *bucket* (a folder there,
# nothing to do with our buckets of sizes). `python -m bpsutils download --to data/bps` fetches it, and with
# `--limit 2000` a balanced part. Each file takes its name only when its size and its
# [checksum](GLOSSARY.md#checksum) are right; a bar shows progress; the same command again fetches what is missing.
# **Predict.** Asked for one at a time, and 64 at once: minutes, or hours?
#
# <details><summary>How long it takes</summary>
#
# | 77,177 images | images a second | minutes |
# |---|---|---|
# | one at a time | 19 | 68 |
# | 16 at once | 300 | 4.3 |
# | 64 at once | 1,037 | 1.2 |
# | what a line of 100 Mbit/s lets through | 421 | 3.1 |
#
# The first three rates were measured for this project against a local server that answers after 50 ms. The last row is
# computed, from the 29,701 bytes of the one real image that the authors had. With 64 at once the line is the slowest
# thing, and more requests would gain nothing.
#
# </details>
#
# To try it without a network, here is a bucket on your own machine, with the shipped **simulated** images at NASA's
# address. **Predict.** We fetch 12 images, then 30. How many requests are there in all? (Each call asks for the table
# `meta.csv`, too.)

# %%
from bpsutils.local_bucket import LocalBucket

rmtree("runs/scaling/bps", ignore_errors=True)
bucket = LocalBucket(SAMPLE_DIR / "bps")
for limit in (12, 30):
    told = download_images("runs/scaling/bps", limit=limit, endpoint=bucket.url, progress=False)
    print(f"{told.kept} kept, {told.fetched} fetched; {bucket.requests} requests so far")

# %% [markdown]
# **No room for a copy?** `ImageStream` (notebook 02) also reads straight from the bucket, with many requests ahead of
# the image that is due. Each epoch then costs the download again, so it is for sets that fit nowhere.
#
# A stream asks no sampler, so each worker of each [rank](GLOSSARY.md#rank) must know its share. **Predict.** Two
# ranks with two workers each read 30 images. Does every image come exactly once?

# %%
remote = stream_table(limit=30, endpoint=bucket.url)
streams = [ImageStream(remote, rank=rank, world_size=2, endpoint=bucket.url) for rank in range(2)]
loaders = [torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2) for stream in streams]
shares = [[sample["index"] for sample in loader] for loader in loaders]
print(len(shares[0]), "and", len(shares[1]), "images, each once:", len(set(sum(shares, []))) == 30)

# %% [markdown]
# ## Several GPUs
#
# In [distributed data parallel](GLOSSARY.md#distributed-data-parallel) training each rank is a process with a GPU and a
# whole copy of the model. Each takes its share of every batch (`DistributedBatches`, notebook 04), computes gradients,
# and all average them before the step; so the copies stay equal. How many ranks there are is the
# [world size](GLOSSARY.md#world-size).
#
# `torchrun`, which is `python -m torch.distributed.run`, starts the processes; the rest is `run` as you know it. Here
# are **two ranks on this machine's CPU**, for one epoch at 32 px, each with batches of 8. **Predict.** How many steps
# does that take, compared with one process and batches of 16? What if one rank had one step more than the other?

# %%
small = {"out_dir": Path("runs/scaling/two").resolve(), "resize": 32, "epochs": 1, "device": "cpu"}
Config(**small, batch_size=8).to_toml("runs/scaling/two.toml")
command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m bpsutils run --config"
command = [sys.executable, *command.split(), Path("runs/scaling/two.toml").resolve()]
done = subprocess.run(command, cwd="..", capture_output=True, text=True)
print(done.stderr[-2000:] if done.returncode else "both ranks have finished")
alone = Config(**small, batch_size=16)
checkpoint = load_checkpoint("runs/scaling/two/checkpoints/best.pt", make_model(alone))
print("as many steps as alone:", checkpoint["steps"] == len(make_loaders(alone)["train"]))
print("two ranks:", '"world_size": 2' in Path("runs/scaling/two/metrics.json").read_text())

# %% [markdown]
# ## From Colab to a cluster
#
# What changes is the start of the command:
#
#     # Colab, one GPU
#     python -m bpsutils run --config config.toml
#
#     # a workstation with 4 GPUs
#     torchrun --nproc-per-node 4 -m bpsutils run --config config.toml
#
#     # a cluster: the same on both machines; HOST is the name of one of them
#     torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
#         -m bpsutils run --config config.toml
#
# And what it costs, for all 77,177 images:
#
# | what it costs | Colab, one T4 | workstation, 4 GPUs | cluster, 2 machines of 4 GPUs |
# |---|---|---|---|
# | fetch all, at 100 Mbit/s | 3 minutes a session | 3 minutes, once | 3 minutes, once |
# | images and `out_dir` | own disk, never Drive | own disk | a disk that both machines share |
# | store on each GPU | 2.4 GB | 2.4 GB | 2.4 GB |
# | images a step, 64 a rank | 64 | 256 | 512 |
# | gradients to average a step | none | 0.24 MB | 0.24 MB: about 3 ms at 1 Gbit/s |
# | look out for | sessions end: copy checkpoints to Drive | larger batches: tune the rate | one fails, all stop |
#
# These costs are computed, not measured: 77,177 × 15,500 pixels × 2 bytes, 2.3 GB of files, and the 60,000 weights of
# `SmallCNN` in `float32`. After a stop the same command resumes, with another number of ranks if you like; so what
# began in Colab can go on elsewhere.
#
# ## You can now
#
# - profile an epoch, and say what a faster part can be worth at most;
# - lay images of all sizes into one flat store, and make whole batches of it, on a GPU as well;
# - judge by measurement whether mixed precision, channels last or compiling helps on your device;
# - fetch the whole set, or stream it, each image exactly once over workers and ranks;
# - train with several processes, and say what changes from Colab to a cluster.
#
# ## Recall
#
# <details><summary>Loading is 75 % of an epoch. What is the most that a perfect loader can gain?</summary>
#
# A factor of 4: the other quarter stays.
#
# </details>
# <details><summary>Why would buckets have gained little on the first rung?</summary>
#
# There, reading files took most of the time. Fewer padded pixels save copying, which was a small part.
#
# </details>
# <details><summary>Why does the packed loader have no workers?</summary>
#
# A batch is made faster than it could be sent from one process to another.
#
# </details>
# <details><summary>Why must all ranks take the same number of steps?</summary>
#
# They average gradients at each step. A rank with one step more would wait for the others for ever.
#
# </details>
# <details><summary>When do you stream instead of downloading?</summary>
#
# When there is no room for a copy. Otherwise every epoch would pay for the network again.
#
# </details>
#
# ## Next
#
# This is the last notebook. Take your own images up the ladder: `python -m bpsutils run --data FOLDER --out runs/mine`,
# and profile it before you change anything.
