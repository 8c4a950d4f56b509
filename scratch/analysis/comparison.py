"""comparison: three ways to a detector: do the first two agree step by step, and which AP does each reach?

    python -m scratch.analysis.comparison FOLDER     again, from FOLDER/comparison.json alone

    ours         this project's layers, from nothing
    torch.nn     the same network, weights, batches, schedule; layers, losses, AdamW are PyTorch's
    fine-tuned   this project's layers, from trained weights

The left panel shows the training loss against the steps, where the first two must agree up
to rounding; the middle one AP against the minutes; the right one the difference of the two losses
when both take the same steps without dropout. In float64 a difference can only grow from rounding, so
it must stay below `BOUND`; in float32 the same rounding is 5e8 times as large, and a training step is
not a contraction.
Read: report (the page) → draw (the chart)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scratch.analysis.figures import save
from scratch.analysis.learning_curve import COLOURS
from scratch.analysis.names import literal, short
from scratch.analysis.records import believed, read_record
from scratch.analysis.run_summary import number
from scratch.printable import printable
from scratch.program import ends_in_a_line
from scratch.whole_file import write_json, write_text

LABELS = {"ours": "ours", "torch_nn": "torch.nn", "fine_tuned": "fine-tuned"}
MEANING = {"ours": "this project's layers, from nothing",
           "torch_nn": "the same network from the same weights, over the same batches; layers, losses and AdamW are "
                       "PyTorch's",
           "fine_tuned": "this project's layers, from trained weights"}
MADE_BY = "detr_scratch.py compare"
BOUND = 1e-9  # the largest relative difference of the losses in float64
LEAST = 1e-17  # of a difference in the chart: 0 has no place on a scale of powers
# The second line is drawn dashed over the first one: where they are the same, both can still be seen.
STYLES = {"ours": {"color": COLOURS[0], "linewidth": 2.4}, "fine_tuned": {"color": COLOURS[2], "linewidth": 1.8},
          "torch_nn": {"color": COLOURS[1], "linewidth": 1.4, "linestyle": (0, (4, 3))}}


def write(results: dict[str, Any], folder: Path) -> None:
    """comparison.json, and what is made of it: comparison.md and comparison.png."""
    write_json(folder / "comparison.json", results)
    write_text(folder / "comparison.md", report(results))
    draw(results, folder / "comparison.png")


def report(results: dict[str, Any]) -> str:
    """The Markdown of comparison.md: the table, whether the first two agree, and what each way is."""
    split, runs = results["split"], {run["approach"]: run for run in results["approaches"]}
    lines = ["# Three ways to a detector", "",
             f"Preset {literal(results['preset'])} on {literal(results['data'])}, {results['budget']} for each, seed "
             f"{results['seed']}. AP and loss: the {literal(split)} split, at the last evaluation; –: not measured. "
             "Seconds for a step are the median, without waiting for images. Peak memory is that of a process of its "
             f"own{'' if results['on_gpu'] else ', less what it had before the model was built'}.", "",
             *table(list(runs.values())), ""]
    if results["missing"]:
        lines += [*results["missing"], ""]
    lines += [*agreement_in_words(results["agreement"]), ""]
    lines += [f"* **{LABELS[name]}**: {MEANING[name]}"
              + (f" ({literal(runs[name]['weights'])})" if name in runs and runs[name]["weights"] else "")
              for name in LABELS if name in runs]
    return "\n".join([*lines, "", "![loss, AP, and how far ours and torch.nn are apart](comparison.png)", ""])


def table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the Markdown table, a row for each approach."""
    head = ["", "AP", "AP50", "AP75", "loss", "steps", "minutes", "s/step", "peak memory, GiB", "parameters",
            "… that learn", "on"]
    rows = [[LABELS[run["approach"]], *(number(run[name]) for name in ("AP", "AP50", "AP75", "loss")),
             number(run["steps"], ",.0f"), number(run["minutes"], ".1f"), number(run["seconds_per_step"]),
             number(run["peak_memory_gib"], ".2f"), number(run["parameters"], ",.0f"), number(run["trained"], ",.0f"),
             literal(run["machine"])] for run in runs]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def agreement_in_words(agreement: dict[str, Any]) -> list[str]:
    """A sentence for each precision in which ours and torch.nn were compared step by step."""
    lines = []
    for precision, found in agreement.items():
        text = (f"Over the first {len(found['ours'])} steps in {precision}, dropout off, the loss of torch.nn differs "
                f"from ours by {found['largest']:.1e} of it at most (step {found['at_step']}).")
        if precision == "float64":
            text += (f" That is rounding: the bound is {BOUND:.0e}." if found["largest"] <= BOUND else
                     f" **That is more than {BOUND:.0e}: was it so from the first steps (a mistake), or did it grow "
                     "(rounding)?**")
        lines.append(text)
    return lines or ["Ours and torch.nn were not compared step by step."]


def relative_differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """|a − b| / |a| of each pair; 0 where both are 0."""
    return [abs(a - b) / abs(a) if a != b else 0.0 for a, b in zip(ours, theirs)]


# -- the chart -----------------------------------------------------------------------------------------------------


def draw(results: dict[str, Any], path: Path) -> None:
    """Loss against steps, AP against minutes, and how far the first two ways are apart."""
    figure, (loss, precision, apart) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    runs = results["approaches"]
    for run in runs:
        style = STYLES[run["approach"]]
        loss.plot(run["train"]["step"], run["train"]["loss"], **style)
        over = {"markersize": 7, "markerfacecolor": "none"} if run["approach"] == "torch_nn" else {"markersize": 4}
        loss.plot(run["evaluation"]["step"], run["evaluation"]["loss"], linestyle="none", marker="D",
                  color=style["color"], **over)
        for name, marker, alpha in (("AP50", "o", 1.0), ("AP", "s", 0.55)):
            _known(precision, run["evaluation"]["minutes"], run["evaluation"][name], marker=marker, markersize=3,
                   alpha=alpha, **style)
    loss.set(title="Loss", xlabel="steps", ylabel="weighted sum over all decoder layers", xlim=(0, None),
             ylim=(0, None))
    precision.set(title=f"Average precision on {short(results['split'])}", xlabel="minutes", ylabel="AP50 and AP",
                  xlim=(0, None), ylim=(0, _top(runs)))
    _marks(loss, {"training": {"linestyle": "-"}, "evaluation": {"linestyle": "none", "marker": "D"}})
    _marks(precision, {"AP50": {"marker": "o"}, "AP": {"marker": "s", "alpha": 0.55}})
    _draw_agreement(apart, results["agreement"])
    for axes in (loss, precision, apart):
        axes.grid(alpha=0.3)
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="grey")
    handles = [Line2D([], [], label=LABELS[run["approach"]], **STYLES[run["approach"]]) for run in runs]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    save(figure, path)


def _draw_agreement(axes: Axes, agreement: dict[str, Any]) -> None:
    for colour, (precision, found) in zip((COLOURS[3], COLOURS[4]), agreement.items()):
        apart = [max(difference, LEAST) for difference in relative_differences(found["ours"], found["torch_nn"])]
        axes.plot(range(1, len(apart) + 1), apart, color=colour, marker="o", markersize=3, label=precision)
    axes.set(title="How far the losses of ours and torch.nn are apart", xlabel="steps, dropout off",
             ylabel=f"relative difference (0 is drawn as {LEAST:.0e})")
    if agreement:
        axes.axhline(BOUND, color="black", linestyle=":", label=f"bound in float64: {BOUND:.0e}")
        axes.set(yscale="log", ylim=(LEAST / 2, 1), xlim=(0, None))
        axes.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.46))  # under the bound


def _top(runs: Sequence[dict[str, Any]]) -> float:
    """Where the axis of AP ends: a tenth above the largest, and never so low that noise looks like progress."""
    largest = max((value for run in runs for value in run["evaluation"]["AP50"] if value is not None), default=0.0)
    return min(1.0, max(0.1, 1.1 * largest))


def _known(axes: Axes, at: Sequence[float], values: Sequence[Optional[float]], **style: Any) -> None:
    """Draw the points that there are: where a split has no object, an AP is None."""
    points = [(x, y) for x, y in zip(at, values) if y is not None]
    if points:
        axes.plot(*zip(*points), **style)


def _marks(axes: Axes, kinds: dict[str, dict[str, Any]]) -> None:
    """What a panel's marks mean; the colours are the approaches'."""
    axes.legend(handles=[Line2D([], [], color="black", markersize=4, label=kind, **style)
                         for kind, style in kinds.items()], fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds comparison.json; comparison.md and comparison.png go there")
    arguments = parser.parse_args()
    path = arguments.folder / "comparison.json"
    if not path.exists():
        parser.error(f"{path} does not exist: name the folder of a comparison")
    try:
        results = read_record(path, MADE_BY)
        with believed(path, MADE_BY):
            write(results, arguments.folder)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(error)}")
    print(printable(arguments.folder / "comparison.md"))


if __name__ == "__main__":
    with ends_in_a_line():
        main()
