"""layers: where is ours slower than torch.nn, and what would it save to be as fast?

    python -m benchmarks.layers                                   # tiny and detr_r50 on the CPU
    python -m benchmarks.layers --presets detr_141m --device cuda --precision bf16 --batch-size 16 --size 512 512
    python -m benchmarks.layers --presets tiny --only conv batch-norm --json layers.json --chart layers.png

For each preset: every layer that its training step calls, at the shapes and as often as it calls it, forward, and
forward and backward; the parts of a step; the answer for one image; the whole step. Ours and torch.nn's have the same
weights and inputs, and are timed in turn in one process (benchmarks/timing.py). A layer counts for all its calls
together, and the list is sorted by that: "parity saves" is what a step would gain were ours as fast.

    ×floor     how many times slower than this machine could be at all (benchmarks/roofline.py)
    error      in half precision, distance to torch.nn's float64, the largest and the root mean square: share of the
               truth's; the worst of the output and the gradients, without dropout
    compiled   with --compile, the same under torch.compile, for layers, the answer for one image and the whole step

What the list leaves out (additions, the order of axes, the optimizer) is in the parts. A relu is timed as it stands
alone; in both sides' backbones it overwrites its input, which costs less.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from tqdm import tqdm

from benchmarks.layer_chart import draw
from benchmarks.layer_pairs import Bench, benches, errors
from benchmarks.layer_parts import inference, parts
from benchmarks.layer_shapes import KINDS, Use, record
from benchmarks.layer_table import table
from benchmarks.roofline import DTYPES, ceilings, floor_seconds, work
from benchmarks.timing import Calls, added_gib, compared, race
from benchmarks.training_step import DEFAULTS, SIDES, TrainingStep, peak_memory_of
from commands.opening import resolve_device
from scratch.model.beyond.compiled import compiler_missing, first_line
from scratch.program import ends_in_a_line
from scratch.training.heap import keep_freed_memory
from scratch.whole_file import write_text

SEEN = 8 / 2**10  # GiB: less than 8 MiB is not told of a layer's memory


class Measure:
    """Times both sides of any computation, on one device, in one precision."""

    def __init__(self, device: torch.device, precision: str, repeats: int, compiled: bool) -> None:
        self.device, self.precision, self.repeats, self.compiled = device, precision, repeats, compiled
        self.ceilings = ceilings(device, precision)

    def times(self, calls: Calls) -> dict[str, dict[str, float]]:
        return compared(race(calls, self.repeats, self.device))

    def layer(self, use: Use) -> dict[str, Any]:
        """One row of the list."""
        sides = benches(use)
        row = {"kind": use.kind, "name": use.name, "count": use.count, "work": work(sides["ours"]),
               "forward": self.times({side: bench.forward for side, bench in sides.items()})}
        learns = bool(sides["ours"].leaves)
        row["whole"] = self.times({side: bench.whole for side, bench in sides.items()}) if learns else row["forward"]
        products = self.ceilings[self.precision if use.autocast else "float32"]
        row["floor"] = {mode: floor_seconds(load, products, self.ceilings["bytes"])
                        for mode, load in row["work"].items()}
        row |= self.memory({side: bench.whole for side, bench in sides.items()})
        if use.autocast:
            row["error"] = errors(use)
        if self.compiled:
            row["compiled"] = self.times_compiled({side: compiled(bench).whole for side, bench in sides.items()})
        return row

    def memory(self, calls: Calls) -> dict[str, dict[str, float]]:
        """{"memory_gib": what each side adds at its peak}, where that is enough to be seen; else nothing."""
        added = {side: added_gib(call, self.device) for side, call in calls.items()}
        return {} if None in added.values() or max(added.values()) < SEEN else {"memory_gib": added}

    def times_compiled(self, calls: Calls) -> dict[str, Any]:
        """As `times`; under "failed" stands why a side could not be compiled."""
        failed = {}
        for side, call in calls.items():
            try:
                call()
            except Exception as error:  # of the compiler: the other rows are measured all the same
                failed[side] = first_line(error)
        result = self.times({side: call for side, call in calls.items() if side not in failed})
        torch.compiler.reset()  # so that a later layer is not one variant too many of an earlier one
        return result | ({"failed": failed} if failed else {})

    def part(self, name: str, whole: Calls, forward: Optional[Calls] = None) -> dict[str, Any]:
        row = {"name": name, **({"forward": self.times(forward)} if forward else {}), "whole": self.times(whole)}
        return row | self.memory(whole)

    def preset(self, preset: str, shape: tuple[int, int, int], only: Sequence[str]) -> dict[str, Any]:
        """All that is measured of a preset; with `only`, nothing but the layers of these kinds, and the step."""
        steps = {side: TrainingStep(side, preset, shape, self.device, self.precision) for side in SIDES}
        uses = [use for use in record(steps["ours"]) if not only or use.kind in only]
        if not uses:
            sys.exit(f"error: got --only {' '.join(only)}, and {preset} has no such layer; wanted one that it has: "
                     "without --only all are listed")
        step = {"name": "training step", "whole": self.times(steps)}
        # A use holds its inputs, and is let go when it is measured.
        progress = tqdm(range(len(uses)), desc=f"{preset}, layers", leave=False, disable=None)
        rows = [self.layer(uses.pop()) for _ in progress]
        result = {"preset": preset, "images": list(shape), "device": str(self.device), "precision": self.precision,
                  "repeats": self.repeats, "ceilings": self.ceilings,
                  "layers": weighed(rows, step["whole"]["ours"]["median"]), "parts": [step]}
        if only:
            return result
        step["memory_gib"] = {side: peak_memory_of(side, preset, shape, self.device, self.precision) for side in SIDES}
        by_side = {side: parts(steps[side]) for side in SIDES}
        for name, part in by_side["ours"].items():
            forward = {side: by_side[side][name].forward for side in SIDES} if part.forward else None
            result["parts"].append(self.part(name, {side: by_side[side][name].whole for side in SIDES}, forward))
        del by_side
        answer = self.part("one image, eval", {side: inference(steps[side]) for side in SIDES})
        if self.compiled:
            for side in SIDES:
                steps[side].model.compile(dynamic=False)
            answer["compiled"] = self.times_compiled({side: inference(steps[side]) for side in SIDES})
            for side in SIDES:
                steps[side].model.train()
            step["compiled"] = self.times_compiled(steps)
        result["parts"].insert(1, answer)
        return result


def weighed(rows: list[dict[str, Any]], step: float) -> list[dict[str, Any]]:
    """Each row with what all its calls cost in a step of `step` seconds, the most expensive first.

    seconds        of all calls, forward and backward, of each side
    share          of our step
    parity_saves   seconds that a step would be shorter if ours took as long as torch.nn's
    """
    for row in rows:
        seconds = {side: row["count"] * row["whole"][side]["median"] for side in SIDES}
        row |= {"seconds": seconds, "share": seconds["ours"] / step,
                "parity_saves": seconds["ours"] - seconds["reference"]}
    return sorted(rows, key=lambda row: -row["share"])


def compiled(bench: Bench) -> Bench:
    fast = copy.copy(bench)
    fast.layer = torch.compile(bench.layer, dynamic=False)
    return fast


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "detr_r50"], choices=list(DEFAULTS))
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="float32", choices=list(DTYPES))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--only", nargs="+", default=[], choices=KINDS, metavar="KIND",
                        help=f"layers of these kinds alone, and no parts: {', '.join(KINDS)}")
    parser.add_argument("--compile", action="store_true", help="also under torch.compile, which takes minutes")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--chart", type=Path, help="also draw them here (again: python -m benchmarks.layer_chart)")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error(f"got --repeats {arguments.repeats}, wanted 1 or more (7 for figures to keep)")
    try:
        arguments.device = torch.device(resolve_device(arguments.device))
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> None:
    arguments = parse(argv)
    device = arguments.device
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    reason = compiler_missing(device) if arguments.compile else ""
    if reason:
        print(f"torch.compile cannot be used here ({reason}): everything is measured without it")
    measure = Measure(device, arguments.precision, arguments.repeats, arguments.compile and not reason)
    results = []
    for preset in arguments.presets:
        batch_size, height, width = DEFAULTS[preset]
        shape = (arguments.batch_size or batch_size, *(arguments.size or (height, width)))
        results.append(measure.preset(preset, shape, arguments.only))
        print(f"\n{table(results[-1])}", flush=True)
    machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
               "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()}
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    figures = {"machine": machine, "results": results}
    if arguments.json:
        write_text(arguments.json, json.dumps(figures, indent=1) + "\n")
    if arguments.chart:
        draw(figures, arguments.chart)


if __name__ == "__main__":
    keep_freed_memory()  # as in training, for both sides
    with ends_in_a_line():
        main()
