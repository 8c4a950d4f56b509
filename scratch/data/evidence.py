"""evidence: each box may be valid, but do all of them together have the expected form?

    taken as x y width height       what the set as a whole shows
    [0.31 0.40 0.12 0.25]           every box lies in the first pixel of its image: normalised
    [400 300 520 410] in 640×480    leaves by more than a tenth, and all fit as x0 y0 x1 y1: corners
    [630 200  40  50] in 640×480    leaves to the right, none begins at the left border: x y is the centre
    [100 500  80  90] in 640×480    leaves, and all fit 480×640: the sizes are of the picture as stored, or swapped

One box that leaves its image is a mistake and is clipped. **Certain** (refused) needs both: more boxes that are invalid
as they stand than careless annotation produces, and another form in which (nearly) all boxes fit; or half of all boxes
far outside, which is wrong in every form. **Likely** (a message) needs less of either.

    form          boxes       invalid as they stand                              fit the other form
    normalised    1           50 % (and 3) or all of them in the first pixel     -
    corners       5           2 and 20 % leave by a tenth of the image           95 %
    centres       8           3 and 20 %, or 5 and 5 %, leave by a tenth of      99 %
                              themselves, to the right or the bottom
                  50          10 and 2 %, 3 or more of them each way             all, to 2 pixels
    turned        8           3 and 10 % leave by a twentieth of the image       99 %
    turned, noted 4           2 and 5 % leave by a twentieth of the image        99 %
    outside       5           50 % leave by a tenth of the image                 -

"Noted" are the images with an EXIF orientation that turns them, and with the size of the pixels as stored.
Proven in tests/data/test_evidence.py.
Read: judge → _normalised, _corners, _centres, _turned, _outside; sizes_as_corners; same_boxes → best_ap
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

# Why these bounds: rounding by a tool moves a box out by a pixel, annotation by hand by a few; a tenth of the image is
# neither. Read as centres, a correct set fails at every box near its left or upper border, and boxes that leave by
# accident leave there as often as to the right. Read as corners, it fails at every box that is narrower than its
# distance to the left border. Read turned, it fails where a box reaches into the longer side's end.


@dataclass(frozen=True)
class Finding:
    """What a whole set looks like: `certain` or likely, in words, and the place of a box that shows it."""

    certain: bool
    words: str
    example: int


def judge(boxes_xywh: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    """What N boxes (N,4), as written, in images of these (width, height) (N,2) look like; None for what they should.

    Boxes without a positive width and height are not to be among them.
    """
    if len(boxes_xywh) == 0:
        return None
    boxes_xywh = np.clip(boxes_xywh, -1e12, 1e12)  # sums of two are finite then
    found = [finding for look in (_normalised, _corners, _centres, _turned, _outside, _percent)
             if (finding := look(boxes_xywh, sizes))]
    return next((finding for finding in found if finding.certain), found[0] if found else None)


def turned(boxes_xywh: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    """As `judge`, but whether the sizes are swapped alone: for the pictures with a note that turns them."""
    return _turned(np.clip(boxes_xywh, -1e12, 1e12), sizes, noted=True) if len(boxes_xywh) else None


def sizes_as_corners(corners: np.ndarray, sizes: np.ndarray) -> Optional[str]:
    """Why what a table calls x0 y0 x1 y1 (N,4) is certainly x y width height, in images of `sizes` (N,2); or None.

    3 and 10 % must be the wrong way round, and 95 % fit as x y width height. Of true corners, those fit so whose box
    has its centre in the upper left quarter of its image.
    """
    corners = np.clip(corners, -1e12, 1e12)
    n, slack = len(corners), 1 + sizes / 100
    k = int((corners[:, 2:] < corners[:, :2]).any(1).sum())
    fits = (corners[:, 2:] > 0) & (corners[:, :2] >= -slack) & (corners[:, :2] + corners[:, 2:] <= sizes + slack)
    fitting = int(fits.all(1).sum())
    if k < 3 or k < n / 10 or fitting < 0.95 * n:
        return None
    return (f"the corners of {k:,} of {n:,} boxes are the wrong way round, and {fitting:,} boxes would fit as x y "
            "width height: are xmax, ymax a width and a height? Name the columns x, y, w, h")


def _normalised(boxes: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    n = len(boxes)
    first_pixel = ((boxes >= 0) & (boxes <= 1.01)).all(1) & (sizes >= 8).all(1)     # (N,)
    k = int(first_pixel.sum())
    broken = (boxes[first_pixel] % 1 != 0).any()  # a box of one whole pixel may be meant
    certain = bool(broken) and (k == n or k >= 3 and k >= n / 2)
    if certain or k >= 3 and k >= n / 100:
        return Finding(certain, f"{_of(k, n)} within the first pixel of their image, with all four values between 0 "
                       "and 1: normalised? Multiply x and width by the image's width, y and height by its height",
                       int(first_pixel.argmax()))
    return None


def _corners(boxes: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    n, slack = len(boxes), 1 + sizes / 100
    far = _overshoot(boxes, sizes) > 0.1                                            # (N,)
    fits = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + slack) & (boxes[:, :2] >= -slack)).all(1)
    k, fitting = int(far.sum()), int(fits.sum())
    certain = n >= 5 and k >= 2 and k >= n / 5 and fitting >= 0.95 * n
    if certain or n >= 3 and k >= n / 10 and fitting >= 0.9 * n:
        return Finding(certain, f"{_of(k, n)} far outside their image, and {fitting:,} would fit as x0 y0 x1 y1: "
                       "corners, instead of x y width height? Subtract x0 from x1 and y0 from y1", int(far.argmax()))
    return None


def _centres(boxes: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    n, slack = len(boxes), 1 + sizes / 200
    half = boxes[:, 2:] / 2                                                         # (N,2)
    over = (boxes[:, :2] + boxes[:, 2:] - sizes) > 0.1 * boxes[:, 2:]               # (N,2)
    out = over.any(1)                                                               # (N,)
    inside = np.minimum(boxes[:, :2] - half, sizes - boxes[:, :2] - half).min(1)    # (N,), as centres, in pixels
    fits = ((boxes[:, :2] - half >= -slack) & (boxes[:, :2] + half <= sizes + slack)).all(1)
    k, fitting = int(out.sum()), int(fits.sum())
    # Fewer are enough where they lie beyond both borders, and all boxes fit to 2 pixels: what leaves a picture, or is drawn
    # without care, does so at its left and upper border, too.
    all_fit = n >= 50 and k >= 10 and k >= n / 50 and (over.sum(0) >= 3).all() and (inside >= -2).all()
    certain = all_fit or n >= 8 and fitting >= 0.99 * n and (k >= 3 and k >= n / 5 or k >= 5 and k >= n / 20)
    if certain or n >= 5 and k >= 2 and k >= 0.03 * n and fitting >= 0.98 * n:
        return Finding(certain, f"{_of(k, n)} beyond the right or the lower border, and {fitting:,} would fit with x y "
                       "as the centre: centres, instead of the upper left corner? Subtract half the width and half the "
                       "height", int(out.argmax()))
    return None


def _turned(boxes: np.ndarray, sizes: np.ndarray, noted: bool = False) -> Optional[Finding]:
    oblong = np.flatnonzero(np.abs(sizes[:, 0] - sizes[:, 1]) > 0.02 * sizes.max(1))
    boxes, sizes = boxes[oblong], sizes[oblong]
    n, slack = len(boxes), 1 + sizes[:, ::-1] / 200
    far = _overshoot(boxes, sizes) > 0.05                                           # (n,)
    fits = ((boxes[:, :2] >= -slack) & (boxes[:, :2] + boxes[:, 2:] <= sizes[:, ::-1] + slack)).all(1)
    k, fitting = int(far.sum()), int(fits.sum())
    certain = fitting >= 0.99 * n and (n >= 8 and k >= 3 and k >= n / 10 or noted and n >= 4 and k >= 2 and k >= n / 20)
    if certain or n >= 4 and k >= 1 and k >= 0.03 * n and fitting >= 0.98 * n:
        return Finding(certain, f"{_of(k, n)} outside their image, and {fitting:,} would fit it turned by a quarter: "
                       "are width and height those of the pixels as stored (a camera's EXIF note turns them), or "
                       "swapped? Swap them", int(oblong[far.argmax()]))
    return None


def _outside(boxes: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    n, far = len(boxes), _overshoot(boxes, sizes) > 0.1
    k = int(far.sum())
    certain = n >= 5 and k >= n / 2
    if certain or n >= 5 and k >= n / 10:
        return Finding(certain, f"{_of(k, n)} outside their image by more than a tenth of it: were they drawn on a "
                       "larger picture, or on another one?", int(far.argmax()))
    return None


def _percent(boxes: np.ndarray, sizes: np.ndarray) -> Optional[Finding]:
    """Likely at best: in large pictures all may lie up there by chance."""
    ends = (boxes[:, :2] + boxes[:, 2:]).max(0)
    if len(boxes) >= 20 and (sizes >= 250).all() and (ends >= 80).all() and (ends <= 100.5).all():
        return Finding(False, f"all {len(boxes):,} boxes lie within the first 100 × 100 pixels of larger images: are "
                       "they in percent?", 0)
    return None


def _overshoot(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """By which share of its image a box leaves it, on the worst of the four sides (N,); negative inside."""
    return (np.maximum(boxes[:, :2] + boxes[:, 2:] - sizes, -boxes[:, :2]) / sizes).max(1)


def _of(k: int, n: int) -> str:
    return (f"all {n:,} boxes lie" if k == n > 1 else f"{k:,} of {n:,} boxes {'lies' if k == 1 else 'lie'}")


# -- what stands there twice, and what the best detector can then reach ---------------------------------------------


def same_boxes(rows: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) int64: the place of the first box of the same image, class and coordinates (to 0.01 pixels), or its own."""
    with np.errstate(invalid="ignore", over="ignore"):
        columns = np.column_stack([rows, labels, np.round(boxes * 100)]).astype(np.int64)           # (N,6)
        mixed = np.zeros(len(columns), dtype=np.uint64)
        for column in columns.T.astype(np.uint64):
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (columns[order[1:]] != columns[order[:-1]]).any(1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    return first


def best_ap(rows: np.ndarray, labels: np.ndarray, first: np.ndarray, most: int) -> Optional[float]:
    """The AP of a detector that finds every object once and nothing else; COCO counts `most` a class and image.

    Of boxes that are the same (`first`, as of `same_boxes`) it finds one. A class of n boxes, m of them found, has the
    recall m/n at a precision of 1: of the 101 recalls 0, 0.01 … 1 those up to m/n count. None without a box.
    """
    values = []
    single = first == np.arange(len(first))
    for label in np.unique(labels):
        mine = labels == label
        _, found = np.unique(rows[mine & single], return_counts=True)
        m, n = int(np.minimum(found, most).sum()), int(mine.sum())
        values.append((100 * m // n + 1) / 101)
    return float(np.mean(values)) if values else None
