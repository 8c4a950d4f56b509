"""findings: which conclusions follow from the figures of an analysis?

A rule looks at a few figures of an analysed run and gives a sentence, or none: where a figure is
missing or a difference small, there is nothing to say. The bounds stand below, so that a reader can
tell why a sentence is there. Nothing is measured here; a cost, from evaluation/error_analysis, is
what AP50 would gain if that kind of error alone were fixed. Advice names flags of the command
`train`, and follows from the kind of mistake, not from a trial: it is where to begin.

Each rule is tried on both sides of its bound in tests/analysis/test_findings.py.
Read: findings (one run) → the rules, in their order → compared (several)
"""

from __future__ import annotations

import math
from typing import Any, Optional

from scratch.analysis.names import literal
from scratch.analysis.run_summary import number
from scratch.analysis.sweep_report import NOISE
from scratch.printable import counted

LEAST_COST, LEAST_DIFFERENCE = 0.005, 0.05  # costs and differences of AP below these are not worth a sentence
LEAST_OBJECTS = 10  # of a class or a size: with fewer, AP is chance
LEAST_CONFUSED = (3, 0.05)  # cases, and share of the class's objects
LEAST_GAP = 0.1  # between score and share of right ones
LOOSE = 0.3  # AP50 − AP75
SPARE, MOST_QUERIES = 3, 300  # proposals for an object of the fullest image, and the most in all: as in scratch/recipe

KINDS = {  # what it is, and what to try
    "Cls": ("right boxes with the wrong class", ("a larger `--ce-loss-coef`", "a larger `--short-side`",
            "a look at the labels of the classes that are confused")),
    "Loc": ("right classes in boxes that fit poorly", ("larger `--bbox-loss-coef` and `--giou-loss-coef`",
            "`--fine-memory`", "a larger `--short-side`", "a longer run")),
    "Both": ("detections that are wrong in class and in box", ("a longer run", "more data: the detector sees that "
             "there is something, but not yet what or where")),
    "Dupe": ("second detections of objects that are found", ("a longer run", "more decoder layers (`--dec-layers`), in "
             "which the queries divide the objects among themselves")),
    "Bkg": ("detections where there is nothing", ("a look at the worst images for objects without an annotation",
            "more pictures", "`--mosaic 0.4`", "`--augment zoom`")),
    "Miss": ("objects without any detection", ("a larger `--short-side` if they are small", "a longer run",
             "more queries if images hold nearly as many objects")),
}


def findings(run: dict[str, Any]) -> list[str]:
    """Sentences about one run: how good it is, what costs most, class and size, confusions, scores, its course."""
    rules = (_headline, _costliest, _false_or_missed, _worst_class, _size, _loose, _confused, _queries, _scores, _curve,
             _warned)
    return [sentence for rule in rules if (sentence := rule(run))]


def _headline(run: dict[str, Any]) -> str:
    figures = run["figures"]
    if figures["AP"] is None:
        return (f"There is no object in the {run['images']:,} images of the {literal(run['split'])} split, so there "
                "is no AP.")
    return (f"AP {number(figures['AP'])}, AP50 {number(figures['AP50'])}, AP75 {number(figures['AP75'])} on the "
            f"{literal(run['split'])} split: {counted(run['images'], 'image')} with "
            f"{counted(run['objects'], 'object')} of {counted(len(run['checkpoint']['classes']), 'class', 'classes')}.")


def _costliest(run: dict[str, Any]) -> Optional[str]:
    cost = {kind: run["errors"]["cost"].get(kind) for kind in KINDS}
    if any(value is None for value in cost.values()):
        return None
    lost = 1 - run["errors"]["AP50"]
    costliest = max(cost, key=lambda kind: cost[kind])
    if cost[costliest] < LEAST_COST:
        return f"No kind of mistake costs {LEAST_COST} of AP50 or more: fixing one alone would gain next to nothing."
    second = max((kind for kind in cost if kind != costliest), key=lambda kind: cost[kind])
    what, advice = KINDS[costliest]
    also = f", then {second} ({KINDS[second][0]}) {cost[second]:.3f}" if cost[second] >= LEAST_COST else ""
    return (f"**What costs most: {costliest}**, {what}. Of the {lost:.3f} that AP50 lacks, fixing them alone gains "
            f"{cost[costliest]:.3f}{also}. To try: {'; '.join(_new(advice, run['checkpoint']['config']))}.")


def _new(advice: tuple[str, ...], config: dict[str, Any]) -> list[str]:
    """The advice that the run does not follow already."""
    has = {"`--fine-memory`": config["model"]["fine_memory"] or config["model"]["queries"] == "learned",
           "`--mosaic 0.4`": config["data"]["mosaic"] > 0, "`--augment zoom`": config["data"]["augment"] == "zoom"}
    return [text for text in advice if not has.get(text)]


def _false_or_missed(run: dict[str, Any]) -> Optional[str]:
    false, missed = (run["errors"]["cost"].get(kind) for kind in ("FP", "FN"))
    if false is None or missed is None or max(false, missed) < LEAST_COST or abs(false - missed) < LEAST_COST:
        return None
    if false > missed:
        return (f"False detections cost more than objects not found ({false:.3f} against {missed:.3f} of AP50): the "
                "objects are there among the answers, but not first.")
    return (f"Objects not found cost more than false detections ({missed:.3f} against {false:.3f} of AP50): for a part "
            "of the objects, no answer is right, at any score.")


def _worst_class(run: dict[str, Any]) -> Optional[str]:
    known = [c for c in run["classes"] if c["AP50"] is not None and c["objects"] >= LEAST_OBJECTS]
    if len(known) < 2:
        return None
    worst = min(known, key=lambda c: c["AP50"])
    mean = sum(c["AP50"] for c in known) / len(known)
    if mean - worst["AP50"] < LEAST_DIFFERENCE:
        return None
    cost = {kind: worst["cost"].get(kind, 0.0) for kind in KINDS}
    kind = max(cost, key=lambda name: cost[name])
    why = f"; most of it is {kind}, {KINDS[kind][0]} ({cost[kind]:.3f})" if cost[kind] >= LEAST_COST else ""
    return (f"**The worst class is {literal(worst['name'])}**: AP50 {worst['AP50']:.3f}, where the mean of the "
            f"classes with at least {LEAST_OBJECTS} objects is {mean:.3f}{why}.")


def _size(run: dict[str, Any]) -> Optional[str]:
    known = [size for size in run["sizes"] if size["AP"] is not None and size["objects"] >= LEAST_OBJECTS]
    if len(known) < 2:
        return None
    worst, best = (pick(known, key=lambda size: size["AP"]) for pick in (min, max))
    if best["AP"] - worst["AP"] < 2 * LEAST_DIFFERENCE:
        return None
    advice = ": a larger `--short-side` or `--fine-memory` shows them larger" if worst["name"] == "small" else ""
    return (f"The {worst['name']} objects are found worst (AP {worst['AP']:.3f} of {worst['objects']:,}), the "
            f"{best['name']} ones best (AP {best['AP']:.3f} of {best['objects']:,}){advice}.")


def _loose(run: dict[str, Any]) -> Optional[str]:
    at50, at75 = run["figures"]["AP50"], run["figures"]["AP75"]
    if at50 is None or at75 is None or at50 - at75 < LOOSE:
        return None
    return (f"Boxes are loose: AP falls from {at50:.3f} to {at75:.3f} when they must fit at an IoU of 0.75 instead of "
            "0.5.")


def _confused(run: dict[str, Any]) -> Optional[str]:
    names, matrix = run["confusion"]["names"], run["confusion"]["matrix"]
    classes = range(len(names) - 1)  # the last row and column are those of nothing
    pairs = [(matrix[i][j], i, j) for i in classes for j in classes if i != j]
    if not pairs:
        return None
    count, i, j = max(pairs, key=lambda pair: pair[0])
    objects = sum(matrix[i])
    if count < LEAST_CONFUSED[0] or count < LEAST_CONFUSED[1] * objects:
        return None
    return (f"The most frequent confusion: of {objects:,} objects of the class {literal(names[i])}, {count:,} were "
            f"taken for {literal(names[j])} (at scores of {run['threshold']['score']:.2f} and more).")


def _queries(run: dict[str, Any]) -> Optional[str]:
    config, most = run["checkpoint"]["config"], run["most_objects"]
    model, side, queries = config["model"], config["data"]["short_side"], config["model"]["num_queries"]
    proposed = model["queries"] == "proposal"
    cells = math.ceil(side / (16 if model["dilation"] else 32)) ** 2  # of the encoder, in a square
    bounded = proposed and config["data"]["square"]
    if bounded and most > cells:
        return (f"An image holds {most} objects, and the encoder has {cells} cells at {side} pixels, each of which can "
                "propose one: train with a larger `--short-side`.")
    if most > queries:
        return (f"An image holds {most} objects, and the detector has {queries} queries, each of which can find one: raise "
                "`--num-queries`.")
    wanted = min(MOST_QUERIES, 10 * math.ceil(SPARE * most / 10))
    wanted = min(wanted, cells) if bounded else wanted
    if proposed and wanted > queries:
        return (f"An image holds {most} objects, and {queries} queries are few for them, since several cells propose the "
                f"same object. `eval RUN --num-queries {wanted}` tells what more queries find with these weights.")
    return None


def _scores(run: dict[str, Any]) -> Optional[str]:
    shown = run["calibration"]["shown"]
    if run["figures"]["AP"] is None or shown["gap"] is None or abs(shown["gap"]) < LEAST_GAP:
        return None
    word = "surer than right" if shown["gap"] > 0 else "more right than sure"
    meant = shown["gap"] < 0 and run["checkpoint"]["config"]["loss"]["quality"] > 0
    why = ", as `--quality` wants it: a score says how well the box fits, too" if meant else ""
    return (f"Scores are no probabilities: the {shown['n']:,} detections that score "
            f"{run['threshold']['score']:.2f} or more are {word}, by {abs(shown['gap']):.2f} on average{why}.")


def _curve(run: dict[str, Any]) -> Optional[str]:
    log = run["log"]
    if not log or not log["last"] or None in (log["best"]["AP"], log["last"]["AP"]):
        return None
    best, last, earlier = log["best"], log["last"], log["earlier"]
    if earlier and earlier["AP"] is not None and last["AP"] - earlier["AP"] >= NOISE:
        return (f"AP was still rising, from {earlier['AP']:.3f} at step {earlier['step']:,} to {last['AP']:.3f} at "
                f"step {last['step']:,}: a longer run may gain more.")
    if best["AP"] - last["AP"] >= NOISE:
        return (f"After its best evaluation (AP {best['AP']:.3f} at step {best['step']:,}) the run fell to "
                f"{last['AP']:.3f}: it learns its training images by heart, or the rate is too high.")
    return None


def _warned(run: dict[str, Any]) -> Optional[str]:
    warned = (run["log"] or {}).get("warned")
    if not warned:
        return None
    said = [f"{literal(what)} ({f'{len(steps):,} times, first ' if len(steps) > 1 else ''}at step {steps[0]:,})"
            for what, steps in warned.items()]
    return f"**Warnings during the run**: {', '.join(said)}. `log.jsonl` says what each means and what to try."


def compared(runs: list[dict[str, Any]]) -> list[str]:
    """Sentences about several runs; none about who is best where they were not judged on the same images."""
    if len(runs) < 2:
        return []
    if len({(run["data"], run["split"], run["images"], run["objects"]) for run in runs}) > 1:
        return ["The runs were judged on different images, so that their figures are not to be compared."]
    known = sorted((run for run in runs if run["figures"]["AP"] is not None), key=lambda run: -run["figures"]["AP"])
    if len(known) < 2:
        return []
    first, second = known[:2]
    gain = first["figures"]["AP"] - second["figures"]["AP"]
    if gain < NOISE:
        return [f"{literal(first['name'])} and {literal(second['name'])} are as good as each other: their APs, "
                f"{first['figures']['AP']:.3f} and {second['figures']['AP']:.3f}, differ by no more than two seeds do."]
    kinds = {kind: second["errors"]["cost"].get(kind, 0.0) - first["errors"]["cost"].get(kind, 0.0) for kind in KINDS}
    kind = max(kinds, key=lambda name: kinds[name])
    if first["figures"]["AP50"] < second["figures"]["AP50"]:  # better boxes, then, and not fewer mistakes
        kinds[kind] = 0.0
    where = (f" It loses less to {kind}, {KINDS[kind][0]}: {first['errors']['cost'][kind]:.3f} instead of "
             f"{second['errors']['cost'][kind]:.3f} of AP50." if kinds[kind] >= LEAST_COST else "")
    return [f"**{literal(first['name'])} is the best**, with an AP of {first['figures']['AP']:.3f}; "
            f"{literal(second['name'])} follows with {second['figures']['AP']:.3f}.{where}"]
