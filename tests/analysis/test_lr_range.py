"""Reading a range test: smoothing does not shift, and the suggestion is the steepest fall."""

from __future__ import annotations

from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib import pyplot as plt

from scratch.analysis.lr_range import chart, draw, in_words, rate_at, smooth, suggestion


def results(losses: Any, steps: int = 101, **changes: Any) -> dict:
    """A test from 1e-5 to 1 (a factor of ten takes 20 steps) that saw these losses."""
    rates = [rate_at(1e-5, 1.0, steps, k) for k in range(len(losses))]
    return {"of": "lr", "preset": "tiny", "data": "shapes", "from": 1e-5, "to": 1.0, "steps": steps, "configured": 2e-3,
            "stopped": None, "rates": rates, "losses": [float(loss) for loss in losses], **changes}


def a_valley(steps: int = 101) -> np.ndarray:
    """40, falling to 20 around 1e-3 (k = 40), rising to 120 around 10^-0.5 (k = 90)."""
    k = np.arange(steps)
    return 40 - 20 / (1 + np.exp(-(k - 40) / 4)) + 100 / (1 + np.exp(-(k - 90) / 2))


def test_rates_rise_by_one_factor_from_the_first_to_the_last() -> None:
    rates = [rate_at(1e-4, 1e-1, 4, k) for k in range(4)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])


def test_smoothing_leaves_lines_alone_and_spreads_a_spike_evenly_to_both_sides() -> None:
    assert smooth([5.0] * 9, 2.0) == pytest.approx([5.0] * 9)
    assert smooth(list(range(21)), 1.0)[5:16] == pytest.approx(range(5, 16))  # a running mean would lag behind
    spike = smooth([0.0] * 10 + [1.0] + [0.0] * 10, 1.5)
    assert spike == pytest.approx(spike[::-1]) and spike.argmax() == 10 and spike.sum() == pytest.approx(1, abs=0.01)


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    found = suggestion(results(a_valley()))
    assert found["steepest"] == pytest.approx(1e-3, rel=0.15)
    assert 1e-2 < found["lowest"] < 10 ** -0.75


def test_noise_of_a_tenth_of_the_fall_hardly_moves_it() -> None:
    noise = np.random.default_rng(0).normal(0, 2.0, 101)
    assert suggestion(results(a_valley() + noise))["steepest"] == pytest.approx(1e-3, rel=0.5)


@pytest.mark.parametrize("losses", [np.full(101, 30.0), np.linspace(30, 90, 101),
                                    30 + np.random.default_rng(1).normal(0, 3, 101)])
def test_a_loss_that_never_clearly_falls_suggests_nothing_but_another_range(losses: np.ndarray) -> None:
    found = results(losses)
    assert suggestion(found)["steepest"] is None
    assert "never clearly fell" in in_words(found)[1] and "--from 1e-07" in in_words(found)[1]


def test_the_words_say_how_it_ended_and_what_is_suggested() -> None:
    found = results(a_valley(), stopped="the loss was over 4 times its lowest")
    first, second = in_words(found)
    assert first == "lr from 1e-05 to 1 over 101 steps: the loss was over 4 times its lowest, at 1."
    assert "falls fastest at lr = 0.001 (suggested)" in second


def test_the_chart_has_the_steps_the_curve_and_the_two_rates(tmp_path: Any) -> None:
    figure = chart(results(a_valley()))
    (axes,) = figure.axes
    lines = {line.get_label().partition(":")[0]: line for line in axes.lines}
    assert list(lines) == ["each step", "smoothed", "steepest fall", "lowest", "as configured"]
    assert len(lines["each step"].get_xdata()) == 101 and axes.get_xscale() == "log"
    assert lines["steepest fall"].get_xdata()[0] == suggestion(results(a_valley()))["steepest"]
    assert axes.get_ylim()[1] < 110  # what blew up leaves the picture
    plt.close(figure)
    draw(results([30.0] * 12, steps=12), tmp_path / "chart.png")
    assert matplotlib.image.imread(tmp_path / "chart.png").std() > 0
