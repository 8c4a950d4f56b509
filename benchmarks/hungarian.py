"""hungarian: how long does the assignment take, ours beside SciPy's?

    python -m benchmarks.hungarian                      # a table: median milliseconds of each, and the ratio
    python -m benchmarks.hungarian --json FILE          # the figures in a file, too

The costs are those of DETR's matcher for random queries and boxes. `spread` queries lie all over the image, as after
training; `alike` ones are almost the same, as before it, so that every box wants the same few. Both solvers get the
same float32 tensor on the CPU; the time includes reading it. What is left to chance is the seed, which is fixed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import median

import torch
from scipy.optimize import linear_sum_assignment as scipy_assignment
from torch import Tensor

from scratch.ops.activations import softmax
from scratch.ops.boxes import box_cxcywh_to_xyxy, generalized_box_iou
from scratch.ops.hungarian import linear_sum_assignment
from scratch.program import ends_in_a_line
from scratch.whole_file import write_text

CLASSES = 91
# queries, boxes, whether the queries are spread
CASES = [(100, 20, True), (100, 20, False), (100, 7, True), (100, 60, True), (20, 100, True), (300, 20, True)]


def detr_cost(Q: int, M: int, spread: bool, generator: torch.Generator) -> Tensor:
    """The matcher's cost −p + 5·L1 − 2·GIoU of Q random queries and M random boxes: (Q,M)."""
    size = 1.0 if spread else 0.01
    logits = size * torch.randn(Q, CLASSES + 1, generator=generator)
    queries = torch.sigmoid(size * torch.randn(Q, 4, generator=generator))  # cxcywh
    centres = 0.2 + 0.6 * torch.rand(M, 2, generator=generator)
    boxes = torch.cat((centres, 0.05 + 0.3 * torch.rand(M, 2, generator=generator)), dim=1)
    labels = torch.randint(CLASSES, (M,), generator=generator)
    distance = (queries[:, None] - boxes).abs().sum(-1)
    overlap = generalized_box_iou(box_cxcywh_to_xyxy(queries), box_cxcywh_to_xyxy(boxes))
    return -softmax(logits, -1)[:, labels] + 5 * distance - 2 * overlap


def milliseconds(solve, cost: Tensor) -> float:
    start = time.perf_counter()
    solve(cost)
    return 1e3 * (time.perf_counter() - start)


def measure(Q: int, M: int, spread: bool, repeats: int) -> dict:
    """Both solvers in turn on `repeats` matrices, so that other load on the machine affects both."""
    generator = torch.Generator().manual_seed(0)
    ours, scipys = [], []
    for _ in range(repeats):
        cost = detr_cost(Q, M, spread, generator)
        ours.append(milliseconds(linear_sum_assignment, cost))
        scipys.append(milliseconds(scipy_assignment, cost))
    return {"queries": Q, "boxes": M, "kind": "spread" if spread else "alike",
            "ours_ms": median(ours), "ours_worst_ms": max(ours), "scipy_ms": median(scipys)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=101, help="matrices of each shape")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    results = [measure(*case, options.repeats) for case in CASES]
    print(f"{'queries × boxes':<22}{'ours, ms':>10}{'worst':>9}{'SciPy, ms':>11}{'ratio':>8}")
    for r in results:
        name = f"{r['queries']} × {r['boxes']}, {r['kind']}"
        print(f"{name:<22}{r['ours_ms']:>10.3f}{r['ours_worst_ms']:>9.3f}{r['scipy_ms']:>11.4f}"
              f"{r['ours_ms'] / r['scipy_ms']:>8.1f}")
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "repeats": options.repeats}
        write_text(options.json, json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
