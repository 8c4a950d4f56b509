"""hungarian: which one-to-one assignment has the smallest sum of costs?

    minimise  Σ_i cost[i][σ(i)]   over all σ that give each of n rows its own column,  n ≤ m columns

    cost n×m → σ, n columns                 (more rows than columns: transpose the matrix)

            query 0   query 1   query 2      Greedy gives the cat query 0 for 1, and the dog is
    cat        1         2         8         left with 9: 10 in all. The optimum:
    dog        3         9         9         cat → query 1, dog → query 0, 2 + 3 = 5.

This is minimum-cost bipartite matching, solved by the Hungarian algorithm (Kuhn 1955), here as
shortest augmenting paths (Tomizawa 1971). It does not try every assignment. Give each row a number
u_i and each column a number v_j ≤ 0 (*dual variables, potentials*), with u_i + v_j ≤ cost[i][j]
everywhere. Summed over its pairs, every assignment costs at least Σu + Σv. One whose pairs all have
*reduced cost* cost[i][j] − u_i − v_j = 0, and whose unused columns have v_j = 0, costs exactly
that, so none is cheaper. The algorithm keeps u and v valid and assigns one row at a time.

Same optimum as scipy.optimize.linear_sum_assignment; proven in tests/ops/test_hungarian.py.
Read: assign_brute_force (the definition) → assign_by_potentials (the algorithm, O(n²m))
      → linear_sum_assignment (checks, any shape; training uses the faster ops/fast/hungarian)
"""

from __future__ import annotations

from itertools import permutations
from math import inf, isfinite
from typing import Sequence

from torch import Tensor

from scratch.ops.fast.hungarian import fast_assignment

Matrix = Sequence[Sequence[float]]


def assign_brute_force(cost: Matrix) -> list[int]:
    """The definition: try all m!/(m−n)! assignments. cost n×m, 1 ≤ n ≤ m → the column of each row."""
    # The oracle of the algorithm below. 8 rows and columns have 40,320 assignments: for small matrices only.
    n, m = len(cost), len(cost[0])
    return list(min(permutations(range(m), n), key=lambda columns: sum(cost[i][j] for i, j in enumerate(columns))))


def assign_by_potentials(cost: Matrix) -> list[int]:
    """The Hungarian algorithm: n shortest augmenting paths, each at most n scans of m columns: O(n²m).

    What changed: rows arrive one by one. The new row may take a column that another row has; that row takes another
    column, and so on, until one takes a free column. Such a chain is an augmenting path. The cheapest is found as
    Dijkstra's algorithm finds a shortest path, since reduced costs are lengths ≥ 0. Why equal: the dual variables
    move so that the whole path ends with reduced cost 0 and none becomes negative, so the proof above holds.

    In the picture: the cat takes query 0. Then the dog's cheapest is query 0 too (3 against 9). The cat's second choice
    costs only 1 more, the dog's 6 more, so the path dog → 0, cat → 1 is the cheapest.

    cost n×m, n ≤ m, no NaN, no −inf → the column of each row. Raises ValueError(rows, columns) if +inf forbids every
    assignment: `rows` have finite costs in too few `columns`.
    """
    n, m = len(cost), len(cost[0])
    u, v = [0] * n, [0] * m                             # dual variables. 0, not 0.0: integers are then solved exactly
    owner = [-1] * m                                    # the row that has column j; −1: free
    for new in range(n):
        distance, previous = [inf] * m, [-1] * m        # shortest path from `new` to j, and the column before j
        scanned = [False] * m
        row, at = new, -1                               # the row being scanned, and the column it was reached by
        while True:
            for j in range(m):                          # does `row` offer a shorter path to column j?
                if not scanned[j]:
                    step = cost[row][j] - u[row] - v[j]  # ≥ 0, except for the new row: there u is still 0
                    if step < distance[j]:              # both are measured with the present dual variables
                        distance[j], previous[j] = step, at
            # Dijkstra: no later path to the nearest column can be shorter, as no step is negative.
            at = min((j for j in range(m) if not scanned[j]), key=distance.__getitem__, default=-1)
            delta = distance[at] if at >= 0 else inf
            if delta == inf:                            # Hall's theorem: these rows share too few columns
                columns = [j for j in range(m) if scanned[j]]
                raise ValueError(sorted([new] + [owner[j] for j in columns]), columns)
            # Raise u of the scanned rows and lower v of their columns by δ: pairs among them keep reduced cost 0, those
            # that lead to other columns lose δ, and the nearest reaches 0. (The first δ sets the new row's u.)
            u[new] += delta
            for j in range(m):
                if scanned[j]:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    distance[j] -= delta
            if owner[at] < 0:                           # a free column: the path is complete
                break
            scanned[at] = True                          # else its row would have to move: scan that row
            row = owner[at]
        while at >= 0:                                  # walk back: each column passes to the row before it
            before = previous[at]
            owner[at] = owner[before] if before >= 0 else new
            at = before
    return _columns(owner, n)


def linear_sum_assignment(cost: Tensor | Matrix) -> tuple[list[int], list[int]]:
    """The cheapest assignment of a matrix of any shape, as scipy.optimize.linear_sum_assignment gives it.

    Args:
        cost: R×C tensor (any device), array, or sequence of rows. +inf forbids a pair.

    Returns:
        (rows, columns): min(R, C) pairs in the order of their rows; one of the optimal assignments, if several are.

    Raises:
        ValueError: rows of unequal length; NaN or −inf (its entry is named); +inf that forbids every complete
            assignment (the rows that compete for too few columns are named).
    """
    # Python's own floats from here on: to index a tensor entry by entry would cost more than the whole solution.
    rows = cost.tolist() if hasattr(cost, "tolist") else cost
    if getattr(cost, "ndim", 2) != 2 or not all(isinstance(row, (list, tuple)) for row in rows):
        raise ValueError("got a cost that is not a matrix; wanted R rows of C numbers each")
    width = len(rows[0]) if rows else 0
    for i, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(f"row {i} has {len(row)} entries, row 0 has {width}; wanted rows of one length")
        if not isfinite(sum(row)):                      # one sum, at the speed of C, checks a whole row
            for j, value in enumerate(row):
                if value != value or value == -inf:
                    raise ValueError(f"cost[{i}][{j}] is {value}; wanted a number or +inf (a forbidden pair)")
    if not width:
        return [], []

    tall = len(rows) > width                            # the algorithm wants n ≤ m: transpose, and swap the two words
    try:
        wide = list(zip(*rows)) if tall else rows
        assigned = fast_assignment(wide)                # None in plain mode (ops/fast)
        assigned = assign_by_potentials(wide) if assigned is None else assigned
    except ValueError as conflict:                      # named in the caller's rows and columns, whichever is longer
        one, other = ("column", "row") if tall else ("row", "column")
        rows, columns = conflict.args
        raise ValueError(f"no complete assignment is finite: {one}s {rows} share {len(columns)} {other}s {columns} "
                         f"with costs below +inf; wanted at least {len(rows)}") from None
    if not tall:
        return list(range(len(rows))), assigned
    pairs = sorted((i, j) for j, i in enumerate(assigned))  # by row, as SciPy orders them
    return [i for i, _ in pairs], [j for _, j in pairs]


def _columns(owner: list[int], n: int) -> list[int]:
    """Turn "who holds column j" into "which column has row i"."""
    columns = [-1] * n
    for j, i in enumerate(owner):
        if i >= 0:
            columns[i] = j
    return columns
