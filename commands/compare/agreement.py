"""agreement: does our detector compute the same as torch.nn, also while it learns?

    one batch ─┬─▶ ours ─────▶ loss aₜ ─▶ gradient ─▶ step        aₜ − bₜ over |aₜ|, t = 1 … 50
               └─▶ torch.nn ─▶ loss bₜ ─▶ gradient ─▶ step

Both begin at the same weights and see the same batches, augmented alike, at the rates of the run's
beginning. Dropout is off, for the two draw their masks in another order. From the second step on a
loss also tells whether all gradients and the optimizer's step before it were the same: a mistake
there, in any of the millions of weights, moves it.

In float64 (53 bits) rounding stays far below what a mistake would do, though training amplifies it:
a relu near its kink, or a matching that is nearly a tie, falls to the other side. In float32 one
step's rounding is already 5e8 times as large. So that difference is told, not bounded.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import torch
from torch import nn
from tqdm import tqdm

from commands.compare.one_run import begin
from commands.opening import open_split, prepare_data, resolve_device
from scratch.analysis.comparison import relative_differences
from scratch.config import Config
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step

DTYPES = {"float64": torch.float64, "float32": torch.float32}
SIDES = ("ours", "torch_nn")


def agreement(config: Config, steps: int, device: str, precisions: Sequence[str] = tuple(DTYPES)) -> dict[str, Any]:
    """Train both for `steps` steps side by side, in each precision.

    Returns for each precision the losses "ours" and "torch_nn", the "largest" relative difference, and "at_step"
    (counted from 1). Nothing is saved.
    """
    distributed = Distributed.from_environment(resolve_device(device, float64="float64" in precisions))
    prepare_data(config.data, distributed, config.model)
    dataset = open_split(config.data, "train", Augmentation.for_training(config.data), config.train.seed)
    # By steps, never by the clock: its rates would depend on the machine. And not past the end, where they are 0.
    end = max(config.train.max_steps, steps) if config.train.max_steps else None
    config = replace(config, model=replace(config.model, dropout=0.0, num_classes=len(dataset.classes)),
                     train=replace(config.train, precision="float32", max_minutes=None, max_steps=end, ema_decay=0.0))
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return {precision: _side_by_side(config, dataset, steps, distributed, precision) for precision in precisions}
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed


def _side_by_side(config: Config, dataset: Any, steps: int, distributed: Distributed, precision: str) -> dict[str, Any]:
    loader, sampler = make_loader(dataset, config.train.batch_size, train=True, workers=config.data.workers,
                                  seed=config.train.seed, device_type=distributed.device.type)
    runs = {side: begin(side, config, dataset.classes, Path(), distributed, dtype=DTYPES[precision]) for side in SIDES}
    for run in runs.values():
        run.batches_per_epoch = len(sampler)
        run.model.register_forward_pre_hook(_in_its_precision)
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    groups = _groups(loader, sampler, config.train.accumulate)
    for batches in tqdm(islice(groups, steps), total=steps, desc=precision, unit="step", disable=None):
        for side, run in runs.items():
            losses[side].append(train_step(run, batches)["loss"])
            run.advance(len(batches))
    apart = relative_differences(losses["ours"], losses["torch_nn"])
    at = max(range(steps), key=apart.__getitem__)
    return {**losses, "largest": apart[at], "at_step": at + 1}


def _in_its_precision(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A Batch's pixels are float32; a model in float64 takes the same numbers in its own."""
    images, *rest = inputs
    return (images.to(next(model.parameters()).dtype), *rest)


def _groups(loader: Iterable[Any], sampler: Any, size: int) -> Iterator[list[Any]]:
    """The batches of each optimizer step, epoch after epoch, as `fit` takes them."""
    for epoch in count():
        sampler.set_position(epoch)
        batches = iter(loader)
        while group := list(islice(batches, size)):
            yield group
