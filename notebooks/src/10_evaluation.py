# %% [markdown]
# # 10 · Evaluation
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/10_evaluation.ipynb)
#
# You will say honestly how good a model is: choose a threshold, read its curves, check whether its scores mean what
# they say, put an interval around a result, and find out what else could explain it. Here one network has the best
# score of all, and it is the one you should not trust.
#
# **You need** notebooks 00, 04, 05 and 09. No GPU. **Time:** 45 minutes.

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
# ## Every nucleus scored by a network that never saw its mouse
#
# Two test mice of each kind were too few in notebook 00. So eight networks took turns: each was trained without one
# [Fe](GLOSSARY.md#fe) mouse and one [X-ray](GLOSSARY.md#x-ray) mouse, and scored these two. Together that gives one
# [out-of-fold prediction](GLOSSARY.md#out-of-fold-prediction) for each nucleus of all 16 mice. All nuclei are
# **simulated**.
#
# You need not wait: the scores are stored in `data_sample/predictions/predictions.csv`, and `python -m bpsutils
# predictions` trains all networks again, in about ten minutes. Five experiments change one thing each.

# %%
import numpy as np
import pandas as pd

from bpsutils import SAMPLE_DIR, plots, read_image, widgets
from bpsutils.evaluation import group_intervals, paired_gain, score_interval
from bpsutils.exercises.evaluation import q1, q2, q3, q4, q5
from bpsutils.predictions import background_predictions, load_nuclei, load_predictions

table = load_predictions()
honest = table.query("experiment == 'mouse' and seed == 0 and dose_Gy > 0").reset_index(drop=True)
print("experiments:", ", ".join(table["experiment"].unique()))
print(len(honest), "irradiated nuclei,", honest["group"].nunique(), "mice scored")

# %% [markdown]
# ## The test set, once
#
# After each [epoch](GLOSSARY.md#epoch), training computes a validation score and keeps the best
# [checkpoint](GLOSSARY.md#checkpoint). *A correction:* the notes compute that score where it can be peeked at, and
# then show it as performance. But the score was used to choose the epoch, and whoever chooses the best of many scores
# also chooses luck.
#
# **Predict.** A network tosses a coin for each of 100 validation images, anew in each of 30 epochs. You keep its best
# epoch. Which accuracy do you see, on average? Which will that epoch have on 100 test images?

# %%
tosses = np.random.default_rng(0).random((2, 1000, 30, 100)) < 0.5
val, test = tosses.mean(axis=-1)  # accuracy of 1000 runs, 30 epochs each
alt = "The best validation score rises with the number of epochs, the test score stays at 0.5."
plots.show(plots.peeking(val, test), alt, "Nothing was learned in any epoch of any run.")

# %% [markdown]
# So the roles are divided. Val may be looked at as often as you like: epochs, learning rates and thresholds are
# chosen there. The notes' last step runs the model on the test set and shows how it performs. Do that **once**, when
# nothing is left to choose; choose again after it, and test has become val. (The stored networks avoid the question:
# their number of epochs was fixed before.)
#
# ## One threshold, four counts, three numbers
#
# A [threshold](GLOSSARY.md#threshold) on the score makes a [confusion matrix](GLOSSARY.md#confusion-matrix). Three
# numbers read it from the side of one class, here Fe: [recall](GLOSSARY.md#recall), the share of Fe nuclei that are
# found; [precision](GLOSSARY.md#precision), the share of those called Fe that are; [F1](GLOSSARY.md#f1), their
# harmonic mean.
#
# ### Exercise 1: precision, recall, F1
#
# In `confusion`, a row is a true class and a column what the nuclei were called, X-ray first in both. Return the three
# numbers for Fe, in this order.


# %%
def fe_scores(confusion):
    return ...


q1.check(fe_scores)

# %% [markdown]
# Every threshold gives a matrix, and so a point on two curves. The [ROC curve](GLOSSARY.md#roc-curve) sets recall
# against false alarms, the [PR curve](GLOSSARY.md#pr-curve) precision against recall.
#
# **Predict.** You move the threshold up from 0.5 to 0.9. Which way does the point move on each curve? Can recall and
# precision both rise?

# %%
slider = widgets.operating_point(honest, caption=plots.SIMULATED)

# %% [markdown]
# A higher threshold never finds more, so recall can only fall; precision mostly rises, but not at every step. The
# score decides the curve, you decide the point. The dotted lines are what guessing gets.
#
# **Predict.** In your next experiment only a tenth as many nuclei are Fe; the network is the same. Which of the two
# curves changes?

# %%
alt = "Two ROC curves that lie on each other, and two precision-recall curves far apart."
figure = plots.rarer(honest, 10, caption=plots.SIMULATED)
plots.show(figure, alt, "Recall and false alarms are shares of one class each, precision is of both.")

# %% [markdown]
# With rare positives the ROC curve looks as good as ever while most alarms are false. Report precision for the
# prevalence you will meet, not for the one you trained with.
#
# ### Exercise 2: choose a threshold
#
# A colleague wants a share `wanted` of all Fe nuclei found, with as few false alarms as that allows. You have scores
# of val and of test nuclei, and for each whether it is Fe (`True`). Return the highest threshold that will do; a
# nucleus whose score reaches it is called Fe.


# %%
def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):
    return ...


q2.check(pick_threshold)

# %% [markdown]
# ## Does 0.8 mean 80 %?
#
# Curves use only the *order* of the scores. Whoever acts on a score of 0.8 believes that 80 % of such nuclei are Fe.
# Is that true? This is [calibration](GLOSSARY.md#calibration): sort the nuclei by score, cut them into bins of
# equally many, and compare.
#
# ### Exercise 3: bins of equal count
#
# Return an array of shape `(bins, 2)`, lowest scores first: the mean score of each bin and its share of Fe.


# %%
def calibration(scores, fe, bins):
    return ...


q3.check(calibration)

# %% [markdown]
# In notebook 04 the `HardExampleSampler` showed training images with a high loss more often. A network sees the world
# that its sampler shows it. **Predict.** Hard examples are those near or beyond the border between the classes. What
# will a diet of them do to the scores?


# %%
def five_bins(rows):
    rows = rows.assign(fe=rows["label"] == "Fe").sort_values("score_Fe")
    return rows.groupby(np.arange(len(rows)) * 5 // len(rows))[["score_Fe", "fe"]].mean().to_numpy()


irradiated = table[table["dose_Gy"] > 0]
names = {"usual training": "mouse", "hard examples": "hard"}
both = {name: irradiated[irradiated["experiment"] == experiment] for name, experiment in names.items()}
bins = {name: five_bins(rows) for name, rows in both.items()}
alt = "Share of Fe against mean score in five bins, for both samplers, with the diagonal."
figure = plots.calibration(bins, caption=plots.SIMULATED)
note = "157 or 158 predictions a bin, from two seeds. Below the dotted line, too much Fe is claimed."
plots.show(figure, alt, note)


# %%
def too_much(rows):
    def claimed_less_true(draw):
        claimed, true = five_bins(rows.iloc[draw]).T
        names = ["lowest bin", "2", "middle bin", "4", "highest bin"]
        return dict(zip(names, claimed - true, strict=True))

    fe = (rows["label"] == "Fe").to_numpy(int)
    whole = claimed_less_true(range(len(rows)))
    return whole | group_intervals(claimed_less_true, rows["group"], fe, 300)


gaps = {name: too_much(rows) for name, rows in both.items()}
for bin_name in ("lowest bin", "middle bin", "highest bin"):
    for name, gap in gaps.items():
        value, low, high = (gap[bin_name + end] for end in ("", "_low", "_high"))
        print(f"{bin_name:11} {name:14} {value:+.2f} [{low:+.2f}, {high:+.2f}]")

# %% [markdown]
# Shown hard cases most of the time, a network learns that nothing is sure: its scores shrink towards 0.5, and in the
# middle bin it claims 45 % Fe where 27 % are, 18 points too many, with an interval from 7 to 26 (95 %, by mouse; the
# next section says how). The usual network may be a little *too* sure at both ends, but these intervals include 0. A
# score is a probability only after you have checked it, and a sampler or class weights change what it means.
#
# ## How sure is a result?
#
# A [control](GLOSSARY.md#control): networks were trained on *shuffled* labels, so there was nothing to learn. One of
# three such runs scored a [balanced accuracy](GLOSSARY.md#balanced-accuracy) of 0.43 on 393 nuclei of mice it had not
# seen.
#
# How far is that from 0.5? A [confidence interval](GLOSSARY.md#confidence-interval) by
# [bootstrap](GLOSSARY.md#bootstrap) draws the data again, with replacement, a thousand times, and takes the middle 95
# % of the scores. **Predict.** Drawing nuclei gives 0.38 to 0.48. Has the network learned the opposite of the truth?
#
# ### Exercise 4: draw what varies
#
# Nuclei of one [group](GLOSSARY.md#group), here a mouse, resemble each other: a network that is wrong about one is
# wrong about its sisters. Write the draw by mouse. `mice` names the mouse of each row; return row numbers, drawn by
# `rng`.


# %%
def resample(mice, rng):
    return ...


q4.check(resample)

# %% [markdown]
# `group_intervals` in [`bpsutils/evaluation.py`](../bpsutils/evaluation.py) does this within each class, and
# `score_interval` puts it around a balanced accuracy. To draw nuclei, it takes each nucleus (its path) for a group.
#
# **Predict.** The last line below has one mouse of each particle. How wide is its interval?

# %%
nonsense = table.query("experiment == 'shuffled' and seed == 0")
rows = {
    "shuffled labels, drawing nuclei": score_interval(nonsense, groups="path"),
    "shuffled labels, drawing mice": score_interval(nonsense),
    "true labels, drawing nuclei": score_interval(honest, groups="path"),
    "true labels, drawing mice": score_interval(honest),
    "true labels, two mice": score_interval(honest[honest["fold"] == 0]),
}
title = "Drawing nuclei makes nonsense look certain; drawing mice does not"
figure = plots.intervals(rows, title, caption=plots.SIMULATED)
alt = "Five scores with their intervals and a dotted line at 0.5, which is guessing."
plots.show(figure, alt, "By nuclei, the shuffled network is far from guessing; by mouse it is not.")

# %% [markdown]
# The shuffled network calls 22 % of one Fe mouse Fe and 83 % of another. The nuclei of a mouse look alike and were
# scored by one network, so 393 nuclei are far fewer than 393 opinions. With true labels it goes by foci, which differ
# from nucleus to nucleus, and both ways agree. You cannot know which it is before, so draw mice.
#
# With one mouse of each particle there is nothing else to draw. No width is no certainty: `evaluate` warns below five
# groups of a class. Eight mice of each kind are still few: a bootstrap over so few comes out rather too narrow. And no
# interval covers another seed, another laboratory, another kind of cell.

# %% [markdown] tags=["instructor"]
# > *Show:* `group_intervals` and `_note` in `bpsutils/evaluation.py`; before it `fit` in `bpsutils/pipeline.py`, where
# > val chooses the epoch and test comes in the last line.
# >
# > *Say:* ask what a repetition of the experiment would bring that is new. That is what you draw.
# >
# > *Minutes:* 11

# %% [markdown]
# ## Does the leak pay?
#
# Notebook 05 measured what a split at random gives a random forest: [leakage](GLOSSARY.md#leakage). Here is the pair
# of networks. One was split by mouse; for the other the same nuclei were dealt out at random, so each was scored by a
# network that knew its sisters. **Predict.** How much higher is the leaking score? And is 0.43 what shuffled labels
# always give?

# %%
names = {"shuffled": "shuffled labels", "mouse": "split by mouse", "random": "split at random"}
groups = irradiated[irradiated["experiment"].isin(names)].groupby(["experiment", "seed"])
runs = {f"{names[name]}, seed {seed}": score_interval(rows) for (name, seed), rows in groups}
title = "Shuffled labels: guessing. Split at random: no gain over split by mouse"
figure = plots.intervals(runs, title, caption=plots.SIMULATED)
alt = "Seven scores with their intervals: four near 0.76, and three of shuffled labels near 0.5."
plots.show(figure, alt, "All three runs on shuffled labels have 0.5 in their interval.")

by_name = dict(list(irradiated.groupby("experiment")))
for name in ("random", "hard"):
    gain = paired_gain(by_name[name], by_name["mouse"])
    print(f"{name:6} {gain['value']:+.3f} [{gain['value_low']:+.3f}, {gain['value_high']:+.3f}]")

# %% [markdown]
# Overlapping intervals are a weak test, for all networks scored the *same* nuclei. The printed lines compare nucleus
# by nucleus (`paired_gain`, mean of two seeds). No gain can be shown for the leak; the interval allows three points
# at most. (In ROC area, by the same pairs, it is ahead by 0.02, interval −0.01 to 0.05.) This network sees every image
# standardised and for a short time, and hardly recognises mice. That is no licence: you learn that a leak is harmless
# only by doing it right as well.
#
# Hard examples *cost* two points here, with an interval that only just excludes 0. A likely reason: where some labels
# cannot be seen in the image, the hardest examples are the hopeless ones.

# %% [markdown]
# ## The confounding laboratory
#
# One plate holds one condition, so plate and particle are [confounded](GLOSSARY.md#confounding). Plates differ in
# brightness. How much of a score could that be? A rival network, `brightness`, was trained on images that keep their
# plate's brightness; the usual one sees every image standardised.
#
# **Test 1: background pixels only.** Seven numbers describe the pixels far from any nucleus, and logistic regression
# learns the particle from them, by the same folds. No focus can be seen there. **Predict** its score.

# %%
blind = background_predictions(load_nuclei())
bright = table.query("experiment == 'brightness' and dose_Gy > 0").reset_index(drop=True)
rivals = {"background": blind.query("dose_Gy > 0"), "brightness kept": bright, "standardised": honest}
rows = {name: score_interval(rival) for name, rival in rivals.items()}
title = "Not one nucleus in sight, and better than guessing"
alt = "Scores with intervals: background only, and networks that see brightness or do not."
plots.show(plots.intervals(rows, title, caption=plots.SIMULATED), alt)
gain = paired_gain(bright, honest)
print(f"brightness kept {gain['value']:+.2f} [{gain['value_low']:+.2f}, {gain['value_high']:+.2f}]")

# %% [markdown]
# On such plates, a score a little above 0.6 needs no biology at all. The printed line is the gain of one network over
# the other, nucleus by nucleus: it could be nothing. Which of the two networks uses it? The scores
# cannot say: the one with the higher score may be the cheat.
#
# **Test 2: the 0 Gy controls.** Nothing hit these nuclei, on six plates that no network was trained on. Whoever sees
# foci only calls the same share Fe on each. **Predict** what each of the three does.

# %%
still = {"background": blind.query("dose_Gy == 0")}
still["brightness kept"] = table.query("experiment == 'brightness' and dose_Gy == 0")
still["standardised"] = table.query("experiment == 'mouse' and dose_Gy == 0")
alt = "Bars for six plates: the background's rate jumps, the standardised network's stays near 0."
plots.show(plots.control_rates(still, caption=plots.SIMULATED), alt)

# %% [markdown]
# The background classifier calls some plates Fe nearly whole, others hardly, whichever branch they belong to. A plate
# has 30 to 37 controls, so the standardised network's 7 points are two nuclei. Averaged over the three plates of a
# branch it says Fe to 65 % and to 64 %, as if it were fair: look at plates.
#
# ### Exercise 5: a test that a cheat fails
#
# Put test 2 into one number. `table` has `plate`, `label` (the branch), `dose_Gy` and `prediction`. Return how far
# apart the two plates are whose controls are treated most differently: 0 if all plates are treated alike, at most 1.


# %%
def control_spread(table):
    return ...


q5.check(control_spread)

# %% [markdown]
# **Test 3: the same nuclei on one plate.** Only a simulation can do this: every nucleus is simulated again, to the
# last focus, as if all plates had the same gain and offset, and the same networks score it again. **Predict** what is
# left of the best score.

# %%
figure = plots.one_plate({"standardised": honest, "brightness kept": bright}, caption=plots.SIMULATED)
alt = "Scores on one plate against scores on the own plate: a diagonal, and a cloud."
plots.show(figure, alt, "Each mark is a nucleus. On the diagonal, a network said the same to both.")

# %% [markdown]
# That is the answer for these plates. Of the standardised network's 393 answers not one changes: none of its score is
# brightness. The rival, ahead by three points that its interval did not tell from none, loses twelve. With real plates
# you have tests 1 and 2 only, and plates may differ in focus or density too. As long as one condition is one plate, no
# test of these data rules the plate out: say so, or repeat a condition on a second plate. `run` in `bpsutils` prints
# both tests under every result.

# %% [markdown] tags=["instructor"]
# > *Show:* `background_baseline` and `control_rates` in `bpsutils/evaluation.py`; then the last lines that
# > `python -m bpsutils run` prints.
# >
# > *Say:* the best score was the wrong one. Which control does your own data have?
# >
# > *Minutes:* 12

# %% [markdown]
# ## Look at the mistakes
#
# A score says how often, pictures say why. These are the four surest mistakes of each kind. **Predict** from the
# pictures: what does the network go by?

# %%
sure = honest["score_Fe"].where(honest["label"] == "X-ray", honest["score_X-ray"])
wrong = honest.assign(sure=sure).sort_values("sure", ascending=False)
worst = wrong.groupby("label").head(4).sort_values(["label", "sure"], ascending=[True, False])
images = [read_image(SAMPLE_DIR / "bps" / path) for path in worst["path"]]
names = [f"{row.label} {row.dose_Gy:g} Gy: {row.score_Fe:.2f}" for row in worst.itertuples()]
title = "Top: Fe called X-ray, no foci or blurred. Bottom: X-ray called Fe, many foci"
figure = plots.image_grid(images, names, columns=4, title=title, caption=plots.SIMULATED)
alt = "Four Fe nuclei with hardly a focus or out of focus, and four X-ray nuclei with many foci."
plots.show(figure, alt, "Above each nucleus: particle, dose, and the network's score for Fe.")

# %% [markdown]
# The Fe nuclei show no foci, or are out of focus; the X-ray nuclei show many. So perhaps the network counts foci and
# ignores whether they lie in lines. Pictures give a hypothesis, eight of them no proof. The simulation knows how many
# foci it put into each nucleus:

# %%
truth = pd.read_csv(SAMPLE_DIR / "bps" / "truth.csv").set_index("filename").loc[honest["path"]]
seen = honest.assign(foci=(truth["radiation_foci"] + truth["spontaneous_foci"]).to_numpy())
alt = "The share called Fe rises with the number of foci, for Fe and for X-ray nuclei alike."
plots.show(plots.by_foci(seen, caption=plots.SIMULATED), alt, "Numbers beside the marks are nuclei.")
iron = truth[truth["particle_type"] == "Fe"]
print("Fe nuclei that no ion hit:", (iron["tracks"] == 0).sum(), "of", len(iron))

# %% [markdown]
# So "tells Fe from X-rays" was too much said: mostly it tells many foci from few. And some Fe nuclei were never hit:
# the label is the dish's, not the nucleus's, and no network can find what is not there.
#
# ## By dose and time
#
# **Predict.** A network that counts foci: at which dose and hour will it take X-ray nuclei for Fe? Foci are repaired
# within hours, those of iron more slowly.

# %%
keys = ["label", "dose_Gy", "hr_post_exposure"]
right = [dict(zip(keys, key, strict=True)) | score_interval(rows) for key, rows in honest.groupby(keys)]
alt = "Share recognised at 4, 24 and 48 hours for two doses of each particle, with intervals."
figure = plots.by_condition(pd.DataFrame(right), caption=plots.SIMULATED)
plots.show(figure, alt, "About 35 nuclei of 8 mice each. There are no data for Fe at 0.3 Gy and 48 h.")

# %% [markdown]
# Four hours after 1 Gy of X-rays a nucleus is full of foci, and half are taken for Fe; 0.3 Gy of iron leaves too few.
# One average hid all this. These results are *descriptive*: a condition is one plate with about 35 nuclei, its
# interval is wide, and eleven of them invite you to find a pattern in noise.
#
# ## You can now
#
# - keep the test set for one look, and say what a peek costs;
# - choose a threshold, and read it on ROC and PR curves;
# - check whether a score means what it says;
# - put an interval around a result by drawing mice, and compare two models on the same nuclei;
# - test with shuffled labels, background and controls what else could explain a score;
# - turn mistakes into a hypothesis, and test it;
# - read `bpsutils/evaluation.py`.
#
# ## Recall
#
# <details><summary>Your best epoch scores 0.60 on val. Why is that not your result?</summary>
#
# It was chosen for being the highest, so it holds luck. The result is what this epoch scores on the test set, once.
#
# </details>
# <details><summary>Positives become ten times rarer. What happens to ROC and PR curve?</summary>
#
# The ROC curve stays: both its axes are shares within one class. Precision falls, and the PR curve with it.
#
# </details>
# <details><summary>Why draw mice and not nuclei?</summary>
#
# Nuclei of a mouse are not independent. A repetition would bring other mice, so mice are what varies.
#
# </details>
# <details><summary>A network calls 2 % of the controls Fe on each plate. What have you shown, what not?</summary>
#
# It does not see what these control plates differ in. The irradiated plates are other plates, one for each condition:
# that something of theirs plays no part is not shown.
#
# </details>
# <details><summary>What does a network score that was trained on shuffled labels, and what if it scores 0.7?</summary>
#
# About 0.5. At 0.7 something else leaks into training or scoring: look for it before you believe any other score.
#
# </details>
#
# ## Next
#
# Everything so far was one data set. [11 Capstone](11_capstone.ipynb) takes the whole road with another: slides in
# colour, in three places, with a pretrained network.
