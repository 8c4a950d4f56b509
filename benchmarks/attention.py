"""attention: what do more tokens cost, in time and in memory?

    python -m benchmarks.attention                                        # a table, on the CPU
    python -m benchmarks.attention --device cuda --precision bf16 --batch-size 8
    python -m benchmarks.attention --json FILE --chart FILE

Forward and backward of one encoder attention of detr_r50 (8 heads of 32), without its linear maps, at the numbers of
tokens that images of 800×1333 pixels and less have: 25×42 at stride 32, 50×84 at stride 16 (DC5). "kept" makes all
weights at once and keeps them (scratch/ops/fast/attention.py), "tiled" makes them tile by tile and twice
(scratch/ops/fast/tiled_attention.py), beside torch.nn's scaled_dot_product_attention. Timed in turn, medians; memory is
what the call adds at its peak to its inputs.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from statistics import median
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.roofline import DTYPES
from benchmarks.timing import added_gib, race
from scratch.analysis.attention_cost import HEADS, WIDTH, draw
from scratch.ops.fast.attention import Attention
from scratch.ops.fast.tiled_attention import TiledAttention
from scratch.program import ends_in_a_line
from scratch.whole_file import write_text

TOKENS = (300, 600, 1050, 2100, 4200)
WAYS = {"kept": lambda q, k, v: Attention.apply(q, k, v, None, 0.0)[0],
        "tiled": lambda q, k, v: TiledAttention.apply(q, k, v, None, 0.0),
        "torch.nn": lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None])[0]}


def forward_and_backward(way: Callable[..., Tensor], qkv: list[Tensor], gradient: Tensor) -> Callable[[], Any]:
    return lambda: torch.autograd.grad(way(*qkv), qkv, gradient)


def measure(tokens: int, batch_size: int, device: torch.device, precision: str, repeats: int) -> dict[str, Any]:
    """Median seconds and added GiB of each way."""
    shape, dtype = (batch_size * HEADS, tokens, WIDTH), DTYPES[precision]
    qkv = [torch.randn(shape, device=device).to(dtype).requires_grad_() for _ in range(3)]
    gradient = torch.randn(shape, device=device).to(dtype)
    calls = {name: forward_and_backward(way, qkv, gradient) for name, way in WAYS.items()}
    seconds = race(calls, repeats, device)
    return {"tokens": tokens, "seconds": {name: median(samples) for name, samples in seconds.items()},
            "gib": {name: added_gib(call, device) for name, call in calls.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--chart", type=Path, help="also draw them here")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"{'tokens':>8}" + "".join(f"{name + ', ms':>14}" for name in WAYS)
          + "".join(f"{name + ', MiB':>16}" for name in WAYS))
    results = []
    for tokens in options.tokens:
        row = measure(tokens, options.batch_size, device, options.precision, options.repeats)
        results.append(row)
        print(f"{tokens:>8,}" + "".join(f"{1e3 * row['seconds'][name]:>14.1f}" for name in WAYS)
              + "".join("–".rjust(16) if row["gib"][name] is None else f"{1024 * row['gib'][name]:>16.1f}"
                        for name in WAYS), flush=True)
    figures = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
               "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
               "precision": options.precision, "batch_size": options.batch_size, "repeats": options.repeats,
               "results": results}
    if options.json:
        write_text(options.json, json.dumps(figures, indent=1) + "\n")
    if options.chart:
        draw(figures, options.chart)


if __name__ == "__main__":
    with ends_in_a_line():
        main()
