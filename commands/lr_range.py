"""lr-range: up to which learning rate is training stable?

    python detr_scratch.py lr-range --preset tiny --out FOLDER --from 1e-5 --to 1 --steps 150

The ordinary model, batches and training step; only the schedule is another one: the rate rises by
the same factor in each step, until the loss blows up. The other rates stay at what the
configuration says, without warm-up or decay, unless all of them rise together (--of all). How it is
read: scratch/analysis/lr_range.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Iterator, Literal, Optional

import torch
import tyro
from torch.optim import Optimizer
from tqdm import tqdm

from commands.opening import make_criterion, open_split, prepare_data, resolve_device
from scratch.analysis.lr_range import draw, in_words, rate_at
from scratch.analysis.records import believed, read_record
from scratch.config import Config
from scratch.data.check import check_dataset
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.only_one import only_one
from scratch.printable import printable
from scratch.ranges import Range, refuse_senseless
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.training.run import Run
from scratch.whole_file import write_json

MADE_BY = "detr_scratch.py lr-range"
BLOWN_UP = 4.0  # times the lowest: fastai's and Lightning's finders stop there, too
LATEST = 3  # steps whose mean is compared: a single batch may be hard

# The optimizer's groups that each rate of the configuration steps.
GROUPS = {"lr": ("transformer",), "lr_backbone": ("backbone",),
          "lr_matrices": ("backbone_matrices", "transformer_matrices"),
          "all": ("transformer", "backbone", "backbone_matrices", "transformer_matrices")}


@dataclass(frozen=True)
class LrRangeArguments:
    """Let a learning rate rise step by step, and see where the loss falls fastest and where it blows up."""

    config: Config
    out: Path
    """folder for lr_range.json and lr_range.png"""
    low: Annotated[float, tyro.conf.arg(name="from")] = 1e-5
    """the rate of the first step"""
    high: Annotated[float, tyro.conf.arg(name="to")] = 1.0
    """the rate of the last step"""
    steps: int = 150
    """optimizer steps in between"""
    of: Literal["lr", "lr_backbone", "lr_matrices", "all"] = "lr"
    """which rate rises; all: the others in proportion to lr"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    redraw: bool = False
    """only draw again, from lr_range.json in the folder"""

    def __post_init__(self) -> None:
        rate = Range(0, 10**6, "low")
        refuse_senseless(self, low=rate, high=rate, steps=Range(1, 10**6))


class Rising:
    """In the place of a run's schedule: one rate rises by a factor in each step, the others stay."""

    def __init__(self, optimizer: Optimizer, arguments: LrRangeArguments) -> None:
        self.arguments, self.rates = arguments, []
        self.groups = [group for group in optimizer.param_groups if group["name"] in GROUPS[arguments.of]]
        if not self.groups:
            raise ValueError(f"--of {arguments.of}: nothing in this configuration learns at that rate (lr_matrices is "
                             "Muon's, lr_backbone needs a backbone that is trained); wanted another rate")

    def set(self, step: int, progress: float) -> None:
        """Called by the training step with the steps done so far."""
        rate = rate_at(self.arguments.low, self.arguments.high, self.arguments.steps, step)
        self.rates.append(rate)
        for group in self.groups:
            together = self.arguments.of == "all"
            group["lr"] = rate * (group["initial_lr"] / self.arguments.config.train.lr if together else 1)


def lr_range(arguments: LrRangeArguments) -> None:
    """Write lr_range.json and lr_range.png; print what they say."""
    path = arguments.out / "lr_range.json"
    if arguments.redraw:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: name the folder of a range test")
        results = read_record(path, MADE_BY)
    else:
        refuse(arguments)
        with only_one(arguments.out):
            results = measure(arguments)
            write_json(path, results)
    picture = arguments.out / "lr_range.png"
    with believed(path, MADE_BY):
        draw(results, picture)
        print(*in_words(results), printable(picture), sep="\n")


def refuse(arguments: LrRangeArguments) -> None:
    """Raise ValueError for a range that is none."""
    if not 0 < arguments.low < arguments.high < math.inf:
        raise ValueError(f"got --from {arguments.low:g} --to {arguments.high:g}, wanted two rates above 0, rising")
    if arguments.steps < 10:
        raise ValueError(f"got --steps {arguments.steps}, wanted 10 or more: fewer make no curve")
    if arguments.of == "all" and not arguments.config.train.lr > 0:
        raise ValueError("got --lr 0 with --of all, wanted one above 0: the other rates rise in proportion to it")


def measure(arguments: LrRangeArguments) -> dict[str, Any]:
    """The content of lr_range.json: the rates and losses of all steps until the loss blew up."""
    run, batches = opened(arguments)
    run.schedule = schedule = Rising(run.optimizer, arguments)
    losses, stopped = [], None
    with tqdm(total=arguments.steps, disable=None, bar_format="{bar:20} {n_fmt}/{total_fmt} steps {desc}") as bar:
        while run.step < arguments.steps and stopped is None:
            try:
                loss = train_step(run, list(islice(batches, arguments.config.train.accumulate)))["loss"]
            except FloatingPointError:
                loss = math.nan
            if math.isfinite(loss):
                losses.append(loss)
            stopped = why_to_stop(loss, losses)
            run.advance(arguments.config.train.accumulate)
            bar.set_description_str(f"rate {schedule.rates[-1]:.2g} loss {loss:.4g}", refresh=False)
            bar.update()
    if len(losses) < LATEST:
        raise ValueError(f"the loss was not finite after {len(losses)} steps; wanted a lower --from than "
                         f"{arguments.low:g}")
    train, data = arguments.config.train, arguments.config.data
    return {"of": arguments.of, "preset": arguments.config.preset, "data": Path(data.train_images or data.data).name,
            "from": arguments.low, "to": arguments.high, "steps": arguments.steps,
            "configured": train.lr if arguments.of == "all" else getattr(train, arguments.of),
            "effective_batch": train.batch_size * train.accumulate, "seed": train.seed, "stopped": stopped,
            "rates": schedule.rates[:len(losses)], "losses": losses}


def why_to_stop(loss: float, losses: list[float]) -> Optional[str]:
    """In words; None as long as there is more to see."""
    if not math.isfinite(loss):
        return "the loss was no longer finite"
    means = [sum(losses[k:k + LATEST]) / LATEST for k in range(len(losses) - LATEST + 1)]
    return f"the loss was over {BLOWN_UP:g} times its lowest" if means and means[-1] > BLOWN_UP * min(means) else None


def opened(arguments: LrRangeArguments) -> tuple[Run, Iterator[Any]]:
    """A run as `train` would begin it, and its batches, epoch after epoch."""
    config, data = arguments.config, arguments.config.data
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    prepare_data(data, distributed, config.model)
    report = check_dataset(data, config.most_found, decode=False, only=("train",), need=("train",))
    report.refuse()
    dataset = open_split(data, "train", Augmentation.for_training(data), config.train.seed, left_out=report.left_out)
    loader, sampler = make_loader(dataset, config.train.batch_size, train=True, workers=data.workers,
                                  seed=config.train.seed, device_type=distributed.device.type)
    torch.manual_seed(config.train.seed)
    config = replace(config, model=replace(config.model, num_classes=len(dataset.classes.ids)))
    model = build_detr(config.model).to(distributed.device)
    freeze_backbone(model, config.train.train_backbone)
    run = Run(model, make_criterion(config), config, dataset.classes.to_dict(), arguments.out, distributed)
    run.batches_per_epoch = len(sampler)

    def batches() -> Iterator[Any]:
        for epoch in count():
            sampler.set_position(epoch)
            yield from loader

    return run, batches()
