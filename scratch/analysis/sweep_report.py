"""sweep_report: what may be concluded from the trials of a sweep, and by which rule?

    sweep.json ─▶ conclusions ─▶ sweep.md (sweep_page.py)

Every conclusion is a rule (RULES) applied to figures, and states no more than one run of each trial
supports. The rules stand at the end of the page, so that a reader can check each conclusion. If the
space is the seed alone, all trials are one setting: then there is no best, but mean, minimum and
maximum. Read: RULES → conclusions
"""

from __future__ import annotations

import math
from statistics import mean, median
from typing import Any, Optional, Sequence

import numpy as np

from scratch.printable import counted

# Of AP, from one seed to another: the median difference of two runs in hyper_parameter_tuning_charts/ablation_shapes/
# ablation.md, of the variants with an AP above 0.1 (as near to 0 there is nothing to differ). Half differ by more.
NOISE = 0.02
ENOUGH = 10  # complete trials, before it is said what matters
ENOUGH_FOR_DIRECTION, ENOUGH_OF_A_CHOICE = 8, 3
DIRECTION = 0.5  # of Spearman's ρ
HALF = 0.5  # of a range, on its own scale

RULES = (
    f"better: by more than {NOISE}. In the median, the AP of two runs that differ in the seed alone is so far apart "
    "(hyper_parameter_tuning_charts/ablation_shapes/ablation.md): half of such pairs differ by more. So a lead is a "
    "hint, and other seeds have to confirm it.",
    "no setting is better than another: only of two complete trials or more, where none was ended early or diverged.",
    f"higher or lower was better: Spearman's rank correlation between a number and what it led to is {DIRECTION} or "
    f"more, or −{DIRECTION} or less, over {ENOUGH_FOR_DIRECTION} trials or more.",
    f"the best have A to B: the best quarter (three trials at least, of {ENOUGH_FOR_DIRECTION} complete ones or more) "
    "lies within half of the range.",
    "at the edge: the best trial lies in the outer tenth of a range, or at an end of a list of three numbers or more. "
    "To widen it there is no advice where a trial beyond the best one failed.",
    f"one choice better than another: its median is, and both had {ENOUGH_OF_A_CHOICE} trials or more.",
    f"what decided most: Optuna's PED-ANOVA, over {ENOUGH} complete trials or more.",
    "A trial that was ended early counts with the best that it had. One that diverged (something was not finite) "
    "counts as 0 for a direction or a choice; one that failed otherwise does not count.",
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


def diverged(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials that ended because something was not finite."""
    return [trial for trial in results["trials"] if trial["state"] == "failed" and "not finite" in trial["reason"]]


def is_of_seeds(results: dict[str, Any]) -> bool:
    """All trials are one setting, with other seeds."""
    return list(results["space"]) == ["seed"]


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
    said = [f"{counted(len(trials), 'trial')} in {counted(round(results['minutes']), 'minute')}: " + ", ".join(
        f"{count} {words.get(state, state)}" for state, count in counts.items() if count) + "."]
    if best is None:
        return [*said, "None is complete, so there is nothing to conclude.", *_failures(trials)]
    if is_of_seeds(results):
        return [*said, _over_seeds(results), *_failures(trials)]
    metric, complete, lost = results["metric"], judged(results, "complete"), diverged(results)
    said.append(f"Best: trial {best['number']} with {metric} {best['value']:.3f} ({in_words(best['values'])}).")
    if len(judged(results)) + len(lost) == 1:
        return [*said, "There is no other to compare it with.", *_failures(trials)]
    if len(complete) > 1 and not counts["pruned"] and not lost and best["value"] - complete[-1]["value"] <= NOISE:
        return [*said, f"All complete trials are within {NOISE} of it, which may be chance: in runs like these no "
                       "setting is better than another.", *_failures(trials)]
    said += [*_against_default(results, best), *_equals(results, best)]
    for name, dimension in results["space"].items():
        said += _of_parameter(results, name, dimension, best) if name != "seed" else []
    if results["importance"]:
        shares = sorted(results["importance"].items(), key=lambda item: -item[1])
        said.append("What decided most whether a trial was among the best: "
                    + ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in shares[:3]) + ".")
    elif counts["complete"] < ENOUGH:
        said.append(f"What matters most is not said: that takes {ENOUGH} complete trials, and there are "
                    f"{counts['complete']}.")
    return [*said, *_saved(results), *_failures(trials)]


def _over_seeds(results: dict[str, Any]) -> str:
    values = [trial["value"] for trial in judged(results, "complete")]
    of_all = f" of {len(results['trials'])}" if len(values) < len(results["trials"]) else ""
    return (f"{results['metric']} over {len(values)}{of_all} seeds: mean {mean(values):.3f} "
            f"({min(values):.3f} to {max(values):.3f}).")


def _against_default(results: dict[str, Any], best: dict[str, Any]) -> list[str]:
    default = next((trial for trial in results["trials"] if trial["is_default"]), None)
    if default is None:
        return ["No trial had the default's values, so what the search gained is not known."]
    if default is best:
        return ["These are the default's values: nothing better was found."]
    name = f"the default (trial {default['number']})"
    if default["state"] != "complete":
        return [f"{name.capitalize()} was not trained to its end ({default['reason'] or default['state']}), so what "
                "the search gained is not known."]
    gained = best["value"] - default["value"]
    return [f"That is {gained:.3f} above {name}, which has {default['value']:.3f}: "
            f"{'more than' if gained > NOISE else 'within'} the {NOISE} by which two seeds differ in the median."]


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
    lost = [(trial["values"][name], 0.0) for trial in diverged(results)]
    value, said, slope, end = best["values"][name], [], 0, 0  # 1: upwards, −1: downwards, 0: neither
    if dimension["kind"] == "choice":
        said += _choice(results["metric"], name, dimension["values"], tried + lost)
        numbers = sorted(dimension["values"]) if all(map(is_number, dimension["values"])) else []
        if len(numbers) >= 3 and value in (numbers[0], numbers[-1]):
            end = 1 if value == numbers[-1] else -1
    else:
        rho = rank_correlation(*zip(*tried, *lost))
        if len(tried) + len(lost) >= ENOUGH_FOR_DIRECTION and abs(rho) >= DIRECTION:
            slope = 1 if rho > 0 else -1
            among = f", {len(lost)} of which diverged" if lost else ""
            said.append(f"{name}: {'higher' if rho > 0 else 'lower'} was better (rank correlation {rho:+.2f} over "
                        f"{len(tried) + len(lost)} trials{among}).")
        few = [place_in_range(dimension, trial["values"][name]) for trial in judged(results, "complete")]
        few = few[:max(3, round(len(few) / 4))] if len(few) >= ENOUGH_FOR_DIRECTION else []
        if few and max(few) - min(few) <= HALF:
            numbers = [trial["values"][name] for trial in judged(results, "complete")[:len(few)]]
            said.append(f"{name}: the best {len(few)} have {spelled(min(numbers))} to {spelled(max(numbers))}.")
        place = place_in_range(dimension, value)
        end = 1 if place > 0.9 else -1 if place < 0.1 else 0
    for way in sorted({slope, end} - {0}):
        failed = [trial for trial in results["trials"] if trial["state"] == "failed" and name in trial["values"]
                  and way * (trial["values"][name] - value) > 0]
        if failed:
            said.append(_failed_beyond(name, value, way, failed))
        elif way == end:
            said.append(f"{name}: the best, {spelled(value)}, is at the edge of what was tried: widen it there.")
    return said


def _failed_beyond(name: str, value: float, way: int, failed: list[dict[str, Any]]) -> str:
    numbers = [trial["values"][name] for trial in failed]
    ends = [spelled(pick(numbers)) for pick in (min, max)]
    ended = "diverged" if all("not finite" in trial["reason"] for trial in failed) else "failed"
    return (f"{name}: {'above' if way > 0 else 'below'} the best, {spelled(value)}, trial{'s'[:len(failed) > 1]} "
            f"{', '.join(str(trial['number']) for trial in failed)} {ended} (at {' to '.join(dict.fromkeys(ends))}).")


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
            f"average: about {counted(round(saved), 'minute')} of training saved."]


def _failures(trials: list[dict[str, Any]]) -> list[str]:
    """What went wrong, once for each reason."""
    reasons: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        if trial["state"] == "failed":
            reasons.setdefault(trial["reason"], []).append(trial)
    return [(f"Trial {failed[0]['number']} ({in_words(failed[0]['values'])})" if len(failed) == 1 else
             f"Trials {', '.join(str(trial['number']) for trial in failed)}") + f" failed: {reason}"
            for reason, failed in reasons.items()]
