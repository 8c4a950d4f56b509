"""ladder: how much faster is each version, from the formula to the fast one, and what is the lower bound?

    python -m benchmarks.ladder                       # all ladders, on the CPU
    python -m benchmarks.ladder --only stem --json FILE

Each ladder is one operation at one shape of detr_r50 (two images of 480×640), climbed rung by rung: FLOPs, the bytes
that the rung moves through memory (its large tensors, each time that one is read or written; what stays in a CPU's
cache is not counted), the floor that both set on this machine (benchmarks/roofline.py: measured in the same run), and
the time, in turn with torch.nn's. The loops of a definition would take hours there: they are timed at a small shape,
and told as FLOPs a second.
"""

from __future__ import annotations

import argparse
import json
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.roofline import ceilings
from benchmarks.timing import race
from scratch.ops.fast import shifted
from scratch.ops.attention import attention_batched, attention_naive
from scratch.ops.fast.attention import Attention
from scratch.ops.fast.tiled_attention import TiledAttention
from scratch.ops.conv2d import conv2d_im2col, conv2d_naive
from scratch.ops.fast.columns import Columns
from scratch.ops.fast.shifted import Shifted
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.winograd import Winograd
from scratch.ops.windows import Windows, output_size
from scratch.program import ends_in_a_line
from scratch.training.heap import keep_freed_memory
from scratch.whole_file import write_text

CPU = torch.device("cpu")
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Rung:
    """One version of the operation: how it is called, and how many numbers its forward moves through memory.

    `within` is what it has to be called in, forward and backward; `share` the part of the operation's FLOPs that it
    needs.
    """

    name: str
    call: Callable[..., Tensor]
    numbers: int
    within: Callable[[], AbstractContextManager] = nullcontext
    share: float = 1.0


@dataclass(frozen=True)
class Ladder:
    """An operation at one shape, its definition at a small one, and the versions between them and torch.nn."""

    name: str
    flops: int
    inputs: tuple[Tensor, ...]
    rungs: tuple[Rung, ...]
    naive: Callable[[], Any]
    naive_flops: int


def convolution(name: str, images: tuple[int, int, int, int], filters: tuple[int, int], stride: int,
                between: Callable[..., tuple[Rung, ...]]) -> Ladder:
    """A k×k convolution of images (B,C,H,W) by O filters, `filters` = (O, k), with the padding that keeps its size."""
    (B, C, H, W), (O, k), padding = images, filters, filters[1] // 2
    size = output_size((H, W), (k, k), (stride, stride), (padding, padding), (1, 1))
    windows = Windows((k, k), (stride, stride), (padding, padding), (1, 1), 1, size)
    x = torch.randn(images).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(C > 3)  # an image needs no gradient
    weight = torch.randn(O, C, k, k).contiguous(memory_format=torch.channels_last).div_(k * C**0.5).requires_grad_()
    y = B * O * size[0] * size[1]
    columns = B * size[0] * size[1] * k * k * C
    # A frame is filled with zeros, the image read and written into it; then it is read, and columns written and read.
    copied = 4 * x.numel() + 2 * columns + weight.numel() + y
    small, few = torch.randn(1, 4, 16, 16), torch.randn(4, 4, k, k)
    naive = partial(conv2d_naive, small, few, None, stride, padding)
    return Ladder(
        name, 2 * y * k * k * C, (x, weight),
        (Rung("im2col, autograd", lambda x, w: conv2d_im2col(x, w, None, stride, padding), copied),
         Rung("columns", lambda x, w: Columns.apply(x, w, None, windows), copied),
         *between(windows, x.numel(), y, weight.numel()),
         Rung("torch.nn", lambda x, w: F.conv2d(x, w, None, stride, padding), x.numel() + weight.numel() + y)),
        naive, 2 * naive().numel() * k * k * 4)


def by_shifts(windows: Windows, x: int, y: int, weight: int) -> tuple[Rung, ...]:
    """Shifted at stride 1, its list taken whole and tile by tile, and Winograd.

    Either way a list is filled with zeros, the image read and written into it; y is in the end read and written without
    what straddles. Whole, each of k² products reads the list, and k of them go through y (the first of these writes it
    alone); in tiles both pass once. Winograd has a frame in the place of the list, and writes y without a second copy;
    its filters are read, and those of 5 points for 3 taps written and read.
    """
    k = windows.kernel[0]

    def by(plan: type) -> Callable[..., Tensor]:
        return lambda x, w: plan.apply(x, w, None, windows)

    return (Rung("shifted, whole", by(Shifted), 3 * x + k * k * x + (2 * k - 1) * y + 2 * y + weight,
                 partial(patch.object, shifted, "TILE", 2**40)),
            Rung("shifted, in tiles", by(Shifted), 3 * x + x + y + 2 * y + weight),
            Rung("winograd", by(Winograd), 3 * x + x + y + weight + 2 * weight * 5 // 3, share=5 / 9))


def by_rows(windows: Windows, x: int, y: int, weight: int) -> tuple[Rung, ...]:
    """Rows: framed as columns are; runs of a window's width, written and read once, tile by tile; y as Shifted's."""
    (k, _), (s, _) = windows.kernel, windows.stride
    runs = x * k // s
    return (Rung("rows", lambda x, w: Rows.apply(x, w, None, windows),
                 4 * x + 2 * runs + 3 * y + weight),)


def attention(heads: int, tokens: int, width: int) -> Ladder:
    """softmax(q kᵀ/√d) v of all heads of all images."""
    qkv = tuple(torch.randn(heads, tokens, width, requires_grad=True) for _ in range(3))
    scores, inputs = heads * tokens**2, 4 * heads * tokens * width  # q, k, v and O
    small = [torch.randn(16, width) for _ in range(3)]
    return Ladder(
        f"attention, {heads}×{tokens}×{width}", 4 * scores * width, qkv,
        # Scores written; read and written by the scaling and by each of the softmax's passes; read by the product.
        (Rung("batched, autograd", lambda q, k, v: attention_batched(q, k, v)[0], 12 * scores + inputs),
         Rung("in place, kept", lambda q, k, v: Attention.apply(q, k, v, None, 0.0)[0], 10 * scores + inputs),
         Rung("in tiles", lambda q, k, v: TiledAttention.apply(q, k, v, None, 0.0), inputs),
         Rung("torch.nn", lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None])[0], inputs)),
        partial(attention_naive, *small), 4 * 16 * 16 * width)


LADDERS: dict[str, Callable[[], Ladder]] = {
    "conv3x3": lambda: convolution("3×3, 64 → 64, 2×120×160", (2, 64, 120, 160), (64, 3), 1, by_shifts),
    "conv3x3_deep": lambda: convolution("3×3, 256 → 256, 2×30×40", (2, 256, 30, 40), (256, 3), 1, by_shifts),
    "stem": lambda: convolution("7×7, stride 2, 3 → 64, 2×480×640", (2, 3, 480, 640), (64, 7), 2, by_rows),
    "attention": lambda: attention(16, 1050, 32),
}


def measure(ladder: Ladder, repeats: int, machine: dict[str, float]) -> dict[str, Any]:
    """Median seconds of every rung, forward and with backward, and the floor of its forward."""
    wanted = [x for x in ladder.inputs if x.requires_grad]
    def once(rung: Rung) -> Tensor:
        with rung.within(), torch.no_grad():
            return rung.call(*ladder.inputs)

    gradient = torch.randn_like(once(ladder.rungs[-1]))

    def both(rung: Rung) -> None:
        with rung.within():
            y = rung.call(*ladder.inputs)
            torch.autograd.grad(y, wanted, gradient.view_as(y))

    forward = race({rung.name: partial(once, rung) for rung in ladder.rungs}, repeats, CPU)
    whole = race({rung.name: partial(both, rung) for rung in ladder.rungs}, repeats, CPU)
    naive = race({"naive": ladder.naive}, 3, CPU)["naive"]
    rungs = [{"rung": rung.name, "forward": median(forward[rung.name]), "whole": median(whole[rung.name]),
              "bytes": FLOAT * rung.numbers, "compute_floor": ladder.flops * rung.share / machine["float32"],
              "memory_floor": FLOAT * rung.numbers / machine["bytes"]} for rung in ladder.rungs]
    return {"ladder": ladder.name, "flops": ladder.flops, "naive_flops_per_second": ladder.naive_flops / median(naive),
            "rungs": rungs}


def table(result: dict[str, Any]) -> str:
    """The table of one ladder."""
    theirs = result["rungs"][-1]
    lines = [f"{result['ladder']}: {result['flops'] / 1e9:.2f} GFLOP forward; the definition's loops reach "
             f"{result['naive_flops_per_second'] / 1e6:.1f} MFLOP/s (at a small shape), which would take "
             f"{result['flops'] / result['naive_flops_per_second'] / 60:.0f} minutes",
             f"  {'':20}{'moved, MB':>11}{'floor, ms':>11}{'of':>9}{'forward, ms':>13}{'× floor':>9}{'÷ torch.nn':>12}"
             f"{'+ backward, ms':>16}{'÷ torch.nn':>12}"]
    for rung in result["rungs"]:
        floor = max(rung["compute_floor"], rung["memory_floor"])
        bound = "memory" if rung["memory_floor"] > rung["compute_floor"] else "FLOPs"
        lines.append(f"  {rung['rung']:20}{rung['bytes'] / 1e6:11.0f}{1e3 * floor:11.2f}{bound:>9}"
                     f"{1e3 * rung['forward']:13.2f}{rung['forward'] / floor:9.1f}"
                     f"{rung['forward'] / theirs['forward']:12.2f}{1e3 * rung['whole']:16.2f}"
                     f"{rung['whole'] / theirs['whole']:12.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(LADDERS), choices=list(LADDERS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    ceiling = ceilings(CPU, "float32")
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}: {ceiling['float32'] / 1e9:.0f} GFLOP/s "
          f"in a large product, {ceiling['bytes'] / 1e9:.1f} GB/s in a large copy", flush=True)
    results = []
    for name in options.only:
        results.append(measure(LADDERS[name](), options.repeats, ceiling))
        print(f"\n{table(results[-1])}", flush=True)
    if options.json:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
                   "device": platform.machine(), "repeats": options.repeats, **ceiling}
        write_text(options.json, json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    keep_freed_memory()  # as in training
    with ends_in_a_line():
        main()
