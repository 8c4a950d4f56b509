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
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.zeros(10_000_000)  # 40 MB, or 9,766 pages
    y = x + 1
    del x, y
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_the_fourth_step(word: str) -> tuple[bool, int]:
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", FAULTS, word], cwd=root, check=True, capture_output=True, text=True)
    kept, faults = run.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
def test_with_the_memory_kept_a_repeated_step_has_no_pages_cleared() -> None:
    kept, faults = pages_of_the_fourth_step("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert faults < 100
    assert pages_of_the_fourth_step("plain")[1] > 9_000  # of y, if not of x


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_asked_for(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(heap.sys, "platform", platform)
    assert heap.keep_freed_memory() is False
