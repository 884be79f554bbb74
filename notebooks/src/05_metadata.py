# %% [markdown]
# # 05 · Metadata and splits
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/05_metadata.ipynb)
#
# You will turn a folder of files into a table you can trust: read names and [headers](GLOSSARY.md#header), scan a drive
# that fails at random, keep an [index](GLOSSARY.md#index) that is always right, join labels from elsewhere, and split
# so that the score means something.
#
# A network never sees the table. But every mistake in it, a lost [plate](GLOSSARY.md#plate), a stale size, a mouse on
# both sides, ends in the network's score, and nothing there tells you.
#
# **You need** notebooks 00 to 02 and a little pandas. **Time:** 45 minutes.

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
import os
import shutil
import warnings
from time import perf_counter

import numpy as np
import pandas as pd

from bpsutils import SAMPLE_DIR, Config, plots, widgets
from bpsutils.exercises.metadata import q1, q2, q3, q4, q5
from bpsutils.images import read_header, read_image, write_image
from bpsutils.leakage import NUMBERS, NUMBERS_CSV, compare_splits, mean_interval
from bpsutils.metadata import build_metadata, fast_scan, load_table, read_labels, read_meta
from bpsutils.simulate import REAL_COUNTS, flaky_mount
from bpsutils.splits import leakage_report, split_table

BPS, SLIDES, WORK = SAMPLE_DIR / "bps", SAMPLE_DIR / "slides", Path("runs/metadata")
shutil.rmtree(WORK, ignore_errors=True)  # what an earlier run of this notebook left

# %% [markdown]
# ## One place for everything that changes
#
# Spread paths, filters and batch sizes over twenty cells, and nobody knows which values made a result. The notes put
# them into one [configuration](GLOSSARY.md#configuration), "all the adaptable information besides the model itself":
#
# | in the notes | fields of `Config` |
# |---|---|
# | paths to images, labels, metadata | `image_dir`, `meta`, `labels`, `out_dir`, `index_path` |
# | train, validation and test [cases](GLOSSARY.md#case) | `train_cases`, `val_cases`, `test_cases`, or `fractions` |
# | hyperparameters | `batch_size`, `learning_rate`, `epochs` |
# | filters | `stain`, `min_size`, `max_size`, `resize` |
# | other parameters | `force_rebuild_metadata_full`, `device`, `num_workers`, `seed` |
#
# Each run writes it to a [TOML](GLOSSARY.md#toml) file beside its results. **Predict.** Below are three mistakes: a
# wrong device, a field misspelt in the file, a change after the start. Which could cost you a night of training?

# %%
config = Config(image_dir=SLIDES / "images", scheme="slides", out_dir=WORK / "slides", epochs=50)
config.to_toml(WORK / "slides.toml")
print("the same after writing and reading:", Config.from_toml(WORK / "slides.toml") == config)
(WORK / "typo.toml").write_text("epoch = 50")
mistakes = [lambda: Config(device="gpu"), lambda: Config.from_toml(WORK / "typo.toml")]
for mistake in [*mistakes, lambda: setattr(config, "epochs", 500)]:
    try:
        mistake()
    except (ValueError, AttributeError) as error:
        print(type(error).__name__ + ":", str(error).partition(";")[0])

# %% [markdown]
# The second and the third, where nothing refuses them. In a plain dict nobody would read `epoch`, and the run would
# take the default. After a change, the file would not say what ran. `dataclasses.replace` makes a changed copy. The
# device is `"auto"`, a GPU if there is one. All fields stand in [`bpsutils/config.py`](../bpsutils/config.py).
#
# ## What names and headers say
#
# Why [metadata](GLOSSARY.md#metadata)? These 120 slide patches (simulated) have no identifiers but their paths, and you
# want only some of them: one stain, no tiny ones. So you need a table: for each path its stain, its size and its
# case, here the patient. Stain and case stand in the name.
#
# ### Exercise 1: read a name
#
# `case03_h&e_s1_002.png` is case 3, stain h&e, section 1, patch 2. Write `name_facts`, which takes such a name and
# returns `{"case": "case03", "stain": "h&e", "section": 1, "patch": 2}`, the last two as whole numbers.


# %%
def name_facts(name):
    return ...


q1.check(name_facts)

# %% [markdown]
# The size stands in the file, in its header. In a PNG it is bytes 16 to 23: width, then height,
# four bytes each. **Predict.** What share of this file must you read to know the size of its image?

# %%
path = SLIDES / "images" / "case03_h&e_s1_002.png"
with path.open("rb") as file:
    start = file.read(24)
width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
print(f"{height} x {width} px, read from {len(start)} of {path.stat().st_size:,} bytes")

# %% [markdown]
# A thousandth, and nothing was decoded. A TIFF may keep its header at its end, as NASA's do; `read_header` finds it.
# Name and header: `build_metadata` does both for a whole folder, and filters.
#
# Neither name nor header says benign or malignant. Where labels are kept apart from images, you need a
# [labels map](GLOSSARY.md#labels-map) `{case: label}`, and `map` joins it. **Predict.** A case stands twice in the
# labels' file, with two labels. What does a dict make of it? And: sides run from 40 to 383 pixels; how many of the 120
# patches have both sides from 64 to 200?

# %%
slides = build_metadata(SLIDES / "images", WORK / "slides.parquet", "slides")
labels = read_labels(SLIDES / "annotations" / "labels.csv")
slides["label"] = slides["case"].map(labels)
print(slides[["case", "stain", "height", "width", "label"]].head(3).to_string(index=False))
pairs = [("case01", "benign"), ("case01", "malignant")]
print("a case twice:", dict(pairs))
sides = slides[["height", "width"]]
kept = slides[(sides >= 64).all(axis=1) & (sides <= 200).all(axis=1)]
print("kept:", kept["stain"].value_counts().to_dict(), kept["label"].value_counts().to_dict())
plots.show(plots.size_filter(slides, 64, 200), "Height against width; a square marks those kept.")

# %% [markdown]
# The last one wins, in silence; `read_labels` stops and lists such cases. And look at who is left after a filter (here
# `build_metadata(..., stain="h&e", min_size=64, max_size=200)` would do it): if more of one class goes than of the
# other, your question has changed.
#
# ## A drive that fails at random
#
# "Google Drive I/O is buggy", say the notes, "needs some retrying". A [mount](GLOSSARY.md#mount) of a big folder
# answers some requests with errno 5 (input/output error), and the same request a moment later with success.
# `flaky_mount` does that to any folder, by a seed. Here is such a drive with our 600 simulated nuclei, a folder for
# each plate.
#
# **Predict.** One request in twenty fails. `listed` and `walked` ask for the same folders. What does each do?

# %%
drive = WORK / "drive"
for image in sorted(BPS.glob("*.tif")):
    (drive / image.name[:4]).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, drive / image.name[:4] / image.name)


def listed(folder):
    return sum(len(list(plate.iterdir())) for plate in folder.iterdir())


def walked(folder):
    return sum(len(files) for _, _, files in os.walk(folder))


for scan in (listed, walked):
    try:
        with flaky_mount(drive, rate=0.05, seed=1):
            print(scan.__name__, "found", scan(drive), "of 600 files")
    except OSError as error:
        print(f"{scan.__name__} stopped: {type(error).__name__} {error.errno}, {error.strerror}")

# %% [markdown]
# The one that stops is the better one. `os.walk` (and `glob.glob`) pass over a folder that they cannot read: plates are
# missing, without an error or a warning, and a plate here is a whole condition. So try again:


# %%
def patiently(folder, tries=4):
    for _ in range(tries):
        try:
            return list(folder.iterdir())
        except OSError:
            pass
    return []


found = {"os.walk": [], "with retries": []}
for seed in range(20):
    with flaky_mount(drive, rate=0.05, seed=seed):
        found["os.walk"].append(walked(drive))
    with flaky_mount(drive, rate=0.05, seed=seed):
        found["with retries"].append(sum(len(patiently(plate)) for plate in patiently(drive)))
plots.show(plots.scan_counts(found, 600), "Files in 20 scans: os.walk misses some, retries find all.")

# %% [markdown]
# ### Exercise 2: try again, but not for ever and not for everything
#
# `patiently` hides what it could not read: after the last failure it returns an empty list. And it asks again for
# files that are not there. Write `again(function, path, retries)`: one try and at most `retries` further ones, then
# the last error comes out. `FileNotFoundError`, and every error that is no `OSError`, comes out at once.


# %%
def again(function, path, retries):
    return ...


q2.check(again)

# %% [markdown]
# `fast_scan` ([`bpsutils/scan.py`](../bpsutils/scan.py)) does this with growing pauses, asks once a folder, and lets
# threads wait side by side. It returns two lists: files, and **failures**. Here are three drives: a shaky one, one
# with a plate that cannot be read at all, one that has gone away.

# %%
with flaky_mount(drive, rate=0.05, seed=1):
    shaky = fast_scan(drive)
with flaky_mount(drive / "P242", rate=1):
    broken = fast_scan(drive, retries=1)
with flaky_mount(drive, rate=1, code=107):
    gone = fast_scan(drive, retries=0)
for scan in (shaky, broken, gone):
    print(len(scan.files), "files, failures:", [(Path(f.path).name, f.errno) for f in scan.failures])

# %% [markdown] tags=["instructor"]
# > *Show:* `bpsutils/config.py`: the attributes, then `__post_init__`; `bpsutils/scan.py`: `attempt`, then `fast_scan`.
# >
# > *Say:* the configuration refuses mistakes before the night, the scan admits failures. Ask of any code: what does it
# > return when the disk says no?
# >
# > *Minutes:* 11

# %% [markdown]
# Errno 107, "Transport endpoint is not connected", is not cured by patience: mount the drive again, in Colab by
# `drive.mount("/content/drive", force_remount=True)`. And never train from a mount: each image would be
# a slow request that can fail. Copy one archive to the local disk and unpack it there.
#
# ## An index that is always right
#
# Reading 77,177 headers from a drive takes long, so you keep what you read, in an index. The
# notes rebuild it each time, and set `force_rebuild_metadata_full` to false only if nothing at all has changed, "even
# new images added to folder". That is a promise you will break. Below, some images are cropped anew under their old
# names. **Predict.** A cache goes by the path. Which of these changes does it notice?

# %%
INDEX, META = WORK / "index.parquet", BPS / "meta.csv"
before = build_metadata(drive, INDEX, meta=META)
cache = {row.path: (row.height, row.width) for row in before.itertuples()}
for path in before["path"].iloc[::100]:
    write_image(path, read_image(path)[:-10])  # ten rows less
wrong = sum(cache[path] != read_header(path).shape for path in before["path"])
print(len(cache), "paths in the cache,", wrong, "sizes wrong")

# %% [markdown]
# ### Exercise 3: what must be read again
#
# Listing a folder gives each file's size in bytes and its time of change nearly for free. `files` is what is on the
# disk now, `index` what was there at the last reading, both `{path: (size, time)}`. Write `to_read`: the sorted list
# of paths whose header must be read.


# %%
def to_read(files, index):
    return ...


q3.check(to_read)

# %% [markdown]
# The cache noticed none of the six. `update_index` in [`bpsutils/index.py`](../bpsutils/index.py) is this rule and a
# file. It keeps only what the images themselves say. Names, `meta.csv`, labels and filters are applied afresh, so
# changing *them* never needs a rebuild.
#
# **Predict.** Each opening of a file now takes 2 ms longer, as over a network. How many headers does each of three
# updates read: after the six changes, after no change, and forced? *Times differ from machine to machine, so this
# output is not compared when the notebooks are tested.*


# %% tags=["nbval-ignore-output"]
def update(force):
    start = perf_counter()
    with flaky_mount(drive, rate=0, delay=0.002) as log:
        build_metadata(drive, INDEX, meta=META, force_rebuild_metadata_full=force)
    return perf_counter() - start, log.requests["open"]


runs = {"six files changed": update(False), "nothing changed": update(False)}
runs["force rebuild"] = update(True)
seconds = {name: runs[name][0] for name in ("force rebuild", "six files changed", "nothing changed")}
plots.show(plots.rebuild_times(seconds), "Seconds of a force rebuild and of two updates.")

# %%
print("headers read:", {name: opened for name, (_, opened) in runs.items()})
print("the force rebuild is slowest:", max(seconds, key=seconds.get) == "force rebuild")
incremental = build_metadata(drive, INDEX, meta=META)
forced = build_metadata(drive, INDEX, meta=META, force_rebuild_metadata_full=True)
print("the same table:", incremental.equals(forced))

# %% [markdown]
# Incremental, and the same table: so false is the default here, against the notes. One thing still fools it: a file
# that changes and keeps its size to the byte *and* its time, as some copying tools manage. For that there is the
# switch.
#
# ## Tables from elsewhere
#
# `meta.csv` gives dose, particle and hours for each file name. The notes show three rows of it, with spaces around the
# commas (the real file has none). **Predict.** How many of the three does pandas call Fe?

# %%
NOTES = """filename,dose_Gy,particle_type,hr_post_exposure
P242_73665006707-A6_003_013_proj.tif , 0.82 , Fe, 4
P242_73665006707-A6_008_034_proj.tif , 0.82 , Fe, 4
P242_73665006707-A6_009_007_proj.tif , 0.82 , X-ray, 4
"""
(WORK / "notes.csv").write_text(NOTES)
print("pandas:", (pd.read_csv(WORK / "notes.csv")["particle_type"] == "Fe").sum(), "rows of Fe")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    rows = read_meta(WORK / "notes.csv")
print("read_meta:", (rows["particle_type"] == "Fe").sum(), "rows of Fe")
print(str(said[0].message).partition(",")[0])
plate = rows["filename"].str[:4]
print("particles:", rows.groupby(plate)["particle_type"].unique().map(list).to_dict())

# %% [markdown]
# None: `" Fe"` is not `"Fe"`. `read_meta` removes the spaces and says so.
#
# *A correction.* The last line shows a slip: a plate with two particles. The notes' third sample row has X-ray; the
# real `meta.csv` has Fe there, as for all of plate P242. A rule about the structure of a table finds what nobody sees
# row by row.
#
# ## Case, well, plate
#
# A plate has [wells](GLOSSARY.md#well), a well has fields of view, a field has nuclei. In the BPS set each branch, Fe
# or X-ray, uses the same wells on all its plates, so a well probably is one mouse (our reading). The mouse is the case
# here, and particle and well name it: well C7 is in both branches.
#
# The real set has 77,177 images, 17 plates, 17 conditions. **Predict.** On how many plates is a condition? And in a
# [split](GLOSSARY.md#split) 80/20 at random, how many test images have a training image of their own mouse?

# %%
counts = pd.read_csv(REAL_COUNTS)  # of each well of each plate, counted in the real meta.csv
images = counts.loc[counts.index.repeat(counts["n"])].reset_index(drop=True)
split = pd.Series(np.random.default_rng(0).choice(["train", "test"], len(images), p=[0.8, 0.2]))
print(f"{leakage_report(images, split, ['particle_type', 'well']).group:.0%} of the test images leak")
plots.show(plots.conditions(counts), "17 conditions by 17 plates, one mark in each row and column.")

# %% [markdown]
# ### Exercise 4: which conditions can be tested on a new plate?
#
# To test a condition on a plate that training has not seen, it must be on two plates or more. Write `on_several`: the
# sorted list of these conditions, for a table with the columns `condition` and `plate`, one row an image.


# %%
def on_several(table):
    return ...


q4.check(on_several)

# %% [markdown]
# For the real set that list is empty. Condition and plate are [confounded](GLOSSARY.md#confounding): whatever differs
# between two plates, lamp, stain or day, looks exactly like an effect of the condition.
#
# | from this structure you can conclude | you cannot conclude |
# |---|---|
# | whether images of these plates can be told apart, also in new mice | that radiation does it, and not the plate |
# | how much the wells of one branch differ on one plate | whether the mouse does it, or the place of its well |
# | | how good the score would be on another plate |
# | | how Fe differs from X-ray in one mouse: none got both |
#
# No split mends that, only more plates do. (Notebook 10 measures how far a plate's brightness alone gets.) What a
# split can do is keep mice apart.
#
# ## The leakage laboratory
#
# At random, *all* test images have their mouse in training: [leakage](GLOSSARY.md#leakage). Does it matter? That
# depends on how much mice differ in what the classifier sees, and in a simulation you can set it: with `mouse_effect`
# 0 all mice are alike, 1 is as in the course's sample, 2 doubles the differences. Plates are all alike here, so only
# the mouse can leak.
#
# Each simulated nucleus becomes six numbers (area, background, nucleus, texture, foci, peak), by `image_numbers` in
# [`bpsutils/leakage.py`](../bpsutils/leakage.py), and a [random forest](GLOSSARY.md#random-forest) says Fe or X-ray.
# The numbers are stored, for rendering takes half a minute; `python -m bpsutils leakage` makes them again. First one
# split of each kind, for mice that differ much:

# %%
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score

numbers = pd.read_csv(NUMBERS_CSV)
unlike = numbers[numbers["mouse_effect"] == 2]
x, y = unlike[list(NUMBERS)].to_numpy(), unlike["particle_type"].to_numpy()
by_mouse = unlike["mouse"].isin(["Fe/A6", "Fe/A8", "X-ray/A7", "X-ray/C7"]).to_numpy()
for test in (np.random.default_rng(0).permutation(by_mouse), by_mouse):
    forest = RandomForestClassifier(30, random_state=0).fit(x[~test], y[~test])
    score = balanced_accuracy_score(y[test], forest.predict(x[test]))
    print(f"{test.sum()} test nuclei of {unlike['mouse'][test].nunique():2} mice: {score:.2f}")

# %% [markdown]
# One pair proves nothing: other mice, other scores. For many pairs you need a way to draw mice.
#
# ### Exercise 5: hold out whole mice
#
# Write `held_out(table, n, seed)` for a table with the columns `particle_type` and `mouse`: True for the rows of `n`
# mice of each particle, drawn by the seed. Neither the order of the rows nor the generator that others use may matter.


# %%
def held_out(table, n, seed):
    return ...


q5.check(held_out)

# %% [markdown]
# `compare_splits` draws 30 pairs: two mice of each particle held out, and as many nuclei held out at random. The
# difference is the [inflation](GLOSSARY.md#inflation) of the score. **Predict.** How large is it at `mouse_effect` 0,
# 1 and 2? And which score moves, the leaking one or the honest one?

# %%
scores = {effect: compare_splits(rows) for effect, rows in numbers.groupby("mouse_effect")}
for effect, table in scores.items():
    mean, half = mean_interval(table["inflation"])
    print(f"mouse_effect {effect:.0f}: inflation {mean:.2f} ± {half:.2f}")
plots.show(plots.inflation(scores, caption=plots.SIMULATED), "Scores and inflation by mouse_effect.")

# %% [markdown]
# With mice all alike nothing useful leaks, and the interval includes 0. At 1, as in the course's sample, the inflation
# is 0.04 ± 0.03, at 2 it is 0.14 ± 0.03. With mice that differ, the honest score falls, because new mice are harder.
# The leaking score even *rises*: each mouse got one particle only, so to recognise the mouse is to know the answer. The
# worse the classifier is for the next mouse, the better this split says it is.
#
# **Predict.** On the left you see nuclei of four mice in two of their six numbers. Move `mouse_effect`: which mouse
# becomes easy to recognise? On the right, which kind of split scatters more, and why?

# %%
control = widgets.leakage(numbers, scores, caption=plots.SIMULATED)

# %% [markdown] tags=["instructor"]
# > *Show:* `bpsutils/leakage.py`: `compare_splits`; `bpsutils/splits.py`: `split_by_group` and `leakage_report`.
# >
# > *Say:* whatever you want to generalise to, mice, patients or hospitals, must be whole on one side. For plates this
# > data set does not let you.
# >
# > *Minutes:* 11

# %% [markdown]
# At 2, mouse Fe/A8 stands apart: its background is brighter than nearly all others'. A forest that has seen some of its
# nuclei knows the rest by that, and by that says Fe. By mouse the scores scatter more, for they hang on four mice, not
# on a hundred nuclei. That is the honest uncertainty, which a split at random hides. Each ± is a 95 % interval over 30
# splits of *these* 16 simulated mice; it does not cover other mice, and it is rather too narrow, for the splits share
# nuclei. How large the inflation is in the real set, these simulations cannot say. A split by mouse needs no further
# image, so nobody has to bet on it. Notebook 10 repeats the pair with a network.
#
# ## Before any model: look
#
# `load_table` and `split_table` put the chapter together; images with 0 Gy are left out, for there the particle is only
# the name of a branch. Look at the class balance and at images of every split before a model sees any. **Predict.**
# Whole mice are moved. Can train, val and test still have the same share of Fe?

# %%
table = split_table(load_table(Config(out_dir=WORK / "bps")), Config())
print(f"{leakage_report(table, table['split'], 'group')['group']:.0%} of the test images leak")
plots.show(plots.class_balance(table), "Bars of the images of each class in each split.")
plots.show(plots.split_examples(table, each=4), "Four simulated nuclei of each split.")

# %% [markdown]
# Nearly. Look also for what no table tells: an empty crop, a saturated neighbour, a split brighter than the others.
# After that, the test images stay closed until notebook 10.
#
# ## You can now
#
# - keep every setting of an experiment in one file that refuses mistakes;
# - build a table from names and headers, and filter it by stain and size;
# - scan an unreliable drive without losing files in silence;
# - say what an index must compare to be always right, and join labels by case;
# - split by mouse, measure a leak, and say what one plate a condition forbids you to conclude.
#
# ## Recall
#
# <details><summary>Why is a scan that stops better than one that returns what it got?</summary>
#
# Missing files leave no trace later. Here they would be a plate, and so a whole condition.
#
# </details>
# <details><summary>You change min_size. Must the index be rebuilt?</summary>
#
# No. It holds only what the image files say; filters are applied afresh at each call.
#
# </details>
# <details><summary>A file was replaced by an older one from a backup. Does the index notice?</summary>
#
# Yes: any other size or time counts as a change, not only a later time.
#
# </details>
# <details><summary>Mice all alike: does a split at random flatter?</summary>
#
# Not in the laboratory: the interval of the inflation includes 0. But you cannot know beforehand that mice are alike.
#
# </details>
# <details><summary>Can you hold out a plate to show that Fe and X-ray differ?</summary>
#
# Not in this set: each condition is on one plate, so a held-out plate is a condition that training never saw.
#
# </details>
#
# ## Next
#
# [06 Transforms](06_transforms.ipynb): the table is right and the split is honest; now its images become what a network
# learns from.
