"""download: how are the images of COCO 2017 downloaded, all of them or a few?

    coco-subset   annotations ─▶ choose (scratch/data/subset) ─▶ those images alone, many at a time
    coco          annotations, train2017.zip, val2017.zip ─▶ unpacked
    bccd          another set: blood cells (download_bccd.py)

    OUT/ annotations/instances_{train,val}2017.json      train2017/*.jpg      val2017/*.jpg

A split's annotation file is written last, when all its images are there and can be opened: a folder
that `train --data` finds is whole. What was begun goes on where it was, after a cut line, Ctrl-C or
a kill; a record, OUT/subset.json or OUT/coco.json, tells it from a folder of somebody else's. The
archives are removed when they are used up. Two commands for one folder take turns.

What comes from the host is somebody else's: annotations are read as a whole before anything is done with
them, and a name among them that is more than a file's name (../x, /x) is refused before a file is
touched. COCO's own host is asked by way of Amazon's: images.cocodataset.org is a name of one of its
buckets, and has no certificate of its own, so that with it only plain http would work, where anybody on
the way can change what comes. Proven in tests/test_download_coco.py.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from urllib.parse import quote

import tyro
from commands.download_bccd import OF_BCCD, SOURCE, bccd, refuse_for_bccd
from commands.unpacking import ADVICE, MOST_IMAGES, unpack
from scratch.config import DataConfig
from scratch.data.check import look_at_image
from scratch.data.classes import divided
from scratch.data.coco import find_splits
from scratch.data.subset import TEN_CLASSES, choose
from scratch.weights.download import alone, fetch
from scratch.weights.download_many import fetch_all, trouble_in_name
from scratch.printable import command, counted, printable
from scratch.ranges import COUNT, PROCESSES, Range, refuse_senseless
from scratch.whole_file import write_json

SPLITS = ("train", "val")
ARCHIVE = "annotations_trainval2017.zip"
# Bytes that a host may send or an archive unpack to; COCO's annotations are 0.25 and 0.8 GB.
MOST_ANNOTATIONS = 2**32
OF_SUBSET, OF_ALL = "subset.json", "coco.json"  # the records of what a folder was begun as


@dataclass(frozen=True)
class DownloadArguments:
    """Fetch COCO 2017, a small and balanced part of it, or BCCD, as a folder that train --data takes."""

    what: tyro.conf.Positional[Literal["coco-subset", "coco", "bccd"]]
    """coco-subset: some images of some classes; coco: everything, 19 GB to fetch and twice that while unpacking; bccd:
    364 photographs of blood cells, 8 MB"""
    out: Optional[Path] = None
    """the folder to write; None: data/coco-subset, data/coco or data/bccd"""
    host: Annotated[Optional[str], tyro.conf.arg(name="from")] = None
    """where annotations/, zips/, train2017/ and val2017/ are (None: COCO's own, by a name that has a certificate); of
    bccd, where the archive of its repository is (None: GitHub's own)"""
    classes: str = ",".join(TEN_CLASSES)
    """of the subset: names with commas between them"""
    train: int = 2000
    """of the subset: training images"""
    val: int = 500
    """of the subset: validation images"""
    workers: int = 16
    """of the subset: images that are fetched at the same time"""

    def __post_init__(self) -> None:
        refuse_senseless(self, train=COUNT, val=COUNT, workers=Range(1, PROCESSES.high))


def download(arguments: DownloadArguments) -> None:
    """Fetch what is missing, and say what is there then."""
    out = arguments.out or Path("data") / arguments.what
    arguments = replace(arguments, host=(arguments.host or HOSTS[arguments.what]).rstrip("/"))
    fetch_part, refuse = PARTS[arguments.what]
    refuse(arguments, out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / ".download.lock"):
        refuse(arguments, out)  # another process may have begun something else meanwhile
        fetch_part(arguments, out)
        for split, (folder, file) in find_splits(DataConfig(data=str(out))).items():
            document = read_own(file)
            print(f"{split:<5} {counted(len(document['images']), 'image'):>14} "
                  f"{counted(len(document['annotations']), 'box', 'boxes'):>14} "
                  f"{counted(len(document['categories']), 'class', 'classes'):>12}   {folder}")
    # Few photographs learn in minutes from nothing; COCO begins with the published weights.
    how = "train" if arguments.what == "bccd" else "finetune"
    print(f"whole. Next: {command('python', 'detr_scratch.py', how, '--data', out)}")


def annotations_of(out: Path, split: str) -> Path:
    return out / "annotations" / f"instances_{split}2017.json"


# -- a part --------------------------------------------------------------------------------------------------------


def wanted_of(arguments: DownloadArguments) -> dict[str, Any]:
    """What the record of a subset holds."""
    return {"classes": arguments.classes, "train": arguments.train, "val": arguments.val}


def refuse_for_subset(arguments: DownloadArguments, out: Path) -> None:
    """Raise ValueError for a folder of something else."""
    record = out / OF_SUBSET
    refuse_bccd(out)
    if (out / OF_ALL).exists():
        raise ValueError(f"{out} holds all of COCO, or will: name another --out")
    if not record.exists():
        refuse_foreign(out)
        return
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{record} is not what this command writes there ({type(error).__name__}): remove it, or name "
                         "another --out") from error
    if made != wanted_of(arguments):
        raise ValueError(f"{out} holds another subset ({printable(made)[:300]}, wanted {wanted_of(arguments)}): name "
                         "another --out")


def subset(arguments: DownloadArguments, out: Path) -> None:
    """The images that `choose` picks, and their annotations. Raises what `fetch`, `fetch_all` and `choose` raise."""
    counts, host = {"train": arguments.train, "val": arguments.val}, arguments.host
    if (out / OF_SUBSET).exists() and all(annotations_of(out, split).exists() for split in SPLITS):
        documents = {split: read_own(annotations_of(out, split)) for split in SPLITS}
    else:
        archive = fetch(f"{host}/annotations/{ARCHIVE}", out / ARCHIVE, most=MOST_ANNOTATIONS)
        documents = {split: choose(read_instances(archive, split), divided(arguments.classes), counts[split])
                     for split in SPLITS}
        write_json(out / OF_SUBSET, wanted_of(arguments), advice=ADVICE)
    items, sizes = [], {}
    for split in SPLITS:
        for image in documents[split]["images"]:
            path = out / f"{split}2017" / image["file_name"]
            items.append((f"{host}/{split}2017/{quote(image['file_name'])}", path))
            sizes[path] = (image["width"], image["height"])
    fetch_all(items, arguments.workers, "images", lambda path: trouble_with(path, sizes[path]))
    for split, document in documents.items():
        annotations_of(out, split).parent.mkdir(exist_ok=True)
        write_json(annotations_of(out, split), document, advice=ADVICE)
        if (found := len(document["images"])) < counts[split]:
            print(f"note: {found:,} {split} images show these classes; {counts[split]:,} were asked for")
    (out / ARCHIVE).unlink(missing_ok=True)


def trouble_with(path: Path, size: tuple[int, int]) -> Optional[str]:
    """Why training would refuse this image, annotated as (width, height), or would see a part of it; else None."""
    refused = [problem for problem in look_at_image(path, size, decode=False)
               if problem.severity == "refused" or problem.kind == "truncated image"]
    return f"{refused[0].kind}: {refused[0].detail}" if refused else None


def refuse_bccd(out: Path) -> None:
    if (out / OF_BCCD).exists():
        raise ValueError(f"{out} holds BCCD: name another --out")


def refuse_foreign(out: Path) -> None:
    """Raise ValueError for a folder with annotations, but no record: of another set, they are not to be replaced."""
    there = [path for split in SPLITS if (path := annotations_of(out, split)).exists()]
    if there:
        raise ValueError(f"{there[0]} is there already, and this command has not begun its folder, which may be of "
                         "another set: name another --out, or train on it as it is")


def read_instances(archive: Path, split: str) -> dict[str, Any]:
    """The instances file of a split, without the objects' outlines: they are most of it, and no box.

    Raises ValueError for an archive that is damaged or another one, also for one whose annotations are none, or name
    files that are not theirs; it is removed, so that the next call fetches it.
    """
    name = f"annotations/instances_{split}2017.json"
    try:
        with zipfile.ZipFile(archive) as files:
            if (size := files.getinfo(name).file_size) > MOST_ANNOTATIONS:
                raise ValueError(f"it would unpack to {size:,} bytes")
            with files.open(name) as file:
                return as_instances(json.load(file, object_hook=without_outline))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RecursionError, RuntimeError) as error:
        archive.unlink()
        raise ValueError(f"{archive} was no archive with {name} ({printable(error)[:300]}), and is removed: run the "
                         "command again") from error


def read_own(path: Path) -> dict[str, Any]:
    """An annotation file that this command has written, or unpacked. Raises ValueError for another."""
    try:
        return as_instances(json.loads(path.read_text(encoding="utf-8"), object_hook=without_outline))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not what this command writes there ({printable(error)[:300]}): remove it and run "
                         "the command again, or name another --out") from error


# What of an instances file is used, and of which type it is.
FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "annotations": {"image_id": int, "category_id": int, "bbox": list}, "categories": {"id": int, "name": str}}


def as_instances(document: Any) -> dict[str, Any]:
    """`document`, if it is one as COCO's are. Raises ValueError, saying what is missing or of another type."""
    if not isinstance(document, dict):
        raise ValueError(f"it is a {type(document).__name__}, wanted a dict of {', '.join(FIELDS)}")
    for part, fields in FIELDS.items():
        entries = document.get(part)
        if not isinstance(entries, list):
            raise ValueError(f"it has no list of {part}")
        for i, entry in enumerate(entries):
            for field, kind in fields.items():
                if not isinstance(entry, dict) or type(entry.get(field)) is not kind:
                    raise ValueError(f"{part}[{i}] has no {field}, or one of another type than {kind.__name__}")
    names: set[str] = set()
    for i, image in enumerate(document["images"]):
        trouble = trouble_in_name(image["file_name"])
        if not trouble and image["file_name"].casefold() in names:
            trouble = "another image has it, too"
        if trouble:
            raise ValueError(f"images[{i}] has the file_name {image['file_name'][:100]!r}: {trouble}")
        names.add(image["file_name"].casefold())
    return document


def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Called for each object as soon as it is read: so all of COCO's outlines are never in memory together."""
    entry.pop("segmentation", None)
    return entry


# -- all of it -----------------------------------------------------------------------------------------------------


def refuse_for_all(arguments: DownloadArguments, out: Path) -> None:
    """Raise ValueError for a folder of something else."""
    refuse_bccd(out)
    if (out / OF_SUBSET).exists():
        raise ValueError(f"{out} holds a subset: name another --out")
    if not (out / OF_ALL).exists():
        refuse_foreign(out)


def everything(arguments: DownloadArguments, out: Path) -> None:
    """Both splits, one after the other; in a folder that this command has begun, one with annotations is whole.

    Raises what `fetch`, `read_instances` and `unpack` raise.
    """
    host = arguments.host
    if not (out / OF_ALL).exists():
        write_json(out / OF_ALL, {"from": arguments.host}, advice=ADVICE)
    for split in SPLITS:
        images = out / f"{split}2017.zip"
        if not annotations_of(out, split).exists():
            annotations = fetch(f"{host}/annotations/{ARCHIVE}", out / ARCHIVE, most=MOST_ANNOTATIONS)
            read_instances(annotations, split)  # before 19 GB are fetched for what may be none
            fetch(f"{host}/zips/{split}2017.zip", images, most=MOST_IMAGES)
            unpack(images, f"{split}2017/", out / f"{split}2017")
            unpack(annotations, f"annotations/instances_{split}2017.json", out / "annotations")
        images.unlink(missing_ok=True)  # also what a call left that was killed before it came here
    (out / ARCHIVE).unlink(missing_ok=True)


HOSTS = {"coco-subset": "https://s3.amazonaws.com/images.cocodataset.org",
         "coco": "https://s3.amazonaws.com/images.cocodataset.org", "bccd": SOURCE}
# What fetches a set, and what refuses a folder that holds another one.
PARTS = {"coco-subset": (subset, refuse_for_subset), "coco": (everything, refuse_for_all),
         "bccd": (lambda arguments, out: bccd(arguments.host, out), lambda arguments, out: refuse_for_bccd(out))}
