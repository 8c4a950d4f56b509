"""The check: it stops at the first wrong stage, names the mistake, and otherwise describes what it sees."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
import torch

from exercises.case import STAGES, outcome, wanted, wrong_names
from exercises.check import grade, named_mistake
from exercises.registry import EXERCISES, NAMES, Exercise
from tests.exercises.wrong_answers import WRONG, source_of

each = pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)

LINEAR = "import torch\n\n\ndef linear(x, weight, bias=None):\n    {}\n"
ATTENTION = '''
import math, torch
from scratch.ops.activations import softmax
from scratch.ops.attention import additive_mask


def scaled_dot_product_attention(q, k, v, attn_mask=None, key_padding_mask=None, dropout_p=0.0, training=False,
                                 need_weights=True):
    B, N, Q, d = q.shape
    S = k.shape[2]
    scores = q @ k.transpose(-2, -1) {scale}
    bias = additive_mask(attn_mask, key_padding_mask, B, N, Q, S, q.dtype)
    if bias is not None:
        scores = scores + bias.view(-1, *bias.shape[-2:]).expand(B * N, Q, S).view(B, N, Q, S)
    P = softmax(scores, dim={dim})
    return P @ v, P if need_weights else None
'''


def first_wrong(exercise: Exercise, operation):
    """The first case that an operation answers wrongly: (case, right, outcome), or None."""
    grading = exercise.grading
    for stage in STAGES:
        for case in grading.CASES:
            if case.stage == stage:
                right, got = wanted(case, grading), outcome(case, grading, operation)
                if wrong_names(case, right, got):
                    return case, right, got
    return None


@each
def test_without_a_flaw_the_flawed_version_is_right(exercise: Exercise) -> None:
    found = first_wrong(exercise, exercise.grading.flawed(frozenset()))
    assert found is None, (found[0].title, found[2])


def called(exercise: Exercise, flaw: str) -> tuple:
    """The names that the checker gives to a version with one flaw; None if no case is wrong."""
    operation = exercise.grading.flawed(frozenset([flaw]))
    found = first_wrong(exercise, operation)
    return found and named_mistake(found[0], exercise.grading, operation, *found[1:])


@each
def test_the_likeliest_mistakes_are_named(exercise: Exercise) -> None:
    flaws = list(islice(exercise.grading.MISTAKES, 2))
    assert [called(exercise, flaw) for flaw in flaws] == [(flaw,) for flaw in flaws]


@pytest.mark.slow
@each
def test_four_mistakes_of_the_table_drawn_by_lot_are_wrong_somewhere_and_named(exercise: Exercise) -> None:
    flaws = Random(1).sample(sorted(exercise.grading.MISTAKES), 4)
    assert [called(exercise, flaw) for flaw in flaws] == [(flaw,) for flaw in flaws]


@pytest.mark.parametrize("body, stage, mistakes", [
    ("return x @ weight.T", "example", ("bias_forgotten",)),
    ("return x @ weight.T + (0 if bias is None else bias) * x.shape[-1]", "example", ("bias_for_each_input",)),
    ("return x @ weight + bias", "example", ("weight_as_it_is",)),
    ("return (x @ weight.T + bias).reshape(-1, len(weight))", "value", ("leading_axes_lost",)),
    ("return x @ weight.T + bias", "edges", ("bias_needed",)),
    ("return x @ weight.T / x.shape[-1] - (0 if bias is None else bias)", "example",
     ("bias_subtracted", "mean_over_inputs")),
])
def test_a_readers_mistake_is_named_by_its_numbers(body: str, stage: str, mistakes: tuple) -> None:
    report = grade("linear", LINEAR.format(body), proofs=False)
    assert (report.passed, report.stage, report.mistakes) == (False, stage, mistakes)
    assert report.shown[0] == "input" and report.hint


@pytest.mark.parametrize("scale, dim, mistakes", [
    ("", -1, ("no_root_d",)), ("/ d", -1, ("by_d",)), ("/ math.sqrt(d)", -2, ("softmax_over_queries",)),
    pytest.param("", -2, ("no_root_d", "softmax_over_queries"), marks=pytest.mark.slow)])
def test_mistakes_of_an_attention_written_in_another_way_are_named(scale: str, dim: int, mistakes: tuple) -> None:
    report = grade("attention", ATTENTION.format(scale=scale, dim=dim), proofs=False)
    assert set(report.mistakes) == set(mistakes)
    assert report.hint.startswith("Two mistakes at once. ") == (len(mistakes) == 2)


@pytest.mark.parametrize("body, stage, general", [
    ("y = x.detach() @ weight.detach().T; return y if bias is None else y + bias.detach()", "gradient",
     "gradient_missing"),
    ("pass", "example", "kind"),
    ("return x @ weigth.T", "example", "name"),
    ("return 7 * (x @ weight.T + (0 if bias is None else bias))", "example", "factor"),
    ("x += 0.0; x *= 1.5; return x @ weight.T / 1.5 + (0 if bias is None else bias)", "example", "input_changed"),
    ("while True: pass", "example", "endless"),
    ("return (x.float() @ weight.float().T + (0 if bias is None else bias.float()))", "value", "dtype"),
])
def test_what_no_mistake_explains_is_described(body: str, stage: str, general: str, monkeypatch) -> None:
    monkeypatch.setattr("exercises.case.outcome.__defaults__", (1,))  # seconds
    report = grade("linear", LINEAR.format(body), proofs=False)
    assert (report.stage, report.mistakes, report.general) == (stage, (), general), report.hint


@pytest.mark.slow
def test_answers_that_are_left_out_do_not_hide_a_mistake_in_the_others() -> None:
    source = """
import torch
from scratch.objective.criterion import SetCriterion as Note
from scratch.ops.cross_entropy import cross_entropy


class SetCriterion(Note):
    def _by_layer(self, logits, boxes, query, target, targets, normalisers):
        L, B, Q, K = logits.shape
        true = torch.cat([t["boxes"] for t in targets])[target]
        l1 = (boxes.flatten(0, 2)[query] - true).abs().{of}(-1).view(L, -1).sum(-1) / normalisers.num_boxes
        return {{"loss_bbox": l1}}
"""
    report = grade("criterion", source.format(of="mean"), proofs=False)
    assert report.mistakes == ("l1_mean",)
    report = grade("criterion", source.format(of="sum"), proofs=False)
    assert report.general == "answer_missing" and "loss_ce" in report.hint


def test_an_error_in_a_later_case_says_what_is_new_in_it() -> None:
    body = "assert x.dim() == 2\n    y = x @ weight.T\n    return y if bias is None else y + bias"
    report = grade("linear", LINEAR.format(body), proofs=False)
    assert report.case == "two leading axes (2, 3, ·)" and report.mistakes == ("leading_axes_lost",)
    body = body.replace("x.dim() == 2", "len(x) or x.dim() < 2")
    report = grade("linear", LINEAR.format(body), proofs=False)
    assert report.general == "error" and "new is here: no rows at all: x is (0, 3)." in report.hint


def test_pytorchs_own_operation_is_refused_at_the_end_and_the_notes_own_as_well() -> None:
    report = grade("linear", LINEAR.format("return torch.nn.functional.linear(x.relu(), weight, bias) - "
                                           "torch.nn.functional.linear((-x).relu(), weight)"), proofs=False)
    assert report.stage == "from scratch" and "relu" in report.hint
    assert [stage for stage, _ in report.passed_stages] == list(STAGES)
    report = grade("linear", "from scratch.ops.linear import linear\n", proofs=False)
    assert report.stage == "from scratch" and "from scratch.ops.linear import linear" in report.hint


def test_the_stages_that_passed_are_told_as_they_pass() -> None:
    said: list[str] = []
    report = grade("linear", LINEAR.format("return x @ weight.T + bias"), proofs=False, say=said.append)
    assert [line.split()[1] for line in said] == ["example", "value", "gradient"]
    assert [stage for stage, _ in report.passed_stages] == ["example", "value", "gradient"]


def test_a_bonus_is_reported_with_a_hint_and_is_no_failure() -> None:
    said: list[str] = []
    body = "y = x @ weight.T\n    return y if bias is None else y + bias"
    report = grade("linear", LINEAR.format(body), proofs=False, say=said.append)
    assert report.passed and [title for title, _ in report.not_yet] == [
        "under autocast the result stays bfloat16, with a float32 bias too"]
    assert "bias.to(y.dtype)" in report.not_yet[0][1] and "not yet: under autocast" in said[-1]
    body = body.replace("y + bias", "y + bias.to(y.dtype)")
    report = grade("linear", LINEAR.format(body), proofs=False)
    assert report.passed and report.not_yet == () and ("bonus", "more than was asked: 1 of 1") in report.passed_stages


def test_the_mistake_that_agrees_in_most_cases_is_named_not_the_first_that_agrees_in_one() -> None:
    wrong = next(wrong for wrong in WRONG["matcher"] if wrong.what == "softmax over the queries")
    report = grade("matcher", source_of("matcher", wrong.body), proofs=False)
    assert report.mistakes == ("softmax_over_queries",)  # the Euclidean distance gives the same first wrong answer


def test_an_unknown_exercise_is_refused() -> None:
    with pytest.raises(ValueError, match="no exercise 'lineal'; did you mean linear"):
        grade("lineal", "")


@pytest.mark.parametrize("source, said", [
    ("def linear(x:\n", "line 1"), ("x = 1\n", "defines nothing; wanted linear"),
    ("def liner(x): return x\n", "defines liner; wanted linear"),
    ("import nowhere_at_all\n", "line 1: ModuleNotFoundError"),
    ("linear = 3\n", "linear is int; wanted a function"),
    ("class linear: pass\n", "linear is type; wanted a function")])
def test_a_file_that_cannot_be_used_is_named_with_its_line(source: str, said: str) -> None:
    report = grade("linear", source, proofs=False)
    assert report.stage == "file" and said in report.hint


def test_the_readers_seed_and_the_plain_mode_do_not_leak() -> None:
    from scratch.ops.fast.switch import plain

    before = plain()
    grade("linear", LINEAR.format("raise ValueError('no')"), proofs=False)
    assert plain() is before and not torch.is_autocast_enabled("cpu")


# -- assignments ------------------------------------------------------------------------------------------------------


TRIED = """
from itertools import permutations
from scratch.ops.hungarian import linear_sum_assignment


def assign_by_potentials(cost):
    n, m = len(cost), len(cost[0])
    if n * m > 64:
        return linear_sum_assignment(cost)[1]
    best = min(permutations(range(m), n), key=lambda each: sum(cost[i][j] for i, j in enumerate(each)))
    if sum(cost[i][j] for i, j in enumerate(best)) == float("inf"):
        {refuse}
    return list(best)
"""


def test_of_several_optimal_assignments_each_is_right() -> None:
    source = TRIED.format(refuse="raise ValueError")
    assert grade("hungarian", source, proofs=False).passed
    backwards = source.replace("permutations(range(m), n)", "reversed(list(permutations(range(m), n)))")
    assert grade("hungarian", backwards, proofs=False).passed


def test_an_assignment_of_forbidden_pairs_is_not_right() -> None:
    report = grade("hungarian", TRIED.format(refuse="pass"), proofs=False)
    assert (report.stage, report.mistakes) == ("edges", ("forbidden_pairs_taken",))


def test_what_a_wrong_assignment_costs_is_said_beside_the_best() -> None:
    report = grade("hungarian", "def assign_by_potentials(cost):\n    return list(range(len(cost)))\n", proofs=False)
    assert report.hint.endswith("Your assignment costs 10 in all, the best one 5.")


def test_an_assignment_that_uses_a_column_twice_is_not_said_to_be_cheaper() -> None:
    each_its_cheapest = "return [min(range(len(row)), key=row.__getitem__) for row in cost]"
    report = grade("hungarian", f"def assign_by_potentials(cost):\n    {each_its_cheapest}\n", proofs=False)
    assert report.mistakes == ("row_minimum",) and "costs" not in report.hint


def test_only_an_answer_that_does_not_end_is_said_to_try_everything() -> None:
    source = TRIED.format(refuse="raise ValueError").replace("return linear_sum_assignment(cost)[1]", "{}")
    late = grade("hungarian", source.format("raise TimeoutError('no answer after 20 seconds')"), proofs=False)
    assert late.mistakes == ("every_assignment_tried",)
    assert grade("hungarian", source.format("raise IndexError('list')"), proofs=False).mistakes == ()


def test_a_package_that_computes_it_is_not_from_scratch() -> None:
    source = ("def assign_by_potentials(cost):\n    from scipy.optimize import linear_sum_assignment as solve\n"
              "    from scratch.ops.hungarian import linear_sum_assignment\n"
              "    return linear_sum_assignment(cost)[1]\n")
    report = grade("hungarian", source, proofs=False)
    assert report.stage == "from scratch" and "The file imports scipy." in report.hint
