"""predict: what is on these pictures?

    IMAGE, or a folder of them ─▶ detector ─┬▶ NAME.png           each picture with its boxes
                                            ├▶ predictions.json   all that was found, as COCO results
                                            └▶ image_ids.json     which picture each image_id is

A file that cannot be read is skipped with a line. If the command ends early (a full disk, Ctrl-C), predictions.json
holds everything found until then, and no file is incomplete.
Proven in tests/test_predict.py. Read: predict → picture_names → image_ids → Results
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Literal, Optional, Sequence

import torch
import tyro

from commands.opening import newest_run, reading, resolve_device
from scratch.analysis.names import alike, cut
from scratch.data.classes import Classes
from scratch.data.file_names import find_files
from scratch.data.images import read_image
from scratch.detector import Detector, load as load_detector
from scratch.evaluation.coco_eval import coco_results
from scratch.only_one import only_one
from scratch.printable import printable
from scratch.ranges import MEGAPIXELS, SHARE, refuse_senseless
from scratch.whole_file import whole_file, write_json

PREDICTIONS, IMAGE_IDS = "predictions.json", "image_ids.json"
# Most file systems take 255 bytes for a name, and none of ours may be longer while it is still partial.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class PredictArguments:
    """Find objects in pictures: each picture with its boxes, and predictions.json in COCO's result format."""

    source: tyro.conf.Positional[Path]
    """an image, or a folder of images"""
    out: Path = Path("predictions")
    """the folder to write"""
    annotations: Optional[Path] = None
    """take the image ids of predictions.json, by file name, from this COCO annotation file, so that pycocotools can
    compare the two; None: pictures are numbered from 1 in the order of their names, and image_ids.json says which is
    which"""
    checkpoint: Optional[Path] = None
    """a run's folder (its best.pt), a checkpoint or another file of weights, published weights (detr_r50 …: fetched
    once), or hf:OWNER/NAME of the Hugging Face Hub; None: the newest run"""
    threshold: Optional[float] = None
    """leave out detections that score lower; None: than was best on the split that the checkpoint was evaluated on"""
    sixteen_bit: Optional[Literal["full", "range"]] = None
    """how pictures of 16 bits are shown (train --help); None: as the detector was trained"""
    max_megapixels: Optional[float] = None
    """skip pictures with more; None: as the detector was trained"""
    layers: Optional[int] = None
    """use only the first decoder layers, this number of them, which is faster (eval measures what it costs in AP);
    None: all"""
    class_names: Optional[str] = None
    """what the classes of weights from elsewhere are called, in the order of their labels, where the file does not
    tell: "person,car" """
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""

    def __post_init__(self) -> None:
        refuse_senseless(self, threshold=SHARE, max_megapixels=MEGAPIXELS)


def predict(arguments: PredictArguments) -> None:
    """Write, for every image of `source`, a picture with its detections, and all of them as COCO results."""
    device = torch.device(resolve_device(arguments.device))
    checkpoint = arguments.checkpoint or newest_run()
    detector = reading(load_detector(checkpoint, device, arguments.layers, arguments.class_names),
                       arguments.sixteen_bit, arguments.max_megapixels)
    print(*detector.notes, sep="\n", end="\n" if detector.notes else "", file=sys.stderr)
    threshold = detector.threshold if arguments.threshold is None else arguments.threshold
    paths = image_files(arguments.source)
    ids = image_ids(arguments.annotations, paths, detector.classes) if arguments.annotations else dict(zip(paths,
                                                                                             range(1, len(paths) + 1)))
    pictures = {path: arguments.out / name for path, name in zip(paths, picture_names(paths))}
    refuse_to_replace(paths, arguments.out)
    with only_one(arguments.out):
        print(f"{printable(checkpoint)}: {len(detector.classes)} classes; {len(paths)} images; threshold {threshold:g}")
        write_json(arguments.out / IMAGE_IDS, [{"id": id, "file_name": str(path)} for path, id in ids.items()])
        objects, unreadable = look_at_all(pictures, ids, detector, threshold, arguments.out / PREDICTIONS)
    if unreadable == len(paths):
        raise ValueError(f"nothing in {printable(arguments.source)} could be read as an image")
    ids_are = (f"those of {printable(arguments.annotations)}" if arguments.annotations else
               f"places in the list of files, and those of no data set: see {IMAGE_IDS}, or give --annotations FILE")
    print(f"{objects} objects in {len(paths) - unreadable} images → {printable(arguments.out / PREDICTIONS)}"
          + (f"; {unreadable} files could not be read" if unreadable else "") + f"\nits image_ids are {ids_are}")


def look_at_all(pictures: dict[Path, Path], ids: dict[Path, int], detector: Detector, threshold: float,
                predictions: Path) -> tuple[int, int]:
    """Draw each image into its picture, and write what was found in those with an id; (objects, unreadable files)."""
    unreadable = 0
    with results_in(predictions) as results:
        for path, picture in pictures.items():
            try:
                image = read_image(path, config=detector.config.data)
            except (ValueError, OSError) as error:
                print(f"  skipped: {printable(error)}", file=sys.stderr)
                unreadable += 1
                continue
            found = detector.predict(image, threshold=0.0)
            above = found.above(threshold)
            if path in ids:
                tensors = {"boxes": above.boxes_xyxy, "labels": above.labels, "scores": above.scores}
                results.add([{"file_name": str(path), "category_name": name, **entry} for name, entry in zip(
                    above.names, coco_results(ids[path], tensors, detector.classes.ids))])
            drawn = above.drawn_on(image)
            with whole_file(picture) as partial:
                drawn.save(partial)
            print(f"  {printable(path)}: {len(above)} objects (best score {found.scores[0]:.2f}) → "
                  f"{printable(picture)}")
    return results.count, unreadable


def image_files(source: Path) -> list[Path]:
    """The image itself, or everything in the folder that has an image's ending, of any kind."""
    if not os.path.lexists(source):
        raise FileNotFoundError(f"{printable(source)} does not exist: give an image or a folder of images")
    if not source.is_dir():
        return [source]
    endings = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in endings)
    if not found:
        raise FileNotFoundError(f"no images in {printable(source)}: looked for files ending in "
                                f"{' '.join(sorted(endings))}")
    return found


def refuse_to_replace(paths: Sequence[Path], out: Path) -> None:
    """Raise ValueError if what is written would take the place of one of the images, through any link."""
    # Not Path.resolve, which raises for a link that leads to itself.
    folders = {os.path.realpath(path.parent) for path in paths} | {os.path.dirname(os.path.realpath(path))
                                                                  for path in paths}
    if os.path.realpath(out) in folders:
        raise ValueError(f"--out {printable(out)} is the folder of the images themselves, and would lose those that "
                         "are PNG files: name another")


def picture_names(paths: Sequence[Path]) -> list[str]:
    """A name for the picture of each path: NAME.png, or NAME.ENDING.png, or with a number, so that no two are alike.

    Not alike for a file system that takes capitals and small letters for the same either.
    """
    stems = Counter(alike(path.stem) for path in paths)
    taken: set[str] = set()
    names = []
    for path in paths:
        short = [path.name] if stems[alike(path.stem)] > 1 else [path.stem, path.name]
        candidates = [f"{cut(name, _LONGEST_NAME)}.png" for name in short]
        name = next((name for name in candidates if alike(name) not in taken), "")
        number = 2
        while not name or alike(name) in taken:
            name, number = f"{cut(path.name, _LONGEST_NAME)}-{number}.png", number + 1
        taken.add(alike(name))
        names.append(name)
    return names


def image_ids(file: Path, paths: Sequence[Path], classes: Classes) -> dict[Path, int]:
    """The ids that an annotation file gives the images, by file name; says which it does not name.

    Raises ValueError for a file that names no images, or none of these.
    """
    if not file.is_file():  # a pipe would be waited for
        raise FileNotFoundError(f"there is no annotation file {printable(file)}")
    try:
        document = json.loads(file.read_bytes())
        entries = [(entry["file_name"], entry["id"]) for entry in document["images"]]
        if not all(isinstance(name, str) and isinstance(id, int) for name, id in entries):
            raise TypeError("other values")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{printable(file)} is no annotation file that names images: wanted JSON with a list of "
                         "images at its top, each with an id (a whole number) and a file_name") from error
    below = {os.path.normpath(path.name): path for path in paths}
    found = find_files(paths[0].parent, [name for name, _ in entries], file.name)
    ids: dict[Path, list[int]] = defaultdict(list)
    for name, (_, id) in zip(found.paths, entries):
        if name in below:
            ids[below[name]].append(id)
    if not ids:
        theirs = ", ".join(printable(name) for name, _ in entries[:3]) or "no image at all"
        raise ValueError(f"{printable(file)} names none of the {len(paths)} images, such as "
                         f"{printable(paths[0].name)}; it names {theirs}")
    for problem in found.told:
        print(f"note: {problem.detail}", file=sys.stderr)
    unknown = [path for path in paths if path not in ids]
    if unknown:
        print(f"note: {len(unknown)} of the {len(paths)} images are not in {printable(file)}, and what is found in "
              f"them is drawn, but left out of {PREDICTIONS}: {_some(unknown)}", file=sys.stderr)
    twice = [path for path, several in ids.items() if len(set(several)) > 1]
    if twice:
        print(f"note: {len(twice)} images have several ids in {printable(file)}, of which the first is taken: "
              f"{_some(twice)}", file=sys.stderr)
    _compare_classes(document, file, classes)
    return {path: ids[path][0] for path in paths if path in ids}


def _compare_classes(document: dict[str, Any], file: Path, classes: Classes) -> None:
    """Say which of the detector's categories are called otherwise in the annotation file."""
    entries = document.get("categories")
    theirs = {entry.get("id"): entry.get("name") for entry in entries if isinstance(entry, dict)
              and isinstance(entry.get("id"), int)} if isinstance(entries, list) else {}
    others = [f"{id} {printable(name)} (there {printable(theirs.get(id, 'no category'))})"
              for id, name in zip(classes.ids, classes.names) if theirs.get(id) != name]
    if theirs and others:
        print(f"note: {len(others)} of the detector's {len(classes)} categories are called otherwise in "
              f"{printable(file)}: {', '.join(others[:3])}{' …' if len(others) > 3 else ''}", file=sys.stderr)


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(printable(path.name) for path in paths[:3]) + (" …" if len(paths) > 3 else "")


class Results:
    """COCO results, written as they come, so that a disk that is full takes only the last of them."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.count = 0
        self._path, self._file = path, file
        self._end = 0
        self._end = self._write("[")

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        text = "".join(f"{',' if self.count + i else ''}\n {json.dumps(entry)}" for i, entry in enumerate(entries))
        self._end = self._write(text)
        self.count += len(entries)

    def close(self) -> None:
        """End the list after the last entry that is there as a whole."""
        self._file.seek(self._end)
        self._file.truncate()  # which frees space on a full disk for what follows
        self._write("\n]\n")

    def _write(self, text: str) -> int:
        """Write all of it, and return the place after it; a file that is not buffered may take a part at a time."""
        rest = text.encode()
        try:
            while rest:
                rest = rest[self._file.write(rest):]
        except OSError as error:
            raise OSError(f"{printable(self._path)} could not be written to its end: {error.strerror or error}; free "
                          "some space or name another place") from error
        return self._file.tell()


@contextmanager
def results_in(path: Path) -> Iterator[Results]:
    """A file for results, there as a whole at the end, even if that is an exception (a full disk, Ctrl-C)."""
    reason: Optional[BaseException] = None
    with whole_file(path) as partial:
        with open(partial, "wb", buffering=0) as file:
            results = Results(path, file)
            try:
                yield results
            except BaseException as error:
                reason = error
            results.close()
    if reason is not None:
        print(f"{results.count} objects that were found before this end are in {printable(path)}", file=sys.stderr)
        raise reason
