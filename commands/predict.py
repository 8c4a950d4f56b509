"""predict: what is on these pictures?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
import tyro

from commands.opening import newest_run, resolve_device
from scratch.data.images import read_image
from scratch.detector import load as load_detector
from scratch.evaluation.coco_eval import coco_results
from scratch.evaluation.pictures import class_colour, draw_detections
from scratch.ranges import SHARE, refuse_senseless


@dataclass(frozen=True)
class PredictArguments:
    """Find objects in pictures: each picture with its boxes, and predictions.json in COCO's result format."""

    source: tyro.conf.Positional[Path]
    """an image, or a folder of images"""
    out: Path = Path("predictions")
    """the folder to write"""
    checkpoint: Optional[Path] = None
    """a run's folder (its best.pt), a checkpoint file, or published weights (detr_r50 …: fetched once); None: the
    newest run"""
    threshold: Optional[float] = None
    """leave out detections that score lower; None: than was best on the split that the checkpoint was evaluated on"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        refuse_senseless(self, threshold=SHARE)


def predict(arguments: PredictArguments) -> None:
    """Write, for every image of `source`, a picture with its detections, and all of them as COCO results."""
    device = torch.device(resolve_device(arguments.device))
    checkpoint = arguments.checkpoint or newest_run()
    detector = load_detector(checkpoint, device)
    threshold = detector.threshold if arguments.threshold is None else arguments.threshold
    paths = image_files(arguments.source)
    if paths[0].parent.resolve() == arguments.out.resolve():
        raise ValueError(f"--out {arguments.out} is the folder of the images themselves, and would lose those that are "
                         "PNG files: name another")
    arguments.out.mkdir(parents=True, exist_ok=True)
    alike = Counter(path.stem for path in paths)  # a.jpg and a.png: those keep their endings, a.jpg.png and a.png.png
    print(f"{checkpoint}: {len(detector.classes)} classes; {len(paths)} images; threshold {threshold:g}")
    everything: list[dict[str, Any]] = []
    unreadable = 0
    for image_id, path in enumerate(paths, 1):
        try:
            image = read_image(path)
        except ValueError as error:
            print(f"  skipped: {error}", file=sys.stderr)
            unreadable += 1
            continue
        found = detector.predict(image, threshold=0.0)
        shown = found.above(threshold)
        labels = shown.labels.tolist()
        texts = [f"{name} {score:.2f}" for name, score in zip(shown.names, shown.scores.tolist())]
        picture = arguments.out / f"{path.stem if alike[path.stem] == 1 else path.name}.png"
        draw_detections(image, shown.boxes_xyxy, texts, [class_colour(k) for k in labels]).save(picture)
        tensors = {"boxes": shown.boxes_xyxy, "labels": shown.labels, "scores": shown.scores}
        everything += [{"file_name": str(path), "category_name": name, **entry} for name, entry in zip(
            shown.names, coco_results(image_id, tensors, detector.classes.ids))]
        print(f"  {path}: {len(shown)} objects (best score {found.scores[0]:.2f}) → {picture}")
    if unreadable == len(paths):
        raise ValueError(f"nothing in {arguments.source} could be read as an image")
    (arguments.out / "predictions.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    print(f"{len(everything)} objects in {len(paths) - unreadable} images → {arguments.out / 'predictions.json'}"
          + (f"; {unreadable} files could not be read" if unreadable else ""))


def image_files(source: Path) -> list[Path]:
    """The image itself, or every file of the folder that has an image's ending."""
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: give an image or a folder of images")
    if source.is_file():
        return [source]
    endings = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in endings)
    if not found:
        raise FileNotFoundError(f"no images in {source}: looked for files ending in {' '.join(sorted(endings))}")
    return found
