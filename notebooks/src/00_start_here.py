# %% [markdown]
# # 00 · Start here
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/00_start_here.ipynb)
#
# When you are done, you have run a whole pipeline, from a folder of microscope images to a
# [confusion matrix](GLOSSARY.md#confusion-matrix), and can say what its result is worth. You see the whole first and
# visit each station after; the other notebooks then build the stations by hand.
#
# **You need** Python and a little NumPy. No [GPU](GLOSSARY.md#gpu). **Time:** 45 minutes.

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
# ## The whole game
#
# Mouse cells were hit by iron ions ([Fe](GLOSSARY.md#fe)) or by [X-rays](GLOSSARY.md#x-ray). Where DNA is being
# repaired, a bright spot lights up in the nucleus, a [focus](GLOSSARY.md#focus). An ion leaves its foci in lines,
# X-rays scatter them. Can a small [model](GLOSSARY.md#model) say which it was, for mice that it has never seen? All
# images here are **simulated**, in the format of NASA's real ones.

# %% [markdown] tags=["instructor"]
# > *Show:* the next cell, line by line, before you run it; then `bpsutils/pipeline.py`, function `fit`: the same lines.
# >
# > *Say:* every notebook of the course is one line of this cell.
# >
# > *Minutes:* 8

# %% tags=["nbval-ignore-output"]
from bpsutils import Config, evaluate, load_table, make_loaders, make_model, plots, split_table
from bpsutils.device import seed_everything
from bpsutils.training import train

config = Config(resize=96, batch_size=16, epochs=16, learning_rate=1e-3, out_dir="runs/start")
seed_everything(config.seed)
everything = load_table(config)  # a folder becomes a table with one row an image
table = split_table(everything, config)  # each mouse goes to train, val or test
loaders = make_loaders(config, table)  # rows become batches of tensors
model = make_model(config)  # a small network
history = train(model, loaders, config)  # which learns from the training mice
result = evaluate(model, loaders["test"], config)  # and is judged by others
figures = plots.curves(history), plots.confusion(result.confusion, caption=plots.SIMULATED)
plots.show(figures[0], "Loss and validation score after each epoch of training.")
plots.show(figures[1], "Confusion matrix of the test images.")

# %% [markdown]
# The curves show the [loss](GLOSSARY.md#loss) after each [epoch](GLOSSARY.md#epoch). Training adds up millions of
# numbers, and every kind of processor rounds them a little differently. So your curves are not exactly these, and the
# output above is not compared when the course is tested. What holds on every machine:

# %%
test = table[table["split"] == "test"]
print(len(test), "test images of", test["group"].nunique(), "mice that the network never saw")
print("better than guessing:", result.metrics["balanced_accuracy"] > 0.55)
print(result.note)

# %% [markdown]
# ## Read the result
#
# Each row of the confusion matrix holds the nuclei of one true class, each column those that the network *called* so.
# Right answers lie on the diagonal. [Balanced accuracy](GLOSSARY.md#balanced-accuracy) is the mean of the diagonal's
# shares, row by row: 1 is perfect, and 0.5 is what you get by tossing a coin, or by always saying Fe. Plain accuracy
# would pay you for always naming the larger class. The last line warns you: two mice of each kind cannot say how much
# mice differ.
#
# ### Exercise 1: balanced accuracy
#
# Write it yourself, for a matrix as a NumPy array. Put your code in place of the dots and run the cell: the check
# answers with ○ (not attempted), ✗ (not yet, and why) or ✓ (correct).

# %%
import numpy as np

from bpsutils.exercises.start_here import q1, q2, q3, q4


def balanced_accuracy(confusion):
    return ...


q1.check(balanced_accuracy)

# %% [markdown]
# Stuck? Each call of `q1.hint()` gives a further hint, three in all. `q1.solution()` shows a solution and its reason.

# %%
q1.hint()

# %% [markdown]
# ## Station 1: a folder becomes a table
#
# `load_table` read the folder, but of each file only the header: [metadata](GLOSSARY.md#metadata). Plate, well, field
# and nucleus stand in the file name, dose and particle in `meta.csv` beside the images.

# %%
print(len(everything), "images on", everything["plate"].nunique(), "plates")
columns = ["plate", "well", "height", "width", "particle_type", "dose_Gy"]
print(everything[columns].head(3).to_string(index=False))

# %% [markdown]
# *A correction.* The notes behind this course show three rows of the real table, with X-ray in the third. The real
# `meta.csv` says Fe there, as for all of plate P242: one plate holds one condition.
#
# **Predict.** Three of these six nuclei were hit by iron. Which? Look for lines before you read on.

# %%
from bpsutils import read_image

strong = table[(table["dose_Gy"] > 0.5) & (table["hr_post_exposure"] == 4)]
six = strong.groupby("particle_type").head(8).iloc[[0, 8, 9, 1, 11, 7]]
images = [read_image(path) for path in six["path"]]
grid = plots.image_grid(images, "123456", title="Iron or X-rays?", caption=plots.SIMULATED)
plots.show(grid, "Six simulated nuclei: in 1, 4 and 6 the bright foci lie on lines.")

# %% [markdown]
# <details><summary>Answer</summary>1, 4 and 6. You may have gone by brightness instead: here the X-ray nuclei are
# brighter, but that is the plate, not the particle. The network cannot use it, for each image is standardised
# first.</details>
#
# ## Station 2: no mouse in two splits
#
# A [split](GLOSSARY.md#split) divides the images: train to learn from, val to choose by, test to judge by. Nuclei of
# one mouse resemble each other. If a mouse is in train and in test, a network can recognise the mouse instead of the
# particle, and its score is worth nothing for the next mouse. That is [leakage](GLOSSARY.md#leakage). So `split_table`
# moves whole [groups](GLOSSARY.md#group), here mice. A particle and a well name a mouse.

# %%
for split in ("train", "val", "test"):
    rows = table[table["split"] == split]
    print(f"{split:5} {len(rows)} images of", *sorted(rows["group"].unique()))

# %% [markdown]
# ### Exercise 2: find the leak
#
# Somebody hands you the mice of a training and of a test set, one name an image. Which mice are in both?


# %%
def shared_mice(train, test):
    return ...


q2.check(shared_mice)

# %% [markdown]
# ## Station 3: Dataset, instances, DataLoaders
#
# From table to [batches](GLOSSARY.md#batch) there are three steps, in every PyTorch project:
#
# 1. You write one [Dataset](GLOSSARY.md#dataset) class that says how *one* [sample](GLOSSARY.md#sample) is loaded: an
#    image, its [label](GLOSSARY.md#label) and what else you want to know.
# 2. You make three instances of it: train, val, test.
# 3. Each gets a [DataLoader](GLOSSARY.md#dataloader), which shuffles, makes batches and can load
#    in parallel.

# %%
recipe = plots.recipe_diagram()
plots.show(recipe, "One Dataset class, three Datasets, each read by its own DataLoader.")

# %% [markdown]
# `make_loaders` did all three. Ask a Dataset for one sample and a DataLoader for one batch:

# %%
sample = loaders["train"].dataset[0]
batch = next(iter(loaders["train"]))
print("one sample:", ", ".join(sample))
print("its image: ", tuple(sample["image"].shape), "channel, height, width")
print("one batch: ", tuple(batch["images"].shape), "images, channel, height, width")

# %% [markdown] tags=["instructor"]
# > *Show:* `bpsutils/datasets.py`, `ImageDataset.__getitem__`; then `make_loaders` in `bpsutils/loaders.py`, where the
# > steps follow each other: `_dataset`, `_loader`.
# >
# > *Say:* notebooks 02 and 03 write both from scratch.
# >
# > *Minutes:* 7

# %% [markdown]
# ## A rival that learned nothing
#
# Foci on a line overlap, and where they overlap they are very bright. So take one number per image: how many standard
# deviations is the brightest pixel above the median? (The difference and the division remove how bright the plate was.)
# Rank the test images by it, and call those above the [threshold](GLOSSARY.md#threshold) Fe.
#
# **Predict.** You have seen the network's score. What will one number score, without any training?

# %%
import pandas as pd

from bpsutils import widgets


def peak(path):
    image = read_image(path).astype(float)
    return (image.max() - np.median(image)) / image.std()


fe = test["path"].map(peak).rank(pct=True)
rival = pd.DataFrame({"label": test["particle_type"], "score_X-ray": 1 - fe, "score_Fe": fe})
control = widgets.threshold(rival, caption=plots.SIMULATED)

# %% [markdown]
# Move the threshold. Lower it, and more Fe nuclei are found, at the price of more X-ray nuclei called Fe. No value is
# *the* right one: it depends on which mistake costs more.
#
# **Predict.** This is the same rule for the mice of each split. How much will its balanced accuracy vary?

# %%
for split, rows in table.assign(peak=table["path"].map(peak)).groupby("split"):
    right = (rows["peak"].rank(pct=True) >= 0.5) == (rows["particle_type"] == "Fe")
    print(f"{split:5} {right.groupby(rows['particle_type']).mean().mean():.2f}")

# %% [markdown]
# Nothing was trained, so the mice alone make the difference: that is what the warning meant. A simple rule to beat is
# called a [baseline](GLOSSARY.md#baseline). Compare yours with the network's score, and be slow to name a winner.

# %% [markdown]
# ## Where it runs
#
# | [device](GLOSSARY.md#device) | what it is |
# |---|---|
# | [`cuda`](GLOSSARY.md#cuda) | a GPU by NVIDIA, such as Colab's T4 |
# | [`mps`](GLOSSARY.md#mps) | the GPU in an Apple computer, through Apple's Metal |
# | `cpu` | always there, and enough for this sample |
#
# **In Colab** choose *Runtime > Change runtime type > T4 GPU*; *Edit > Notebook settings* opens the same window. The
# machine is then a new one: run the notebook from the top. [TPUs](GLOSSARY.md#tpu) are Google's chips for networks;
# PyTorch needs the package `torch_xla` for them, and this course does without.
#
# `doctor()` looks at the machine you are on and prints a fix for each problem. It changes nothing. What it prints
# differs everywhere, so it is not compared.

# %% tags=["nbval-ignore-output"]
from bpsutils import doctor

problems = doctor()

# %% [markdown]
# `pick_device()` takes the best of the three. A tensor is moved there with `to`, and results are the same:

# %%
import torch

from bpsutils import pick_device

numbers = torch.arange(4.0).to(pick_device())
print("sum:", numbers.sum().item())

# %% [markdown]
# ### Why this course is about loading
#
# Each experiment answers one question: another architecture, another learning rate. The faster an experiment, the more
# questions you ask in a day.
#
# **Predict.** An epoch takes 60 seconds to load its images and 60 to compute. You get a GPU that computes ten times as
# fast. How many times as fast is the epoch?

# %%
before, after = 60 + 60, 60 + 60 / 10
print(f"{before} seconds become {after:.0f}: {before / after:.1f} times as fast")

# %% [markdown]
# ### Exercise 3: what a GPU buys
#
# Write this for any loading time, computing time and factor. Then try a factor of a million.


# %%
def speedup(load, compute, factor):
    return ...


q3.check(speedup)

# %% [markdown]
# ## The same again: seeds
#
# Weights begin at random, and images are shuffled and flipped at random. A [seed](GLOSSARY.md#seed) makes the generator
# repeat its numbers, so that an experiment can be repeated.
#
# **Predict** both lines: you draw two numbers, then two more; then you seed again and draw four.

# %%
seed_everything(7)
first, second = torch.rand(2), torch.rand(2)
seed_everything(7)
again = torch.rand(4)
print("second draw like the first:", torch.equal(first, second))
print("four draws like two and two:", torch.equal(again, torch.cat([first, second])))

# %% [markdown]
# A seed repeats choices. It does not repeat arithmetic:
#
# **Predict.** The same three numbers in another order. Is the sum the same?

# %%
big, small = torch.tensor(1e8), torch.tensor(1.0)
print("big + small - big =", (big + small - big).item())
print("big - big + small =", (big - big + small).item())

# %% [markdown]
# A GPU adds in whatever order its cores finish, so two runs with one seed can differ in their last digits.
# `seed_everything(seed, deterministic=True)` allows only operations that are
# [deterministic](GLOSSARY.md#deterministic), and slower. On one CPU with one thread a run repeats bit for bit.
#
# ### Exercise 4: your own generator
#
# `seed_everything` sets the one generator that everybody shares. Write `draw(seed)`, which returns three random numbers
# that depend on `seed` alone and leaves the shared generator as it was.


# %%
def draw(seed):
    return ...


q4.check(draw)

# %% [markdown] tags=["instructor"]
# > *Show:* the cell of the whole game again with `seed=1` in `Config`: another split, other weights, another score.
# >
# > *Say:* if a result depends on the seed, report several. One seed is one throw of the dice.
# >
# > *Minutes:* 8

# %% [markdown]
# ## You can now
#
# - run a pipeline from a folder to a confusion matrix, and name its stations;
# - compute balanced accuracy, and say why accuracy alone misleads;
# - split by mouse, and find a mouse that leaks;
# - choose a device, and say how much a GPU can speed up;
# - repeat random choices with a seed, and say what a seed does not repeat.
#
# ## Recall
#
# <details><summary>What does a model score in balanced accuracy if it always says Fe?</summary>
# 0.5: all of one class, none of the other.</details>
#
# <details><summary>Why must no mouse be in both training and test?</summary>
# The model could recognise the mouse instead of the particle; its score would not hold for the next mouse.</details>
#
# <details><summary>Which object loads one sample, and which makes batches?</summary>
# The Dataset loads a sample, the DataLoader makes batches of them.</details>
#
# <details><summary>Loading takes a third of the time. How much faster can a GPU make it at best?</summary>
# Three times: the third stays.</details>
#
# <details><summary>Two runs with one seed differ in the sixth digit on a GPU. Is that a mistake?</summary>
# No: sums in another order are rounded differently. Deterministic operations avoid it, at a price.</details>
#
# ## Next
#
# [01 Tensors](01_tensors.ipynb): what a batch is made of, and why 16-bit images need care.
