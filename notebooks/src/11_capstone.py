# %% [markdown]
# # 11 · Capstone
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/11_capstone.ipynb)
#
# You will take the pipeline to images it was not written for: coloured slide patches of several stains, with images,
# [metadata](GLOSSARY.md#metadata) and [labels](GLOSSARY.md#label) in three places. A network that has seen a million
# photographs helps you, and you find out how much. At the end it runs on two folders of your own, with a rubric to
# judge the result.
#
# **You need** the notebooks so far, above all 05, 07, 08 and 10. No [GPU](GLOSSARY.md#gpu). **Time:** 45 minutes, and
# as long as you like with your own images.

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
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from bpsutils import SAMPLE_DIR, Config, load_table, plots, read_image, widgets
from bpsutils.exercises.capstone import q1, q2, q3, q4

# %% [markdown] tags=["instructor"]
# > *Show:* `data_sample/slides` in the file browser: two folders, one CSV of two columns. Then the next cell.
# >
# > *Say:* nothing of the pipeline knew that it was written for nuclei. Listen for what has to change, and what has not.
# >
# > *Minutes:* 6

# %% [markdown]
# ## A folder you have not seen
#
# 120 **simulated** patches of tissue slides, drawn by a program: no patient, no microscope. Images lie in one place,
# labels in another, one for each patient or [case](GLOSSARY.md#case); what an image is (case, stain, size) stands in
# its name and its [header](GLOSSARY.md#header), from which we build the metadata as a third.
#
# **Predict.** The nuclei of the other notebooks took `Config()`. Which of its fields do you change for these patches?

# %%
slides = SAMPLE_DIR / "slides"
places = {"image_dir": slides / "images", "labels": slides / "annotations/labels.csv"}
task = {"target": "label", "classes": ("benign", "malignant"), "group": ("case",)}
config = Config(scheme="slides", **places, **task, value_range=(0, 255), out_dir="runs/capstone")
everything = load_table(config)
print(len(everything), "simulated patches of", everything["case"].nunique(), "cases")
print(pd.crosstab(everything["stain"], everything["label"]).to_string())

# %% [markdown]
# Where the three places are, how names are read, what is predicted, and what a [group](GLOSSARY.md#group) is: no code
# changed. The [labels map](GLOSSARY.md#labels-map) `{case: label}` joined them; `labels.csv` knows nothing of stains
# or sizes.
#
# Sections of a case are stained for different things: [H&E](GLOSSARY.md#hematoxylin-and-eosin) colours nuclei blue and
# most of the rest pink, *melan* and *sox10* mark one protein in brown. In one training set, a network has to learn
# three kinds of picture at once, so filter first. **Predict.** How much do the sizes differ?

# %%
first = everything[everything["case"] == "case02"].drop_duplicates("stain")
titles = [f"{row.stain}, {row.height} x {row.width} px" for row in first.itertuples()]
patches = [read_image(path) for path in first["path"]]
title = "One case, three stains"
grid = plots.image_grid(patches, titles, columns=3, title=title, caption=plots.SIMULATED)
plots.show(grid, "Three simulated patches of one case: pink and blue, and two with brown cells.")

# %% [markdown]
# ### Exercise 1: a label for each file
#
# `load_table` did the join for you. Do it by hand: `names` are file names such as `case02_h&e_s1_001.png`, `labels`
# maps each case to its label. A case without a label must stop you.


# %%
def labels_of(names, labels):
    return ...


q1.check(labels_of)

# %% [markdown]
# ## Filter, and look
#
# One filter leaves the H&E patches. **Predict.** You draw three of twelve cases for the test. How sure can a score be?

# %%
table = load_table(replace(config, stain="h&e"))
sides = table[["height", "width"]].to_numpy()
print(len(table), "patches of", table["case"].nunique(), "cases")
print(f"sides from {sides.min()} to {sides.max()} px, a factor of {sides.max() / sides.min():.0f}")

# %% [markdown]
# Three cases cannot say how cases differ. With so few, each case takes its turn: deal the cases into folds, predict
# each fold with what was learned from the others, and judge all twelve by these [out-of-fold
# predictions](GLOSSARY.md#out-of-fold-prediction). One condition: you choose nothing by them. What you choose, you
# choose before.
#
# Now the [batches](GLOSSARY.md#batch). The notes call the [padding](GLOSSARY.md#padding) that is left after
# [bucketing](GLOSSARY.md#bucketing) "very negligible". **Predict.** What share of a batch of 8 is padding, drawn at
# random, and sorted by size?

# %%
from bpsutils import BucketSampler, padding_waste

shuffled = np.random.default_rng(0).permutation(len(table))
orders = {"random": np.array_split(shuffled, 6)}
orders |= {how: list(BucketSampler(sides, 8, method=how, jitter=0)) for how in ("width", "2d")}
for how, batches in orders.items():
    print(f"{how:<7}{padding_waste(sides, batches):.0%} of all pixels are padding")

drawn = {how: [read_image(table["path"][i]) for i in orders[how][0]] for how in ("random", "2d")}
figure = plots.padded_patches(drawn, caption=plots.SIMULATED)
plots.show(figure, "Two rows of eight patches in blue frames, filled better in the second.")

# %% [markdown]
# Not negligible: sizes that differ ninefold, in 6 batches, leave half of the pixels to padding even when sorted. The
# notes' rule works for many images of similar size. Here the remedies are smaller batches, or one size for all.
#
# ## Colour, and whose constants
#
# The notes [normalise](GLOSSARY.md#normalisation) by mean `[0.485, 0.456, 0.406]` and standard deviation `[0.229,
# 0.224, 0.225]`, because "[ImageNet](GLOSSARY.md#imagenet) images are already normalised with these values". They are
# a million photographs from the web. **Predict.** Below is an ordinary photograph of that kind. What range do its
# pixels have, and what mean?

# %%
from sklearn.datasets import load_sample_image

from bpsutils.transfer import ToRGB

photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
print(photograph.dtype, photograph.min().item(), "to", photograph.max().item())
print("mean of its pixels, scaled to [0, 1]:", round(ToRGB()(photograph).mean().item(), 1))

# %% [markdown]
# *A correction.* ImageNet's images are ordinary 8-bit files, not normalised at all. The numbers are the mean and
# spread of its pixels, and whoever trained a network subtracted and divided *in code*, before the first layer. So the
# constants belong to the **weights**. torchvision's weights want ImageNet's; EfficientNet-lite0, which you meet below,
# was trained [by Google](https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) on the very
# same photographs with (grey level − 127) / 128. Use the notes' six numbers for weights that were trained with them.
#
# ### Exercise 2: ImageNet's normalisation
#
# Write it for a `uint8` image `(3, H, W)`, with the notes' six numbers.


# %%
def normalise(image):
    return ...


q2.check(normalise)

# %% [markdown]
# ## A network that has seen a million photographs
#
# In [transfer learning](GLOSSARY.md#transfer-learning) you start from weights that were trained for another task.
# Twelve cases cannot teach a network what an edge is; photographs have. `pretrained_backbone` takes EfficientNet-lite0
# from two Python packages, or downloads torchvision's EfficientNet-B0, and stops if it can get neither. It replaces
# the [head](GLOSSARY.md#head): 1,000 classes of photographs out, our two in. The numbers below are lite0's. If the next
# cell prints `efficientnet_b0`, yours differ, and ImageNet's constants are the right ones for it.

# %%
from bpsutils.transfer import parts, pretrained_backbone

backbone = pretrained_backbone(config.classes)
network = backbone.model
print(f"{backbone.name} with {sum(parts(network.net).values()):,} weights, a head of 2 logits")
print("normalise by", np.round(backbone.mean, 3), "and", np.round(backbone.std, 3))

# %% [markdown]
# [Freeze](GLOSSARY.md#frozen) all of it but the head, and an image gives the same 1,280 numbers in every
# [epoch](GLOSSARY.md#epoch). So compute them once. What remains to train is one linear layer, a [linear
# probe](GLOSSARY.md#linear-probe): seconds instead of hours.

# %%
from torch.utils.data import DataLoader

from bpsutils import Compose, ImageDataset, Normalize, collate_fn_pad
from bpsutils.transfer import frozen_features, probe


def features(net, steps, batches):
    dataset = ImageDataset(table, Compose([ToRGB(), *steps]), config.target, group="case")
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate_fn_pad)
    return frozen_features(net, loader)


alone = [[i] for i in range(len(table))]  # batches of one: no padding
own = Normalize(backbone.mean, backbone.std)
found = features(network, [own], alone)
print("one row an image:", found.shape)

# %% [markdown]
# `probe` fits a logistic regression out of fold and resamples cases, not patches, for the interval. **Predict.** Will
# photographs help to tell simulated benign from simulated malignant tissue?

# %%
predicted, score = probe(found, table["label"], table["case"])
print("above 0.75:", score["balanced_accuracy"] > 0.75)
print("the whole interval above guessing:", score["balanced_accuracy_low"] > 0.5)

# %% [markdown]
# They do. Now back to the padding. Your `SmallCNN` [masks](GLOSSARY.md#mask) it; a network made by others knows no
# masks, and pools the blue frame with the rest. **Predict.** The same patches in random batches of 8: the same
# features? (1 means the same direction, 0 no likeness.)

# %%
padded = features(network, [own], orders["random"])
likeness = torch.cosine_similarity(torch.from_numpy(found), torch.from_numpy(padded)).numpy()
small = sides.prod(axis=1) < np.median(sides.prod(axis=1))
print(f"median likeness of the larger patches {np.median(likeness[~small]):.1f}")
print(f"median likeness of the smaller patches {np.median(likeness[small]):.1f}")

# %% [markdown]
# A patch's features now depend on its neighbours in the batch, and most in small patches. Does the score suffer? And
# which of your other choices matter? Seven probes, the same folds for each: six colour numbers a patch and no network;
# the network with random weights; pretrained, with three normalisations; padded; and resized to 64 px, bucketing's
# rival. **Predict** their order.
#
# *Scores of fitted models differ a little between machines, so this output is not compared when the course is tested.*

# %% tags=["nbval-ignore-output"]
from bpsutils import Resize, make_model

unit = [sample["image"] for sample in ImageDataset(table, ToRGB(), config.target)]
colours = np.stack([torch.cat([x.mean((1, 2)), x.std((1, 2))]).numpy() for x in unit])
random = make_model(replace(config, model=backbone.name, pretrained=False), channels=3)
imagenet = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
tried = {"six colour numbers": colours, "random weights": features(random, [own], alone)}
tried |= {"not normalised": features(network, [], alone)}
tried |= {"ImageNet's constants": features(network, [imagenet], alone)}
tried |= {"the weights' constants": found, "the same, padded": padded}
tried |= {"the same, resized to 64 px": features(network, [Resize(64), own], alone)}
scores = {name: probe(x, table["label"], table["case"])[1] for name, x in tried.items()}
title = "Pretrained features score above random ones; the constants hardly matter"
figure = plots.intervals(scores, title, name="balanced_accuracy", caption=plots.SIMULATED)
plots.show(figure, "Scores of seven probes with intervals; the five pretrained ones are highest.")

# %%
points = {name: score["balanced_accuracy"] for name, score in scores.items()}
pretrained = [points[name] for name in list(points)[2:]]
print("every pretrained probe above random weights:", min(pretrained) > points["random weights"])
print("every pretrained probe above 0.75:", min(pretrained) > 0.75)

# %% [markdown]
# Read it with the intervals. The largest step is from random to pretrained weights. Colour alone is a strong
# [baseline](GLOSSARY.md#baseline), and its interval reaches into the others'. Which constants you take makes no
# difference that twelve cases can show: no reason to take wrong ones, for nothing warns you where it does matter.
# Padding changes the features and hardly the score, and resizing, which costs no padding, is at least as good. That
# the rival is ahead is a result, too.
#
# An interval without width, where every patch is right, does not mean certainty: twelve simulated cases were too easy.
# And you have seen seven scores on the same cases. Whoever reports the best of them as *the* result has chosen by it.
#
# ## Unfreezing
#
# Features made for photographs can be trained further: unfreeze the last parts and let them follow. **Predict.** How
# many of the network's weights lie in its last four parts? How many is that for each training patch?

# %%
control = widgets.unfreezing(parts(network.net), images=32)

# %% [markdown]
# The head alone has dozens of weights for each patch, the last four parts tens of thousands. Whatever fits so few
# patches fits them in many ways.
#
# ### Exercise 3: unfreeze by name
#
# Write `unfreeze`: the named parts of a model are trained, all others frozen; it returns the parameters that the
# [optimiser](GLOSSARY.md#optimiser) gets. Some may be trainable before you come. (Is `blocks.15` a part of
# `blocks.1`?)


# %%
def unfreeze(model, names):
    return ...


q3.check(unfreeze)

# %% [markdown]
# Now train: the head, the last four parts, or everything, at 64 px, in three folds by case, for two epochs to save
# time (four, or a second seed, give the same order). `finetune` in [`bpsutils/transfer.py`](../bpsutils/transfer.py)
# has the loop of notebook 09 in ten lines.
#
# The optimiser gets what is trained, nothing else. **Predict.** Which is best on cases it has not seen?
#
# *Trained numbers differ between machines, so this output is not compared.*

# %% tags=["nbval-ignore-output"]
from bpsutils.transfer import finetune

rows = ImageDataset(table, Compose([ToRGB(), Resize(64), own]), config.target, group="case")
whole = collate_fn_pad(list(rows))  # small enough to load once
depths = {"the head": 1, "the last four parts": 4, "everything": len(parts(network.net))}
tuned = {name: finetune(whole, n, epochs=2) for name, n in depths.items()}
title = "Everything unfrozen scores lowest, the head alone highest"
figure = plots.intervals(tuned, title, name="balanced_accuracy", caption=plots.SIMULATED)
plots.show(figure, "The score after training the head, four parts, or everything: it falls.")

# %%
trained = {name: score["balanced_accuracy"] for name, score in tuned.items()}
print("the head alone above 0.75:", trained["the head"] > 0.75)
print("everything unfrozen is better than the head:", trained["everything"] > trained["the head"])

# %% [markdown]
# Head and four parts differ by no more than their intervals; everything unfrozen stays clearly behind the head. With
# the pretrained weights frozen, 2,562 numbers are learned. With everything unfrozen, millions move at once; it
# seems that training loses more of what the photographs taught than the patches give back. That holds for 32 simulated
# patches and one [learning rate](GLOSSARY.md#learning-rate). With thousands of images, and smaller steps for the
# pretrained parts, unfreezing may well win. So: start with the head, unfreeze from the end, and keep what helps on
# validation cases.

# %% [markdown] tags=["instructor"]
# > *Show:* the moving figure at 1, 4 and 21 parts, then the last figure again.
# >
# > *Say:* each choice was made before its score was seen. Had we picked the best of seven probes and reported that
# > one, the number would be too good. Say how you would do it on real slides.
# >
# > *Minutes:* 8

# %% [markdown]
# ## A rubric for your own
#
# Give your project, or your neighbour's, 0, 1 or 2 points a row. With a 0 in the second or last row, the rest does not
# count.
#
# | | 0 | 1 | 2 |
# |---|---|---|---|
# | table | files listed by hand | built from names and headers | and its warnings read: what is missing, doubled, odd |
# | [split](GLOSSARY.md#split) | by image | by case or mouse | and you say what else goes with the class: plate, date |
# | look | never looked | examples of each class | of each split and of the worst mistakes |
# | pixels | 16 bits cut, or scaled by chance | scaled by a declared range | and normalised as the weights expect |
# | batches | sizes ignored | padding measured | and compared with resizing |
# | baseline | none | guessing | and a simple rival that sees no shape |
# | model | only the largest | head first, then unfrozen | and chosen on validation alone |
# | result | one number | test once, or out of fold | and an interval by case, with how many cases |
# | again | cannot be repeated | [seed](GLOSSARY.md#seed) and `Config` stored | and a second seed tried |
# | honesty | more is claimed than tested | says what was tested, on which data | and what would prove it wrong |

# %% [markdown]
# ## Bring your own folder
#
# Two folders of images, one for each class: [TIFF](GLOSSARY.md#tiff) or PNG, grey or colour, 8 or 16 bits. JPEG and the
# like are copied to PNG for you, which brings back nothing of what they have lost. The next cell makes two such folders
# from the patches, somewhere temporary. To use yours, put in two paths. (In Colab: upload a zip, unpack it, and never
# train from Drive.)
#
# `group` finds in a file name what belongs together, a patient, a slide, a dish. With `None` each file stands by
# itself, and if that is not so, your score is too good.

# %%
from shutil import copy
from tempfile import mkdtemp

demo = Path(mkdtemp())
for path, label in zip(table["path"], table["label"], strict=True):
    (demo / label).mkdir(exist_ok=True)
    copy(path, demo / label)

folders = {"benign": demo / "benign", "malignant": demo / "malignant"}  # your two paths
group = r"^(?P<group>case\d+)"  # or None

# %%
from bpsutils.transfer import folder_table

mine = folder_table(folders, demo / "work", group)
steps = Compose([ToRGB(), Resize(96), Normalize(backbone.mean, backbone.std)])
loader = DataLoader(ImageDataset(mine, steps, "label"), batch_size=8, collate_fn=collate_fn_pad)
predicted, score = probe(frozen_features(network, loader), mine["label"], mine["group"])
print(len(mine), "images in", mine["group"].nunique(), "groups,", *folders)
print("better than guessing, with the whole interval:", score["balanced_accuracy_low"] > 0.5)

# %% [markdown]
# Before you believe it: what else differs between your folders? If one class was photographed in the morning, or saved
# by another program, the network sees that. Photographs of things are better resized to 224 px, as the weights know
# them.
#
# ### Exercise 4: deal the cases
#
# Design the folds for a study of your own: given the case and the class of each image, `deal` returns each image's
# fold number, from 0. A case stays whole, and the cases of each class are spread evenly.


# %%
def deal(cases, labels, folds):
    return ...


q4.check(deal)

# %% [markdown]
# ## You can now
#
# - take a pipeline to data it was not written for, and change only its `Config`;
# - join images, metadata and labels from three places, and filter by stain;
# - normalise as the weights expect, and say whose constants these are;
# - take features from a frozen network, and judge a linear probe with an interval by case;
# - decide how much to unfreeze, and score a project, yours too, by a rubric.
#
# You can read [`bpsutils/transfer.py`](../bpsutils/transfer.py) now, the whole of it.
#
# ## Recall
#
# <details><summary>Why are labels kept by case, and not by image?</summary>
# The case is what was diagnosed. One row a case cannot contradict itself, and new images need no new labels.</details>
#
# <details><summary>Are ImageNet's images normalised?</summary>
# No, they are 8-bit files. The code that trained a network normalised them; its weights expect it of you.</details>
#
# <details><summary>Why may the features of a frozen network be computed once?</summary>
# Nothing in front of the head changes, so each epoch would compute the same. Random
# [augmentation](GLOSSARY.md#augmentation) ends that.</details>
#
# <details><summary>Why does a patch's neighbour in the batch change its features?</summary>
# It decides the padding, and a network without masks pools the padding, too.</details>
#
# <details><summary>Twelve cases, 48 patches: which number says how sure the score is?</summary>
# Twelve. Patches of one case are alike, so cases are resampled, not patches.</details>
#
# ## Next
#
# [12 Scaling up](12_scaling_up.ipynb) takes the pipeline to 77,177 images, and asks where the time goes.
