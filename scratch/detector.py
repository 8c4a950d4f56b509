"""detector: how is a trained detector used from Python, in three lines?

    from scratch.detector import load
    detector = load("runs/tiny-shapes")     a run's folder (its best.pt), a file, "detr_r50", "hf:OWNER/NAME"
    found = detector.predict("street.jpg")  found.names, found.scores, found.boxes_xyxy
    found.drawn_on("street.jpg")            the picture with these boxes, as a PIL image

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

from scratch.blueprint import blueprint, read_state
from scratch.config import PRESETS, Config, DataConfig
from scratch.data.batch import collate
from scratch.data.classes import Classes, divided
from scratch.data.coco_names import COCO_NAMES
from scratch.data.images import read_image
from scratch.data.transforms import Augmentation
from scratch.evaluation.operating_point import FALLBACK
from scratch.evaluation.coco_eval import postprocess
from scratch.evaluation.pictures import class_colour, draw_detections
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.printable import command, counted, printable
from scratch.training.checkpoint import NotOurs, best_checkpoint
from scratch.weights.hub import is_hub_name
from scratch.weights.huggingface import FILES
from scratch.weights.reading import NAMED, Weights, adapt, as_published, find_weights, hub_file, read_weights
from scratch.weights.whole import as_told, taken_as, whole_config

Picture = Union[str, Path, Image.Image, np.ndarray]
COCO = Classes(tuple(range(len(COCO_NAMES))), COCO_NAMES)  # as the published detectors count them


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
    notes: tuple[str, ...] = ()
    """what a person should know of how its weights were read: a guess that was made, a prefix that was taken off"""

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
        return (f"Detector({self.config.preset}, {counted(len(self.classes), 'class', 'classes')}, on {device}, "
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
    if is_hub_name(path):
        return None
    path = Path(path)
    name = next((name for name, url in NAMED.items() if path.name in (name, url.rpartition("/")[2])), None)
    return name if name in PRESETS and not path.is_dir() else None


def read_config(path: Union[str, Path]) -> Config:
    """The configuration of what `load` takes; published weights need not be there for it."""
    if name := published_name(path):
        return PRESETS[name]
    opened = _opened(path)
    return _whole(path, opened) if isinstance(opened, Weights) else Config.from_dict(opened["config"])


def load(path: Union[str, Path], device: Union[str, torch.device] = "auto", layers: Optional[int] = None,
         class_names: Optional[str] = None, num_queries: Optional[int] = None) -> Detector:
    """The detector in a checkpoint file, or in the best one of a run's folder, or a published one, or another's.

    path          a run's folder, a checkpoint, the name of published weights (detr_r50 …: fetched once), or their file
                  under the name that it was published with; a file of weights of other programs; hf:OWNER/NAME of the
                  Hugging Face Hub, or a folder as it has them
    device        "cpu", "cuda", "cuda:1", "mps" …; "auto": the GPU if there is one
    layers        use only the first decoder layers, this number of them: each was trained to answer. None: all
    class_names   what its classes are called, "person,car", where the file does not tell
    num_queries   how many cells of the encoder become queries, of a detector with proposals. None: as in its training
    Raises FileNotFoundError if there is none, and ValueError for a file that is no whole detector.
    """
    device = torch.device(best_device() if device == "auto" else device)
    if name := published_name(path):
        detector = _published(name, path, device)
    elif isinstance(opened := _opened(path), Weights):
        detector = _of_weights(path, opened, device, class_names)
        class_names = None
    else:  # read on the host: an optimizer's moments have no business on the GPU here
        config = Config.from_dict(opened["config"])
        model = build_detr(config.model).to(device).eval()
        model.load_state_dict(opened["model"])
        if opened["ema"]:
            model.load_state_dict(opened["ema"]["shadow"], strict=False)  # all but the counters
        threshold = opened["last_metrics"].get("threshold", FALLBACK)  # a run that was not evaluated yet has none
        detector = Detector(model, config, Classes.from_dict(opened["classes"]), threshold)
    if class_names is not None:
        raise ValueError(f"got the class names {class_names!r:.60}, but {path} says what its classes are called: leave "
                         "them out")
    detector = detector if layers is None else first_layers(detector, layers)
    return detector if num_queries is None else with_queries(detector, num_queries)


def best_device() -> str:
    """Where a model is fastest here: "cuda", a Mac's "mps", else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def first_layers(detector: Detector, layers: int) -> Detector:
    """The detector with its first decoder layers alone. (It is the same model, shortened.)

    Every layer's tokens go through the heads in training, as an auxiliary loss asks (section 3.2), so that the answers
    of an early layer are detections too. Raises ValueError for a number that it does not have.
    """
    there = detector.config.model.dec_layers
    if not 1 <= layers <= there:
        raise ValueError(f"got --layers {layers}, wanted 1 to {there}: the detector has "
                         f"{counted(there, 'decoder layer')}")
    if not detector.config.model.aux_loss and layers < there:
        raise ValueError(f"got --layers {layers}, but this detector was trained without auxiliary losses (aux_loss), "
                         "so that only its last decoder layer has learnt to answer: leave --layers out")
    config = replace(detector.config, model=replace(detector.config.model, dec_layers=layers))
    decoder = detector.model.transformer.decoder
    decoder.layers = decoder.layers[:layers]
    detector.model.config = config.model
    return detector._replace(config=config)


def with_queries(detector: Detector, num_queries: int) -> Detector:
    """The detector with another number of queries than in its training. (It is the same model, set otherwise.)

    Its queries are the best cells of the encoder, and no weight belongs to one of them. Several cells propose the same
    object, so that more queries find more where pictures are full; more than there are cells change nothing.
    Raises ValueError for learnt queries.
    """
    model = detector.config.model
    if model.queries != "proposal":
        raise ValueError(f"got --num-queries {num_queries}, but this detector has learnt its {model.num_queries} queries; "
                         "only one that was trained with --queries proposal can take another number. Leave it out")
    config = replace(detector.config, model=replace(model, num_queries=num_queries))
    detector.model.config = config.model
    return detector._replace(config=config)


def _opened(path: Union[str, Path]) -> Union[dict[str, Any], Weights]:
    """The state of a checkpoint, or the weights in another file. Raises what `load` raises."""
    if is_hub_name(path) or Path(path).is_dir() and hub_file(Path(path)):
        return _no_backbone(read_weights(find_weights(str(path))), path)
    file = Path(path)
    if not file.is_file():
        return read_checkpoint(path)
    if file.suffix == ".safetensors" or file.name in FILES:
        return _no_backbone(read_weights(file), path)
    try:
        return read_state(file)
    except ValueError as error:
        try:
            weights = read_weights(file)
        except ValueError as other:  # says what the file holds, if it holds anything
            raise (other if isinstance(error, NotOurs) else error) from None
        if weights.kind == "checkpoint":
            raise
        return _no_backbone(weights, path)


def _no_backbone(weights: Weights, path: Union[str, Path]) -> Weights:
    if weights.kind == "torchvision ResNet":
        raise ValueError(f"{path} is no checkpoint; {_BACKBONE_ALONE} {command(path)}")
    return weights


def _whole(path: Union[str, Path], weights: Weights) -> Config:
    """The configuration of a detector whose weights are in another file than a checkpoint."""
    try:
        config = whole_config(weights, None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. This makes a checkpoint of it: " + command(
            "python", "detr_scratch.py", "convert", path, "--to", "ours", "--out", f"{Path(path).stem}-ours.pt",
            "--preset", "NAME")) from error
    if weights.config and weights.kind != "Hugging Face DETR":
        return config
    return replace(config, train=replace(config.train, precision="float32"))  # as others measure their AP


def _of_weights(path: Union[str, Path], weights: Weights, device: torch.device, named: Optional[str]) -> Detector:
    """The detector of weights that are in another file than a checkpoint."""
    config = _whole(path, weights)
    classes, notes = classes_of(weights, config, named), list(weights.notes)
    blueprint(config.model, weights.tensors)  # refuses what is too large to be built
    model = build_detr(config.model)
    adapt(model, weights)
    if weights.config is None:
        notes.append(taken_as(config, weights))
    if weights.classes is None and named is None:
        notes.append(unnamed(classes, "--class-names a,b,c"))
    threshold = FALLBACK if weights.threshold is None else weights.threshold
    return Detector(model.to(device).eval(), config, classes, threshold, tuple(notes))


def unnamed(classes: Classes, flag: str) -> str:
    """What is said of classes that a file does not name."""
    guess = "taken to be COCO's, which are as many" if classes is COCO else "they are numbered"
    return (f"note: the file does not name its classes: {guess} ({', '.join(classes.names[:4])} …); if they are your "
            f"own, say what they are: {flag}")


def classes_of(weights: Weights, config: Config, named: Optional[str] = None) -> Classes:
    """The classes that a file names, or a person; COCO's for 91; else numbers. Raises ValueError for another number."""
    count = config.model.num_classes
    if named is not None:
        names = tuple(name.strip() for name in divided(named))
        if len(names) != count or len(set(names)) != count or not all(names):
            raise ValueError(f"got {len(names)} class names, wanted {count} different names, one for each row of the "
                             "class head, with commas between them")
        ids = weights.classes["ids"] if weights.classes else range(count)
        return Classes(tuple(ids), names)
    if weights.classes is not None:
        return Classes.from_dict(weights.classes)
    if count == len(COCO):
        return COCO
    return Classes(tuple(range(count)), tuple(f"class {k}" for k in range(count)))


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
