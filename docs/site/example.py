"""example: the one image of docs/trace.md, from logits to gradients, by the matcher and the criterion that train.

tests/site/test_play.py holds it against tests/objective/test_trace.py, which writes that page.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from scratch.config import LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher

OBJECTS = ("cat", "dog")  # the classes, and the two true objects
LOGITS = ((2.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.0, 0.0, 2.0))  # of cat, dog, no object, for each of three queries
BOXES = ((0.32, 0.47, 0.22, 0.36), (0.40, 0.52, 0.18, 0.42), (0.75, 0.56, 0.25, 0.30))  # cx, cy, w, h
TRUE = ((0.30, 0.50, 0.20, 0.40), (0.70, 0.50, 0.20, 0.40))


@lru_cache(maxsize=1)
def computed() -> dict[str, Tensor]:
    """`objective` of the example's own numbers."""
    return objective(LOGITS, BOXES)


def objective(logits: tuple, boxes: tuple) -> dict[str, Tensor]:
    """Pairs ("query", "target"), losses, their total, and its gradients by "logits" (Q,3) and by "boxes" (Q,4)."""
    z, b = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (logits, boxes))
    targets = [{"labels": torch.arange(len(TRUE)), "boxes": torch.tensor(TRUE, dtype=torch.float64), "image_id": 0}]
    outputs, matcher = {"pred_logits": z, "pred_boxes": b}, HungarianMatcher()
    criterion = SetCriterion(len(OBJECTS), matcher, LossConfig())
    ((query, target),) = matcher(outputs, targets)
    losses = criterion(outputs, targets)
    total = criterion.total(losses)
    total.backward()
    return {"query": query, "target": target, **losses, "total": total, "logits": z.grad[0], "boxes": b.grad[0]}
