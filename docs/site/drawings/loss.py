"""loss: every decoder layer has a loss of its own, after a matching of its own."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing, shown
from docs.site.example import BOXES, LOGITS, OBJECTS, TRUE
from scratch.config import LossConfig
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher

LAYERS = 6
# What the pictured detector predicts in its last layer; the layers before it are on the way there in equal steps.
LAST_LOGITS = ((4.0, 0.0, 0.0), (0.0, 0.0, 4.0), (0.0, 3.0, 1.0))
LAST_BOXES = (TRUE[0], (0.42, 0.52, 0.18, 0.42), (0.69, 0.51, 0.20, 0.38))


def by_layer() -> tuple[list[dict[str, float]], float]:
    """The weighted losses of each decoder layer, and their total over all layers, by the published criterion."""
    start, end = ([torch.tensor([x], dtype=torch.float64) for x in pair] for pair in
                  ((LOGITS, BOXES), (LAST_LOGITS, LAST_BOXES)))
    layers = []
    for layer in range(LAYERS):
        logits, boxes = (a + (b - a) * layer / (LAYERS - 1) for a, b in zip(start, end))
        layers.append({"pred_logits": logits, "pred_boxes": boxes})
    targets = [{"labels": torch.arange(len(TRUE)), "boxes": torch.tensor(TRUE, dtype=torch.float64), "image_id": 0}]
    criterion = SetCriterion(len(OBJECTS), HungarianMatcher(), LossConfig())
    losses = criterion({**layers[-1], "aux_outputs": layers[:-1]}, targets)
    weighted = [{name: weight * losses[name if layer == LAYERS - 1 else f"{name}_{layer}"].item()
                 for name, weight in criterion.weight_dict.items()} for layer in range(LAYERS)]
    return weighted, criterion.total(losses).item()


def paint(canvas: Canvas) -> None:
    layers, total = by_layer()
    parts = (("loss_ce", "1·loss_ce", "blue"), ("loss_bbox", "5·loss_bbox", "orange"),
             ("loss_giou", "2·loss_giou", "green"))
    bottom, scale = 214, 48
    for v in range(4):
        canvas.line([(34, bottom - scale * v), (352, bottom - scale * v)], "line", 0.7)
        canvas.text(28, bottom - scale * v + 4, str(v), 11.5, "end", "soft")
    for k, losses in enumerate(layers):
        x, y = 44 + 52 * k, float(bottom)
        for name, _, colour in parts:
            height = scale * losses[name]
            y -= height
            canvas.rect(x, y, 40, height, colour, opacity=0.7)
        canvas.text(x + 20, y - 6, shown(sum(losses.values())), 12.5, bold=True)
        canvas.text(x + 20, bottom + 17, f"layer {k + 1}", 11.5)
    canvas.text(198, bottom + 36, "each layer has a matching of its own", 12, colour="soft")
    canvas.text(198, bottom + 60, f"total = sum of all layers = {shown(total)}", 13.5, bold=True)
    for k, (_, words, colour) in enumerate(parts):
        canvas.rect(30 + 112 * k, 14, 13, 13, colour, opacity=0.7)
        canvas.text(48 + 112 * k, 25, words, 12.5, "start")


LOSS = drawing(
    "loss-by-layer", "Auxiliary losses: each decoder layer is matched and trained by itself",
    "Stacked bars of the three weighted losses for six decoder layers whose predictions approach the truth; the "
    "losses fall from layer to layer, and their sum is the total.", 284, paint)
