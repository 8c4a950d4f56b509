"""kept_arrays: how are arrays kept in a file for the next run, and how is it known that they still hold?

    line 1       detr_scratch kept arrays 1 SHA-256        of all that follows
    line 2       JSON: what they were made of; name, type, shape and place of each array; whatever else is kept
    the rest     the arrays, byte for byte, each at a multiple of 64

    source ─▶ read (a minute) ─▶ arrays ─▶ keep ─▶ .NAME.kept ─▶ recall ─▶ the same arrays, in memory (a second)

What is recalled is never believed blindly. The format's number, the checksum, and `made_of` have to fit; the caller
puts there all that the arrays depend on, such as the SHA-256 of the file that was read. A file that does not fit is
removed, with a line, and it is as if there had been none. Nothing in it is executed (no pickle). It is written
completely or not at all, so that processes may write it at the same time. Mapped arrays are read-only, and processes
of one machine share their memory.

It lies beside the source as a hidden file; where that folder cannot be written to, in the cache folder; where neither
can, nothing is kept. Proven in tests/test_kept_arrays.py. Read: keep → recall
"""

from __future__ import annotations

import glob
import errno
import hashlib
import json
import mmap
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Optional

import numpy as np

from scratch.printable import printable
from scratch.whole_file import whole_file

FORMAT = 1
ENDING = ".kept"
_FIRST_LINE = re.compile(rb"detr_scratch kept arrays (\d{1,9}) ([0-9a-f]{64})\n")
_ALIGNED = 64       # bytes
_PIECE = 2**22      # bytes that are read at a time
_ABANDONED = 86400  # seconds after which a partial file is of a writer that was killed


class Kept(NamedTuple):
    """What was kept: arrays by name, and anything that JSON can hold."""

    arrays: dict[str, np.ndarray]
    rest: Any


def cache_folder() -> Path:
    """Where what was fetched or read is kept: $DETR_CACHE, else ~/.cache/detr_scratch."""
    return Path(os.environ.get("DETR_CACHE") or "~/.cache/detr_scratch").expanduser()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def keep(source: Path, part: str, made_of: Mapping[str, Any], arrays: Mapping[str, np.ndarray], rest: Any = None
         ) -> Optional[Path]:
    """Keep these arrays, and `rest`, which JSON can hold; returns the file, or None where none can be written.

    source    the file or the folder that they were read from
    part      what they are of it: one source may have several
    made_of   all that they depend on, as JSON has it
    """
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    places, end = [], 0
    for name, array in plain.items():
        begin = end + -end % _ALIGNED
        places.append([name, array.dtype.str, list(array.shape), begin])
        end = begin + array.nbytes
    header = {"made_of": made_of, "arrays": places, "rest": rest}
    header = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    header = header[:-1] + b" " * (-(len(_first_line(b"")) + len(header)) % _ALIGNED) + b"\n"

    def content() -> Iterator[Any]:
        yield header
        end = 0
        for array, (_, _, _, begin) in zip(plain.values(), places):
            yield bytes(begin - end)
            yield memoryview(array.reshape(-1).view(np.uint8))
            end = begin + array.nbytes

    digest = hashlib.sha256()
    for piece in content():
        digest.update(piece)
    for path in _places(source, part):
        with suppress(OSError, ValueError):  # no such folder can be made or written to, or the disk is full
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            with whole_file(path, several=True) as partial, open(partial, "wb") as file:
                file.write(_first_line(digest.hexdigest().encode()))
                for piece in content():
                    file.write(piece)
            return path
    return None


def recall(source: Path, part: str, made_of: Mapping[str, Any]) -> Optional[Kept]:
    """What was kept of `part` of the source, made of just this; None where nothing was, or what was does not fit."""
    for path in _places(source, part):
        try:
            found = _mapped(path, made_of)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # another user's: it is left where it is
            if error.errno == errno.ENAMETOOLONG:
                continue
            _say(path, f"cannot be read ({error.strerror or type(error).__name__})")
            continue
        except (ValueError, KeyError, TypeError):  # with a checksum that fits: it was made to look like one
            found = "is damaged"
        if isinstance(found, Kept):
            return found
        _say(path, found)
        with suppress(OSError):
            path.unlink()
    return None


def _mapped(path: Path, made_of: Mapping[str, Any]) -> Kept | str:
    """What is kept in a file, or why it is of no use."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        first = _FIRST_LINE.fullmatch(file.readline(200))
        if not first:
            return "is no file of this program"
        if int(first[1]) != FORMAT:
            return "was written by another version"
        begin = file.tell()
        while piece := file.read(_PIECE):
            digest.update(piece)
        if digest.hexdigest().encode() != first[2]:
            return "is damaged"
        file.seek(begin)
        header = json.loads(file.readline().decode("utf-8", "surrogatepass"))
        if header["made_of"] != json.loads(json.dumps(made_of)):
            return "is of something that has changed since"
        memory, start = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), file.tell()
    arrays = {}
    for name, kind, shape, place in header["arrays"]:
        number = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(memory, kind, number, start + place).reshape(shape) if number else np.empty(
            shape, kind)
    return Kept(arrays, header["rest"])


def _first_line(digest: bytes) -> bytes:
    return b"detr_scratch kept arrays %d %b\n" % (FORMAT, digest.ljust(64, b"0"))


def _places(source: Path, part: str) -> Iterator[Path]:
    """Where `part` of a source is looked for, and kept: beside it, else in the cache folder."""
    source = Path(os.path.abspath(source))
    name = f"{part}{ENDING}"
    yield source / f".{name}" if source.is_dir() else source.with_name(f".{source.name}.{name}")
    with suppress(RuntimeError):  # nobody's home
        digest = hashlib.sha256(os.fsencode(source)).hexdigest()
        yield cache_folder() / "read" / f"{digest[:32]}.{name}"


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of this file left that were killed."""
    for partial in path.parent.glob(f".{glob.escape(path.stem[:50])}.*.partial{ENDING}"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                partial.unlink()


def _say(path: Path, why: str) -> None:
    print(f"note: {printable(path)} {why}: what it stood for is read anew", file=sys.stderr, flush=True)
