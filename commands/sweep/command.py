"""sweep: which settings are better than others, and how certain is that?

    python detr_scratch.py sweep --out FOLDER --preset tiny --shapes-train 800 --eval-every 1
        --max-steps 250 --max-minutes None --trials 24
        --space "lr=log:1e-4:1e-2" --space "hidden_dim=96,128,192"
    python detr_scratch.py sweep --out FOLDER --redraw

    sampler ─▶ trial ─▶ run ─▶ best AP ─▶ sampler …        FOLDER/study.db, FOLDER/runs/trial_0007
                         ╰───▶ AP on the way ─▶ pruner

Every trial is an ordinary training run with the flags given here, changed where the space says.
Trial 0 has the values that these flags would have without the sweep, where the space holds them:
there must be something to compare with. Optuna (Akiba et al. 2019, arXiv 1907.10902) draws the
others, ends hopeless ones early and keeps it all in a database.

Stopped or killed at any moment, the same command goes on: what ran is taken up from its checkpoint,
as the same trial. A larger --trials or --minutes takes a sweep further. Several workers: --jobs 2
(one thread each); or the same command several times on one folder (on each GPU, with its --device);
or, on several machines, with a common --storage and a folder each. sweep.json, sweep.md and the
charts are written after each trial.
Read: search_space → trial (one trial) → study (who takes which) → run_all → summary
"""

from __future__ import annotations

import math
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Tuple

import tyro

from commands.children import Children, Terminated, stops_on_termination
from commands.opening import open_split
from commands.sweep.search_space import parse_space
from commands.sweep.study import SharedStudy, databases_said
from commands.sweep.summary import summary, write
from commands.sweep.trial import Outcome, TrialRun
from scratch.analysis.records import believed, read_record
from scratch.analysis.sweep_report import conclusions, in_words
from scratch.config import Config
from scratch.data.coco import find_splits
from scratch.data.loader import ResumableBatchSampler
from scratch.data.transforms import Augmentation
from scratch.printable import counted
from scratch.ranges import COUNT, MINUTES, PROCESSES, Range, refuse_senseless

TICK = 10  # seconds between two notes of the clock
FEW = 4  # evaluations of a run, the last among them: with fewer there is little to end early


@dataclass(frozen=True)
class SweepArguments:
    """Search good settings by many trainings: --space says what varies, every other flag of train holds for all."""

    config: Config
    out: Path
    """folder for the study, its runs and what came of them; the same command goes on there"""
    space: tyro.conf.UseAppendAction[Tuple[str, ...]] = ()
    """what varies, once for each field: FIELD=log:LOW:HIGH, FIELD=LOW:HIGH[:STEP] or FIELD=A,B,C"""
    study: Optional[str] = None
    """its name in the storage; None: that of the folder"""
    storage: Optional[str] = None
    """a database for several machines (postgresql://…); None: FOLDER/study.db, for one machine"""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: ten at random, then near the best; random: each on its own; grid: all combinations, in order"""
    pruner: Literal["median", "halving", "hyperband", "none"] = "median"
    """which trials end early: worse than the median at the same time; not in the best third at 20 and 60 %; …"""
    metric: Literal["AP", "AP50", "AP75"] = "AP"
    """what counts: the best of a run's evaluations"""
    trials: Optional[int] = None
    """the trials of the study in all, those of earlier commands among them (grid: all combinations)"""
    minutes: Optional[float] = None
    """no trial begins after this number, counted over all times that the command ran"""
    jobs: int = 1
    """trials at the same time, one thread each if more than one"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    redraw: bool = False
    """only make report and charts again, from sweep.json in the folder"""

    def __post_init__(self) -> None:
        refuse_senseless(self, trials=COUNT, minutes=Range(0, MINUTES.high), jobs=Range(1, PROCESSES.high))


def sweep(arguments: SweepArguments) -> None:
    """Run the trials that are missing, or only draw again; say what came of them."""
    if arguments.redraw:
        path = arguments.out / "sweep.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: name the folder of a sweep")
        results = read_record(path, "detr_scratch.py sweep")
        with believed(path, "detr_scratch.py sweep"):
            write(results, arguments.out)
    else:
        with databases_said():
            results = run_all(prepared(arguments), arguments.jobs)
    page = arguments.out / "sweep.md"
    print("", *conclusions(results), "", f"{page}: the table, and how to read the charts beside it", sep="\n")


def prepared(arguments: SweepArguments) -> SharedStudy:
    """The study, once all that can be wrong with the command has been looked at."""
    space = parse_space(arguments.space, arguments.config)
    if arguments.sampler != "grid" and arguments.trials is None and arguments.minutes is None:
        raise ValueError("got no end of the sweep, wanted --trials or --minutes (only a grid ends by itself)")
    find_splits(arguments.config.data, need=("train", arguments.config.data.eval_split))  # generated, or refused, once
    refuse_nothing_to_find(arguments.config)
    arguments.out.mkdir(parents=True, exist_ok=True)
    shared = SharedStudy(arguments, space)
    if arguments.pruner != "none" and (count := evaluations(arguments.config)) < FEW:
        print(f"note: a run of {arguments.config.train.max_steps:,} steps is evaluated {count} times, and only there "
              "can it be ended early. Fewer training images to an epoch (--shapes-train, --limit-train), a smaller "
              "--eval-every or more --max-steps give the pruner more to go by")
    return shared


def refuse_nothing_to_find(config: Config) -> None:
    """Raise ValueError for data by which no trial can be better than another, or that no trial would be trained on."""
    data, seed = config.data, config.train.seed
    classes = open_split(data, "train", Augmentation.for_evaluation(data), seed).classes
    judged = open_split(data, data.eval_split, Augmentation.for_evaluation(data), seed, classes)
    if judged.annotations.crowd.all():
        raise ValueError(f"the {data.eval_split} split of {data.data} has no box to find, so that no trial can be "
                         "better than another: name another with --eval-split, or put boxes into it")


def evaluations(config: Config) -> float:
    """How often a run of these flags is evaluated; infinite where no number of steps ends it."""
    train = config.train
    if train.max_steps is None:
        return math.inf
    images = len(open_split(config.data, "train", Augmentation.for_evaluation(config.data), train.seed))
    batches = len(ResumableBatchSampler(images, train.batch_size, seed=train.seed, train=True))
    return math.ceil(train.max_steps / (-(-batches // train.accumulate) * train.eval_every))


def run_all(shared: SharedStudy, jobs: int) -> dict[str, Any]:
    """Run trials, `jobs` at a time, until there is none left to begin; writes the outputs after each."""
    children = Children(1 if jobs > 1 else None)
    waiting: dict[Future[Optional[Outcome]], TrialRun] = {}
    results = note(shared)
    print(beginning(results, shared.out), flush=True)
    with ThreadPoolExecutor(jobs) as pool, stops_on_termination():
        try:
            while True:
                while len(waiting) < jobs and (run := shared.take()) is not None:
                    waiting[pool.submit(run.run, children)] = run
                if not waiting:
                    break
                done, _ = wait(waiting, timeout=TICK, return_when=FIRST_COMPLETED)
                shared.clock.note()
                for future in done:
                    outcome = future.result()
                    run = waiting.pop(future)
                    if outcome is None:
                        raise Terminated  # a person stopped one run itself, and so all
                    shared.tell(run, outcome)
                    results = note(shared)
                    print(progress(results, run.trial.number), flush=True)
        except BaseException as error:
            children.stop(type(error) is not KeyboardInterrupt)
            try:
                if isinstance(error, KeyboardInterrupt):
                    print("\nstopping the trials that run; the same command goes on with them; again to stop at once",
                          flush=True)
                wait(waiting)
                if isinstance(error, KeyboardInterrupt):
                    note(shared)
            except BaseException:
                children.kill()
                raise
            finally:
                for run in waiting.values():  # the same command, in this process too, continues them
                    run.owner.close()
            raise
    return results


def note(shared: SharedStudy) -> dict[str, Any]:
    """Write all that is known by now.

    Another command may share the study and have written about a newer trial since we read. So the study is read again
    after each writing, until its trials are those that were written. Returns what was written last.
    """
    written = summary(shared)
    write(written, shared.out)
    while (now := summary(shared))["trials"] != written["trials"]:
        written = now
        write(written, shared.out)
    return written


def beginning(results: dict[str, Any], folder: Path) -> str:
    """What is about to happen, in a line."""
    there = len(results["trials"])
    wanted = [counted(results["trials_wanted"], "trial")] if results["trials_wanted"] is not None else []
    wanted += [counted(results["minutes_wanted"], "minute")] if results["minutes_wanted"] is not None else []
    return (f"sweep {results['study']} in {folder}: {' or '.join(wanted)} of {', '.join(results['space'])}; sampler "
            f"{results['sampler']}, pruner {results['pruner']}" + (f"; {there} of them are there" if there else ""))


def progress(results: dict[str, Any], number: int) -> str:
    """What came of a trial, in a line."""
    trial = next(trial for trial in results["trials"] if trial["number"] == number)
    ended = sum(trial["state"] != "running" for trial in results["trials"])
    of_all = f" of {results['trials_wanted']}" if results["trials_wanted"] is not None else ""
    figure = "" if trial["value"] is None else f", {results['metric']} {trial['value']:.3f}"
    reason = f" ({trial['reason']})" if trial["reason"] else ""
    return (f"{ended}{of_all}: trial {number}, {in_words(trial['values'])}: {trial['state']}{reason}{figure}, "
            f"{trial['minutes']:.1f} min")
