"""colour: how does colour augmentation (jitter) change an image?

Four dials turn a pixel p = (r, g, b). Each is a straight line, so all four together are one too:

    brightness   a·p                     contrast   m + b·(p − m)     m: the mean of all channels
    saturation   g + c·(p − g)           hue        the colour wheel turned by θ
                 g = G·p, the pixel's grey: the mean of its own three channels

    p' = a·(m + b·(C·p − m)) = (a·b·C)·p + a·(1 − b)·m,     C = G + c·(cos θ·(I − G) + sin θ·K)

           ⎛1 1 1⎞              ⎛ 0 −1  1⎞    I − G takes a pixel's grey away and leaves its
    G = ⅓·⎜1 1 1⎟     K = 1/√3·⎜ 1  0 −1⎟    colour, a vector at right angles to (1, 1, 1);
           ⎝1 1 1⎠              ⎝−1  1  0⎠    K turns that by a quarter around this axis.

A third of a turn makes red green, green blue and blue red. C does not change greys, and so not m: one
product with a 3×3 matrix, rounded once, replaces four passes and four roundings, without a conversion
to HSV. Values outside 0-255 are clipped.

Colour jitter: Howard 2013 (arXiv 1312.5402). Proven in
tests/data/test_augmentation.py. Read: recoloured (the formula) → jittered (what is drawn)
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

GREY = torch.full((3, 3), 1 / 3)                                                    # G
COLOUR = torch.eye(3) - GREY                                                        # I − G
QUARTER_TURN = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # K


def recoloured(pixels: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """uint8 (3,h,w) → uint8 (3,h,w); 1, 1, 1 and 0 change nothing, and hue is in turns of the colour wheel."""
    angle = 2 * math.pi * hue
    wheel = math.cos(angle) * COLOUR + math.sin(angle) * QUARTER_TURN               # (3,3)
    matrix = brightness * contrast * (GREY + saturation * wheel)
    p = pixels.flatten(1).float()                                                   # (3,h·w)
    p = matrix @ p + brightness * (1 - contrast) * p.mean()
    return p.round_().clamp_(0, 255).byte().view_as(pixels)


def jittered(pixels: Tensor, strength: float, rng: random.Random) -> Tensor:
    """`recoloured` with every dial drawn: factors in 1 ± strength, the hue in ± strength/4 turns."""
    brightness, contrast, saturation = (rng.uniform(1 - strength, 1 + strength) for _ in range(3))
    return recoloured(pixels, brightness, contrast, saturation, rng.uniform(-strength / 4, strength / 4))
