"""Stubs and solutions: made from the notes, never copied; a stub fails in clear words, a solution passes."""

from __future__ import annotations

import ast

import pytest

from exercises.check import grade
from exercises.reader import Unusable, load
from exercises.registry import EXERCISES, NAMES, Exercise, find
from exercises.stub import answer_of, has_hole, note_of, solution_of, stub_of

each = pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)


def functions(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


@each
def test_a_stub_has_the_signature_and_the_docstring_of_the_note(exercise: Exercise) -> None:
    theirs = {node.name: node for node in note_of(exercise).holes}
    ours = functions(stub_of(exercise))
    assert list(ours) == list(theirs)
    for name, node in theirs.items():
        assert ast.dump(ours[name].args) == ast.dump(node.args)
        assert ast.get_docstring(node) in (None, ast.get_docstring(ours[name]))


@each
def test_a_stub_says_which_note_to_read_and_repeats_its_opening(exercise: Exercise) -> None:
    said = ast.get_docstring(ast.parse(stub_of(exercise)))
    assert f"Read first: the opening of scratch/{exercise.note}.py" in said
    assert note_of(exercise).docstring.splitlines()[0] in said


@each
def test_every_stub_fails_with_a_clear_word(exercise: Exercise) -> None:
    stub = stub_of(exercise)
    assert has_hole(exercise, stub)
    report = grade(exercise.name, stub, proofs=False)
    assert (report.passed, report.stage) == (False, "file")
    assert report.hint == (f"{exercise.name}.py still has its hole: write {exercise.target} and remove the line that "
                           "raises NotImplementedError")


@each
def test_a_stub_can_be_imported_and_does_not_hold_the_answer(exercise: Exercise) -> None:
    stub = stub_of(exercise)
    load(exercise, stub.replace("raise NotImplementedError(", "print("))  # its imports are there
    for node in ast.walk(ast.parse(stub)):
        if isinstance(node, ast.ImportFrom) and node.module == exercise.module:
            names = {item.name: item.asname for item in node.names}
            assert names.get(exercise.target, "Note") == "Note" or exercise.methods
            assert not any(name.endswith(("_naive", "_im2col", "_batched")) for name in names)
        assert not (isinstance(node, ast.ImportFrom) and "fast" in (node.module or ""))


@each
def test_the_notes_own_solution_passes_every_stage(exercise: Exercise) -> None:
    report = grade(exercise.name, solution_of(exercise), proofs=False)
    assert report.passed, (report.stage, report.case, report.hint, report.shown)
    assert report.speed > 0


@pytest.mark.slow  # of all, a learner's right answer does: test_wrong_answers.py
@pytest.mark.parametrize("exercise", [find(name) for name in ("linear", "criterion", "adamw", "focal_loss")],
                         ids=lambda exercise: exercise.name)
def test_the_notes_own_solution_passes_the_proofs(exercise: Exercise) -> None:
    report = grade(exercise.name, solution_of(exercise))
    assert report.passed, (report.stage, report.case, report.hint, report.shown)


@each
def test_the_answer_that_is_shown_is_the_text_of_the_note(exercise: Exercise) -> None:
    text, line = answer_of(exercise)
    assert exercise.path.read_text("utf-8").splitlines()[line - 1].strip() in text


@each
def test_a_stub_lists_what_is_asked_beyond_the_formula_and_what_is_a_bonus(exercise: Exercise) -> None:
    stub = " ".join(stub_of(exercise).split())
    told = [case.title for case in exercise.grading.CASES if case.told or case.bonus]
    assert all(" ".join(title.split()) in stub for title in told)
    assert ("Bonus, reported and never a failure:" in stub) == any(case.bonus for case in exercise.grading.CASES)


def test_the_stub_of_the_criterion_says_what_its_arguments_are() -> None:
    stub = stub_of(find("criterion"))
    assert "as a place among the L·B·Q queries and one among all targets" in stub
    assert "num_boxes: float  # Σ_i M_i, and 1 if there is none" in stub


def test_a_stub_is_made_anew_when_the_note_changes(tmp_path, monkeypatch) -> None:
    exercise = find("linear")
    path = tmp_path / "scratch" / "ops" / "linear.py"
    path.parent.mkdir(parents=True)
    source = exercise.path.read_text("utf-8")
    path.write_text(source.replace("def linear(x: Tensor, weight", "def linear(x: Tensor, matrix"), "utf-8")
    monkeypatch.setattr("exercises.registry.REPOSITORY", tmp_path)
    note_of.cache_clear()
    try:
        assert "def linear(x: Tensor, matrix: Tensor" in stub_of(exercise)
    finally:
        note_of.cache_clear()


def test_a_hole_is_found_wherever_it_stands() -> None:
    exercise = find("linear")
    assert has_hole(exercise, "def linear(x):\n    y = x\n    raise NotImplementedError('…')\n")
    assert not has_hole(exercise, "def linear(x):\n    return x\n")
    with pytest.raises(Unusable, match="still has its hole"):
        load(exercise, "def linear(x):\n    raise NotImplementedError\n")


def test_a_stub_says_how_its_helpers_are_called_and_what_fast_code_is() -> None:
    stub = " ".join(stub_of(find("attention")).split())
    for words in ("additive_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, B: int, N: int, Q: int",
                  "of a bool, True = not allowed", "dropout(x: Tensor, p: float, training: bool) -> Tensor",
                  "the check runs in plain mode"):
        assert words in stub, words
    assert "kernel: Pair" in stub_of(find("conv2d"))  # a field of what _windows returns
    assert "Matrix = Sequence[Sequence[float]]" in stub_of(find("hungarian"))


def test_the_answer_that_is_shown_has_the_functions_that_it_calls_in_it() -> None:
    assert "seen = padded.unfold(2" in answer_of(find("conv2d"))[0]
    assert "variance = centred.square().mean(1, keepdim=True)" in answer_of(find("layer_norm"))[0]
