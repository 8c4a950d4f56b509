"""plans: is the plan that conv2d chooses the fastest one?

    python -m benchmarks.plans                     # on the CPU, with the figures of ops/fast/convolution.py
    python -m benchmarks.plans --presets tiny      # the convolutions of a preset
    python -m benchmarks.plans --json FILE

Convolutions of the detectors, and others near the thresholds of ops/fast/convolution.py: each by every plan that can do
it, and by torch.nn, in turn, forward and backward in float32. The plan that `conv2d` chooses is in brackets; the last
two columns are its time divided by that of the fastest plan, and by that of torch.nn. How the thresholds are read from
this on another processor: docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.multiplying import multiplying, told
from benchmarks.timing import race
from benchmarks.training_step import DEFAULTS
from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.ops.conv2d import Conv2d, conv2d
from scratch.ops.fast.columns import Columns
from scratch.ops.fast.shifted import Shifted
from scratch.ops.fast.rows import Rows
from scratch.ops.fast.winograd import Winograd
from scratch.ops.windows import Windows, output_size, pair
from scratch.program import ends_in_a_line
from scratch.training.heap import keep_freed_memory
from scratch.whole_file import write_text

CPU = torch.device("cpu")


class Case(NamedTuple):
    """A convolution of B images of C channels by O filters, with the padding that keeps its size at stride 1."""

    B: int
    C: int
    H: int
    W: int
    O: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        stride, dilation = (f" {name}{n}" if n > 1 else "" for name, n in (("/", self.stride), ("d", self.dilation)))
        return f"{self.C}→{self.O} {self.kernel}×{self.kernel}{stride}{dilation}, {self.B}×{self.H}×{self.W}"


CASES = (
    Case(16, 3, 144, 144, 16, 7, 2), Case(2, 3, 256, 256, 64, 7, 2),  # the stems of tiny and detr_141m
    Case(16, 16, 36, 36, 16), Case(16, 16, 36, 36, 32, stride=2),  # tiny, stage by stage
    Case(16, 32, 18, 18, 32), Case(16, 32, 18, 18, 64, stride=2), Case(16, 64, 9, 9, 64), Case(16, 64, 9, 9, 128),
    Case(16, 128, 9, 9, 128), Case(16, 128, 9, 9, 128, dilation=2),
    Case(2, 64, 120, 160, 64), Case(2, 128, 60, 80, 128), Case(2, 256, 60, 80, 256, stride=2),  # detr_r50
    Case(2, 256, 30, 40, 256), Case(2, 512, 30, 40, 512, stride=2), Case(2, 512, 15, 20, 512),
    Case(1, 512, 50, 67, 512, dilation=2),  # detr_r50_dc5
    Case(2, 64, 64, 64, 64), Case(2, 128, 32, 32, 128), Case(2, 256, 16, 16, 256), Case(2, 512, 8, 8, 512),  # detr_141m
    Case(4, 64, 40, 40, 64), Case(2, 64, 32, 32, 64), Case(1, 256, 16, 16, 256), Case(1, 128, 60, 80, 128),
    Case(8, 256, 7, 7, 256), Case(2, 48, 120, 160, 48),
)


def cases_of(preset: str, batch_size: int, height: int, width: int) -> list[Case]:
    """The convolutions of a preset's backbone for such images, each once; without those of 1×1, which have one plan."""
    config, cases = PRESETS[preset], {}
    with torch.device("meta"):
        backbone = build_detr(config).backbone
        images = torch.empty(batch_size, 3, height, width)

    def note(module: Conv2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        (B, C, H, W), (O, _, k, _) = inputs[0].shape, module.weight.shape
        if k > 1:
            cases[Case(B, C, H, W, O, k, pair(module.stride)[0], pair(module.dilation)[0])] = None

    for module in backbone.modules():
        if isinstance(module, Conv2d):
            module.register_forward_hook(note)
    backbone(images)
    return list(cases)


def windows_of(case: Case) -> Windows:
    kernel, stride, dilation = ((n, n) for n in (case.kernel, case.stride, case.dilation))
    padding = (case.dilation * (case.kernel // 2),) * 2
    size = output_size((case.H, case.W), kernel, stride, padding, dilation)
    return Windows(kernel, stride, padding, dilation, 1, size)


def plans_for(case: Case) -> list[type]:
    """The plans that compute such a convolution."""
    plans: list[type] = [Columns, Shifted]
    if case.C < 16 and case.dilation == 1:
        plans.append(Rows)
    if (case.kernel, case.stride, case.dilation) == (3, 1, 1):
        plans.append(Winograd)
    return plans


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Median seconds of every plan and of torch.nn, forward and backward, and the plan that is chosen."""
    windows = windows_of(case)
    x = torch.randn(case[:4]).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(case.C > 3)  # an image needs no gradient
    shape = (case.O, case.C, case.kernel, case.kernel)
    weight = torch.randn(shape).contiguous(memory_format=torch.channels_last).div_(case.kernel * case.C**0.5)
    wanted = [t for t in (x, weight.requires_grad_()) if t.requires_grad]
    options = (None, case.stride, windows.padding, case.dilation)

    def theirs(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, *options)

    calls = {plan.__name__: lambda x, weight, plan=plan: plan.apply(x, weight, None, windows)
             for plan in plans_for(case)}
    gradient = torch.randn_like(theirs(x, weight))

    def both(call: Any) -> None:
        torch.autograd.grad(call(x, weight), wanted, gradient)

    times = race({name: partial(both, call) for name, call in (calls | {"torch.nn": theirs}).items()}, repeats, CPU)
    return {"case": str(case), "seconds": {name: median(samples) for name, samples in times.items()},
            "chosen": conv2d(x, weight, *options).grad_fn.name().removesuffix("Backward")}


def line(result: dict[str, Any]) -> str:
    """One convolution, in milliseconds; the chosen plan in brackets."""
    cells = []
    for name in ("Columns", "Rows", "Shifted", "Winograd", "torch.nn"):
        seconds = result["seconds"].get(name)
        text = "–" if seconds is None else f"{1e3 * seconds:.1f}"
        cells.append(f"{f'[{text}]' if name == result['chosen'] else text:>11}")
    of_plans = {name: seconds for name, seconds in result["seconds"].items() if name != "torch.nn"}
    taken = of_plans[result["chosen"]]
    cells += [f"{taken / seconds:>11.2f}" for seconds in (min(of_plans.values()), result["seconds"]["torch.nn"])]
    return f"{result['case']:34}{''.join(cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--presets", nargs="+", choices=list(DEFAULTS), help="instead: the convolutions of these, at "
                        "the size of benchmarks.training_step")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    names = "".join(f"{name:>11}" for name in ("Columns", "Rows", "Shifted", "Winograd", "torch.nn", "÷ fastest",
                                               "÷ torch.nn"))
    print(f"forward + backward, ms{'':12}{names}", flush=True)
    results = []
    wanted = dict.fromkeys(case for preset in options.presets or [] for case in cases_of(preset, *DEFAULTS[preset]))
    for case in wanted or CASES:
        results.append(measure(case, options.repeats))
        print(line(results[-1]), flush=True)
    gflops = multiplying()
    print(told(gflops))
    if options.json:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
                   "device": platform.machine(), "repeats": options.repeats, "gflops": gflops}
        write_text(options.json, json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    keep_freed_memory()  # as in training
    with ends_in_a_line():
        main()
