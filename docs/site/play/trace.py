"""trace: one image from logits to gradients; the reader changes what the detector predicts."""

from __future__ import annotations

from typing import Any

from docs.site.example import BOXES, LOGITS, OBJECTS, TRUE, computed
from docs.site.play.widget import widget
from scratch.config import LossConfig
from scratch.objective.matcher import HungarianMatcher

RATES = {"logits": 1.0, "boxes": 0.002}  # of the button's step: plain gradient descent


def data() -> dict[str, Any]:
    """The example of docs/trace.md, the weights of costs and losses, and what the criterion computes for it."""
    matcher, loss, found = HungarianMatcher(), LossConfig(), computed()
    weights = {"cost_class": matcher.cost_class, "cost_bbox": matcher.cost_bbox, "cost_giou": matcher.cost_giou,
               "ce": loss.ce_loss_coef, "bbox": loss.bbox_loss_coef, "giou": loss.giou_loss_coef,
               "eos_coef": loss.eos_coef}
    return {"objects": OBJECTS, "logits": LOGITS, "boxes": BOXES, "true": TRUE, "weights": weights, "rates": RATES,
            "total": found["total"].item()}


TRACE = widget(
    "trace", "One image, from logits to gradients", "objective/criterion",
    "Three object queries predict for one image with a cat and a dog. Change their logits and boxes, and follow the "
    "numbers: costs, pairs, losses, gradients. The start is the example of docs/trace.md.\n\n"
    "Try: drag the box of query 1 exactly onto the cat. At which moment does the pairing change? Then press *one step "
    "against the gradient* several times: the total falls, the paired boxes move, and the box of the query without an "
    "object stays where it is. (The button moves logits by 1 times and boxes by 0.002 times their gradients.)", data)
