"""windows: the receptive field of one pixel after three layers, and a convolution as one matrix product (im2col)."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing
from scratch.ops.conv2d import conv2d, conv2d_im2col

PIXELS, KERNEL, LAYERS = 17, 3, 3
IMAGE = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(1, 1, 3, 3)
FILTER = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64).reshape(1, 1, 2, 2)


def seen_by_layer(stride: int) -> list[tuple[int, list[int]]]:
    """For the input and each layer: its number of pixels, and those that one pixel of the last layer depends on.

    That pixel is the middle one; a pixel is seen if the gradient of the last one there is not 0.
    """
    weight = torch.ones(1, 1, 1, KERNEL, dtype=torch.float64)
    maps = [torch.ones(1, 1, 1, PIXELS, dtype=torch.float64, requires_grad=True)]
    for _ in range(LAYERS):
        maps.append(conv2d_im2col(maps[-1], weight, stride=(1, stride), padding=(0, 1)))
    last = maps[-1].flatten()
    gradients = torch.autograd.grad(last[len(last) // 2], maps)
    return [(g.numel(), g.flatten().nonzero().flatten().tolist()) for g in gradients]


def columns() -> list[list[int]]:
    """The im2col matrix of IMAGE for a 2×2 kernel: a filter that is 1 at one tap alone copies what that tap sees."""
    one_tap = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    return conv2d(IMAGE, one_tap)[0].flatten(1).int().tolist()


def paint_receptive_field(canvas: Canvas) -> None:
    cell, left = 18.6, 36
    for k, stride in enumerate((1, 2)):
        top = 24 + 182 * k
        canvas.text(8, top - 8, f"three layers, k = 3, stride {stride}", 13, "start", bold=True)
        rows = seen_by_layer(stride)
        places = {}
        for layer, (count, seen) in enumerate(rows):
            y = top + 40 * (LAYERS - layer)
            step = stride**layer
            for i in range(count):
                x = left + i * step * cell
                places[layer, i] = x + cell / 2, y
                colour = ("blue" if layer else "orange") if i in seen else "none"
                canvas.rect(x + 1, y, cell - 2, 22, colour, "line", 0.35 + 0.1 * layer if colour != "none" else 1, 3)
            canvas.text(left - 8, y + 15, "x" if layer == 0 else f"y{'₁₂₃'[layer - 1]}", 12, "end", "soft")
            words = f"{len(seen)} pixels" if layer == 0 else str(len(seen))
            middle = places[layer, seen[len(seen) // 2]][0]
            canvas.text(middle, y + 15.5, words, 12, bold=True)
        for layer in range(1, LAYERS + 1):
            for i in (rows[layer][1][0], rows[layer][1][-1]):
                x, y = places[layer, i]
                below = [j for j in range(rows[layer - 1][0]) if abs(j - i * stride) <= 1]
                for j in (below[0], below[-1]):
                    canvas.line([(x, y + 22), (places[layer - 1, j][0], y + 40)], "soft", 0.8)


def paint_im2col(canvas: Canvas) -> None:
    colours, cell = ("blue", "orange", "green", "violet"), 30
    canvas.text(60, 20, "image x", 13, bold=True)
    pixels = [[str(int(v)) for v in row] for row in IMAGE[0, 0].tolist()]
    canvas.grid(15, 30, cell, pixels, 13)
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        inset = 1.5 + 1.6 * k
        canvas.rect(15 + j * cell + inset, 30 + i * cell + inset, 2 * cell - 2 * inset, 2 * cell - 2 * inset,
                    stroke=colours[k], thick=2, radius=4)
    canvas.text(60, 140, "four windows, 2×2", 11.5, colour="soft")
    canvas.line([(122, 75), (154, 75)], arrow=True)
    canvas.text(138, 66, "copy", 11.5, colour="soft")
    canvas.text(230, 20, "one column a window", 13, bold=True)
    matrix = columns()
    canvas.grid(170, 30, cell, [[str(v) for v in row] for row in matrix], 13, lambda i, j: (colours[j], 0.22))
    canvas.text(302, 50, "4 rows:", 11.5, "start", "soft")
    canvas.text(302, 66, "the taps", 11.5, "start", "soft")

    weights = [str(int(v)).replace("-", "−") for v in FILTER.flatten().tolist()]
    y = conv2d_im2col(IMAGE, FILTER)[0, 0]
    canvas.text(15, 186, "filter, a row", 13, "start", bold=True)
    canvas.grid(15, 196, cell, [weights], 13)
    canvas.text(150, 216, "·", 22)
    canvas.grid(166, 174, 17, [[""] * 4] * 4, 9, lambda i, j: (colours[j], 0.22))
    canvas.text(254, 216, "=", 16)
    flat = [str(int(v)).replace("-", "−") for v in y.flatten().tolist()]
    canvas.text(266, 186, "output y", 13, "start", bold=True)
    canvas.grid(266, 196, 22, [flat], 12, lambda i, j: (colours[j], 0.22), high=30)
    first = " + ".join(f"{w}·{row[0]}" for w, row in zip(weights, matrix))
    canvas.text(15, 266, f"y₀ = {first} = {flat[0]}", 12.5, "start", "blue")


RECEPTIVE_FIELD = drawing(
    "receptive-field", "The receptive field grows with every layer, and faster with a stride",
    f"Two stacks of three layers over a row of {PIXELS} pixels. With stride 1 one pixel of the last layer depends on 7 "
    "pixels of the image, with stride 2 on 15.", 372, paint_receptive_field)
IM2COL = drawing(
    "im2col", "im2col: each window becomes a column, and a convolution one matrix product",
    "A 3×3 image with four 2×2 windows in four colours; a matrix with one column for each window; the filter as a "
    "row, times that matrix, gives the four output pixels.", 280, paint_im2col)
