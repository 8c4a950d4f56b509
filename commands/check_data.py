"""check-data: what is wrong with a data set, before it costs a night?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.ranges import QUERIES, refuse_senseless


@dataclass(frozen=True)
class CheckDataArguments:
    """List every problem of a COCO-format data set: its kind, where it is, and what training would do about it."""

    folder: tyro.conf.Positional[Path]
    """a COCO-format folder"""
    data: DataConfig
    """Explicit paths and limits, as for train; the folder above takes the place of --data."""
    num_queries: int = 100
    """images with more boxes than this are reported"""

    def __post_init__(self) -> None:
        refuse_senseless(self, num_queries=QUERIES)


def check_data(arguments: CheckDataArguments) -> None:
    """Print the report; exit with 1 if training would refuse the data."""
    report = check_dataset(replace(arguments.data, data=str(arguments.folder)), arguments.num_queries, decode=True)
    print(report.table(examples=None))
    if any(problem.severity == "refused" for problem in report.problems):
        sys.exit(1)
