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
# # DETR from scratch, from the first setting to average precision
#
# **The question:** how does a network that has never seen an image learn to predict a *set* of objects, without a
# grid of anchors and without non-maximum suppression? Here it happens before your eyes: run all cells, and read while
# it trains. On two CPU cores all of it takes about five minutes, four of which are the training of section 7. On a GPU
# the training takes 20 minutes: the default run there is another one.
#
# 1 configuration and set-up · 2 dataset preparation · 3 PyTorch dataset · 4 model architecture · 5 training utilities
# · 6 training loop · 7 execute training · 8 inference · 9 results analysis · 10 summary and next steps
#
# Nothing in `scratch/` calls a layer of PyTorch: convolution, attention, matching, loss and optimizer are the notes
# of this project. [The reading order](../docs/reading_order.md) lists them, [the glossary](../docs/glossary.md)
# explains every term.

# %% [markdown]
# ## 1 Configuration and set-up

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
from dataclasses import replace

import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from PIL import Image

from commands.analyze import judged
from commands.flags import preset_config
from commands.opening import make_criterion, open_split, parameter_count, prepare_data, resolve_device
from commands.sheets import draw_sheet
from commands.train_arguments import TrainArguments, new_run
from detr_scratch import train
from notebooks.shown import panels, source
from scratch.analysis.error_charts import draw_errors
from scratch.analysis.flops import parts_table
from scratch.analysis.run_summary import changed_fields, summarise_log
from scratch.config import PRESETS
from scratch.data.batch import collate
from scratch.data.check import check_dataset
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.detector import load
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.error_analysis import analyse_errors
from scratch.evaluation.pictures import class_colour, draw_detections
from scratch.evaluation.summary import format_summary
from scratch.model.build import build_detr
from scratch.model.detr import Detr, shrink_mask
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import box_cxcywh_to_xyxy
from scratch.ops.sine_encoding import sine_encoding
from scratch.training.distributed import Distributed
from scratch.training.heap import keep_freed_memory
from scratch.training.loop import train_step_definition
from scratch.training.optimizer import AdamW, parameter_groups

# %matplotlib inline
keep_freed_memory();  # steps on a CPU are faster
MINUTES = 4          # of training on a CPU; with more it gets better

# %% [markdown]
# A configuration is four frozen dataclasses: `model`, `loss`, `data` and `train`
# ([config](../scratch/config.py) explains every field). A *preset* names a whole one. On a GPU this notebook takes
# the project's default there (`detr_141m_fast`, 20 minutes), on a CPU the small `tiny`. The settings of this run that
# matter most:

# %%
device = torch.device(resolve_device("auto"))
config = preset_config(None, str(device))
if device.type == "cpu":
    config = replace(config, train=replace(config.train, max_minutes=MINUTES, eval_every=1, eval_minutes=1))
if QUICK:
    config = replace(PRESETS["tiny"], data=replace(
        PRESETS["tiny"].data, shapes_train=16, shapes_val=16, short_side=64, workers=0), train=replace(
            PRESETS["tiny"].train, batch_size=4, max_steps=2, max_minutes=None, eval_every=9))
print(f"preset {config.preset} on {device}; changed here:",
      {name: now for name, _, now in changed_fields(config.to_dict(), PRESETS[config.preset].to_dict())})
used = {"model": ("queries", "num_queries", "enc_layers", "dec_layers", "hidden_dim", "classification"),
        "loss": ("ce_loss_coef", "bbox_loss_coef", "giou_loss_coef"),
        "data": ("short_side", "square", "grow", "augment", "mosaic"),
        "train": ("batch_size", "optimizer", "lr", "lr_matrices", "schedule", "weight_decay", "clip_max_norm",
                  "max_minutes")}
display(Markdown("| | |\n|---|---|\n" + "\n".join(f"| `{part}` | " + ", ".join(
    f"{name} = {getattr(getattr(config, part), name)}" for name in fields) + " |" for part, fields in used.items())))

# %% [markdown]
# ## 2 Dataset preparation
#
# Everything is in COCO's format: a folder of images for each split, and a JSON with boxes. `DATA` chooses:
#
# | `DATA` | what it is |
# |---|---|
# | `"shapes"` | drawn ellipses, rectangles, triangles, stars and crosses, made here in seconds; needs no network |
# | `"coco-subset"` | 2,000 + 500 photographs of COCO 2017 in ten classes; needs a network, and a GPU to get far |
# | a folder | your own, such as BCCD's blood cells ([your own data](your_own_data.ipynb)) |

# %%
DATA = "shapes"

if DATA == "coco-subset":
    from commands.download import DownloadArguments, download
    try:
        download(DownloadArguments("coco-subset"))
        DATA = "data/coco-subset"
    except OSError as error:
        print(f"no COCO without a network ({error}): the shapes instead")
        DATA = "shapes"
config = replace(config, data=replace(config.data, data=DATA))
prepare_data(config.data, Distributed(0, 1, device))
report = check_dataset(config.data, config.model.num_queries, decode=False)
print(report.table())

# %% [markdown]
# `check_dataset` finds what would cost a night: missing files, boxes in another format, unknown classes. Four images
# of the validation split with their true boxes:

# %%
train_set = open_split(config.data, "train", Augmentation.for_training(config.data), config.train.seed)
val_set = open_split(config.data, "val", Augmentation.for_evaluation(config.data), config.train.seed, train_set.classes)
names = train_set.classes.names

def with_boxes(pixels, target, width=390):
    """A sample as the network gets it, uint8 (3,h,w), with its true boxes: a PIL image of that width."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BICUBIC)
    boxes = box_cxcywh_to_xyxy(target["boxes"]) * torch.tensor(2 * image.size)
    labels = target["labels"].tolist()
    return draw_detections(image, boxes, [names[k] for k in labels], [class_colour(k) for k in labels])

panels([with_boxes(*val_set[0, i]) for i in range(4)], size=4, columns=2);

# %%
labels = torch.from_numpy(train_set.annotations.labels)
print(f"{len(train_set):,} training images, {len(labels):,} boxes:",
      {name: int((labels == k).sum()) for k, name in enumerate(names)})

# %% [markdown]
# ## 3 PyTorch dataset
#
# `train_set[epoch, index]` reads an image, augments it, and returns the pixels with a *target*: labels, and boxes as
# (centre x, centre y, width, height) in shares of the image. The epoch belongs to the key, so that a sample is the
# same in every process and after a restart. One training image in four epochs: it may be flipped, and *mosaic* makes
# one image of four. (This preset has no crops and no colour changes; `config.data` has their fields.)

# %%
panels([with_boxes(*train_set[epoch, 5], 260) for epoch in range(4)], [f"epoch {epoch}" for epoch in range(4)],
       size=2.7);

# %%
pixels, target = val_set[0, 0]
print("pixels", tuple(pixels.shape), pixels.dtype)
print({name: value.tolist() if torch.is_tensor(value) else value for name, value in target.items()})

# %% [markdown]
# A batch needs one size. Images are padded below and to the right, and `pad_mask` remembers where. (This preset shows
# every image as a square, so there is no padding. Two photographs of different size show what happens otherwise.)
#
# **Predict the number 1.** The two images below have 100×150 and 140×90 pixels (height × width). What is the shape of
# `images`?

# %%
photograph = Image.open("tests/photographs/bccd/val/BloodImage_00338.jpg")
two = collate([(torch.from_numpy(np.array(photograph.resize(size))).permute(2, 0, 1), {})
               for size in ((150, 100), (90, 140))])
print("images", tuple(two.images.shape), "  pad_mask", tuple(two.pad_mask.shape))
panels([*two.images.permute(0, 2, 3, 1), *two.pad_mask], ["image 0", "image 1", "pad_mask 0", "pad_mask 1"], size=1.8)
source(collate)

# %% [markdown]
# ## 4 Model architecture
#
# The whole network in one picture, and the forward pass of the published DETR
# ([model/detr](../scratch/model/detr.py)):

# %%
panels([Image.open("docs/pictures/architecture.png")], size=11)
source(Detr.forward)

# %% [markdown]
# The picture has the sizes of DETR-R50, with six layers on each side. Let a batch walk through a smaller one, the
# preset `tiny_vanilla`. **Predict the number 2.** The images have 192×192 pixels, and the backbone's feature map one
# cell for 16×16 of them. How many tokens S does the encoder read?

# %%
vanilla = build_detr(PRESETS["tiny_vanilla"].model, num_classes=len(names)).eval()
loader, _ = make_loader(val_set, 2, train=False, workers=0, seed=0, device_type="cpu")
batch = next(iter(loader))
with torch.no_grad():
    images = batch.normalised()
    features = vanilla.backbone(images)
    src = vanilla.input_proj(features)
    mask = shrink_mask(batch.pad_mask, *src.shape[2:])
    pos = sine_encoding(mask, src.shape[1] // 2)
    hs, _ = vanilla.transformer(src, mask, vanilla.query_embed.weight, pos)
    logits, boxes = vanilla.class_embed(hs), vanilla.bbox_embed(hs).sigmoid()
for name, value in (("images (B,3,H,W)", images), ("feature map (B,C,h,w)", features), ("projected (B,D,h,w)", src),
                    ("positional encoding (B,D,h,w)", pos), ("queries after L decoder layers (L,B,Q,D)", hs),
                    ("class logits (L,B,Q,K+1)", logits), ("boxes (L,B,Q,4)", boxes)):
    print(f"{name:42} {tuple(value.shape)}")
print("tokens S = h·w =", src.shape[2] * src.shape[3])

# %% [markdown]
# The published DETR is trained for 500 epochs of COCO. To learn in minutes, the default presets add [ideas of later
# papers](../docs/results.md#what-makes-it-learn-in-minutes), each in a file of its own: queries that are boxes
# proposed by the encoder, a finer feature map for the decoder, focal loss, an optimizer called Muon, and images that
# grow during the run (from 96 to 192 pixels a side; the log says “at 96 of 192 pixels”). [What each of them
# gains](../hyper_parameter_tuning_charts/index.md#ablation_shapes-what-did-each-idea-buy) is measured. The network
# that is trained below, part by part:

# %%
torch.manual_seed(config.train.seed)
model = build_detr(config.model, num_classes=len(names)).eval()
rows = parts_table(model, lambda: model(images, batch.pad_mask))
display(Markdown("| part | parameters | GFLOPs, two images |\n|---|---|---|\n" + "\n".join(
    f"| {row['part']} | {row['parameters']:,} | {row['flops'] / 1e9:.2f} |" for row in rows)))
print(parameter_count(model))

# %% [markdown]
# ## 5 Training utilities: metrics, losses, error analysis
#
# **Losses.** First each true object gets one query, by bipartite matching. Then matched queries have a class loss and
# two box losses, and all others the class loss of "no object" ([matching and set loss](matching_and_loss.ipynb) has
# the whole story). For the untrained `tiny_vanilla` and the two images above (a pair says which query is trained on
# which object; `class_error` is the share of matched queries with a wrong class, in per cent, and
# `cardinality_error` by how many objects the number of detections is off):

# %%
criterion = SetCriterion(len(names), HungarianMatcher(), PRESETS["tiny_vanilla"].loss)
outputs = {"pred_logits": logits[-1], "pred_boxes": boxes[-1]}
print("pairs (query, object) of image 0:", [pair.tolist() for pair in criterion.matching(outputs, batch.targets)[0][0]])
print({name: round(value.item(), 3) for name, value in criterion(outputs, batch.targets).items()})

# %% [markdown]
# **The metric.** Average precision asks, at ten strictnesses of box overlap: sorted by score, how many detections are
# right, and how many objects are found? A strictness is a threshold of the IoU, from 0.50 to 0.95: *AP50* counts a
# detection as right if its box and the object's have an IoU of at least 0.50, *AP75* of 0.75, and *AP* is the mean
# of all ten. Let us cheat: take the true boxes as detections, and shift them a little.
#
# **Predict the number 3.** All true boxes as detections, each shifted by half of their width. The IoU of each
# with its object is then (1/2)/(3/2) = 1/3. What is AP50?

# %%
truth = val_set.ground_truth()

def detections(shift=0.0, wrong_class=0.0, twice=0.0, seed=0):
    """The truth as COCO results: boxes shifted by a share of their width, some of another class, some given twice."""
    random, results = torch.Generator().manual_seed(seed), []
    for a in truth["annotations"]:
        x, y, w, h = a["bbox"]
        other = val_set.classes.ids[(val_set.classes.ids.index(a["category_id"]) + 1) % len(names)]
        kind = other if torch.rand(1, generator=random) < wrong_class else a["category_id"]
        score = 0.5 + torch.rand(1, generator=random).item() / 2
        found = {"image_id": a["image_id"], "category_id": kind, "bbox": [x + shift * w, y, w, h], "score": score}
        results += [found] + [{**found, "score": score - 0.01}] * (torch.rand(1, generator=random).item() < twice)
    return results

def average_precision(results):
    evaluator = CocoEvaluator(truth, val_set.classes.ids, names)
    evaluator.results = results
    return evaluator.summary()

print(f"AP50 of boxes shifted by half: {average_precision(detections(0.5))['AP50']:.3f}")

# %%
shifts = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
figures = [average_precision(detections(shift)) for shift in shifts]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("AP", "AP50", "AP75"):
    axes.plot([100 * shift for shift in shifts], [f[name] for f in figures], marker="o", label=name)
axes.set(xlabel="shift of every box, % of its width", ylabel="average precision")
axes.legend(frameon=False);

# %% [markdown]
# AP50 forgives up to a third of the width and then falls at once. AP falls slowly, because it averages ten
# strictnesses.
#
# **Error analysis** asks what each *kind* of mistake costs: how much AP50 would we gain if it were repaired?
# Detections with mistakes that we put in ourselves, 20 % of the classes wrong and 30 % given twice, should
# show `Cls` and `Dupe`, and hardly any other kind:

# %%
cost = analyse_errors(truth, detections(wrong_class=0.2, twice=0.3))["cost"]
print({kind: round(gain, 3) for kind, gain in cost.items()})

# %% [markdown]
# `Cls` is a wrong class, `Loc` a poor box, `Both` both, `Dupe` a duplicate, `Bkg` nothing there, `Miss` an object
# that was not found. `FP` and `FN` are another question: what would be gained without any false positive, of
# whatever kind, and without any missed object.
#
# ## 6 Training loop
#
# One step is eight lines. The real loop ([training/loop](../scratch/training/loop.py)) adds mixed precision, several
# GPUs, gradient accumulation, checkpoints and a log, and stays at one page.

# %%
source(train_step_definition)

# %% [markdown]
# The first test of any detector: can it learn *two images* by heart? The loss should fall below a twentieth of
# its start. Where it stays high, something is broken: labels, boxes, gradients.

# %%
torch.manual_seed(0)
pupil = build_detr(config.model, num_classes=len(names)).to(device).train()
recipe = replace(config.train, lr=1e-3, lr_backbone=1e-3)
optimizer = AdamW(parameter_groups(pupil, recipe))
objective = make_criterion(replace(config, model=pupil.config))
losses, steps = [], 3 if QUICK else 100
for step in range(steps):
    for group in optimizer.param_groups:  # the learning rate falls to 0, as in every good run
        group["lr"] = 1e-3 * (1 - step / steps)
    losses.append(float(train_step_definition(pupil, objective, optimizer, batch.to(device), max_norm=1.0)))
print(f"loss {losses[0]:.1f} at the first step, {losses[-1]:.1f} at the last")
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(losses)
axes.set(xlabel="step", ylabel="loss of two images", ylim=(0, None));

# %% [markdown]
# ## 7 Execute training
#
# `train` is the same function that `python detr_scratch.py train` calls: it opens the data, builds model and
# objective, trains, evaluates about once a minute, and keeps the best weights in a folder under `runs/`. Stop it with
# *interrupt*: everything is saved. In its lines, `loss` is the sum over all decoder layers and the encoder's
# proposals, each of `ce`, `L1` and `giou` times its weight (section 1); these three are printed without weights, and of
# the last layer alone.

# %%
run_dir = new_run(config.preset, DATA)
train(TrainArguments(config, run_dir))

# %% [markdown]
# ## 8 Inference
#
# Three lines: load, predict, draw. The threshold is the score at which precision and recall were balanced best on the
# validation split.

# %%
detector = load(run_dir)
chosen = [val_set.file_of(i) for i in range(4)]
found = detector.predict([str(path) for path in chosen])
print(detector)
for path, one in zip(chosen, found):
    print(path.name, [f"{name} {score:.2f}" for name, score in zip(one.names, one.scores.tolist())][:6])
panels([one.drawn_on(path) for path, one in zip(chosen, found)], size=2.6);

# %% [markdown]
# Truth on the left of each pair, prediction on the right:

# %%
results = json.loads((run_dir / "best_detections.json").read_text())["results"]  # of the best weights, on all of val
ids = [image["id"] for image in truth["images"][8:12]]
draw_sheet(run_dir / "sheet.png", val_set, ids, results, detector.threshold)
panels([Image.open(run_dir / "sheet.png")], size=11);

# %% [markdown]
# ## 9 Results analysis
#
# **TensorBoard inside the notebook.** In Jupyter and on Colab the next cell opens it here: losses of every decoder
# layer, learning rates, AP, pictures. (Where a notebook is run by a program, nobody could look at it, so it is left
# out.)

# %%
if os.environ.get("NOTEBOOK_HEADLESS") != "1":
    program = Path(sys.executable).with_name("tensorboard")  # of this Python, whatever the PATH finds
    if program.is_file():
        os.environ["TENSORBOARD_BINARY"] = str(program)
    get_ipython().run_line_magic("load_ext", "tensorboard")
    get_ipython().run_line_magic("tensorboard", f"--logdir {run_dir}")

# %% [markdown]
# The same curves, read from TensorBoard's file, so that they can also be seen without it. The loss on train is the
# higher one: it has the loss of the encoder's proposals in it, which evaluation leaves out, and two of five images
# are mosaics. Do the decoder's layers get better one after another? Here the three curves cover one another: the
# proposals are good boxes, and each later layer moves them little.

# %%
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(run_dir)).Reload()
groups = {"loss": ["2 loss/train total", "2 loss/val total"],
          "boxes, GIoU, by decoder layer": sorted(
              tag for tag in events.Tags()["scalars"] if tag.startswith("loss_giou/train")),
          "average precision": ["1 precision/AP", "1 precision/AP50", "1 precision/AP75"]}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for place, (title, tags) in zip(axes, groups.items()):
    for tag in tags:
        curve = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
        place.plot([e.step for e in curve], [e.value for e in curve], label=tag.split("/")[1], linewidth=1,
                   marker="o" if len(curve) < 10 else None)
    place.set(title=title, xlabel="step")
    place.legend(frameon=False, fontsize=8);

# %% [markdown]
# **Average precision**, by object size and class:

# %%
evaluator = CocoEvaluator(truth, val_set.classes.ids, names)
evaluator.results = results
print(format_summary(evaluator.summary()))

# %% [markdown]
# **Errors.** Which kind of mistake costs how much?

# %%
figures = judged(truth, results, val_set)
errors = draw_errors(figures)

# %% [markdown]
# The images with the most mistakes. Look at them before you change a setting: they often say more than a curve.

# %%
worst = [of["image_id"] for of in figures["worst"][:4]]
draw_sheet(run_dir / "worst.png", val_set, worst or ids, results, detector.threshold)
panels([Image.open(run_dir / "worst.png")], size=11);

# %% [markdown]
# ## 10 Summary and next steps

# %%
summary = summarise_log(run_dir)
best = summary["best"]
display(Markdown(f"| AP | AP50 | AP75 | steps | minutes of training |\n|---|---|---|---|---|\n"
                 f"| {best['AP']:.3f} | {best['AP50']:.3f} | {best['AP75']:.3f} | {summary['steps']:,} | "
                 f"{summary['minutes']:.1f} |"))

# %% [markdown]
# From random weights to a detector, and every line of it can be read. What now?
#
# | I want to … | do this |
# |---|---|
# | make it better | more `MINUTES`: the demo has 8.8, and reaches [AP 0.82 to 0.84](../docs/results.md#from-nothing) |
# | see how an image is read | [convolution](convolution.ipynb), [attention](attention.ipynb) |
# | know how a cell tells its place | [positional encodings](positional_encodings.ipynb) |
# | know which query learns what | [matching and set loss](matching_and_loss.ipynb) |
# | use my own images | [your own data and fine-tuning](your_own_data.ipynb) |
# | see what it looks at | [attention maps](attention_maps.ipynb) |
# | find better settings | [hyperparameters](hyperparameters.ipynb) |
# | read all of it | [the reading order](../docs/reading_order.md): 22 files from the first tensor to AP |
