"""mosaic: mosaic augmentation: how do a few hundred images give many more training scenes?

    mosaic   four pictures meet at a random point     mixup   one picture shines through another
             ┌─────┬────────┐
             │  A  │   B    │                                 w·A + (1 − w)·B, w uniform in 0.3-0.7
             ├─────┼────────┤
             │  C  │   D    │                                 the boxes of both, at full weight
             └─────┴────────┘

Objects meet new neighbours, in new sizes and at new places, and the labels stay true. A is the
picture that was asked for; the others are drawn from its split. Each part is a View of its own: a
random crop that fills it, mirrored, turned and recoloured as configured. The whole is as large as
A would be at evaluation. A box goes along with its part:

    x' = (left + x·part width) / width        w' = w·part width / width        y and h alike

The price is time, since every picture is read and decoded, and crowding: a mosaic may hold more
boxes than any one picture. A box that finds no query is not learnt, so num_queries must exceed that number.

Mosaic: Bochkovskiy et al. 2020 (YOLOv4, arXiv 2004.10934), section 3.3. Mixup: Zhang et al. 2018
(arXiv 1710.09412), for detectors Zhang et al. 2019 (arXiv 1902.04103), section 3.1. Proven in
tests/data/test_augmentation.py. Read: compose (which, when) → mosaic, mixup
"""

from __future__ import annotations

import random
from typing import Callable

import torch
from PIL import Image
from torch import Tensor

from scratch.data.images import Reduced
from scratch.data.transforms import Augmentation

Picture = tuple[Image.Image | Reduced, Tensor, Tensor]  # as read: RGB image, boxes (M,4) xyxy in pixels, labels (M,)
Sample = tuple[Tensor, Tensor, Tensor]  # as shown: uint8 (3,h,w), boxes (M',4) cxcywh in [0,1], labels (M',)


def compose(augmentation: Augmentation, first: Picture, another: Callable[[], Picture], rng: random.Random) -> Sample:
    """The sample that `first` becomes: alone or with three more in a mosaic, and then perhaps under one more.

    another   reads a random picture of the same split; its randomness, too, should come from `rng`
    Where mosaic and mixup are 0, nothing is drawn beyond what the augmentation draws for `first`.
    """
    if augmentation.mosaic and rng.random() < augmentation.mosaic:
        sample = mosaic(augmentation, first, another, rng)
    else:
        image, boxes_xyxy, labels = first
        pixels, boxes, keep = augmentation(image, boxes_xyxy, rng)
        sample = pixels, boxes, labels[keep]
    if augmentation.mixup and rng.random() < augmentation.mixup:
        sample = mixup(sample, _part(augmentation, another(), tuple(sample[0].shape[1:]), rng), rng.uniform(0.3, 0.7))
    return sample


def mosaic(augmentation: Augmentation, first: Picture, another: Callable[[], Picture], rng: random.Random) -> Sample:
    """`first` and three others around a point of the middle half; the whole has the size of `first` at evaluation."""
    H, W = augmentation.evaluation_size(first[0].height, first[0].width)
    y, x = (round(rng.uniform(0.25, 0.75) * side) for side in (H, W))
    canvas = torch.empty(3, H, W, dtype=torch.uint8)
    boxes, labels = [], []
    for top, bottom in ((0, y), (y, H)):
        for left, right in ((0, x), (x, W)):
            if top == bottom or left == right:
                continue  # one pixel cannot be shared
            h, w = bottom - top, right - left
            pixels, inside, names = _part(augmentation, another() if boxes else first, (h, w), rng)
            canvas[:, top:bottom, left:right] = pixels
            boxes.append(inside * torch.tensor([w / W, h / H] * 2) + torch.tensor([left / W, top / H, 0, 0]))
            labels.append(names)
    return canvas, torch.cat(boxes), torch.cat(labels)                              # (3,H,W), (M',4), (M',)


def mixup(one: Sample, other: Sample, weight: float) -> Sample:
    """Two samples of one size as one: `weight` of the first's pixels, the rest of the second's; every box of both."""
    pixels = other[0].float().lerp_(one[0].float(), weight).round_().byte()         # (3,h,w)
    return pixels, torch.cat((one[1], other[1])), torch.cat((one[2], other[2]))


def _part(augmentation: Augmentation, picture: Picture, size: tuple[int, int], rng: random.Random) -> Sample:
    """A picture as a random View of it that fills `size`."""
    image, boxes_xyxy, labels = picture
    view = augmentation.draw_part(image.height, image.width, size, rng)
    pixels, boxes, keep = augmentation.show(view, image, boxes_xyxy, rng)
    return pixels, boxes, labels[keep]
