"""General words for an answer that no typical mistake explains."""

from __future__ import annotations

import pytest
import torch

from exercises.case import Case, Mistyped, Outcome
from exercises.describe import describe

CASE = Case("value", "", dict)
W = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]], dtype=torch.float64)
IMAGE = torch.arange(1.0, 17.0, dtype=torch.float64).view(1, 1, 4, 4)
BORDER = IMAGE.clone()
BORDER[..., 0] += torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)


def said(wanted, got, case: Case = CASE, name: str = "y") -> str:
    return describe(case, {name: wanted}, Outcome({name: got}), name)[0]


@pytest.mark.parametrize("wanted, got, what", [
    (W, W.T.contiguous(), "axes_swapped"), (W, W[None], "axis_of_one"), (W, W.flatten(), "reshaped"),
    (W, W.sum(0), "reduced"), (W, W[:, None] + W[None], "broadcast"), (W[0], torch.zeros(5).double(), "size"),
    (W, W.float(), "dtype"), (W, W * torch.nan, "nan"), (W, W / 0, "infinite"), (W, W * (1 + 1e-7), "digits"),
    (W, W * 0, "zero"), (W, -W, "sign"), (W, W * 3, "factor"), (W, W + 3, "offset"), (W, W.flip(1), "flipped"),
    (W[:, :2], W[:, :2].T, "axes_swapped"), (W, W.view(3, 2).T.reshape(2, 3), "order"),
    (W, W + torch.tensor([[1.0], [2.0]]), "offset_along"), (W, W * torch.tensor([[2.0], [3.0]]), "factor_along"),
    (IMAGE, BORDER, "border"), (W, W + torch.tensor([[0, 0, 0.5], [0, 0, 7]]), "in_part"), (W, W.sin(), "values"),
    (None, W, "answer_too_many"), (W, None, "answer_missing"),
])
def test_a_difference_has_a_name(wanted, got, what: str) -> None:
    assert said(wanted, got) == what


@pytest.mark.parametrize("factor, name", [(2 ** 0.5, "√2"), (1 / 3, "1/3"), (2 / 3, "2/3"), (11 ** -0.5, "1/√11"),
                                          (0.12345, "0.1235")])
def test_a_factor_is_written_as_a_person_would(factor: float, name: str) -> None:
    assert f"y is {name} times what is wanted" in describe(CASE, {"y": W}, Outcome({"y": W * factor}), "y")[1]


def test_a_gradient_that_is_lost_and_an_input_that_is_changed_are_said() -> None:
    assert said(W, None, name="gradient of x") == "gradient_missing"
    assert describe(CASE, {"y": W}, Outcome({"y": W}, changed=("x",)), None)[0] == "input_changed"


@pytest.mark.parametrize("error, what", [
    (NotImplementedError("write it"), "hole"), (Mistyped("None"), "kind"), (TimeoutError("5 s"), "endless"),
    (TypeError("f() got an unexpected keyword argument 'eps'"), "signature"), (NameError("name 'w'"), "name"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 5x3)"), "shapes"), (KeyError("x"), "error")])
def test_an_error_has_a_name(error: Exception, what: str) -> None:
    assert describe(CASE, {"y": W}, Outcome(error=error), "y")[0] == what


def test_a_variable_without_a_value_is_no_unknown_name() -> None:
    assert describe(CASE, {"y": W}, Outcome(error=UnboundLocalError("x")), "y")[1].startswith("A variable is used before")


def test_low_precision_is_judged_by_dtype_and_digits() -> None:
    case = Case("precision", "", dict, dtype=torch.bfloat16)
    assert said(W, W.float(), case) == "dtype" and said(W, (W * 1.1).bfloat16(), case) == "digits"
