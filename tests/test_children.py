"""children: what ended a run is found in what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import children
from commands.children import Children, error_in


@pytest.mark.parametrize("text, said", [
    ("step 1\nerror: got a = 1\nwanted 2\n", "got a = 1\nwanted 2"), ("Traceback:\n  ...\nKeyError: 3\n", "KeyError: 3"),
    ("", "it said nothing"), ("error: the first run's\n\nerror: the last one's", "the last one's"),
    ("step 1\nFatal Python error: Aborted\n\nCurrent thread 0x1:\nExtension modules: numpy", "Fatal Python error: Aborted"),
])
def test_what_a_run_ended_with_is_its_error_or_its_last_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text(text)
    assert error_in(tmp_path / "output.txt") == said


def test_only_what_stands_behind_the_beginning_counts(tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("error: an earlier run's «\nstep 1\n", encoding="utf-8")
    assert error_in(tmp_path / "output.txt", len("error: an earlier run's «\n".encode())) == "step 1"


def test_a_run_that_a_library_ends_says_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aborts.py").write_text("import os\ndef deep(): os.abort()\ndeep()\n")
    monkeypatch.setattr(children, "COMMAND_LINE", tmp_path / "aborts.py")
    assert not Children(None).run([], tmp_path / "output.txt")
    assert error_in(tmp_path / "output.txt") == "Fatal Python error: Aborted"
    assert "in deep" in (tmp_path / "output.txt").read_text()
