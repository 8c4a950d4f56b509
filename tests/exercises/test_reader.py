"""The reader's files: written once and never over, loaded with errors in words, and remembered when they pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exercises.reader import CHECKS, Unusable, borrowed, foreign, load, path_of, progress, read, remember, start
from exercises.registry import find
from exercises.stub import solution_of, stub_of

LINEAR = find("linear")


def test_start_writes_the_stub_and_never_over_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "ops"
    path = start(LINEAR, folder)
    assert path == folder / "linear.py" and path.read_text("utf-8") == stub_of(LINEAR)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="linear.py is there already, and stays as it is"):
        start(LINEAR, folder)
    assert path.read_text("utf-8") == "mine"


def test_progress_goes_from_nothing_to_done_and_back_when_the_file_changes(tmp_path: Path) -> None:
    assert progress(LINEAR, tmp_path) == ""
    start(LINEAR, tmp_path)
    assert progress(LINEAR, tmp_path) == "begun"
    solution = solution_of(LINEAR)
    path_of(LINEAR, tmp_path).write_text(solution, encoding="utf-8")
    assert progress(LINEAR, tmp_path) == "written"
    remember(LINEAR, tmp_path, solution, "passed")
    assert progress(LINEAR, tmp_path) == "passed"
    path_of(LINEAR, tmp_path).write_text(solution + "\n# more\n", encoding="utf-8")
    assert progress(LINEAR, tmp_path) == "changed"
    remember(LINEAR, tmp_path, "", "failed")
    assert progress(LINEAR, tmp_path) == "written"
    for ended in ("quick", "failed"):
        remember(LINEAR, tmp_path, solution + "\n# more\n", ended)
        assert progress(LINEAR, tmp_path) == ended
    path_of(LINEAR, tmp_path).write_text("def linear(:", encoding="utf-8")
    assert progress(LINEAR, tmp_path) == "written"


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"linear": 3}', '{"linear": {}}',
                                  '{"linear": {"ended": "won", "file": ""}}'])
def test_a_damaged_record_of_what_passed_counts_as_none(tmp_path: Path, text: str) -> None:
    path_of(LINEAR, tmp_path).write_text(solution_of(LINEAR), encoding="utf-8")
    (tmp_path / CHECKS).write_text(text, encoding="utf-8")
    assert progress(LINEAR, tmp_path) in ("written", "changed")


def test_what_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="begin with python -m exercises start linear"):
        read(LINEAR, tmp_path)
    path_of(LINEAR, tmp_path).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Unusable, match="not a text in UTF-8"):
        read(LINEAR, tmp_path)


def test_an_error_while_the_file_is_read_names_its_line() -> None:
    with pytest.raises(Unusable, match="linear.py, line 2: ZeroDivisionError"):
        load(LINEAR, "x = 1\ny = 1 / 0\ndef linear(x): return x\n")


def test_a_borrowed_answer_is_found_and_a_helper_or_a_base_class_is_not_one() -> None:
    assert borrowed(LINEAR, "from scratch.ops.linear import linear as mine") == "from scratch.ops.linear import linear"
    assert borrowed(LINEAR, "from scratch.ops.linear import linear_naive") is None
    assert borrowed(find("matcher"), "from scratch.objective.matcher import HungarianMatcher as Note") is None


@pytest.mark.parametrize("line, package", [
    ("import scipy.optimize", "scipy"), ("from torchvision.ops import box_iou", "torchvision"),
    ("import math, heapq", None),
    ("import torch.nn.functional as F", None), ("import numpy as np", None), ("from . import softmax", None),
    ("from scratch.ops.boxes import box_area", None)])
def test_a_package_from_elsewhere_is_found_wherever_it_is_imported(line: str, package) -> None:
    assert foreign(f"def linear(x):\n    {line}\n") == package


def test_a_record_of_passes_alone_is_still_read(tmp_path: Path) -> None:
    path_of(LINEAR, tmp_path).write_text(solution_of(LINEAR), encoding="utf-8")
    remember(LINEAR, tmp_path, solution_of(LINEAR), "passed")
    hashed = json.loads((tmp_path / CHECKS).read_text("utf-8"))["linear"]["file"]
    (tmp_path / CHECKS).write_text(json.dumps({"linear": hashed}), encoding="utf-8")
    assert progress(LINEAR, tmp_path) == "passed"
