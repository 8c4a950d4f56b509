"""eval: how good is a trained detector, in COCO's figures?

    a run's folder, a checkpoint   on the data that it was trained with, or another of its classes
    detr_r50 …                     on COCO, in float32, as the published AP was measured
    weights from elsewhere         on data with classes of the same names, whatever the numbers of these

Proven in tests/test_cli.py and tests/test_evaluate.py.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import tyro

from commands.opening import make_criterion, open_split, prepare_data, resolve_device
from scratch.config import DataConfig
from scratch.data.check import OF_EVALUATION, check_dataset
from scratch.data.annotations import read_annotations
from scratch.data.classes import Classes
from scratch.data.coco import find_splits
from scratch.data.loader import make_loader
from scratch.data.shapes import OUTLINES
from scratch.data.transforms import Augmentation
from scratch.detector import load as load_detector, published_name
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.summary import format_summary
from scratch.printable import abridged, command, counted, printable
from scratch.ranges import BATCH, LAYERS, QUERIES, refuse_senseless
from scratch.training.distributed import Distributed
from scratch.training.precision import Precision
from scratch.whole_file import write_json


@dataclass(frozen=True)
class EvalArguments:
    """Evaluate a trained detector, on the data that it was trained with unless flags name another."""

    checkpoint: tyro.conf.Positional[Path]
    """a run's folder (its best.pt) or a checkpoint; with --data also published weights (detr_r50 …: fetched once),
    another file of weights, or hf:OWNER/NAME of the Hugging Face Hub"""
    data: DataConfig
    """Which images; what is not given is as the detector was trained."""
    batch_size: int = 8
    """images of one forward pass; 1 for the published AP of detr_r50_dc5 and detr_r101_dc5"""
    layers: Optional[int] = None
    """use only the first decoder layers, this number of them, which is faster and costs some AP: compare; None:
    all"""
    num_queries: Optional[int] = None
    """how many queries a detector with proposals has: more of them find more objects in full pictures, and cost time;
    None: as in training"""
    class_names: Optional[str] = None
    """what the classes of weights from elsewhere are called, in the order of their labels, where the file does not
    tell: "person,car" """
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    json: Optional[Path] = None
    """also write the figures to this file"""

    def __post_init__(self) -> None:
        refuse_senseless(self, batch_size=BATCH, layers=LAYERS, num_queries=QUERIES)


def evaluate_checkpoint(arguments: EvalArguments) -> None:
    """Print COCO's figures for a detector."""
    data = arguments.data
    if published_name(arguments.checkpoint) and data.data == "shapes" and not (
            data.val_annotations or data.train_annotations):
        raise ValueError(f"{arguments.checkpoint} knows COCO's classes, and the generated shapes are none of them: "
                         "name a folder of its classes with --data (python detr_scratch.py download coco fetches COCO)")
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    detector = load_detector(arguments.checkpoint, distributed.device, arguments.layers, arguments.class_names,
                             arguments.num_queries)
    model, config, classes = detector.model, detector.config, detector.classes
    for note in detector.notes if distributed.is_main else ():
        print(note)
    if data.classes is not None:
        classes.only(data.classes)  # refuses one that the detector does not know, before any image is looked at
    if data.data == "shapes" and config.data.data == "shapes" and not set(classes.names) & set(OUTLINES) and not (
            data.val_annotations or data.train_annotations):
        raise ValueError(f"{arguments.checkpoint} knows {described(classes)}, and the generated shapes are none of "
                         "them: name a folder of its classes with --data")
    prepare_data(data, distributed)
    if (numbered := numbered_as_in(data, classes)) != classes:
        classes = numbered
        if distributed.is_main:
            print("note: the data's category ids are taken for the detector's classes of the same names")
    refuse_other_classes(arguments.checkpoint, classes, data)
    report = check_dataset(data, config.most_found, decode=False, only=(data.eval_split,), classes=classes,
                           need=(data.eval_split,))
    report.refuse()
    dataset = open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed, classes,
                         report.left_out)
    loader, _ = make_loader(dataset, arguments.batch_size, train=False, workers=data.workers, seed=config.train.seed,
                            device_type=distributed.device.type, rank=distributed.rank,
                            world_size=distributed.world_size)
    evaluator = CocoEvaluator(dataset.ground_truth(), classes.ids, classes.names, data.max_dets)
    precision = Precision(config.train.precision, distributed.device)  # as the run's own evaluations
    metrics, _ = evaluate(model, loader, make_criterion(config), evaluator, distributed.device,
                          precision.autocast, gather=distributed.gather, progress=distributed.is_main)
    if distributed.is_main:
        print(f"{printable(arguments.checkpoint)} on the {data.eval_split} split of {printable(data.data)}: "
              f"{counted(len(dataset), 'image')}, {metrics['images_per_second']:.1f} images/s, "
              f"loss {metrics['losses']['loss']:.3f}\n"
              f"{format_summary(metrics)}")
        if notes := report.told(*OF_EVALUATION):
            print(notes)
        if arguments.json:
            write_json(arguments.json, metrics)
    distributed.close()


def refuse_other_classes(checkpoint: Path, classes: Classes, data: DataConfig) -> None:
    """Raise ValueError for data with objects of classes that the detector does not know by the same ids and names."""
    folder, file = find_splits(data, need=(data.eval_split,))[data.eval_split]
    limit = data.limit_train if data.eval_split == "train" else data.limit_val
    problems = read_annotations(file, classes, limit, data.classes, folder, data.as_is,
                                remember=data.remember).problems
    if any(problem.kind in ("category renamed", "unknown category id") for problem in problems):
        raise ValueError(f"{file} has other classes than {checkpoint}, which knows {described(classes)}; wanted data "
                         f"with its ids and names, got {described(read_annotations(file).classes)}: name another "
                         "folder with --data, or teach it these: "
                         + command("python", "detr_scratch.py", "finetune", "--weights", checkpoint))


def numbered_as_in(data: DataConfig, classes: Classes) -> Classes:
    """The detector's classes with the data's ids, where all the data's names are theirs, and tell classes apart.

    Other programs number classes from 0, whatever the data's numbers were. Any other data leaves them as they are.
    """
    _, file = find_splits(data, need=(data.eval_split,))[data.eval_split]
    there = read_annotations(file, limit=1).classes
    theirs = dict(zip(there.names, there.ids))
    if len(theirs) != len(there) or not all(classes.names.count(name) == 1 for name in theirs):
        return classes
    others = [id for id, name in zip(classes.ids, classes.names) if name not in theirs]
    free = itertools.count(max([*theirs.values(), *classes.ids], default=0) + 1)
    kept = {id: next(free) if id in theirs.values() else id for id in others}
    return Classes(tuple(theirs.get(name, kept.get(id, id)) for id, name in zip(classes.ids, classes.names)),
                   classes.names)


def described(classes: Classes) -> str:
    """How many classes there are, and the first of them: "80 (1 person, 2 bicycle, 3 car …)"."""
    named = [f"{id} {abridged(name, 40)}" for id, name in zip(classes.ids, classes.names)
             if name != "-"]  # data/coco_names
    return f"{len(named)} ({', '.join(named[:3])}{' …' if len(named) > 3 else ''})"
