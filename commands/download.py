"""download: how do COCO 2017's photographs come to this disk, all of them or a few?

    coco-subset   annotations ─▶ choose (scratch/data/subset) ─▶ those images alone, many at a time
    coco          annotations, train2017.zip, val2017.zip ─▶ unpacked

    OUT/ annotations/instances_{train,val}2017.json      train2017/*.jpg      val2017/*.jpg

A split's annotation file is written last, when all its images are there and can be opened: a folder
that `train --data` finds is whole. What was begun goes on where it was, after a cut line, Ctrl-C or
a kill; a record, OUT/subset.json or OUT/coco.json, tells it from a folder of somebody else's. The
archives are removed when they are used up. Proven in tests/test_download_coco.py.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Iterator, Literal, Optional

import tyro
from tqdm import tqdm

from scratch.data.check import look_at_image
from scratch.data.subset import TEN_CLASSES, choose
from scratch.download import fetch
from scratch.download_many import fetch_all

SPLITS = ("train", "val")
ARCHIVE = "annotations_trainval2017.zip"
OF_SUBSET, OF_ALL = "subset.json", "coco.json"  # the records of what a folder was begun as


@dataclass(frozen=True)
class DownloadArguments:
    """Fetch COCO 2017, or a small and balanced part of it, as a folder that train --data takes."""

    what: tyro.conf.Positional[Literal["coco-subset", "coco"]]
    """coco-subset: some images of some classes; coco: everything, 19 GB to fetch and twice that while unpacking"""
    out: Optional[Path] = None
    """the folder to write; None: data/coco-subset or data/coco"""
    host: Annotated[str, tyro.conf.arg(name="from")] = "http://images.cocodataset.org"
    """where annotations/, zips/, train2017/ and val2017/ are"""
    classes: str = ",".join(TEN_CLASSES)
    """of the subset: names with commas between them"""
    train: int = 2000
    """of the subset: training images"""
    val: int = 500
    """of the subset: validation images"""
    workers: int = 16
    """of the subset: images that are fetched at the same time"""

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.workers) < 1:
            raise ValueError(f"got train = {self.train}, val = {self.val} and workers = {self.workers}, wanted 1 or "
                             "more of each")


def download(arguments: DownloadArguments) -> None:
    """Fetch what is missing, and say what is there then."""
    out = arguments.out or Path("data") / arguments.what
    out.mkdir(parents=True, exist_ok=True)
    fetch_part = subset if arguments.what == "coco-subset" else everything
    fetch_part(arguments, out)
    for split in SPLITS:
        document = json.loads(annotations_of(out, split).read_text(encoding="utf-8"), object_hook=without_outline)
        print(f"{split:<5} {len(document['images']):>7,} images {len(document['annotations']):>8,} boxes "
              f"{len(document['categories']):>4} classes   {out / f'{split}2017'}")
    print(f"whole. Next: python detr_scratch.py finetune --data {out}")


def annotations_of(out: Path, split: str) -> Path:
    return out / "annotations" / f"instances_{split}2017.json"


# -- a part --------------------------------------------------------------------------------------------------------


def subset(arguments: DownloadArguments, out: Path) -> None:
    """The images that `choose` picks, and their annotations.

    Raises ValueError for a folder with another choice, besides what `fetch`, `fetch_all` and `choose` raise.
    """
    counts = {"train": arguments.train, "val": arguments.val}
    wanted = {"classes": arguments.classes, **counts}
    record = out / OF_SUBSET
    if (out / OF_ALL).exists():
        raise ValueError(f"{out} holds all of COCO, or will: name another --out")
    if record.exists():
        made = json.loads(record.read_text(encoding="utf-8"))
        if made != wanted:
            raise ValueError(f"{out} holds another subset ({made}, wanted {wanted}): name another --out")
    else:
        refuse_foreign(out)
    if record.exists() and all(annotations_of(out, split).exists() for split in SPLITS):
        documents = {split: json.loads(annotations_of(out, split).read_text(encoding="utf-8")) for split in SPLITS}
    else:
        archive = fetch(f"{arguments.host}/annotations/{ARCHIVE}", out / ARCHIVE)
        documents = {split: choose(read_instances(archive, split), arguments.classes.split(","), counts[split])
                     for split in SPLITS}
        write_whole(record, wanted)
    items, sizes = [], {}
    for split in SPLITS:
        for image in documents[split]["images"]:
            path = out / f"{split}2017" / image["file_name"]
            items.append((f"{arguments.host}/{split}2017/{image['file_name']}", path))
            sizes[path] = (image["width"], image["height"])
    fetch_all(items, arguments.workers, "images", lambda path: trouble_with(path, sizes[path]))
    for split, document in documents.items():
        write_whole(annotations_of(out, split), document)
        if (found := len(document["images"])) < counts[split]:
            print(f"note: {found:,} {split} images show these classes; {counts[split]:,} were asked for")
    (out / ARCHIVE).unlink(missing_ok=True)


def trouble_with(path: Path, size: tuple[int, int]) -> Optional[str]:
    """Why training would refuse this image, annotated as (width, height), or would see a part of it; else None."""
    refused = [problem for problem in look_at_image(path, size, decode=False)
               if problem.severity == "refused" or problem.kind == "truncated image"]
    return f"{refused[0].kind}: {refused[0].detail}" if refused else None


def refuse_foreign(out: Path) -> None:
    """Raise ValueError for a folder with annotations, but no record: of another set, they are not to be replaced."""
    there = [path for split in SPLITS if (path := annotations_of(out, split)).exists()]
    if there:
        raise ValueError(f"{there[0]} is there already, and this command has not begun its folder, which may be of "
                         "another set: name another --out, or train on it as it is")


def read_instances(archive: Path, split: str) -> dict[str, Any]:
    """The instances file of a split, without the objects' outlines: they are most of it, and no box.

    Raises ValueError for an archive that is damaged or another one; it is removed, so that the next call fetches it.
    """
    name = f"annotations/instances_{split}2017.json"
    try:
        with zipfile.ZipFile(archive) as files, files.open(name) as file:
            return json.load(file, object_hook=without_outline)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        archive.unlink()
        raise ValueError(f"{archive} was no archive with {name} ({error}), and is removed: run the command "
                         "again") from error


def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Called for each object as soon as it is read: so all of COCO's outlines are never in memory together."""
    entry.pop("segmentation", None)
    return entry


# -- all of it -----------------------------------------------------------------------------------------------------


def everything(arguments: DownloadArguments, out: Path) -> None:
    """Both splits, one after the other; in a folder that this command has begun, one with annotations is whole.

    Raises ValueError for another folder with annotations or a subset, besides what `fetch` and `unpack` raise.
    """
    if (out / OF_SUBSET).exists():
        raise ValueError(f"{out} holds a subset: name another --out")
    if not (out / OF_ALL).exists():
        refuse_foreign(out)
        write_whole(out / OF_ALL, {"from": arguments.host})
    for split in SPLITS:
        images = out / f"{split}2017.zip"
        if not annotations_of(out, split).exists():
            annotations = fetch(f"{arguments.host}/annotations/{ARCHIVE}", out / ARCHIVE)
            fetch(f"{arguments.host}/zips/{split}2017.zip", images)
            unpack(images, f"{split}2017/", out / f"{split}2017")
            unpack(annotations, f"annotations/instances_{split}2017.json", out / "annotations")
        images.unlink(missing_ok=True)  # also what a call left that was killed before it came here
    (out / ARCHIVE).unlink(missing_ok=True)


def unpack(archive: Path, beginning: str, folder: Path) -> None:
    """The files of an archive whose names begin so, into one folder; those that are there whole are left alone.

    Raises ValueError for an archive that is damaged or has none of them; it is removed. Raises OSError where the disk
    refuses; the archive is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as files:
            members = [file for file in files.infolist() if file.filename.startswith(beginning) and not file.is_dir()]
            if not members:
                raise zipfile.BadZipFile(f"it has no {beginning}…")
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file", disable=None, leave=False):
                target = folder / Path(member.filename).name  # the name alone: an archive may not choose the place
                if target.exists() and target.stat().st_size == member.file_size:
                    continue
                with growing(target) as partial, files.open(member) as source, open(partial, "wb") as copy:
                    shutil.copyfileobj(source, copy)  # which compares the checksum at the end
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()
        raise ValueError(f"{archive} is damaged or another archive ({error}), and is removed: run the command "
                         "again") from error


def write_whole(path: Path, content: Any) -> None:
    """A whole JSON file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with growing(path) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def growing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which becomes `path` in the end; if the writing fails, nothing of it stays.

    Raises OSError, saying what to do, where the disk refuses.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror}. Free some space and run the command again, or "
                      "name another --out") from error
    finally:
        partial.unlink(missing_ok=True)
