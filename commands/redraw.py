"""redraw: how is every chart of a folder drawn again, from its data alone?

    python -m commands.redraw [FOLDER]        (make charts; else hyper_parameter_tuning_charts)

    learning_curve.json ─▶ learning_curve.png, against minutes or steps as the data says
    layers*.json        ─▶ the set of `charts`, and its index.md
    sweep.json          ─▶ the four charts of `sweep`
    lr_range.json       ─▶ lr_range.png
    ablation.json       ─▶ ablation.png
    removal.json        ─▶ removal.png
    comparison.json     ─▶ comparison.png
    attention.json      ─▶ attention.png (data of benchmarks/attention.py)
    slots.json, *.npz   ─▶ what `explain` draws of a data set, and of a picture

Goes through FOLDER and all folders in it; a chart lies beside its data. Nothing is trained, and no
GPU is needed. Pictures of which the data is a detector (sheets of predictions) stay as they are.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from commands import explain
from scratch.analysis import (
    ablation_chart, attention_cost, comparison, learning_curve, lr_range, removal_chart, sweep_charts,
)
from scratch.analysis.layer_charts import draw_set
from scratch.analysis.layer_record import read_layers
from scratch.analysis.records import believed, read_record
from scratch.printable import printable
from scratch.program import ends_in_a_line

_OF_THAT_NAME = "the command that makes such a chart"
CHARTS = Path("hyper_parameter_tuning_charts")


def draw_one(data: Path, draw: Callable[[Any, Path], None]) -> list[Path]:
    """The one chart of a data file has its name."""
    content = read_record(data, _OF_THAT_NAME, (dict, list))
    with believed(data, _OF_THAT_NAME):
        draw(content, data.with_suffix(".png"))
    return [data.with_suffix(".png")]


def draw_sweep(data: Path) -> list[Path]:
    content = read_record(data, "detr_scratch.py sweep")
    with believed(data, "detr_scratch.py sweep"):
        return sweep_charts.draw(content, data.parent)


def draw_layers(data: Path) -> list[Path]:
    return draw_set(read_layers(data.parent), data.parent)


# A pattern of file names → what draws the charts of such a file, and returns them.
KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "learning_curve.json": partial(draw_one, draw=learning_curve.draw), "layers*.json": draw_layers,
    "sweep.json": draw_sweep, "lr_range.json": partial(draw_one, draw=lr_range.draw),
    "ablation.json": partial(draw_one, draw=ablation_chart.draw),
    "removal.json": partial(draw_one, draw=removal_chart.draw),
    "comparison.json": partial(draw_one, draw=comparison.draw),
    "attention.json": partial(draw_one, draw=attention_cost.draw), "slots.json": explain.draw, "*.npz": explain.draw,
}


def redraw(folder: Path) -> list[Path]:
    """Draw every chart in `folder` and below, and print its file; returns them.

    Raises FileNotFoundError if there is none, and at the end ValueError for the data that is damaged.
    """
    drawn: list[Path] = []
    damaged: list[str] = []
    for data in sorted(folder.rglob("*.*")):
        for pattern, draw in KINDS.items():
            if data.match(pattern) and not data.name.startswith("."):  # what a killed writer left
                try:
                    for chart in draw(data):
                        print(printable(chart), flush=True)
                        drawn.append(chart)
                except ValueError as error:
                    damaged.append(str(error))
    if damaged:
        raise ValueError("\n".join(damaged))
    if not drawn:
        raise FileNotFoundError(f"there is no data of a chart in {folder}: wanted a folder with {', '.join(KINDS)}")
    return drawn


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=CHARTS, help="holds the data, in folders of any depth")
    with ends_in_a_line():
        redraw(parser.parse_args(argv).folder)


if __name__ == "__main__":
    main()
