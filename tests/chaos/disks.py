"""disks: a disk or a shared memory that is full ends a command in words; with room again, it goes on.

A small tmpfs in a mount namespace of the trials' own is the disk: nothing else on the machine sees it. That takes
Linux and root; elsewhere these rows say that they were not tried.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from scratch.training.checkpoint import LAST, PREVIOUS
from tests.chaos.arena import broken_files, run
from tests.chaos.ground import LEARNING, SMALL, Ground, Trial, commands, settled, size_of
from tests.chaos.kills import _difference

_NEW_MOUNTS, _PRIVATE = 0x00020000, 1 << 18 | 1 << 14  # CLONE_NEWNS; MS_PRIVATE | MS_REC
_KIB = 1024


def own_mounts() -> bool:
    """Give this process mounts of its own; False where that cannot be."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.unshare(_NEW_MOUNTS) == 0 and libc.mount(b"none", b"/", None, _PRIVATE, None) == 0


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A disk of `kib` at `folder`, in this process's own mounts (own_mounts)."""
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={kib}k".encode()) != 0:
        raise OSError(ctypes.get_errno(), f"no tmpfs at {folder}")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


@contextmanager
def left_free(disk: Path, kib: int) -> Iterator[None]:
    """Fill the disk up to the last `kib`; make room again after."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - kib * _KIB))
    try:
        yield
    finally:
        filler.unlink()


def commands_on_a_full_disk(ground: Ground) -> Iterator[Trial]:
    """A full disk under every command that writes, at several fillings: words that name a file, no half file; then on."""
    for name in commands(ground, ground.room("none")):
        room = ground.room(f"disk-{name}")
        usual = run(commands(ground, room)[name], ground.folder, 300)
        needed = max(8, size_of(room) // _KIB)
        if usual.code != 0:
            yield settled(f"{name} with room", usual, codes=(0,))
            continue
        shares = (0.0, 0.1, 0.5, 0.9) if usual.seconds < 10 else (0.1, 0.9) if usual.seconds < 20 else (0.5,)
        for share in shares[:max(1, ground.count(4))]:
            room = ground.room(f"disk-{name}")
            with small_disk(room, 8 * needed + 4096):
                with left_free(room, int(share * needed)):
                    ended = run(commands(ground, room / "w")[name], ground.folder, 300)
                    broken = broken_files(room / "w")
                unnamed = ended.code == 1 and str(room) not in ended.output and "no file is named" or ""
                again = run(goes_on(commands(ground, room / "w")[name]), ground.folder, 300)
                yield settled(f"{name}, {share:.0%} of what it needs", ended, *broken, unnamed, again.fault(codes=(0,)),
                              *broken_files(room / "w"))


def goes_on(words: list[str]) -> list[str]:
    """The same command again; or, where it is a training that has saved something, the one that goes on with it."""
    if "--run-dir" in words:
        run_dir = Path(words[words.index("--run-dir") + 1])
        if any((run_dir / name).exists() for name in (LAST, PREVIOUS)):
            return ["train", "--resume", "--run-dir", str(run_dir)]
    return words


def training_on_a_full_disk(ground: Ground) -> Iterator[Trial]:
    """A disk that gets full in training: words, the last checkpoint unharmed; with space again, equal bit for bit."""
    reference = ground.room("roomy")
    train = ["train", *LEARNING, "--data", str(ground.data), "--workers", "0", "--run-dir", "run"]
    whole = run(train, reference, 300)
    needed = size_of(reference) // _KIB
    for share in [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97][:max(1, ground.count(8))]:
        room = ground.room("tight")
        with small_disk(room, 4 * needed + 4096):
            with left_free(room, int(share * needed)):
                ended = run(train, room, 300)
                broken = broken_files(room)
            saved = any((room / "run" / name).exists() for name in (LAST, PREVIOUS))
            if not saved:
                shutil.rmtree(room / "run", ignore_errors=True)
            again = run(["train", "--resume", "--run-dir", "run"] if saved else train, room, 300)
            different = "" if again.code != 0 else _difference(room, reference)
            yield settled(f"training, {share:.0%} of what it needs", ended, *broken, again.fault(codes=(0,)), different)
    if whole.code != 0:
        yield settled("training with room", whole)


def shared_memory(ground: Ground) -> Iterator[Trial]:
    """A /dev/shm that is too small for the workers' batches: words that name --workers and --shm-size, in a minute."""
    for kib in (64, 512, 1024, 2048)[:max(1, ground.count(4))]:
        for command in ("train", "eval"):
            room = ground.room("shm")
            words = {"train": ["train", *SMALL, "--data", str(ground.data), "--run-dir", "run",
                               *("--batch-size 8 --workers 2 --short-side 320 --max-size 320 --max-steps 4 "
                                 "--epochs 4").split()],
                     "eval": ["eval", str(ground.trained), *"--short-side 640 --max-size 640 --workers 2".split()]}
            with small_disk(Path("/dev/shm"), kib):
                ended = run(words[command], room, 120)
            silent = ended.code == 1 and not ("--workers 0" in ended.output and "shm" in ended.output)
            yield settled(f"{command}, /dev/shm of {kib} KiB", ended,
                          f"no advice: {ended.output[-500:]}" if silent else "",
                          f"took {ended.seconds:.0f} s" if ended.seconds > 90 else "")
