"""multiplying: does PyTorch multiply matrices as fast as it convolves, on this processor?

    python -m benchmarks.multiplying

Its matrix products are those of one library (MKL, in the usual builds for x86), its convolutions those of another
(oneDNN), and the two may take different instructions of the same processor. Our convolutions are matrix products, so
where the two speeds differ, so do ours and torch.nn's: docs/speed.md has such a processor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import race
from scratch.program import ends_in_a_line
from scratch.training.heap import keep_freed_memory

SAMPLES = 5  # of each, of which the fastest counts


def as_product(image: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """(1,C,H,W), (O,C,3,3) → (O,9C), (9C,H·W): matrices whose product is the convolution with a padding of 1."""
    return filters.flatten(1), F.unfold(image, 3, padding=1)[0]


def multiplying(channels: int = 256, side: int = 64) -> dict[str, float]:
    """GFLOP a second of a float32 product on the CPU, and of torch.nn's 3×3 convolution, which has the same FLOPs.

    The product reads nine times the convolution's data: what unfolding the image made, which is not timed.
    """
    image, filters = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
    rows, columns = as_product(image, filters)
    image, filters = (t.contiguous(memory_format=torch.channels_last) for t in (image, filters))
    times = race({"product": lambda: rows @ columns, "convolution": lambda: F.conv2d(image, filters, padding=1)},
                 SAMPLES, torch.device("cpu"))
    return {name: 1e-9 * 2 * rows.numel() * side**2 / min(seconds) for name, seconds in times.items()}


def told(gflops: dict[str, float]) -> str:
    return (f"a matrix product: {gflops['product']:.0f} GFLOP/s, a 3×3 convolution of torch.nn that multiplies as "
            f"often: {gflops['convolution']:.0f} GFLOP/s")


if __name__ == "__main__":
    keep_freed_memory()  # as in training
    with ends_in_a_line():
        print(told(multiplying()))
