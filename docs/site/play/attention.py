"""attention: measures where a trained detector looks, for the page to play with.

    python -m docs.site.play.attention --record hyper_parameter_tuning_charts/explained/shapes.npz
        writes attention.json as it is here, of the demo's detector; any records that `explain` wrote will do
    python -m docs.site.play.attention --run runs/tiny-shapes
        the same with three pictures, from any run, such as that of `make demo`

The three pictures are drawn by scratch/data/shapes from seeds of their own: no training set holds them. A map's byte is
a cell's share of the map's largest value (its peak), as in scratch/analysis/attention_page.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from PIL import Image

from commands.attention import explained
from docs.site.play.looking import FILE
from scratch.analysis.attention_record import Explanation, as_bytes
from scratch.data.batch import collate
from scratch.data.shapes import draw_scene
from scratch.data.transforms import Augmentation
from scratch.detector import load
from scratch.whole_file import write_text

SEEDS = (11, 12, 13)  # of the pictures
MOST_DETECTIONS, MOST_BYTES = 6, 300_000


def looked_at(run: Path, seeds: Sequence[int] = SEEDS) -> list[Explanation]:
    """What a trained run's detector looks at in a picture drawn from each seed."""
    detector, records = load(run), []
    for seed in seeds:
        image = Image.fromarray(draw_scene(np.random.default_rng((2026, seed)))[0])
        pixels, _, _ = Augmentation.for_evaluation(detector.config.data)(image, torch.zeros(0, 4), random.Random(0))
        about = {"name": f"picture {seed}", "picture": str(seed), "detector": detector.config.preset,
                 "threshold": detector.threshold, "encoder_heads": False}
        records.append(explained(detector.model, collate([(pixels, {})]), image, detector.classes.names, about, (),
                                 MOST_DETECTIONS))
    return records


def content(records: Sequence[Explanation]) -> dict[str, Any]:
    """The pictures, their detections, and the maps as bytes in base64.

    cross   of each detection, decoder layer and head, one map of h'·w' bytes: (D,L,N,h',w'), and its peaks (D,L,N)
    cells   what each of the S cells looks at in the last encoder layer, averaged over the heads: (S,h,w), peaks (S)
    """
    pictures = []
    for record in records:
        D = min(MOST_DETECTIONS, len(record.cross))
        codes, peaks = as_bytes(record.cross[:D].astype(np.float32))
        _, L, N, h, w = record.cross.shape
        found = [{"name": str(detection["labels"][0][0]), "score": round(float(detection["labels"][0][1]), 3),
                  "query": int(detection["query"]), "boxes": np.round(boxes, 4).tolist()}
                 for detection, boxes in zip(record.about["detections"][:D], record.boxes[:D].astype(float))]
        pictures.append({
            "name": str(record.about["name"]), "size": [int(side) for side in record.about["size"]],
            "jpeg": _text(_small(record)), "detections": found,
            "steps": [int(layer) for layer in record.about["layers"]],
            "layers": L, "heads": N, "grid": [h, w], "cross": _text(codes.tobytes()), "peaks": _short(peaks),
            "cell_grid": list(record.cells.shape[2:]), "cells": _text(record.cells[0].tobytes()),
            "cell_peaks": _short(record.peaks[0])})
    return {"detector": str(records[0].about["detector"]), "pictures": pictures}


def _small(record: Explanation) -> bytes:
    file = io.BytesIO()
    Image.fromarray(record.pixels(300)).save(file, "JPEG", quality=80)
    return file.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _short(numbers: np.ndarray) -> list[float]:
    return [float(f"{number:.3g}") for number in numbers.flatten()]


def main(arguments: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.site.play.attention", description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="a trained run's folder, such as runs/tiny-shapes after make demo")
    source.add_argument("--record", type=Path, nargs="+", help="records that `detr_scratch.py explain` wrote (.npz)")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write")
    chosen = parser.parse_args(arguments)
    records = looked_at(chosen.run) if chosen.run else [Explanation.load(path) for path in chosen.record]
    text = json.dumps(content(records), separators=(",", ":"))
    if len(text) > MOST_BYTES:
        raise ValueError(f"got {len(text):,} bytes, wanted {MOST_BYTES:,} at most: name fewer records")
    write_text(chosen.out, text + "\n")
    print(f"{chosen.out}: {len(text):,} bytes, {len(records)} pictures, "
          f"{sum(min(MOST_DETECTIONS, len(record.cross)) for record in records)} detections")


if __name__ == "__main__":
    main()
