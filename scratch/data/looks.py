"""looks: which pictures of a large split have to be looked at again, and what was seen on the others?

    picture ─▶ length, times ─┬─ as they were when it was looked at ─▶ what was seen then
                              └─ new, or changed ─▶ first and last bytes ─▶ an ordinary JPEG?       glance.py
                                                                             └─ no: opened          check.py

What is seen on a picture follows from its bytes, its annotated size, and how pictures are read. A file whose length or
times (of its content, and of its entry on the disk: the latter cannot be set back) differ is looked at anew, and so is
one that was refused. What was seen is kept for the next run beside the pictures (scratch/kept_arrays), where there are
many of them. Proven in tests/data/test_looks.py. Read: look_at_all → Looks
"""

from __future__ import annotations

import os
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np
import PIL
from tqdm import tqdm

from scratch.data.glance import HEAD, TAIL, is_plain_jpeg
from scratch.data.problems import Problem
from scratch.kept_arrays import keep, recall
from scratch.printable import printable

MANY = 4096         # pictures from which on what was seen is kept
_AT_A_TIME = 256    # pictures of one task
_VERSION = 2        # of what is seen: another number where check.py or glance.py judge in another way
_NOT_THERE = (-1, 0, 0)
_NOTHING: list[Problem] = []

Look = Callable[[Path, tuple[int, int]], list[Problem]]

# Windows tells when an entry was made, not when it changed: there a broken picture could look as it was.
CHANGES_ARE_TOLD = os.name != "nt"


@dataclass(frozen=True)
class Looks:
    """What was seen on the pictures of a split, row by row.

    problems   those of each, in a list
    stamps     (n,3) int64: the file's bytes, when its content and when its entry changed (ns); bytes −1: it is no file
    ends       (n,) int64: a checksum of its last bytes. Files of one content have one length and one end
    """

    problems: list[list[Problem]]
    stamps: np.ndarray
    ends: np.ndarray


def look_at_all(folder: Path, paths: Sequence[str], sizes: np.ndarray, missing: Mapping[int, Problem], look: Look,
                how: Mapping[str, Any], split: str, quick: bool = True, remember: bool = True) -> Looks:
    """Look at every picture of a split.

    paths     (n) below `folder`; "" for one that is not there, of which `missing` says so
    sizes     (n,2) annotated (width, height)
    look      what is done with a picture that is no ordinary JPEG, and if not `quick` with every one
    how       what else the answer of `look` depends on
    remember  what was seen at a quick look is recalled, and kept for the next time
    """
    n = len(paths)
    looks = Looks([_NOTHING] * n, np.tile(np.array(_NOT_THERE), (n, 1)), np.zeros(n, dtype=np.int64))
    remember = remember and quick and n >= MANY and CHANGES_ARE_TOLD
    small = sizes.astype(np.float64).prod(axis=1) <= how.get("max_megapixels", np.inf) * 1e6   # (n,)
    made_of = {"looks": _VERSION, "pillow": PIL.__version__, **how}
    known = _Known.recalled(folder, split, made_of, paths, sizes) if remember else None

    def task(start: int) -> int:
        rows = range(start, min(start + _AT_A_TIME, n))
        looks.stamps[rows.start:rows.stop] = [_stamp(folder, paths[i]) for i in rows]
        again = known.fits(looks.stamps, rows) if known else np.zeros(len(rows), dtype=bool)
        for i, seen in zip(rows, again.tolist()):
            if seen:
                looks.ends[i], looks.problems[i] = known.ends[i], known.problems_of(i, folder, paths[i])
            elif i in missing:
                looks.problems[i] = [missing[i]]
            else:
                size = (int(sizes[i, 0]), int(sizes[i, 1]))
                plain, looks.ends[i] = _glance(folder, paths[i], size) if looks.stamps[i, 0] >= 0 else (False, 0)
                if not plain or not quick or not small[i]:
                    looks.problems[i] = look(folder / paths[i], size) or _NOTHING
        return len(rows)

    with (ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool,  # waiting for disks and decoding free the GIL
          tqdm(total=n, desc=f"checking {split}", unit="image", disable=None, leave=False) as bar):
        for number in pool.map(task, range(0, n, _AT_A_TIME)):
            bar.update(number)
    if remember:
        _keep(folder, split, made_of, paths, sizes, looks, known)
    return looks


def _stamp(folder: Path, path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(f"{folder}{os.sep}{path}") if path else None
    except (OSError, ValueError):
        return _NOT_THERE
    if found is None or not stat.S_ISREG(found.st_mode):
        return _NOT_THERE
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _glance(folder: Path, path: str, size: tuple[int, int]) -> tuple[bool, int]:
    """Is it an ordinary JPEG of this size; and the checksum of its end."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        file = os.open(f"{folder}{os.sep}{path}", flags)
    except (OSError, ValueError):
        return False, 0
    try:
        head = os.read(file, HEAD)
        length = os.fstat(file).st_size
        if length <= len(head):
            tail = head[-TAIL:]
        else:
            os.lseek(file, -min(TAIL, length), os.SEEK_END)
            tail = os.read(file, TAIL)
        return is_plain_jpeg(head, tail, size), zlib.crc32(tail)
    except OSError:
        return False, 0
    finally:
        os.close(file)


# -- from one run to the next --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """What was seen before, in the rows of now; `usable` (n,) says of which."""

    usable: np.ndarray
    stamps: np.ndarray
    ends: np.ndarray
    rows: np.ndarray                    # (n,) those of what was kept
    told: dict[int, list[list[Any]]]    # row of what was kept → its problems
    number: int                         # of pictures that were kept

    @classmethod
    def recalled(cls, folder: Path, split: str, made_of: Mapping[str, Any], paths: Sequence[str], sizes: np.ndarray
                 ) -> Optional["_Known"]:
        kept = recall(folder, f"{split}.pictures", made_of)
        if kept is None:
            return None
        then = kept.arrays["paths"]
        if len(then) == len(paths) and then.tolist() == list(paths):
            rows = np.arange(len(paths))
        else:
            row_of = {path: row for row, path in enumerate(then.tolist())}
            rows = np.array([row_of.get(path, -1) for path in paths], dtype=np.int64)
        usable = (rows >= 0) & kept.arrays["usable"][rows] & (kept.arrays["sizes"][rows] == sizes).all(1)
        return cls(usable, kept.arrays["stamps"][rows], kept.arrays["ends"][rows], rows,
                   {row: problems for row, problems in kept.rest}, len(then))

    def fits(self, stamps: np.ndarray, rows: range) -> np.ndarray:
        """Which of these rows are as they were; `stamps` are those of now."""
        part = slice(rows.start, rows.stop)
        return self.usable[part] & (stamps[part] == self.stamps[part]).all(1)

    def problems_of(self, row: int, folder: Path, path: str) -> list[Problem]:
        told = self.told.get(int(self.rows[row]))
        return [Problem(kind, printable(folder / path), detail) for kind, detail in told] if told else _NOTHING


def _keep(folder: Path, split: str, made_of: Mapping[str, Any], paths: Sequence[str], sizes: np.ndarray, looks: Looks,
          known: Optional[_Known]) -> None:
    """Keep what was seen, if there is more than was kept: a run on some of the pictures does not replace it."""
    there = looks.stamps[:, 0] >= 0
    usable = there & np.array([_can_be_told(problems, folder, path) for problems, path in zip(looks.problems, paths)],
                              dtype=bool)
    if known is not None:
        new = usable & ~(known.usable & (looks.stamps == known.stamps).all(1))
        if not new.any() or len(paths) < known.number:
            return
    told = [[row, [[problem.kind, problem.detail] for problem in looks.problems[row]]]
            for row in np.flatnonzero(usable).tolist() if looks.problems[row]]
    keep(folder, f"{split}.pictures", made_of,
         {"paths": np.array(paths, dtype=str), "sizes": sizes, "stamps": looks.stamps, "ends": looks.ends,
          "usable": usable}, told)


def _can_be_told(problems: list[Problem], folder: Path, path: str) -> bool:
    """Are kind and detail all that there is to these problems, and is none of them refused?"""
    return problems is _NOTHING or all(
        type(problem) is Problem and problem.severity != "refused" and problem.times == 1
        and problem.where == printable(folder / path) for problem in problems)
