"""layer_pages: how are the numbers of a group of layers spread, and how has that changed?

    rows        weights, activations, gradients
    columns     a group each: the first batch as a grey area over all its layers, the last batch as
                a line for each layer, dark for the first and bright for the last layer; then the
                standard deviation of each layer, by depth

Gradients span many powers of ten, so log₁₀|g| is counted and not g: a layer that a gradient hardly
reaches lies far to the left of the others.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any, Iterable, Optional

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter, MaxNLocator, NullLocator

from scratch.analysis import figures
from scratch.analysis.layer_groups import page_of
from scratch.analysis.layer_watch import KINDS
from scratch.analysis.learning_curve import COLOURS

GREY = "#9A9A9A"
# What a unit's kind calls saturated, in as many words as fit a panel (the table of layer_groups).
SATURATED = {"relu": "zeros", "before_relu": "zeros after the relu", "sigmoid": "sigmoids at 0 or 1",
             "boxes": "box sides at 0 or 1", "softmax": "answers surer than 0.9", "attention": "rows surer than 0.9"}
_AXIS = {"weights": "weight", "activations": "activation", "gradients": "log₁₀ |gradient|"}
_DEPTH = plt.get_cmap("viridis").resampled(256)
_BRIGHTEST = 0.9  # the map's yellow end is hard to see on white


def units_of(content: dict[str, Any]) -> dict[str, list[int]]:
    """Group → the places of its units, by depth."""
    groups: dict[str, list[int]] = {}
    for i, unit in enumerate(content["units"]):
        groups.setdefault(unit["group"], []).append(i)
    return groups


def pages_of(content: dict[str, Any]) -> dict[str, list[str]]:
    """Page → the groups that it shows."""
    pages: dict[str, list[str]] = {}
    for group in units_of(content):
        pages.setdefault(page_of(group), []).append(group)
    return pages


def colours_by_depth(count: int) -> list[Any]:
    """A colour for each layer, from dark to bright; one alone is blue."""
    return [_DEPTH(_BRIGHTEST * i / (count - 1)) for i in range(count)] if count > 1 else [COLOURS[0]]


def depth_bar(figure: Figure, axes: Any, place: Optional[Axes] = None) -> None:
    """The colour bar that says which end of `colours_by_depth` is the first: beside `axes`, or filling `place`."""
    shades = ListedColormap([_DEPTH(_BRIGHTEST * i / 99) for i in range(100)])
    where = {"cax": place} if place is not None else dict(ax=axes, fraction=0.02, pad=0.01, aspect=30, shrink=0.5)
    bar = figure.colorbar(ScalarMappable(cmap=shades), **where)
    bar.set_ticks([0, 1], labels=["first", "last"])
    bar.set_label("layer of its group, by depth")


def powers_axis(axes: Axes, least_span: float = 10.0) -> None:
    """A scale of powers on the y-axis that shows at least a factor of `least_span`: less is no news, only noise.

    Without a number above 0 (norms that are still all alike) there is no such scale, and the axis stays as it is.
    """
    if not math.isfinite(axes.dataLim.minposy):
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if 0 < high < least_span * low:
        centre, half = (low * high) ** 0.5, least_span**0.5
        axes.set_ylim(centre / half, centre * half)
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(LogFormatter(minor_thresholds=(1.5, 0.7)))


def drop_minor_ticks(axes: Axes) -> None:
    """Leave out the ticks between the powers where they have no label, on two powers and more.

    Each is a line and two texts, and forty panels have thousands of them: a quarter of a set's drawing time.
    """
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high >= 100 * low:
        axes.yaxis.set_minor_locator(NullLocator())


def words(name: str, without: str = "") -> str:
    """A group's name as a person would write it; without the page's name where that stands over it already."""
    return (name.removeprefix(f"{without}_") or name).replace("_", " ")


def save(figure: Figure, path: Path) -> None:
    """Into a PNG of at most 256 colours: a third of the bytes, and a set has thirty charts."""
    for axes in figure.get_axes():
        drop_minor_ticks(axes)
    figures.save(figure, path, palette=True)


def draw_page(content: dict[str, Any], page: str, path: Path) -> None:
    """The distributions of one page's groups into a PNG."""
    groups, all_units = pages_of(content)[page], units_of(content)
    deep = any(len(all_units[group]) > 1 for group in groups)
    names = [] if _numbered(content, all_units[groups[0]]) else [content["units"][i]["label"]
                                                                 for i in all_units[groups[0]]]
    kinds = [kind for kind in KINDS if any(content["histograms"]["last"][group][kind] for group in groups)]
    columns = len(groups) + deep
    widths = [1.0] * len(groups) + ([1.4 if page == "backbone" else 1.0] if deep else [])  # it has fifty blocks
    figure, panels = plt.subplots(len(kinds), columns, figsize=(1.5 + 3.5 * sum(widths), 1.2 + 2.5 * len(kinds)),
                                  layout="constrained", squeeze=False, width_ratios=widths)
    for kind, row in zip(kinds, panels):
        for group, axes in zip(groups, row):
            _draw_distribution(axes, content, group, kind, all_units[group])
            if kind == kinds[0] and len(groups) > 1:
                axes.annotate(words(group, page), (0.5, 1.24), xycoords="axes fraction", ha="center", weight="bold")
        row[0].set_ylabel(f"{kind}\n\n{'density' if kind != 'gradients' else 'density per power of ten'}")
        if deep:
            _draw_depth(row[-1], content, groups, kind, all_units, page)
    first, last = content["batches"][0], content["batches"][-1]
    handles = [Patch(color=GREY, alpha=0.6, label=f"batch {first}{', all layers' if deep else ''}")]
    if names:
        handles += [Line2D([], [], color=colour, label=f"batch {last}, {name}" if name else f"batch {last}")
                    for name, colour in zip(names, colours_by_depth(len(names)))]
    else:
        handles.append(Line2D([], [], color=_DEPTH(0.4), label=f"batch {last}, each layer"))
        depth_bar(figure, panels)
    figure.suptitle(f"{words(page)} ({content['about'].get('preset', 'a model')})", weight="bold")
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, min(len(handles), columns + 1)),
                  frameon=False)
    save(figure, path)


def _numbered(content: dict[str, Any], units: list[int]) -> bool:
    """Are these layers or blocks, one behind the other? Otherwise they are alone, or have names."""
    first = content["units"][units[0]]
    return first["label"].startswith(("layer ", "block ")) or first["group"].startswith("backbone")


def _draw_distribution(axes: Axes, content: dict[str, Any], group: str, kind: str, units: list[int]) -> None:
    first, last = (content["histograms"][moment][group][kind] for moment in ("first", "last"))
    if last is None:
        reason = "not trained" if kind == "gradients" else "not seen: used as it is"
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color="grey")
        axes.set(xticks=[], yticks=[])
        return
    _steps(axes, first, [GREY], fill=True)
    _steps(axes, last, colours_by_depth(len(units)))
    if kind != "gradients":  # zeros behind a relu, or an identity's, are a peak that would hide all else
        powers_axis(axes)
        axes.set_ylim(bottom=min(axes.get_ylim()[0], axes.get_ylim()[1] / 100))
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(_AXIS[kind])
    axes.set_title("\n".join(_captions(content, kind, units, first, last)), fontsize=8, loc="left")
    axes.grid(alpha=0.3)


def _steps(axes: Axes, histogram: Optional[dict[str, Any]], colours: list[Any], fill: bool = False) -> None:
    """A histogram of each unit, or (filled) that of all together; a line where all numbers are one."""
    if histogram is None:
        return
    if not histogram["shares"]:
        axes.axvline(histogram["low"], color=colours[0], linewidth=4 if fill else 1.3)
        return
    edges = np.linspace(histogram["low"], histogram["high"], len(histogram["shares"][0]) + 1)
    width = edges[1] - edges[0]
    if fill:
        axes.stairs(np.mean(histogram["shares"], axis=0) / width, edges, fill=True, color=colours[0], alpha=0.6)
        return
    for shares, colour in zip(histogram["shares"], colours):
        if any(shares):
            axes.stairs(np.array(shares) / width, edges, color=colour, linewidth=1.3)


def _captions(content: dict[str, Any], kind: str, units: list[int], first: Optional[dict[str, Any]],
              last: dict[str, Any]) -> list[str]:
    """Standard deviation, and what is saturated or zero, at the first and the last batch; of layers their median."""
    figures = content["figures"]
    pairs = [(figures[f"std_{kind}"][i][0], figures[f"std_{kind}"][i][-1]) for i in units]
    lines = [f"std {' → '.join(_middle(column, '.3g') for column in zip(*pairs))}"]
    if kind == "activations":
        saturated = SATURATED.get(content["units"][units[0]]["kind"])
        if saturated:
            pairs = [(figures["saturation"][i][0], figures["saturation"][i][-1]) for i in units
                     if content["units"][i]["kind"] == content["units"][units[0]]["kind"]]
            lines.append(f"{saturated} {' → '.join(_middle(column, '.0%') for column in zip(*pairs))}")
    if kind == "gradients":
        zeros = [_middle(moment["zeros"], ".0%") for moment in (first, last) if moment]
        lines += [f"zeros {' → '.join(zeros)}"] if set(zeros) != {"0%"} else []
    return lines


def _middle(values: Iterable[Optional[float]], form: str) -> str:
    there = [value for value in values if value is not None]
    return format(median(there), form) if there else "–"


def _draw_depth(axes: Axes, content: dict[str, Any], groups: list[str], kind: str, all_units: dict[str, list[int]],
                page: str) -> None:
    """The standard deviation of every layer of the page, group after group: grey at the first batch."""
    figures, start, middles = content["figures"][f"std_{kind}"], 0, []
    for group in groups:
        units = all_units[group]
        places = np.arange(start, start + len(units))
        for moment, colours in ((0, [GREY] * len(units)), (-1, colours_by_depth(len(units)))):
            values = [figures[i][moment] or np.nan for i in units]  # 0 has no place on a scale of powers
            axes.plot(places, values, color=GREY, linewidth=0.8, linestyle=":" if moment == 0 else "-", zorder=1)
            axes.scatter(places, values, s=(26 if moment else 40) / (1 if len(units) <= 12 else 2),
                         facecolors=colours if moment else "none", edgecolors=colours, zorder=2)
        short = {"backbone_stem": "0"}.get(group, words(group, page).removeprefix("stage"))
        middles.append((start + (len(units) - 1) / 2, short))
        start += len(units)
        if group != groups[-1]:
            axes.axvline(start - 0.5, color="black", linewidth=0.5)
    if len(groups) > 1:
        axes.set_xticks([at for at, _ in middles], labels=[label for _, label in middles])
        axes.set_xlabel("stage (0: the stem), its blocks by depth" if page == "backbone" else
                        "map, its layers by depth")
    else:
        labels = [content["units"][i]["label"] for i in all_units[groups[0]]]
        numbered = _numbered(content, all_units[groups[0]])
        axes.set_xticks(range(len(labels)), labels=[label.split()[-1] if numbered else label for label in labels],
                        rotation=0 if numbered else 30, ha="center" if numbered else "right")
        axes.set_xlabel("layer" if numbered else "")
    powers_axis(axes)
    axes.set_title("std of each layer", fontsize=8, loc="left")
    axes.grid(alpha=0.3)
