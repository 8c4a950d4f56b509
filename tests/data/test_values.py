from __future__ import annotations

import math

import pytest

from scratch.data.values import number, whole, yes


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7 ", "7.0", "007", "+7"])
def test_a_whole_number_is_read_however_it_is_written(value):
    assert whole(value) == 7 and type(whole(value)) is int


@pytest.mark.parametrize("value", [True, False, None, 7.5, "7.5", "", "seven", "7b", "1_000", "٣", "7e0", [7], {},
                                   math.nan, math.inf, -math.inf, 1e300, 2**63, 10**4000, str(2**63), "9" * 10**6])
def test_what_is_no_whole_number_is_none(value):
    assert whole(value) is None


def test_the_largest_and_the_smallest_id_fit():
    assert [whole(value) for value in (2**63 - 1, -2**63, str(2**63 - 1), "-3")] == [2**63 - 1, -2**63, 2**63 - 1, -3]


@pytest.mark.parametrize("value, read", [(2, 2.0), (1.5, 1.5), ("1.5", 1.5), (" -3 ", -3.0), (".5", 0.5), ("2.", 2.0),
                                         ("1e3", 1000.0)])
def test_a_number_is_read_however_it_is_written(value, read):
    assert number(value) == read and type(number(value)) is float


@pytest.mark.parametrize("value", [True, False, "", "1,5", "nan", "NaN", "inf", "Infinity", "12px", "1_0", [1], [], {},
                                   "1" * 10**6])
def test_what_is_no_number_is_none(value):
    assert number(value) is None


@pytest.mark.parametrize("value", [None, math.nan, 10**400, -10**400])
def test_a_gap_is_nan(value):
    assert math.isnan(number(value))


@pytest.mark.parametrize("value", [0, 0.0, False, None, "0", "false", "False", "FALSE", " 0 ", "0.0", "", " "])
def test_no_is_read_however_it_is_written(value):
    assert yes(value) is False


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "true", "True", "TRUE", "1.0"])
def test_yes_is_read_however_it_is_written(value):
    assert yes(value) is True


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", "no", "crowd", "2", [], [0], {}, math.nan, math.inf, 10**400])
def test_what_is_neither_yes_nor_no_is_none(value):
    assert yes(value) is None
