"""sweep_report: what may be concluded from the trials of a sweep, and by which rule?

    sweep.json ─▶ conclusions ─▶ sweep.md

Every conclusion is a rule (RULES) applied to figures, and says no more than one run of each trial
can tell. The rules stand at the end of the page, so that whoever reads a conclusion can take it
apart. Read: RULES → conclusions → report
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any, Optional, Sequence

import numpy as np

NOISE = 0.02  # of AP, from one seed to another
ENOUGH = 10  # complete trials, before it is said what matters
ENOUGH_FOR_DIRECTION, ENOUGH_OF_A_CHOICE = 8, 3
DIRECTION = 0.5  # of Spearman's ρ
HALF = 0.5  # of a range, on its own scale

RULES = (
    f"better: by more than {NOISE}. Two runs that differ in nothing but the seed may differ by that much.",
    f"higher or lower was better: Spearman's rank correlation between a number and what it led to is {DIRECTION} or "
    f"more, or −{DIRECTION} or less, over {ENOUGH_FOR_DIRECTION} trials or more.",
    f"the best have A to B: the best quarter (three trials at least, of {ENOUGH_FOR_DIRECTION} complete ones or more) "
    "lies within half of the range.",
    "at the edge: the best trial lies in the outer tenth of a range, or at an end of a list of three numbers or more.",
    f"one choice better than another: its median is, and both had {ENOUGH_OF_A_CHOICE} trials or more.",
    f"what decided most: Optuna's PED-ANOVA, over {ENOUGH} complete trials or more.",
    "A trial that was ended early counts with the best that it had; one that failed does not count.",
)


def in_words(values: dict[str, Any]) -> str:
    """ "lr 0.0012, dropout 0.1" """
    return ", ".join(f"{name} {spelled(value)}" for name, value in values.items()) or "no values yet"


def spelled(value: Any) -> str:
    """A value as a person would type it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def judged(results: dict[str, Any], *states: str) -> list[dict[str, Any]]:
    """The trials in these states (complete and pruned, if none is named) that were evaluated, the best first."""
    there = [trial for trial in results["trials"]
             if trial["state"] in (states or ("complete", "pruned")) and trial["value"] is not None]
    return sorted(there, key=lambda trial: -trial["value"])


def best_trial(results: dict[str, Any]) -> Optional[dict[str, Any]]:
    """The best of the complete trials."""
    return next(iter(judged(results, "complete")), None)


def place_in_range(dimension: dict[str, Any], value: float) -> float:
    """Where a number lies in its range, on the range's own scale: 0 at the low end, 1 at the high end."""
    scale = math.log if dimension["kind"] == "log" else float
    low, high = scale(dimension["low"]), scale(dimension["high"])
    return (scale(value) - low) / (high - low)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's ρ: the correlation of the ranks, equal values sharing theirs; 0 where one of the two never changes."""
    ranks = [[(sum(other < value for other in values) + sum(other <= value for other in values)) / 2
              for value in values] for values in (x, y)]
    return float(np.corrcoef(ranks)[0, 1]) if all(len(set(values)) > 1 for values in ranks) else 0.0


# -- the conclusions -----------------------------------------------------------------------------------------------


def conclusions(results: dict[str, Any]) -> list[str]:
    """Sentences, each by one of the rules above."""
    trials, best = results["trials"], best_trial(results)
    counts = {state: sum(trial["state"] == state for trial in trials)
              for state in ("complete", "pruned", "failed", "running")}
    words = {"pruned": "ended early", "running": "not finished"}
    said = [f"{len(trials)} trials in {results['minutes']:.0f} minutes: " + ", ".join(
        f"{count} {words.get(state, state)}" for state, count in counts.items() if count) + "."]
    if best is None:
        return [*said, "None is complete, so there is nothing to conclude.", *_failures(trials)]
    metric = results["metric"]
    said.append(f"Best: trial {best['number']} with {metric} {best['value']:.3f} ({in_words(best['values'])}).")
    worst = judged(results, "complete")[-1]
    if best["value"] - worst["value"] <= NOISE:
        return [*said, f"All complete trials are within {NOISE} of it, which may be chance: in runs like these no "
                       "setting is better than another.", *_saved(results), *_failures(trials)]
    said += [*_against_default(results, best), *_equals(results, best)]
    for name, dimension in results["space"].items():
        said += _of_parameter(results, name, dimension, best)
    if results["importance"]:
        shares = sorted(results["importance"].items(), key=lambda item: -item[1])
        said.append("What decided most whether a trial was among the best: "
                    + ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in shares[:3]) + ".")
    elif counts["complete"] < ENOUGH:
        said.append(f"What matters most is not said: that takes {ENOUGH} complete trials, and there are "
                    f"{counts['complete']}.")
    return [*said, *_saved(results), *_failures(trials)]


def _against_default(results: dict[str, Any], best: dict[str, Any]) -> list[str]:
    default = next((trial for trial in results["trials"] if trial["is_default"] and trial["value"] is not None), None)
    if default is None:
        return ["No trial had the default's values, so what the search gained is not known."]
    if default is best:
        return ["These are the default's values: nothing better was found."]
    gained = best["value"] - default["value"]
    name = f"the default (trial {default['number']})"
    if default["state"] != "complete":
        return [f"{name.capitalize()} was not trained to its end ({default['reason'] or default['state']}), so what "
                "the search gained is not known."]
    return [f"That is {gained:.3f} above {name}, which has {default['value']:.3f}: "
            f"{'more than' if gained > NOISE else 'within'} the {NOISE} that may be chance."]


def _equals(results: dict[str, Any], best: dict[str, Any]) -> list[str]:
    equal = [f"{trial['number']}" for trial in judged(results, "complete")[1:]
             if best["value"] - trial["value"] <= NOISE]
    if not equal:
        return []
    return [f"Within {NOISE} of it, and so as good for all that one run each can tell: trial{'s'[:len(equal) > 1]} "
            f"{', '.join(equal)}."]


def _of_parameter(results: dict[str, Any], name: str, dimension: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """Direction, edge or choice: what the figures say of one parameter, if anything."""
    tried = [(trial["values"][name], trial["value"]) for trial in judged(results)]
    said = []
    if dimension["kind"] == "choice":
        said += _choice(results["metric"], name, dimension["values"], tried)
        numbers = sorted(dimension["values"]) if all(map(is_number, dimension["values"])) else []
        at_end = len(numbers) >= 3 and best["values"][name] in (numbers[0], numbers[-1])
    else:
        rho = rank_correlation(*zip(*tried))
        if len(tried) >= ENOUGH_FOR_DIRECTION and abs(rho) >= DIRECTION:
            said.append(f"{name}: {'higher' if rho > 0 else 'lower'} was better (rank correlation {rho:+.2f} over "
                        f"{len(tried)} trials).")
        few = [place_in_range(dimension, trial["values"][name]) for trial in judged(results, "complete")]
        few = few[:max(3, round(len(few) / 4))] if len(few) >= ENOUGH_FOR_DIRECTION else []
        if few and max(few) - min(few) <= HALF:
            numbers = [trial["values"][name] for trial in judged(results, "complete")[:len(few)]]
            said.append(f"{name}: the best {len(few)} have {spelled(min(numbers))} to {spelled(max(numbers))}.")
        place = place_in_range(dimension, best["values"][name])
        at_end = min(place, 1 - place) < 0.1
    if at_end:
        said.append(f"{name}: the best, {spelled(best['values'][name])}, is at the edge of what was tried: widen it "
                    "there.")
    return said


def _choice(metric: str, name: str, values: list[Any], tried: list[tuple[Any, float]]) -> list[str]:
    medians = sorted(((median(figures), len(figures), value) for value in values
                      if (figures := [figure for other, figure in tried if other == value])), key=lambda item: -item[0])
    if len(medians) < 2:
        return []
    (first, n, value), (second, m, other) = medians[:2]
    if min(n, m) < ENOUGH_OF_A_CHOICE or first - second <= NOISE:
        return []
    return [f"{name}: {spelled(value)} was better than {spelled(other)} (median {metric} {first:.3f} over {n} trials, "
            f"{second:.3f} over {m})."]


def _saved(results: dict[str, Any]) -> list[str]:
    """What the pruner saved, had the rest of each run been as fast as its beginning."""
    pruned = [trial for trial in judged(results, "pruned") if trial["evaluation"]["share"][-1] > 0]
    if not pruned:
        return []
    shares = [trial["evaluation"]["share"][-1] for trial in pruned]
    saved = sum(trial["minutes"] * (1 / share - 1) for trial, share in zip(pruned, shares))
    return [f"The pruner ended {len(pruned)} of them, after {100 * sum(shares) / len(shares):.0f} % of the budget on "
            f"average: about {saved:.0f} minutes of training saved."]


def _failures(trials: list[dict[str, Any]]) -> list[str]:
    """What went wrong, once for each reason."""
    reasons: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        if trial["state"] == "failed":
            reasons.setdefault(trial["reason"], []).append(trial)
    return [(f"Trial {failed[0]['number']} ({in_words(failed[0]['values'])})" if len(failed) == 1 else
             f"Trials {', '.join(str(trial['number']) for trial in failed)}") + f" failed: {reason}"
            for reason, failed in reasons.items()]


# -- the page ------------------------------------------------------------------------------------------------------


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
    lines = [f"# Sweep: {results['study']}", "",
             f"Data: {results['data']}, {results['split']} split. Sampler: {results['sampler']}, pruner: "
             f"{results['pruner']}, seed {results['seed']}, up to {results['jobs']} trial{'s'[:results['jobs'] > 1]} "
             f"at a time. For all trials: `{results['flags']}`", "",
             *(f"- {sentence}" for sentence in conclusions(results)), ""]
    if best is not None:
        lines += ["The best configuration:", "", "```", best["command"], "```", "",
                  f"The best of {len(results['trials'])} is partly luck, and what is best in short runs need not be so "
                  "in long ones. Before it is believed it should win again, with other seeds: a grid over `--space "
                  "\"seed=1,2,3\"` with these flags, and one with the default's.", ""]
    lines += [f"Sorted by {metric}, the best of a trial's evaluations; the other figures are of that evaluation.", ""]
    names = list(results["space"])
    head = ["trial", "AP", "AP50", "AP75", "steps", "minutes", *names, ""]
    lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *(
        _row(trial, metric, names) for trial in _sorted(results)))]
    lines += ["", "The space:", "", *(f"- {name}: {_range(dimension)}; default {spelled(results['defaults'][name])}"
                                      for name, dimension in results["space"].items())]
    for name, reading in CHARTS.items():
        lines += ["", f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", "", reading]
    lines += ["", "The rules of the conclusions:", "", *(f"- {rule}" for rule in RULES), ""]
    return "\n".join(lines)


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
    notes = [*(["default"] if trial["is_default"] else []), *([note.replace("|", "\\|")] if note else [])]
    return [str(trial["number"]), *figures, f"{trial['steps']:,}", f"{trial['minutes']:.1f}",
            *(spelled(trial["values"].get(name, "–")) for name in names), "; ".join(notes)]


def _range(dimension: dict[str, Any]) -> str:
    if dimension["kind"] == "choice":
        return ", ".join(map(spelled, dimension["values"]))
    step = f" in steps of {spelled(dimension['step'])}" if dimension["step"] is not None else ""
    return (f"{spelled(dimension['low'])} to {spelled(dimension['high'])}{step}"
            + (" (every factor of ten equally likely)" if dimension["kind"] == "log" else ""))
