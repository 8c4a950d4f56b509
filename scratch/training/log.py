"""log: what did the run do in each step, and what does the terminal show of it?

`log.jsonl` holds one JSON object a line: a "step" for every optimizer step, an "evaluation" for
every one of those, a "warning" of a guard (guards.py), and where the next step does not
fit into the memory or is not finite; a number that is not finite (fp16's gradient norm, in a step
that its scaler skips) is null. TensorBoard gets the same (tensorboard.py). On a terminal a progress
bar shows the newest step, elsewhere a line does now and then. A run that resumes first forgets the
lines written after its checkpoint, so that the file reads as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scratch.training.tensorboard import TensorBoard
from scratch.whole_file import write_text

_SECONDS_BETWEEN_LINES = 20  # where no terminal shows the bar


class RunLog:
    """The JSONL file and the progress bar of one run. On ranks other than 0 (`active=False`) it does nothing.

    directory        where log.jsonl is written, or goes on after `step`
    evaluation_due   the evaluation of `step` is still to come (again, perhaps), so a record of it is forgotten too
    tensorboard      write TensorBoard's file as well
    """

    def __init__(self, directory: Path, step: int = 0, evaluation_due: bool = False, active: bool = True,
                 tensorboard: bool = False) -> None:
        self.path = Path(directory) / "log.jsonl"
        self.board = TensorBoard(directory, step, active and tensorboard)
        self.active, self.first_step = active, step
        self.bar: tqdm | None = None
        self._said = time.monotonic()
        if active:
            self._forget_after(step, evaluation_due)
            # Unbuffered: a line that a full disk has refused is not tried again at the end, when it is of no use.
            self.file = open(self.path, "ab", buffering=0)
            # disable=None: without a terminal there is no bar. smoothing=0: the time left follows from all steps and
            # evaluations so far; the last few alone would promise too little before an evaluation, too much after.
            self.bar = tqdm(total=1.0, mininterval=0.5, maxinterval=0.5, dynamic_ncols=True, smoothing=0, disable=None,
                            bar_format="{bar:4} {elapsed}<{remaining} {desc}")

    def _forget_after(self, step: int, evaluation_due: bool) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                repeated = evaluation_due and record["kind"] == "evaluation"
                if record["step"] < step or record["step"] == step and not repeated:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the line that a killed run was writing
        write_text(self.path, "".join(line + "\n" for line in kept))

    def step(self, record: dict[str, Any], progress: float, left: str = "") -> None:
        """Write one step's record and move the bar to `progress` (the share of the run that is done).

        left   the time that is left, in words; the bar of a terminal has its own
        """
        if not self.active:
            return
        self._write({"kind": "step", **record})
        self.board.step(record)
        # At most 80 columns, with the bar. The loss is that of the queries alone, comparable with an evaluation's.
        text = (f"step {record['step']} loss {record['loss_queries']:.1f} ce {record['loss_ce']:.2f} "
                f"L1 {record['loss_bbox']:.2f} giou {record['loss_giou']:.2f} "
                f"{record['images_per_second']:.3g} img/s {record['memory_gib']:.1f} GiB")
        if self.bar.n == 0:  # a resumed run's earlier steps took none of this bar's time
            self.bar.initial = self.bar.n = progress
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(max(0.0, progress - self.bar.n))
        if self.bar.disable and time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self.say(f"{progress:4.0%} {f'{left}: ' * bool(left)}{text}")

    def evaluation(self, record: dict[str, Any]) -> None:
        """Write one evaluation's record."""
        if self.active:
            self._write({"kind": "evaluation", **record})
            self.board.evaluation(record)

    def warning(self, record: dict[str, Any], guard: str, text: str) -> None:
        """Write and say what a guard saw after the step of `record`, or what went wrong in the next one."""
        if self.active:
            self._write({"kind": "warning", **{name: record[name] for name in ("step", "epoch", "minutes")},
                         "guard": guard, "text": text})
            self.board.text(f"warning/{guard}", text, record["step"])
            self.say(f"warning: step {record['step']}, {guard}: {text}")

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if self.active:
            self.bar.clear()
            try:
                print(text, flush=True)
            except OSError as error:  # `… | head`, or a file on a full disk
                raise OSError(f"standard output could not be written: {error.strerror or error}") from error
            self.bar.refresh()

    def close(self) -> None:
        if self.active:
            self.bar.close()
            self.file.close()
            self.board.close()

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(_finite(record), allow_nan=False) + "\n").encode()
        try:
            while line:  # a nearly full disk takes a part of it
                line = line[self.file.write(line):]
        except OSError as error:
            raise OSError(f"{self.path} could not be written: {error.strerror or error}; free some space") from error


def _finite(value: Any) -> Any:
    """`value` with None for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
