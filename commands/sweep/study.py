"""study: how do workers share the trials of a study, if any of them may be killed?

    the study   a database: numbers, parameters, reports and outcomes of all trials
    a folder    the runs of the trials that were begun in it; its identity is their `home`

A trial is begun by writing it into the study as running, with the home that it belongs to, in one
transaction. From then on it is either locked by the command that watches it (trial.py), or
was left by one that is dead; then the next command in that folder takes it up. So no trial is lost,
done twice, or counted twice. Commands in one folder choose one after the other, behind a lock. On
several machines two may begin the last trial of the budget at once: the database gives them
different numbers, and the one over the budget steps back.

What a trial draws follows from the seed and its number, not from the order in which workers happen
to ask. (TPE also looks at the trials that are finished by then, and with several workers that does
depend on the clock.)
"""

from __future__ import annotations

import random
import socket
import time
import uuid
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, Iterator, Optional, Protocol

import optuna
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from commands.sweep.search_space import Dimension, changed, settings
from commands.sweep.trial import Outcome, TrialRun, tidy
from scratch.config import Config
from scratch.only_one import claim
from scratch.whole_file import write_text

ALONE = 60  # seconds that one command of a folder may let the others wait: it takes a moment
KEEP = 3  # trials whose best weights and pictures stay: those of the others are removed, or the disk would fill
# Fields that may differ between machines which share a study.
LOCAL = {"data", "train_images", "train_annotations", "val_images", "val_annotations", "workers"}
PRUNERS = {
    # Worse than the median of the finished trials at the same time, once there are five (Golovin et al. 2017, Vizier).
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30),
    # Of those that came to 20 % of the budget one in three goes on, and again at 60 % (ASHA: Li et al., 1810.05934).
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=20, reduction_factor=3),
    # The same with several first stops, for those that rise late (Li et al. 2016, 1603.06560).
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=20, max_resource=100, reduction_factor=3),
    "none": optuna.pruners.NopPruner,
}


class Settings(Protocol):
    """What a study has to be told; the arguments of the sweep."""

    config: Config
    out: Path
    study: Optional[str]
    storage: Optional[str]
    sampler: str
    pruner: str
    metric: str
    trials: Optional[int]
    minutes: Optional[float]
    device: str


class SharedStudy:
    """The trials of a study, for one command in one folder.

    Raises ValueError if the study was begun with other settings.
    """

    def __init__(self, arguments: Settings, space: list[Dimension]) -> None:
        self.arguments, self.space, self.out = arguments, space, arguments.out
        self.name = arguments.study or self.out.resolve().name
        self.defaults = {dimension.name: settings(arguments.config)[dimension.name] for dimension in space}
        self.grid = [dict(zip(self.defaults, values)) for values in product(*(one.listed() for one in space))
                     ] if arguments.sampler == "grid" else []
        limits = [arguments.trials, len(self.grid) if self.grid else None]
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self._alone():
            self.storage = open_storage(arguments.storage or f"sqlite:///{self.out / 'study.db'}")
            optuna.create_study(storage=self.storage, study_name=self.name, direction="maximize", load_if_exists=True)
            self.study = self._view(RandomSampler())
            self.home = self._identity()
            self._refuse_another_plan()
        self.clock = Clock(self.out / "minutes")

    # -- which trials there are ------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All but those that stepped back."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]

    def take(self) -> Optional[TrialRun]:
        """A trial that no worker runs: one that was left in this folder, else a new one; None if all are begun."""
        with self._alone():
            for frozen in self.trials():
                if frozen.state == TrialState.RUNNING and frozen.user_attrs.get("home") == self.home:
                    run = self._run_of(frozen)
                    if run is not None:
                        return run
            if self.limit is not None and len(self.trials()) >= self.limit:
                return None
            if self.arguments.minutes is not None and self.clock.minutes() >= self.arguments.minutes:
                return None
            frozen = self._begin()
            return None if frozen is None else self._run_of(frozen)

    def tell(self, run: TrialRun, outcome: Outcome) -> None:
        """Store what came of a trial, and remove the files that are not needed any more."""
        run.trial.set_user_attr("outcome", asdict(outcome))
        if outcome.state == "complete":
            self.study.tell(run.trial.number, outcome.value)
        else:  # a failed one, too: samplers learn to keep away from what was pruned, and ignore what has failed
            self.study.tell(run.trial.number, state=TrialState.PRUNED)
        run.owner.close()
        self.tidy()

    def tidy(self) -> None:
        """Remove the large files of finished trials, but for the best few. (Again, where a kill came between.)"""
        done = [trial for trial in self.trials() if trial.state.is_finished() and "outcome" in trial.user_attrs]
        done.sort(key=lambda trial: -(trial.user_attrs["outcome"]["value"] or 0.0))
        for place, trial in enumerate(done):
            if trial.user_attrs["home"] == self.home:
                tidy(self._run_dir(trial.number), place < KEEP)

    # -- one of them -----------------------------------------------------------------------------------------------

    def _run_dir(self, number: int) -> Path:
        return self.out / "runs" / f"trial_{number:04d}"

    def _begin(self) -> Optional[FrozenTrial]:
        ticket = uuid.uuid4().hex
        self.study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING,
                                                       user_attrs={"home": self.home, "ticket": ticket}))
        frozen = next(trial for trial in self.trials() if trial.user_attrs.get("ticket") == ticket)
        if self.limit is not None and self._place(frozen.number) >= self.limit:
            optuna.trial.Trial(self.study, frozen._trial_id).set_user_attr("surplus", True)
            self.study.tell(frozen.number, state=TrialState.FAIL)
            return None
        return frozen

    def _run_of(self, frozen: FrozenTrial) -> Optional[TrialRun]:
        """The trial, locked for this command; None if another has it, or has ended it since `frozen` was read."""
        run_dir = self._run_dir(frozen.number)
        run_dir.mkdir(parents=True, exist_ok=True)
        owner = open(run_dir / "owner", "a", encoding="utf-8")
        view = self._view(self._sampler(self._place(frozen.number)))
        if not claim(owner) or (now := view.get_trials(deepcopy=False)[frozen.number]).state.is_finished():
            owner.close()
            return None
        trial = optuna.trial.Trial(view, frozen._trial_id)
        # What was drawn before a kill is kept by `suggest`, and the rest drawn as it would have been.
        values = {dimension.name: dimension.rounded(dimension.suggest(trial)) for dimension in self.space}
        config = changed(self.arguments.config, values)
        trial.set_user_attr("values", values)
        return TrialRun(trial, now.intermediate_values, config, run_dir, self.arguments.metric, self.arguments.device,
                        owner)

    def _place(self, number: int) -> int:
        """The place of a trial among those that count."""
        return sum(trial.number < number for trial in self.trials())

    def _sampler(self, place: int) -> BaseSampler:
        seed = random.Random(f"trial {self.arguments.config.train.seed} {place}").getrandbits(32)
        if self.arguments.sampler == "grid":
            return _fixed(self.grid[place % len(self.grid)], RandomSampler(seed))
        sampler = TPESampler(seed=seed) if self.arguments.sampler == "tpe" else RandomSampler(seed)
        if place == 0 and all(dimension.contains(self.defaults[dimension.name]) for dimension in self.space):
            return _fixed(self.defaults, sampler)
        return sampler

    def _view(self, sampler: BaseSampler) -> optuna.Study:
        """The study with a sampler of its own. (Studies keep what they read for a while, thread by thread.)"""
        return optuna.load_study(study_name=self.name, storage=self.storage, sampler=sampler,
                                 pruner=PRUNERS[self.arguments.pruner]())

    # -- the study and the folder ----------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Commands in this folder pass one after the other."""
        with open(self.out / "sweep.lock", "a", encoding="utf-8") as file:
            until = time.monotonic() + ALONE
            while not claim(file):
                if time.monotonic() > until:
                    raise OSError(f"another sweep in {self.out} has held {file.name} for {ALONE} seconds: has it been "
                                  "stopped (Ctrl-Z), or does the drive not answer?")
                time.sleep(0.05)
            yield

    def _identity(self) -> str:
        """A name that no other folder has, on no machine: paths may look alike, and one folder may have several."""
        path = self.out / "home"
        if not path.exists():
            write_text(path, f"{socket.gethostname()}-{uuid.uuid4().hex}", several=True)
        return path.read_text(encoding="utf-8")

    def _refuse_another_plan(self) -> None:
        plan = {"space": {one.name: one.to_dict() for one in self.space}, "sampler": self.arguments.sampler,
                "metric": self.arguments.metric, "config": self.arguments.config.to_dict()}
        begun = self.study.user_attrs.get("plan")
        if begun is None:
            self.study.set_user_attr("plan", plan)
            return
        old, new = ({name: value for name, value in one.items() if name != "config"} | {
            name: value for part in one["config"].values() if isinstance(part, dict) for name, value in part.items()}
            for one in (begun, plan))
        different = [f"{name} = {old.get(name)}, not {value}" for name, value in new.items()
                     if name not in LOCAL and old.get(name) != value]
        if different:
            raise ValueError(f"the study {self.name!r} was begun with {'; '.join(different)}. All trials of a study "
                             "must be alike: give the flags that it was begun with, or name another --out (or --study)")


def _fixed(values: dict[str, Any], sampler: BaseSampler) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler(values, sampler)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The database of a study; several processes wait for each other there. ValueError if it cannot be opened."""
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}  # seconds; 5 is SQLite's own
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=patience)
    except Exception as error:  # a driver that is missing, a server that is away: each database has its own errors
        raise ValueError(f"cannot open the storage {url!r} ({str(error).splitlines()[0]}); wanted a database that "
                         "SQLAlchemy can reach, as in postgresql://USER:PASSWORD@HOST/NAME (with its driver "
                         "installed), or none for a file in --out") from error


@contextmanager
def databases_said() -> Iterator[None]:
    """What a database cannot do (a full disk, a server that has gone) is an OSError with its own first line."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise OSError(f"the study's database could not be used: {cause}; once that is put right (is the disk full?), "
                      "the same command goes on") from error


class Clock:
    """The minutes that a sweep has taken, over all times that its command ran in this folder."""

    def __init__(self, path: Path) -> None:
        self.path, self._since = path, time.monotonic()
        self._before = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0

    def minutes(self) -> float:
        return self._before + (time.monotonic() - self._since) / 60

    def note(self) -> None:
        """Remember them, for the case that this process is killed."""
        write_text(self.path, f"{self.minutes():.4f}", several=True)
