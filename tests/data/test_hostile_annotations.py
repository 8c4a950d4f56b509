"""Mutants of a small annotation file: each is read, or refused in words (ValueError, OSError)."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection
from scratch.data.transforms import Augmentation

VALUES = [None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**40, 10**4000, 0.5, -0.0, 1e308, 1e-320, math.nan, math.inf,
          "", "0", "1", "-1", "7", "3.0", "nan", "true", "x" * 3000, "\x1b[2J\n", "\udc80", "../../etc/passwd", "\0",
          "/", ".", "a/../b", [], [1], [[]], [1, 2, 3, 4], ["1", "2", "3", "4"], [0.1, 0.1, 0.2, 0.2], {}, {"id": 1},
          [None] * 4, [[1], [2], [3], [4]], [1e308] * 4, [-5, -5, 400, 400], [2**62] * 4]


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a document, as the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


def mutant(document: dict[str, Any], draw: random.Random) -> Any:
    """A copy with one to four changes: a value replaced, an entry removed, repeated, or put elsewhere."""
    changed = {"top": copy.deepcopy(document)}
    for _ in range(draw.randint(1, 4)):
        *way, last = draw.choice(places(changed["top"], ("top",)))
        holder: Any = changed
        for key in way:
            holder = holder[key]
        what = draw.choice(["replace", "replace", "remove", "repeat", "borrow"])
        if what == "replace" or last == "top":
            holder[last] = copy.deepcopy(draw.choice(VALUES))
        elif what == "remove":
            del holder[last]
        elif what == "repeat" and isinstance(holder, list):
            holder += [copy.deepcopy(holder[last]) for _ in range(draw.choice([1, 150]))]
        else:
            *way, other = draw.choice(places(changed["top"], ("top",)))
            source: Any = changed
            for key in (*way, other):
                source = source[key]
            holder[last] = copy.deepcopy(source)
        if not isinstance(changed["top"], (dict, list)):
            break
    return changed["top"]


def tried(root: Path, decode: bool, **fields: Any) -> str:
    """What came of a set: "trained" or "refused"; the report and the data set agree."""
    data = DataConfig(data=str(root), short_side=32, max_size=64, augment="none", **fields)
    report = check_dataset(data, 5, decode=decode, need=("train", "val"))
    table = report.table(10)
    assert all(letter == "\n" or letter.isprintable() for letter in table) and len(table) < 60_000
    refused = any(problem.severity == "refused" for problem in report.problems)
    try:
        report.refuse()
        dataset = CocoDetection(root / "train", root / "annotations" / "instances_train.json",
                                Augmentation.for_training(data), only=data.classes)
    except (ValueError, OSError) as error:
        assert all(letter == "\n" or letter.isprintable() for letter in str(error)) and len(str(error)) < 20_000
        assert refused
        return "refused"
    assert not refused and "training can begin" in table
    for index in range(len(dataset)):
        _, target = dataset[(0, index)]
        assert target["boxes"].isfinite().all() and (target["boxes"] >= 0).all() and (target["boxes"] <= 1).all()
    truth = dataset.ground_truth()
    assert all(math.isfinite(a["area"]) and a["area"] > 0 for a in truth["annotations"])
    json.dumps(truth, allow_nan=False)
    return "trained"


@pytest.fixture
def document(coco_set):
    for split, ids in (("train", (1, 2, 3)), ("val", (4,))):
        for id in ids:
            coco_set.image(split, id)
            coco_set.box(split, id, [5, 2, 6 + id, 7], category_id=7, area=30.5)
    coco_set.write()
    return coco_set.split("train")


@pytest.mark.parametrize("seed", range(6))
def test_every_mutant_is_trained_on_or_refused_in_words(seed, document, coco_set):
    draw = random.Random(seed)
    file = coco_set.root / "annotations" / "instances_train.json"
    ends = set()
    for _ in range(25):
        file.write_text(json.dumps(mutant(document, draw)))
        ends.add(tried(coco_set.root, decode=False))
    assert ends == {"trained", "refused"}


@pytest.mark.parametrize("seed", range(2))
def test_every_file_with_damaged_bytes_is_trained_on_or_refused_in_words(seed, document, coco_set):
    draw = random.Random(seed)
    file = coco_set.root / "annotations" / "instances_train.json"
    sound = file.read_bytes()
    ends = set()
    for _ in range(40):
        content = bytearray(sound)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(content))
            what = draw.choice(["flip", "cut", "insert", "drop"])
            if what == "flip":
                content[at] ^= 1 << draw.randrange(8)
            elif what == "cut":
                del content[max(1, at):]
            elif what == "insert":
                content[at:at] = draw.choice([b"[", b"{", b'"', b"\xff", b"\0", b"NaN", b"-", b",", b"1e999",
                                              b"[" * 2000])
            else:
                del content[at:at + 5]
        file.write_bytes(bytes(content))
        ends.add(tried(coco_set.root, decode=False))
    assert ends == {"trained", "refused"}
