# %% [markdown]
# # 08 · Models
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/08_models.ipynb)
#
# A model turns an image into one number a class. When you are done, you can write one from layers that you have
# computed by hand, say what each is for, count its weights, let it take images of any size, and put a network that
# others have trained to work on your own.
#
# **You need** notebooks 01, 03 and 07. **Time:** 45 minutes.

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
from torch.nn import functional as F

from bpsutils import Config, Resize, Standardise, freeze, load_table, make_model, plots
from bpsutils import read_image, render, simulate_table, split_table, to_float, widgets
from bpsutils.exercises.models import q1, q2, q3, q4, q5
from bpsutils.models import masked_pool

# %% [markdown]
# ## A network, whole
#
# The network of the notes: an image of 28 × 28 becomes 784 numbers, these become 512, and these 10, one a class.
# **Predict.** Three images go in. What shape comes out, and which axis is which?


# %%
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.stack = nn.Sequential(nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, images):
        return self.stack(self.flatten(images))


print(tuple(Network()(torch.zeros(3, 28, 28)).shape))

# %% [markdown] tags=["instructor"]
# > *Show:* `neural.py` of the notes: here, the class `Network`; then the page of `nn.Linear`,
# > <https://pytorch.org/docs/stable/generated/torch.nn.Linear.html>.
# >
# > *Say:* we now take it apart, each layer on a tensor that fits on a line. The weights are set by hand, so you can
# > check every number in your head. Later, move the pooling slider to 2, 3 and 4: a sentence in lecture notes is a
# > hypothesis, and two cells say when it holds.
# >
# > *Minutes:* 15

# %% [markdown]
# Axis 0 counts the images, axis 1 the classes. Every layer, and every network, is an `nn.Module`; a network is a module
# made of modules. You make the parts in `__init__`, join them in `forward`, and call `network(images)`. The numbers
# that come out are [logits](GLOSSARY.md#logits): one a class, from −∞ to ∞.
#
# ## Layer by layer
#
# **`nn.Flatten`** lays out all axes but the first, which counts the images. **`nn.Linear`** takes `in_features`,
# `out_features`, and if you like `bias=True`, `device`, `dtype`; each output is a weighted sum of all inputs plus a
# bias. **Predict** both results before you run the cell.

# %%
images = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 9.0]]])
flat, layer = nn.Flatten()(images), nn.Linear(in_features=4, out_features=2)
layer.weight.data = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 1.0]])
layer.bias.data = torch.tensor([100.0, 0.0])
print(flat.tolist(), layer(flat).tolist(), sep="\n")

# %% [markdown]
# ### Exercise 1: linear
#
# Write what `nn.Linear` computes, for `x` of shape `(images, inputs)` and `weight` of shape `(outputs, inputs)`.


# %%
def linear(x, weight, bias):
    return ...


q1.check(linear)

# %% [markdown]
# [**`nn.ReLU`**](GLOSSARY.md#relu) sets negative numbers to 0; there are other such functions. What is a
# *non-linearity* for? Below are two
# linear layers, 1 → 2 → 1, with set weights. **Predict.** What curve can they draw together? And with a ReLU between?

# %%
first, second = nn.Linear(1, 2), nn.Linear(2, 1)
first.weight.data, first.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
second.weight.data, second.bias.data = torch.tensor([[1.0, 0.5]]), torch.zeros(1)
print("ReLU of -2, 0 and 3:", nn.ReLU()(torch.tensor([-2.0, 0.0, 3.0])).tolist())
x = torch.linspace(-2, 2, 81)[:, None]
straight, bent = second(first(x)), nn.Sequential(first, nn.ReLU(), second)(x)
curves = [values.detach().numpy().ravel() for values in (x, straight, bent)]
plots.show(plots.bend(*curves), "A straight line without the ReLU, and a line with a bend with it.")

# %% [markdown]
# A weighted sum of weighted sums is a weighted sum: a hundred linear layers in a row are one. With a ReLU after each,
# every unit adds a bend, and enough bends come close to any curve.
#
# **`nn.Softmax`** turns logits into probabilities: from 0 to 1, summing to 1 along `dim`. The notes ask whether that is
# "normalizing results in batches". **Predict.** Which `dim` would do that, and what would become of an image?

# %%
logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [4.0, 4.0, 4.0]])
figure = plots.softmax_figure(logits.numpy(), ["A", "B", "C"])
plots.show(figure, "Softmax of three images: along dim 1 each sums to 1, along dim 0 none does.")
print("argmax of the logits:       ", logits.argmax(1).tolist())
print("argmax of the probabilities:", nn.Softmax(dim=1)(logits).argmax(1).tolist())

# %% [markdown]
# *A correction:* [softmax](GLOSSARY.md#softmax) normalises **each image over its classes** (`dim=1`). Over the batch
# (`dim=0`) image 2 would win every class because its logits are large. The predicted class is the
# [argmax](GLOSSARY.md#argmax), which is the same for logits and probabilities (of equal ones it takes the first).
#
# Another trap: the loss `cross_entropy` contains the softmax. **Predict.** This image is right and sure. What is its
# loss, and what if a softmax came before?

# %%
sure, label = torch.tensor([[20.0, -20.0]]), torch.tensor([0])
print(f"from logits:        {F.cross_entropy(sure, label):.4f}")
print(f"from probabilities: {F.cross_entropy(sure.softmax(dim=1), label):.4f}")

# %% [markdown]
# Nothing complains, but with two classes the loss can never fall below 0.31, however right and sure the network is.
# So a network ends in logits, and softmax comes afterwards, when you want to read probabilities: never before
# cross-entropy.
#
# ### Exercise 2: softmax
#
# Write `softmax` for logits `(images, classes)`: the exponential of each logit, divided by the sum over its
# image. It should also work for a logit of 1000.


# %%
def softmax(logits):
    return ...


q2.check(softmax)

# %% [markdown]
# ## What a module knows of itself
#
# The notes: subclassing `nn.Module` "tracks all fields". **Predict.** Which of these five fields will an optimiser see?
# And count by hand: the network above has 784 · 512 + 512 + 512 · 10 + 10 weights. How many, roughly, for 141 × 149?


# %%
class Fields(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.in_a_list = [nn.Linear(2, 1)]
        self.tensor = torch.ones(3)
        self.number = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))


print("parameters:", [name for name, _ in Fields().named_parameters()])
print("saved:     ", list(Fields().state_dict()))

# %%
print("by hand:", 784 * 512 + 512 + 512 * 10 + 10)
print("PyTorch:", sum(parameter.numel() for parameter in Network().parameters()))
print("141 x 149:", 141 * 149 * 512 + 512 + 512 * 10 + 10)

# %% [markdown]
# *A correction:* it tracks [parameters](GLOSSARY.md#parameter), submodules and [buffers](GLOSSARY.md#buffer), nothing
# else. A layer in a Python list is never trained, moved to the GPU or saved; `nn.ModuleList` or `nn.Sequential` cure
# that. `parameters()` gives the tensors, `named_parameters()` names as well.
#
# The counts agree. For a larger crop the first layer alone grows to 11 million, for that one size; and a focus learned
# in one corner would be unknown in the next.
#
# ## Convolution
#
# A [convolution](GLOSSARY.md#convolution) slides a small [kernel](GLOSSARY.md#kernel) over the image and takes the
# same weighted sum everywhere. A kernel of *k* pixels on *n* pixels gives *n* − *k* + 1 sums, unless `padding` adds a
# border; `stride=2` takes every other place and halves the size. **Predict.** An image has an edge in the middle. What
# does the kernel (−1, 1) answer?
#
# The second kernel, 9 × 9, takes the mean of the 3 × 3 pixels in its middle less the mean of the 72 pixels around
# them. **Predict.** Where is its [feature map](GLOSSARY.md#feature-map) of a **simulated** nucleus bright?

# %%
edge = torch.tensor([[0.0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5]])[None, None]
layer = nn.Conv2d(in_channels=1, out_channels=1, kernel_size=(1, 2), bias=False)
layer.weight.data = torch.tensor([[[[-1.0, 1.0]]]])
print(layer(edge)[0, 0].tolist())

# %%
config = Config(out_dir="runs/models", resize=64)
table = split_table(load_table(config), config)
crop = read_image(table["path"][table["hr_post_exposure"] == 4].iloc[1])
kernel = torch.full((9, 9), -1 / 72)
kernel[3:6, 3:6] = 1 / 9
image = to_float(torch.from_numpy(crop))[None, None]
answer = F.conv2d(image, kernel[None, None], padding="same")[0, 0]
figure = plots.convolution_figure(crop, kernel.numpy(), answer.numpy(), caption=plots.SIMULATED)
plots.show(figure, "A nucleus with foci, a kernel with a positive centre, a map bright at foci only.")

# %% [markdown]
# Where a middle outshines its surroundings the answer is large: at the foci. Nobody has to invent such kernels:
# training finds them. The faint frame is made by `padding`: zeros beside grey levels look like an edge.
#
# ### Exercise 3: count a convolution
#
# Each output channel has a square kernel, `kernel` pixels wide, for every input channel, and one bias if `bias` is
# True. How many parameters is that?


# %%
def conv_parameters(inputs, outputs, kernel, bias):
    return ...


q3.check(conv_parameters)

# %% [markdown]
# ## Pooling under a shift
#
# [Pooling](GLOSSARY.md#pooling) makes one number of each window: its maximum (`nn.MaxPool2d`) or its mean
# (`nn.AvgPool2d`). The notes say that max pooling keeps the dominant feature, and that "if a feature moves slightly
# within a region, the pooled value remains the same".
#
# **Predict.** The spot is 2 pixels wide, the windows 4. From which shift on does each kind of pooling change?

# %%
slider = widgets.pooling()

# %% [markdown]
# The claim holds, for **both** kinds, and only inside a window: up to 2 px. At 3 px the spot lies in two windows: max
# pooling shows it twice at full height, average pooling splits it. What max pooling really keeps is the *height*: 1
# instead of 0.25.
#
# **Predict.** Twenty simulated nuclei are shifted by 1 to 4 px. Whose map changes less, that of max or of average?
# (The change is the size of the difference, `norm()`, as a share of the size of the map that stood still.)

# %%
ways = {"no pooling": lambda x: x, "max pooling": nn.MaxPool2d(4), "average pooling": nn.AvgPool2d(4)}
changes = {name: np.zeros(5) for name in ways}
for path in table["path"][:20]:
    x = Standardise()(to_float(torch.from_numpy(read_image(path)))[None, None], None)
    for name, pool in ways.items():
        still = pool(x[..., 8:-8])
        moved = [pool(x[..., 8 - shift : x.shape[-1] - 8 - shift]) for shift in range(5)]
        changes[name] += [((still - map_).norm() / still.norm()).item() / 20 for map_ in moved]
figure = plots.shift_tolerance(changes, caption=plots.SIMULATED)
plots.show(figure, "Change against shift: average pooling lowest, max pooling close to no pooling.")

# %% [markdown]
# On these twenty simulated nuclei, of five mice, average pooling tolerates a shift better, and max pooling only a
# little better than none. So choose max pooling because it keeps few bright foci visible, and do not expect it to undo
# shifts.
#
# ## Any size: adaptive pooling
#
# A linear layer wants a fixed number of inputs. [Adaptive pooling](GLOSSARY.md#adaptive-pooling) chooses its windows so
# that a fixed number comes out. **Predict.** Which of the two networks fails at which size?

# %%
fixed = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
free = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
for side in (8, 12):
    for name, net in (("fixed", fixed), ("free", free)):
        try:
            print(side, name, tuple(net(torch.zeros(1, 1, side, side)).shape))
        except RuntimeError as error:
            print(side, name, type(error).__name__)
padded, mask = torch.tensor([[[[1.0, 3.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
print("mean of 1, 3 and a 0 of padding:", round(nn.AdaptiveAvgPool2d(1)(padded).item(), 2))
print("masked mean and maximum:", masked_pool(padded, mask).tolist())

# %% [markdown]
# Padding drags a plain mean down, more in one batch than in the next. `bpsutils.models.masked_pool` is adaptive pooling
# that knows the mask of notebook 07: the mean over real pixels tells how many foci, the maximum whether there is one.
#
# ### Exercise 4: a mean that ignores padding
#
# Write its first half. `features` are `(B, C, H, W)`, the mask `(B, 1, H, W)` is 1 where a pixel is real, 0 on padding,
# where the features may be anything. The means have the shape `(B, C)`.


# %%
def masked_mean(features, mask):
    return ...


q4.check(masked_mean)

# %% [markdown]
# ## A backbone made elsewhere
#
# A [backbone](GLOSSARY.md#backbone) is a network that has learned from other images, often ImageNet's millions. You
# keep its layers, replace its last one, the [head](GLOSSARY.md#head), for ImageNet has 1000 classes and you have 2,
# and let its first one take grey images. ResNet-18 here starts from **random** weights, so that the cell needs no
# download; `pretrained=True` fetches ImageNet's. Its adaptive pooling is built in.
#
# `trainable` names what is trained; the rest is [frozen](GLOSSARY.md#frozen). **Predict.** `layer4` is one part of
# seven. What share of the parameters does it hold?

# %%
backbone = make_model(Config(model="resnet18", pretrained=False, trainable=("layer4",)))
print(backbone.net.conv1.in_channels, "channel in,", backbone.net.fc.out_features, "classes out")
print("sizes:", [tuple(backbone(torch.zeros(1, 1, *size)).shape) for size in ((79, 114), (170, 182))])
figure = plots.parameter_parts(backbone.net)
plots.show(figure, "Parameters of ResNet-18 by part: last block and head are trained, the rest frozen.")

# %% [markdown]
# Three colour channels became one by **adding** their weights: a grey picture then gives what it gave as red, green and
# blue. `freeze` sets `requires_grad = False`, and the optimiser gets what is left.
#
# ### Frozen against unfrozen, for real
#
# Suppose only 32 nuclei are labelled. We pretrain our own `SmallCNN` on other simulated nuclei, of other mice, and then
# start in three ways: from random weights; pretrained with a new head, blocks frozen; the same with nothing frozen.


# %%
def tensors(images, rows):
    stacked = torch.stack([Resize(64)(torch.from_numpy(image)[None]) for image in images])
    labels = torch.tensor((rows["particle_type"] == "Fe").to_numpy()).long()
    return Standardise()(to_float(stacked), None), labels


others = simulate_table(1000, seed=11).query("dose_Gy > 0.5")
pretraining = tensors([render(row, seed=11) for row in others.to_dict("records")], others)
strong = table.query("dose_Gy > 0.5").groupby(["split", "particle_type"])
few, rest = strong.head(16).query("split == 'train'"), table.query("dose_Gy > 0.5 and split != 'train'")
few, rest = (tensors([read_image(path) for path in rows["path"]], rows) for rows in (few, rest))
print(len(pretraining[0]), "to pretrain on,", len(few[0]), "labelled,", len(rest[0]), "to judge by")


# %%
def fit(model, images, labels, epochs, rate, size):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    for epoch in range(1, epochs + 1):
        for picked in torch.randperm(len(images)).split(size):
            turned = torch.rot90(images[picked], int(torch.randint(4, ())), (2, 3))
            loss = F.cross_entropy(model(turned), labels[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            right = model(rest[0]).argmax(1) == rest[1]
        yield epoch, np.mean([right[rest[1] == label].float().mean() for label in (0, 1)])


# %% [markdown]
# **Predict** the order of the three. They are judged by balanced accuracy on nuclei of eight other mice. A frozen run
# trains a head alone, which bears a ten times larger learning rate. Training is the matter of notebook 09; *trained
# numbers differ in their last digits between machines, so the output of the next cell is not compared.*

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
pretrained, scores = make_model(config), []
list(fit(pretrained, *pretraining, epochs=12, rate=1e-3, size=16))
for seed in range(3):
    for start in ("random", "frozen", "unfrozen"):
        model = make_model(Config(seed=seed))
        if start != "random":
            model.blocks.load_state_dict(pretrained.blocks.state_dict())
        freeze(model, ["head"] if start == "frozen" else [])
        rate = 1e-2 if start == "frozen" else 1e-3
        scores += [(start, seed, *row) for row in fit(model, *few, epochs=12, rate=rate, size=8)]
scores = pd.DataFrame(scores, columns=["start", "seed", "epoch", "score"])
plots.show(plots.transfer(scores, caption=plots.SIMULATED), "Score by epoch for three ways to start.")

# %%
mean = scores.groupby("start")["score"].mean()  # over seeds and epochs
print("pretrained and frozen beats random weights:", mean["frozen"] > mean["random"])
freeze(model, ["head"])
trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
print("frozen, it trains", trained, "of", sum(parameter.numel() for parameter in model.parameters()))

# %% [markdown]
# With 32 labels and twelve epochs, pretrained blocks gave more than these labels could teach from scratch, though only
# 258 parameters were trained; given more epochs, random weights may come closer. Whether to unfreeze is not decided
# here: the shaded ranges, from the lowest to the highest of three seeds, overlap. Common practice: few labels, freeze;
# more, unfreeze the last block; many, all, with a small learning rate. Only eight mice stand behind the score, and all
# nuclei are simulated by one program: that is as kind as pretraining gets.
#
# ### Exercise 5: a network for any size
#
# Write `SizeFree`: a convolution from `channels` to 8 with kernel 3, a ReLU, adaptive average pooling to 1,
# flatten, and a linear layer to `n_classes` logits.


# %%
class SizeFree(nn.Module):
    def __init__(self, channels, n_classes):
        super().__init__()

    def forward(self, images):
        return ...


q5.check(SizeFree)

# %% [markdown]
# ## You can now
#
# - write a network, and say what each layer does to a tensor;
# - turn logits into probabilities and a class, along the right axis, and keep softmax out of the loss;
# - say what PyTorch tracks, and count parameters by hand;
# - say what max and average pooling do under a shift, and make a network size-free;
# - replace a head, take in grey images, freeze and unfreeze.
#
# Read [`bpsutils/models.py`](../bpsutils/models.py) now: `SmallCNN` is four strided convolutions with a norm that
# ignores padding, `masked_pool` and one linear layer; `Backbone` replaces head and first layer; `freeze` you have used.
#
# ## Recall
#
# <details><summary>Why is there a ReLU between two linear layers?</summary>
#
# Without it they are one linear layer: a weighted sum of weighted sums.
#
# </details>
# <details><summary>Softmax along dim=0 of a batch: what is wrong?</summary>
#
# Images compete with each other. An image's prediction would change with its batch-mates.
#
# </details>
# <details><summary>Your loss of two classes sticks at 0.31. Where do you look first?</summary>
#
# For a softmax at the end of the network: cross-entropy has its own.
#
# </details>
# <details><summary>How many parameters has Conv2d(1, 16, 5, bias=False), on 64 × 64 and on 141 × 149?</summary>
#
# 16 · 1 · 25 = 400, on both: the weights are the same everywhere.
#
# </details>
# <details><summary>Does max pooling make a network blind to shifts?</summary>
#
# No. It tolerates what stays inside a window; at the window's edge it changes at once.
#
# </details>
#
# ## Next
#
# The network is there, its weights are random. [09 Training](09_training.ipynb) changes that.
