"""conv2d: cases and typical mistakes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor
from scratch.ops.windows import pair


def run(conv2d: Callable, **inputs: Any) -> dict:
    return one(conv2d(**inputs))


def reference(**inputs: Any) -> dict:
    return {"y": F.conv2d(inputs.pop("x"), **inputs)}


def drawn(B: int = 1, C: int = 1, O: int = 1, k: Any = 3, size: tuple = (4, 5), bias: bool = True, make: Any = draw,
          **options: Any) -> dict:
    groups = options.get("groups", 1)
    return {"x": make(B, C, *size), "weight": make(O, C // groups, *pair(k), seed=1),
            "bias": make(O, seed=2) if bias else None, **options}


CASES = (
    Case("example", "an edge filter: right neighbour minus pixel", lambda: {
        "x": tensor([[[[0, 0, 9, 9], [0, 0, 9, 9]]]]), "weight": tensor([[[[-1, 1]]]])},
        {"y": tensor([[[[0, 9, 0], [0, 9, 0]]]])}),
    Case("example", "two pixels at a time, plus a bias: 1·10 + 2·20 + 5", lambda: {
        "x": tensor([[[[1, 2, 3]]]]), "weight": tensor([[[[10, 20]]]]), "bias": tensor([5])},
        {"y": tensor([[[[55, 85]]]])}),
    Case("value", "one 3×3 filter, no bias", lambda: drawn(bias=False)),
    Case("value", "one 3×3 filter, with a bias", drawn),
    Case("value", "three channels, two filters", lambda: drawn(C=3, O=2)),
    Case("value", "as many channels as filters", lambda: drawn(C=3, O=3, size=(3, 3))),
    Case("value", "two images", lambda: drawn(B=2, C=2, O=3)),
    Case("value", "padding 1 keeps the size", lambda: drawn(padding=1)),
    Case("value", "stride 2", lambda: drawn(size=(5, 7), stride=2)),
    Case("value", "dilation 2", lambda: drawn(size=(6, 7), dilation=2)),
    Case("value", "two groups", lambda: drawn(C=4, O=6, groups=2), on_error="groups_ignored"),
    Case("value", "rows and columns apart", lambda: drawn(
        k=(2, 3), size=(6, 8), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), on_error="first_of_a_pair"),
    Case("gradient", "by x, weight and bias", lambda: drawn(C=2, O=2, size=(4, 4)), gradient=("x", "weight", "bias")),
    Case("gradient", "with stride and padding", lambda: drawn(C=2, O=2, size=(5, 5), stride=2, padding=1),
         gradient=("x", "weight", "bias")),
    Case("edges", "a stride that leaves pixels over", lambda: drawn(k=2, size=(5, 5), stride=2)),
    Case("edges", "a kernel as large as the image", lambda: drawn(size=(3, 3))),
    Case("edges", "a 1×1 kernel", lambda: drawn(C=3, O=2, k=1)),
    Case("edges", "no images", lambda: drawn(B=0, C=3, O=2, padding=1)),
    Case("edges", "one group for each channel", lambda: drawn(C=3, O=3, groups=3)),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: drawn(
        B=2, C=19, O=23, size=(13, 11), padding=1, make=random), dtype=dtype, units=3) for dtype in LOW),
    Case("precision", "bfloat16: a sum of 576 ones", lambda: {
        "x": torch.ones(1, 64, 3, 3, dtype=torch.float64), "weight": torch.ones(1, 64, 3, 3, dtype=torch.float64)},
        dtype=torch.bfloat16),
    Case("precision", "under autocast the result stays bfloat16, with a float32 bias too", lambda: {
        name: value.float() if isinstance(value, Tensor) else value
        for name, value in drawn(B=2, C=5, O=7, padding=1, make=random).items()}, autocast=True, result=torch.bfloat16,
        units=3, bonus=True),
)


def attempt(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
            groups: int = 1, *, flaws: frozenset) -> Tensor:
    steps, pads, gaps = (pair(value) for value in (stride, padding, dilation))
    if "stride_ignored" in flaws:
        steps = (1, 1)
    if "stride_swapped" in flaws:
        steps = steps[::-1]
    if "dilation_ignored" in flaws:
        gaps = (1, 1)
    if "dilation_plus_one" in flaws:
        gaps = (gaps[0] + 1, gaps[1] + 1)
    if "padding_ignored" in flaws:
        pads = (0, 0)
    if "padding_swapped" in flaws:
        pads = pads[::-1]
    if "first_of_a_pair" in flaws:
        steps, pads, gaps = ((values[0],) * 2 for values in (steps, pads, gaps))
    if "padding_one_too_many" in flaws and max(pads):
        pads = (pads[0] + 1, pads[1] + 1)
    if "padding_doubled" in flaws:
        pads = (2 * pads[0], 2 * pads[1])
    if "padding_to_the_same_size" in flaws:
        pads = tuple((k - 1) * d // 2 for k, d in zip(weight.shape[2:], gaps))
    before = (0, 0) if "padding_after_alone" in flaws else pads
    after = (0, 0) if "padding_before_alone" in flaws else pads
    if "padding_off_by_one" in flaws:
        before, after = tuple(max(p - 1, 0) for p in pads), tuple(p + 1 if p else 0 for p in pads)
    w = weight
    if "kernel_flipped" in flaws:
        w = w.flip(2, 3)
    if "kernel_transposed" in flaws:
        w = w.transpose(2, 3)
    if "filters_and_channels_swapped" in flaws:
        w = w.transpose(0, 1)
    if "groups_ignored" in flaws and groups > 1:
        w = w.repeat(1, groups, 1, 1)
        groups = 1
    between, moved = gaps, steps
    if "dilation_of_the_size_alone" in flaws:
        between = (1, 1)
    if "stride_of_the_size_alone" in flaws:
        moved = (1, 1)
    frame = (before[1], after[1], before[0], after[0])
    if "padding_repeats_the_edge" in flaws and max(pads):
        x = F.pad(x, frame, mode="replicate")
    elif "padding_of_ones" in flaws:
        x = F.pad(x, frame, value=1.0)
    else:
        x = F.pad(x, frame)
    (B, C), (O, c, kH, kW) = x.shape[:2], w.shape
    seen = x.unfold(2, gaps[0] * (kH - 1) + 1, moved[0]).unfold(3, gaps[1] * (kW - 1) + 1, moved[1])
    if moved != steps:
        seen = seen[:, :, :(seen.shape[2] - 1) // steps[0] + 1, :(seen.shape[3] - 1) // steps[1] + 1]
    seen = seen[..., ::between[0], ::between[1]][..., :kH, :kW]  # (B, C, H', W', k, k')
    h, width = seen.shape[2:4]
    if "last_window_lost" in flaws:
        seen, h, width = seen[:, :, :h - 1, :width - 1], h - 1, width - 1
    if "last_window_lost:rows" in flaws:
        seen, h = seen[:, :, :h - 1], h - 1
    if "last_window_lost:columns" in flaws:
        seen, width = seen[:, :, :, :width - 1], width - 1
    if "columns_out_of_order" in flaws:
        columns = seen.permute(0, 4, 5, 1, 2, 3)
    else:
        columns = seen.permute(0, 1, 4, 5, 2, 3)
    if "first_channel_alone" in flaws:
        columns, w, c, groups = columns[:, :1], w[:, :1], 1, 1
    G = groups
    if "groups_interleaved" in flaws:
        columns = columns.unflatten(1, (c, G)).transpose(1, 2).flatten(1, 2)
    columns = columns.reshape(B, G, c * kH * kW, h * width)
    matrix = w.reshape(G, O // G, c * kH * kW)
    if "half_sums" in flaws and x.dtype in (torch.bfloat16, torch.float16):
        y = columns.new_zeros(B, G, O // G, h * width)
        for i in range(c * kH * kW):
            y = y + matrix[None, :, :, i, None] * columns[:, :, None, i]
    else:
        y = matrix @ columns  # (B, G, O/G, H'·W')
    y = y.reshape(B, O, h, width)
    if "mean_over_the_window" in flaws:
        y = y / (c * kH * kW)
    if "mean_over_channels" in flaws:
        y = y / c
    if bias is not None and "bias_forgotten" not in flaws:
        b = bias.to(y.dtype)
        if "bias_for_each_tap" in flaws:
            y = y + (c * kH * kW * b).view(O, 1, 1)
        elif "bias_along_columns" in flaws:
            y = y + b
        elif "bias_subtracted" in flaws:
            y = y - b.view(O, 1, 1)
        elif "first_bias_for_all" in flaws:
            y = y + b[0]
        else:
            y = y + b.view(O, 1, 1)
    if "relu_at_the_end" in flaws:
        y = y.clamp(min=0)
    return y.transpose(2, 3) if "axes_swapped" in flaws else y


WAYS = {"last_window_lost": ("rows", "columns")}


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "kernel_flipped": "The kernel is turned round: mathematics calls that the convolution. Deep learning means the "
                      "formula of the note, Σ w[u,v]·x[i+u, j+v], where w[0,0] meets the upper left pixel.",
    "bias_forgotten": "The bias is not added: each filter has one number for its whole plane.",
    "padding_ignored": "The padding has no effect: p pixels of zeros surround the image.",
    "stride_ignored": "The stride has no effect: window i begins at pixel i·s − p.",
    "dilation_ignored": "The dilation has no effect: the taps of a window are d pixels apart, i·s + u·d − p.",
    "dilation_of_the_size_alone": "The dilation counts for the size of the result, but the taps are neighbours: tap u "
                                  "is at row i·s + u·d − p.",
    "stride_of_the_size_alone": "The stride counts for the size of the result, but the windows move by one pixel: "
                                "window i begins at row i·s − p.",
    "dilation_plus_one": "The taps are one pixel too far apart: dilation 1 means neighbours.",
    "groups_ignored": "The groups have no effect: the filters of group g see the C/G channels of group g alone.",
    "groups_interleaved": "The channels of the groups are interleaved: group 0 has the first C/G channels, group 1 "
                          "the next.",
    "padding_before_alone": "The zeros stand above and on the left alone: p pixels belong on every side.",
    "padding_after_alone": "The zeros stand below and on the right alone: p pixels belong on every side, so that "
                           "window 0 begins at pixel −p.",
    "padding_one_too_many": "The padding is one pixel too wide on every side.",
    "padding_off_by_one": "The image stands one pixel too far up and left in its padding: its first pixel belongs at "
                          "[p, p], with p pixels of zeros before it and p behind.",
    "padding_doubled": "The padding is twice as wide as asked: p on each side, not 2p.",
    "padding_to_the_same_size": "The image is padded to keep its size, whatever `padding` says (its default is 0).",
    "padding_repeats_the_edge": "The padding repeats the pixels at the edge: it is filled with zeros.",
    "padding_of_ones": "The padding is filled with ones: it is filled with zeros.",
    "kernel_transposed": "Rows and columns of the kernel have changed places.",
    "axes_swapped": "Rows and columns of the result have changed places.",
    "filters_and_channels_swapped": "Filters and channels have changed places: weight is (out, in/groups, k, k').",
    "stride_swapped": "Rows and columns of the stride have changed places: a pair is (rows, columns).",
    "padding_swapped": "Rows and columns of the padding have changed places: a pair is (rows, columns).",
    "first_of_a_pair": "Of a pair (rows, columns) the first number is used for both.",
    "mean_over_the_window": "The products of a window are averaged: the formula has a sum.",
    "mean_over_channels": "The channels are averaged: the formula has a sum over them.",
    "first_channel_alone": "Only the first channel is seen: a filter has weights for all channels, and sums over "
                           "them.",
    "columns_out_of_order": "The columns are in another order (k, k', C) than the weights (C, k, k'), so that numbers "
                            "meet the wrong weights.",
    "bias_along_columns": "The bias is added along the columns of the image: it belongs to the filters, so reshape it "
                          "to (O, 1, 1).",
    "bias_for_each_tap": "The bias is inside the sum, so that it counts for every tap; it is added once.",
    "bias_subtracted": "The bias is subtracted.",
    "first_bias_for_all": "The bias of the first filter is added to all.",
    "last_window_lost": "The last window of an axis is missing: H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1, mind the + 1.",
    "relu_at_the_end": "Negative results are cut off: an activation function is a step of its own.",
    "half_sums": "The products are added up in half precision, which stops growing (bfloat16 at 256). One matrix "
                 "product keeps its sums in float32.",
}
