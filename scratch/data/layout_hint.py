"""layout_hint: a folder in which no layout was recognised: what is it, and what can be done?

    a name with another case, a file, an archive, records of TensorFlow, tables, pictures alone …

What is looked for is in layouts.py. Nothing is read here but names. Proven in tests/data/test_layout_hint.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from scratch.data.listing import PICTURES, list_folder
from scratch.printable import abridged

_TABLES = (".tfrecord", ".record", ".parquet", ".arrow", ".csv")


def layout_hint(root: Path) -> str:
    """A line or two that end with a line break, or nothing where there is nothing to say."""
    if not os.path.exists(root):
        near = [path.name for path in _children(root.parent) if path.name.lower() == root.name.lower()]
        meant = f"; did you mean {abridged(root.parent / near[0])}?" if near else "."
        return f"There is no {abridged(root)}{meant}\n"
    if not os.path.isdir(root):
        what = {".zip": "unpack it, and name the folder",
                ".json": "name the folder that holds it and its pictures, or give it as --train-annotations, its "
                         "pictures' folder as --train-images",
                ".yaml": "name the folder that it is in", ".yml": "name the folder that it is in",
                }.get(root.suffix.lower(), "wanted a folder")
        return f"{abridged(root)} is a file: {what}.\n"
    endings = {os.path.splitext(path)[1].lower() for names in list_folder(root).names.values() for path in names}
    if tables := sorted(endings & {*_TABLES}):
        return f"It holds {tables[0]} files: convert them to one of these layouts first.\n"
    if endings & {".xml"}:
        return ("Its .xml files are not Pascal VOC's, one for each picture (CVAT's own format, say): export it as "
                "COCO.\n")
    if endings & {".zip", ".tar", ".gz", ".rar", ".7z"}:
        return "It holds an archive: unpack it.\n"
    if endings & PICTURES:
        return "It holds pictures, and no annotations.\n"
    return "" if endings else f"{abridged(root)} is empty.\n"


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
