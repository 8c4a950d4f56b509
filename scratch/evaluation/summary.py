"""summary: the figures of an evaluation as a table for the terminal."""

from __future__ import annotations

from typing import Any, Iterable, Optional

from scratch.evaluation.coco_eval import DETECTIONS, METRICS
from scratch.printable import abridged, printable


def three_decimals(value: Optional[float]) -> str:
    """A figure to print: "–" where there was no object to find."""
    return "–" if value is None else f"{value:.3f}"


def format_summary(summary: dict[str, Any], most_classes: int = 20) -> str:
    """A summary as a small table: precision, recall, then the classes from the best AP to the worst."""
    def row(name: str, values: Iterable[Optional[float]]) -> str:
        return name + "".join(f"{three_decimals(value):>8}" for value in values)

    most, per_class_of = summary.get("max_dets", DETECTIONS), summary.get("per_class", {})  # an older one has neither
    measured = ((ap["AP"], _short(name), ap["AP50"]) for name, ap in per_class_of.items() if ap["AP"] is not None)
    per_class = sorted(measured, key=lambda entry: (-entry[0], entry[1]))
    width = max([6, *(len(name) for _, name, _ in per_class[:most_classes])])
    lines = [" " * width + "     all   IoU.5  IoU.75   small  medium   large",
             row(f"{'AP':{width}}", (summary.get(name) for name in METRICS[:6])),
             " " * width + f"   top 1  top 10{f'top {most}':>8}   small  medium   large",
             row(f"{'AR':{width}}", (summary.get(name) for name in METRICS[6:]))]
    if per_class:
        lines.append(f"{'class':{width}}      AP    AP50")
    lines += [row(f"{name:{width}}", (ap, ap50)) for ap, name, ap50 in per_class[:most_classes]]
    hidden, absent = len(per_class[most_classes:]), len(per_class_of) - len(per_class)
    if hidden:
        lines.append(f"… and {hidden} more classes, each with an AP of at most {per_class[most_classes][0]:.3f}")
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
