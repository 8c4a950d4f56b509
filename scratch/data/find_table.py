"""find_table: which tables of a folder, or which of their rows, are of which split?

    train_labels.csv   val.csv            the split is in the table's name …
    train/_annotations.csv   valid/…      … or in its folder's
    annotations.csv   val.csv             without train, a table of no split is train
    filename,split,class,xmin …           no such name: a column split, set or subset says train, val or test
    ants.csv   bees.csv                   several tables of one split are read together
    train.txt  train/_annotations.txt     without a .csv or .tsv: text files of lines (layout_lines.py), the same way
    annotations.xml  via_project.json …   CVAT's, VIA's and Create ML's files, each kind for itself, the same way

Tables of one split in folders of their own (one/labels.csv, two/labels.csv) are several sets, and none is taken.
Proven in tests/data/test_layout_table.py and test_layout_shapes.py. Read after layout_table.py: find_tables
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import Callable, Optional, Sequence

from scratch.data.layout_createml import is_createml
from scratch.data.layout_cvat import is_cvat
from scratch.data.layout_lines import is_lines
from scratch.data.layout_table import Table, cells_of, columns_of, decoded, rows_of
from scratch.data.layout_via import is_via
from scratch.data.listing import Listing, folder_of_set, key, split_of, split_of_path, with_train
from scratch.data.objects import ONE_CLASS
from scratch.data.split import SPLITS
from scratch.data.values import number
from scratch.printable import abridged

BEGINNING = 2**16  # bytes of each table, to know what it is
MOST_FILES = 1_000  # of a kind, at whose beginnings is looked
_SCORES = ("score", "confidence", "conf", "probability", "prob")


def find_tables(listing: Listing) -> Optional[tuple[dict[str, Table], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no such layout."""
    return _by_split(listing, tables_of(listing) if listing.pictures else [], "table")


def find_cvat(listing: Listing) -> Optional[tuple[dict[str, Table], str]]:
    """The same of CVAT's XML files for images; the subsets of a file are what a column of a table is."""
    return _of_form(listing, (".xml",), is_cvat, "CVAT")


def find_via(listing: Listing) -> Optional[tuple[dict[str, Table], str]]:
    """The same of VIA's JSON and CSV files."""
    return _of_form(listing, (".json", ".csv"), is_via, "VIA")


def find_createml(listing: Listing) -> Optional[tuple[dict[str, Table], str]]:
    """The same of Create ML's JSON files."""
    return _of_form(listing, (".json",), is_createml, "Create ML")


def _of_form(listing: Listing, endings: Sequence[str], is_it: Callable[[Path], bool], form: str
             ) -> Optional[tuple[dict[str, Table], str]]:
    files = islice(listing.files(*endings), MOST_FILES) if listing.pictures else ()
    return _by_split(listing, [file for file in files if is_it(listing.root / file)], form)


def _by_split(listing: Listing, files: list[str], form: str) -> Optional[tuple[dict[str, Table], str]]:
    if not files:
        return None
    predicted = [file for file in files if form == "table" and _is_predicted(listing.root / file)]
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        found[split_of(os.path.splitext(os.path.basename(file))[0]) or split_of_path(file) or "all"].append(file)
    truth = {split: [file for file in its if file not in predicted] for split, its in found.items()}
    # What a detector found is read only where a split has nothing else.
    found = {split: truth[split] or its for split, its in found.items()
             if truth[split] or split != "all" or not any(truth.values())}
    unread = [file for file in predicted if not any(file in its for its in found.values())]
    also = f"; not read: {_some(unread)}" if unread else ""
    if found.keys() == {"all"} and form in ("table", "CVAT") and (by_row := _by_row(listing, found["all"], form)):
        return by_row[0], by_row[1] + also
    found = with_train(found)
    left_out = found.pop("all", []) if "train" in found else []
    if any(len(set(map(_set_of, members))) > 1 for members in found.values()):
        return None  # several sets, each in a folder of its own
    found = {split: found[split] for split in (*SPLITS, "all") if split in found}
    every = tuple(file for members in found.values() for file in members)
    where = ", ".join(map(_some, found.values())) + (f"; not read: {_some(left_out)}" if left_out else "") + also
    where += _without_classes(listing, every) if form == "table" else ""
    return {split: Table(listing, split, tuple(members), every, form=form) for split, members in found.items()}, where


def _by_row(listing: Listing, files: list[str], form: str) -> Optional[tuple[dict[str, Table], str]]:
    """The same of tables with a column for the split, or of CVAT's subsets; None if none names a split."""
    if form == "table":
        columns = [columns_of(first_row(listing.root / file)) for file in files]  # None for a text file of lines
        if not any(its and its.split is not None for its in columns):
            return None
    rows: Counter[str] = Counter()
    for file in files:
        try:
            rows.update(row.split for row in rows_of(listing.root / file, form=form))
        except ValueError:
            continue  # the reader reports it
    if not set(SPLITS) & rows.keys() or len(set(map(_set_of, files))) > 1:
        return None
    said = with_train({split: [split] for split in (*SPLITS, "all") if split in rows})
    left_out = said.pop("all", []) if "train" in said else []
    used, every = tuple(value for (value,) in said.values()), tuple(files)
    where = f"{_some(files)}, by {'a column' if form == 'table' else 'its subsets'}"
    where += f"; not read: rows of no split ({rows['all']:,})" if left_out and form == "table" else ""
    where += "; not read: pictures of no subset that is a split" if left_out and form != "table" else ""
    where += _without_classes(listing, files) if form == "table" else ""
    return {split: Table(listing, split, every, every, value, used, form) for split, (value,) in said.items()}, where


def tables_of(listing: Listing) -> list[str]:
    """The tables of boxes in a folder and below, as their first rows tell; without any, the text files of lines."""
    if tables := [file for file in listing.files(".csv", ".tsv") if _is_table(listing.root / file)]:
        return tables
    stems = {key(os.path.basename(picture)) for picture in listing.pictures}
    texts = (file for file in listing.files(".txt") if key(os.path.basename(file)) not in stems)
    return [file for file in islice(texts, MOST_FILES) if _has_lines(listing.root / file)]


def _has_lines(file: Path) -> bool:
    try:
        return is_lines(beginning_of(file))
    except ValueError:
        return False


def _is_table(file: Path) -> bool:
    try:
        return columns_of(first_row(file)) is not None
    except ValueError:
        return False


def _is_predicted(file: Path) -> bool:
    """Is it what a detector found? A column of scores says so, unless all are alike, as in the truth of Open Images."""
    try:
        rows = cells_of(beginning_of(file))
        names = [cell.strip().lower() for cell in next(rows, (0, []))[1]]
        columns = [place for place, name in enumerate(names) if name in _SCORES]
        scores = {cells[columns[0]].strip() for _, cells in rows if len(cells) > columns[0]} if columns else set()
    except ValueError:
        return False
    return len(scores) > 1


def _without_classes(listing: Listing, files: Sequence[str]) -> str:
    """In words, the columns of a table without a class that may hold one; "" where it has one, or no such column."""
    for file in files:
        names = first_row(listing.root / file)
        columns = columns_of(names)
        if columns and columns.header and columns.label is None:
            try:
                rows = [cells for _, cells in cells_of(beginning_of(listing.root / file))][1:]
            except ValueError:
                continue  # the reader reports it
            used = {columns.picture, columns.split, *columns.box, *(columns.size or ())}
            texts = [name.strip() for place, name in enumerate(names) if place not in used
                     and any(number(cells[place].strip()) is None and cells[place].strip() for cells in rows
                             if len(cells) > place)]
            if texts:
                return (f"; no column is called class, so all boxes are of one, {ONE_CLASS!r}; not read: "
                        f"{', '.join(map(abridged, texts[:3]))}{' …' if texts[3:] else ''}")
    return ""


def first_row(file: Path) -> list[str]:
    """The cells of a table's first row; none of a text file of lines. Raises ValueError where it cannot be read."""
    return [] if file.suffix.lower() == ".txt" else next(cells_of(beginning_of(file)), (0, []))[1]


def beginning_of(file: Path) -> str:
    """The first lines of a table. Raises ValueError where they cannot be read."""
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(BEGINNING)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error})") from error
    if beginning[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return decoded(beginning[:len(beginning) // 2 * 2])
    return decoded(beginning.rpartition(b"\n")[0] or beginning)


def _set_of(file: str) -> str:
    return folder_of_set(os.path.dirname(file))


def _some(files: list[str]) -> str:
    return files[0] + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")
