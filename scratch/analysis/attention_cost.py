"""attention_cost: how do time and memory of attention grow with the number of tokens?

    attention.json ─▶ attention.png     left: added memory, right: seconds; both against tokens

The data comes from `python -m benchmarks.attention`. Both axes are logarithmic, so that a cost of
S² is a line twice as steep as a cost of S.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from scratch.analysis.figures import save

HEADS, WIDTH = 8, 32  # of the attention that the benchmark measures: an encoder layer of detr_r50
STYLES = {"kept": "tab:orange", "tiled": "tab:blue", "torch.nn": "tab:gray"}


def draw(figures: dict[str, Any], path: Path) -> None:
    rows = figures["results"]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axes, (key, label) in zip(panels, (("gib", "added memory at the peak (GiB)"), ("seconds", "seconds"))):
        for name, colour in STYLES.items():
            known = [(row["tokens"], row[key][name]) for row in rows if row[key][name]]
            if known:
                axes.plot(*zip(*known), marker="o", color=colour, label=name)
        axes.set(xscale="log", yscale="log", xlabel="tokens S of an image (queries and keys)", ylabel=label)
        axes.set_xticks([row["tokens"] for row in rows], [f"{row['tokens']:,}" for row in rows])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].legend()
    shape = f"{figures['batch_size']} × {HEADS} heads of {WIDTH}"
    figure.suptitle(f"Self-attention, forward and backward: {shape}, {figures['precision']}")
    save(figure, path)
