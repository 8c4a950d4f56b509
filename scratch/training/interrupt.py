"""interrupt: how does a run stop without losing a step, and without a rank that waits for the others?

    Ctrl-C, SIGTERM, SIGHUP ─┐
    a loader that fails     ─┴─▶ all ranks agree, before their next step ─▶ save ─▶ end
    a second signal         ───▶ the end, at once

A step is taken by all ranks or by none. So before each one they tell each other whether one of them
was asked to stop, or has no batch to take the step with, and stop together: the state that is saved
is that of the last finished step, whole. A wait for images is no step, and a signal ends it at once.

Python runs its signal handlers between two of its own instructions. Where the process hangs in
something else (a collective operation whose other rank is gone, a GPU), it never comes to that; but
the system also writes each signal's number into a pipe (`signal.set_wakeup_fd`), and a thread reads
it. Proven in tests/training/test_interrupt.py. Read: groups → agree → _watch
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from itertools import islice
from typing import Any, Callable, Iterable, Iterator, Optional

import torch

from scratch.training.distributed import Distributed

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AT_ONCE = 3.0     # seconds that a second signal gives Python to end the process by itself
LAUNCHER = 20.0   # seconds that a first one does under torchrun, which kills what is there after 30


class _Stop(BaseException):
    """A wait for images ends here."""


class Interrupt:
    """Within its context, a signal asks for a stop before the next step; a second one stops at once.

    last_words   what to say of the run where the process has to be ended from outside of Python
    """

    def __init__(self, last_words: Callable[[], str] = lambda: "") -> None:
        self.last_words = last_words
        self.requested = self.agreed = False
        self.failure: Optional[Exception] = None
        self._waits = False
        self._before: dict[int, Any] = {}
        self._pipe: Optional[socket.socket] = None
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
            return self
        for number in STOPS:
            # What nohup has the process ignore stays ignored.
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._request)
        end, self._pipe = socket.socketpair()
        self._pipe.setblocking(False)
        self._woken_before = signal.set_wakeup_fd(self._pipe.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(end,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._woken_before)
            with suppress(OSError):  # its other end is closed already
                self._pipe.shutdown(socket.SHUT_RDWR)  # not `close` alone: a loader's workers have inherited the pipe
            self._pipe.close()
            self._thread.join()  # one that frees a model while Python shuts down aborts the process

    def _request(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        try:
            print("\nstopping after this step or evaluation; again to stop at once", flush=True)
        except RuntimeError:  # the signal came in the middle of another print
            pass
        except OSError:  # the terminal is gone (SIGHUP): from here on no output is read, which must not be an error
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
        if self._waits:
            raise _Stop

    def groups(self, items: Iterable[Any], size: int, distributed: Distributed) -> Iterator[list[Any]]:
        """Lists of `size` items, the last one shorter if they run out; it ends as soon as a stop is agreed on."""
        iterator = iter(items)
        while True:
            group: list[Any] = []
            try:
                try:
                    self._waits = True
                    if not self.requested:
                        group = list(islice(iterator, size))
                finally:
                    self._waits = False
            except _Stop:
                pass
            except Exception as error:  # said after all is saved: `raise_failure`
                self.failure, self.requested = error, True
            self.agree(distributed)
            if self.agreed or not group:
                return
            yield group

    def agree(self, distributed: Distributed) -> None:
        """Ranks stop together or not at all: a request counts when all ranks know of it, however early it came."""
        self.agreed = self.requested
        if distributed.world_size > 1:
            self.agreed = distributed.mean({"stop": torch.tensor(float(self.requested))})["stop"] > 0

    def raise_failure(self) -> None:
        """After all is saved: what this rank stopped for."""
        if self.failure is not None:
            raise self.failure

    def _watch(self, end: socket.socket) -> None:
        """Read the signals as the system writes them; end the process where Python does not come to it."""
        under_torchrun, received = "TORCHELASTIC_RUN_ID" in os.environ, 0
        with end:
            while True:
                end.settimeout(AT_ONCE if received > 1 else LAUNCHER if received and under_torchrun else None)
                try:
                    numbers = end.recv(64)
                except TimeoutError:  # socket.timeout, as it is called since 3.10
                    break
                if not numbers:
                    return
                received += sum(number in STOPS for number in numbers)
        text = f"stopped at once: the process did not stop in time after the signal. {self.last_words()}\n"
        with suppress(OSError):
            os.write(2, text.encode())
        os._exit(1)
