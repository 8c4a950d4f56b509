"""check: what is wrong with a data set, before a training run finds out the slow way?

    annotation file ─▶ read_annotations ─▶ entries, ids, boxes ──┐
    all boxes ─▶ is there any; what stands there twice ──────────┼─▶ Report: a table for people, refuse() for training
    image files ─▶ opened (or decoded) by a pool of threads ─────┤
    files of equal size ─▶ compared by content ──────────────────┘

`decode=False` is the quick pass before a run's first step: headers, checksums and the last bytes of each file, of the
splits that it uses. `decode=True` (the check-data command) decodes every picture of every split. Proven in
tests/data/test_check.py. Read: look_at_image (one file) → check_dataset (a set) → Report
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Container, Iterable, Optional

import numpy as np
from PIL import Image
from tqdm import tqdm

from scratch.config import DataConfig
from scratch.data.coco import (
    SPLITS, Annotations, Classes, UnknownClass, find_splits, missing_split, read_annotations)
from scratch.data.evidence import best_ap, same_boxes, turned
from scratch.data.images import conversions, read_image, upright_size
from scratch.data.problems import KINDS, LISTED, Notes, Problem, count, refuse, shown


@dataclass(frozen=True)
class Report:
    """All that was found. `splits` describes each split in a line, `problems` holds one entry a problem."""

    splits: tuple[str, ...]
    problems: tuple[Problem, ...]

    def refuse(self) -> None:
        """Raise ValueError that lists what training would refuse, if there is any."""
        refuse(self.problems)

    def table(self, examples: Optional[int] = 3) -> str:
        """What a person reads: each kind with its count, what comes of it, and where it was met.

        `examples` is the most entries listed for a kind; None lists every one that was kept.
        """
        lines, counts = list(self.splits), count(self.problems)
        of_kind: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            of_kind[problem.kind] += [problem] if problem.where else []  # without: a number alone
        for kind, (severity, action) in KINDS.items():
            if counts[kind]:
                listed = of_kind[kind][:examples]
                lines += ["", f"{severity:>8}  {counts[kind]:>6,} × {kind}: {action}"]
                lines += [f"{'':18} {problem.line()}" for problem in listed]
                if more := counts[kind] - sum(problem.times for problem in listed):
                    lines.append(f"{'':18} … and {more:,} more")
        totals: Counter[str] = Counter()
        for kind, number in counts.items():
            totals[KINDS[kind][0]] += number
        verdict = "training refuses this data until they are put right" if totals["refused"] else "training can begin"
        lines += ["", f"{totals['refused']:,} refused, {totals['coped']:,} coped with, {totals['note']:,} to note: "
                      f"{verdict}"]
        return "\n".join(lines)

    def told(self, *kinds: str) -> str:
        """The problems of these kinds alone, a line each, for a command that is about something else; "" for none."""
        of_them = [problem for kind in kinds for problem in self.problems if problem.kind == kind and problem.where]
        return "\n".join(f"note: {problem}" for problem in of_them)


# What an evaluation tells of its data beside the figures.
OF_EVALUATION = ("no box to find", "more boxes than COCO counts", "best possible AP", "boxes perhaps in another form")


def check_dataset(config: DataConfig, num_queries: int, decode: bool, only: Container[str] = SPLITS,
                  classes: Optional[Classes] = None, need: Iterable[str] = (), most: Optional[int] = LISTED) -> Report:
    """Look at everything that a run on `config` would read.

    decode    True: decode every image; False: headers, checksums and file ends
    only      the splits to look at, where they are there
    classes   what a trained detector's labels count; None: what a new run's would, by `config.classes`
    need      the splits that have to be there; one that is not is refused
    most      so many problems of a kind are kept one by one; None: all
    Raises what `find_splits` raises, and UnknownClass; every other trouble becomes a Problem of the report.
    """
    found = find_splits(config)
    splits = {name: paths for name, paths in found.items() if name in only}
    lines: list[str] = []
    problems = [Problem("missing split", f"the split {name!r}", missing_split(config, name))
                for name in need if name not in found]
    learns = classes is None  # else a trained detector is judged
    by_bytes: dict[int, list[tuple[str, Path]]] = defaultdict(list)  # file size → (split, file)
    for split, (folder, file) in splits.items():
        try:
            annotations = read_annotations(file, classes, config.limit_train if split == "train" else
                                           config.limit_val if split == config.eval_split else None, config.classes,
                                           folder, config.as_is, most)
        except UnknownClass:  # the person's mistake, not the file's
            raise
        except ValueError as error:
            problems.append(Problem("broken annotation file", str(file), str(error).removeprefix(f"{file} ")))
            continue
        classes = classes or annotations.classes
        lines.append(f"{split:<6} {len(annotations):>7,} images {len(annotations.labels):>8,} boxes "
                     f"{len(annotations.classes):>4} classes   {shown(file)}")
        problems += _nothing_to_find(annotations, file, learns and split == "train")
        problems += _crowded(annotations, file, num_queries, most)
        problems += _same_twice(annotations, file, config.max_dets,
                                split != "train" or config.eval_split == "train", most)
        paths = [folder / name for name in annotations.file_names.tolist()]
        looks = _look_at_images(paths, annotations, split, decode)
        problems += looks
        read = annotations.problems
        if not any(problem.kind == "boxes in another form" for problem in read):
            noted = _turned_by_cameras(annotations, file, paths, looks, config.as_is)
            problems += noted
            read = [problem for problem in read if not noted or problem.kind != "boxes perhaps in another form"]
        problems += read
        for path in set(paths):
            if os.path.isfile(path):  # unlike Path.is_file, it answers for a name too long for the system, too
                by_bytes[path.stat().st_size].append((split, path))
    return Report(tuple(lines), tuple(problems + _shared(by_bytes, within=decode)))


def look_at_image(path: Path, size: tuple[int, int], decode: bool) -> list[Problem]:
    """The problems of one image file whose annotation says `size` (width, height)."""
    if not os.path.isfile(path):
        return [Problem("missing image", str(path), "no such file")]
    try:
        with Image.open(path) as image:
            found = [Problem(f"{kind} image", str(path), f"Pillow's mode {image.mode}") for kind in conversions(image)]
            actual = upright_size(image, size)
            whole = _ends_properly(path, image.format) and _checksums_agree(image)
    except Exception as error:  # damaged headers make decoders raise anything
        return [Problem("unreadable image", str(path), str(error))]
    if actual != size:
        detail = f"the file is {actual[0]}×{actual[1]}, its annotation says {size[0]}×{size[1]}"
        found.append(Problem("size differs", str(path), detail))
    if decode or not whole:
        try:
            read_image(path)
        except ValueError as error:
            found.append(Problem("truncated image", str(path), str(error.__cause__)))
    return found


def _ends_properly(path: Path, format: Optional[str]) -> bool:
    """Does a JPEG or PNG end with its end marker? False for other formats, and where bytes follow: decode those."""
    marker = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(format or "")
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(-min(len(marker), path.stat().st_size), os.SEEK_END)
        return file.read() == marker


def _checksums_agree(image: Image.Image) -> bool:
    """Is no part of a PNG file damaged, by its own checksums? Other formats have none. `image` is of no use after."""
    try:
        image.verify()
    except Exception:  # damaged files make decoders raise anything
        return False
    return True


def _look_at_images(paths: list[Path], annotations: Annotations, split: str, decode: bool) -> list[Problem]:
    sizes = [(width, height) for width, height in annotations.sizes.tolist()]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:  # waiting for disks and decoding free the GIL
        looks = pool.map(look_at_image, paths, sizes, [decode] * len(paths))
        bar = tqdm(looks, total=len(paths), desc=f"checking {split}", unit="image", disable=None, leave=False)
        return [problem for found in bar for problem in found]


def _nothing_to_find(annotations: Annotations, file: Path, learned: bool) -> list[Problem]:
    """A split without any box but crowds, if it is one."""
    boxes = int((~annotations.crowd).sum())
    if boxes or any(problem.severity == "refused" for problem in annotations.problems):  # which says why
        return []
    crowds, listed = int(annotations.crowd.sum()), annotations.listed
    of = f"of {len(annotations.classes)} classes in {len(annotations):,} images"
    why = (f"no annotation {of}" if not listed else
           f"none of the {listed:,} annotations {of} is left: {crowds:,} are crowds, {listed - crowds:,} were dropped")
    return [Problem("no box to learn from" if learned else "no box to find", file.name, why)]


def _crowded(annotations: Annotations, file: Path, num_queries: int, most: Optional[int]) -> list[Problem]:
    """The images with more boxes than the detector has queries."""
    totals = np.concatenate(([0], np.cumsum(~annotations.crowd)))
    boxes = totals[annotations.offsets[1:]] - totals[annotations.offsets[:-1]]      # (n,)
    notes = Notes(most)
    for i in np.flatnonzero(boxes > num_queries):
        notes.add("more boxes than queries", f"{file.name}, {annotations.file_names[i]}",
                  f"image {annotations.image_ids[i]}: {boxes[i]} boxes, {num_queries} queries")
    return notes.problems()


def _same_twice(annotations: Annotations, file: Path, max_dets: int, judged: bool, most: Optional[int]
                ) -> list[Problem]:
    """One file under two image ids, one box twice, more boxes than COCO counts; and what each costs where it judges."""
    a, notes = annotations, Notes(most)
    mine = np.flatnonzero(~a.crowd)
    rows, labels, boxes = np.repeat(np.arange(len(a)), np.diff(a.offsets))[mine], a.labels[mine], a.boxes_xywh[mine]
    first = same_boxes(rows, labels, boxes)
    again = first != np.arange(len(first))

    of_file: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(a.file_names.tolist()):
        of_file[os.path.normpath(name)].append(row)
    twice = {name: its for name, its in of_file.items() if len(its) > 1}
    if twice and judged:
        group = np.arange(len(a))  # the first row of the same file
        for its in twice.values():
            group[its] = its[0]
        there = int((~again).sum())
        once = same_boxes(group[rows], labels, boxes)
        entries = np.bincount(group, minlength=len(a))
        said = int(entries[group[rows[once == np.arange(len(once))]]].sum())
        if said > there:
            notes.add("best possible AP", file.name, f"{len(twice):,} files stand under two image ids or more: of the "
                      f"{said:,} detections that find every object of every picture, {there:,} count as right")
    for name, its in twice.items():
        ids = ", ".join(str(a.image_ids[row]) for row in its[:6])
        notes.add("same file twice", f"{file.name}, {name}", f"images {ids}")

    if judged and again.any():
        best = best_ap(rows, labels, first, len(first))
        notes.add("best possible AP", file.name, f"{again.sum():,} of {len(again):,} boxes stand there twice: a "
                  f"detector that finds every object once has an AP of {best:.3f}")
    for k in np.flatnonzero(again)[:most]:
        box = ", ".join(f"{side:g}" for side in boxes[k].tolist())
        notes.add("same box twice", f"{file.name}, {a.file_names[rows[k]]}",
                  f"{shown(a.classes.names[labels[k]])} at [{box}]")
    notes.more("same box twice", int(again.sum()) - (most or len(again)))

    if judged:
        _, places, number = np.unique(np.column_stack((rows, labels)), axis=0, return_index=True, return_counts=True)
        if (beyond := number > max_dets).any():
            best = best_ap(rows, labels, np.arange(len(rows)), max_dets)
            fullest = places[number.argmax()]
            where = f"{shown(a.classes.names[labels[fullest]])} in {shown(a.file_names[rows[fullest]])}"
            notes.add("more boxes than COCO counts", file.name,
                      f"{len(set(rows[places[beyond]])):,} images have more than {max_dets} boxes of a class (at most "
                      f"{number.max():,}, {where}), and the best {max_dets} detections of a class in an image count: "
                      f"perfect ones have an AP of {best:.3f}. --max-dets {number.max()} counts them all, with figures "
                      "that are not COCO's")
    return notes.problems()


def _turned_by_cameras(annotations: Annotations, file: Path, paths: list[Path], looks: list[Problem], as_is: bool
                       ) -> list[Problem]:
    """Are boxes drawn on pictures that were turned by a camera's note, beside sizes of the pixels as stored?

    Among other pictures they may be too few to show in the whole set.
    """
    noted = {problem.where for problem in looks if problem.kind == "EXIF-rotated image"}
    as_stored = []
    for row, path in enumerate(paths):
        if str(path) in noted:
            with Image.open(path) as image:
                if tuple(annotations.sizes[row].tolist()) == image.size != upright_size(image):
                    as_stored.append(row)
    boxes, rows = annotations.written
    of_them = np.isin(rows, as_stored)
    found = turned(boxes[of_them], annotations.sizes[rows[of_them]])
    if not found:
        return []
    return [Problem("boxes in another form" if found.certain and not as_is else "boxes perhaps in another form",
                    f"{file.name}, the {len(as_stored):,} pictures with a camera's EXIF note", found.words)]


def _shared(by_bytes: dict[int, list[tuple[str, Path]]], within: bool) -> list[Problem]:
    """Files of one content in two splits, or `within` one too; only files of equal length need to be read for this."""
    by_content: dict[bytes, list[tuple[str, Path]]] = defaultdict(list)
    for files in by_bytes.values():
        if len({split for split, _ in files}) > 1 or within and len(files) > 1:
            for split, path in files:
                by_content[hashlib.sha256(path.read_bytes()).digest()].append((split, path))
    return [Problem("same picture twice" if split == files[0][0] else "same image in two splits", str(files[0][1]),
                    f"equals {path} of {split}")
            for files in by_content.values() for split, path in files[1:] if within or split != files[0][0]]
