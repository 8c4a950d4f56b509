"""training_step: what does one training step cost, ours beside torch.nn?

    python -m benchmarks.training_step                          # tiny and detr_r50 on the CPU
    python -m benchmarks.training_step --presets detr_141m --device cuda --precision bf16 --batch-size 16 --size 512 512

Both sides hold the same weights, see the same batch and run in one process, in turn, so that whatever else the machine
does hits both: what counts is the ratio of the medians. A step is forward, matching and loss, backward, clipping, AdamW.
The peak memory is that of one process each on a CPU (resident set, less what was there before the step), and of the
allocator on a GPU.
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
from pathlib import Path
from typing import Callable

import torch

from reference import build_reference
from reference.objective import ReferenceCriterion
from scratch.config import PRESETS
from scratch.model.detr import build_detr, freeze_backbone
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.training.log import peak_memory_gib
from scratch.training.optimizer import AdamW, clip_grad_norm_, parameter_groups

PARTS = ("forward", "objective", "backward", "optimizer")
# preset → images, height, width: what the preset sees at home
DEFAULTS = {"tiny": (16, 128, 171), "detr_r50": (2, 480, 640), "detr_141m": (2, 256, 256)}


def batch_for(preset: str, batch_size: int, height: int, width: int, device: torch.device) -> tuple:
    """Random normalised images, one of them a little narrower than the batch, with 7 boxes each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, height, width, generator=generator)
    pad_mask = torch.zeros(batch_size, height, width, dtype=torch.bool)
    pad_mask[-1, :, width * 7 // 8:] = True
    images.masked_fill_(pad_mask[:, None], 0.0)
    targets = []
    for i in range(batch_size):
        centres = torch.rand(7, 2, generator=generator) * 0.6 + 0.2
        sizes = torch.rand(7, 2, generator=generator) * 0.3 + 0.05
        labels = torch.randint(PRESETS[preset].model.num_classes, (7,), generator=generator)
        targets.append({"boxes": torch.cat([centres, sizes], 1).to(device), "labels": labels.to(device), "image_id": i,
                        "orig_size": (height, width), "size": (height, width)})
    return images.to(device), pad_mask.to(device), targets


def make_step(side: str, preset: str, shape: tuple[int, int, int], device: torch.device, precision: str) -> Callable[[], dict[str, float]]:
    """A function that does one training step of `side` ("ours" or "reference") and returns the seconds of each part."""
    config = PRESETS[preset]
    torch.manual_seed(0)
    ours = build_detr(config)
    freeze_backbone(ours, config.train.train_backbone)
    matcher = HungarianMatcher(config.loss.set_cost_class, config.loss.set_cost_bbox, config.loss.set_cost_giou)
    model, criterion = ours, SetCriterion(config.model.num_classes, matcher, config.loss)
    if side == "reference":
        model, criterion = build_reference(config.model), ReferenceCriterion(config.model.num_classes, config.loss)
        model.load_state_dict(ours.state_dict())
        for name, parameter in ours.named_parameters():
            model.get_parameter(name).requires_grad_(parameter.requires_grad)
    model.to(device).train()
    groups = parameter_groups(model, config.train)
    optimizer = AdamW(groups) if side == "ours" else torch.optim.AdamW([{k: v for k, v in g.items() if k != "name"} for g in groups])
    clip = clip_grad_norm_ if side == "ours" else torch.nn.utils.clip_grad_norm_
    parameters = [p for p in model.parameters() if p.requires_grad]
    images, pad_mask, targets = batch_for(preset, *shape, device)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step() -> dict[str, float]:
        marks = [now()]
        with torch.autocast(device.type, low) if low else nullcontext():
            outputs = model(images, pad_mask)
        marks.append(now())
        loss = criterion.total(criterion(outputs, targets))
        marks.append(now())
        loss.backward()
        marks.append(now())
        clip(parameters, config.train.clip_max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(now())
        return dict(zip(PARTS, (b - a for a, b in zip(marks, marks[1:]))))

    return step


def measure(preset: str, shape: tuple[int, int, int], device: torch.device, precision: str, repeats: int) -> dict:
    """Medians of `repeats` steps of each side, in turn, after two of each to warm up."""
    steps = {side: make_step(side, preset, shape, device, precision) for side in ("ours", "reference")}
    times: dict[str, list[dict[str, float]]] = {side: [] for side in steps}
    for repeat in range(repeats + 2):
        for side, step in steps.items():
            seconds = step()
            if repeat >= 2:
                times[side].append(seconds)
    result: dict = {"preset": preset, "images": list(shape), "device": str(device), "precision": precision, "repeats": repeats}
    for side in steps:
        totals = [sum(t.values()) for t in times[side]]
        result[side] = {"step": statistics.median(totals), "fastest": min(totals), "slowest": max(totals),
                        **{part: statistics.median(t[part] for t in times[side]) for part in PARTS}}
        result[side]["peak_memory_gib"] = peak_memory_of(side, preset, shape, device, precision)
    result["ratio"] = {key: result["ours"][key] / result["reference"][key] for key in ("step", *PARTS, "peak_memory_gib")}
    return result


def peak_memory_of(side: str, preset: str, shape: tuple[int, int, int], device: torch.device, precision: str) -> float:
    """GiB that two steps of `side` need at their peak, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.training_step", "--memory-of", side, "--presets", preset, "--device", str(device),
               "--precision", precision, "--batch-size", str(shape[0]), "--size", str(shape[1]), str(shape[2])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "detr_r50"], choices=list(DEFAULTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16", "fp16"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--memory-of", choices=["ours", "reference"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    results = []
    for preset in arguments.presets:
        images, height, width = DEFAULTS[preset]
        shape = (arguments.batch_size or images, *(arguments.size or (height, width)))
        if arguments.memory_of:
            step = make_step(arguments.memory_of, preset, shape, device, arguments.precision)
            before = 0.0 if device.type == "cuda" else peak_memory_gib(device)
            step(), step()
            print(peak_memory_gib(device) - before)
            return
        results.append(measure(preset, shape, device, arguments.precision, arguments.repeats))
        r = results[-1]
        print(f"\n{preset}: {shape[0]}×3×{shape[1]}×{shape[2]}, {arguments.precision}, {device}, medians of {arguments.repeats}")
        print(f"  {'':16}{'ours':>10}{'torch.nn':>10}{'ratio':>8}")
        for key in ("step", *PARTS):
            print(f"  {key + ' (s)':16}{r['ours'][key]:10.3f}{r['reference'][key]:10.3f}{r['ratio'][key]:8.2f}")
        print(f"  {'memory (GiB)':16}{r['ours']['peak_memory_gib']:10.2f}{r['reference']['peak_memory_gib']:10.2f}"
              f"{r['ratio']['peak_memory_gib']:8.2f}", flush=True)
    if arguments.json:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
