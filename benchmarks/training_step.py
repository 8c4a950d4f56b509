"""training_step: what does one training step cost, ours beside torch.nn?

    python -m benchmarks.training_step                          # tiny, tiny_vanilla and detr_r50 on the CPU
    python -m benchmarks.training_step --presets detr_141m --device cuda --precision bf16 --batch-size 16 \
        --size 512 512 --graph --compile blocks whole

A step is forward, matching and losses, backward, clipping and the optimizer (AdamW; `tiny` has Muon, and no
clipping). Both sides hold the same weights and see the same batch, in one process and in turn (who goes first
alternates), so that other load on the machine affects both: what counts is the ratio of the medians. torch.nn's
side is as fast as its user can make it: channels-last, fused attention, SciPy, fused AdamW, Muon's matrices of one
shape in one product; float32 products have the same precision on both (TF32 is off). That one step leaves both with the
same weights is shown in tests/test_benchmarks.py.

"objective" is matching and losses forward; "its share" counts their backward too, as far as the detector's outputs.

The peak memory is that of a process of its own: the highest resident set, less what it was before the model was built,
on a CPU; the allocator's peak on a GPU. Both count weights, gradients, AdamW's state and activations.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

import torch

from benchmarks.multiplying import multiplying, told
from commands.opening import make_criterion
from reference import ReferenceCriterion, ReferenceMuon, anchors, build_reference
from reference import model as plain
from scratch.config import PRESETS, Config
from scratch.model.beyond.compiled import compile_model
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.program import ends_in_a_line
from scratch.training.cuda_graph import GraphedModel
from scratch.training.heap import keep_freed_memory
from scratch.training.muon import Muon, muon_groups
from scratch.training.optimizer import AdamW, clip_grad_norm_, parameter_groups
from scratch.training.peak_memory import resident_peak_gib
from scratch.whole_file import write_text

SIDES = ("ours", "reference")
PARTS = ("forward", "objective", "backward", "optimizer")
# preset → images, height, width: as the preset is trained; of tiny the second of its three sizes; those of detr_141m and
# detr_141m_fast are smaller, for a CPU
DEFAULTS = {"tiny": (16, 144, 144), "tiny_vanilla": (16, 144, 144), "detr_r50": (2, 480, 640),
            "detr_r50_dc5": (1, 800, 1066), "detr_141m": (2, 256, 256), "detr_r50_fast": (2, 256, 256),
            "detr_141m_fast": (2, 256, 256)}
# What torch.compile is given of torch.nn's side: the same pieces as of ours (scratch/model/beyond/compiled.py).
REFERENCE_BLOCKS = (plain.BasicBlock, plain.Bottleneck, plain.EncoderLayer, plain.DecoderLayer,
                    anchors.AnchorDecoderLayer)
COMPILED = {"blocks": "compiled", "whole": "compiled_whole"}  # what is compiled → the name of its figures
WARM_UP = 2  # steps of each side that are not counted: AdamW's state is made in the first


def random_batch(num_classes: int, batch_size: int, height: int, width: int, device: torch.device) -> tuple:
    """Random normalised images, the last of them a little narrower than the batch, with 7 boxes each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, height, width, generator=generator)
    pad_mask = torch.zeros(batch_size, height, width, dtype=torch.bool)
    pad_mask[-1, :, width * 7 // 8:] = True
    images.masked_fill_(pad_mask[:, None], 0.0)
    targets = []
    for i in range(batch_size):
        centres = torch.rand(7, 2, generator=generator) * 0.6 + 0.2
        sizes = torch.rand(7, 2, generator=generator) * 0.3 + 0.05
        labels = torch.randint(num_classes, (7,), generator=generator)
        targets.append({"boxes": torch.cat([centres, sizes], 1).to(device), "labels": labels.to(device), "image_id": i})
    return images.to(device), pad_mask.to(device), targets


class TrainingStep:
    """One side's model, criterion and optimizer; each call is one training step, and returns each part's seconds."""

    def __init__(self, side: str, preset: str, shape: tuple[int, int, int], device: torch.device, precision: str):
        config = at_home(preset)
        torch.manual_seed(0)
        model = build_detr(config)
        freeze_backbone(model, config.train.train_backbone)
        if side == "ours":
            self.criterion = make_criterion(config)
        else:
            ours, model = model, build_reference(config.model)
            model.load_state_dict(ours.state_dict())
            for name, parameter in ours.named_parameters():
                model.get_parameter(name).requires_grad_(parameter.requires_grad)
            focal = config.model.classification == "focal"
            self.criterion = ReferenceCriterion(config.model.num_classes, config.loss, focal,
                                                config.model.one_to_many).to(device)
        self.model = model.to(device).train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        muon = config.train.optimizer == "muon"
        groups = (muon_groups if muon else parameter_groups)(model, config.train)
        if side == "ours":
            self.optimizers = [(Muon if muon else AdamW)(groups)]
            self.clip = clip_grad_norm_
        else:
            self.optimizers, self.clip = reference_optimizers(groups), torch.nn.utils.clip_grad_norm_
        self.denoising = config.model.denoising
        self.max_norm, self.device = config.train.clip_max_norm, device
        self.images, self.pad_mask, self.targets = random_batch(config.model.num_classes, *shape, device)
        low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.autocast = torch.autocast(device.type, low) if low else nullcontext()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def forward(self) -> dict[str, Any]:
        with self.autocast:
            # Only queries that are made of the targets need them, and the reference has none.
            return self.model(self.images, self.pad_mask, *([self.targets] if self.denoising else []))

    def objective(self) -> float:
        """Seconds that matching and losses take, with their backward, but without the detector's."""
        outputs = as_leaves(self.forward())
        start = self.now()
        self.criterion.total(self.criterion(outputs, self.targets)).backward()
        return self.now() - start

    def __call__(self) -> dict[str, float]:
        marks = [self.now()]
        outputs = self.forward()
        marks.append(self.now())
        loss = self.criterion.total(self.criterion(outputs, self.targets))
        marks.append(self.now())
        loss.backward()
        marks.append(self.now())
        if self.max_norm:
            self.clip(self.parameters, self.max_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        marks.append(self.now())
        return dict(zip(PARTS, (b - a for a, b in zip(marks, marks[1:])))) | {"step": marks[-1] - marks[0]}


def reference_optimizers(groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """What takes the steps of ours: torch's AdamW, and Muon for the groups of matrices, if there are any."""
    plain = [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups if "maps" not in group]
    matrices = [group for group in groups if "maps" in group]
    return [torch.optim.AdamW(plain, fused=True), *([ReferenceMuon(matrices)] if matrices else [])]


def at_home(preset: str) -> Config:
    """The preset with the classes that it has at home: five kinds of shapes, or COCO's ids up to 90."""
    config = PRESETS[preset]
    return replace(config, model=replace(config.model, num_classes=5)) if preset.startswith("tiny") else config


def as_leaves(outputs: Any) -> Any:
    """The detector's outputs as if they were weights: a backward ends there."""
    if isinstance(outputs, torch.Tensor):
        return outputs.detach().requires_grad_() if outputs.requires_grad else outputs
    if isinstance(outputs, dict):
        return {name: as_leaves(value) for name, value in outputs.items()}
    return [as_leaves(value) for value in outputs] if isinstance(outputs, (list, tuple)) else outputs


def steps_in_turn(steps: dict[str, TrainingStep], repeats: int) -> dict[str, Any]:
    """Medians of `repeats` steps of each side, in turn, and ours ÷ torch.nn."""
    times: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for repeat in range(WARM_UP + repeats):
        for side in SIDES if repeat % 2 else reversed(SIDES):
            seconds = steps[side]()
            if repeat >= WARM_UP:
                times[side].append(seconds)
    result: dict[str, Any] = {}
    for side in SIDES:
        result[side] = {name: statistics.median(t[name] for t in times[side]) for name in ("step", *PARTS)}
        result[side] |= {"fastest": min(t["step"] for t in times[side]), "slowest": max(t["step"] for t in times[side])}
    result["ratio"] = {name: result["ours"][name] / result["reference"][name] for name in ("step", *PARTS)}
    return result


def compile_both(steps: dict[str, TrainingStep], what: str) -> dict[str, float]:
    """Have both sides' "blocks", or "whole" models, compiled by a first step; returns the seconds that it took."""
    torch.compiler.reset()
    for step in steps.values():
        for module in step.model.modules():
            module._compiled_call_impl = None  # what was compiled before
    compile_model(steps["ours"].model, what)
    theirs = steps["reference"].model
    for module in [theirs] if what == "whole" else theirs.modules():
        if what == "whole" or isinstance(module, REFERENCE_BLOCKS):
            module.compile(dynamic=False)
    seconds = {}
    for side, step in steps.items():
        start = time.perf_counter()
        step()
        seconds[side] = time.perf_counter() - start
    return seconds


def as_graphs(steps: dict[str, TrainingStep], repeats: int) -> dict[str, Any]:
    """Both sides' steps in turn, with each model's forward and backward as CUDA graphs; {} where one has none."""
    models = {side: step.model for side, step in steps.items()}
    for side, step in steps.items():
        step.model = GraphedModel(step.model, lambda line, side=side: print(f"{side}: {line}", flush=True))
    timed = steps_in_turn(steps, repeats)
    recorded = all(step.model.graphed is not None for step in steps.values())
    for side, step in steps.items():
        step.model.forget()
        step.model = models[side]
    return timed if recorded else {}


def measure(preset: str, shape: tuple[int, int, int], device: torch.device, precision: str,
            repeats: int, compiled: Sequence[str] = (), graph: bool = False) -> dict[str, Any]:
    """Both sides' steps in turn, and each side's peak memory; if asked for, the steps again as CUDA graphs, and with
    compiled "blocks" and "whole" models.
    """
    steps = {side: TrainingStep(side, preset, shape, device, precision) for side in SIDES}
    timed = steps_in_turn(steps, repeats)
    if compiled or graph:  # which may take long, or fail
        say_ratio(f"{preset}, eager", timed)
    objective = statistics.median(steps["ours"].objective() for _ in range(repeats))
    after: dict[str, Any] = {}
    if graph and (replayed := as_graphs(steps, repeats)):
        say_ratio(f"{preset}, as CUDA graphs", replayed)
        after["graph"] = replayed
    for what in compiled:
        result = {"compile_seconds": compile_both(steps, what), **steps_in_turn(steps, repeats)}
        say_ratio(f"{preset}, compiled, {what}", result)
        after[COMPILED[what]] = result
    del steps
    if device.type == "cuda":
        torch.cuda.empty_cache()  # free it for the processes that measure memory
    result: dict[str, Any] = {"preset": preset, "images": list(shape), "device": str(device), "precision": precision,
                              "repeats": repeats}
    result |= timed
    for side in SIDES:
        result[side]["peak_memory_gib"] = peak_memory_of(side, preset, shape, device, precision)
    result["ratio"]["peak_memory_gib"] = (result["ours"]["peak_memory_gib"] / result["reference"]["peak_memory_gib"])
    result["objective_share"] = objective / result["ours"]["step"]
    return result | after


def say_ratio(what: str, timed: dict[str, Any]) -> None:
    print(f"{what}: ours {timed['ours']['step']:.3f} s, torch.nn {timed['reference']['step']:.3f} s, ratio "
          f"{timed['ratio']['step']:.3f}", flush=True)


def peak_memory_of(side: str, preset: str, shape: tuple[int, int, int], device: torch.device, precision: str) -> float:
    """GiB that training `side` needs at its peak, measured in a process of its own."""
    batch_size, height, width = map(str, shape)
    command = [sys.executable, "-m", "benchmarks.training_step", "--memory-of", side, "--presets", preset,
               "--device", str(device), "--precision", precision, "--batch-size", batch_size, "--size", height, width]
    root = Path(__file__).resolve().parent.parent
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root).stdout)


def own_peak_memory(side: str, preset: str, shape: tuple[int, int, int], device: torch.device, precision: str) -> float:
    """The same of this process, which must not have done anything before; the second step knows AdamW's state."""
    before = 0.0 if device.type == "cuda" else resident_peak_gib(forget=True)
    step = TrainingStep(side, preset, shape, device, precision)
    step(), step()
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else resident_peak_gib() - before


def table(result: dict[str, Any]) -> str:
    """The table of one `measure`."""
    columns = {"ours": result["ours"], "torch.nn": result["reference"], "ratio": result["ratio"]}
    batch_size, height, width = result["images"]
    lines = [f"{result['preset']}: {batch_size}×3×{height}×{width}, {result['precision']}, {result['device']}, "
             f"medians of {result['repeats']}", f"  {'':14}" + "".join(f"{name:>10}" for name in columns)]
    labels = {"step": "step (s)"} | {part: f"  {part}" for part in PARTS} | {"peak_memory_gib": "memory (GiB)"}
    for name, label in labels.items():
        lines.append(f"  {label:14}" + "".join(f"{column[name]:10.3f}" for column in columns.values()))
    lines.append(f"  matching and losses with their backward: {100 * result['objective_share']:.1f} % of our step")
    for key, label in (("graph", "as graphs (s)"), ("compiled", "compiled (s)"), ("compiled_whole", "as a whole (s)")):
        if again := result.get(key):
            sides = [again["ours"], again["reference"], again["ratio"]]
            lines.append(f"  {label:14}" + "".join(f"{side['step']:10.3f}" for side in sides))
            if took := again.get("compile_seconds"):
                lines.append(f"  compiled in {took['ours']:.0f} s and {took['reference']:.0f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "tiny_vanilla", "detr_r50"], choices=list(DEFAULTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16", "fp16"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--compile", nargs="*", choices=list(COMPILED), help="also with both sides' blocks "
                        "compiled, or the whole models: minutes (without a word: blocks)")
    parser.add_argument("--graph", action="store_true", help="also with each model's forward and backward as "
                        "CUDA graphs")
    parser.add_argument("--fresh-memory", action="store_true", help="give dropped memory back to the system, on a CPU, "
                        "and ask for it again: what scratch/training/heap.py spares")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    machine: dict[str, Any] = {
        "torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()}
    results = []
    for preset in arguments.presets:
        batch_size, height, width = DEFAULTS[preset]
        shape = (arguments.batch_size or batch_size, *(arguments.size or (height, width)))
        if arguments.memory_of:
            print(own_peak_memory(arguments.memory_of, preset, shape, device, arguments.precision))
            return
        compiled = () if arguments.compile is None else arguments.compile or ["blocks"]
        results.append(measure(preset, shape, device, arguments.precision, arguments.repeats, compiled,
                               arguments.graph))
        print(f"\n{table(results[-1])}", flush=True)
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    if device.type == "cpu":
        machine["gflops"] = multiplying()
        print(told(machine["gflops"]))
    if arguments.json:
        figures = {"machine": machine, "results": results}
        write_text(arguments.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    if not {"--memory-of", "--fresh-memory"} & set(sys.argv):
        keep_freed_memory()  # as in training, for both sides
    with ends_in_a_line():
        main()
