"""only_one: how is a folder locked for one command at a time, so that a killed command leaves no lock?

    FOLDER/.lock     locked by the system for as long as its holder lives, and read by a second process:
                     "pid 4711 on gpu-3 since 2026-01-31 12:00:00"

The system takes the lock away with the process, however that ends, so nothing is left to expire or to be removed. A
process that is forked while the lock is held (a loader's worker) gives its copy back at once: it may outlive its parent
for a moment, and must not keep the folder. Where a file system knows no locks, nothing is refused.
Proven in tests/test_only_one.py. Read: claim → only_one
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Iterator

from scratch.printable import printable
from scratch.whole_file import make_folder

NAME = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # what file systems without locks answer
_FAR = 1 << 30  # Windows locks bytes, and no other process can read those: one that no text reaches
_held: set[IO[Any]] = set()


def claim(file: IO[Any]) -> bool:
    """Lock an open file, unless another has; a process that is given it as its output keeps the lock to its end."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        place = file.tell()
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            file.seek(place)
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


@contextmanager
def only_one(folder: Path, advice: str = "wait until it has ended, or name another folder") -> Iterator[None]:
    """While it lasts, no other command that asks for it works in `folder`, which is made if it is not there.

    A folder that was made here, and into which nothing was written, is removed at the end.
    Raises OSError, saying who holds it and `advice`, if another has the folder, or if nothing can be written there.
    """
    path = Path(folder) / NAME
    new = not path.parent.exists()
    make_folder(path.parent)
    try:
        file = open(path, "a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise OSError(f"{folder} cannot be used as a folder to write to: {error.strerror or error}; name another "
                      "one") from error
    with file:
        if not claim(file):
            file.seek(0)
            raise OSError(f"{folder} is in use by {printable(file.read(200)) or 'another process'}: {advice}")
        _held.add(file)
        try:
            holder = f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            with suppress(OSError):  # a full disk: then the lock does not say whose it is
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), holder.encode())
            yield
        finally:
            _held.discard(file)
            with suppress(OSError):  # it is gone already; Windows keeps a file that is open
                if new and os.listdir(path.parent) == [NAME]:
                    path.unlink()
                    path.parent.rmdir()


def _give_back() -> None:
    """In a forked process: close the copies of its parent's locks, which the parent keeps."""
    while _held:
        with suppress(OSError):
            _held.pop().close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_give_back)
