"""check: what is wrong with a data set, before a training run finds out the slow way?

    annotation file ─▶ read_annotations ─▶ entries, ids, boxes ──┐
    image files ─▶ opened (or decoded) by a pool of threads ─────┼─▶ Report: a table for people, refuse() for training
    files of equal size in two splits ─▶ compared by content ────┘

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
from typing import Container, Optional

import numpy as np
from PIL import Image
from tqdm import tqdm

from scratch.config import DataConfig
from scratch.data.coco import SPLITS, Annotations, Classes, UnknownClass, find_splits, read_annotations
from scratch.data.images import conversions, read_image, upright_size
from scratch.data.problems import KINDS, Problem, count, refuse


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

        `examples` is the most entries listed for a kind; None lists every one.
        """
        lines = list(self.splits)
        counts = count(self.problems)
        for kind, (severity, action) in KINDS.items():
            if counts[kind]:
                found = [problem for problem in self.problems if problem.kind == kind]
                lines += ["", f"{severity:>8}  {counts[kind]:>6,} × {kind}: {action}"]
                lines += [f"{'':18} {problem.where}: {problem.detail}" for problem in found[:examples]]
                if len(found) > len(found[:examples]):
                    lines.append(f"{'':18} … and {len(found) - len(found[:examples]):,} more")
        totals = Counter(problem.severity for problem in self.problems)
        verdict = "training refuses this data until they are put right" if totals["refused"] else "training can begin"
        lines += ["", f"{totals['refused']:,} refused, {totals['coped']:,} coped with, {totals['note']:,} to note: "
                      f"{verdict}"]
        return "\n".join(lines)


def check_dataset(config: DataConfig, num_queries: int, decode: bool, only: Container[str] = SPLITS,
                  classes: Optional[Classes] = None) -> Report:
    """Look at everything that a run on `config` would read.

    decode    True: decode every image; False: headers, checksums and file ends
    only      the splits to look at, where they are there
    classes   what a trained detector's labels count; None: what a new run's would, by `config.classes`
    Raises what `find_splits` raises, and UnknownClass; every other trouble becomes a Problem of the report.
    """
    splits = {name: paths for name, paths in find_splits(config).items() if name in only}
    lines: list[str] = []
    problems: list[Problem] = []
    by_bytes: dict[int, list[tuple[str, Path]]] = defaultdict(list)  # file size → (split, file)
    for split, (folder, file) in splits.items():
        try:
            annotations = read_annotations(file, classes, config.limit_train if split == "train" else
                                           config.limit_val if split == config.eval_split else None, config.classes)
        except UnknownClass:  # the person's mistake, not the file's
            raise
        except ValueError as error:
            problems.append(Problem("broken annotation file", str(file), str(error)))
            continue
        classes = classes or annotations.classes
        lines.append(f"{split:<6} {len(annotations):>7,} images {len(annotations.labels):>8,} boxes "
                     f"{len(annotations.classes):>4} classes   {file}")
        problems += annotations.problems
        problems += _crowded(annotations, file, num_queries)
        paths = [folder / name for name in annotations.file_names.tolist()]
        problems += _look_at_images(paths, annotations, split, decode)
        for path in dict.fromkeys(paths):  # each once, in the file's order, which a set would shuffle anew each time
            if path.is_file():
                by_bytes[path.stat().st_size].append((split, path))
    return Report(tuple(lines), tuple(problems + _shared_between_splits(by_bytes)))


def look_at_image(path: Path, size: tuple[int, int], decode: bool) -> list[Problem]:
    """The problems of one image file whose annotation says `size` (width, height)."""
    if not path.is_file():
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


def _crowded(annotations: Annotations, file: Path, num_queries: int) -> list[Problem]:
    """The images with more boxes than the detector has queries."""
    totals = np.concatenate(([0], np.cumsum(~annotations.crowd)))
    boxes = totals[annotations.offsets[1:]] - totals[annotations.offsets[:-1]]      # (n,)
    return [Problem("more boxes than queries", f"{file.name}, {annotations.file_names[i]}",
                    f"image {annotations.image_ids[i]}: {boxes[i]} boxes, {num_queries} queries")
            for i in np.flatnonzero(boxes > num_queries)]


def _shared_between_splits(by_bytes: dict[int, list[tuple[str, Path]]]) -> list[Problem]:
    """Files of one content in two splits; only files of equal length need to be read for this."""
    by_content: dict[bytes, list[tuple[str, Path]]] = defaultdict(list)
    for files in by_bytes.values():
        if len({split for split, _ in files}) > 1:
            for split, path in files:
                by_content[hashlib.sha256(path.read_bytes()).digest()].append((split, path))
    return [Problem("same image in two splits", str(files[0][1]), f"equals {path} of {split}")
            for files in by_content.values() for split, path in files[1:] if split != files[0][0]]
