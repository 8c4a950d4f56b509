"""health: is a detector with AP 0 still learning, or is it stuck?

    box_spread            mean over i and q≠r of 1 − IoU(b_iq, b_ir)
    box_response          mean over q and k of the standard deviation over i of b_iqk
    matching_instability  share of the objects whose query is not that of the evaluation before
    matched_queries[l]    share of the Q queries that answered for some object, in decoder layer l
    matched_agreement[l]  share of the objects whose query in layer l is that of the last layer

    b (N,Q,4)   the last layer's boxes, (cx,cy,w,h) in shares of the image;
                i an image, q and r queries, k a coordinate

    one picture    another
    ┌─────────┐  ┌─────────┐
    │   ▣     │  │     ▣   │    spread 0: all queries give one box (query collapse)
    └─────────┘  └─────────┘
    │ ▢  ▢  ▢ │  │ ▢  ▢  ▢ │    response 0: each query gives one box for all images
    └─────────┘  └─────────┘

AP is 0 in both, and the loss may still fall a little: only the boxes tell. The instability is that
of DN-DETR (Li et al. 2022, arXiv 2203.01305, section 3.2) as a share; they count the queries that
changed their object, up to two for an object that changed its query. All are exact for any
batches and ranks; worked by hand in tests/evaluation/test_health.py. Read: QueryHealth → diagnose
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from scratch.ops.boxes import box_cxcywh_to_xyxy, box_iou

# A run that finds something gets no warning: on very similar images, fixed boxes may be right. Without the image,
# boxes of the usual sizes in the usual places reach an AP50 of one or two hundredths.
FINDS_SOMETHING = 0.05  # AP50
# Queries that are learnt from nothing begin below 0.01, and a detector that begins to find something has 0.6 and more;
# boxes thrown at random, each half as wide and high as the image, have about 0.7.
LEAST_SPREAD = 0.3
# 0.02 of the image is less than half the width of a small object (32 of 640 pixels), and less than detectors that work
# show even where objects lie everywhere (blood cells: 0.03). Stuck ones stay near 0.01 and below.
LEAST_RESPONSE = 0.02

Matching = dict[str, Tensor]
Pairs = Sequence[tuple[Tensor, Tensor]]


class _Seen(NamedTuple):
    """What is kept of some images: for each object 4·L bytes, for each image 16·Q and a few more.

    Boxes are kept and not only their sums, from which an image that a second rank saw too could not be taken back. COCO
    val with 100 queries: 8 MB, a small part of what the evaluator holds of the same boxes.
    """

    image_ids: np.ndarray  # (N,)
    spread: np.ndarray     # (N,)
    boxes: np.ndarray      # (N,Q,4)
    sizes: np.ndarray      # (N,) objects of each image
    queries: np.ndarray    # (L,T) the query of each object, in each layer; −1: more objects than queries


class QueryHealth:
    """Watches the boxes and the matching of one evaluation.

    previous   `matching()` of the evaluation before: three small int tensors, which a checkpoint can hold
    seen       what was taken in, batch by batch. Ranks gather the lists and assign them joined; an image that is in it
               twice counts once, as it was first seen
    """

    def __init__(self, previous: Optional[Matching] = None) -> None:
        self.previous = previous
        self.seen: list[_Seen] = []

    @torch.no_grad()
    def update(self, targets: list[dict[str, Any]], boxes_cxcywh: Tensor, matching: Sequence[Pairs] = ()) -> None:
        """Take in a batch: B targets, the last layer's boxes (B,Q,4), and the criterion's matching.

        matching   for each of the L layers and B images (query indices, target indices), int64 CPU tensors
        """
        B, Q, _ = boxes_cxcywh.shape
        corners = box_cxcywh_to_xyxy(boxes_cxcywh)
        iou, _ = box_iou(corners, corners)                                              # (B,Q,Q)
        # The diagonal holds each box with itself. An empty box overlaps nothing, not even its copy.
        overlap = iou.sum((1, 2)) - iou.diagonal(dim1=1, dim2=2).sum(-1)                # (B)
        spread = (1 - overlap / max(Q * (Q - 1), 1)).clamp(min=0)                       # (B); rounding falls below 0

        sizes = np.array([len(target["labels"]) for target in targets], dtype=np.int64)
        starts = (np.cumsum(sizes) - sizes).tolist()
        queries = np.full((len(matching), sizes.sum()), -1, dtype=np.int32)             # (L,T)
        for row, pairs in zip(queries, matching):
            objects = torch.cat([target + start for (_, target), start in zip(pairs, starts)])
            row[objects.numpy()] = torch.cat([query for query, _ in pairs]).numpy()
        self.seen.append(_Seen(np.array([target["image_id"] for target in targets], dtype=np.int64),
                               spread.cpu().numpy(), boxes_cxcywh.float().cpu().numpy(), sizes, queries))

    def summary(self) -> dict[str, Any]:
        """The five signs and `num_queries`, as plain numbers and lists; None for what could not be measured.

        That is box_spread with one query, box_response with one image, matching_instability in a run's first evaluation
        (or when it is of other images), and what the matching tells where there was none or no object.
        """
        if not self.seen:
            return dict.fromkeys(("num_queries", "box_spread", "box_response", "matching_instability",
                                  "matched_queries", "matched_agreement"))
        seen = _once(self.seen)
        N, Q, _ = seen.boxes.shape
        L, T = seen.queries.shape
        used = [np.unique(row[row >= 0]).size / Q for row in seen.queries]
        agreed = [float((row == seen.queries[-1]).mean()) for row in seen.queries] if T else []
        return {
            "num_queries": Q,
            "box_spread": float(seen.spread.mean(dtype=np.float64)) if Q > 1 else None,
            "box_response": float(seen.boxes.std(axis=0, dtype=np.float64).mean()) if N > 1 else None,
            "matching_instability": _instability(self.previous, self.matching()),
            "matched_queries": used if L and T else None,
            "matched_agreement": agreed if L and T else None,
        }

    def matching(self) -> Optional[Matching]:
        """What the next evaluation needs of this one: `image_ids` (N,), `sizes` (N,) and `queries` (T,).

        `queries` holds the last layer's query of each object, image after image. None if nothing was matched.
        """
        if not self.seen or not len(self.seen[0].queries):
            return None
        seen = _once(self.seen)
        return {"image_ids": torch.from_numpy(seen.image_ids), "sizes": torch.from_numpy(seen.sizes),
                "queries": torch.from_numpy(seen.queries[-1].copy())}  # the row alone, not the table it is part of


def _once(seen: list[_Seen]) -> _Seen:
    """All of `seen` in one, each image once, in the order of the ids."""
    joined = _Seen(*(np.concatenate(parts) for parts in list(zip(*seen))[:-1]),
                   queries=np.concatenate([part.queries for part in seen], axis=1))
    _, first = np.unique(joined.image_ids, return_index=True)
    return _Seen(*(column[first] for column in joined[:-1]), joined.queries[:, _objects(joined.sizes, first)])


def _objects(sizes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The places of the objects of `images` in a row that holds those of all images, `sizes[i]` of image i."""
    ends = np.cumsum(sizes)
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(ends[i] - sizes[i], ends[i]) for i in images)])


def _instability(previous: Optional[Matching], current: Optional[Matching]) -> Optional[float]:
    """The share of the objects that both evaluations saw whose query is another one now; None if there are none."""
    if previous is None or current is None:
        return None
    before, now = ({name: values.cpu().numpy() for name, values in each.items()} for each in (previous, current))
    _, i, j = np.intersect1d(before["image_ids"], now["image_ids"], assume_unique=True, return_indices=True)
    same = before["sizes"][i] == now["sizes"][j]  # or the data has changed, and its objects are others
    then, today = (matching["queries"][_objects(matching["sizes"], images[same])]
                   for matching, images in ((before, i), (now, j)))
    return float((then != today).mean()) if len(then) else None


def follows_pictures(health: dict[str, Any]) -> bool:
    """Do the boxes differ within a picture, and from one to the next, as far as it could be measured?"""
    spread, response = health["box_spread"], health["box_response"]
    return (spread is None or spread >= LEAST_SPREAD) and (response is None or response >= LEAST_RESPONSE)


def diagnose(health: dict[str, Any], ap50: Optional[float], progress: float = 0.0) -> list[str]:
    """What is wrong with the queries, in plain sentences: the number, what it means, what to try. [] if nothing is.

    There is no warning for a detector that finds something (AP50 of `FINDS_SOMETHING`), for a split without objects,
    and in the first evaluation of a run: learnt queries are all alike at first. Proposed queries
    (model/anchors/proposals) begin at other cells in each image, so that these signs hardly show a stuck one; but after
    half of the run (`progress`, 0 to 1) there is a warning for every detector that finds nothing.
    """
    if health["matching_instability"] is None or ap50 is None or ap50 >= FINDS_SOMETHING:
        return []
    Q, spread, response = health["num_queries"], health["box_spread"], health["box_response"]
    warnings = []
    if spread is not None and spread < LEAST_SPREAD:
        warnings.append(
            f"query collapse: an image's {Q} boxes overlap by {1 - spread:.2f} on average (box spread {spread:.2f}, "
            f"wanted {LEAST_SPREAD} or more), so all queries predict one box. Usual early in a run; if it lasts, "
            "lower --lr and --lr-backbone, or raise --warmup-steps")
    if response is not None and response < LEAST_RESPONSE:
        warnings.append(
            f"the queries ignore the image: from image to image their boxes move by {response:.3f} of the image (box "
            f"response, wanted {LEAST_RESPONSE} or more), so each predicts one place for all images. Usual "
            "early in a run; if it lasts, train for longer, try another --lr, or begin with trained weights")
    if not warnings and progress >= 0.5:
        warnings.append(
            f"nothing is found: {100 * progress:.0f} % of the run are over and AP50 is {ap50:.3f} (wanted "
            f"{FINDS_SOMETHING} or more). Look at the pictures: boxes without classes want a larger --ce-loss-coef, "
            "classes without boxes a larger --bbox-loss-coef; neither, another --lr or a longer run")
    return warnings
