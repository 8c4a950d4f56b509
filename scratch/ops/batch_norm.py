"""batch_norm: how does every channel keep the same scale, layer after layer?

    x̂ = (x − μ) / √(σ² + ε)      μ, σ² of one channel over all images and pixels: N = B·H·W numbers
    y = x̂ · weight + bias        weight, bias: one for each channel

    x (B,C,H,W) → y (B,C,H,W)     weight, bias, μ, σ² (C)

    train:   μ, σ² from this batch; running_mean ← 0.9·running_mean + 0.1·μ,
             running_var likewise with σ²·N/(N−1)
    eval:    μ, σ² are the running ones, so that an image's result does not depend on its neighbours
    frozen:  eval for ever; all four are buffers and nothing learns

        train:  x ─┬─ μ, σ² ─┐      eval, frozen:  x ── · scale ── + shift ── y   one multiply-add
                   └── x̂ ────┴─ y                  scale = weight/√(σ² + ε)  shift = bias − μ·scale

Frozen under pretrained weights (Carion et al. 2020, section 4): few images make poor statistics.

Backward in training, two sums a channel (g = ∂L/∂y, r = 1/√(σ² + ε)):
    ∂bias = Σ g      ∂weight = Σ g·x̂ = r·Σ g·(x−μ)      ∂x = weight·r·(g − ∂bias/N − x̂·∂weight/N)

Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2. Same as torch.nn.BatchNorm2d and the
official DETR's FrozenBatchNorm2d; proven in tests/ops/test_batch_norm.py.
Read: layer_norm.py → batch_norm_naive (the formula) → batch_norm → BatchNorm2d → FrozenBatchNorm2d
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def batch_norm_naive(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """The definition in training, one channel at a time."""
    channels = []
    for c in range(x.shape[1]):  # a channel knows nothing of the others
        # All images together: layer_norm never mixes them. So an image's result depends on the batch that it is in, and
        # a batch of 1 has next to nothing to measure.
        values = x[:, c]  # (B,H,W)
        mean = values.sum() / values.numel()  # ()
        variance = ((values - mean) ** 2).sum() / values.numel()
        channels.append((values - mean) / torch.sqrt(variance + eps) * weight[c] + bias[c])
    return torch.stack(channels, dim=1)  # (B,C,H,W)


def batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor,
               training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Standardise each channel of x (B,C,H,W), then scale and shift it; in training, update the running statistics.

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
    if not training:  # all but x is one number a channel: fold the four vectors into two before touching the image
        wide = torch.promote_types(x.dtype, torch.float32)
        scale = weight.to(wide) * torch.rsqrt(running_var.to(wide) + eps)  # (C)
        shift = bias.to(wide) - running_mean.to(wide) * scale  # (C)
        return torch.addcmul(_per_channel(shift), x, _per_channel(scale)).to(x.dtype)  # (B,C,H,W)
    N = x.numel() // max(C, 1)  # B·H·W
    if N < 2:
        raise ValueError(f"got x of shape {tuple(x.shape)}, wanted at least 2 values a channel in training: "
                         "use a larger batch or image, or evaluate with training=False")
    y, mean, variance = _BatchNorm.apply(x, weight, bias, eps)
    # A running mean remembers about 1/momentum = 10 batches. After 10 it still holds 0.9¹⁰ = 0.35 of its start, so a
    # model that is evaluated after a few steps is judged by statistics that are partly made up (mean 0, variance 1).
    # In place, so that whoever else holds the buffers (the state dict, DDP) sees the new values.
    # The batch's variance is divided by N to normalise this batch, and by N − 1 to estimate that of all images.
    with torch.no_grad():
        running_mean.lerp_(mean.view(C).to(running_mean.dtype), momentum)  # (1 − momentum)·old + momentum·new
        running_var.lerp_(variance.view(C).to(running_var.dtype) * (N / (N - 1)), momentum)
    return y


class _BatchNorm(torch.autograd.Function):
    """Training: returns (y, μ, σ²). Keeps x and a few numbers a channel; x − μ is computed again for the backward.

    The backward is layer_norm's formula with means over N. There weight differs from element to element of a mean;
    here it is constant on a channel and leaves the sums, so that ∂bias and ∂weight are all that ∂x needs besides x and
    g. A norm takes a few FLOPs an element, so memory traffic is what counts: each line below on x is a pass over it.

    Where μ is large against σ, rounding μ shifts every x − μ by the same `rest`, which is the mean of what is left
    (see `standardise` in layer_norm.py). From there on it is one more number of its channel in each formula.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = _over_images(torch.mean, x, wide)  # (1,C,1,1)
        centred = x - mean  # (B,C,H,W), in float32 at least
        # What rounding left over; 0 in exact arithmetic. The steps of a half x are so much coarser than those of a
        # float32 mean that nothing is to be gained there, and on a GPU, where starting a step costs more than a small
        # step itself, something to be saved.
        rest = _over_images(torch.mean, centred, wide) if x.dtype is wide else None  # (1,C,1,1)
        # E[c²] − E[c]² is the trap of layer_norm.py, but not here: c is centred, so the second term is tiny.
        squares = centred.square()  # (B,C,H,W)
        variance = _over_images(torch.mean, squares, wide)  # (1,C,1,1)
        if rest is not None:
            variance = variance - rest * rest
        r = torch.rsqrt(variance + eps)
        scale, shift = _per_channel(weight.to(wide)) * r, _per_channel(bias.to(wide))  # (1,C,1,1)
        # The squares are not needed any more: y is written over them, and no third image is asked from the system.
        room = squares if x.dtype is wide else torch.empty_like(x)  # a half y is rounded as it is written
        y = _multiply_add(shift if rest is None else shift - rest * scale, centred, scale, room)  # (B,C,H,W)
        ctx.save_for_backward(x, weight, mean, rest, r)  # x, and not x̂: the layer before keeps x anyway
        if rest is not None:
            mean = mean + rest  # for the running statistics, the best that is known
        ctx.mark_non_differentiable(mean, variance)  # running statistics are measured, not learnt
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _mean: Tensor, _variance: Tensor):
        x, weight, mean, rest, r = ctx.saved_tensors
        N = x.numel() // x.shape[1]
        centred = x - mean  # one pass over x again is cheaper than keeping a second image
        grad_bias = _over_images(torch.sum, grad, mean.dtype)  # (1,C,1,1)
        products = grad * centred  # (B,C,H,W), the place of ∂x
        total = _over_images(torch.sum, products, mean.dtype)  # (1,C,1,1)
        grad_weight = (total if rest is None else total - rest * grad_bias) * r  # (1,C,1,1)
        # Two sums a channel over the whole batch, as in the forward: this is where one image hears of the others.
        # With x̂ = (x − μ − rest)·r, ∂x is linear in x − μ and g: three numbers a channel, two multiply-adds a pixel.
        scale = _per_channel(weight.to(mean.dtype)) * r  # (1,C,1,1)
        part = scale * (-1 / N)
        slope = part * r * grad_weight
        constant = part * grad_bias if rest is None else part * grad_bias - rest * slope
        of_x = _multiply_add(constant, centred, slope, products)  # (B,C,H,W)
        grad_x = _multiply_add(of_x, grad, scale, of_x if x.dtype is of_x.dtype else torch.empty_like(x))
        return grad_x, grad_weight.view(-1).to(weight.dtype), grad_bias.view(-1).to(weight.dtype), None


def _over_images(how: Callable[..., Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum or mean over images and pixels, in `dtype`: (B,C,H,W) → (1,C,1,1).

    Over all three axes at once, a CPU's threads have nothing to share but the channels, and where these lie side by
    side, each thread reads every pixel. Image by image first, each thread has images of its own: at 16×16×72×72 with
    two threads 62 instead of 114 µs. On a GPU the second kernel costs more than that.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return how(x, (0, 2, 3), keepdim=True, dtype=dtype)
    return how(how(x, (2, 3), keepdim=True, dtype=dtype), 0, keepdim=True)


def _multiply_add(shift: Tensor, x: Tensor, scale: Tensor, room: Tensor) -> Tensor:
    """shift + x·scale, in the memory and dtype of `room`. torch.compile takes no room, and needs none: it fuses."""
    if torch.compiler.is_compiling():
        return torch.addcmul(shift, x, scale).to(room.dtype)
    return torch.addcmul(shift, x, scale, out=room)


def _per_channel(parameter: Tensor) -> Tensor:
    """(C) → (1,C,1,1): broadcasts over images and pixels."""
    return parameter.view(1, -1, 1, 1)


class BatchNorm2d(nn.Module):
    """A batch norm that learns and keeps running statistics, as torch.nn.BatchNorm2d.

    weight and bias are parameters, which the optimizer moves; the statistics are buffers: saved in the state dict and
    moved between devices with the model, but without a gradient.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        # At first it only standardises: the next layer begins with inputs of mean 0 and variance 1.
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))  # read by nobody here: torch's state dict has it

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            # A convolution under it needs no bias: subtracting the mean would take it away again.
            self.num_batches_tracked += 1  # in place, as the statistics
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
                          self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class FrozenBatchNorm2d(nn.Module):
    """Batch norm as a fixed multiply-add: the four vectors are buffers, so that no optimizer and no batch moves them.

    Loads the weights of an ordinary batch norm; its `num_batches_tracked`, of no use here, is dropped. train() changes
    nothing: the backbone of a model in train mode still computes with the statistics of its pretraining.
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
