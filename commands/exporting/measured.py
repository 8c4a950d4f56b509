"""measured: what does each form of a detector find, and how long does it take for a picture?

    the split's pictures, one at a time ─▶ PyTorch, model.onnx, half, int8 ─▶ AP, milliseconds

Time is the median over the pictures, without the first: from the pixels of a decoded picture to
boxes in its pixels, resizing included. All forms see the same pixels and use the same number of
threads. Proven in tests/exporting/test_command.py.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from typing import Callable, Iterator, NamedTuple, Optional

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from commands.evaluate import refuse_other_classes
from commands.opening import open_split
from scratch.config import DataConfig
from scratch.data.batch import Batch, collate
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection
from scratch.data.images import read_image
from scratch.data.transforms import Augmentation
from scratch.detector import Detections, Detector
from scratch.evaluation.coco_eval import CocoEvaluator


class Figures(NamedTuple):
    """Of one form of a detector on one split."""

    AP: Optional[float]
    AP50: Optional[float]
    AP75: Optional[float]
    milliseconds: float


Finder = Callable[[np.ndarray], Detections]  # of a picture uint8 (H,W,3)


def in_pytorch(detector: Detector) -> Finder:
    return lambda picture: detector.predict(Image.fromarray(picture), threshold=0.0)


def split_of(detector: Detector, checkpoint: object, data: DataConfig, split: str, most: int) -> CocoDetection:
    """`most` pictures of a split, the first by their ids. Raises ValueError for data that is not there or not fit."""
    data = replace(data, eval_split=split, limit_val=most, limit_train=most)
    refuse_other_classes(checkpoint, detector.classes, data)
    report = check_dataset(data, detector.config.most_found, decode=False, only=(split,),
                           classes=detector.classes, need=(split,))
    report.refuse()
    return open_split(data, split, Augmentation.for_evaluation(data), 0, detector.classes, report.left_out)


def batches(dataset: CocoDetection) -> Iterator[Batch]:
    """Its pictures as the network takes them, one at a time."""
    for index in range(len(dataset)):
        yield collate([dataset[0, index]])


@torch.no_grad()
def figures(find: Finder, dataset: CocoDetection, max_dets: int, what: str) -> Figures:
    """AP and time of what `find` gives for the pictures of a split; `what` stands before the progress bar."""
    classes, ids = dataset.classes, dataset.annotations.image_ids.tolist()
    evaluator = CocoEvaluator(dataset.ground_truth(), classes.ids, classes.names, max_dets)
    seconds = []
    for index, id in enumerate(tqdm(ids, desc=what, unit="picture", leave=False, disable=None, file=sys.stderr)):
        picture = np.asarray(read_image(dataset.file_of(index), config=dataset.reading))
        begin = time.perf_counter()
        found = find(picture)
        seconds.append(time.perf_counter() - begin)
        evaluator.update([id], [{"boxes": found.boxes_xyxy, "labels": found.labels, "scores": found.scores}])
    summary = evaluator.summary()
    return Figures(summary["AP"], summary["AP50"], summary["AP75"], 1000 * statistics.median(seconds[1:] or seconds))
