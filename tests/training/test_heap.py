"""Does a process that keeps its memory ask the system for less?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scratch.training import heap

FAULTS = """
import resource, sys
import torch
from scratch.training.heap import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
x = torch.zeros(10_000_000)  # 40 MB, or 9,766 pages
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    y = x + 1
    z = y * 2
    del y, z
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_cleared(word: str) -> tuple[bool, int]:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", FAULTS, word], cwd=root, check=True, capture_output=True, text=True)
    kept, faults = run.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
def test_with_the_memory_kept_repeated_steps_have_most_of_their_pages_already() -> None:
    kept, faults = pages_cleared("keep")
    if not kept:
        pytest.skip("this C library's allocator cannot be told")
    _, plain = pages_cleared("plain")
    assert plain > 300_000  # two tensors of 9,766 pages in each of 20 steps
    assert faults < plain / 3  # the first steps find the room, and where small things lie in it


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_asked_for(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(heap.sys, "platform", platform)
    assert heap.keep_freed_memory() is False
