# %% [markdown]
# # 02 · Datasets
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/02_datasets.ipynb)
#
# You will write a [dataset](GLOSSARY.md#dataset) for your own files, break it in three ways to learn what each method
# is for, and read one folder by three roads: map-style, iterable-style, and torchvision's. Then you can tell which road
# a project needs, and read `bpsutils/datasets.py`.
#
# **You need** notebook 01. **Time:** 45 minutes.

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

# %% [markdown]
# ## What lies in the folder
#
# Simulated crops in the format of NASA's real ones, and a CSV with one row a file: the *annotations*.

# %%
import numpy as np
import pandas as pd
import tifffile
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bpsutils import SAMPLE_DIR, HorizontalFlip, ImageDataset, plots, read_image

folder = SAMPLE_DIR / "bps"
meta = pd.read_csv(folder / "meta.csv")
print(meta.head(2).to_string(index=False), "\n...", len(meta), "rows")
with tifffile.TiffFile(folder / meta["filename"][0]) as tiff:
    page = tiff.pages[0]
    stored = sum(page.databytecounts)
    print(page.shape, page.dtype, page.compression.name, stored, "of", page.nbytes, "bytes")

# %% [markdown]
# *Two corrections.* The notes behind this course say that microscopy files are "usually in `.FITC` format" and that
# these were "compressed to [TIFF](GLOSSARY.md#tiff)". [FITC](GLOSSARY.md#fitc) is a green dye, and so the name of a
# *channel*: the light that was let through to the camera. TIFF is a file format. It is a container and need not
# compress at all; here it does, by Deflate, and no grey level is lost. Microscopes write their makers' formats (ND2,
# CZI, LIF) or OME-TIFF.
#
# ## Three methods
#
# Why a class, and not a loop over files? **Efficiency:** a file is read when its sample is wanted. **Standardisation:**
# every loader, sampler and training loop can use your data through the same two questions, *how many?* and *give me
# number 7*. **Preprocessing:** what turns a file into numbers stands in one place.
#
# In the class below, `transform` is called with the image and `target_transform` with the label, if they are given. We
# give the second, to make a number of the name, because a [loss](GLOSSARY.md#loss) computes with numbers.

# %% [markdown] tags=["instructor"]
# > *Show:* `dataset.py` of the notes: here, the next cell, method by method. Then `ImageDataset` in
# > `bpsutils/datasets.py`: the same three methods, and what was added answers a failure.
# >
# > *Say:* remember little, count, read one. Whatever is slow belongs in the third method.
# >
# > *Minutes:* 8


# %%
class Crops(Dataset):
    def __init__(self, csv, folder, transform=None, target_transform=None):
        self.img_labels = pd.read_csv(csv)
        self.folder = Path(folder)
        self.transform, self.target_transform = transform, target_transform

    def __len__(self):
        return len(self.img_labels)

    def __getitem__(self, index):
        row = self.img_labels.iloc[index]
        image, label = read_image(self.folder / row["filename"]), row["particle_type"]
        image = torch.from_numpy(image)[None]
        image = self.transform(image) if self.transform else image
        label = self.target_transform(label) if self.target_transform else label
        return image, label


# %%
crops = Crops(folder / "meta.csv", folder, target_transform=["X-ray", "Fe"].index)
image, label = crops[0]
print(len(crops), "samples; sample 0:", tuple(image.shape), image.dtype, "label", label)
print("torch's Dataset has", {"__init__", "__len__", "__getitem__"} & set(vars(Dataset)))
plots.show(plots.class_diagram(), "A box for torch's Dataset with __getitem__; Crops inherits from it.")

# %% [markdown]
# *Corrections.* The notes draw all three methods as *abstract*, which would mean that you must write each, and they
# disagree whether `__init__` is a must. `Dataset` itself knows only `__getitem__`, and its version raises an error
# until you write yours. `__init__` is there if you have something to remember. `__len__` is not demanded, but see
# below. The notes' diagram also holds `image : np.ndarray`, one image as an attribute. But one object stands for all
# images: each is made in `__getitem__` and handed out.
#
# Many tutorials read with torchvision's `decode_image` (in the notes `read_image`, its older name). **Predict.** What
# does it make of our file?

# %%
from torchvision.io import decode_image

try:
    decode_image(str(folder / meta["filename"][0]))
except RuntimeError as error:
    print("RuntimeError, the kind of file is not supported:", "Unsupported image" in str(error))

# %% [markdown]
# An error: it reads JPEG, PNG, WebP and GIF, and no TIFF. Our own `read_image` bears the same name and goes another
# way: it calls the package tifffile, and returns every grey level as it was stored.
#
# ## Break it: no `__len__`
#
# **Predict.** `Countless` forgets its length. Which of these three fail: a plain `for` loop, a loader in order, a
# loader that shuffles?


# %%
class Countless(Dataset):
    def __getitem__(self, index):
        return crops[index]


print("for loop:", sum(1 for _ in Countless()), "samples")
for shuffle in (False, True):
    try:
        print(f"shuffle={shuffle}:", next(iter(DataLoader(Countless(), shuffle=shuffle))))
    except TypeError as error:
        print(f"loader, shuffle={shuffle}: TypeError:", error)

# %% [markdown]
# The loop works, by an old rule of Python: it asks for 0, 1, 2, … until an `IndexError`. A loader cannot work that way.
# It decides *before* it reads which numbers to ask for, and for that needs to know how many there are. The cost: no
# order, no shuffling, no split, no progress bar.
#
# ## Break it: a PIL image
#
# [PIL](GLOSSARY.md#pil) opens TIFF as well, and its images are what many transforms expect. **Predict.** Sample 0 looks
# fine. What does a loader do with two of them?


# %%
from PIL import Image


class Pictures(Crops):
    def __getitem__(self, index):
        return Image.open(self.folder / self.img_labels["filename"][index]), 0


pictures = Pictures(folder / "meta.csv", folder)
print(pictures[0][0].size, pictures[0][0].mode)
try:
    next(iter(DataLoader(pictures, batch_size=2)))
except TypeError as error:
    print("TypeError:", str(error).partition(";")[0])

# %% [markdown]
# A loader stacks tensors, arrays and numbers; it cannot know how you want a picture turned into numbers. The cure is
# one line, in the dataset or as its transform: `torch.from_numpy(np.asarray(picture).copy())`. The usual advice,
# `picture.convert("L")`, costs more than an error: notebook 01 showed that it cuts down to 255 whatever is above. And
# note `size`: PIL says width first.
#
# ## Break it: everything in `__init__`
#
# **Predict.** Two datasets over the same 600 files. `Lazy` reads a file in `__getitem__`, `Eager` reads all files in
# `__init__` and keeps the images. Which one has opened more files before you see the first sample? After one epoch?
# After two?


# %%
opened = {"Lazy": 0, "Eager": 0}


class Lazy(Crops):
    def __getitem__(self, index):
        opened[type(self).__name__] += 1
        return super().__getitem__(index)


class Eager(Lazy):
    def __init__(self, csv, folder, transform=None):
        super().__init__(csv, folder, transform)
        self.samples = [super(Eager, self).__getitem__(index) for index in range(len(self))]

    def __getitem__(self, index):
        return self.samples[index]


# %%
lazy, eager = Lazy(folder / "meta.csv", folder), Eager(folder / "meta.csv", folder)
print("files opened before the first sample:", opened)
for epoch in (1, 2):
    samples = [dataset[index] for index in range(len(lazy)) for dataset in (lazy, eager)]
    print(f"after epoch {epoch}:", opened)
held = sum(image.nbytes for image, _ in eager.samples)
figure = plots.reading_cost(len(eager), held / len(eager), caption=plots.SIMULATED)
plots.show(figure, "Files opened against samples handed out: lazy rises, eager is flat.")

# %% [markdown]
# On the right, the memory that `Eager` would need for the real set: 77,177 images, reckoned as large as these simulated
# ones. So eager is no crime, if memory allows: from the second epoch on it opens nothing. But you wait for all of it
# each time you start, and there is a silent cost.
#
# **Predict.** Both now get a transform that mirrors an image with a chance of one half. We ask each for sample 0 eight
# times. How many different images does it return?

# %%
torch.manual_seed(0)
for kind in (Lazy, Eager):
    dataset = kind(folder / "meta.csv", folder, transform=HorizontalFlip(p=0.5))
    faces = {dataset[0][0].numpy().tobytes() for _ in range(8)}
    print(f"{kind.__name__}: {len(faces)} different")

# %% [markdown]
# Chance was asked once, in `__init__`, and every epoch sees that answer. If you keep images in memory, keep them as
# read, and transform in `__getitem__`. [Notebook 12](12_scaling_up.ipynb) does so, and is fast.
#
# ### Exercise 1: count the reads
#
# A folder has 600 images. In each of two epochs you take 3 batches of 8 samples and then stop; there are no workers.
# How many files does each dataset open in all, counted from the moment when it is made?

# %%
from bpsutils.exercises.datasets import q1, q2, q3, q4, q5

reads = (..., ...)  # lazy, eager

q1.check(reads)

# %% [markdown]
# ### Exercise 2: a dataset of your own
#
# Write `Nuclei`. It gets file names, labels, a function `read(name)` that returns an array, and perhaps a transform.
# Its samples are tuples `(tensor, label)`. The tensor has the shape of the array, so add no channel axis here; the
# transform, if there is one, gets that tensor.


# %%
class Nuclei(Dataset):
    def __init__(self, names, labels, read, transform=None): ...

    def __len__(self): ...

    def __getitem__(self, index): ...


q2.check(Nuclei)

# %% [markdown]
# ## Dict or tuple, with or without labels
#
# `ImageDataset` is the hardened version. It is the funnel where images, table and labels from different places meet;
# its table may come from any CSV. A sample is a dict: with five entries, names are safer than positions, and the case
# or mouse travels along as `group`. A tuple is what torchvision returns and old code expects; `as_tuple=True` gives
# one. And data without labels ([unsupervised](GLOSSARY.md#unsupervised) methods need none) have samples without labels.
#
# Step 2 of the recipe: one class, three instances, for train, validation and test. They differ in their rows, and in
# whether a transform may use chance. The classes are named once, for all three.
#
# **Predict.** In the figure below, move the index: drag the slider, or click it and press the arrow keys. How soon do
# you meet a sample that could be stacked with sample 0?

# %%
from bpsutils import Config, load_table, split_table

config = Config(out_dir="runs/datasets")
table = split_table(load_table(config), config)  # the irradiated images, each mouse in one split
parts = dict(list(table.groupby("split")))
train, val, test = (ImageDataset(parts[n], classes=config.classes) for n in ("train", "val", "test"))
print(len(train), "train,", len(val), "val,", len(test), "test; sample:", list(train[0]))
print("no labels:", list(ImageDataset(table, target=None)[0]))

# %%
from bpsutils import widgets

viewer = widgets.sample_viewer(train, caption=plots.SIMULATED)

# %% [markdown]
# Never: crops have the sizes of their nuclei, and none of the other 196 simulated ones has the size of sample 0. Until
# notebook 07 we load them one at a time, or resized.
#
# ### Exercise 3: the same number everywhere
#
# A target transform that finds its classes in the labels at hand goes wrong in a split that lacks a class. Write
# `to_numbers`, which returns a list with a number for each label: the position of that label in `classes`. A label that
# is no class must raise an error; which one is up to you.


# %%
def to_numbers(labels, classes):
    return ...


q3.check(to_numbers)

# %% [markdown]
# ## The other style: a stream
#
# What you saw is a [map-style dataset](GLOSSARY.md#map-style-dataset): a map from an index to a sample. An
# [iterable-style dataset](GLOSSARY.md#iterable-style-dataset) has no indices, only a next sample. `__iter__` decides
# the order, and how much is read at a time. This one reads the CSV in *chunks* of 64 rows, so a table of any length
# fits into memory.


# %%
class Stream(IterableDataset):
    def __init__(self, csv, folder, chunk=64):
        self.csv, self.folder, self.chunk = csv, folder, chunk

    def __iter__(self):
        for rows in pd.read_csv(self.csv, chunksize=self.chunk):
            for name, label in zip(rows["filename"], rows["particle_type"], strict=True):
                yield torch.from_numpy(read_image(self.folder / name))[None], label


stream = Stream(folder / "meta.csv", folder)
image, label = next(iter(stream))
print("The first is crops[0]:", torch.equal(image, crops[0][0]), label)

# %% [markdown]
# | | map-style | iterable-style |
# |---|---|---|
# | you write | `__getitem__`, `__len__` | `__iter__` |
# | order | a sampler decides, and can shuffle | the stream decides |
# | right for | files on a disk, anything that fits a table | one long archive, a download, a camera, a database |
# | because | any sample can be had at once | jumping about is slow or impossible |
#
# `len(stream)`, `stream[7]` and `shuffle=True` are errors. Notebook 12 streams; until then everything here is
# map-style, as most things should be.
#
# **Predict.** Two workers, processes that load side by side, read a stream of the numbers 0 to 5. What comes out?

# %%
from bpsutils import ImageStream
from bpsutils.exercises.datasets import NaiveStream

print(sorted(DataLoader(NaiveStream(range(6)), batch_size=None, num_workers=2)))
dealt = DataLoader(ImageStream(parts["val"][:6]), batch_size=None, num_workers=2)
print(sorted(sample["index"] for sample in dealt))

# %% [markdown]
# Every worker has its own copy of the dataset and walks through all of it: each number comes twice, with no error. A
# map-style dataset is spared this, because one sampler, in the main process, deals out the indices. A stream must ask
# which worker it is in (`torch.utils.data.get_worker_info`) and yield only its share. `ImageStream` does, in the second
# line of output.
#
# ### Exercise 4: share a stream
#
# Write `share`, which yields the samples that belong to worker number `worker`, counted from 0, of `workers` in all.
# Samples are dealt out like cards: the first to worker 0, the second to worker 1, and after the last worker again to
# worker 0. The stream may have no end.


# %%
def share(stream, worker, workers):
    return ...


q4.check(share)

# %% [markdown]
# ### A batch size that depends on the data
#
# Crops differ in size, so 16 of them are sometimes many pixels and sometimes few, and memory must be there for the
# most. A stream can form batches itself: it fetches an image, sees how large it is, and closes the batch before a
# *budget* of pixels would be exceeded. `batch_size=None` tells the loader to leave such batches as they come.
#
# ### Exercise 5: as many as fit
#
# Write `batches`, which yields lists of images (tensors of shape `(1, H, W)`) from a stream, in order. Each list takes
# images until the next one would bring it above `budget` pixels; an image that is larger than the budget is alone in
# its list. The figure shows what it will do on the training crops; the dashed line is the budget. (To stack such a list
# is a matter of its own, for notebook 07.)

# %%
pixels = (parts["train"]["height"] * parts["train"]["width"]).tolist()
figure = plots.batch_pixels(pixels, 16, 300_000, caption=plots.SIMULATED)
plots.show(figure, "Pixels in each batch: 16 images vary around the budget, other batches stay below.")


# %%
def batches(images, budget):
    return ...


q5.check(batches)

# %% [markdown]
# ## Datasets that others wrote
#
# torchvision's `ImageFolder` finds labels without a CSV: it takes the name of each subfolder as a class. Our folder has
# no subfolders, so we copy its files into two. **Predict.** Four roads now lead to the same files. Does each bring the
# same grey levels? If not, which one differs, and why?

# %%
import shutil
from tempfile import TemporaryDirectory

from torchvision.datasets import DatasetFolder, ImageFolder

home = TemporaryDirectory()
for name, label in zip(meta["filename"], meta["particle_type"], strict=True):
    (Path(home.name) / label).mkdir(exist_ok=True)
    shutil.copy(folder / name, Path(home.name) / label / name)
folders = {"DatasetFolder": DatasetFolder(home.name, loader=read_image, extensions=(".tif",))}
roads = {"map-style": crops, "iterable-style": stream, **folders, "ImageFolder": ImageFolder(home.name)}

# %%
for road, dataset in roads.items():
    counts = sum(np.bincount(np.asarray(image).ravel(), minlength=65536) for image, _ in dataset)
    print(f"{road:15} {np.count_nonzero(counts):6,} levels, {counts[255] / counts.sum():.0%} at 255")
firsts = {road: np.asarray(next(iter(dataset))[0]).squeeze() for road, dataset in roads.items()}
plots.show(plots.same_image(firsts, caption=plots.SIMULATED), "Three equal nuclei; the last is white.")

# %% [markdown]
# `DatasetFolder` takes your own reader, and agrees. `ImageFolder`'s reader converts to 8-bit RGB, and of the simulated
# pixels 93 in 100 are cut to 255. It gives no warning: a model would train on white paper. Note also the class numbers
# (`class_to_idx`), alphabetical by folder: here Fe is 0, above it was 1.

# %% [markdown] tags=["instructor"]
# > *Show:* torchvision's list of datasets, <https://pytorch.org/vision/stable/datasets.html>; the source of one.
# >
# > *Say:* nothing magic: `__init__`, `__len__`, `__getitem__`, written by others.
# >
# > *Minutes:* 4

# %% [markdown]
# **[MNIST](GLOSSARY.md#mnist) and FashionMNIST**, 28 × 28 images of digits and of clothes, are for trying out code and
# comparing models. The course ships a few digits **drawn by a program** in the same format. Set `real = True` to fetch
# the real ones, about 12 MB.

# %%
from torchvision.datasets import MNIST

real = False
digits = MNIST("runs/mnist" if real else SAMPLE_DIR / "digits", train=True, download=real)
picture, label = digits[0]
print(len(digits), "samples; sample 0:", type(picture).__name__, picture.size, "label", label)
images = [np.asarray(digits[index][0]) for index in range(12)]
origin = "The real MNIST." if real else "Digits drawn by a program, not MNIST."
title = f"Labels {', '.join(str(digits[index][1]) for index in range(12))}"
figure = plots.image_grid(images, window=(0, 255), title=title, caption=origin)
plots.show(figure, "Twelve digits, white on black.")

# %% [markdown]
# A sample is a PIL image, so a loader refuses it like `Pictures` above; `transform=` is torchvision's place for the
# cure. `FashionMNIST("runs/fashion", download=True)` is used in the same way. The [list of
# all](https://pytorch.org/vision/stable/datasets.html) is long, and all of them are map-style classes with the methods
# you wrote.
#
# The notes name three domain libraries. At the start of 2026 they fare differently:
#
# | library | for | state |
# |---|---|---|
# | torchvision | images | alive, and used throughout this course |
# | torchaudio | sound | in maintenance since 2.8; reading and writing files moved to TorchCodec |
# | torchtext | text | ended with 0.18 in 2024; Hugging Face's `datasets` and `tokenizers` took its place |
#
# You can now read [`bpsutils/datasets.py`](../bpsutils/datasets.py) from top to bottom. What is new there has its
# reason in a comment: paths as bytes of one width, because lists of names grow in every worker; random numbers by
# (seed, epoch, index), so that a worker's number does not matter.
#
# ## You can now
#
# - write a map-style dataset, and say which of its methods is demanded, and by whom;
# - tell what a missing length, a PIL image and early reading cost;
# - choose between dict and tuple, and between map-style and iterable-style;
# - share a stream among workers, and let the data decide the batch size;
# - use torchvision's datasets with 16-bit files.
#
# ## Recall
#
# <details><summary>Why does a loader need the length, when a for loop does not?</summary>
#
# It chooses the order of the indices before it reads any sample. A loop goes on until an `IndexError`.
#
# </details>
# <details><summary>When is it right to read everything in __init__, and what must not happen there?</summary>
#
# When it fits into memory and you pass over it more than once. Random transforms must not run there, or every epoch
# sees the same draw.
#
# </details>
# <details><summary>Two workers read a stream that knows nothing of workers. What comes out?</summary>
#
# Every sample twice, without an error.
#
# </details>
# <details><summary>What is FITC, what is TIFF?</summary>
#
# A green dye, whose name the channel bears; a file format, a container that may or may not compress.
#
# </details>
#
# ## Next
#
# You can ask for any sample by number. [03 DataLoaders](03_dataloaders.ipynb) asks for them in batches,
# and as fast as the model can take them.
