"""watch: what does a run record of every step, and what does it tell the user when something goes wrong?

    step ─┬─ not finite          the module or the weight where it began           (guards.py)
          ├─ out of memory       the batch passes in parts                         (memory.py)
          ├─ a signal            the run stops before its next step, saved         (interrupt.py)
          ├─ a record            losses, rates, seconds, memory ─▶ log.jsonl       (log.py)
          ├─ a guard's warning   a loss spike, dead layers, waiting for data       (guards.py)
          ├─ the end             how many minutes are left, at which step          (ending.py)
          └─ the profiler        where the time of the first steps goes            (profile.py)

One `Watch` belongs to one call of `fit`. It changes nothing of what the run learns.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Callable, Iterable, Iterator, Optional

from scratch.training.ending import FIRST, Ending, Place, ending, left, words
from scratch.training.guards import Guards, first_non_finite, spoilt
from scratch.training.interrupt import Interrupt
from scratch.training.log import RunLog
from scratch.training.memory import step_that_fits
from scratch.training.peak_memory import peak_memory_gib
from scratch.training.profile import Profile
from scratch.training.run import Run


class Watch:
    """A context around the steps of a run."""

    def __init__(self, run: Run, log: RunLog, profiled: bool) -> None:
        self.run, self.log = run, log
        self.interrupt, self._contexts = Interrupt(partial(run.rescued, save=False)), ExitStack()
        self.guards, self.profile = Guards(run), Profile(run, profiled and run.distributed.is_main)
        self.waiting = self.started = time.perf_counter()
        self.since: Optional[Place] = None  # after the first step of this process
        self.evaluated_at = run.evaluated_at

    def __enter__(self) -> "Watch":
        self._contexts.enter_context(self.interrupt)
        self._contexts.enter_context(self._ending())
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._contexts.__exit__(*error)

    def stopped(self) -> bool:
        """Have all ranks agreed to stop before the next step?"""
        return self.interrupt.agreed

    def agree(self) -> None:
        """Ask all ranks whether one of them was asked to stop."""
        self.interrupt.agree(self.run.distributed)

    def groups(self, loader: Iterable[Any]) -> Iterator[list[Any]]:
        """The batches of one optimizer step after the other, until the epoch ends or the ranks agree to stop."""
        return self.interrupt.groups(loader, self.run.config.train.accumulate, self.run.distributed)

    def raise_failure(self) -> None:
        """Raise the error, if any, with which the loader failed."""
        self.interrupt.raise_failure()

    def take(self, step: Callable[[Run, list[Any]], dict[str, float]], batches: list[Any]) -> dict[str, float]:
        """One optimizer step, in as many parts as the memory needs."""
        with self._step(batches):
            return step_that_fits(step, self.run, batches, self.out_of_memory)

    def wait(self) -> None:
        """From here on the run waits for images."""
        self.waiting = time.perf_counter()

    def place(self) -> dict[str, Any]:
        return {"step": self.run.step, "epoch": self.run.epoch, "minutes": self.run.minutes}

    def out_of_memory(self, text: str) -> None:
        self.log.warning(self.place(), "out of memory", text)

    @contextmanager
    def _step(self, batches: list[Any]) -> Iterator[None]:
        """Around one optimizer step: time it, and complete the message of an error that something is not finite."""
        self.started = time.perf_counter()
        try:
            with self.profile.step():
                yield
        except FloatingPointError as error:
            text = spoilt(self.run) or " ".join(filter(None, (str(error), first_non_finite(self.run, batches))))
            self.log.warning(self.place(), "not finite", text)
            raise FloatingPointError(text) from error

    def record(self, losses: dict[str, float], batches: list[Any]) -> None:
        """Log a finished step, and what the guards and the profiler have to report about it."""
        run = self.run
        images = [target["image_id"] for batch in batches for target in batch.targets]
        now = time.perf_counter()
        record = {**self.place(), **run.learning_rates(), **losses,
                  "images_per_second": len(images) * run.distributed.world_size / (now - self.waiting),
                  "data_wait_seconds": self.started - self.waiting, "step_seconds": now - self.waiting,
                  "memory_gib": peak_memory_gib(run.device)}
        end = self.ending()
        self.log.step(record, run.progress(), left(end.minutes) if end else "")
        if end and run.step - self.since.step == FIRST and end.minutes >= 1:
            self.log.say(words(end, run.evaluated_at > self.evaluated_at, run.config.train.patience))
        for alert in self.guards.look(run, record, images):
            self.log.warning(record, *alert)
        if report := self.profile.note(record):
            self.log.say(report)

    def ending(self) -> Optional[Ending]:
        """When the run will end; None at first."""
        run, now = self.run, Place(self.run.step, self.run.minutes)
        self.since = self.since or now
        return ending(self.since, now, run.steps(), run.config.train.max_minutes)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Around the whole run: if an error ends it, a line gives the step from which it can continue."""
        try:
            yield
        except BaseException as error:
            text = self.run.rescued(isinstance(error, Exception))
            with suppress(OSError):  # the terminal itself may be gone
                self.log.say(text)
            raise
        if report := self.profile.close():
            self.log.say(report)
