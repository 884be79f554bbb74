# %% [markdown]
# # 01 · Tensors
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/01_tensors.ipynb)
#
# You will make, inspect and compute with [tensors](GLOSSARY.md#tensor), time them on CPU and GPU, and turn a 16-bit
# microscope image into numbers for a model without losing any of it on the way.
#
# A tensor is an array of numbers of one type, much like NumPy's. Inputs go into a model as tensors, outputs come out as
# tensors, and what a model has learned is kept in tensors. Unlike an array, a tensor can live on a GPU.
#
# **You need** notebook 00 and a little NumPy. **Time:** 45 minutes.

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
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from bpsutils import SAMPLE_DIR, pick_device, plots, read_image, to_float, widgets
from bpsutils.exercises.tensors import q1, q2, q3, q4, q5

# %% [markdown] tags=["instructor"]
# > *Show:* `tensors.py` of the notes: here, the cells up to exercise 1.
# >
# > *Say:* a tensor is an array with a type and a place. Its numbers can come from anywhere; three attributes decide
# > what you can do with them.
# >
# > *Minutes:* 10

# %% [markdown]
# ## Five ways to make a tensor
#
# **From data**, a nested list: whole numbers become `int64`, and one decimal point makes all of them
# [`float32`](GLOSSARY.md#float32).
#
# **From NumPy**, by two functions. **Predict.** After `levels[0] = 0`, which of the last two tensors below has changed?

# %%
print(torch.tensor([[257, 2470], [456, 850]]).dtype, torch.tensor([[257, 2470], [456, 850.5]]).dtype)
levels = np.array([257, 456, 2470], dtype=np.uint16)
copied, shared = torch.tensor(levels), torch.from_numpy(levels)
levels[0] = 0
print("copied:", copied.tolist(), " shared:", shared.tolist())

# %% [markdown]
# `torch.tensor` copies. `torch.from_numpy` shares NumPy's memory, which costs nothing and lets changes travel. Both
# keep the type, here [`uint16`](GLOSSARY.md#uint16).
#
# **From another tensor:** functions that end in `_like` retain its properties ([shape](GLOSSARY.md#shape), type,
# device) unless you name
# another. **Random** numbers repeat if you set a [seed](GLOSSARY.md#seed) first. **Constant** ones need only a shape.

# %%
print(torch.ones_like(shared), torch.rand_like(shared, dtype=torch.float32).dtype)
torch.manual_seed(0)
print(torch.rand(2, 3))
print(torch.zeros(3), torch.full((2, 2), 0.5), torch.arange(0, 10, 4))

# %% [markdown]
# ## Shape, dtype, device
#
# Three attributes describe every tensor: its *shape*, a tuple with the length of each axis; its
# [dtype](GLOSSARY.md#dtype), the type of one number; its [device](GLOSSARY.md#device), where it is kept. The notes that
# this course grew from write `shape()`, with brackets. **Predict.** What do these brackets do?

# %%
batch = torch.zeros(8, 1, 64, 64)
print(batch.shape, batch.dtype, batch.device)
print(batch.shape[0], "images,", batch.numel(), "numbers of", batch.element_size(), "bytes")
try:
    batch.shape()
except TypeError as error:
    print("TypeError:", error)

# %% [markdown]
# `shape` is an attribute. Python fetches it, gets a tuple, and then the brackets try to call that tuple. (There is also
# a method, `size()`, which returns the same.)
#
# ### Exercise 1: the shape of a batch
#
# Later you stack 32 grey crops, each of 141 rows and 149 columns, into one [batch](GLOSSARY.md#batch). Which shape does
# it have? Put your answer in place of the dots.
#
# In every exercise `q1.hint()` gives a nudge, then a bigger one; `q1.solution()` tells you, and why.

# %%
shape = ...

q1.check(shape)

# %% [markdown]
# ## A tour of operations
#
# The notes count "over 100" operations; [the official index](https://pytorch.org/docs/stable/torch.html) lists several
# times that. You need few of them by heart, if you know the families:
#
# | family | for example | what happens |
# |---|---|---|
# | indexing | `x[1]`, `x[:, 0]`, `x[x > 8]` | you get a part |
# | joining | `torch.cat`, `torch.stack` | several become one |
# | arithmetic | `a * b`, `torch.sqrt(a)` | number by number |
# | reductions | `x.sum()`, `x.mean(dim=0)` | axes disappear |
# | matrix product | `a @ b` | rows meet columns |
# | [broadcasting](GLOSSARY.md#broadcasting) | `(3, 1) + (1, 4)` | short axes are repeated |
# | [in-place](GLOSSARY.md#in-place) | `x.add_(1)`, `x[0] = 1` | the tensor itself changes |
#
# **Indexing.** A part is taken by numbers, by slices or by a mask. **Predict.** `row` and `picked` are parts of `x`.
# Which of them changes `x` when you write into it?

# %%
x = torch.arange(12).reshape(3, 4)
row, picked = x[1], x[x > 8]
row[0], picked[0] = 77, 88
print(x, picked)

# %% [markdown]
# A slice is a [view](GLOSSARY.md#view): another look at the same memory. A mask makes a copy.
#
# **Joining.** `cat` lengthens an axis that is there, `stack` makes a new one, as every batch does. **Arithmetic** goes
# number by number, a **matrix product** row by column. Mix up `*` and `@` on square tensors, and no error tells you.

# %%
a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 2)
print(torch.cat([a, b]).shape, torch.cat([a, b], dim=1).shape, torch.stack([a, b]).shape)
print("a * a =", (a * a).tolist())
print("a @ a =", (a @ a).tolist())

# %% [markdown] tags=["instructor"]
# > *Show:* `tensorops.py` of the notes: here, the tour from its table to exercise 3; then the official index,
# > <https://pytorch.org/docs/stable/torch.html>.
# >
# > *Say:* learn the families, look up the names. A wrong shape stops you, a wrong axis does not.
# >
# > *Minutes:* 15

# %% [markdown]
# **Reductions.** `dim` names the axes that disappear; `keepdim=True` leaves each with length 1. That matters for
# broadcasting: PyTorch lays two shapes side by side, last axis under last axis. Two lengths
# fit if they are equal, or if one is 1 or missing; that one is repeated.

# %%
images = torch.arange(24.0).reshape(2, 3, 4)
print(images.mean(), images.mean(dim=(1, 2)), images.mean(dim=(1, 2), keepdim=True).shape)

# %%
plots.show(
    plots.broadcasting_diagram((3, 1), (1, 4)),
    "A column of three numbers and a row of four are repeated to a table, then added.",
    "Dark cells are stored. For pale ones PyTorch reads the stored numbers again.",
)

# %% [markdown]
# Broadcasting also fits shapes that you never meant to meet: `(3,)` minus `(3, 1)` is `(3, 3)`, without a word.
#
# ### Exercise 2: each image its own mean
#
# Write `centre`, which takes a batch `(B, C, H, W)` and subtracts from each image its own mean.


# %%
def centre(images):
    return ...


q2.check(centre)

# %% [markdown]
# **In-place** operations end in an underscore, or assign to a part. They save memory, and they reach further than the
# line you read. **Predict.** The first image is centred in place. What are the means of both images then?

# %%
first = images[0]
first.sub_(first.mean())
print(images.mean(dim=(1, 2)))

# %% [markdown]
# `first` was a view, so `images` changed with it. Training adds a reason for care: PyTorch may still need the old
# values to compute gradients, and then stops with an error.
#
# ### Exercise 3: no side effects
#
# Write `without_border`, which returns an image whose outermost rows and columns are 0. The image that went in stays as
# it was.


# %%
def without_border(image):
    return ...


q3.check(without_border)

# %% [markdown]
# ## CPU or GPU
#
# `x.to("cuda")` copies a tensor to an NVIDIA GPU ([CUDA](GLOSSARY.md#cuda)), `x.to("mps")` to an Apple one
# ([MPS](GLOSSARY.md#mps)); `pick_device()` names the best you have. In Colab you get a GPU by *Runtime → Change runtime
# type*, or *Edit → Notebook settings*. What meets in one operation must be on one device.
#
# Is a GPU faster? A stopwatch is easily fooled. A GPU takes an order and returns at once, before the work is done. And
# the first call also loads and compiles.
#
# ### Exercise 4: an honest stopwatch
#
# Write a stopwatch that is not fooled. `work()` gives an order, `synchronise()` waits until all orders are done,
# `clock()` returns the time in seconds. The check runs it on a pretend GPU whose first call takes ten times as long.


# %%
def seconds(work, synchronise, clock):
    return ...


q4.check(seconds)

# %% [markdown]
# **Predict.** A product of two 512 × 512 matrices is 4,096 times the arithmetic of 32 × 32. Does it take 4,096 times as
# long, on a CPU, on a GPU? The cell below takes the median of 20 runs; `.item()` asks for a number, and so it waits.
# (In your own work `torch.utils.benchmark.Timer` does all this for you.)
#
# *Times differ from machine to machine, so this output is not compared when the notebooks are tested.*


# %% tags=["nbval-ignore-output"]
def milliseconds(size, device):
    a, times = torch.rand(size, size, device=device), []
    for _ in range(21):
        start = perf_counter()
        (a @ a)[0, 0].item()
        times.append(1000 * (perf_counter() - start))
    return median(times[1:])  # the first run warmed up


devices = list(dict.fromkeys(["cpu", pick_device().type]))  # one entry if there is no GPU
times = {(size, device): milliseconds(size, device) for size in (32, 128, 512) for device in devices}
for (size, device), time in times.items():
    print(f"{size:>3} x {size:<3} on {device:<4} {time:9.4f} ms")

# %%
print("On the CPU, 512 takes longer than 32:", times[512, "cpu"] > times[32, "cpu"])
print("All devices agree:", all(torch.allclose((a.to(d) @ a.to(d)).cpu(), a @ a) for d in devices))

# %% [markdown]
# Less than 4,096 times: small products spend their time on being started, most of all on a GPU, where 32 and 128 often
# cost the same. That is why a GPU is fed whole batches.
#
# ## An image is a tensor
#
# This crop is one simulated nucleus in the format of NASA's real ones: 16 bits a pixel, grey levels from 0 to 65,535.
# **Predict.** It is shown with 0 as black and 65,535 as white. What do you see?

# %%
path = sorted((SAMPLE_DIR / "bps").glob("*.tif"))[0]
crop = read_image(path)
image = torch.from_numpy(crop)[None]
print(image.shape, image.dtype, "grey levels", crop.min(), "to", crop.max())
plots.show(
    plots.window_figure(crop, 0, 65535, caption=plots.SIMULATED),
    "The crop, black all over, beside a histogram that fills a narrow part of the range.",
    "Nothing is lost. The pixels lie in the lowest 3 % of the range: on screen, black.",
)

# %% [markdown]
# `[None]` put the channel axis in front. To see the nucleus, choose a *display window*: the grey levels that become
# black and white on screen.
#
# **Predict.** The slider moves the white end in steps that halve it (drag it, or click it and press the arrow keys).
# Where is the picture best? What do you lose above that, and what below?

# %%
slider = widgets.windowing(crop, caption=plots.SIMULATED)

# %% [markdown]
# A window changes what you see, never the data. A conversion changes the data.
#
# ## 16 bits need care
#
# PyTorch stores `uint16` and moves it about, but hardly computes with it. **Predict.** Which of these six work?

# %%
operations = {"crop": lambda x: x[..., 1:-1], "stack": lambda x: torch.stack([x, x]), "sum": torch.sum}
operations |= {"add": lambda x: x + 1, "max": torch.max, "compare": lambda x: x > 500}
for name, operation in operations.items():
    try:
        print(f"{name:<8}works, shape {tuple(operation(image).shape)}")
    except NotImplementedError:
        print(f"{name:<8}is not implemented for uint16")

# %% [markdown]
# Worse than an error is a wrong number: `image * 100` works, and every result beyond 65,535 starts again from 0.
#
# The tempting way out is 8 bits, which everything understands. Here are three roads that people take without noticing
# (torchvision's `ImageFolder` takes the first). **Predict.** What does each leave of the nucleus?

# %%
versions = {"uint16, as stored": crop, "PIL's convert('L')": np.asarray(Image.open(path).convert("L"))}
versions |= {"crop // 256": (crop // 256).astype(np.uint8), "astype(np.uint8)": crop.astype(np.uint8)}
plots.show(
    plots.sixteen_bit_damage(versions, caption=plots.SIMULATED),
    "Four panels: a nucleus with foci; nearly all white; a nucleus in a few flat steps; bands.",
    "Each panel runs from its own darkest to its own brightest value, written above it.",
)

# %% [markdown]
# `convert` cuts everything above 255, which here is nearly everything. Dividing by 256 keeps the upper byte, a handful
# of steps. `astype` keeps the lower byte, which starts again every 256 levels. Notebook 06 has the whole laboratory.
#
# The way that loses nothing: keep `uint16` while you read, crop and stack. Then, once, go to `float32` and divide
# by the range that the *type* can hold.
#
# ### Exercise 5: from 16 bits to a model's numbers
#
# Write `to_unit`: a `uint16` tensor in, `float32` from 0 to 1 out.


# %%
def to_unit(image):
    return ...


q5.check(to_unit)

# %% [markdown]
# `bpsutils.to_float` is the hardened version: it takes NumPy as well, and other ranges. Read it in
# [`bpsutils/images.py`](../bpsutils/images.py); you know every line of it now.

# %%
unit = to_float(image)
print(unit.dtype, f"from {unit.min():.4f} to {unit.max():.4f}")
print("Every grey level comes back:", torch.equal((unit * 65535).round().int(), image.int()))

# %% [markdown]
# ## You can now
#
# - make a tensor in five ways, and say whether it shares memory;
# - read its shape, dtype and device, and find an operation by its family;
# - foresee broadcasting, views and in-place changes;
# - time an operation without being fooled;
# - bring a 16-bit image to `float32` in [0, 1] and say what 8 bits would have cost.
#
# ## Recall
#
# <details><summary>Which of torch.tensor and torch.from_numpy copies?</summary>
#
# `torch.tensor` copies. `from_numpy` shares the array's memory, so a change to one is a change to both.
#
# </details>
# <details><summary>A batch (8, 1, 64, 64) less its mean over dim=(2, 3): which shape? Without keepdim?</summary>
#
# With keepdim, the means have shape (8, 1, 1, 1) and the result (8, 1, 64, 64). Without, they have shape (8, 1), the 8
# meets a 64, and PyTorch stops. With images of 8 × 8 pixels it would have run, and been wrong.
#
# </details>
# <details><summary>Why must you synchronise before you stop the clock?</summary>
#
# A GPU works through its orders later. Without waiting you time how long it takes to give an order.
#
# </details>
# <details><summary>Why divide by 65535 and not by the image's maximum?</summary>
#
# The same grey level then means the same in every image. Divided by its own maximum, a dim image looks like a bright
# one.
#
# </details>
#
# ## Next
#
# One crop is a tensor now. [02 Datasets](02_datasets.ipynb) turns a whole folder into samples that PyTorch can ask
# for by number.
