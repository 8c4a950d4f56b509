"""roofline: what is the shortest time that a layer can take on this machine?

    seconds ≥ max(FLOPs / FLOPs a second,  bytes / bytes a second)

The machine's own ceilings are measured in the same run: a large square product, and a large copy. FLOPs are those of
the formula (a multiplication and an addition are two), of products alone; bytes are those of every tensor once: inputs,
weights and output of the forward, the gradients of the output and of what learns in the backward. No layer can do with
fewer, but what lies in a cache comes faster than through the memory: small layers may be below their floor.

Source: Williams, Waterman & Patterson 2009, "Roofline".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.layer_pairs import Bench
from benchmarks.layer_shapes import Use
from benchmarks.timing import race
from scratch.ops.attention import MultiheadAttention
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.conv2d import Conv2d
from scratch.ops.linear import Linear

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAMPLES = 5  # of each ceiling, of which the fastest counts
LONG = 0.05  # seconds: a product that takes as long is large enough


def ceilings(device: torch.device, precision: str) -> dict[str, float]:
    """FLOPs a second of a large product, in float32 and in `precision`, and "bytes" a second of a large copy."""
    size = 2**31 if device.type == "cuda" else 2**28
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copy = race({"copy": lambda: target.copy_(source)}, SAMPLES, device)["copy"]
    products = {name: product(device, DTYPES[name]) for name in dict.fromkeys(("float32", precision))}
    return products | {"bytes": 2 * size / min(copy)}  # read and written


def product(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a square product that takes LONG: how large that is differs by a factor of ten thousand."""
    for side in (256, 512, 1024, 2048, 4096, 8192):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        if min(race({"product": lambda: a @ b}, 1, device)["product"]) > LONG:
            break
    return 2 * side**3 / min(race({"product": lambda: a @ b}, SAMPLES, device)["product"])


def work(bench: Bench) -> dict[str, dict[str, int]]:
    """The FLOPs and bytes of a layer's forward, and of its forward and backward ("whole")."""
    use, y = bench.use, bench.gradient
    weights = bench.layer.parameters() if isinstance(bench.layer, nn.Module) else ()
    forward = {"flops": flops(use, y), "bytes": sum(x.nbytes for x in (*use.inputs(), *weights)) + y.nbytes}
    if not bench.leaves:
        return {"forward": forward, "whole": forward}
    # A product's backward is a product for either factor, if its gradient is wanted.
    products = 1 + any(x.requires_grad for x in use.inputs()) + bool(use.weights())
    through = y.nbytes + sum(x.nbytes for x in bench.leaves)
    return {"forward": forward,
            "whole": {"flops": products * forward["flops"], "bytes": forward["bytes"] + through}}


def flops(use: Use, y: Tensor) -> int:
    """What the products of a forward to `y` cost: of a convolution, a linear map or an attention; 0 for all else."""
    layer = use.layer
    if isinstance(layer, Conv2d):
        return 2 * y.numel() * layer.weight[0].numel()
    if isinstance(layer, Linear):
        return 2 * use.args[0].numel() * layer.weight.shape[0]
    if not isinstance(layer, (MultiheadAttention, ConditionalAttention)):
        return 0
    (B, Q, D), conditional = use.args[0].shape, isinstance(layer, ConditionalAttention)
    S = use.args[2].shape[1]  # the memory, or the values
    # Linear maps: queries (of content and of place) and the output's; keys (likewise) and values.
    maps = (3 if conditional else 2) * Q + (3 if conditional else 2) * S
    scores = (2 if conditional else 1) * Q * S  # content and place lie side by side: twice as wide
    return 2 * B * D * (D * maps + scores + Q * S)


def floor_seconds(work: dict[str, int], flops_per_second: float, bytes_per_second: float) -> float:
    return max(work["flops"] / flops_per_second, work["bytes"] / bytes_per_second)
