"""max_pool: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from exercises.case import LOW, Case, draw, one, random, tensor
from scratch.ops.windows import pair

inf, nan = math.inf, math.nan


def run(max_pool2d: Callable, **inputs: Any) -> dict:
    return one(max_pool2d(**inputs))


def reference(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> dict:
    return {"y": F.max_pool2d(x, kernel_size, stride, padding)}


def image(rows: list, **more: Any) -> dict:
    return {"x": tensor(rows)[None, None], **more}


CASES = (
    Case("example", "two windows of 2×2 side by side", lambda: image([[1, 3, 0, 4], [2, 2, 5, 0]], kernel_size=2),
         {"y": tensor([[[[3, 5]]]])}),
    Case("value", "windows of 2×2 in a 4×6 image", lambda: {"x": draw(1, 1, 4, 6), "kernel_size": 2}),
    Case("value", "stride 1: the windows overlap", lambda: {"x": draw(1, 1, 4, 5), "kernel_size": 2, "stride": 1}),
    Case("value", "as in a ResNet: kernel 3, stride 2, padding 1", lambda: {
        "x": draw(2, 3, 7, 5), "kernel_size": 3, "stride": 2, "padding": 1}),
    Case("value", "a kernel of 2 rows and 3 columns",
         lambda: {"x": draw(1, 2, 6, 6), "kernel_size": (2, 3)}, on_error="first_of_a_pair"),
    Case("value", "rows and columns step and pad apart", lambda: {
        "x": draw(1, 2, 7, 8), "kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    Case("gradient", "by x", lambda: {"x": random(1, 2, 4, 5), "kernel_size": 2, "stride": 1}, gradient=("x",)),
    Case("gradient", "with padding", lambda: {"x": random(1, 2, 5, 5), "kernel_size": 3, "stride": 2, "padding": 1},
         gradient=("x",)),
    Case("edges", "padding never wins against negative pixels", lambda: image(
        [[-4, -3], [-2, -1]], kernel_size=2, padding=1)),
    Case("edges", "a remainder that no window reaches is left out", lambda: {"x": draw(1, 1, 5, 7), "kernel_size": 3}),
    Case("edges", "of equal pixels the first gets the whole gradient", lambda: image(
        [[1, 1, 0, 2], [1, 1, 2, 2]], kernel_size=2), gradient=("x",), bonus=True),
    Case("edges", "a window of −∞ alone", lambda: image([[-inf, -inf, 1, 2], [-inf, -inf, 3, 4]], kernel_size=2)),
    Case("edges", "−∞ wins against the padding", lambda: image([[-inf, -inf], [-inf, -inf]], kernel_size=2, padding=1)),
    Case("edges", "NaN wins", lambda: image([[1, nan, 5, 6], [2, 3, 7, 8]], kernel_size=2)),
    Case("edges", "no images", lambda: {"x": draw(0, 2, 5, 5), "kernel_size": 3, "stride": 2, "padding": 1}),
    *(Case("precision", str(dtype).removeprefix("torch."), lambda: {
        "x": random(2, 5, 13, 11), "kernel_size": 3, "stride": 2, "padding": 1}, dtype=dtype) for dtype in LOW),
)


def attempt(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *, flaws: frozenset) -> Tensor:
    kernel, pads = pair(kernel_size), pair(padding)
    steps = kernel if stride is None else pair(stride)
    if stride is None and "stride_one_by_default" in flaws:
        steps = (1, 1)
    if "stride_ignored" in flaws:
        steps = kernel
    if "stride_one" in flaws:
        steps = (1, 1)
    if "kernel_swapped" in flaws:
        kernel = kernel[::-1]
    if "stride_swapped" in flaws:
        steps = steps[::-1]
    if "padding_swapped" in flaws:
        pads = pads[::-1]
    if "first_of_a_pair" in flaws:
        kernel, steps, pads = ((values[0],) * 2 for values in (kernel, steps, pads))
    if "padding_ignored" in flaws:
        pads = (0, 0)
    fill = 0.0 if "padding_is_zero" in flaws else torch.finfo(x.dtype).min if "lowest_number" in flaws else -inf
    after = (0, 0) if "padding_before_alone" in flaws else pads
    if "padding_doubled" in flaws:
        pads = after = (2 * pads[0], 2 * pads[1])
    if "rounded_up" in flaws:
        after = tuple(a + (-(n + p + a - k)) % s for n, p, a, k, s in zip(x.shape[2:], pads, after, kernel, steps))
    if ways := flaws & {f"{flaw}:{way}" for flaw, ways in WAYS.items() for way in ways} | flaws & {"last_tap_missing"}:
        return by_taps(x, kernel, steps, pads, next(iter(ways)))
    padded = F.pad(x, (pads[1], after[1], pads[0], after[0]), value=fill)
    seen = padded.unfold(2, kernel[0], steps[0]).unfold(3, kernel[1], steps[1]).flatten(4)  # (B, C, H', W', k·k')
    if "mean" in flaws:
        y = seen.mean(-1)
    elif "sum" in flaws:
        y = seen.sum(-1)
    elif "minimum" in flaws:
        y = F.pad(x, (pads[1], after[1], pads[0], after[0]), value=-fill).unfold(2, kernel[0], steps[0]).unfold(
            3, kernel[1], steps[1]).flatten(4).amin(-1)
    elif "largest_size" in flaws:
        y = F.pad(x.abs(), (pads[1], after[1], pads[0], after[0]), value=fill).unfold(2, kernel[0], steps[0]).unfold(
            3, kernel[1], steps[1]).flatten(4).amax(-1)
    elif "first_pixel" in flaws:
        y = seen[..., 0]
    elif "centre_pixel" in flaws:
        y = seen[..., seen.shape[-1] // 2]
    elif "places" in flaws:
        y = seen.argmax(-1).to(x.dtype)
    elif "gradient_shared" in flaws:
        y = seen.amax(-1)
    elif "last_of_equals" in flaws:
        y = seen.flip(-1).max(-1).values
    elif "nan_loses" in flaws:
        y = seen.nan_to_num(nan=-inf, posinf=inf, neginf=-inf).max(-1).values
    elif "starts_at_zero" in flaws:
        y = seen.max(-1).values.clamp(min=0)
    else:
        y = seen.max(-1).values
    if "over_channels" in flaws:
        y = y.amax(1, keepdim=True)
    return y.transpose(2, 3) if "axes_swapped" in flaws else y


WAYS = {"kernel_swapped": ("taps",), "padding_ignored": ("taps",), "last_tap_missing": ("rows", "columns")}


def by_taps(x: Tensor, kernel: tuple, steps: tuple, pads: tuple, flaw: str) -> Tensor:
    """The right number of windows, whose taps are the wrong pixels; a tap beside the image looks at its edge."""
    places = [torch.arange((n + 2 * p - k) // s + 1) * s - p for n, p, k, s in zip(x.shape[2:], pads, kernel, steps)]
    if flaw == "padding_ignored:taps":
        places = [place + p for place, p in zip(places, pads)]
    rows, columns = kernel[::-1] if flaw == "kernel_swapped:taps" else kernel
    if flaw in ("last_tap_missing", "last_tap_missing:rows"):
        rows = max(rows - 1, 1)
    if flaw in ("last_tap_missing", "last_tap_missing:columns"):
        columns = max(columns - 1, 1)
    H, W = x.shape[2:]
    taps = [x[:, :, (places[0] + u).clamp(0, H - 1)][..., (places[1] + v).clamp(0, W - 1)]
            for u in range(rows) for v in range(columns)]
    return torch.stack(taps, -1).max(-1).values


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "padding_is_zero": "The padding is filled with 0 and wins against negative pixels: it must never win, so fill it "
                       "with −∞ (or leave it out).",
    "starts_at_zero": "The running maximum begins at 0 and wins against negative pixels: begin with the first pixel "
                      "of the window, or with −∞.",
    "mean": "This is average pooling: the mean of a window, not its maximum.",
    "minimum": "This is the smallest pixel of each window, not the largest.",
    "sum": "The pixels of a window are summed up; the largest is wanted.",
    "largest_size": "The largest size |x| is taken: −5 is smaller than 1.",
    "first_pixel": "The first pixel of each window is taken, not the largest.",
    "centre_pixel": "The pixel in the middle of each window is taken, not the largest.",
    "places": "The place of the maximum is returned (argmax), not its value.",
    "stride_one_by_default": "Without a stride the windows step by 1: the default is the kernel size, side by side.",
    "stride_ignored": "The stride has no effect: the windows step by the kernel size.",
    "stride_one": "The windows step by 1, whatever the stride.",
    "padding_ignored": "The padding has no effect: windows begin p pixels before the image.",
    "padding_before_alone": "The image is padded above and on the left alone: p pixels belong on both sides.",
    "padding_doubled": "The padding is twice as wide as asked.",
    "rounded_up": "The number of windows is rounded up: a remainder at the end that no whole window fits into is left "
                  "out (⌊ ⌋).",
    "kernel_swapped": "Rows and columns of the kernel have changed places: a pair is (rows, columns).",
    "last_tap_missing": "The last row or column of each window is not looked at: a kernel of k has the taps 0 … k−1.",
    "stride_swapped": "Rows and columns of the stride have changed places.",
    "padding_swapped": "Rows and columns of the padding have changed places: a pair is (rows, columns); F.pad wants "
                       "the last axis first.",
    "first_of_a_pair": "Of a pair (rows, columns) the first number is used for both.",
    "axes_swapped": "Rows and columns of the result have changed places.",
    "over_channels": "The maximum goes over the channels as well: each channel is pooled by itself.",
    "gradient_shared": "Equal pixels share the gradient (amax does that): the whole gradient goes to the first of "
                       "them.",
    "last_of_equals": "Of equal pixels the last one gets the gradient: it is the first, row by row.",
    "nan_loses": "NaN loses against numbers: a comparison with NaN is false, so check isnan as well.",
    "lowest_number": "The padding is the lowest finite number: it wins against −∞.",
}
