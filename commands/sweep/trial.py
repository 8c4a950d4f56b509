"""trial: how does a trial of a sweep get its result, also after its process was killed?

    configuration ─▶ detr_scratch.py train ─▶ log.jsonl ─▶ AP at 10, 20 … % of the budget ─▶ prune?
                     ▲ killed: from its checkpoint, in the same folder, as the same trial

A trial is one ordinary run in runs/trial_0007. While it trains, its log is read. Trials differ in
their batches, and so in the steps at which they are evaluated; to be comparable, an AP is reported
at every tenth of the budget, on the straight line between the evaluations before and after it.
Where the pruner sees no hope, the run is asked to stop (SIGTERM), which it does after its step,
with everything saved.

Two locks say who is at work. `owner` is held by the command that watches the trial, so that no
other takes it over; output.txt by the run itself. The system drops both with their process, so
nothing is left to expire, and no clock has to agree with another. (Optuna's heartbeats would give a
dead trial a new number, and do not work outside `optimize`.)
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional, TextIO

import numpy as np
import optuna

from commands.children import Children, as_flags, error_in
from commands.sweep.search_space import differing
from scratch.config import PRESETS, Config, TrainConfig
from scratch.only_one import claim
from scratch.training.checkpoint import LAST, PREVIOUS, latest_checkpoint
from scratch.whole_file import write_text

POLL = 0.5  # seconds between two looks at a run
TENTHS = range(10, 101, 10)  # per cent of the budget: where trials are compared
MOST_KILLS = 3  # of one trial's run, by the system (usually for lack of memory), before it is given up
FIGURES = ("AP", "AP50", "AP75")
A_WORKER = "a loader's worker (pid "  # how data/workers.py begins to say that one was killed: as a run that is killed
# Parts of a run's message (data/workers.py, the system) if the machine is the cause, so that the next run fails, too.
MACHINE = ("shared memory", "no file handle left", "allows no more processes",
           *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)))


def share_of_budget(record: dict[str, Any], train: TrainConfig) -> float:
    """The share of a run that is done at a record of its log, in [0, 1]; 1 at the last evaluation."""
    done = [record["epoch"] / train.epochs]
    done += [record["step"] / train.max_steps] if train.max_steps is not None else []
    done += [record["minutes"] / train.max_minutes] if train.max_minutes is not None else []
    return min(1.0, max(done))


class Evaluations:
    """The evaluations in a run's log, read while they are written."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "log.jsonl"
        self.records: list[dict[str, Any]] = []
        self.steps, self.minutes = 0, 0.0
        self._inode, self._offset = -1, 0

    def read(self) -> list[dict[str, Any]]:
        """All of them so far."""
        try:
            file = open(self.path, "rb")
        except FileNotFoundError:
            return []
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # a resumed run writes the log anew, without what came after its checkpoint
                self._inode, self._offset, self.records = inode, 0, []
            file.seek(self._offset)
            content = file.read()
        whole = content[:content.rfind(b"\n") + 1]  # the next line may be half written
        self._offset += len(whole)
        for line in whole.splitlines():
            record = json.loads(line)
            self.steps, self.minutes = record["step"], record["minutes"]
            if record["kind"] == "evaluation":
                self.records.append(record)
        return self.records


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: what is stored with it in the study, and stands in sweep.json."""

    state: str
    """complete, pruned, or failed (it ended with an error)"""
    reason: str
    """in words, for what is not complete"""
    value: Optional[float]
    """the best of the metric over all evaluations"""
    steps: int
    minutes: float
    evaluation: dict[str, list[Any]]
    """curves: share (of the budget), step, minutes, AP, AP50, AP75"""


class TrialRun:
    """One trial, as a training run in `run_dir`.

    trial      the study's side of it: reports go there, and it says whether to prune
    reported   the tenths of the budget that the study knows, in per cent (of a trial that was begun before)
    config     the whole configuration of the run
    metric     "AP", "AP50" or "AP75"
    owner      the open, locked file that says that this process has the trial
    """

    def __init__(self, trial: optuna.Trial, reported: Iterable[int], config: Config, run_dir: Path, metric: str,
                 device: str, owner: TextIO) -> None:
        self.trial, self.reported, self.asked = trial, set(reported), 0
        self.config, self.run_dir, self.metric, self.device, self.owner = config, run_dir, metric, device, owner
        self.evaluations = Evaluations(run_dir)
        self.pruned_at = 0  # per cent of the budget; 0: not pruned

    def run(self, children: Children) -> Optional[Outcome]:
        """Train to the end, or until the trial is pruned or fails; None if it was asked to stop, to go on later."""
        output = self.run_dir / "output.txt"
        with open(output, "a", encoding="utf-8") as file:
            while not claim(file):  # a run whose command was killed is still at it: what it learns is not lost
                if children.stopping:
                    return None
                time.sleep(POLL)
            for _ in range(MOST_KILLS):
                code = None if self.look() else self.train(children, file)
                if self.is_finished():
                    return self.outcome("complete")
                if self.pruned_at:
                    return self.outcome("pruned", f"ended at {self.pruned_at} % by the pruner")
                killed = code is not None and (code < 0 or code > 0 and A_WORKER in error_in(output))
                if not killed:
                    break
        if code:
            time.sleep(POLL)  # Ctrl-C reaches all processes at once: let this one receive it, too
        if children.stopping or not code:  # None: it may not begin any more; 0: a person stopped the run itself
            return None
        if code > 0:
            self.refuse_machine(error_in(output).partition("\n")[0])
        return self.outcome("failed", f"killed {MOST_KILLS} times, at last by signal {-code}" if code < 0
                            else error_in(output).partition("\n")[0])

    def refuse_machine(self, said: str) -> None:
        """Raise OSError if a run ended for a reason outside of its settings: its trial is to go on."""
        if not any(words in said for words in MACHINE):  # on a full disk it could not even say so
            try:
                write_text(self.run_dir / "space", "x" * 2**16)
            except OSError as error:
                said = str(error)
            else:
                (self.run_dir / "space").unlink(missing_ok=True)
                return
        raise OSError(f"trial {self.trial.number} could not go on: {said}. Once that is put right, the same command "
                      "goes on with it")

    def train(self, children: Children, file: TextIO) -> Optional[int]:
        """Begin the run, or go on with it, and watch it; its exit code, or None if it may not begin any more."""
        begun = latest_checkpoint(self.run_dir) is not None
        words = ["--resume"] if begun else train_flags(self.config)
        process = children.start(["train", *words, "--device", self.device, "--run-dir", str(self.run_dir)], file)
        if process is None:
            return None
        while process.poll() is None:
            time.sleep(POLL)
            if not self.pruned_at and self.look() and self.pruned_at:
                process.terminate()
        self.look()  # at the last evaluation
        return process.returncode

    def look(self) -> bool:
        """Report what is new of the curve, and ask the pruner; True if there is nothing left to train."""
        shares, values = self.curve()
        for tenth in TENTHS:
            if tenth > 100 * shares[-1] + 1e-6:
                break
            if tenth not in self.reported:
                self.trial.report(float(np.interp(tenth / 100, shares, values)), tenth)
                self.reported.add(tenth)
            if tenth > self.asked and shares[-1] < 1 and not self.pruned_at:
                self.asked = tenth
                self.pruned_at = tenth if self.trial.should_prune() else 0
        return shares[-1] >= 1 or self.pruned_at > 0

    def curve(self) -> tuple[list[float], list[float]]:
        """Shares of the budget and the metric there, from (0, 0) on."""
        records = self.evaluations.read()
        shares = [share_of_budget(record, self.config.train) for record in records]
        return [0.0, *shares], [0.0, *(record[self.metric] or 0.0 for record in records)]

    def is_finished(self) -> bool:
        return self.curve()[0][-1] >= 1

    def outcome(self, state: str, reason: str = "") -> Outcome:
        shares, values = self.curve()
        records = self.evaluations.records
        curves = {name: [record[name] for record in records] for name in ("step", "minutes", *FIGURES)}
        return Outcome(state, reason, max(values[1:], default=None), self.evaluations.steps, self.evaluations.minutes,
                       {"share": shares[1:], **curves})


def train_flags(config: Config) -> list[str]:
    """The words of `detr_scratch.py train` that make a configuration."""
    return ["--preset", config.preset, *as_flags(differing(config, PRESETS[config.preset]))]


def tidy(run_dir: Path, keep: bool) -> None:
    """Remove what a run needs only to go on, and unless it is to be kept, its best weights and its pictures."""
    for name in (LAST, PREVIOUS, *(() if keep else ("best.pt",))):
        (run_dir / name).unlink(missing_ok=True)
    if not keep:
        shutil.rmtree(run_dir / "pictures", ignore_errors=True)
