# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hyperparameters: which settings matter, how do I find good ones, and how sure can I be?
#
# A training has dozens of settings, and each try costs minutes or nights. In this notebook you will
#
# 1. find a good learning rate with *one* short run,
# 2. look inside a training: are all layers learning at a healthy speed?
# 3. read a sweep of 24 trainings: what mattered, and what is only luck,
# 4. run a small sweep yourself.
#
# The notes behind it: [lr_range](../scratch/analysis/lr_range.py), [layer_watch](../scratch/analysis/layer_watch.py),
# [sweep_report](../scratch/analysis/sweep_report.py), and the commands [lr-range](../commands/lr_range.py),
# [charts](../commands/charts.py), [sweep](../commands/sweep/command.py). Their proofs:
# [tests/test_lr_range.py](../tests/test_lr_range.py), [tests/test_charts.py](../tests/test_charts.py),
# [tests/test_sweep.py](../tests/test_sweep.py).

# %%
# Set-up, the same in every notebook. It works on Colab, in a clone, and on two CPU cores.
REPOSITORY = "https://github.com/OWNER/detr-scratch.git"  # on Colab: write this repository's address here

import os
import subprocess
import sys
from pathlib import Path

root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "detr_scratch.py").is_file()), None)
if root is None:  # there is no clone around this notebook: get one, and the packages that are missing
    root = Path("detr-scratch").resolve()
    if not root.exists():
        if "OWNER" in REPOSITORY:
            raise ValueError(f"got {REPOSITORY}, wanted the address of the repository: write it into REPOSITORY above")
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", str(root / "requirements.txt")], check=True)
os.chdir(root)  # data/ and runs/ are made here
sys.path.insert(0, str(root))
QUICK = os.environ.get("NOTEBOOK_QUICK") == "1"  # the tests run every notebook with a few steps only

# %%
import json
import warnings
from dataclasses import replace

import numpy as np
from IPython.display import Markdown, display
from PIL import Image

warnings.filterwarnings("ignore", message="IProgress not found")  # Optuna's progress bars wish for ipywidgets
from commands.charts import ChartsArguments, collect
from commands.lr_range import LrRangeArguments, measure
from commands.sweep.command import SweepArguments, sweep
from notebooks.shown import panels
from scratch.analysis import lr_range, sweep_charts
from scratch.analysis.layer_curves import draw_by_group
from scratch.analysis.layer_record import read_layers
from scratch.analysis.sweep_report import NOISE, best_trial, conclusions
from scratch.config import PRESETS
from scratch.training.heap import keep_freed_memory

# %matplotlib inline
keep_freed_memory();

# A training that is small enough for many tries: images of 96 pixels, batches of 8.
tiny = PRESETS["tiny"]
SMALL = replace(tiny, data=replace(tiny.data, short_side=96, grow=0.0, shapes_train=32 if QUICK else 240,
                                   shapes_val=8 if QUICK else 60, workers=0, mosaic=0.0),
                train=replace(tiny.train, batch_size=8, max_minutes=None, eval_every=1, warmup_steps=0))

# %% [markdown]
# ## 1 The learning rate, in one run
#
# The *range test*: begin with a rate that is far too small, and multiply it by the same factor in every step. At
# first nothing happens, then the loss falls, then it stops falling, and at last it may blow up. A good rate
# lies between the steepest fall and the lowest loss.
#
# **Predict the number 1.** The test below goes from 10⁻⁵ to 1 in 100 steps. By which factor does the rate grow in one
# step?

# %%
low, high, count = 1e-5, 1.0, 12 if QUICK else 100
print(f"factor of one step: {(high / low) ** (1 / (count - 1)):.3f}")
print("rates of steps 0, 1, 2 and the last:",
      [f"{lr_range.rate_at(low, high, count, k):.2g}" for k in (0, 1, 2, count - 1)])

# %%
results = measure(LrRangeArguments(SMALL, Path("runs/lr-range"), low, high, count, of="all"))
print(*lr_range.in_words(results), sep="\n")
lr_range.chart(results);

# %% [markdown]
# The preset's own rate for AdamW's part is 0.002. The test gives a range. Which value in it is best only whole
# trainings can tell, which is what sweeps are for.
#
# ## 2 Inside the layers
#
# One loss for millions of weights hides a lot: a layer may have stopped learning while the others carry on. *Layer
# charts* watch every layer in every step: its weights, activations, gradients, and how much a step changes it. Twelve
# steps of our small training:

# %%
watched = collect(ChartsArguments(Path("runs/layers"), SMALL, batches=3 if QUICK else 12, timed=0))
watched.save(Path("runs/layers"))
content = read_layers(Path("runs/layers"))
draw_by_group(content, "update_to_weight", Path("runs/layers/update_to_weight.png"))
panels([Image.open("runs/layers/update_to_weight.png")], size=11);

# %% [markdown]
# Each panel is a group of layers, each line a layer. The value is ‖Δw‖/‖w‖: by how much of its own size a weight
# changes in one step. Around 10⁻³ is a common rule of thumb. Far above, a layer forgets what it has learnt; far
# below, it hardly learns.
#
# **Predict the number 2.** If every step changes a weight by 1 % of its length, always in the same direction, how many
# steps does it take until it has changed by its own length? And in random directions?

# %%
rng, moved, steps = np.random.default_rng(0), np.zeros(1000), 0
while np.linalg.norm(moved) < 1:
    step = rng.standard_normal(1000)
    moved, steps = moved + 0.01 * step / np.linalg.norm(step), steps + 1
print(f"same direction: {round(1 / 0.01)} steps; random directions: {steps:,} steps, about 100²")

# %% [markdown]
# The project keeps such charts of its largest preset with what was learnt from them ([the
# index](../hyper_parameter_tuning_charts/index.md)). One sheet sums up 30 steps:

# %%
panels([Image.open("hyper_parameter_tuning_charts/v3/overview_v3.png")], size=11);

# %% [markdown]
# ## 3 A sweep of 24 trainings
#
# A sweep varies several settings at once. [Optuna](https://optuna.org) proposes values, learns from the results, and
# ends hopeless trials early. The project keeps one: six settings of `tiny`, 24 trials of 200 steps, 91 minutes on two
# CPU cores. Its data is in the clone, so we draw it here:

# %%
kept = json.loads(Path("hyper_parameter_tuning_charts/sweep_tiny/sweep.json").read_text())
display(Markdown("| setting | tried | default |\n|---|---|---|\n" + "\n".join(
    f"| `{name}` | {one.get('values') or [one['low'], one['high']]} | {kept['defaults'][name]:g} |"
    for name, one in kept["space"].items())))
sweep_charts.learning_curves(kept);

# %% [markdown]
# **Predict the number 3.** Three of the six settings decided nearly everything. Which three, and which share of the
# importance do they have together?

# %%
ranked = sorted(kept["importance"].items(), key=lambda item: -item[1])
print({name: round(share, 2) for name, share in ranked})
print(f"the first three together: {sum(share for _, share in ranked[:3]):.0%}")

# %%
sweep_charts.slices(kept);

# %% [markdown]
# Each point is a training. A slope is an effect; a cloud of equal height is none. If the best points lie at the edge
# of a range, the range was too narrow.
#
# **How sure?** Two runs that differ only in their seed also differ in AP. The project measured by how much, and
# believes only differences that are larger:

# %%
best, default = best_trial(kept), next(t for t in kept["trials"] if t["is_default"])
print(f"two seeds differ by {NOISE} in the median; the best trial is "
      f"{best['value'] - default['value']:.3f} above the default\n")
print(*conclusions(kept), sep="\n")

# %% [markdown]
# The best of 24 is partly luck: the highest of 24 dice is nearly always a six. So the winner has to win again, with
# new seeds and in runs of full length. [The charts' index](../hyper_parameter_tuning_charts/index.md) tells what came
# of it.
#
# ## 4 Your own sweep
#
# Three learning rates, a short training each. So that a few steps are enough to see a difference, the trainings learn
# eight images by heart, and are judged on these. The default, 0.002, is one of them. In earnest you would take more
# images, more trials, and `"lr=log:1e-4:1e-2"`. Each trial is a process of its own, and the same call goes on with a
# sweep that was stopped.

# %%
mine = replace(SMALL, data=replace(SMALL.data, limit_train=8, eval_split="train", augment="none"),
               train=replace(SMALL.train, max_steps=2 if QUICK else 40, epochs=1000, eval_every=8))
space = ("lr=0.002,0.02",) if QUICK else ("lr=0.0002,0.002,0.02",)
sweep(SweepArguments(mine, Path("runs/my-sweep"), space=space, sampler="grid", pruner="none", metric="AP50"))

# %%
sweep_charts.learning_curves(json.loads(Path("runs/my-sweep/sweep.json").read_text()));

# %% [markdown]
# ## What to take away
#
# * One range test finds a range for the learning rate. Do it first.
# * Layer charts show *where* a training is in trouble; the loss only shows *that* it is.
# * A difference smaller than that between two seeds is no difference. The best of many is partly luck.
#
# **Try it:** sweep `weight_decay` and `mosaic` together, and predict first which one matters. On a command line:
# `python detr_scratch.py sweep --out FOLDER --preset tiny --trials 24 --space "lr=log:1e-4:1e-2"`
# ([docs/using.md](../docs/using.md#train)).
