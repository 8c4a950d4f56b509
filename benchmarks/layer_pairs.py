"""layer_pairs: what is the same layer in torch.nn, and do both give the same?

`counterpart` makes torch.nn's layer with the weights of ours; where torch.nn has none, it is what its user writes
(reference/). `Bench` runs one of the two on the inputs of a use, forward, or forward and backward: both with the same
gradient of the output, and both giving the gradients that a training step asks for at that place, and no others.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.layer_shapes import Use
from reference import ReferenceCriterion, anchors
from reference.model import FrozenBatchNorm2d as ReferenceFrozenBatchNorm2d
from reference.model import _sine
from reference.objective import _iou_and_giou
from scratch.config import LossConfig
from scratch.ops.activations import relu
from scratch.ops.attention import MultiheadAttention
from scratch.ops.batch_norm import BatchNorm2d, FrozenBatchNorm2d
from scratch.ops.boxes import paired_generalized_box_iou
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.conv2d import Conv2d
from scratch.ops.cross_entropy import cross_entropy, l1_loss
from scratch.ops.dropout import Dropout
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.windows import MaxPool2d
from scratch.ops.beyond.quality_focal_loss import quality_focal_loss
from scratch.ops.beyond.place_encoding import sine_of
from scratch.ops.sine_encoding import sine_encoding

# -- torch.nn's side -----------------------------------------------------------------------------------------------


def counterpart(layer: Callable) -> Callable:
    """torch.nn's layer with the weights, the mode and the trained parameters of ours; or the function."""
    if not isinstance(layer, nn.Module):
        return FUNCTIONS[layer]
    theirs = LAYERS[type(layer)](layer)
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            theirs = theirs.to(tensor.device, tensor.dtype)
    theirs.load_state_dict(layer.state_dict())
    for name, parameter in layer.named_parameters():
        theirs.get_parameter(name).requires_grad_(parameter.requires_grad)
    return theirs.train(layer.training)


def _conv(ours: Conv2d) -> nn.Module:
    O, c, *kernel = ours.weight.shape
    theirs = nn.Conv2d(c * ours.groups, O, tuple(kernel), ours.stride, ours.padding, ours.dilation, ours.groups,
                       bias=ours.bias is not None)
    return theirs.to(memory_format=torch.channels_last)


def _multihead(ours: MultiheadAttention) -> nn.Module:
    return nn.MultiheadAttention(ours.embed_dim, ours.num_heads, ours.dropout, batch_first=True)


class _Conditional(anchors.ConditionalAttention):
    """Takes ours' arguments: True in the mask is padding."""

    def forward(self, content: Tensor, place: Tensor, memory: Tensor, memory_place: Tensor, pad_mask: Tensor,
                need_weights: bool) -> Tensor:
        return super().forward(content, place, memory, memory_place, ~pad_mask[:, None, None])


LAYERS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    Conv2d: _conv,
    Linear: lambda ours: nn.Linear(ours.weight.shape[1], ours.weight.shape[0], bias=ours.bias is not None),
    BatchNorm2d: lambda ours: nn.BatchNorm2d(ours.num_features, ours.eps, ours.momentum),
    FrozenBatchNorm2d: lambda ours: ReferenceFrozenBatchNorm2d(ours.num_features),
    GroupNorm: lambda ours: nn.GroupNorm(ours.num_groups, ours.num_channels, ours.eps),
    LayerNorm: lambda ours: nn.LayerNorm(ours.normalized_shape, ours.eps),
    MaxPool2d: lambda ours: nn.MaxPool2d(ours.kernel_size, ours.stride, ours.padding),
    Dropout: lambda ours: nn.Dropout(ours.p),
    MultiheadAttention: _multihead,
    ConditionalAttention: lambda ours: _Conditional(ours.embed_dim, ours.num_heads, ours.dropout),
}


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), weight, reduction=reduction).view(target.shape)


def _focal(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """For targets of 0 and 1 both focal losses are this one."""
    return ReferenceCriterion(1, LossConfig(focal_alpha=alpha, focal_gamma=gamma), focal=True)._focal(logits, wanted)


FUNCTIONS: dict[Callable, Callable] = {
    relu: F.relu, sine_encoding: _sine, sine_of: anchors._sines, cross_entropy: _cross_entropy, l1_loss: F.l1_loss,
    sigmoid_focal_loss: _focal, quality_focal_loss: _focal,
    paired_generalized_box_iou: lambda a, b: _iou_and_giou(a, b)[1],
}

# -- one side of a use ---------------------------------------------------------------------------------------------


class Bench:
    """A layer on the inputs of a use; `use.layer` itself only says which weights learn."""

    def __init__(self, layer: Callable, use: Use) -> None:
        self.layer, self.use = layer, use
        weights = layer.parameters() if isinstance(layer, nn.Module) else ()
        self.leaves = [x for x in (*use.inputs(), *weights) if x.requires_grad]
        y = self.forward().detach()
        # Drawn on the CPU, so that both sides have the same, and in numbers that every type holds exactly.
        drawn = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
        self.gradient = torch.empty_like(y).copy_(drawn)  # in the memory layout of the output

    def forward(self) -> Tensor:
        low = self.use.autocast
        with torch.autocast(self.use.inputs()[0].device.type, low) if low else nullcontext():
            y = self.layer(*self.use.args, **self.use.kwargs)
        return y[0] if isinstance(y, tuple) else y

    def whole(self) -> list[Tensor]:
        """Forward, and backward if anything here has a gradient: the output and the gradients."""
        y = self.forward()
        return [y, *torch.autograd.grad(y, self.leaves, self.gradient)] if self.leaves else [y]


def benches(use: Use) -> dict[str, Bench]:
    """Ours, on a copy of the weights, beside torch.nn's."""
    return {"ours": Bench(copy.deepcopy(use.layer), use), "reference": Bench(counterpart(use.layer), use)}


# -- do they agree? ------------------------------------------------------------------------------------------------

ROUNDING = 1e-12  # as a share of the largest of all true numbers: what is smaller is 0, but for float64's rounding


def errors(use: Use) -> dict[str, dict[str, float]]:
    """How far each side, without dropout, is from torch.nn's in float64: the worst of the output and the gradients.

    largest   the largest difference, as a share of the largest true number
    rms       the root mean square of the differences, as a share of that of the true numbers
    """
    use = replace(use, layer=without_dropout(use.layer))
    truth = benches(in_float64(use))["reference"].whole()
    return {side: _distance(bench.whole(), truth) for side, bench in benches(use).items()}


def _distance(found: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    largest, rms = [], []
    zero = ROUNDING * max(true.abs().max() for true in truth)
    for x, true in zip(found, truth, strict=True):
        if true.abs().max() > zero:  # not so the gradient of the keys' bias, which a softmax cannot see
            apart = x.double() - true
            largest.append(apart.abs().max() / true.abs().max())
            rms.append(apart.norm() / true.norm())
    return {"largest": torch.stack(largest).max().item(), "rms": torch.stack(rms).max().item()}


def in_float64(use: Use) -> Use:
    """The same use in float64, weights and inputs, outside of autocast."""
    doubled: dict[int, Any] = {}

    def double(x: Any) -> Any:
        if isinstance(x, torch.dtype):
            return torch.float64 if x.is_floating_point else x
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return doubled.setdefault(id(x), x.detach().double().requires_grad_(x.requires_grad))

    layer = copy.deepcopy(use.layer)
    return replace(use, layer=layer.double() if isinstance(layer, nn.Module) else layer, autocast=None,
                   args=tuple(map(double, use.args)), kwargs={key: double(x) for key, x in use.kwargs.items()})


def without_dropout(layer: Callable) -> Callable:
    """A copy that drops nothing, so that chance has no part in what it gives."""
    layer = copy.deepcopy(layer)
    if isinstance(layer, Dropout):
        layer.p = 0.0
    elif hasattr(layer, "dropout"):
        layer.dropout = 0.0
    return layer
