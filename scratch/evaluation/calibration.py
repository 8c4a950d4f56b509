"""calibration: are 8 of 10 detections with a score of 0.8 correct?

    bin b = the detections that score in [b/B, (b+1)/B), n_b of n
    conf_b = their mean score     acc_b = the share that is right (matched at an IoU of 0.5)

    ECE = Σ_b n_b/n · |acc_b − conf_b|    expected calibration error: 0 where scores are probabilities
    gap = Σ_b n_b/n · (conf_b − acc_b)    > 0: overconfident; < 0: underconfident

    acc 1 ┤          ╱     on the diagonal, a score is a probability;
          │      ╱▁▁▁      below it, the detector is overconfident;
        0 ┼──╱▁▁▁──────    above it, it is underconfident
          0     conf  1

AP depends only on the order of the scores, calibration on their values: a detector can have one
without the other. Most detections of a DETR have a score near 0, and are wrong, which makes the ECE
of all low; so it is also given for those above the threshold. With `quality` (ops/beyond/quality_focal_loss) scores
also predict how well the box fits: such detectors are underconfident by design.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599. Worked by hand in
tests/evaluation/test_calibration.py. Read: calibration
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

BINS = 10


def calibration(scores: np.ndarray, right: np.ndarray, threshold: float = 0.0) -> dict[str, Any]:
    """Scores (n,) in [0,1] and whether each was right (n,) → the bins, and how far both are apart.

    threshold   what a person is shown: `shown` holds n, ECE and gap of the detections that score as much or more
    A bin is {"low", "high", "count", "score" (conf), "right" (acc)}; the last two are None where it is empty, as are
    ECE and gap where there is no detection. Raises ValueError for scores that are no probabilities.
    """
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(f"got scores from {scores.min():g} to {scores.max():g}, wanted probabilities in [0,1]")
    bins = _bins(scores, right)
    kept = scores >= threshold
    return {"bins": bins, **_errors(bins), "shown": _errors(_bins(scores[kept], right[kept]))}


def _bins(scores: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    number = np.minimum((scores * BINS).astype(np.int64), BINS - 1)  # a score of 1 has no bin of its own
    bins = []
    for b in range(BINS):
        inside = number == b
        count = int(inside.sum())
        bins.append({"low": b / BINS, "high": (b + 1) / BINS, "count": count,
                     "score": float(scores[inside].mean()) if count else None,
                     "right": float(right[inside].mean()) if count else None})
    return bins


def _errors(bins: list[dict[str, Any]]) -> dict[str, Optional[float]]:
    n = sum(b["count"] for b in bins)
    gaps = [(b["count"] / n, b["score"] - b["right"]) for b in bins if b["count"]]
    return {"n": n, "ECE": sum(share * abs(gap) for share, gap in gaps) if n else None,
            "gap": sum(share * gap for share, gap in gaps) if n else None}
