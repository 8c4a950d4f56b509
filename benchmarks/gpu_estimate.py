"""gpu_estimate: what would a training step cost on a GPU that is not there?

    python -m benchmarks.gpu_estimate --presets detr_141m_fast --batch-size 16 --size 256 256 --precision fp16
    python -m benchmarks.gpu_estimate --presets tiny --fits 8          # the largest batch that stays below 8 GiB

Both sides, ours and torch.nn, take a step on fake tensors (fake_cuda.py), and every operation is counted (gpu_count.py):
kernel launches, bytes, FLOPs, memory. The counts are exact for what they count. From them a roofline estimates times:

    kernel seconds = 1.25 · Σ over operations of max(bytes / bandwidth, FLOPs / throughput, least time of a launch)
    step seconds   = max(kernel seconds, launches · CPU seconds of a launch) + what the CPU does while the GPU waits

Times are estimates. 1.25 is the mean of measured ÷ counted on one H100 (ours 178 ms of kernels, torch.nn 64). What share
of its peak a GPU reaches is an assumption for all but that one: ±30 %. Memory is what PyTorch asks for; the allocator,
the libraries and CUDA itself add about 1 GiB.

The objective (matching and losses, forward and backward) reads numbers, so it runs on real tensors of the same shapes,
on the CPU; there every operation counts as a launch, also those on lists of the CPU.
"""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported: see fake_cuda.py
    from benchmarks.fake_cuda import provide

    provide()

import argparse
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Optional

import torch
from torch import Tensor

from benchmarks.fake_cuda import fake_cuda
from benchmarks.gpu_count import Counter, Row, Total, total
from commands.opening import make_criterion
from reference import ReferenceCriterion, ReferenceMuon, build_reference
from scratch.config import PRESETS, Config
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.program import ends_in_a_line
from scratch.training.muon import Muon, muon_groups
from scratch.training.optimizer import AdamW, clip_grad_norm_, parameter_groups
from scratch.training.step_memory import LOW, largest_batch
from scratch.whole_file import write_text

SIDES = {"ours": "ours", "reference": "torch.nn"}
PARTS = ("forward", "backward", "optimizer")
OBJECTS = 7  # of each image
CALIBRATION = 1.25  # measured ÷ counted kernel time on an H100: 178 ms ours and 64 ms torch.nn


@dataclass(frozen=True)
class Gpu:
    """What a GPU does at its peak, the shares of it that are reached, and what a launch takes (assumptions)."""

    gib: float  # of memory
    bandwidth: float  # bytes a second
    half: float  # FLOPs a second
    single: float  # in float32, without TF32
    shares: tuple[float, float, float]  # of the three, in the order above
    kernel: float  # seconds of the shortest kernel
    launch: float  # seconds of its CPU to launch one, Python included


GPUS = {
    "T4": Gpu(14.6, 320e9, 65e12, 8.1e12, (0.78, 0.42, 0.55), 3.0e-6, 50e-6),
    "L4": Gpu(22.5, 300e9, 121e12, 30.3e12, (0.80, 0.45, 0.45), 2.5e-6, 50e-6),
    "A100": Gpu(39.4, 1555e9, 312e12, 19.5e12, (0.78, 0.65, 0.80), 2.2e-6, 45e-6),
    "H100": Gpu(79.1, 3350e9, 989e12, 67e12, (0.75, 0.55, 0.75), 2.0e-6, 30e-6),
}
WAITING = 0.010  # seconds in which the Hungarian algorithm runs on the CPU


@dataclass(frozen=True)
class Case:
    """What is counted."""

    side: str
    preset: str
    batch_size: int
    height: int
    width: int
    precision: str
    dilation: bool = False  # in the last stage, where the preset has none

    def title(self, images: int) -> str:
        """The case in words, with so many images."""
        return (f"{self.preset}{' --dilation' * self.dilation}, {images} images of {self.height}×{self.width}, "
                f"{self.precision}")


@dataclass(frozen=True)
class Count:
    """One training step of a case, the second: the first makes the optimizer's state."""

    case: Case
    rows: list[Row]
    gib: dict[str, float]  # peak memory of each part
    resting: float  # GiB between two steps: weights and the optimizer's state

    def part(self, part: Optional[str] = None) -> Total:
        return total(row for row in self.rows if part in (None, row.part))

    def kernel_seconds(self, gpu: Gpu, part: Optional[str] = None) -> float:
        return sum(kernel_seconds(row, gpu) for row in self.rows if part in (None, row.part))

    @property
    def peak(self) -> float:
        return max(self.gib.values())


def kernel_seconds(row: Row, gpu: Gpu) -> float:
    """The roofline of one operation."""
    of_bandwidth, of_half, of_single = gpu.shares
    throughput = gpu.half * of_half if row.half else gpu.single * of_single
    return CALIBRATION * max(row.bytes / (gpu.bandwidth * of_bandwidth), row.flops / throughput,
                             row.launches * gpu.kernel)


def step_seconds(count: Count, objective: Total, gpu: Gpu) -> float:
    """A whole step: kernels, or launching them if that takes longer; and the objective, for which the GPU waits."""
    while_waiting = objective.launches * gpu.launch + WAITING
    return max(count.kernel_seconds(gpu), count.part().launches * gpu.launch) + while_waiting


# -- counting ------------------------------------------------------------------------------------------------------


class Step:
    """One side's training step without the objective: its gradient is given."""

    def __init__(self, case: Case, config: Config, device: str) -> None:
        self.case, self.low = case, LOW.get(case.precision)
        with torch.device(device):
            self.model = (build_detr(config) if case.side == "ours" else build_reference(config.model)).train()
        freeze_backbone(self.model, config.train.train_backbone)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        muon = config.train.optimizer == "muon"
        groups = (muon_groups if muon else parameter_groups)(self.model, config.train)
        if case.side == "ours":
            self.optimizers = [(Muon if muon else AdamW)(groups)]
        else:
            plain = [{key: g[key] for key in ("params", "lr", "weight_decay")} for g in groups if "maps" not in g]
            maps = [g for g in groups if "maps" in g]
            self.optimizers = [torch.optim.AdamW(plain, fused=True), *([ReferenceMuon(maps)] if maps else [])]
        self.max_norm, self.device = config.train.clip_max_norm, device
        shape = (case.batch_size, case.height, case.width)
        self.images = torch.zeros(shape[0], 3, *shape[1:], device=device)
        self.pad_mask = torch.zeros(shape, dtype=torch.bool, device=device)
        self.scaled = case.precision == "fp16"

    def forward(self) -> Any:
        with torch.autocast(self.device, self.low) if self.low else nullcontext():
            return self.model(self.images, self.pad_mask)

    def __call__(self, counter: Any) -> None:
        counter.part = "forward"
        answers = leaves(self.forward())
        gradients = [torch.empty_like(answer) for answer in answers]
        counter.part = "backward"
        torch.autograd.backward(answers, gradients)
        del answers, gradients
        counter.part = "optimizer"
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.scaled:  # what GradScaler.unscale_ does
            found, factor = (torch.ones((), device=self.device) for _ in range(2))
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, factor)
        if self.case.side == "ours":
            clip_grad_norm_(self.parameters, self.max_norm)  # measures alone where it is 0
        elif self.max_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm, foreach=True)
        else:
            torch.nn.utils.get_total_norm(gradients, foreach=True)
        del gradients
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def leaves(outputs: Any) -> list[Tensor]:
    """The tensors of an output dict that have a gradient."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.requires_grad else []
    if isinstance(outputs, dict):
        outputs = outputs.values()
    return [leaf for value in outputs for leaf in leaves(value)] if hasattr(outputs, "__iter__") else []


def configured(preset: str, dilation: bool = False) -> Config:
    """The preset with five classes, those of the generated shapes."""
    model = PRESETS[preset].model
    return replace(PRESETS[preset], model=replace(model, num_classes=5, dilation=model.dilation or dilation))


def counted(case: Case, fake: bool = True) -> Count:
    """Count a step on the fake GPU; not `fake`: on the CPU, in real tensors (what the tests compare with)."""
    config = configured(case.preset, case.dilation)
    with fake_cuda() if fake else nullcontext():
        step = Step(case, config, "cuda" if fake else "cpu")
        with Counter() as counter:
            counter.hold([*step.model.parameters(), *step.model.buffers(), step.images, step.pad_mask])
            step(counter)
            resting = counter.alive
            counter.forget_rows()
            step(counter)
        rows, peaks = counter.rows, counter.peaks
    return Count(case, rows, {part: peaks[part] / 2**30 for part in PARTS}, resting / 2**30)


def objective(case: Case) -> Total:
    """Matching and losses with their backward, in real tensors on the CPU."""
    config = configured(case.preset, case.dilation)
    with fake_cuda():
        shapes = Step(case, config, "cuda").forward()
    generator = torch.Generator().manual_seed(0)
    outputs = drawn(shapes, "", generator)
    targets = [{"labels": torch.randint(5, (OBJECTS,), generator=generator), "image_id": i,
                "boxes": torch.rand(OBJECTS, 4, generator=generator) * 0.3 + 0.2} for i in range(case.batch_size)]
    criterion: Any = make_criterion(config)
    if case.side != "ours":
        criterion = ReferenceCriterion(5, config.loss, config.model.classification == "focal",
                                       config.model.one_to_many)
    with Counter() as counter:
        criterion.total(criterion(outputs, targets)).backward()
    return total(counter.rows)


def drawn(outputs: Any, name: str, generator: torch.Generator) -> Any:
    """Real random outputs of the shapes of fake ones."""
    if isinstance(outputs, dict):
        return {key: drawn(value, key, generator) for key, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [drawn(value, name, generator) for value in outputs]
    if not isinstance(outputs, Tensor):
        return outputs
    if outputs.dtype is torch.bool:
        return torch.zeros(tuple(outputs.shape), dtype=torch.bool)
    values = torch.rand(tuple(outputs.shape), generator=generator) * 0.3 + 0.2
    return values.requires_grad_(outputs.requires_grad)


# -- what fits -----------------------------------------------------------------------------------------------------


def fitting_batch(case: Case, gib: float) -> int:
    """The largest batch whose step stays below `gib` GiB, 0 if not even one image does."""
    return largest_batch(lambda size: counted(replace(case, batch_size=size)).peak, gib)


# -- showing -------------------------------------------------------------------------------------------------------


def table(counts: dict[str, Count], objectives: dict[str, Total]) -> str:
    """Both sides' counts as a Markdown table."""
    case = counts["ours"].case
    lines = [case.title(case.batch_size), "",
             "| | launches | GB | TFLOP | peak GiB | " + " | ".join(f"{name}, ms" for name in GPUS) + " |",
             "|---|---|---|---|---|" + "---|" * len(GPUS)]
    for side, label in SIDES.items():
        count = counts[side]
        for part in (*PARTS, None):
            sums, gib = count.part(part), count.gib[part] if part else count.peak
            times = (f"{1000 * count.kernel_seconds(gpu, part):,.1f}" for gpu in GPUS.values())
            lines.append(f"| {label}, {part or 'together'} | {sums.launches:,} | {sums.gigabytes:.1f} | "
                         f"{sums.teraflops:.2f} | {gib:.2f} | " + " | ".join(times) + " |")
        lines.append(f"| {label}, matching and losses | {objectives[side].launches:,} | "
                     f"{objectives[side].gigabytes:.1f} | | | " + "| " * len(GPUS))
    ours, theirs = (counts[side] for side in SIDES)
    for name, parts in (("forward and backward", PARTS[:2]), ("the whole step", PARTS)):
        sums = [[sum(getattr(count.part(part), kind) for part in parts) for count in (ours, theirs)]
                for kind in ("launches", "gigabytes", "teraflops")]
        times = ([sum(count.kernel_seconds(gpu, part) for part in parts) for count in (ours, theirs)]
                 for gpu in GPUS.values())
        ratios = [f"{a / b:.2f}" for a, b in sums] + [f"{ours.peak / theirs.peak:.2f}"] + [f"{a / b:.2f}" for a, b in times]
        lines.append(f"| ours ÷ torch.nn, {name} | " + " | ".join(ratios) + " |")
    seconds = {name: step_seconds(ours, objectives["ours"], gpu) for name, gpu in GPUS.items()}
    lines += ["", "A step of ours, estimated: " + ", ".join(
        f"{name} {s:.2f} s ({1200 / s:,.0f} steps in 20 minutes)" for name, s in seconds.items())]
    return "\n".join(lines)


def by_place(count: Count, gpu: Gpu, most: int) -> str:
    """Where the time of a step goes: the places in the source, by estimated time."""
    places: dict[tuple[str, str], list[Row]] = {}
    for row in count.rows:
        places.setdefault((row.part, row.place), []).append(row)
    lines = ["| part | place | launches | GB | TFLOP | ms |", "|---|---|---|---|---|---|"]
    seconds = {key: sum(kernel_seconds(row, gpu) for row in rows) for key, rows in places.items()}
    for key in sorted(seconds, key=seconds.__getitem__, reverse=True)[:most]:
        sums = total(places[key])
        lines.append(f"| {key[0]} | {key[1]} | {sums.launches:,} | {sums.gigabytes:.2f} | {sums.teraflops:.3f} | "
                     f"{1000 * seconds[key]:.1f} |")
    return "\n".join(lines)


def main(argv: Optional[Iterable[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["detr_141m_fast"], choices=list(PRESETS))
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
                        help="default: a square of the preset's short side")
    parser.add_argument("--dilation", action="store_true", help="with a dilated last stage, as the recipe takes it for small "
                        "or many objects")
    parser.add_argument("--precision", default="fp16", choices=["float32", *LOW])
    parser.add_argument("--places", type=int, default=0, metavar="N", help="also the N places of ours, and of torch.nn, "
                        "where most of the time goes")
    parser.add_argument("--place-gpu", default="T4", choices=list(GPUS), help="by the times of this GPU")
    parser.add_argument("--fits", type=float, metavar="GIB", help="instead: the largest batch below so much memory")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args(None if argv is None else list(argv))
    results = []
    for preset in arguments.presets:
        config = PRESETS[preset]
        height, width = arguments.size or (config.data.short_side,) * 2
        cases = {side: Case(side, preset, arguments.batch_size or config.train.batch_size, height, width,
                            arguments.precision, arguments.dilation) for side in SIDES}
        if arguments.fits:
            size = fitting_batch(cases["ours"], arguments.fits)
            print(f"{cases['ours'].title(size)}: so many at once stay below {arguments.fits:g} GiB", flush=True)
            continue
        counts = {side: counted(case) for side, case in cases.items()}
        objectives = {side: objective(case) for side, case in cases.items()}
        print(f"{table(counts, objectives)}\n", flush=True)
        if arguments.places:
            for side in SIDES:
                print(f"{SIDES[side]}:\n\n{by_place(counts[side], GPUS[arguments.place_gpu], arguments.places)}\n")
        results.append({side: {"case": asdict(count.case), "resting_gib": count.resting, "peak_gib": count.gib,
                               "parts": {part: asdict(count.part(part)) for part in PARTS},
                               "objective": asdict(objectives[side])} for side, count in counts.items()})
    if arguments.json:
        write_text(arguments.json, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
