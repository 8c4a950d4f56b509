"""hungarian: who takes which, so that the sum of all costs is smallest?

    minimise  Σ_i cost[i][σ(i)]   over all σ that give each of n rows its own column,  n ≤ m columns

    cost n×m → σ, n columns                 (more rows than columns: turn the matrix on its side)

            query 0   query 1   query 2      Greedy gives the cat query 0 for 1, and the dog is
    cat        1         2         8         left with 9: 10 in all. The optimum gives the dog
    dog        3         9         9         what it needs and lets the cat step aside:
                                             cat → 1, dog → 0, 2 + 3 = 5.

Why a search over n! assignments is not needed: linear-programming duality. Give each row a price
u_i and each column a price v_j with u_i + v_j ≤ cost[i][j] everywhere and v_j ≤ 0. Any assignment
then costs at least Σu + Σv, so one whose pairs all have *reduced cost* cost[i][j] − u_i − v_j = 0,
and whose unused columns have v_j = 0, is optimal: the prices are the proof. The algorithms below
keep the prices valid and add one assigned row at a time, along a cheapest path in reduced costs
(Kuhn 1955; Tomizawa 1971).

Same optimum as scipy.optimize.linear_sum_assignment; proven in tests/ops/test_hungarian.py, and
timed beside it by `python -m benchmarks.hungarian`. For 100×20 each cost is read under 10 times.
Read: assign_brute_force (the definition) → assign_by_potentials (the textbook, O(n²m))
      → assign_fast (bids first, Jonker and Volgenant 1987)
      → linear_sum_assignment (checks, any shape)
"""

from __future__ import annotations

from itertools import permutations
from math import inf, isfinite
from operator import sub
from typing import Sequence

from torch import Tensor

Matrix = Sequence[Sequence[float]]


def assign_brute_force(cost: Matrix) -> list[int]:
    """The definition: try all m!/(m−n)! assignments. cost n×m, 1 ≤ n ≤ m → the column of each row."""
    # The oracle of the two algorithms below. 8 rows and columns have 40,320 assignments: for small matrices only.
    n, m = len(cost), len(cost[0])
    return list(min(permutations(range(m), n), key=lambda columns: sum(cost[i][j] for i, j in enumerate(columns))))


def assign_by_potentials(cost: Matrix) -> list[int]:
    """The textbook's Hungarian algorithm: n shortest paths, each at most n scans of m columns: O(n²m).

    What changed: rows arrive one by one. The new row may take a column that is owned; its owner moves on to
    another, and so on, until one ends at a free column. Among all such chains the cheapest is found as
    Dijkstra finds a shortest path, for reduced costs are lengths ≥ 0. Why equal: the prices move by just so
    much that the whole chain ends with reduced cost 0 and none becomes negative, so the proof above holds.

    In the picture: the cat takes query 0. Then the dog wants it too (3 against 9); the cat's second choice costs it
    only 1 more, the dog's 6 more, so the chain dog → 0, cat → 1 is the cheapest.

    cost n×m, n ≤ m, finite → the column of each row.
    """
    n, m = len(cost), len(cost[0])
    u, v = [0.0] * n, [0.0] * m                         # the prices; a new row's u is put right by its first δ
    owner = [-1] * m                                    # the row that holds column j; −1: free
    for new in range(n):
        distance, previous = [inf] * m, [-1] * m        # cheapest chain from `new` to j, and the column before j
        scanned = [False] * m
        row, at = new, -1                               # the row being scanned, and the column it was reached by
        while True:
            for j in range(m):                          # may `row` offer a shorter way to column j?
                if not scanned[j]:
                    step = cost[row][j] - u[row] - v[j]             # ≥ 0 (new row: + a constant)
                    if step < distance[j]:                          # both count from the present prices
                        distance[j], previous[j] = step, at
            # Dijkstra: no later way to the nearest column can be shorter, for steps are never negative.
            at = min((j for j in range(m) if not scanned[j]), key=distance.__getitem__)
            delta = distance[at]
            # Raise the tree's rows and lower its columns by δ: pairs inside keep reduced cost 0, those that
            # lead out of it come δ nearer, and the nearest reaches 0.
            u[new] += delta
            for j in range(m):
                if scanned[j]:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    distance[j] -= delta
            if owner[at] < 0:                           # a free column: the chain is complete
                break
            scanned[at] = True                          # else its owner would have to move: look at its choices
            row = owner[at]
        while at >= 0:                                  # walk back: each column passes to the row before it
            before = previous[at]
            owner[at] = owner[before] if before >= 0 else new
            at = before
    return _columns(owner, n)


def assign_fast(cost: Matrix) -> list[int]:
    """The version that trains.

    What changed, and why it is equal:
    1. Bids come first. A row without a column takes its cheapest one, cost − v, and lowers that column's price
       v by the lead over its second choice: were the column any dearer, the row would go there instead.
       Reduced costs stay ≥ 0, the pair's own is 0, and only owned columns have v < 0, so the proof holds at
       every moment. Where rows seldom want the same column this is the whole work: two passes over a row at
       the speed of C. (Jonker and Volgenant call it augmenting row reduction.)
    2. The few rows that are left take the textbook's shortest paths, with three savings: u is never stored
       (a pair has reduced cost 0, so u = cost − v of the pair); v is updated once, at the end of a path; and
       of equally near columns a free one is taken, which ends the path at once.

    cost n×m, n ≤ m, no NaN, no −inf → the column of each row. Raises ValueError if +inf forbids every assignment.
    """
    n, m = len(cost), len(cost[0])
    # Part 1: bids. `waiting` is a stack of rows without a column, the first on top; `left` is for part 2.
    v = [0] * m                                         # 0, not 0.0: a matrix of integers is then solved exactly
    owner, column = [-1] * m, [-1] * n
    waiting, left = list(range(n - 1, -1, -1)), []

    for _ in range(2 * n):                              # where costs almost tie, bids creep for ever: stop in time
        if not waiting:
            break
        i = waiting.pop()                               # the loser of the last bid, if there was one
        reduced = list(map(sub, cost[i], v))            # (m,) without u_i, which moves all alike
        best = min(reduced)
        j = reduced.index(best)                         # the cheapest column at the present prices
        reduced[j] = inf                                # cross it out: the minimum is now the second choice
        lead = min(reduced) - best
        loser = owner[j]                                # −1: nobody loses
        if not lead < inf or (loser >= 0 and not lead):  # no second choice (inf or NaN), or a draw with the owner
            left.append(i)                              # a bid of 0 would only swap the two, for ever
            continue
        v[j] -= lead                                    # i is now indifferent between j and its second choice
        owner[j], column[i] = i, j
        if loser >= 0:
            column[loser] = -1
            waiting.append(loser)

    # Part 2: shortest paths for the rest. Columns and distances mean what they mean in the textbook's version.
    for new in left + waiting:
        i, offset = new, 0                              # the row being scanned, and its u_i − low (new row: u_i = 0,
                                                        # which shifts all distances alike); low: how far i is from new
        distance, previous = [inf] * m, [new] * m       # previous: the row that the chain comes from
        todo, done = list(range(m)), []                 # columns not yet scanned, and scanned, of this path
        while True:
            row, low, at = cost[i], inf, -1             # low: the shortest distance; at: where in `todo` it stands
            for place, j in enumerate(todo):            # relax and search in one pass: this is the inner loop
                d = row[j] - v[j] - offset
                if d < distance[j]:                     # shorter by way of i
                    distance[j], previous[j] = d, i
                else:
                    d = distance[j]
                if d < low or (d == low and owner[j] < 0):
                    low, at = d, place
            if low == inf:                              # Hall's theorem: these rows share too few columns
                raise _Infeasible(sorted([new] + [owner[j] for j in done]), sorted(done))
            j = todo[at]
            if owner[j] < 0:                            # free: the path ends here
                break
            todo[at] = todo[-1]                         # order is of no account: the last one fills the gap
            todo.pop()
            done.append(j)
            i = owner[j]
            offset = cost[i][j] - v[j] - low            # u_i = cost − v of the owned pair; low: the way to i
        for k in done:                                  # each δ of the textbook, summed: low − distance[k] in all
            v[k] += distance[k] - low                   # ≤ 0, and only for owned columns: prices stay valid
        while True:                                     # walk back: each row takes j and gives up its own column
            i = previous[j]
            owner[j] = i
            column[i], j = j, column[i]
            if i == new:
                break
    return column


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
        if not isfinite(sum(row)):                      # one sum, at the speed of C, clears a whole row
            for j, value in enumerate(row):
                if value != value or value == -inf:
                    raise ValueError(f"cost[{i}][{j}] is {value}; wanted a number or +inf (a forbidden pair)")
    if not width:
        return [], []

    tall = len(rows) > width                            # the algorithms want n ≤ m: turned, rows and columns swap roles
    try:
        assigned = assign_fast(list(zip(*rows)) if tall else rows)
    except _Infeasible as conflict:                     # named in the caller's rows and columns, whichever way it lay
        one, other = ("column", "row") if tall else ("row", "column")
        crowd, places = conflict.args
        raise ValueError(f"no complete assignment is finite: {one}s {crowd} share {len(places)} {other}s {places} with "
                         f"costs below +inf; wanted at least {len(crowd)}") from None
    if not tall:
        return list(range(len(rows))), assigned
    pairs = sorted((i, j) for j, i in enumerate(assigned))  # by row, as SciPy orders them
    return [i for i, _ in pairs], [j for _, j in pairs]


class _Infeasible(ValueError):
    """Rows (first argument) that have finite costs in fewer columns (second argument) than they are."""


def _columns(owner: list[int], n: int) -> list[int]:
    """Turn "who holds column j" into "which column has row i"."""
    columns = [-1] * n
    for j, i in enumerate(owner):
        if i >= 0:
            columns[i] = j
    return columns
