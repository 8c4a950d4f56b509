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
# # Attention maps: what does a detection look at?
#
# A detector says "star, 0.93". From where in the image does it know? In ten minutes you will
#
# 1. read the attention maps of a trained detector: which cells each detection looks at, head by head,
# 2. see what a *cell* looks at in the encoder, and how a box moves from layer to layer,
# 3. test whether the maps can be believed: cover what the detector looks at, and see what happens to its score.
#
# The notes behind it: [attention_maps](../scratch/analysis/attention_maps.py),
# [attention_record](../scratch/analysis/attention_record.py) and the command [explain](../commands/explain.py). Their
# proofs: [tests/analysis/test_attention_maps.py](../tests/analysis/test_attention_maps.py),
# [tests/test_explain.py](../tests/test_explain.py).

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
from dataclasses import replace

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from commands.attention import explained
from commands.opening import open_split
from commands.train_arguments import TrainArguments, new_run
from detr_scratch import train
from notebooks.shown import panels
from scratch.analysis.attention_maps import draw_boxes, draw_detections, draw_encoder, heat_over
from scratch.analysis.attention_record import Explanation
from scratch.config import PRESETS
from scratch.data.batch import Batch, collate
from scratch.data.transforms import Augmentation
from scratch.detector import load
from scratch.evaluation.coco_eval import postprocess
from scratch.ops.boxes import paired_box_iou
from scratch.training.heap import keep_freed_memory

# %matplotlib inline
keep_freed_memory();

# %% [markdown]
# ## 1 What each detection looks at
#
# In the decoder every object query reads the image by cross-attention: for each head, one weight for each cell, and
# their sum is 1. A forward pass with `need_weights=True` returns these weights. `explain` keeps them in a small file.
# The project holds one, of the detector that `make demo` trains (8.8 minutes), so that you can look at once:

# %%
record = Explanation.load(Path("hyper_parameter_tuning_charts/explained/shapes.npz"))
D, L, N, h, w = record.cross.shape
print(f"{D} detections, {L} decoder layers, {N} heads, a grid of {h}×{w} cells")
for detection in record.about["detections"]:
    print(f"  query {detection['query'] + 1:2}: "
          + ", ".join(f"{name} {score:.2f}" for name, score in detection["labels"]))

# %% [markdown]
# **Predict the number 1.** If a head looked at all cells alike, how much weight would each cell have? The heads below
# say "up to … %": how many times as much is that?

# %%
print(f"all alike: 1/{h * w} = {100 / (h * w):.2f} % a cell")
peaks = record.cross[:, -1].astype(np.float32).reshape(D, N, -1).max(-1)                      # (D,N)
for head in range(N):
    least, middle, most = np.quantile(100 * peaks[:, head], (0, 0.5, 1))
    print(f"head {head + 1}: the brightest cell has {least:.1f} to {most:.1f} %, "
          f"in the middle {middle * h * w / 100:.0f} times as much as if all were alike")

# %%
draw_detections(replace(record, boxes=record.boxes[:4], cross=record.cross[:4],
                        about={**record.about, "detections": record.about["detections"][:4]}));

# %% [markdown]
# One of the four heads is lit inside the box, the others spread or are lit beside it. How much of a head's attention is
# spent in the box of its own detection?
#
# **Predict the number 2.** The boxes cover a few per cent of the image each. Which share of its attention does the
# head that looks closest spend there?

# %%
centres = np.stack(np.meshgrid((np.arange(w) + .5) / w, (np.arange(h) + .5) / h), axis=-1)     # (h,w,2): x, y
x0, y0, x1, y1 = record.boxes[:, -1, :, None, None].transpose(1, 0, 2, 3)                      # (D,1,1) each
inside = ((centres[..., 0] >= x0) & (centres[..., 0] <= x1)                                    # (D,h,w)
          & (centres[..., 1] >= y0) & (centres[..., 1] <= y1))
shares = (record.cross[:, -1].astype(np.float32) * inside[:, None]).sum((2, 3))                # (D,N)
area = (record.boxes[:, -1, 2:] - record.boxes[:, -1, :2]).prod(-1)
print(f"the boxes cover {100 * area.min():.0f} to {100 * area.max():.0f} % of the image")
for head in range(N):
    print(f"head {head + 1}: {100 * shares[:, head].min():3.0f} to {100 * shares[:, head].max():.0f} % inside its box")

# %% [markdown]
# The heads divide the work. (In figure 6 of the paper, DETR on photographs looks at the ends of its objects. This
# detector need not: it also reads the features around each box,
# [roi_features](../scratch/model/anchors/roi_features.py).)
#
# ## 2 What a cell looks at, and how a box moves
#
# In the encoder, cells read each other. Here is what one cell (blue) reads: objects more than background, its own or
# not.

# %%
draw_encoder(replace(record, points=record.points[:6], places=record.places[:6]));

# %% [markdown]
# The boxes of each query, layer by layer. The bars say how well each agrees with the last one (IoU). **Predict the
# number 3.** After the first decoder layer, is the box already there? Guess the mean IoU of the first layer's box
# with the last.

# %%
steps = record.about["layers"]
print({f"layer {k}" if k else record.about["start"]: round(float(record.iou[:, i].mean()), 2)
       for i, k in enumerate(steps)})
draw_boxes(replace(record, boxes=record.boxes[:4], iou=record.iou[:4],
                   about={**record.about, "detections": record.about["detections"][:4]}));

# %% [markdown]
# ## 3 Can the maps be believed?
#
# A heat map persuades easily. An experiment persuades better: *cover* the cells with the most attention, and see
# whether the score falls. As a control, cover as many cells at random. For this we need a detector that runs.
# `CHECKPOINT` names one, such as the run of [detr.ipynb](detr.ipynb); `None` trains a small one here, in a few
# minutes on two CPU cores.

# %%
CHECKPOINT = None  # such as "runs/tiny-shapes"

if CHECKPOINT is None:
    tiny = PRESETS["tiny"]
    data = replace(tiny.data, workers=0, grow=0.0, short_side=64 if QUICK else 96, shapes_train=16 if QUICK else 1000,
                   shapes_val=8 if QUICK else 60)  # small images: quick steps
    config = replace(tiny, data=data, train=replace(tiny.train, batch_size=4 if QUICK else 16, eval_every=1000,
                                                    max_steps=2 if QUICK else 250, max_minutes=None))
    CHECKPOINT = new_run("attention", "shapes")
    train(TrainArguments(config, CHECKPOINT))
detector = load(CHECKPOINT)
device = next(detector.model.parameters()).device
data = detector.config.data
val_set = open_split(data, "val", Augmentation.for_evaluation(data), 0, detector.classes)

# %% [markdown]
# One of its own images first, recorded now:

# %%
def batch_of(index):
    return collate([val_set[0, index]]).to(device)

index = 3
image = Image.open(val_set.file_of(index))
live = explained(detector.model, batch_of(index), image, detector.classes.names,
                 {"name": "a validation image", "detector": "this notebook's", "threshold": detector.threshold,
                  "encoder_heads": False}, points=(), most=3)
draw_detections(live);

# %% [markdown]
# Now the experiment. For each image take the detection with the highest score. Add up its attention over heads and
# layers, cover the k cells with the most (with the mean colour of the image), and ask again for the score of *this
# class at this box*.
#
# One control is not enough. Cells at random are mostly background, so if the score stays, we learn only that attention
# is near the object. The second control covers cells of the box itself, and around it where the box has fewer.

# %%
@torch.no_grad()
def best_detection(batch):
    """The score, label, query, and attention (h,w) of the best detection of the one image of a batch."""
    outputs = detector.model(batch.normalised(), batch.pad_mask, need_weights=True)
    [found] = postprocess(outputs, torch.ones(1, 2, device=device), detector.config.model.classification)
    best = int(found["scores"].argmax())
    cross, size = outputs["attention"]["decoder_cross"], outputs["attention"]["cross_size"]   # (L,1,N,Q,S)
    attention = cross[:, 0, :, found["queries"][best]].mean((0, 1)).view(size)                # (h,w)
    return found["scores"][best].item(), int(found["labels"][best]), found["boxes"][best], attention

@torch.no_grad()
def score_of(batch, label, box):
    """The highest score of a class among the detections whose box agrees with `box` (IoU of a half or more)."""
    outputs = detector.model(batch.normalised(), batch.pad_mask)
    [found] = postprocess(outputs, torch.ones(1, 2, device=device), detector.config.model.classification)
    near = (found["labels"] == label) & (paired_box_iou(found["boxes"], box) >= 0.5)
    return float(found["scores"][near].max()) if near.any() else 0.0

def covered(batch, cells, size):
    """The batch with these cells (of a grid of `size`) in the mean colour of the image."""
    images, (H, W) = batch.images.clone(), batch.images.shape[2:]
    colour = images[0].float().mean((1, 2)).round().to(torch.uint8)[:, None, None]
    for cell in cells.tolist():
        i, j = divmod(cell, size[1])
        images[0, :, i * H // size[0]:(i + 1) * H // size[0], j * W // size[1]:(j + 1) * W // size[1]] = colour
    return Batch(images, batch.pad_mask, batch.targets)

def outside(box, size):
    """How far each cell's centre is outside the box (h·w); those inside, and equals, in a random order."""
    (h, w), (x0, y0, x1, y1) = size, box.tolist()
    y, x = torch.meshgrid((torch.arange(h) + .5) / h, (torch.arange(w) + .5) / w, indexing="ij")
    away = torch.maximum((x0 - x).clamp(min=0), (x - x1).clamp(min=0)) + torch.maximum(
        (y0 - y).clamp(min=0), (y - y1).clamp(min=0))
    return (away + 1e-6 * torch.rand(h, w)).flatten()

counts = (0, 2, 5, 10, 20)
kept = {"most attention": [], "at random": [], "at random, in the box": []}
torch.manual_seed(0)
for index in range(3 if QUICK else 40):
    batch = batch_of(index)
    score, label, box, attention = best_detection(batch)
    orders = {"most attention": attention.flatten().argsort(descending=True),
              "at random": torch.randperm(attention.numel()),
              "at random, in the box": outside(box, attention.shape).argsort()}
    for name, order in orders.items():
        kept[name].append([score_of(covered(batch, order[:k], attention.shape), label, box) / score for k in counts])

# %% [markdown]
# **Predict the number 4.** The grid has 12×12 = 144 cells. Ten of them, 7 % of the image, are covered. How much of the
# score is left, on average, if they are chosen by attention? At random? And at random in the box?

# %%
at = counts.index(10)
for name, shares in kept.items():
    print(f"10 cells covered, {name}: {100 * np.mean([s[at] for s in shares]):.0f} % of the score is left")
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, shares in kept.items():
    axes.plot(counts, 100 * np.mean(shares, axis=0), marker="o", label=f"covered: {name}")
axes.set(xlabel="cells covered", ylabel="% of the score that is left", ylim=(0, 105))
axes.legend(frameon=False);

# %% [markdown]
# What one of them looks like: the image, its attention, and the two ways to cover it.

# %%
batch = batch_of(3)
score, label, box, attention = best_detection(batch)
chosen, drawn = attention.flatten().argsort(descending=True)[:10], torch.randperm(attention.numel())[:10]
shown = [b.images[0].permute(1, 2, 0).cpu().numpy()                                            # (H,W,3) each
         for b in (batch, covered(batch, chosen, attention.shape), covered(batch, drawn, attention.shape))]
panels([shown[0], heat_over(shown[0], attention.cpu().numpy()), *shown[1:]],
       [f"{detector.classes.names[label]} {score:.2f}", "its attention", "10 cells by attention",
        "10 cells at random"]);

# %% [markdown]
# ## What to take away
#
# * A map is a row of weights, and its sum is 1. "Bright" means *more than the mean*, so always read the per cents,
#   too.
# * Heads divide the work: in the demo one looks into the box, and the others over the image.
# * Covering the cells with the most attention lowers the score far more than covering cells anywhere, but about as
#   much as covering other cells of the box. So the map tells *where the object is*, and hardly what of the object
#   counts. A map without such controls is only a picture.
#
# **Try it:** cover *only* the cells inside the box, or only those outside. For your own picture: `python
# detr_scratch.py explain IMAGE --checkpoint RUN` writes all of these charts, and a page to walk through them.
