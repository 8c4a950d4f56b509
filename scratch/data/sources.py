"""sources: where do the annotations of a split come from, if not from one COCO file?

    Path     a COCO file                        ─▶ read_instances ─┐
    Source   the files of another layout        ─▶ its `read`     ─┴─▶ {"images", "annotations", "categories"}
    Part     the pictures of a Source that one split has (split.py)         which annotations.py cleans

Every layout becomes the dict that a COCO file holds, with boxes x, y, width, height in pixels, before anything is
judged. So there is one set of checks for all of them. A Source judges only what such a dict cannot hold, as a line of
text with too few numbers; it reports that itself. Proven in tests/data/test_layouts.py. Read: Source → Part
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Mapping, Optional, Sequence, Union

from scratch.data.pieces import read_instances
from scratch.data.rows import Document, Images
from scratch.data.split import FILE, Division
from scratch.data.values import whole

Report = Callable[..., None]                             # kind, where, detail, as in annotations.py
Choose = Callable[[Sequence[str]], Collection[str]]      # of these file names, those that are wanted


class Source:
    """The annotations of pictures, in files of any layout."""

    @property
    def name(self) -> str:
        """How reports call it."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        """What a COCO file would hold of the pictures that are chosen, or of the first `limit` of them.

        `choose` is asked about the pictures first, all of them in one call; `remember` is as for `read_instances`.
        Raises ValueError where nothing can be read; lesser trouble is reported.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Part(Source):
    """Of a source that has no split: the pictures that `division` gives to this one."""

    whole: Source
    split: str
    division: Division

    @property
    def name(self) -> str:
        return f"{self.whole.name}, {self.split}"

    def __str__(self) -> str:
        return f"{self.whole}, {self.split}"

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        divided: dict[str, str] = {}

        def mine(names: Sequence[str]) -> Collection[str]:
            if not divided:  # the first question; files of no picture may follow
                divided.update(self.division.of(names))
            found = divided | self.division.of([name for name in names if name not in divided])
            return choose([name for name in names if found[name] == self.split])
        document = self.whole.read(report, mine, limit, remember)
        self._tell_of_names(divided, report)
        return document

    def _tell_of_names(self, there: Mapping[str, str], report: Report) -> None:
        """Say which names that were written down for this split are of no picture, and which pictures none of them is.

        there   picture → its split
        """
        written = self.division.written
        gone = [name for name, split in written.items() if split == self.split and name not in there]
        if there and written and not written.keys() & there.keys():
            report("malformed entry", FILE, f"got {{}} and {len(written) - 1:,} names more, none of which is a picture "
                   "of this set, wanted names such as {}: python detr_scratch.py split writes it anew, once it is removed",
                   next(iter(written)), min(there))
            return
        new = [name for name in there if name not in written and there[name] == self.split]
        if written and new:
            more = f" and {len(new) - 1:,} more" if new[1:] else ""
            report("picture that split.json does not name", self.split, f"{{}}{more}", min(new), times=len(new))
        if gone:
            report("name without a picture", FILE, f"{{}}{f' and {len(gone) - 1:,} more' if gone[1:] else ''}", gone[0],
                   times=len(gone))


@dataclass(frozen=True)
class CocoFile(Source):
    """A COCO file of which a part is wanted, or one of Roboflow's, whose first category is no class.

    beside   the files of all its splits, if its category 0 has to be looked at (see `without_dummy`)
    """

    path: Path
    beside: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    def read(self, report: Report, choose: Choose, limit: Optional[int], remember: bool = True) -> Document:
        document = read_instances(self.path, remember)
        if self.beside:
            document = without_dummy(document, [path for path in self.beside if path != self.path], remember)
        # An entry that is no picture is left to the reader, which says so: once, in the part with the first picture.
        every = list(document["images"])
        named = [(image.get("file_name") if isinstance(image, dict) else None) for image in every]
        names = list(dict.fromkeys(name for name in named if isinstance(name, str)))
        wanted = set(choose(names))
        if len(wanted) == len(names):
            return document
        first = bool(names) and names[0] in wanted
        images = [image for image, name in zip(every, named) if (name in wanted if isinstance(name, str) else first)]
        others = {_key(image.get("id")) for image, name in zip(every, named)
                  if isinstance(image, dict) and isinstance(name, str) and name not in wanted}
        mine = {_key(image.get("id")) for image in images if isinstance(image, dict)}
        annotations = document["annotations"].of_images(
            lambda id: (image := _key(id)) in mine or first and image not in others)
        return {**document, "images": Images(images), "annotations": annotations}


def _key(id: Any) -> str:
    """1, 1.0 and "1" are one id, as they are for annotations.py."""
    meant = whole(id)
    return repr(id) if meant is None else str(meant)


def without_dummy(document: Document, others: Sequence[Path], remember: bool = True) -> Document:
    """Without category 0 of Roboflow's exports, which is the name of the set: other classes have it as supercategory.

    It stays where a box of this file, or of the other splits' files, uses it.
    """
    entries = [entry for entry in document["categories"] if isinstance(entry, dict)]
    first = next((entry for entry in entries if entry.get("id") == 0), None)
    if first is None or not any(entry.get("supercategory") == first.get("name") for entry in entries
                                if entry is not first):
        return document
    if document["annotations"].any_of_category(0) or any(
            read_instances(path, remember)["annotations"].any_of_category(0) for path in others):
        return document
    return {**document, "categories": [entry for entry in document["categories"] if entry is not first]}


Annotated = Union[Path, Source]


def read_source(source: Annotated, report: Report, limit: Optional[int] = None, remember: bool = True) -> Document:
    """The dict of a COCO file, or of what stands for one. Raises what `load_instances` raises.

    Its "images" and "annotations" may be lists or rows (rows.py).
    """
    if isinstance(source, Source):
        return source.read(report, lambda names: names, limit, remember)
    return read_instances(source, remember)
