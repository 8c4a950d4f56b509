"""per_picture: which picture does an annotation file, or a row of a table, belong to?

    Annotations/a.xml   ─▶ JPEGImages/a.jpg       the picture of the same name, whatever its ending;
    train/7.json        ─▶ train/7.jpg            of several (valid/7.jpg) the one in the folder that is most alike

Used by the layouts that name their pictures (layout_voc.py, layout_labelme.py, layout_table.py). Letters' case and
Unicode's forms do not count. Proven in tests/data/test_layouts.py and test_layout_voc.py.
Read: Pictures → sizes_of → tell_of_unlabelled
"""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Collection, Optional, Sequence

from scratch.data.file_names import find_files
from scratch.data.images import image_size
from scratch.data.listing import Listing, alike, key
from scratch.data.sources import Choose, Report


class Pictures:
    """The pictures of a folder, found by their names."""

    def __init__(self, listing: Listing) -> None:
        self._of_name: dict[str, list[str]] = defaultdict(list)
        for picture in listing.pictures:
            self._of_name[key(os.path.basename(picture))].append(picture)

    def named(self, name: str, folder: str, ending: str = "") -> Optional[str]:
        """The path of the one picture that is called `name`, but for its ending; None for none, or for several.

        Of several, those in the folders most like `folder`; of these, the one whose name is that of `ending`.
        """
        near = self._of_name.get(key(os.path.basename(name)), [])
        if len(near) > 1:
            how = [alike(folder, os.path.dirname(picture)) for picture in near]
            near = [picture for picture, much in zip(near, how) if much == max(how)]
            near = [picture for picture in near if os.path.basename(picture) == os.path.basename(ending)] or near
        return near[0] if len(near) == 1 else None

    def of_file(self, file: str, said: str) -> str:
        """The picture of an annotation file: that of its name, else that of the name in it, else this name."""
        names = (os.path.basename(file), said.replace("\\", "/").rpartition("/")[2])
        found = (self.named(name, os.path.dirname(file), said) for name in names)
        return next(filter(None, found), said)


def sizes_of(root: Path, pictures: Sequence[str]) -> list[tuple[int, int]]:
    """Width and height of each picture, upright, as its header tells; 0, 0 for one that cannot be read."""
    def size_of(file: str) -> tuple[int, int]:
        try:
            return image_size(root / file)
        except Exception:  # told by the check of the pictures, which looks at every one
            return 0, 0
    with ThreadPoolExecutor(8) as pool:  # waiting for a disk frees the GIL
        return list(pool.map(size_of, find_files(root, pictures).paths))


def tell_of_unlabelled(listing: Listing, labelled: Collection[str], names: Collection[str], lacking: str,
                       report: Report, choose: Choose) -> None:
    """Say which pictures beside those that are labelled have no annotations in any split.

    names   of the annotated pictures of all splits, as `key` gives them
    """
    folders = {os.path.dirname(picture) for picture in labelled}
    bare = [picture for picture in listing.pictures
            if os.path.dirname(picture) in folders and picture not in labelled
            and key(os.path.basename(picture)) not in names]
    if bare := sorted(choose(bare)):
        report("picture without annotations", bare[0], f"it has no {lacking}"
               + (f", nor have {len(bare) - 1:,} others" if len(bare) > 1 else ""), times=len(bare))
