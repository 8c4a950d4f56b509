"""compiled: what if PyTorch wrote the kernels that these notes spell out step by step?

    eager      subtract │ square │ mean │ multiply-add     a kernel launch each: memory → GPU → memory
    compiled   └──────────────────────────────────────┘    one fused kernel: memory → GPU → memory

torch.compile traces the Python code once, with stand-ins for tensors, and generates kernels for what
it saw. Elementwise operations and reductions are fused; matrix products stay as they are. The more
steps a note spells out, the more it gains.

A block at a time is compiled, not the whole detector. Blocks of one shape have the same code and
differ in their weights (35 of the 36 in ResNet-152's third stage), so what is compiled for one serves
them all; the whole detector would be compiled layer by layer. No parameter is renamed, so checkpoints
are the same. Every image size is compiled separately: use images of one size (`--square`).

A traced block computes the same as an eager one; proven in tests/model/beyond/test_compiled.py. The
kernels that are generated then round differently, and draw other random numbers for dropout.
`python -m benchmarks.training_step --compile` times both.
"""

from __future__ import annotations

import torch
from torch import nn

from scratch.model.anchors.decoder import AnchorDecoderLayer
from scratch.model.backbone import ResidualBlock
from scratch.model.transformer import TransformerDecoderLayer, TransformerEncoderLayer

BLOCKS = (ResidualBlock, TransformerEncoderLayer, TransformerDecoderLayer, AnchorDecoderLayer)
# The most variants of one block that are compiled: its shapes (four stages, their first blocks, other image sizes), in
# training and in evaluation. Beyond it a block would silently run in eager mode; PyTorch's own limit is 8.
VARIANTS = 64


def compile_blocks(model: nn.Module, fullgraph: bool = False, backend: str = "inductor") -> nn.Module:
    """Let the blocks of a detector be compiled, each when it is first called; returns the model.

    fullgraph   raise an error where a block cannot be traced to its end (graph break), instead of compiling it in pieces
    backend     of torch.compile: "inductor" generates kernels (it needs a C++ compiler, on a GPU Triton); "aot_eager"
                only traces
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
