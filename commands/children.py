"""children: how does one command look after many trainings, each in a process of its own?

    command ─┬─▶ detr_scratch.py train … ─▶ a/output.txt
             └─▶ detr_scratch.py train … ─▶ b/output.txt

A process of its own, so that a run which crashes, or which the system ends for want of memory,
ends no other and leaves nothing behind. It may also outlive the command that began it: kill -9
reaches that one alone. So output.txt is locked, and the lock goes with the open file into
the child. If it is locked, a run is still writing there; the system releases
the lock with the last process that has it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Iterator, Optional, Sequence, TextIO

from scratch.only_one import claim
from scratch.ops.fast.switch import plain

COMMAND_LINE = Path(__file__).resolve().parent.parent / "detr_scratch.py"
DETECTOR = (COMMAND_LINE.name,)  # as a person gives the command, in the repository's folder
PATIENCE = 10  # seconds; the workers that load a killed run's images notice in 5 that they are alone


def as_flags(values: dict[str, Any]) -> list[str]:
    """The command line's words for these fields of the configuration; a switch is --name or --no-name."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return words


def error_in(output: Path, begins: int = 0) -> str:
    """What a run said in the end, of what stands in its output behind the byte `begins`: its error, of one line or of
    several; or what ended it from outside of Python (a fault of the interpreter or of a library); else its last line.
    """
    text = output.read_bytes()[begins:].decode("utf-8", errors="replace").strip()
    _, found, rest = f"\n{text}".rpartition("\nerror: ")
    fatal = re.search("^Fatal Python error: .*", rest, re.MULTILINE)
    return fatal[0] if fatal else rest if found else text.rpartition("\n")[2] or "it said nothing"


class Terminated(KeyboardInterrupt):
    """A stop that the trainings have not received: SIGTERM, unlike Ctrl-C, may come to this process alone."""


@contextmanager
def stops_on_termination() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise Terminated, so that the trainings can save and stop."""
    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, terminate) for number in numbers
              if signal.getsignal(number) != signal.SIG_IGN}  # nohup: SIGHUP is ignored
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Children:
    """Runs of the command line in processes of their own, none of which begins after `stop`."""

    def __init__(self, threads: Optional[int]) -> None:
        # In UTF-8 for any terminal: what they print goes into a file, which is read as that.
        # A process that a library ends (a segmentation fault, abort) still prints where each of its threads was.
        self.environment = dict(os.environ, PYTHONIOENCODING="utf-8", PYTHONFAULTHANDLER="1",
                                DETR_PLAIN="1" if plain() else "0",
                                **{"OMP_NUM_THREADS": str(threads)} if threads else {})
        # For a program that is a module of the repository, whatever folder it is begun in.
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(COMMAND_LINE.parent),
                                                                       os.environ.get("PYTHONPATH"))))
        self._running: list[subprocess.Popen] = []
        self._lock, self.stopping = Lock(), False

    def start(self, arguments: Sequence[str], file: TextIO,
              program: Sequence[str] = DETECTOR) -> Optional[subprocess.Popen]:
        """Begin `detr_scratch.py ARGUMENTS`, which prints into `file` (claimed before); None after `stop`.

        program   other words after "python": a module that runs the detector changed
        """
        words = [str(COMMAND_LINE)] if tuple(program) == DETECTOR else program
        with self._lock:
            if self.stopping:
                return None
            process = subprocess.Popen([sys.executable, *words, *arguments], env=self.environment,
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
            self._running = [*(child for child in self._running if child.poll() is None), process]
        return process

    def run(self, arguments: Sequence[str], output: Path, program: Sequence[str] = DETECTOR) -> bool:
        """Add what `detr_scratch.py` prints to `output`; True if it ended well.

        Raises RuntimeError if a process of an earlier command, itself killed, is still writing there.
        """
        with open(output, "a", encoding="utf-8") as file:
            until = time.monotonic() + PATIENCE
            while not claim(file):
                if time.monotonic() > until:
                    raise RuntimeError(f"{output} is still written to by a run whose command was killed: wait until it "
                                       "has ended, or end it, and give the command again")
                time.sleep(0.2)
            process = self.start(arguments, file, program)
            return process is not None and process.wait() == 0

    def stop(self, terminate: bool) -> None:
        """Begin no more. Ctrl-C reaches the running ones by itself; `terminate` asks them to save and stop."""
        with self._lock:
            self.stopping = True
            for process in self._running if terminate else ():
                process.terminate()

    def kill(self) -> None:
        """End them at once: what they have saved is whole at any moment."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.kill()
