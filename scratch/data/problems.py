"""problems: what can be wrong with a data set, and what does training do about it?

    refused   training would learn from wrong data or stop halfway: it does not begin
    coped     training goes on with what is said here, and says how often
    note      nothing is wrong, but a person may want to know
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Literal

Severity = Literal["refused", "coped", "note"]

# kind → how bad; for what is refused the reason, for the rest what training does
KINDS: dict[str, tuple[Severity, str]] = {
    "broken annotation file": ("refused", "nothing in it can be trusted"),
    "malformed entry": ("refused", "it lacks what COCO's format demands"),
    "no images": ("refused", "there is nothing to learn from"),
    "no categories": ("refused", "there is no class to learn"),
    "duplicate category id": ("refused", "two classes cannot share an id"),
    "category renamed": ("refused", "one id must mean one class in every split"),
    "unknown category id": ("refused", "the box has no class"),
    "duplicate image id": ("refused", "the boxes of the two cannot be told apart"),
    "unknown image id": ("refused", "the box has no image"),
    "missing image": ("refused", "the file is not there; --leave-out-broken goes on without"),
    "unreadable image": ("refused", "nothing of it, or too little, can be decoded; --leave-out-broken goes on without"),
    "too large image": ("refused", "it has more pixels than --max-megapixels allows"),
    "file name outside its folder": ("refused", "a name in somebody else's file must not lead to other files"),
    "broken image left out": ("coped", "with its boxes, as --leave-out-broken says"),
    "file name that nearly matches": ("coped", "the one file that it can mean is taken"),
    "truncated image": ("coped", "decoded as far as it goes; the rest is grey or black, whatever its boxes say"),
    "size differs": ("refused", "boxes drawn on another size are off"),
    "duplicate annotation id": ("coped", "both boxes are kept; evaluation numbers them afresh"),
    "zero-size box": ("coped", "dropped, from training and evaluation"),
    "NaN box": ("coped", "dropped, from training and evaluation"),
    "box outside the image": ("coped", "dropped, from training and evaluation"),
    "box out of range": ("coped", "clipped to the image"),
    "more boxes than queries": ("coped", "as many are matched as there are queries; the rest cannot be found"),
    "greyscale image": ("coped", "its one channel is taken thrice"),
    "palette image": ("coped", "its colours are looked up; what is transparent becomes white"),
    "RGBA image": ("coped", "laid over white"),
    "CMYK image": ("coped", "converted to RGB"),
    "YCbCr image": ("coped", "converted to RGB"),
    "16-bit image": ("coped", "brought to 8 bits as --sixteen-bit says"),
    "stretched image": ("coped", "32-bit or float values, each picture's own from black to white"),
    "EXIF-rotated image": ("coped", "turned upright, unless its annotated size is that of the pixels as stored"),
    "crowd box": ("note", "left out of training; in evaluation, what is found in it does not count"),
    "image without boxes": ("note", "it teaches that there is nothing to find"),
    "image that ends in grey": ("note", "of the one grey that stands for missing data in a JPEG with a gap"),
    "16-bit range": ("note", "what the 16-bit images hold"),
    "image of one shade": ("note", "hardly anything on it can be told apart"),
    "same image in two splits": ("note", "used as it is, but the score flatters"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind (a key of KINDS), the file or id, and what was found there.

    `times` is more than 1 where one line tells of many.
    """

    kind: str
    where: str
    detail: str
    times: int = 1

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}"


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
        more = f"\n  … and {len(refused) - 20} more" if len(refused) > 20 else ""
        raise ValueError(f"the data cannot be trained or evaluated on as it is; {len(refused)} to be put right:\n"
                         + "\n".join(f"  {problem}" for problem in refused[:20]) + more)
