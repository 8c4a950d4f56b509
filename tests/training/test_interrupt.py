"""A run's end: what was asked to stop stops, what fails is told, and what is saved is the last finished step."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import multiprocessing
import os
import queue
import signal
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import pytest
import torch

from scratch.training import interrupt, run as run_module
from scratch.training.checkpoint import load_checkpoint
from scratch.training.interrupt import Interrupt
from scratch.training.log import RunLog
from scratch.training.loop import fit, train_step
from scratch.training.run import Run
from tests.training.test_loop import Sampler, fit_quietly, make_run, random_batch, small_config

ALONE = SimpleNamespace(world_size=1)
STOPS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def judged(run: Run) -> dict[str, Any]:
    return {"AP": 0.0}


class Failing(Sampler):
    """Two batches an epoch, and instead of the `last`-th of all something else."""

    def __init__(self, last: int, instead: Callable[[], Any]) -> None:
        self.left, self.instead = last, instead

    def __iter__(self) -> Iterator[Any]:
        for k in range(self.start, 2):
            self.left -= 1
            yield random_batch(2, seed=k) if self.left else self.instead()


def fit_with(run: Run, loader: Any, evaluate: Callable[[Run], dict] = judged) -> bool:
    log = RunLog(run.directory, run.step, run.evaluation_due)
    try:
        return fit(run, loader, loader, log, evaluate)
    finally:
        log.close()


def broken() -> None:
    raise OSError("the images are gone")


def dropping_out(**train: Any) -> Any:
    """Where the random generator stands decides what is learnt next."""
    config = small_config(eval_every=2, **train)
    return run_module.Config.from_dict(config.to_dict() | {"model": config.to_dict()["model"] | {"dropout": 0.3}})


# -- a loader that fails -------------------------------------------------------------------------------------------


def test_a_loader_that_fails_ends_the_run_with_its_last_finished_step_saved_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(small_config(), tmp_path)
    run.goes_on_by = "to go on: python detr_scratch.py train --resume"
    with pytest.raises(OSError, match="the images are gone"):
        fit_with(run, Failing(4, broken))
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 3
    assert "the run ends at step 3, which is saved; to go on: python detr" in capsys.readouterr().out


def test_a_run_that_lost_its_loader_and_is_resumed_is_the_run_that_did_not_lose_it(tmp_path: Path) -> None:
    whole = make_run(dropping_out(), tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    fit_with(whole, Sampler())
    (tmp_path / "broken").mkdir()
    with pytest.raises(OSError):
        fit_with(make_run(dropping_out(), tmp_path / "broken"), Failing(4, broken))
    again = make_run(dropping_out(), tmp_path / "broken")
    again.resume(tmp_path / "broken" / "last.pt")
    assert again.step == 3 and fit_with(again, Sampler())
    for name, weight in whole.unwrapped.state_dict().items():
        assert torch.equal(weight, again.unwrapped.state_dict()[name]), name
    losses = [[json.loads(line).get("loss") for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
              for name in ("whole", "broken")]
    assert losses[0] == losses[1]


def test_a_rank_whose_loader_fails_stops_the_others_before_their_next_step() -> None:
    told: list[float] = []

    def mean(values: dict[str, torch.Tensor]) -> dict[str, float]:  # of two ranks, the other of which has no wish
        told.append(float(values["stop"]))
        return {"stop": told[-1] / 2}

    here = Interrupt()
    assert list(here.groups(Failing(2, broken), 1, SimpleNamespace(world_size=2, mean=mean)))[0][0] is not None
    assert told == [0.0, 1.0] and here.agreed
    with pytest.raises(OSError, match="the images are gone"):
        here.raise_failure()


def test_a_rank_that_is_told_of_anothers_failure_takes_no_step_more_and_raises_nothing() -> None:
    there = Interrupt()
    groups = there.groups(Sampler(), 1, SimpleNamespace(world_size=2, mean=lambda values: {"stop": 0.5}))
    assert list(groups) == [] and there.agreed
    there.raise_failure()


def test_the_ranks_agree_also_where_the_epoch_has_no_more_batches() -> None:
    told: list[float] = []

    def mean(values: dict[str, torch.Tensor]) -> dict[str, float]:
        told.append(float(values["stop"]))
        return {"stop": 0.0}

    list(Interrupt().groups(Sampler(), 1, SimpleNamespace(world_size=2, mean=mean)))
    assert told == [0.0] * 3


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOPS)
def test_a_signal_stops_after_the_step_with_everything_saved(tmp_path: Path, name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    run = make_run(small_config(eval_every=100), tmp_path)

    def signalled() -> Any:
        os.kill(os.getpid(), getattr(signal, name))
        return random_batch(2)

    assert not fit_with(run, Failing(2, signalled))
    assert load_checkpoint(tmp_path / "last.pt")["step"] == run.step == 1
    assert signal.getsignal(getattr(signal, name)) == before


def test_a_signal_ends_a_wait_for_images_at_once(tmp_path: Path) -> None:
    def never() -> Any:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        queue.SimpleQueue().get(timeout=60)

    start = time.monotonic()
    assert not fit_with(make_run(small_config(), tmp_path), Failing(2, never))
    assert time.monotonic() - start < 30 and load_checkpoint(tmp_path / "last.pt")["step"] == 1


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_what_nohup_has_a_process_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as watched:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not watched.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", gone)
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    with Interrupt() as watched:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watched.requested


@pytest.mark.parametrize("error", [None, RuntimeError("a step failed"), KeyboardInterrupt()])
def test_the_thread_that_watches_ends_with_its_context_and_lets_go_of_the_run(
    error: BaseException | None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A thread that is the last to hold a model frees it. If that comes while Python shuts down, the thread is ended in
    # the middle of it, within C++ code that allows no such end, and the process aborts although its work is done.
    watch = Interrupt._watch

    def slow(self: Interrupt, end: Any) -> None:
        watch(self, end)
        time.sleep(0.3)

    monkeypatch.setattr(Interrupt, "_watch", slow)
    before, run = set(threading.enumerate()), Interrupt()  # any object
    with suppress(RuntimeError, KeyboardInterrupt), Interrupt(partial(str, run)):
        assert len(set(threading.enumerate()) - before) == 1
        if error is not None:
            raise error
    assert set(threading.enumerate()) <= before
    held, error = weakref.ref(run), None
    del run
    assert held() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is inherited without fork")
def test_a_context_ends_while_a_workers_process_still_has_its_pipe() -> None:
    fork = multiprocessing.get_context("fork")
    gone = fork.Event()
    with Interrupt():
        worker = fork.Process(target=gone.wait, args=(60,), daemon=True)
        worker.start()
        ended = threading.Timer(30, gone.set)  # else a failure would be a test without end
        ended.start()
    assert worker.is_alive() and not gone.is_set()
    ended.cancel()
    gone.set()
    worker.join()


def hang(ready: Any) -> None:
    """Wait for ever, in C: Python comes to no signal handler."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    lock = ctypes.create_string_buffer(128)  # zeros: an unlocked pthread_mutex_t
    libc.pthread_mutex_lock(lock)
    with Interrupt(lambda: "the last checkpoint is of step 7"):
        ready.set()
        libc.pthread_mutex_lock(lock)


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc").exists(), reason="a lock of Linux's C library")
@pytest.mark.parametrize("signals, launcher", [(2, None), (1, "none")])
def test_where_python_gets_no_signal_the_second_one_ends_it_all_the_same_and_torchruns_first(
    signals: int, launcher: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(interrupt, "AT_ONCE", 0.2)
    monkeypatch.setattr(interrupt, "LAUNCHER", 0.2 if launcher else 60)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", launcher) if launcher else None
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=hang, args=(ready,))
    process.start()
    assert ready.wait(30)
    for _ in range(signals):
        time.sleep(0.3)  # two at once are one to the system
        os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    try:
        assert process.exitcode == 1 and "the last checkpoint is of step 7" in capfd.readouterr().err
    finally:
        process.kill()


# -- errors --------------------------------------------------------------------------------------------------------


def failing_step(at: int) -> Callable[[Run, list], dict]:
    def step(run: Run, batches: list[Any]) -> dict[str, float]:
        record = train_step(run, batches)
        if run.step == at:  # after the weights have changed: the worst moment
            raise ZeroDivisionError("a mistake of ours")
        return record
    return step


@pytest.mark.parametrize("at, said", [
    (0, "the run ends at step 0, before its first checkpoint; begin it again"),
    (3, "the run ends at step 3; the last checkpoint is of step 2 (lost: 1 step); the same command goes on with")])
def test_an_error_in_the_middle_of_a_step_saves_nothing_and_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: int, said: str,
) -> None:
    monkeypatch.setattr("scratch.training.loop.train_step", failing_step(at))
    with pytest.raises(ZeroDivisionError):
        fit_quietly(make_run(small_config(), tmp_path), judged)
    assert said in capsys.readouterr().out
    assert (tmp_path / "last.pt").exists() == (at > 0)
    assert not at or load_checkpoint(tmp_path / "last.pt")["step"] == 2


def test_an_error_between_two_steps_saves_the_one_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    def look(*_: Any) -> list:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("scratch.training.watch.Guards.look", look)
    with pytest.raises(ZeroDivisionError):
        fit_quietly(make_run(small_config(), tmp_path), judged)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1
    assert "the run ends at step 1, which is saved" in capsys.readouterr().out


def test_an_evaluation_that_fails_is_due_again(tmp_path: Path) -> None:
    def fail(run: Run) -> dict:
        raise ValueError("no judge")

    with pytest.raises(ValueError, match="no judge"):
        fit_quietly(make_run(small_config(), tmp_path), fail)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 2 and state["evaluation_due"]


# -- a full disk ---------------------------------------------------------------------------------------------------


class Disk:
    """Refuses checkpoints of some name from some step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, step: int) -> None:
        self.save, self.name, self.step, self.full = run_module.save_checkpoint, name, step, True
        monkeypatch.setattr(run_module, "save_checkpoint", self)

    def __call__(self, path: Path, state: dict[str, Any]) -> None:
        if self.full and path.name == self.name and state["step"] >= self.step:
            raise OSError(f"could not save {path}: No space left on device")
        self.save(path, state)


def test_a_full_disk_ends_the_run_at_its_last_good_checkpoint_and_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    disk = Disk(monkeypatch, "last.pt", 3)
    with pytest.raises(OSError, match="could not save .*last.pt"):
        fit_with(make_run(small_config(checkpoint_every=1), tmp_path), Sampler())
    said = capsys.readouterr().out
    assert "the run ends at step 3; it could not be saved here" in said and "checkpoint is of step 2" in said
    disk.full = False
    again = make_run(small_config(), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert (again.step, again.evaluation_due) == (2, False) and fit_with(again, Sampler())


def test_a_best_checkpoint_that_finds_no_space_leaves_its_evaluation_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk(monkeypatch, "best.pt", 0)
    with pytest.raises(OSError, match="best.pt"):
        fit_with(make_run(small_config(max_steps=2), tmp_path), Sampler(), lambda run: {"AP": 0.5})
    disk.full = False
    again = make_run(small_config(max_steps=2), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert again.evaluation_due and again.best_ap == -1
    assert fit_with(again, Sampler(), lambda run: {"AP": 0.5}) and load_checkpoint(tmp_path / "best.pt")["step"] == 2


def test_a_loader_that_fails_on_a_full_disk_is_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    Disk(monkeypatch, "last.pt", 1)
    with pytest.raises(OSError, match="the images are gone"):
        fit_with(make_run(small_config(), tmp_path), Failing(2, broken))
    assert "could not be saved here (could not save" in capsys.readouterr().out
