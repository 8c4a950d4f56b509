"""train_arguments: which configuration, and which folder, do the words after `train` and `finetune` mean?

    --resume    the configuration of the run that goes on ─┐
    --weights   that of the weights                        ├─ changed by the flags ─▶ TrainArguments
    --preset    that of the preset, else of the device     ┘

Read: TrainArguments → parse_train → parse_finetune
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence

from commands.command_line import flags_given, parse, preset_config
from commands.finetune import config_for, frozen_norm, recipe, sized
from commands.opening import newest_run, resolve_device
from scratch.blueprint import read_state
from scratch.config import PRESETS, Config
from scratch.ranges import COUNT, Range, refuse_senseless
from scratch.training.checkpoint import latest_checkpoint


@dataclass(frozen=True)
class TrainArguments:
    """Train a detector; evaluate it as it learns; keep the last and the best."""

    config: Config
    run_dir: Optional[Path] = None
    """where the run is kept; None: runs/PRESET-DATA, numbered"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    weights: Optional[str] = None
    """begin with these, as far as they fit: detr_r50 …, resnet50 … (fetched once), or a file; see scratch/weights"""
    resume: bool = False
    """go on with the run in --run-dir, or with the newest one; other flags then change its configuration"""
    compile: bool = False
    """have the model's blocks compiled by torch.compile: minutes at first, faster steps then; every size of image for
    itself, so take --square with it (scratch/model/compiled). Attention then keeps all its weights: much memory where
    pictures have thousands of cells"""
    profile: bool = False
    """say where the time of a step goes, and trace a few: RUN/profile"""
    tensorboard: bool = True
    """also write what TensorBoard shows: tensorboard --logdir runs"""
    histograms_every: int = 0
    """steps between two histograms of all weights and gradients in TensorBoard; 0: none"""

    def __post_init__(self) -> None:
        refuse_senseless(self, histograms_every=Range(0, COUNT.high))


def parse_train(argv: Sequence[str], tuning: bool = False) -> TrainArguments:
    """A preset's or a resumed run's configuration, changed by the flags; and a free folder, or the run's own."""
    given = flags_given(argv, "preset", "device", "run-dir", "resume", "weights")
    if given.resume:
        if given.weights:
            raise ValueError("a run that goes on has weights of its own: leave --weights out")
        run_dir = Path(given.run_dir) if given.run_dir else newest_run()
        last = latest_checkpoint(run_dir)
        if last is None:
            raise FileNotFoundError(f"there is no checkpoint in {run_dir} to resume from: leave --resume out to start "
                                    "there")
        config = Config.from_dict(read_state(last, training=True)["config"])
        if given.preset not in (None, config.preset):
            raise ValueError(f"{run_dir} was begun with the preset {config.preset}, and cannot go on as "
                             f"{given.preset}: leave --preset out")
        return parse(TrainArguments, TrainArguments(config, run_dir), "train", argv)
    device = resolve_device(given.device or "auto")
    weights = given.weights or ("detr_r50" if tuning else None)
    meant = config_for(weights) if weights and not given.preset else None
    config = meant or preset_config(given.preset, device)
    config = sized(config, weights) if weights and not meant else config
    config = frozen_norm(config) if weights else config  # of a preset that was named, too; --norm changes it again
    default = TrainArguments(recipe(config) if tuning else config, weights=weights)
    arguments: TrainArguments = parse(TrainArguments, default, "finetune" if tuning else "train", argv)
    if given.preset is None and meant is None and os.environ.get("RANK", "0") == "0":
        print(f"preset {arguments.config.preset}: {'there is a GPU' if device.startswith('cuda') else 'no GPU in use'} "
              f"(--preset {'|'.join(PRESETS)} chooses another)")
    data = arguments.config.data
    run_dir = arguments.run_dir or new_run(arguments.config.preset, data.train_images or data.data)
    if (run_dir / "last.pt").exists():
        raise FileExistsError(f"{run_dir} already holds a run: add --resume to go on with it, or name another "
                              "--run-dir")
    return replace(arguments, run_dir=run_dir)


def parse_finetune(argv: Sequence[str]) -> TrainArguments:
    """As for `train`, but from trained weights, and with the recipe of commands/finetune.py."""
    return parse_train(argv, tuning=True)


def new_run(preset: str, data: str) -> Path:
    """runs/PRESET-DATA, or the first of runs/PRESET-DATA-2, -3 … that does not exist."""
    name = f"{preset}-{Path(data).resolve().name}"
    number = 1
    while (path := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path
