"""encoding: choose a cell of a feature map; which others have a positional encoding like its own?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from docs.site.play.widget import widget
from scratch.ops.sine_encoding import sine_encoding

ROWS, COLUMNS, FEATURES = 12, 16, 128  # F numbers for each axis, as in the published model
TEMPERATURES = (1, 20, 300, 10000)


def codes(temperature: float) -> tuple[Tensor, Tensor]:
    """The numbers of y, one row for each row of cells (12,128), and of x, one for each column (16,128)."""
    code = sine_encoding(torch.zeros(1, ROWS, COLUMNS, dtype=torch.bool), FEATURES, temperature, dtype=torch.float64)[0]
    return code[:FEATURES, :, 0].T, code[FEATURES:, 0].T


def data() -> dict[str, Any]:
    """For each temperature the encodings, and their dot products along each axis, divided by F/2: 1 with itself."""
    parts, strips = {}, {}
    for temperature in TEMPERATURES:
        y, x = codes(temperature)
        parts[temperature] = {name: (code @ code.T / (FEATURES / 2)).tolist() for name, code in (("y", y), ("x", x))}
        strips[temperature] = {name: [[round(v, 2) for v in row] for row in code.tolist()]
                               for name, code in (("y", y), ("x", x))}
    return {"grid": [ROWS, COLUMNS], "temperatures": TEMPERATURES, "parts": parts, "codes": strips}


ENCODING = widget(
    "encoding", "Positional encodings: which cells are alike?", "ops/sine_encoding",
    "Attention compares tokens by dot products. So what a positional encoding says is the dot product of two "
    "encodings: large for cells that are close, smaller for cells far away.\n\n"
    "Try: click a cell, or use the arrow keys. Then change the temperature T. The published T = 10,000 was made for "
    "sentences: over an image most of its sinusoids hardly move, so that even opposite corners are alike. DAB-DETR "
    "uses 20. With T = 1 all sinusoids are the same.", data)
