"""transforms: which part of a photograph is shown, how large, and where do its boxes go?

    paper   flip with chance ½, then with chance ½ each
              a) resize the shorter side to one of 480, 512 … 800, the longer side at most 1333
              b) resize the shorter side to 400, 500 or 600; crop 384-600 by 384-600 pixels; as a)
            (Carion et al. 2020, section 4 and appendix A.4.)
    zoom    flip with chance ½; with chance ½ crop ½-1 of the width by ½-1 of the height; then to 800
    flip    flip with chance ½, then the shorter side to 800    none   the shorter side to 800

The numbers are for short_side = 800; another one scales them all.

Every augmentation results in a rectangle of the image, a size, and possibly a mirror and a turn: a
`View`. So the pixels are resampled once, from the original; a resize, a crop and a second resize
would blur them twice. The geometry of "paper" is that of the official code to the pixel, rounding
included. Boxes take the same linear map:

    x' = (clip(x, x₀, x₁) − x₀) / (x₁ − x₀)    mirrored: 1 − x'    with nothing left, dropped

Randomness is a `random.Random` that the caller passes in. Proven in
tests/data/test_transforms.py. Read: View (one outcome) → resized (the size rule) → Augmentation
(what is drawn); then colour.py (other light) and mosaic.py (several photographs at once).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, Optional

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scratch.config import DataConfig
from scratch.data.colour import jittered
from scratch.data.images import Reduced
from scratch.ops.boxes import box_xyxy_to_cxcywh

# Of a box that zoom or a mosaic cuts, this share of the area must remain. A thinner slice does not show the
# class; the paper's crop keeps every slice, and keeps doing so.
LEAST_SEEN = 0.2


@dataclass(frozen=True)
class View:
    """A rectangle `region` (x₀, y₀, x₁, y₁) of the photograph, in its pixels, shown as `size` (height, width).

    mirrored        left and right change places
    quarter_turns   then turned anticlockwise, 0-3 times; `size` is that of the turned picture
    least_seen      a box is dropped if less than this share of its area lies in the region
    """

    region: tuple[float, float, float, float]
    size: tuple[int, int]
    mirrored: bool
    quarter_turns: int = 0
    least_seen: float = 0.0

    def of_image(self, image: Image.Image | Reduced) -> Tensor:
        """The pixels, uint8 (3,h,w). Pillow's bilinear filter averages over all pixels that a smaller one covers."""
        h, w = self.size[::-1] if self.quarter_turns % 2 else self.size
        pixels = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR, box=self.region))
        # Mirror, turn and channels first only say in which order to read: one copy does all three.
        pixels = np.rot90(pixels[:, ::-1] if self.mirrored else pixels, self.quarter_turns)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())                   # (3,h,w)

    def of_boxes(self, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel boxes (M,4) → what is seen of them, cxcywh in [0,1] (M',4) float32, and which were kept, bool (M,)."""
        origin = torch.tensor(self.region[:2] * 2, dtype=torch.float64)             # x₀ y₀ x₀ y₀
        extent = torch.tensor(self.region[2:] * 2, dtype=torch.float64) - origin
        whole = (boxes_xyxy.double() - origin) / extent                             # (M,4)
        seen = whole.clamp(0, 1)
        sides = seen[:, 2:] - seen[:, :2]                                           # (M,2)
        # What rounding leaves of a box that only touches the crop is no box: a millionth of the side and less.
        keep = (sides > 1e-6).all(-1)                                               # (M,)
        keep &= sides.prod(-1) >= self.least_seen * (whole[:, 2:] - whole[:, :2]).prod(-1)
        if self.mirrored:
            x0, y0, x1, y1 = seen.unbind(-1)
            seen = torch.stack((1 - x1, y0, 1 - x0, y1), dim=-1)
        for _ in range(self.quarter_turns):  # right becomes top, and top becomes left
            x0, y0, x1, y1 = seen.unbind(-1)
            seen = torch.stack((y0, 1 - x1, y1, 1 - x0), dim=-1)
        return box_xyxy_to_cxcywh(seen[keep]).float(), keep

    def turned(self, quarter_turns: int) -> "View":
        """This View, turned anticlockwise by `quarter_turns` times 90°; an odd number swaps its height and width."""
        size = self.size[::-1] if quarter_turns % 2 else self.size
        return replace(self, size=size, quarter_turns=(self.quarter_turns + quarter_turns) % 4)


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

    kind         "paper", "zoom", "flip" or "none", as above
    short_side   pixels of the shorter side at evaluation; the paper's training scales are 0.6 to 1.0 of it
    max_size     the longer side's most pixels
    square       both sides are short_side pixels, for any shape of the image
    turns        also 0-3 quarter turns, all equally likely
    colour       strength of the colour jitter (colour.py)
    mosaic       the chance of four pictures in one, and
    mixup        that of one picture over another; both are for `compose` in mosaic.py, which has other pictures at hand
    """

    kind: Literal["paper", "zoom", "flip", "none"]
    short_side: int
    max_size: int
    square: bool = False
    turns: bool = False
    colour: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0

    @staticmethod
    def for_training(config: DataConfig) -> "Augmentation":
        return Augmentation(config.augment, config.short_side, config.max_size, config.square, config.turns,
                            config.colour, config.mosaic, config.mixup)

    @staticmethod
    def for_evaluation(config: DataConfig) -> "Augmentation":
        return Augmentation("none", config.short_side, config.max_size, config.square)

    def __call__(self, image: Image.Image | Reduced, boxes_xyxy: Tensor,
                 rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """RGB image and pixel boxes (M,4) → uint8 (3,h,w), cxcywh boxes in [0,1] (M',4), and which were kept (M,)."""
        return self.show(self.draw(image.height, image.width, rng), image, boxes_xyxy, rng)

    def show(self, view: View, image: Image.Image | Reduced, boxes_xyxy: Tensor,
             rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
        """As a call, with a View that is already drawn: only the colours are left to chance."""
        pixels = view.of_image(image)                                               # (3,h,w)
        if self.colour:
            pixels = jittered(pixels, self.colour, rng)
        return (pixels, *view.of_boxes(boxes_xyxy))

    def draw(self, height: int, width: int, rng: random.Random) -> View:
        """Draw the View of an image of this size; the same state of `rng` gives the same View."""
        view = self._draw_upright(height, width, rng)
        return view.turned(rng.randrange(4)) if self.turns else view

    def draw_part(self, height: int, width: int, size: tuple[int, int], rng: random.Random) -> View:
        """Draw a View of an image of this size that fills `size` (h, w), a part of a larger picture.

        It shows the image at 0.5 to 1.5 times its scale at evaluation; where that would take more than there is of the
        image, at the least scale that does not.
        """
        mirrored = self._mirrors(rng)
        quarter_turns = rng.randrange(4) if self.turns else 0
        h, w = size[::-1] if quarter_turns % 2 else size
        whole_h, whole_w = self.evaluation_size(height, width)
        scale = max(rng.uniform(0.5, 1.5), h / whole_h, w / whole_w)
        region = _placed(height, width, h / scale * height / whole_h, w / scale * width / whole_w, rng)
        return View(region, (h, w), mirrored, least_seen=LEAST_SEEN).turned(quarter_turns)

    def _draw_upright(self, height: int, width: int, rng: random.Random) -> View:
        mirrored = self._mirrors(rng)
        if self.kind == "paper":
            return self._draw_as_published(height, width, mirrored, rng)
        size = self.evaluation_size(height, width)
        if self.kind == "zoom" and rng.random() < 0.5:
            # Shown as large as the whole image would be, so that every batch costs the same. That stretches it, at most
            # twofold, as the patches of SSD are (Liu et al. 2016, arXiv 1512.02325, section 2.2).
            w, h = rng.uniform(0.5, 1) * width, rng.uniform(0.5, 1) * height
            return View(_placed(height, width, h, w, rng), size, mirrored, least_seen=LEAST_SEEN)
        return View((0.0, 0.0, float(width), float(height)), size, mirrored)

    def _draw_as_published(self, height: int, width: int, mirrored: bool, rng: random.Random) -> View:
        region = (0.0, 0.0, float(width), float(height))
        if rng.random() < 0.5:
            # The crop is uniform, so cutting before the mirror draws what cutting after it would.
            h, w = resized(height, width, self._scaled(rng.choice((400, 500, 600))))
            crop_w = self._crop_side(w, rng)
            crop_h = self._crop_side(h, rng)
            top, left = rng.randint(0, h - crop_h), rng.randint(0, w - crop_w)
            region = (left * width / w, top * height / h, (left + crop_w) * width / w, (top + crop_h) * height / h)
            height, width = crop_h, crop_w
        short_side = self._scaled(rng.choice(range(480, 801, 32)))
        return View(region, self._shown(height, width, short_side), mirrored)

    def _mirrors(self, rng: random.Random) -> bool:
        return self.kind != "none" and rng.random() < 0.5

    def evaluation_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of this size has at evaluation."""
        return self._shown(height, width, self.short_side)

    def reduction(self, height: int, width: int) -> int:
        """8, 4, 2 or 1: an image of this size, smaller by this factor each way, has all the pixels that any View shows.

        It follows from the size and the augmentation, not from what is drawn, so one decoding serves every epoch.
        Pictures that are shown as they are judged, and as `predict` shows them, are decoded whole.
        """
        if self.kind == "none":
            return 1
        most = self._largest_scale(height, width)
        return next((by for by in (8, 4, 2) if by * most <= 1), 1)

    def _largest_scale(self, height: int, width: int) -> float:
        """The most pixels that a View can show, along either axis, for one of an image of this size."""
        h, w = self.evaluation_size(height, width)
        whole = most = max(h / height, w / width)
        if self.kind == "zoom":
            most = 2 * whole
        elif self.kind == "paper":  # the least crop of the largest of the three sizes, at the largest scale
            first = self._scaled(600)
            most = first / min(height, width) * self.short_side / min(self._scaled(384), first)
        if self.mosaic or self.mixup:
            # A part is as large as it has to be: up to the longest side that the other picture can have.
            side = self.short_side if self.square else self.max_size
            most = max(most, max(1.5, side / h, side / w) * whole)
        return most

    def _shown(self, height: int, width: int, short_side: int) -> tuple[int, int]:
        return (short_side, short_side) if self.square else resized(height, width, short_side, self.max_size)

    def _scaled(self, pixels_at_800: int) -> int:
        return max(1, round(pixels_at_800 * self.short_side / 800))

    def _crop_side(self, side: int, rng: random.Random) -> int:
        return rng.randint(min(self._scaled(384), side), min(self._scaled(600), side))


def _placed(height: float, width: float, h: float, w: float, rng: random.Random) -> tuple[float, float, float, float]:
    """A rectangle of h × w somewhere in an image of height × width: (x₀, y₀, x₁, y₁)."""
    x0, y0 = rng.uniform(0, max(0.0, width - w)), rng.uniform(0, max(0.0, height - h))
    return x0, y0, min(x0 + w, float(width)), min(y0 + h, float(height))  # Pillow refuses even a rounding error more
