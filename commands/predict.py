"""predict: what is on these pictures?

    IMAGE, or a folder of them ─▶ detector ─┬▶ NAME.png           each picture with its boxes
                                            ├▶ predictions.json   all that was found, as COCO results
                                            └▶ image_ids.json     which picture each image_id is
    a video, or a camera ────────▶ detector ──▶ NAME.mp4, NAME.jsonl    sources/film.py

What else a source may be: sources/pictures.py. Large pictures in parts: sources/slices.py.

A file that cannot be read is skipped with a line. If the command ends early (a full disk, Ctrl-C), predictions.json
holds everything found until then, and no file is incomplete.
Proven in tests/test_predict.py and tests/sources. Read: predict → Finder → picture_names → image_ids
→ Results
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Literal, Optional, Sequence

import torch
import tyro
from PIL import Image
from tqdm import tqdm

from commands.opening import newest_run, reading, resolve_device
from commands.sources.film import ending_of, opened_camera, opened_film, watch
from commands.sources.pictures import Given, given
from commands.sources.slices import found_in_slices
from scratch.analysis.names import alike, cut
from scratch.data.classes import Classes
from scratch.data.file_names import find_files
from scratch.data.images import read_image
from scratch.detector import Detections, Detector, load as load_detector
from scratch.evaluation.coco_eval import coco_results
from scratch.only_one import only_one
from scratch.printable import counted, printable
from scratch.ranges import BATCH, COUNT, LAYERS, MEGAPIXELS, QUERIES, SHARE, Range, refuse_senseless
from scratch.whole_file import whole_file, write_json

PREDICTIONS, IMAGE_IDS = "predictions.json", "image_ids.json"
# Most file systems take 255 bytes for a name, and none of ours may be longer while it is still partial.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class PredictArguments:
    """Find objects in pictures: each picture with its boxes, and predictions.json in COCO's result format."""

    source: tyro.conf.Positional[str]
    """an image; a folder of images, and of folders; a pattern ('shots/**/*.jpg'); an address (https://…); - for
    standard input; a video; webcam or webcam:N"""
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
    num_queries: Optional[int] = None
    """how many queries a detector with proposals has: more of them find more objects in full pictures, and cost time;
    None: as in training"""
    class_names: Optional[str] = None
    """what the classes of weights from elsewhere are called, in the order of their labels, where the file does not
    tell: "person,car" """
    slices: Optional[int] = None
    """also look at windows of N×N pixels of larger pictures, one by one: finds small objects (sources/slices)"""
    batch_size: int = 1
    """pictures, frames or windows of one forward pass, where they are shown at the same size"""
    frames: Literal["video", "json"] = "video"
    """of a video: video: the same frames with boxes, and the sound; json: only a line of JSON for each frame"""
    max_frames: Optional[int] = None
    """stop a video or a camera after N frames; None: at its end, or by Ctrl-C"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""

    def __post_init__(self) -> None:
        refuse_senseless(self, threshold=SHARE, max_megapixels=MEGAPIXELS, slices=Range(32, 10**6), batch_size=BATCH,
                         max_frames=COUNT, layers=LAYERS, num_queries=QUERIES)


def predict(arguments: PredictArguments) -> None:
    """Write, for every image of `source`, a picture with its detections, and all of them as COCO results."""
    device = torch.device(resolve_device(arguments.device))
    checkpoint = arguments.checkpoint or newest_run()
    detector = reading(load_detector(checkpoint, device, arguments.layers, arguments.class_names,
                                    arguments.num_queries),
                       arguments.sixteen_bit, arguments.max_megapixels)
    for note in detector.notes:
        print(note, file=sys.stderr)
    threshold = detector.threshold if arguments.threshold is None else arguments.threshold
    finder = Finder(detector, threshold, arguments.slices, arguments.batch_size)
    with given(str(arguments.source), arguments.out) as source:
        what = f"{printable(checkpoint)}: {counted(len(detector.classes), 'class', 'classes')}"
        if source.pictures:
            predict_pictures(arguments, finder, source, what)
        else:
            predict_film(arguments, finder, source, what)


def predict_pictures(arguments: PredictArguments, finder: Finder, source: Given, what: str) -> None:
    """A picture with its detections for each one that was given, and all of them as COCO results."""
    paths, classes = list(source.pictures), finder.detector.classes
    ids = image_ids(arguments.annotations, paths, classes) if arguments.annotations else dict(zip(paths, range(
        1, len(paths) + 1)))
    pictures = {path: arguments.out / name for path, name in zip(paths, picture_names(paths))}
    refuse_to_replace(paths, arguments.out)
    names = {path: source.name or str(path) for path in paths}
    with only_one(arguments.out):
        print(f"{what}; {counted(len(paths), 'image')}; threshold {finder.threshold:g}")
        write_json(arguments.out / IMAGE_IDS, [{"id": id, "file_name": names[path]} for path, id in ids.items()])
        begin = time.perf_counter()
        objects, unreadable = look_at_all(pictures, names, ids, finder, arguments.out / PREDICTIONS)
        seconds = time.perf_counter() - begin
    if unreadable == len(paths):
        raise ValueError(f"nothing in {printable(arguments.source)} could be read as an image")
    ids_are = (f"those of {printable(arguments.annotations)}" if arguments.annotations else
               f"places in the list of files, and those of no data set: see {IMAGE_IDS}, or give --annotations FILE")
    seen = len(paths) - unreadable
    print(f"{counted(objects, 'object')} in {counted(seen, 'image')} → {printable(arguments.out / PREDICTIONS)}"
          + (f"; {counted(unreadable, 'file')} could not be read" if unreadable else "")
          + f"; {seen / seconds:.3g} images/s, reading and drawing included\nits image_ids are {ids_are}")


def predict_film(arguments: PredictArguments, finder: Finder, source: Given, what: str) -> None:
    """A video with boxes (of a file alone), and what was found on each frame as a line of JSON."""
    if arguments.annotations:
        raise ValueError("got --annotations with a video, whose frames are in no annotation file: leave it out")
    film, out, megapixels = source.film, arguments.out, finder.detector.config.data.max_megapixels
    name = source.name or (str(film) if film else f"webcam:{source.camera}")
    opened = opened_film(film, name, megapixels) if film else opened_camera(source.camera or 0)
    if film:
        refuse_to_replace([film], out)
    with opened as frames, only_one(out):
        print(f"{what}; frames of {printable(name)}{'' if film else ', until Ctrl-C or --max-frames'}; threshold "
              f"{finder.threshold:g}")
        begin = time.perf_counter()
        seen = watch(frames, out, cut(film.stem, _LONGEST_NAME) if film else f"webcam-{source.camera}",
                     ending_of(film) if film else ".mkv", finder.find, finder.described,
                     drawn if film and arguments.frames == "video" else None, arguments.batch_size,
                     arguments.max_frames, name)
        seconds = time.perf_counter() - begin
    if seen.ended:
        print(f"note: {printable(name)} was taken up to frame {seen.frames}: {seen.ended}", file=sys.stderr)
    print(f"{counted(seen.objects, 'object')} in {counted(seen.frames, 'frame')} → "
          f"{', '.join(printable(path) for path in seen.files)}; "
          f"{seen.frames / seconds:.3g} images/s, reading and drawing included")


@dataclass(frozen=True)
class Finder:
    """A detector, and how pictures are shown to it and to a person."""

    detector: Detector
    threshold: float
    slices: Optional[int] = None
    batch_size: int = 1

    def all(self, images: Sequence[Image.Image]) -> list[Detections]:
        """What is on each of some pictures, at any score (in slices: from the threshold on)."""
        if self.slices is not None:
            return [found_in_slices(self.detector, image, self.slices, self.threshold, self.batch_size)
                    for image in images]
        if len(images) == 1:
            return [self.detector.predict(images[0], threshold=0.0)]
        return self.detector.predict(list(images), threshold=0.0, batch_size=self.batch_size)

    def find(self, images: Sequence[Image.Image]) -> list[Detections]:
        """What scores enough on each of some pictures."""
        return [found.above(self.threshold) for found in self.all(images)]

    def described(self, found: Detections, image_id: int = 0) -> list[dict[str, Any]]:
        """Detections as COCO results, with the names of their classes (frames of a video have the id 0)."""
        tensors = {"boxes": found.boxes_xyxy, "labels": found.labels, "scores": found.scores}
        entries = coco_results(image_id, tensors, self.detector.classes.ids)
        return [{"category_name": name, **entry} for name, entry in zip(found.names, entries)]


def drawn(image: Image.Image, found: Detections) -> Image.Image:
    """The picture with what was found on it."""
    return found.drawn_on(image)


def look_at_all(pictures: dict[Path, Path], names: dict[Path, str], ids: dict[Path, int], finder: Finder,
                predictions: Path) -> tuple[int, int]:
    """Draw each image into its picture, and write what was found in those with an id; (objects, unreadable files)."""
    unreadable, waiting, config = 0, {}, finder.detector.config.data
    with results_in(predictions) as results, tqdm(total=len(pictures), unit="image", leave=False, disable=None) as bar:

        def look() -> None:
            for (path, image), found in zip(waiting.items(), finder.all(list(waiting.values())) if waiting else []):
                above = found.above(finder.threshold)
                if path in ids:
                    results.add([{"file_name": names[path], **entry}
                                 for entry in finder.described(above, ids[path])])
                drawn = above.drawn_on(image)
                with whole_file(pictures[path]) as partial:
                    drawn.save(partial)
                best = f"best score {found.scores[0]:.2f}" if len(found) else "nothing else either"
                tqdm.write(f"  {printable(names[path])}: {counted(len(above), 'object')} ({best}) → "
                           f"{printable(pictures[path])}")
                bar.update()
            waiting.clear()

        for path in pictures:
            try:
                waiting[path] = read_image(path, config=config)
            except (ValueError, OSError) as error:
                said = str(error).replace(printable(path), printable(names[path]))
                tqdm.write(f"  skipped: {printable(said)}", file=sys.stderr)
                unreadable += 1
                bar.update()
            if len(waiting) >= finder.batch_size:
                look()
        look()
    return results.count, unreadable


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
        print(f"note: of {counted(len(twice), 'image')} with several ids in {printable(file)} the first is taken: "
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
        print(f"{printable(path)} holds what was found before this end: {counted(results.count, 'object')}",
              file=sys.stderr)
        raise reason
