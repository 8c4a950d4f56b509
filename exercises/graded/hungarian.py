"""hungarian: cases and typical mistakes."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from itertools import permutations
from typing import Any, Callable, Optional

import torch

from exercises.case import Case, Mistyped, draw, kind
from exercises.display import number
from scratch.ops.hungarian import assign_by_potentials as note

inf = math.inf


def run(assign: Callable, cost: list) -> dict:
    """columns, whether each is used once, and their total cost; where no assignment is finite: refused or not.

    Several assignments may have the smallest total. Each of them is right, so each counts as the note's. Where no
    assignment is finite, any ValueError counts as a refusal: its words are not asked.
    """
    best = optimum(tuple(map(tuple, cost)))
    try:
        columns = assign(cost)
    except ValueError:
        if best is not None:
            raise
        return {"a ValueError is raised": torch.tensor(True)}
    if isinstance(columns, torch.Tensor) or not hasattr(columns, "__iter__") or not all(
            isinstance(column, (int, torch.Tensor)) or hasattr(column, "__index__") for column in columns):
        raise Mistyped(f"wanted a list with the column of each row, got {kind(columns)}"
                       + (f": {columns}" if isinstance(columns, (list, tuple)) else ""))
    if best is None:
        return {"a ValueError is raised": torch.tensor(False)}
    columns = [int(column) for column in columns]
    total, once = price(cost, columns), len(set(columns)) == len(columns)
    smallest = price(cost, best)
    allowed = 1e-12 * max(1.0, abs(smallest)) if isinstance(total, float) else 0  # integers are compared exactly
    if once and abs(total - smallest) <= allowed:  # never true of NaN
        columns, total = best, smallest
    return {"columns": torch.tensor(columns), "each column once": torch.tensor(once),
            "total cost": torch.tensor(total, dtype=torch.float64)}


def price(cost: list, columns: list[int]) -> float:
    """The sum of the chosen entries; NaN if they are not one column of the matrix for each row."""
    valid = len(columns) == len(cost) and all(0 <= column < len(cost[0]) for column in columns)
    return sum(cost[i][j] for i, j in enumerate(columns)) if valid else math.nan


@lru_cache(maxsize=None)
def optimum(cost: tuple) -> Optional[list[int]]:
    """The note's assignment; None if every assignment has a forbidden pair. Kept, so that no time of it is measured."""
    try:
        return note(cost)
    except ValueError:
        return None


def in_words(right: dict, answers: dict) -> str:
    """What is said in addition where an assignment is wrong."""
    if "total cost" not in right or "total cost" not in answers or not answers["each column once"]:
        return ""
    yours, best = (number(each["total cost"].item()) for each in (answers, right))
    return f"Your assignment costs {yours} in all, the best one {best}." if yours not in (best, "NaN") else ""


def reference(cost: list) -> dict:
    """The note: torch.nn has no assignment."""
    return run(note, cost)


def table(n: int, m: int, seed: int = 0, scale: float = 1.0) -> dict:
    return {"cost": draw(n, m, seed=seed, scale=scale).add(torch.arange(n * m).view(n, m) * 0.001).tolist()}


CASES = (
    Case("example", "the cat and the dog of the note: greedy pays 1 + 9, the optimum 2 + 3", lambda: {
        "cost": [[1, 2, 8], [3, 9, 9]]}, {"columns": torch.tensor([1, 0]), "each column once": torch.tensor(True),
                                          "total cost": torch.tensor(5.0, dtype=torch.float64)}),
    Case("example", "one row takes its cheapest column", lambda: {"cost": [[4, 2, 7]]}, {
        "columns": torch.tensor([1]), "each column once": torch.tensor(True),
        "total cost": torch.tensor(2.0, dtype=torch.float64)}),
    Case("value", "three rows, three columns", lambda: table(3, 3)),
    Case("value", "a chain: each row has to move on", lambda: {"cost": [[1, 2, 9, 9], [1, 3, 4, 9], [9, 1, 3, 8]]}),
    Case("value", "four rows, six columns", lambda: table(4, 6, seed=1)),
    Case("value", "seven rows, seven columns", lambda: table(7, 7, seed=1)),
    Case("value", "eight rows, eight columns", lambda: table(8, 8, seed=2)),
    Case("value", "ten rows, twenty columns", lambda: table(10, 20, seed=3), on_timeout="every_assignment_tried"),
    Case("edges", "negative costs", lambda: {"cost": [[-5, -1, -4], [-6, -5, -1], [-2, -3, -9]]}),
    Case("edges", "costs below one", lambda: {"cost": [[0.9, 0.2, 0.5], [0.3, 0.1, 0.8], [0.6, 0.4, 0.7]]}),
    Case("edges", "a forbidden pair (+∞) is avoided at any price", lambda: {"cost": [[0.0, 5.0], [inf, 1e300]]},
         told=True),
    Case("edges", "every assignment has a forbidden pair: a ValueError (what it holds is not asked)", lambda: {
        "cost": [[1.0, inf], [2.0, inf]]}, told=True),
    Case("edges", "one row, one column", lambda: {"cost": [[3.0]]}),
    Case("edges", "two assignments are equally cheap: either is right", lambda: {"cost": [[1, 2, 9], [1, 3, 4]]}),
    Case("edges", "large integers are compared exactly", lambda: {"cost": [[2**60 + 1, 2**60], [2**60, 2**60 + 1]]},
         told=True),
    Case("precision", "at the size of a detector: 20 objects, 100 queries", lambda: table(20, 100, seed=4)),
)


WHAT = {"precision": "as many rows and columns as a detector has"}


def attempt(cost: list, *, flaws: frozenset) -> Any:
    n, m = len(cost), len(cost[0])
    c = [list(row) for row in cost]
    if "absolute_costs" in flaws:
        c = [[abs(value) for value in row] for row in c]
    if "squared_costs" in flaws:
        c = [[value * value for value in row] for row in c]
    if "whole_numbers" in flaws:
        c = [[int(value) if math.isfinite(value) else value for value in row] for row in c]
    if "rounded_to_floats" in flaws:
        c = [[float(value) for value in row] for row in c]
    if "most_expensive" in flaws:
        c = [[-value for value in row] for row in c]
    square = "first_columns_alone" in flaws
    if square:
        c = [row[:n] for row in c]
    width = len(c[0])
    if "row_minimum" in flaws:
        columns = [min(range(width), key=row.__getitem__) for row in c]
    elif "column_minimum" in flaws:
        columns = [min(range(n), key=lambda i: c[i][j]) for j in range(width)][:n]
    elif "in_order" in flaws:
        columns = list(range(n))
    elif "greedy_row_by_row" in flaws:
        columns = []
        for row in c:
            columns.append(min((j for j in range(width) if j not in columns), key=row.__getitem__))
    elif "greedy_from_the_last_row" in flaws:
        taken: dict[int, int] = {}
        for i in reversed(range(n)):
            taken[i] = min((j for j in range(width) if j not in taken.values()), key=c[i].__getitem__)
        columns = [taken[i] for i in range(n)]
    elif "greedy_smallest_first" in flaws:
        taken = {}
        for _, i, j in sorted((c[i][j], i, j) for i in range(n) for j in range(width)):
            if i not in taken and j not in taken.values():
                taken[i] = j
        columns = [taken[i] for i in range(n)]
    elif "greedy_column_by_column" in flaws:
        taken = {}
        for j in range(width):
            rows = [i for i in range(n) if i not in taken]
            if rows and (width - j <= len(rows) or c[(best := min(rows, key=lambda i: c[i][j]))][j] == min(c[best])):
                taken[min(rows, key=lambda i: c[i][j])] = j
        columns = [taken.get(i, 0) for i in range(n)]
    elif "largest_regret_first" in flaws:
        taken = {}
        while len(taken) < n:
            def regret(i: int) -> float:
                free = sorted(c[i][j] for j in range(width) if j not in taken.values())
                return free[1] - free[0] if len(free) > 1 else 0.0
            i = max((i for i in range(n) if i not in taken), key=regret)
            taken[i] = min((j for j in range(width) if j not in taken.values()), key=c[i].__getitem__)
        columns = [taken[i] for i in range(n)]
    elif "cheap_columns_alone" in flaws:
        cheap = sorted(range(width), key=lambda j: sum(row[j] for row in c))[:max(n, width // 2)]
        columns = [cheap[j] for j in note([[row[j] for j in cheap] for row in c])]
    elif "every_assignment_tried" in flaws:
        if math.perm(width, n) > 100_000:
            raise TimeoutError("too many assignments")
        columns = list(min(permutations(range(width), n), key=lambda each: sum(c[i][j] for i, j in enumerate(each))))
    elif flaws & {"zeros_taken_greedily", "zeros_taken_greedily:cheapest"}:
        columns = by_zeros(c, "zeros_taken_greedily" not in flaws)
    elif potentials := flaws & TEXTBOOK:
        columns = with_wrong_potentials(c, next(iter(potentials)))
    elif "forbidden_pairs_taken" in flaws:
        columns = note([[1e15 if value == inf else value for value in row] for row in c])
    elif flaws & {"swapped_pairs_once", "swapped_pairs_once:after_greedy"}:
        columns = list(range(n))
        if "swapped_pairs_once" not in flaws:
            columns = attempt(c, flaws=frozenset(["greedy_row_by_row"]))
        for i in range(n):
            for k in range(i + 1, n):
                if c[i][columns[k]] + c[k][columns[i]] < c[i][columns[i]] + c[k][columns[k]]:
                    columns[i], columns[k] = columns[k], columns[i]
    else:
        columns = note(c)
    if "rows_of_columns" in flaws:
        rows = [0] * n
        for i, j in enumerate(columns):
            if j < n:
                rows[j] = i
        return rows
    if "counted_from_one" in flaws:
        return [j + 1 for j in columns]
    if "pairs" in flaws:
        return [(i, j) for i, j in enumerate(columns)]
    if "owner_of_each_column" in flaws:
        return [columns.index(j) if j in columns else -1 for j in range(m)]
    return sum(cost[i][j] for i, j in enumerate(columns)) if "cost_returned" in flaws else columns


WAYS = {"swapped_pairs_once": ("after_greedy",), "zeros_taken_greedily": ("cheapest",)}
TEXTBOOK = {"potentials_of_rows_forgotten", "potentials_of_columns_forgotten", "potentials_fixed", "distances_kept",
            "distances_not_lowered"}


def by_zeros(c: list, cheapest: bool) -> list[int]:
    """The beginning of the textbook's algorithm: subtract the minima, then take zeros as they come.

    cheapest   a row without a free zero takes its cheapest free column; else the first one
    """
    c = [[value - min(row) for value in row] for row in c]
    lowest = [min(row[j] for row in c) for j in range(len(c[0]))]
    columns: list[int] = []
    for row in c:
        left = {j: row[j] - lowest[j] for j in range(len(row)) if j not in columns}
        columns.append(min(left, key=left.__getitem__ if cheapest else lambda j: left[j] != 0))
    return columns


def with_wrong_potentials(c: list, flaw: str) -> list[int]:
    """The textbook version (row by row, shortest augmenting paths), whose reduced costs lack a potential."""
    n, m = len(c), len(c[0])
    of_rows, of_columns, owner = [0] * n, [0] * m, [-1] * m
    nearest: list = [inf] * m
    way = [-1] * m
    for new in range(n):
        row, column, done = new, -1, [False] * m
        if flaw != "distances_kept":
            nearest, way = [inf] * m, [-1] * m
        while row >= 0:
            for j in range(m):
                reduced = c[row][j] - (0 if flaw == "potentials_of_rows_forgotten" else of_rows[row]) - (
                    0 if flaw == "potentials_of_columns_forgotten" else of_columns[j])
                if not done[j] and reduced < nearest[j]:
                    nearest[j], way[j] = reduced, column
            free = [j for j in range(m) if not done[j]]
            best = min(free, key=nearest.__getitem__)
            step = nearest[best]
            if step == inf:
                raise ValueError("no assignment")
            if flaw != "potentials_fixed":
                of_rows[new] += step
                for j in range(m):
                    if done[j]:
                        of_rows[owner[j]] += step
                        of_columns[j] -= step
            for j in free:
                nearest[j] -= 0 if flaw == "distances_not_lowered" else step
            column, done[best], row = best, True, owner[best]
        while column >= 0:
            before = way[column]
            owner[column] = owner[before] if before >= 0 else new
            column = before
    return [owner.index(i) for i in range(n)]


def flawed(flaws: frozenset) -> Callable:
    return partial(attempt, flaws=flaws)


MISTAKES = {
    "greedy_row_by_row": "This is greedy: each row takes the cheapest free column, and later rows are left with what "
                         "remains. A row has to move on where that makes the sum smaller (an augmenting path).",
    "row_minimum": "Each row takes its cheapest column, so that two rows may have the same one: every column may be "
                   "used once.",
    "greedy_smallest_first": "This is greedy: the smallest entry of the whole matrix is taken first. The optimum may "
                             "need a costlier one there.",
    "greedy_from_the_last_row": "This is greedy, from the last row to the first: earlier choices are never revised.",
    "largest_regret_first": "This is greedy by regret: better than row by row, but earlier choices are never revised.",
    "swapped_pairs_once": "Pairs of rows are exchanged where that helps: the optimum may need a chain of three or "
                          "more, and columns that nobody has yet.",
    "potentials_of_rows_forgotten": "The rows' potentials are missing in the reduced cost: it is c[i][j] − u[i] "
                                    "− v[j].",
    "potentials_of_columns_forgotten": "The columns' potentials are missing in the reduced cost: c[i][j] − u[i] − "
                                       "v[j].",
    "potentials_fixed": "The potentials never move: after each step of the search u of the rows on the tree grows by "
                        "the step, and v of their columns falls by it.",
    "distances_kept": "The smallest reduced cost of each column (minv) is not reset for a new row: each row searches "
                      "from anew.",
    "distances_not_lowered": "After a step of the search the smallest reduced costs of the columns that are not "
                             "reached (minv) have to fall by it, as the potentials on the tree change.",
    "zeros_taken_greedily": "The minima of rows and columns are subtracted, and zeros taken as they come: where they do "
                            "not suffice, the textbook version goes on (cover all zeros with lines, make a new zero), "
                            "and this one gives away a column that a later row needs.",
    "every_assignment_tried": "If every assignment is tried, it takes too long: 10 rows and 20 columns have "
                              "6.7·10¹¹ of them. Shortest augmenting paths need about n²·m steps.",
    "forbidden_pairs_taken": "A forbidden pair (+∞) is taken where nothing else is left: the docstring wants a "
                             "ValueError then.",
    "cheap_columns_alone": "Only the columns that are cheap on the whole are tried: a row may need another one.",
    "most_expensive": "The costs are maximised: the smallest sum is wanted.",
    "in_order": "Row i gets column i whatever the costs.",
    "column_minimum": "The cheapest row of each column is returned: wanted is the column of each row.",
    "greedy_column_by_column": "The columns choose their rows greedily: wanted is the smallest sum.",
    "rows_of_columns": "The row of each column is returned: wanted is the column of each row (the inverse).",
    "owner_of_each_column": "The owner of each column is returned: turn it round, the column of each row is wanted.",
    "counted_from_one": "The columns are counted from 1 (as in the textbook version of the algorithm): they are "
                        "counted from 0.",
    "pairs": "Pairs (row, column) are returned: wanted is the list of columns alone.",
    "cost_returned": "The total cost is returned: wanted is the column of each row.",
    "first_columns_alone": "Only the first n columns are used: there may be more columns than rows, and all may be "
                           "taken.",
    "absolute_costs": "The costs are taken without their sign: they may be negative (−p, −GIoU).",
    "squared_costs": "The costs are squared: this changes which sum is the smallest.",
    "whole_numbers": "The costs are rounded to whole numbers: they may be any numbers.",
    "rounded_to_floats": "Integers become floats, which cannot tell 2⁶⁰ from 2⁶⁰ + 1: begin the potentials with 0, "
                         "not 0.0.",
}
