"""The profile: its parts add up to the step, it weighs what is kept, leaves nothing behind, names the bottleneck."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scratch.config import Config
from scratch.training.log import RunLog
from scratch.training.loop import fit, train_step
from scratch.training.profile import (
    FORWARD, PARTS, STEPS, TIMED, TRACED, WARM_UP, Marks, Profile, diagnose, memory_of, start_tracer, table,
)
from scratch.training.run import Run
from tests.training.test_loop import Sampler, make_run, random_batch, small_config



def with_parts(**model: object) -> Config:
    """All parts that a step can have."""
    config = small_config(max_steps=STEPS + 2, eval_every=100)
    return replace(config, model=replace(config.model, queries="proposal", classification="focal", fine_memory=True,
                                         roi_features=True, **model))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(with_parts(), tmp_path_factory.mktemp("profiled"))
    sampler, log = Sampler(), RunLog(run.directory)
    assert fit(run, sampler, sampler, log, lambda run: {"AP": 0.0}, profiled=True)
    log.close()
    return run


@pytest.fixture(scope="module")
def result(profiled: Run) -> dict:
    return json.loads((profiled.directory / "profile" / "profile.json").read_text())


def test_every_part_of_the_step_has_a_time(result: dict) -> None:
    assert list(result["seconds"]) == list(PARTS)
    assert all(seconds > 0 for part, seconds in result["seconds"].items() if part != "data wait")


def test_the_parts_add_up_to_the_step_and_a_part_within_a_part_counts_once(monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("scratch.training.profile.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def work(seconds: float) -> None:
        clock[0] += seconds

    marks = Marks(torch.device("cpu"))
    with marks.part("rest"):
        with marks.part("losses"):
            work(1)
            with marks.part("matcher"):
                work(20)
            work(300)
        work(4000)
    assert marks.seconds() == {"rest": 4000, "losses": 301, "matcher": 20} and marks.marks == []


def test_what_is_kept_for_the_backward_pass_is_weighed(result: dict, tmp_path: Path) -> None:
    kept = result["kept_for_backward"]
    assert {"backbone", "encoder", "decoder", "losses"} <= set(kept) and "backward" not in kept
    profile = Profile(make_run(small_config(), tmp_path), on=True)
    x = torch.ones(7, 11, requires_grad=True)
    with profile._weigh("a part"):
        y = (2 * x).exp().exp()  # each exp keeps its result, and the product by a number keeps nothing
        y.sin()  # keeps y, which was counted
    assert profile.kept == {"a part": 2 * 7 * 11 * 4}


def test_the_trace_holds_the_parts_by_name(profiled: Run) -> None:
    (trace,) = (profiled.directory / "profile").glob("*.pt.trace.json")
    names = [event.get("name") for event in json.loads(trace.read_text())["traceEvents"]]
    assert all(names.count(part) >= TRACED for part in (*FORWARD, "matcher", "losses", "backward", "optimizer"))


def test_a_profiled_run_is_the_run_that_it_would_have_been(profiled: Run, tmp_path: Path) -> None:
    plain = make_run(with_parts(), tmp_path)
    sampler, log = Sampler(), RunLog(tmp_path)
    fit(plain, sampler, sampler, log, lambda run: {"AP": 0.0})
    log.close()
    assert plain.step == profiled.step
    theirs = profiled.unwrapped.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.unwrapped.state_dict().items())


def test_nothing_is_left_behind(profiled: Run) -> None:
    assert not any({"forward", "stages"} & set(vars(module)) for module in profiled.unwrapped.modules())
    assert "matching" not in vars(profiled.criterion) and type(profiled.criterion).__name__ == "VariantCriterion"
    assert not {"backward", "step"} & set(vars(profiled.precision))


def test_a_run_that_ends_early_still_gets_the_trace_of_the_steps_that_there_were(tmp_path: Path) -> None:
    run = make_run(small_config(max_steps=WARM_UP + TIMED + 2, eval_every=100), tmp_path)
    sampler, log = Sampler(), RunLog(tmp_path)
    fit(run, sampler, sampler, log, lambda run: {"AP": 0.0}, profiled=True)
    log.close()
    assert len(list((tmp_path / "profile").glob("*.pt.trace.json"))) == 1


@pytest.mark.parametrize("profiled, steps, said", [(True, 2, True), (False, 2, False), (True, STEPS, False)])
def test_a_run_that_is_too_short_for_a_table_says_so(
    profiled: bool, steps: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    sampler, log = Sampler(), RunLog(tmp_path)
    run = make_run(small_config(max_steps=steps, eval_every=100), tmp_path)
    fit(run, sampler, sampler, log, lambda run: {"AP": 0.0}, profiled=profiled)
    log.close()
    assert ("no table from --profile: that takes 13 steps, and 2 were done" in capsys.readouterr().out) == said


def test_memory_is_counted_by_what_stays(tmp_path: Path) -> None:
    run = make_run(small_config(ema_decay=0.9), tmp_path)
    train_step(run, [random_batch(2)])
    memory = memory_of(run)
    weights = 4 * sum(p.numel() for p in run.unwrapped.parameters())
    assert memory["weights"] == memory["gradients"] == weights
    assert memory["moments"] == 2 * weights and memory["running average"] >= weights


MEASURED = {"device": "cpu", "precision": "float32", "steps": 5, "peak_gib": 1.5,
            "seconds": {"data wait": 0.001, "backbone": 0.05, "decoder": 0.02, "backward": 0.1, "rest": 0.029},
            "kept_for_backward": {"backbone": 3 * 2**20}, "memory": {"weights": 2**20, "running average": 0}}


def test_the_table_has_a_line_for_each_part_that_there_is() -> None:
    lines = table(MEASURED).splitlines()
    assert lines[0] == "one step on cpu in float32: 200.0 ms (medians of 5)"
    assert [line.split()[0] for line in lines[2:-1]] == ["data", "backbone", "decoder", "backward", "rest"]
    assert lines[3].split() == ["backbone", "50.0", "25.0%", "3.0", "MiB"]
    assert lines[-1] == "memory: weights 1.0 MiB; the most used so far: 1.50 GiB"


@pytest.mark.parametrize("changed, words", [
    ({}, "Of the forward pass the backbone takes most (25%"),
    ({"data wait": 0.1}, "the loader is the bottleneck: 33% of a step"),
    ({"rest": 0.1}, "the host is the bottleneck: for 37% of a step no part runs"),
    ({"matcher": 0.04, "losses": 0.04}, "matching and losses take 29% of a step"),
    ({"optimizer": 0.1}, "the optimizer takes 33% of a step"),
    ({"backbone": 0.01}, "the decoder takes most"),
])
def test_the_diagnosis_names_the_bottleneck(changed: dict, words: str) -> None:
    assert words in diagnose(MEASURED["seconds"] | changed, workers=2)


def test_a_trace_that_a_full_disk_has_cut_short_is_no_trace_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(self: object, path: str) -> None:  # as the profiler's own writer does, without a word
        Path(path).write_text('{"traceEvents": [{"ph": "X", "na')

    monkeypatch.setattr("torch.profiler.profile.export_chrome_trace", cut)
    run = make_run(small_config(), tmp_path)
    tracer = start_tracer(run)
    with pytest.raises(OSError, match=r"profile/.*pt.trace.json could not be written: No space left on device"):
        tracer.stop()
    assert list((tmp_path / "profile").iterdir()) == []
