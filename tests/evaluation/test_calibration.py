"""How far scores and shares of right detections are apart, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scratch.evaluation.calibration import BINS, calibration


def of(pairs: list[tuple[float, int]], threshold: float = 0.0) -> dict:
    scores, right = ([pair[k] for pair in pairs] for k in (0, 1))
    return calibration(np.array(scores), np.array(right, dtype=bool), threshold)


def test_the_error_is_the_one_worked_by_hand() -> None:
    # 0.8-0.9: scores 0.82, 0.88, mean 0.85, both right: 0.15 apart. 0.3-0.4: mean 0.35, one of four right: 0.10 apart.
    found = of([(0.82, 1), (0.88, 1), (0.31, 0), (0.33, 1), (0.37, 0), (0.39, 0)])
    assert found["ECE"] == pytest.approx(2 / 6 * 0.15 + 4 / 6 * 0.10)
    assert found["gap"] == pytest.approx(2 / 6 * -0.15 + 4 / 6 * 0.10)  # the sure ones are surer than they say
    assert found["n"] == 6


def test_a_bin_holds_its_lower_border_and_the_last_one_both() -> None:
    bins = of([(0.5, 1), (0.499, 1), (1.0, 1), (0.95, 0), (0.0, 0)])["bins"]
    assert len(bins) == BINS == 10 and [b["count"] for b in bins] == [1, 0, 0, 0, 1, 1, 0, 0, 0, 2]
    assert (bins[5]["low"], bins[5]["high"]) == (0.5, 0.6)
    assert bins[9]["score"] == pytest.approx(0.975) and bins[9]["right"] == 0.5


def test_a_detector_that_says_what_it_is_has_no_error() -> None:
    found = of([(0.75, 1), (0.75, 1), (0.75, 1), (0.75, 0), (0.25, 1), (0.25, 0), (0.25, 0), (0.25, 0)])
    assert found["ECE"] == found["gap"] == 0.0


def test_those_shown_are_judged_apart() -> None:
    pairs = [(0.95, 1), (0.65, 0)] + [(0.05, 0)] * 98
    found = of(pairs, threshold=0.65)
    assert found["shown"] == pytest.approx({"n": 2, "ECE": (0.05 + 0.65) / 2, "gap": (-0.05 + 0.65) / 2})
    assert found["ECE"] == pytest.approx(0.98 * 0.05 + 0.01 * 0.05 + 0.01 * 0.65)


def test_without_detections_there_is_no_error_to_speak_of() -> None:
    found = of([])
    assert found["ECE"] is found["gap"] is found["bins"][0]["score"] is found["bins"][0]["right"] is None
    assert of([(0.2, 1)], threshold=0.5)["shown"] == {"n": 0, "ECE": None, "gap": None}


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="wanted probabilities"):
        of([(score, 1), (0.5, 1)])
