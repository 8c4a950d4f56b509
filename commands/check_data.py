"""check-data: what is wrong with a data set, before a training run depends on it?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import tyro

from commands.flags import preset_config
from commands.recipe import chosen_for
from commands.train_arguments import recipe_is_wanted
from scratch.config import Config, DataConfig
from scratch.data.check import check_dataset
from scratch.data.coco import find_splits
from scratch.data.listing import list_folder
from scratch.data.problems import LISTED
from scratch.detector import best_device
from scratch.printable import command, printable
from scratch.ranges import QUERIES, refuse_senseless
from scratch.recipe import applied
from scratch.whole_file import make_folder, refuse_other_than_file, refuse_replacing, write_text

EXAMPLES = 10  # of each kind


@dataclass(frozen=True)
class CheckDataArguments:
    """List every problem of a data set, in any layout: its kind, where it is, and what training would do about it."""

    folder: tyro.conf.Positional[Path]
    """a folder of one of the layouts that --data takes: COCO, YOLO, Pascal VOC, LabelMe, CVAT, VIA, Create ML,
    tables"""
    data: DataConfig
    """Explicit paths and limits, as for train; the folder above takes the place of --data."""
    num_queries: Optional[int] = None
    """images with more boxes than this are reported; None: more than `train --data` would find in one, with the settings
    that it chooses for this data"""
    all: Optional[Path] = None
    """also write every problem to this file, one a line; only the first few of each kind are printed"""

    def __post_init__(self) -> None:
        if self.num_queries is not None:
            refuse_senseless(self, num_queries=QUERIES)


def check_data(arguments: CheckDataArguments) -> None:
    """Print the report; exit with 1 if training would refuse the data."""
    data = replace(arguments.data, data=str(arguments.folder))
    if arguments.all is not None:  # ahead of the work
        refuse_other_than_file(arguments.all)
        make_folder(arguments.all.parent)
        sources = [path for split in find_splits(data).values() for path in split if isinstance(path, Path)]
        refuse_replacing(arguments.all, [*sources, *(arguments.folder / name for name in
                                                     list_folder(arguments.folder).names)])
    report = check_dataset(data, arguments.num_queries or found_by_a_run(data), decode=True, need=("train", data.eval_split),
                           most=LISTED if arguments.all is None else None)
    if report.layout:
        print(report.layout)
    table = report.table(EXAMPLES, classes=True)
    print(table)
    if arguments.all is not None:
        write_text(arguments.all, "".join(f"{problem.severity}: {problem}\n" for problem in report.problems))
        print(f"all of them, one a line: {printable(arguments.all)}")
    elif " more\n" in table:
        print("--all FILE writes every one of them to a file")
    if any(problem.severity == "refused" for problem in report.problems):
        sys.exit(1)
    other_flags = arguments.data != replace(DataConfig(), data=arguments.data.data)
    print(f"Next: {command('python', 'detr_scratch.py', 'train', '--data', arguments.folder)}")
    if other_flags:
        print("      with the flags given here")


def found_by_a_run(data: DataConfig) -> int:
    """The objects that `train --data` finds in one picture at most, with the settings that it chooses for this data here."""
    device = best_device()
    preset = preset_config(None, device)
    if not recipe_is_wanted(None, None, None, preset):
        return preset.most_found
    def with_flags(config: Config) -> Config:
        side = data.short_side if data.short_side != DataConfig().short_side else config.data.short_side
        return replace(config, data=replace(config.data, short_side=side))
    choices = chosen_for(preset, data, device, budget_is_given=False, with_flags=with_flags)[1]
    return with_flags(applied(preset, choices)).most_found
