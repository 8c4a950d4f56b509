"""compiled: what if PyTorch wrote the kernels that these notes spell out step by step?

    eager      subtract │ square │ mean │ multiply-add     a kernel launch each: memory → GPU → memory
    compiled   └──────────────────────────────────────┘    one fused kernel: memory → GPU → memory

torch.compile traces the Python code once, with stand-ins for tensors, and generates kernels for what
it saw. Elementwise operations and reductions are fused; matrix products stay as they are. The more
steps a note spells out, the more it gains.

    blocks   a block at a time. Blocks of one shape have the same code and differ in their weights (35 of
             the 36 in ResNet-152's third stage), so what is compiled for one serves them all
    whole    the detector as one graph: every layer is compiled for itself, which takes far longer, and
             nothing is left between the blocks

No parameter is renamed, so checkpoints are the same. Every image size is compiled separately: use images
of one size (`--square`).

What is traced computes the same as the eager code; proven in tests/model/beyond/test_compiled.py. The
kernels that are generated then round differently, and draw other random numbers for dropout.
`python -m benchmarks.training_step --compile blocks whole` times both.
"""

from __future__ import annotations

from typing import Literal

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
    _allow_variants()
    for module in model.modules():
        if isinstance(module, BLOCKS):
            module.compile(fullgraph=fullgraph, dynamic=False, backend=backend)
    return model


def compile_whole(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Let a detector be compiled as a whole when it is first called; returns the model.

    What cannot be traced to its end is an error, so no piece runs eagerly in between. Raises ValueError
    for noised queries (denoising), whose number differs from step to step: each would be compiled anew.
    """
    config = getattr(model, "config", None)
    if config is not None and config.denoising:
        raise ValueError(f"got denoising = {config.denoising}, which makes another number of queries in each step, and "
                         "each number would be compiled for itself: compile the blocks alone (--compile)")
    _allow_variants()  # beyond them, a whole graph is an error
    model.compile(fullgraph=True, dynamic=False, backend=backend)
    return model


def _allow_variants() -> None:
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, VARIANTS)  # newer versions also call it recompile_limit


def compile_model(model: nn.Module, what: Literal["blocks", "whole"]) -> nn.Module:
    return compile_whole(model) if what == "whole" else compile_blocks(model)


def compiler_missing(device: torch.device) -> str:
    """Why torch.compile cannot be used here; "" if it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a Python that is too new …
        return first_line(error)
    return ""


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
