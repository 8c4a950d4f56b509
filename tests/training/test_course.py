"""The course of a run: patience and overfitting follow from its figures, are calm about noise, and survive a stop."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Optional, Sequence

import pytest

from scratch.training.checkpoint import load_checkpoint, save_checkpoint
from scratch.training.course import CLEAR, CLEARLY, FEW, RECENT, Course
from scratch.training.run import Run
from tests.conftest import REPOSITORY
from tests.training.test_loop import fit_quietly, make_run, small_config

NOTE_AP = (.10, .31, .42, .40, .41, .36, .35, .34, .33)  # the example of the note
NOTE_LOSS = (30, 24, 21, 19, 18, 16, 15, 14, 13)


def course_of(aps: Sequence[Optional[float]], losses: Optional[Sequence[float]] = None) -> Course:
    """One step between two evaluations; without losses, they fall."""
    course = Course()
    for step, ap in enumerate(aps, 1):
        course = course.trained(losses[step - 1] if losses else 100.0 - step).judged(step, ap)
    return course


# -- patience ------------------------------------------------------------------------------------------------------


def test_patience_counts_the_evaluations_since_the_best_one():
    assert [course_of(NOTE_AP[:n]).waited() for n in range(1, 10)] == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert [course_of(NOTE_AP[:n]).spent(5) for n in range(1, 10)] == [False] * 7 + [True] * 2


def test_an_equal_ap_is_no_better_one_and_the_first_is_the_best():
    course = course_of((0.3, 0.3, 0.3))
    assert course.best().step == 1 and course.waited() == 2


def test_a_patience_of_nought_never_ends_a_run():
    assert not course_of((0.5, *[0.1] * 50)).spent(0)


@pytest.mark.parametrize("aps", [(0.0, 0.0, 0.0, 0.0), (None, None, None), ()])
def test_a_detector_that_has_found_nothing_yet_is_not_stopped(aps: tuple):
    assert not course_of(aps).spent(1) and course_of(aps).best() is None


def test_patience_ends_a_run_names_the_best_and_a_resumed_run_is_at_its_end(tmp_path: Path):
    aps = iter([0.0, 0.2, 0.1, 0.15, 0.9])
    run = make_run(small_config(max_steps=100, patience=2), tmp_path)
    assert fit_quietly(run, lambda run: {"AP": next(aps)}) and run.ended_early()
    assert (run.step, run.best_ap, run.course.best().step) == (8, 0.2, 4)  # two steps an epoch, four evaluations
    again = make_run(small_config(max_steps=100, patience=2), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert again.complete() and again.ended_early()


def test_a_larger_patience_takes_the_run_further(tmp_path: Path):
    aps = iter([0.2, 0.1, 0.1, 0.3, 0.1, 0.1])
    assert fit_quietly(make_run(small_config(max_steps=12, patience=2), tmp_path), lambda run: {"AP": next(aps)})
    again = make_run(small_config(max_steps=12, patience=3), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert fit_quietly(again, lambda run: {"AP": next(aps)}) and again.step == 12 and not again.ended_early()


def test_a_run_that_is_stopped_and_resumed_ends_where_the_uninterrupted_one_does(tmp_path: Path):
    figures = [0.2, 0.1, 0.25, 0.2, 0.1, 0.1, 0.1]

    def train(folder: Path, *stops: int) -> Course:
        def evaluate(run: Run) -> dict:
            if run.step in stops:
                os.kill(os.getpid(), signal.SIGINT)
            return {"AP": figures[run.epoch - 1]}

        for part in range(len(stops) + 1):
            run = make_run(small_config(max_steps=1000, patience=3), folder)
            if part:
                run.resume(folder / "last.pt")
            assert fit_quietly(run, evaluate) is (part == len(stops))
        assert run.ended_early() and run.step == 12
        return run.course

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    assert train(tmp_path / "whole") == train(tmp_path / "parts", 4, 8)


def test_the_evaluation_that_spends_the_patience_is_known_to_be_the_last_before_it_is_remembered(tmp_path: Path):
    run = make_run(small_config(max_steps=100, patience=1), tmp_path)
    run.batches_per_epoch = 2
    run.course = course_of((0.3,))
    assert run.ends_with(0.2) and not run.ends_with(0.4) and not run.finished()


# -- overfitting ---------------------------------------------------------------------------------------------------


def test_the_notes_example_turns_after_the_ninth_evaluation():
    said = [bool(course_of(NOTE_AP[:n], NOTE_LOSS[:n]).overfitting()) for n in range(1, 10)]
    assert said == [False] * 8 + [True]
    text = course_of(NOTE_AP, NOTE_LOSS).overfitting()
    assert "0.420 at step 3" in text and "from 21.0 to 13.0" in text and "best.pt" in text


def test_where_the_training_loss_rises_too_it_is_no_overfitting():
    assert not course_of(NOTE_AP, (*NOTE_LOSS[:5], 19, 20, 21, 22)).overfits()
    assert not course_of(NOTE_AP, [math.nan] * 9).overfits()  # none was finite


@pytest.mark.parametrize("best", [0.05, 0.2, 0.5, 0.9])
def test_the_fall_must_be_clear_and_last_for_several_evaluations(best: float):
    margin = max(CLEAR, CLEARLY * best)
    assert not course_of((best, *[best - 0.99 * margin] * RECENT)).overfits()
    assert course_of((best, *[best - 1.01 * margin] * RECENT)).overfits()
    assert not course_of((best, *[0.0] * (RECENT - 1))).overfits()
    assert not course_of((best, 0.0, best - 0.99 * margin, 0.0, 0.0)).overfits()


def test_no_measured_run_of_this_project_is_said_to_overfit_by_noise():
    judged = 0
    for file in sorted((REPOSITORY / "hyper_parameter_tuning_charts").glob("*/learning_curve.json")):
        for run in json.loads(file.read_text(encoding="utf-8")):
            aps = run["evaluation"]["AP"]
            judged += len(aps) > RECENT
            assert not any(course_of(aps[:n]).overfits() for n in range(1, len(aps) + 1)), (file, run["name"])
    assert judged >= 5


# -- what is kept --------------------------------------------------------------------------------------------------


def test_the_losses_of_the_first_and_of_the_latest_steps_are_kept_and_those_that_are_not_finite_left_out():
    course = Course()
    for loss in (math.inf, *range(30), math.nan):
        course = course.trained(float(loss))
    assert course.first == tuple(map(float, range(FEW))) and course.latest == tuple(map(float, range(30 - FEW, 30)))
    assert course.judged(30, None).points[0].loss == 14.5
    assert Course().judged(1, 0.5).points[0].loss is None


def test_a_course_survives_a_checkpoint(tmp_path: Path):
    course = course_of((0.1, None, 0.3)).noted("overfitting", "class ids", "overfitting").trained(7.0)
    save_checkpoint(tmp_path / "course.pt", course.state_dict())
    assert Course.from_state(load_checkpoint(tmp_path / "course.pt")) == course
    assert course.said == ("overfitting", "class ids")


def test_a_checkpoint_from_before_the_course_was_kept_goes_on_with_the_ap_of_its_best(tmp_path: Path):
    run = make_run(small_config(patience=2), tmp_path)
    state = run.state_dict() | {"step": 40, "best_ap": 0.5}
    del state["course"], state["config"]["train"]["patience"]
    run.load_state_dict(state)
    assert (run.course.best().step, run.course.best().ap) == (40, 0.5) and not run.course.spent(1)
    run.course = run.course.judged(50, 0.4).judged(60, 0.45)
    assert run.course.spent(2)
    run.load_state_dict(state | {"best_ap": -1.0})
    assert run.course == Course()
