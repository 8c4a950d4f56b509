"""problems: what can be wrong with a data set, and what does training do about it?

    refused   training would learn from wrong data or stop halfway: it does not begin
    coped     training goes on with what is said here, and says how often
    note      nothing is wrong, but worth knowing

A broken file can hold a million faults of one kind: the first LISTED are kept one by one, the others as a number, and
the content of a file is shown shortened and without control characters (scratch/printable).
"""

from __future__ import annotations

import os
import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Literal, Optional, Union

from scratch.printable import abridged, printable

Severity = Literal["refused", "coped", "note"]

# kind → how bad; for what is refused the reason, for the rest what training does
KINDS: dict[str, tuple[Severity, str]] = {
    "broken annotation file": ("refused", "nothing in it can be trusted"),
    "malformed entry": ("refused", "it lacks what its format demands"),
    "missing split": ("refused", "training needs one to learn from, and one to be judged by"),
    "no images": ("refused", "there is nothing to learn from or to be judged by"),
    "no box to learn from": ("refused", "a detector would learn that there is never anything to find"),
    "boxes in another form": ("refused", "the detector would learn boxes in the wrong places; --as-is takes them as "
                              "they are"),
    "no categories": ("refused", "there is no class to learn"),
    "duplicate category id": ("refused", "two classes cannot share an id"),
    "category renamed": ("refused", "one id must mean one class in every split"),
    "unknown category id": ("refused", "the box has no class"),
    "duplicate image id": ("refused", "the boxes of the two cannot be told apart"),
    "unknown image id": ("refused", "the box has no image"),
    "missing image": ("refused", "the file is not there; --leave-out-broken goes on without"),
    "unreadable image": ("refused", "nothing of it, or too little, can be decoded; --leave-out-broken goes on without"),
    "too large image": ("refused", "--max-megapixels allows fewer pixels; --leave-out-broken goes on without"),
    "file name outside its folder": ("refused", "a name in somebody else's file must not lead to other files"),
    "size differs": ("refused", "boxes drawn on another size are off; without a width and height the file's are taken"),
    "broken image left out": ("coped", "with its boxes, as --leave-out-broken says"),
    "file name that nearly matches": ("coped", "the one file that it can mean is taken"),
    "truncated image": ("coped", "decoded as far as it goes; the rest is grey or black, also under its boxes"),
    "annotated in two files": ("coped", "the objects of both are read: is one of the files another version?"),
    "entry given twice": ("coped", "read once: the two say the same"),
    "duplicate annotation id": ("coped", "both boxes are kept; evaluation numbers them afresh"),
    "no box to find": ("coped", "evaluation has nothing to measure: it shows – where an AP would be"),
    "boxes perhaps in another form": ("coped", "taken as they are: look at some of them before you train"),
    "label file without a picture": ("coped", "left out: there is no picture to show"),
    "picture that split.json does not name": ("coped", "the hash of its name decides; removing a name leaves no picture "
                                              "out"),
    "name without a picture": ("coped", "passed over: split.json has it, and the set has not"),
    "picture without annotations": ("coped", "left out: nothing says what is on it"),
    "other XML file": ("coped", "left out: it is no annotation of a picture"),
    "other JSON file": ("coped", "left out: it is no annotation of a picture"),
    "object without a class": ("coped", "all others are of one class: taken as that"),
    "shape without a box": ("coped", "left out: points and lines have no box"),
    "corners the wrong way round": ("coped", "put in order"),
    "coordinates from 0": ("coped", "Pascal VOC counts pixels from 1, which this set cannot do"),
    "size taken from the picture": ("coped", "its annotation has no usable width and height"),
    "same file twice": ("coped", "used twice; what is found counts as false where only the other entry has its box"),
    "same box twice": ("coped", "both are kept; a detector that finds the object once misses the other"),
    "best possible AP": ("coped", "what a perfect detector reaches on these annotations is less than 1"),
    "more boxes than COCO counts": ("coped", "AP has a ceiling; --max-dets N counts more detections"),
    "negative-size box": ("coped", "dropped, from training and evaluation"),
    "zero-size box": ("coped", "dropped, from training and evaluation"),
    "NaN box": ("coped", "dropped, from training and evaluation"),
    "box outside the image": ("coped", "dropped, from training and evaluation"),
    "box out of range": ("coped", "clipped to the image"),
    "more boxes than can be found": ("coped", "as many are matched as there are queries, or cells that propose them; the "
                                     "rest is missed"),
    "greyscale image": ("coped", "its one channel is used for all three"),
    "palette image": ("coped", "its colours are looked up; what is transparent becomes white"),
    "RGBA image": ("coped", "laid over white"),
    "CMYK image": ("coped", "converted to RGB"),
    "YCbCr image": ("coped", "converted to RGB"),
    "16-bit image": ("coped", "brought to 8 bits as --sixteen-bit says"),
    "stretched image": ("coped", "32-bit or float values, each picture's own from black to white"),
    "EXIF-rotated image": ("coped", "turned upright, unless its annotated size is that of the pixels as stored"),
    "classes without names": ("note", "they are numbers; if they have names, write them into the annotations' list of classes "
                              "(COCO's categories; data.yaml or classes.txt of YOLO)"),
    "odd class name": ("note", "used as it is, and shown on one line"),
    "classes alike": ("note", "they are learnt as two classes; to choose one of two of a name: --classes 'name (id)'"),
    "class that is not learnt": ("note", "it has no box in train: its AP will be 0, which lowers the mean"),
    "class with few boxes": ("note", "it will hardly be found: more pictures of it help, or --classes without it"),
    "few pictures to judge by": ("note", "an AP of so few says little: each of them moves it"),
    "class that is not judged": ("note", "it has no box in the evaluation split, so no AP"),
    "outline of an object": ("note", "the box around it is learnt, and not its shape"),
    "crowd box": ("note", "left out of training; in evaluation, what is found in it does not count"),
    "image without boxes": ("note", "it teaches that there is nothing to find"),
    "picture without a label file": ("note", "as YOLO means it, nothing is on it; or are its labels missing?"),
    "image that ends in grey": ("note", "its last rows have the grey that a JPEG decoder puts for missing data"),
    "16-bit range": ("note", "what the 16-bit images hold"),
    "image of one shade": ("note", "hardly anything on it can be told apart"),
    "same picture twice": ("note", "used twice, as it is, under both names"),
    "same image in two splits": ("note", "used as it is, but the score flatters"),
    "leakage between splits": (
        "note", "it shows training pictures again, or their scenes: its AP may tell how well these are remembered, not "
        "how well new ones are found"),
    "similar image in two splits": (
        "note", "used as it is, but the score flatters if one is a copy of the other, or of the same scene"),
}


# The number of problems of a kind that are kept one by one.
LISTED = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind (a key of KINDS), the file or id, and what was found there.

    `times` is more than 1 for the rest of a kind, which is counted alone (then `where` is empty), and where one line
    tells of many.
    """

    kind: str
    where: str
    detail: str
    times: int = 1

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    def line(self, root: str = "") -> str:
        """Where, and what was found there, to be printed; paths below the folder `root` without it."""
        where, detail = self.where, self.detail
        if root:
            folder = rf"{re.escape(printable(root).rstrip('/' + os.sep))}[/{re.escape(os.sep)}]"
            where = re.sub(rf"\A{folder}(?=.)", "", where)
            detail = re.sub(rf"\A(of \w+, looks like |equals ){folder}(?=.)", r"\1", detail)
        return f"{abridged(where)}: {abridged(detail, 640)}"

    def __str__(self) -> str:
        return f"{self.kind}: {self.line()}"


class Notes:
    """Takes down problems, of each kind the first `most` one by one (None: all), of the others how many there are."""

    def __init__(self, most: Optional[int] = LISTED) -> None:
        self.most = most
        self._kept: list[Problem] = []
        self._lines: Counter[str] = Counter()
        self._rest: Counter[str] = Counter()

    def add(self, kind: str, where: Union[str, Callable[[], str]], detail: str, *values: Any,
            times: int = 1) -> None:
        """`values` take the places of the {} in `detail`; neither they nor `where` are worked out for one not kept."""
        if self.most is not None and self._lines[kind] >= self.most:
            self._rest[kind] += times
            return
        self._lines[kind] += 1
        text = detail.format(*map(brief, values)) if values else detail
        self._kept.append(Problem(kind, where if isinstance(where, str) else where(), text, times))

    def more(self, kind: str, number: int) -> None:
        """`number` more of a kind, of which nothing is kept."""
        self._rest[kind] += max(0, number)

    def problems(self) -> list[Problem]:
        return self._kept + [Problem(kind, "", "", number) for kind, number in self._rest.items() if number]


def brief(value: Any) -> str:
    """A value out of a JSON file as Python would write it, but short, however large or deep it is."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist = 3, 8, 6
_BRIEF.maxstring = _BRIEF.maxother = 80
_BRIEF.maxlong = 40


def count(problems: Iterable[Problem]) -> Counter[str]:
    """How many there are of each kind."""
    number: Counter[str] = Counter()
    for problem in problems:
        number[problem.kind] += problem.times
    return number


def refuse(problems: Iterable[Problem]) -> None:
    """Raise ValueError that lists the refused ones among `problems` (the first 20), if there are any."""
    refused = [problem for problem in problems if problem.severity == "refused"]
    if refused:
        listed, number = [problem for problem in refused if problem.where][:20], sum(count(refused).values())
        more = number - sum(problem.times for problem in listed)
        raise ValueError(f"the data cannot be trained or evaluated on as it is; {number:,} to be put right:\n"
                         + "\n".join(f"  {problem}" for problem in listed)
                         + (f"\n  … and {more:,} more" if more else ""))
