"""picture: how does a graph turn a picture of any size into what the network takes?

    pictures uint8 (B,H,W,3) ─ size ─ resize ─ normalise ─▶ images float (B,3,h,w), pad_mask (B,h,w)

The network has been trained on pictures that Pillow made smaller, so the graph computes what Pillow
does, to the last bit. Its bilinear filter with antialiasing gives one axis of n pixels m of them:

    s = n / m                  pixels of the old row for one of the new
    r = max(s, 1)              the radius of the filter: it is wider where the row becomes shorter
    c_j = (j + ½)·s            the middle of new pixel j
    w_jk = max(0, 1 − |k + ½ − c_j| / r),  divided by its sum over k
    new_j = ⌊½ + Σ_k w_jk · old_k⌋

      old   │ · │ · │ · │ · │ · │ · │ · │      w: a triangle of width 2r around c_j
      new         ╱╲      ╱╲      ╱╲

Rows first, then columns; both results are rounded to whole numbers. Weights are whole numbers too,
in units of 2⁻²², so that all sums are exact, in any order and on any machine. (Pillow 13 takes the
columns first where that is less work: then some values differ by 1 of 255.) The node that runtimes
have for it, Resize with antialias, counts in float32, and some values differ. Only a few old pixels have a weight; the sum visits them one by one, so that a photograph
of 12 megapixels needs no table of all products.

The rule of the sizes is that of data/transforms, rounding included. Pictures of one call have one
size, so nothing is padded. Proven in tests/exporting/test_picture.py.
Read: picture_graph → size_shown → resized_axis → filter_of
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx

from commands.exporting.nodes import Graph, Value
from scratch.config import IMAGENET_MEAN, IMAGENET_STD

UNIT = 2**22  # weights are counted in 1/UNIT: 255 · UNIT still fits into 32 bits


class Size(NamedTuple):
    """How large a picture is shown (DataConfig): sides of `short_side` if square, else by the rule of both sides."""

    short_side: int
    max_size: int
    square: bool


def picture_graph(size: Size, ir_version: int) -> onnx.ModelProto:
    """pictures uint8 (B,H,W,3) → images float32 (B,3,h,w), pad_mask bool (B,h,w), and the sides (H,W) int64 (2,)."""
    g = Graph("picture")
    pictures = g.input("pictures", np.uint8, ["batch", "height", "width", 3])
    shape = pictures.shape()
    H, W = shape.at(1), shape.at(2)
    h, w = size_shown(H, W, size)
    turned = pictures.transposed(0, 2, 1, 3)                                        # (B,W,H,3)
    narrow = resized_axis(turned, W, w).transposed(0, 2, 1, 3)                      # (B,H,w,3)
    shown = resized_axis(narrow, H, h).transposed(0, 3, 1, 2)                       # (B,3,h,w)
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    g.output("images_shown", (shown.cast(np.float32) / 255 - mean) / std, ["batch", 3, "h", "w"])
    g.output("nothing_padded", shown.at(0, axis=1) > 255, ["batch", "h", "w"])
    g.output("sides", shape.at(np.array([1, 2])), [2])
    return g.model(ir_version)


def size_shown(H: Value, W: Value, size: Size) -> tuple[Value, Value]:
    """The (height, width) of a picture of H × W pixels at evaluation: `Augmentation.evaluation_size` as nodes."""
    g = H.graph
    if size.square:
        side = H * 0 + size.short_side
        return side, side
    short, long = g("Min", H, W), g("Max", H, W)
    # Python's round(a / b) is that of a runtime: double precision, halves to the even number.
    limited = g("Round", (short * size.max_size).cast(np.float64) / long.cast(np.float64)).cast(np.int64)
    least = g("Max", limited, 1)
    too_long = long * size.short_side > short * size.max_size
    side = g("Where", too_long, least, size.short_side, dtype=np.int64)
    other = g("Min", side * long / short, size.max_size)
    lying = H > W
    return g("Where", lying, other, side, dtype=np.int64), g("Where", lying, side, other, dtype=np.int64)


def resized_axis(x: Value, n: Value, m: Value) -> Value:
    """uint8 (B,n,·,3) → uint8 (B,m,·,3): axis 1 resized from n to m pixels."""
    index, weight, count = filter_of(n, m)                                          # (taps,m), (taps,m), ()
    g, shape = x.graph, x.shape()
    shape = g("Concat", shape.at([0]), m.with_axes(0), shape.at([2, 3]), axis=0)
    half = g("Expand", np.array(UNIT // 2, np.int32), shape, dtype=np.int32)        # (B,m,·,3)

    def weighted(body: Graph, t: Value) -> Value:
        old = body("Gather", x, body("Gather", index, t), axis=1)                   # (B,m,·,3)
        return old.cast(np.int32) * body("Gather", weight, t).with_axes(1, 2)

    return (g.sum_over(count, half, weighted) / UNIT).cast(np.uint8)


def filter_of(n: Value, m: Value) -> tuple[Value, Value, Value]:
    """Which of n old pixels each of m new ones sees, int64 (taps,m), their weights, int32 (taps,m), and how many."""
    g = n.graph
    n, m = n.cast(np.float64), m.cast(np.float64)
    s = n / m
    r = g("Max", s, 1)
    middle = (g("Range", np.array(0.0), m, np.array(1.0), dtype=np.float64) + 0.5) * s       # (m,)
    first = g("Max", g("Floor", middle - r + 0.5), 0)
    last = g("Min", g("Floor", middle + r + 0.5), n)                                # after the last one that is seen
    taps = g("Ceil", r) * 2 + 1
    k = first.with_axes(0) + g("Range", np.array(0.0), taps, np.array(1.0), dtype=np.float64).with_axes(1)  # (taps,m)
    height = g("Max", g("Neg", g("Abs", (k - middle.with_axes(0) + 0.5) / r)) + 1, 0)
    height = g("Where", k < last.with_axes(0), height, 0, dtype=np.float64)
    weight = height / g("ReduceSum", height, np.array([0]))
    return g("Min", k, n - 1).cast(np.int64), (weight * UNIT + 0.5).cast(np.int32), taps.cast(np.int64)
