"""config: which detector, on which data, trained how?

One frozen dataclass for each of model, loss, data and training; a `Config` holds one of each, and `PRESETS` names whole
`Config`s. The command line is generated from these fields (`detr_scratch.py train --help`), a checkpoint
carries them, and nothing else in the project holds a default of its own.

    Config ─┬─ model   the network's shape            (ModelConfig)
            ├─ loss    what is a good match, what hurts (LossConfig)
            ├─ data    which images, how large, how changed (DataConfig)
            └─ train   how long, how fast, how exact   (TrainConfig)

Published values: Carion et al. 2020 (arXiv 2005.12872), section 4 and appendix A.4.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Optional, Tuple

from scratch.ranges import (
    BATCH, COUNT, DETECTIONS, LAYERS, MEGAPIXELS, MINUTES, PROCESSES, QUERIES, SHARE, Range, refuse_other_kinds,
    refuse_senseless)

Backbone = Literal["resnet_tiny", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
# The channel statistics of ImageNet that published backbones were trained with, for pixels in [0,1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_PARAMETERS = 10**9  # seven times those of the largest preset: 4 GB of weights, and 16 GB while they learn


@dataclass(frozen=True)
class ModelConfig:
    """The network's shape (section 3.2 and figure 10 of the paper)."""

    backbone: Backbone = "resnet50"
    """which ResNet turns pixels into features"""
    dilation: bool = False
    """DC5: dilate the last stage instead of striding it, so that the features keep stride 16"""
    norm: Literal["frozen_batch", "batch", "group"] = "frozen_batch"
    """the backbone's normalisation: frozen under pretrained weights, trained from nothing"""
    zero_init_residual: bool = False
    """each residual block begins as its shortcut alone, for a backbone that is trained from nothing"""
    hidden_dim: int = 256
    """D: the width of every token in the transformer"""
    nheads: int = 8
    """N: attention heads; must divide hidden_dim"""
    dim_feedforward: int = 2048
    """the hidden width of each feed-forward block"""
    enc_layers: int = 6
    """encoder layers"""
    dec_layers: int = 6
    """L: decoder layers"""
    num_queries: int = 100
    """Q: the most objects that the detector can report for one image"""
    dropout: float = 0.1
    """the share of activations that the transformer drops while it trains"""
    num_classes: int = 91
    """K: object classes, without "no object"; a training run takes it from its data"""
    aux_loss: bool = True
    """auxiliary losses: every decoder layer predicts and has a loss, not only the last (section 3.2)"""
    queries: Literal["learned", "anchor", "proposal"] = "learned"
    """of which kind they are (how many: --num-queries): a learnt vector; a box that every decoder layer moves closer
    (scratch/model/anchors/decoder); or such a box that the encoder proposes for the picture
    (scratch/model/anchors/proposals)"""
    classification: Literal["softmax", "focal"] = "softmax"
    """classes and "no object" share one softmax, or each class has a sigmoid of its own
    (scratch/ops/beyond/focal_loss)"""
    fine_memory: bool = False
    """the decoder reads a grid twice as fine as the encoder's, needs anchors (scratch/model/anchors/fine_memory)"""
    roi_features: bool = False
    """boxes are refined by the features around them, read by RoIAlign, needs anchors
    (scratch/model/anchors/roi_features)"""
    denoising: int = 0
    """noised copies of every true box that the decoder repairs in training, needs anchors
    (scratch/model/anchors/denoising)"""
    groups: int = 1
    """groups of queries in training, each matched on its own; later there is one (scratch/model/anchors/queries)"""
    one_to_many: int = 0
    """in training, a second prediction of each query, where this many at most are trained on one object (0: none);
    needs anchors and focal (scratch/model/anchors/one_to_many)"""

    def __post_init__(self) -> None:
        refuse_other_kinds(self)
        refuse_senseless(
            self, hidden_dim=Range(4, 8192), nheads=Range(1, 2048), dim_feedforward=Range(1, 65_536),
            enc_layers=Range(0, 100), dec_layers=LAYERS, num_queries=QUERIES, dropout=Range(0, 1, "high"),
            num_classes=Range(1, 100_000), denoising=Range(0, 1000), groups=Range(1, 1000),
            one_to_many=Range(0, 1000))
        if self.groups * self.num_queries > 20_000:  # the mask that keeps them apart has its square
            raise ValueError(f"got groups = {self.groups} of num_queries = {self.num_queries}, wanted "
                             "20,000 queries together at most (--groups, --num-queries)")
        parameters = parameters_of(self)
        if parameters > MOST_PARAMETERS:
            raise ValueError(
                f"got a network of {parameters:,} parameters (hidden_dim = {self.hidden_dim}, dim_feedforward = "
                f"{self.dim_feedforward}, enc_layers = {self.enc_layers}, dec_layers = {self.dec_layers}, num_classes "
                f"= {self.num_classes}), wanted {MOST_PARAMETERS:,} at most: take a smaller --hidden-dim first")

    @property
    def stride(self) -> int:
        """Pixels between two cells of the encoder's feature map, each way."""
        return 16 if self.dilation else 32

    def cells(self, height: int, width: int) -> int:
        """The cells of the encoder's feature map of an image of this size in pixels."""
        return -(-height // self.stride) * -(-width // self.stride)

    def beyond_published(self) -> str:
        """What the published DETR has not, of any size: "queries = proposal, groups = 3"; "" if there is nothing."""
        published = dict(queries="learned", classification="softmax", fine_memory=False, roi_features=False,
                         denoising=0, groups=1, one_to_many=0)
        return ", ".join(f"{name} = {value}" for name, value in vars(self).items()
                         if value != published.get(name, value))


@dataclass(frozen=True)
class LossConfig:
    """What makes a good match, and what a wrong answer costs (section 3.1, appendix A.2)."""

    set_cost_class: float = 1.0
    """weight of the class probability in the matching cost"""
    set_cost_bbox: float = 5.0
    """weight of the L1 distance of the boxes in the matching cost"""
    set_cost_giou: float = 2.0
    """weight of the generalised IoU in the matching cost"""
    ce_loss_coef: float = 1.0
    """weight of the cross-entropy in the loss"""
    bbox_loss_coef: float = 5.0
    """weight of the boxes' L1 distance in the loss"""
    giou_loss_coef: float = 2.0
    """weight of the generalised-IoU loss"""
    eos_coef: float = 0.1
    """class weight of "no object": most queries answer it, so it counts a tenth (softmax alone)"""
    focal_alpha: float = 0.25
    """weight of "yes" against 1 − it of "no" (focal alone)"""
    focal_gamma: float = 2.0
    """how fast answers that are nearly right stop counting (focal alone)"""
    quality: float = 0.0
    """the score to learn is the box's IoU to this power, not 1 (focal alone; scratch/ops/beyond/quality_focal_loss)"""

    def __post_init__(self) -> None:
        refuse_other_kinds(self)
        weight = Range(0, 10**6)
        refuse_senseless(
            self, set_cost_class=weight, set_cost_bbox=weight, set_cost_giou=weight, ce_loss_coef=weight,
            bbox_loss_coef=weight, giou_loss_coef=weight, eos_coef=Range(0, 1000), focal_alpha=SHARE,
            focal_gamma=Range(0, 100), quality=Range(0, 100))
        for what, names in (("matching cost", ("set_cost_class", "set_cost_bbox", "set_cost_giou")),
                            ("loss", ("ce_loss_coef", "bbox_loss_coef", "giou_loss_coef"))):
            if not any(getattr(self, name) for name in names):
                raise ValueError(f"got 0 for each of {', '.join(names)}, wanted one at least above 0: there would be "
                                 f"no {what} (--{', --'.join(name.replace('_', '-') for name in names)})")


@dataclass(frozen=True)
class DataConfig:
    """Which images, how large, how changed."""

    data: str = "shapes"
    """"shapes" (generated) or a folder of any layout: COCO's, Roboflow's, CVAT's, Label Studio's, FiftyOne's, YOLO,
    Pascal VOC, LabelMe, CVAT, VIA, Create ML, tables (scratch/data/layouts)"""
    train_images: Optional[str] = None
    """explicit folder of training images; with the other three, overrides the layout found in `data`"""
    train_annotations: Optional[str] = None
    """explicit COCO JSON of the training images"""
    val_images: Optional[str] = None
    """explicit folder of validation images"""
    val_annotations: Optional[str] = None
    """explicit COCO JSON of the validation images"""
    eval_split: Literal["val", "test", "train"] = "val"
    """the split that is evaluated"""
    classes: Optional[str] = None
    """learn these of the data's classes alone, labelled in this order: "person,car"; boxes of others are left out, and
    an image without any other box stays: there is nothing to find on it. A comma in a name: 'cup\\, mug,plate'; one of
    two classes of a name: 'cup (7)', with its id"""
    limit_train: Optional[int] = None
    """use only the first N training images (in the order of their ids)"""
    limit_val: Optional[int] = None
    """evaluate only the first N images of the val or test split (in the order of their ids)"""
    max_dets: int = 100
    """this number of detections of a class in an image, the best ones, count in AP: 100 in COCO's figures; more where
    images have more objects of a class"""
    as_is: bool = False
    """take boxes as they are, even if all of them together look like another form: normalised, corners, centres"""
    short_side: int = 800
    """pixels of the shorter side at evaluation; the training scales are 0.6 to 1.0 of it (480-800)"""
    max_size: int = 1333
    """the longer side never exceeds this many pixels"""
    grow: float = 0.0
    """progressive resizing: over this share of the run, training pictures grow from half of their size to all of it, so
    that early steps are quick (scratch/training/progressive)"""
    square: bool = False
    """show every image as a square of short_side pixels: stretched, but a batch of mixed shapes has no padding"""
    augment: Literal["paper", "zoom", "flip", "none"] = "paper"
    """paper: flip, scales 480-800 or crop first (appendix A.4), × short_side/800; zoom: flip, crop, evaluation size"""
    turns: bool = False
    """quarter turns too, where pictures have no up (cells, satellites); half of them then swap height and width"""
    colour: float = 0.0
    """strength s of the colour jitter: brightness, contrast, saturation × 1±s, hue ± s/4 turns (scratch/data/colour)"""
    mosaic: float = 0.0
    """the chance that four training pictures meet in one; it may hold more boxes than each (scratch/data/mosaic)"""
    mixup: float = 0.0
    """the chance that a second training picture shines through, with its boxes (scratch/data/mosaic)"""
    sixteen_bit: Literal["full", "range"] = "full"
    """pictures of 16 bits: full: 0..65535 is black to white; range: each from its own darkest to its own brightest"""
    max_megapixels: float = 100.0
    """a picture with more is refused before it is decoded; decoded, a megapixel takes 4 MB, in each worker"""
    leave_out_broken: bool = False
    """go on without the pictures that are missing, too large or cannot be decoded; all are decoded first, to know"""
    remember: bool = True
    """keep what was read of a large set in hidden files beside it, so that the next run begins in seconds: annotations
    as arrays, and which pictures are whole (scratch/kept_arrays)"""
    workers: int = 2
    """processes that read and augment images, beside the one that trains"""
    shapes_train: int = 2000
    """images of the generated training split"""
    shapes_val: int = 200
    """images of the generated validation split"""

    def __post_init__(self) -> None:
        refuse_other_kinds(self)
        chance = Range(0, 1, words="a chance: 0 (never) to 1 (always)")
        # A side of 16,384 pixels: 3 GiB for one picture, as the network is shown it.
        refuse_senseless(
            self, limit_train=COUNT, limit_val=COUNT, short_side=Range(8, 16_384), max_size=Range(8, 16_384),
            colour=Range(0, 1, "high", "0 (off) or more and less than 1, where pictures turn black or grey"),
            mosaic=chance, mixup=chance, grow=SHARE, workers=PROCESSES,
            shapes_train=Range(1, 10**7), shapes_val=Range(1, 10**7), max_dets=DETECTIONS,
            max_megapixels=MEGAPIXELS)

    def in_folder(self, folder: str) -> DataConfig:
        """The same settings for the data of another folder: explicit paths, which would go first, are left out."""
        return replace(self, data=folder, train_images=None, train_annotations=None, val_images=None,
                       val_annotations=None)


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, how exact (section 4 and appendix A.4)."""

    epochs: int = 300
    """passes over the training images"""
    max_steps: Optional[int] = None
    """stop after this many optimizer steps"""
    max_minutes: Optional[float] = None
    """stop training after this many minutes; the schedule then follows the clock where that is ahead"""
    batch_size: int = 2
    """images of one forward pass, on each device"""
    accumulate: int = 1
    """forward passes that share one optimizer step; effective batch = batch_size × accumulate × devices"""
    lr: float = 1e-4
    """peak learning rate of transformer and heads"""
    lr_backbone: float = 1e-5
    """peak learning rate of the backbone"""
    train_backbone: Literal["all", "stages_2_to_4", "none"] = "stages_2_to_4"
    """which backbone weights learn; as published, the stem and the first stage stay as they are"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices and convolutions step by whole directions (scratch/training/muon), all else by AdamW"""
    lr_matrices: float = 0.02
    """peak learning rate of what Muon steps, in backbone and transformer alike (muon alone)"""
    weight_decay: float = 1e-4
    """decoupled weight decay"""
    clip_max_norm: float = 0.1
    """the gradient's L2 norm is cut to this; 0 leaves it alone"""
    schedule: Literal["step", "cosine"] = "step"
    """step: lr ÷ 10 once at `lr_drop_at`; cosine: falls smoothly to 0"""
    lr_drop_at: float = 2 / 3
    """the share of the run after which the step schedule drops (200 of 300 epochs)"""
    warmup_steps: int = 0
    """steps over which the learning rate rises linearly to its peak"""
    warmup_share: float = 1.0
    """the share of the run after which the rise is over in any case: a slow machine takes fewer steps in its minutes"""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto: float32 on a CPU; on a GPU bf16 where it has it, else fp16 with loss scaling"""
    ema_decay: float = 0.0
    """decay of the running average of the weights that is evaluated; 0 evaluates the weights themselves"""
    eval_every: int = 1
    """epochs between two evaluations"""
    eval_minutes: float = 0.0
    """and at least so many minutes between them"""
    patience: int = 0
    """early stopping: end the run after this number of evaluations in a row without a better AP; 0: by its budget alone
    (scratch/training/course)"""
    checkpoint_every: int = 200
    """optimizer steps between two checkpoints, beside the one after each epoch"""
    checkpoint_minutes: float = 0.0
    """minutes between two checkpoints; then neither checkpoint_every nor the end of an epoch counts. 0: those count"""
    seed: int = 42
    """the seed of weights, order, augmentation and dropout"""

    def __post_init__(self) -> None:
        refuse_other_kinds(self)
        rate = Range(0, 1000)
        refuse_senseless(
            self, epochs=COUNT, max_steps=COUNT, max_minutes=MINUTES, batch_size=BATCH, accumulate=BATCH, lr=rate,
            lr_backbone=rate, lr_matrices=rate, weight_decay=rate, clip_max_norm=Range(0, 10**12), lr_drop_at=SHARE,
            warmup_steps=Range(0, COUNT.high), warmup_share=SHARE, eval_minutes=Range(0, MINUTES.high),
            checkpoint_minutes=Range(0, MINUTES.high), ema_decay=Range(0, 1, "high"), eval_every=COUNT,
            checkpoint_every=COUNT, patience=Range(0, COUNT.high), seed=Range(0, 2**32 - 1))


@dataclass(frozen=True)
class Config:
    """One run: a preset's name, and the four parts that it filled in."""

    preset: str = "detr_r50"
    """the name of the preset that gave the defaults"""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def most_found(self) -> int:
        """The objects that can be found in one picture: one for each query, and in a square, where cells of the encoder
        become queries, one for each of its cells."""
        side, queries = self.data.short_side, self.model.num_queries
        bounded = self.model.queries == "proposal" and self.data.square
        return min(queries, self.model.cells(side, side)) if bounded else queries

    def to_dict(self) -> dict[str, Any]:
        """The nested dict of plain values that a checkpoint stores."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Any) -> "Config":
        """The inverse of `to_dict`; a field that is left out has its default, as in what older versions wrote.

        Raises ValueError for what is no such dict (it was written by another version, or is damaged), and for values of
        another type or that no run can mean.
        """
        kinds = {"model": ModelConfig, "loss": LossConfig, "data": DataConfig, "train": TrainConfig}
        if not isinstance(values, dict) or not isinstance(values.get("preset"), str) or any(
                not isinstance(values.get(name), dict) for name in kinds):
            got = f"one with {', '.join(map(str, values))}" if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"got no configuration ({got[:200]}), wanted a dict of preset, {', '.join(kinds)}")
        parts: dict[str, Any] = {"preset": values["preset"]}
        for name, kind in kinds.items():
            unknown = set(values[name]) - {f.name for f in fields(kind)}
            if unknown:
                raise ValueError(f"config.{name} has unknown fields {sorted(map(str, unknown))}: it was written by "
                                 "another version")
            try:
                parts[name] = kind(**values[name])
            except ValueError as error:
                raise ValueError(f"config.{name}: {error}") from error
        return Config(**parts)


# ResNet recipe: which block, how many in each of the four stages, the width of the first stage.
#   block "basic" (two 3×3, expansion 1) or "bottleneck" (1×1, 3×3, 1×1, expansion 4); He et al. 2015, table 1.
RESNETS: dict[str, Tuple[str, Tuple[int, int, int, int], int]] = {
    "resnet_tiny": ("basic", (2, 2, 2, 2), 16),
    "resnet18": ("basic", (2, 2, 2, 2), 64),
    "resnet34": ("basic", (3, 4, 6, 3), 64),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 64),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 64),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 64),
}


def parameters_of(model: ModelConfig) -> int:
    """The parameters of the network that `build_detr` would make, counted before any memory is asked for.

    The sums of the notes in scratch/model; proven to be exact in tests/test_config.py.
    """
    D, F, K, Q = model.hidden_dim, model.dim_feedforward, model.num_classes, model.groups * model.num_queries
    block, depths, width = RESNETS[model.backbone]
    expansion, of_norm = (4 if block == "bottleneck" else 1), (0 if model.norm == "frozen_batch" else 2)

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    channels, total = width, (3 * 49 + of_norm) * width
    for stage, depth in enumerate(depths):
        planes = width * 2**stage
        for _ in range(depth):
            out = planes * expansion
            convolutions = [(channels, planes, 9), (planes, planes, 9)] if expansion == 1 else [
                (channels, planes, 1), (planes, planes, 9), (planes, out, 1)]
            convolutions += [(channels, out, 1)] if channels != out else []  # the shortcut
            total += sum(i * o * taps + of_norm * o for i, o, taps in convolutions)
            channels = out
    total += linear(channels, D)

    attention, thought = 4 * linear(D, D), linear(D, F) + linear(F, D)
    box_head = 2 * linear(D, D) + linear(D, 4)
    total += model.enc_layers * (attention + thought + 4 * D)
    total += linear(D, K + (model.classification == "softmax")) + box_head
    if model.queries == "learned":
        return total + model.dec_layers * (2 * attention + thought + 6 * D) + 2 * D + Q * D
    total += model.dec_layers * (attention + 6 * linear(D, D) + thought + 6 * D) + 2 * D
    total += model.dec_layers * (thought + 2 * D) if model.one_to_many else 0
    total += linear(2 * D, D) + 4 * linear(D, D) + linear(D, 2)  # the small networks between anchors and content
    total += (K + 1) * D if model.queries == "anchor" or model.denoising else 0
    total += linear(width * expansion * (2 if model.dilation else 4), D) + 2 * D if model.fine_memory else 0
    total += linear(D, 32) + 2 * 32 + linear(32 * 7**2, D) if model.roi_features else 0  # 32 channels at 7×7 points
    return total + (4 * Q if model.queries == "anchor" else
                    linear(D, D) + 2 * D + linear(D, K) + box_head + model.groups * D)


def memory_here() -> Optional[int]:
    """The bytes of memory that this process may have at most: the machine's, or its container's; None if none says."""
    found = []
    with suppress(AttributeError, ValueError, OSError):  # Windows cannot be asked so
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found.append(int(Path(file).read_text(encoding="ascii")))
    return min((size for size in found if size > 0), default=None)


def refuse_what_does_not_fit(model: ModelConfig, memory: Optional[int]) -> None:
    """Raise ValueError for a network whose float32 weights alone are more than `memory` bytes; None: not known."""
    wanted = 4 * parameters_of(model)
    if memory is not None and wanted > memory:
        raise ValueError(f"the network has {parameters_of(model):,} parameters, {wanted / 2**30:.2g} GiB, and there "
                         f"are {memory / 2**30:.2g} GiB of memory: take a smaller one (--hidden-dim, --backbone)")


_R50 = Config()


def _of_paper(name: str, backbone: Backbone, dilation: bool) -> Config:
    return replace(_R50, preset=name, model=replace(_R50.model, backbone=backbone, dilation=dilation))


_TINY_VANILLA = Config(
    preset="tiny_vanilla",
    model=ModelConfig(backbone="resnet_tiny", dilation=True, norm="batch", hidden_dim=128, nheads=4,
                      dim_feedforward=512, enc_layers=2, dec_layers=3, num_queries=40, dropout=0.0),
    data=DataConfig(short_side=144, square=True, augment="flip"),
    train=TrainConfig(epochs=1000, max_minutes=8.8, batch_size=16, lr=5e-4, lr_backbone=5e-4, train_backbone="all",
                      schedule="cosine", warmup_steps=50, precision="float32", eval_every=2),
)

_141M_VANILLA = Config(
    preset="detr_141m",
    model=ModelConfig(backbone="resnet152", norm="batch", hidden_dim=768, nheads=12),
    data=DataConfig(short_side=512, max_size=853),
    train=TrainConfig(epochs=1000, max_minutes=20, batch_size=16, lr_backbone=1e-4, train_backbone="all",
                      schedule="cosine", warmup_steps=200),
)


def _fast(name: str, vanilla: Config, model: Optional[dict[str, Any]] = None, **train: float) -> Config:
    """The same network with what lets it learn in minutes: see docs/results.md."""
    return replace(
        vanilla, preset=name, model=replace(vanilla.model, queries="proposal", classification="focal", fine_memory=True,
                                               roi_features=True, **(model or {})),
        # From nothing, the backbone has to learn what tells classes apart, and it learns what the loss pulls at. A
        # focal loss's slope is small: at a weight of 1 the boxes have nearly all of the gradient.
        loss=replace(vanilla.loss, set_cost_class=2.0, ce_loss_coef=12.0, bbox_loss_coef=12.0,
                     giou_loss_coef=5.0, quality=0.5),
        # Muon's steps are of one length: the decay sets how far each turns a matrix (training/muon).
        train=replace(vanilla.train, optimizer="muon", clip_max_norm=0.0, weight_decay=0.2, **train))


# The generated shapes have sides of 192 to 320 pixels: as squares of 256, no pixel is padding. A checkpoint holds weights
# and momenta, over 1 GB, so checkpoints are written by the clock.
# All residual blocks begin as their shortcuts: otherwise the first gradients overflow in fp16.
_141M_FAST = _fast("detr_141m_fast", _141M_VANILLA, {"dec_layers": 5, "zero_init_residual": True}, lr=3e-4,
                   lr_backbone=3e-4, warmup_share=0.05, eval_minutes=2.0, checkpoint_minutes=5.0)
# The same recipe with a smaller backbone and width: more steps in the same minutes (docs/gpu_estimate.md).
_R50_SMALL = replace(_141M_VANILLA, model=replace(_R50.model, norm="batch"))
_R50_FAST = _fast("detr_r50_fast", _R50_SMALL, {"dec_layers": 5, "zero_init_residual": True}, lr=3e-4, lr_backbone=3e-4,
                  warmup_share=0.05, eval_minutes=2.0, checkpoint_minutes=5.0)
_SQUARES = DataConfig(short_side=256, square=True, augment="flip", mosaic=0.4)
_TINY_FAST = _fast("tiny", _TINY_VANILLA, {"one_to_many": 4}, lr=2e-3, lr_backbone=2e-3)

# tiny_vanilla and detr_141m are DETR as published, scaled; tiny and detr_141m_fast, the default runs, learn in minutes.
# detr_r50_fast is the latter's recipe on a smaller network.
PRESETS: dict[str, Config] = {
    "tiny": replace(_TINY_FAST, data=replace(_TINY_FAST.data, short_side=192, grow=0.8, mosaic=0.4)),
    "tiny_vanilla": _TINY_VANILLA,
    "detr_r50": _of_paper("detr_r50", "resnet50", False),
    "detr_r50_dc5": _of_paper("detr_r50_dc5", "resnet50", True),
    "detr_r101": _of_paper("detr_r101", "resnet101", False),
    "detr_r101_dc5": _of_paper("detr_r101_dc5", "resnet101", True),
    "detr_141m": _141M_VANILLA,
    "detr_r50_fast": replace(_R50_FAST, data=_SQUARES),
    "detr_141m_fast": replace(_141M_FAST, data=_SQUARES),
}
