# %% [markdown]
# # 07 · Bucketing
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/07_bucketing.ipynb)
#
# You will stack images of different sizes into batches, measure how much of a batch is empty, and bring that down to a
# small part, at a price in shuffling that you choose.
#
# The idea is [bucketing](GLOSSARY.md#bucketing): images of similar size share a batch. Whatever stays empty, the
# network must not mistake for image.
#
# **You need** notebooks 03 and 04. **Time:** 45 minutes. All images and sizes here are **simulated**, in the ranges of
# NASA's real ones.

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
import numpy as np
import pandas as pd
import torch

from bpsutils import BucketSampler, Config, ImageDataset, collate_fn_pad, load_table, plots
from bpsutils.exercises.bucketing import q1, q2, q3, q4, q5

# %% [markdown] tags=["instructor"]
# > *Show:* part 6 of the notes, "Dataloader and helper functions": `collate_fn_pad`, `make_boundaries_for_batches`,
# > `BucketSampler`. Then [`bpsutils/bucketing.py`](../bpsutils/bucketing.py) and
# > [`bpsutils/collate.py`](../bpsutils/collate.py): the same three, in the same words.
# >
# > *Say:* the notes call the padding very negligible. Today we measure it, and find out what would make it so.
# >
# > *Minutes:* 8

# %% [markdown]
# ## Images of many sizes
#
# The crops of the sample differ in height and width. **Predict.** What does `torch.stack` say to two of them?

# %%
table = load_table(Config())
dataset = ImageDataset(table)
sizes = dataset.sizes
(low, narrow), (high, wide) = sizes.min(axis=0), sizes.max(axis=0)
print(len(sizes), "images,", low, "to", high, "px high and", narrow, "to", wide, "px wide")
try:
    torch.stack([dataset[0]["image"], dataset[1]["image"]])
except RuntimeError as error:
    print("RuntimeError:", str(error).split(",")[0])

# %% [markdown]
# An error: a tensor has one height and one width for all its images. So the notes' `collate_fn_pad`, the
# [`collate_fn`](GLOSSARY.md#collate_fn) of this chapter, groups single samples into a batch *and* pads: each image gets
# a frame of the largest height and the largest width in the batch, and the rest of the frame is filled with zeros, the
# [padding](GLOSSARY.md#padding).
#
# ### Exercise 1: pad a batch
#
# Write `pad_batch`, which takes a list of `uint16` images `(1, H, W)` and returns one batch `(B, 1, H, W)`. Each image
# starts at row 0 and column 0 of its frame.


# %%
def pad_batch(images):
    return ...


q1.check(pad_batch)

# %% [markdown]
# `bpsutils.collate_fn_pad` does this to samples, and also returns each image's own size and a
# [mask](GLOSSARY.md#mask): True where a pixel is image. Here are 24 images drawn at random. **Predict.** How much of
# their batch will be padding?

# %%
at_random = np.random.default_rng(0).permutation(600).reshape(25, 24)
batch = collate_fn_pad([dataset[i] for i in at_random[0]])
print(batch["images"].shape, batch["images"].dtype, batch["mask"].shape)
figure = plots.padded_batch([dataset[i]["image"][0] for i in at_random[0]], caption=plots.SIMULATED)
plots.show(figure, "Twenty-four nuclei, each in the upper left of a frame; a third is blue padding.")

# %% [markdown]
# One image sets the height of all frames and one the width, not always the same one. A network computes on every pixel
# of a frame, blue or not, and memory holds them all.
#
# ### Exercise 2: the waste
#
# Write `waste`, which takes all `sizes` as an array `(N, 2)` and the `batches` of an epoch, a list of lists of image
# numbers. It returns one number for the epoch: the share, from 0 to 1, of all stored pixels that are padding.


# %%
def waste(sizes, batches):
    return ...


q2.check(waste)

# %% [markdown]
# ## The notes' rule: a bin of widths for each batch
#
# `bpsutils.padding_waste` computes the same share; over the 25 batches of this epoch in random order it is 48 %.
#
# The notes bring images of similar size together. Count the batches of an epoch (all images / batch size), cut the
# images by width into as many bins, and let each bin be a batch: the padding needed is then "very negligible".
# **Predict.** How much is left? And many images share a width. Suppose an edge between two bins falls among images of
# equal width: can both bins still hold 24 images?

# %%
from bpsutils import make_boundaries_for_batches, padding_waste, widgets

edges = make_boundaries_for_batches(sizes, 24)
counts = np.bincount(np.searchsorted(edges, sizes[:, 1]))
print(len(edges), "edges:", *edges[:3], "...; images in a bin:", counts.min(), "to", counts.max())
by_width = np.argsort(sizes[:, 1], kind="stable").reshape(25, 24)
print(f"random {padding_waste(sizes, at_random):.0%}, by width {padding_waste(sizes, by_width):.0%}")

# %% [markdown]
# Equal widths stay in one bin, so bins differ in size; `BucketSampler(method="width")` cuts those that are larger than
# a batch, which makes 35 batches. (The last two lines of the cell keep it simple: sort by width, and cut every 24.)
#
# *A correction.* More than a quarter of all pixels is not negligible. Sorting has saved less than you would expect. To
# see why, go through the bins from narrow to wide. **Predict.** Which bin wastes most?

# %%
viewer = widgets.batch_viewer(dataset, by_width, value=13, caption=plots.SIMULATED)

# %% [markdown]
# Inside a bin widths agree to a few pixels, and heights run over their whole range. The last bin is the worst, with 61
# %: it holds the rare large crops, which blow up the frames of all their mates. That is why the notes have a largest
# image size among their filters. Without the seven crops above 200 px, random batches would be 34 % padding instead of
# 48 %.
#
# Is area the better measure, for it knows both sides? **Predict.** Two crops of 100 × 200 and 200 × 100 px have one
# area. How much of their batch is padding?
#
# <details><summary>Answer</summary>Half: the frame is 200 × 200. So a batch must be alike in height <i>and</i> in
# width.</details>
#
# ## Both sides at once
#
# ### Exercise 3: design two-dimensional buckets
#
# Write `buckets`, which takes `sizes` `(N, 2)` and a batch size and returns a list of batches, each an array of image
# numbers. Each image is in exactly one batch, and there are as few batches as can be. The check takes 900 sizes and
# batches of 9, so 100 batches, and measures your padding: at most 6 %. Sorting by width alone leaves 23 %.


# %%
def buckets(sizes, batch_size):
    return ...


q3.check(buckets)

# %% [markdown]
# One answer: sort by height, cut *strips* of several batches, sort each strip by width, cut batches.
#
# **Predict.** With one strip, only width counts. With 25 strips of one batch each, only height counts. How do the boxes
# look at both ends, and how many strips are best?

# %%
slider = widgets.bucket_boundaries(sizes, 24, caption=plots.SIMULATED)

# %% [markdown]
# One strip makes tall boxes, 25 make flat ones. In between the curve is low and wide. `BucketSampler(method="2d")`
# takes about √(number of batches) strips, here 5; since heights vary more than widths, 7 would do slightly better.
#
# How much better could anything be? A frame is at least as large as the largest *area* in its batch. Suppose that
# frames had just that area. Then the best way would be to sort by area and to cut full batches. Real frames are larger,
# so the waste of this ideal is a [lower bound](GLOSSARY.md#lower-bound): no way to put these images into full batches,
# known or not, can waste less.
#
# **Predict.** 20,000 images give many more batches. Which rows of the figure fall, and which stay?


# %%
from bpsutils import simulate_table


def wastes(sizes, batch_size):
    at_random = np.random.default_rng(0).permutation(len(sizes)).reshape(-1, batch_size)
    found = {"at random": padding_waste(sizes, at_random)}
    for name, method in {"by width": "width", "by area": "area", "two-dimensional": "2d"}.items():
        batches = list(BucketSampler(sizes, batch_size, method=method, jitter=0))
        found[name] = padding_waste(sizes, batches)
    areas = np.sort(sizes.prod(axis=1))[::-1].reshape(-1, batch_size)  # full batches, the largest first
    return {**found, "lower bound": 1 - areas.sum() / (batch_size * areas[:, 0].sum())}


many = simulate_table(20_000)[["height", "width"]].to_numpy()
compared = pd.DataFrame({"600 sizes": wastes(sizes, 24), "20,000 sizes": wastes(many, 32)})
print((100 * compared).round(1).to_string())
figure = plots.waste_bars(compared, caption=plots.SIMULATED)
plots.show(figure, "Bars of padding: at random, by width, by area, two-dimensional, lower bound.")

# %% [markdown]
# With 20,000 images two-dimensional buckets come within about three points of the bound, for the boxes shrink on both
# sides. Width bins hardly gain: however narrow, heights inside them vary freely. Area is no better. (Two remarks.
# Batches hold 24 and 32 images, and larger ones alone would pad more; bins of width are cut into some smaller ones, to
# which the bound does not apply. And in this simulation height and width hardly depend on each other, apart from the
# rare large crops. Where tall crops are also wide, width and area do better: measure on your own sizes.)
#
# In a loader the sampler is the `batch_sampler`, and `collate_fn_pad` is the `collate_fn`. Buckets come in random
# order, so that no epoch runs from small images to large ones.

# %%
from torch.utils.data import DataLoader

loader = DataLoader(dataset, batch_sampler=BucketSampler(sizes, 24), collate_fn=collate_fn_pad)
for _, batch in zip(range(3), loader, strict=False):
    print(tuple(batch["images"].shape), f"padding {1 - batch['mask'].float().mean():.0%}")

# %% [markdown] tags=["instructor"]
# > *Show:* `_strips` in `bpsutils/bucketing.py`, then the next figure.
# >
# > *Say:* nothing is free. Sorted images always meet the same mates. A little noise on the sizes buys shuffling back.
# >
# > *Minutes:* 6

# %% [markdown]
# ## The price in shuffling
#
# We shuffle so that each epoch takes other steps. Sorted strictly, an image meets the same mates in every epoch: only
# the order of the batches changes.
#
# ### Exercise 4: who meets again?
#
# Write `met_again`, which takes the batches of two epochs (lists of lists of image numbers) and returns which share of
# the pairs of batch-mates in the first are mates in the second, too.


# %%
def met_again(first, second):
    return ...


q4.check(met_again)

# %% [markdown]
# The cure is [jitter](GLOSSARY.md#jitter): each epoch sorts sizes with a little noise. A jitter of 3 % multiplies each
# side by a random number from 0.97 to 1.03. **Predict.** What grows then, what shrinks, and which of the two changes
# more?


# %%
from bpsutils.bucketing import mates_met_again


def price(method, jitter):
    sampler = BucketSampler(many, 32, method=method, jitter=jitter)
    first = list(sampler)
    sampler.set_epoch(1)
    return [method, jitter, padding_waste(many, first), mates_met_again(first, list(sampler))]


noises = (0, 0.01, 0.03, 0.05, 0.1, 0.2)
rows = [price(method, jitter) for method in ("2d", "width") for jitter in noises]
two = [np.random.default_rng(epoch).permutation(20_000).reshape(-1, 32) for epoch in (0, 1)]
rows += [["random", np.nan, padding_waste(many, two[0]), mates_met_again(*two)]]
prices = pd.DataFrame(rows, columns=["method", "jitter", "waste", "met_again"])
print(prices.round(3).to_string(index=False))
figure = plots.shuffling_price(prices, caption=plots.SIMULATED)
plots.show(figure, "Padding against mates who meet again; the line of 2d lies below that of width.")

# %% [markdown]
# Percentages at the points of the lower line are the jitter. `BucketSampler` takes 3 % unless told otherwise: a sixth
# of the padding of random batches, and one pair of mates in about 18 meets again. `make_loaders` takes 5 % to train,
# where one in 40 does, and 0 for validation and test, which need no shuffling. The order is a function of seed and
# epoch, so call `set_epoch` before each epoch.
#
# One thing stays: the images of a batch are of similar size. Whatever goes along with size then differs from batch to
# batch, and layers that normalise over a batch will see it. (What old mates cost a trained network, this notebook does
# not measure.)
#
# ## Masks, and a network for any size
#
# Batches now differ in shape. **Predict.** Two networks begin with the same layer, a convolution: 16 small filters that
# move over the image and give 16 filtered images, its *maps* (notebook 08 builds one). The first network flattens the
# maps to one long row. The second averages each map to one number, by
# [adaptive pooling](GLOSSARY.md#adaptive-pooling). Which of them takes images of a second size?

# %%
from torch import nn

torch.manual_seed(0)
layer, pool = nn.Conv2d(1, 16, 5, padding=2), nn.AdaptiveAvgPool2d(1)
flattening = nn.Sequential(layer, nn.Flatten(), nn.Linear(16 * 79 * 114, 2))
pooling = nn.Sequential(layer, pool, nn.Flatten(), nn.Linear(16, 2))
for shape in [(1, 1, 79, 114), (1, 1, 170, 182)]:
    for name, network in {"pooling": pooling, "flattening": flattening}.items():
        try:
            print(shape[2:], name, "gives", tuple(network(torch.zeros(shape)).shape))
        except RuntimeError as error:
            print(shape[2:], name, "stops with", type(error).__name__)

# %% [markdown]
# Adaptive pooling makes a network size-free. It also runs over padding without complaint. **Predict.** We put one
# nucleus into three batches: alone, beside a mate of usual size, and beside the largest crop. Does the average of its
# map stay the same?
#
# A whole network has to carry the mask along, for each convolution and each normalisation sees padding too. `SmallCNN`
# in [`bpsutils/models.py`](../bpsutils/models.py) does, and halves the mask where it halves the maps. The second cell
# asks whether its two outputs, the class scores called logits, stay the same.

# %%
from bpsutils import SmallCNN, Standardise

largest = int(sizes.prod(axis=1).argmax())
for mates in ([], [7], [largest]):
    batch = collate_fn_pad([dataset[i] for i in [1, *mates]])
    real = batch["mask"][:, None].float()
    images = Standardise()(batch["images"].float(), batch["mask"])
    maps = torch.relu(layer(images)).detach() * real  # 16 untrained filters, 0 on padding
    plain, masked = pool(maps)[0, 0].item(), (maps.sum((2, 3)) / real.sum((2, 3)))[0, 0].item()
    print(f"frame {tuple(real.shape[2:])}: plain average {plain:.3f}, over real pixels {masked:.3f}")

# %%
model, own = SmallCNN().eval().requires_grad_(False), images[:1, :, :105, :143]
with_mask, without = model(images, batch["mask"])[:1], model(images)[:1]
print("in a large frame, same logits with the mask:", torch.allclose(model(own), with_mask, atol=1e-4))
print("in a large frame, same logits without it:", torch.allclose(model(own), without, atol=1e-4))

# %% [markdown]
# The plain average divides by the frame, so what the network knows about a nucleus depends on who is beside it. The
# average over real pixels does not. (Maxima would not change either: padding is 0, and no map is below 0.)
#
# ### Exercise 5: pooling that respects the mask
#
# Write `masked_mean`, which takes features `(B, C, H, W)` and a mask `(B, H, W)`, True on real pixels, and returns the
# mean of each image and channel over its real pixels, of shape `(B, C)`. On padding the features are numbers that mean
# nothing, not always 0.


# %%
def masked_mean(features, mask):
    return ...


q5.check(masked_mean)

# %% [markdown]
# What does it cost to forget the mask? An experiment on the irradiated simulated nuclei: 16 untrained filters, pooled
# to 16 numbers a nucleus, and a logistic regression that tells Fe from X-ray. It is fitted on some mice and asked about
# the others ten times, each time in other batches. **Predict.** Without the mask, does the score fall? Do answers
# change with the batch?
#
# `own` holds averages over each nucleus's own pixels, as masked pooling gives them. Where maps are 0 on padding, the
# plain average is that number times the share of the frame that the image fills; `filled` computes this share. All is
# done three times, with 16 other filters each, so that no lucky set decides.

# %%
torch.manual_seed(0)
layer = nn.Conv2d(1, 3 * 16, 5, padding=2).requires_grad_(False)
hit = np.flatnonzero(table["dose_Gy"] > 0)
images = [Standardise()(dataset[i]["image"].float()) for i in hit]
own = torch.stack([torch.relu(layer(image)).mean((1, 2)) for image in images]).numpy()


# %%
def filled(batches):
    share = np.ones((len(hit), 1))
    for batch in batches:
        inside = sizes[hit[batch]]
        share[batch] = inside.prod(axis=1, keepdims=True) / inside.max(axis=0).prod()
    return share


draws = [np.random.default_rng(seed).permutation(len(hit)) for seed in range(11)]
samplers = [BucketSampler(sizes[hit], 24, seed=seed) for seed in range(11)]
ways = {"masked": [1.0] * 11, "plain, 2d buckets": [filled(list(sampler)) for sampler in samplers]}
ways["plain, at random"] = [filled(np.array_split(order, 17)) for order in draws]

# %% [markdown]
# Now the logistic regression, asked about mice that it has not seen. The first of the 11 epochs of batches is for the
# fit, the other ten are for the questions.


# %%
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

iron = (table["particle_type"] == "Fe").to_numpy()[hit]
mouse = (table["particle_type"] + table["well"]).to_numpy()[hit]


def answers(seen):
    called = np.zeros((10, len(hit)), dtype=bool)
    for fit, ask in GroupKFold(8).split(seen[0], iron, mouse):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(seen[0][fit], iron[fit])
        called[:, ask] = [model.predict(numbers[ask]) for numbers in seen[1:]]
    return called


# %%
rows = []
for name, shares in ways.items():
    for sixteen in np.split(own, 3, axis=1):
        called = answers([sixteen * share for share in shares])
        score = (called[:, iron].mean() + 1 - called[:, ~iron].mean()) / 2  # balanced accuracy
        rows.append([name, np.mean(called.any(axis=0) & ~called.all(axis=0)), score])
verdicts = pd.DataFrame(rows, columns=["pooling", "changed", "score"])
print("answers depend on the batch:", verdicts.groupby("pooling")["changed"].min().gt(0).to_dict())
figure = plots.pooling_verdicts(verdicts, caption=plots.SIMULATED)
plots.show(figure, "Left, answers that change with the batch, none with a mask; right, the scores.")

# %% [markdown]
# Each dot is one set of 16 filters. In each set the score is one to four points higher with a mask than without. But
# the three sets share the same 16 simulated mice, so do not trust the size of this gain; notebook 10 puts intervals on
# such differences. What is certain: without a mask 5 to 10 in 100 of these simulated nuclei are called Fe in one batch
# and X-ray in another, in buckets as well as at random. An answer about one nucleus should not depend on the others.
#
# ## Resizing, the rival
#
# `Config(resize=64)` ends all this: one size, no padding, full shuffling, and about a fifth of the pixels. It is right
# if what you look for survives. Here a [focus](GLOSSARY.md#focus) is about 4 px across. **Predict.** How much of its
# height above the background is left at 64 × 64 px, and at 32 × 32?

# %%
from bpsutils import Resize

height, width = np.median(sizes, axis=0).astype(int)
y, x = torch.arange(height)[:, None], torch.arange(width)
places = np.random.default_rng(0).uniform(50, 70, (64, 2))  # also between two pixels
foci = torch.stack([0.5 ** (((y - a) ** 2 + (x - b) ** 2) / 2**2) for a, b in places])[:, None]
for side in (128, 96, 64, 32):
    left = (Resize(side)(foci).amax((1, 2, 3)) / foci.amax((1, 2, 3))).mean()
    print(f"{side:>3} px: {4 * side / height:.1f} x {4 * side / width:.1f} px, height left {left:.0%}")
nucleus = dataset[1]["image"]
copies = {f"{side} × {side} px": Resize(side)(nucleus)[0].numpy() for side in (96, 64, 32)}
figure = plots.resized_copies(nucleus[0].numpy(), copies, caption=plots.SIMULATED)
plots.show(figure, "One nucleus as stored and resized to 96, 64 and 32 px: its foci fade and merge.")

# %% [markdown]
# At 64 px a focus keeps nearly three quarters of its height, at 32 px well under half. Two more things go. *Size
# itself*: crops of 79 and of 170 px come out equal. *Shape*: the short side is stretched, so an ion's track changes its
# angle. The course resizes where it trains quickly, and accepts that loss. For your own question, train at two sizes
# and compare.
#
# | | padding, at random | two-dimensional buckets | resizing |
# |---|---|---|---|
# | padding of simulated crops | nearly half | 4 to 17 %, more with jitter | none |
# | shuffling | full | what jitter buys | full |
# | detail, size, shape | kept | kept | lost in part |
# | network | any size, mask | any size, mask | any |
#
# You have met every function of [`bpsutils/bucketing.py`](../bpsutils/bucketing.py) and
# [`bpsutils/collate.py`](../bpsutils/collate.py). Read them from top to bottom. One option of `BucketSampler` is left:
# with a `pixel_budget`, batches hold so many pixels instead of so many images. `12_scaling_up` uses it.
#
# ## You can now
#
# - pad a batch, and measure what the padding costs;
# - cut width bins by the notes' rule, and say what they miss;
# - make buckets of two sides, and tell how far from the best they can be;
# - choose how much shuffling to give up for it;
# - keep padding out of what a network computes, and say when to resize instead.
#
# ## Recall
#
# <details><summary>Why does a width bin still waste a quarter?</summary>
#
# Its images agree in width only. The frame is as high as the highest of them, and heights run over their whole range.
#
# </details>
# <details><summary>What does the lower bound say, and what does it not?</summary>
#
# No way to put these images into full batches wastes less, because a frame is at least as large as the largest area in
# it. It does not say that one wastes as little.
#
# </details>
# <details><summary>What does jitter buy, and what does it cost?</summary>
#
# Other batch-mates in each epoch, for somewhat more padding.
#
# </details>
# <details><summary>Why is plain average pooling wrong on a padded batch?</summary>
#
# It divides by the frame, and the frame depends on the other images. Divide by the real pixels.
#
# </details>
# <details><summary>When would you resize?</summary>
#
# If what you look for is still there at the smaller size, and neither size nor shape of the crop matters.
#
# </details>
#
# ## Next
#
# [08 Models](08_models.ipynb) builds the network that these batches go into, layer by layer.
