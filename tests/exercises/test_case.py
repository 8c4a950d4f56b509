"""Cases: what an operation answers, what it changes, how long it may take, and when an answer is right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from exercises.case import (
    Case, Mistyped, agrees, answer, close, draw, outcome, rounding, several, time_limit, wanted, wrong_names)


def grading(reference=lambda x: {"y": x * 2}) -> SimpleNamespace:
    return SimpleNamespace(run=lambda operation, **inputs: {"y": operation(**inputs)}, reference=reference)


def case(**more) -> Case:
    return Case("value", "", lambda: {"x": draw(2, 3)}, **more)


def test_draws_are_the_same_every_time_and_easy_to_read() -> None:
    assert torch.equal(draw(3, 2), draw(3, 2)) and torch.equal(draw(5) * 10, (draw(5) * 10).round())


def test_an_answer_that_equals_the_reference_is_right_and_another_is_named() -> None:
    right = wanted(case(), grading())
    assert wrong_names(case(), right, outcome(case(), grading(), lambda x: x + x)) == []
    assert wrong_names(case(), right, outcome(case(), grading(), lambda x: x * 3)) == ["y"]


def test_an_answer_worked_by_hand_is_taken_in_place_of_the_reference() -> None:
    assert wanted(case(wanted={"y": torch.tensor(1.0)}), grading())["y"] == 1


def test_gradients_are_those_of_autograd_and_none_where_the_way_is_cut() -> None:
    asked = case(gradient=("x",))
    got = outcome(asked, grading(), lambda x: x * 2).answers
    assert close(got["gradient of x"], wanted(asked, grading())["gradient of x"])
    assert outcome(asked, grading(), lambda x: x.detach() * 2).answers == {"gradient of x": None}


def test_a_changed_input_is_noticed_unless_it_should_change() -> None:
    assert outcome(case(), grading(), lambda x: x.mul_(2)).changed == ("x",)
    assert outcome(case(mutable=("x",)), grading(), lambda x: x.mul_(2)).changed == ()


def test_an_error_is_kept() -> None:
    assert isinstance(outcome(case(), grading(), lambda x: {}["no"]).error, KeyError)


def test_what_does_not_end_is_stopped() -> None:
    def endless(x):
        while True:
            pass

    assert isinstance(outcome(case(), grading(), endless, 0.2).error, TimeoutError)


def test_a_limit_leaves_no_alarm_behind() -> None:
    import signal

    with time_limit(20):
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def test_low_precision_is_held_by_units_of_the_last_place_and_by_dtype() -> None:
    asked = case(dtype=torch.bfloat16)
    right = wanted(asked, grading())["y"]
    assert right.dtype == torch.float64
    assert agrees(asked, right, right.bfloat16()) and not agrees(asked, right, right.float())
    assert not agrees(asked, right, (right * 1.1).bfloat16())
    assert rounding(torch.tensor([1.0]), torch.tensor([float("inf")])) == float("inf")


def test_the_dtype_of_float64_cases_counts_too() -> None:
    assert not agrees(case(), torch.ones(2).double(), torch.ones(2))


def test_results_of_another_kind_are_refused_in_words() -> None:
    for result, said in ((None, "None: is there a return"),
                         (torch.ones(2, 3), r"a tensor of shape \(2, 3\)"), (3, "int")):
        with pytest.raises(Mistyped, match=f"wanted 2 results .output, weights., got {said}"):
            several(result, "output", "weights")


def test_the_truth_of_a_case_of_low_precision_is_computed_in_float64() -> None:
    seen = []
    answer(case(dtype=torch.float16), lambda x: seen.append(x.dtype) or {"y": x}, wide=True)
    assert seen == [torch.float64]
