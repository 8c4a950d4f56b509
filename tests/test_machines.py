"""The round of machines: each variation is what it says, one is chosen by a text, and each can be run again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests import machines
from tests.conftest import pytest_collection_modifyitems
from tests.machines import SEEDS, VARIATIONS, again, chosen, command, counted, environment, here, main, run, table

ALL = {"x86", "AVX2", "AVX512"}


def test_every_variation_sets_one_variable_or_one_order_and_the_plain_run_sets_none() -> None:
    for name, variation in VARIATIONS.items():
        assert len(variation.variables) + bool(variation.arguments) == (name != "plain"), name


def test_a_processor_is_asked_only_for_what_it_can_show() -> None:
    assert here(ALL) == list(VARIATIONS)
    assert set(here(ALL)) - set(here({"x86", "AVX2"})) == {"aten-avx512"}
    assert set(here(set())) == {"plain", "aten-default", "two-threads", "ci-server", "narrow", "colours", "hashes",
                                "order"}


def test_a_text_chooses_one_and_a_seed_and_some_text_chooses_each() -> None:
    names = here(ALL)
    drawn = [chosen(f"commit {i}", names) for i in range(200)]
    assert chosen("commit 7", names) == drawn[7]
    assert {name for name, _ in drawn} == set(names) - {"plain"}
    assert len({seed for _, seed in drawn}) > 190 and all(0 <= seed < SEEDS for _, seed in drawn)


def test_the_seed_goes_into_the_hashes_and_the_order() -> None:
    assert command("hashes", 71, 2, [])[0] == {"PYTHONHASHSEED": "71"}
    variables, words = command("order", 71, 2, ["tests/ops"])
    assert variables == {} and words[-4:] == ["2", "--random-order", "--random-order-seed=71", "tests/ops"]


def test_no_variation_meets_the_variables_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = environment({"ATEN_CPU_CAPABILITY": "default"})
    assert "MKL_CBWR" not in found
    assert (found["ATEN_CPU_CAPABILITY"], found["OMP_NUM_THREADS"]) == ("default", "1")
    assert {**os.environ, **found, "MKL_CBWR": "AVX"} == {**os.environ, "OMP_NUM_THREADS": "1",
                                                         "OMP_WAIT_POLICY": "passive", "ATEN_CPU_CAPABILITY": "default"}


def test_pytorch_reads_the_variable() -> None:
    variables, _ = command("aten-default", 0, 0, [])
    said = subprocess.run([sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"],
                          env=environment(variables), capture_output=True, text=True, check=True).stdout
    assert said.strip() in ("DEFAULT", "NO AVX")


def test_a_random_order_is_off_unless_it_is_asked_for(request: pytest.FixtureRequest) -> None:
    assert not [word for word in request.config.getini("addopts") if "random" in word]


@pytest.mark.parametrize("line, counts", [
    ("3 failed, 20 passed, 1 skipped in 1.23s", {"failed": 3, "passed": 20, "skipped": 1}),
    ("=== 1 passed, 2 errors in 400.0s (0:06:40) ===", {"passed": 1, "errors": 2}), ("no tests ran in 0.01s", {}),
    ("", {})])
def test_the_last_line_is_counted(line: str, counts: dict[str, int]) -> None:
    assert counted(line) == counts


@pytest.fixture
def small_suite(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A suite of two tests instead of ours, one of which fails under some hashes."""
    (tmp_path / "test_small.py").write_text(
        "import os\ndef test_a(): pass\ndef test_b(): assert os.environ.get('PYTHONHASHSEED') != '13'\n")
    monkeypatch.setattr(machines, "REPOSITORY", tmp_path)
    monkeypatch.setattr(machines, "features", lambda: {"x86"})
    return tmp_path


def test_an_outcome_has_the_counts_and_the_command_that_gives_it_again(small_suite, capfd) -> None:
    outcome = run("hashes", 13, 0, ["-q", "-p", "no:cacheprovider"])
    said = capfd.readouterr().out
    assert (outcome.status, outcome.counts) == (1, {"failed": 1, "passed": 1})
    assert "PYTHONHASHSEED=13" in said and f"again: {outcome.again}" in said and "test_b" in said
    words = shlex.split(outcome.again)
    assert words[:3] == ["python", "-m", "tests.machines"] and words[3:6] == ["hashes", "--seed", "13"]
    with pytest.raises(SystemExit, match=re.escape(f"the suite fails in hashes (again: {outcome.again})")):
        main(["--workers", "0", *words[3:]])
    main(["--workers", "0", *[word.replace("13", "14") for word in words[3:]]])


def test_the_table_has_a_row_for_each_variation() -> None:
    outcomes = [machines.Outcome("plain", 0, {"passed": 20, "skipped": 1}, 61.4, ""),
                machines.Outcome("order", 1, {"failed": 3, "passed": 17, "error": 1}, 9.0, "")]
    assert [line.split() for line in table(outcomes).splitlines()] == [
        ["variation", "passed", "failed", "skipped", "seconds"], ["plain", "20", "0", "1", "61"],
        ["order", "17", "4", "0", "9"]]


@pytest.mark.parametrize("words, said", [
    (["sse9"], "got sse9; wanted some of plain, "), (["order", "--one-of", "x"], "got names and --one-of"),
    (["aten-avx512"], "got aten-avx512, which wants a processor with AVX512")])
def test_what_cannot_be_run_is_said(words, said, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(machines, "features", lambda: {"x86"})
    with pytest.raises(SystemExit):
        main(words)
    assert said in capsys.readouterr().err


def test_what_is_run_again_is_quoted() -> None:
    assert again("order", 3, ["-k", "a or b"]) == "python -m tests.machines order --seed 3 -- -k 'a or b'"


@pytest.mark.parametrize("marks, seconds", [([], None), ([pytest.mark.slow], 1500.0),
                                            ([pytest.mark.slow, pytest.mark.timeout(9)], 9.0)])
def test_a_slow_test_has_time_on_a_slow_machine(marks, seconds, request: pytest.FixtureRequest) -> None:
    item = pytest.Function.from_parent(request.node.parent, name="made", callobj=lambda: None)
    for mark in marks:
        item.add_marker(mark)
    pytest_collection_modifyitems([item])
    timeout = item.get_closest_marker("timeout")
    assert (timeout and float(timeout.args[0])) == seconds
