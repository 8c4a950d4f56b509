"""half_start: how many of the first steps does fp16 lose to overflow?

    python -m benchmarks.half_start --preset detr_141m_fast --side 96 --batch-size 4 --steps 30

A GPU without bf16 (a T4, for one) trains in fp16. Its largest number is 65504, so the gradients of a scaled loss may
overflow; the step is then skipped and the scale halved (scratch/training/precision.py). At the start of a run, when no
gradient has been seen yet, the scale may be far too large.

This runs on a CPU, with the rounding of a GPU: matrix products of half-precision operands are computed in float32 and
their results rounded to half, once (`RoundedOnce`), everything else that is half is half here as well, and the code
takes its GPU paths where they round differently (attention's factors, batch norm). The order of sums differs.
The images are the generated shapes, the model and its training those of the preset; the warm-up counts in steps.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from commands.opening import make_criterion
from scratch.config import PRESETS, RESNETS, Config
from scratch.data.batch import Batch, collate
from scratch.data.shapes import OUTLINES, draw_scene
from scratch.model.build import build_detr
from scratch.program import ends_in_a_line
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.training.precision import FIRST_SCALE
from scratch.training.run import Run

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


class RoundedOnce(TorchDispatchMode):
    """While it is active, half-precision products are computed in float32 and rounded at the end, as on a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        low = args[-1].dtype if args and isinstance(args[-1], Tensor) else None
        if low not in (torch.float16, torch.bfloat16) or func.overloadpacket.__name__ not in PRODUCTS or "out" in kwargs:
            return func(*args, **kwargs)
        return func(*(arg.float() for arg in args), **kwargs).to(low)


@dataclass(frozen=True)
class Start:
    """The first steps of a run: which were skipped, and the loss of each."""

    skipped: list[int]
    scales: list[float]
    losses: list[float]


def start(config: Config, side: int, batch_size: int, steps: int, directory: Path, narrate: bool = False) -> Start:
    """Take the first `steps` steps of a run in fp16, on squares of `side` pixels."""
    config = replace(config, model=replace(config.model, num_classes=len(OUTLINES)),
                     train=replace(config.train, precision="fp16", batch_size=batch_size, max_minutes=None,
                                   max_steps=10_000))
    torch.manual_seed(config.train.seed)
    model, criterion = build_detr(config.model), make_criterion(config)
    classes = {"ids": list(range(1, len(OUTLINES) + 1)), "names": list(OUTLINES)}
    run = Run(model, criterion, config, classes, directory, Distributed(0, 1, torch.device("cpu")))
    skipped, scales, losses = [], [], []
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(mock.patch("scratch.ops.fast.tiled_attention._raises", lambda x: False))
        stack.enter_context(mock.patch("scratch.ops.fast.batch_norm._in_half", is_half))
        stack.enter_context(RoundedOnce())
        for step in range(steps):
            before = run.precision.scaler.get_scale()
            record = train_step(run, [shapes(batch_size, side, step)])
            run.advance(1)
            after = run.precision.scaler.get_scale()
            if after < before:
                skipped.append(step)
            scales.append(before)
            losses.append(record["loss"])
            if narrate:
                print(f"{step:4}  {before:10,.0f}  {record['loss']:.2f}{'  skipped' if after < before else ''}", flush=True)
    return Start(skipped, scales, losses)


def is_half(x: Tensor) -> bool:
    return x.dtype in (torch.float16, torch.bfloat16)


def shapes(count: int, side: int, seed: int) -> Batch:
    """`count` pictures of the generated shapes, as squares."""
    samples = []
    for i in range(count):
        pixels, objects = draw_scene(np.random.default_rng((seed, i)))
        height, width = pixels.shape[:2]
        x, y, w, h = torch.tensor([o["bbox"] for o in objects], dtype=torch.float32).T
        boxes = torch.stack(((x + w / 2) / width, (y + h / 2) / height, w / width, h / height), dim=1)
        picture = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
        samples.append((torch.from_numpy(picture.transpose(2, 0, 1).copy()),
                        {"labels": torch.tensor([o["label"] for o in objects]), "boxes": boxes, "image_id": i,
                         "orig_size": (height, width), "size": (side, side)}))
    return collate(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="detr_141m_fast", choices=list(PRESETS))
    parser.add_argument("--side", type=int, default=96, help="pixels of a side")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--first-scale", type=float, default=FIRST_SCALE, help="of the loss")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], help="another one than the preset's: on a CPU, Muon's "
                        "products take most of the time, and in the warm-up weights hardly move")
    parser.add_argument("--width", type=int, help="channels of the backbone's first stage, instead of 64 (tiny: 16), and "
                        "the transformer narrower by as much: a model of the same depth that a CPU trains in minutes")
    parser.add_argument("--zero-init-residual", action=argparse.BooleanOptionalAction,
                        help="residual blocks begin as their shortcut; left out: as the preset says")
    arguments = parser.parse_args()
    config = PRESETS[arguments.preset]
    print("step  loss scale  loss")
    if arguments.zero_init_residual is not None:
        config = replace(config, model=replace(config.model, zero_init_residual=arguments.zero_init_residual))
    block, depths, usual = RESNETS[config.model.backbone]
    width = arguments.width or usual
    config = replace(config, model=replace(config.model, hidden_dim=config.model.hidden_dim * width // usual))
    if arguments.optimizer:
        config = replace(config, train=replace(config.train, optimizer=arguments.optimizer))
    with tempfile.TemporaryDirectory() as folder, \
            mock.patch("scratch.training.precision.FIRST_SCALE", arguments.first_scale), \
            mock.patch.dict(RESNETS, {config.model.backbone: (block, depths, width)}):
        result = start(config, arguments.side, arguments.batch_size, arguments.steps, Path(folder),
                       narrate=True)
    print(f"{arguments.preset}, {arguments.batch_size} images of {arguments.side}×{arguments.side}, width {width}: "
          f"{len(result.skipped)} of the first {arguments.steps} steps skipped")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
