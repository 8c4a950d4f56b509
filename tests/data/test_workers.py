"""workers: if anything happens to a loader's worker, the process that waits for its batch soon reports what, and what to do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from scratch.data import workers
from scratch.data.loader import make_loader
from scratch.data.workers import Failure, LoaderError, explained, is_stopped

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked and signalled here")


class Pictures:
    """Ten pictures, and a fault in one of them."""

    def __init__(self, fault: Callable[[], Any] = lambda: None) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        found = self.fault() if key[1] == 6 else None
        return torch.full((3, 5, 7), key[1], dtype=torch.uint8), {"image_id": key[1], "found": found}


def loader_of(dataset: Any, number: int = 1) -> Any:
    return make_loader(dataset, 2, workers=number, seed=0, train=False, device_type="cpu")[0]


def error_of(fault: Callable[[], Any], number: int = 1) -> tuple[str, int]:
    """What is said, and how many batches came before."""
    batches = 0
    with pytest.raises(LoaderError) as error:
        for batches, _ in enumerate(loader_of(Pictures(fault), number), 1):
            pass
    return str(error.value), batches


def raising(error: BaseException) -> Callable[[], None]:
    def fault() -> None:
        raise error
    return fault


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("no way to write this down")


def unknown_elsewhere() -> None:
    class Own(Exception):  # cannot be pickled, and so not be sent
        pass
    raise Own("of the worker alone")


def signalled(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_without_a_fault_every_batch_arrives_whole_in_every_epoch() -> None:
    loader = loader_of(Pictures(), 2)
    for _ in range(2):
        assert [batch.images[:, 0, 0, 0].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert len(loader) == 5


@pytest.mark.parametrize("fault, said", [
    (raising(ValueError("a.png cannot be read\nas an image")), "a.png cannot be read\nas an image"),
    (Unpicklable, "TypeError in test_workers.py, line"),
    (unknown_elsewhere, "of the worker alone"),
    (raising(RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device "
                          "(28)")), "--shm-size"),
    (raising(SystemExit("out")), "SystemExit"),
])
def test_what_goes_wrong_in_a_worker_is_told_after_the_batches_before_it(fault: Callable, said: str) -> None:
    text, batches = error_of(fault)
    assert said in text and batches == 3


@pytest.mark.parametrize("fault, said", [
    (signalled(signal.SIGKILL), "was killed, most likely because the memory"),
    (signalled(signal.SIGTERM), "was ended by signal SIGTERM"), (lambda: os._exit(9), "by itself, with exit status 9"),
])
def test_a_worker_that_dies_is_named_with_the_likely_cause(fault: Callable, said: str) -> None:
    start = time.monotonic()
    text, _ = error_of(fault)
    assert said in text and "(pid " in text and "--workers" in text and time.monotonic() - start < 60


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="there is no SIGBUS here")
def test_a_worker_that_finds_no_page_of_shared_memory_is_told_as_that() -> None:
    text, _ = error_of(signalled(signal.SIGBUS))
    assert "--shm-size" in text and "--workers 0" in text


def test_the_wait_for_a_stopped_worker_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("there is no /proc that tells which process is stopped")
    monkeypatch.setattr(workers, "STOPPED", 1.0)
    text, _ = error_of(signalled(signal.SIGSTOP))
    assert "has been stopped" in text and "kill -CONT" in text


def test_the_wait_for_workers_that_live_but_do_nothing_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1.0)
    assert "though the loader's workers live" in error_of(lambda: time.sleep(30))[0]


def test_a_loader_that_has_failed_does_not_begin_again() -> None:
    loader = loader_of(Pictures(raising(ValueError("bad"))))
    for _ in range(2):
        with pytest.raises(LoaderError):
            list(loader)


def test_a_batch_left_between_two_does_not_end_the_loader() -> None:
    loader = loader_of(Pictures())
    next(iter(loader))
    assert len(list(loader)) == 5


@pytest.mark.parametrize("kind, text, said", [
    ("OSError", "[Errno 24] Too many open files", "no file handle left"),
    ("RuntimeError", "received 0 items of ancdata", "ulimit -n"),
    ("OSError", "[Errno 28] No space left on device", "--workers 0 (now 3)"),
    ("MemoryError", "", "found no memory: take fewer --workers (now 3; 0: none)"),
    ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "found no memory"),
    ("BlockingIOError", "[Errno 11] Resource temporarily unavailable", "ulimit -u"),
    ("KeyError", "'x'", "KeyError in a.py, line 3: 'x' (--workers 0"),
])
def test_each_failure_has_its_advice_in_one_line(kind: str, text: str, said: str) -> None:
    words = explained(Failure(kind, text, "a.py, line 3", kind.endswith("OSError")), 3)
    assert said in words and "\n" not in words


def test_a_worker_whose_thread_has_no_file_handle_ends_and_says_so() -> None:
    def fault() -> None:
        workers._end_by(OSError, OSError(errno.EMFILE, "Too many open files"), None)

    assert "no file handle left" in error_of(fault)[0]


class Wordy(Pictures):
    """Targets of more bytes than a pipe holds: the worker of a dead trainer waits there for a reader."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
        image, target = super().__getitem__(key)
        return image, target | {"text": "x" * 2**18}


def trainer(pids: Any) -> None:
    batches = iter(loader_of(Wordy(), 2))
    next(batches)
    pids.put([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")  # ended, and nobody asked yet


def test_workers_do_not_outlive_a_trainer_that_was_killed() -> None:
    fork = multiprocessing.get_context("fork")
    pids = fork.SimpleQueue()
    process = fork.Process(target=trainer, args=(pids,))
    process.start()
    theirs = pids.get()
    assert len(theirs) == 2 and all(map(is_running, theirs))
    process.kill()
    process.join()
    until = time.monotonic() + 60
    while any(map(is_running, theirs)):
        assert time.monotonic() < until
        time.sleep(0.05)


AT_THE_END = """
import atexit, threading, time
atexit.register(lambda: print([thread.name for thread in threading.enumerate()].count("loader")))  # called last
from scratch.data import workers
do = workers._do
def slow(*arguments):
    do(*arguments)
    time.sleep(0.2)
workers._do = slow
from tests.data.test_workers import Pictures, loader_of
if __name__ == "__main__":
    loader = loader_of(Pictures(), 1)
    {}
"""


@pytest.mark.parametrize("use", ["list(loader)", "next(iter(loader))", "next(iter(loader)); del loader"])
def test_the_thread_that_waits_ends_before_python_shuts_down(use: str, tmp_path: Path) -> None:
    # As in test_interrupt: a thread that frees tensors while Python shuts down aborts the process.
    (tmp_path / "end.py").write_text(AT_THE_END.format(use))
    done = subprocess.run([sys.executable, tmp_path / "end.py"], env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                          capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_running_process_is_not_stopped_and_neither_is_one_that_is_not_there() -> None:
    assert not is_stopped(os.getpid()) and not is_stopped(2**22 + 1)
