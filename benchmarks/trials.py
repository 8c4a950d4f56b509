"""trials: how are many trainings compared, so that a stopped command goes on where it was?

    Trial (variant, budget, seed) ─▶ FOLDER/runs/…/variant-seedN ─▶ result.json ─▶ one row of a table

A trial is one ordinary run of `detr_scratch.py train`, from the preset `tiny` and flags, in a process and a folder of its
own. What `ablation` and `removal` have in common.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Callable, Iterable, Optional, Sequence

import tyro

from commands.children import DETECTOR, Children, error_in
from commands.opening import open_split
from scratch.analysis.learning_curve import read_run
from scratch.analysis.records import believed, read_record
from scratch.config import PRESETS, Config
from scratch.data.coco import find_splits
from scratch.data.loader import ResumableBatchSampler
from scratch.data.transforms import Augmentation
from scratch.printable import command
from scratch.training.checkpoint import latest_checkpoint, load_checkpoint
from scratch.whole_file import write_json

POINTS = 8  # evaluations of a run of so many steps as the command names


@dataclass(frozen=True)
class Trial:
    """One training run: what it is called, the flags that it begins with, the configuration that they make."""

    variant: str
    budget: str
    seed: int
    flags: tuple[str, ...]
    config: Config
    run_dir: Path
    program: tuple[str, ...] = DETECTOR  # the words after "python"

    def __str__(self) -> str:
        return f"{self.run_dir.parent.name}, {self.variant}, seed {self.seed}"

    def is_trained(self) -> bool:
        """The budget is spent and the last weights are judged, as the run's own checkpoint says."""
        last = latest_checkpoint(self.run_dir)
        if last is None:
            return False
        state, train = load_checkpoint(last), self.config.train
        share = state["step"] / train.max_steps if train.max_steps else state["minutes"] / train.max_minutes
        return share >= 1 and not state["evaluation_due"]

    def result(self) -> Optional[dict[str, Any]]:
        """What is kept of the run; None if it is not finished."""
        path = self.run_dir / "result.json"
        return read_record(path, "this benchmark") if path.exists() else None

    def refuse_another(self) -> None:
        """Raise ValueError if the run was begun with another configuration (by other flags, or an earlier preset)."""
        plan = self.run_dir / "plan.json"
        if not plan.exists():
            return
        with believed(plan, "this benchmark"):
            begun = Config.from_dict(read_record(plan, "this benchmark")).to_dict()
        changed = [f"{name} = {begun[part][name]}, not {value}"
                   for part, values in self.config.to_dict().items() if part != "preset"
                   for name, value in values.items() if begun[part][name] != value]
        if changed:
            raise ValueError(f"{self.run_dir} was begun with {'; '.join(changed)}. All runs of a folder must be alike: "
                             "name another --out, or remove that run")

    def begin(self) -> None:
        """Make the run's folder, and note in it the configuration."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.run_dir / "plan.json", self.config.to_dict())


def configuration(flags: Sequence[str]) -> Config:
    """The preset tiny, changed by flags of `detr_scratch.py train`; an unknown flag ends the program with a message."""
    return tyro.cli(Config, default=PRESETS["tiny"], args=flags, config=(tyro.conf.OmitArgPrefixes,))


def epochs_between(config: Config, steps: int) -> int:
    """How many epochs make about an eighth of `steps` optimizer steps; generates the shapes if they are not there."""
    images = len(open_split(config.data, "train", Augmentation.for_evaluation(config.data), config.train.seed))
    batches = len(ResumableBatchSampler(images, config.train.batch_size, seed=0, train=True))
    steps_per_epoch = -(-batches // config.train.accumulate)
    return max(1, round(steps / POINTS / steps_per_epoch))


def run_trial(trial: Trial, children: Children, device: str, jobs: int) -> Optional[dict[str, Any]]:
    """Begin or go on with a run, and judge it; None if it was stopped. RuntimeError if it failed."""
    run_dir, output = trial.run_dir, trial.run_dir / "output.txt"
    where = ["--device", device, "--run-dir", str(run_dir)]
    trial.begin()
    went_well = True
    if not trial.is_trained():
        begun = latest_checkpoint(run_dir) is not None
        went_well = children.run(["train", *(["--resume"] if begun else ["--preset", "tiny", *trial.flags]), *where],
                                 output, trial.program)
        if went_well and not trial.is_trained():
            return None
    tested = "test" in find_splits(trial.config.data)
    if went_well and tested:
        went_well = children.run(["eval", str(run_dir), "--eval-split", "test", "--device", device,
                                  "--json", str(run_dir / "test.json")], output)
    if not went_well:
        raise RuntimeError(f"{trial} failed: {error_in(output)} (all of it is in {output})")
    test = read_record(run_dir / "test.json", "detr_scratch.py eval") if tested else None
    result = as_result(trial, test, jobs)
    (run_dir / "previous.pt").unlink(missing_ok=True)  # nothing will be saved any more, so last.pt is safe
    write_json(run_dir / "result.json", result)
    return result


def as_result(trial: Trial, test: Optional[dict[str, Any]], jobs: int) -> dict[str, Any]:
    """What is kept of a finished run; its command calls the data DATA and the folder of all results OUT."""
    run = read_run(trial.run_dir)
    flags = list(trial.flags)
    if trial.config.data.data != "shapes":
        flags[flags.index("--data") + 1] = "DATA"
    run_dir = "/".join(("OUT", *trial.run_dir.parts[-3:]))
    return {
        "variant": trial.variant, "budget": trial.budget, "seed": trial.seed, "jobs": jobs,
        "command": command("python", *trial.program, "train", "--preset", "tiny", *flags, "--run-dir", run_dir),
        "steps": run["steps"], "seconds": 60 * run["train"]["minutes"][-1],
        "AP": run["evaluation"]["AP"][-1], "AP50": run["evaluation"]["AP50"][-1],
        "evaluation": {name: run["evaluation"][name] for name in ("step", "minutes", "AP", "AP50", "AP75")},
        "test": {name: test[name] for name in ("AP", "AP50", "AP75")} if test else None,
    }


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike Ctrl-C may have come to this process alone."""


def run_all(trials: Sequence[Trial], device: str, jobs: int,
            write: Callable[[list[dict[str, Any]]], None]) -> list[str]:
    """Run what is not finished, `jobs` at a time; `write` gets all results at first and after each. Returns failures."""
    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    for trial in trials:
        trial.refuse_another()
    children = Children(1 if jobs > 1 else None)
    results = {trial: result for trial in trials if (result := trial.result()) is not None}
    failures: list[str] = []

    def note() -> None:
        write([results[trial] for trial in trials if trial in results])

    note()
    before = signal.signal(signal.SIGTERM, terminate)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = {pool.submit(run_trial, trial, children, device, jobs): trial
                       for trial in trials if trial not in results}
            for future in as_completed(waiting):
                trial = waiting[future]
                try:
                    result = future.result()
                except (RuntimeError, ValueError, OSError) as error:  # the others may do better
                    failures.append(str(error))
                    print(f"error: {error}", flush=True)
                    continue
                if result is None:
                    raise KeyboardInterrupt  # a person stopped the run itself
                results[trial] = result
                print(f"{len(results)} of {len(trials)}: {trial}: {result['steps']:,} steps, "
                      f"AP50 {'–' if result['AP50'] is None else format(result['AP50'], '.3f')}", flush=True)
                note()
        except BaseException as error:
            children.stop(isinstance(error, _Terminated))
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    return failures


def conclude(measure: Callable[[], list[str]], page: Path) -> None:
    """Do all that was asked for, and print `page`; a failure, bad input and a stop each end the program in words.

    measure   does it, and returns what failed
    """
    try:
        failures = measure()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    if failures:
        sys.exit(f"error: {len(failures)} runs failed, the same command tries them again:\n" + "\n".join(failures))
    print(page.read_text(encoding="utf-8"))


# -- tables -----------------------------------------------------------------------------------------------------------


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def spread(values: Iterable[Optional[float]], seeds: int, form: str = ".3f") -> str:
    """ "mean ± half range" of what was measured; how many, if that is not all `seeds`; "–" if it is none."""
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    text = format(mean(there), form)
    text += f" ± {(max(there) - min(there)) / 2:{form}}" if len(there) > 1 else ""
    return text + (f" ({len(there)} of {seeds})" if len(there) < seeds else "")
