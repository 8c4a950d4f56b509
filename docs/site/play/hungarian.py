"""hungarian: the Hungarian algorithm step by step, on a matrix that the reader edits."""

from __future__ import annotations

from typing import Any

from docs.site.play.widget import widget
from scratch.ops.hungarian import assign_by_potentials

# Rows 0 and 1 are the cat and the dog of the note; the third row has to move both.
EXAMPLE = ((1, 2, 8, 7), (3, 9, 9, 8), (2, 3, 9, 9))


def data() -> dict[str, Any]:
    """A matrix to begin with, and its assignment."""
    return {"example": {"cost": EXAMPLE, "columns": assign_by_potentials(EXAMPLE)}}


HUNGARIAN = widget(
    "hungarian", "The Hungarian algorithm, step by step", "ops/hungarian",
    "Which one-to-one assignment of rows to columns has the smallest sum of costs? The algorithm adds one row after "
    "the other. A new row looks for the column that is nearest for it. If another row has that column, the search "
    "goes on from that row: perhaps it can move cheaply. Such a chain is an augmenting path. Each row has a number u "
    "and each column a number v ≤ 0 (−v is like a price for the column: it rises when several rows want it).\n\n"
    "In DETR the rows are the true objects of an image, the columns are the object queries, and the costs are the "
    "matching costs.\n\n"
    "Try: step through the example. In which step does row 1 take the column of row 0? Then write your own numbers.",
    data)
