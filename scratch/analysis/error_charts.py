"""error_charts: what do the mistakes of a detector look like?

    parts              where the parameters and the FLOPs are
    errors             what each kind costs, in all and class by class
    precision_recall   a panel for each class
    confusion          what was taken for what
    scores             do they mean what they say, and from which one on is a detection shown?
    sizes              AP by the objects' size and by their number in an image
    errors_compared    what each kind costs several runs

Drawn from an analysed run, a plain dict that lies beside the charts in analysis.json, from which
`python -m scratch.analysis.report FOLDER` draws them again. Of many classes the charts show those
with the most mistakes, and say of how many. White background on any page; Okabe and Ito's colours.
Proven in tests/analysis/test_error_charts.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scratch.analysis import figures
from scratch.analysis.findings import KINDS
from scratch.analysis.learning_curve import COLOURS, LONGEST
from scratch.analysis.names import short
from scratch.analysis.run_summary import number
from scratch.printable import counted

BLUE, RED, GREEN, PINK, ORANGE, SKY = COLOURS
GREY, INK = "#8A8A8A", "#444444"
KIND_COLOURS = dict(zip(KINDS, (BLUE, ORANGE, PINK, SKY, RED, GREY)))
MOST_CLASSES = 20  # shown here, and in the report's table; all are counted


def shown_classes(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Those with the most mistakes, which stand first."""
    return run["classes"][:MOST_CLASSES]


def draw_errors(run: dict[str, Any]) -> Optional[Figure]:
    """Bars of ΔAP50: the six kinds; false and not found; the kinds in each class. None if nothing was to be found."""
    cost, classes = run["errors"]["cost"], [c for c in shown_classes(run) if c["cost"]]
    if not cost:
        return None
    figure, (kinds, special, by_class) = plt.subplots(
        1, 3, figsize=(14, max(3.6, 1.6 + 0.27 * len(classes))), width_ratios=(3, 2, 4), layout="constrained")
    _bars(kinds, list(KINDS), [cost[kind] for kind in KINDS], list(KIND_COLOURS.values()))
    kinds.set(title="Gain if one kind were fixed", xlabel="ΔAP50")
    _bars(special, ["false\n(FP)", "not found\n(FN)"], [cost["FP"], cost["FN"]], [INK, INK])
    special.set(title="… all false ones, or all not found", xlabel="ΔAP50")
    place = range(len(classes))
    left = [0.0] * len(classes)
    for kind, colour in KIND_COLOURS.items():
        widths = [max(0.0, c["cost"][kind]) for c in classes]
        by_class.barh(place, widths, left=left, color=colour, label=kind)
        left = [a + b for a, b in zip(left, widths)]
    by_class.set(title=f"… class by class{_of_all(run)}", xlabel="ΔAP50 of the class (each kind alone, side by side)",
                 yticks=place, yticklabels=[short(c["name"]) for c in classes])
    by_class.invert_yaxis()
    by_class.grid(axis="x", alpha=0.3)
    by_class.set_axisbelow(True)
    figure.legend(*by_class.get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS), frameon=False)
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    bars = axes.barh(range(len(names)), values, color=colours)
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=9)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(min(0.0, *values), 1.25 * max(0.01, *values)))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _of_all(run: dict[str, Any]) -> str:
    count = len(run["classes"])
    return f" ({MOST_CLASSES} of {count})" if count > MOST_CLASSES else ""


def draw_precision_recall(run: dict[str, Any]) -> Optional[Figure]:
    """Precision against recall, a panel for each class with objects; None if there is none."""
    classes = [c for c in shown_classes(run) if c["curves"]]
    if not classes:
        return None
    columns = min(5, len(classes))
    rows = -(-len(classes) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(max(6.4, 2.8 * columns), 2.5 * rows + 0.8), sharex=True,
                                  sharey=True, squeeze=False, layout="constrained")
    for axes in panels.flat[len(classes):]:
        axes.set_visible(False)
    recalls = [i / 100 for i in range(101)]
    for place, (axes, of) in enumerate(zip(panels.flat, classes)):
        axes.plot(recalls, of["curves"]["0.5"], color=BLUE)
        axes.plot(recalls, of["curves"]["0.75"], color=RED, linestyle="--")
        axes.set_title(f"{short(of['name'])} ({of['objects']:,})", fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1.03))
        axes.text(0.04, 0.05, f"AP50 {of['AP50']:.2f}\nAP75 {of['AP75']:.2f}", transform=axes.transAxes, fontsize=8,
                  bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=place + columns >= len(classes))
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    handles = [Line2D([], [], color=BLUE, label="IoU ≥ 0.5"),
               Line2D([], [], color=RED, linestyle="--", label="IoU ≥ 0.75")]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False,
                  title=f"classes with their objects{_of_all(run)}", title_fontsize=10)
    return figure


def draw_confusion(run: dict[str, Any]) -> Figure:
    """The confusion matrix: counts as text, shares of a row as shades; the last row, of nothing, has none.

    All classes that are not shown are one row and one column.
    """
    names, matrix = [short(name) for name in run["confusion"]["names"]], run["confusion"]["matrix"]
    others = len(names) - 1 - MOST_CLASSES
    if others > 0:
        names[MOST_CLASSES:-1] = [f"{others} others"]
        for axis in (0, 1):
            matrix = np.add.reduceat(matrix, [*range(MOST_CLASSES + 1), MOST_CLASSES + others], axis).tolist()
    count = len(names)
    side = max(4.2, 0.46 * count + 2.2)
    figure, axes = plt.subplots(figsize=(side + 2.2, side), layout="constrained")
    shares = [[cell / max(1, sum(row)) for cell in row] for row in matrix]
    shares[-1] = [math.nan] * count  # a row of false detections has no total that means something
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if count <= 10 else 7
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            if cell:
                ink = "white" if shares[i][j] > 0.5 else "black"  # NaN is not
                axes.text(j, i, f"{cell:,}", ha="center", va="center", fontsize=size, color=ink)
    axes.set(xticks=range(count), yticks=range(count), xlabel="what was said", ylabel="what is there",
             title=f"Detections that score {run['threshold']['score']:.2f} or more{_of_all(run)}")
    axes.set_xticklabels(names, rotation=90 if count > 6 else 0)
    axes.set_yticklabels(names)
    axes.set_xticks([i - 0.5 for i in range(1, count)], minor=True)
    axes.set_yticks([i - 0.5 for i in range(1, count)], minor=True)
    axes.grid(which="minor", color="#D0D0D0", linewidth=1)
    axes.tick_params(which="minor", length=0)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the row's objects")
    return figure


def draw_scores(run: dict[str, Any]) -> Figure:
    """Reliability of the scores, how many there are of each, and precision, recall and F1 against the threshold."""
    figure, (reliable, counts, choice) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    bins, chosen = run["calibration"]["bins"], run["threshold"]
    places, width = [b["low"] for b in bins], bins[0]["high"] - bins[0]["low"]
    there = [b for b in bins if b["count"]]
    reliable.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="score = share")
    reliable.bar([b["low"] for b in there], [b["right"] for b in there], width=width, align="edge", color=SKY,
                 edgecolor="white", label="share that is right")
    reliable.plot([b["score"] for b in there], [b["right"] for b in there], color=BLUE, marker="o", markersize=4,
                  label="at the bin's mean score")
    reliable.set(title="Is a detection as often right as it is sure?", xlabel="score", xlim=(0, 1), ylim=(0, 1),
                 ylabel="right ones (IoU ≥ 0.5) among them")
    error, of_shown = run["calibration"]["ECE"], run["calibration"]["shown"]["ECE"]
    said = "no detections" if error is None else f"ECE {number(error)} of all\n{number(of_shown)} of those shown"
    reliable.text(0.97, 0.04, said, ha="right", transform=reliable.transAxes, fontsize=9,
                  bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none"})
    right = [b["count"] * (b["right"] or 0.0) for b in bins]
    false = [b["count"] - r for b, r in zip(bins, right)]
    middle = [place + width / 2 for place in places]
    for values, colour, name, shift in ((right, BLUE, "right", -0.2), (false, RED, "false", 0.2)):
        counts.bar([m + shift * width for m in middle], values, width=0.38 * width, color=colour, label=name)
    counts.set(title="How many have which score", xlabel="score", ylabel="detections", xlim=(0, 1))
    counts.set_yscale("symlog", linthresh=1)  # powers of ten, and yet a place for 0
    counts.set_ylim(0, 2 * max(1.0, *right, *false))
    for name, colour, style in (("precision", RED, "-"), ("recall", GREEN, "-"), ("F1", BLUE, "-")):
        values = [math.nan if value is None else value for value in chosen["curve"][name]]
        choice.plot(chosen["curve"]["threshold"], values, color=colour, linestyle=style, label=name)
    choice.axvline(chosen["score"], color="black", linestyle=":",
                   label=f"shown from {chosen['score']:.2f}" + (": best F1" if chosen["F1"] is not None else ""))
    choice.set(title="What a threshold makes of them", xlabel="threshold of the score", xlim=(0, 1), ylim=(0, 1.02),
               ylabel="all classes together, IoU ≥ 0.5")
    for axes, place in ((reliable, "upper left"), (counts, "upper right"), (choice, "lower center")):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc=place)
    return figure


def draw_sizes(run: dict[str, Any]) -> Figure:
    """AP by the objects' size, AP and AP50 by their number in an image."""
    figure, (sizes, numbers) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(3, 5), layout="constrained")
    _groups(sizes, run["sizes"], {"AP": BLUE}, lambda of: f"{of['name']}\n{counted(of['objects'], 'object')}")
    sizes.set(title="By the size of the objects", ylabel="average precision")
    known = [of for of in run["numbers"] if of["name"] != "0"]
    _groups(numbers, known, {"AP50": SKY, "AP": BLUE}, lambda of: f"{of['name']}\n{counted(of['images'], 'image')}")
    numbers.set(title="By the number of objects in the image")
    sizes.set_xlabel("small < 32² ≤ medium < 96² ≤ large, in pixels")
    numbers.set_xlabel("objects in the image")
    return figure


def _groups(axes: Axes, groups: list[dict[str, Any]], figures: dict[str, str],
            label: Callable[[dict[str, Any]], str]) -> None:
    width = 0.8 / len(figures)
    for k, (name, colour) in enumerate(figures.items()):
        places = [i + (k - (len(figures) - 1) / 2) * width for i in range(len(groups))]
        bars = axes.bar(places, [of[name] or 0.0 for of in groups], width=width, color=colour, label=name)
        axes.bar_label(bars, ["–" if of[name] is None else f"{of[name]:.2f}" for of in groups], padding=2, fontsize=8)
    axes.set(ylim=(0, 1.22), yticks=[i / 5 for i in range(6)], xticks=range(len(groups)),
             xticklabels=[label(of) for of in groups])  # above 1 there is space for the legend
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if groups:
        axes.legend(fontsize=8, loc="upper right", ncols=len(figures))
    else:
        axes.text(0.5, 0.5, "no objects", transform=axes.transAxes, ha="center", color="grey")


def draw_parts(run: dict[str, Any]) -> Figure:
    """Parameters and FLOPs of each part, as shares, with the numbers."""
    parts = run["parts"]
    figure, panels = plt.subplots(1, 2, figsize=(12, 1.4 + 0.38 * len(parts)), sharey=True, layout="constrained")
    size = "×".join(map(str, run["image_size"]))
    for axes, field, unit, title, label, colour in (
            (panels[0], "parameters", 1e6, "Parameters", "million", BLUE),
            (panels[1], "flops", 1e9, f"Work for one image of {size} pixels", "GFLOPs", ORANGE)):
        values = [part[field] / unit for part in parts]
        bars = axes.barh(range(len(parts)), values, color=colour)
        total = sum(values) or 1.0
        axes.bar_label(bars, [f"{value:,.3g}  ({value / total:.0%})" for value in values], padding=3, fontsize=9)
        axes.set(title=f"{title}: {sum(values):,.4g} {label}", xlabel=label, yticks=range(len(parts)),
                 xlim=(0, 1.3 * max(values, default=1.0) or 1.0), yticklabels=[part["part"] for part in parts])
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].invert_yaxis()
    return figure


def draw_compared(runs: list[dict[str, Any]]) -> Optional[Figure]:
    """What each kind of mistake costs each run; None if no run has costs."""
    known = [run for run in runs if run["errors"]["cost"]]
    if not known:
        return None
    kinds = list(known[0]["errors"]["cost"])
    figure, axes = plt.subplots(figsize=(max(9.0, 1.2 * len(kinds)), 4.4), layout="constrained")
    width = 0.84 / len(known)
    for k, run in enumerate(known):
        places = [i + (k - (len(known) - 1) / 2) * width for i in range(len(kinds))]
        axes.bar(places, [run["errors"]["cost"][kind] for kind in kinds], width=width,
                 label=short(run["name"], LONGEST), color=COLOURS[k % len(COLOURS)],
                 hatch=("", "//", "..")[k // len(COLOURS) % 3], edgecolor="white")
    axes.set(title="Gain of AP50 if one kind of error were fixed", ylabel="ΔAP50", xticks=range(len(kinds)),
             xticklabels=kinds)
    axes.axvline(len(KINDS) - 0.5, color=GREY, linewidth=1)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(known)), frameon=False)
    return figure


CHARTS: dict[str, Callable[[dict[str, Any]], Optional[Figure]]] = {
    "parts": draw_parts, "errors": draw_errors, "precision_recall": draw_precision_recall,
    "confusion": draw_confusion, "scores": draw_scores, "sizes": draw_sizes}


def save(figure: Optional[Figure], path: Path) -> Optional[Path]:
    """Write the PNG whole or not at all, and forget the figure; None stays None."""
    if figure is None:
        return None
    return figures.save(figure, path)
