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
# # Your own data: how do I train on my pictures, and what do I gain from trained weights?
#
# You have some pictures with boxes, and little time. In this notebook you will
#
# 1. write a small data set in COCO's format, from nothing,
# 2. make typical mistakes in it on purpose, and see that they are found *before* the training,
# 3. train on it twice, from random weights and from trained ones, with the same number of steps,
# 4. see which weights were taken over, and how to begin with the published DETR.
#
# The notes behind it: [data/annotations](../scratch/data/annotations.py), [data/check](../scratch/data/check.py),
# [weights/reading](../scratch/weights/reading.py) and the command [finetune](../commands/finetune.py). Their proofs:
# [tests/data/test_check.py](../tests/data/test_check.py), [tests/test_finetune.py](../tests/test_finetune.py).

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
import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw, ImageFont

import matplotlib
from commands.train_arguments import TrainArguments, new_run
from detr_scratch import train
from notebooks.shown import panels
from scratch.analysis.learning_curve import read_run
from scratch.config import PRESETS
from scratch.data.check import check_dataset
from scratch.data.shapes import draw_scene
from scratch.detector import load
from scratch.evaluation.pictures import class_colour, draw_detections
from scratch.model.build import build_detr
from scratch.training.heap import keep_freed_memory
from scratch.weights.convert import to_official
from scratch.weights.reading import NAMED, adapt, read_weights

# %matplotlib inline
keep_freed_memory();
steps = dict(before=2, after=2) if QUICK else dict(before=160, after=50)

# %% [markdown]
# ## 1 A data set of your own
#
# So that this runs without a network, we draw the pictures: letters A, B and C on coloured backgrounds. Replace this
# cell by your own photographs. What counts is the layout:
#
#     my_letters/
#       train/ 0.jpg 1.jpg …        val/ 100.jpg …
#       annotations/instances_train.json    annotations/instances_val.json
#
# Each JSON has three lists. A box is `[x, y, width, height]` in pixels, from the upper left corner.

# %%
LETTERS = "ABC"
FONT = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf")

def letters(rng):
    """A picture and its objects: one to four letters on a background of the shapes' kind."""
    image = Image.fromarray(draw_scene(rng)[0]).resize((16, 16)).resize((240, 200), Image.Resampling.BICUBIC)
    draw, objects = ImageDraw.Draw(image), []
    for column in rng.permutation(4)[:rng.integers(1, 5)]:
        label, size = int(rng.integers(3)), int(rng.integers(40, 90))
        font = ImageFont.truetype(FONT, size)
        x, y = 60 * int(column) + int(rng.integers(0, 8)), int(rng.integers(0, 200 - size))
        x0, y0, x1, y1 = draw.textbbox((x, y), LETTERS[label], font=font)
        if x1 > 240:
            continue
        ink = tuple(int(255 * v) for v in rng.random(3))
        draw.text((x, y), LETTERS[label], font=font, fill=ink, stroke_width=1, stroke_fill="black")
        objects.append((label, [x0, y0, x1 - x0, y1 - y0]))
    return image, objects

def write_data_set(folder, counts):
    """A folder in COCO's format; returns it."""
    number = 0
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for _ in range(count):
            image, objects = letters(np.random.default_rng(number))
            image.save(folder / split / f"{number}.jpg", quality=92)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": image.width, "height": image.height})
            annotations += [{"id": len(annotations) + k, "image_id": number, "category_id": label + 1, "bbox": box,
                             "area": box[2] * box[3], "iscrowd": 0} for k, (label, box) in enumerate(objects, 1)]
            number += 1
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps({
            "images": images, "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(LETTERS, 1)]}))
    return folder

MINE = write_data_set(Path("data/my_letters"), {"train": 16 if QUICK else 96, "val": 8 if QUICK else 48})
document = json.loads((MINE / "annotations" / "instances_train.json").read_text())
print({part: entries[:1] for part, entries in document.items()})

# %%
def with_boxes(id, folder=MINE, split="train", entries=document):
    boxes = [(a["bbox"], a["category_id"] - 1) for a in entries["annotations"] if a["image_id"] == id]
    corners = [(x, y, x + w, y + h) for (x, y, w, h), _ in boxes]
    return draw_detections(Image.open(folder / split / f"{id}.jpg"), corners, [LETTERS[k] for _, k in boxes],
                           [class_colour(k) for _, k in boxes])

panels([with_boxes(i) for i in range(8)]);

# %% [markdown]
# ## 2 Mistakes, found before they cost a night
#
# Most data sets have some. Here are four copies of ours, each with a typical mistake.
#
# **Predict the number 1.** Which of the four would *stop* a training: boxes as corners (x0, y0, x1, y1) · boxes in
# shares of the image · one box without a width · an image whose file is missing? How many of the four?

# %%
def as_corners(d):
    for a in d["annotations"]:
        x, y, w, h = a["bbox"]
        a["bbox"] = [x, y, x + w, y + h]

def as_shares(d):
    for a in d["annotations"]:
        a["bbox"] = [v / side for v, side in zip(a["bbox"], (240, 200, 240, 200))]

def without_width(d):
    d["annotations"][0]["bbox"][2] = 0

def missing_file(d):
    d["images"][0]["file_name"] = "holiday.jpg"

stopped = 0
for mistake in (as_corners, as_shares, without_width, missing_file):
    folder, wrong = Path("data") / f"my_letters_{mistake.__name__}", copy.deepcopy(document)
    shutil.copytree(MINE, folder, dirs_exist_ok=True)
    mistake(wrong)
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(wrong))
    report = check_dataset(replace(PRESETS["tiny"].data, data=str(folder)), num_queries=40, decode=False)
    refused = [p for p in report.problems if p.severity == "refused"]
    stopped += bool(refused)
    reason = (refused or report.problems)[0]
    print(f"{mistake.__name__}: {'refused' if refused else 'training would go on'}; {reason}\n")
print(stopped, "of 4 are refused")

# %% [markdown]
# On real photographs the same check looks like this. Two boxes of BCCD, a public set of blood cells, have no width
# and no height. (On a command line: `python detr_scratch.py check-data DIR`.)

# %%
report = check_dataset(replace(PRESETS["tiny"].data, data="tests/photographs/bccd"), num_queries=40, decode=True)
print(report.layout)
print(report.table(classes=True))

# %% [markdown]
# ## 3 From nothing, and from trained weights
#
# Fine-tuning begins with weights that have seen much data. Which weights?
#
# | `WEIGHTS` | what happens |
# |---|---|
# | `None` | this notebook trains its own here, on drawn shapes: no network is needed |
# | `"detr_r50"` | the published DETR, trained on COCO, is fetched once (160 MB); take a GPU |
# | a file or a folder | a checkpoint, the official code's weights, or a run under `runs/` |

# %%
WEIGHTS = None

tiny = PRESETS["tiny"]
tiny = replace(tiny, data=replace(tiny.data, workers=0, grow=0.0, short_side=64 if QUICK else 96),  # quick steps
               train=replace(tiny.train, max_minutes=None, eval_every=1000, batch_size=4 if QUICK else 16))
if WEIGHTS is None:
    shapes = replace(tiny, data=replace(tiny.data, shapes_train=32 if QUICK else 600, shapes_val=8 if QUICK else 40),
                     train=replace(tiny.train, max_steps=steps["before"]))
    WEIGHTS = new_run("weights", "shapes")
    train(TrainArguments(shapes, WEIGHTS))

# %% [markdown]
# Now the same training twice on the 96 letters, from random weights and from those. All else is equal: network, data,
# steps, learning rate, seed. The lines before the first step say what came of each tensor of the file.
#
# **Predict the number 2.** The weights know five shapes, and now there are three letters. Which tensors can *not* be
# taken over? How many are there (*replaced*)?

# %%
if str(WEIGHTS) in NAMED:  # the published network: its own configuration and recipe
    from commands.finetune import config_for, recipe
    mine = recipe(config_for(str(WEIGHTS)))
else:
    mine = tiny
mine = replace(mine, data=replace(mine.data, data=str(MINE), mosaic=0.0),
               train=replace(mine.train, max_steps=steps["after"], epochs=1000, eval_every=3))
runs = {}
for name, weights in (("from nothing", None), ("fine-tuned", str(WEIGHTS))):
    print(f"—— {name} ——")
    runs[name] = new_run(name.replace(" ", "-"), "letters")
    train(TrainArguments(mine, runs[name], weights=weights))

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, run in runs.items():
    curve = read_run(run)["evaluation"]
    axes.plot(curve["step"], [value or 0 for value in curve["AP50"]], marker="o", label=name)
axes.set(xlabel="step", ylabel="AP50 of the validation letters", ylim=(0, 1))
axes.legend(frameon=False)
last = {name: read_run(run)["evaluation"] for name, run in runs.items()}
display(Markdown("| | AP | AP50 |\n|---|---|---|\n" + "\n".join(
    f"| {name} | {curve['AP'][-1] or 0:.3f} | {curve['AP50'][-1] or 0:.3f} |" for name, curve in last.items())))

# %% [markdown]
# The weights have never seen a letter. What helps is what lies below the class head: edges, corners, what an object
# is, and how queries share a picture out.

# %%
detector = load(runs["fine-tuned"])
first = 16 if QUICK else 96
files = [MINE / "val" / f"{first + i}.jpg" for i in range(8)]
panels([found.drawn_on(path) for path, found in zip(files, detector.predict(files))]);

# %% [markdown]
# ## 4 Weights of the official code
#
# Its files call the backbone `backbone.0.body.…`; every other name is the same. We have no such file here without a
# network, so we make one of the same layout from a network of random weights, and read it:

# %%
network = build_detr(PRESETS["tiny_vanilla"].model, num_classes=91)
torch.save({"model": to_official(network.state_dict())}, "data/official_layout.pth")
weights = read_weights(Path("data/official_layout.pth"))
print("recognised as:", weights.kind)
print(adapt(build_detr(PRESETS["tiny_vanilla"].model, num_classes=3), weights, LETTERS).text())

# %% [markdown]
# With a network and a GPU, one command does all of this for your folder, beginning with the published weights. It
# keeps the backbone frozen and trains 18 of 41.5 million parameters:
#
#     python detr_scratch.py finetune --data DIR
#
# ## What to take away
#
# * COCO's format is three lists. The check costs seconds and finds what would cost a night.
# * Trained weights help even where the classes are new. Only the class head begins anew.
# * Compare with *from nothing* on the same steps, or you do not know what the weights gave you.
#
# **Try it:** write 24 instead of 96 training images, and predict which of the two curves suffers more. More:
# [docs/using.md](../docs/using.md#train), [what was measured on BCCD](../docs/results.md#three-ways-to-a-detector).
