"""Questions: three for each exercise, whose answers the code computes; replies come from any stream of lines."""

from __future__ import annotations

import io
import math

import pytest

from exercises.questions import QUESTIONS, Question, ask, is_right, parsed
from exercises.registry import NAMES, find

ALL = [(name, i) for name in NAMES for i in range(3)]


def replies(name: str, *lines: str) -> tuple[int, str]:
    said = io.StringIO()
    code = ask(find(name), io.StringIO("".join(f"{line}\n" for line in lines)),
               lambda text, flush=False, end="\n": said.write(text + end))
    return code, said.getvalue()


def test_every_exercise_has_three() -> None:
    assert set(QUESTIONS) == set(NAMES) and all(len(three) == 3 for three in QUESTIONS.values())


@pytest.mark.parametrize("name, i", ALL)
def test_every_answer_is_computed_and_counts_as_right(name: str, i: int) -> None:
    question = QUESTIONS[name][i]
    answer = question.answer()
    assert math.isfinite(answer) and is_right(question, answer) and not is_right(question, 1.1 * answer + 10)
    assert question.text.endswith("?") and question.why.endswith(".")
    assert question.answer.__code__.co_names, "an answer is computed, not written down"


@pytest.mark.parametrize("name, i, answer", [
    ("linear", 0, 16), ("linear", 2, 36), ("softmax", 0, 3 / 4), ("attention", 0, 6), ("layer_norm", 2, 4),
    ("max_pool", 0, 56), ("max_pool", 1, -1), ("conv2d", 2, 4), ("batch_norm", 0, 1.7), ("giou", 1, -5 / 63),
    ("hungarian", 0, 5), ("hungarian", 2, 40320), ("matcher", 0, 93), ("matcher", 2, -3), ("criterion", 0, 16.3),
    ("criterion", 2, math.log(3)), ("adamw", 0, 0.01), ("focal_loss", 1, 100), ("cross_entropy", 2, 1.3 / 1.1)])
def test_answers_worked_by_hand(name: str, i: int, answer: float) -> None:
    assert QUESTIONS[name][i].answer() == pytest.approx(answer, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("text, value", [
    ("12", 12), (" 0.5 ", 0.5), ("1e-3", 1e-3), ("1/3", 1 / 3), ("−5/63", -5 / 63), ("526,336", 526336),
    ("1 155 200", 1155200), ("1_000", 1000), ("abc", None), ("", None), ("1/0", None), ("nan", None), ("1,5", None)])
def test_a_reply_may_be_written_in_many_ways(text: str, value) -> None:
    assert parsed(text) == (value if value is None else pytest.approx(value))


def test_right_wrong_and_missing_replies_are_told_apart_and_the_answers_follow() -> None:
    code, said = replies("linear", "16", "3")
    assert code == 1 and said.count("right: 16.") == 1 and "not quite: 526,336." in said and "no reply: 36." in said
    assert said.rstrip().endswith("1 of 3 right; the note: scratch/ops/linear.py")
    assert replies("linear", "16", "526336", "36")[0] == 0


def test_what_is_no_number_is_asked_for_again() -> None:
    code, said = replies("linear", "a lot", "16", "526,336", "36")
    assert code == 0 and "got 'a lot', wanted a number such as 12, 0.5, 1e-3 or 1/3" in said


def test_a_tolerance_is_a_share_of_the_answer() -> None:
    question = Question("?", lambda: abs(200.0), ".", 0.01)
    assert is_right(question, 201.9) and not is_right(question, 202.1)
