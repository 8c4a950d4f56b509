"""The sweep: what may be swept, who takes which trial, and that no kill loses or doubles one.

Most runs here are those of a stand-in for `detr_scratch.py train`, which keeps its promises (a log,
a checkpoint after each step, --resume, SIGTERM) and learns nothing, in milliseconds; the last test
uses the real one.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from commands import children
from commands.sweep import study as sweep_study, trial as sweep_trial
from commands.children import Children, Terminated, stops_on_termination
from commands.command_line import OTHER_COMMANDS
from commands.sweep.search_space import changed, differing, parse_space, settings
from commands.sweep.command import SweepArguments, evaluations, note, prepared, run_all, sweep
from commands.sweep.study import SharedStudy
from commands.sweep.summary import importance, summary
from commands.sweep.trial import Evaluations, Outcome, share_of_budget, train_flags
from scratch.config import PRESETS, TrainConfig
from scratch.data.shapes import shapes_dataset
from scratch.only_one import claim

TINY = PRESETS["tiny"]

# Its AP rises evenly to its learning rate; 30 dimensions it refuses. starts.txt gets a line for each process.
# After the step that HOLD names ("trial_0001 3") it stands still until it is told to stop, or `released`.
STAND_IN = '''
import json, os, signal, sys, time, zipfile
words = sys.argv[1:]
value = lambda name, default=None: words[words.index(name) + 1] if name in words else default
run = value("--run-dir")
last, log, pause = os.path.join(run, "last.pt"), os.path.join(run, "log.jsonl"), float(os.environ.get("PAUSE", 0))
state = {"step": 0, "lr": float(value("--lr", 2e-3)), "steps": int(value("--max-steps", 10))}
if "--resume" in words:
    with zipfile.ZipFile(last) as file:
        state = json.loads(file.read("state"))
with open(os.path.join(os.path.dirname(os.path.dirname(run)), "starts.txt"), "a") as file:
    file.write(json.dumps([os.path.basename(run), state["step"], os.getpid()]) + "\\n")
if value("--hidden-dim") == "30":
    sys.exit("error: hidden_dim is 30 with 4 heads; it must be a multiple of nheads")
if os.environ.get("SAYS") and "--resume" not in words:
    sys.exit("error: " + os.environ["SAYS"])
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
lines = open(log).read().split("\\n")[:-1] if os.path.exists(log) else []
lines = [line for line in lines if json.loads(line)["step"] <= state["step"]]
with open(log + ".tmp", "w") as file:
    file.write("".join(line + "\\n" for line in lines))
os.replace(log + ".tmp", log)
with open(log, "a") as file:
    while state["step"] < state["steps"] and not stop:
        time.sleep(pause)
        state["step"] += 1
        ap = state["lr"] * state["step"] / state["steps"]
        record = {"step": state["step"], "epoch": 0, "minutes": state["step"] / 60, "AP": ap, "AP50": ap, "AP75": None}
        for kind in ("step", "evaluation"):
            file.write(json.dumps({"kind": kind, **record}) + "\\n")
        file.flush()
        with zipfile.ZipFile(last + ".partial", "w") as archive:
            archive.writestr("state", json.dumps(state))
        os.replace(last + ".partial", last)
        open(os.path.join(run, "best.pt"), "w").close()
        here = f"{os.path.basename(run)} {state['step']}"
        release = os.path.join(os.path.dirname(os.path.dirname(run)), "go on, " + here)
        while os.environ.get("HOLD") == here and not stop and not os.path.exists(release):
            time.sleep(0.005)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to work in, where the stand-in takes the place of `detr_scratch.py`."""
    shapes_dataset(tmp_path, 2, 1).rename(tmp_path / "set")
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(children, "COMMAND_LINE", tmp_path / "stand_in.py")
    monkeypatch.setattr(sweep_trial, "POLL", 0.01)
    monkeypatch.setattr("commands.sweep.summary.draw", lambda results, folder: None)
    return tmp_path


def arguments(*space: str, **changes: Any) -> SweepArguments:
    config = changed(TINY, {"data": "set", "max_steps": 10, "max_minutes": None, "epochs": 1000})
    return replace(SweepArguments(config, Path("out"), space or ("lr=log:1e-3:1e-1",), device="cpu", pruner="none",
                                  trials=None if changes.get("sampler") == "grid" else 4), **changes)


def starts(out: str = "out") -> list[list]:
    """[trial, the step that it began at, process], in the order in which they began."""
    return [json.loads(line) for line in (Path(out) / "starts.txt").read_text().splitlines()]


def results(out: str = "out") -> dict:
    return json.loads((Path(out) / "sweep.json").read_text())


# -- the space -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, kind, low, high, step", [
    ("lr=log:1e-4:1e-2", "log", 1e-4, 1e-2, None), ("dropout=0:0.3", "even", 0.0, 0.3, None),
    ("num_queries=20:100:30", "even", 20, 80, 30), ("lr-backbone = log:1e-5:1e-3", "log", 1e-5, 1e-3, None),
    ("max_minutes=1:2", "even", 1.0, 2.0, None), ("giou_loss_coef=1:2:0.25", "even", 1.0, 2.0, 0.25),
])
def test_a_range_has_two_ends_and_perhaps_steps(text: str, kind: str, low: float, high: float, step: float) -> None:
    (dimension,) = parse_space([text], TINY)
    assert (dimension.kind, dimension.low, dimension.high, dimension.step) == (kind, low, high, step)
    assert type(dimension.low) is type(low)


@pytest.mark.parametrize("text, values", [
    ("hidden_dim=choice:96,128", (96, 128)), ("dropout=0,0.1", (0.0, 0.1)), ("fine_memory=true,False", (True, False)),
    ("queries=anchor,proposal", ("anchor", "proposal")), ("max_steps=None,1e3", (None, 1000)), ("seed=1,2", (1, 2)),
])
def test_a_list_is_read_as_the_field_is_typed(text: str, values: tuple) -> None:
    (dimension,) = parse_space([text], TINY)
    assert dimension.values == values and list(map(type, dimension.values)) == list(map(type, values))


@pytest.mark.parametrize("text, said", [
    ("learning_rate=1,2", "no field of scratch/config.py is called 'learning_rate'"),
    ("bacth_size=8,16", "did you mean batch_size"), ("weight_dcay=1,2", "did you mean weight_decay"),
    ("data=a,b", "neither a number nor one of several choices"), ("num_classes=3,4", "taken from the data"),
    ("eval_split=val,test", "judged on the same images"), ("lr", "wanted values"), ("lr=", "wanted values"),
    ("lr=log:0:1", "from above 0"), ("lr=2:1", "wanted a range that rises"), ("lr=log:1:2:3", "LOW:HIGH"),
    ("hidden_dim=96.5,128", "wanted a whole number"), ("lr=nan,1", "wanted a number"), ("lr=x,1", "got 'x' for lr"),
    ("fine_memory=true:false", "is no number"), ("queries=anchor,box", "wanted learned or anchor or proposal"),
    ("mosaic=0:1.5", "wanted a chance"), ("batch_size=0,8", "wanted 1 or more"), ("lr=1,1", "each value once"),
    ("num_queries=1:9:0", "in steps above 0"),
])
def test_a_slip_in_the_space_is_named_with_what_was_wanted(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_space([text], TINY)
    assert said in str(error.value) and text.split("=")[0].strip() in str(error.value)


def test_a_field_in_two_spaces_and_no_space_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="got lr twice"):
        parse_space(["lr=1,2", "lr=log:1:2"], TINY)
    with pytest.raises(ValueError, match="got no --space"):
        parse_space([], TINY)


def test_every_number_and_choice_of_the_configuration_can_be_swept() -> None:
    refused = {"num_classes", "eval_split", "limit_val", "shapes_val", "classes",  # what is judged stays
               "data", "train_images", "train_annotations", "val_images", "val_annotations"}  # and where it lies
    for name, value in settings(TINY).items():
        if name in refused:
            continue
        text = {bool: "true,false", str: value, float: "0.5:0.75"}.get(type(value), f"{value},{2 * value}" if value else "1,2")
        assert parse_space([f"{name}={text}"], TINY)[0].name == name


def test_a_drawn_number_has_four_digits_and_stays_in_its_range() -> None:
    (dimension,) = parse_space(["lr=log:0.00012345:1e-2"], TINY)  # (its low end has five)
    assert dimension.rounded(0.00123456) == 0.001235
    assert dimension.rounded(0.00012346) == 0.0001235 and dimension.rounded(0.009999999) == 1e-2
    assert dimension.rounded(0.000123451) == 0.0001235 and dimension.rounded(0.00012344) == 0.00012345  # the low end


def test_the_flags_of_a_trial_make_its_configuration() -> None:
    config = changed(TINY, {"lr": 0.00123, "fine_memory": False, "max_minutes": None, "hidden_dim": 96})
    assert differing(config, TINY) == {"lr": 0.00123, "fine_memory": False, "max_minutes": None, "hidden_dim": 96}
    import detr_scratch
    argv = [*train_flags(config), "--device", "cpu", "--run-dir", "x"]
    assert detr_scratch.parse_train(argv).config == config


# -- one trial -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record, share", [
    ({"step": 5, "epoch": 1, "minutes": 1.0}, 0.5), ({"step": 1, "epoch": 3, "minutes": 1.0}, 0.75),
    ({"step": 1, "epoch": 1, "minutes": 3.6}, 0.9), ({"step": 11, "epoch": 1, "minutes": 0.0}, 1.0)])
def test_the_share_of_a_budget_is_that_of_the_bound_which_ends_the_run(record: dict, share: float) -> None:
    assert share_of_budget(record, TrainConfig(epochs=4, max_steps=10, max_minutes=4.0)) == share


def test_a_log_is_read_as_it_grows_and_again_where_a_resumed_run_wrote_it_anew(tmp_path: Path) -> None:
    log, evaluations = tmp_path / "log.jsonl", Evaluations(tmp_path)
    lines = [json.dumps({"kind": kind, "step": step, "minutes": 0.5}) + "\n" for step in (1, 2)
             for kind in ("step", "evaluation")]
    assert evaluations.read() == []
    log.write_text("".join(lines[:2]) + lines[2][:9])
    assert [record["step"] for record in evaluations.read()] == [1] and evaluations.steps == 1
    with open(log, "a") as file:
        file.write(lines[2][9:] + lines[3])
    assert [record["step"] for record in evaluations.read()] == [1, 2] and evaluations.steps == 2
    (tmp_path / "new").write_text(lines[0])
    (tmp_path / "new").replace(log)
    assert evaluations.read() == [] and evaluations.steps == 1


def test_reports_stand_at_tenths_of_the_budget_on_the_line_between_evaluations(folder: Path) -> None:
    shared = prepared(arguments("lr=0.002,0.003"))
    run = shared.take()
    lines = [{"kind": "evaluation", "step": step, "epoch": 0, "minutes": 0.0, "AP": ap}
             for step, ap in ((4, 0.8), (5, None))]
    (run.run_dir / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:1]))
    run.look()
    assert shared.trials()[0].intermediate_values == pytest.approx({10: 0.2, 20: 0.4, 30: 0.6, 40: 0.8})
    (run.run_dir / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.evaluations._inode = -1
    assert run.look() is False and shared.trials()[0].intermediate_values[50] == 0.0  # None: nothing to find


# -- the sweep -----------------------------------------------------------------------------------------------------


def test_a_grid_covers_every_combination_once_and_a_refused_one_ends_alone(folder: Path) -> None:
    found = run_all(prepared(arguments("lr=0.01,0.02,0.03", "hidden_dim=32,30", sampler="grid")), jobs=2)
    tried = [(trial["values"]["lr"], trial["values"]["hidden_dim"]) for trial in found["trials"]]
    assert sorted(tried) == [(lr, dim) for lr in (0.01, 0.02, 0.03) for dim in (30, 32)]
    for trial in found["trials"]:
        refused = trial["values"]["hidden_dim"] == 30
        assert trial["state"] == ("failed" if refused else "complete")
        assert trial["reason"] == ("hidden_dim is 30 with 4 heads; it must be a multiple of nheads" if refused else "")
        assert trial["value"] == (None if refused else trial["values"]["lr"])
    assert len(starts()) == 6 and found == results()
    assert "hidden_dim is 30 with 4 heads" in Path("out/sweep.md").read_text()


def test_the_first_trial_is_the_default_and_the_others_lie_in_the_space(folder: Path) -> None:
    found = run_all(prepared(arguments("lr=log:1e-3:1e-1", "num_queries=20:60:20")), jobs=1)
    values = [trial["values"] for trial in found["trials"]]
    assert values[0] == {"lr": 2e-3, "num_queries": 40} and found["trials"][0]["is_default"]
    assert all(1e-3 <= one["lr"] <= 1e-1 and one["num_queries"] in (20, 40, 60) for one in values)
    assert len({one["lr"] for one in values}) == 4
    assert f"--lr {values[1]['lr']} " in found["trials"][1]["command"] + " "
    assert found["trials"][1]["evaluation"]["AP"][-1] == values[1]["lr"]  # as the run was told


def test_the_same_command_again_begins_nothing_and_a_larger_budget_goes_on(folder: Path) -> None:
    first = run_all(prepared(arguments(trials=2)), jobs=1)
    assert run_all(prepared(arguments(trials=2)), jobs=1)["trials"] == first["trials"] and len(starts()) == 2
    more = run_all(prepared(arguments(trials=3)), jobs=1)
    assert more["trials"][:2] == first["trials"] and len(more["trials"]) == len(starts()) == 3


def test_no_trial_begins_after_the_minutes_of_all_commands_together(folder: Path) -> None:
    run_all(prepared(arguments(trials=1, minutes=60)), jobs=1)
    Path("out/minutes").write_text("59.99999")
    assert len(run_all(prepared(arguments(trials=None, minutes=60)), jobs=1)["trials"]) <= 2
    Path("out/minutes").write_text("61")
    assert prepared(arguments(trials=9, minutes=60)).take() is None


def test_a_study_that_was_begun_otherwise_is_refused(folder: Path) -> None:
    prepared(arguments())
    with pytest.raises(ValueError, match=r"begun with metric = AP, not AP50. .* name another --out"):
        prepared(arguments(metric="AP50"))
    other = arguments()
    with pytest.raises(ValueError, match=r"begun with seed = 42, not 7"):
        prepared(replace(other, config=changed(other.config, {"seed": 7})))
    with pytest.raises(ValueError, match="begun with space = "):
        prepared(arguments("lr=log:1e-3:1"))
    prepared(replace(other, config=changed(other.config, {"workers": 7}), pruner="median", trials=9))


@pytest.mark.parametrize("changes, said", [
    ({"trials": None}, "no end of the sweep"), ({"trials": 0}, "got trials = 0"), ({"jobs": 0}, "got jobs = 0"),
    ({"minutes": math.nan}, "got minutes = nan"), ({"sampler": "grid"}, "wanted a list, as in"),
    ({"storage": "nonsense://x"}, "cannot open the storage")])
def test_a_command_that_cannot_be_meant_is_refused(folder: Path, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prepared(arguments(**changes))


def test_a_run_that_is_evaluated_too_rarely_to_be_pruned_is_remarked_upon(
    folder: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    often, rarely = ({"max_steps": 10, "eval_every": every, "batch_size": 1} for every in (1, 3))  # 2 steps an epoch
    given = arguments(pruner="median")
    assert [evaluations(changed(given.config, {**values, "accumulate": accumulate})) for values, accumulate in (
        (often, 1), (rarely, 1), (often, 2))] == [5, 2, 10]
    prepared(replace(given, config=changed(given.config, often)))
    assert "note" not in capsys.readouterr().out
    prepared(replace(given, config=changed(given.config, rarely), study="other"))
    assert "a run of 10 steps is evaluated 2 times" in capsys.readouterr().out


def test_data_that_is_not_there_is_refused_before_any_trial(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^There is no nowhere"):
        prepared(replace(arguments(), config=changed(TINY, {"data": "nowhere"})))
    assert not Path("out").exists()


def test_data_at_paths_of_its_own_is_called_by_its_images(folder: Path) -> None:
    paths = {f"{split}_{part}": str(Path("set") / where) for split in ("train", "val") for part, where in (
        ("images", split), ("annotations", f"annotations/instances_{split}.json"))}
    given = arguments()
    shared = prepared(replace(given, config=changed(given.config, {"data": "shapes", **paths})))
    assert summary(shared)["data"] == "train"


def test_the_commands_that_the_page_recommends_set_the_best_beside_the_default_over_seeds(
    folder: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    run_all(prepared(arguments("lr=0.01,0.04,0.002", sampler="grid")), jobs=1)
    commands = [line for line in Path("out/sweep.md").read_text().splitlines() if "--space seed=1,2,3" in line]
    capsys.readouterr()
    for command, lr in zip(commands, ("0.002", "0.040"), strict=True):  # the default first
        name, *words = shlex.split(command)[2:]
        sweep(OTHER_COMMANDS[name][0]([*words, "--device", "cpu"]))
        assert f"AP over 3 seeds: mean {lr} ({lr} to {lr})." in capsys.readouterr().out  # the stand-in has no luck


def test_only_the_best_few_trials_keep_their_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_study, "KEEP", 2)
    found = run_all(prepared(arguments("lr=0.3,0.1,0.2", sampler="grid")), jobs=1)
    there = {path.parent.name: path.name for path in Path("out/runs").rglob("*.pt")}
    assert there == {"trial_0000": "best.pt", "trial_0002": "best.pt"} and len(found["trials"]) == 3


def test_a_sweep_is_drawn_again_from_its_data_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    sweep(arguments(trials=2))
    assert "2 of 2: trial 1, lr " in (said := capsys.readouterr().out) and "Best: trial" in said
    text = Path("out/sweep.md").read_text()
    drawn: list = []
    monkeypatch.setattr("commands.sweep.summary.draw", lambda *given: drawn.append(given))
    for path in (Path("out/sweep.md"), Path("out/study.db")):
        path.unlink()
    sweep(SweepArguments(TINY, Path("out"), redraw=True))
    assert Path("out/sweep.md").read_text() == text and drawn == [(results(), Path("out"))]
    with pytest.raises(FileNotFoundError, match="nowhere/sweep.json does not exist"):
        sweep(SweepArguments(TINY, Path("nowhere"), redraw=True))


def test_what_decides_is_found_once_ten_trials_are_complete_and_differ() -> None:
    def study(values: list[float]) -> optuna.Study:
        space = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("lr", "dropout")}
        made = optuna.create_study(direction="maximize")
        for number, value in enumerate(values):
            params = {"lr": number / 30, "dropout": number * 0.618 % 1}
            made.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=space))
        return made

    found = importance(study([number / 30 for number in range(30)]))  # the metric is the learning rate
    assert sum(found.values()) == pytest.approx(1) and found["lr"] > 0.7 > found["dropout"]
    assert importance(study([0.1] * 12)) is None and importance(study([0.1, 0.2, 0.3])) is None


# -- who takes which -----------------------------------------------------------------------------------------------


def test_a_trial_is_taken_by_one_command_and_by_the_next_when_that_is_gone(folder: Path) -> None:
    one, other = prepared(arguments(trials=1)), prepared(arguments(trials=1))
    run = one.take()
    assert run.trial.number == 0 and other.take() is None
    run.owner.close()  # as the system does when the process ends, however it ends
    assert other.take().trial.number == 0 and len(other.trials()) == 1


def test_a_trial_that_ended_while_another_command_looked_is_not_taken_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = prepared(arguments(trials=1)), prepared(arguments(trials=1))
    run, seen = one.take(), one.trials()
    one.tell(run, Outcome("complete", "", 0.5, 10, 1.0, {}))
    monkeypatch.setattr(other, "trials", lambda: seen)  # it is still running there, and yet unlocked
    assert seen[0].state == TrialState.RUNNING and other.take() is None


def test_a_trial_of_another_folder_is_left_alone_even_where_paths_are_alike(folder: Path) -> None:
    storage = f"sqlite:///{folder / 'common.db'}"
    here = prepared(arguments(trials=3, storage=storage, study="s"))
    here.take().owner.close()  # unlocked, and yet not theirs: its checkpoint is not there
    there = prepared(arguments(trials=3, storage=storage, study="s", out=Path("other")))
    run = there.take()
    assert run.trial.number == 1 and run.run_dir == Path("other/runs/trial_0001")
    assert here.take().trial.number == 0
    rows = summary(there)["trials"]
    assert [row["here"] for row in rows] == [False, True] and [row["state"] for row in rows] == ["running"] * 2


def test_of_two_machines_that_begin_the_last_trial_at_once_one_steps_back(folder: Path) -> None:
    storage = f"sqlite:///{folder / 'common.db'}"
    here = prepared(arguments(trials=1, storage=storage, study="s"))
    there = prepared(arguments(trials=1, storage=storage, study="s", out=Path("other")))
    assert here.take() is not None and there._begin() is None  # both had counted none
    assert [trial.number for trial in there.trials()] == [0]
    assert [trial.state for trial in there.study.get_trials()] == [TrialState.RUNNING, TrialState.FAIL]
    later = prepared(arguments(trials=2, storage=storage, study="s", out=Path("other")))
    assert later.take().trial.number == 2 and len(later.trials()) == 2


def in_a_process(call: Callable[[], Any], pause: float = 0.0, hold: str = "") -> multiprocessing.Process:
    """Begin `call` in a process and process group of its own, in which a step of the stand-in takes so long."""
    def main() -> None:
        os.setpgid(0, 0)
        os.environ["PAUSE"], os.environ["HOLD"] = str(pause), hold
        with suppress(KeyboardInterrupt):
            call()

    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    return process


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def release(hold: str) -> None:
    (Path("out") / f"go on, {hold}").touch()


def step_of(trial: int) -> int:
    log = Path(f"out/runs/trial_{trial:04d}/log.jsonl")
    return len(log.read_text().splitlines()) // 2 if log.exists() else 0


def go() -> None:
    run_all(prepared(arguments(trials=4)), jobs=1)


def test_a_sweep_killed_twice_ends_with_the_same_trials_and_none_lost(folder: Path) -> None:
    process = in_a_process(go, hold="trial_0001 3")
    until(lambda: step_of(1) >= 3)
    os.kill(process.pid, signal.SIGKILL)  # the sweep alone: its run goes on by itself
    process.join()
    process = in_a_process(go, hold="trial_0002 3")
    release("trial_0001 3")
    until(lambda: step_of(2) >= 3)
    os.killpg(process.pid, signal.SIGKILL)  # the sweep and its run
    process.join()
    go()
    found = results()
    assert [(trial["number"], trial["state"], trial["steps"]) for trial in found["trials"]] == [
        (number, "complete", 10) for number in range(4)]
    begun = [(trial, step) for trial, step, _ in starts()]
    assert [trial for trial, step in begun if step == 0] == [f"trial_{number:04d}" for number in range(4)]
    ((resumed, step),) = [(trial, step) for trial, step in begun if step]
    assert resumed == "trial_0002" and step >= 2
    whole = run_all(prepared(arguments(trials=4, out=Path("whole"))), jobs=1)
    assert [trial["values"] for trial in whole["trials"]] == [trial["values"] for trial in found["trials"]]
    assert [trial["evaluation"] for trial in whole["trials"]] == [trial["evaluation"] for trial in found["trials"]]


def test_several_commands_share_a_study_and_no_trial_is_done_twice(folder: Path) -> None:
    def both() -> None:
        run_all(prepared(arguments(trials=9)), jobs=2)

    processes = [in_a_process(both, 0.005) for _ in range(2)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    assert sorted(trial for trial, *_ in starts()) == [f"trial_{number:04d}" for number in range(9)]
    assert [trial["state"] for trial in results()["trials"]] == ["complete"] * 9


def test_what_another_command_tells_while_ours_writes_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ("running", "complete", "complete")
    told = iter([{"trials": [state], "minutes": minutes} for minutes, state in enumerate(states)])
    written: list[dict] = []
    monkeypatch.setattr("commands.sweep.command.summary", lambda shared: next(told))
    monkeypatch.setattr("commands.sweep.command.write", lambda results, folder: written.append(results))
    # The minutes go on between reading and writing: the page has those that are returned.
    assert note(SimpleNamespace(out=Path("out"))) == written[-1] == {"trials": ["complete"], "minutes": 1} and len(written) == 2


def test_a_stopped_sweep_leaves_its_trial_saved_and_unfinished(folder: Path) -> None:
    process = in_a_process(lambda: run_all(prepared(arguments(trials=1)), jobs=1), hold="trial_0000 2")
    until(lambda: step_of(0) >= 2)
    os.kill(process.pid, signal.SIGTERM)  # this process alone: it has to tell its run
    process.join(240)
    stopped_at = step_of(0)
    assert stopped_at == 2 and results()["trials"][0]["state"] == "running"
    found = run_all(prepared(arguments(trials=1)), jobs=1)
    assert [step for _, step, _ in starts()] == [0, stopped_at] and found["trials"][0]["state"] == "complete"


def test_a_run_that_is_killed_goes_on_as_the_same_trial_until_it_is_killed_too_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Children.start
    kills = iter([True, False, True, True, True])

    def start(self: Children, *given: Any) -> subprocess.Popen:
        number, kill = int(given[0][-1][-4:]), next(kills)
        last = step_of(number) + 2  # so that the checkpoint of the step before is there
        self.environment["HOLD"] = f"trial_{number:04d} {last}" if kill else ""
        process = whole(self, *given)
        if kill:
            until(lambda: step_of(number) >= last)
            process.kill()
        return process

    monkeypatch.setattr(Children, "start", start)
    found = run_all(prepared(arguments(trials=2)), jobs=1)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "failed"]
    assert found["trials"][1]["reason"] == "killed 3 times, at last by signal 9"
    assert [trial for trial, *_ in starts()] == ["trial_0000"] * 2 + ["trial_0001"] * 3
    assert starts()[1][1] > 0  # from its checkpoint


@pytest.mark.parametrize("said", [
    "could not save out/runs/trial_0000/last.pt: No space left on device",
    "the shared memory (/dev/shm, 64 MiB) is full, in which the loader's workers hand over their batches"])
def test_a_run_that_the_machine_ended_stops_the_sweep_and_is_tried_again_by_the_next_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str,
) -> None:
    monkeypatch.setenv("SAYS", said)
    with pytest.raises(OSError) as error:
        run_all(prepared(arguments(trials=2)), jobs=1)
    assert str(error.value).startswith(f"trial 0 could not go on: {said}") and len(starts()) == 1
    monkeypatch.delenv("SAYS")
    found = run_all(prepared(arguments(trials=2)), jobs=1)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "complete"]
    assert [trial for trial, *_ in starts()] == ["trial_0000"] * 2 + ["trial_0001"]


def test_a_run_that_could_not_even_say_that_the_disk_is_full_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(f"{path} could not be written: No space left on device; free some space")

    monkeypatch.setenv("SAYS", "")
    run = prepared(arguments("hidden_dim=30,32", sampler="grid")).take()
    monkeypatch.setattr(sweep_trial, "write_text", full)
    with pytest.raises(OSError, match="trial 0 could not go on: .*No space left on device"):
        run.run(Children(1))


def test_a_run_that_lost_a_loaders_worker_is_taken_up_as_one_that_was_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAYS", "a loader's worker (pid 7) was killed, most likely because the memory ran out")
    found = run_all(prepared(arguments(trials=1)), jobs=1)
    assert found["trials"][0]["state"] == "failed" and "(pid 7) was killed" in found["trials"][0]["reason"]
    assert len(starts()) == 3


def test_a_database_that_cannot_be_written_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OperationalError("INSERT …", {}, Exception("database or disk is full"))

    monkeypatch.setattr("commands.sweep.command.prepared", full)
    with pytest.raises(OSError) as error:
        sweep(arguments())
    assert "database or disk is full" in str(error.value) and "\n" not in str(error.value)


def test_the_wait_for_another_command_of_the_folder_has_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_study, "ALONE", 0.1)
    shared = prepared(arguments())
    with open("out/sweep.lock", "a") as file:
        assert claim(file)
        with pytest.raises(OSError, match="has held out/sweep.lock for 0.1 seconds"):
            shared.take()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_termination_of_the_command_alone_is_noticed_and_undone(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Terminated), stops_on_termination():
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert signal.getsignal(number) == before


def good_trials(shared: SharedStudy, count: int) -> None:
    """Finished trials, better at all times than any run here can be."""
    for _ in range(count):
        shared.study.add_trial(optuna.trial.create_trial(
            value=0.9, intermediate_values={tenth: 0.9 for tenth in range(10, 101, 10)},
            system_attrs={"completed_rung_0": 0.9, "completed_rung_1": 0.9},
            user_attrs={"home": shared.home, "values": shared.defaults, "outcome": {
                "state": "complete", "value": 0.9, "steps": 10, "minutes": 1.0, "reason": "",
                "evaluation": {name: [1.0] for name in ("share", "AP", "AP50", "AP75")}}}))


@pytest.mark.parametrize("pruner, earliest", [("median", 30), ("halving", 20), ("hyperband", 20)])
def test_a_hopeless_run_is_stopped_as_soon_as_the_pruner_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, earliest: int,
) -> None:
    monkeypatch.setenv("PAUSE", "0.03")
    monkeypatch.setenv("HOLD", "trial_0005 9")  # however late the pruner looks
    shared = prepared(arguments(trials=6, pruner=pruner))
    good_trials(shared, 5)
    trial = run_all(shared, jobs=1)["trials"][5]
    assert trial["state"] == "pruned" and earliest / 10 <= trial["steps"] < 10
    assert trial["reason"].startswith("ended at ") and trial["reason"].endswith(" % by the pruner")
    assert int(trial["reason"].split()[2]) >= earliest
    assert shared.trials()[5].state == TrialState.PRUNED and not list(Path("out/runs/trial_0005").glob("last.pt"))


def test_a_trial_of_which_the_end_was_not_told_is_told_without_another_run(folder: Path) -> None:
    shared = prepared(arguments(trials=1))
    run = shared.take()
    assert run.run(Children(None)).state == "complete"
    run.owner.close()  # killed before `tell`
    found = run_all(prepared(arguments(trials=1)), jobs=1)
    assert found["trials"][0]["state"] == "complete" and len(starts()) == 1


# -- the real thing ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_run_is_killed_resumed_as_the_same_trial_and_pruned_with_everything_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = {"data": "set", "limit_val": 1, "short_side": 64, "max_size": 96, "batch_size": 2, "workers": 0,
             "dim_feedforward": 48, "enc_layers": 1, "dec_layers": 1, "num_queries": 10, "mosaic": 0.0,
             "max_steps": 40, "max_minutes": None, "epochs": 1000, "eval_every": 4, "checkpoint_every": 1}
    given = arguments("hidden_dim=32,64", pruner="halving", trials=6)
    shared = prepared(replace(given, config=changed(TINY, small)))
    good_trials(shared, 5)
    run = shared.take()
    begin, begun = Children.start, []

    def start(self: Children, *words: Any) -> subprocess.Popen:
        process = begin(self, *words)
        if not begun:
            log = run.run_dir / "log.jsonl"
            until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
            process.kill()
        begun.append(words[0])
        return process

    monkeypatch.setattr(Children, "start", start)
    outcome: Outcome = run.run(Children(1))
    output = (run.run_dir / "output.txt").read_text()
    assert outcome.state == "pruned" and 8 <= outcome.steps < 40 and len(begun) == 2 and "--resume" in begun[1]
    assert f"resuming {run.run_dir} at step" in output and "stopped at step" in output and "everything saved" in output
