"""rows: how are the million annotations of a large set held, without a dict for each?

    {"id": 7, "image_id": 3, "category_id": 1, "bbox": [5, 2.5, 10, 8], "area": 80, "iscrowd": 0, "segmentation": …}
      └─▶ a row of ten columns, 66 bytes         as the format has it: whole numbers where it wants them, a box of four
      └─▶ others[place], as it was written       anything else: "7" for 7, a box of text, an entry that is no object

Nothing is judged here, and nothing is lost that annotations.py reads: `entries[k]` is the k-th entry once more, as a
dict, with 1 where 1 was written and 1.0 where 1.0 was. So a file of a million sound entries is judged column by column,
and those few that are doubtful one by one, in the words that they were always judged in.

Outlines (segmentation) are most of such a file, and a detector has no use for them: they are let go entry by entry.
Proven in tests/data/test_rows.py. Read: Rows → Entries, Images
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Iterable, Iterator, Optional

import numpy as np

MOST = 2.0**53          # below it a float holds every whole number
LONGEST_NAME = 1024     # a file name's letters, as in annotations.py
_CHUNK = 4096
Document = dict[str, Any]
# Of an annotation that is no row, what is read; of its outline only whether there is one where a box is missing.
_READ = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
# The bits of the column `written`: which of x, y, w, h, area were whole numbers, and which keys were not there.
_WHOLE = tuple({float: 0, int: bit} for bit in (1, 2, 4, 8, 16))
NO_ID, NO_AREA, NO_CROWD = 32, 64, 128
_ABSENT = {"id": NO_ID, "area": NO_AREA, "iscrowd": NO_CROWD}


class Rows(Sequence):
    """A list of a JSON file: entries as the format has them in columns, others as they are. Add, then read."""

    kinds: dict[str, Any]   # column → its type

    def __init__(self, entries: Iterable[Any] = ()) -> None:
        self.others: dict[int, Any] = {}
        self._parts: list[dict[str, np.ndarray]] = []
        self._columns: Optional[dict[str, np.ndarray]] = None
        self._length = 0
        entries = list(entries)
        for start in range(0, len(entries), _CHUNK):
            self.add(entries[start:start + _CHUNK])

    def add(self, entries: list[Any]) -> None:
        """Add some entries at the end."""
        found, places = [], []
        for place, entry in enumerate(entries, self._length):
            if (row := self.row_of(entry)) is not None:
                found.append(row)
                places.append(place)
            else:
                self.others[place] = self.kept(entry)
        if found:
            fits = np.zeros(len(found), dtype=bool)
            try:
                part = dict(zip(self.kinds, map(np.array, zip(*found), self.kinds.values())))
                fits = self.exact(part)
                self._parts.append({name: column[fits] for name, column in part.items()})
            except OverflowError:  # one of them fits no column: all of these stay as they are
                pass
            for k in np.flatnonzero(~fits):
                self.others[places[k]] = self.kept(entries[places[k] - self._length])
        self._length += len(entries)
        self._columns = None

    @classmethod
    def of(cls, entries: Any) -> "Rows":
        """A list as rows; rows as they are."""
        return entries if isinstance(entries, cls) else cls(entries)

    @classmethod
    def restored(cls, columns: dict[str, np.ndarray], others: dict[int, Any]) -> "Rows":
        """Rows from their `columns` and `others`, as they were kept."""
        rows = cls()
        rows._columns, rows.others = columns, others
        rows._length = len(next(iter(columns.values()))) + len(others)
        return rows

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Column → its values (n,) of the entries that are rows, in the order of the file."""
        if self._columns is None:
            parts, self._parts = self._parts, []
            self._columns = {name: np.concatenate([part.pop(name) for part in parts]) if parts else
                             np.array([], kind) for name, kind in self.kinds.items()}
            self._parts = [dict(self._columns)]
        return self._columns

    @property
    def places(self) -> np.ndarray:
        """(n,) int64: which of the list's entries the rows are."""
        there = np.ones(self._length, dtype=bool)
        there[list(self.others)] = False
        return np.flatnonzero(there)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[k] for k in range(*place.indices(self._length))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self.others[place] if place in self.others else self.entry(int(np.searchsorted(self.places, place)))

    def __iter__(self) -> Iterator[Any]:
        row = 0
        for place in range(self._length):
            if place in self.others:
                yield self.others[place]
            else:
                yield self.entry(row)
                row += 1

    # What a row is: each kind of list has its own answers.

    @staticmethod
    def row_of(entry: Any) -> Optional[tuple]:
        """The values of an entry's columns; None for one that is no row."""
        raise NotImplementedError

    @staticmethod
    def exact(columns: dict[str, np.ndarray]) -> np.ndarray:
        """(n,) bool: which of these rows hold their numbers without a loss."""
        raise NotImplementedError

    @staticmethod
    def kept(entry: Any) -> Any:
        """What of an entry that is no row is read."""
        raise NotImplementedError

    def entry(self, row: int) -> dict[str, Any]:
        """A row as the entry that it was."""
        raise NotImplementedError


class Entries(Rows):
    """The list "annotations"."""

    kinds = {"id": np.int64, "image_id": np.int64, "category_id": np.int64, "x": np.float64, "y": np.float64,
             "w": np.float64, "h": np.float64, "area": np.float64, "iscrowd": np.bool_, "written": np.uint8}

    @staticmethod
    def row_of(entry: Any) -> Optional[tuple]:
        try:
            box, image, category, get = entry["bbox"], entry["image_id"], entry["category_id"], entry.get
            id, area, crowd = get("id", _ABSENT), get("area", _ABSENT), get("iscrowd", _ABSENT)
            x, y, w, h = box
            in_x, in_y, in_w, in_h, in_area = _WHOLE
            written = in_x[type(x)] | in_y[type(y)] | in_w[type(w)] | in_h[type(h)]
            if id is _ABSENT:
                written, id = written | NO_ID, 0
            if area is _ABSENT:
                written, area = written | NO_AREA, 0.0
            else:
                written |= in_area[type(area)]
            if crowd is _ABSENT:
                written, crowd = written | NO_CROWD, 0
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None
        if not (type(box) is list and type(id) is int and type(image) is int and type(category) is int
                and type(crowd) is int and 0 <= crowd <= 1):
            return None
        return id, image, category, x, y, w, h, area, crowd, written

    @staticmethod
    def exact(columns: dict[str, np.ndarray]) -> np.ndarray:
        fits = np.ones(len(columns["x"]), dtype=bool)
        for name in ("x", "y", "w", "h", "area"):
            fits &= np.abs(columns[name]) < MOST  # False for NaN, too
        return fits

    @staticmethod
    def kept(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        found = {key: entry[key] for key in _READ if key in entry}
        if found.get("bbox") is None and entry.get("segmentation"):
            found["segmentation"] = True
        return found

    def entry(self, row: int) -> dict[str, Any]:
        c = self.columns
        written = int(c["written"][row])
        values = [c[name][row].item() for name in ("x", "y", "w", "h", "area")]
        values = [int(value) if written >> k & 1 else value for k, value in enumerate(values)]
        found = {"id": c["id"][row].item(), "image_id": c["image_id"][row].item(),
                 "category_id": c["category_id"][row].item(), "bbox": values[:4], "area": values[4],
                 "iscrowd": int(c["iscrowd"][row])}
        return {key: value for key, value in found.items() if not written & _ABSENT.get(key, 0)}

    def of_images(self, wanted: Callable[[Any], bool]) -> "Entries":
        """Those whose image_id is `wanted`; that of an entry that has none, or is no object, is None."""
        images, group = np.unique(self.columns["image_id"], return_inverse=True)
        keep = np.array([wanted(id) for id in images.tolist()], dtype=bool)[group.reshape(-1)]      # (n,)
        places = self.places
        others = {place: entry for place, entry in self.others.items()
                  if wanted(entry.get("image_id") if isinstance(entry, dict) else None)}
        left = np.sort(np.concatenate((places[keep], np.array(list(others), dtype=np.int64))))
        return Entries.restored({name: column[keep] for name, column in self.columns.items()},
                                {int(np.searchsorted(left, place)): entry for place, entry in others.items()})

    def any_of_category(self, id: int) -> bool:
        """Does any of them have this category_id, rows and other entries alike?"""
        return bool((self.columns["category_id"] == id).any()) or any(
            isinstance(entry, dict) and entry.get("category_id") == id for entry in self.others.values())


class Images(Rows):
    """The list "images"."""

    kinds = {"id": np.int64, "file_name": np.str_, "width": np.int64, "height": np.int64}

    @staticmethod
    def row_of(entry: Any) -> Optional[tuple]:
        try:
            id, name, width, height = entry["id"], entry["file_name"], entry["width"], entry["height"]
            usable = 0 < len(name) <= LONGEST_NAME and "\0" not in name and width > 0 and height > 0
        except (KeyError, TypeError, IndexError):
            return None
        if not (usable and type(id) is int and type(name) is str and type(width) is int and type(height) is int):
            return None
        return id, name, width, height

    @staticmethod
    def exact(columns: dict[str, np.ndarray]) -> np.ndarray:
        return np.ones(len(columns["id"]), dtype=bool)

    @staticmethod
    def kept(entry: Any) -> Any:
        return entry

    def entry(self, row: int) -> dict[str, Any]:
        return {name: column[row].item() for name, column in self.columns.items()}
