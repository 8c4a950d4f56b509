"""sigmoid_scores: which detections does a classifier give that has one sigmoid for each class?

    score[q,k] = σ(l[q,k])        each class of each query is a candidate; the N best of all Q·K count

    pred_logits (B,Q,K) → scores, labels and queries (B,N)        N = min(Q·K, most)

With focal classification there is no "no object". A query that is uncertain between two classes gives
two detections, one of each class, and AP counts both (Deformable DETR: Zhu et al. 2020, arXiv
2010.04159, in its code). Proven in tests/evaluation/test_postprocess.py.
"""

from __future__ import annotations

from torch import Tensor


def best_of_all_classes(logits: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and queries of the `most` best candidates of each image, sorted by score."""
    K = logits.shape[-1]
    best, place = logits.flatten(1).topk(min(logits[0].numel(), most))  # (B,N), (B,N)
    return 1 / (1 + (-best).exp()), place % K, place // K
