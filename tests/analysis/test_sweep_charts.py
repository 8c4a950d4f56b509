"""The sweep's charts: who is coloured, dashed or left out, and where a value lies on its axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib import pyplot as plt

from scratch.analysis.learning_curve import COLOURS
from scratch.analysis.sweep_charts import (
    _MAP, DARK_GREY, GREY, _at, _height, draw, importance, learning_curves, parallel_coordinates, slices,
)

SPACE = {"lr": {"kind": "log", "low": 1e-4, "high": 1e-2, "step": None},
         "num_queries": {"kind": "even", "low": 20, "high": 100, "step": 20},
         "queries": {"kind": "choice", "values": ["learned", "anchor"]}}


def a_trial(number: int, value: float | None, state: str = "complete", **values: Any) -> dict:
    """Evaluated at half and at the end of what it was given; a pruned one had half of its budget."""
    shares = [] if value is None else [0.25, 0.5] if state == "pruned" else [0.5, 1.0]
    curve = [] if value is None else [value / 2, value]
    return {"number": number, "values": {"lr": 1e-3, "num_queries": 60, "queries": "anchor", **values}, "state": state,
            "reason": "", "value": value, "steps": 10, "minutes": 1.0, "is_default": number == 0, "here": True,
            "command": "", "evaluation": {"share": shares, "step": shares, "minutes": shares,
                                          "AP": curve, "AP50": curve, "AP75": curve}}


def results(*trials: dict, **changes: Any) -> dict:
    return {"study": "made-up", "metric": "AP", "split": "val", "space": SPACE, "importance": None,
            "trials": list(trials), **changes}


TRIALS = (a_trial(0, 0.2), a_trial(1, 0.4, lr=1e-2, queries="learned"), a_trial(2, 0.1, "pruned", lr=1e-4),
          a_trial(3, None, "failed"), a_trial(4, None, "running"))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def lines_of(figure: Figure, axes: int = 0) -> dict[str, Any]:
    return {line.get_label(): line for line in figure.axes[axes].lines}


def test_a_curve_for_each_trial_that_was_evaluated_the_best_ones_coloured_and_the_pruned_dashed() -> None:
    figure = learning_curves(results(*TRIALS))
    lines = lines_of(figure)
    assert sorted(lines) == ["trial 0", "trial 1", "trial 2"]
    assert lines["trial 1"].get_xydata().tolist() == [[50, 0.2], [100, 0.4]]
    assert [lines[f"trial {k}"].get_color() for k in (1, 0, 2)] == [COLOURS[0], COLOURS[1], DARK_GREY]
    assert [lines[f"trial {k}"].get_linestyle() for k in (0, 1, 2)] == ["-", "-", "--"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["trial 1: 0.400", "trial 0: 0.200 (default)",
                                                                    "ended early"]


def test_beyond_five_the_curves_are_grey_and_below_the_others() -> None:
    lines = lines_of(learning_curves(results(*(a_trial(k, 0.1 + k / 100) for k in range(7)))))
    assert [lines[f"trial {k}"].get_color() for k in range(7)] == [GREY, GREY, *reversed(COLOURS[:5])]
    assert lines["trial 0"].get_zorder() < lines["trial 6"].get_zorder()


def test_next_to_nothing_does_not_look_like_much() -> None:
    figure = learning_curves(results(a_trial(0, 0.001)))
    assert figure.axes[0].get_ylim() == (0, 0.05)


def test_a_line_crosses_each_axis_at_its_value_on_the_ranges_own_scale() -> None:
    lines = lines_of(parallel_coordinates(results(*TRIALS)))
    at = {label: line.get_ydata() for label, line in lines.items() if label.startswith("trial")}
    assert at["trial 0"][:2] == pytest.approx([0.5, 0.5]) and at["trial 1"][0] == 1 and at["trial 2"][0] == 0
    assert 0.5 < at["trial 0"][2] < 1 and 0 < at["trial 1"][2] < 0.5  # anchor is the second of two choices
    assert at["trial 0"][3] == 0 and at["trial 1"][3] == 1 and len(at["trial 2"]) == 3  # pruned: no final figure
    assert lines["trial 2"].get_linestyle() == "--" and to_hex(lines["trial 1"].get_color()) == to_hex(_MAP(1.0))


def test_differences_that_may_be_chance_are_not_stretched_over_all_colours() -> None:
    lines = lines_of(parallel_coordinates(results(a_trial(0, 0.300), a_trial(1, 0.305))))
    assert lines["trial 1"].get_ydata()[3] == pytest.approx(0.25)  # of 0.02


def test_the_ends_of_every_axis_are_named() -> None:
    texts = [text.get_text() for text in parallel_coordinates(results(*TRIALS)).axes[0].texts]
    assert {"0.0001", "0.001", "0.01", "20", "100", "learned", "anchor", "0.200", "0.400"} <= set(texts)


def test_trials_of_the_same_choice_do_not_hide_each_other() -> None:
    places = [_at(SPACE["queries"], "anchor", number) for number in range(6)]
    assert len({round(place, 3) for place in places}) == 6 and all(0.7 <= place <= 1.3 for place in places)


def test_a_slice_shows_each_trial_at_its_value_the_best_as_a_star_and_the_default_framed() -> None:
    figure = slices(results(*TRIALS))
    lr, queries, kind = figure.axes[:3]
    assert [axes.get_xlabel() for axes in (lr, queries, kind)] == list(SPACE) and lr.get_xscale() == "log"
    lines = {line.get_label(): line for line in lr.lines}
    assert {label: line.get_xydata().tolist() for label, line in lines.items()} == {
        "complete": [[1e-3, 0.2]], "pruned": [[1e-4, 0.1]], "best": [[1e-2, 0.4]], "default": [[1e-3, 0.2]]}
    shown = [text.get_text() for text in figure.legends[0].texts]
    assert shown == ["complete", "ended early", "the default", "the best"]
    assert [tick.get_text() for tick in kind.get_xticklabels()] == ["learned", "anchor"]


def test_importance_is_sorted_or_said_to_be_unknown() -> None:
    axes = importance(results(*TRIALS, importance={"lr": 0.25, "queries": 0.75})).axes[0]
    assert [patch.get_width() for patch in axes.patches] == [25, 75]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["lr", "queries"]
    (text,) = importance(results(*TRIALS)).axes[0].texts
    assert "it takes 10 complete trials" in text.get_text() and "there are 2" in text.get_text()


@pytest.mark.parametrize("trials", [(), (a_trial(0, None, "running"),), TRIALS, (a_trial(0, 0.0),)])
def test_four_pictures_are_written_whatever_there_is(tmp_path: Path, trials: tuple) -> None:
    draw(results(*trials), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["importance.png", "learning_curves.png", "parallel_coordinates.png", "slices.png"]
    for name in names:
        picture = matplotlib.image.imread(tmp_path / name)
        assert picture.std() > 0 and np.allclose(picture[0, 0, :3], 1)  # white where nothing is drawn
    assert not plt.get_fignums()


def test_a_number_lies_where_its_range_says() -> None:
    assert [_height(SPACE["lr"], value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [_height(SPACE["num_queries"], value) for value in (20, 60, 100)] == [0, 0.5, 1]
    assert [_height(SPACE["queries"], value) for value in ("learned", "anchor")] == [0.25, 0.75]
