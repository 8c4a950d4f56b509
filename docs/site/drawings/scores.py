"""scores: from logits to probabilities, the log-sum-exp as a smooth maximum, and what a wrong prediction costs."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing, shown
from scratch.ops.activations import log_softmax, softmax
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.cross_entropy import cross_entropy

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
GAMMAS = (0.0, 2.0)


def log_sum_exp(z: torch.Tensor) -> torch.Tensor:
    """log Σ e^z of each row, as log_softmax has it: z − log_softmax(z), for any of the row's entries."""
    return (z - log_softmax(z, -1))[..., 0]


def paint_softmax(canvas: Canvas) -> None:
    P = softmax(LOGITS, 0)
    canvas.text(86, 18, "logits z", 13, bold=True)
    canvas.text(268, 18, "softmax(z), sums to 1", 13, bold=True)
    for k, (z, p) in enumerate(zip(LOGITS.tolist(), P.tolist())):
        y = 34 + 30 * k
        canvas.rect(86 + min(z, 0) * 32, y, abs(z) * 32, 20, "blue", opacity=0.65, radius=2)
        canvas.text(86 + z * 32 + (6 if z >= 0 else -6), y + 14.5, shown(z, 0), 12.5, "start" if z >= 0 else "end")
        canvas.rect(206, y, p * 140, 20, "orange", opacity=0.65, radius=2)
        canvas.text(206 + p * 140 + 6, y + 14.5, shown(p, 3), 12.5, "start")
    canvas.line([(86, 30), (86, 150)], "soft", 0.8)
    canvas.line([(206, 30), (206, 150)], "soft", 0.8)
    canvas.line([(168, 90), (194, 90)], arrow=True)

    canvas.text(8, 186, "log-sum-exp of z and 0: a smooth max(z, 0)", 12.5, "start", bold=True)
    left, wide, span = 40, 300, 4.0

    def place(z: float, v: float) -> tuple[float, float]:
        return left + wide * (z + span) / (2 * span), 330 - 30 * v

    for v in (0, 2, 4):
        canvas.line([(left, 330 - 30 * v), (left + wide, 330 - 30 * v)], "line", 0.7)
        canvas.text(left - 8, 334 - 30 * v, str(v), 11.5, "end", "soft")
    z = torch.linspace(-span, span, 81, dtype=torch.float64)
    smooth = log_sum_exp(torch.stack((z, torch.zeros_like(z)), -1))
    canvas.line([place(a, max(a, 0.0)) for a in z.tolist()], "soft", 1.5, "4 3")
    canvas.line([place(a, b) for a, b in zip(z.tolist(), smooth.tolist())], "blue", 2.2)
    middle = smooth[40].item()
    canvas.circle(*place(0, middle), 3.5, "blue")
    canvas.text(place(0, 0)[0] - 8, place(0, middle)[1] - 8, f"z = 0: log 2 = {shown(middle, 3)}", 12, "end", "blue")
    canvas.text(place(3.2, 0)[0], place(0, 1.1)[1], "max(z, 0)", 12, colour="soft")
    for a in (-4, -2, 0, 2, 4):
        canvas.text(place(a, 0)[0], 348, shown(a, 0), 11.5, colour="soft")


def _curves(canvas: Canvas, height: float, most: float) -> tuple:
    left, wide, bottom = 44, 300, height - 40

    def place(p: float, v: float) -> tuple[float, float]:
        return left + wide * p, bottom - (bottom - 20) * v / most

    for v in range(int(most) + 1):
        canvas.line([place(0, v), place(1, v)], "line", 0.7)
        canvas.text(left - 8, place(0, v)[1] + 4, str(v), 11.5, "end", "soft")
    for p in (0, 0.25, 0.5, 0.75, 1):
        canvas.text(place(p, 0)[0], bottom + 16, shown(p).rstrip("0").rstrip(".") or "0", 11.5, colour="soft")
    canvas.text(left + wide / 2, bottom + 33, "p, the probability of the right class", 12, colour="soft")
    return place


def cross_entropy_of(p: float) -> float:
    """The loss of a prediction that gives the right one of two classes the probability p."""
    z = torch.tensor([p, 1 - p], dtype=torch.float64).log()
    return cross_entropy(z[None], torch.tensor([0])).item()


def focal_loss_of(p: float, gamma: float) -> float:
    """The focal loss of a positive that is given the probability p, without the class weight α."""
    z = torch.tensor([p], dtype=torch.float64)
    return sigmoid_focal_loss((z / (1 - z)).log(), torch.ones(1, dtype=torch.float64), -1, gamma).item()


def paint_cross_entropy(canvas: Canvas) -> None:
    place = _curves(canvas, 240, 4)
    canvas.line([place(k / 200, cross_entropy_of(k / 200)) for k in range(4, 200)], "blue", 2.2)
    for p, dx, dy in ((0.1, 10, 0), (0.5, 8, -6), (0.9, -10, -14)):
        v = cross_entropy_of(p)
        canvas.circle(*place(p, v), 3.5, "orange")
        canvas.text(place(p, v)[0] + dx, place(p, v)[1] + dy, f"p = {p}: {shown(v)}", 12.5,
                    "start" if dx > 0 else "middle", "orange")
    canvas.text(place(0.62, 3)[0], place(0, 3.4)[1], "−log p", 14, bold=True, colour="blue")


def paint_focal(canvas: Canvas) -> None:
    place = _curves(canvas, 240, 3)
    for gamma, colour in zip(GAMMAS, ("blue", "orange")):
        canvas.line([place(k / 200, focal_loss_of(k / 200, gamma)) for k in range(11, 200)], colour, 2.2)
    for gamma, colour, y in zip(GAMMAS, ("blue", "orange"), (44, 64)):
        name = "γ = 0: cross-entropy" if not gamma else f"γ = {gamma:.0f}: focal loss"
        easy = focal_loss_of(0.9, gamma)
        canvas.text(336, y, f"{name}, at p = 0.9: {shown(easy, 3)}", 12.5, "end", colour)


SOFTMAX = drawing(
    "softmax", "softmax: logits become probabilities; their log-sum-exp is a smooth maximum",
    "Bars of the logits 2, 1, 0, −1 and of their softmax; below, the log-sum-exp of z and 0 as a curve just above "
    "max(z, 0), furthest from it at z = 0, where it is log 2.", 358, paint_softmax)
CROSS_ENTROPY = drawing(
    "cross-entropy", "Cross-entropy: what the probability of the right class costs",
    "The curve −log p falls from above 4 near p = 0 to 0 at p = 1.", 240, paint_cross_entropy)
FOCAL_LOSS = drawing(
    "focal-loss", "Focal loss: predictions that are right already count little",
    "The cross-entropy and the focal loss with γ = 2 over the probability of the right class; at p = 0.9 the focal "
    "loss is a hundredth of the cross-entropy.", 240, paint_focal)
