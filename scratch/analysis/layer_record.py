"""layer_record: what is kept of watched batches, so that charts can be drawn without the model?

    watch.figures() of each batch ─┐
    watch.histograms(), first, last ├─► one dict of plain values ─► layers_v1.json
    the losses of train_step ──────┘

    about         what was trained, how, and what the watching cost
    units         [{group, label, kind, parameters}]; below, "units" are in this order
    batches       [1, 2 …], those in which the optimizer took a step (fp16's scaler skips some)
    figures       each of FIGURES: units, batches; None where there is nothing to measure
    attention     each of ATTENTIONS: each of LOOKS: batches, layers, heads
    losses        each loss of train_step: batches
    loss_weights  how much each kind of loss counts in the total
    grad_norm     batches, before clipping; clip_max_norm is what it is cut to, 0: not at all
    learning_rates  of each group of the optimizer: batches
    histograms    {"first", "last"}: group → kind of numbers → layer_samples.histograms

Numbers have four digits: 30 batches of detr_141m stay under a megabyte.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from scratch.analysis.layer_groups import Unit
from scratch.analysis.layer_watch import FIGURES
from scratch.analysis.records import read_record
from scratch.whole_file import write_text

MADE_BY = "detr_scratch.py charts"


class LayerRecord:
    """Gathers the figures of batch after batch."""

    def __init__(self, units: list[Unit], clip_max_norm: float, loss_weights: dict[str, float]) -> None:
        self.clip_max_norm, self._count = clip_max_norm, len(units)
        self.content: dict[str, Any] = {
            "about": {},
            "units": [{"group": unit.group, "label": unit.label, "kind": unit.kind,
                       "parameters": sum(piece.size for piece in (*unit.measured, *unit.beside))} for unit in units],
            "batches": [], "figures": {name: [[] for _ in units] for name in FIGURES}, "attention": {},
            "losses": {}, "loss_weights": loss_weights, "grad_norm": [], "clip_max_norm": clip_max_norm,
            "learning_rates": {}, "histograms": {}}

    def kept(self, grad_norm: float) -> float:
        """The share of the gradient that clipping leaves: clip_max_norm / (norm + 1e-6), and 1 at most.

        As in `clip_grad_norm_` of scratch/training/optimizer; 1 as well where the norm is not finite, and nothing is
        clipped.
        """
        if not self.clip_max_norm or not math.isfinite(grad_norm):
            return 1.0
        return min(1.0, self.clip_max_norm / (grad_norm + 1e-6))

    def add(self, batch: int, record: dict[str, float], figures: dict[str, Any],
            learning_rates: dict[str, float]) -> None:
        """Note a batch: its number from 1, what train_step returned, and what the watch saw."""
        content = self.content
        content["batches"].append(batch)
        for name in FIGURES:
            for column, value in zip(content["figures"][name], figures[name]):
                column.append(value)
        for name, looks in figures["attention"].items():
            of_name = content["attention"].setdefault(name, {part: [] for part in looks})
            for part, values in looks.items():
                of_name[part].append(values)
        for name, value in record.items():
            if "loss" in name:
                content["losses"].setdefault(name, []).append(value)
        content["grad_norm"].append(record["grad_norm"])
        for name, value in learning_rates.items():
            content["learning_rates"].setdefault(name, []).append(value)

    def save(self, folder: Path) -> Path:
        """Write the content, whole or not at all, into the folder, which is made if need be; returns the file."""
        path = data_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(_short(self.content), allow_nan=False, separators=(",", ":")) + "\n")
        return path


def version_of(folder: Path) -> str:
    """What the files of a folder end with: "_v1" in a folder v1, else nothing."""
    name = Path(folder).resolve().name
    return f"_{name}" if re.fullmatch(r"v\d+", name) else ""


def data_file(folder: Path) -> Path:
    return Path(folder) / f"layers{version_of(folder)}.json"


def read_layers(folder: Path) -> dict[str, Any]:
    """The content that `LayerRecord.save` wrote. Raises FileNotFoundError, or ValueError for a file of another kind."""
    path = data_file(folder)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: name the folder of a set of layer charts with --out, or leave "
                                "--redraw out to make one")
    content = read_record(path, MADE_BY)
    if not {"units", "figures", "histograms"} <= set(content):
        raise ValueError(f"{path} holds no layer charts: wanted a file that detr_scratch.py charts wrote")
    return content


def _short(value: Any) -> Any:
    """Numbers with four digits; None for those that JSON cannot write."""
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
