"""layer_chart: which layers are slower than torch.nn's, and which of them matter?

    python -m benchmarks.layer_chart layers.json layers.png      # draws again what `benchmarks.layers --json` wrote

For each preset a column: above, the parts of a training step; below, its most expensive layers, sorted by the time of
all their calls. A bar goes from 1, as fast as torch.nn, to the measured ratio (right: ours is slower; each mark on the
axis is a factor); its whisker spans the quartiles.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS
from scratch.analysis.records import believed, read_record
from scratch.program import ends_in_a_line

MOST = 24  # layers of a preset: the others are too cheap to matter
# Kinds of one colour do the same to the machine.
FAMILIES = {"convolution": ("conv",), "linear": ("linear",), "attention": ("attention",),
            "normalisation": ("batch-norm", "group-norm", "layer-norm"),
            "element by element": ("relu", "dropout", "max-pool", "encoding"), "loss": ("loss",)}
INK = {kind: colour for kinds, colour in zip(FAMILIES.values(), COLOURS, strict=True) for kind in kinds}
PART = "#7F7F7F"


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the content of layers.json."""
    results = figures["results"]
    tallest = max(min(MOST, len(result["layers"])) for result in results)
    heights = [max(len(result["parts"]) for result in results), tallest]
    figure, panels = plt.subplots(2, len(results), figsize=(9 * len(results), 2 + 0.27 * sum(heights)), squeeze=False,
                                  height_ratios=heights, sharex="col", layout="constrained")
    for result, (above, below) in zip(results, panels.T):
        parts, layers = result["parts"], result["layers"][:MOST]
        bars(above, parts, [f"{row['name']}, {1e3 * row['whole']['ours']['median']:.1f} ms" for row in parts],
             [PART] * len(parts))
        bars(below, layers, [f"{row['kind']} {row['name']}, ×{row['count']}: {row['share']:.1%}" for row in layers],
             [INK[row["kind"]] for row in layers])
        reach = [row["whole"]["ratio"]["median"] for row in (*parts, *layers)]
        below.set_xlim(min(0.5, *reach) / 1.1, max(2, *reach) * 1.1)  # the panels of a column share it
        size = "×".join(map(str, [result["images"][0], 3, *result["images"][1:]]))
        above.set_title(f"{result['preset']}, {size}, {result['precision']}, {result['device']}")
        below.set_title(f"the most expensive {len(layers)} of {len(result['layers'])} layers: "
                        f"{sum(row['share'] for row in layers):.0%} of our step", fontsize="medium")
        below.set_xlabel("time of ours ÷ time of torch.nn, forward and backward")
    figure.legend(handles=[Patch(color=INK[kinds[0]], label=family) for family, kinds in FAMILIES.items()],
                  frameon=False, ncols=len(FAMILIES), loc="outside lower center")
    save(figure, path)


def bars(axes: Axes, rows: Sequence[dict[str, Any]], labels: Sequence[str], colours: Sequence[str]) -> None:
    """A bar from 1 to each row's ratio, the first on top."""
    ratios = [row["whole"]["ratio"] for row in rows]
    middle = [ratio["median"] for ratio in ratios]
    whiskers = [[abs(ratio[quartile] - ratio["median"]) for ratio in ratios] for quartile in ("low", "high")]
    axes.barh(range(len(rows)), [ratio - 1 for ratio in middle], left=1, color=colours, xerr=whiskers,
              error_kw={"elinewidth": 1, "ecolor": "black"})
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    axes.set(yticks=range(len(rows)), yticklabels=labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.grid(axis="x", alpha=0.3)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 2:
        sys.exit(f"got {len(arguments)} names, wanted two: the figures that `python -m benchmarks.layers --json FILE` "
                 "wrote, and the picture to draw")
    figures, picture = map(Path, arguments)
    made_by = "python -m benchmarks.layers"
    try:
        content = read_record(figures, made_by)
        with believed(figures, made_by):
            draw(content, picture)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
