"""recompute: the golden values once more, from the official code itself.

    git clone https://github.com/facebookresearch/detr /tmp/detr
    python -m tests.golden.recompute --official /tmp/detr --out /tmp/golden

runs the official model, matcher, criterion and post-processing on the weights, images and targets of the rule, writes
the same files, and prints how far each value is from the one stored here; it fails where that is beyond the
tolerance. --float64 computes in double precision, and so shows the stored values' own rounding.

The official code takes its ResNet from torchvision, which is not needed here: `_torchvision` stands in for what it
imports, with the ResNet of reference/ (plain torch.nn; its batch norms are the official ones). No weights are fetched.
Read: INPUTS → recompute → distances
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from reference import model as reference
from tests import golden

CATS = {"labels": [17, 17, 75],
        "boxes": [[0.27, 0.55, 0.47, 0.8], [0.76, 0.5, 0.46, 0.88], [0.17, 0.21, 0.21, 0.11]]}
PERSON = {"labels": [1], "boxes": [[0.5, 0.4, 0.3, 0.6]]}
# What each file is computed from: the backbone, and images and targets as golden.batch and golden.targets make them.
INPUTS: dict[str, dict[str, Any]] = {
    "detr_resnet50": {"backbone": "resnet50", "dilation": False, "sizes": [[192, 256], [160, 224]],
                      "targets": [CATS, PERSON]},
    "detr_resnet50_dc5": {"backbone": "resnet50", "dilation": True, "sizes": [[128, 160], [96, 128]],
                          "targets": [CATS, PERSON]},
    "detr_resnet101": {"backbone": "resnet101", "dilation": False, "sizes": [[160, 192]], "targets": [CATS]},
}
# The published settings, under the names of the official command line.
PUBLISHED = dict(
    dataset_file="coco", device="cpu", lr_backbone=1e-5, masks=False, frozen_weights=None, aux_loss=True,
    position_embedding="sine", hidden_dim=256, nheads=8, dim_feedforward=2048, enc_layers=6, dec_layers=6, dropout=0.1,
    pre_norm=False, num_queries=100, set_cost_class=1, set_cost_bbox=5, set_cost_giou=2, bbox_loss_coef=5,
    giou_loss_coef=2, eos_coef=0.1, mask_loss_coef=1, dice_loss_coef=1)
AUX_QUERIES = 8  # of layers 1-5, whose logits would be most of a file


class Body(reference.ResNet):
    """A ResNet whose batch norms are of the class given, and which answers by the names asked for."""

    def __init__(self, name: str, dilation: bool, norm_layer: Callable[[int], nn.Module]):
        super().__init__(name, "frozen_batch", dilation)
        self.return_layers: dict[str, str] = {}
        for parent in list(self.modules()):
            for child_name, child in list(parent.named_children()):
                if isinstance(child, reference.FrozenBatchNorm2d):
                    setattr(parent, child_name, norm_layer(len(child.weight)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = dict(zip(("layer1", "layer2", "layer3", "layer4"), self.stages(images)))
        return {name: stages[layer] for layer, name in self.return_layers.items()}


def _torchvision() -> dict[str, ModuleType]:
    """Modules with the few names that the official code takes from torchvision."""
    modules = {name: ModuleType(name) for name in (
        "torchvision", "torchvision.models", "torchvision.models._utils", "torchvision.ops", "torchvision.ops.boxes")}
    root, models, utils, ops, boxes = modules.values()
    root.__version__, root.models, root.ops = "0.20", models, ops
    root._is_tracing = lambda: False
    boxes.box_area = lambda xyxy: (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])

    def resnet(name: str) -> Callable[..., Body]:
        def build(replace_stride_with_dilation: list[bool], pretrained: bool, norm_layer: Any) -> Body:
            return Body(name, replace_stride_with_dilation[2], norm_layer)  # `pretrained`: its weights are replaced
        return build

    models.resnet50, models.resnet101 = resnet("resnet50"), resnet("resnet101")

    def layer_getter(body: Body, return_layers: dict[str, str]) -> Body:
        body.return_layers = return_layers
        return body

    utils.IntermediateLayerGetter = layer_getter
    return modules


def official(folder: Path) -> SimpleNamespace:
    """`build` and the class of a padded batch, of a checkout of the official repository."""
    wanted = [folder / "models" / "detr.py", folder / "util" / "misc.py"]
    missing = [str(path) for path in wanted if not path.is_file()]
    if missing:
        raise ValueError(f"got --official {folder}, which has no {' and no '.join(missing)}; wanted a checkout of the "
                         "official DETR: git clone https://github.com/facebookresearch/detr")
    sys.modules.update(_torchvision())
    sys.path.insert(0, str(folder.resolve()))
    detr, misc = importlib.import_module("models.detr"), importlib.import_module("util.misc")
    return SimpleNamespace(build=detr.build, NestedTensor=misc.NestedTensor)


def recompute(code: SimpleNamespace, name: str, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts and the arrays of one golden file, as `golden.read` returns them."""
    inputs = INPUTS[name]
    model, criterion, postprocessors = code.build(SimpleNamespace(
        **PUBLISHED, backbone=inputs["backbone"], dilation=inputs["dilation"]))
    model.load_state_dict(golden.weights({key: list(value.shape) for key, value in model.state_dict().items()}))
    model.to(dtype).eval(), criterion.to(dtype).eval()
    images, pad_mask = golden.batch(inputs["sizes"])
    outputs = model(code.NestedTensor(images.to(dtype), pad_mask))
    targets = [{"labels": torch.tensor(t["labels"]), "boxes": torch.tensor(t["boxes"], dtype=dtype)}
               for t in inputs["targets"]]
    losses = criterion(outputs, targets)
    total = sum(losses[key] * weight for key, weight in criterion.weight_dict.items())
    total.backward()
    matches = criterion.matcher({key: outputs[key] for key in ("pred_logits", "pred_boxes")}, targets)
    first = {key: outputs[key][:1].detach() for key in ("pred_logits", "pred_boxes")}
    found = postprocessors["bbox"](first, torch.tensor([[480, 640]]))[0]
    parameters = dict(model.named_parameters())
    facts = {
        "name": name, **{key: inputs[key] for key in ("backbone", "dilation", "sizes")},
        "state_dict": {key: list(value.shape) for key, value in model.state_dict().items()},
        "n_parameters": sum(p.numel() for p in parameters.values()),
        "n_trainable": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "losses": {key: value.item() for key, value in losses.items()},
        "weights": criterion.weight_dict, "total": total.item(),
        "matches": [[query.tolist(), target.tolist()] for query, target in matches],
        "grad_norms": {key: None if p.grad is None else p.grad.norm().item() for key, p in parameters.items()},
        "targets": inputs["targets"]}
    layers = outputs["aux_outputs"]
    arrays = {"pred_logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"],
              "aux_logits": torch.stack([layer["pred_logits"][:, :AUX_QUERIES] for layer in layers]),
              "aux_boxes": torch.stack([layer["pred_boxes"] for layer in layers]),
              "post_scores": found["scores"], "post_labels": found["labels"], "post_boxes": found["boxes"]}
    return facts, {key: value.detach().numpy() for key, value in arrays.items()}


TOLERANCES = {"pred_logits": golden.LOGITS, "aux_logits": golden.LOGITS, "post_scores": golden.LOGITS,
              "pred_boxes": golden.BOXES, "aux_boxes": golden.BOXES, "post_boxes": golden.PIXELS,
              "losses": golden.LOSSES, "total": golden.LOSSES, "grad_norms": golden.NORMS}


def distances(stored: tuple[dict[str, Any], dict[str, np.ndarray]],
              again: tuple[dict[str, Any], dict[str, np.ndarray]]) -> dict[str, float]:
    """The largest distance of each kind of value; 0 or infinity where equality is wanted; NaN is infinitely far."""
    (facts, arrays), (new_facts, new_arrays) = stored, again
    found: dict[str, float] = {}
    for key in sorted({*arrays, *new_arrays}):
        a, b = arrays.get(key), new_arrays.get(key)
        if a is None or b is None or a.shape != b.shape:
            found[key] = np.inf
        else:
            found[key] = _far(np.abs(a.astype(np.float64) - b).max())
    for key in sorted({*facts, *new_facts}):
        if key in ("losses", "grad_norms") and facts[key].keys() == new_facts[key].keys():
            pairs = [(facts[key][name], new_facts[key][name]) for name in facts[key] if name != golden.NOISE]
            found[key] = max(_far_apart(a, b, relative=key == "grad_norms") for a, b in pairs)
        elif key == "total":
            found[key] = _far_apart(facts[key], new_facts[key], relative=False)
        else:
            found[key] = 0.0 if facts.get(key) == new_facts.get(key) else np.inf
    return found


def _far(distance: float) -> float:
    return float(distance) if np.isfinite(distance) else np.inf


def _far_apart(a: Optional[float], b: Optional[float], relative: bool) -> float:
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    return _far(abs(a - b) / (abs(a) if relative else 1))


def beyond(found: dict[str, float]) -> list[str]:
    """The kinds of values that are further off than the tests allow; what has no tolerance is to be equal."""
    return [key for key, distance in found.items() if distance > TOLERANCES.get(key, 0.0)]


def write(folder: Path, name: str, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=0))
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.golden.recompute", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="a checkout of facebookresearch/detr")
    parser.add_argument("--out", type=Path, help="a folder for the values computed; without it they are compared alone")
    parser.add_argument("--only", choices=golden.NAMES, help="one of the files, instead of all")
    parser.add_argument("--float64", action="store_true", help="compute in double precision")
    arguments = parser.parse_args(argv)
    try:
        code = official(arguments.official)
        failed = []
        for name in [arguments.only] if arguments.only else golden.NAMES:
            facts, arrays = recompute(code, name, torch.float64 if arguments.float64 else torch.float32)
            if arguments.out:
                write(arguments.out, name, facts, arrays)
            found = distances(golden.read(golden.FOLDER, name), (facts, arrays))
            print(name)
            for key, distance in found.items():
                print(f"  {key:13s} off by at most {distance:.1e}   allowed {TOLERANCES.get(key, 0.0):.1e}")
            failed += [f"{name}: {key}" for key in beyond(found)]
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if failed:
        sys.exit(f"error: {len(failed)} kinds of values are further from the stored ones than allowed: "
                 f"{'; '.join(failed)}")
    print("all values agree with the stored ones")


if __name__ == "__main__":
    main()
