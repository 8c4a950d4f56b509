"""find_labelme: which of LabelMe's JSON files in a folder are of which split?

    train/a.json   valid/b.json     folders
    a.json   val/b.json             files of no split beside val are train
    none of them                    a set without a split

Files of LabelMe are known by their contents. Proven in tests/data/test_layout_labelme.py.
Read after layout_labelme.py: find_labelme
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from scratch.data.layout_labelme import Labelme, parse
from scratch.data.listing import Listing, by_folder, with_train
from scratch.data.split import FILE

LOOKED_AT = 5  # files, to know what they are
ENDS = 2**16   # bytes of each at either end, before all of it is read


def find_labelme(listing: Listing) -> Optional[tuple[dict[str, Labelme], str]]:
    """Split, or "all" → its source, and in words where it was found; None if this is no such layout."""
    files = [file for file in listing.files(".json") if file != FILE]
    if not listing.pictures or not any(is_labelme(listing.root / file) for file in files[:LOOKED_AT]):
        return None
    of_split, left_out = by_folder(files)
    of_split = with_train(of_split)
    folder = os.path.dirname((of_split.get("train") or files)[0])
    where = f"{folder}/*.json" if folder else "*.json"
    where += f"; not read: {', '.join(left_out[:2])}{' …' if left_out[2:] else ''}" if left_out else ""
    every = tuple(file for members in of_split.values() for file in members)
    return {split: Labelme(listing, split, tuple(members), every) for split, members in of_split.items()}, where


def is_labelme(file: Path) -> bool:
    """Is this a JSON file of LabelMe's? All of it is parsed only where its beginning or its end looks like it."""
    try:
        with open(file, "rb") as stream:  # a file of detections may have a hundred megabytes
            ends = stream.read(ENDS)
            stream.seek(max(stream.tell(), stream.seek(0, os.SEEK_END) - ENDS))
            ends += stream.read()
        if not any(word in ends.replace(b"\0", b"") for word in (b'"shapes"', b'"imagePath"')):
            return False
        content = parse(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content
