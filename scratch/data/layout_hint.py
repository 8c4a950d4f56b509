"""layout_hint: a folder in which no layout was recognised: what is it, and what can be done?

    another case of a name, a file, an archive, TensorFlow's records, tables, a spreadsheet, pictures, another JSON …

What is looked for is in layouts.py. Nothing is read here but names, one JSON file, a few of XML, and the beginnings of
tables and text files.
Proven in tests/data/test_layout_hint.py.
"""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

from scratch.data.annotation_file import load_instances
from scratch.data.find_table import beginning_of, tables_of
from scratch.data.find_voc import is_annotation
from scratch.data.layout_cvat import is_cvat
from scratch.data.layout_table import WANTED, cells_of, delimiter_of
from scratch.data.listing import PICTURES, Listing, doubts, key, list_folder, split_of
from scratch.data.values import is_oriented, is_yolo, number, whole
from scratch.printable import abridged

MOST_JSON = 2**24  # bytes of one that is looked at
_TABLES = (".tfrecord", ".record", ".parquet", ".arrow")
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


def layout_hint(root: Path) -> str:
    """A line or two that end with a line break, or nothing where there is nothing to say."""
    if not os.path.exists(root):
        others = {path.name.lower(): path.name for path in _children(root.parent)}
        near = difflib.get_close_matches(root.name.lower(), others, 1)
        meant = f"; did you mean {abridged(root.parent / others[near[0]])}?" if near else "."
        return f"There is no {abridged(root)}{meant}\n"
    if not os.path.isdir(root):
        what = {".zip": "unpack it, and name the folder",
                ".json": "name the folder that holds it and its pictures, or give it as --train-annotations, its "
                         "pictures' folder as --train-images",
                **dict.fromkeys((".yaml", ".yml", ".csv", ".tsv", ".xml", ".txt"), f"name {abridged(root.parent)}, its folder"),
                }.get(root.suffix.lower())
        return f"{abridged(root)} is a file{f': {what}' if what else ', not a folder'}.\n"
    listing = list_folder(root)
    endings = {os.path.splitext(path)[1].lower() for names in listing.names.values() for path in names}
    if tables := sorted(endings & {*_TABLES}):
        return f"It holds {tables[0]} files: convert them to one of these layouts first.\n"
    if files := list(listing.files(".xml")):
        if any(is_annotation(root / file) for file in files[:5]):
            return "" if listing.pictures else "Its .xml files are Pascal VOC's, and there are no pictures.\n"
        if cvat := [file for file in files[:5] if is_cvat(root / file)]:
            are = f"{', '.join(map(abridged, cvat))} {'is' if len(cvat) == 1 else 'are'} CVAT's"
            return (f"{are}, of several sets: name the folder of one, or put the files into one folder.\n"
                    if listing.pictures else
                    f"{are}, and there are no pictures: put them into this folder, or one in it.\n")
        return "Its .xml files are not Pascal VOC's, one for each picture: export them as COCO.\n"
    if not listing.pictures and (unread := sorted(endings & {".heic", ".heif"})):
        return f"It holds {unread[0]} pictures, which are not read: convert them to JPEG first.\n"
    texts = islice(listing.files(".txt"), 20) if not listing.pictures else ()
    if text := next((text for text in texts if _is_yolo(root / text)), None):
        return (f"{abridged(text)} has boxes as YOLO writes them, and there are no pictures: put them beside it, or, where "
                "it is in labels/, into images/.\n")
    if endings & {".zip", ".tar", ".gz", ".rar", ".7z"}:
        return "It holds an archive: unpack it.\n"
    if tables := tables_of(listing):
        return _of_tables(tables, listing)
    if endings and not listing.pictures and not any(listing.files(".json")):
        return "It holds no pictures.\n"
    if files := list(listing.files(".json")):
        return _of_json(root / files[0], len(files))
    if files := list(listing.files(".csv", ".tsv")):
        return f"{abridged(files[0])} is not a table of boxes: {_of_table(root / files[0])}.\n"
    if files := list(listing.files(*_SPREADSHEETS)):
        return f"{abridged(files[0])} is a spreadsheet: save it as CSV UTF-8.\n"
    if listing.pictures:
        stems = {key(os.path.basename(path)): path for path in listing.pictures}
        texts = [text for text in listing.files(".txt") if key(os.path.basename(text)) in stems]
        if texts:
            return _of_texts(root, texts, stems)
        others = sorted(endings - PICTURES - {""})
        what = f" that are known (its other files are {', '.join(others[:5])})" if others else ""
        return f"It holds pictures, and no annotations{what}.{_around(root)}\n"
    return "" if endings else f"{abridged(root)} is empty.\n"


def _around(root: Path) -> str:
    """A question, where what lies beside the folder looks like its annotations; else nothing."""
    root = root.absolute()
    if doubts(root.name)[1] and not split_of(root.name):
        return ""  # not called as folders of pictures are
    for folder in (root.parent, root.parent.parent):
        names = [path.name.lower() for path in _children(folder)]
        if any(name.startswith(("annotation", "labels")) or name.endswith((".yaml", ".json", ".csv")) for name in names):
            return f" Did you mean {abridged(folder)}, the folder around it?"
    return ""


def _is_yolo(text: Path) -> bool:
    """Does its beginning have a line as YOLO writes them?"""
    return any(map(is_yolo, _beginning(text)))


def _is_kitti(words: list[str]) -> bool:
    """Is this line a class and 14 numbers, and perhaps a score?"""
    return len(words) in (15, 16) and number(words[0]) is None and None not in map(number, words[1:])


def _is_visdrone(words: list[str]) -> bool:
    """Is this line eight whole numbers with commas between?"""
    cells = "".join(words).rstrip(",").split(",")
    return len(cells) == 8 and None not in map(whole, cells)


# What a line of a text file is → what is in it, and whose it is.
_LINES = (
    (is_oriented, "has four corners and a class in a line (x1 y1 … x4 y4 CLASS), as DOTA's oriented boxes"),
    (_is_kitti, "has a class and 14 numbers in a line (the box is the fourth to the seventh: left top right bottom), "
                "as KITTI's"),
    (_is_visdrone, "has eight numbers in a line (left,top,width,height,score,CLASS,…), as VisDrone's"))


def _of_texts(root: Path, texts: list[str], stems: dict[str, str]) -> str:
    """What text files are that are called as pictures are; `stems`: key of a name without its ending → picture."""
    lines = [(text, words) for text in texts[:5] for words in _beginning(root / text)]
    for is_it, what in _LINES:
        if text := next((text for text, words in lines if is_it(words)), None):
            return (f"{abridged(text)} {what}: convert them to one of these layouts first; a table is the simplest to "
                    "write.\n")
    return (f"{abridged(texts[0])} is called like {abridged(stems[key(os.path.basename(texts[0]))])}, but it is not "
            "where YOLO has it: beside the picture, or, for images/…/NAME.jpg, in labels/…/NAME.txt.\n")


def _beginning(text: Path) -> list[list[str]]:
    """The words of its first lines; none of a file that cannot be read."""
    try:
        with open(text, encoding="utf-8", errors="replace") as stream:
            return [line.split() for line in stream.readlines(4096)]
    except OSError:
        return []


def _of_json(file: Path, number_of: int) -> str:
    """Why a JSON file is none of COCO's."""
    try:
        if file.stat().st_size > MOST_JSON:
            return ""
        load_instances(file)
    except (OSError, ValueError) as error:
        return f"{abridged(error, 640)}.\n".replace("..\n", ".\n")
    return f"{abridged(file)} names no picture of a usable name.\n" if number_of == 1 else ""


def _of_table(file: Path) -> str:
    """What a table lacks."""
    try:
        text = beginning_of(file)
        cells = next(cells_of(text), (0, []))[1]
    except ValueError as error:
        return abridged(error, 640)
    header = delimiter_of(text).join(header_of(cells))
    return ((f"its first row is {abridged(','.join(cells))}, " if cells else "") + WANTED
            + (f". If it has no header, put the names first, such as: {header}" if header else ""))


def header_of(cells: list[str]) -> list[str]:
    """Names for the columns of a table without a header whose first row this is; none where that is not clear."""
    values = [number(cell.strip().replace(",", ".")) for cell in cells]
    numbers = [value for value in values if value is not None]
    texts = [os.path.splitext(cell.strip().lower())[1] in PICTURES
             for cell, value in zip(cells, values) if value is None]
    if sorted(texts) != [False, True] or len(numbers) not in (4, 6):
        return []
    box, size = ["xmin", "ymin", "xmax", "ymax"], ["width", "height"][:len(numbers) - 4]
    begins = numbers[0] >= numbers[-2] and numbers[1] >= numbers[-1]  # with the picture's size: no corner exceeds it
    names, words = iter(size + box if begins else box + size), iter(["filename" if text else "class" for text in texts])
    return [next(words if value is None else names) for value in values]


def _of_tables(tables: list[str], listing: Listing) -> str:
    """Why tables of boxes are not a set."""
    names = ", ".join(map(abridged, tables[:3])) + (" …" if tables[3:] else "")
    are = "are tables of boxes" if tables[1:] else "is a table of boxes"
    if not listing.pictures:
        return f"{names} {are}, and there are no pictures: put them into this folder, or one in it.\n"
    return (f"{names} {are}, of several sets: put the pictures of each beside its table, and name that folder, or put "
            "all tables into one folder to read them together.\n")


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
