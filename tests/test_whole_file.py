"""A file has its former content, or the new one; never a half."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from scratch.whole_file import make_folder, refuse_replacing, whole_file, write_json, write_text


def cut_off(path: Path, text: str, encoding: str) -> None:
    """Stands for Path.write_text in a process that is killed in the middle of it."""
    with open(path, "w", encoding=encoding) as file:
        file.write(text[:len(text) // 2])
    raise KeyboardInterrupt


def full(path: Path, text: str, encoding: str) -> None:
    """Stands for Path.write_text on a disk that gets full in the middle of it."""
    with open(path, "w", encoding=encoding) as file:
        file.write(text[:len(text) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"a\.txt could not be written: No space left on device; name another --out"):
        write_text(tmp_path / "a.txt", "all of it", advice="name another --out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, make) -> None:
    make(tmp_path / "a")
    kind = stat.S_IFMT((tmp_path / "a").stat().st_mode)
    with pytest.raises(OSError, match="wanted a file's name"):
        write_text(tmp_path / "a", "text")
    assert stat.S_IFMT((tmp_path / "a").stat().st_mode) == kind


def test_the_partial_file_has_the_ending_and_fits_beside_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    with whole_file(path) as partial:
        assert partial.suffix == ".png" and partial.parent == tmp_path
        partial.write_bytes(b"picture")
    assert path.read_bytes() == b"picture"


def test_a_name_that_no_file_can_have_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="n{300} could not be written"):
        write_text(tmp_path / ("n" * 300), "text")


def test_several_writers_of_one_file_do_not_share_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with whole_file(path, several=True) as first, whole_file(path, several=True) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_read_is_not_written_over_through_any_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "a.json")
    for inputs in ([tmp_path / "in" / "a.json"], [tmp_path / "in"]):
        with pytest.raises(ValueError, match="link is a file that this command reads"):
            refuse_replacing(tmp_path / "link", inputs)
        refuse_replacing(tmp_path / "out.json", inputs)


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    for name, why in (("a", "it is a file"), ("b", "it is a link to nothing"), ("n" * 300, "File name too long")):
        with pytest.raises(OSError, match=f"{name} cannot be used as a folder to write to: {why}; name another one"):
            make_folder(tmp_path / name)
