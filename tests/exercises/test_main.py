"""The command line: what a reader sees from the list to a passed check."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from exercises.__main__ import main
from exercises.registry import EXERCISES, NAMES, find
from exercises.stub import solution_of, stub_of
from tests.conftest import REPOSITORY

WRONG = "def linear(x, weight, bias=None):\n    return x @ weight.T\n"


@pytest.fixture
def run(tmp_path: Path, capsys):
    def typed(*words: str) -> tuple[int, str]:
        code = main([*words, "--folder", str(tmp_path)])
        return code, capsys.readouterr().out
    return typed


def test_the_list_has_every_exercise_in_order_and_says_where_to_begin(run, tmp_path: Path) -> None:
    code, said = run()
    assert code == 0 and said.startswith(f"0 of {len(EXERCISES)} done")
    lines = [line for line in said.splitlines() if line.startswith("[ ]")]
    assert [line.split()[3] for line in lines] == list(NAMES)
    assert said.rstrip().endswith(f"next: python -m exercises start linear --folder {tmp_path}")


def test_start_writes_the_stub_says_what_to_read_and_the_list_shows_it_as_begun(run, tmp_path: Path) -> None:
    code, said = run("start", "linear")
    assert code == 0 and (tmp_path / "linear.py").read_text("utf-8") == stub_of(find("linear"))
    assert "Read first: the opening of scratch/ops/linear.py" in said
    assert "linear" in run()[1] and "(begun)" in run()[1]
    with pytest.raises(SystemExit, match="error: .*linear.py is there already, and stays as it is"):
        run("start", "linear")


def test_check_shows_input_wanted_got_and_a_hint_and_ends_with_1(run, tmp_path: Path) -> None:
    (tmp_path / "linear.py").write_text(WRONG, encoding="utf-8")
    code, said = run("check", "linear", "--quick")
    assert code == 1
    for words in ("--   example", "  x      = [[1, 2]]", "  wanted   11.5  17  -1", "  got      11    17  -2", "^^^^",
                  "hint: The bias is not added"):
        assert words in said
    assert "(checked: not right yet)" in run()[1]


def test_the_list_goes_on_with_what_was_begun_and_then_with_what_was_not(run, tmp_path: Path) -> None:
    run("start", "giou")
    assert run()[1].rstrip().endswith(f"next: python -m exercises check giou --folder {tmp_path}")
    (tmp_path / "giou.py").unlink()
    assert run()[1].rstrip().endswith(f"next: python -m exercises start linear --folder {tmp_path}")


def test_an_exercise_may_be_named_by_its_number(run, tmp_path: Path) -> None:
    run("start", "2")
    assert (tmp_path / "softmax.py").is_file()


def test_a_check_that_passes_the_proofs_is_remembered_a_quick_one_is_not(run, tmp_path: Path, monkeypatch) -> None:
    from exercises.proofs import Proofs

    monkeypatch.setattr("exercises.check.run_proofs", lambda exercise, source: Proofs(7))
    (tmp_path / "linear.py").write_text(solution_of(find("linear")), encoding="utf-8")
    code, said = run("check", "linear", "--quick")
    assert code == 0 and "right so far" in said and "0 of" in run()[1]
    assert "(right so far, without the note's own tests)" in run()[1]
    code, said = run("check", "linear")
    assert code == 0 and "linear: passed." in said and "on your code: 7 of 7" in said
    assert run()[1].startswith("1 of") and "[x]  1 linear" in run()[1]
    assert run("check", "linear", "--quick")[0] == 0 and run()[1].startswith("1 of")  # a pass is not taken away


def test_show_prints_the_readers_code_and_the_notes(run, tmp_path: Path) -> None:
    (tmp_path / "linear.py").write_text(WRONG, encoding="utf-8")
    code, said = run("show", "linear")
    assert code == 0 and "return x @ weight.T" in said and "the note: scratch/ops/linear.py, line" in said
    assert "torch.addmm(bias, rows, weight.T)" in said.partition("the note:")[2]


@pytest.mark.parametrize("text", [None, stub_of(find("linear"))], ids=["no file", "a hole"])
def test_show_does_not_give_the_answer_away_before_something_is_written(run, tmp_path: Path, text) -> None:
    if text:
        (tmp_path / "linear.py").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="is not written yet, and this would show the answer; to see it all the same: "
                                         "python -m exercises show linear --folder .* --anyway"):
        run("show", "linear")
    assert "torch.addmm(bias, rows, weight.T)" in run("show", "linear", "--anyway")[1]


def test_ask_reads_replies_from_a_pipe(run, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("16\n526336\n36\n"))
    code, said = run("ask", "linear")
    assert code == 0 and "3 of 3 right" in said


@pytest.mark.parametrize("words, said", [
    (["begin", "linear"], "there is no command 'begin'; wanted one of list, start, check, show, ask"),
    (["start"], "which one"), (["check", "linaer"], "there is no exercise 'linaer'; did you mean linear"),
    (["check", "linear"], "linear.py is not there: begin with python -m exercises start linear")])
def test_words_that_do_not_fit_end_in_one_line(run, words: list, said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code.startswith("error: ") and said in stopped.value.code and "\n" not in stopped.value.code


def test_it_runs_as_a_module() -> None:
    ended = subprocess.run([sys.executable, "-m", "exercises", "--folder", "nowhere"], cwd=REPOSITORY,
                           capture_output=True, text=True, encoding="utf-8", check=True)
    assert f"0 of {len(EXERCISES)} done (nowhere)" in ended.stdout
