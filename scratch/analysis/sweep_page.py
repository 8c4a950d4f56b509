"""sweep_page: what does sweep.md hold?

    the conclusions (sweep_report.py), what to do next, the table, the space, how to read each
    chart, and the rules

Read: report
"""

from __future__ import annotations

import re
from typing import Any, Sequence

from scratch.analysis.names import code, folders, literal
from scratch.analysis.sweep_report import RULES, best_trial, conclusions, is_of_seeds, spelled
from scratch.printable import command

CHARTS = {
    "learning_curves.png": "Each line is a trial; the best five are coloured, dashed grey ones were ended early. If "
                           "good and bad ones part early, more could have been ended sooner; if lines cross late, the "
                           "pruner (or the budget of a trial) is too short-sighted.",
    "parallel_coordinates.png": "A line is a trial, its colour what it came to. Where all dark lines pass through one "
                                "place of an axis, that parameter matters, and that place is the good one; where they "
                                "spread, it does not matter much.",
    "slices.png": "Every parameter by itself against what came of it. A slope or a hill is an effect; a band of equal "
                  "height is none. The best at the edge of a range: widen it.",
    "importance.png": "How unlike the values among the best trials are to those among all. It says that a parameter "
                      "mattered within these ranges, not in which direction; one of little importance may be left "
                      "alone next time.",
}


def report(results: dict[str, Any]) -> str:
    """The Markdown of sweep.md."""
    metric, best = results["metric"], best_trial(results)
    lines = [f"# Sweep: {literal(results['study'])}", "",
             f"Data: {literal(results['data'])}, {literal(results['split'])} split. Sampler: {results['sampler']}, "
             f"pruner: {results['pruner']}, seed {results['seed']}, up to {results['jobs']} "
             f"trial{'s'[:results['jobs'] > 1]} at a time. For all trials: {code(results['flags'])}", "",
             *(f"- {literal(sentence)}" for sentence in conclusions(results)), ""]
    if is_of_seeds(results):
        lines += ["A sweep over the same seeds with other flags gives a figure to set beside this one. Where the two "
                  "ranges overlap, the difference may be chance.", ""]
    elif best is not None:
        lines += ["The best configuration:", "", *_block([best["command"]]), "", *_confirmation(results, best)]
    lines += [f"Sorted by {metric}, the best of a trial's evaluations; the other figures are of that evaluation.", ""]
    names = list(results["space"])
    head = ["trial", "AP", "AP50", "AP75", "steps", "minutes", *names, ""]
    lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *(
        _row(trial, metric, names) for trial in _sorted(results)))]
    lines += ["", "The space:", "", *("- " + literal(f"{name}: {_range(dimension)}; default "
                                                      f"{spelled(results['defaults'][name])}")
                                      for name, dimension in results["space"].items())]
    for name, reading in CHARTS.items():
        lines += ["", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", "", reading]
    lines += ["", "The rules of the conclusions:", "", *(f"- {rule}" for rule in RULES), ""]
    return "\n".join(lines)


def _confirmation(results: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """How to set the best beside the default, over three seeds."""
    flags = {"default": results["flags"]}
    flags |= {} if best["is_default"] else {"best": best["command"].partition(" train ")[2]}
    return [f"The best of {len(results['trials'])} is partly luck, and what is best in short runs need not be so in "
            "long ones. Before it is believed it should win again, with other seeds. Mean, least and most of three are "
            f"what {'each of these prints' if len(flags) > 1 else 'this prints'}:", "",
            *_block([command("python", "detr_scratch.py", "sweep", "--out", f"{folders([results['study']])[0]}_{name}",
                             "--sampler", "grid", "--pruner", "none", "--space", "seed=1,2,3", "--metric",
                             results["metric"]) + f" {words}" for name, words in flags.items()]), ""]


def _block(lines: Sequence[str]) -> list[str]:
    """Lines of code; a fence of backticks longer than any in them."""
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    return [fence, *lines, fence]


def _sorted(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that were evaluated first, the best on top."""
    return sorted(results["trials"], key=lambda trial: (trial["value"] is None, -(trial["value"] or 0)))


def _row(trial: dict[str, Any], metric: str, names: list[str]) -> list[str]:
    figures = ["–"] * 3
    if trial["value"] is not None:
        curves = trial["evaluation"]
        at = max(range(len(curves[metric])), key=lambda k: curves[metric][k] or 0.0)
        figures = ["–" if curves[name][at] is None else f"{curves[name][at]:.3f}" for name in ("AP", "AP50", "AP75")]
    note = {"complete": "", "running": "not finished"}.get(trial["state"], trial["reason"])
    notes = [*(["default"] if trial["is_default"] else []), *([literal(note)] if note else [])]
    return [str(trial["number"]), *figures, f"{trial['steps']:,}", f"{trial['minutes']:.1f}",
            *(literal(spelled(trial["values"].get(name, "–"))) for name in names), "; ".join(notes)]


def _range(dimension: dict[str, Any]) -> str:
    if dimension["kind"] == "choice":
        return ", ".join(map(spelled, dimension["values"]))
    step = f" in steps of {spelled(dimension['step'])}" if dimension["step"] is not None else ""
    return (f"{spelled(dimension['low'])} to {spelled(dimension['high'])}{step}"
            + (" (every factor of ten equally likely)" if dimension["kind"] == "log" else ""))
