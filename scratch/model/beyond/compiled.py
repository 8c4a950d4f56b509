"""compiled: what if PyTorch wrote the kernels that these notes spell out step by step?

    eager      subtract │ square │ mean │ multiply-add     each step a kernel: memory → GPU → memory
    compiled   └──────────────────────────────────────┘    one kernel: memory → GPU → memory

torch.compile follows the Python once, with stand-ins for tensors, and writes kernels for what it
saw: elementwise steps and sums flow into each other, matrix products stay as they are. The notes
are the better for it the more steps they spell out.

It follows a block at a time, not the whole detector: blocks of one shape are one piece of code with
other weights (35 of the 36 in ResNet-152's third stage), and what is compiled for one serves them
all. The whole would be compiled layer by layer. Nothing is renamed, and a checkpoint does not know
of it. Every size of image is compiled for itself: a run wants pictures of one size (`--square`).

Followed and not, a block computes the same; proven in tests/model/beyond/test_compiled.py. The kernels
that are then written round otherwise, and draw other numbers for dropout.
`python -m benchmarks.training_step --compile` times both.
"""

from __future__ import annotations

import torch
from torch import nn

from scratch.model.anchors.decoder import AnchorDecoderLayer
from scratch.model.backbone import ResidualBlock
from scratch.model.transformer import TransformerDecoderLayer, TransformerEncoderLayer

BLOCKS = (ResidualBlock, TransformerEncoderLayer, TransformerDecoderLayer, AnchorDecoderLayer)
# As many variants of one block may be compiled: its shapes (four stages, their first blocks, other sizes of image),
# in training and in evaluation. Beyond it a block would silently run as it is; PyTorch's own limit is 8.
VARIANTS = 64


def compile_blocks(model: nn.Module, fullgraph: bool = False, backend: str = "inductor") -> nn.Module:
    """Have the blocks of a detector compiled, each when it is first called; returns the model.

    fullgraph   raise an error where a block cannot be followed to its end, instead of compiling it in pieces
    backend     of torch.compile: "inductor" writes kernels (it needs a C++ compiler, on a GPU Triton); "aot_eager" only
                follows
    """
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, VARIANTS)  # newer versions also call it recompile_limit
    for module in model.modules():
        if isinstance(module, BLOCKS):
            module.compile(fullgraph=fullgraph, dynamic=False, backend=backend)
    return model


def compiler_missing(device: torch.device) -> str:
    """Why torch.compile cannot be used here; "" if it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a Python that is too new …
        return first_line(error)
    return ""


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
