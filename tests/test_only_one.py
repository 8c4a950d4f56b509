"""only_one: one command at a time works in a folder, even if commands are killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from scratch.only_one import NAME, only_one

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


def test_a_folder_that_was_made_for_nothing_is_removed_and_one_with_anything_in_it_is_kept(tmp_path: Path) -> None:
    with only_one(tmp_path / "made"):
        pass
    with only_one(tmp_path / "used"):
        (tmp_path / "used" / "a").write_text("1")
    (tmp_path / "there").mkdir()
    with only_one(tmp_path / "there"):
        pass
    assert not (tmp_path / "made").exists() and (tmp_path / "used" / "a").exists() and (tmp_path / "there").exists()


def refused(folder: Path) -> str:
    with pytest.raises(OSError) as error, only_one(folder):
        pass
    return str(error.value)


def test_the_second_is_refused_and_told_which_process_of_which_machine_is_the_first(tmp_path: Path) -> None:
    with only_one(tmp_path / "run"):
        said = refused(tmp_path / "run")
    assert f"{tmp_path / 'run'} is in use by pid {os.getpid()} on {socket.gethostname()} since 2" in said


def test_one_after_the_other_is_welcome_and_so_are_two_folders(tmp_path: Path) -> None:
    for name in ("a", "a", "b"):
        with only_one(tmp_path / name), only_one(tmp_path / "another"):
            assert (tmp_path / name / NAME).exists()


def hold(folder: Path, ready: Any) -> None:
    with only_one(folder):
        ready.set()
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    ready = fork.Event()
    holder = fork.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(30) and f"pid {holder.pid} " in refused(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with only_one(tmp_path):
        pass


def wait_after(ready: Any) -> None:
    ready.set()
    time.sleep(60)


def test_a_process_forked_meanwhile_does_not_keep_the_folder(tmp_path: Path) -> None:
    ready = fork.Event()
    with only_one(tmp_path):
        child = fork.Process(target=wait_after, args=(ready,))
        child.start()
        assert ready.wait(30)
    try:
        with only_one(tmp_path):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_where_the_file_system_knows_no_locks_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with only_one(tmp_path), only_one(tmp_path):
        assert (tmp_path / NAME).read_text().startswith(f"pid {os.getpid()} on ")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file' / 'run'} cannot be used as a folder to write to" in refused(tmp_path / "file" / "run")


def test_what_a_stranger_wrote_into_the_lock_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    with only_one(tmp_path):
        (tmp_path / NAME).write_text("pid 1 \x1b[2J\non gpu")
        assert r"pid 1 \x1b[2J\non gpu: wait" in refused(tmp_path)
