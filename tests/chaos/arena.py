"""arena: how is a command tried a thousand times, and what may it leave behind?

    parent: everything imported once ──fork──▶ child: detr_scratch.main([...]) in a session and a folder of its own

PyTorch takes seconds to import, a fork takes milliseconds. A command has survived a trial if it ended in time with a
result or with an error in words (no traceback, no crash), if every file under a final name is whole, and if no process
of it is left. Read: run → broken_files → Trial
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import sys
import time
import traceback
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence

import numpy as np
from PIL import Image

import detr_scratch


@dataclass
class Ended:
    """How a command ended."""

    code: Optional[int]
    """its exit status; negative: the signal that ended it; None: it had to be ended, because its time was up"""
    output: str
    seconds: float
    peak_gib: float
    orphans: int
    """processes of its session that were still there when `patience` was at its end"""

    def fault(self, codes: Sequence[int] = (0, 1, 2), gib: float = 4.0) -> str:
        """What is wrong with this end, or an empty text."""
        if self.code is None:
            return f"did not end within {self.seconds:.0f} s: {self.output[-300:]}"
        if self.code not in codes:
            return f"ended with {self.code}: {self.output[-1500:]}"
        if "Traceback" in self.output:
            return f"a traceback: {self.output[self.output.index('Traceback'):][-1500:]}"
        if self.code > 0 and not self.output.strip():
            return "failed without a word"
        if self.peak_gib > gib:
            return f"used {self.peak_gib:.1f} GiB"
        return f"{self.orphans} processes were left" if self.orphans else ""


Watch = Callable[[int, float], bool]
"""(process id, seconds since its start) → is its work as a watcher done? It may send signals to the process."""


def run(argv: Sequence[str], folder: Path, seconds: float = 120, watch: Optional[Watch] = None,
        program: Callable[[list[str]], None] = detr_scratch.main, environment: dict[str, str] = {},
        patience: float = 10) -> Ended:
    """Run a command in a forked child, in `folder`; end it after `seconds`, and after `patience` more all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f".{folder.name}.{random.getrandbits(48):x}.log"
    log.touch()  # a command may be killed before it writes a word
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(argv, folder, log, program, environment)
    done = False
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        passed = time.monotonic() - started
        if pid:
            code: Optional[int] = os.waitstatus_to_exitcode(status)
            break
        if passed > seconds:
            os.kill(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            code = None
            break
        if watch and not done:
            done = watch(child, passed)
        time.sleep(0.002)
    orphans = _end_session(child, patience)
    output = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    return Ended(code, output, passed, usage.ru_maxrss / 2**20, orphans)


def _become(argv: Sequence[str], folder: Path, log: Path, program: Callable[[list[str]], None],
            environment: dict[str, str]) -> None:
    """In the child: be the command, and never return."""
    code = 0
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(source, target)
        sys.stdin, sys.stdout, sys.stderr = (open(k, mode, buffering=1, encoding="utf-8", errors="backslashreplace")
                                             for k, mode in ((0, "r"), (1, "w"), (2, "w")))
        os.environ.update(environment)
        os.chdir(folder)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.argv = ["detr_scratch.py", *argv]
        program(list(argv))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code == 1 and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        try:
            atexit._run_exitfuncs()  # as at a natural end: the loader's workers are ended there
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def session(leader: int) -> list[int]:
    """The living processes of a session (a loader's workers stay in it, in any process group)."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(entry))
    return found


def _end_session(leader: int, patience: float) -> int:
    """Wait for the session's processes; kill what is left after `patience` seconds, and count it."""
    deadline = time.monotonic() + patience
    while (left := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return len(left)


def workers_of(pid: int) -> list[int]:
    """The child processes of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_at(moment: float) -> Watch:
    """SIGKILL, `moment` seconds after the start."""
    def watch(pid: int, passed: float) -> bool:
        if passed < moment:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    return watch


def kill_in_a_write(folder: Path, pattern: str, after: float) -> Watch:
    """SIGKILL as soon as, `after` seconds from the start, a partial file is seen: within the writing of a checkpoint."""
    def watch(pid: int, passed: float) -> bool:
        if passed < after or not any(folder.glob(pattern)):
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    return watch


# -- what is left ----------------------------------------------------------------------------------------------------


def broken_files(folder: Path) -> list[str]:
    """Every file of the folder, partial ones aside, that is not whole for its ending."""
    broken = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "partial" not in path.name and not any(part.startswith(".") for part in path.parts):
            try:
                _read_whole(path)
            except Exception as error:  # a reader of half a file may raise anything
                broken.append(f"{path.relative_to(folder)}: {type(error).__name__} {error}")
    return broken


def _read_whole(path: Path) -> None:
    ending, size = path.suffix.lower(), path.stat().st_size
    if ending in {".png", ".jpg"}:
        with Image.open(path) as image:
            image.load()
    elif ending == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif ending == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "no end"
    elif ending in {".pt", ".npz", ".zip"}:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, "wrong checksum"
    elif ending in {".md", ".onnx", ".safetensors", ".csv"}:
        assert size > 0, "empty"


def same_tensors(one: object, other: object) -> bool:
    """Are two checkpoints' states equal, bit for bit?"""
    import torch

    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_tensors(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same_tensors, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, float) and isinstance(other, float) and np.isnan(one) and np.isnan(other):
        return True
    return one == other
