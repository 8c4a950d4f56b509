"""timing: when is one of two computations faster than the other?

Other processes disturb every timing, so two computations are timed in turn, in one process, after some calls that are
not counted; which one goes first alternates. A sample is the mean of as many calls as take SHORTEST. The result is the
median of the samples and its quartiles. The ratio is taken sample by sample, and reported in the same way: a slower
phase of the machine affects both sides of the ratio.
"""

from __future__ import annotations

import ctypes
import math
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np
import torch

from scratch.training.peak_memory import resident_peak_gib

WARM_UP = 2  # calls of each that are not counted, before one that only says how many make a sample
SHORTEST = 2e-3  # seconds of a sample: below, the clock and the loop around the calls would be seen
MOST = 1000  # calls of a sample

Calls = Mapping[str, Callable[[], Any]]


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def race(calls: Calls, repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds that one call takes: `repeats` samples of each, in turn."""
    def seconds(call: Callable[[], Any], times: int = 1) -> float:
        start = now(device)
        for _ in range(times):
            call()
        return (now(device) - start) / times

    for call in calls.values():
        seconds(call, WARM_UP)
    times = {name: min(MOST, math.ceil(SHORTEST / seconds(call))) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        for name in calls if repeat % 2 else reversed(calls):
            samples[name].append(seconds(calls[name], times[name]))
    return samples


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and the quartiles below and above it."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "low": low, "high": high}


def compared(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The spread of each side's seconds, and of ours ÷ torch.nn's, sample by sample."""
    result = {side: spread(seconds) for side, seconds in samples.items()}
    if len(samples) == 2:
        result["ratio"] = spread([ours / theirs for ours, theirs in zip(samples["ours"], samples["reference"])])
    return result


# -- memory --------------------------------------------------------------------------------------------------------


def added_gib(call: Callable[[], Any], device: torch.device) -> Optional[float]:
    """GiB that `call` adds, at its peak, to what was there before; None where the system does not tell (see Linux).

    On a CPU this is counted in pages of the whole process, so that less than some MiB says nothing.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**30
    if not Path("/proc/self/clear_refs").exists():
        return None
    # What earlier calls freed is kept for later ones; given back to the system, it is counted again when it is used.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    before = resident_peak_gib(forget=True)
    call()
    return resident_peak_gib() - before
