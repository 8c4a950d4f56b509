"""peak_memory: how much memory did a run need at its peak?

    GPU   the allocator's peak (of CUDA)              torch.cuda.max_memory_allocated
    CPU   the largest resident set of the process     getrusage, or VmHWM where the peak must start again (Linux)

A resident set holds the interpreter, the libraries and what the allocator keeps for later; the
difference of two peaks leaves most of that out. Proven in tests/training/test_peak_memory.py.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch


def peak_memory_gib(device: torch.device) -> float:
    """The most memory used so far, in GiB: of the GPU's allocator, or of this process on a CPU.

    A Mac's GPU (mps) works in the machine's own memory, and PyTorch counts no peak of it: the process's is given.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def resident_peak_gib(forget: bool = False) -> float:
    """The largest resident set of this process so far, in GiB; `forget` starts the peak again (Linux only).

    Not getrusage's ru_maxrss: under Linux a child process inherits its parent's, and the parent may hold two models. It
    is the fallback where the system gives no VmHWM. Some containers do not allow the peak to start again: a peak less
    the one before is then too low.
    """
    if forget:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kib = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
    return peak_memory_gib(torch.device("cpu")) if kib is None else int(kib) / 2**20
