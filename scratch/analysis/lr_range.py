"""lr_range: at which learning rate does the loss fall fastest, and at which does it no longer fall?

    ηₖ = low · (high/low)^(k/(n−1))     k = 0 … n−1: a step's rate is the last one's times one factor
    l̃  = the losses, smoothed           by a bell, even on both sides: a running mean would lag, and
                                        so name rates that are too high
    suggested: the η where dl̃ / d(log η) is least, before l̃ is lowest

    loss ┤────╮                ╱
         │     ╲ ← steepest   ╱  too high
         │      ╲            ╱
         │       ╰──╮______╱
         ┼──────────────────────  η, in powers
          too low

The range test of Smith 2017 (Cyclical Learning Rates, arXiv 1506.01186, section 3.3). He lets the
rate rise in a straight line and reads two rates off the accuracy; that it rises by a factor, and
that the loss's steepest fall is taken, is what fastai and others made of it. One short run decides
all, from weights that learn meanwhile: it gives the power of ten, and a sweep around it the rest. A
schedule with warm-up bears a higher peak, a longer run wants a lower one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS, LONGEST
from scratch.analysis.names import short

SPREAD = 0.03  # standard deviation of the bell, as a share of the planned steps
CLEAR = 2.0  # a fall counts if it is CLEAR times the losses' scatter about the smoothed curve (the median of it),
LEAST_FALL = 0.01  # and at least this share of the first loss


def rate_at(low: float, high: float, steps: int, step: int) -> float:
    """The learning rate of a step (counted from 0) of a test that goes from `low` to `high`."""
    return low * (high / low) ** (step / (steps - 1))


def smooth(losses: Sequence[float], spread: float) -> np.ndarray:
    """Each loss as the mean of its neighbours, weighted by a bell of standard deviation `spread` steps."""
    values, places = np.asarray(losses, dtype=float), np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places[None, :]) / spread) ** 2)  # (n, n)
    return weights @ values / weights.sum(axis=1)  # at the ends there are fewer neighbours, not zeros


def suggestion(results: dict[str, Any]) -> dict[str, Optional[float]]:
    """The rates where the smoothed loss falls fastest (None: it never clearly falls) and where it is lowest."""
    rates, losses = np.array(results["rates"]), np.array(results["losses"])
    curve = smooth(losses, SPREAD * results["steps"])
    lowest = int(curve.argmin())
    scatter = float(np.median(np.abs(losses[:lowest + 1] - curve[:lowest + 1]))) if lowest else 0.0
    if lowest < 2 or curve[0] - curve[lowest] <= max(CLEAR * scatter, LEAST_FALL * curve[0]):
        return {"steepest": None, "lowest": float(rates[lowest])}
    slope = np.gradient(curve[:lowest + 1], np.log(rates[:lowest + 1]))
    return {"steepest": float(rates[slope.argmin()]), "lowest": float(rates[lowest])}


def in_words(results: dict[str, Any]) -> list[str]:
    """What the test says, in sentences."""
    found, name = suggestion(results), _name(results)
    end = f"{results['stopped']}, at {results['rates'][-1]:.2g}" if results["stopped"] else "the loss never blew up"
    said = [f"{name} from {results['from']:g} to {results['to']:g} over {results['steps']} steps: {end}."]
    if found["steepest"] is None:
        return [*said, f"The loss never clearly fell. If it rose at once, begin lower (--from "
                       f"{results['from'] / 100:g}); if nothing happened, end higher (--to), or take more --steps."]
    return [*said, f"The smoothed loss falls fastest at {name} = {found['steepest']:.2g} (suggested), and is lowest at "
                   f"{found['lowest']:.2g}, above which it no longer falls."]


def _name(results: dict[str, Any]) -> str:
    return "lr" if results["of"] == "all" else results["of"]


def draw(results: dict[str, Any], path: Path) -> None:
    """The losses against the rates, with what is suggested."""
    save(chart(results), path)


def chart(results: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    rates, losses, found = results["rates"], results["losses"], suggestion(results)
    curve = smooth(losses, SPREAD * results["steps"])
    axes.plot(rates, losses, ".", color="#999999", markersize=4, label="each step")
    axes.plot(rates, curve, color=COLOURS[0], linewidth=2, label="smoothed")
    if found["steepest"] is not None:
        axes.axvline(found["steepest"], color=COLOURS[1], linestyle="--",
                     label=f"steepest fall: {found['steepest']:.2g} (suggested)")
        axes.axvline(found["lowest"], color=COLOURS[2], linestyle=":", label=f"lowest: {found['lowest']:.2g}")
    if results["from"] <= results["configured"] <= results["to"]:
        axes.axvline(results["configured"], color="black", linewidth=1,
                     label=f"as configured: {results['configured']:g}")
    # A loss that blows up would press all that is to be read into the bottom line, so it leaves the picture at the top.
    lowest, fall = float(curve.min()), float(curve[0] - curve.min())
    beside = ", the others in proportion" if results["of"] == "all" else ""
    axes.set(xscale="log", xlim=(results["from"], results["to"]),
             ylim=(lowest - 0.6 * fall - 1e-6, lowest + 3 * fall + 1e-6),
             xlabel=f"learning rate ({_name(results)}{beside})", ylabel="weighted loss of the batch",
             title=f"Learning-rate range test: {short(results['preset'])} on "
                   f"{short(results['data'], LONGEST)}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    return figure
