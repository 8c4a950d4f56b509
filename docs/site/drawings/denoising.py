"""denoising: which queries may see each other, and what a noised box looks like."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing
from docs.site.example import TRUE
from scratch.model.anchors.denoising import BOX_NOISE, noised_boxes
from scratch.model.anchors.queries import attention_mask

MATCHED, OBJECTS, COPIES = 5, 3, 3


def mask() -> torch.Tensor:
    """True where query i may not attend to query j: five matched queries, then three noised copies of three objects."""
    return attention_mask([MATCHED, *[OBJECTS] * COPIES], torch.device("cpu"))


def noised() -> torch.Tensor:
    """Noised copies (R,2,4) of the two true boxes of the worked example."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return noised_boxes(torch.tensor(TRUE).expand(4, -1, -1))


def paint_mask(canvas: Canvas) -> None:
    forbidden, cell, left, top = mask(), 17, 78, 46
    T = len(forbidden)
    starts = [0, *(MATCHED + OBJECTS * k for k in range(COPIES + 1))]
    names = ("matched", *(f"copy {k + 1}" for k in range(COPIES)))
    colours = ("blue", "orange", "green", "violet")
    for i in range(T):
        part = sum(i >= s for s in starts[1:-1])
        for j in range(T):
            closed = bool(forbidden[i, j])
            canvas.rect(left + j * cell, top + i * cell, cell, cell, "soft" if closed else colours[part], "line",
                        0.16 if closed else 0.55)
    for k, (name, colour) in enumerate(zip(names, colours)):
        middle = (starts[k] + starts[k + 1]) / 2 * cell
        canvas.text(left - 8, top + middle + 4, name, 12, "end", colour)
        canvas.text(left + middle, top - 8, name, 12, colour=colour)
    canvas.text(left + T * cell / 2, 18, "may attend to …", 12, colour="soft")
    allowed = int((~forbidden).sum())
    canvas.text(180, top + T * cell + 24, f"coloured: allowed, {allowed} of {T * T} pairs", 12.5)
    canvas.text(180, top + T * cell + 42, "grey: forbidden, so that no label leaks", 12.5, colour="soft")


def paint_noise(canvas: Canvas) -> None:
    size, left, top = 320, 20, 12
    canvas.rect(left, top, size, 0.72 * size, "none", "line", radius=4)

    def box(values: list[float], colour: str, thick: float, dash: str = "", opacity: float = 0.0) -> None:
        cx, cy, w, h = values
        canvas.rect(left + (cx - w / 2) * size, top + (cy - 0.14 - h / 2) * size, w * size, h * size,
                    colour if opacity else "none", colour, opacity or 1, thick=thick, dash=dash)

    for copy in noised().tolist():
        for values, colour in zip(copy, ("blue", "orange")):
            box(values, colour, 1.2, "4 3")
    for values, colour, name in zip(TRUE, ("blue", "orange"), ("cat", "dog")):
        box(list(values), colour, 2.4, opacity=0.15)
        canvas.text(left + values[0] * size, top + (values[1] - 0.14) * size + 5, name, 14, bold=True, colour=colour)
    canvas.text(180, top + 0.72 * size + 22, f"full: true boxes; dashed: noised copies, λ = {BOX_NOISE}", 12.5)


MASK = drawing(
    "denoising-mask", "The attention mask of denoising: every part sees itself alone",
    "A square of 14 by 14 queries: five matched ones and three noised copies of three objects. Only the four blocks "
    "on the diagonal are allowed.", 340, paint_mask)
NOISE = drawing(
    "noised-boxes", "Noised boxes: the decoder learns to repair them",
    "Two true boxes, each with four dashed copies that are shifted and scaled a little.", 274, paint_noise)
