"""input_pipeline: how many images a second does one worker deliver, and how many does a training step take?

    python -m benchmarks.input_pipeline                                     # the shapes, as preset tiny shows them
    python -m benchmarks.input_pipeline --data DIR --preset detr_r50 --images 100 --json FILE

A loader with one worker is emptied as fast as it can be. The files were read once before, so the system has them in
memory: a slow disk comes on top. In the first epoch every picture is decoded. Later ones find it kept, if the split is
small enough; else they cost what the first did. Each worker keeps what it has decoded itself: of several, one finds a
picture only if it was dealt it before, so how many are needed is reckoned from the first epoch.

    decode     from the file to RGB pixels                rest   boxes, colours, pasting mosaics, padding, handing over
    resample   from those to the View, and to a tensor

The first two are timed where they can be, in this process, with one thread, as a worker has; the rest is what remains.

Two sides in turn, who goes first alternates: "reduced" decodes a JPEG at 1/2, 1/4 or 1/8 where no View can show more of
it (Augmentation.reduction), "whole" decodes every pixel. What is told are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Callable, Optional
from unittest.mock import patch

import PIL
import torch

from scratch.program import ends_in_a_line
import scratch.data.coco
from benchmarks.training_step import TrainingStep
from commands.opening import open_split
from scratch.config import PRESETS, Config
from scratch.data.coco import CocoDetection
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation, View
from scratch.training.heap import keep_freed_memory
from scratch.whole_file import write_text

SIDES = ("reduced", "whole")
EPOCHS = ("first", "later")
PARTS = ("decode", "resample", "rest")
WARM_UP, STEPS = 2, 5  # training steps that are not counted, and that are


@dataclass(frozen=True)
class Whole(Augmentation):
    """The same augmentation, for which every pixel is decoded."""

    def reduction(self, height: int, width: int) -> int:
        return 1


def open_side(side: str, config: Config, images: Optional[int]) -> CocoDetection:
    """The first `images` of the training split; kept in memory if the whole split would be."""
    transform = Augmentation.for_training(config.data)
    if side == "whole":
        transform = Whole(*astuple(transform))
    dataset = open_split(config.data, "train", transform, config.train.seed)
    if images is not None and images < len(dataset):
        keeps = dataset._keeps
        dataset = open_split(replace(config.data, limit_train=images), "train", transform, config.train.seed)
        dataset._keeps = keeps
    return dataset


def through_a_worker(dataset: CocoDetection, epochs: int, batch_size: int) -> tuple[list[float], list[tuple]]:
    """Seconds an image in each of the first epochs, and the (height, width) of every batch."""
    loader, sampler = make_loader(dataset, batch_size, workers=1, seed=dataset.seed, train=True, device_type="cpu")
    sampler.set_position(0, len(sampler))
    list(loader)  # nothing is left of this epoch, but the worker is there
    seconds, sizes = [], []
    for epoch in range(epochs):
        sampler.set_position(epoch)
        start, images = time.perf_counter(), 0
        for batch in loader:
            images += len(batch.targets)
            sizes.append(tuple(batch.images.shape[2:]))
        seconds.append((time.perf_counter() - start) / images)
    return seconds, sizes


def in_parts(dataset: CocoDetection, epoch: int) -> dict[str, float]:
    """Seconds an image that decoding and resampling take."""
    seconds = dict.fromkeys(("decode", "resample"), 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            seconds[part] += time.perf_counter() - start
            return result
        return call

    with (patch.object(scratch.data.coco, "read_reduced", timed("decode", scratch.data.coco.read_reduced)),
          patch.object(View, "of_image", timed("resample", View.of_image))):
        for index in range(len(dataset)):
            dataset[(epoch, index)]
    return {part: value / len(dataset) for part, value in seconds.items()}


def pipeline(config: Config, images: Optional[int], rounds: int) -> dict[str, Any]:
    """Both sides in turn: for each, in the first epoch and in later ones, images a second and each part's share."""
    datasets = {side: open_side(side, config, images) for side in SIDES}
    epochs = {side: EPOCHS if dataset._keeps else EPOCHS[:1] for side, dataset in datasets.items()}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {(side, name): [] for side in SIDES for name in epochs[side]}
    sizes: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for repeat in range(1 + rounds):  # the first, which is not counted, has the files read
        for side in SIDES if repeat % 2 else reversed(SIDES):
            dataset = datasets[side]
            dataset._kept.clear()  # or the worker would inherit it
            seconds, seen = through_a_worker(dataset, len(epochs[side]), config.train.batch_size)
            for number, epoch in enumerate(epochs[side]):
                parts = in_parts(dataset, number)
                if repeat:
                    runs[side, epoch].append({"all": seconds[number], **parts})
            sizes += seen
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"images": len(datasets["reduced"]), "rounds": rounds}
    for side, dataset in datasets.items():
        reductions = Counter(dataset.transform.reduction(h, w) for w, h in dataset.annotations.sizes.tolist())
        result[side] = {"reductions": {str(by): reductions[by] for by in sorted(reductions)}}
        for epoch in epochs[side]:
            middle = {part: median(run[part] for run in runs[side, epoch]) for part in ("all", "decode", "resample")}
            middle["rest"] = middle["all"] - middle["decode"] - middle["resample"]
            result[side][epoch] = {"images_per_second": 1 / middle["all"],
                                   "share": {part: middle[part] / middle["all"] for part in PARTS}}
    result["batch"] = [config.train.batch_size, *(round(median(side)) for side in zip(*sizes))]
    return result


def consumption(preset: str, shape: tuple[int, int, int], device: torch.device, precision: str) -> float:
    """Images a second that the training step of a preset takes, for batches of this shape."""
    step = TrainingStep("ours", preset, shape, device, precision)
    seconds = [step()["step"] for _ in range(WARM_UP + STEPS)][WARM_UP:]
    return shape[0] / median(seconds)


def measure(preset: str, data: Optional[str], images: Optional[int], rounds: int, device: torch.device,
            precision: str, batch_size: Optional[int] = None) -> dict[str, Any]:
    """What one worker delivers, what a step takes, and how many workers keep it fed."""
    config = PRESETS[preset]
    config = replace(config, data=replace(config.data, data=data or config.data.data),
                     train=replace(config.train, batch_size=batch_size or config.train.batch_size))
    result = {"preset": preset, "data": Path(config.data.data).name, **pipeline(config, images, rounds),
              "device": str(device), "precision": precision}
    result["step_images_per_second"] = consumption(preset, tuple(result["batch"]), device, precision)
    for side in SIDES:
        first = result[side]["first"]
        first["workers"] = math.ceil(result["step_images_per_second"] / first["images_per_second"])
    return result


def table(result: dict[str, Any]) -> str:
    """The table of one `measure`."""
    batch_size, height, width = result["batch"]
    reductions = ", ".join(f"{n} by {by}" for by, n in result["reduced"]["reductions"].items())
    lines = [f"{result['preset']} on {result['data']}: {result['images']} images in batches of {batch_size} "
             f"({height}×{width}), medians of {result['rounds']}", f"  reduced, where they are JPEGs: {reductions}",
             f"  {'one worker':24}{'images/s':>10}" + "".join(f"{part:>10}" for part in PARTS) + f"{'workers':>10}"]
    for epoch in EPOCHS:
        for side in SIDES:
            name = f"{epoch} epoch{'s' * (epoch == 'later')}, {side}"
            if told := result[side].get(epoch):
                lines.append(f"  {name:24}{told['images_per_second']:10.0f}"
                             + "".join(f"{100 * told['share'][part]:8.0f} %" for part in PARTS)
                             + f"{told.get('workers', ''):>10}")
            else:
                lines.append(f"  {name:24}as the first: too many pixels to be kept")
    lines.append(f"  a training step takes {result['step_images_per_second']:.1f} images/s "
                 f"({result['device']}, {result['precision']})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a COCO-format folder, or shapes; the preset's own if left out")
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--images", type=int, default=400, help="as many of the training split, at most")
    parser.add_argument("--batch-size", type=int, help="the preset's own if left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16", "fp16"])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    device = torch.device(options.device)
    keep_freed_memory()  # as in training
    result = measure(options.preset, options.data, options.images, options.rounds, device, options.precision,
                     options.batch_size)
    machine = {"torch": torch.__version__, "pillow": PIL.__version__, "python": platform.python_version(),
               "threads": torch.get_num_threads(),
               "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()}
    print(table(result) + "\n" + ", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.json:
        figures = {"machine": machine, "results": [result]}
        write_text(options.json, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
