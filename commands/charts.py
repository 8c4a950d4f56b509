"""charts: what happens inside a detector in its first batches, layer by layer?"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Iterator, Optional

import torch
from tqdm import tqdm

from commands.opening import make_criterion, open_split, parameter_count, prepare_data, resolve_device
from scratch.analysis.layer_charts import INDEX, draw_set
from scratch.analysis.layer_record import LayerRecord, data_file, read_layers
from scratch.analysis.layer_watch import LayerWatch
from scratch.analysis.names import code
from scratch.blueprint import read_state
from scratch.config import Config
from scratch.data.check import check_dataset
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.only_one import only_one
from scratch.printable import command, printable
from scratch.ranges import Range, refuse_senseless
from scratch.training.checkpoint import latest_checkpoint
from scratch.training.content import run_config
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.training.run import Run


@dataclass(frozen=True)
class ChartsArguments:
    """Train for some batches and draw what happens in every layer: weights, activations, gradients, attention.

    The steps are those that `train` would take with the same flags. Nothing is evaluated, and nothing but the charts,
    their index.md and the data behind them is written.
    """

    out: Path
    """the folder of the charts, such as hyper_parameter_tuning_charts/v1; its vN ends the files' names"""
    config: Config
    checkpoint: Optional[Path] = None
    """go on from this run's folder or checkpoint, with its configuration; None: begin at random weights"""
    batches: int = 30
    """optimizer steps to watch"""
    timed: int = 4
    """steps that are then taken twice, watched and not, to measure what watching costs; 0: none"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    redraw: bool = False
    """only draw the charts of --out again from the data beside them"""

    def __post_init__(self) -> None:
        refuse_senseless(self, batches=Range(1, 10**6), timed=Range(0, 10_000))


def charts(arguments: ChartsArguments) -> None:
    """Collect (or with --redraw read) the figures, and draw them."""
    with nullcontext() if arguments.redraw else only_one(arguments.out):
        if not arguments.redraw:
            if not data_file(arguments.out).exists():
                collect(arguments).save(arguments.out)
            elif left_undrawn(arguments):
                print("the data is there, of the same command, which was stopped while it drew: drawing goes on")
            else:
                raise FileExistsError(f"{arguments.out} already holds a set of charts: name another --out, or add "
                                      f"--redraw to draw this one again ({data_file(arguments.out).name} is its data: "
                                      "without it the set is made anew)")
        drawn = draw_set(read_layers(arguments.out), arguments.out)
    print(f"{len(drawn)} charts → {printable(arguments.out / INDEX)}")


def left_undrawn(arguments: ChartsArguments) -> bool:
    """Was the same command stopped after it had written the data, and before the last of its files?"""
    if (arguments.out / INDEX).exists():
        return False
    try:
        return read_layers(arguments.out)["about"]["asked"] == asked(arguments)
    except (ValueError, TypeError, KeyError):  # another file, or one of a version before
        return False


def asked(arguments: ChartsArguments) -> str:
    """What the data of a set depends on. As a text: numbers lose digits in the data."""
    return json.dumps({"config": arguments.config.to_dict(), "checkpoint": str(arguments.checkpoint),
                       "batches": arguments.batches, "timed": arguments.timed}, sort_keys=True)


def collect(arguments: ChartsArguments) -> LayerRecord:
    """Train for `batches` steps under a watch; what it saw."""
    config = arguments.config
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    if distributed.world_size > 1:
        raise ValueError(f"got {distributed.world_size} processes, wanted one: start charts without torchrun")
    run, loader, sampler = open_run(config, arguments.checkpoint, arguments.out, distributed)
    clip_max_norm = run.config.train.clip_max_norm
    watch = LayerWatch(run.unwrapped, run.optimizer)
    record = LayerRecord(watch.units, clip_max_norm, run.criterion.weight_dict)
    print(f"{config.preset}: {parameter_count(run.unwrapped)} on {run.device} in {run.precision.name}; watching "
          f"{len(watch.units)} places in {arguments.batches} steps", flush=True)

    steps = endless(run, loader, sampler)
    stopped, kept, first = "", 1.0, run.step
    with watch:
        for batches in tqdm(islice(steps, arguments.batches), total=arguments.batches, desc="watch", disable=None):
            try:
                losses = train_step(run, batches)
            except FloatingPointError as error:  # what led to it is worth more than the traceback
                stopped = str(error)
                break
            left = record.kept(losses["grad_norm"])
            figures = watch.figures(left)
            if figures is not None:
                record.add(run.step - first + 1, losses, figures, run.learning_rates())
                kept = left
                if len(record.content["batches"]) == 1:
                    record.content["histograms"]["first"] = watch.histograms(kept)
            run.advance(len(batches))
        if not record.content["batches"]:
            raise ValueError(stopped or f"the loss scaler of fp16 skipped all of {arguments.batches} steps, as it does "
                             "until its scale fits: add --batches, or take --precision bf16")
        record.content["histograms"]["last"] = watch.histograms(kept)
    try:
        cost = {} if stopped else measure_cost(run, watch, batches, arguments.timed)
    except FloatingPointError as error:
        cost, stopped = {}, f"in the steps that are timed, after the {len(record.content['batches'])} batches: {error}"
    record.content["about"] = about(arguments, run, first, cost) | ({"stopped": stopped} if stopped else {})
    for line in (stopped, record.content["about"].get("cost_words")):
        if line:
            print(line)
    return record


def open_run(config: Config, checkpoint: Optional[Path], out: Path,
             distributed: Distributed) -> tuple[Run, Any, Any]:
    """A run as `train` would begin it (or go on with it), its loader and its sampler."""
    data, share = config.data, dict(workers=config.data.workers, seed=config.train.seed,
                                    device_type=distributed.device.type)
    prepare_data(data, distributed, config.model)
    report = check_dataset(data, config.most_found, decode=False, only=("train",), need=("train",))
    report.refuse()
    train_set = open_split(data, "train", Augmentation.for_training(data), config.train.seed, left_out=report.left_out)
    loader, sampler = make_loader(train_set, config.train.batch_size, train=True, **share)
    torch.manual_seed(config.train.seed)  # the weights that train would draw
    config = replace(config, model=replace(config.model, num_classes=len(train_set.classes.ids)))
    model = build_detr(config.model).to(distributed.device)
    freeze_backbone(model, config.train.train_backbone)
    run = Run(model, make_criterion(config), config, train_set.classes.to_dict(), out, distributed)
    torch.manual_seed(config.train.seed)
    run.batches_per_epoch = len(sampler)
    if checkpoint is not None:
        run.resume(checkpoint_file(checkpoint))
        if run.finished():
            print("note: this run is at its end, where its schedule may have left no learning rate; a larger "
                  "--max-minutes, --max-steps or --epochs gives it more")
    return run, loader, sampler


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a person means: the file, or the last one of a run's folder. Raises FileNotFoundError."""
    found = latest_checkpoint(path) if path.is_dir() else path if path.exists() else None
    if found is None:
        raise FileNotFoundError(f"there is no checkpoint at {path}: name the folder of a run, or a checkpoint file")
    return found


def config_of(checkpoint: Path) -> Config:
    """The configuration that a checkpoint was trained with."""
    return run_config(read_state(checkpoint_file(checkpoint), training=True))


def endless(run: Run, loader: Any, sampler: Any) -> Iterator[list[Any]]:
    """The batches of one optimizer step after the other, epoch after epoch, from where the run stands."""
    while True:
        sampler.set_position(run.epoch, run.batch)
        batches = iter(loader)
        while group := list(islice(batches, run.config.train.accumulate)):
            yield group
        run.close_epoch()


def measure_cost(run: Run, watch: LayerWatch, batches: list[Any], count: int) -> dict[str, Any]:
    """Seconds of a step without and with the watch, `count` of each in turn, over one and the same batches."""
    waits = {"cuda": partial(torch.cuda.synchronize, run.device), "mps": torch.mps.synchronize}
    wait = waits.get(run.device.type, lambda: None)
    plain: list[float] = []
    watched: list[float] = []

    def timed(times: list[float], look: bool) -> None:
        wait()
        started = time.perf_counter()
        train_step(run, batches)
        if look:
            watch.figures()
        wait()
        times.append(time.perf_counter() - started)

    for _ in range(count):
        timed(plain, look=False)
        with watch:
            timed(watched, look=True)
    if not count:
        return {}
    return {"plain_seconds": plain, "watched_seconds": watched, "ratio": median(watched) / median(plain)}


def about(arguments: ChartsArguments, run: Run, first: int, cost: dict[str, Any]) -> dict[str, Any]:
    """What was trained, how, and what the watching cost: the words of index.md, and the configuration itself."""
    config, train = run.config, run.config.train
    effective = f"{train.batch_size} × {train.accumulate}" if train.accumulate > 1 else f"{train.batch_size}"
    device = (torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else
              "Mac's GPU" if run.device.type == "mps" else "CPU")
    words = {
        "preset": config.preset, "parameters": parameter_count(run.unwrapped),
        "trained_on": f"{config.data.train_images or config.data.data}, {effective} images a step, short side "
                      f"{config.data.short_side}, {run.precision.name} on a {device}, PyTorch {torch.__version__}",
        "start": f"{arguments.checkpoint}, step {first}" if arguments.checkpoint else
                 f"random weights, seed {train.seed}",
        "rates": ", ".join(f"{group['name']} {group['initial_lr']:g}" for group in run.optimizer.param_groups)
                 + f"; {train.schedule}, {train.warmup_steps} steps of warm-up; "
                 + (f"gradients cut to {train.clip_max_norm:g}" if train.clip_max_norm else "no clipping"),
        "command": code(command("python", "detr_scratch.py", *sys.argv[1:])) if sys.argv[1:2] == ["charts"] else "",
        "config": config.to_dict(), "asked": asked(arguments), "cost": cost}
    if cost:
        plain, watched = (median(cost[name]) for name in ("plain_seconds", "watched_seconds"))
        words["cost_words"] = (f"a watched step takes {watched:.3g} s, one that is not {plain:.3g} s: "
                               f"{cost['ratio']:.2f} times (medians of {len(cost['plain_seconds'])} each, in turn)")
    return words
