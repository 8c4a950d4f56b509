"""window: a window walks over an image, and what it sees becomes a column of the im2col matrix."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from docs.site.play.widget import widget
from scratch.ops.conv2d import conv2d

IMAGE = ((1, 1, 1, 1, 1, 1), (1, 8, 8, 1, 1, 1), (1, 8, 9, 2, 1, 1), (1, 1, 2, 9, 8, 1), (1, 1, 1, 8, 8, 1),
         (1, 1, 1, 1, 1, 1))
FILTERS = {1: ((2,),), 2: ((1, 0), (0, -1)), 3: ((1, 0, -1), (2, 0, -2), (1, 0, -1))}  # 3×3: Sobel's, for upright edges
CHOICES = {"k": (1, 2, 3), "s": (1, 2, 3), "p": (0, 1, 2), "d": (1, 2)}


def data() -> dict[str, Any]:
    """The image, a filter for each kernel, and the output of every choice of k, s, p and d, by conv2d."""
    x = torch.tensor(IMAGE, dtype=torch.float64)[None, None]
    outputs = {}
    for k, s, p, d in product(*CHOICES.values()):
        weight = torch.tensor(FILTERS[k], dtype=torch.float64)[None, None]
        outputs[f"{k} {s} {p} {d}"] = conv2d(x, weight, stride=s, padding=p, dilation=d)[0, 0].tolist()
    return {"image": IMAGE, "filters": FILTERS, "choices": CHOICES, "outputs": outputs}


WINDOW = widget(
    "window", "A window walks over an image", "ops/conv2d",
    "Each output pixel of a convolution is the filter times what one window sees. im2col writes what each window sees "
    "into one column of a matrix. Then the whole convolution is one matrix product.\n\n"
    "Try: walk with *next pixel* and watch the orange column. Set the stride to 2: the matrix has a quarter of the "
    "columns. Set the dilation to 2: the window covers 5×5 pixels with 9 numbers. The filter is Sobel's: where is the "
    "output far from 0?", data)
