"""Of a log that something has happened to, what is whole is read and the rest is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scratch.analysis.learning_curve import draw, read_run
from scratch.analysis.run_log import read_log
from scratch.analysis.run_summary import summarise_log
from tests.analysis.test_learning_curve import write_run

STEP = {"kind": "step", "step": 9, "minutes": 0.9, "loss": 1.0}


def log_of(folder: Path, *lines: object) -> Path:
    folder.mkdir(exist_ok=True)
    content = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in content))
    return folder


@pytest.mark.parametrize("broken", [
    b'{"kind": "st', b"\xff\xfe\x00", b"[1, 2]", b"null", b"[" * 100_000, b'{"kind": "step"}', b"\x00\x00\x00",
    b'{"kind": "step", "step": 3}', b'{"kind": "step", "step": "3", "minutes": 1}', b'{"step": 3, "minutes": 1}',
    b'{"kind": "step", "step": 3, "minutes": NaN}', b'{"kind": 7, "step": 3, "minutes": 1}',
    b'{"kind": "step", "step": true, "minutes": 1}', b'{"kind": "step", "step": -3, "minutes": 1}',
    b'{"kind": "step", "step": ' + b"9" * 30 + b', "minutes": 1}'])
def test_a_line_that_cannot_be_read_is_left_out_and_counted(broken: bytes, tmp_path: Path) -> None:
    records, left_out = read_log(log_of(tmp_path, broken, STEP, broken))
    assert records == [STEP]
    assert left_out == f"{tmp_path / 'log.jsonl'}: left out 2 lines, 2 that cannot be read (a kill or a full disk cuts a line off)"


def test_a_whole_log_leaves_nothing_out(tmp_path: Path) -> None:
    records, left_out = read_log(write_run(tmp_path / "a", steps=5))
    assert left_out == "" and [r["step"] for r in records if r["kind"] == "step"] == [1, 2, 3, 4, 5]


def test_of_two_runs_in_one_log_each_step_counts_once(tmp_path: Path) -> None:
    one = [{**STEP, "step": k, "loss": 1.0} for k in (1, 2, 3)]
    two = [{**STEP, "step": k, "loss": 9.0} for k in (1, 2, 3, 4)]
    records, left_out = read_log(log_of(tmp_path, one[0], two[0], one[1], two[1], one[2], two[2], two[3]))
    assert [(r["step"], r["loss"]) for r in records] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 9.0)]
    assert "left out 3 lines, 3 of a step that was there already (two runs in one folder)" in left_out


def test_a_last_line_that_is_whole_counts_though_it_is_not_ended(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(STEP))
    assert read_log(tmp_path) == ([STEP], "")


def test_a_number_that_is_not_finite_is_none(tmp_path: Path) -> None:
    records, _ = read_log(log_of(tmp_path, b'{"kind": "step", "step": 1, "minutes": 1, "loss": NaN, "a": [Infinity]}'))
    assert records == [{"kind": "step", "step": 1, "minutes": 1, "loss": None, "a": [None]}]


STRANGE = [
    {**STEP, "loss": None}, {**STEP, "step": 10, "loss": "high", "grad_norm": []}, {"kind": "step", "step": 11, "minutes": 1},
    {"kind": "evaluation", "step": 11, "minutes": 1.0},
    {"kind": "evaluation", "step": 12, "minutes": 1.0, "AP": "good", "AP50": None, "losses": 3, "health": [],
     "warnings": "all", "clip_max_norm": "none"},
    {"kind": "evaluation", "step": 13, "minutes": 1.0, "AP": 0.5, "AP50": 0.5, "AP75": {}, "losses": {"loss": "x"},
     "health": {"box_spread": "wide", "matched_queries": ["a", 0.5], "matched_agreement": 3}, "warnings": [1, "$a$b$"]},
    {"kind": "warning", "step": 13}, {"kind": "warning", "step": 13, "minutes": 2, "guard": None}, {"kind": "new", "step": 1}]


def test_of_records_with_strange_values_a_curve_and_a_summary_are_made_all_the_same(tmp_path: Path) -> None:
    run = read_run(log_of(tmp_path / "a", *STRANGE))
    draw([run], tmp_path / "a.png")
    assert run["train"]["loss"] == [None, None, None] and run["evaluation"]["AP"] == [None, None, 0.5]
    json.dumps(run, allow_nan=False)
    summary = summarise_log(tmp_path / "a")
    assert summary["last"]["AP"] == 0.5 and summary["best"]["AP"] == 0.5 and summary["left_out"] == ""


def test_a_run_says_what_was_left_out_of_its_log(tmp_path: Path) -> None:
    run = read_run(log_of(tmp_path / "a", STEP, b'{"kind": "st'))
    assert "left out 1 line, 1 that cannot be read" in run["left_out"]
    assert summarise_log(tmp_path / "a")["left_out"] == run["left_out"]
    with pytest.raises(ValueError, match=r"holds no training step yet.*left out 1 line"):
        read_run(log_of(tmp_path / "b", b"half"))
