"""The charts show the figures of a run, all of them, under their names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import matplotlib.image
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scratch.analysis.error_charts import (
    CHARTS, draw_compared, draw_confusion, draw_errors, draw_parts, draw_precision_recall, draw_scores, draw_sizes,
    save, short,
)
from scratch.analysis.findings import KINDS
from scratch.data.classes import Classes
from tests.analysis.test_findings import analysed
from tests.evaluation.test_error_analysis import THERE

MANY = Classes(tuple(range(1, 32)), tuple(f"class number {i} with a name that is long" for i in range(1, 32)))


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def many_classes() -> dict[str, Any]:
    """31 classes: object i is of class i, and class i + 1 is said of it, but of the first 5."""
    there = {i: [(i, (0, 0, 10, 10))] for i in MANY.ids}
    return analysed(there=there, said={i: [(i if i <= 5 else i % 31 + 1, (0, 0, 10, 10), 0.5)] for i in MANY.ids},
                    classes=MANY)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def widths(figure: Figure, panel: int) -> list[float]:
    return [bar.get_width() for bar in figure.axes[panel].patches]


def test_a_bar_is_as_long_as_its_kind_costs() -> None:
    run = analysed()
    figure = draw_errors(run)
    cost = run["errors"]["cost"]
    assert widths(figure, 0) == pytest.approx([cost[kind] for kind in KINDS])
    assert widths(figure, 1) == pytest.approx([cost["FP"], cost["FN"]])
    by_class = {c["name"]: c["cost"] for c in run["classes"]}
    names = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert widths(figure, 2) == pytest.approx([by_class[name][kind] for kind in KINDS for name in names])
    assert f"{cost['Miss']:.3f}" in texts(figure) and [t.get_text() for t in figure.legends[0].texts] == list(KINDS)


def test_every_class_has_a_panel_with_its_two_curves() -> None:
    run = analysed()
    panels = [axes for axes in draw_precision_recall(run).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [f"{c['name']} ({c['objects']})" for c in run["classes"]]
    for axes, of in zip(panels, run["classes"]):
        assert [list(line.get_ydata()) for line in axes.lines] == [of["curves"]["0.5"], of["curves"]["0.75"]]


def test_the_confusion_matrix_writes_every_count_that_is_not_nought() -> None:
    run = analysed()
    figure = draw_confusion(run)
    counts = [cell for row in run["confusion"]["matrix"] for cell in row if cell]
    assert texts(figure) == [str(count) for count in counts]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == [*(c["name"] for c in run["classes"]), "nothing"]


def test_the_scores_show_the_chosen_threshold_and_the_error() -> None:
    run = analysed()
    figure = draw_scores(run)
    assert f"ECE {run['calibration']['ECE']:.3f} of all" in texts(figure)[0]
    labels = [t.get_text() for t in figure.axes[2].get_legend().texts]
    assert f"shown from {run['threshold']['score']:.2f}: best F1" in labels
    right = sum(bar.get_height() for bar in figure.axes[1].containers[0])
    false = sum(bar.get_height() for bar in figure.axes[1].containers[1])
    assert (round(right), round(false)) == (3, 5)


def test_sizes_and_parts_are_labelled_with_what_they_count() -> None:
    run = analysed()
    sizes, parts = draw_sizes(run), draw_parts(run)
    assert [t.get_text() for t in sizes.axes[0].get_xticklabels()] == [
        "small\n8 objects", "medium\n0 objects", "large\n0 objects"]
    assert [t.get_text() for t in sizes.axes[1].get_xticklabels()] == ["1\n8 images"]
    assert "–" in texts(sizes)  # of medium and of large objects there is no AP
    assert widths(parts, 1) == [3.0, 1.0] and "3  (75%)" in texts(parts)
    assert parts.axes[1].get_title() == "Work for one image of 48×64 pixels: 4 GFLOPs"


def test_of_many_classes_twenty_are_shown_and_the_charts_say_so() -> None:
    run = many_classes()
    errors, curves, confusion = draw_errors(run), draw_precision_recall(run), draw_confusion(run)
    assert "(20 of 31)" in errors.axes[2].get_title() and len(errors.axes[2].get_yticklabels()) == 20
    assert len(curves.axes) == 20 and "(20 of 31)" in curves.legends[0].get_title().get_text()
    labels = [t.get_text() for t in confusion.axes[0].get_yticklabels()]
    assert len(labels) == 22 and labels[-2:] == ["11 others", "nothing"] and max(map(len, labels)) <= 22
    assert confusion.axes[0].images[0].get_array().shape == (22, 22)
    ids = [int(c["name"].split()[2]) for c in run["classes"]]  # class i is taken for the next one, but for the first 5
    rows = [20 if k >= 20 else k for k in range(31)]
    cells = Counter((rows[k], rows[ids.index(i if i <= 5 else i % 31 + 1)]) for k, i in enumerate(ids))
    written = {t.get_position()[::-1]: int(t.get_text()) for t in confusion.axes[0].texts}
    assert written == dict(cells) and sum(written.values()) == 31


@pytest.mark.parametrize("there, said, missing", [
    (THERE, {}, set()), ({}, {1: []}, {"errors", "precision_recall"})])
def test_what_there_is_nothing_to_show_of_is_left_out(
    there: dict, said: dict, missing: set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lay_out(figure: Figure, path: Path, **_: Any) -> None:
        figure.draw_without_rendering()
        path.touch()

    monkeypatch.setattr(Figure, "savefig", lay_out)
    run = analysed(there=there, said=said)
    drawn = {name for name, chart in CHARTS.items() if save(chart(run), tmp_path / f"{name}.png")}
    assert set(CHARTS) - drawn == missing == set(CHARTS) - {path.stem for path in tmp_path.iterdir()}


def test_runs_stand_side_by_side() -> None:
    runs = [analysed("a"), analysed("b", said={}), analysed("c", there={})]  # c has no costs
    figure = draw_compared(runs)
    assert [t.get_text() for t in figure.legends[0].texts] == ["a", "b"]
    heights = [[bar.get_height() for bar in group] for group in figure.axes[0].containers]
    assert heights == [pytest.approx(list(run["errors"]["cost"].values())) for run in runs[:2]]
    assert draw_compared(runs[2:]) is None


def test_a_chart_is_drawn_on_white(tmp_path: Path) -> None:
    image = matplotlib.image.imread(save(draw_parts(analysed()), tmp_path / "parts.png"))
    assert (image[0, 0] == 1).all() and not plt.get_fignums()


def test_a_long_name_is_cut() -> None:
    assert short("a" * 22) == "a" * 22 and short("a" * 23) == "a" * 21 + "…"
