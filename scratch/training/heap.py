"""heap: why does the same addition take so much longer on a CPU when its result is large?

    y = x + 1, 40 MB      ask the system for 40 MB ─▶ it clears 9,766 pages, one by one, as they are
                          first written ─▶ add ─▶ … ─▶ y is dropped: the pages go back to the system

A training step allocates hundreds of large tensors and frees them again. The C library's allocator
returns each block beyond 32 MB to the system at once, and free memory at the top of its heap as well,
so that the next step has the same pages cleared again. With the two settings below it keeps freed
memory and reuses it for the next tensor. The process then holds its peak until it ends; a training
step needs that much again anyway.

Only GNU's allocator (Linux) has these settings; others stay as they are. Proven in
tests/training/test_heap.py; the gain: docs/speed.md. Source: man 3 mallopt.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names and numbers of <malloc.h>


def keep_freed_memory() -> bool:
    """Let this process keep the memory of dropped tensors for the next ones; False where that cannot be asked for."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is None:  # another system, or another C library
        return False
    # No block comes from the system by itself, all are cut from the heap; and the heap never shrinks (−1).
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
