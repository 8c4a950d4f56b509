"""detector: how is a trained detector used from Python, in three lines?

    from scratch.detector import load
    detector = load("runs/tiny-shapes")     a run's folder (its best.pt), a checkpoint, "detr_r50"
    found = detector.predict("street.jpg")  found.names, found.scores, found.boxes_xyxy
    found.drawn_on("street.jpg")             the picture with these boxes, as a PIL image

    path ───────────────┐
    PIL image ──────────┼─▶ picture ─▶ resized ─▶ model ─▶ postprocess ─▶ what scores enough, in
    numpy (H,W,3) uint8 ┘              as at evaluation                     the image's own pixels

One image in, one `Detections` out; a list in, a list out. Only images of the same size after
resizing share a forward pass: beside a larger one, padding would change the features at an edge, and
a detection would depend on the other images of the batch.

This file joins packages (model, data, evaluation, training) and belongs to none: they do not import
it. `predict`, `eval` and the other commands open one by it. Proven in tests/test_detector.py and
tests/test_evaluate.py.
Read: Detections → Detector.predict → as_picture → load
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scratch.blueprint import read_state
from scratch.config import PRESETS, Config, DataConfig
from scratch.data.batch import collate
from scratch.data.classes import Classes
from scratch.data.coco_names import COCO_NAMES
from scratch.data.images import read_image
from scratch.data.transforms import Augmentation
from scratch.evaluation.operating_point import FALLBACK
from scratch.evaluation.coco_eval import postprocess
from scratch.evaluation.pictures import class_colour, draw_detections
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.printable import command, printable
from scratch.training.checkpoint import best_checkpoint
from scratch.weights.reading import NAMED, adapt, as_published, as_told, find_weights, read_weights

Picture = Union[str, Path, Image.Image, np.ndarray]


@dataclass(frozen=True)
class Detections:
    """What was found in one image: M objects, the highest score first; tensors on the CPU."""

    boxes_xyxy: Tensor
    """(M,4) float32: left, top, right, bottom in the image's own pixels; not cut at its border"""
    scores: Tensor
    """(M,) float32 in [0,1]"""
    labels: Tensor
    """(M,) int64: places in the detector's classes"""
    names: tuple[str, ...]
    """M of them, what the labels are called"""

    def __len__(self) -> int:
        return len(self.names)

    def above(self, threshold: float) -> "Detections":
        """Those that score at least `threshold`."""
        M = int((self.scores >= threshold).sum())  # they are sorted
        return Detections(self.boxes_xyxy[:M], self.scores[:M], self.labels[:M], self.names[:M])

    def drawn_on(self, image: Picture) -> Image.Image:
        """A copy of the image that `predict` was given, with a box, a name and a score for each of these.

        Raises what `predict` raises for what is no image.
        """
        texts = [f"{printable(name)} {score:.2f}" for name, score in zip(self.names, self.scores.tolist())]
        colours = [class_colour(k) for k in self.labels.tolist()]
        return draw_detections(as_picture(image), self.boxes_xyxy, texts, colours)


class Detector(NamedTuple):
    """A trained detector, and what it takes to use it."""

    model: Detr
    """in eval mode; with the running average of its weights, if the run kept one"""
    config: Config
    """the run's"""
    classes: Classes
    """its labels' names"""
    threshold: float
    """the score from which on its detections were best shown on the split that it was evaluated on"""

    @torch.no_grad()
    def predict(self, images: Union[Picture, list[Picture], tuple[Picture, ...]], threshold: Optional[float] = None,
                batch_size: int = 8) -> Union[Detections, list[Detections]]:
        """Find the objects in an image, or in each of a list.

        images       a path, a PIL image, a numpy array (H,W,3) uint8 with red first; or a list of such
        threshold    leave out what scores lower; None: the detector's own
        batch_size   images that are in memory together, and of one forward pass at most
        Raises FileNotFoundError for a missing file, and ValueError for what is no such image.
        """
        threshold = self.threshold if threshold is None else threshold
        if not isinstance(images, (list, tuple)):
            return self._found([images], threshold)[0]
        parts = [images[i:i + batch_size] for i in range(0, len(images), batch_size)]
        return [found for part in parts for found in self._found(part, threshold)]

    def _found(self, images: Any, threshold: float) -> list[Detections]:
        pictures = [as_picture(image, self.config.data) for image in images]
        transform, device = Augmentation.for_evaluation(self.config.data), next(self.model.parameters()).device
        shown = [transform(picture, torch.zeros(0, 4), random.Random(0))[0] for picture in pictures]  # (3,h,w) each
        alike: dict[Any, list[int]] = {}
        for i, pixels in enumerate(shown):
            alike.setdefault(pixels.shape, []).append(i)
        found: dict[int, Detections] = {}
        for places in alike.values():
            batch = collate([(shown[i], {}) for i in places]).to(device)
            outputs = self.model(batch.normalised(), batch.pad_mask)
            sizes = torch.tensor([[pictures[i].height, pictures[i].width] for i in places], device=device)  # (B,2)
            for i, answer in zip(places, postprocess(outputs, sizes, self.config.model.classification)):
                found[i] = self._named(answer).above(threshold)
        return [found[i] for i in range(len(pictures))]

    def _named(self, answer: dict[str, Tensor]) -> Detections:
        order = answer["scores"].argsort(descending=True, stable=True)
        boxes, scores, labels = (answer[name][order].cpu() for name in ("boxes", "scores", "labels"))
        return Detections(boxes, scores, labels, tuple(self.classes.names[k] for k in labels.tolist()))

    def __repr__(self) -> str:  # in a notebook, a tuple's would print every layer
        device = next(self.model.parameters()).device
        return (f"Detector({self.config.preset}, {len(self.classes)} classes, on {device}, "
                f"shows from a score of {self.threshold:g} on)")


def as_picture(image: Picture, config: DataConfig = DataConfig()) -> Image.Image:
    """An image of any of the kinds that `predict` takes, as an 8-bit RGB picture.

    A file is turned upright, and 16 bits are brought to 8 as `config` says (data/images). A PIL image stays as it lies,
    so that boxes are in the pixels that its owner has; one that was opened from a photograph may want
    PIL.ImageOps.exif_transpose first.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image), config=config)
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise ValueError(f"got a PIL image of mode {image.mode}, whose white is not defined; wanted 8 bits a "
                             "channel: scale it and convert it to RGB")
        if image.has_transparency_data:  # on white paper, as files are
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image.convert("RGBA"))
        return image.convert("RGB")
    if not isinstance(image, np.ndarray):
        raise ValueError(f"got an image of type {type(image).__name__}; wanted a path, a PIL image, a numpy array "
                         "(H,W,3) uint8, or a list of them")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"got a numpy array {image.shape} of {image.dtype}; wanted (H,W,3) of uint8, red first "
                         "(OpenCV's have blue first: image[..., ::-1])")
    return Image.fromarray(image)


def read_checkpoint(path: Union[str, Path]) -> dict[str, Any]:
    """The content of a checkpoint file, or of the best (else the last) checkpoint in a run's folder, on the CPU.

    All of it was checked: its weights are those that its configuration asks for, its classes as many, its numbers
    finite.
    Raises FileNotFoundError if there is none, with near names, and ValueError for a file that is none: if it holds
    weights all the same, with what makes a checkpoint of them.
    """
    path = Path(path)
    if not path.exists():
        if str(path) in NAMED:
            raise ValueError(f"{path}: {_BACKBONE_ALONE} {command(path)}")
        find_weights(str(path))  # raises: it is no name either
    file = best_checkpoint(path) if path.is_dir() else path
    try:
        return read_state(file)
    except ValueError as error:
        if way := _way_from_weights(path):
            raise ValueError(f"{path} is no checkpoint; {way}") from error
        raise


_BACKBONE_ALONE = "these are a backbone's weights alone, and no detector yet: train one with --weights"


def _way_from_weights(path: Path) -> Optional[str]:
    """What a file of weights holds, and what to do with it; None for a checkpoint, a folder or another file."""
    try:
        kind = read_weights(path).kind
    except (ValueError, OSError):
        return None
    if kind == "torchvision ResNet":
        return f"{_BACKBONE_ALONE} {command(path)}"
    return None if kind == "checkpoint" else (
        f"it holds weights ({kind}), and this makes one of them: "
        + command("python", "detr_scratch.py", "convert", path, "--to", "ours", "--out", f"{path.stem}-ours.pt"))


def published_name(path: Union[str, Path]) -> Optional[str]:
    """The preset that a name of published weights means, or their file under its published name; None for others.

    As in `find_weights`, a folder that is called so goes first: it is a run.
    """
    path = Path(path)
    name = next((name for name, url in NAMED.items() if path.name in (name, url.rpartition("/")[2])), None)
    return name if name in PRESETS and not path.is_dir() else None


def read_config(path: Union[str, Path]) -> Config:
    """The configuration of what `load` takes; published weights need not be there for it."""
    name = published_name(path)
    return PRESETS[name] if name else Config.from_dict(read_checkpoint(path)["config"])


def load(path: Union[str, Path], device: Union[str, torch.device] = "auto") -> Detector:
    """The detector in a checkpoint file, or in the best one of a run's folder, or a published one.

    path     a run's folder, a checkpoint, the name of published weights (detr_r50 …: fetched once), or their file under
             the name that it was published with
    device   "cpu", "cuda", "cuda:1" …; "auto": the GPU if there is one
    Raises FileNotFoundError if there is none, and ValueError for a file that is no whole detector.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if name := published_name(path):
        return _published(name, path, torch.device(device))
    state = read_checkpoint(path)  # on the host: an optimizer's moments have no business on the GPU here
    config = Config.from_dict(state["config"])
    model = build_detr(config.model).to(device).eval()
    model.load_state_dict(state["model"])
    if state["ema"]:
        model.load_state_dict(state["ema"]["shadow"], strict=False)  # all but the counters
    threshold = state["last_metrics"].get("threshold", FALLBACK)  # a run that was not evaluated yet has none
    return Detector(model, config, Classes.from_dict(state["classes"]), threshold)


def _published(name: str, path: Union[str, Path], device: torch.device) -> Detector:
    """The official detector `name`, whose labels are COCO's category ids."""
    weights = read_weights(find_weights(str(path)))
    K = len(weights.tensors["class_embed.weight"]) - 1  # "no object" is the last row
    if K != len(COCO_NAMES):
        raise ValueError(f"{path} has {K} classes, wanted the {len(COCO_NAMES)} of the published {name}: give "
                         "fine-tuned weights another name, and use a checkpoint, which knows its classes")
    file = Path(path)
    if file.is_file() and not as_published(file):
        warnings.warn(f"{path} is not the published {name}, by its hash: its {K} classes are taken to be COCO's all "
                      "the same, which is a guess; give weights of your own another name", stacklevel=3)
    preset = as_told(PRESETS[name], weights)
    config = replace(preset, model=replace(preset.model, num_classes=K),
                     train=replace(preset.train, precision="float32"))  # as their AP was measured
    model = build_detr(config.model)
    adapt(model, weights)
    return Detector(model.to(device).eval(), config, Classes(tuple(range(K)), COCO_NAMES), FALLBACK)
