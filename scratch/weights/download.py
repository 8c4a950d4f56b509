"""download: how is a large file downloaded over an unreliable connection, complete or not at all?

    GET, from the first missing byte ─▶ FILE.partial ─▶ whole? ─▶ SHA-256? ─▶ renamed to FILE
      ▲                     │
      └── a pause ◀── cut ──┘     as long as bytes arrive; a few times in a row without a new one

    the line is cut, the process killed   "Range: bytes=N-" goes on, now or in the next call
    the file changed on the server        "If-Range: ETag" has it sent anew: no two halves meet
    the server knows no ranges            it sends all of it, and that replaces what was there
    the hash is wrong                     the partial file goes; the error says got and wanted
    two processes want one file           the second waits for a lock, and finds it done
    more comes than was announced         the end is where it was announced, or at the most that is wanted
    it comes drop by drop, or not at all  a slow line is given up by what it brings in a time, not by its silences
    it comes packed (gzip)                refused: bytes are counted and kept as they are sent, never unpacked
    it is sent on to file:, or from https to http   refused

A file gets its name only when it is complete, so that every file with that name can be used; what does not arrive ends
with one error that says what to fetch by hand and where to put it. HTTP: RFC 9110, sections 13.1.5
(If-Range), 14 (ranges) and 15.5.17 (416). Proven against a server that does all this on purpose:
tests/test_download.py.
Read: fetch → fetch_into (its tries) → _receive (one request); then download_many
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

TRIES = 4  # failures in a row, none of which brought a byte that was not there before
PAUSE = 0.25  # seconds before the next try; doubled by each failure
TIMEOUT = (10.0, 30.0)  # seconds for a connection, and between two pieces of an answer
CHUNK = 2**14  # bytes that are read at a time: what a cut can lose, and the way to Ctrl-C
ANSWER = 60.0  # seconds until an answer has begun: one that sends its head letter by letter never times out
CRAWL = (120.0, 2**13)  # seconds in which a line brings at least as many bytes (a modem of 1985 does), or is given up
MOST = 2**33  # bytes of a file, unless the caller gives another bound: 8 GiB

# What stands in the texts of the network's errors, and what it means.
IN_WORDS = {"NameResolutionError": "its host is not known (is there a network?)",
            "Name or service not known": "its host is not known (is there a network?)",
            "refused": "its host refuses connections", "unreachable": "there is no network",
            "CERTIFICATE_VERIFY_FAILED": "its host's certificate cannot be verified",
            "reset": "the line was cut", "IncompleteRead": "the line was cut",
            "RemoteDisconnected": "the line was cut"}

Show = Callable[[int, Optional[int]], None]  # bytes that are there, bytes in all if that is known


class _Cut(Exception):
    """Trouble that may pass: it is worth another try."""


class _Crawl(_Cut):
    """Bytes came, but so few that their coming is no reason for another try."""


class _Refused(OSError):
    """What comes is not what was wanted, and what has arrived of it is no beginning of it."""


class Stopped(Exception):
    """Another thread asked for an end."""


def fetch(url: str, path: Path, sha256: Optional[str] = None, most: int = MOST) -> Path:
    """The file at `url`, as `path`; fetched unless it is there already, whole.

    sha256   the SHA-256 in hexadecimal, or how it begins; None: only the length is verified
    most     bytes that it may have
    Raises OSError where the network, the server or the disk refuses, and ValueError for another hash or no such kind
    of address. What had arrived by then is kept as path.partial for the next call, but for a wrong hash or a full disk.
    """
    path = Path(path)
    if _is_whole(path, sha256):  # needs no lock, so that others may read a cache that only one may write
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f".{path.name}.lock")):
        if _is_whole(path, sha256):  # another process was faster
            return path
        with requests.Session() as session, tqdm(desc=path.name, unit="B", unit_scale=True, unit_divisor=1024,
                                                 disable=None, leave=False) as bar:
            def show(there: int, total: Optional[int]) -> None:
                bar.total = total
                bar.update(there - bar.n)
            fetch_into(url, path, sha256, session, show, threading.Event(), most)
    return path


# -- one file ------------------------------------------------------------------------------------------------------


def fetch_into(url: str, path: Path, sha256: Optional[str], session: requests.Session, show: Show,
               stop: threading.Event, most: int = MOST) -> None:
    """Try until `path` is there; its folder is there, and no other process writes it.

    Raises what `fetch` raises, and Stopped once `stop` is set.
    """
    partial, tag = _unfinished(path)
    resumed = partial.exists()
    furthest, failures = _size(partial), 0
    while True:
        try:
            _receive(url, path, session, show, stop, most)
        except _Cut as cut:
            there = _size(partial)
            new = there > furthest and not isinstance(cut, _Crawl)
            failures, furthest = (0 if new else failures + 1), max(there, furthest)
            if failures == TRIES:
                kept = f"{there:,} bytes have arrived and are kept; the same command goes on. " if there else ""
                raise OSError(f"{url} could not be fetched: {cut}\n{kept}{_by_hand(url, path)}") from cut
            if stop.wait(PAUSE * 2**failures):
                raise Stopped from cut
            continue
        if _is_whole(partial, sha256):
            break
        got = digest(partial)[:len(sha256)]
        forget(path)
        if not resumed:
            raise ValueError(f"{url} gave a file whose SHA-256 begins with {got}, wanted {sha256}: it has changed, or "
                             f"something on the way (a proxy, a login page) answered instead. It was removed\n"
                             f"{_by_hand(url, path)}")
        resumed, furthest = False, 0  # a power cut can leave a hole in what had arrived: once more, from the beginning
    # The server's name for it goes first: killed after the rename, nobody would look for it again.
    tag.unlink(missing_ok=True)
    os.replace(partial, path)


def _receive(url: str, path: Path, session: requests.Session, show: Show, stop: threading.Event, most: int) -> None:
    """One request for what is missing. Raises _Cut if it did not all come, OSError or ValueError if it never will."""
    partial, tag = _unfinished(path)
    # Without the server's own name for this version of the file, it is not known whether two halves fit together.
    version = tag.read_text(encoding="utf-8") if tag.exists() and partial.exists() else ""
    there = _size(partial) if version else 0
    # A length counts the bytes that are sent: let them be the file's own.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-", "If-Range": version} if there else {})}
    try:
        with _begun(session, url, headers) as answer:
            total = _length(answer)
            hops = [hop.url.partition(":")[0] for hop in (*answer.history, answer)]
            if "https" in hops and "http" in hops[hops.index("https"):]:
                raise ValueError(f"{url} is no address that can be fetched: it sends on to plain {answer.url}, where "
                                 "anybody on the way could change what comes")
            if answer.status_code == 416 and there:
                if total == there:  # all of it: killed between its last byte and its name
                    return
                forget(path)
                raise _Cut(f"the server has no byte {there:,} of it")
            if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
                raise _Cut(f"the server answered {answer.status_code} {answer.reason}")
            if answer.status_code not in (200, 206):
                raise OSError(f"{url} could not be fetched: the server answered {answer.status_code} {answer.reason}\n"
                              f"{_by_hand(url, path)}")
            if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
                forget(path)
                raise _Cut(f"the server sent {answer.headers.get('Content-Range')} for bytes {there}-")
            if (packed := answer.headers.get("Content-Encoding", "identity")).lower() != "identity":
                raise OSError(f"{url} could not be fetched: it comes packed ({packed[:40]!r}), which was not asked "
                              f"for\n{_by_hand(url, path)}")
            if (announced := max(total or 0, there)) > most:
                raise _Refused(f"{url} could not be fetched: {announced:,} bytes are announced, and at most {most:,} "
                               "are wanted: this is another file")
            if answer.status_code == 200:
                there = 0
                forget(path)
                tag.write_text(_version(answer), encoding="utf-8")
            with open(partial, "ab") as file:
                show(there, total)
                since, brought = time.monotonic(), 0
                for chunk in _pieces(answer):
                    if there + len(chunk) > (most if total is None else total):
                        raise _Refused(f"{url} could not be fetched: more came than the "
                                       f"{most if total is None else total:,} bytes that "
                                       f"{'are wanted at most' if total is None else 'were announced'}\n"
                                       f"{_by_hand(url, path)}")
                    file.write(chunk)
                    there += len(chunk)
                    brought += len(chunk)
                    show(there, total)
                    if stop.is_set():
                        raise Stopped
                    if (passed := time.monotonic() - since) > CRAWL[0]:
                        if brought < CRAWL[1]:
                            raise _Crawl(f"the line brought {brought:,} bytes in {passed:.0f} seconds")
                        since, brought = time.monotonic(), 0
                file.flush()
                os.fsync(file.fileno())  # before it gets its name: a power cut could leave the name without the bytes
            if total is not None and there != total:
                raise _Cut(f"the line was cut after {there:,} of {total:,} bytes")
    except urllib3.exceptions.HTTPError as error:
        raise _Cut(_in_words(error)) from error
    except OSError as error:
        if isinstance(error, (requests.exceptions.TooManyRedirects, ValueError)):  # the latter: a bad address
            raise ValueError(f"{url} is no address that can be fetched: {error}") from error
        if isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
            raise _Cut(_in_words(error)) from error
        if isinstance(error, _Refused):
            forget(path)
        if error.errno is None:  # our own
            raise
        forget(path)  # a full disk wants its space back
        raise OSError(f"{path} could not be written: {error.strerror}. Free some space, or choose another place\n"
                      f"{_by_hand(url, path)}") from error


def _begun(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The answer to a request, as soon as its head is there. Raises _Cut where that takes too long.

    The wait is another thread's, which is left to itself then: a time limit of the socket ends a silence, not a head
    that comes letter by letter.
    """
    came: list[Any] = []

    def ask() -> None:
        try:
            came.append(session.get(url, headers=headers, stream=True, timeout=TIMEOUT))
        except BaseException as error:  # raised again where it was waited for
            came.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER)
    if not came:
        raise _Crawl("it did not answer in time")
    if isinstance(came[0], BaseException):
        raise came[0]
    return came[0]


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """The bytes of an answer as they were sent, piece by piece as they arrive."""
    read = getattr(answer.raw, "read1", None)  # of urllib3 since 2.1: it does not wait until a piece is full
    while chunk := (read(CHUNK, decode_content=False) if read else answer.raw.read(CHUNK, decode_content=False)):
        yield chunk


def _version(answer: requests.Response) -> str:
    """What names this version of the file: a strong ETag (a weak one may not stand in If-Range), else its date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _length(answer: requests.Response) -> Optional[int]:
    """The bytes of the whole file, if the answer tells."""
    if answer.status_code in (206, 416):
        length = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def _in_words(error: Exception) -> str:
    """What a person makes of one of the network's errors."""
    if isinstance(error, (requests.Timeout, TimeoutError, urllib3.exceptions.TimeoutError)):
        return "it did not answer in time"
    return next((words for sign, words in IN_WORDS.items() if sign in str(error)), str(error))


def _by_hand(url: str, path: Path) -> str:
    return f"To fetch it by hand: open {url} in a browser, on any machine, and save it as {path.absolute()}"


# -- files and locks -----------------------------------------------------------------------------------------------


def _unfinished(path: Path) -> tuple[Path, Path]:
    """Where a file grows until it is whole, and where the server's name for its version is kept."""
    return path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.partial.etag")


def forget(path: Path) -> None:
    """Remove what has arrived of an unfinished file."""
    for file in _unfinished(path):
        file.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _is_whole(path: Path, sha256: Optional[str]) -> bool:
    return path.is_file() and (sha256 is None or digest(path).startswith(sha256.lower()))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system drops it with the process, so nothing is left to expire."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"waiting for another process that is fetching into {path.parent}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
