"""eval: how good is a trained detector, in COCO's figures?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro

from commands.opening import generate_shapes, make_criterion, open_split, resolve_device
from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.detector import load as load_detector
from scratch.evaluation.coco_eval import CocoEvaluator, evaluate, format_summary
from scratch.training.distributed import Distributed
from scratch.training.precision import Precision


@dataclass(frozen=True)
class EvalArguments:
    """Evaluate a trained detector, on the data that it was trained with unless flags name another."""

    checkpoint: tyro.conf.Positional[Path]
    """a run's folder (its best.pt), or a checkpoint file"""
    data: DataConfig
    """Which images; what is not given is as the detector was trained."""
    batch_size: int = 8
    """images of one forward pass"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    json: Optional[Path] = None
    """also write the figures to this file"""


def evaluate_checkpoint(arguments: EvalArguments) -> None:
    """Print COCO's figures for a checkpoint."""
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    model, config, classes, _ = load_detector(arguments.checkpoint, distributed.device)
    data = arguments.data
    generate_shapes(data, distributed)
    check_dataset(data, config.model.num_queries, decode=False, only=(data.eval_split,)).refuse()
    dataset = open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed, classes)
    loader, _ = make_loader(dataset, arguments.batch_size, train=False, workers=data.workers, seed=config.train.seed,
                            device_type=distributed.device.type, rank=distributed.rank,
                            world_size=distributed.world_size)
    evaluator = CocoEvaluator(dataset.ground_truth(), classes.ids, classes.names)
    precision = Precision(config.train.precision, distributed.device)  # as the run's own evaluations
    metrics, _ = evaluate(model, loader, make_criterion(config), evaluator, distributed.device,
                          precision.autocast, gather=distributed.gather, progress=distributed.is_main)
    if distributed.is_main:
        print(f"{arguments.checkpoint} on the {data.eval_split} split of {data.data}: {len(dataset):,} images, "
              f"{metrics['images_per_second']:.1f} images/s, loss {metrics['losses']['loss']:.3f}\n"
              f"{format_summary(metrics)}")
        if arguments.json:
            arguments.json.write_text(json.dumps(metrics) + "\n", encoding="utf-8")
    distributed.close()
