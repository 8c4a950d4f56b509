"""hubconf: the published detectors by torch.hub, as the official repository offers them.

    import torch
    model = torch.hub.load("PATH", "detr_resnet50", source="local", pretrained=True)     PATH: this folder

    samples ─▶ model ─▶ {"pred_logits": (B,Q,K+1), "pred_boxes": (B,Q,4)}
                │
                └ with return_postprocessor: ─▶ postprocessor(outputs, sizes) ─▶ scores, labels, boxes in pixels

Samples are normalised pictures: a tensor (B,3,H,W), a list of tensors (3,h,w) of different sizes, a Batch of this
project, or anything with `tensors` and `mask` (the official NestedTensor). The official code's checkpoints load by
model.load_state_dict(checkpoint["model"]). Proven in tests/test_hubconf.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence, Union

import torch
from torch import Tensor, nn

from scratch.config import PRESETS
from scratch.data.batch import Batch
from scratch.evaluation.coco_eval import postprocess
from scratch.model.detr import Detr
from scratch.weights.convert import OFFICIAL_PREFIX, from_official
from scratch.weights.reading import adapt, find_weights, read_weights

dependencies = ["torch", "numpy", "PIL", "pycocotools", "safetensors", "requests", "filelock", "tqdm"]


class HubDetr(Detr):
    """The published model, which takes pictures in every form that the official one takes."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_load_state_dict_pre_hook(_in_our_names)

    def forward(self, samples: Union[Tensor, Sequence[Tensor], Batch, Any], pad_mask: Any = None,
                *rest: Any, **named: Any) -> dict[str, Any]:
        """samples: see the opening; pad_mask (B,H,W): True on the padding of a tensor, None where it has none."""
        if pad_mask is None:
            samples, pad_mask = as_batch(samples)
        return super().forward(samples, pad_mask, *rest, **named)


class PostProcess(nn.Module):
    """Outputs and the pictures' sizes (B,2), height and width → a dict of scores, labels and boxes for each picture."""

    def forward(self, outputs: dict[str, Any], target_sizes: Tensor) -> list[dict[str, Tensor]]:
        """boxes (Q,4) are left, top, right, bottom in pixels; every query has an entry, the best class of each."""
        return [{name: found[name] for name in ("scores", "labels", "boxes")}
                for found in postprocess(outputs, target_sizes)]


def as_batch(samples: Any) -> tuple[Tensor, Tensor]:
    """Pictures in any of the forms → images (B,3,H,W) and pad_mask (B,H,W), True on the padding.

    Raises TypeError for another form, and ValueError for tensors of another shape.
    """
    if isinstance(samples, Batch):
        return samples.normalised(), samples.pad_mask
    if isinstance(getattr(samples, "tensors", None), Tensor) and isinstance(getattr(samples, "mask", None), Tensor):
        return samples.tensors, samples.mask
    if isinstance(samples, Tensor):
        if samples.dim() != 4:
            raise ValueError(f"got a tensor {tuple(samples.shape)}, wanted (B,3,H,W): a picture alone is picture[None]")
        return samples, torch.zeros(samples[:, 0].shape, dtype=torch.bool, device=samples.device)
    if not isinstance(samples, (list, tuple)) or not samples or not all(isinstance(each, Tensor) for each in samples):
        raise TypeError(f"got samples of type {type(samples).__name__}, wanted a tensor (B,3,H,W), a list of tensors "
                        "(3,h,w), a Batch, or an object with tensors and mask")
    if any(each.dim() != 3 or each.shape[0] != 3 for each in samples):
        raise ValueError(f"got pictures {[tuple(each.shape) for each in samples][:4]}, wanted (3,h,w) each")
    height, width = (max(each.shape[axis] for each in samples) for axis in (1, 2))
    images = samples[0].new_zeros(len(samples), 3, height, width)  # (B,3,H,W)
    pad_mask = torch.ones(len(samples), height, width, dtype=torch.bool, device=images.device)  # (B,H,W)
    for i, each in enumerate(samples):
        h, w = each.shape[1:]
        images[i, :, :h, :w], pad_mask[i, :h, :w] = each, False
    return images, pad_mask


def detr_resnet50(pretrained: bool = False, num_classes: int = 91, return_postprocessor: bool = False) -> Any:
    """DETR with a ResNet-50 backbone, 6 encoder and 6 decoder layers: published AP 42.0 on COCO val5k.

    pretrained            with the published weights, downloaded once (into DETR_CACHE, else ~/.cache/detr_scratch). For
                          another number of classes the class head alone begins at random
    num_classes           classes, without "no object"; 91 as published: COCO's category ids
    return_postprocessor  return the pair (model, postprocessor)
    """
    return _made("detr_r50", pretrained, num_classes, return_postprocessor)


def detr_resnet50_dc5(pretrained: bool = False, num_classes: int = 91, return_postprocessor: bool = False) -> Any:
    """DETR-DC5 with a ResNet-50 backbone whose last stage is dilated: published AP 43.3. Arguments: detr_resnet50."""
    return _made("detr_r50_dc5", pretrained, num_classes, return_postprocessor)


def detr_resnet101(pretrained: bool = False, num_classes: int = 91, return_postprocessor: bool = False) -> Any:
    """DETR with a ResNet-101 backbone: published AP 43.5. Arguments: detr_resnet50."""
    return _made("detr_r101", pretrained, num_classes, return_postprocessor)


def detr_resnet101_dc5(pretrained: bool = False, num_classes: int = 91, return_postprocessor: bool = False) -> Any:
    """DETR-DC5 with a ResNet-101 backbone whose last stage is dilated: published AP 44.9. Arguments: detr_resnet50."""
    return _made("detr_r101_dc5", pretrained, num_classes, return_postprocessor)


def _made(preset: str, pretrained: bool, num_classes: int, return_postprocessor: bool) -> Any:
    # As the official function does, the answers of the last decoder layer alone.
    model = HubDetr(replace(PRESETS[preset].model, num_classes=num_classes, aux_loss=False))
    if pretrained:
        adapt(model, read_weights(find_weights(preset)))
    return (model, PostProcess()) if return_postprocessor else model


def _in_our_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before a state dict is loaded: official names become ours, in place."""
    own = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if any(key.startswith(OFFICIAL_PREFIX) for key in own):
        for key in own:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in from_official(own).items()})
