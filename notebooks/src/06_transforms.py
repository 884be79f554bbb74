# %% [markdown]
# # 06 · Transforms
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/06_transforms.ipynb)
#
# You will write [transforms](GLOSSARY.md#transform) and a test for them, meet every trap that 16-bit images walk into,
# measure a data set's own mean and std, and find out how far an [augmentation](GLOSSARY.md#augmentation) may go before
# it breaks the label. Then you can read `bpsutils/transforms.py`.
#
# **You need** notebooks 01 and 02. **Time:** 45 minutes.

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
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from bpsutils import SAMPLE_DIR, AddNoise, CenterCrop, Compose, HorizontalFlip, plots, read_image
from bpsutils.exercises.transforms import q1, q2, q3, q4, q5

# %% [markdown]
# ## A transform is an object that can be called
#
# Why transforms at all? A file becomes the tensor that a network takes: in the right format, size and range. A plain
# function would do, but most transforms have settings. So they are *callable* classes: `__init__` takes the settings
# once, `__call__` takes an image. `Compose` chains them: what one returns, the next one gets.


# %%
class Mirror:
    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, image):
        return image.flip(-1) if torch.rand(()) < self.p else image


# %%
chain = Compose([Mirror(p=1.0), Mirror(p=0.0), Mirror(p=1.0)])
print(chain(torch.tensor([[1, 2, 3]])).tolist())

# %% [markdown]
# Mirrored, left alone, mirrored back. The `p` of torchvision's `RandomHorizontalFlip(p=0.5)` is the same: the
# probability that this image, this time, is mirrored.
#
# ### Exercise 1: a display window as a transform
#
# Write `Window`. Called with a `uint16` tensor, it returns a tensor of floats: `low` and what lies below becomes 0,
# `high` and what lies above becomes 1, and levels between them lie between.


# %%
class Window:
    def __init__(self, low, high): ...

    def __call__(self, image): ...


q1.check(Window)

# %% [markdown]
# **PIL first, or tensors from the start?** The notes open every image with PIL, because it is simple and transforms
# took PIL images. That was once the only way. torchvision's v2 transforms take tensors, in batches and on a GPU; PIL
# has no 16-bit colour and refuses to change the brightness of a 16-bit image. So the course goes from file to array to
# tensor. Where code of others insists on PIL, open and do not convert:

# %%
path = SAMPLE_DIR / "bps" / "P249_73665543731-G3_001_003_proj.tif"
image, opened = read_image(path), Image.open(path)
print(opened.mode, v2.ToImage()(opened).dtype, image.shape, f"levels {image.min()} to {image.max():,}")
print("v2.ToImage brings every level:", np.array_equal(v2.ToImage()(opened)[0].numpy(), image))

# %% [markdown] tags=["instructor"]
# > *Show:* the next three cells; let the class vote on each call before the figure is shown.
# >
# > *Say:* none of these raises an error. The network trains, the curve falls, and the foci were never there.
# >
# > *Minutes:* 10

# %% [markdown]
# ## The 16-bit laboratory
#
# A simulated crop again. At its edge lies a neighbour so bright that it is saturated: 65,535, the highest level. Seven
# calls, each found in tutorials, take the crop to another type. What they scale is scaled back to grey levels;
# the first two return 8 bits, which are compared as they come.
#
# **Predict.** Which of them leave the nucleus intact? Which leave the neighbour intact? Which leave both?

# %%
tensor = torch.from_numpy(image)[None]
unit = tensor.float() / 65535
calls = {
    'convert("L")': np.asarray(opened.convert("L")),
    "cv2.imread": image >> 8,
    "ToTensor": v1.ToTensor()(opened)[0].numpy(),
    "/ 65535": unit[0].numpy() * 65535,
    "to float16": v2.ToDtype(torch.float16, scale=True)(tensor)[0].float().numpy() * 65535,
    "back to uint16": v2.ToDtype(torch.uint16, scale=True)(unit)[0].numpy(),
    "* 100 in uint16": (tensor * 100)[0].numpy() / 100,
}
gallery = plots.trap_gallery(image, calls, caption=plots.SIMULATED)
plots.show(gallery, "The crop eight times: as stored, and after each call with wrong pixels in orange.")

# %% [markdown]
# `/ 65535` alone is right, and it is the one that beginners throw out, because on screen it looks black. The worst are
# those that spare the nucleus: nobody looks at the neighbour, until the infinite levels of float16 make a loss `nan`.
#
# OpenCV is no part of this course, so `image >> 8`, the upper byte, stands in for what `cv2.imread` does. (On a real
# image of the set, OpenCV 5 gave levels 1 to 9.)
#
# **Predict.** And computing with `uint16` tensors, without a conversion? Which of these nine work?

# %%
moves = {"index": lambda x: x[..., 1:], "pad": lambda x: torch.nn.functional.pad(x, (1, 1))}
ops = {"add": lambda x: x + 1, "subtract": lambda x: x - 1, "min": torch.min, "max": torch.max}
ops |= {"> 9": lambda x: x > 9, "resize": lambda x: torch.nn.functional.interpolate(x[None], 64)}
ops |= {"* 100": lambda x: x * 100}
for name, operation in {**moves, **ops}.items():
    try:
        print(f"{name:9} works, shape {tuple(operation(tensor).shape)}")
    except NotImplementedError:
        print(f"{name:9} NotImplementedError")

# %% [markdown]
# The last one answers, and its answer is wrong: 6,553,500 does not fit into 16 bits, so it starts again from 0. Here is
# the whole table, as measured on this crop.

# %%
cut, infinite = np.mean(calls['convert("L")'] == 255), int(np.isinf(calls["to float16"]).sum())
signed, again = (calls[name].flat[image.argmax()] for name in ("ToTensor", "back to uint16"))
rows = [("call", "what comes out", "cure")]
rows += [("convert('L') or ('RGB')", f"{cut:.0%} of pixels become 255", "open, do not convert")]
rows += [("cv2.imread(path)", f"8 bits, 0 to {calls['cv2.imread'].max()}", "cv2.IMREAD_UNCHANGED")]
rows += [("ToTensor() on I;16", f"int16: 65,535 becomes {signed}", "v2.ToImage()")]
rows += [("/ 65535", f"{unit.min():.3f} to {unit.max():.0f}: right, looks black", "a display window")]
rows += [("ToDtype(float16, scale=True)", f"inf in {infinite:,} pixels", "float32")]
rows += [("ToDtype(uint16, scale=True)", f"1.0 becomes {again}", "times 65535, round, clamp, cast")]
rows += [("uint16: + - > min max resize", "NotImplementedError", "float32 first")]
rows += [("uint16: * 100", f"65,535 becomes {65535 * 100 % 65536:,}: it wraps", "float32 first")]
rows += [("ToDtype(float32, scale=True)", "right", "none needed")]
for row in rows:
    print("{:30} {:34} {}".format(*row))

# %% [markdown]
# *A correction.* The notes say that `ToTensor` gives values from 0 to 1. It does from 8 bits only: from 16 bits it
# gives whole numbers, and the brightest become negative.
#
# The rule that follows: **`uint16` while you read, crop, flip, pad and stack; then once `float32`, scaled by the
# declared range; then everything else.** bpsutils keeps it for you. Its transforms take and return `uint16`; those that
# must compute do so in float32, round, and clamp. (On Colab's torch 2.11 even `flip` fails for `uint16` on a CPU;
# `_move` in the module has the way around.)

# %%
from bpsutils import QuarterTurn, RandomCrop, Resize

torch.manual_seed(0)
for safe in (HorizontalFlip(p=1.0), QuarterTurn(), RandomCrop(64), Resize(64), AddNoise(30.0)):
    result = safe(tensor)
    print(f"{type(safe).__name__:15} {result.dtype}, highest level {int(result.int().max()):,}")

# %% [markdown]
# ### Exercise 2: what became of it?
#
# `ToTensor` reads the 16 bits as a number with a sign. Which number does it make of grey level 40,000?

# %%
wrapped = ...

q2.check(wrapped)

# %% [markdown]
# ## Test a transform
#
# A test states what must hold for every image. For a mirror, a turn or a shift of pixels it can be strict: no level
# changes, none is lost, and the caller's image stays as it was.
#
# ### Exercise 3: a test for transforms
#
# Write `only_moves`, which says True or False: does `transform` only move the pixels of `image`, a tensor? The answer
# is False, too, if another dtype comes out, or if the image that you hand in is changed. (`.numpy()` gives its levels
# as an array, which can be sorted and compared, also in 16 bits.)


# %%
def only_moves(transform, image):
    return ...


q3.check(only_moves)

# %% [markdown]
# ## Normalise by whose numbers?
#
# Networks learn best from inputs of about mean 0 and variance 1. [Normalisation](GLOSSARY.md#normalisation) subtracts a
# mean and divides by a standard deviation. Whose? Everyone copies `mean=[0.485, 0.456, 0.406]`, `std=[0.229, 0.224,
# 0.225]`. Here are our own, over all pixels of the training images,
# as shares of the highest level 65,535.
#
# **Predict.** Five of the 197 training crops have a saturated neighbour. How much do they change the std?

# %%
from bpsutils import Config, Standardise, load_table, split_table

config = Config(out_dir="runs/transforms")
table = split_table(load_table(config), config)
images = [read_image(name) for name in table.loc[table["split"] == "train", "path"]]
calm = [crop for crop in images if crop.max() < 65535]
levels, quiet = (np.concatenate([crop.ravel() for crop in some]) / 65535 for some in (images, calm))
print(f"{len(images)} crops: mean {levels.mean():.4f}, std {levels.std():.4f}")
print(f"{len(calm)} crops: mean {quiet.mean():.4f}, std {quiet.std():.4f} (without saturated ones)")

# %% [markdown]
# Five crops make the std over twelve times as large. Measure on training images only, for the others are not yours to
# look at; and look at what you measured.
#
# **Predict.** Each row below is a normalisation. In which does a nucleus differ visibly from its background?

# %%
alone = [Standardise()(torch.from_numpy(crop)[None].float()).flatten() for crop in images]
kinds = {"ImageNet's mean and std": (levels - 0.485) / 0.229}
kinds |= {"our own, all crops": (levels - levels.mean()) / levels.std()}
kinds |= {"our own, saturated crops left out": (levels - quiet.mean()) / quiet.std()}
kinds |= {"each image by its own": torch.cat(alone).numpy()}
spread = plots.normalised_spread(kinds, caption=plots.SIMULATED)
plots.show(spread, "Bars from the 1st to the 99th percentile of all pixels; a histogram.")

# %% [markdown]
# With [ImageNet](GLOSSARY.md#imagenet)'s numbers all nuclei are the same dark grey, near −2. Those numbers belong to
# photographs in 8 bits, and to networks trained on such. With a pretrained network on RGB slides (notebook 11) you use
# them; here not.
#
# *Three corrections to the notes.* ImageNet's images are **not** "already normalised with these values": the values are
# the mean and std of its images, and each user subtracts and divides anew. Normalising does **not** give a "standard
# normal distribution": it moves and stretches, the shape stays, and these pixels have a long bright tail. And 0 and 1
# are mean and variance of the whole set, not of every image.
#
# The last row is `Standardise`: each image by its own mean and std. A plate that was lit more brightly then looks like
# the others, which is why this course's networks begin with it. What you lose is absolute brightness, so use it only
# where that is a nuisance.
#
# ### Exercise 4: mean and std of images of many sizes
#
# Write `mean_std`: over all pixels of a list of `uint16` tensors, of different sizes, in grey levels. Return both
# numbers. The real set does not fit into memory as float64, so go image by image.


# %%
def mean_std(images):
    return ...


q4.check(mean_std)

# %% [markdown]
# ## Augmentation: more views, not more mice
#
# A nucleus has no upright. Mirrored and turned by quarters it can lie in eight ways, all with the same label: eight
# times the examples from the same files. That makes a network robust to position. It does not make new mice.
#
# Chance belongs in training only. *A correction:* the notes give the transform without chance to "validation and
# training"; it belongs to validation and **test**, so that a score does not move by itself. (`ToTensor` below is
# bpsutils' own: it keeps 16 bits as they are.)

# %%
from bpsutils import eval_transform, train_transform

print("train:       ", train_transform(config))
print("val and test:", eval_transform(config))
views = {np.rot90(face, turns).tobytes() for face in (image, image[:, ::-1]) for turns in range(4)}
print(len(views), "different views of one crop")

# %% [markdown]
# ### The playground
#
# Here is a simulated nucleus after iron ions. Its foci are counted by a simple rule: a point counts if it stands out by
# 100 grey levels.
#
# **Predict.** Which changes in the list cost you foci? Which invent some? Drag the slider, or click it and press the
# arrow keys. Put a change of your own into the list.

# %%
from bpsutils import widgets

iron = torch.from_numpy(read_image(SAMPLE_DIR / "bps" / "P242_73665006707-A6_001_001_proj.tif"))[None]
blur, elastic = v2.functional.gaussian_blur, v2.ElasticTransform
changes = {"as it is": lambda x: x, "mirror": HorizontalFlip(p=1.0), "transpose": lambda x: x.mT}
changes |= {"noise of 30": AddNoise(30.0), "noise of 300": AddNoise(300.0)}
changes |= {"half as bright": lambda x: x.float() / 2}
changes |= {"crop of 96 px": CenterCrop(96), "crop of 48 px": CenterCrop(48)}
changes |= {f"blur of {s} px": lambda x, s=s: blur(x.float(), 25, float(s)) for s in (1, 3)}
changes |= {f"elastic, alpha {a}": lambda x, a=a: elastic(float(a))(x.float()) for a in (50, 1000)}
play = widgets.augmentation_playground(iron, changes, start="blur of 3 px", caption=plots.SIMULATED)

# %% [markdown] tags=["instructor"]
# > *Show:* the playground at both ends of one augmentation; then the next figure.
# >
# > *Say:* an augmentation is a claim about the label. Its strength is part of the claim.
# >
# > *Minutes:* 8

# %% [markdown]
# ### How far is too far?
#
# In the playground a mirror costs nothing. A strong blur, a small crop and half the brightness cost foci; strong noise
# and strong elastic changes invent some. That was one nucleus and one rule for counting.
#
# The simulator can render a nucleus with and without its foci; the difference is the light of the foci alone. So you
# can measure, on simulated nuclei, what an augmentation leaves of the label:
#
# - **blur:** the share of foci that can still be counted;
# - **crop:** the share of crops without a focus (under 5 % of their light), of X-ray nuclei with at least five;
# - **elastic:** how far the light of a single iron track lies from a straight line. X-ray foci lie on none.
#
# **Predict.** torchvision's elastic transform has `alpha=50` by default. Does that bend a track?

# %%
import pandas as pd

from bpsutils import render

truth = pd.read_csv(SAMPLE_DIR / "bps" / "truth.csv")
sharp = truth.query("kind == 'normal' and focus == 'sharp'")
clear = sharp.query("spontaneous_foci == 0 and radiation_foci >= 5")
track, xray = (clear[clear["tracks"] == n].to_dict("records") for n in (1, 0))
both = [torch.from_numpy(render(row))[None].float() for row in track + xray]
bare = [torch.from_numpy(render(row, foci=False))[None].float() for row in track + xray]
light = [lit - dark for lit, dark in zip(both, bare, strict=True)]
print(len(track), "nuclei with one track,", len(xray), "nuclei after X-rays")

# %%
torch.manual_seed(0)
blurred = {s: [blur(x, 41, float(s)) if s else x for x in both] for s in range(5)}
foci = {s: sum(plots.count_foci(x[0].numpy()) for x in some) for s, some in blurred.items()}
line, points, empty, bend = light[: len(track)], light[len(track) :], {}, {}
for side in (72, 64, 56, 48):
    shares = [(RandomCrop(side)(x).sum() / x.sum()).item() for x in points for _ in range(20)]
    empty[side] = np.mean(np.array(shares) < 0.05)
for a in (0, 50, 200, 500, 1000):
    bend[a] = np.median([plots.off_line(elastic(float(a))(x)[0].numpy()) for x in line])
scattered = np.median([plots.off_line(x[0].numpy()) for x in points])
kept = {s: number / foci[0] for s, number in foci.items()}
figure = plots.label_breakers(kept, empty, bend, scattered, caption=plots.SIMULATED)
said = f"{foci[0]} foci, {foci[3]} after a blur of 3 px; light of a track {bend[0]:.1f} px off a line, "
said += f"{bend[50]:.2f} at alpha 50, {bend[1000]:.1f} at 1,000."
plots.show(figure, "Foci fall with blur; crops without foci rise as they shrink; elastic bends.", said)

# %% [markdown]
# The default `alpha=50` changes a track's distance from its line by less than a tenth of a pixel. At 1,000 an iron
# track is as crooked as X-ray foci are scattered: the image now says X-ray, and the label still says Fe. (These are
# medians, of 8 simulated nuclei with a track and 13 after X-rays: enough for the order, not for the decimals.)
# Flips and transposes keep all that the label depends on; they are what the course trains with (`transpose_batch`
# turns a batch as a whole).
#
# What breaks a label depends on the label: a mirrored nucleus is a nucleus, a turned digit 6 is a 9.
#
# ## One image or a whole batch?
#
# A transform in the dataset runs image by image, on the CPU, in a worker. On a batch, the same operation runs once, and
# on a GPU if the batch is there. **Predict.** Both rows below mirror batches of 64 images with p = 0.5, twenty times.
# How many images are mirrored at a time?

# %%
torch.manual_seed(0)
batch = torch.stack([CenterCrop(64)(torch.from_numpy(crop)[None].float()) for crop in images[:64]])
for mirror in (v2.RandomHorizontalFlip(p=0.5), HorizontalFlip(p=0.5)):
    counts = {int((mirror(batch) != batch).flatten(1).any(1).sum()) for _ in range(20)}
    print(f"{type(mirror).__name__:21} {len(counts):2} different counts, {min(counts)}-{max(counts)}")

# %% [markdown]
# torchvision tosses one coin for the batch. For a single image that is the same; for a batch it means all or none. Ours
# tosses a coin for each image.
#
# ### Exercise 5: a coin for each image
#
# Write `mirror_some`: a batch `(B, C, H, W)` and `B` coins go in, and a new batch comes out, in which
# each image whose coin is True is mirrored left and right.


# %%
def mirror_some(images, coins):
    return ...


q5.check(mirror_some)

# %% [markdown]
# Is a batch faster? *Times differ between machines, so this output is not compared when the notebooks are tested.*

# %% tags=["nbval-ignore-output"]
import timeit

from bpsutils import pick_device

mirror, device, ms = HorizontalFlip(p=0.5), pick_device(), {}
ways = {"one by one, CPU": lambda: torch.stack([mirror(x) for x in batch])}
ways |= {"batch, CPU": lambda: mirror(batch)}
there = batch.to(device)
ways |= {f"batch, {device.type}": lambda: mirror(there).sum().item()} if device.type != "cpu" else {}
for name, way in ways.items():
    ms[name] = 1000 * min(timeit.repeat(way, number=5, repeat=5)) / 5
    print(f"{name:16} {ms[name]:6.2f} ms for 64 images")

# %%
print("A batch is faster than one by one:", ms["batch, CPU"] < ms["one by one, CPU"])

# %% [markdown]
# So augment per batch where you can, with a coin for each image; per image where sizes differ, or where workers have
# time to spare.
#
# You can now read [`bpsutils/transforms.py`](../bpsutils/transforms.py) whole. Each class there is `__init__` (written
# by `@dataclass`), `__call__`, and a reason in its docstring.
#
# ## You can now
#
# - write a transform as a callable class, chain it, and test what it must not change;
# - name the trap of each 16-bit conversion, and its cure;
# - measure mean and std, and say when ImageNet's are wrong;
# - keep chance out of validation and test;
# - measure how far an augmentation may go, and choose between image and batch.
#
# ## Recall
#
# <details><summary>When does ToTensor give values from 0 to 1?</summary>
#
# From 8-bit images only. From 16 bits it gives int16, where levels above 32,767 are negative.
#
# </details>
# <details><summary>In which order: crop, flip, stack, scale, normalise?</summary>
#
# Crop, flip and stack in uint16, which loses nothing; then scale to float32 once, then normalise.
#
# </details>
# <details><summary>Does normalising give a normal distribution?</summary>
#
# No. It sets mean and variance. The shape stays.
#
# </details>
# <details><summary>Is an elastic deformation a safe augmentation for iron tracks?</summary>
#
# It depends on its strength: at torchvision's default the track stays straight, at twenty times that it does not.
#
# </details>
# <details><summary>Why must one coin for a batch be avoided?</summary>
#
# All images of a step are then mirrored together or not at all, so a step sees half of the variety.
#
# </details>
#
# ## Next
#
# Every image is now right, and of its own size. [07 Bucketing](07_bucketing.ipynb) puts images of
# different sizes into one batch.
