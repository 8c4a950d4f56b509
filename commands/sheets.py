"""sheets: images of a split, truth beside detections, and their score threshold; the first samples of a training."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from PIL import Image

from scratch.data.coco import CocoDetection
from scratch.data.images import read_image
from scratch.data.loader import ResumableBatchSampler
from scratch.evaluation.matching import Results, Truth, coco_evaluation, matches_of
from scratch.evaluation.operating_point import best_threshold
from scratch.evaluation.pictures import prediction_sheet, sample_sheet
from scratch.ops.boxes import box_xywh_to_xyxy
from scratch.printable import printable


def shown_from(truth: Truth, results: Results, most: int = 100) -> float:
    """The score from which on it is best to show detections to a person (scratch/evaluation/operating_point)."""
    return best_threshold(matches_of(coco_evaluation(truth, results, most=most)))["score"]


def read_images(dataset: CocoDetection, image_ids: Sequence[int]) -> list[Image.Image]:
    """These images of `dataset`. Raises OSError or ValueError for one that cannot be read."""
    place = {id: index for index, id in enumerate(dataset.annotations.image_ids.tolist())}
    return [read_image(dataset.file_of(place[i]), tuple(dataset.annotations.sizes[place[i]].tolist()), dataset.reading)
            for i in image_ids]


def draw_sheet(path: Path, dataset: CocoDetection, image_ids: Sequence[int], results: Results, threshold: float,
               images: Optional[Sequence[Image.Image]] = None) -> None:
    """Draw these images of `dataset` with their objects (no crowds), and with the COCO results that score enough.

    `images` are those images, if they were read already. Raises OSError or ValueError for one that cannot be read.
    """
    truth = dataset.ground_truth()
    label = {category: k for k, category in enumerate(dataset.classes.ids)}

    def of_image(entries: Sequence[dict[str, Any]], image_id: int) -> dict[str, torch.Tensor]:
        mine = [entry for entry in entries if entry["image_id"] == image_id and not entry.get("iscrowd")]
        return {"boxes": box_xywh_to_xyxy(torch.tensor([e["bbox"] for e in mine]).reshape(-1, 4)),
                "labels": torch.tensor([label[e["category_id"]] for e in mine], dtype=torch.int64),
                "scores": torch.tensor([e.get("score", 1.0) for e in mine], dtype=torch.float64)}

    prediction_sheet(path, images or read_images(dataset, image_ids),
                     [of_image(truth["annotations"], i) for i in image_ids],
                     [of_image(results, i) for i in image_ids], dataset.classes.names, threshold)


def draw_samples(path: Path, dataset: CocoDetection, sampler: ResumableBatchSampler, most: int = 8) -> str:
    """Draw the first samples that a run will learn from: augmented, with the boxes that are left. Returns a line on it.

    They are those of the first steps, to the pixel: a sample follows from (seed, epoch, index) alone, and an iteration
    over the sampler does not move it. So nothing that the run draws later changes. A picture that cannot be read ends
    no run here; the run itself says what is the matter when it meets it.
    """
    try:
        samples = [dataset[key] for key in islice(chain.from_iterable(sampler), most)]
        sample_sheet(path, [(pixels, target["boxes"], target["labels"]) for pixels, target in samples],
                     dataset.classes.names)
    except (OSError, ValueError) as error:
        return f"note: the first training pictures could not be drawn: {error}"
    return f"the first training pictures, augmented, with their boxes: {printable(path)}"
