"""download_many: how are thousands of small files downloaded in parallel, each complete or absent?

    (url, path) ─▶ missing? ─▶ a pool of threads ─▶ download.fetch_into, a connection for each thread
                   damaged?        ├── some fail      the others come all the same; one error in the end
                                   ├── many fail      the network is gone: the rest is not tried
                                   └── Ctrl-C         all threads stop; the next call goes on

    something else arrives (a login page, or half a file of no known length)   it is removed: that one failed

Proven in tests/test_download_many.py.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterable, Optional

import requests
from tqdm import tqdm

from scratch.weights.download import Stopped, alone, fetch_into, forget
from scratch.printable import printable

MOST_FAILURES = 20  # before the rest is not tried any more


# Names that Windows reserves for devices, with any ending, and what our own unfinished files end with.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(partial|etag|lock)", re.IGNORECASE)


def trouble_in_name(name: Any) -> Optional[str]:
    """Why a name from somebody else's file may not become a file's name in a folder of ours; None if it may.

    It must be a name and no way: what leads to another folder ("../x", "/x", "C:\\x") could write over any file. And
    it must mean one file on every system: no hidden ones, no devices, nothing that a system would cut off or refuse.
    """
    if not isinstance(name, str) or not name.strip():
        return "no name"
    if any(sign in name for sign in '/\\:*?"<>|') or name in (".", ".."):
        return "it leads to another folder, or holds a sign that names may not"
    if printable(name) != name:
        return "it holds control characters"
    if len(name.encode("utf-8")) > 200:
        return "it is longer than 200 bytes"
    if name[0] in ".- " or name[-1] in ". " or _RESERVED.fullmatch(name):
        return "it is a hidden file's, a device's, or one that systems change"
    return None


def fetch_all(items: Iterable[tuple[str, Path]], workers: int = 16, what: str = "files",
              trouble_with: Callable[[Path], Optional[str]] = lambda path: None, most: int = 2**26) -> None:
    """Fetch many small files, each (url, path), `workers` at a time; those that are there are left alone.

    trouble_with   says what is wrong with a file, if anything is. It is asked of each that has arrived, and of those
                   that are there already, which then come anew: let it be quick, and safe in threads
    Raises OSError that lists what could not be fetched, when all the others are there. However it ends, also by Ctrl-C,
    each file is whole or not there, and the next call fetches what is missing. Only a kill between a file's arrival and
    its check leaves it unchecked, until the next call.
    """
    items = [(url, Path(path)) for url, path in items]
    stop, mine, failures = threading.Event(), threading.local(), []

    def fails(path: Path) -> bool:
        return not path.is_file() or trouble_with(path) is not None

    missing = [(url, path) for url, path in items if fails(path)]
    if not missing:
        return

    def one(url: str, path: Path) -> None:
        if stop.is_set():
            raise Stopped
        if not hasattr(mine, "session"):  # a session keeps its connection open, and is one thread's
            mine.session = requests.Session()
        try:
            fetch_into(url, path, None, mine.session, lambda there, total: None, stop, most)
        except BaseException:
            forget(path)  # small: not worth a resume
            raise
        if trouble := trouble_with(path):
            path.unlink()
            raise ValueError(f"{url} gave something else than was asked for ({trouble}), which is removed: the line "
                             "was cut, or something on the way (a proxy, a login page) answered instead")

    folders = sorted({path.parent for _, path in missing})
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        for folder in folders:  # in one order everywhere, so that no two wait for each other
            locks.enter_context(alone(folder / ".fetching.lock"))
        missing = [(url, path) for url, path in missing if fails(path)]  # another process may have been faster
        for _, path in missing:
            path.unlink(missing_ok=True)
        bar = locks.enter_context(tqdm(total=len(items), initial=len(items) - len(missing), desc=f"fetching {what}",
                                       unit="file", disable=None, leave=False))
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(one, url, path) for url, path in missing]
            try:
                for future in as_completed(futures):
                    error = future.exception()
                    if error is None:
                        bar.update()
                    elif isinstance(error, (OSError, ValueError)):
                        failures.append(str(error).partition("\n")[0])
                        if len(failures) == MOST_FAILURES:
                            stop.set()  # as when the network is gone: thousands of others would fail, too
                    elif not isinstance(error, Stopped):
                        raise error
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    if failures:
        left = sum(not path.is_file() for _, path in missing)
        raise OSError(f"{left:,} of {len(items):,} {what} could not be fetched; the same command tries them again. "
                      "The first that failed:\n" + "\n".join(f"  {failure}" for failure in failures[:5]))
