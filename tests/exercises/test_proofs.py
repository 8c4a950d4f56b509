"""The proofs: the note's own tests, in a process of its own, on the reader's operation."""

from __future__ import annotations

import pytest

from exercises.proofs import run_proofs
from exercises.registry import find


@pytest.mark.slow
def test_the_readers_operation_is_what_the_tests_call() -> None:
    proved = run_proofs(find("linear"), "def linear(x, weight, bias=None):\n    raise KeyError('the reader')\n")
    assert proved.failed and "the reader" in " ".join(proved.shown)


@pytest.mark.slow
def test_a_simple_answer_passes_and_an_error_that_only_a_proof_finds_is_told_with_its_sentence() -> None:
    good = ("def linear(x, weight, bias=None):\n    y = x @ weight.T\n"
            "    return y if bias is None else y + bias.to(y.dtype)\n")
    assert run_proofs(find("linear"), good).failed == ""
    bad = good.replace("y = x @ weight.T", "y = (x if x.shape[0:1] != (11,) else x + 1) @ weight.T")
    proved = run_proofs(find("linear"), bad)
    assert proved.failed and "tests/ops/test_linear.py" in proved.hint and proved.shown


def test_missing_packages_are_named(monkeypatch) -> None:
    monkeypatch.setattr("exercises.proofs.find_spec", lambda name: None)
    proved = run_proofs(find("linear"), "")
    assert proved.failed and "install pytest and hypothesis and scipy" in proved.hint
