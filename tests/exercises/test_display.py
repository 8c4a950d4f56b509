"""Input, wanted and got: short, aligned, with marks below what differs."""

from __future__ import annotations

import torch

from exercises.display import FEW, difference, inputs, number, shown


def test_a_short_tensor_is_shown_whole_and_a_long_one_by_its_shape() -> None:
    assert shown(torch.tensor([[1.0, 2.5], [-3.0, 1 / 3]])) == "[[1, 2.5], [-3, 0.3333]]"
    assert shown(torch.zeros(FEW + 1)) == f"float32 of shape ({FEW + 1},)"
    assert shown(torch.zeros(0, 3)) == "empty, of shape (0, 3)"


def test_numbers_are_short_and_special_ones_have_their_signs() -> None:
    assert [number(x) for x in (3.0, 0.123456, 1e-9, float("nan"), float("inf"), float("-inf"), True)] == [
        "3", "0.1235", "1e-09", "NaN", "∞", "-∞", "True"]


def test_inputs_stand_below_each_other_and_what_is_none_is_left_out() -> None:
    assert inputs({"x": torch.tensor([1.0]), "weight": torch.tensor([[2.0]]), "bias": None}) == [
        "x      = [1]", "weight = [[2]]"]


def test_wanted_and_got_are_aligned_and_what_differs_is_marked() -> None:
    assert difference(torch.tensor([11.5, 17.0, -1.0]), torch.tensor([11.0, 17.0, -2.0])) == [
        "wanted   11.5  17  -1", "got      11    17  -2", "         ^^^^      ^^"]


def test_only_the_rows_that_differ_are_shown_and_how_many_numbers_differ() -> None:
    lines = difference(torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [0.0, 7.0], [0.0, 0.0]]))
    assert lines == ["at [1]", "wanted   0  0", "got      0  7", "            ^",
                     "1 of 6 numbers differ (shape (3, 2))"]


def test_of_a_long_tensor_the_first_row_that_differs_is_shown_near_the_place() -> None:
    wanted, got = torch.zeros(4, 50), torch.zeros(4, 50)
    got[2, 30] = 1
    lines = difference(wanted, got)
    assert lines[0] == "at [2]" and lines[2].startswith("got      … 0  0  1") and lines[-1].startswith("1 of 200")


def test_small_differences_get_the_digits_that_it_takes_to_see_them() -> None:
    lines = difference(torch.tensor([1.0], dtype=torch.float64), torch.tensor([1 + 1e-7], dtype=torch.float64))
    assert lines[0] == "wanted   1" and lines[1].startswith("got      1.0000001")


def test_other_shapes_and_missing_tensors_are_said() -> None:
    assert difference(torch.zeros(2), torch.zeros(1))[-1] == "shapes   wanted (2,), got (1,)"
    assert difference(torch.zeros(1), None) == ["wanted   [0]", "got      None"]


def test_a_wrong_dtype_is_shown_without_the_numbers_which_are_right() -> None:
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert difference(numbers, numbers.float()) == ["dtype    wanted float64, got float32; the numbers are right"]
    assert difference(numbers, numbers.float(), expected=torch.bfloat16) == [
        "dtype    wanted bfloat16, got float32; the numbers are right"]
    assert "dtype" not in " ".join(difference(numbers, numbers.float(), expected=torch.float32))
