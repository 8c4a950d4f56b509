"""slot_chart: does a query prefer certain places and sizes in all images?

    boxes (I,Q,4) in I images    a panel for each of the Q queries, a point for each of its I boxes

    ┌──────┐┌──────┐   the point is the box's centre, its colour the box's kind
    │ ∴    ││      │       green  small: less than 3 % of the image, 96² of 640×480 pixels, where
    │  ∴.  ││ .:∵: │              COCO's large objects begin
    └──────┘└──────┘       red    larger, and wider than high          blue   larger, and higher
     query 1  query 2

Carion et al. 2020 (arXiv 2005.12872), section 4.3 and figure 7, show 20 of the 100 learnt queries
over COCO val: "each slot learns to specialize on certain areas and box sizes with several operating
modes". What they call small they do not say. All boxes are shown, also those that are no object.

An anchor begins at one place for all pictures, so it shows the same. A proposal does not: query k
is the cell with the k-th highest score of the image (scratch/model/anchors/proposals), and may be anywhere.
Proven in tests/analysis/test_slot_chart.py. Read: kinds → draw_slots
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scratch.analysis.error_charts import BLUE, GREEN, RED
from scratch.analysis.learning_curve import LONGEST
from scratch.analysis.names import short
from scratch.whole_file import write_text

SMALL = 96 ** 2 / (640 * 480)  # of an image's area
KINDS = (("larger, wider than high", RED), ("larger, higher than wide", BLUE),
         (f"less than {100 * SMALL:.0f} % of the image", GREEN))
_COLUMNS = 10


def kinds(boxes_cxcywh: np.ndarray) -> np.ndarray:
    """boxes (…,4) in shares of the image → (…), the place of each one's kind in `KINDS`; a square is no higher."""
    w, h = boxes_cxcywh[..., 2], boxes_cxcywh[..., 3]
    return np.where(w * h < SMALL, 2, np.where(h > w, 1, 0))


def slot_record(boxes_cxcywh: np.ndarray, about: dict[str, Any]) -> dict[str, Any]:
    """Plain values to keep: boxes (I,Q,4) in thousandths of the image, and `about` ("data", "detector", "queries")."""
    return {"about": about, "boxes_cxcywh": np.rint(1000 * boxes_cxcywh).astype(int).tolist()}


def write_slots(record: dict[str, Any], path: Path) -> None:
    """Write the file whole or not at all."""
    write_text(path, json.dumps(record, separators=(",", ":")) + "\n")


def draw_slots(record: dict[str, Any]) -> Figure:
    """A panel for each query, with its boxes' centres in all images."""
    boxes = np.array(record["boxes_cxcywh"]) / 1000                                 # (I,Q,4)
    images, queries, _ = boxes.shape
    columns = min(_COLUMNS, queries)
    rows = -(-queries // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(max(5.0, 1.15 * columns), 1.25 * rows + 0.95), squeeze=False)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.95 / height, wspace=0.08, hspace=0.18)
    for axes in panels.flat[queries:]:
        axes.set_visible(False)
    dot = min(3.0, max(0.8, 60 / images ** 0.5))  # points, so that few images can be seen and many do not cover it all
    for k, axes in enumerate(panels.flat[:queries]):
        of_query = boxes[:, k]                                                      # (I,4)
        kind = kinds(of_query)
        for place, (_, colour) in enumerate(KINDS):  # small ones last, on top
            x, y = of_query[kind == place, :2].T
            axes.plot(x, y, linestyle="none", marker="o", markersize=dot, markeredgewidth=0, color=colour, alpha=0.7)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axes.set_title(f"{k + 1}", fontsize=7, pad=2)
    about = record["about"]
    figure.text(0.01, 1 - 0.08 / height, "\n".join(_title(about, images, queries)), fontsize=9, va="top")
    handles = [Line2D([], [], linestyle="none", marker="o", markersize=5, color=colour, label=name)
               for name, colour in KINDS]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1 - 0.42 / height), ncols=3,
                  fontsize=8, frameon=False, handletextpad=0.1, columnspacing=1.2)
    return figure


def _title(about: dict[str, Any], images: int, queries: int) -> Sequence[str]:
    what = f"Centres of the boxes of {queries} queries in {images:,} images ({short(about['data'], LONGEST)})"
    note = {"proposal": "query k is the cell with the k-th highest score of each image, so it has no fixed place",
            "anchor": "each query begins at an anchor of its own", "learned": "each query is a learnt vector"}
    return what, note[about["queries"]]
