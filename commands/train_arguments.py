"""train_arguments: which configuration, and which folder, do the words after `train` and `finetune` mean?

    --resume    the configuration of the run that goes on ─┐
    --weights   that of the weights                        ├─ changed by the flags ─▶ TrainArguments
    --preset    that of the preset, else of the device     ┘

Read: TrainArguments → parse_train → parse_finetune → claimed
"""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Iterator, Literal, Optional, Sequence

from commands.finetune import config_for, frozen_norm, recipe, sized
from commands.flags import flags_given, parse, preset_config, presets_that_run
from commands.opening import newest_run, resolve_device
from commands.recipe import chosen_for, told
from scratch.blueprint import read_state
from scratch.config import PRESETS, Config
from scratch.only_one import NAME as LOCK
from scratch.only_one import only_one
from scratch.ranges import COUNT, Range, refuse_senseless
from scratch.recipe import applied
from scratch.training.checkpoint import LAST, PREVIOUS, latest_checkpoint
from scratch.training.content import run_config
from scratch.training.distributed import Distributed
from scratch.whole_file import write_text

LAUNCHER = ".launcher"  # in a run's folder: which torchrun began it, so that a restart may go on with it


@dataclass(frozen=True)
class TrainArguments:
    """Train a detector; evaluate it as it learns; keep the last and the best."""

    config: Config
    run_dir: Optional[Path] = None
    """where the run is kept; None: runs/PRESET-DATA, numbered"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    weights: Optional[str] = None
    """begin with these, as far as they fit: detr_r50 …, resnet50 …, hf:OWNER/NAME (fetched once), or a file; see
    scratch/weights/reading"""
    recipe: Literal["auto", "none"] = "auto"
    """auto: without --preset, the data chooses picture size, queries, augmentation, minutes and more (scratch/recipe),
    and each choice is told; none: the preset as it is. Given as a flag, auto does so for a named preset, too"""
    resume: bool = False
    """go on with the run in --run-dir, or with the newest one; other flags then change its configuration"""
    compile: bool = False
    """have the model's blocks compiled by torch.compile: minutes at first, faster steps then; every size of image for
    itself, so take --square with it (scratch/model/beyond/compiled). Attention then keeps all its weights: much memory
    where pictures have thousands of cells"""
    compile_whole: bool = False
    """have the model compiled as a whole: more minutes at first; take --square with it, a run of more than 64 sizes of
    batches would end; no denoising"""
    cuda_graph: bool = False
    """launch the model's forward and backward as one CUDA graph each, recorded from the first batch; batches of another
    size pass without it, so take --square with it (scratch/training/cuda_graph)"""
    profile: bool = False
    """say where the time of a step goes, and trace a few: RUN/profile"""
    tensorboard: bool = True
    """also write what TensorBoard shows: tensorboard --logdir runs"""
    histograms_every: int = 0
    """steps between two histograms of all weights and gradients in TensorBoard; 0: none"""
    ops: Optional[Path] = None
    """a folder of operations that you wrote (python -m exercises): they replace the notes', and the rest is in
    plain mode"""

    def __post_init__(self) -> None:
        refuse_senseless(self, histograms_every=Range(0, COUNT.high))
        if self.cuda_graph and (self.compiled or self.profile):
            other = "--profile" if self.profile else "--compile-whole" if self.compile_whole else "--compile"
            raise ValueError(f"got --cuda-graph with {other}: what is inside of a graph is out of its reach; leave one "
                             "of the two out")


    @property
    def compiled(self) -> Literal["", "blocks", "whole"]:
        """What is compiled, if anything."""
        return "whole" if self.compile_whole else "blocks" if self.compile else ""


def parse_train(argv: Sequence[str], tuning: bool = False) -> TrainArguments:
    """A preset's or a resumed run's configuration, changed by the flags; and a free folder, or the run's own."""
    given = flags_given(argv, "preset", "device", "run-dir", "resume", "weights", "recipe", "epochs", "max-steps")
    begun = begun_by_this_launcher(given.run_dir)
    if begun is not None and latest_checkpoint(begun) is not None:  # for any flags: it was begun with them
        given.resume, given.run_dir, given.weights = True, begun, None
    elif given.resume and restarts() and given.run_dir and latest_checkpoint(Path(given.run_dir)) is None:
        given.resume = False  # it goes on, each time, with what there is: at first with nothing
    if given.resume:
        if given.weights:
            raise ValueError("a run that goes on has weights of its own: leave --weights out")
        run_dir = Path(given.run_dir) if given.run_dir else newest_run()
        last = latest_checkpoint(run_dir)
        if last is None:
            raise FileNotFoundError(f"there is no checkpoint in {run_dir} to resume from: leave --resume out to start "
                                    "there")
        config = run_config(read_state(last, training=True))
        if given.preset not in (None, config.preset):
            raise ValueError(f"{run_dir} was begun with the preset {config.preset}, and cannot go on as "
                             f"{given.preset}: leave --preset out")
        going_on: TrainArguments = parse(TrainArguments, TrainArguments(config, run_dir), "train", argv)
        return replace(going_on, resume=True, weights=None)
    device = resolve_device(given.device or "auto")
    weights = given.weights or ("detr_r50" if tuning else None)
    meant = config_for(weights) if weights and not given.preset else None
    config = meant or preset_config(given.preset, device)
    config = sized(config, weights) if weights and not meant else config
    if weights:  # of a preset that was named, too; --norm and --grow change it again
        config = frozen_norm(config)
        config = replace(config, data=replace(config.data, grow=0.0))  # they have learnt from whole pictures already
    default = TrainArguments(recipe(config) if tuning else config, weights=weights)
    arguments: TrainArguments = parse(TrainArguments, default, "finetune" if tuning else "train", argv)
    headline, choices = "", []
    if recipe_is_wanted(given.recipe, given.preset, weights, config):
        headline, choices = chosen_for(
            config, arguments.config.data, device, bool(given.epochs or given.max_steps),
            lambda chosen: parse(TrainArguments, replace(default, config=chosen), "train", argv).config)
        if given.recipe == "auto" and not choices and os.environ.get("RANK", "0") == "0":
            print("note: there is no recipe for this data: the presets are made for the generated shapes, and data that has "
                  "no box, or cannot be read, says nothing")
        arguments = parse(TrainArguments, replace(default, config=applied(config, choices)), "train", argv)
    if given.preset is None and meant is None and os.environ.get("RANK", "0") == "0":
        here = {"cuda": "there is a GPU", "mps": "on a Mac's GPU"}.get(device.partition(":")[0], "no GPU in use")
        print(f"preset {arguments.config.preset}: {here} "
              f"(--preset {'|'.join(presets_that_run())} chooses another)")
    if choices and os.environ.get("RANK", "0") == "0":
        print(told(headline, choices, arguments.config))
    arguments = replace(arguments, run_dir=arguments.run_dir or begun, resume=False)
    refuse_begun(arguments)
    return arguments


def recipe_is_wanted(asked: Optional[str], preset: Optional[str], weights: Optional[str], config: Config) -> bool:
    """Does the data choose? By itself where no preset is named, and for detectors that learn in minutes from nothing.

    Raises ValueError where it is asked for and cannot.
    """
    can = weights is None and config.model.queries != "learned"
    if asked == "auto" and not can:
        raise ValueError(f"got --recipe auto {'with trained weights' if weights else f'with {config.preset}'}: it is made "
                         "for presets that learn in minutes from nothing (tiny, detr_r50_fast, detr_141m_fast); leave it out")
    return can and asked != "none" and (asked == "auto" or preset is None)


def parse_finetune(argv: Sequence[str]) -> TrainArguments:
    """As for `train`, but from trained weights, and with the recipe of commands/finetune.py."""
    return parse_train(argv, tuning=True)


# -- the folder ----------------------------------------------------------------------------------------------------


def refuse_begun(arguments: TrainArguments) -> None:
    """Raise FileExistsError where a run would begin over another one."""
    run_dir = arguments.run_dir
    if run_dir is not None and not arguments.resume and any((run_dir / name).exists() for name in (LAST, PREVIOUS)):
        raise FileExistsError(f"{run_dir} already holds a run: add --resume to go on with it, or name another "
                              "--run-dir")


@contextmanager
def claimed(arguments: TrainArguments, distributed: Distributed) -> Iterator[Path]:
    """The run's folder, for this command alone; a new one if none was named. A new one goes if nothing came of it.

    One rank chooses and locks it for all. Raises OSError, on every rank, if another command works there.
    """
    with ExitStack() as held:
        answer: list[Path | OSError] = []
        if distributed.is_main:
            try:
                answer = [held.enter_context(_claimed_alone(arguments))]
            except OSError as error:
                answer = [OSError(str(error))]
        (answer,) = distributed.gather(answer)
        if isinstance(answer, OSError):
            raise answer
        yield answer


@contextmanager
def _claimed_alone(arguments: TrainArguments) -> Iterator[Path]:
    data = arguments.config.data
    was_there = arguments.run_dir is not None and arguments.run_dir.exists()
    run_dir = arguments.run_dir or new_run(arguments.config.preset, data.train_images or data.data)
    with only_one(run_dir, "wait until that run has ended, end it, or name another --run-dir"):
        refuse_begun(replace(arguments, run_dir=run_dir))  # it may have ended a moment ago
        if launcher():
            write_text(run_dir / LAUNCHER, launcher())
        try:
            yield run_dir
        finally:
            if not was_there and {path.name for path in run_dir.iterdir()} <= {LOCK, LAUNCHER}:
                shutil.rmtree(run_dir, ignore_errors=True)
                with suppress(OSError):
                    Path("runs").rmdir()  # if it was the first


def new_run(preset: str, data: str) -> Path:
    """runs/PRESET-DATA, or the first of runs/PRESET-DATA-2, -3 … that did not exist: now it does, and is ours alone."""
    name = f"{preset}-{Path(data).resolve().name}"
    for number in count(1):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path


# -- torchrun --max-restarts ---------------------------------------------------------------------------------------


def restarts() -> bool:
    """Does a launcher begin this command again where it fails (or has it)?"""
    return any(int(os.environ.get(f"TORCHELASTIC_{name}", 0)) > 0 for name in ("MAX_RESTARTS", "RESTART_COUNT"))


def launcher() -> str:
    """What is the same for all processes of one torchrun, and for all that it begins again; "" without one."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is None:
        return ""
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):  # one machine, and there one parent
        return f"{run_id} {socket.gethostname()} {os.getppid()}"
    return f"{run_id} {os.environ.get('MASTER_ADDR')}" if run_id == "none" else run_id


def begun_by_this_launcher(run_dir: Optional[str]) -> Optional[Path]:
    """Begun again by torchrun: the folder of the first try, which is `run_dir` where one was named; else None.

    Not by TORCHELASTIC_RESTART_COUNT: of several machines, those where nothing failed begin again uncounted.
    """
    if not restarts():
        return None
    for path in [Path(run_dir)] if run_dir else sorted(Path("runs").glob("*")):
        with suppress(OSError):
            if (path / LAUNCHER).read_text(encoding="utf-8") == launcher():
                return path
    return None
