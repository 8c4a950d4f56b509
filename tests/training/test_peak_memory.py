"""The peak memory of this process, and from where it is counted."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from scratch.training import peak_memory
from scratch.training.peak_memory import peak_memory_gib, resident_peak_gib


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a process's peak")
def test_a_peak_is_counted_from_where_it_was_forgotten():
    def use(size: int) -> None:
        """Straight from the system and back: an allocator may keep what is freed, in a process that was told to."""
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            for page in range(0, size, mmap.PAGESIZE):
                pages[page] = 1

    use(2**28)
    before = resident_peak_gib(forget=True)
    use(2**27)
    assert 0.5 < (resident_peak_gib() - before) / 0.125 < 1.5  # the second, and not the first


@pytest.mark.parametrize("status", [None, "Name:\tpython\nVmRSS:\t2097152 kB\n"], ids=["no file", "no peak in it"])
def test_where_the_system_gives_no_peak_it_is_that_of_getrusage(tmp_path, monkeypatch, status):
    monkeypatch.setattr(peak_memory, "Path", lambda name: tmp_path / Path(name).name)
    if status is not None:
        (tmp_path / "status").write_text(status)
    before = resident_peak_gib(forget=True)
    assert 0 < before <= resident_peak_gib() == peak_memory_gib(torch.device("cpu"))


def test_a_peak_that_cannot_start_again_is_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(peak_memory, "Path", lambda name: tmp_path / Path(name).name)
    (tmp_path / "clear_refs").mkdir()  # which cannot be written to, even by root
    (tmp_path / "status").write_text("VmHWM:\t 1572864 kB\n")
    assert resident_peak_gib(forget=True) == resident_peak_gib() == 1.5
