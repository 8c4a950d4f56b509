"""summary: the figures of an evaluation as a table for the terminal."""

from __future__ import annotations

from typing import Any, Iterable, Optional

from scratch.evaluation.coco_eval import DETECTIONS, METRICS
from scratch.printable import abridged, printable


def three_decimals(value: Optional[float]) -> str:
    """A figure to print: "–" where there was no object to find."""
    return "–" if value is None else f"{value:.3f}"


def format_summary(summary: dict[str, Any], most_classes: int = 20) -> str:
    """A summary as a small table: precision, recall, then the classes from the best AP to the worst.

    Of more than `most_classes` classes the best ones are shown and, which say what to work on, as many of the worst.
    """
    def row(name: str, values: Iterable[Optional[float]]) -> str:
        return name + "".join(f"{three_decimals(value):>8}" for value in values)

    most, per_class_of = summary.get("max_dets", DETECTIONS), summary.get("per_class", {})  # an older one has neither
    measured = ((ap["AP"], _short(name), ap["AP50"], ap.get("objects")) for name, ap in per_class_of.items()
                if ap["AP"] is not None)
    per_class = sorted(measured, key=lambda entry: (-entry[0], entry[1]))
    worst = most_classes // 2 if len(per_class) > most_classes else 0
    shown = [per_class[:most_classes - worst], per_class[len(per_class) - worst:]]
    width = max([6, *(len(name) for part in shown for _, name, *_ in part)])
    lines = [" " * width + "     all   IoU.5  IoU.75   small  medium   large",
             row(f"{'AP':{width}}", (summary.get(name) for name in METRICS[:6])),
             " " * width + f"   top 1  top 10{f'top {most}':>8}   small  medium   large",
             row(f"{'AR':{width}}", (summary.get(name) for name in METRICS[6:]))]
    if per_class:
        lines.append(f"{'class':{width}}      AP    AP50 objects")
    for part, classes in enumerate(shown):
        if part and worst:
            lines.append(f"… {len(per_class) - most_classes:,} classes between, then the worst {worst}")
        lines += [row(f"{name:{width}}", (ap, ap50)) + f"{'–' if objects is None else format(objects, ','):>8}"
                  for ap, name, ap50, objects in classes]
    absent = len(per_class_of) - len(per_class)
    if most != DETECTIONS:
        lines.append(f"the best {most:,} detections of a class in an image count; COCO's figures are of {DETECTIONS}")
    if absent:
        lines.append(f"{absent} of {len(per_class_of)} classes have no box to find here")
    return "\n".join(lines)


def _short(name: str) -> str:
    """The name of a class on one line of a table, without control characters."""
    if not name.strip():
        return f'"{printable(name)}"'
    return abridged(name, 40)
