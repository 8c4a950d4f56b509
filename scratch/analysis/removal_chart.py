"""removal_chart: what breaks if you remove it?

    removal.json ─▶ removal.png    a trained detector without a part; beside it, trainings without one

The data comes from `python -m benchmarks.removal`, which also writes the table. A bar is the mean over the seeds: AP, and
paler AP50, since a part can cost one of them alone (boxes that are found, and fit badly). A point is one seed, a dashed
line the detector with nothing removed. The part whose removal costs most AP is on top. Proven in tests/test_removal.py.
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
    """A name, AP and AP50 of each seed, and whether nothing is removed (then later bars are compared with it)."""

    label: str
    values: list[tuple[float, float]]
    whole: bool


def trained_bars(results: dict[str, Any]) -> list[Bar]:
    """The bars of a trained detector."""
    bars = [Bar("nothing removed" if row["name"] == "nothing" else row["title"],
                _figures([row]), row["name"] == "nothing") for row in results["trained"]]
    return [bar for bar in bars if bar.whole] + _costliest_first([bar for bar in bars if not bar.whole])


def training_bars(results: dict[str, Any]) -> list[Bar]:
    """The bars of trainings: each setting whole, then without each of its parts."""
    def values(name: str) -> list[tuple[float, float]]:
        return _figures([run for run in results["runs"] if run["variant"] == name])

    bars = []
    for setting in results["settings"]:
        parts = {name: part for name, part in results["parts"].items() if part["setting"] == setting}
        if parts:
            bars.append(Bar(f"{setting}: nothing removed", values(setting), True))
            bars += _costliest_first([Bar(part["title"], values(name), False) for name, part in parts.items()])
    return bars


def _costliest_first(bars: list[Bar]) -> list[Bar]:
    """By what is left of AP; what was not measured is last."""
    return sorted(bars, key=lambda bar: mean(AP for AP, _ in bar.values) if bar.values else 1.0)


def _figures(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(row["AP"], row["AP50"]) for row in rows if row["AP50"] is not None]


def draw(results: dict[str, Any], path: Path) -> None:
    """A panel of horizontal bars for each half that was measured."""
    panels = []
    if results["trained"] or not results["runs"]:
        panels.append(("After training: the same weights without …", trained_bars(results)))
    if results["runs"]:
        flags = f"\n({results['flags']})" if results["flags"] else ""
        panels.append((f"In training: {results['steps']:,} steps{flags} without …", training_bars(results)))
    rows = max([len(bars) for _, bars in panels] + [1])
    figure, axes = plt.subplots(1, len(panels), figsize=(6.5 * len(panels) + 1, 1.6 + 0.42 * rows), squeeze=False,
                                layout="constrained")
    for each, (title, bars) in zip(axes[0], panels):
        draw_bars(each, bars)
        each.set(title=title, xlabel="AP, and paler AP50, on val", xlim=(0, 1.22), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    save(figure, path)


def _apart(bar: Bar) -> list[list[float]]:
    """AP of all seeds, and AP50; nothing where nothing was measured."""
    return [list(values) for values in zip(*bar.values)]


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
        for values, alpha in zip(reversed(_apart(bar)), (0.35, 1)):
            axes.barh(row, mean(values), color=WHOLE if bar.whole else WITHOUT, alpha=alpha, height=0.62, linewidth=0)
            axes.plot(values, [row] * len(values), "o", color="black", markersize=3.5, linestyle="none")
        AP, AP50 = _apart(bar)
        axes.text(max(AP50) + 0.02, row, f"{mean(AP):.3f}, {mean(AP50):.3f}", va="center", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    for start, end in zip(starts, [*starts[1:], len(bars)]):
        for values in _apart(bars[start]):
            level = mean(values)
            axes.plot([level, level], [start - 0.4, end - 0.6], color=WHOLE, linestyle="--", linewidth=1)
    axes.set(yticks=range(len(bars)), yticklabels=[bar.label for bar in bars])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
