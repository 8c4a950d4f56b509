"""The assignment solver: the definition on small matrices, SciPy on many, and what it refuses."""

from __future__ import annotations

import re
from math import factorial, inf, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment as scipy_assignment

from benchmarks.hungarian import detr_cost
from scratch.ops.fast.hungarian import assign_fast
from scratch.ops.fast.switch import plain_mode
from scratch.ops.hungarian import assign_brute_force, assign_by_potentials, linear_sum_assignment

SOLVERS = [assign_brute_force, assign_by_potentials, assign_fast]
EXAMPLE = [[1, 2, 8], [3, 9, 9]]  # the picture in the note


@pytest.fixture(params=[False, True], ids=["fast", "plain"])
def mode(request):
    """The solver of ops/fast, and that of the note itself."""
    with plain_mode(request.param):
        yield


def price(cost, columns) -> float:
    return sum(cost[i][j] for i, j in enumerate(columns))


@pytest.mark.parametrize("solve", SOLVERS)
def test_the_cat_steps_aside_for_the_dog_and_both_cost_5_where_greedy_pays_10(solve) -> None:
    assert solve(EXAMPLE) == [1, 0] and price(EXAMPLE, [1, 0]) == 5 and price(EXAMPLE, [0, 1]) == 10


small_wide = st.integers(1, 5).flatmap(lambda n: st.integers(n, 6).flatmap(lambda m: st.lists(
    st.lists(st.integers(-4, 4), min_size=m, max_size=m), min_size=n, max_size=n)))


@given(small_wide)
def test_both_algorithms_reach_the_optimum_of_the_definition(cost) -> None:
    best = price(cost, assign_brute_force(cost))
    for solve in (assign_by_potentials, assign_fast):
        columns = solve(cost)
        assert len(set(columns)) == len(cost) and price(cost, columns) == best


KINDS = {
    "uniform": lambda rng, R, C: rng.random((R, C)),
    "negative": lambda rng, R, C: -rng.exponential(size=(R, C)),
    "integers with many ties": lambda rng, R, C: rng.integers(-2, 3, (R, C)).astype(float),
    "1e12": lambda rng, R, C: rng.standard_normal((R, C)) * 1e12,
    "all assignments tie": lambda rng, R, C: rng.random((R, 1)) + rng.random((1, C)),
    "all rows alike": lambda rng, R, C: np.repeat(rng.random((1, C)), R, axis=0),
    "forbidden pairs": lambda rng, R, C: np.where(rng.random((R, C)) < 0.4, inf, rng.random((R, C))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_scipys_on_400_matrices_of_one_row_to_both_orientations(mode, kind: str) -> None:
    rng = np.random.default_rng(17)
    for _ in range(400):  # 7 kinds: 2,800 matrices
        cost = KINDS[kind](rng, *rng.integers(1, 14, size=2))
        try:
            expected = cost[scipy_assignment(cost)].sum()
        except ValueError:
            with pytest.raises(ValueError, match="no complete assignment is finite"):
                linear_sum_assignment(cost.tolist())
            continue
        rows, columns = linear_sum_assignment(cost.tolist())
        assert rows == sorted(set(rows)) and len(rows) == len(set(columns)) == min(cost.shape)
        finite = np.abs(cost[np.isfinite(cost)])
        assert abs(cost[rows, columns].sum() - expected) <= 1e-14 * finite.max() * len(rows)


@pytest.mark.parametrize("shape", [(100, 20), (20, 100), (64, 64), (100, 1), (1, 100)])
def test_the_optimum_is_scipys_at_the_size_of_a_detectors_cost(mode, shape: tuple[int, int]) -> None:
    for cost in torch.randn(5, *shape, dtype=torch.float64):
        ours = cost[linear_sum_assignment(cost)].sum()
        torch.testing.assert_close(ours, cost[scipy_assignment(cost)].sum(), rtol=1e-13, atol=0)


def test_where_the_optimum_is_unique_the_pairs_are_scipys_in_scipys_order(mode) -> None:
    cost = torch.rand(23, 7, dtype=torch.float64)
    rows, columns = scipy_assignment(cost)
    assert linear_sum_assignment(cost) == (rows.tolist(), columns.tolist())


@pytest.mark.parametrize("as_input", [list, tuple, np.array, torch.tensor], ids=["list", "tuple", "array", "tensor"])
def test_lists_tuples_arrays_and_tensors_are_taken(as_input) -> None:
    assert linear_sum_assignment(as_input(EXAMPLE)) == ([0, 1], [1, 0])


def test_integers_beyond_float64_are_compared_exactly(mode) -> None:
    big = 2**60
    assert linear_sum_assignment([[big + 1, big], [big, big + 1]]) == ([0, 1], [1, 0])


def test_the_given_matrix_is_left_as_it_was(mode) -> None:
    cost = [[1.0, 2.0, 8.0], [3.0, 9.0, 9.0]]
    linear_sum_assignment(cost)
    assert cost == [[1.0, 2.0, 8.0], [3.0, 9.0, 9.0]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_matrix_has_the_empty_assignment(mode, shape: tuple[int, int]) -> None:
    assert linear_sum_assignment(torch.zeros(shape)) == ([], [])


def test_a_forbidden_pair_is_avoided_at_any_price(mode) -> None:
    assert linear_sum_assignment([[0.0, 5.0], [inf, 1e300]]) == ([0, 1], [0, 1])


def test_numbers_whose_sum_overflows_are_not_taken_for_infinite(mode) -> None:
    assert linear_sum_assignment([[1e308, 1.5e308], [1.5e308, 1.4e308]]) == ([0, 1], [0, 1])


@pytest.mark.parametrize("bad", [nan, -inf])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_nan_and_minus_infinity_are_refused_by_row_and_column(mode, bad: float, shape: tuple[int, int]) -> None:
    cost = torch.rand(shape)
    cost[1, 2] = bad
    cost[0, 0] = inf  # itself allowed, and no hiding place for the other
    with pytest.raises(ValueError, match=re.escape(f"cost[1][2] is {bad}")):
        linear_sum_assignment(cost)


def test_rows_that_compete_for_too_few_columns_are_named(mode) -> None:
    cost = [[1, 2, 3, 4], [inf, inf, 1, inf], [1, 2, 3, 4], [inf, inf, 2, inf]]
    with pytest.raises(ValueError, match=re.escape("rows [1, 3] share 1 columns [2]")):
        linear_sum_assignment(cost)


def test_columns_that_compete_for_too_few_rows_are_named_in_a_tall_matrix(mode) -> None:
    with pytest.raises(ValueError, match=re.escape("columns [1] share 0 rows []")):
        linear_sum_assignment([[1, inf], [2, inf], [3, inf]])


@pytest.mark.parametrize("cost", [[[1, 2], [3]], [1, 2, 3], torch.zeros(2, 3, 4), torch.tensor(1.0), "ab"])
def test_what_is_not_a_matrix_is_refused(cost) -> None:
    with pytest.raises(ValueError, match="wanted"):
        linear_sum_assignment(cost)


class Counted(list):
    """A row that counts how many of its entries were read; a clock would tell of the machine, and of its load."""

    read = 0

    def __iter__(self):
        Counted.read += len(self)
        return super().__iter__()

    def __getitem__(self, column):
        Counted.read += 1
        return super().__getitem__(column)


@pytest.mark.parametrize("spread", [True, False], ids=["spread", "alike"])
def test_each_entry_of_a_detectors_100_by_20_cost_is_read_fewer_than_ten_times(spread: bool, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(31):
        monkeypatch.setattr(Counted, "read", 0)
        assign_fast([Counted(row) for row in detr_cost(100, 20, spread, generator).T.tolist()])
        assert 1 <= Counted.read / (100 * 20) < 10


def test_the_definition_would_try_40320_assignments_of_eight_rows_to_eight_columns() -> None:
    assert factorial(8) == 40_320


def test_the_chain_of_the_note_costs_less_than_making_the_dog_move() -> None:
    (cat, dog) = EXAMPLE
    assert (min(cat), min(dog)) == (cat[0], dog[0]) and (cat[1] - cat[0], dog[1] - dog[0]) == (1, 6)
