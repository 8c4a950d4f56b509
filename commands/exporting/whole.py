"""whole: how does a detector become one file that takes pictures and gives detections?

    pictures uint8 (B,H,W,3) ─▶ picture.py ─▶ the network ─▶ answers.py ─▶ boxes, scores, labels
                                              (tensors, as `export --form tensors` writes it)

Three graphs are joined at their names, and the file says what its user must know: see `metadata`.
That the file answers as `Detector.predict` does is checked before it gets its name, for pictures of
several sizes and for one and four of them at a time. Proven in tests/exporting/test_whole.py.
Read: joined → metadata → largest_differences → apart
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.compose import merge_models
from PIL import Image

from commands.export import metadata as metadata_of_tensors
from commands.exporting.answers import answers_graph
from commands.exporting.picture import Size, picture_graph
from scratch.data.batch import collate
from scratch.data.transforms import Augmentation
from scratch.detector import Detections, Detector
from scratch.evaluation.coco_eval import postprocess

MOST_PIXELS, MOST_SCORE = 0.5, 1e-3  # how far a box's side, or a score, may be from what PyTorch gives
# (B,H,W): upright, lying, tiny and long, smaller and larger than they are shown.
SIZES = ((1, 480, 640), (4, 480, 640), (1, 640, 480), (4, 97, 131), (1, 331, 500), (4, 500, 331), (1, 33, 400),
         (4, 16, 16), (1, 720, 1280))


def joined(tensors: onnx.ModelProto, detector: Detector) -> onnx.ModelProto:
    """The network's own graph between the one that reads pictures and the one that gives detections."""
    data, model = detector.config.data, detector.config.model
    size = Size(data.short_side, data.max_size, data.square)
    whole = merge_models(picture_graph(size, tensors.ir_version), tensors,
                         io_map=[("images_shown", "images"), ("nothing_padded", "pad_mask")])
    whole = merge_models(whole, answers_graph(model.classification, model.num_queries, model.num_classes,
                                              tensors.ir_version),
                         io_map=[("pred_logits", "logits"), ("pred_boxes", "boxes_shown"), ("sides", "sides_given")])
    del whole.metadata_props[:]
    for key, value in metadata(detector).items():
        whole.metadata_props.add(key=key, value=value)
    whole.producer_name, whole.graph.name = "detr_scratch", detector.config.preset
    onnx.checker.check_model(whole)
    return whole


def metadata(detector: Detector) -> dict[str, str]:
    """What predict_onnx.py must know; everything but words is JSON."""
    data = detector.config.data
    return {**metadata_of_tensors(detector), "form": "picture", "sixteen_bit": data.sixteen_bit,
            "max_megapixels": json.dumps(data.max_megapixels)}


# -- does it answer as PyTorch does? -------------------------------------------------------------------------------


class Apart(NamedTuple):
    """How far two answers are apart at most: pixels of a box's side, and score."""

    pixels: float
    score: float


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """The file, open on the CPU, with as many threads as PyTorch takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # its own choice, all cores, waits for them under load
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(session: onnxruntime.InferenceSession, pictures: np.ndarray, names: Sequence[str]) -> list[Detections]:
    """uint8 (B,H,W,3) → what the file finds in each."""
    boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"pictures": pictures})
    return [Detections(torch.from_numpy(b), torch.from_numpy(s), torch.from_numpy(k), tuple(names[i] for i in k))
            for b, s, k in zip(boxes, scores, labels)]


def largest_differences(path: Path, detector: Detector,
                        sizes: Sequence[tuple[int, int, int]] = SIZES) -> dict[tuple[int, int, int], Apart]:
    """For pictures drawn at random, B of H × W pixels at a time: how far the file is from what PyTorch finds.

    Raises ValueError where that is more than MOST_PIXELS or MOST_SCORE.
    """
    session, found = session_of(path), {}
    for B, H, W in sizes:
        pictures = np.stack([drawn(H, W, seed) for seed in range(B)])                # (B,H,W,3)
        here = answers(session, pictures, detector.classes.names)
        there = by_pytorch(detector, pictures)
        parts = [apart(a, b) for a, b in zip(here, there, strict=True)]
        worst = Apart(max(part.pixels for part in parts), max(part.score for part in parts))
        if not (worst.pixels <= MOST_PIXELS and worst.score <= MOST_SCORE):
            raise ValueError(f"the ONNX file is {worst.pixels:.2g} pixels and {worst.score:.1e} of a score away from "
                             f"the checkpoint for {B} pictures of {W}×{H}, where at most {MOST_PIXELS:g} and "
                             f"{MOST_SCORE:g} are rounding, and is not kept; report which versions of torch, onnx and "
                             "onnxruntime there are")
        found[B, H, W] = worst
    return found


@torch.no_grad()
def by_pytorch(detector: Detector, pictures: np.ndarray) -> list[Detections]:
    """What `Detector.predict` finds in uint8 (B,H,W,3), resized rows first whatever Pillow's version prefers."""
    B, H, W, _ = pictures.shape
    h, w = Augmentation.for_evaluation(detector.config.data).evaluation_size(H, W)
    bilinear = Image.Resampling.BILINEAR
    shown = [np.asarray(Image.fromarray(picture).resize((w, H), bilinear).resize((w, h), bilinear))
             for picture in pictures]                                                # (h,w,3) each
    batch = collate([(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), {}) for pixels in shown])
    outputs = detector.model(batch.normalised(), batch.pad_mask)
    found = postprocess(outputs, torch.tensor([[H, W]] * B), detector.config.model.classification)
    order = [answer["scores"].argsort(descending=True, stable=True) for answer in found]
    return [Detections(answer["boxes"][by], answer["scores"][by], answer["labels"][by],
                       tuple(detector.classes.names[k] for k in answer["labels"][by].tolist()))
            for answer, by in zip(found, order)]


def drawn(H: int, W: int, seed: int) -> np.ndarray:
    """A picture uint8 (H,W,3) of coloured spots: random pixels, made larger."""
    rng = np.random.RandomState(seed)
    few = rng.randint(0, 256, (H // 16 + 2, W // 16 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(few).resize((W, H), Image.Resampling.BICUBIC))


def apart(here: Detections, there: Detections) -> Apart:
    """How far two answers are apart: each detection and the nearest of its class in the other answer, both ways.

    Detections that score as little as the last one, within MOST_SCORE, are left out where they have no partner: which
    of them is the last to be reported is a matter of rounding.
    """
    worst = [Apart(0.0, 0.0)]
    for these, those in ((here, there), (there, here)):
        last = min([*these.scores.tolist(), *those.scores.tolist()], default=0.0)
        for box, score, label in zip(these.boxes_xyxy, these.scores, these.labels):
            pixels = (those.boxes_xyxy - box).abs().amax(-1)                         # (N,)
            scores = (those.scores - score).abs()                                    # (N,)
            # The nearest, both measured in what is allowed; another class is no partner.
            both = torch.maximum(pixels / MOST_PIXELS, scores / MOST_SCORE)
            both = both.masked_fill(those.labels != label, torch.inf)
            nearest = int(both.argmin()) if len(both) else -1
            if nearest >= 0 and both[nearest] <= 1 or float(score) > last + MOST_SCORE:
                worst.append(Apart(float(pixels[nearest]), float(scores[nearest]))
                             if nearest >= 0 and both[nearest] < torch.inf else Apart(float("inf"), float("inf")))
    return Apart(max(part.pixels for part in worst), max(part.score for part in worst))
