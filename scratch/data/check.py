"""check: what is wrong with a data set, before a training run starts on it?

    annotation file ─▶ read_annotations ─▶ entries, ids, boxes ──┐
    all boxes ─▶ is there any; of which class; what is twice ────┼─▶ Report: a table for people, refuse() for training
    image files ─▶ opened (or decoded) by a pool of threads ─────┤
    pictures of two splits ─▶ copies ────────────────────────────┘

`decode=False` is the quick pass before a run's first step: headers, checksums and the last bytes of each file, of the
splits that it uses; 16-bit pictures, and what looks broken, are decoded. Of a large split, pictures that were looked at
before and have not changed are not looked at again (looks.py). `decode=True` (the check-data command, and
--leave-out-broken) decodes every picture. Proven in tests/data/test_check.py, test_damaged.py, test_file_names.py.
Read: look_at_image (one file) → check_dataset (a set) → Report
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Container, Iterable, Optional

import numpy as np
from PIL import Image

from scratch.config import DataConfig
from scratch.data.annotations import Annotations, read_annotations
from scratch.data.class_counts import ClassCounts
from scratch.data.classes import Classes, UnknownClass
from scratch.data.coco import find_layout, missing_split
from scratch.data.copies import Pictures, copies
from scratch.data.evidence import best_ap, same_boxes, turned
from scratch.data.file_names import Found, find_files
from scratch.data.images import (Reduced, TooLarge, conversions, opened, read_reduced, reason, refuse_too_large,
                                 upright_size)
from scratch.data.layouts import Layout
from scratch.data.listing import PICTURES
from scratch.data.looks import look_at_all
from scratch.data.per_picture import and_others
from scratch.data.problems import KINDS, LISTED, Notes, Problem, count, refuse
from scratch.data.sources import Annotated, CocoFile, Part, Source
from scratch.data.split import SPLITS
from scratch.printable import abridged, command, counted, printable

# What --leave-out-broken leaves out. A size that differs is no broken file: its boxes say that something is wrong.
BROKEN = ("missing image", "unreadable image", "too large image")
# Of a damaged picture at least this share of the rows must be there: from less, a detector learns that grey is a cat.
LEAST_DECODED = 0.25
# A picture is of one shade if fewer of the 256 greys lie between its darkest and its brightest pixels, but for a
# thousandth of them at either end.
FEW_SHADES = 24
# With fewer pictures than both, a split judges badly: a number, and a share of all that are learnt from or judge.
FEW_PICTURES, FEW_SHARE = 20, 0.1


@dataclass(frozen=True)
class Report:
    """All that was found. `splits` describes each split in a line, `problems` holds one entry a problem.

    `left_out` holds, by split, the ids of the images that a run does without (--leave-out-broken). `layout` says in a
    line what the folder was recognised as; "" for explicit paths and for the generated shapes. `root` is that folder,
    below which the table shows paths without it; `by_class` says how many boxes each class has.
    """

    splits: tuple[str, ...]
    problems: tuple[Problem, ...]
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)
    layout: str = ""
    root: str = ""
    by_class: str = ""

    def refuse(self) -> None:
        """Raise ValueError that lists what training would refuse, if there is any."""
        refuse(self.problems)

    def table(self, examples: Optional[int] = 3, classes: bool = False) -> str:
        """What a person reads: each kind with its count, what comes of it, and where it was met.

        `examples` is the most entries listed for a kind; None lists every one that was kept. `classes` adds a table of the
        boxes of each class.
        """
        lines, counts = list(self.splits), count(self.problems)
        if classes and self.by_class:
            lines += ["", self.by_class]
        of_kind: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            of_kind[problem.kind] += [problem] if problem.where else []  # without: a number alone
        for kind, (severity, action) in KINDS.items():
            if counts[kind]:
                listed = of_kind[kind][:None if kind == "broken image left out" else examples]  # all of those by name
                lines += ["", f"{severity:>8}  {counts[kind]:>6,} × {kind}: {action}"]
                lines += [f"{'':18} {problem.line(self.root)}" for problem in listed]
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
OF_EVALUATION = ("broken image left out", "no box to find", "more boxes than COCO counts", "best possible AP",
                 "boxes perhaps in another form")


def check_dataset(config: DataConfig, num_queries: int, decode: bool, only: Container[str] = SPLITS,
                  classes: Optional[Classes] = None, need: Iterable[str] = (), most: Optional[int] = LISTED,
                  layout: Optional[Layout] = None) -> Report:
    """Look at everything that a run on `config` would read.

    num_queries  the objects that the detector can find in a picture: `Config.most_found`
    decode       True: decode every image; False: headers, checksums and file ends
    only         the splits to look at, where they are there
    classes      what a trained detector's labels count; None: what a new run's would, by `config.classes`
    need         the splits that have to be there; one that is not is refused
    most         this number of problems of a kind are kept one by one; None: all
    layout       that of `find_layout`, where it is known; None: it is looked for
    Raises what `find_layout` raises, and UnknownClass; every other trouble becomes a Problem of the report.
    """
    layout = layout or find_layout(config)
    found = layout.splits
    splits = {name: paths for name, paths in found.items() if name in only}
    lines: list[str] = []
    problems = [Problem("missing split", f"the split {name!r}", missing_split(config, layout, name))
                for name in need if name not in found]
    left_out: dict[str, tuple[int, ...]] = {}
    learns = classes is None  # else a trained detector is judged
    deep = decode or config.leave_out_broken
    pictures: list[Pictures] = []
    root, counts = str(layout.root) if layout.name else "", ClassCounts()
    for split, (folder, file) in splits.items():
        try:
            annotations = read_annotations(file, classes, config.limit_train if split == "train" else
                                           config.limit_val if split == config.eval_split else None, config.classes,
                                           folder, config.as_is, most, config.remember)
        except UnknownClass:  # the person's mistake, not the file's
            raise
        except ValueError as error:
            problems.append(Problem("broken annotation file", str(file), str(error).removeprefix(f"{file} ")))
            continue
        classes = classes or annotations.classes
        lines.append(f"{split:<6} {counted(len(annotations), 'image'):>14} "
                     f"{counted(len(annotations.labels), 'box', 'boxes'):>14} "
                     f"{counted(len(annotations.classes), 'class', 'classes'):>12}   {abridged(_below(file, root))}")
        problems += _crowded(annotations, file, num_queries, most)
        problems += _same_twice(annotations, file, config.max_dets,
                                split != "train" or config.eval_split == "train", most)
        names = find_files(folder, annotations.file_names.tolist(), file.name)
        looks = look_at_all(folder, names.paths, annotations.sizes, names.missing,
                            partial(look_at_image, decode=deep, config=config),
                            {"sixteen_bit": config.sixteen_bit, "max_megapixels": config.max_megapixels}, split,
                            quick=not deep, remember=config.remember)
        of_images = [*looks.problems, names.told + _range_of_16_bits(looks.problems, folder, config)]
        read = annotations.problems
        if not any(problem.kind == "boxes in another form" for problem in read):
            noted = _turned_by_cameras(annotations, file, folder, names, of_images, config.as_is)
            problems += noted
            read = [problem for problem in read if not noted or problem.kind != "boxes perhaps in another form"]
        problems += read
        if config.leave_out_broken:
            left_out[split] = tuple(id for id, found in zip(annotations.image_ids.tolist(), of_images)
                                    if any(problem.kind in BROKEN for problem in found))
            of_images = [list(map(_left_out, found)) for found in of_images]
            if 0 < len(annotations) == len(left_out[split]):
                problems.append(Problem("no images", str(file), "all of them are broken, and left out"))
        used = annotations.without(left_out.get(split, ()))
        counts = counts.plus(split, used)
        problems += _nothing_to_find(used, file, learns and split == "train")
        problems += dict.fromkeys(problem for found in of_images for problem in found)  # one may be that of them all
        pictures.append(Pictures(split, folder, names.paths, looks))
    problems += counts.notes(config.eval_split)
    problems += copies(pictures, config, most, layout, decode)
    if config.limit_train is config.limit_val is None:
        problems += _few_to_judge(pictures, config.eval_split, layout)
        if decode and root and len(pictures) == len(found):
            problems += _not_named(pictures, [source for _, source in found.values()])
    return Report(tuple(lines), tuple(problems), left_out, layout.line() if root else "", root, counts.table())


def _few_to_judge(pictures: Iterable[Pictures], split: str, layout: Layout) -> list[Problem]:
    """A word where the split that judges has hardly any of the pictures."""
    number_of = {of_split.split: len(of_split.paths) for of_split in pictures}
    few, many = number_of.get(split, 0), number_of.get("train", 0)
    if split == "train" or not 0 < few < FEW_PICTURES or few >= FEW_SHARE * (few + many):
        return []
    anew = f"; {command('python', 'detr_scratch.py', 'split', layout.root, '--val', '0.3')} divides anew" if (
        layout.division and not layout.division.written) else ""
    return [Problem("few pictures to judge by", split, f"{counted(few, 'image')} beside {many:,} to learn from{anew}")]


def _not_named(pictures: Iterable[Pictures], sources: Iterable[Annotated]) -> list[Problem]:
    """The pictures beside those of COCO files that none of these names; other layouts tell of theirs."""
    whole = [source.whole if isinstance(source, Part) else source for source in sources]
    if not all(isinstance(source, (Path, CocoFile)) for source in whole):
        return []
    named: dict[str, set[str]] = defaultdict(set)  # folder, as it really is, since two paths may lead to it
    shown: dict[str, str] = {}
    for of_split in pictures:
        by_folder: dict[str, set[str]] = defaultdict(set)
        for path in filter(None, of_split.paths):
            below, base = os.path.split(path)
            by_folder[below].add(base)
        for below, bases in by_folder.items():
            folder = os.path.join(of_split.folder, below)
            named[os.path.realpath(folder)] |= bases
            shown.setdefault(os.path.realpath(folder), folder)
    bare = sorted(os.path.join(shown[folder], base) for folder, bases in named.items() for base in os.listdir(folder)
                  if base not in bases and os.path.splitext(base)[1].lower() in PICTURES and not base.startswith("."))
    detail = f"no COCO file that is read names it{and_others(len(bare))}"
    return [Problem("picture without annotations", printable(bare[0]), detail, len(bare))] if bare else []


def _below(file: Annotated, root: str) -> str:
    """How a split's line calls its annotations: a path below `root`, which another line names, without it."""
    if not root:
        return str(file)
    return file.name if isinstance(file, Source) else os.path.relpath(file, root)


@dataclass(frozen=True)
class _SixteenBits(Problem):
    """A 16-bit picture, the least and the greatest of its values (of 65535), and whether it becomes one shade."""

    values: tuple[int, int] = (0, 65535)
    dull: bool = False


def look_at_image(path: Path, size: tuple[int, int], decode: bool, config: DataConfig = DataConfig()) -> list[Problem]:
    """The problems of one image file whose annotation says `size` (width, height), read as `config` says."""
    where = printable(path)
    try:
        with opened(path) as (image, _):
            kinds = conversions(image, config.sixteen_bit)
            found = [Problem(f"{kind} image", where, f"Pillow's mode {image.mode}") for kind in kinds]
            refuse_too_large(image, config.max_megapixels)
            actual = upright_size(image, size)
            whole = _ends_properly(image.fp, image.format) and _checksums_agree(image)
        if decode or not whole or "16-bit" in kinds:
            picture = read_reduced(path, None, 1, config)
            if image.format == "TIFF":  # which Pillow turns, and older versions only while they decode it
                actual = picture.size
            found = _of_pixels(found, picture, where)
    except FileNotFoundError as error:
        return [Problem("missing image", where, "no such file" if not os.path.islink(path) else str(error))]
    except TooLarge as error:
        return [Problem("too large image", where, str(error))]
    except Exception as error:  # damaged headers make decoders raise anything
        return [Problem("unreadable image", where, reason(error.__cause__ or error))]
    if actual != size:
        detail = f"the file is {actual[0]}×{actual[1]}, its annotation says {size[0]}×{size[1]}"
        found.append(Problem("size differs", where, detail))
    return found


def _of_pixels(found: list[Problem], picture: Reduced, where: str) -> list[Problem]:
    """The problems that the header told of, and those that are seen once a picture is decoded."""
    words, missing = picture.damage
    if words and 1 - missing < LEAST_DECODED:
        return [Problem("unreadable image", where, f"only {1 - missing:.0%} of its rows can be decoded ({words})")]
    if words:
        found.append(Problem("truncated image", where, f"{_percent(missing)} of its rows are missing ({words})"))
    elif missing:
        found.append(Problem("image that ends in grey", where, f"the last {missing:.0%} of its rows are grey"))
    darkest, brightest = _shades(picture.pixels)
    dull = brightest - darkest < FEW_SHADES
    if picture.values is not None:
        detail = f"its values are {picture.values[0]:,}..{picture.values[1]:,} of 0..65,535"
        found = [_SixteenBits(problem.kind, where, f"{problem.detail}; {detail}", 1, picture.values, dull)
                 if problem.kind == "16-bit image" else problem for problem in found]
    if dull:
        found.append(Problem("image of one shade", where, f"nearly all of its pixels are {darkest}..{brightest} of the "
                             "greys 0..255"))
    return found


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def _shades(picture: Image.Image) -> tuple[int, int]:
    """The darkest and the brightest grey, without the thousandth of the pixels that is darker, or brighter."""
    below = np.cumsum(picture.convert("L").histogram())                             # (256,)
    return (int(np.searchsorted(below, 0.001 * below[-1], side="right")),
            int(np.searchsorted(below, 0.999 * below[-1])))


def _left_out(problem: Problem) -> Problem:
    if problem.kind not in BROKEN:
        return problem
    return Problem("broken image left out", problem.where, f"{problem.kind}: {problem.detail}", problem.times)


def _ends_properly(file: BinaryIO, format: Optional[str]) -> bool:
    """Does a JPEG or PNG end with its end marker? False for other formats, and where bytes follow: decode those."""
    marker = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}.get(format or "")
    if marker is None:
        return False
    place = file.tell()
    file.seek(-min(len(marker), file.seek(0, os.SEEK_END)), os.SEEK_END)
    end = file.read()
    file.seek(place)
    return end == marker


def _checksums_agree(image: Image.Image) -> bool:
    """Is no part of a PNG file damaged, by its own checksums? Other formats have none. `image` is of no use after."""
    try:
        image.verify()
    except Exception:  # damaged files make decoders raise anything
        return False
    return True


def _range_of_16_bits(found: list[list[Problem]], folder: Path, config: DataConfig) -> list[Problem]:
    deep = [problem for problems in found for problem in problems if isinstance(problem, _SixteenBits)]
    if not deep:
        return []
    low, high = min(problem.values[0] for problem in deep), max(problem.values[1] for problem in deep)
    dull = sum(problem.dull for problem in deep)
    detail = f"{len(deep):,} of them, with values {low:,}..{high:,} of 0..65,535, shown "
    detail += ("each from its own darkest to its own brightest" if config.sixteen_bit == "range" else
               "as 0..255 for all of 0..65,535")
    if dull and config.sixteen_bit == "full":
        detail += (f"; {dull:,} of them are then nearly black or of one grey: --sixteen-bit range stretches each by "
                   "its own values")
    return [Problem("16-bit range", printable(folder), detail, len(deep))]


def _nothing_to_find(annotations: Annotations, file: Annotated, learned: bool) -> list[Problem]:
    """A split without any box but crowds, if it is one."""
    boxes = int((~annotations.crowd).sum())
    if boxes or any(problem.severity == "refused" for problem in annotations.problems):  # which says why
        return []
    crowds, listed = int(annotations.crowd.sum()), annotations.listed
    of = f"of {counted(len(annotations.classes), 'class', 'classes')} in {counted(len(annotations), 'image')}"
    why = (f"no annotation {of}" if not listed else
           f"none of the {listed:,} annotations {of} is left: {crowds:,} are crowds, {listed - crowds:,} were dropped")
    return [Problem("no box to learn from" if learned else "no box to find", file.name, why)]


def _crowded(annotations: Annotations, file: Annotated, num_queries: int, most: Optional[int]) -> list[Problem]:
    """The images with more boxes than the detector can find."""
    totals = np.concatenate(([0], np.cumsum(~annotations.crowd)))
    boxes = totals[annotations.offsets[1:]] - totals[annotations.offsets[:-1]]      # (n,)
    notes = Notes(most)
    for i in np.flatnonzero(boxes > num_queries):
        notes.add("more boxes than can be found", f"{file.name}, {annotations.file_names[i]}",
                  f"image {annotations.image_ids[i]}: {boxes[i]} boxes, {num_queries} found at most")
    return notes.problems()


def _same_twice(annotations: Annotations, file: Annotated, max_dets: int, judged: bool, most: Optional[int]
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
                  f"{abridged(a.classes.names[labels[k]])} at [{box}]")
    notes.more("same box twice", int(again.sum()) - (most or len(again)))

    if judged:
        _, places, number = np.unique(rows * len(a.classes) + labels, return_index=True, return_counts=True)
        if (beyond := number > max_dets).any():
            best = best_ap(rows, labels, np.arange(len(rows)), max_dets)
            fullest = places[number.argmax()]
            where = f"{abridged(a.classes.names[labels[fullest]])} in {abridged(a.file_names[rows[fullest]])}"
            notes.add("more boxes than COCO counts", file.name,
                      f"more than {max_dets} boxes of a class in "
                      f"{counted(len(set(rows[places[beyond]])), 'image')} "
                      f"(at most {number.max():,}, {where}), and the best {max_dets} detections of a class in an image count: "
                      f"perfect ones have an AP of {best:.3f}. --max-dets {number.max()} counts them all, with figures "
                      "that are not COCO's")
    return notes.problems()


def _turned_by_cameras(annotations: Annotations, file: Annotated, folder: Path, names: Found,
                       of_images: list[list[Problem]], as_is: bool) -> list[Problem]:
    """Are boxes drawn on pictures that were turned by a camera's note, beside sizes of the pixels as stored?

    Among other pictures they may be too few to show in the whole set.
    """
    as_stored = []
    for row, (name, looks) in enumerate(zip(names.paths, of_images)):
        if any(problem.kind == "EXIF-rotated image" for problem in looks):
            with opened(folder / name) as (image, _):
                if tuple(annotations.sizes[row].tolist()) == image.size != upright_size(image):
                    as_stored.append(row)
    boxes, rows = annotations.written
    of_them = np.isin(rows, as_stored)
    found = turned(boxes[of_them], annotations.sizes[rows[of_them]])
    if not found:
        return []
    return [Problem("boxes in another form" if found.certain and not as_is else "boxes perhaps in another form",
                    f"{file.name}, the {len(as_stored):,} pictures with a camera's EXIF note", found.words)]
