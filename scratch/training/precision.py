"""precision: in which number format does the model compute? Mixed precision.

               exponent  mantissa   largest    smallest normal
    float32        8        23       3e38         1e-38          weights, moments, losses, boxes: always
    bf16           8         7       3e38         1e-38          float32's range with 2-3 digits: no loss scaling
    fp16           5        10      65504          6e-5          gradients below it vanish: multiply the loss first

Weights stay in float32; autocast casts the inputs of matrix products (GEMM), which take nearly all
of the time. For fp16 a GradScaler multiplies the loss by a large S, divides the gradients by S before they
are used, and adapts S: halved (and that step skipped) when a gradient overflowed, doubled after
GROWTH steps without one. Micikevicius et al. 2018 (arXiv 1710.03740).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

# S at first, and the steps after which it is doubled. PyTorch's own 2¹⁶ and 2000 cost a deep backbone that is trained
# from nothing its first steps: S has to be halved until nothing overflows, and each try is a step that is not taken.
FIRST_SCALE, GROWTH = 2.0**10, 100
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One object for all three formats; in float32 and bf16 its scaler is disabled and every method is the plain one.

    choice   "auto": float32 on a CPU and on a Mac's GPU (mps); on a GPU of CUDA bf16 where the hardware has it, else
             fp16. All three run on a CPU as well (fp16 slowly, but with the same scaling, so that it can be tested
             there), on mps float32 alone: neither autocast nor loss scaling was tried on a Mac.
    Raises ValueError for any other choice.
    """

    def __init__(self, choice: Literal["auto", "float32", "bf16", "fp16"], device: torch.device) -> None:
        if choice == "auto":
            choice = _best(device)
        if choice not in _DTYPES:
            raise ValueError(f"got precision {choice!r}, wanted one of auto, {', '.join(_DTYPES)}")
        if device.type == "mps" and choice != "float32":
            raise ValueError(f"got precision {choice} on mps, where half precision is not supported here; wanted "
                             "float32 (--precision float32), or another device (--device cpu)")
        self.name, self.device = choice, device
        # A scaler that is switched off asks for no device; there may be none for mps.
        self.scaler = torch.amp.GradScaler(device.type if choice == "fp16" else "cpu", init_scale=FIRST_SCALE,
                                           growth_interval=GROWTH, enabled=choice == "fp16")
        if device.type == "cuda":  # products add up in float32 to the end, as ops/fast/precision.py says
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False

    def autocast(self) -> AbstractContextManager:
        """The context in which the model runs forward; it does nothing in float32."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.name])

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the gradients back into those of the loss: once a step, after the last backward, before clipping."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step; in fp16 none if a gradient is infinite or NaN (and the next loss is scaled less)."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def scale(self) -> dict[str, float]:
        """fp16's S for the log, as {"loss_scale": S}; {} where nothing is scaled."""
        return {"loss_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}

    def state_dict(self) -> dict[str, Any]:
        """The scale and its growth counter; empty where nothing is scaled."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:  # a run that goes on in fp16 after another format starts with a fresh scale
            self.scaler.load_state_dict(state)


def _best(device: torch.device) -> str:
    if device.type != "cuda":
        return "float32"
    # Without the argument a GPU that merely emulates bf16 (a T4, for one) counts too, though fp16 is faster there.
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
