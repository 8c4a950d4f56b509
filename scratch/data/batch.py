"""batch: how do images of different sizes form one batch?

    image i (3,hᵢ,wᵢ) ─┐                            ┌──────────┬───┐
                       ├─ pad below and right ─▶    │  image i │ 0 │    pad_mask: True on the padding
    image j (3,hⱼ,wⱼ) ─┘  to H = max h, W = max w   ├──────────┘   │
                                                    └──────────────┘
    images uint8 (B,3,H,W), pad_mask bool (B,H,W), targets: one dict an image

Pixels stay bytes until they are on the device: a quarter of the traffic of float32 between processes and over the
bus. Boxes are shares of the unpadded image, so padding does not move them. Proven in tests/data/test_batch.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratch.config import IMAGENET_MEAN, IMAGENET_STD
from scratch.data.resize import resize


@dataclass
class Batch:
    """Padded images and what is on them.

    images     uint8 (B,3,H,W), RGB, 0 on the padding
    pad_mask   bool (B,H,W), True on the padding
    targets    a dict an image: `labels` (M,) int64 contiguous 0..K−1, `boxes` (M,4) float32 cxcywh in [0,1] of the
               unpadded image, `image_id` int, `orig_size` and `size` (height, width) before and after the transform
    """

    images: Tensor
    pad_mask: Tensor
    targets: list[dict[str, Any]]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "Batch":
        """The batch on another device; from pinned memory the copy overlaps with computing.

        Labels and boxes travel side by side, all images' in one copy each: 16 images would be 32 copies of some bytes.
        """
        images, pad_mask = (t.to(device, non_blocking=non_blocking) for t in (self.images, self.pad_mask))
        targets = [dict(target) for target in self.targets]
        for name in [name for target in targets[:1] for name, value in target.items() if isinstance(value, Tensor)]:
            lengths = [len(target[name]) for target in targets]
            together = torch.cat([target[name] for target in targets]).to(device, non_blocking=non_blocking)
            for target, part in zip(targets, together.split(lengths)):
                target[name] = part
        return Batch(images, pad_mask, targets)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; DataLoader calls this when it was asked to pin."""
        return self._map(Tensor.pin_memory)

    def split(self, parts: int) -> "list[Batch]":
        """The same images in `parts` Batches of about equal size, or one each if they are fewer; views, no copies."""
        size = -(-len(self.targets) // parts)
        return [Batch(self.images[i:i + size], self.pad_mask[i:i + size], self.targets[i:i + size])
                for i in range(0, len(self.targets), size)]

    def resized(self, size: tuple[int, int]) -> "Batch":
        """The same images with (height, width) pixels, padding included; a pixel that is mostly padding is padding."""
        images = resize(self.images.float(), size).round_().clamp_(0, 255).to(torch.uint8)          # (B,3,*size)
        return Batch(images, resize(self.pad_mask.float(), size) > 0.5, self.targets)

    def normalised(self) -> Tensor:
        """float32 (B,3,H,W): (x/255 − mean) / std on the images' device, and exactly 0 on the padding."""
        mean, std = _statistics(self.images.device)
        x = self.images.float().div_(255).sub_(mean).div_(std)
        return x.masked_fill_(self.pad_mask[:, None], 0.0)

    # A tensor of a worker reaches the process that trains in shared memory, by a file and a connection of its own.
    # Pixels are worth it. Labels and boxes, 32 small tensors in a batch of 16, travel as plain bytes.
    def __getstate__(self) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
        targets = [{k: v.numpy() if isinstance(v, Tensor) else v for k, v in t.items()} for t in self.targets]
        return self.images, self.pad_mask, targets

    def __setstate__(self, state: tuple[Tensor, Tensor, list[dict[str, Any]]]) -> None:
        self.images, self.pad_mask, targets = state
        self.targets = [{k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in t.items()}
                        for t in targets]

    def _map(self, move: Any) -> "Batch":
        targets = [{k: move(v) if isinstance(v, Tensor) else v for k, v in t.items()} for t in self.targets]
        return Batch(move(self.images), move(self.pad_mask), targets)


@lru_cache(maxsize=None)  # made once a device: a fresh copy from the host would make the device wait in every step
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))   # (3,1,1)
    return mean, std


def collate(samples: list[tuple[Tensor, dict[str, Any]]]) -> Batch:
    """Put (image uint8 (3,h,w), target) pairs into one Batch as large as the tallest and the widest of them."""
    images, targets = zip(*samples)
    H = max(image.shape[1] for image in images)
    W = max(image.shape[2] for image in images)
    padded = torch.zeros(len(images), 3, H, W, dtype=torch.uint8)
    pad_mask = torch.ones(len(images), H, W, dtype=torch.bool)
    for i, image in enumerate(images):
        _, h, w = image.shape
        padded[i, :, :h, :w] = image
        pad_mask[i, :h, :w] = False
    return Batch(padded, pad_mask, list(targets))
