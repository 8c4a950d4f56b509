"""group_norm: how to normalise an image independently of the rest of the batch?

    x̂ = (x − μ) / √(σ² + ε)      μ, σ² over all pixels of one group's c = C/G channels of one image
    y = x̂ · weight + bias        weight, bias: one for each channel

    x (B,C,H,W) → y (B,C,H,W)     weight, bias (C)

         C ┌───────────┐          each box is normalised by itself
           │ image 0   │ group 0    batch norm:  a box is one channel of all images
           ├───────────┤            layer norm:  a box is one token
           │           │ group 1    group norm:  between: G = 1 takes the whole image,
           └───────────┘ H·W                              G = C each channel alone
Batch norm's statistics are poor when a batch has 2 images; those of a group do not depend on the
batch, and training and evaluation compute the same.

Backward: ∂L/∂x = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)) as in fast/layer_norm.py, with ĝ = g·weight and
means over a group. The weight is constant on a channel, so two means over its pixels give
everything: a = mean g and b = mean g·x̂, (B,C):
    ∂bias = H·W·Σ_B a     ∂weight = H·W·Σ_B b
    mean(ĝ) = mean_c(weight·a)     mean(ĝ·x̂) = mean_c(weight·b)

Same as torch.nn.functional.group_norm and torch.nn.GroupNorm; proven in
tests/ops/beyond/test_group_norm.py. Source: Wu & He 2018, arXiv 1803.08494, section 3.
Read: layer_norm.py → group_norm_naive (the formula) → group_norm → GroupNorm (owns weight and bias)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scratch.ops.activations import at_least_float32, float32_under_autocast
from scratch.ops.fast.layer_norm import standardise
from scratch.ops.fast.switch import plain


def group_norm_naive(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """The definition, one group of one image at a time."""
    _check(x, num_groups, weight, bias)
    images = []
    for image in x:
        groups = []
        for group in image.split(x.shape[1] // num_groups):  # (c,H,W)
            mean = group.sum() / group.numel()  # ()
            variance = ((group - mean) ** 2).sum() / group.numel()
            groups.append((group - mean) / torch.sqrt(variance + eps))
        images.append(torch.cat(groups))  # (C,H,W)
    per_channel = (-1,) + (1,) * (x.dim() - 2)  # (C,1,1): weight and bias do not depend on the groups
    return torch.stack(images) * weight.view(per_channel) + bias.view(per_channel)


def group_norm(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Standardise each group of channels of each image x (B,C,...), then scale and shift each channel.

    Equal to `group_norm_naive`: channels are of one size, so the mean over a group is the mean of its channels' means.
    Statistics are float32 even for bf16 and fp16; the result has the memory layout of x and its dtype, or float32 under
    autocast: as in torch on a GPU, where torch on a CPU keeps the dtype of x.
    Raises ValueError where the groups do not divide the channels or the shapes do not fit.
    """
    _check(x, num_groups, weight, bias)
    x = float32_under_autocast(x)
    if not plain():
        return _GroupNorm.apply(x, num_groups, weight, bias, eps)
    wide = at_least_float32(x)
    centred = wide - _group_mean(_channel_mean(wide), num_groups)  # (B,C,H,W)
    variance = _group_mean(_channel_mean(centred**2), num_groups)  # (B,C,1,1)
    y = centred / torch.sqrt(variance + eps) * _per_channel(weight, wide) + _per_channel(bias, wide)
    return y.to(x.dtype)


class _GroupNorm(torch.autograd.Function):
    """Keeps x̂ and r, as in fast/layer_norm.py.

    No tensor is regrouped to (B,G,c,H,W): for images stored channels last that would be a copy. What has the size of
    the image is reduced over pixels first, and only the small (B,C,1,1) is averaged over groups.
    """

    @staticmethod
    def forward(ctx, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        def mean(t: Tensor) -> Tensor:
            return _group_mean(_channel_mean(t), num_groups)  # (B,C,1,1)

        standard, r = standardise(at_least_float32(x), mean, eps)  # (B,C,H,W), (B,C,1,1)
        ctx.save_for_backward(standard, r, weight)
        ctx.num_groups, ctx.dtype = num_groups, x.dtype  # parameters may have another dtype
        y = torch.addcmul(_per_channel(bias, standard), standard, _per_channel(weight, standard))
        return y.to(x.dtype)  # (B,C,H,W)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        standard, r, weight = ctx.saved_tensors
        grad = grad.to(standard.dtype)  # (B,C,H,W), float32 at least
        wide_weight, pixels = _per_channel(weight, standard), math.prod(standard.shape[2:])  # (1,C,1,1), H·W
        a, b = _channel_mean(grad), _channel_mean(grad * standard)  # (B,C,1,1): as named above
        mean, slope = (_group_mean(wide_weight * t, ctx.num_groups) for t in (a, b))  # mean(ĝ), mean(ĝ·x̂)
        # r·(ĝ − mean − x̂·slope), sorted by what has the size of the image: x̂ and g, each with one factor a channel.
        grad_x = torch.addcmul(-r * mean, standard, -r * slope).addcmul_(grad, r * wide_weight)  # (B,C,H,W)
        grad_weight, grad_bias = ((total.sum(0) * pixels).view(-1).to(weight.dtype) for total in (b, a))  # (C)
        return grad_x.to(ctx.dtype), None, grad_weight, grad_bias, None


def _channel_mean(x: Tensor) -> Tensor:
    """(B,C,H,W) → (B,C,1,1): over all axes after the second, however many there are."""
    axes = tuple(range(2, x.dim()))
    return x.mean(axes, keepdim=True) if axes else x  # a mean over no axes would be one over all


def _group_mean(channels: Tensor, num_groups: int) -> Tensor:
    """(B,C,1,1) → (B,C,1,1): each channel receives the mean over its group."""
    groups = channels.unflatten(1, (num_groups, -1))  # (B,G,c,1,1): a view
    return groups.mean(2, keepdim=True).expand_as(groups).flatten(1, 2)


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """(C) → (1,C,1,1) in the dtype of x: broadcasts over images and pixels."""
    return parameter.to(x.dtype).view(1, -1, *(1 for _ in x.shape[2:]))


class GroupNorm(nn.Module):
    """A group norm that owns its weight (ones) and bias (zeros), as torch.nn.GroupNorm.

    It keeps no running statistics: in train and in eval mode it computes the same.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"got {num_channels} channels in {num_groups} groups, "
                             "wanted groups that divide the channels")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


def _check(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor) -> None:
    if x.dim() < 2:
        raise ValueError(f"got x of shape {tuple(x.shape)}, wanted images (B,C,H,W), or at least (B,C)")
    C = x.shape[1]
    if num_groups < 1 or C % num_groups:
        raise ValueError(f"got {C} channels in {num_groups} groups, wanted groups that divide the channels")
    if weight.shape != (C,) or bias.shape != (C,):
        raise ValueError(f"got weight {tuple(weight.shape)} and bias {tuple(bias.shape)}, "
                         f"wanted one number for each of {C} channels")
