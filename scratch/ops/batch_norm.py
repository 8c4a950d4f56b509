"""batch_norm: how does every channel keep the same scale, layer after layer?

    x̂ = (x − μ) / √(σ² + ε)      μ mean, σ² variance of one channel over all images and pixels,
    y = x̂ · weight + bias        n = B·H·W numbers; weight and bias: one for each channel

    x (B,C,H,W) → y (B,C,H,W)     weight, bias, μ, σ² (C)

    train:   μ, σ² from this batch; the *running statistics* average over batches:
             running_mean ← 0.9·running_mean + 0.1·μ,  running_var likewise with σ²·n/(n−1)
    eval:    μ, σ² are the running ones, so that an image's result does not depend on its neighbours
    frozen:  eval for ever; all four are buffers and nothing learns

    eval and frozen need one multiply-add a number:  y = x · scale + shift
    with scale = weight/√(σ² + ε),  shift = bias − μ·scale

DETR freezes the batch norms of its pretrained backbone (Carion et al. 2020, section 4), as is usual in
detection: the batch of one GPU has few images, and statistics of few images are poor.

Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2. Same as torch.nn.BatchNorm2d and the
official DETR's FrozenBatchNorm2d; proven in tests/ops/test_batch_norm.py.
Read: layer_norm.py → batch_norm_naive (the formula) → batch_norm → BatchNorm2d → FrozenBatchNorm2d
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.fast.batch_norm import fast_batch_norm


def batch_norm_naive(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """The definition in training, one channel at a time."""
    channels = []
    for c in range(x.shape[1]):  # no channel depends on another one
        # All images together, where layer_norm never mixes them: an image's result depends on the batch that it is in.
        values = x[:, c]  # (B,H,W)
        mean = values.sum() / values.numel()  # ()
        variance = ((values - mean) ** 2).sum() / values.numel()
        channels.append((values - mean) / torch.sqrt(variance + eps) * weight[c] + bias[c])
    return torch.stack(channels, dim=1)  # (B,C,H,W)


def batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor,
               training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of x (B,C,H,W), then scale and shift it; in training, update the running statistics.

    Equal to `batch_norm_naive` on all channels at once. Statistics are float32 even for bf16 and fp16; the result
    keeps the dtype and the memory layout of x, with or without autocast; under a half x parameters may be float32.
    Raises ValueError where the shapes do not fit, or if training sees only one value a channel: it has no variance.
    """
    if x.dim() != 4:
        raise ValueError(f"got x of shape {tuple(x.shape)}, wanted images (B,C,H,W)")
    C = x.shape[1]
    if any(t.shape != (C,) for t in (running_mean, running_var, weight, bias)):
        raise ValueError(f"got statistics {tuple(running_mean.shape)}, {tuple(running_var.shape)} and parameters "
                         f"{tuple(weight.shape)}, {tuple(bias.shape)}, wanted one number for each of {C} channels")
    n = x.numel() // max(C, 1)  # B·H·W
    if training and n < 2:
        raise ValueError(f"got x of shape {tuple(x.shape)}, wanted at least 2 values a channel in training: "
                         "use a larger batch or image, or evaluate with training=False")
    y = fast_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)  # None in plain mode
    if y is not None:
        return y
    if not training:  # four numbers a channel become two, before the image is read
        wide = torch.promote_types(x.dtype, torch.float32)
        scale = weight.to(wide) * torch.rsqrt(running_var.to(wide) + eps)  # (C)
        shift = bias.to(wide) - running_mean.to(wide) * scale  # (C)
        return torch.addcmul(shift.view(1, C, 1, 1), x, scale.view(1, C, 1, 1)).to(x.dtype)  # shift + x·scale
    y, mean, variance = _normalised(x, weight, bias, eps)
    # A running mean remembers about 1/momentum = 10 batches. After 10 it still holds 0.9¹⁰ = 0.35 of its start (mean 0,
    # variance 1), so do not judge a model by its running statistics after a few steps.
    # The batch's variance is divided by n to normalise this batch, and by n − 1 to estimate that of all images.
    with torch.no_grad():  # in place: the state dict and DDP hold the same tensors
        running_mean.lerp_(mean.view(C).to(running_mean.dtype), momentum)  # (1 − momentum)·old + momentum·new
        running_var.lerp_(variance.view(C).to(running_var.dtype) * (n / (n - 1)), momentum)
    return y


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Training: (y, μ, σ²), all channels at once. The mean is subtracted twice, for the reason given in layer_norm."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean((0, 2, 3), keepdim=True)  # (1,C,1,1)
    rest = (wide - mean).mean((0, 2, 3), keepdim=True)  # (1,C,1,1): what the rounding of the mean left over
    centred = wide - mean - rest  # (B,C,H,W)
    variance = centred.square().mean((0, 2, 3), keepdim=True)  # (1,C,1,1)
    scale, shift = (t.to(wide.dtype).view(1, -1, 1, 1) for t in (weight, bias))  # broadcast over images and pixels
    return (centred * torch.rsqrt(variance + eps) * scale + shift).to(x.dtype), mean + rest, variance


class BatchNorm2d(nn.Module):
    """As torch.nn.BatchNorm2d. The statistics are buffers: saved and moved with the model, but without a gradient."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))  # unused here: torch's state dict has it

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1  # in place, as the statistics
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
                          self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class FrozenBatchNorm2d(nn.Module):
    """Batch norm as a fixed multiply-add: all four vectors are buffers, which no optimizer and no batch changes.

    Loads the weights of an ordinary batch norm and drops its `num_batches_tracked`. train() changes nothing: the
    backbone of a model in train mode still computes with the statistics of its pretraining.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"
