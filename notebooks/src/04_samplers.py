# %% [markdown]
# # 04 · Samplers
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/04_samplers.ipynb)
#
# You will decide which images a model sees, in which order, and how often: with PyTorch's samplers, with one that you
# write yourself, and with one that prefers what the model finds hard. And you will test whether that helps.
#
# A [sampler](GLOSSARY.md#sampler) generates indices. The dataset turns each into a sample, the loader stacks samples
# into batches. So whoever chooses the indices chooses what is learned from.
#
# **You need** notebooks 02 and 03. **Time:** 45 minutes.

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
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler
from torch.utils.data.sampler import SequentialSampler, SubsetRandomSampler

from bpsutils import Config, ImageStream, load_table, plots, rare_kinds, render, split_table, widgets
from bpsutils.exercises.samplers import q1, q2, q3, q4
from bpsutils.samplers import ClassBalancedSampler, DistributedBatches, HardExampleSampler, set_epoch

# %% [markdown] tags=["instructor"]
# > *Show:* the next code cell; then PyTorch's own code, `torch/utils/data/sampler.py`: each class there is a few
# > lines long. The slider of the sampler stream after exercise 1: let the class vote before each move.
# >
# > *Say:* a sampler is nothing but a list of indices that is made when it is needed.
# >
# > *Minutes:* 10

# %% [markdown]
# ## Anything that yields indices
#
# PyTorch's protocol has two methods: `__iter__` yields one index after the other, `__len__` says how many. A plain
# list has both. And an index need not be a number: the loader asks for `dataset[key]`, whatever the key is. PyTorch
# brings these samplers:
#
# | sampler | yields |
# |---|---|
# | `SequentialSampler(data)` | 0, 1, 2, … |
# | `RandomSampler(data)` | all of them, shuffled |
# | `SubsetRandomSampler(indices)` | these, shuffled |
# | `WeightedRandomSampler(weights, num_samples)` | draws with replacement, in proportion to the weights |
# | `BatchSampler(sampler, batch_size, drop_last)` | lists of what `sampler` yields |
#
# **Predict.** The first dataset below is a list of 8 letters: which batches come out? The second is a dict. What
# happens to it without a sampler?

# %%
letters = list("abcdefgh")
print(list(DataLoader(letters, batch_size=2, sampler=[4, 4, 0, 7])))
nuclei = {"Fe/A8": 22, "Fe/C8": 24, "X-ray/E6": 28}  # how many a mouse has
print(next(iter(DataLoader(nuclei, batch_size=2, sampler=["X-ray/E6", "Fe/C8"]))).tolist())
try:
    next(iter(DataLoader(nuclei)))
except KeyError as error:
    print("KeyError:", error)

# %% [markdown]
# Three of the eight letters, one of them twice. Nothing checks that every sample comes, or comes once: that is the
# sampler's business. With keys from a sampler the dict works. Without one, the loader makes a `SequentialSampler`,
# which counts from 0, and no mouse is called 0.
#
# The last row of the table is a [batch sampler](GLOSSARY.md#batch-sampler): it yields the indices of a whole batch.
# If you give a loader `sampler` and `batch_size`, it makes one of them for you.
#
# ### Exercise 1: batches by hand
#
# What does `list(BatchSampler([4, 1, 7, 5, 3, 9, 0, 8], batch_size=3, drop_last=True))` return? (A list is a sampler
# here as well.)

# %%
batches = ...

q1.check(batches)

# %% [markdown]
# Now 24 images, six of them Fe, under six samplers. **Predict.** For which does epoch 1 have the order of epoch 0?
# Which leave images out for ever? Move the slider and check.

# %%
torch.manual_seed(0)
few = np.array(["X-ray", "Fe", "X-ray", "X-ray"] * 6)
samplers = {"sequential": SequentialSampler(few), "random": RandomSampler(few)}
samplers |= {"subset": SubsetRandomSampler(range(0, 24, 3)), "balanced": ClassBalancedSampler(few)}
samplers |= {"weighted": WeightedRandomSampler(1.0 + 2 * (few == "Fe"), num_samples=24)}
samplers |= {"undersampled": ClassBalancedSampler(few, num_samples=12)}
stream = widgets.sampler_stream(samplers, few)

# %% [markdown]
# *Answers.* Only the sequential order repeats. And only `subset` leaves images out for ever, the 16 that it was not
# given: what the last two missed in these four epochs, they missed by chance, and may draw later.
#
# ## A sampler and shuffling
#
# **Predict.** You give a sampler and, to be safe, `shuffle=True`. Should PyTorch shuffle what the sampler yields, or
# ignore one of the two?
#
# The last lines below begin an epoch and drop it after its first batch, twice. Do you get one order or two?

# %%
try:
    DataLoader(letters, sampler=[4, 0], shuffle=True)
except ValueError as error:
    print("ValueError:", error)
loader = DataLoader(range(6), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(0))
print(next(iter(loader)).tolist(), next(iter(loader)).tolist())

# %% [markdown]
# It refuses. `shuffle=True` *is* a sampler, the `RandomSampler`. Two samplers would be two answers to one question,
# and a shuffle behind a sampler's back would undo an order that was made on purpose. A sampler does its own
# shuffling. A batch sampler answers more questions still: order, batch size and `drop_last` at once.
#
# *A correction.* The notes say of `shuffle=True`: "after we iterate over all batches, data is shuffled". You got two
# orders without finishing an epoch: the order is drawn when an iteration *begins*. And only indices are shuffled; the
# data stay where they are.
#
# ## Why batches: one picture
#
# A sampler may yield one index at a time, or small lots for mini-batch [stochastic gradient
# descent](GLOSSARY.md#stochastic-gradient-descent): the gradient on a few random images points roughly where the
# gradient on all of them does, for a fraction of the work. **Predict.** A line is fitted to 128 points in one epoch.
# Which ends nearest to the best line: 1 step on all 128, 8 steps on 16 each, or 128 steps on one?

# %%
plots.show(
    plots.minibatch_sgd(),
    "Three paths over lines of equal loss: one that stops early, eight that arrive, 128 that jitter.",
    "The star is the best line. A step is 0.4 times the gradient on its batch.",
)

# %% [markdown]
# All three computed the gradient of each of the 128 points once, so the work is about the same. At this size of step,
# one step does not go far, however well aimed. Steps on single points arrive early and then jitter, for each point
# pulls towards itself; where the last one lands is luck. Batches lie between, as long as their order is random. The
# size of the step matters as well: with `plots.minibatch_sgd(step=0.1)` the single points end nearest, and eight steps
# are too few. Notebook 09 returns to that.
#
# ## A rare class
#
# The simulated training images hold 90 Fe and 107 X-ray nuclei. To make a [class
# imbalance](GLOSSARY.md#class-imbalance), we keep one Fe nucleus in eight, which leaves 12, and all the X-ray nuclei.
# There are five ways below to go through these 119 images, in batches of 16. [Oversampling](GLOSSARY.md#oversampling)
# repeats the rare class, [undersampling](GLOSSARY.md#undersampling) leaves out images of the common one;
# `ClassBalancedSampler` does either, as `num_samples` asks.
#
# **Predict.** Files are sorted by plate, and a plate holds one condition. How many of the 8 sequential batches have
# no Fe? How many of the random ones? Which orders leave more than half of the images out of the epoch?

# %%
table = split_table(load_table(Config()), Config())
train = table[table["split"] == "train"].sort_values("path")
iron = train["particle_type"] == "Fe"
rows = pd.concat([train[iron][::8], train[~iron]])
labels = rows["particle_type"].to_numpy()
each_weight = np.where(labels == "Fe", 1 / 12, 1 / 107)
chance = torch.Generator().manual_seed(0)
orders = {
    "sequential": list(SequentialSampler(labels)),
    "random": list(RandomSampler(labels, generator=chance)),
    "weighted": list(WeightedRandomSampler(each_weight, 119, generator=chance)),
    "oversampled": list(ClassBalancedSampler(labels, num_samples=107 * 2)),
    "undersampled": list(ClassBalancedSampler(labels, num_samples=12 * 2)),
}

# %%
plots.show(
    plots.class_counts(orders, labels, batch_size=16, caption=plots.SIMULATED),
    "Five bar charts of the images in each batch, by class: one for each sampler.",
)

# %% [markdown]
# Sequential order shows all the iron first and then none. Random order has two batches without iron, too. Balance has
# its price:
#
# - *Weighted* draws are with replacement, so by chance more than half of all images stay out of this epoch.
# - *Oversampling* shows every image, but in an epoch nearly twice as long, and each of 12 nuclei up to nine times.
#   That is no new information, and a network can learn them by heart.
# - *Undersampling* shows nothing twice and leaves 95 X-ray nuclei to other epochs.
#
# And a model that was shown half Fe believes in half Fe: where iron is rare, its probabilities are too high.
# Notebooks 09 and 10 return to that.
#
# ### Exercise 2: weights
#
# For `each_weight` we counted by hand. Write `weights`, which takes an array of labels and returns a weight for each
# *image*, so that `WeightedRandomSampler` draws every class equally often, however many classes there are.


# %%
def weights(labels):
    return ...


q2.check(weights)

# %% [markdown]
# How rare is too rare for random order? **Predict.** A class is 5 % of 640 images, so a batch of 16 holds 0.8 of them
# on average. How many of the 40 batches hold none? Then move the share. (Nothing is loaded here, only counted.)

# %%
rare_share = widgets.imbalance()

# %% [markdown]
# One random image is not of the class with a chance of 0.95, and 16 of them with 0.95 to the power 16. That is 44 %, or
# 18 of 40 batches on average; this order has 19. Before you reach for a sampler, ask whether a larger batch would do.
#
# ### Exercise 3: a batch that is large enough
#
# A class has a share of all images. Write `batch_size(share, chance)`, which returns the smallest batch size at which a
# random batch misses the class with a probability of at most `chance`. The set is so large that the draws do not
# influence each other. For a share of 5 % and a chance of 10 % the answer is 45.


# %%
def batch_size(share, chance):
    return ...


q3.check(batch_size)

# %% [markdown]
# ## A sampler from scratch
#
# Here is a first sampler of our own. Its generator is made once. **Predict.** A run of three epochs breaks off after
# two, and a new process carries on. Does it get the order that the third epoch would have had?


# %%
class Forgetful(Sampler):
    def __init__(self, n):
        self.n, self.rng = n, np.random.default_rng(0)

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(self.rng.permutation(self.n).tolist())


whole, resumed = Forgetful(8), Forgetful(8)
print("third epoch:", [list(whole) for _ in range(3)][2], " resumed:", list(resumed))

# %% [markdown]
# It does not. The order depends on how often the sampler was asked before, and a new process knows nothing of that.
# The cure: let the order be a function of the seed and the number of the epoch, and of nothing else. Somebody must
# then say which epoch it is; by custom the method is called `set_epoch`.


# %%
class FromSeedAndEpoch(Forgetful):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(np.random.default_rng([0, self.epoch]).permutation(self.n).tolist())


resumed = FromSeedAndEpoch(8)
print("not told:     ", list(resumed), list(resumed))
set_epoch(DataLoader(letters, sampler=resumed), 2)
print("told it is 2: ", list(resumed))

# %% [markdown]
# Forget `set_epoch`, and every epoch has the same order and the same batches, without any error. The function
# `set_epoch` of `bpsutils.samplers` tells every part of a loader at once.
#
# ### Exercise 4: an undersampler of your own
#
# Each epoch shows as many images of every class as the smallest class has: none twice, other ones in each epoch, and
# the classes well mixed. The order is a function of seed and epoch, where the epoch is 0 until `set_epoch` is called.
# `labels` is an array with the class of each image; there may be more than two classes.


# %%
class Undersampler(Sampler):
    def __init__(self, labels, seed): ...

    def set_epoch(self, epoch): ...

    def __len__(self):
        return ...

    def __iter__(self):
        return ...


q4.check(Undersampler)

# %% [markdown]
# `ClassBalancedSampler` in [`bpsutils/samplers.py`](../bpsutils/samplers.py) is the hardened version: it
# undersamples, oversamples, and deals out fairly what does not divide. Read it now; you have written most of it.
#
# ## Hard examples more often
#
# The notes name two more reasons to show an image more often. It is more important: then you choose weights, as above.
# Or it is harder for the network. A [hard example](GLOSSARY.md#hard-example) has a high loss; `HardExampleSampler` is
# told the losses and draws in proportion to them. But a share of all draws, the `floor`, goes to all images evenly.
# **Predict.** With a floor of 0.2 and four images, how likely is the one whose loss is 0?

# %%
sampler = HardExampleSampler(4, floor=0.2)
sampler.update(indices=[0, 1, 2, 3], losses=[0.0, 1.0, 1.0, 2.0])
print(sampler.probabilities().round(2))

# %% [markdown] tags=["instructor"]
# > *Show:* the pair of dark crops, then the figure of four panels, top right first. Cover the third line at the
# > beginning.
# >
# > *Say:* a gain needs a fair rival before it is a finding. No gain is a finding, too.
# >
# > *Minutes:* 12

# %% [markdown]
# It is drawn with probability 0.05, a quarter of the floor, so no image is ever out of reach. Does such a sampler help?
# That depends on *why* an image is hard. We compare two reasons, each for one simulated crop in ten:
#
# - **learnable**: the crop is dark, as under a failing lamp, and its label is right;
# - **unlearnable**: the crop is ordinary, and a coin decided its label: [label noise](GLOSSARY.md#label-noise).
#
# The task: was a nucleus irradiated (0.82 Gy of iron or 1 Gy of X-rays, 4 hours before), or is it a control? A quick
# classifier gets four numbers of each image: how bright background, nucleus, texture and spots are, as logarithms. All
# plates are equally bright in this simulation, or a plate's brightness would tell.

# %%
crops = rare_kinds.simulate_crops()
pair = [render(row, seed=1) for _, row in crops.table.loc[[80, 5]].assign(kind="dark").iterrows()]
title = "Dark crops in a narrow window: the foci are dim, but there"
figure = plots.image_grid(pair, ["control", "irradiated"], title=title, caption=plots.SIMULATED)
plots.show(figure, "Two grainy dark crops, stretched: one nucleus with bright spots, one without.")

# %% [markdown]
# The classifier is logistic regression: a weighted sum `x @ w` of the numbers, whose sign is the answer. It is trained
# by mini-batch SGD as a network would be: forward, loss, step. A trial holds four of the 16 mice out and draws which
# crops are rare. Each held-out nucleus is then tested twice: as an ordinary crop, and as one of the rare kind. That
# bookkeeping is in [`bpsutils/rare_kinds.py`](../bpsutils/rare_kinds.py); the loop is yours.


# %%
def fit(x, y, sampler, step):
    w, sign = np.zeros(x.shape[1]), np.where(y, 1, -1)
    for epoch in range(1, 101):
        set_epoch(sampler, epoch)
        for batch in BatchSampler(sampler, 16, drop_last=False):
            margin = sign[batch] * (x[batch] @ w)  # above 0: the answer is right
            if isinstance(sampler, HardExampleSampler):
                sampler.update(batch, np.logaddexp(0, -margin))  # the loss of each image
            w = w + step * x[batch].T @ (sign[batch] / (1 + np.exp(margin))) / len(batch)
        if epoch in (3, 10, 30, 100):
            yield epoch, w


# %% [markdown]
# Three ways to draw: random order; hard examples first; and a rival, random order with steps three times as large.
# Hard examples have large gradients, so their sampler also takes larger steps; without the rival you could not tell
# which of the two helped.
#
# **Predict.** Where do hard examples gain: on dark crops or on tossed labels, early or late?
#
# *Trained numbers can differ in their last digits from machine to machine, so this output is not compared when the
# notebooks are tested. The statements that follow it are compared.*

# %% tags=["nbval-ignore-output"]
result = rare_kinds.compare_orders(crops, fit, trials=20)
lead = rare_kinds.lead(result)
figure = plots.hard_examples(result, caption=plots.SIMULATED)
plots.show(figure, "Four panels of balanced accuracy by epoch.", "Means of 20 trials, 95 % intervals.")

# %%
dark, tossed = lead.loc["dark crops", "rare"], lead.loc["tossed labels"]
print("dark crops, ahead of random order by 0.05 after 3 epochs:", dark["random"][3] > 0.05)
print("dark crops, still ahead by 0.02 after 100 epochs:", dark["random"][100] > 0.02)
print("dark crops, ever ahead of larger steps by 0.02:", (dark["random, step x 3"] > 0.02).any())
print("tossed labels, ever ahead by 0.02:", (tossed["random"] > 0.02).any())

# %% [markdown]
# **The finding.** On a learnable rare kind, hard examples first are a head start: 0.15 ± 0.06 in balanced accuracy
# after 3 epochs, gone after 10, and −0.01 ± 0.02 after 100 (mean differences
# within 20 trials, 95 % intervals, simulated crops).
# Larger steps in random order give the same head start without any sampler, and keep more of it. On tossed labels
# nothing is gained: the sampler draws them twice as often as others, and they cannot be learned. The ordinary crops
# lose 0.01 ± 0.01 by it after 100 epochs.
#
# So here the sampler is no improvement, and that is a valid finding. It is a small one as well: one linear classifier
# on one simulated set. All trials share its 300 nuclei and 16 mice, so another set can differ by more than the
# intervals say. With `rare_kinds.simulate_crops(seed=2)` the head start after 3 epochs is 0.05 ± 0.08, with `seed=3` it
# is 0.10 ± 0.06; larger steps are 0.18 ± 0.04 and 0.17 ± 0.03 ahead of random order there. Change the seed and see.
# Notebook 09 repeats the comparison with a network.
#
# ## What a sampler cannot do
#
# An iterable-style dataset is never asked for an index. **Predict.** What happens when you give its loader a sampler,
# or ask it to shuffle?

# %%
images = ImageStream(rows, shuffle=True)
for arguments in ({"sampler": [4, 4, 0]}, {"shuffle": True}):
    try:
        DataLoader(images, **arguments)
    except ValueError as error:
        print("ValueError:", str(error).removeprefix("DataLoader with IterableDataset: "))
images.set_epoch(1)
print("its own order:", images.share()[:8].tolist())

# %% [markdown]
# Refused. For iterable-style datasets the order is entirely the iterable's own affair. That makes reading in chunks
# easy, and batches whose size depends on what was read. It also leaves order and balance to you: shuffle the list of
# files before you open any, yield at random from a buffer, skip some samples of a common class.
#
# ## Several processes, one order
#
# With several GPUs, each has its own process, numbered by its [rank](GLOSSARY.md#rank). If all ranks drew from the
# same sampler, all would see the same images. PyTorch's cure is the `DistributedSampler`. **Predict.** Ten images on
# four ranks do not divide. What does it do?

# %%
for rank in range(4):
    print("rank", rank, list(DistributedSampler(range(10), num_replicas=4, rank=rank, shuffle=False)))

# %%
balanced = BatchSampler(ClassBalancedSampler(labels, num_samples=22), batch_size=8, drop_last=False)
ranks = [list(DistributedBatches(balanced, rank, world_size=2)) for rank in range(2)]
for step, shares in enumerate(zip(*ranks, strict=True)):
    print("step", step, *shares)
print("no image on both ranks:", set(sum(ranks[0], [])).isdisjoint(sum(ranks[1], [])))

# %% [markdown]
# Images 0 and 1 come twice, so that all ranks take equally many steps: one that ran out early would leave the others
# waiting for its gradients. But this sampler takes the place of yours, and your balance is gone.
#
# `DistributedBatches`, in the last lines, deals out the batches of *any* batch sampler, each batch image by image, like
# cards: a batch of 8 becomes 4 images on each of two ranks. So all take equally many steps, and no image is on two
# ranks. (Only a batch with fewer images than ranks has to repeat some.) Every rank makes the same batches, from the
# same seed and epoch, and keeps its share. Nobody needs to talk. Notebook 12 runs it with real processes.
#
# ## You can now
#
# - say what a sampler is, and give a loader one of your own, for numbers or for keys;
# - foresee how much of a rare class a batch holds, and choose between weights, over- and undersampling;
# - make an order that is a function of seed and epoch, so that runs resume and ranks agree;
# - test whether a clever sampler helps, against a fair rival;
# - read [`bpsutils/samplers.py`](../bpsutils/samplers.py) from top to bottom.
#
# ## Recall
#
# <details><summary>Why does a DataLoader refuse shuffle=True together with a sampler?</summary>
#
# `shuffle=True` makes a `RandomSampler`. Two samplers would be two answers to the question which index comes next.
#
# </details>
# <details><summary>A class has a share of 10 %. How many random batches of 16 hold none of it?</summary>
#
# 0.9 to the power 16, about 19 %.
#
# </details>
# <details><summary>What does undersampling cost, and what oversampling?</summary>
#
# Undersampling leaves images of the common class out of each epoch. Oversampling repeats the rare ones, which adds no
# information, and makes the epoch longer. Both change how common a model believes the classes to be.
#
# </details>
# <details><summary>Why must set_epoch be called, if the order is a function of seed and epoch?</summary>
#
# Nobody else tells the sampler that an epoch has passed. Without it every epoch has the same order.
#
# </details>
# <details><summary>Hard examples were ahead after 3 epochs. Why was that no proof that the sampler helps?</summary>
#
# Hard examples have large gradients, so its steps were larger, too. Random order with larger steps was as far ahead,
# and after 100 epochs all were alike.
#
# </details>
#
# ## Next
#
# Samplers choose rows of a table. [05 Metadata](05_metadata.ipynb) makes that table from a
# folder of files, in a way
# that you can trust.
