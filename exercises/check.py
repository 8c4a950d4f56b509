"""check: how good is an answer, and if it is wrong, which mistake is it?

    source ── load ──▶ operation ── case by case, the easiest first ──▶ the first that is wrong ─┬─ a mistake that
                                                                                                │  gives the same
                                 all right ──▶ from scratch? ──▶ bonus, proofs ──▶ passed        └─ else: in general

`grade(name, source)` is all of it, without a terminal. A mistake is recognised by its numbers: a version of the
operation with one typical flaw in it (graded/NAME) answers the same case, and others, as the reader's does. If no flaw
does, two at once are tried. A bonus is reported and never a failure. Proven in tests/exercises/test_check.py.
Read: Report → grade → named_mistake
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterable, Optional

import torch
from torch import Tensor

from exercises.case import STAGES, WHAT, Case, Mistyped, Outcome, close, outcome, rounding, wanted, wrong_names
from exercises.describe import describe
from exercises.display import difference, inputs
from exercises.proofs import run_proofs
from exercises.reader import Unusable, borrowed, foreign, load
from exercises.registry import Exercise, find
from scratch.analysis.primitives import composites, record_primitives
from scratch.ops.fast.switch import plain_mode


@dataclass(frozen=True)
class Report:
    """How a check ended.

    stage      where it stopped: "file", one of STAGES, "from scratch", "proofs"; "" if all passed
    case       the title of the case that was wrong, or the sentence of the proof
    mistakes   the names of the typical mistakes that explain the answer (keys of graded/NAME.MISTAKES); () if none does
    general    an id of describe.py, where none does; "" otherwise
    hint       what the reader is told
    shown      input, wanted and got, as lines
    passed_stages   each stage that passed, with what was asked there
    not_yet    the titles of the bonus cases that are not right (yet), each with its hint; no failure
    speed      the reader's time divided by the note's, in plain mode; only a report
    """

    exercise: str
    passed: bool
    stage: str = ""
    case: str = ""
    mistakes: tuple[str, ...] = ()
    general: str = ""
    hint: str = ""
    shown: tuple[str, ...] = ()
    passed_stages: tuple[tuple[str, str], ...] = ()
    not_yet: tuple[tuple[str, str], ...] = ()
    speed: Optional[float] = None


def grade(name: str, source: str, proofs: bool = True, file: Optional[Path] = None,
          say: Callable[[str], None] = lambda line: None) -> Report:
    """Grade the text of a reader's file for the exercise `name`. Raises ValueError if there is no such exercise.

    proofs   also run the note's own tests on it, which takes some seconds
    file     where the text came from: the messages name its lines
    say      is told each stage that has passed, as it passes
    """
    exercise = find(name)
    report = Report(name, passed=False)
    try:
        operation = load(exercise, source, file)
    except Unusable as error:
        return replace(report, stage="file", hint=str(error))
    grading, passed = exercise.grading, []

    def note(stage: str, what: str) -> None:
        passed.append((stage, what))
        say(f"ok   {stage:12} {what}")

    for stage in STAGES:
        cases = [case for case in grading.CASES if case.stage == stage and not case.bonus]
        for case in cases:
            failed = _judged(report, case, grading, operation)
            if failed is not None:
                return replace(failed, passed_stages=tuple(passed))
        if cases:
            what = getattr(grading, "WHAT", {}).get(stage, WHAT[stage])
            note(stage, f"{what}: {len(cases)} of {len(cases)}")
    if used := not_from_scratch(exercise, grading, operation, source):
        return replace(report, stage="from scratch", hint=used, passed_stages=tuple(passed))
    note("from scratch", "nothing but tensor arithmetic")
    extra = [case for case in grading.CASES if case.bonus]
    not_yet = tuple((failed.case, failed.hint) for case in extra
                    if (failed := _judged(report, case, grading, operation)) is not None)
    report = replace(report, not_yet=not_yet)
    if extra and not not_yet:
        note("bonus", f"more than was asked: {len(extra)} of {len(extra)}")
    for title, hint in not_yet:
        say(f"     {'bonus':12} not yet: {title}. {hint}")
    if proofs:
        proved = run_proofs(exercise, source)
        if proved.failed:
            return replace(report, stage="proofs", case=proved.failed, hint=proved.hint, shown=proved.shown,
                           passed_stages=tuple(passed))
        note("proofs", f"the note's own tests on your code: {proved.passed} of {proved.passed}")
    return replace(report, passed=True, passed_stages=tuple(passed), speed=speed(grading, operation, exercise))


def _judged(report: Report, case: Case, grading: ModuleType, operation: Any) -> Optional[Report]:
    """None if the operation is right in the case; otherwise the report of what is wrong."""
    right, got = wanted(case, grading), outcome(case, grading, operation)
    wrong = wrong_names(case, right, got)
    return _failed(report, case, grading, operation, right, got, wrong) if wrong or got.changed else None


def _failed(report: Report, case: Case, grading: ModuleType, operation: Any, right: dict, got: Outcome,
            wrong: list[str]) -> Report:
    """The report of the first case that is wrong."""
    mistakes = named_mistake(case, grading, operation, right, got) if wrong else ()
    name = wrong[0] if wrong else None
    general = ""
    if mistakes:
        sentences = [grading.MISTAKES[mistake] for mistake in mistakes]
        hint = sentences[0] if len(sentences) == 1 else "Two mistakes at once. " + " And: ".join(sentences)
    else:
        name = next((each for each in wrong if each not in got.answers), name) if got.error is None else name
        general, hint = describe(case, right, got, name)
        if case is not grading.CASES[0] and not case.bonus:
            hint += f" The cases before it were right; new is here: {case.title}."
    if got.error is None and wrong and hasattr(grading, "in_words"):
        hint = f"{hint} {grading.in_words(right, got.answers)}".strip()
    given = case.drawn()
    lines = ["input", *(f"  {line}" for line in inputs(given))]
    if got.error is None and name is not None:
        numbers = [each for each in wrong if each != name and isinstance(right[each], Tensor) and not right[each].dim()]
        for each in (name, *numbers[:2]):  # the first that is wrong, and two more if each is one number
            lines += [f"{each}", *(f"  {line}" for line in difference(
                right[each], got.answers.get(each), max(case.tolerance, 1e-8 if case.dtype is None else 1e-3),
                case.expected))]
    elif got.error is not None and not isinstance(got.error, Mistyped):
        said = str(got.error).strip().splitlines() or [""]
        lines += [f"got {type(got.error).__name__}: {said[0]}"]
    return replace(report, stage=case.stage, case=case.title, mistakes=mistakes, general=general, hint=hint,
                   shown=tuple(lines))


# -- which mistake ----------------------------------------------------------------------------------------------------


PATIENCE = 3  # seconds of computing for an answer that only serves to compare
SURE, TWO, COINCIDENCE = 0.8, 0.5, 0.5  # shares of the other cases that are answered as the reader's operation does


def named_mistake(case: Case, grading: ModuleType, operation: Any, right: dict, got: Outcome) -> tuple[str, ...]:
    """The flaw, or the two flaws, that answer the case as the reader's operation does; () if none does.

    Of several, the one that does so in most of the other cases; then the first in the table. One that does so in few of
    them is a coincidence.
    """
    # Agreement is counted as far as the check has come (and over the values); later stages only decide between equals.
    reached = max(STAGES.index(case.stage), STAGES.index("value"))
    others = sorted((other for other in grading.CASES if other is not case),
                    key=lambda other: (other.bonus, max(STAGES.index(other.stage), reached)))
    counted = sum(STAGES.index(other.stage) <= reached and not other.bonus for other in others)
    truth: list[dict] = []
    theirs: list[Outcome] = []

    def best(flaws: Iterable[tuple[str, ...]]) -> tuple[float, tuple[str, ...]]:
        alike = [each for each in flaws if _same(case, right, got, _with(case, grading, each))]
        if not alike:
            return 0.0, ()
        truth.extend(wanted(other, grading) for other in others[len(truth):])
        theirs.extend(outcome(other, grading, operation, PATIENCE) for other in others[len(theirs):])
        asked = list(zip(others, truth, theirs))
        agreed = [[_same(other, true, their, _with(other, grading, each), also_right=True)
                   for other, true, their in (asked if len(alike) > 1 else asked[:counted])] for each in alike]
        first = max(range(len(alike)), key=lambda i: (sum(agreed[i][:counted]), sum(agreed[i])))
        return sum(agreed[first][:counted]) / counted, alike[first]

    share, one = best((flaw,) for flaw in [*grading.MISTAKES, *variants(grading)])
    one = tuple(flaw.partition(":")[0] for flaw in one)
    if share >= SURE:
        return one
    share_of_two, two = best(combinations(grading.MISTAKES, 2))
    if share_of_two >= max(TWO, share + 0.1):
        return two
    if share >= COINCIDENCE:
        return one
    named = "" if got.error is None else case.on_timeout if isinstance(got.error, TimeoutError) else case.on_error
    return (named,) if named else ()


def variants(grading: ModuleType) -> list[str]:
    """Other ways to make a mistake of the table, each as "mistake:way": another size of ε, rows without columns …"""
    return [f"{mistake}:{way}" for mistake, ways in getattr(grading, "WAYS", {}).items() for way in ways]


def _with(case: Case, grading: ModuleType, flaws: tuple[str, ...]) -> Outcome:
    return outcome(case, grading, grading.flawed(frozenset(flaws)))


def _same(case: Case, right: dict, a: Outcome, b: Outcome, also_right: bool = False) -> bool:
    """Do two operations answer a case alike: the same wrong numbers, or the same error?"""
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error) and str(a.error).strip() == str(b.error).strip()
    there = {name: value for name, value in right.items() if name in a.answers}  # a may leave some out altogether
    a_wrong, b_wrong = wrong_names(case, there, a), wrong_names(case, there, b)
    if a_wrong != b_wrong or not (a_wrong or also_right):
        return False
    return all(_alike(case, there[name], a.answers[name], b.answers.get(name)) for name in there)


def _alike(case: Case, right: Any, a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if case.dtype is None and not case.autocast:
        return close(a, b, case.tolerance if a.dtype == torch.float64 or not a.is_floating_point() else 1e-5)
    if right is None or right.shape != a.shape:
        return close(a, b, 0.05)
    one, other = rounding(right, a), rounding(right, b)
    if one <= case.units and other <= case.units:
        return True
    # Two ways of rounding are alike in how much they lose, not in the numbers.
    return one == other or (max(one, other) < float("inf") and max(one, other) <= 5 * min(one, other))


# -- from scratch, and how fast ----------------------------------------------------------------------------------------


def not_from_scratch(exercise: Exercise, grading: ModuleType, operation: Any, source: str) -> str:
    """What the reader's operation uses though it is what is to be written; "" if nothing."""
    if line := borrowed(exercise, source):
        return f"“{line}” is the note's own answer: write it yourself. The rest of the note may be imported."
    if package := foreign(source):
        return (f"The file imports {package}. From scratch means Python, its standard library, torch (and numpy) for "
                "arithmetic, and the other notes.")
    used: dict[str, int] = {}
    for case in grading.CASES:
        if not case.gradient and case.dtype is None and not case.autocast and not case.bonus:
            given = case.drawn()
            with plain_mode():
                used |= composites(record_primitives(lambda: grading.run(operation, **given)))
    used = {name: count for name, count in used.items() if not name.startswith("_foreach")}
    if not used:
        return ""
    return (f"The numbers are right, but PyTorch computes them: {', '.join(sorted(used))}. From scratch means tensor "
            "arithmetic: + − × ÷, exp, log, sums, matrix products, views, indexing.")


def speed(grading: ModuleType, operation: Any, exercise: Exercise) -> Optional[float]:
    """The reader's time divided by that of the note in plain mode, on the first case of precision: the best of five."""
    case = next((case for case in grading.CASES if case.stage == "precision" and not case.autocast), None)
    if case is None:
        return None

    def best(measured: Any) -> float:
        times = []
        with plain_mode():
            for _ in range(5):
                given = case.drawn()
                begin = time.perf_counter()
                grading.run(measured, **given)
                times.append(time.perf_counter() - begin)
        return min(times)

    return best(operation) / max(best(exercise.note_itself()), 1e-9)
