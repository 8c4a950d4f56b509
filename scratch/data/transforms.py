"""transforms: which part of a photograph is shown, how large, and where do its boxes go?

    paper   flip with chance ½, then with chance ½ each
              a) resize the shorter side to one of 480, 512 … 800, the longer side at most 1333
              b) resize the shorter side to 400, 500 or 600; crop 384-600 by 384-600 pixels; then as a)
    flip    flip with chance ½, then the shorter side to 800        none   the shorter side to 800

    (Carion et al. 2020, section 4 and appendix A.4.) The numbers are for short_side = 800; another one scales them all.

Whatever is drawn, the outcome is a rectangle of the photograph, a size, and perhaps a mirror: a `View`. So the pixels
are resampled once, from the original, where a resize, a crop and a second resize would blur them twice; the geometry
is that of the official code to the pixel, rounding included. Boxes take the same straight line:

    x' = (clip(x, x₀, x₁) − x₀) / (x₁ − x₀)          mirrored: 1 − x'          a box with nothing left is dropped

Randomness is a `random.Random` that the caller passes in. Proven in tests/data/test_transforms.py.
Read: View (one outcome) → resized (the size rule) → Augmentation (what is drawn)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, Optional

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scratch.config import DataConfig
from scratch.ops.boxes import box_xyxy_to_cxcywh


@dataclass(frozen=True)
class View:
    """A rectangle `region` (x₀, y₀, x₁, y₁) of the photograph, in its pixels, shown as `size` (height, width)."""

    region: tuple[float, float, float, float]
    size: tuple[int, int]
    mirrored: bool

    def of_image(self, image: Image.Image) -> Tensor:
        """The pixels, uint8 (3,h,w). Pillow's bilinear filter averages over all pixels that a smaller one covers."""
        h, w = self.size
        shown = image.resize((w, h), Image.Resampling.BILINEAR, box=self.region)
        if self.mirrored:
            shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(shown)).permute(2, 0, 1).contiguous()      # (3,h,w)

    def of_boxes(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel boxes (M,4) → what is seen of them, cxcywh in [0,1] (M',4) float32, and which were kept, bool (M,)."""
        origin = torch.tensor(self.region[:2] * 2, dtype=torch.float64)             # x₀ y₀ x₀ y₀
        extent = torch.tensor(self.region[2:] * 2, dtype=torch.float64) - origin
        seen = ((boxes_xyxy.double() - origin) / extent).clamp(0, 1)                # (M,4)
        if self.mirrored:
            x0, y0, x1, y1 = seen.unbind(-1)
            seen = torch.stack((1 - x1, y0, 1 - x0, y1), dim=-1)
        # What rounding leaves of a box that only touches the crop is no box: a millionth of the side and less.
        keep = (seen[:, 2:] - seen[:, :2] > 1e-6).all(-1)                           # (M,)
        return box_xyxy_to_cxcywh(seen[keep]).float(), keep


def resized(height: int, width: int, short_side: int, max_size: Optional[int] = None) -> tuple[int, int]:
    """The (height, width) with the shorter side at `short_side`, or less where the longer one would pass `max_size`.

    Rounds as the official code does, except that the longer side never passes `max_size` by rounding.
    """
    short, long = min(height, width), max(height, width)
    if max_size is not None and long / short * short_side > max_size:
        short_side = max(1, round(max_size * short / long))
    other = int(short_side * long / short)
    if max_size is not None:
        other = min(other, max_size)
    return (short_side, other) if height <= width else (other, short_side)


@dataclass(frozen=True)
class Augmentation:
    """Draws the View of an image; plain numbers only, so that it travels to worker processes.

    kind         "paper", "flip" or "none", as above
    short_side   pixels of the shorter side at evaluation; the training scales are 0.6 to 1.0 of it
    max_size     the longer side's most pixels
    """

    kind: Literal["paper", "flip", "none"]
    short_side: int
    max_size: int

    @staticmethod
    def for_training(config: DataConfig) -> "Augmentation":
        return Augmentation(config.augment, config.short_side, config.max_size)

    @staticmethod
    def for_evaluation(config: DataConfig) -> "Augmentation":
        return Augmentation("none", config.short_side, config.max_size)

    def __call__(self, image: Image.Image, boxes_xyxy: Tensor, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """RGB image and pixel boxes (M,4) → uint8 (3,h,w), cxcywh boxes in [0,1] (M',4), and which were kept (M,)."""
        view = self.draw(image.height, image.width, rng)
        return (view.of_image(image), *view.of_boxes(boxes_xyxy))

    def draw(self, height: int, width: int, rng: random.Random) -> View:
        """Draw the View of an image of this size; the same state of `rng` gives the same View."""
        mirrored = self.kind != "none" and rng.random() < 0.5
        region = (0.0, 0.0, float(width), float(height))
        if self.kind != "paper":
            return View(region, resized(height, width, self.short_side, self.max_size), mirrored)
        if rng.random() < 0.5:
            # The crop is uniform, so cutting before the mirror draws what cutting after it would.
            h, w = resized(height, width, self._scaled(rng.choice((400, 500, 600))))
            crop_w = self._crop_side(w, rng)
            crop_h = self._crop_side(h, rng)
            top, left = rng.randint(0, h - crop_h), rng.randint(0, w - crop_w)
            region = (left * width / w, top * height / h, (left + crop_w) * width / w, (top + crop_h) * height / h)
            height, width = crop_h, crop_w
        short_side = self._scaled(rng.choice(range(480, 801, 32)))
        return View(region, resized(height, width, short_side, self.max_size), mirrored)

    def _scaled(self, pixels_at_800: int) -> int:
        return max(1, round(pixels_at_800 * self.short_side / 800))

    def _crop_side(self, side: int, rng: random.Random) -> int:
        return rng.randint(min(self._scaled(384), side), min(self._scaled(600), side))
