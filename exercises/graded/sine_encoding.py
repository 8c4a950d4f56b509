"""sine_encoding: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

import torch
from torch import Tensor

from exercises.case import Case, one, tensor
from scratch.ops.sine_encoding import sine_encoding as note


def run(sine_encoding: Callable, **inputs: Any) -> dict:
    return one(sine_encoding(**inputs), "encoding")


def reference(**inputs: Any) -> dict:
    """The note: torch.nn has no positional encoding."""
    return {"encoding": note(**inputs)}


def padded(B: int, h: int, w: int, *sizes: tuple[int, int]) -> Tensor:
    mask = torch.ones(B, h, w, dtype=torch.bool)
    for b, (rows, columns) in enumerate(sizes):
        mask[b, :rows, :columns] = False
    return mask


def whole(h: int, w: int, F: int, **more: Any) -> dict:
    return {"pad_mask": padded(1, h, w, (h, w)), "num_pos_feats": F, "dtype": torch.float64, **more}


def counted(y: int, x: int) -> list:
    """F = 4 without normalisation: periods 1 and 100."""
    return [math.sin(y), math.cos(y), math.sin(y / 100), math.cos(y / 100),
            math.sin(x), math.cos(x), math.sin(x / 100), math.cos(x / 100)]


CASES = (
    Case("example", "one cell, plain counts: y = x = 1, periods 1 and 100", lambda: whole(1, 1, 4, normalize=False),
         {"encoding": tensor(counted(1, 1)).view(1, 8, 1, 1)}),
    Case("example", "two columns, plain counts: y = 1, and x = 1, 2", lambda: whole(1, 2, 4, normalize=False),
         {"encoding": torch.stack((tensor(counted(1, 1)), tensor(counted(1, 2))), -1).view(1, 8, 1, 2)}),
    Case("value", "2×3 cells, plain counts", lambda: whole(2, 3, 4, normalize=False)),
    Case("value", "2×3 cells, normalised to 0 … 2π: y/(rows + 1e-6)·2π, as in the official code", lambda: whole(
        2, 3, 4), told=True),
    Case("value", "3×3 cells, eight features", lambda: whole(3, 3, 8)),
    Case("value", "another temperature", lambda: whole(2, 3, 4, temperature=20.0)),
    Case("value", "another scale", lambda: whole(2, 3, 4, scale=1.0)),
    Case("value", "padding does not count: images of 1×2 and 2×3 cells in 2×3", lambda: {
        "pad_mask": padded(2, 2, 3, (1, 2), (2, 3)), "num_pos_feats": 4, "dtype": torch.float64}),
    Case("edges", "an image of padding alone is finite", lambda: {
        "pad_mask": padded(1, 2, 2), "num_pos_feats": 2, "dtype": torch.float64}),
    Case("edges", "no images", lambda: {"pad_mask": padded(0, 2, 2), "num_pos_feats": 2, "dtype": torch.float64}),
    Case("precision", "float32 is the default", lambda: {"pad_mask": padded(2, 5, 7, (5, 4), (3, 7)),
         "num_pos_feats": 8},
         tolerance=3e-6),
    *(Case("precision", f"{str(dtype).removeprefix('torch.')} is the float32 result, rounded once",
           lambda dtype=dtype: {
        "pad_mask": padded(2, 11, 13, (11, 7), (5, 13)), "num_pos_feats": 8, "dtype": dtype})
      for dtype in (torch.bfloat16, torch.float16)),
)


def attempt(pad_mask: Tensor, num_pos_feats: int, temperature: float = 10000.0, normalize: bool = True,
            scale: float = 2 * math.pi, dtype: torch.dtype = torch.float32, *, flaws: frozenset) -> Tensor:
    F = num_pos_feats
    working = dtype if "half_angles" in flaws else torch.promote_types(dtype, torch.float32)
    if "always_float32" in flaws:
        working = dtype = torch.float32
    image = pad_mask if "mask_inverted" in flaws else ~pad_mask
    if "padding_counts" in flaws:
        image = torch.ones_like(pad_mask)
    rows, columns = 1, 2
    y, x = image.cumsum(rows, dtype=working), image.cumsum(columns, dtype=working)
    if "counts_from_zero" in flaws:
        y, x = y - 1, x - 1
    if (normalize or "always_normalised" in flaws) and "never_normalised" not in flaws:
        eps = 0 if "eps_missing" in flaws else 1e-6
        if "scale_forgotten" in flaws:
            scale = 1.0
        if "half_turn" in flaws:
            scale = scale / 2
        last_y, last_x = y.select(rows, -1).unsqueeze(rows), x.select(columns, -1).unsqueeze(columns)
        if "by_the_whole_map" in flaws:
            last_y, last_x = float(pad_mask.shape[1]), float(pad_mask.shape[2])
        y, x = y / (last_y + eps) * scale, x / (last_x + eps) * scale
    pair = torch.arange(F // 2, dtype=working)
    exponent = pair / F if "exponent_without_two" in flaws else 2 * pair / F
    divisor = (10000.0 if "temperature_ignored" in flaws else temperature) ** exponent
    if "multiplied" in flaws:
        divisor = 1 / divisor
    if "linear_frequencies" in flaws:
        divisor = 1 + pair
    if "degrees" in flaws:
        divisor = divisor * 180 / math.pi

    def code(position: Tensor) -> Tensor:
        angle = position[:, None] / divisor[:, None, None]
        first, second = angle.sin(), angle.cos()
        if "cosine_first" in flaws:
            first, second = second, first
        if "sines_alone" in flaws:
            second = first
        if "sines_then_cosines" in flaws:
            return torch.cat((first, second), 1)
        return torch.stack((first, second), 2).flatten(1, 2)

    parts = (code(x), code(y)) if "x_first" in flaws else (code(y), code(x))
    if "sum_of_both" in flaws:
        return (parts[0] + parts[1]).repeat(1, 2, 1, 1).to(dtype)
    result = torch.stack(parts, 2).flatten(1, 2) if "y_and_x_interleaved" in flaws else torch.cat(parts, 1)
    if "padding_zeroed" in flaws:
        result = result.masked_fill(pad_mask[:, None], 0.0)
    return (result.permute(0, 2, 3, 1) if "channels_last" in flaws else result).to(dtype)


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "x_first": "The features of x stand before those of y, or each is counted along the other's axis: first y, which "
               "grows from row to row (axis 1 of the mask), then x, from column to column (axis 2).",
    "counts_from_zero": "The positions are counted from 0: the first row of the image is 1 (a cumulative sum).",
    "sines_then_cosines": "All sines stand before all cosines: they alternate, sin, cos, sin, cos … of each "
                          "frequency.",
    "cosine_first": "The cosine stands before the sine: each pair is (sin, cos).",
    "mask_inverted": "The padding is counted instead of the image: pad_mask is True on padding.",
    "padding_counts": "The padding counts like the image: only cells of the image (~pad_mask) are counted, so that an "
                      "image's encoding does not depend on what it is batched with.",
    "by_the_whole_map": "The positions are divided by the size of the whole map: divide by the number of the image's "
                        "own rows and columns (the last entry of the cumulative sum).",
    "exponent_without_two": "The exponent is i/F: it is 2i/F, with F the features of y alone (not of y and x "
                            "together), so that the last of the F/2 pairs comes near T.",
    "multiplied": "The position is multiplied by T^(2i/F): it is divided by it.",
    "linear_frequencies": "The divisors grow by equal steps: they grow by equal factors, T^(2i/F).",
    "temperature_ignored": "The argument `temperature` has no effect: 10,000 is used.",
    "scale_forgotten": "The scale is forgotten: normalised positions go from 0 to 2π, not to 1.",
    "half_turn": "Half of the scale is used: 2π, a whole turn, is the default.",
    "never_normalised": "normalize=True has no effect: the positions should be shares of the image times the scale.",
    "always_normalised": "normalize=False has no effect: the positions are then plain counts.",
    "eps_missing": "A column of padding alone gives 0/0 = NaN: the divisor needs the small 1e-6 of the formula in the "
                   "code.",
    "sines_alone": "There are sines alone: with the cosine beside it a shift is a rotation, without it is not.",
    "y_and_x_interleaved": "Features of y and x alternate: first all of y, then all of x.",
    "sum_of_both": "The codes of y and x are added up: they stand one after the other.",
    "channels_last": "The features are the last axis: the result is (B, 2F, h, w).",
    "padding_zeroed": "Cells of padding are set to zero: they keep the encoding that the formula gives (attention's "
                      "mask hides them).",
    "degrees": "The angle is converted between degrees and radians: torch's sine takes radians, as the formula does.",
    "always_float32": "The result is float32 whatever `dtype` says.",
    "half_angles": "The angles are computed in half precision, where counts and shares are rounded: compute in "
                   "float32, round the result once.",
}
