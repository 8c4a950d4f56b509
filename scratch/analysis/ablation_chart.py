"""ablation_chart: what did each idea add, against time and against steps?

    ablation.json ─▶ ablation.png      left: AP50 against minutes, right: against steps; a line for each variant

The data comes from `python -m benchmarks.ablation`, which also writes the table. A line is the mean
over the seeds, the band around it their range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from matplotlib import pyplot as plt

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS

BUDGETS = ("minutes", "steps")
# In the order of the rows: the first is DETR as published, the last is the preset `tiny`. A variant keeps its colour
# where others are left out.
INK = dict(zip(("vanilla", "muon", "anchors", "focal", "denoising", "groups", "proposals", "fine-memory", "quality",
                "mosaic", "weight-decay", "roi-features", "one-to-many"),
               ("black", *COLOURS, "#8C564B", "#7F7F7F", "#BCBD22", "#17BECF", "#9467BD", "black"), strict=True))
FIRST, *_, LAST = INK


def label(variant: str) -> str:
    """The name of a row or a line."""
    return variant if variant == FIRST else f"+ {variant.replace('-', ' ')}{' = tiny' if variant == LAST else ''}"


def runs_of(results: dict[str, Any], variant: str, budget: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if (run["variant"], run["budget"]) == (variant, budget)]


def band(curves: list[tuple[Sequence[float], Sequence[Optional[float]]]]) -> tuple[np.ndarray, ...]:
    """Curves (x, y) of several seeds → the x of all their points, and mean, least and most at each.

    Between two evaluations a run is interpolated linearly; before its first and after its last one (the seeds' last
    evaluations may be a step apart) it keeps that value.
    """
    known = [[(x, y) for x, y in zip(*curve) if y is not None] for curve in curves]
    known = [points for points in known if points]
    if not known:
        return tuple(np.empty((4, 0)))
    at = np.array(sorted({x for points in known for x, _ in points}))
    values = np.stack([np.interp(at, *zip(*points)) for points in known])
    return at, values.mean(0), values.min(0), values.max(0)


def draw(results: dict[str, Any], path: Path) -> None:
    """AP50 against the minutes of the one budget and the steps of the other, a line and a band for each variant."""
    figure, panels = plt.subplots(1, 2, figsize=(14, 5.5), sharey=True, layout="constrained")
    handles = {}
    for axes, budget, key in zip(panels, BUDGETS, ("minutes", "step")):
        for name in results["variants"]:
            runs = runs_of(results, name, budget)
            at, middle, least, most = band([(run["evaluation"][key], run["evaluation"]["AP50"]) for run in runs])
            if not len(at):
                continue
            plain = name not in (FIRST, LAST)
            handles[name], = axes.plot(at, middle, color=INK[name], linestyle=":" if name == FIRST else "-",
                                       linewidth=1.6 if plain else 2.6, marker="o", markersize=3, label=label(name))
            if len(runs) > 1:
                axes.fill_between(at, least, most, color=INK[name], alpha=0.12, linewidth=0)
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="grey")
        axes.set(title=f"Equal {budget}: {results[budget]:g}", xlabel=budget, xlim=(0, None), ylim=(0, 1))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="AP50 on val (line: mean of the seeds, band: their range)")
    figure.legend(handles=[handles[name] for name in results["variants"] if name in handles], frameon=False,
                  loc="outside right center")
    save(figure, path)
