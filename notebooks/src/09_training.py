# %% [markdown]
# # 09 · Training
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/09_training.ipynb)
#
# You will write a training loop, test it before you trust it, choose its [learning rate](GLOSSARY.md#learning-rate),
# read its curves, handle a rare class, and resume a run that was killed.
#
# Training is a search: the [model](GLOSSARY.md#model) answers, the [loss](GLOSSARY.md#loss) says how wrong it is, and
# every weight moves a little to where the loss is smaller. The loop is five lines. Most of the work is to know whether
# it does what you think.
#
# **You need** notebooks 04 and 08. **Time:** 45 minutes.

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
from torch import nn

from bpsutils import Config, load_table, make_model, pick_device, plots, split_table, widgets
from bpsutils.exercises.training import q1, q2, q3, q4
from bpsutils.images import read_image, to_float
from bpsutils.samplers import HardExampleSampler
from bpsutils.transforms import Resize, Standardise

table = split_table(load_table(Config()), Config())
crops = [to_float(torch.from_numpy(read_image(path))[None]) for path in table["path"]]
images = Standardise()(torch.stack([Resize(64)(crop) for crop in crops]))
labels = torch.tensor(table["particle_type"].eq("Fe").to_numpy()).long()
rows = {split: np.flatnonzero(table["split"] == split) for split in ("train", "val")}
print({split: f"{len(n)} nuclei, {int(labels[n].sum())} Fe" for split, n in rows.items()})

# %% [markdown]
# All results here are of simulated images: the irradiated nuclei of the sample, [split](GLOSSARY.md#split) by mouse,
# the test mice left alone. They are shrunk to 64 × 64 pixels, standardised, and held in one tensor, so that each
# training takes seconds.
#
# ## Three numbers to choose
#
# | | what it is | too small | too large |
# |---|---|---|---|
# | [batch](GLOSSARY.md#batch) size | images that go in together before the weights change | noisy steps | few steps |
# | learning rate | how far one step moves the weights | no progress | the loss jumps or explodes |
# | [epochs](GLOSSARY.md#epoch) | how often all training images are seen | not learned yet | learned by heart |
#
# You set these [hyperparameters](GLOSSARY.md#hyperparameter); training does not. They pull on each other: 197 images in
# batches of 16 are 13 steps an epoch (the last one of 5 images), in batches of 64 only 4, each less noisy.
#
# ## One step, seen from above
#
# Two weights make a map, and the loss is the height. The [gradient](GLOSSARY.md#gradient) points straight uphill, and
# its length says how steep it is. A step goes the other way, by gradient times learning rate. This valley is ten times
# as steep across as it is along.
#
# **Predict.** The figure starts with rate 0.01. At which rate does the path get down fastest? What happens just beyond?
# (Drag the slider, or click it and press the arrow keys.)

# %%
slider = widgets.learning_rate()

# %% [markdown] tags=["instructor"]
# > *Show:* the slider from 0.01 upward, one arrow key at a time. Later, the three panels of the first trainings (cover
# > the right one and ask for it), and `_train_epoch` in `bpsutils/training.py` beside the loop of this notebook.
# >
# > *Say:* one batch tests the loop, the training loss tests the rate, the validation loss tests the model.
# >
# > *Minutes:* 20

# %% [markdown]
# Fastest is 0.18. The steep direction sets the limit: at 0.2 a step lands just as high on the other side. The shallow
# direction sets the time: at a tenth of a good rate 40 steps are not enough. So rates are tried by factors: 0.0001,
# 0.0003, 0.001, …
#
# [Adam](GLOSSARY.md#adam) divides each weight's step by the usual size of that weight's gradients. Say two weights have
# gradients of 1000 and 0.001. At rate 0.1 plain descent (SGD) moves them by 100 and by 0.0001; Adam's first step moves
# both by 0.1. One rate then suits all weights better, and choosing it stays your task.
#
# ## Four words: forward, loss, backward, step
#
# PyTorch sends nothing to a GPU by itself: model and batch must be moved to one [device](GLOSSARY.md#device). Then a
# step is always the same. **Forward**: the model makes [logits](GLOSSARY.md#logits). **Loss**: the *criterion*, here
# [cross-entropy](GLOSSARY.md#cross-entropy), makes one number of them. **Backward**: [autograd](GLOSSARY.md#autograd)
# finds the gradient of every weight. **Step**: the [optimiser](GLOSSARY.md#optimiser) moves the weights, given the
# gradients. We give Adam the trainable parameters only: frozen layers (notebook 08) stay out, and if all are frozen by
# mistake, it refuses the empty list.

# %%
device, criterion = pick_device(), nn.CrossEntropyLoss()
model = make_model(Config()).to(device)
trainable = [weight for weight in model.parameters() if weight.requires_grad]
optimizer = torch.optim.Adam(trainable, lr=1e-3)
sixteen = rows["train"][::13]

logits = model(images[sixteen].to(device))  # forward
loss = criterion(logits, labels[sixteen].to(device))  # loss
optimizer.zero_grad()
loss.backward()  # backward
optimizer.step()  # step
print("logits", tuple(logits.shape), " all have gradients:", all(w.grad is not None for w in trainable))

# %% [markdown]
# Cross-entropy is minus the logarithm of the probability that the right class got. Two classes guessed at 50 % cost
# ln 2, about 0.69: remember this number, for a loss that stays there has learned nothing.
#
# **Predict.** The model is quite sure, and right: logits 8 and −8, class 0. What is the loss? What is it if you take
# the softmax first? And what gradient of 2w is kept after three calls of `backward`?

# %%
sure, right, w = torch.tensor([[8.0, -8.0]]), torch.tensor([0]), torch.tensor(3.0, requires_grad=True)
costs = {"guessing": torch.zeros(1, 2), "sure and right": sure, "softmax first": sure.softmax(1)}
print({name: f"{criterion(logits, right):.3f}" for name, logits in costs.items()})
(w * 2).backward(), (w * 2).backward(), (w * 2).backward()
print("gradient of 2w:", w.grad.item())

# %% [markdown]
# `CrossEntropyLoss` does the softmax itself. Softmax never goes before it: even a perfect answer would cost 0.313.
#
# And `backward` *adds* to the gradient that is already there. That is why each step begins with `zero_grad`.
#
# ### Exercise 1: the step
#
# Write `step`, which trains on one batch with cross-entropy and returns the loss of its forward pass as a plain number
# (`.item()`).


# %%
def step(model, images, labels, optimizer):
    return ...


q1.check(step)

# %% [markdown]
# ## The whole loop
#
# All training images, in a new order each epoch, and a look at the validation images after each. `eval()` and
# `no_grad()` make it a look only: nothing is learned from it.


# %%
from bpsutils.training import balanced_accuracy


def validate(model, numbers=None, threshold=0.5):
    model.eval()
    numbers = rows["val"] if numbers is None else numbers
    with torch.no_grad():
        logits = model(images[numbers].to(device)).cpu()
    called = logits.softmax(1)[:, 1] >= threshold
    score = balanced_accuracy(labels[numbers].numpy(), called.long().numpy())
    return {"val_loss": nn.functional.cross_entropy(logits, labels[numbers]).item(), "val_score": score}


# %%
def fit(rate=1e-3, epochs=10, seed=0, used=rows["train"], truth=labels, val=None, criterion=criterion):
    model = make_model(Config(seed=seed)).to(device)
    order, history = np.random.default_rng(seed), []
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in np.array_split(order.permutation(used), range(16, len(used), 16)):
            logits = model.train()(images[batch].to(device))
            loss = criterion(logits, truth[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.append({"epoch": epoch, "train_loss": np.mean(losses), **validate(model, val)})
    return model, pd.DataFrame(history)


# %% [markdown]
# ## The first test: one batch, learned by heart
#
# Before you train on everything, train on one batch, again and again. A network with 60,000 weights must be able to
# learn 16 images by heart. If it cannot, the loop is broken: labels in another order, a missing step, a frozen layer, a
# rate far off. It takes a second and finds many mistakes.
#
# **Predict.** What does the loss come down to in 40 steps? And with the softmax by mistake?


# %%
def with_softmax(logits, labels):
    return criterion(logits.softmax(1), labels)


_, by_heart = fit(used=sixteen, val=sixteen, epochs=40)
_, mistaken = fit(used=sixteen, val=sixteen, epochs=40, criterion=with_softmax)
print("one batch is overfitted, loss below 0.1:", by_heart["train_loss"].iloc[-1] < 0.1)
print("the same with the softmax by mistake:", mistaken["train_loss"].iloc[-1] < 0.1)

# %% [markdown]
# ## Too small, right, too large
#
# Three rates, a factor of 100 apart, 10 epochs each, all else alike. **Predict.** Where does each training
# loss end, and why? What does the validation loss of the good one do?
#
# *Millions of additions, rounded a little differently on each kind of processor, give every machine curves of its own,
# so this output is not compared when the notebooks are tested. The statements after it hold everywhere.*

# %% tags=["nbval-ignore-output"]
runs = {f"{rate:f}".rstrip("0"): fit(rate)[1] for rate in (0.00001, 0.001, 0.1)}
figure = plots.first_trainings(by_heart["train_loss"], runs, caption=plots.SIMULATED)
alt = "Loss on one batch falls to nothing; of three learning rates only the middle one learns."
note = "Dotted: guessing, ln 2. Nuclei at 64 px, 197 for training, 98 for validation, one seed."
plots.show(figure, alt, note)

# %%
small, right, large = (run.iloc[-1] for run in runs.values())
print("0.001 learns its training images:", right["train_loss"] < 0.5)
print("the other two do not:", min(small["train_loss"], large["train_loss"]) > 0.55)
print("validation lags behind by more than 0.15:", right["val_loss"] > right["train_loss"] + 0.15)

# %% [markdown]
# Two training losses end near ln 2, and not by the same failure. At 0.00001 the loss creeps down: more time would help.
# At 0.1 the first steps threw the weights so far that the network now says the same for every image: more time will not
# help. At 0.001 it learns, and then it learns too much. The training loss keeps falling, the validation loss has
# stopped: the rest is learned by heart, nucleus by nucleus. That is [overfitting](GLOSSARY.md#overfitting).
#
# ## Read the curves
#
# Ask for *height* (is the loss below guessing?), *slope* (is it still falling?) and *gap* (how far is validation above
# training?). **Predict.** Four trainings, A to D: what is wrong with each, if anything, and what do you change first?

# %%
alt = "Four panels with a training and a validation loss: flat, jumping, parting, falling together."
plots.show(plots.diagnoses(), alt, "A stays, B jumps, in C the curves part, in D they level off.")

# %% [markdown]
# <details><summary>What each one needs</summary>
#
# A crawls: rate too small (or nothing to learn: test one batch). B jumps: rate too large. C overfits: stop at the
# lowest validation loss, or add [augmentation](GLOSSARY.md#augmentation) or data. D is as it should be; more epochs
# gain little.
#
# </details>
#
# Curves over few validation images are rough: of 98 nuclei of four mice, one epoch up or down means nothing. And the
# epoch with the best validation score was *chosen* by that score, which therefore flatters. What a model is worth is
# asked once, of the test images, in notebook 10.
#
# ### Exercise 2: when to stop
#
# With [early stopping](GLOSSARY.md#early-stopping) you give up once the lowest validation loss is `patience` epochs
# old. Write `stop_epoch`: the epoch, counted from 1, after which training ends (the last one if patience never runs
# out). A loss that only equals the lowest is no progress. For losses 0.7, 0.6, 0.65, 0.62 and patience 2 it is 4.


# %%
def stop_epoch(val_losses, patience):
    return ...


q2.check(stop_epoch)

# %% [markdown]
# ## A rare class
#
# Keep one Fe training nucleus in eight; the validation images stay as they are. To see clearly, begin with the smallest
# network, one linear layer (a *logistic regression*), on three numbers per image: its brightest pixel, its 99.5th
# percentile, and its skewness, the mean of the cubed (standardised) pixels, which is large where a few are very bright.

# %%
is_fe, pixels = labels[rows["train"]].numpy() == 1, images.flatten(1).double().numpy()
few = np.sort(np.concatenate([rows["train"][~is_fe], rows["train"][is_fe][::8]]))
share = labels[few].double().mean().item()
numbers = np.stack([pixels.max(1), np.quantile(pixels, 0.995, axis=1), (pixels**3).mean(1)], axis=1)
print(f"{len(few)} training nuclei, {int(labels[few].sum())} of them Fe: a share of {share:.2f}")

# %% [markdown]
# There are two remedies. With [class weights](GLOSSARY.md#class-weights) in the criterion, each Fe nucleus counts as
# much as it takes to make the classes even. Or you train as before and *move the* [threshold](GLOSSARY.md#threshold):
# Fe is what scores above the share of Fe in training, that is, what looks more like Fe than a nucleus picked blindly.
#
# **Predict.** Of 45 Fe nuclei in validation, how many are found without a remedy? Which remedy finds more?

# %%
from sklearn.linear_model import LogisticRegression

layers = [LogisticRegression(class_weight=how) for how in (None, "balanced")]
layers = [layer.fit(numbers[few], labels[few]) for layer in layers]
plain, weighted = (layer.predict_proba(numbers[rows["val"]])[:, 1] for layer in layers)
truth = labels[rows["val"]].numpy()
figure = plots.weights_or_threshold(truth, plain, weighted, share, caption=plots.SIMULATED)
plots.show(figure, "Two ROC curves that nearly coincide; either remedy finds more Fe than none.")

# %% [markdown]
# Either remedy finds more than 30 of 45 Fe nuclei instead of 9, and pays with false alarms: of 53 X-ray nuclei, none
# are called Fe without a remedy, 10 with the moved threshold, 6 with class weights. Both land near the same point of
# nearly the same [ROC curve](GLOSSARY.md#roc-curve). Neither adds knowledge: the images are ranked as before, and the
# cut moves. A threshold costs nothing and can be changed tomorrow; class weights must be chosen before training.
#
# ### Exercise 3: class weights
#
# Write `weights`: one weight a class. Over all images, the weights of each class must add up to the same, and the mean
# weight of an image must be 1. The result, float32, is what you give to `nn.CrossEntropyLoss(weight=…)`.


# %%
def weights(labels, n_classes):
    return ...


q3.check(weights)

# %% [markdown]
# ## Hard examples more often
#
# Notebook 04 compared the hard-example [sampler](GLOSSARY.md#sampler) with random order by a quick classifier. Here is
# the same with a network. The sampler must be told the loss of each image: the criterion keeps them apart
# (`reduction="none"`), and `update` hands them over.
#
# **Predict.** Three training sets: all 197 labels right; 30 of them, 15 %, made wrong, which nobody can learn; and the
# set with 12 Fe nuclei, rare but learnable. Where will the sampler help the network? Where will class weights?


# %%
def fit_hard(epochs=8, seed=0, used=rows["train"], truth=labels):
    model, sampler = make_model(Config(seed=seed)).to(device), HardExampleSampler(len(used), seed=seed)
    optimizer, history, drawn = torch.optim.Adam(model.parameters(), lr=1e-3), [], []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn += list(sampler)
        for picked in np.array_split(drawn[-len(used) :], range(16, len(used), 16)):
            x, y = (part[used[picked]].to(device) for part in (images, truth))
            losses = nn.functional.cross_entropy(model.train()(x), y, reduction="none")
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            sampler.update(picked, losses)
        history.append(validate(model))
    return used[drawn], pd.DataFrame(history)


# %%
wrong, flipped = labels.clone(), np.random.default_rng(0).permutation(rows["train"])[:30]
wrong[flipped] = 1 - wrong[flipped]
all_train = rows["train"]
sets = {"labels right": (all_train, labels), "30 wrong": (all_train, wrong), "12 Fe": (few, labels)}
mixed, hard = {}, {}
for name, (used, truth) in sets.items():
    mixed[name] = [fit(epochs=8, seed=seed, used=used, truth=truth) for seed in (0, 1)]
    hard[name] = [fit_hard(seed=seed, used=used, truth=truth) for seed in (0, 1)]
even = nn.CrossEntropyLoss(torch.tensor([0.5 / (1 - share), 0.5 / share]).to(device))
weighty = [fit(epochs=8, seed=seed, used=few, criterion=even) for seed in (0, 1)]

# %% [markdown]
# A score is the mean over the last three of 8 epochs, for one epoch says little (with the moved threshold: the last).
# *These are trained networks again, so this output is not compared; the statements after it are.*

# %% tags=["nbval-ignore-output"]
arms = {}
for name in sets:
    arms[f"{name}: random order"], arms[f"{name}: hard ones more often"] = mixed[name], hard[name]
arms["12 Fe: class weights"] = weighty
scores = {name: [run["val_score"].tail(3).mean() for _, run in runs] for name, runs in arms.items()}
moved = [validate(model, threshold=share)["val_score"] for model, _ in mixed["12 Fe"]]
scores["12 Fe: threshold moved"] = moved
figure = plots.seeds(scores, "hard ones more often", "random order", caption=plots.SIMULATED)
note = "98 validation nuclei of four mice, 64 px; each dot a seed, and seeds alone differ this much."
plots.show(figure, "Balanced accuracy of two runs for each of eight ways to train.", note)

# %%
ways = [[run["val_score"].tail(3) for pair in way.values() for _, run in pair] for way in (hard, mixed)]
gain = np.mean(ways[0]) - np.mean(ways[1])
shown = np.mean([np.isin(drawn, few[labels[few] == 1]).mean() for drawn, _ in hard["12 Fe"]])
print("with 12 Fe, the sampler shows Fe more than 1.3 times as often:", shown > 1.3 * share)
print("on average over the three sets it gains more than 0.1:", gain > 0.1)

# %% [markdown]
# The sampler does what it promises, it shows the rare Fe nuclei more often. The score does not follow. Two likely
# reasons: drawing with replacement leaves some images out of every epoch, and a dozen nuclei shown again and again stay
# a dozen. No gain is a finding, too, within its limits: with two seeds so far apart only a large gain would show, and
# that is ruled out for these simulated images and this network. (Notebook 10 compares the two on all 16 mice.) The
# linear layer got further with the same 12: here a few good numbers beat many weights, and no remedy makes up for it.
#
# ## Killed and resumed
#
# Long runs end early: Colab disconnects, memory fills up, too many workers crash after a while. So models should be
# saved, after every epoch and once more when one is the best so far. `bpsutils.train` does; the files are called
# [checkpoints](GLOSSARY.md#checkpoint). One run of 4 epochs is left alone. Another loses power in the middle of epoch
# 3, after 18 batches.


# %%
from pathlib import Path
from tempfile import TemporaryDirectory

from bpsutils import make_loaders, train


def power_cut(model, inputs):
    if not left:
        raise KeyboardInterrupt("power cut")
    left.pop()


left = list(range(18))
folder, settings = TemporaryDirectory(), {"resize": 32, "epochs": 4, "batch_size": 8, "device": "cpu"}
part = table.groupby(["split", "particle_type"]).head(16)  # 4 + 4 batches of 8 an epoch
config = Config(out_dir=Path(folder.name) / "whole", **settings)
whole = make_model(config)
history = train(whole, make_loaders(config, part), config)
print(sorted(path.name for path in (config.out_dir / "checkpoints").iterdir()))

# %% [markdown]
# `power_cut` is called before each batch. **Predict.** The killed run is resumed with a *new* model and new loaders.
# Can it end with the very weights of the run that was left alone? What does it need for that, besides the weights?

# %%
config = Config(out_dir=Path(folder.name) / "killed", **settings)
doomed, resumed = make_model(config), make_model(config)
doomed.register_forward_pre_hook(power_cut)
try:
    train(doomed, make_loaders(config, part), config)
except KeyboardInterrupt as error:
    print("KeyboardInterrupt:", error)
saved = torch.load(config.out_dir / "checkpoints" / "epoch_0002.pt", weights_only=True)
print("a checkpoint holds", ", ".join(sorted(saved)))
again = train(resumed, make_loaders(config, part), config, resume=True)
pairs = zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True)
equal = all(torch.equal(one, other) for one, other in pairs)
print("same history:", again.equals(history), " same weights, bit for bit:", equal)
alt = "Three bars of epochs: a run left alone, one killed in epoch 3, one resumed from epoch 2."
plots.show(plots.resumed(4, killed_in=3, equal=equal), alt, "Half an epoch of work is lost, no more.")

# %% [markdown]
# Nothing is left to memory. The checkpoint holds the weights, the optimiser's running averages, the place in the
# schedule of the learning rate, and the history; order and augmentation are functions of [seed](GLOSSARY.md#seed) and
# epoch. (On one CPU this is exact; on a GPU last digits may differ.)
#
# ### Exercise 4: remember
#
# Write `remember`. It returns a dict with the keys `"model"`, `"optimizer"` (the states of both) and `"epoch"`, from
# which training can go on. The check trains on with your model before it looks into the dict.


# %%
def remember(model, optimizer, epoch):
    return ...


q4.check(remember)

# %% [markdown]
# ## Compute in half precision
#
# GPUs compute faster in 16 bits than in 32. With [mixed precision](GLOSSARY.md#mixed-precision) the forward pass uses
# 16 bits where that is safe, while the weights stay float32. There are two kinds: `float16` on a T4, `bfloat16` on
# newer GPUs (Ampere, such as the A100, and later). **Predict.** What is left of a gradient of 0.00000001 in each? And
# of 1.001?

# %%
for kind in (torch.float16, torch.bfloat16):
    tiny, near_one = torch.tensor([1e-8, 1.001]).to(kind).tolist()
    print(f"{str(kind)[6:]:<9}{tiny:.1e}  {near_one:.4f}")
print(f"float16 of 1024 times the gradient: {(torch.tensor(1e-8) * 1024).half().item() / 1024:.1e}")

# %% [markdown]
# `float16` has no room for small gradients, so a `GradScaler` multiplies the loss before `backward` and divides the
# gradients before the step. `bfloat16` has the range of float32, but only two to three digits; it needs no scaler.
# `autocast_policy(device)` in [`bpsutils/device.py`](../bpsutils/device.py) picks the kind; on a CPU both are switched
# off. `train` does it for those who ask, with `Config(mixed_precision=True)`: a small network may gain nothing, so
# measure first, as [notebook 12](12_scaling_up.ipynb) does. The loop changes in four lines:
#
# ```python
# with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
#     loss = criterion(model(x), y)
# optimizer.zero_grad()
# scaler.scale(loss).backward()
# scaler.step(optimizer)
# scaler.update()
# ```
#
# ## The hardened loop
#
# Read [`bpsutils/training.py`](../bpsutils/training.py) now; you know most lines of it. `_train_epoch` is your loop
# with the scaler, `_validate` your look at the validation images; `class_weights`, `train` and `load_checkpoint` follow
# the sections above. New are `schedule` (the rate rises over the first steps, then falls to 0), AdamW (Adam that also
# shrinks the weights a little), and a check that a checkpoint belongs to the same experiment. What it takes from
# `distributed.py` is for several GPUs (notebook 12); a process alone passes through it unchanged.
#
# To go further, train at 96 px for 20 epochs, or give `HardExampleSampler` another `floor`, over five seeds.
#
# ## You can now
#
# - write the loop: forward, loss, backward, step, on the right device;
# - test it on one batch before you trust it, and find a learning rate by factors;
# - tell from the curves whether to change the rate, stop, or go on;
# - treat a rare class by weights or by threshold, and say what neither can do;
# - resume a killed run so that it ends as if nothing had happened.
#
# ## Recall
#
# <details><summary>The loss stays at 0.69 with two classes. What do you try first?</summary>
#
# 0.69 is ln 2, guessing. Try one batch: if it cannot be learned by heart, the loop or the rate is at fault.
#
# </details>
# <details><summary>What goes wrong without zero_grad?</summary>
#
# `backward` adds to what is there, so each step uses the sum of all gradients so far.
#
# </details>
# <details><summary>Training loss 0.1, validation loss 0.7 and rising. What now?</summary>
#
# Overfitting. Go back to the epoch with the lowest validation loss; then more data, augmentation or fewer weights.
#
# </details>
# <details><summary>Do class weights make a model rank images better?</summary>
#
# Hardly: they move the cut, as a moved threshold does. The ROC curve stays about the same.
#
# </details>
# <details><summary>What does a checkpoint hold besides the weights, and why?</summary>
#
# The optimiser's state, the schedule's place, the epoch and the history: without them the run would go on differently.
#
# </details>
#
# ## Next
#
# The model is trained and chosen. [10 Evaluation](10_evaluation.ipynb) asks, once, how good it is, and how sure you can
# be of that.
