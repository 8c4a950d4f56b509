"""export: how does a trained detector run where there is no PyTorch?

    python detr_scratch.py export RUN --out model.onnx --form tensors     wants: pip install onnx onnxruntime

    images float (B,3,H,W) ─┐              ┌─▶ pred_logits (B,Q,K+1); focal: (B,Q,K)
    pad_mask bool (B,H,W) ──┴─ model.onnx ─┴─▶ pred_boxes (B,Q,4) cxcywh in [0,1]

    images are normalised, and 0 on the padding; pad_mask is True there

B, H and W are free. What its user must know is in the file's metadata: `classes` and `category_ids`
by label, `mean` and `std` of a pixel in [0,1], `size` (the rule of the shorter and the longer
side), `classification` (softmax: the last column is "no object"; focal: each column is a sigmoid)
and the best `threshold`. Where the encoder proposes the queries and a picture has fewer cells, the
queries that are left over answer with −20 for every class, as in PyTorch.

Without --form tensors, exporting/command.py puts this network between a graph that reads pictures and
one that gives detections. What is traced is a copy with torch.nn's layers in the place of ours
(traceable.py): a runtime has one node, and one fast kernel, for each. The trace is that of
torch.onnx's TorchScript exporter; the newer one wants a further package (onnxscript). Proven in tests/test_export.py.
Read: export → metadata → largest_difference
"""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

import torch
import tyro
from torch import Tensor

from commands.traceable import traceable
from scratch.config import IMAGENET_MEAN, IMAGENET_STD
from scratch.data.transforms import Augmentation
from scratch.detector import Detector, load as load_detector
from scratch.printable import printable
from scratch.ranges import COUNT, LAYERS, QUERIES, Range, refuse_senseless
from scratch.whole_file import refuse_other_than_file, whole_file

OPSET = 17  # of the format: the first with a layer norm of its own
INPUTS, OUTPUTS = ("images", "pad_mask"), ("pred_logits", "pred_boxes")
FREE = {"images": {0: "batch", 2: "height", 3: "width"}, "pad_mask": {0: "batch", 1: "height", 2: "width"},
        "pred_logits": {0: "batch"}, "pred_boxes": {0: "batch"}}
ALIKE = 1e-3  # of logits and boxes: float32 sums in another order make about 1e-5


@dataclass(frozen=True)
class ExportArguments:
    """Write a trained detector as an ONNX file that takes pictures, with a script that needs no PyTorch, and a card."""

    checkpoint: tyro.conf.Positional[Path]
    """a run's folder (its best.pt), a checkpoint file, or published weights (detr_r50 …: fetched once)"""
    out: Path = Path("exported/model.onnx")
    """the file to write; labels, card and script get their names beside it"""
    form: Literal["picture", "tensors"] = "picture"
    """picture: uint8 pictures of any size in, boxes in pixels, scores and labels out; tensors: the network alone, from
    normalised images and their pad_mask to logits and boxes in [0,1]"""
    half: bool = False
    """also NAME.half.onnx: weights in float16"""
    int8: bool = False
    """also NAME.int8.onnx: weights and activations in 8 bits, calibrated on pictures of the train split"""
    data: Optional[str] = None
    """a folder of any layout that train's --data takes, for AP and for int8; None: that of the training"""
    eval_split: Optional[Literal["val", "test", "train"]] = None
    """the split for AP; None: as in training"""
    pictures: int = 200
    """AP and time are measured on the first N of that split; 0: not at all"""
    calibrate: int = 100
    """int8 is calibrated on the first N pictures of the train split"""
    layers: Optional[int] = None
    """write only the first decoder layers, this number of them, which is faster and costs some AP; None: all"""
    num_queries: Optional[int] = None
    """how many queries a detector with proposals has: more of them find more objects in full pictures, and cost time;
    None: as in training"""

    def __post_init__(self) -> None:
        refuse_senseless(self, pictures=Range(0, 10**12), calibrate=COUNT, layers=LAYERS, num_queries=QUERIES)


def export_checkpoint(arguments: ExportArguments) -> None:
    """Write the file and say what it takes, gives, and how near it comes."""
    if arguments.out.suffix != ".onnx":  # the package onnx takes the form of a file from its ending: .json is text
        raise ValueError(f"got --out {arguments.out}, wanted a file that ends in .onnx")
    refuse_other_than_file(arguments.out)  # ahead of the work
    difference = export(detector_of(arguments), arguments.out)
    print(f"{printable(arguments.out)}: {arguments.out.stat().st_size / 2**20:.1f} MiB, opset {OPSET}\n"
          "  images float32 (B,3,H,W): RGB in [0,1], less the mean, by the std; 0 on the padding\n"
          "  pad_mask bool (B,H,W): True on the padding\n"
          "  → pred_logits, pred_boxes (cx, cy, w, h in [0,1] of the unpadded image); classes and more: its metadata")
    print("it was not checked: pip install onnxruntime" if difference is None else
          f"ONNX Runtime gives the same for batches of {len(sizes(0, 0))} sizes, within {difference:.1e}")


def detector_of(arguments: ExportArguments) -> Detector:
    """What is to be written."""
    return load_detector(arguments.checkpoint, torch.device("cpu"), arguments.layers, num_queries=arguments.num_queries)


# -- the file ------------------------------------------------------------------------------------------------------


def export(detector: Detector, path: Path) -> Optional[float]:
    """Write the detector to `path`, whole or not at all; what `largest_difference` found of batches of all `sizes`.

    It is kept only if they agree. Without ONNX Runtime nothing is compared, and None says so.
    Raises ValueError where the package onnx is missing, and what `largest_difference` raises.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError("the package onnx is not installed; wanted for this command alone: pip install onnx "
                         "onnxruntime") from error
    H, W = example_size(detector)
    images, pad_mask = example(2, H, W)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "free some space, or name another --out") as partial:
        with warnings.catch_warnings(), torch.no_grad():
            # That the model's checks of its input are not in the graph, and that there is a newer exporter.
            warnings.simplefilter("ignore")
            torch.onnx.export(traceable(detector.model), (images, pad_mask), str(partial), input_names=list(INPUTS),
                              output_names=list(OUTPUTS), dynamic_axes=FREE, opset_version=OPSET, dynamo=False)
        file = onnx.load(partial)
        for key, value in metadata(detector).items():
            file.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(file)
        onnx.save(file, partial)
        return largest_difference(partial, detector, sizes(H, W))


def sizes(H: int, W: int) -> list[tuple[int, int, int]]:
    """The batches (B,H,W) for which a file is compared: around the usual size, and down to a single cell."""
    return [(1, H, W), (2, W, H), (3, H + 32, W + 7), (2, 96, 61), (1, 17, 45), (1, 16, 16)]


def metadata(detector: Detector) -> dict[str, str]:
    """What a user of the file must know beside its tensors; everything but words is JSON."""
    data, model = detector.config.data, detector.config.model
    return {"preset": detector.config.preset, "classification": model.classification,
            "classes": json.dumps(detector.classes.names), "category_ids": json.dumps(detector.classes.ids),
            "mean": json.dumps(IMAGENET_MEAN), "std": json.dumps(IMAGENET_STD),
            "threshold": json.dumps(detector.threshold),
            "size": json.dumps({"short_side": data.short_side, "max_size": data.max_size, "square": data.square})}


def example_size(detector: Detector) -> tuple[int, int]:
    """The (height, width) that a photograph of 480×640 is shown in: it has cells enough for all queries."""
    return Augmentation.for_evaluation(detector.config.data).evaluation_size(480, 640)


def example(B: int, H: int, W: int) -> tuple[Tensor, Tensor]:
    """Random images (B,3,H,W) and their pad_mask (B,H,W): the last has a margin below and to its right."""
    images = torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(B * H + W))
    pad_mask = torch.zeros(B, H, W, dtype=torch.bool)
    pad_mask[-1, H - H // 8:], pad_mask[-1, :, W - W // 6:] = True, True
    return images.masked_fill(pad_mask[:, None], 0.0), pad_mask


def largest_difference(path: Path, detector: Detector, sizes: list[tuple[int, int, int]]) -> Optional[float]:
    """The largest difference of any logit or box of the file from the model's, for batches (B,H,W); None: no runtime.

    Raises ValueError where it is more than `ALIKE`.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # its own choice, all cores, waits for them under load
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model, in_order = deepcopy(detector.model).cpu().eval(), detector.config.model.queries != "proposal"
    differences = []
    for size in sizes:
        images, pad_mask = example(*size)
        with torch.no_grad():
            expected = model(images, pad_mask)
        found = session.run(list(OUTPUTS), {"images": images.numpy(), "pad_mask": pad_mask.numpy()})
        there = torch.cat([expected[name] for name in OUTPUTS], dim=-1)                             # (B,Q,K+5)
        here = torch.cat([torch.from_numpy(value) for value in found], dim=-1)                      # (B,Q,K+5)
        differences.append(answers_apart(here, there, in_order))
    largest = float(torch.stack(differences).max())  # NaN if one of them is
    if not largest <= ALIKE:
        raise ValueError(f"the ONNX file differs from the checkpoint by {largest:.1e} where at most {ALIKE:g} is "
                         "rounding, and is not kept; report which versions of torch, onnx and onnxruntime there are")
    return largest


def answers_apart(here: Tensor, there: Tensor, in_order: bool) -> Tensor:
    """How far two answers (B,Q,K+5) are apart at most, query by query.

    Proposed queries are compared each with the nearest one of its image: where two cells are equally sure, rounding
    decides which of them is asked first. From both sides, or one right answer would do for all that are asked.
    """
    if in_order:
        return (here - there).abs().max()
    apart = (here[:, :, None] - there[:, None]).abs().amax(-1)                                      # (B,Q,Q)
    return torch.maximum(apart.amin(1), apart.amin(2)).max()
