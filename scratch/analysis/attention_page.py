"""attention_page: how can attention be explored in a browser, without Python, a server or a network?

    record ─┬▶ maps as bytes ─▶ an atlas: one greyscale PNG of them all ─┬▶ one HTML file, by the
            └▶ picture (JPEG), boxes, names ─▶ JSON ─────────────────────┘  script and the style of
                                                                            attention_page.html
    atlas of n maps (h,w)   0 1 2 3     map k is in row ⌊k/columns⌋, column k mod columns; there are
                            4 5 6 7     as many columns as make the atlas about square: browsers
                            8 9         refuse pictures that are longer than some 16,000 pixels

A byte says a cell's share of its map's largest value (its peak), which is beside it as a number.
Attention is next to nothing in most cells, so a PNG of it is small.
Proven, in a browser without a window, in tests/analysis/test_attention_page.py.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from PIL import Image

from scratch.analysis.attention_maps import EVEN, heat_colours, step_colours, step_names
from scratch.analysis.attention_record import Explanation, as_bytes
from scratch.analysis.names import shown
from scratch.whole_file import write_text

_TEMPLATE = Path(__file__).with_name("attention_page.html")


def write_page(record: Explanation, path: Path) -> None:
    """Write the page that shows `record`; it needs no other file."""
    # Names of classes and files come from people: as \u003c no "<" of theirs can end the script element.
    parts = {"TITLE": html.escape(shown(record.about["name"])),
             "RECORD": json.dumps(page_content(record), separators=(",", ":")).replace("<", "\\u003c")}
    template = _TEMPLATE.read_text(encoding="utf-8")
    write_text(path, re.sub("@(TITLE|RECORD)@", lambda found: parts[found[1]], template))


def page_content(record: Explanation) -> dict[str, Any]:
    """What the page's script reads, as plain values.

    cross   atlas of D·L·(N+1) maps: of detection d, layer l, and averaged over heads (n = 0) or head n, the map
            (d·L + l)·(N+1) + n
    cells   atlas of E·S maps: of the average (e = 0) or head e, and cell s, the map e·S + s; None without an encoder
    """
    about = record.about
    D, L, N, h, w = record.cross.shape
    by_head = record.cross.astype(np.float32)
    maps = np.concatenate((by_head.mean(axis=2, keepdims=True), by_head), axis=2)   # (D,L,N+1,h,w)
    detections = [{**detection, "labels": [(shown(name), score) for name, score in detection["labels"]],
                   "boxes": np.round(boxes, 4).tolist(), "iou": np.round(iou, 3).tolist()}
                  for detection, boxes, iou in zip(about["detections"],
                                                   record.boxes.astype(float), record.iou.astype(float))]
    return {**about, "name": shown(about["name"]), "detector": shown(about["detector"]), "detections": detections,
            "decoder_layers": L, "heads": N, "picture": _data_url("jpeg", record.picture.tobytes()),
            "even": EVEN, "heat": base64.b64encode(heat_colours().tobytes()).decode(),
            "steps": step_names(about), "step_colours": step_colours(len(about["layers"])),
            "cross": atlas(*as_bytes(maps.reshape(-1, h, w))),
            "cells": atlas(record.cells.reshape(-1, *record.cells.shape[2:]), record.peaks.flatten())
            if record.cells.size else None, "cell_heads": len(record.cells)}


def atlas(codes: np.ndarray, peaks: np.ndarray) -> dict[str, Any]:
    """codes uint8 (n,h,w), peaks (n) → one PNG of all maps, and what it takes to find each in it."""
    n, h, w = codes.shape
    columns = min(n, max(1, round((n * h / w) ** 0.5)))
    rows = -(-n // columns)
    padded = np.zeros((rows * columns, h, w), dtype=np.uint8)
    padded[:n] = codes
    sheet = padded.reshape(rows, columns, h, w).swapaxes(1, 2).reshape(rows * h, columns * w)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG", optimize=True)
    return {"png": _data_url("png", file.getvalue()), "columns": columns, "grid": [h, w], "peaks": _short(peaks)}


def _short(numbers: Sequence[float]) -> list[float]:
    return [float(f"{number:.3g}") for number in numbers]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
