"""layer_curves: how do the weights, activations and gradients of each group of layers change from batch to batch?

    draw_by_group     a small panel for each group, a line for each layer: std_gradients …
    draw_losses       what the loss is made of, and each of its parts in every decoder layer
    draw_attention    the entropy of each head: a map of heads × batches for each layer
    draw_clipping     the gradient's length, what clipping leaves of it, the learning rates
    draw_overview     one sheet: loss, gradient, rates, and maps of groups × batches
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any, Optional

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from scratch.analysis.layer_pages import colours_by_depth, depth_bar, powers_axis, save, units_of, words
from scratch.analysis.layer_watch import ATTENTIONS
from scratch.analysis.learning_curve import COLOURS

# Stanford's course notes CS231n, "Ratio of weights:updates", call this the rough size of a good step.
GOOD_RATIO = 1e-3
_PARTS = {"loss_ce": "classification", "loss_bbox": "boxes, L1", "loss_giou": "boxes, GIoU"}
_PREFIXES = {"": "", "dn_": "noised ", "many_": "one-to-many ", "cell_": "cells' "}
TITLES = {
    "std_weights": "standard deviation of the weights",
    "std_activations": "standard deviation of the activations",
    "std_gradients": "standard deviation of the gradients, before clipping",
    "mean_abs_activations": "mean |activation|",
    "saturation": "share of saturated activations",
    "update_to_weight": "update ÷ weight, ‖Δw‖ / ‖w‖",
}
_SHARES = ("saturation",)


def draw_by_group(content: dict[str, Any], name: str, path: Path, columns: int = 6) -> None:
    """One of FIGURES over the batches: the groups in panels of one scale, their layers in lines."""
    values = content["figures"][name]
    groups = {group: units for group, units in units_of(content).items()
              if any(value is not None and (value or name in _SHARES) for i in units for value in values[i])}
    rows = -(-max(1, len(groups)) // columns)
    width, height = 2.6 * columns + 1.6, 1.75 * rows + 1.2  # inches
    # Placed by hand: a layout that measures some forty panels takes several seconds.
    figure, panels = plt.subplots(rows, columns, figsize=(width, height), sharex=True, sharey=True, squeeze=False,
                                  gridspec_kw=dict(left=0.6 / width, right=1 - 1.0 / width, bottom=0.5 / height,
                                                   top=1 - 0.75 / height, wspace=0.07, hspace=0.36))
    panels = list(panels.flat)
    for axes, (group, units) in zip(panels, groups.items()):
        for i, colour in zip(units, colours_by_depth(len(units))):
            axes.plot(content["batches"], _numbers(values[i], zero_is_nothing=name not in _SHARES), color=colour,
                      linewidth=1.2, marker="o" if len(content["batches"]) == 1 else None, markersize=3)
        axes.set_title(words(group), fontsize=8.5, pad=3)
        axes.grid(alpha=0.3)
        if name == "update_to_weight":
            axes.axhline(GOOD_RATIO, color="black", linestyle=":", linewidth=1)
    for axes in panels[len(groups):]:
        axes.set_axis_off()
    if name in _SHARES:
        panels[0].set(ylim=(-0.03, 1.03))
    elif groups:
        powers_axis(panels[0], 100.0)
        panels[0].set_ylim(*_most_of(panels[0].get_ylim(), values))
    for axes in panels[max(0, len(groups) - columns):len(groups)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("batch", fontsize=8, labelpad=1)
    if any(len(units) > 1 for units in groups.values()):
        depth_bar(figure, None, figure.add_axes((1 - 0.85 / width, 0.3, 0.13 / width, 0.4)))
    figure.suptitle(f"{TITLES[name]} ({content['about'].get('preset', 'a model')})", weight="bold",
                    y=1 - 0.2 / height)
    _save(figure, path)


def _most_of(limits: tuple[float, float], values: list[list[Optional[float]]]) -> tuple[float, float]:
    """The limits of an axis, but for the smallest hundredth of the numbers: a weight's first step may be next to 0."""
    positive = [value for column in values for value in column if value]
    return max(limits[0], 0.5 * float(np.percentile(positive, 1))), limits[1]


def draw_losses(content: dict[str, Any], path: Path) -> None:
    """The loss as the sum of its weighted parts; then each part by decoder layer: queries, noised boxes, cells."""
    kinds = [prefix for prefix in _PREFIXES if f"{prefix}loss_ce" in content["losses"]]
    figure, panels = plt.subplots(len(kinds), 4, figsize=(18.5, 0.8 + 3.6 * len(kinds)), layout="constrained",
                                  squeeze=False)
    _draw_total(panels[0, 0], content)
    for axes in panels[1:, 0]:
        axes.set_axis_off()
    deepest = 1
    for prefix, row in zip(kinds, panels):
        for (part, label), axes in zip(_PARTS.items(), row[1:]):
            layers = _by_layer(content["losses"], prefix + part)
            deepest = max(deepest, len(layers))
            for values, colour in zip(layers, colours_by_depth(len(layers))):
                axes.plot(content["batches"], _numbers(values), color=colour, linewidth=1.4)
            axes.set(title=f"{_PREFIXES[prefix]}{label}, unweighted", xlabel="batch")
            axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
            axes.grid(alpha=0.3)
    if deepest > 1:
        depth_bar(figure, panels)
    figure.suptitle(f"loss parts ({content['about'].get('preset', 'a model')})", weight="bold")
    _save(figure, path)


def _draw_total(axes: Axes, content: dict[str, Any]) -> None:
    parts = {f"{words_before}{label}": content["loss_weights"].get(part, 1.0)
             * np.sum([_numbers(layer) for layer in _by_layer(content["losses"], prefix + part)], axis=0)
             for prefix, words_before in _PREFIXES.items() for part, label in _PARTS.items()
             if prefix + part in content["losses"]}
    axes.stackplot(content["batches"], *parts.values(), labels=list(parts), alpha=0.85,
                   colors=[*COLOURS, "#F0E442", "#7F7F7F", "#000000"])
    axes.set(title="what the loss is made of, weighted", xlabel="batch", ylabel="sum over the decoder layers")
    axes.margins(x=0)
    axes.legend(*(list(reversed(side)) for side in axes.get_legend_handles_labels()), fontsize=8, frameon=False,
                loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _by_layer(losses: dict[str, list[float]], name: str) -> list[list[float]]:
    """A loss of each decoder layer, the first layer first; the last one's has no number."""
    numbered = sorted((int(match[1]), key) for key in losses if (match := re.fullmatch(rf"{name}_(\d+)", key)))
    return [*(losses[key] for _, key in numbered), losses[name]]


def draw_attention(content: dict[str, Any], path: Path) -> None:
    """Entropy ÷ log(keys) of every head at every batch: a row of maps for each attention, a map for each layer."""
    looks = {name: content["attention"][name] for name in ATTENTIONS if content["attention"].get(name)}
    columns = max(len(look["entropy"][0]) for look in looks.values())
    heads = len(next(iter(looks.values()))["entropy"][0][0])
    figure, panels = plt.subplots(len(looks), columns, squeeze=False, layout="constrained",
                                  figsize=(1.9 + 2.5 * columns, 0.8 + len(looks) * (1.15 + 0.16 * heads)))
    extent = _extent(content, heads)
    for (name, look), row in zip(looks.items(), panels):
        maps = np.array(look["entropy"], dtype=float).transpose(1, 2, 0)  # (layers, heads, batches)
        undivided = np.array(look["undivided"][0], dtype=float).mean(1)  # (layers,), at the first batch
        for depth, axes in enumerate(row):
            if depth >= len(maps):
                axes.set_axis_off()
                continue
            image = axes.imshow(maps[depth], aspect="auto", cmap="cividis", vmin=0, vmax=1, extent=extent,
                                interpolation="nearest")
            first, last = maps[depth, :, [0, -1]].mean(1)
            axes.set_title(f"{words(name)} {depth + 1}\n{first:.2f} → {last:.2f}; undivided {undivided[depth]:.2f}",
                           fontsize=8.5)
            axes.set_yticks(range(1, heads + 1, 1 if heads <= 8 else 3))
            axes.set_xlabel("batch", fontsize=8)
        row[0].set_ylabel("head")
    bar = figure.colorbar(image, ax=panels, fraction=0.02, pad=0.01, aspect=40)
    bar.set_label("entropy ÷ log(keys): 0 one key, 1 all alike")
    figure.suptitle(f"how widely each head looks ({content['about'].get('preset', 'a model')})", weight="bold")
    _save(figure, path)


def draw_clipping(content: dict[str, Any], path: Path) -> None:
    """The gradient's length with the line at which it is cut, the share that is left, and the learning rates."""
    draw = [_draw_norm, *([_draw_kept] if content["clip_max_norm"] else []), _draw_rates]
    figure, panels = plt.subplots(len(draw), 1, figsize=(8.5, 3.2 * len(draw)), sharex=True, layout="constrained")
    for axes, draw_panel in zip(panels, draw):
        draw_panel(axes, content)
    panels[-1].set_xlabel("batch")
    figure.suptitle(f"gradient and clipping ({content['about'].get('preset', 'a model')})", weight="bold")
    _save(figure, path)


def _draw_norm(axes: Axes, content: dict[str, Any]) -> None:
    axes.plot(content["batches"], _numbers(content["grad_norm"]), color=COLOURS[0], marker="o", markersize=3,
              label="before clipping" if content["clip_max_norm"] else "nothing is cut (clip_max_norm 0)")
    if content["clip_max_norm"]:
        axes.axhline(content["clip_max_norm"], color=COLOURS[1], linestyle="--",
                     label=f"cut to {content['clip_max_norm']:g}")
    axes.set(title="length of the gradient, over all weights")
    powers_axis(axes)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _draw_kept(axes: Axes, content: dict[str, Any]) -> None:
    kept = 100 * np.minimum(1.0, content["clip_max_norm"] / (np.array(_numbers(content["grad_norm"])) + 1e-6))
    axes.bar(content["batches"], kept, color=COLOURS[2])
    axes.set(title=f"clipping leaves {np.nanmedian(kept):.2g} % of it (median)", ylabel="per cent")
    axes.grid(alpha=0.3)


def _draw_rates(axes: Axes, content: dict[str, Any]) -> None:
    """A line for each rate; groups of weights that share one share its line."""
    names: dict[tuple, list[str]] = {}
    for name, values in content["learning_rates"].items():
        names.setdefault(tuple(values), []).append(words(name.removeprefix("lr_")))
    for (values, sharing), colour in zip(names.items(), COLOURS):
        axes.plot(content["batches"], _numbers(list(values), zero_is_nothing=True), color=colour, marker="o",
                  markersize=3, label=", ".join(sharing))
    axes.set_title("learning rates")
    powers_axis(axes)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def draw_overview(content: dict[str, Any], path: Path) -> None:
    """The losses and the gradient above; below, group by group, gradients, updates, saturation, and the attention."""
    groups = units_of(content)
    figure = plt.figure(figsize=(19, 5.2 + 0.27 * len(groups)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3.6, 1.6 + 0.27 * len(groups)))
    draw = [_draw_total, _draw_norm, *([_draw_kept] if content["clip_max_norm"] else []), _draw_rates]
    for axes, draw_panel in zip(above.subplots(1, len(draw)), draw):
        draw_panel(axes, content)
        axes.set_xlabel("batch")
    maps = below.subplots(1, 4)
    for axes, name, title in zip(maps, ("std_gradients", "update_to_weight", "saturation"), (
            "std of the gradients", "update ÷ weight (about 10⁻³ is good)", "saturated")):
        table = np.array([_group_medians(content, name, units) for units in groups.values()], dtype=float)
        positive = table[table > 0]
        scale: dict[str, Any] = {"vmin": 0, "vmax": 1}
        if name == "update_to_weight":  # one scale for all sets, with the good ratio in its middle
            scale = {"norm": LogNorm(GOOD_RATIO / 100, GOOD_RATIO * 100)}
        elif name not in _SHARES and positive.size > 1:
            scale = {"norm": LogNorm(*np.percentile(positive, (1, 99)).tolist())}
        table = table if name in _SHARES else np.where(table > 0, table, np.nan)
        _draw_map(below, axes, content, table, list(map(words, groups)) if axes is maps[0] else None, title, scale)
    looks = {f"{words(name)} {depth + 1}": [np.mean(batch[depth]) for batch in look["entropy"]]
             for name, look in content["attention"].items() for depth in range(len(look["entropy"][0]))}
    _draw_map(below, maps[3], content, np.array(list(looks.values())), list(looks),
              "entropy ÷ log(keys), mean of the heads", {"vmin": 0, "vmax": 1})
    about = content["about"]
    figure.suptitle(" · ".join(str(about[part]) for part in ("preset", "parameters", "trained_on") if part in about),
                    weight="bold")
    _save(figure, path)


def _draw_map(figure: Any, axes: Axes, content: dict[str, Any], table: np.ndarray, names: Optional[list[str]],
              title: str, scale: dict[str, Any]) -> None:
    axes.set_facecolor("#E5E5E5")  # where there is nothing to measure
    image = axes.imshow(table, aspect="auto", cmap="viridis", interpolation="nearest",
                        extent=_extent(content, len(table)), **scale)
    axes.set_yticks(range(1, len(table) + 1), labels=names or [""] * len(table), fontsize=8)
    axes.set(title=title, xlabel="batch")
    figure.colorbar(image, ax=axes, location="bottom", fraction=0.03, pad=0.01, aspect=30)


def _extent(content: dict[str, Any], rows: int) -> tuple[float, float, float, float]:
    """Cells around whole numbers: batches to the right, rows downwards from 1."""
    return content["batches"][0] - 0.5, content["batches"][0] + len(content["batches"]) - 0.5, rows + 0.5, 0.5


def _group_medians(content: dict[str, Any], name: str, units: list[int]) -> list[float]:
    batches = zip(*(content["figures"][name][i] for i in units))
    return [median(there) if (there := [value for value in batch if value is not None]) else np.nan
            for batch in batches]


def _numbers(values: list[Optional[float]], zero_is_nothing: bool = False) -> list[float]:
    """NaN, which is not drawn, for None; and for 0 where the scale is one of powers."""
    return [np.nan if value is None or (zero_is_nothing and value == 0) else value for value in values]


def _save(figure: Any, path: Path) -> None:
    for axes in figure.get_axes():
        if axes.get_xlabel() == "batch":  # there is none between two
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    save(figure, path)
