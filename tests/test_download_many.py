"""Many small files come side by side: each whole or not there, and what fails keeps no other away."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Iterator, Optional

import pytest

from scratch.weights import download, download_many
from scratch.weights.download_many import fetch_all
from tests.local_server import Server, serving
from tests.test_download import BODY, in_a_process, visible, wait_until


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A second try comes at once."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(monkeypatch) as server:
        yield server


def many(server: Server, folder: Path, count: int) -> list[tuple[str, Path]]:
    for i in range(count):
        server.files[f"/{i}.jpg"] = BODY[i:i + 9000]
    return [(server.url(f"/{i}.jpg"), folder / "images" / f"{i}.jpg") for i in range(count)]


def test_many_files_arrive_side_by_side(server, tmp_path):
    items = many(server, tmp_path, 40)
    fetch_all(items, workers=8)
    assert [path.read_bytes() for _, path in items] == [BODY[i:i + 9000] for i in range(40)]
    assert len(visible(tmp_path / "images")) == 40


def test_as_many_are_asked_for_at_a_time_as_there_are_workers(server, tmp_path):
    server.stall = 0.05
    fetch_all(many(server, tmp_path, 24), workers=4)
    assert server.busiest == 4


def test_what_is_there_needs_no_lock_so_that_a_folder_may_be_read_only(tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY)
    fetch_all([("http://host.invalid/a.bin", tmp_path / "a.bin")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_files_that_are_there_are_left_alone(server, tmp_path):
    items = many(server, tmp_path, 5)
    fetch_all(items[:3], workers=2)
    server.asked.clear()
    fetch_all(items, workers=2)
    assert sorted(path for path, _ in server.asked) == ["/3.jpg", "/4.jpg"]


def test_what_failed_is_said_together_when_the_others_are_there(server, tmp_path):
    items = many(server, tmp_path, 10)
    del server.files["/3.jpg"]
    server.cuts["/7.jpg"] = [5000] * 10
    with pytest.raises(OSError) as error:
        fetch_all(items, workers=3, what="images")
    assert "2 of 10 images could not be fetched" in str(error.value)
    assert "/3.jpg" in str(error.value) and "404" in str(error.value) and "/7.jpg" in str(error.value)
    assert visible(tmp_path / "images") == sorted(f"{i}.jpg" for i in range(10) if i not in (3, 7))


def short(path: Path) -> Optional[str]:
    """What is wrong with one of `many`."""
    return None if len(path.read_bytes()) == 9000 else f"{len(path.read_bytes())} bytes"


def test_what_arrives_and_is_something_else_has_failed_and_does_not_stay(server, tmp_path):
    items = many(server, tmp_path, 10)
    server.files["/3.jpg"], whole = b"<html>please log in</html>", server.files["/3.jpg"]
    server.lengths = False
    server.cuts["/7.jpg"] = [5000]
    with pytest.raises(OSError) as error:
        fetch_all(items, workers=3, trouble_with=short)
    assert "2 of 10 files could not be fetched" in str(error.value)
    assert "/3.jpg gave something else than was asked for (26 bytes)" in str(error.value)
    assert "/7.jpg gave something else than was asked for (5000 bytes)" in str(error.value)
    assert visible(tmp_path / "images") == sorted(f"{i}.jpg" for i in range(10) if i not in (3, 7))
    server.files["/3.jpg"] = whole
    server.asked.clear()
    fetch_all(items, workers=3, trouble_with=short)
    assert sorted(path for path, _ in server.asked) == ["/3.jpg", "/7.jpg"]


def test_what_is_there_and_is_something_else_comes_anew_or_goes(server, tmp_path):
    items = many(server, tmp_path, 5)
    fetch_all(items, workers=2)
    for i in (1, 4):
        items[i][1].write_bytes(b"")
    del server.files["/4.jpg"]
    server.asked.clear()
    with pytest.raises(OSError, match="1 of 5 files"):
        fetch_all(items, workers=2, trouble_with=short)
    assert sorted(path for path, _ in server.asked) == ["/1.jpg", "/4.jpg"]
    assert visible(tmp_path / "images") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_when_all_fail_the_rest_is_not_tried(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_many, "MOST_FAILURES", 5)
    items = many(server, tmp_path, 100)
    server.files.clear()
    with pytest.raises(OSError, match="100 of 100 files"):
        fetch_all(items, workers=2)
    assert len(server.asked) < 20


def test_ctrl_c_leaves_whole_files_alone_and_the_next_call_fetches_the_rest(server, tmp_path):
    items, server.pause = many(server, tmp_path, 60), 0.25
    process = in_a_process("fetch_all([(url, Path(path)) for url, path in zip(a[::2], a[1::2])], 4)",
                           *(word for item in items for word in item), module="scratch.weights.download_many")
    wait_until(lambda: (tmp_path / "images" / "4.jpg").exists())
    server.pause = 2.0  # however late the signal comes, some files are left
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "KeyboardInterrupt" in output
    there = visible(tmp_path / "images")
    assert 0 < len(there) < 60 and all(name.endswith(".jpg") for name in there)
    assert all(len((tmp_path / "images" / name).read_bytes()) == 9000 for name in there)
    server.asked.clear()
    server.pause = 0.0
    fetch_all(items, workers=4)
    assert len(server.asked) == 60 - len(there) and len(visible(tmp_path / "images")) == 60
