"""looking: what the trained demo detector looks at, layer by layer and head by head. attention.py measured it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.site.play.widget import widget

FILE = Path(__file__).with_name("attention.json")


def data() -> dict[str, Any]:
    """What attention.json holds; attention.content says what that is."""
    return json.loads(FILE.read_text(encoding="utf-8"))


ATTENTION = widget(
    "attention", "What the trained demo detector looks at", "model/transformer",
    "The decoder's cross-attention says from which cells of the image a query reads. Here are the maps of the demo "
    "detector (`make demo`), for each of its detections, decoder layers and heads, and the self-attention of its last "
    "encoder layer, from any cell.\n\n"
    "Try: compare the heads of one detection. One looks into the box, the others spread over the image or look beside "
    "it. Then choose *a cell (encoder)* and move over the edge of an object: from inside, the object gets about twice its share.", data)
