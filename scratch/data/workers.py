"""workers: how does every failure of a loader's worker reach the main process, and in bounded time?

    worker process                                thread                  main process
    images ─▶ Batch ─▶ Packed (bytes, handles) ─▶ DataLoader ─▶ Batch ─▶ waits, a second at a time, and looks:
      └── an error ─▶ Failure (plain text) ─────────┘                     is a worker dead? stopped? is it all too long?

Left to itself, a DataLoader loses what goes wrong between its processes: a batch that does not fit into /dev/shm, or
cannot be pickled, is dropped by a thread of the worker, and the main process waits for it without end, as for a
batch whose worker has been stopped. So a worker packs its batch itself, where an error can still be sent in its place,
and the main process never waits within the DataLoader: a thread does. Every failure becomes a LoaderError, one
line that says what happened and what to do. Workers end by themselves when their parent is gone.
Proven in tests/data/test_workers.py. Read: Packed, Packing (a worker's side) → GuardedLoader → explained
"""

from __future__ import annotations

import atexit
import errno
import os
import pickle
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
import weakref
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import torch
import torch.multiprocessing  # teaches ForkingPickler to hand tensors over in shared memory
from torch.utils.data import DataLoader

from scratch.data.batch import Batch, collate

LOOK = 0.5       # seconds between two looks at the workers while a batch is waited for
STOPPED = 20.0   # seconds that a worker may be stopped (Ctrl-Z, kill -STOP) while its batch is waited for
PATIENCE = 300.0  # seconds for one batch, of workers that live: a network drive may be slow, but not so slow
ALONE = 1.0      # seconds between a worker's looks at whether its parent lives
LEAVE = 20.0     # seconds for the workers to end as the process does
END = 6.0        # … for the threads that wait for them: no more, since a drive may hang
_HUNG_UP = (ConnectionError, EOFError, FileNotFoundError)  # the errors of a connection to a worker that dies


class LoaderError(OSError):
    """Why there is no batch, and what to do about it, in a line."""


@dataclass(frozen=True)
class Failure:
    """An exception as plain text: unlike an exception, it can always be sent to another process."""

    kind: str
    text: str
    place: str
    """file and line where it was raised"""
    mendable: bool
    """its own text is for the person who runs this (ValueError, OSError)"""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "an unknown place"
        return cls(type(error).__name__, str(error), place, isinstance(error, (ValueError, OSError)))


# -- a worker's side -----------------------------------------------------------------------------------------------


class Packed:
    """A batch as bytes, and handles of the shared memory where its pixels are; `open` it once, in another process."""

    def __init__(self, batch: Batch) -> None:
        self.content = bytes(ForkingPickler.dumps(batch))

    def open(self) -> Batch:
        return pickle.loads(self.content)

    def pin_memory(self) -> Batch:
        """What DataLoader calls where it was asked to pin: there, too, an error can still be sent on."""
        return self.open().pin_memory()


class Packing:
    """A data set as a worker's DataLoader sees it: whole batches, packed, or what went wrong."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: list[Any]) -> list[Packed | Failure]:
        try:
            return [Packed(collate([self.dataset[key] for key in keys]))]
        except BaseException as error:  # any kind: the main process waits for it
            return [Failure.of(error)]


def first(items: list[Any]) -> Any:
    return items[0]


def start_worker(parent: int, worker: int) -> None:
    """Called in each new worker: who may end it, and what ends it."""
    # Ctrl-C, `timeout` and cluster managers signal a whole process group, but only the process that trains decides what
    # then happens: a worker that died under it would take the run along before it could save.
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.excepthook = _end_by  # a thread that hands batches over has failed: no more of them will arrive


def _end_with(parent: int) -> None:
    # DataLoader's own look at the parent is one at a time when no batch is under way; a worker that is stuck in handing
    # one over (its reader is gone) would outlive the run.
    while os.getppid() == parent:
        time.sleep(ALONE)
    os._exit(1)


def _end_by(kind: type, error: BaseException, where: Any) -> None:
    os._exit(errno.EMFILE if getattr(error, "errno", 0) == errno.EMFILE else 1)  # `refuse_dead` knows the former


# -- the main process's side ---------------------------------------------------------------------------------------


class GuardedLoader:
    """A DataLoader with workers, whose iteration ends with its last batch or with a LoaderError, but always ends.

    The wait for a batch is cut into short ones, so that signals are handled between them. After an iteration that was
    interrupted while it waited (by Ctrl-C, say), no other one can begin.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader: Optional[DataLoader] = loader
        self.workers, self.batches = loader.num_workers, loader.batch_sampler
        self._thread: Optional[_Thread] = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.loader is None:
            raise LoaderError("the images' loader has failed before, and cannot go on")
        self._thread = self._thread or _Thread(_device_of(self.loader))
        iterator = None
        try:
            iterator = self._wait(lambda loader=self.loader: _begun(loader), None)
            while (batch := self._wait(lambda: _opened(next(iterator, None)), iterator)) is not None:
                if isinstance(batch, Failure):
                    raise LoaderError(explained(batch, self.workers))
                yield batch
        except GeneratorExit:  # broken off between two batches: the next iteration begins anew
            raise
        except BaseException as error:
            _wake(getattr(iterator, "_workers", []))
            # Let go of the loader, whose handles a checkpoint may need, and of all that refers to it.
            self.loader = iterator = None
            if isinstance(error, LoaderError):
                raise error.with_traceback(None) from None
            raise

    def _wait(self, task: Callable[[], Any], iterator: Any) -> Any:
        """The result of `task`, done by the thread."""
        self._thread.tasks.put(task)
        workers = getattr(iterator, "_workers", [])
        waited = stopped = 0.0  # by the looks, not by a clock: those that this process sleeps through do not count
        while True:
            with suppress(queue.Empty):
                result, error = self._thread.results.get(timeout=LOOK)
                break
            waited += LOOK
            refuse_dead(workers, self.workers)
            suspended = [worker.pid for worker in workers if is_stopped(worker.pid)]
            stopped = stopped + LOOK if suspended else 0.0
            if stopped >= STOPPED:
                raise LoaderError(f"no batch came for {waited:.0f} seconds, for a loader's worker (pid {suspended[0]}) "
                                  "has been stopped (by Ctrl-Z, kill -STOP or a debugger); kill -CONT lets one go on")
            if waited >= PATIENCE:
                raise LoaderError(f"no batch came for {waited / 60:.0f} minutes, though the loader's workers live: "
                                  "does the drive with the images answer? --workers 0 loads without them")
        if error is not None:
            for _ in range(20 if isinstance(error, _HUNG_UP) else 1):  # its worker may be about to be found dead
                time.sleep(0.1)
                refuse_dead(workers, self.workers)
            raise LoaderError(explained(Failure.of(error), self.workers))
        return result

    def __del__(self) -> None:
        if self._thread is not None:
            self._thread.tasks.put(None)


class _Thread:
    """Does one task after the other, and hands on what came of it: (result, None) or (None, the exception)."""

    def __init__(self, device: Optional[int]) -> None:
        self.tasks: queue.SimpleQueue = queue.SimpleQueue()
        self.results: queue.SimpleQueue = queue.SimpleQueue()
        thread = threading.Thread(target=_do, args=(self.tasks, self.results, device), name="loader", daemon=True)
        thread.start()
        _threads[thread] = self.tasks


def _do(tasks: queue.SimpleQueue, results: queue.SimpleQueue, device: Optional[int]) -> None:
    if device is not None:  # "the" GPU is another one in each thread, and the batches are pinned for that of the run
        torch.cuda.set_device(device)
    while (task := tasks.get()) is not None:
        try:
            result = (task(), None)
        except BaseException as error:
            result = (None, error)
        results.put(result)
        del task, result  # nothing is kept alive while there is nothing to do


def _device_of(loader: DataLoader) -> Optional[int]:
    return torch.cuda.current_device() if loader.pin_memory and torch.cuda.is_available() else None


def _begun(loader: DataLoader) -> Any:
    iterator = iter(loader)
    _leave_in_time(iterator)
    return iterator


def _opened(item: Any) -> Any:
    return item.open() if isinstance(item, Packed) else item


# -- what happened -------------------------------------------------------------------------------------------------


def explained(failure: Failure, workers: int) -> str:
    """What went wrong, and what to do, in a line."""
    text, fewer = f"{failure.kind}: {failure.text}", f"take fewer --workers (now {workers}; 0: none)"
    if "Too many open files" in text or "ancdata" in text:
        return f"this process or a loader's worker has no file handle left{_most_handles()}: {fewer}, or raise the " \
               "limit: ulimit -n 65536"
    if any(words in text for words in ("No space left on device", "shared memory", "torch_shm", "/dev/shm")):
        return _shared_memory_is_full(workers)
    if failure.kind == "MemoryError" or any(words in text for words in (
            "an't allocate memory", "annot allocate memory", "ot enough memory", "out of memory")):
        words = f" ({' '.join(failure.text.split())[:200]})" if failure.text else ""
        return f"a loader's worker found no memory{words}: {fewer}, or a smaller --batch-size or --short-side"
    if "Resource temporarily unavailable" in text:
        return f"the system allows no more processes (ulimit -u): {fewer}"
    if failure.mendable:
        return failure.text
    return (f"a batch could not be loaded: {failure.kind} in {failure.place}: {' '.join(failure.text.split())} "
            "(--workers 0 shows the whole way there)")


def refuse_dead(processes: list[Any], workers: int) -> None:
    """Raise LoaderError if one of the workers has ended."""
    dead = {process.pid: process.exitcode for process in processes if process.exitcode is not None}
    if not dead:
        return
    pid, code = next(((pid, code) for pid, code in dead.items() if code), next(iter(dead.items())))
    if code < 0 and -code == getattr(signal, "SIGBUS", None):
        raise LoaderError(_shared_memory_is_full(workers))
    if code == -getattr(signal, "SIGKILL", 9):
        raise LoaderError(f"a loader's worker (pid {pid}) was killed, most likely because the memory of this machine "
                          f"or container ran out: take fewer --workers (now {workers}; 0: none), or a smaller "
                          "--batch-size or --short-side")
    if code < 0:
        raise LoaderError(f"a loader's worker (pid {pid}) was ended by signal {_name_of(-code)}: try again, or with "
                          "--workers 0, which needs none")
    if code == errno.EMFILE:
        raise LoaderError(explained(Failure("OSError", "Too many open files", "", True), workers))
    raise LoaderError(f"a loader's worker (pid {pid}) has ended by itself, with exit status {code}: its own words, if "
                      "it had any, stand above. --workers 0 needs none")


def is_stopped(pid: int) -> bool:
    """Has the process been stopped by a signal? Known on Linux alone; elsewhere PATIENCE ends the wait."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _shared_memory_is_full(workers: int) -> str:
    size = ""
    with suppress(OSError):
        size = f" (/dev/shm, {shutil.disk_usage('/dev/shm').total / 2**20:,.0f} MiB)"
    return (f"the shared memory{size} is full, in which the loader's workers hand over their batches: take --workers 0 "
            f"(now {workers}), fewer, or a smaller --batch-size; or make it larger, in Docker: docker run --shm-size "
            "8g")


def _most_handles() -> str:
    try:
        import resource  # not on Windows
    except ImportError:
        return ""
    return f" (at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} for each)"


def _name_of(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


# -- the end of the process ----------------------------------------------------------------------------------------

_iterators: weakref.WeakSet = weakref.WeakSet()
_threads: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # each with its tasks


@atexit.register
def _end_threads() -> None:
    """A thread that frees tensors while Python shuts down aborts the process, so the threads end before."""
    threads = list(_threads.items())
    for _, tasks in threads:
        tasks.put(None)
    end = time.monotonic() + END
    for thread, _ in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _wake(processes: list[Any]) -> None:
    """Let stopped workers go on: a stopped process cannot be asked to end, and waiting for its end has no end."""
    for process in processes:
        if hasattr(signal, "SIGCONT") and process.exitcode is None:
            with suppress(OSError):
                os.kill(process.pid, signal.SIGCONT)


def _leave() -> None:
    for iterator in list(_iterators):
        _wake(getattr(iterator, "_workers", []))
    if len(_iterators):  # a worker killed in the wrong moment never releases a lock that DataLoader acquires at the end
        timer = threading.Timer(LEAVE, os._exit, (1,))
        timer.daemon = True
        timer.start()


def _leave_in_time(iterator: Any) -> None:
    """Have a bound put on the end of the process: before DataLoader's own last steps, so registered after them."""
    _iterators.add(iterator)
    atexit.unregister(_leave)
    atexit.register(_leave)
