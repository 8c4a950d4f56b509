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
# # Matching and set loss: which query is trained on which object?
#
# DETR predicts a set: 100 boxes in no order. The truth is another set. Before there can be a loss, each true object
# needs one query that answers for it. In ten minutes you will
#
# 1. see why the greedy choice is not the best one, and who finds the best,
# 2. follow three queries and two objects from costs to pairs, losses and gradients,
# 3. see why the boxes need GIoU and not only IoU,
# 4. train queries with one-to-one and with nearest matching, and count the duplicates.
#
# The notes behind it: [hungarian](../scratch/ops/hungarian.py), [boxes](../scratch/ops/boxes.py),
# [matcher](../scratch/objective/matcher.py), [criterion](../scratch/objective/criterion.py). Their proofs:
# [tests/ops/test_hungarian.py](../tests/ops/test_hungarian.py),
# [tests/ops/test_boxes.py](../tests/ops/test_boxes.py),
# [tests/objective/test_matcher.py](../tests/objective/test_matcher.py),
# [tests/objective/test_criterion.py](../tests/objective/test_criterion.py).

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
import torch
from matplotlib import pyplot as plt
from scipy.optimize import linear_sum_assignment as scipys

from notebooks.shown import source
from scratch.config import LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import (
    box_cxcywh_to_xyxy, giou_of_two, paired_box_iou, paired_generalized_box_iou)
from scratch.ops.cross_entropy import cross_entropy
from scratch.ops.hungarian import assign_brute_force, linear_sum_assignment
from scratch.training.optimizer import AdamW

# %matplotlib inline
torch.manual_seed(0);

# %% [markdown]
# ## 1 The cheapest assignment
#
# A cost says how badly a query fits an object. Each object wants a query of its own.
#
# **Predict the number 1.** *Greedy* gives the cat its cheapest query first, and the dog the cheapest of the rest.
# What does that cost in all? What is the smallest possible sum?

# %%
cost = [[1, 2, 8],    # cat:  query 0, 1, 2
        [3, 9, 9]]    # dog
greedy, free = 0, {0, 1, 2}
for row in cost:
    query = min(free, key=lambda j: row[j])
    greedy, free = greedy + row[query], free - {query}
columns = assign_brute_force(cost)
print("greedy:", greedy, "  best of all assignments:", sum(row[j] for row, j in zip(cost, columns)),
      f"  (cat → query {columns[0]}, dog → query {columns[1]})")

# %%
source(assign_brute_force)

# %% [markdown]
# Trying all of them is hopeless for 100 queries: 8 rows and columns already have 40,320 assignments. The *Hungarian
# algorithm* finds the same optimum with some thousand steps. SciPy's is another implementation:

# %%
random = torch.rand(20, 100)
rows, ours = linear_sum_assignment(random)
theirs = scipys(random.numpy())[1]
print("same pairs as SciPy for 20 objects and 100 queries:", ours == theirs.tolist())

# %% [markdown]
# ## 2 From costs to gradients
#
# Three queries, two true objects, two classes. The queries have these logits (cat, dog, no object) and boxes. It is
# the example of [docs/trace.md](../docs/trace.md), where every number is written out.

# %%
logits = torch.tensor([[[2., 0., 0.], [1., 0., 1.], [0., 0., 2.]]], requires_grad=True)             # (B,Q,K+1)
boxes = torch.tensor([[[.32, .47, .22, .36], [.40, .52, .18, .42], [.75, .56, .25, .30]]], requires_grad=True)
targets = [{"labels": torch.tensor([0, 1]), "boxes": torch.tensor([[.3, .5, .2, .4], [.7, .5, .2, .4]])}]
outputs = {"pred_logits": logits, "pred_boxes": boxes}

def draw(axes, boxes_cxcywh, colours, names=None, **how):
    for i, (x0, y0, x1, y1) in enumerate(box_cxcywh_to_xyxy(boxes_cxcywh.detach()).tolist()):
        axes.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colours[i], **how))
        if names:
            axes.text(x0, y0 - 0.01, names[i], color=colours[i], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])

figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
draw(axes, targets[0]["boxes"], ["black"] * 2, ["cat", "dog"], linewidth=3)
draw(axes, boxes[0], ["tab:blue", "tab:orange", "tab:green"], ["      query 0", "            query 1", "query 2"],
     linewidth=2, linestyle="--")

# %% [markdown]
# The cost of a pair is −p(class) + 5·L1 − 2·GIoU. The matcher takes the pairs with the smallest sum:

# %%
matcher = HungarianMatcher()
p, true = logits[0].softmax(-1), targets[0]
for q in range(3):
    for t, name in enumerate(("cat", "dog")):
        l1 = (boxes[0, q] - true["boxes"][t]).abs().sum()
        giou = giou_of_two(*(box_cxcywh_to_xyxy(b).tolist() for b in (boxes[0, q].detach(), true["boxes"][t])))
        print(f"query {q}, {name}: cost {(-p[q, true['labels'][t]] + 5 * l1 - 2 * giou).item():6.3f}", end="    ")
    print()
(queries, objects), = matcher(outputs, targets)
print("pairs:", [(f"query {q}", ("cat", "dog")[t]) for q, t in zip(queries.tolist(), objects.tolist())])

# %% [markdown]
# Query 1 has a box near the cat, too. But the cat has a query already, so query 1 is trained to say "no object". This
# is how DETR learns not to predict duplicates, and needs no non-maximum suppression afterwards.
#
# **Predict the number 2.** The loss has three parts: classes, L1 and GIoU. For how many of the three queries does the
# *box* get a gradient? And for how many do the *logits*?

# %%
criterion = SetCriterion(num_classes=2, matcher=matcher, loss=LossConfig())
losses = criterion(outputs, targets)
criterion.total(losses).backward()
print({name: round(value.item(), 3) for name, value in losses.items()})
print("total:", round(criterion.total(losses).item(), 3))
print("queries whose box has a gradient:", int((boxes.grad[0].abs().sum(-1) > 0).sum()))
print("queries whose logits have one:   ", int((logits.grad[0].abs().sum(-1) > 0).sum()))

# %%
figure, axes = plt.subplots(figsize=(5, 2.4), layout="constrained")
shown = axes.imshow(-logits.grad[0], cmap="PiYG", vmin=-0.45, vmax=0.45)
axes.set(xticks=range(3), xticklabels=["cat", "dog", "no object"], yticks=range(3),
         yticklabels=["query 0 (cat)", "query 1 (none)", "query 2 (dog)"], title="which way a step moves the logits")
for (q, k), value in zip([(q, k) for q in range(3) for k in range(3)], (-logits.grad[0]).flatten().tolist()):
    axes.text(k, q, f"{value:+.3f}", ha="center", va="center", fontsize=8)

# %% [markdown]
# Query 1 is pushed gently, because "no object" counts a tenth (`eos_coef`): with 100 queries and a handful of objects
# it would drown everything else. The class loss alone is the cross-entropy of `torch.nn`, with these weights:

# %%
classes, weight = torch.tensor([0, 2, 1]), torch.tensor([1.0, 1.0, 0.1])
ours = cross_entropy(logits[0], classes, weight)
theirs = torch.nn.functional.cross_entropy(logits[0], classes, weight)
print(f"ours {ours.item():.6f}   torch.nn {theirs.item():.6f}")

# %% [markdown]
# ## 3 IoU, GIoU and L1
#
# *Intersection over union* says how well two boxes agree. It is 0 for all disjoint boxes, near or far, so it has no
# slope there. *Generalized IoU* subtracts the empty part of the smallest box around both.
#
# **Predict the number 3.** Boxes (0,0,2,2) and (1,1,3,3), as corners. What are the intersection, the union and the
# IoU?

# %%
a, b = torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 1., 3., 3.])
print(f"IoU {paired_box_iou(a, b):.4f} = 1/7    GIoU {paired_generalized_box_iou(a, b):.4f} = 1/7 − 2/9")

# %%
shift = torch.linspace(-4, 4, 161, requires_grad=True)
moved = torch.stack((shift, torch.zeros(161), shift + 2, torch.full((161,), 2.0)), dim=-1)   # (161,4)
figure, (value, slope) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for name, overlap in (("IoU", paired_box_iou(a, moved)), ("GIoU", paired_generalized_box_iou(a, moved))):
    gradient, = torch.autograd.grad(overlap.sum(), shift, retain_graph=True)
    value.plot(shift.detach(), overlap.detach(), label=name)
    slope.plot(shift.detach(), gradient, label=name)
value.set(title="two boxes of side 2, one of them shifted", xlabel="shift")
slope.set(title="slope: what training can feel", xlabel="shift")
value.legend(frameon=False);

# %% [markdown]
# Beyond a shift of 2 the boxes are disjoint. IoU is flat there, and a query could not find its way back. GIoU and L1
# can.
#
# ## 4 One to one, or to the nearest?
#
# An experiment without a network: eight queries are eight free boxes and eight free rows of logits. Gradient descent
# moves them towards three objects. *One to one*: bipartite matching, as in DETR. *Nearest*: every query is trained on
# the object that is cheapest for it, as a detector with many anchors would do.

# %%
K, Q = 3, 8
truth = [{"labels": torch.tensor([0, 1, 2]),
          "boxes": torch.tensor([[.25, .3, .3, .3], [.7, .25, .2, .35], [.6, .75, .5, .3]])}]

class Nearest(HungarianMatcher):
    """Each query takes the object that costs it least; an object may have many queries, or none."""

    @torch.no_grad()
    def __call__(self, outputs, targets):
        pairs = []
        for logits, boxes, target in zip(outputs["pred_logits"], outputs["pred_boxes"], targets):
            l1 = (boxes[:, None] - target["boxes"]).abs().sum(-1)                                # (Q,M)
            giou = paired_generalized_box_iou(*(box_cxcywh_to_xyxy(x) for x in (boxes[:, None], target["boxes"])))
            best = (-logits.softmax(-1)[:, target["labels"]] + 5 * l1 - 2 * giou).argmin(-1)     # (Q)
            pairs.append((torch.arange(len(best)), best))
        return pairs

def descend(matcher, steps):
    """Free queries, moved by the set loss: their boxes after each step (steps,Q,4), the last probabilities (Q,K+1)."""
    torch.manual_seed(4)
    z, logits = torch.randn(1, Q, 4, requires_grad=True), (0.1 * torch.randn(1, Q, K + 1)).requires_grad_()
    criterion, optimizer, path = SetCriterion(K, matcher, LossConfig()), AdamW([z, logits], lr=0.05, weight_decay=0), []
    for _ in range(steps):
        outputs = {"pred_logits": logits, "pred_boxes": z.sigmoid()}
        criterion.total(criterion(outputs, truth)).backward()
        optimizer.step()
        optimizer.zero_grad()
        path.append(z.sigmoid()[0].detach())
    return torch.stack(path), logits[0].softmax(-1).detach()

runs = {"one to one": descend(HungarianMatcher(), 20 if QUICK else 400),
        "nearest": descend(Nearest(), 20 if QUICK else 400)}

# %% [markdown]
# **Predict the number 4.** After training, how many of the eight queries call something an object (p of "no object"
# below a half), in each of the two ways?

# %%
palette = ["tab:red", "tab:green", "tab:blue", "lightgrey"]
figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for axes, (name, (path, p)) in zip(panels, runs.items()):
    best = p.argmax(-1)
    draw(axes, truth[0]["boxes"], ["black"] * 3, linewidth=4)
    draw(axes, path[-1], [palette[k] for k in best], linewidth=2, linestyle="--")
    for q in range(Q):
        axes.plot(path[:, q, 0], path[:, q, 1], color=palette[best[q]], linewidth=1)
    axes.set_title(f"{name}: {int((best < K).sum())} of {Q} queries say “object”", fontsize=10)
for name, (_, p) in runs.items():
    found = [int((p.argmax(-1) == k).sum()) for k in range(K)]
    print(f"{name}: {int((p[:, K] < 0.5).sum())} queries call something an object; of each object: {found}")

# %% [markdown]
# Both find all objects. *Nearest* finds each several times, and a second program has to remove the duplicates:
# [non-maximum suppression](../scratch/ops/beyond/nms.py). One to one leaves one query for each object. The others
# learn to be silent (grey), and their boxes stay where they are.
#
# ## What to take away
#
# * Bipartite matching is decided anew in every step, by cost. Only the matching says which prediction belongs to which
#   object.
# * Unmatched queries learn "no object", with a tenth of the weight. Their boxes learn nothing.
# * One-to-one assignment replaces non-maximum suppression. Its price: few queries get a box gradient in each step,
#   which is one reason why DETR learns slowly ([docs/results.md](../docs/results.md#what-makes-it-learn-in-minutes)).
#
# **Try it:** set `eos_coef` to 1 in `LossConfig()` and predict what changes in section 4. Then read
# [criterion](../scratch/objective/criterion.py) from the top: you know all of it.
