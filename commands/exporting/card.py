"""card: what must someone know who gets the file of a detector without this project?

    card          a page in Markdown: what goes in and comes out, AP before and after, how it was checked
    labels_file   the classes as JSON: label, category_id, name
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from commands.exporting.measured import Figures
from commands.exporting.whole import MOST_PIXELS, MOST_SCORE, Apart
from scratch.detector import Detector
from scratch.evaluation.summary import three_decimals
from scratch.printable import abridged, counted, printable

MOST_NAMES = 100  # on the page; all of them are in the file of labels


@dataclass(frozen=True)
class Row:
    """One form of the detector: its name, its bytes, and its figures, None where they were not measured."""

    name: str
    size: int
    figures: Optional[Figures]


@dataclass(frozen=True)
class Facts:
    """What a card tells beside the detector's own settings."""

    checkpoint: str
    measured_on: str
    """which pictures, in words; or why nothing was measured"""
    machine: str
    rows: list[Row]
    checked: Mapping[tuple[int, int, int], Apart]
    calibrated_on: str


def labels(detector: Detector) -> list[dict[str, Any]]:
    classes = detector.classes
    return [{"label": k, "category_id": id, "name": name} for k, (id, name) in enumerate(zip(classes.ids,
                                                                                           classes.names))]


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown; AP lost is that of the first row less that of the row."""
    lines = ["| form | MiB | AP | AP50 | AP75 | AP lost | ms a picture |", "|---|---|---|---|---|---|---|"]
    first = rows[0].figures
    for row in rows:
        of_row, lost = row.figures, "–"
        if first and of_row and first.AP is not None and of_row.AP is not None:
            lost = f"{round(first.AP - of_row.AP, 4) + 0.0:.4f}"  # + 0.0: no "-0.0000"
        values = [three_decimals(of_row.AP), three_decimals(of_row.AP50), three_decimals(of_row.AP75), lost,
                  f"{of_row.milliseconds:.1f}"] if of_row else ["–"] * 5
        lines.append(f"| {cell(row.name)} | {row.size / 2**20:.1f} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def card(detector: Detector, facts: Facts, model: Path) -> str:
    """The page, in Markdown."""
    data, classes = detector.config.data, detector.classes
    shown = (f"stretched to {data.short_side}×{data.short_side} pixels" if data.square else
             f"resized so that the shorter side has {data.short_side} pixels and the longer one at most "
             f"{data.max_size}")
    names = ", ".join(cell(name) for name in classes.names[:MOST_NAMES])
    more = f" … and {len(classes) - MOST_NAMES} more" if len(classes) > MOST_NAMES else ""
    checks = "\n".join(f"| {B} | {W}×{H} | {apart.pixels:.1e} | {apart.score:.1e} |"
                       for (B, H, W), apart in facts.checked.items())
    int8 = f"\nint8 was calibrated on {facts.calibrated_on}.\n" if facts.calibrated_on else ""
    return f"""# {cell(model.stem)}

A detector of {counted(len(classes), 'class', 'classes')}: {names}{more}. Preset `{cell(detector.config.preset)}`, exported from
`{cell(facts.checkpoint)}`.

## Use

    python predict_onnx.py {cell(model.name)} IMAGE_OR_FOLDER --out predictions.json --draw drawn

It needs `numpy`, `pillow` and `onnxruntime`. In a program of your own:

| tensor | type | what |
|---|---|---|
| `pictures` (in) | uint8 (B,H,W,3) | B upright pictures of one size, any size; red, green, blue |
| `boxes` | float32 (B,N,4) | left, top, right, bottom in pixels of the pictures; not cut at their borders |
| `scores` | float32 (B,N) | 0 to 1, the highest first |
| `labels` | int64 (B,N) | places in `{cell(model.stem)}.labels.json` |

Detections are shown from a score of {detector.threshold:g} on: with this threshold the detector did best on the split
that it was evaluated on. The picture is {shown}
inside the graph, to the last bit as Pillow's bilinear filter does it, rows first. The file's metadata holds the
classes, the category ids and the threshold.

## What was measured

{table(facts.rows)}

{facts.measured_on}
{int8}
The first row is the checkpoint in PyTorch. `half` holds the weights of convolutions and linear layers in float16, and
computes them so where the hardware can; a CPU converts them back, so that only the file is smaller. Time is the median
of single pictures, from decoded pixels to boxes: {facts.machine}.

## How it was checked

`{cell(model.name)}` beside PyTorch, on pictures drawn at random: the largest difference of a box's side in pixels and
of a score. More than {MOST_PIXELS:g} pixels or {MOST_SCORE:g} of a score, and the file would not have been kept.

| pictures at a time | size | pixels | score |
|---|---|---|---|
{checks}
"""


def cell(text: object) -> str:
    """A text from elsewhere, as it may stand in a line or a table of Markdown."""
    return "".join(f"\\{letter}" if letter in r"\|`*_<>[]" else letter for letter in abridged(printable(text), 60))


def labels_file(detector: Detector) -> str:
    """The content of the file of labels."""
    return json.dumps(labels(detector), ensure_ascii=True, indent=1) + "\n"
