"""breakdown: where is the detector good, and where is it not?

    by class     precision at every recall, at an IoU of 0.5 and of 0.75; the area below is the AP
    by size      COCO's small (area < 32² pixels), medium (< 96²) and large objects
    by number    images with 1 object, 2-3, 4-7, 8-15 …: each group doubles the one before

Without objects there is no AP, only a number of false detections. The mean over classes covers those
that occur, so the AP of two parts of a split may cover different classes: crowded images may hold
other ones. All APs are pycocotools'; proven in tests/evaluation/test_breakdown.py.
Read: by_class → by_size → by_number
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from pycocotools.cocoeval import COCOeval

from scratch.evaluation.matching import Results, Truth, average_precision, coco_evaluation, precision_curves

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels², as COCOeval's
CURVE_IOUS = (0.5, 0.75)
_COCO_IOUS = tuple((50 + 5 * i) / 100 for i in range(10))


def by_class(evaluation: COCOeval) -> dict[int, dict[str, Any]]:
    """Category id → {"AP50", "AP75", "curves": {"0.5": [101 precisions], "0.75": […]}}, of classes that occur.

    evaluation   a `coco_evaluation` at CURVE_IOUS
    """
    curves = precision_curves(evaluation)
    return {category: {"AP50": float(at50.mean()), "AP75": float(at75.mean()),
                       "curves": {"0.5": at50.tolist(), "0.75": at75.tolist()}}
            for category, (at50, at75) in curves.items()}


def by_size(truth: Truth, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """For each of SIZES how many objects there are, and their AP; `figures` are those of `CocoEvaluator.summary`."""
    areas = [annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3])
             for annotation in truth["annotations"] if not annotation.get("iscrowd")]
    return [{"name": name, "objects": sum(low <= area < high for area in areas), "AP": figures[f"AP_{name}"]}
            for name, (low, high) in SIZES.items()]


def by_number(truth: Truth, results: Results, most: int = 100) -> list[dict[str, Any]]:
    """Images grouped by how many objects they hold: {"name", "images", "objects", "AP", "AP50"}, the emptiest first.

    The best `most` detections of a class in an image count. A crowd is no object. The group of images without any has
    the name "0" and None for its APs.
    """
    number = Counter(annotation["image_id"] for annotation in truth["annotations"] if not annotation.get("iscrowd"))
    groups: dict[int, list[int]] = defaultdict(list)
    for image in truth["images"]:
        groups[number[image["id"]].bit_length()].append(image["id"])
    table = []
    for doublings, ids in sorted(groups.items()):
        low, high = (1 << doublings) >> 1, (1 << doublings) - 1
        row = {"name": f"{low}" if low >= high else f"{low}-{high}", "images": len(ids),
               "objects": sum(number[i] for i in ids), "AP": None, "AP50": None}
        if doublings:
            curves = precision_curves(coco_evaluation(truth, results, _COCO_IOUS, image_ids=ids, most=most))
            row["AP"] = average_precision(curves)
            row["AP50"] = average_precision({category: curve[:1] for category, curve in curves.items()})
        table.append(row)
    return table
