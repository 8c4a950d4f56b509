"""opening: how are a data set, an objective and a trained detector made from the names on a command line?"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Collection, Mapping, Optional

import torch
from torch import nn

from scratch.blueprint import refuse_unbuildable
from scratch.config import Config, DataConfig, ModelConfig
from scratch.data.check import check_dataset
from scratch.data.classes import Classes
from scratch.data.coco import CocoDetection, find_layout, find_splits
from scratch.data.layouts import Layout
from scratch.data.split import FILE
from scratch.data.transforms import Augmentation
from scratch.detector import Detector, best_device
from scratch.model.build import build_detr
from scratch.model.detr import Detr, freeze_backbone
from scratch.objective.criterion import SetCriterion
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.variant import criterion_for
from scratch.training.distributed import Distributed
from scratch.whole_file import write_json


# What a Mac's GPU lacks, said once.
ON_MPS = ("note: on a Mac's GPU (mps), everything is computed in float32, since it has neither float64 nor a tried "
          "mixed precision. An operation that PyTorch does not have there ends with NotImplementedError: "
          "PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment leaves those to the CPU, and --device cpu all of them")


def resolve_device(device: str, float64: bool = False) -> str:
    """The device that "auto" means here (cuda, else mps, else cpu); another one if it is there, else ValueError.

    float64   it is needed, which mps does not have
    What mps lacks is said when it is chosen, once.
    """
    if device == "auto":
        device = best_device()
        device = "cpu" if float64 and device == "mps" else device
    if float64 and device.startswith("mps"):
        raise ValueError(f"got device {device!r}, which has no float64, and this command computes in it; wanted auto, "
                         "cpu, cuda or cuda:N")
    kind, _, number = device.partition(":")
    # Asked for by name and number: a tensor put there to try would open a context on GPU 0 from every rank.
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 0)
    if number and not number.isdigit() or int(number or 0) >= there:
        raise ValueError(f"got device {device!r}, which PyTorch cannot use here (it sees "
                         f"{torch.cuda.device_count()} GPUs, and {'a' if torch.backends.mps.is_available() else 'no'} "
                         "Mac's GPU); wanted auto, cpu, cuda, cuda:N or mps")
    if kind == "mps":
        _say_once(ON_MPS)
    return device


@lru_cache(maxsize=None)
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def prepare_data(data: DataConfig, distributed: Distributed, model: Optional[ModelConfig] = None) -> Layout:
    """Ahead of any reading: one rank looks for the data and says in a line which layout it has; the others wait.

    A `model` that is to be trained on it, and cannot be built, is refused before anything is drawn or looked at.
    To look for the generated shapes is to draw them where they are not there yet. They, and explicit paths, have no
    layout to tell.
    """
    if model is not None:
        refuse_unbuildable(model)
    layout = distributed.gather([find_layout(data)] if distributed.is_main else [])[0]
    if distributed.is_main and layout.name:
        print(layout.line(), flush=True)
    return layout


def record_division(run_dir: Path, layout: Layout, sets: Mapping[str, CocoDetection]) -> None:
    """Where the data has no split of its own, keep in the run's folder which pictures were in which part."""
    if layout.division is not None:
        write_json(run_dir / FILE, {split: its.annotations.file_names.tolist() for split, its in sets.items()})


def open_split(data: DataConfig, split: str, transform: Augmentation, seed: int, classes: Optional[Classes] = None,
               left_out: Optional[Mapping[str, Collection[int]]] = None, layout: Optional[Layout] = None
               ) -> CocoDetection:
    """One split of a data set, with the classes of a checkpoint or of the training split.

    left_out   by split, ids of images to do without, from the report of check_dataset; None: if `data` wants broken
               ones left out, they are looked for here
    layout     that of `find_layout`, where it is known and has this split; None: it is looked for
    """
    if left_out is None and data.leave_out_broken:
        left_out = check_dataset(data, sys.maxsize, decode=True, only=(split,)).left_out
    splits = layout.splits if layout is not None and split in layout.splits else find_splits(data, need=(split,))
    images, annotations = splits[split]
    limit = data.limit_train if split == "train" else data.limit_val
    return CocoDetection(images, annotations, transform, classes, limit=limit, seed=seed, only=data.classes,
                         as_is=data.as_is, left_out=(left_out or {}).get(split, ()), reading=data)


def reading(detector: Detector, sixteen_bit: Optional[str], max_megapixels: Optional[float]) -> Detector:
    """The detector, with another way to read picture files; what is None stays as it was trained."""
    changed = {name: value for name, value in (("sixteen_bit", sixteen_bit), ("max_megapixels", max_megapixels))
               if value is not None}
    return detector._replace(config=replace(detector.config, data=replace(detector.config.data, **changed)))


def make_model(config: Config) -> Detr:
    """The network that `config.model` describes, with random weights; those that are not to learn have no gradient."""
    model = build_detr(config.model)
    freeze_backbone(model, config.train.train_backbone)
    return model


def make_criterion(config: Config) -> SetCriterion:
    """The objective that `config.loss` describes."""
    loss = config.loss
    matcher = HungarianMatcher(loss.set_cost_class, loss.set_cost_bbox, loss.set_cost_giou,
                               config.model.classification == "focal", loss.focal_alpha, loss.focal_gamma)
    return criterion_for(config.model, matcher, loss)


def newest_run() -> Path:
    """The run that was written to last."""
    runs = sorted(Path("runs").glob("*/*.pt"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise FileNotFoundError("there is no run under runs/: train first, or name a run's folder or a checkpoint")
    return runs[-1].parent


def parameter_count(model: nn.Module) -> str:
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total:,} parameters, {trained:,} of them trained"
