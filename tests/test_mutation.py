"""The tool that plants faults: it plants what it says, and its verdicts are the tests' own."""

from __future__ import annotations

import math
import textwrap
from collections import Counter

import pytest

pytest.importorskip("resource", reason="mutation testing forks: Unix only")

from tests import mutation  # noqa: E402
from tests.mutation import REPOSITORY, draw, equivalents, judge, mutants_of, read_results, table, watch  # noqa: E402


def changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutants_of(textwrap.dedent(source))]


@pytest.mark.parametrize("source, expected", [
    ("y = a + b", ["a + b → a - b"]),
    ("y = a @ b", ["a @ b → a * b"]),
    ("y += a", ["y += a → y -= a", "y += a → pass"]),
    ("y = a < b", ["a < b → a <= b"]),
    ("y = a is b", ["a is b → a is not b"]),
    ("y = a and b", ["a and b → a or b"]),
    ("y = not a", ["not a → a"]),
    ("y = x.sum(-i)", ["-i → i"]),
    ("y = ~a", ["~a → a"]),
    ("y = 0", ["0 → 1"]),
    ("y = 3", ["3 → 4", "3 → 2"]),
    ("y = 0.25", ["0.25 → 0.5"]),
    ("y = True", ["True → False"]),
    ("y = 'sum'", ["'sum' → 'sum!'"]),
    ("y = x[a:b]", ["[a:b] → [:b]", "[a:b] → [a:]"]),
    ("y = f(a, b, c)", ["f(a, b, c) → f(b, a, c)"]),
    ("y = max(a, b)", ["max(a, b) → min(a, b)"]),
    ("y = x.amax(a)", ["x.amax(a) → x.amin(a)"]),
    ("def f(a, b=True): pass", ["True → False"]),
    ("def f(a): return a", ["return a → return None"]),
    ("if a: f()", ["if a: → if not a:", "f() → pass"]),
    ("y = [i for i in a if i]", ["(i, a, i) → (i, a, not i)"]),
    ("while a: break", ["while a: → while not a:", "break → pass"]),
])
def test_each_kind_of_fault_is_planted(source: str, expected: list[str]) -> None:
    assert changes(source) == expected


@pytest.mark.parametrize("source", [
    '"""A docstring."""', 'def f(a: Literal["x", 1]) -> "text": pass', 'assert a, f"got {a + 1}"',
    'if __name__ == "__main__": main(1)', "y = f'{a + 1}'"])
def test_words_for_people_are_left_alone(source: str) -> None:
    assert changes(source) == []


def test_of_an_error_only_that_it_is_raised_is_in_question() -> None:
    assert changes('raise ValueError("wanted " + a)') == ["raise ValueError('wanted ' + a) → pass"]


def test_the_same_change_twice_in_a_line_is_two_mutants() -> None:
    assert len({mutant.key for mutant in mutants_of("y = f(1) * g(1)")}) == 5


def test_a_mutant_is_the_program_with_one_fault() -> None:
    source = textwrap.dedent("""
        def f(a, b):
            return a + b * 2
        """)
    values = {}
    for mutant in mutants_of(source):
        scope: dict = {}
        exec(compile(mutant.tree(), "planted", "exec"), scope)
        values[mutant.change] = scope["f"](3, 5)
    assert values == {"return a + b * 2 → return None": None, "a + b * 2 → a - b * 2": -7, "b * 2 → b / 2": 5.5,
                      "2 → 3": 18, "2 → 1": 8}


def test_the_draw_is_in_proportion_told_by_its_seed_and_part_of_a_larger_one() -> None:
    everything = {"a": mutants_of("y = 1\n" * 40, "a"), "b": mutants_of("y = 1\n" * 10, "b")}

    def keys(sample: int | None, seed: int) -> list[tuple]:
        return [mutant.key for mutant in draw(everything, sample, seed)]

    assert Counter(key[0] for key in keys(20, 3)) == {"a": 16, "b": 4}
    assert keys(20, 3) == keys(20, 3) != keys(20, 4)
    assert set(keys(20, 3)) < set(keys(30, 3)) < set(keys(None, 3)) and len(keys(None, 3)) == len(keys(10**6, 3)) == 100


PLANTED = """
def add(a, b):
    return a + b


def countdown(n):
    while n != 0:
        n -= 1
    return n
"""


def verdicts(tmp_path, tests: str, *changes: str, quick: float = math.inf) -> list[tuple[str, str]]:
    """What becomes of the mutants with these changes, in their order, and which test killed them."""
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "test_planted.py").write_text("from planted import add, countdown\n\n" + tests)
    mutants = {mutant.change: mutant for mutant in mutants_of(PLANTED, "planted.py")}
    files = ["test_planted.py"]
    seen = watch(["planted.py"], files, root=tmp_path)
    judged = judge([mutants[change] for change in changes], files, seen, root=tmp_path, quick=quick, slack=1)
    return [(what, killer.split("::")[-1]) for _, what, killer in judged]


def test_a_good_test_kills_what_is_planted(tmp_path) -> None:
    tests = "def test_add():\n    assert add(2, 3) == 5\n"
    assert verdicts(tmp_path, tests, "a + b → a - b", "return a + b → return None") == [("killed", "test_add")] * 2


def test_a_test_that_asserts_nothing_kills_nothing_and_a_line_that_no_test_reaches_survives(tmp_path) -> None:
    tests = "def test_add():\n    add(2, 3)\n"
    assert verdicts(tmp_path, tests, "a + b → a - b", "n -= 1 → n += 1") == [
        ("survived", ""), ("survived", "no test reaches it")]


def test_a_mutant_that_never_ends_is_killed_by_its_limit(tmp_path) -> None:
    tests = "def test_countdown():\n    assert countdown(3) == 0\n"
    assert verdicts(tmp_path, tests, "n -= 1 → n += 1") == [("killed", "time limit")]


def test_where_not_all_tests_are_run_what_they_do_not_kill_is_undecided(tmp_path) -> None:
    tests = ("def test_nothing():\n    add(2, 3)\n\n"
             "def test_add():\n    for _ in range(10**5):\n        assert add(2, 3) == 5\n")
    assert verdicts(tmp_path, tests, "a + b → a - b", quick=0) == [("undecided", "")]


def test_tests_that_fail_without_a_fault_are_refused(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="planted.py: the tests fail without any mutation"):
        verdicts(tmp_path, "def test_add():\n    assert add(2, 3) == 6\n", "a + b → a - b")


def test_every_module_has_its_mirrored_tests() -> None:
    for module in mutation.modules():
        paths = mutation.mirrored_tests(module)
        assert paths and all((REPOSITORY / path).is_file() for path in paths), module


def test_the_table_counts_killed_equivalent_and_left_over() -> None:
    rows = {("scratch/ops/beyond/nms.py", i): {"module": "scratch/ops/beyond/nms.py", "verdict": what}
            for i, what in enumerate(["killed", "killed", "survived", "survived"])}
    lines = table(rows, {("scratch/ops/beyond/nms.py", 3): "no value of it is read"}).splitlines()
    assert lines[2:] == ["| ops/beyond/nms.py | 4 | 2 | 1 | 1 | 50.0% | 66.7% |", "| all | 4 | 2 | 1 | 1 | 50.0% | 66.7% |"]


def test_the_rows_of_the_table_sum_to_its_last_one() -> None:
    rows = [[int(cell) for cell in line.split("|")[2:6]] for line in
            table(read_results(mutation.RESULTS), equivalents()).splitlines()[2:]]
    assert [sum(column) for column in zip(*rows[:-1])] == rows[-1]


def test_the_table_of_the_docs_is_that_of_the_stored_results() -> None:
    assert table(read_results(mutation.RESULTS), equivalents()) in (REPOSITORY / "docs" / "mutation.md").read_text()


def test_every_stored_survivor_has_its_reason() -> None:
    left = [key for key, row in read_results(mutation.RESULTS).items() if row["verdict"] != "killed"]
    assert left and set(left) <= set(equivalents()) and all(equivalents().values())
