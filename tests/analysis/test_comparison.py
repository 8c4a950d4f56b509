"""Three ways to a detector: the table and the chart say what was measured, and are made from comparison.json alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from commands.compare import agreement as compare_agreement
from scratch.analysis import comparison as module
from scratch.analysis.comparison import agreement_in_words, draw, relative_differences, report, table, write


def run(approach: str, **changes: Any) -> dict[str, Any]:
    return {"approach": approach, "weights": None, "steps": 1234, "minutes": 10.04, "loss": 3.21, "AP": 0.4567,
            "AP50": 0.75, "AP75": None, "seconds_per_step": 0.2345, "peak_memory_gib": 1.239, "parameters": 1_948_570,
            "trained": 1_948_570, "machine": "CPU, 2 threads, float32",
            "train": {"step": [100, 200], "minutes": [5.0, 10.0], "loss": [8.0, 4.0]},
            "evaluation": {"step": [100, 200], "minutes": [5.0, 10.0], "loss": [7.0, 5.0], "AP": [0.1, 0.4567],
                           "AP50": [None, 0.75], "AP75": [None, None]}, **changes}


def results(*runs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    agreement = {"float64": {"ours": [8.0, 4.0], "torch_nn": [8.0, 4.0 + 4e-12], "largest": 1e-12, "at_step": 2}}
    return {"preset": "tiny_vanilla", "data": "bccd", "split": "val", "budget": "10 minutes", "seed": 42,
            "on_gpu": False, "missing": [], "approaches": list(runs), "agreement": agreement, **changes}


def test_a_row_holds_the_figures_of_a_run_and_a_dash_for_what_there_is_not():
    _, _, row = table([run("torch_nn")])
    assert row == ("| torch.nn | 0.457 | 0.750 | – | 3.210 | 1,234 | 10.0 | 0.234 | 1.24 | 1,948,570 | 1,948,570 "
                   "| CPU, 2 threads, float32 |")


def test_the_report_says_what_each_way_is_and_why_one_is_missing():
    text = report(results(run("ours"), run("fine_tuned", weights="detr-r50.pth"), missing=["No such thing."]))
    assert "10 minutes for each" in text and "No such thing." in text and "less what it had before" in text
    assert "* **fine-tuned**: this project's layers, from trained weights (detr-r50.pth)" in text
    assert "**torch.nn**" not in text


@pytest.mark.parametrize("largest, said", [(1e-12, "That is rounding"), (1e-9, "That is rounding"),
                                           (2e-9, "That is more than 1e-09: was it so from the first steps")])
def test_in_float64_a_difference_is_rounding_or_a_mistake(largest: float, said: str):
    lines = agreement_in_words({"float64": {"ours": [1.0] * 50, "torch_nn": [1.0] * 50, "largest": largest,
                                            "at_step": 7}})
    assert len(lines) == 1 and said in lines[0] and "first 50 steps" in lines[0] and "(step 7)" in lines[0]


def test_in_float32_a_difference_is_told_and_not_judged():
    (line,) = agreement_in_words({"float32": {"ours": [1.0], "torch_nn": [1.1], "largest": 0.1, "at_step": 1}})
    assert line.endswith("differs from ours by 1.0e-01 of it at most (step 1).")


def test_a_relative_difference_is_a_share_of_ours():
    assert relative_differences([4.0, 0.0, 0.0, -2.0], [5.0, 0.0, 0.0, -2.0]) == [0.25, 0.0, 0.0, 0.0]


def test_the_rounding_of_float32_is_as_much_larger_as_the_note_says():
    times = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    for note in (module.__doc__, compare_agreement.__doc__):
        said = re.search(r"rounding is (?:already )?(\S+) times as large", note)
        assert times == pytest.approx(float(said[1]), rel=0.1)


@pytest.mark.parametrize("runs, agreed", [([], False), ([run("torch_nn")], True),
                                          ([run("ours"), run("torch_nn"), run("fine_tuned")], True)])
def test_a_chart_is_drawn_of_whatever_is_finished(runs: list, agreed: bool, tmp_path: Path):
    draw(results(*runs) if agreed else results(*runs, agreement={}), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000 and picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_table_and_the_chart_are_made_again_from_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(results(run("ours"), run("torch_nn")), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("comparison.md", "comparison.png")}
    for name in before:
        (tmp_path / name).unlink()
    monkeypatch.setattr(sys, "argv", ["comparison", str(tmp_path)])
    module.main()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert json.loads((tmp_path / "comparison.json").read_text()) == results(run("ours"), run("torch_nn"))
