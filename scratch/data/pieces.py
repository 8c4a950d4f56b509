"""pieces: how is an annotation file of gigabytes read, where all of it does not fit into memory?

    file ─▶ 4 MiB at a time ─▶ text ─▶ one entry after the other ─▶ rows.py ─▶ columns
                                          └─ a value that ends beyond the text: read on, and try it again

The document of a file of 350 MB needs 2.5 GB as dicts and lists; here a piece of it is in memory at a time, and its
entries as rows. What is read is the same: the same decoder (Python's own) reads each entry, with the same rules. The
numbers of outlines, half of the decoder's work, are passed over: of "segmentation": [[1.5, 2, …]] only the brackets,
commas and digits are looked at.

This reader knows sound files alone. At anything else (an error, a key that stands twice, no list of boxes, another
encoding than UTF-8) it gives up, and annotation_file.py reads the file as a whole and says what it is. So there is one
place that explains files, and this one has no messages.

The rows of a large file are kept for the next run (scratch/kept_arrays), by the SHA-256 of the file: what is
recalled is what was read, before anything is chosen or judged, so that all flags find the same kept file.
Proven in tests/data/test_pieces.py. Read: read_instances → _read → _Text
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Callable, Optional

from tqdm import tqdm

from scratch.data.annotation_file import LISTS, load_instances
from scratch.data.rows import Document, Entries, Images, Rows
from scratch.kept_arrays import keep, recall, sha256_of
from scratch.printable import abridged

LARGE = 8 * 2**20  # bytes of a file from which on its rows are kept
PIECE = 4 * 2**20  # bytes that are read at a time
MOST_OTHERS = 0.1  # the share of entries that are no rows with which a kept file would be the file once more
_ENTRIES = 4096    # that become rows at a time
# What may still belong to a number that seems to end there: "1" of "1.5", "1" of "1e+5".
_MARGIN = 4

# In valid JSON, text like this is a key and its value: within a string, its quotes would have a backslash before them.
# A number matches in one way alone: with two, a list of n numbers that is cut off would be tried in 2ⁿ ways.
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?"
_NUMBERS = rf"\[{_NUMBER}(?:, ?{_NUMBER})*\]"
_OUTLINE = re.compile(rf'"segmentation": ?\[{_NUMBERS}(?:, ?{_NUMBERS})*\]', re.ASCII)
_BLANKS = re.compile(r"[ \t\n\r]*")
_PART = "annotations"
_COLUMNS = 1       # the version of what the kept columns mean
_MOMENT = 2 * 10**9  # ns


class _Unusual(Exception):
    """The file is not as this reader knows them."""


def read_instances(path: Path, remember: bool = True) -> Document:
    """As `load_instances`, with "images" and "annotations" as rows, and with nothing but the three lists.

    remember   keep the rows of a large file for the next time, and take those that were kept of this very content
    """
    path = Path(path)
    if not os.path.isfile(path):  # none, or a pipe, for whose writer a reader would wait
        return _of_lists(load_instances(path))
    large = remember and os.path.getsize(path) >= LARGE
    if large:
        try:
            digest = _digest_of(path)
        except OSError:  # which the reader explains
            return _of_lists(load_instances(path))
        if kept := recall(path, _PART, {"sha256": digest, "columns": _COLUMNS}):
            with suppress(KeyError, TypeError, ValueError):  # what is kept has another form: it is read anew
                return _restored(kept.arrays, kept.rest)
    try:
        document, read = _read(path)
    except (_Unusual, StopIteration, ValueError, RecursionError, MemoryError, OSError):
        return _of_lists(load_instances(path))
    if large:
        _keep(path, document, read)
    return document


def _of_lists(document: Document) -> Document:
    return {"images": Images(document["images"]), "annotations": Entries(document["annotations"]),
            "categories": document["categories"]}


# -- the file, piece by piece --------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Document, str]:
    """The three lists of a sound file, and the SHA-256 of what was read."""
    size = os.path.getsize(path)
    bar = tqdm(total=size, desc=f"reading {abridged(path.name, 40)}", unit="B", unit_scale=True, leave=False,
               disable=None if size >= LARGE else True)
    with open(path, "rb") as file, bar:
        text = _Text(file, bar.update)
        lists: Document = {"images": Images(), "annotations": Entries(), "categories": []}
        seen: list[str] = []
        text.next_of("{")
        while True:
            key = text.value()
            if type(key) is not str or key in seen:
                raise _Unusual
            seen.append(key)
            text.next_of(":")
            if key in lists:
                text.next_of("[")
                _read_list(text, lists[key])
            else:
                text.value()
            if text.next_of(",}") == "}":
                break
        if not set(LISTS) <= set(seen) or text.peek() or not _of_boxes(lists["annotations"]):
            raise _Unusual
        return lists, text.digest.hexdigest()


def _read_list(text: _Text, entries: Any) -> None:
    """What follows a [, up to its ]."""
    if text.peek() == "]":
        text.next_of("]")
        return
    add = entries.add if isinstance(entries, Rows) else entries.extend
    waiting: list[Any] = []
    while True:
        waiting.append(text.value())
        if len(waiting) == _ENTRIES:
            add(waiting)
            waiting = []
        if text.next_of(",]") == "]":
            add(waiting)
            return


def _of_boxes(entries: Entries) -> bool:
    """Has the first that is an object a box? A panoptic file's and a file of captions' have none."""
    first = next((entry for entry in entries if isinstance(entry, dict)), {"bbox": None})
    return "bbox" in first


def _one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise _Unusual
    return entry


class _Text:
    """The text of a file, of which a piece is in memory, and the place in it."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], Any]) -> None:
        self.digest = hashlib.sha256()
        self._file, self._progress, self._piece = file, progress, PIECE
        self._decoder: Optional[codecs.IncrementalDecoder] = None
        self._scan = json.JSONDecoder(object_pairs_hook=_one_of_each).scan_once
        self._text, self._at, self._over = "", 0, False

    def value(self) -> Any:
        """The JSON value that begins here, after blanks."""
        while True:
            start = _BLANKS.match(self._text, self._at).end()
            try:
                value, end = self._scan(self._text, start)
            except (StopIteration, json.JSONDecodeError):
                if self._over:
                    raise
            else:
                if self._over or end + _MARGIN <= len(self._text):
                    self._at = end
                    return value
            self._read_on()

    def peek(self) -> str:
        """The next sign but blanks, "" at the end of the file; it stays to be read."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()
            if self._at < len(self._text) or self._over:
                return self._text[self._at:self._at + 1]
            self._read_on()

    def next_of(self, signs: str) -> str:
        """The next sign but blanks, which has to be one of these; it is read."""
        sign = self.peek()
        if not sign or sign not in signs:
            raise _Unusual
        self._at += 1
        return sign

    def _read_on(self) -> None:
        """Let go of what was read, and read a piece; twice as much where the last one did not suffice for a value."""
        self._piece = PIECE if self._at else 2 * self._piece
        content = self._file.read(self._piece)
        self._progress(len(content))
        self.digest.update(content)
        if self._decoder is None:
            kind = json.detect_encoding(content)
            if kind not in ("utf-8", "utf-8-sig"):
                raise _Unusual
            self._decoder = codecs.getincrementaldecoder(kind)("surrogatepass")
        self._over = not content
        text = self._text[self._at:] + self._decoder.decode(content, final=self._over)
        self._text = _OUTLINE.sub('"segmentation":[[0]]', text)
        self._at = 0


# -- kept for the next run -----------------------------------------------------------------------------------------


def _digest_of(path: Path) -> str:
    """The SHA-256 of a file; a second time in a process only if it has changed, or a moment ago did."""
    found = os.stat(path)
    if time.time_ns() - found.st_ctime_ns < _MOMENT:  # within a tick of the file system's clock it may change again
        return sha256_of(path)
    return _digest_at(os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@lru_cache(maxsize=16)
def _digest_at(path: str, *stamp: int) -> str:
    return sha256_of(Path(path))


def _keep(path: Path, document: Document, digest: str) -> None:
    images, entries = document["images"], document["annotations"]
    others = len(images.others) + len(entries.others)
    if others > MOST_OTHERS * (len(images) + len(entries)):
        return
    arrays = {f"{name}.{column}": values for name in ("images", "annotations")
              for column, values in document[name].columns.items()}
    rest = {"categories": document["categories"], **{name: list(document[name].others.items())
                                                     for name in ("images", "annotations")}}
    keep(path, _PART, {"sha256": digest, "columns": _COLUMNS}, arrays, rest)


def _restored(arrays: dict[str, Any], rest: Any) -> Document:
    def rows(kind: type[Rows], name: str) -> Rows:
        return kind.restored({column: arrays[f"{name}.{column}"] for column in kind.kinds},
                             {place: entry for place, entry in rest[name]})
    return {"images": rows(Images, "images"), "annotations": rows(Entries, "annotations"),
            "categories": rest["categories"]}
