"""One image from logits to gradients: every number of docs/trace.md, by the project's own code and by the formulas.

    python -m tests.objective.test_trace        writes docs/trace.md again
"""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scratch.config import LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.boxes import giou_of_two

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trace.md"
CLASSES, OBJECTS = ("cat", "dog"), ("cat", "dog")
K, Q, M = 2, 3, 2
LOGITS = [[2.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 2.0]]  # of cat, dog, no object
BOXES = [[0.32, 0.47, 0.22, 0.36], [0.40, 0.52, 0.18, 0.42], [0.75, 0.56, 0.25, 0.30]]  # cx, cy, w, h
TRUE = [[0.30, 0.50, 0.20, 0.40], [0.70, 0.50, 0.20, 0.40]]


def computed() -> dict[str, Tensor]:
    """All numbers of the page, by the matcher and the criterion that train."""
    logits, boxes = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (LOGITS, BOXES))
    targets = [{"labels": torch.tensor([0, 1]), "boxes": torch.tensor(TRUE, dtype=torch.float64), "image_id": 0}]
    outputs, matcher = {"pred_logits": logits, "pred_boxes": boxes}, HungarianMatcher()
    criterion = SetCriterion(K, matcher, LossConfig())
    ((query, target),) = matcher(outputs, targets)
    losses = criterion(outputs, targets)
    total = criterion.total(losses)
    total.backward()
    return {"query": query, "target": target, **losses, "total": total, "logits": logits.grad[0], "boxes": boxes.grad[0]}


def probabilities() -> list[list[float]]:
    return [[exp(z) / sum(map(exp, row)) for z in row] for row in LOGITS]


def corners(box: list[float]) -> list[float]:
    cx, cy, w, h = box
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def l1(q: int, t: int) -> float:
    return sum(abs(a - b) for a, b in zip(BOXES[q], TRUE[t]))


def giou(q: int, t: int) -> float:
    return giou_of_two(corners(BOXES[q]), corners(TRUE[t]))


def cost(q: int, t: int) -> float:
    return -probabilities()[q][t] + 5 * l1(q, t) - 2 * giou(q, t)


def number(x: float) -> str:
    return f"{x + 0.0:.3f}".replace("-", "−") if round(x, 3) else "0"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def page() -> str:
    """docs/trace.md."""
    got, p = computed(), probabilities()
    pairs = dict(zip(got["query"].tolist(), got["target"].tolist()))
    queries = [f"query {q}" for q in range(Q)]
    label = [pairs.get(q, K) for q in range(Q)]
    names = [*CLASSES, "no object"]
    weight = [1.0 if k < K else 0.1 for k in label]
    ways = [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    return "\n\n".join([
        "# One image, from logits to gradients",
        "One decoder layer predicts for one image; what happens to these numbers in one training step? Three object queries, "
        "two true objects (a cat and a dog), K = 2 classes, default weights. Every number is computed by "
        "tests/objective/test_trace.py, which fails if this page says another.",
        "## 1 The predictions",
        "The heads give each query 3 logits (cat, dog, no object) and a box (cx, cy, w, h). softmax makes probabilities:",
        table(["", "logits", "p(cat)", "p(dog)", "p(no object)", "box"],
              [[queries[q], str(LOGITS[q]), *map(number, p[q]), str(BOXES[q])] for q in range(Q)]),
        table(["true object", "box"], [[OBJECTS[t], str(TRUE[t])] for t in range(M)]),
        "## 2 The matching costs",
        "cost = −p(class) + 5·L1 − 2·GIoU ([objective/matcher](../scratch/objective/matcher.py)):",
        table(["query, object", "−p", "L1", "GIoU", "cost"],
              [[f"{q}, {OBJECTS[t]}", number(-p[q][t]), number(l1(q, t)), number(giou(q, t)), number(cost(q, t))]
               for q in range(Q) for t in range(M)]),
        "## 3 The pairs",
        "Bipartite matching gives each object its own query, so that the sum of costs is smallest. There are six ways:",
        table(["query of the cat", "query of the dog", "sum"],
              [[str(a), str(b), number(cost(a, 0) + cost(b, 1))] for a, b in ways]),
        f"The Hungarian algorithm ([ops/hungarian](../scratch/ops/hungarian.py)) finds cat → query "
        f"{got['query'][got['target'].tolist().index(0)]}, dog → query {got['query'][got['target'].tolist().index(1)]} "
        "without trying all. Query 1 has a box near the cat, too, but each object has one query only. So it is trained to "
        "say \"no object\", which is how DETR learns not to predict duplicates.",
        "## 4 The losses",
        "The class loss is a weighted cross-entropy ([objective/criterion](../scratch/objective/criterion.py)):",
        table(["", "target", "weight w", "−log p(target)"],
              [[queries[q], names[label[q]], str(weight[q]), number(-log(p[q][label[q]]))] for q in range(Q)]),
        f"loss_ce = Σ w·(−log p) / Σ w = {number(got['loss_ce'].item())}, with Σ w = {sum(weight):.1f}. The box losses are "
        f"sums over the pairs, divided by the number of objects, {M}: loss_bbox = {number(got['loss_bbox'].item())} (L1), "
        f"loss_giou = {number(got['loss_giou'].item())} (1 − GIoU). Together",
        f"    total = 1·{number(got['loss_ce'].item())} + 5·{number(got['loss_bbox'].item())} + "
        f"2·{number(got['loss_giou'].item())} = {number(got['total'].item())}",
        f"class_error is {got['class_error'].item():.0f} per cent: one of the two matched queries, that of the dog, has "
        "another class as its best.",
        "## 5 The gradients",
        "Backpropagation begins here. For a logit, ∂total/∂z = w·(p − target) / Σ w, with target 1 at the target class and 0 "
        "elsewhere:",
        table(["", *names], [[queries[q], *map(number, got["logits"][q].tolist())] for q in range(Q)]),
        "A step against the gradient raises what has a negative one: query 0's cat, query 2's dog, query 1's \"no object\", "
        "the last one gently, because its weight is a tenth. For a box:",
        table(["", "cx", "cy", "w", "h"], [[queries[q], *map(number, got["boxes"][q].tolist())] for q in range(Q)]),
        "A step against the gradient moves query 2's box left and up, and makes it narrower and taller: towards the dog. "
        "Query 1 is not matched, so its box has no gradient.",
        "From here the gradients go through the heads, the decoder, the encoder and the backbone.",
    ]) + "\n"


def test_the_page_is_what_the_code_computes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_pairs_are_the_cheapest_of_all_six() -> None:
    got = computed()
    sums = {(a, b): cost(a, 0) + cost(b, 1) for a in range(Q) for b in range(Q) if a != b}
    assert min(sums, key=sums.get) == (0, 2) and got["query"].tolist() == [0, 2] and got["target"].tolist() == [0, 1]


def test_the_losses_are_those_of_the_formulas() -> None:
    got, p = computed(), probabilities()
    ce = (-log(p[0][0]) - log(p[2][1]) - 0.1 * log(p[1][2])) / 2.1
    bbox, gious = (l1(0, 0) + l1(2, 1)) / 2, (2 - giou(0, 0) - giou(2, 1)) / 2
    assert [got[name].item() for name in ("loss_ce", "loss_bbox", "loss_giou", "total", "class_error")] == pytest.approx(
        [ce, bbox, gious, ce + 5 * bbox + 2 * gious, 50.0], abs=1e-12)


def test_the_gradients_of_the_logits_are_those_of_the_formula() -> None:
    got, p = computed(), probabilities()
    for q, (label, weight) in enumerate([(0, 1.0), (2, 0.1), (1, 1.0)]):
        expected = [weight * (p[q][k] - (k == label)) / 2.1 for k in range(K + 1)]
        assert got["logits"][q].tolist() == pytest.approx(expected, abs=1e-12)


def test_the_gradients_of_the_boxes_are_slopes_of_the_total() -> None:
    def box_loss(box: list[float]) -> float:
        distance = sum(abs(a - b) for a, b in zip(box, TRUE[1]))
        return (5 * distance + 2 * (1 - giou_of_two(corners(box), corners(TRUE[1])))) / 2

    got, step = computed()["boxes"], 1e-6
    for i in range(4):
        low, high = ([x + s * (i == j) for j, x in enumerate(BOXES[2])] for s in (-step, step))
        assert got[2, i].item() == pytest.approx((box_loss(high) - box_loss(low)) / (2 * step), abs=1e-5)
    assert [x > 0 for x in got[2].tolist()] == [True, True, True, False]  # left, up, narrower, taller
    assert got[1].tolist() == [0, 0, 0, 0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
