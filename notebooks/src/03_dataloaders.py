# %% [markdown]
# # 03 · DataLoaders
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/03_dataloaders.ipynb)
#
# A dataset hands out one sample at a time. A GPU wants batches, and wants them faster than one process can read files.
# The DataLoader stands between.
#
# When you are done, you can follow a batch from its index to the device, write such a loader by hand, choose the number
# of [workers](GLOSSARY.md#worker) by measuring instead of believing, and read the errors that come out of it.
#
# **You need** notebooks 00 to 02. **Time:** 45 minutes.

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
import warnings
from time import perf_counter

import pandas as pd
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset, default_collate, random_split

from bpsutils import Config, ImageDataset, ImageError, Resize, load_table, make_loaders, make_model
from bpsutils import measure_workers, plots, split_table, to_device, to_float, widgets
from bpsutils.config import SPLITS
from bpsutils.exercises.dataloaders import q1, q2, q3, q4

# %% [markdown]
# ## One line makes batches
#
# The road has four steps: you write a [Dataset](GLOSSARY.md#dataset) (notebook 02), give it a transform, here one that
# makes every image 64 × 64, wrap a [DataLoader](GLOSSARY.md#dataloader) around it, and iterate. The images are
# **simulated** nuclei. **Predict.** A sample has an image, its label, its index, its path and its group (the
# mouse). Which of these five are tensors in a batch?

# %%
config = Config(out_dir="runs/loaders", resize=64)
table = split_table(load_table(config), config)
train = table[table["split"] == "train"]
images = ImageDataset(train, Resize(64))
batch = next(iter(DataLoader(images, batch_size=4)))
for name, value in batch.items():
    is_tensor = isinstance(value, torch.Tensor)
    print(f"{name:5}", tuple(value.shape) if is_tensor else type(value).__name__)

# %% [markdown]
# Numbers became tensors, text stayed lists. Nobody told the loader how: it **batches automatically**.
#
# Think of a restaurant. The GPU is a guest who eats fast. The [sampler](GLOSSARY.md#sampler) writes the order slip,
# `__getitem__` fetches from the pantry, the transform cooks, collate puts the plates of one table on one tray. Workers
# are cooks. And the notes compare `pin_memory` to a reservation: the table is held, so nobody has to move first.
#
# The dataset need not fit into memory, for files are opened only when their sample is due. Nor need it be "a tensor",
# as the notes say: anything will do that has `__getitem__` and `__len__`, even `range(10)`.

# %% [markdown] tags=["instructor"]
# > *Show:* the notes' example of automatic batching: here, the cell above; then the page of all arguments,
# > <https://pytorch.org/docs/stable/data.html>.
# >
# > *Say:* a loader is six stations in a row. If you know the stations, you can place every argument and every error.
# >
# > *Minutes:* 8

# %% [markdown]
# ## A batch, X-rayed
#
# Follow one image by hand. **Station 1**, the sampler, only says which numbers come next.
# **Station 2**, `__getitem__`, opens a file. **Station 3**, the transform, runs inside it: still one image at a time.
# **Station 4**, the [collate function](GLOSSARY.md#collate_fn), gets a list of samples and makes one batch.
# **Station 5** copies the batch into [pinned memory](GLOSSARY.md#pinned-memory), if there is CUDA. **Station 6** is the
# device. The pixels travel as `uint16`, half the bytes of `float32`, and become floats there.
#
# **Predict.** At how many of the six stations do the image's own pixels change?

# %%
sampler = RandomSampler(images, generator=torch.Generator().manual_seed(0))
indices = list(sampler)[:4]
stored = ImageDataset(train)[indices[0]]["image"]  # without the transform: the file's own pixels
samples = [images[index] for index in indices]
batch = default_collate(samples)

# %%
cuda = torch.cuda.is_available()
pinned = batch["image"].pin_memory() if cuda else batch["image"]
on_device = to_float(to_device(pinned, torch.device("cuda" if cuda else "cpu")))
stages = {"__getitem__": stored, "transform": samples[0]["image"], "collate": batch["image"]}
stages |= {"pin": pinned, "device": on_device.cpu()}
pixels = {name: stage.numpy().squeeze() for name, stage in stages.items()}
plots.show(
    plots.batch_xray(indices, pixels, caption=plots.SIMULATED),
    "Six panels: four indices; the image as stored; resized; in a batch, pinned, as floats.",
)

# %% [markdown]
# The transform made other pixels of it, 64 × 64, and the device scaled its levels. Collate only put it beside others,
# and pinning only copied it.
#
# ### Exercise 1: collate
#
# Write `collate`. Samples are dicts with `"image"`, `"label"` and `"path"`, the images of one size. Return a dict with
# the `"images"` and the `"labels"` as tensors and the `"paths"` as a list.


# %%
def collate(samples):
    return ...


q1.check(collate)

# %% [markdown]
# ## An order for every epoch
#
# With `shuffle=True` the order is new in every epoch, so that the model cannot learn the order itself. The notes say
# that data is shuffled "after we iterate over all batches". **Predict.** Below, the second loop stops after one batch.
# Does the third begin where the second stopped, begin with the same batch again, or with another?

# %%
loader = DataLoader(range(8), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(1))
print("first: ", [batch.tolist() for batch in loader])
print("second:", next(iter(loader)).tolist(), "and stopped")
print("third: ", [batch.tolist() for batch in loader])

# %% [markdown]
# *A correction:* the order is drawn **when a loop begins**, whether or not the last one came to its end. Only indices
# are shuffled; the data stays where it is.
#
# ### Exercise 2: automatic batching, by hand
#
# Write `batches` as a generator function (`yield` each batch): a new order of all images from
# `torch.randperm(…, generator=generator)`, cut into pieces, each piece stacked. The last batch may be smaller.


# %%
def batches(images, batch_size, generator):
    return ...


q2.check(batches)

# %% [markdown]
# ## Batch size, and the odd last batch
#
# The notes want batches as large "as we can fit into GPU", and in "multiples of two (8, 16, 32)". *Two corrections.*
# Memory is only the upper limit: batch size also sets how many steps an epoch has, each a chance to learn, and smaller
# batches make noisier steps, which can help against overfitting. And 8, 16, 32 are powers of two: a habit, 24 works
# too.
#
# **Predict.** 197 training images in batches of 16: how many batches, and how many images in the last? In 28s?

# %%
for size in (1, 16, 28, 197):
    counts = [len(batch) for batch in DataLoader(range(len(images)), batch_size=size)]
    print(f"batch size {size:3}: {len(counts):3} steps an epoch, {counts[-1]:3} images in the last")

# %%
norm = torch.nn.BatchNorm1d(3)
for size in (2, 1):
    try:
        print(size, "images:", tuple(norm(torch.rand(size, 3)).shape))
    except ValueError as error:
        print(size, "image:", f"{type(error).__name__}:", str(error).split(",")[0])

# %% [markdown]
# A layer that normalises over the batch cannot do with one image. `drop_last=True` leaves the odd batch out, other
# images in each epoch if you shuffle. Use it for training where such a layer or a compiled model needs it, and never
# for
# validation and test: every image has to be judged. The notes' advice, False unless you have plenty, is sound.
#
# A small batch does harm where you keep it, too. A loss is usually the mean over a batch, and many people average these
# means over the epoch. **Predict.** What does an image of the last batch (5 of 197) count then?

# %%
plots.show(
    plots.last_batch(len(images), 16),
    "Thirteen batches, the last of 5 images; each of these weighs three times its share.",
)

# %% [markdown]
# ### Exercise 3: the mean of an epoch
#
# Write `epoch_mean`: from the mean loss of each batch and the number of its images, the mean over all images.


# %%
def epoch_mean(losses, sizes):
    return ...


q3.check(epoch_mean)

# %% [markdown]
# ## When collate fails
#
# Without `Resize`, images keep their sizes. **Predict.** Which station stops, and what does it say?

# %%
try:
    next(iter(DataLoader(ImageDataset(train), batch_size=4)))
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# "Entry 0" and "entry 1" are places in the batch, not in the dataset. In the full stack trace you find `collate.py`:
# every sample was loaded and is fine alone, but they do not fit *together*. (Had your own `__getitem__` been the last
# frame, one sample would be to blame.) The cure is one size for all, as here, or a `collate_fn` of your own, such as
# `bpsutils.collate_fn_pad`, which notebook 07 builds.
#
# ## Workers: loading while the model trains
#
# With `num_workers=0` the main process loads a batch, trains on it, loads the next. With workers, other processes load
# **while the model trains**. Too few of them, and the GPU is idle: *underutilisation*, and longer training.
#
# **Predict.** Below, a batch takes 30 ms to load and 10 ms to train on; the machine has 4 cores. From how many workers
# on does the GPU never wait after its first batch? And what do 8 do?

# %%
slider = widgets.worker_timeline()

# %% [markdown]
# A simulated schedule, so that you can see the rule; starting a worker costs nothing in it. Three workers bring a batch
# every 10 ms, as fast as the GPU takes them. Beyond 4 they share the cores: each is slower, and the first batch is
# late.
#
# ### Exercise 4: how many?
#
# From the milliseconds that one batch takes to load and to train on, and the number of cores: the fewest workers that
# keep the GPU busy, a whole number from 1 to the number of cores. More than the cores never help.


# %%
def workers_needed(load, train, cores):
    return ...


q4.check(workers_needed)

# %% [markdown]
# ### Measure it where you sit
#
# The notes have three rules of thumb for the number of workers:
#
# | machine | half the cores | twice the GPUs | four times the GPUs |
# |---|---|---|---|
# | Colab with a T4: 2 cores, 1 GPU | 1 | 2 | 4 |
# | laptop: 8 cores, no GPU | 4 | 0 | 0 |
# | workstation: 32 cores, 1 GPU | 16 | 2 | 4 |
#
# So measure: images per second with 0, 1, 2 and 4 workers, and by batch size, for loading and for training steps (33 is
# among the sizes because it is no power of two). **Predict** the number of workers that wins on your machine.

# %%
warnings.filterwarnings("ignore", "This DataLoader will create")  # too many on purpose
few, model = Subset(images, range(128)), make_model(config).to(on_device.device)


def steps(size):
    for batch in torch.rand(128, 1, 64, 64, device=on_device.device).split(size):
        model(batch).mean().backward()
    return model.head.bias.grad.sum().item()  # .item() waits for a GPU


def images_per_second(work, *arguments):
    times = []
    for _ in range(3):
        start = perf_counter()
        work(*arguments)
        times.append(perf_counter() - start)
    return len(few) / min(times)  # the best of three: whatever else runs here only slows it


# %% tags=["nbval-ignore-output"]
workers = measure_workers(DataLoader(few, batch_size=16), candidates=(0, 1, 2, 4))
steps(16)  # warm up
rows = []
for size in (1, 4, 16, 33, 64):
    loading = images_per_second(list, DataLoader(few, batch_size=size))
    rows.append((size, loading, images_per_second(steps, size)))
measured = pd.DataFrame(rows, columns=["batch_size", "loading", "training"])
plots.show(
    plots.throughput(measured, workers, caption=plots.SIMULATED),
    "Images per second by batch size, for loading and for training, and by number of workers.",
)

# %% [markdown]
# *Speed differs between machines and from minute to minute, so the figure above is not compared.*
#
# Loading costs about the same per image in batches of any size. A training step has a fixed cost, so larger batches
# pay, up to a point; 33 lies among its neighbours, give or take what changes from run to run. The bars count loading
# alone, with no training beside it. If 0 workers win on your machine, these small crops are loaded as fast as they can
# be sent from one process to another. (PyTorch warns if you ask for more workers than cores; here that is silenced.)
#
# **The verdict on the rules.** They contradict each other by a factor of 4 on Colab. The two that count GPUs are wrong
# about what matters: a GPU loads nothing, cores do, and without a GPU they give 0. (In training on several GPUs each
# has its own process and its own loader: multiply, and stay below the cores.) Half the cores is a fair **start** and
# no more: with 2 cores it means one worker, and your own bar says whether that beats none. What you need is loading
# time over training time, as in exercise 4; then measure. The notes would raise the number until it
# crashes and then halve it: a crash can come after hours, and the best number lies well below it. **Predict.** What
# else do more workers cost, besides time?

# %%
training = measured.set_index("batch_size")["training"]
print("batches of 1 train slower than larger ones:", training[1] < training.drop(1).max())
pairs = zip(DataLoader(few, 16), DataLoader(few, 16, num_workers=2), strict=True)
same = all(torch.equal(alone["image"], helped["image"]) for alone, helped in pairs)
print("with 2 workers the same batches in the same order:", same)

# %%
plots.show(
    plots.too_many_workers(),
    "Epoch time falls until 2 or 3 workers and then rises slowly; memory grows steadily.",
    "A batch here is 64 RGB images of 224 × 224 in float32. Each worker keeps two ready.",
)

# %% [markdown]
# Too many workers take memory: each keeps `prefetch_factor` batches ready, and a process of its own around them.
# The whole system may become laggy, and in extreme cases the loader dies with *worker exited unexpectedly* or *bus
# error*: out of memory, or out of the shared memory through which batches travel. It may die late, so models should be
# saved as they train (notebook 09).

# %% [markdown] tags=["instructor"]
# > *Show:* the timeline at 0, 3 and 8 workers; then the students' own measurements side by side. Later, the notes' last
# > two examples: splitting data, and loaders from a dictionary (`tensors.py`), both under *Three loaders*.
# >
# > *Say:* rules of thumb are where you start measuring. Count cores, not GPUs, and stop when the GPU no longer waits.
# >
# > *Minutes:* 9

# %% [markdown]
# ## A worker's traceback
#
# An error in a worker happens in another process. Here one file was cut off after 9,000 bytes, as by a full disk.
# **Predict.** What do you need to know to mend it, and in which line of the message will it stand?

# %%
half = Path("runs/half.tif")
half.parent.mkdir(exist_ok=True)
half.write_bytes(Path(train["path"].iloc[5]).read_bytes()[:9000])
paths = [str(half) if row == 5 else path for row, path in enumerate(train["path"])]
try:
    dataset = ImageDataset(train.assign(path=paths), Resize(64))
    list(DataLoader(dataset, batch_size=4, num_workers=2))
except ImageError as error:
    message = str(error)
plots.show(plots.worker_traceback(message), "A worker's traceback: each line and what it says.")

# %% [markdown]
# The last line says **what** happened, the frames in your own files **where**, the first line only **who**: worker 1,
# for batches go to the workers in turn. (This message names the file. An error without a name you hunt by index.) If a
# message tells you too little, run once more with `num_workers=0`: same error, one process, and a debugger works.
#
# A worker works on a **copy** of your dataset, with copies of any random generator in it: they all draw the same.
# PyTorch seeds its own, Python's and NumPy's *global* generators in each worker, each differently. A generator that you
# store in a dataset it does not know. Draw from `(seed, epoch, index)` instead, as `ImageDataset` does. Where workers
# are not forked (Windows, macOS, Linux from Python 3.14), they must also be able to *import* your dataset and your
# `collate_fn`: a class from a cell or a lambda works only with 0 workers.
#
# ## Pinned memory
#
# The notes "pin data to GPU memory". *A correction:* pinned memory is **host** memory, page-locked. The system promises
# not to move it, so the GPU can fetch from it on its own, and with `non_blocking=True` Python goes on meanwhile. From
# ordinary memory a copy waits, whatever you ask for. Set `pin_memory=True` if there is CUDA and let the loader pin, in
# a thread of its own: pinning takes time as well, and by hand it is often a loss.
#
# ## The arguments that matter
#
# All are optional but the first.
#
# | argument | what it decides | choose |
# |---|---|---|
# | `dataset` | where samples come from | anything with `__getitem__` and `__len__` |
# | `batch_size` | images a step | by learning and memory; 16 to 128 is common |
# | `shuffle` | a new order each epoch | True to train, False to judge |
# | `sampler`, `batch_sampler` | another order | notebooks 04 and 07 |
# | `num_workers` | processes that load | half the cores, then measure |
# | `collate_fn` | list of samples → batch | your own if sizes differ |
# | `pin_memory` | page-locked batches | True with CUDA |
# | `drop_last` | the odd last batch | False to judge |
# | `generator` | where the order is drawn from | seeded, to repeat a run |
# | `worker_init_fn` | runs once in each new worker | open a database, limit threads |
# | `persistent_workers` | workers live on after an epoch | True if epochs are short |
# | `prefetch_factor` | batches ready per worker | 2, the default with workers |
#
# ## Three loaders
#
# A part for validation is quickly cut off by `random_split`. **Predict.** The training images come from 8 mice. How
# many mice of the second part are in the first as well?

# %%
parts = random_split(images, [0.8, 0.2], generator=torch.Generator().manual_seed(0))
first, second = (set(images.groups[part.indices].tolist()) for part in parts)
print(f"{len(parts[0])} and {len(parts[1])} images")
print(f"{len(first & second)} of the second part's {len(second)} mice are in the first")

# %% [markdown]
# All: `random_split` knows nothing of mice, and leaks ([leakage](GLOSSARY.md#leakage), notebook 00). Use it where
# samples are independent, and `split_table` here. Then a **dict of loaders**, as the notes do:

# %%
loaders = {}
for split in SPLITS:
    dataset = ImageDataset(table[table["split"] == split], Resize(64), classes=config.classes)
    loaders[split] = DataLoader(dataset, batch_size=16, shuffle=split == "train")
    order = type(loaders[split].sampler).__name__
    print(f"{split:5} {len(dataset):3} images, {len(loaders[split]):2} batches, {order}")
hardened = make_loaders(config, table)
print({split: tuple(next(iter(loader))["images"].shape) for split, loader in hardened.items()})

# %% [markdown]
# It is easier to read and to use: `loaders["val"]` instead of three names, and a loop can go over it. Written out one
# by one it would repeat every argument three times (the notes' *con*), and someday only two of them get changed; the
# loop says what is common once, and names the difference. `make_loaders` is the hardened version: it puts images of
# similar size together, pads them, augments only training, and seeds what is drawn. (Its batches
# come in an order of their own, here the odd one of 2 images first. From 300 images on it decodes each file once and
# for all, and then needs no workers: [notebook 12](12_scaling_up.ipynb).) Read it, with `measure_workers`, in
# [`bpsutils/loaders.py`](../bpsutils/loaders.py): you know its arguments now.

# %% [markdown]
# ## You can now
#
# - follow a batch from index to device, and place every argument and every error at its station;
# - batch by hand, and say when an order is drawn;
# - foresee the odd last batch, drop it where that is right, and average without giving it extra weight;
# - choose a number of workers by measuring, and say what too many cost;
# - read a worker's traceback, and tell a bad sample from a failed collate;
# - keep loaders in a dict.
#
# ## Recall
#
# <details><summary>A traceback ends in collate.py. Is one file broken?</summary>
#
# Probably not. Each sample was loaded; together they make no batch, most often because their sizes differ.
#
# </details>
# <details><summary>Loading takes 40 ms a batch, training 10 ms, and there are two cores. How many workers?</summary>
#
# Two. Four would be needed, but there are only two cores to work on. The GPU will wait; make loading cheaper instead.
#
# </details>
# <details><summary>Where is pinned memory, and who profits?</summary>
#
# In the host's memory, page-locked. A CUDA GPU can copy from it on its own while Python goes on.
#
# </details>
# <details><summary>Why not drop_last=True for the test set?</summary>
#
# Up to a batch of images would never be judged, and unshuffled always the same ones.
#
# </details>
# <details><summary>Why does random_split not suit nuclei?</summary>
#
# Nuclei of one mouse land in both parts, so the score would not hold for the next mouse.
#
# </details>
#
# ## Next
#
# `shuffle=True` gives every image the same chance, once. [04 Samplers](04_samplers.ipynb) decides otherwise.
