"""removal_chart: what breaks if you remove it?

    removal.json ─▶ removal.png    a trained detector without a part; beside it, trainings without one

The data comes from `python -m benchmarks.removal`, which also writes the table. A bar is the mean over the seeds, a point
one of them, a dashed line the detector with nothing removed. Proven in tests/test_removal.py.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS

WHOLE, WITHOUT = "#7F7F7F", COLOURS[0]


class Bar(NamedTuple):
    """A name, the AP50 of each seed, and whether nothing is removed (then the bars after it are compared with it)."""

    label: str
    values: list[float]
    whole: bool


def trained_bars(results: dict[str, Any]) -> list[Bar]:
    """The bars of a trained detector."""
    return [Bar("nothing removed" if row["name"] == "nothing" else row["title"],
                [row["AP50"]] if row["AP50"] is not None else [], row["name"] == "nothing")
            for row in results["trained"]]


def training_bars(results: dict[str, Any]) -> list[Bar]:
    """The bars of trainings: each setting whole, then without each of its parts."""
    def values(name: str) -> list[float]:
        return [run["AP50"] for run in results["runs"] if run["variant"] == name and run["AP50"] is not None]

    bars = []
    for setting in results["settings"]:
        parts = {name: part for name, part in results["parts"].items() if part["setting"] == setting}
        if parts:
            bars.append(Bar(f"{setting}: nothing removed", values(setting), True))
            bars += [Bar(part["title"], values(name), False) for name, part in parts.items()]
    return bars


def draw(results: dict[str, Any], path: Path) -> None:
    """A panel of horizontal bars, AP50, for each half that was measured."""
    panels = []
    if results["trained"] or not results["runs"]:
        panels.append(("After training: the same weights without …", trained_bars(results)))
    if results["runs"]:
        panels.append((f"In training: {results['steps']:,} steps without …", training_bars(results)))
    rows = max([len(bars) for _, bars in panels] + [1])
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels) + 1, 1.6 + 0.42 * rows), squeeze=False,
                                layout="constrained")
    for each, (title, bars) in zip(axes[0], panels):
        draw_bars(each, bars)
        each.set(title=title, xlabel="AP50 on val", xlim=(0, 1))
    save(figure, path)


def draw_bars(axes: Axes, bars: list[Bar]) -> None:
    """From top to bottom; a dashed line from each whole detector down to the last bar that is compared with it."""
    if not any(bar.values for bar in bars):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="grey")
        axes.set(yticks=[])
        return
    starts = [row for row, bar in enumerate(bars) if bar.whole]
    for row, bar in enumerate(bars):
        if not bar.values:
            axes.text(0.01, row, "not measured", va="center", color="grey", fontsize=9)
            continue
        middle = mean(bar.values)
        axes.barh(row, middle, color=WHOLE if bar.whole else WITHOUT, height=0.62)
        axes.plot(bar.values, [row] * len(bar.values), "o", color="black", markersize=3.5, linestyle="none")
        axes.text(0.012, row, f"{middle:.3f}", va="center", fontsize=9, color="white", fontweight="bold")
    for start, end in zip(starts, [*starts[1:], len(bars)]):
        if bars[start].values:
            level = mean(bars[start].values)
            axes.plot([level, level], [start - 0.4, end - 0.6], color=WHOLE, linestyle="--", linewidth=1)
    axes.set(yticks=range(len(bars)), yticklabels=[bar.label for bar in bars])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
