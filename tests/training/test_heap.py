"""Does a process that keeps its memory ask the system for less?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scratch.training import heap

FAULTS = """
import resource
import torch
from scratch.training.heap import keep_freed_memory

kept = keep_freed_memory()
x = torch.zeros(10_000_000)  # 40 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    y = x + 1
    z = y * 2
    del y, z
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resource.getpagesize())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
def test_with_the_memory_kept_repeated_steps_have_most_of_their_pages_already() -> None:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", FAULTS], cwd=root, check=True, capture_output=True, text=True)
    kept, faults, page = run.stdout.split()
    if kept == "False":
        pytest.skip("this C library's allocator cannot be told")
    written = 20 * 2 * 40_000_000 / int(page)  # pages, of two tensors in each of 20 steps
    assert int(faults) < written / 3  # the first steps find the memory, and where small things lie in it


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_asked_for(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(heap.sys, "platform", platform)
    assert heap.keep_freed_memory() is False
