"""What is printed to be typed again can be typed again: a folder with a space in its name stays one word."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest
import torch

from scratch.detector import read_checkpoint
from scratch.training.checkpoint import load_checkpoint
from tests.conftest import REPOSITORY

SOURCES = [REPOSITORY / "detr_scratch.py",
           *(path for folder in ("scratch", "commands", "benchmarks", "exercises")
             for path in (REPOSITORY / folder).rglob("*.py"))]


def unquoted(source: str) -> list[str]:
    """The values that an f-string of `source` puts into a command line as they are, without `command`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            begun = False
            for part in node.values:
                if isinstance(part, ast.Constant):
                    begun = begun or "python detr_scratch.py" in part.value or "python -m " in part.value
                elif begun and not (isinstance(part.value, ast.Call) and ast.unparse(part.value.func) == "command"):
                    found.append(ast.unparse(part.value))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_command_line_is_printed_through_command(path: Path):
    assert unquoted(path.read_text(encoding="utf-8")) == []


def test_a_planted_one_is_found():
    assert unquoted('f"to go on: python detr_scratch.py train --run-dir {run_dir}"') == ["run_dir"]
    assert unquoted('f"{run_dir}: python detr_scratch.py analyze {command(run_dir)}"') == []


def test_the_advice_on_weights_in_a_folder_with_a_space_is_one_command(tmp_path: Path):
    path = tmp_path / "my weights (1)" / "its file.pth"
    path.parent.mkdir()
    tensors = {"class_embed.weight": torch.zeros(2, 3), "backbone.0.body.conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"model": tensors}, path)
    with pytest.raises(ValueError) as refused:
        load_checkpoint(path)
    words = shlex.split(str(refused.value).rpartition("(of other weights: ")[2].rstrip(")"))
    assert words == ["python", "detr_scratch.py", "convert", str(path), "--to", "ours", "--out", "FILE.pt"]
    with pytest.raises(ValueError) as refused:
        read_checkpoint(path)
    words = shlex.split(str(refused.value).rpartition("makes one of them: ")[2])
    assert words[:4] == ["python", "detr_scratch.py", "convert", str(path)] and words[-1] == "its file-ours.pt"
