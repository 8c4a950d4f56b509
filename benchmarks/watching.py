"""watching: how much slower is a training step that is watched?

    python -m benchmarks.watching                       # tiny on the CPU
    python -m benchmarks.watching --preset detr_141m_fast --device cuda --batch-size 16 --size 512 512 --steps 100

One run trains on as usual (`fit`), some steps watched, some with log.jsonl alone, in turn; batches come from memory.
Watched, or "on", is what is written at every step: TensorBoard's curves, and histograms of all weights and gradients in
every 50th step. It is not what an evaluation draws, the sheet of predictions and at the end the charts of the mistakes:
that is part of the evaluation's time, and there is none here. What counts is the ratio of the seconds a step, each a
mean over all steps of its kind: what is done now and then must count, too. The guards (scratch/training/guards.py)
watch both kinds; their own share is measured by calling them once more, their look at every step's record and their
reading of all gradients in every 100th.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import torch

from commands.opening import make_criterion
from scratch.config import PRESETS
from scratch.data.batch import Batch
from scratch.model.build import build_detr
from scratch.program import ends_in_a_line
from scratch.training.distributed import Distributed
from scratch.training.guards import EVERY, DeadLayers, Guards
from scratch.training.log import RunLog
from scratch.training.loop import fit
from scratch.training.run import Run
from scratch.whole_file import write_text

BLOCKS = 6  # of --steps steps, watched in every second one
HISTOGRAMS_EVERY = 50
NOTHING: dict[str, Any] = {"AP": 0.0, "split": "val", "losses": {}, "per_class": {}, "health": {}}  # of an evaluation


class Batches:
    """Some batches over and over, as `fit` wants its loader and its sampler."""

    def __init__(self, batches: list[Batch], count: int) -> None:
        self.batches, self.count, self.at = batches, count, 0

    def set_position(self, epoch: int, batch: int) -> None:
        self.at = batch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[i % len(self.batches)] for i in range(self.at, self.count))


def random_batches(count: int, batch_size: int, height: int, width: int) -> list[Batch]:
    """Random pictures of 7 boxes each, three classes."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for k in range(count):
        images = torch.randint(0, 256, (batch_size, 3, height, width), generator=generator, dtype=torch.uint8)
        targets = [{"labels": torch.randint(3, (7,), generator=generator), "image_id": k * batch_size + i,
                    "boxes": torch.rand(7, 4, generator=generator) * 0.3 + 0.1, "orig_size": (height, width),
                    "size": (height, width)} for i in range(batch_size)]
        batches.append(Batch(images, torch.zeros(batch_size, height, width, dtype=torch.bool), targets))
    return batches


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds a step, watched and not, and of the guards."""
    preset = PRESETS[arguments.preset]
    steps = arguments.steps
    config = replace(preset, model=replace(preset.model, num_classes=3),
                     train=replace(preset.train, max_minutes=None, max_steps=BLOCKS * steps, eval_every=10**9,
                                   checkpoint_every=10**9, precision=arguments.precision))
    device = torch.device(arguments.device)
    model = build_detr(config.model).to(device)
    run = Run(model, make_criterion(config), config, {}, folder, Distributed(0, 1, device))
    batches = Batches(random_batches(4, arguments.batch_size, *arguments.size), 10**9)

    def train(until: int, watched: bool) -> float:
        run.config = replace(config, train=replace(config.train, max_steps=until))
        log = RunLog(folder, run.step, tensorboard=watched)
        log.board.watch(run, HISTOGRAMS_EVERY if watched else 0)
        start, first = time.perf_counter(), run.step
        fit(run, batches, batches, log, lambda run: NOTHING)
        log.close()
        return (time.perf_counter() - start) / (run.step - first)

    train(3, watched=True)  # the first steps allocate, and import TensorBoard
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for block in range(BLOCKS):
        seconds[block % 2 == 0].append(train(3 + (block + 1) * steps, watched=block % 2 == 0))
    means = {name: sum(seconds[watched]) / len(seconds[watched]) for name, watched in (("on", True), ("off", False))}
    return {"preset": arguments.preset, "device": str(device), "steps": steps * BLOCKS // 2, "seconds": means,
            "ratio": means["on"] / means["off"], "guards_share": guards_seconds(run) / means["off"]}


def guards_seconds(run: Run, looks: int = 1000, readings: int = 10) -> float:
    """What the guards take of a step: their look at its record, and a share of the reading of all gradients."""
    guards = Guards(run)
    record = {"loss": 1.0, "data_wait_seconds": 0.0, "step_seconds": 1.0}
    start = time.perf_counter()
    for _ in range(looks):
        guards.look(run, record, [1, 2])
    looking = (time.perf_counter() - start) / looks
    for weight in run.parameters:
        weight.grad = torch.randn_like(weight)
    (dead_layers,) = [guard for guard in guards.guards if isinstance(guard, DeadLayers)]
    dead_layers.due = True
    dead_layers.read()  # the first one allocates, and on a GPU waits for what was begun before
    start = time.perf_counter()
    for _ in range(readings):
        dead_layers.read()  # ends with the shares on the host, so that a GPU's work is done
    run.optimizer.zero_grad(set_to_none=True)
    return looking + (time.perf_counter() - start) / readings / EVERY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, default=(144, 144), metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=50, help=f"of each of the {BLOCKS} blocks")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    print(f"{result['preset']} on {result['device']}, means of {result['steps']} steps: everything on "
          f"{1000 * result['seconds']['on']:.1f} ms, off {1000 * result['seconds']['off']:.1f} ms, ratio "
          f"{result['ratio']:.3f}; the guards take {result['guards_share']:.2%} of a step")
    if arguments.json:
        write_text(arguments.json, json.dumps(result) + "\n")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
