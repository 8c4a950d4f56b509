"""The table of exercises: in the order of the reading list, complete, and true to the notes and their tests."""

from __future__ import annotations

import pytest

from docs.site.order import reading_order
from exercises.case import STAGES
from exercises.registry import EXERCISES, NAMES, REPOSITORY, Exercise, find
from exercises.stub import note_of

each = pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)


def test_there_are_at_least_sixteen_each_with_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(EXERCISES) >= 16


def test_they_stand_in_the_order_of_the_reading_list() -> None:
    order = [entry.name for entry in reading_order(REPOSITORY)]
    places = [order.index(exercise.note) for exercise in EXERCISES]
    assert places == sorted(places)


@each
def test_note_target_and_tests_are_there(exercise: Exercise) -> None:
    assert callable(exercise.note_itself())
    assert exercise.path.is_file() and all((REPOSITORY / test).is_file() for test in exercise.tests)
    assert all(hasattr(exercise.note_itself(), method) for method in exercise.methods)
    assert isinstance(exercise.note_itself(), type) == bool(exercise.methods)


@each
def test_a_given_helper_belongs_to_the_note_and_not_to_the_answer(exercise: Exercise) -> None:
    note = note_of(exercise)
    assert all(name in note.definitions or name in note.imports for name in exercise.given)
    assert exercise.target not in exercise.given


@each
def test_what_is_not_asked_or_a_bonus_names_tests_that_exist(exercise: Exercise) -> None:
    text = "".join((REPOSITORY / test).read_text("utf-8") for test in exercise.tests)
    for words in (*exercise.not_asked, *exercise.bonus):
        assert words in text, words


@each
def test_every_stage_has_a_case_but_the_gradient_of_what_has_none(exercise: Exercise) -> None:
    stages = {case.stage for case in exercise.grading.CASES}
    without_gradient = {"sine_encoding", "hungarian", "matcher", "adamw"}  # integers, masks, or under no_grad
    assert set(STAGES) - stages == ({"gradient"} if exercise.name in without_gradient else set())
    assert exercise.grading.CASES[0].wanted is not None  # worked by hand


@each
def test_there_are_at_least_eight_typical_mistakes_each_with_a_sentence(exercise: Exercise) -> None:
    mistakes = exercise.grading.MISTAKES
    assert len(mistakes) >= 8 and len(set(mistakes.values())) == len(mistakes)
    assert all(sentence.rstrip(")”").endswith(".") and len(sentence) > 20 for sentence in mistakes.values())


@each
def test_the_mistake_that_an_error_points_at_is_in_the_table(exercise: Exercise) -> None:
    assert {case.on_error for case in exercise.grading.CASES} - {""} <= set(exercise.grading.MISTAKES)


@each
def test_other_ways_are_ways_of_a_mistake_in_the_table(exercise: Exercise) -> None:
    assert set(getattr(exercise.grading, "WAYS", {})) <= set(exercise.grading.MISTAKES)


@each
def test_a_bonus_test_comes_with_a_case_or_stands_for_a_slope_at_the_limits(exercise: Exercise) -> None:
    assert not exercise.bonus or exercise.name == "giou" or any(case.bonus for case in exercise.grading.CASES)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no exercise 'conv'; did you mean conv2d"):
        find("conv")
    with pytest.raises(ValueError, match="wanted one of linear, softmax"):
        find("xyz")
    assert find("layer_norm").target == "layer_norm"
