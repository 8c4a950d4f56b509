"""sweep_charts: how do the trials of a sweep look side by side?

    learning_curves        the metric against the share of the budget, one line for each trial
    parallel_coordinates   an axis for each parameter and one for the metric, a line for each trial
    slices                 each parameter by itself against the metric
    importance             which parameter decided whether a trial was among the best

All are drawn from what sweep.json holds, by `detr_scratch.py sweep --out FOLDER --redraw` too. A
failed trial is in none of them; one that was ended early is dashed or hollow.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS, LONGEST
from scratch.analysis.names import short
from scratch.analysis.sweep_report import ENOUGH, NOISE, best_trial, judged, place_in_range, spelled

BEST = 5  # trials with a colour of their own
GREY, DARK_GREY = "#BBBBBB", "#777777"
# Dark is good: it stands out from white, and every eye sees its order. The palest colours would not be seen at all.
_MAP = LinearSegmentedColormap.from_list("pale to dark", plt.get_cmap("viridis_r")(np.linspace(0.12, 1, 64)))
_JITTER = 0.25  # of the distance between two choices: trials of equal value lie beside each other


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw all four into `folder`; returns the files."""
    charts = {"learning_curves": learning_curves, "parallel_coordinates": parallel_coordinates, "slices": slices,
              "importance": importance}
    return [save(chart(results), folder / f"{name}.png", several=True) for name, chart in charts.items()]


def learning_curves(results: dict[str, Any]) -> Figure:
    """The metric of every evaluation against the share of the trial's budget."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    metric, trials = results["metric"], judged(results)
    best = [trial["number"] for trial in judged(results, "complete")[:BEST]]
    ink = dict(zip(best, COLOURS))
    for trial in reversed(trials):  # the best on top
        curves, mine = trial["evaluation"], ink.get(trial["number"])
        values = [0.0 if value is None else value for value in curves[metric]]
        axes.plot([100 * share for share in curves["share"]], values, color=mine or (
            GREY if trial["state"] == "complete" else DARK_GREY), linewidth=2 if mine else 1, marker="o",
            markersize=4 if mine else 2.5, linestyle="-" if trial["state"] == "complete" else "--",
            label=f"trial {trial['number']}", zorder=3 if mine else 2)
    values = {trial["number"]: trial["value"] for trial in trials}
    default = [trial["number"] for trial in trials if trial["is_default"]]
    handles = [Line2D([], [], color=colour, linewidth=2, marker="o", markersize=4, label=(
        f"trial {number}: {values[number]:.3f}" + (" (default)" if number in default else "")))
        for number, colour in ink.items()]
    if len(judged(results, "complete")) > BEST:
        handles.append(Line2D([], [], color=GREY, label="the other trials"))
    if judged(results, "pruned"):
        handles.append(Line2D([], [], color=DARK_GREY, linestyle="--", label="ended early"))
    if handles:
        figure.legend(handles=handles, loc="outside right upper", frameon=False)
    axes.set(title=f"{len(trials)} trials of {short(results['study'], LONGEST)}",
             xlabel="share of the trial's budget (%)", ylabel=f"{metric} on {results['split']}",
             xlim=(0, 102), ylim=(0, _top(trials)))
    axes.grid(alpha=0.3)
    return figure if trials else _nothing(figure, axes)


def parallel_coordinates(results: dict[str, Any]) -> Figure:
    """A line for each trial across one axis for each parameter, coloured by the metric, which is the last axis.

    One that was ended early has no place on the last axis, and would spoil its scale; its line ends before.
    """
    space, metric, complete = results["space"], results["metric"], judged(results, "complete")
    names, pruned = list(space), judged(results, "pruned")
    figure, axes = plt.subplots(figsize=(max(7.0, 2.0 + 1.7 * len(names)), 5.2), layout="constrained")
    if not complete:
        return _nothing(figure, axes, "no trial is complete yet")
    values = [trial["value"] for trial in complete]
    norm = Normalize(min(values), max(*values, min(values) + NOISE))  # differences by chance are not to look like any
    for order, trial in enumerate([*pruned, *reversed(complete)]):  # the best on top
        heights = [_height(space[name], trial["values"][name]) + _nudge(space[name], trial["number"]) for name in names]
        style = {"color": GREY, "linestyle": "--", "linewidth": 1}
        if trial["state"] == "complete":
            heights.append(float(norm(trial["value"])))
            style = {"color": _MAP(norm(trial["value"])), "linewidth": 2.4 if trial is complete[0] else 1.3}
        axes.plot(range(len(heights)), heights, zorder=2 + order / len(results["trials"]),
                  label=f"trial {trial['number']}", **style)
    ticks = [*(_ticks(space[name]) for name in names), _metric_ticks(norm)]
    for place, marks in enumerate(ticks):
        axes.axvline(place, color="black", linewidth=1, zorder=4)
        for height, text in marks:
            axes.text(place - 0.03, height, text, ha="right", va="center", fontsize=8, zorder=5,
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})
    axes.set(xlim=(-0.45, len(names) + 0.1), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(len(names) + 1), [*(_wrapped(name) for name in names), metric], fontsize=9)
    axes.tick_params(axis="x", length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, _MAP), ax=axes, label=f"{metric} on {results['split']}", pad=0.02, aspect=30)
    axes.set_title(f"{len(complete)} complete trials of {short(results['study'], LONGEST)}"
                   + (f" (dashed: {len(pruned)} that were ended early)" if pruned else ""), pad=12)
    return figure


def slices(results: dict[str, Any]) -> Figure:
    """Each parameter against the metric, one panel for each."""
    space, metric = results["space"], results["metric"]
    columns = min(3, len(space))
    rows = -(-len(space) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(4.2 * columns + 0.4, 3.1 * rows + 0.5), sharey=True,
                                  squeeze=False, layout="constrained")
    best = best_trial(results)
    for axes, (name, dimension) in zip(panels.flat, space.items()):
        for state, style in (("complete", {"color": COLOURS[0]}),
                             ("pruned", {"color": "white", "markeredgecolor": DARK_GREY})):
            mine = [trial for trial in judged(results, state) if trial is not best]
            axes.plot([_at(dimension, trial["values"][name], trial["number"]) for trial in mine],
                      [trial["value"] for trial in mine], "o", markersize=6, label=state, **style)
        for trial in results["trials"]:
            if trial["is_default"] and trial["value"] is not None:
                axes.plot(_at(dimension, trial["values"][name], trial["number"]), trial["value"], "s", markersize=11,
                          markerfacecolor="none", markeredgecolor="black", label="default")
        if best is not None:
            axes.plot(_at(dimension, best["values"][name], best["number"]), best["value"], "*", markersize=15,
                      color=COLOURS[1], markeredgecolor="black", markeredgewidth=0.6, label="best")
        _scale(axes, dimension)
        axes.set_xlabel(short(name))
        axes.grid(alpha=0.3)
    for axes in list(panels.flat)[len(space):]:
        axes.axis("off")
    for axes in panels[:, 0]:
        axes.set(ylabel=f"{metric} on {results['split']}", ylim=(-0.03 * _top(judged(results)), _top(judged(results))))
    marks = {label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels())
             if len(handle.get_xdata())}
    words = {"complete": "complete", "pruned": "ended early", "default": "the default", "best": "the best"}
    if not marks:
        return _nothing(figure, panels[0, 0])
    figure.legend(handles=[marks[name] for name in words if name in marks], labels=[words[name] for name in words
                                                                                  if name in marks],
                  loc="outside upper center", ncols=4, frameon=False)
    return figure


def importance(results: dict[str, Any]) -> Figure:
    """A bar for each parameter; in words, if too few trials are complete."""
    shares = sorted((results["importance"] or {}).items(), key=lambda item: item[1])
    figure, axes = plt.subplots(figsize=(7, 1.4 + 0.4 * max(2, len(shares))), layout="constrained")
    axes.set_title("What decided whether a trial was among the best (PED-ANOVA)")
    if not shares:
        complete = len(judged(results, "complete"))
        return _nothing(figure, axes, f"not computed: it takes {ENOUGH} complete trials\nthat differ, and there are "
                                      f"{complete}")
    places = range(len(shares))
    bars = axes.barh(places, [100 * share for _, share in shares], color=COLOURS[0], height=0.6)
    axes.set_yticks(places, labels=[short(name) for name, _ in shares])
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel="share of the importance (%)", xlim=(0, 1.12 * 100 * shares[-1][1]))
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    return figure


def _nothing(figure: Figure, axes: Axes, why: str = "no trial has been evaluated yet") -> Figure:
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color="#555555")
    return figure


def _top(trials: list[dict[str, Any]]) -> float:
    """The upper end of an axis of the metric; never so low that what is next to nothing looks like much."""
    return max([0.05, *(1.08 * trial["value"] for trial in trials)])


# -- where a value lies on its axis --------------------------------------------------------------------------------


def _height(dimension: dict[str, Any], value: Any) -> float:
    """On an axis from 0 to 1: choices in equal distances, numbers on the range's own scale."""
    if dimension["kind"] != "choice":
        return place_in_range(dimension, value)
    return (dimension["values"].index(value) + 0.5) / len(dimension["values"])


def _nudge(dimension: dict[str, Any], number: int) -> float:
    """So that the lines of trials with the same choice do not hide each other."""
    return _offset(number) / len(dimension["values"]) if dimension["kind"] == "choice" else 0.0


def _offset(number: int) -> float:
    """In [−_JITTER, _JITTER], evenly for any trials: multiples of the golden ratio, modulo 1."""
    return _JITTER * (2 * (number * 0.6180339887 % 1) - 1)


def _at(dimension: dict[str, Any], value: Any, number: int) -> float:
    """In a slice: the number itself, or the choice's place in the list."""
    return value if dimension["kind"] != "choice" else dimension["values"].index(value) + _offset(number)


def _scale(axes: Axes, dimension: dict[str, Any]) -> None:
    if dimension["kind"] == "choice":
        values = dimension["values"]
        axes.set_xticks(range(len(values)), [short(spelled(value)) for value in values],
                        rotation=30 if max(len(spelled(value)) for value in values) > 8 else 0)
        axes.set_xlim(-0.6, len(values) - 0.4)
        return
    low, high = dimension["low"], dimension["high"]
    if dimension["kind"] == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)


def _ticks(dimension: dict[str, Any]) -> list[tuple[float, str]]:
    """(height, text) along an axis of parallel coordinates."""
    if dimension["kind"] == "choice":
        return [(_height(dimension, value), short(spelled(value))) for value in dimension["values"]]
    low, high = dimension["low"], dimension["high"]
    between = []
    if dimension["kind"] == "log":
        between = [10.0 ** power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    else:
        between = list(MaxNLocator(4).tick_values(low, high))
    # The ends are named too; a round number that would touch one gives way to it.
    inner = [value for value in between if 0.07 < place_in_range(dimension, value) < 0.93]
    return [(place_in_range(dimension, value), spelled(value)) for value in (low, *inner, high)]


def _metric_ticks(norm: Normalize) -> list[tuple[float, str]]:
    inner = [value for value in MaxNLocator(5).tick_values(norm.vmin, norm.vmax) if 0.07 < norm(value) < 0.93]
    return [(float(norm(value)), f"{value:.3f}") for value in (norm.vmin, *inner, norm.vmax)]


def _wrapped(name: str) -> str:
    """A long name on two lines."""
    name = short(name, LONGEST)
    if len(name) <= 14 or "_" not in name:
        return name
    middle = min((k for k, letter in enumerate(name) if letter == "_"), key=lambda k: abs(k - len(name) / 2))
    return f"{name[:middle + 1]}\n{name[middle + 1:]}"
