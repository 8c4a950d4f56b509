"""split: which pictures are to learn from, and which to judge by, where a data set does not say?

    name of the file ─▶ SHA-256 ─▶ u in [0,1)     u < 0.2: val     else: train

    raccoon-7.jpg     0.18  val            The name alone decides. A picture that is added moves no other, every machine
    raccoon-8.jpg     0.31  train          finds the same split, and so does a copy of the set in another layout.

Only the last part of a path counts; where ten pictures or more are called alike (scene_7/color.png), so much of the
path as tells them apart (so the tenth of a name does move the nine). Roboflow's augmented copies of one picture
(a.rf.0123.jpg, a.rf.4567.jpg) stay together: a copy in val of a picture in train is no test. If a side would be empty,
the picture next to it goes there, with its copies; or one of these alone, where there are no other pictures.

`python detr_scratch.py split DIR` writes the answer down, as DIR/split.json: {"train": [names], "val": [names]}. What
stands there counts, and the rule is for other pictures alone. With --scenes, pictures that look alike (the frames of a
film) come into one split together: a frame in val beside the next one in train is no test either.
Proven in tests/data/test_split.py.
Read: place → places_of → Division → read_division
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

from scratch.printable import abridged

FILE = "split.json"
VAL = 0.2  # the share of the pictures to judge by
SHARED = 10  # so many pictures of one name would all come into one split
DEEPEST = 8  # parts of a path that count
SPLITS = ("train", "val", "test")
_VERSION = re.compile(r"\.rf\.\w+(?=\.\w+$)")


def place(name: str, parts: int = 1) -> float:
    """Where a file's name, the last parts of its path, puts it in [0,1): as good as random, and the same everywhere and
    at any time."""
    digest = hashlib.sha256(_end(name, parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def places_of(names: Sequence[str]) -> dict[str, float]:
    """The place of each name of a set: by its last part, or by more of them while SHARED pictures have these in common."""
    parts = dict.fromkeys(names, 1)
    for deep in range(1, DEEPEST):
        ends = {name: _end(name, deep) for name in names if parts[name] == deep}
        shared = Counter(ends.values())
        parts.update((name, deep + 1) for name, end in ends.items() if shared[end] >= SHARED)
    return {name: place(name, parts[name]) for name in names}


def _end(name: str, parts: int) -> str:
    return "/".join(copied(name).split("/")[-parts:])


def copied(name: str) -> str:
    """For one of Roboflow's copies the name, without folders, of the picture that was copied; else `name`."""
    path = unicodedata.normalize("NFC", name.replace("\\", "/"))
    base = path.rpartition("/")[2]
    return _VERSION.sub("", base) if _VERSION.search(base) else path


@dataclass(frozen=True)
class Division:
    """The rule, and what was written down before it: file name → split."""

    val: float = VAL
    test: float = 0.0
    written: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.test or "test" in self.written.values() else SPLITS[:2]

    def of(self, names: Sequence[str]) -> dict[str, str]:
        """The split of each of a set's file names."""
        places = places_of(names)
        found = {name: self.written.get(name) or self._by_rule(u) for name, u in places.items()}
        if len(found) > 1 and not self.written:
            for split, nearest in (("val", min), ("train", max)):
                if split not in found.values():
                    next_to_it = nearest(places.values())
                    alike = [name for name, u in places.items() if u == next_to_it]  # the copies of one picture
                    found.update(dict.fromkeys(alike if len(alike) < len(found) else alike[:1], split))
        return found

    def together(self, names: Sequence[str], scenes: Sequence[int]) -> dict[str, str]:
        """The split of each name, where all pictures of a scene belong in one. scenes: a number for each name.

        A scene of which pictures stand written goes where most of them are. The other scenes are taken in the order of
        the hash of their first name; they fill val, then test, to their shares of these pictures as nearly as whole
        scenes can, and the rest is train. Of two scenes or more, one is val and one train.
        """
        found = {name: self.written[name] for name in names if name in self.written}
        members: dict[int, list[str]] = defaultdict(list)
        for name, scene in sorted(zip(names, scenes)):
            members[scene].append(name)
        waiting: list[list[str]] = []
        places = places_of(names)
        for its in sorted(members.values(), key=lambda its: (places[its[0]], its[0])):
            there = [found[name] for name in its if name in found]
            if there:
                most = max(SPLITS, key=there.count)
                found.update((name, most) for name in its if name not in found)
            else:
                waiting.append(its)
        pictures, number = sum(map(len, waiting)), Counter[str]()
        for its in waiting:
            split = next((split for split, share in (("val", self.val), ("test", self.test))
                          if number[split] + len(its) / 2 <= share * pictures), "train")
            found.update(dict.fromkeys(its, split))
            number[split] += len(its)
        for split, nearest in (("val", min), ("train", max)):
            if len(waiting) > 1 and split not in found.values():
                found.update(dict.fromkeys(nearest(waiting, key=len), split))
        return found

    def _by_rule(self, u: float) -> str:
        return "val" if u < self.val else "test" if u < self.val + self.test else "train"

    def words(self) -> str:
        if self.written:
            return f"divided as {FILE} says"
        shares = [(1 - self.val - self.test, "train"), (self.val, "val"), (self.test, "test")]
        told = ", ".join(f"{100 * share:.0f} % {split}" for share, split in shares if share)
        return f"about {told}, by a hash of the file names"


def read_division(root: Path) -> Division:
    """What DIR/split.json says, if it is there. Raises ValueError for one that cannot be understood."""
    file = Path(root) / FILE
    if not file.is_file():
        return Division()
    advice = "correct it, or remove it and run python detr_scratch.py split again"
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read as JSON ({abridged(error)}): {advice}") from error
    if isinstance(content, dict) and (unknown := [key for key in content if key not in (*SPLITS, "rule")]):
        raise ValueError(f"{file} has the list {abridged(unknown[0])!r}, wanted train, val and test: {advice}")
    parts = {split: content.get(split, []) for split in SPLITS} if isinstance(content, dict) else {}
    if not parts.get("train") or not all(isinstance(names, list) and all(isinstance(name, str) for name in names)
                                         for names in parts.values()):
        raise ValueError(f'{file} is not what was wanted, {{"train": [file names], "val": [file names]}}: {advice}')
    written: dict[str, str] = {}
    for split, names in parts.items():
        for name in names:
            if written.setdefault(name, split) != split:
                raise ValueError(f"{file} has {abridged(name)} in {written[name]} and in {split}: {advice}")
    said = content.get("rule", {})
    rule = {"val": VAL, "test": 0.0, **said} if isinstance(said, dict) else {}
    shares = [share for share in rule.values() if type(share) in (int, float) and share >= 0]
    if rule.keys() != {"val", "test"} or len(shares) < 2 or sum(shares) >= 1:
        raise ValueError(f'{file} has the rule {abridged(json.dumps(said))}, wanted the shares of val and test, each 0 or '
                         f'more and together below 1, such as {{"val": {VAL}, "test": 0}}: {advice}')
    return Division(rule["val"], rule["test"], written)
