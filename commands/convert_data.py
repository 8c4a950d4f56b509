"""convert-data: a data set of any layout, as the folder that COCO's tools and train --data take.

    OUT/ train/ val/ test/               the pictures, copied (or, with --link, links to them)
         annotations/instances_*.json    written last, when every picture is there

What is written is what training would see: checked, and cleaned as training cleans it (empty boxes dropped, boxes
clipped to their pictures). Ids are the set's own where it has some; annotations are numbered afresh.
Proven in tests/test_convert_data.py.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Sequence

import tyro
from tqdm import tqdm

from scratch.config import DataConfig
from scratch.data.check import Report, check_dataset
from scratch.data.coco import CocoDetection, find_splits
from scratch.data.transforms import Augmentation
from scratch.printable import command, printable
from scratch.whole_file import make_folder, whole_file, write_json


@dataclass(frozen=True)
class ConvertDataArguments:
    """Write a data set of any layout (YOLO, Pascal VOC, LabelMe, CVAT, VIA, CSV …) as a folder in COCO's form."""

    folder: tyro.conf.Positional[Path]
    """a folder of any layout that --data takes"""
    out: Path
    """the folder to write: a new or an empty one"""
    data: DataConfig
    """Which images and classes, as for train; the folder above takes the place of --data."""
    link: bool = False
    """links to the pictures instead of copies: no space is needed, and they must stay where they are"""


def convert_data(arguments: ConvertDataArguments) -> None:
    """Check the set, write it, and say what was left out."""
    out = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{printable(out)} is there already, and not empty: name another --out")
    if arguments.folder.resolve() in out.resolve().parents:
        raise ValueError(f"{printable(out)} is in {printable(arguments.folder)}: its files would become a part of that "
                         "set; name an --out elsewhere")
    report = write_coco(replace(arguments.data, data=str(arguments.folder)), out, arguments.link)
    print("\n".join(filter(None, (report.layout, report.table() if report.problems else "\n".join(report.splits)))))
    print(f"written to {printable(out)}. Next: {command('python', 'detr_scratch.py', 'train', '--data', out)}")


def write_coco(data: DataConfig, out: Path, link: bool = False) -> Report:
    """Write every split of a set into `out`; pictures that are there whole are left alone. Returns what was found.

    Raises ValueError for a set that training would refuse, before anything is written.
    """
    report = check_dataset(data, sys.maxsize, decode=False)
    report.refuse()
    classes, documents = None, {}
    for split, (folder, source) in find_splits(data).items():
        dataset = CocoDetection(folder, source, Augmentation.for_evaluation(data), classes,
                                data.limit_train if split == "train" else data.limit_val, only=data.classes,
                                as_is=data.as_is, left_out=report.left_out.get(split, ()), reading=data)
        classes = classes or dataset.classes
        files = [dataset.file_of(row) for row in range(len(dataset))]
        document = dataset.ground_truth()
        make_folder(out / split)
        names = short_names(folder, files)
        for image, name in zip(document["images"], names):
            image["file_name"] = name
        for file, name in tqdm(list(zip(files, names)), desc=f"writing {split}", unit="image", disable=None,
                               leave=False):
            _put(file, out / split / name, link)
        documents[split] = document
    make_folder(out / "annotations")
    for split, document in documents.items():
        write_json(out / "annotations" / f"instances_{split}.json", document)
    return report


def short_names(folder: Path, files: Sequence[Path]) -> list[str]:
    """The files' own names, if no two are alike; else with the folders in front of them."""
    names = [file.name for file in files]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [Path(os.path.relpath(file, folder)).as_posix() for file in files]


def _put(file: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == file.stat().st_size:
        return
    if link:
        target.unlink(missing_ok=True)
        target.symlink_to(file.resolve())
        return
    with whole_file(target) as partial:
        shutil.copyfile(file, partial)
