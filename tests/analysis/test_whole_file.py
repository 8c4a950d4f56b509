"""A file has its former content, or the new one; never a half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scratch.analysis.whole_file import write_json


def cut_off(path: Path, text: str, encoding: str) -> None:
    """Stands for Path.write_text in a process that is killed in the middle of it."""
    with open(path, "w", encoding=encoding) as file:
        file.write(text[:len(text) // 2])
    raise KeyboardInterrupt


def test_a_write_that_was_cut_off_leaves_the_former_content_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"step": 1})
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "write_text", cut_off)
        write_json(path, {"step": 2})
    assert json.loads(path.read_text()) == {"step": 1}
    write_json(path, {"step": 3})
    assert json.loads(path.read_text()) == {"step": 3} and list(tmp_path.iterdir()) == [path]
