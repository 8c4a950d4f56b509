"""log: what did the run do, step by step, and what does a person see of it meanwhile?

`log.jsonl` holds one JSON object a line: a "step" for every optimizer step, an "evaluation" for every one of those. The
progress bar shows the newest step. A run that resumes first forgets the lines written after its checkpoint, so that the
file reads as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


class RunLog:
    """The JSONL file and the progress bar of one run. On ranks other than 0 (`active=False`) it does nothing.

    directory   where log.jsonl is written, or goes on after `step`
    """

    def __init__(self, directory: Path, step: int = 0, active: bool = True) -> None:
        self.path = Path(directory) / "log.jsonl"
        self.active = active
        self.bar: tqdm | None = None
        if active:
            self._forget_after(step)
            self.file = open(self.path, "a", encoding="utf-8")
            # A terminal sees the bar move; a log file gets a line now and then instead of thousands.
            interval = 0.5 if sys.stderr.isatty() else 20.0
            self.bar = tqdm(total=1.0, mininterval=interval, maxinterval=interval, dynamic_ncols=True,
                            bar_format="{percentage:3.0f}%|{bar:12}| {elapsed}<{remaining} {desc}")

    def _forget_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the line that a killed run was writing
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def step(self, record: dict[str, Any], progress: float) -> None:
        """Write one step's record and move the bar to `progress` (the share of the run that is done)."""
        if not self.active:
            return
        self._write({"kind": "step", **record})
        self.bar.set_description_str(
            f"epoch {record['epoch']} step {record['step']}  loss {record['loss']:.2f} (class {record['loss_ce']:.2f} "
            f"box {record['loss_bbox']:.2f} giou {record['loss_giou']:.2f})  {record['images_per_second']:.1f} img/s  "
            f"{record['memory_gib']:.1f} GiB", refresh=False)
        self.bar.update(max(0.0, min(progress, 1.0) - self.bar.n))

    def evaluation(self, record: dict[str, Any]) -> None:
        """Write one evaluation's record."""
        if self.active:
            self._write({"kind": "evaluation", **record})

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if self.active:
            self.bar.clear()
            print(text, flush=True)

    def close(self) -> None:
        if self.active:
            self.bar.close()
            self.file.close()

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()


def peak_memory_gib(device: torch.device) -> float:
    """The most memory used so far, in GiB: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
