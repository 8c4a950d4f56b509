"""A record that is damaged is told in one line that names the file and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scratch.analysis.records import SURPRISES, believed, read_record

DAMAGED = [b"", b"{", b'{"a": [1, 2', b"\xff\xfe{}", b"[" * 100_000, b"null", b"17", b'"text"', b"[1, 2]", b"9" * 5000,
           b"\x89PNG\r\n", b'{"a": 1}{"b": 2}']


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_file_that_is_no_such_record_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged, or not what charts writes there .*: remove it and run "
                                         "charts again$") as error:
        read_record(tmp_path / "a.json", "charts")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500 + len(str(tmp_path))


def test_a_whole_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "ä"]}', encoding="utf-8")
    assert read_record(tmp_path / "a.json", "charts") == {"a": [1, "ä"]}
    (tmp_path / "b.json").write_text("[1]")
    assert read_record(tmp_path / "b.json", "charts", list) == [1]


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir), lambda path: None])
def test_what_is_no_file_is_not_waited_for(make, tmp_path: Path) -> None:
    make(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.json"):
        read_record(tmp_path / "a.json", "charts")


@pytest.mark.parametrize("error", SURPRISES)
def test_what_another_content_breaks_is_one_line(error: type, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.json is damaged.*{error.__name__}: ") as told, \
            believed(tmp_path / "a.json", "charts"):
        raise error("two\nlines")
    assert "\n" not in str(told.value)


def test_a_full_disk_is_not_taken_for_a_damaged_record(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="^full$"), believed(tmp_path / "a.json", "charts"):
        raise OSError("full")
