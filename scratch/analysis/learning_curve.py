"""learning_curve: did the detector learn, did it still improve at the end, and if not, why?

    python -m scratch.analysis.learning_curve runs/a [runs/b …] --out FOLDER [--x steps]

Reads only what runs wrote (log.jsonl, while they run or afterwards) and draws two rows of panels, against the minutes
or the steps of training. Above: AP and AP50 of every evaluation, the loss of the training steps beside that of the
evaluations, and the length of the gradient. Below, the health signs of `scratch/evaluation/health.py`. A run that did
not record something is named in that panel. Beside the picture goes the data behind it, small enough to keep, from
which `--data FOLDER/learning_curve.json` draws it again, against what it was drawn against.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from bisect import bisect_left
from pathlib import Path
from statistics import median
from typing import Any, Iterable, Literal, Optional, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scratch.analysis.figures import save
from scratch.analysis.names import numbered, short
from scratch.analysis.records import believed, read_record
from scratch.analysis.run_log import NAME, number_or_none, numbers, read_log, texts
from scratch.printable import printable
from scratch.whole_file import write_text

from scratch.program import ends_in_a_line

# Okabe and Ito's colours, which colour-blind eyes can tell apart; a run keeps its colour in all panels.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WARNING = {"color": "red", "marker": "x", "markersize": 8, "markeredgewidth": 2, "linestyle": "none"}
SIGNS = ("box_spread", "box_response", "matching_instability", "matched_queries", "matched_agreement")
_LEAST_SHOWN = 1e-3  # of the boxes' signs: less says no more, and 0 has no place on a scale of powers
LONGEST = 40  # letters of a run's name in a legend
_POINTS = 200  # of a training curve: steps are put together in as many groups, so that a long run stays readable


def read_run(run_dir: Path) -> dict[str, Any]:
    """The curves of one run, as plain lists; None for what the run did not record.

    "left_out" says in words what of the log could not be read, where there is such. Raises FileNotFoundError if there
    is no log, ValueError if no step was logged.
    """
    records, left_out = read_log(run_dir)
    steps = [r for r in records if r["kind"] == "step"]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    alerts = [r for r in records if r["kind"] == "warning" and number_or_none(r.get("minutes")) is not None]
    if not steps:
        raise ValueError(f"{Path(run_dir) / NAME} holds no training step yet: wait until the run has begun"
                         + (f" ({left_out})" if left_out else ""))
    size = _group_size(len(steps))
    groups = [steps[i:i + size] for i in range(0, len(steps), size)]
    return {
        "name": Path(run_dir).resolve().name,
        "steps": steps[-1]["step"],
        "clip_max_norm": number_or_none(next(
            (r["clip_max_norm"] for r in reversed(evaluations) if "clip_max_norm" in r), None)),
        "train": {"minutes": [g[-1]["minutes"] for g in groups], "step": [g[-1]["step"] for g in groups],
                  "loss": [_mean(r.get("loss_queries", r.get("loss")) for r in g) for g in groups],
                  # The median: one spike of a thousand would hide what the other steps do.
                  "grad_norm": [_median(r.get("grad_norm") for r in g) for g in groups]},
        "evaluation": {"minutes": [r["minutes"] for r in evaluations], "step": [r["step"] for r in evaluations],
                       "loss": [number_or_none(numbers(r, "losses").get("loss")) for r in evaluations],
                       **{name: [number_or_none(r.get(name)) for r in evaluations] for name in ("AP", "AP50", "AP75")},
                       **{name: [_sign(numbers(r, "health").get(name)) for r in evaluations] for name in SIGNS},
                       "warnings": [texts(r, "warnings") for r in evaluations]},
        "alerts": {"minutes": [r["minutes"] for r in alerts], "step": [r["step"] for r in alerts],
                   "guard": [str(r.get("guard")) for r in alerts]},
        **({"left_out": left_out} if left_out else {}),
    }


def _group_size(steps: int) -> int:
    return max(1, -(-steps // _POINTS))


def _median(values: Iterable[Any]) -> Optional[float]:
    """Of the values that are there: a step that fp16's loss scaler skips has no gradient norm."""
    there = [value for value in values if number_or_none(value) is not None]
    return median(there) if there else None


def _mean(values: Iterable[Any]) -> Optional[float]:
    there = [value for value in values if number_or_none(value) is not None]
    return sum(there) / len(there) if there else None


def _sign(value: Any) -> Any:
    """A sign of health as it was written: a number, or one for each layer; None for anything else."""
    return [number_or_none(item) for item in value] if isinstance(value, list) else number_or_none(value)


def draw(curves: list[dict[str, Any]], path: Path, x: Optional[Literal["minutes", "steps"]] = None) -> None:
    """Draw the runs' curves into a PNG, against `x`, or else what the data says, or else the minutes."""
    x = x or curves[0].get("x", "minutes")
    figure, panels = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    (precision, loss, gradient), (boxes, matching, layers) = panels
    without: dict[Axes, list[str]] = {axes: [] for axes in panels.flat}  # the runs that did not record it
    for colour, run in zip(COLOURS * len(curves), curves):
        lines = {axes: len(axes.lines) for axes in without}
        _draw_run(panels.flat, run, colour, _places(run, x))
        for axes in without:
            if len(axes.lines) == lines[axes]:
                without[axes].append(short(run["name"]))

    precision.set(title="Average precision of each evaluation", ylim=(0, 1))
    loss.set(title="Weighted loss of the queries in all decoder layers", ylim=(0, None))
    gradient.set(title="Length of the gradient before it is clipped", yscale="log")
    boxes.set(title="Boxes of the last decoder layer", yscale="log", ylim=(0.8 * _LEAST_SHOWN, 1.2))
    matching.set(title="Objects matched to another query than before", ylim=(0, 1))
    layers.set(title="Matching in each layer, last evaluation", ylim=(0, 1.05), xlabel="decoder layer")
    layers.xaxis.get_major_locator().set_params(integer=True)
    clipped = {"clipped to": ":"} if any(run.get("clip_max_norm") for run in curves) else {}
    kinds = {precision: {"AP50": "-", "AP": "--"}, loss: {"training": "-", "evaluation": "--"},
             gradient: {"median of a group of steps": "-"} | clipped,
             boxes: {"spread: 1 − IoU between queries": "-", "response: change between pictures": "--"},
             matching: {"share of the objects": "-"},
             layers: {"share of queries that found an object": "-",
                      "share of objects with the last layer's query": "--"}}
    end = max(at for run in curves for places in _places(run, x) for at in places)
    for axes, names in without.items():
        axes.grid(alpha=0.3)
        if axes is not layers:
            axes.set(xlabel=x, xlim=(0, 1.02 * end))
        if len(names) < len(curves):
            _legend(axes, kinds[axes] | ({f"not recorded: {', '.join(names)}": ""} if names else {}))
        else:
            axes.set(xticks=[], yticks=[])
            axes.minorticks_off()
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="grey")
    if all(len(without[axes]) == len(curves) for axes in panels.flat[2:]):  # data of an earlier version
        for axes in panels.flat[2:]:
            axes.remove()
        for axes, place in zip((precision, loss), figure.add_gridspec(1, 2)):
            axes.set_subplotspec(place)
        figure.set_size_inches(14, 5)
    handles = [Line2D([], [], color=colour, linewidth=3, label=short(run["name"], LONGEST))
               for colour, run in zip(COLOURS * len(curves), curves)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(curves), len(COLOURS)), frameon=False)
    save(figure, path)


def _draw_run(panels: Iterable[Axes], run: dict[str, Any], colour: str, places: tuple[list, list]) -> None:
    """Draw one run's curves into the six panels, at the places of its groups of steps and of its evaluations."""
    precision, loss, gradient, boxes, matching, layers = panels
    judged, trained, (at_step, at_evaluation) = run["evaluation"], run["train"], places
    solid = {"color": colour, "marker": "o", "markersize": 3}
    dashed = solid | {"linestyle": "--"}
    _line(precision, at_evaluation, judged["AP50"], **solid)
    _line(precision, at_evaluation, judged["AP"], **dashed)
    warned = [(at, ap50) for at, ap50, texts in zip(at_evaluation, judged["AP50"], judged.get("warnings", ())) if texts]
    if warned:
        precision.plot(*zip(*warned), **WARNING, label="a warning", zorder=3, clip_on=False)
    _line(loss, at_step, trained["loss"], color=colour, alpha=0.6)
    _line(loss, at_evaluation, judged["loss"], **dashed)
    alerts = run.get("alerts", {"guard": []})  # data of an earlier version has none
    if alerts["guard"]:
        at = alerts["minutes" if at_step is trained["minutes"] else "step"]
        heights = [trained["loss"][min(bisect_left(at_step, place), len(at_step) - 1)] for place in at]
        heights = [math.nan if height is None else height for height in heights]
        loss.plot(at, heights, **WARNING, label="a warning: " + ", ".join(dict.fromkeys(alerts["guard"])), zorder=3)
    _line(gradient, at_step, trained.get("grad_norm"), color=colour)
    if run.get("clip_max_norm"):
        gradient.axhline(run["clip_max_norm"], color=colour, linestyle=":")
    for name, style in (("box_spread", solid), ("box_response", dashed)):
        values = [None if value is None else max(value, _LEAST_SHOWN) for value in judged.get(name, ())]
        _line(boxes, at_evaluation, values, **style)
    _line(matching, at_evaluation, judged.get("matching_instability"), **solid)
    for name, style in (("matched_queries", solid), ("matched_agreement", dashed)):
        last = next((values for values in reversed(judged.get(name, ())) if isinstance(values, list) and values), ())
        _line(layers, range(1, len(last) + 1), last, **style)


def _places(run: dict[str, Any], x: Literal["minutes", "steps"]) -> tuple[list, list]:
    """Where on the x-axis a run's groups of steps lie, and its evaluations."""
    judged, trained = run["evaluation"], run["train"]
    if x == "minutes":
        return trained["minutes"], judged["minutes"]
    # Data of an earlier version does not hold the groups' last steps, but they follow from the number of all steps.
    size = _group_size(run["steps"])
    followed = [min(i * size, run["steps"]) for i in range(1, len(trained["loss"]) + 1)]
    return trained.get("step", followed), judged["step"]


def _line(axes: Axes, at: Sequence[float], values: Optional[Sequence[Optional[float]]], **style: Any) -> None:
    """Draw what was recorded of `values`, and nothing if nothing was."""
    if values and any(value is not None for value in values):
        axes.plot(at, [math.nan if value is None else value for value in values], **style)


def _legend(axes: Axes, kinds: dict[str, str]) -> None:
    """What a panel's kinds of line mean (the colours are the runs'), and each label of its lines, once."""
    handles = [Line2D([], [], color="black", linestyle=style, label=kind) for kind, style in kinds.items()]
    labelled = dict(zip(*reversed(axes.get_legend_handles_labels())))
    axes.legend(handles=[*handles, *labelled.values()], fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of training runs")
    parser.add_argument("--data", type=Path, help="a learning_curve.json to draw again, instead of runs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for learning_curve.png and .json")
    parser.add_argument("--x", choices=("minutes", "steps"), help="what to draw the curves against, and to keep in the "
                        "data; minutes if neither this nor the data says it")
    arguments = parser.parse_args()
    if bool(arguments.runs) == bool(arguments.data):
        parser.error("name either runs or --data")
    try:
        draw_curves(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {printable(error)}")


def draw_curves(arguments: argparse.Namespace) -> None:
    picture = arguments.out / "learning_curve.png"
    if arguments.data:
        redraw(arguments.data, picture, arguments.x)
    else:
        curves = [read_run(run) | ({"x": arguments.x} if arguments.x else {}) for run in arguments.runs]
        for run, name in zip(curves, numbered([run["name"] for run in curves])):
            run["name"] = name
            if "left_out" in run:
                print(f"note: {printable(run['left_out'])}")
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_text(arguments.out / "learning_curve.json", json.dumps(curves) + "\n")
        draw(curves, picture, arguments.x)
    print(printable(picture))


def redraw(data: Path, picture: Path, x: Optional[Literal["minutes", "steps"]] = None) -> None:
    """Draw the picture from a learning_curve.json. Raises ValueError for a file that is no such."""
    curves = read_record(data, "python -m scratch.analysis.learning_curve", list)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with believed(data, "python -m scratch.analysis.learning_curve"):
        draw(curves, picture, x)


if __name__ == "__main__":
    with ends_in_a_line():
        main()
