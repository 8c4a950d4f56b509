"""progressive: progressive resizing: must the first steps of a run see every pixel?

    progress p    0 ─────────── grow/2 ─────────── grow ─────────── 1        grow = 0.8 in the preset tiny
    side          ½ of short_side      ¾                  all of it
    cost          about ¼              ½                  1                   of a step's pixels

What an object looks like roughly, and where objects stand, is learnt from small pictures as well; exact
boxes and small objects need large ones. A convolution's work is proportional to the pixels, so the
same minutes hold more steps, or larger pictures at the end. Nothing in the network knows the size: its
weights are windows, and a cell's positional encoding is of its place as a share of the picture. Boxes
are shares as well, so they stay as they are.

Weights that have only seen small pictures find little on large ones, where the same object is twice as
large. So an evaluation shows pictures at the size of the last training step, and a checkpoint's
configuration has that size as its short_side, for all who use it; the run's own stands beside it
(`size`), for a run that goes on.

Source: Tan and Le 2021 (EfficientNetV2, arXiv 2104.00298), section 4, progressive learning; they strengthen
the data augmentation with the size, too. What it gains here:
hyper_parameter_tuning_charts/index.md. Proven in
tests/training/test_progressive.py. Read: share_of_side (how large, when) → smaller
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scratch.config import DataConfig

SHARES = (1 / 2, 3 / 4)  # of the side, each for an equal part of the growth
MULTIPLE = 16  # pixels: the stride of tiny's encoder; a side of 72 would be 4½ of its cells


def share_of_side(grow: float, progress: float) -> float:
    """The share of short_side that pictures have where `progress` of the run is done; both in [0, 1].

    grow   the share of the run after which pictures have their whole size; 0: from the first step on
    """
    for number, share in enumerate(SHARES, 1):
        if progress < grow * number / len(SHARES):
            return share
    return 1.0


def side_at(side: int, share: float) -> int:
    """`share` of a side in pixels, in multiples of 16, and never more than the side; at 1 the side itself."""
    return side if share == 1.0 else min(side, max(MULTIPLE, MULTIPLE * round(share * side / MULTIPLE)))


def shown_at(data: DataConfig, share: float) -> DataConfig:
    """The settings by which pictures are read at `share` of their size."""
    return replace(data, short_side=side_at(data.short_side, share), max_size=side_at(data.max_size, share))


def smaller(batch: Any, share: float) -> Any:
    """The Batch with both sides of its pictures at `share` of theirs; at 1 it is the same object."""
    if share == 1.0:
        return batch
    H, W = batch.images.shape[-2:]
    return batch.resized((side_at(H, share), side_at(W, share)))
