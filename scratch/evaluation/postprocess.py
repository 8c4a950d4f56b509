"""postprocess: which object, how sure, and where in the photograph?

    label[q] = argmax_{k<K} l[q,k]                       the best real class; "no object" (index K) never wins
    score[q] = softmax(l[q])[label] = 1 / Σ_{k≤K} exp(l[q,k] − l[q,label])
    box[q]   = (cx − w/2, cy − h/2, cx + w/2, cy + h/2) · (W, H, W, H)

    pred_logits (B,Q,K+1), pred_boxes (B,Q,4) in [0,1], orig_sizes (B,2)
        → scores (Q,), labels (Q,), boxes (Q,4) and queries (Q,), which are 0, 1 … Q−1, an image

Under focal classification each class has a sigmoid of its own, and there is no "no object". Then
each class of each query is an answer, score[q,k] = σ(l[q,k]), and the best of all Q·K count, as
many as COCO looks at: where a query doubts between star and cross, AP hears both (Zhu et al. 2020,
arXiv 2010.04159, in its code). pred_logits (B,Q,K) → scores, labels and queries (N,), boxes (N,4),
with N = min(Q·K, max(Q, 100)).

The model saw a resized, padded image, but its boxes are shares of the unpadded one, so the
original's height and width alone bring them home. Equals the official `PostProcess`; proven in
tests/evaluation/test_postprocess.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scratch.ops.boxes import box_cxcywh_to_xyxy


DETECTIONS = 100  # an image, as COCO counts them


@torch.no_grad()
def postprocess(outputs: dict[str, Tensor], orig_sizes: Tensor,
                classification: str = "softmax", most: int = DETECTIONS) -> list[dict[str, Tensor]]:
    """Turn the model's output dict into detections in the originals' pixels, one dict an image.

    `orig_sizes` (B,2) holds each original's (height, width). A dict holds `scores` (Q,) float32 in [0,1], `labels` (Q,)
    int64 contiguous 0..K−1, `boxes` (Q,4) float32 xyxy in pixels and `queries` (Q,) int64: whose answer each is;
    nothing is sorted, dropped or clipped. Under focal classification there are N of each, the surest first; `most`
    takes the place of the 100 above.
    Raises ValueError when `orig_sizes` does not hold one (height, width) for each image.
    """
    logits, boxes_cxcywh = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
    B, Q, K = logits.shape
    if tuple(orig_sizes.shape) != (B, 2):
        raise ValueError(f"got orig_sizes of shape {tuple(orig_sizes.shape)}, wanted ({B}, 2): "
                         f"one (height, width) for each image of the batch")

    if classification == "focal":
        best, place = logits.flatten(1).topk(min(logits[0].numel(), max(Q, most)))  # (B,N), (B,N)
        scores, labels, queries = 1 / (1 + (-best).exp()), place % K, place // K    # (B,N)
        boxes_cxcywh = boxes_cxcywh.gather(1, queries[..., None].expand(-1, -1, 4))  # (B,N,4)
    else:
        best, labels = logits[..., :-1].max(dim=-1)
        # Only the best class's probability is wanted, so one sum does for a whole softmax. An exponent can be positive
        # for "no object" alone; where its exp overflows, 1/∞ = 0 is what float32 softmax rounds to as well.
        scores = 1 / (logits - best[..., None]).exp().sum(dim=-1)
        queries = torch.arange(Q, device=logits.device).expand(B, Q)

    height, width = orig_sizes.to(boxes_cxcywh).unbind(dim=1)
    scale = torch.stack((width, height, width, height), dim=1)                      # (B,4)
    boxes = box_cxcywh_to_xyxy(boxes_cxcywh) * scale[:, None]                       # (B,Q,4)
    return [{"scores": s, "labels": k, "boxes": b, "queries": q} for s, k, b, q in zip(scores, labels, boxes, queries)]
