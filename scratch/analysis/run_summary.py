"""run_summary: which result did a run have, in a few figures, and how do two runs differ?

Reads what a run wrote (log.jsonl) and what its checkpoint says. A figure that was not recorded is
None, and shown as "–". Proven in tests/analysis/test_run_summary.py.
Read: summarise_log → changed_fields → comparison
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, Optional, Sequence

from scratch.analysis.names import code, literal
from scratch.analysis.run_log import number_or_none, read_log, texts

REACHED = 0.5  # the AP50 whose first evaluation is looked for
FIGURES = ("AP", "AP50", "AP75")


def summarise_log(run_dir: Path) -> Optional[dict[str, Any]]:
    """The figures of a run's log.jsonl; None if there is no log, or no whole line in it.

    best, last   step, epoch, minutes and FIGURES of the evaluation with the highest AP, and of the last one
    earlier      the same of the last evaluation in the first three quarters of the steps; None if there was none
    reached      step and minutes of the first evaluation with an AP50 of REACHED; None if there was none
    warned       the steps of its warnings, by what was wrong: a guard's name, or how an evaluation's warning begins
    left_out     what of the log could not be read, in words; "": nothing
    images_per_second, memory_gib   the median of the steps, and the most
    """
    try:
        records, left_out = read_log(run_dir)
    except FileNotFoundError:
        return None
    steps = [r for r in records if r["kind"] == "step"]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    if not records:
        return None
    kept = [{name: number_or_none(r.get(name)) for name in ("step", "epoch", "minutes", *FIGURES)} for r in evaluations]
    warned: dict[str, list[int]] = {}
    for record in records:
        guards = [str(record.get("guard"))] if record["kind"] == "warning" else []
        for what in (*guards, *(text.partition(":")[0] for text in texts(record, "warnings"))):
            warned.setdefault(what, []).append(record["step"])
    reached = next((r for r in kept if r["AP50"] is not None and r["AP50"] >= REACHED), None)
    return {
        "steps": steps[-1]["step"] if steps else 0, "minutes": number_or_none(records[-1].get("minutes")),
        "last": kept[-1] if kept else None,
        "earlier": next((r for r in reversed(kept) if 4 * r["step"] <= 3 * records[-1]["step"]), None),
        "best": max(kept, key=lambda r: r["AP"] or 0.0) if kept else None,  # of equals the first, as best.pt
        "reached": reached and {name: reached[name] for name in ("step", "minutes")},
        "images_per_second": _over(median, steps, "images_per_second"),
        "memory_gib": _over(max, steps, "memory_gib"),
        "warned": warned, "left_out": left_out}


def _over(figure: Any, records: Sequence[dict[str, Any]], name: str) -> Optional[float]:
    values = [r[name] for r in records if number_or_none(r.get(name)) is not None]
    return figure(values) if values else None


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration as one dict, {"lr": …, "queries": …}: no two of its parts share a field's name."""
    return {name: value for part in config.values() if isinstance(part, dict) for name, value in part.items()}


def changed_fields(config: dict[str, Any], preset: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, the preset's value, this one's) of every field that differs; the number of classes is the data's."""
    ours, theirs = flat(config), flat(preset)
    return [(name, theirs.get(name), value) for name, value in ours.items()
            if name != "num_classes" and theirs.get(name) != value]


def comparison(runs: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table with a column for each analysed run: what differs, then what came of it."""
    rows = [["preset", *(literal(run["checkpoint"]["preset"]) for run in runs)],
            ["data, split", *(literal(f"{run['data']}, {run['split']}") for run in runs)]]
    configs = [flat(run["checkpoint"]["config"]) for run in runs]
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [config.get(name) for config in configs]
        if name != "data" and any(value != values[0] for value in values):
            rows.append([code(name), *map(literal, values)])
    checkpoints, logs = [run["checkpoint"] for run in runs], [run["log"] or {} for run in runs]
    rows += [[name, *(number(run["figures"][name]) for run in runs)] for name in (*FIGURES, "AP_small", "AP_medium",
                                                                               "AP_large")]
    rows += [[f"AP50 lost to {kind}", *(number(run["errors"]["cost"].get(kind)) for run in runs)]
             for kind in runs[0]["errors"]["count"]]
    rows += [
        ["at step", *(number(c["step"], ",.0f") for c in checkpoints)],
        ["at minute", *(number(c["minutes"], ".1f") for c in checkpoints)],
        [f"AP50 {REACHED} at step", *(number((log.get("reached") or {}).get("step"), ",.0f") for log in logs)],
        [f"AP50 {REACHED} at minute", *(number((log.get("reached") or {}).get("minutes"), ".1f") for log in logs)],
        ["training, images a second", *(number(log.get("images_per_second"), ".1f") for log in logs)],
        ["memory, GiB", *(number(log.get("memory_gib"), ".2f") for log in logs)],
        ["parameters", *(number(sum(p["parameters"] for p in run["parts"]), ",.0f") for run in runs)],
        ["GFLOPs of an image", *(number(sum(p["flops"] for p in run["parts"]) / 1e9, ".2f") for run in runs)],
        ["… of height × width", *("×".join(map(str, run["image_size"])) for run in runs)]]
    return ["", *(literal(run["name"]) for run in runs)], rows


def number(value: Optional[float], form: str = ".3f") -> str:
    """A figure as a person reads it; "–" for one that there is not."""
    return "–" if value is None else format(value, form)
