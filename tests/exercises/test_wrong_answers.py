"""Wrong answers of learners: none passes, and the hint names what was done; their right answers pass."""

from __future__ import annotations

import random

import pytest

from exercises.check import grade
from exercises.registry import EXERCISES, NAMES, Exercise
from tests.exercises.wrong_answers import GOOD, RIGHT, SECOND, WRONG, graded, main, named_right, source_of

each = pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)
IDS_OF_DESCRIBE = {"gradient_missing", "none"}


def test_there_are_wrong_answers_for_every_exercise() -> None:
    assert tuple(WRONG) == tuple(RIGHT) == NAMES
    assert min(map(len, WRONG.values())) >= 6
    assert (sum(map(len, WRONG.values())), sum(map(len, SECOND.values()))) == (208, 17)
    assert all(len({wrong.body for wrong in answers}) == len(answers) for answers in WRONG.values())


@each
def test_what_a_hint_may_name_is_in_the_table_of_the_exercise(exercise: Exercise) -> None:
    second = {what for what, *_ in SECOND.get(exercise.name, ())}
    assert {wrong.what for wrong in WRONG[exercise.name]} == set(GOOD[exercise.name]) | second
    for wrong in WRONG[exercise.name]:
        assert wrong.good and wrong.good <= {*exercise.grading.MISTAKES, *IDS_OF_DESCRIBE}, wrong.what


@each
def test_a_straightforward_right_answer_passes(exercise: Exercise) -> None:
    report = grade(exercise.name, source_of(exercise.name, RIGHT[exercise.name]), proofs=False)
    assert report.passed, (report.stage, report.case, report.hint, report.shown)


@pytest.mark.slow
@each
def test_a_straightforward_right_answer_passes_the_proofs(exercise: Exercise) -> None:
    report = grade(exercise.name, source_of(exercise.name, RIGHT[exercise.name]))
    assert report.passed, (report.stage, report.case, report.hint, report.shown)


@each
def test_one_wrong_answer_of_each_exercise_fails_and_is_named(exercise: Exercise) -> None:
    wrong = random.Random(0).choice(WRONG[exercise.name])
    report = grade(exercise.name, source_of(exercise.name, wrong.body), proofs=False)
    assert not report.passed and named_right(wrong, report), (wrong.what, report.mistakes, report.general)


@pytest.mark.slow
def test_every_wrong_answer_fails_and_95_of_100_are_named_right() -> None:
    answers = [(name, wrong, report) for name, wrong, report in graded(NAMES)]
    assert [(name, wrong.what) for name, wrong, report in answers if report.passed] == []
    others = [(name, wrong.what, report.mistakes, report.general) for name, wrong, report in answers
              if not named_right(wrong, report)]
    assert len(others) <= 0.05 * len(answers), others


def test_a_hint_is_right_only_if_it_names_nothing_that_was_not_done() -> None:
    wrong = WRONG["linear"][0]
    report = grade("linear", source_of("linear", wrong.body), proofs=False)
    assert named_right(wrong, report)
    assert not named_right(WRONG["linear"][1], report)
    assert not named_right(wrong._replace(good=frozenset()), report)


def test_the_command_prints_the_share_and_what_was_not_named(capsys) -> None:
    assert main(["linear"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{'linear':21}   8 of   8 named right", f"{'all':21}   8 of   8 named right: 100 %"]
