"""switch: how does the detector run on the code that a reader has read, and on nothing else?

    a note of ops/ ── x ──▶ its door in ops/fast ─┬─ fast   the result, by another plan or a backward written by hand
                                                  └─ plain  None: the note computes it itself, and autograd derives it

Plain mode is for reading, for stepping through in a debugger, and for a doubt: is a result the fast code's? Both modes
give the same numbers, except for rounding (tests/test_plain.py), for which weights dropout drops where attention is
computed in tiles (above 2²⁴ weights), and for NaN in the gradient of relu. Only plain mode has second derivatives. The
switch is one for the whole process: --plain on any command line, the environment variable DETR_PLAIN=1, or
`plain_mode` around a call.

A second switch, `for_replay`: what is launched will be repeated as a CUDA graph (training/cuda_graph), so nothing may
depend on a number of the CPU.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator

_plain = os.environ.get("DETR_PLAIN", "") not in ("", "0")


def plain() -> bool:
    """Is this process in plain mode?"""
    return _plain


@contextmanager
def plain_mode(on: bool = True) -> Iterator[None]:
    """While it lasts, the notes of ops/ compute by themselves; off: by their doors, whatever the environment says."""
    global _plain
    before, _plain = _plain, on
    try:
        yield
    finally:
        _plain = before


_replayed = False


def replayed() -> bool:
    """Is what is launched now to be repeated, without the CPU?"""
    return _replayed


@contextmanager
def for_replay() -> Iterator[None]:
    """While it lasts, the fast code does nothing that only the CPU could repeat."""
    global _replayed
    before, _replayed = _replayed, True
    try:
        yield
    finally:
        _replayed = before
