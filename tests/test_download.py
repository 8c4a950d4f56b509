"""A file is fetched whole or not at all, over any line."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest
import requests

from scratch.weights import download
from scratch.weights.download import fetch
from tests.conftest import REPOSITORY
from tests.local_server import Server, serving

BODY = bytes(range(251)) * 400  # 100,400 bytes
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Has BODY at /a.bin; a second try comes at once."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(monkeypatch) as server:
        server.files["/a.bin"] = BODY
        yield server


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def in_a_process(call: str, *arguments: object, module: str = "scratch.weights.download") -> subprocess.Popen:
    """`call`, with the module's functions and the arguments as strings, in another process."""
    # Where the tests run in a shell's background, Ctrl-C is ignored there and in all that is started there.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listen}; import sys; from {module} import *; from pathlib import Path; a = sys.argv[1:]; {call}"
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], cwd=REPOSITORY,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(true, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


# -- one file ------------------------------------------------------------------------------------------------------


def test_a_file_arrives_and_nothing_else_is_left(server, tmp_path):
    assert fetch(server.url("/a.bin"), tmp_path / "new" / "a.bin", SHA[:8]) == tmp_path / "new" / "a.bin"
    assert (tmp_path / "new" / "a.bin").read_bytes() == BODY and visible(tmp_path / "new") == ["a.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    for sha256 in (None, SHA[:8], SHA):
        fetch(server.url("/a.bin"), tmp_path / "a.bin", sha256)
    assert len(server.asked) == 1


def test_what_is_there_needs_no_lock_so_that_a_cache_may_be_read_only(tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY)
    fetch("http://host.invalid/a.bin", tmp_path / "a.bin", SHA)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_that_is_there_but_damaged_is_fetched_anew(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY[:-1] + b"?")
    fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA[:8])
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_slow_server_is_waited_for(server, tmp_path):
    server.pause = 0.005
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY


def test_after_a_cut_only_what_is_missing_is_asked_for(server, tmp_path):
    server.cuts["/a.bin"] = [32_768, 65_536]
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA[:8]).read_bytes() == BODY
    assert server.asked == [("/a.bin", None), ("/a.bin", "bytes=32768-"), ("/a.bin", "bytes=65536-")]
    assert server.sent == len(BODY) and visible(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, tmp_path):
    server.ranges, server.cuts["/a.bin"] = False, [32_768]
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY


def test_a_line_that_is_cut_again_and_again_ends_with_an_error_that_says_what_to_do(server, tmp_path):
    server.ranges, server.cuts["/a.bin"] = False, [32_768] * 10
    with pytest.raises(OSError) as error:
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    message = str(error.value)
    assert "32,768 bytes have arrived and are kept" in message and "cut" in message
    assert f"open {server.url('/a.bin')} in a browser" in message and f"save it as {tmp_path / 'a.bin'}" in message
    assert len(server.asked) == 1 + download.TRIES and not (tmp_path / "a.bin").exists()


def test_a_line_that_brings_something_each_time_is_tried_as_long_as_it_takes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 2048)
    server.cuts["/a.bin"] = list(range(8192, len(BODY), 8192))
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.asked) > 2 * download.TRIES


def test_the_next_call_goes_on_where_the_last_one_failed(server, tmp_path):
    server.cuts["/a.bin"] = [32_768] * (1 + download.TRIES)
    with pytest.raises(OSError):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    server.asked.clear()
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a.bin", "bytes=32768-")]


def test_a_file_that_changed_between_two_calls_is_fetched_from_its_beginning(server, tmp_path):
    server.cuts["/a.bin"] = [32_768] * (1 + download.TRIES)
    with pytest.raises(OSError):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    server.files["/a.bin"] = changed = BODY[::-1]
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == changed
    assert server.asked[-1] == ("/a.bin", "bytes=32768-")  # which the new ETag made void


def test_without_a_name_for_its_version_half_a_file_is_not_trusted(server, tmp_path):
    server.etags["/a.bin"] = 'W/"weak"'
    server.cuts["/a.bin"] = [32_768]
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a.bin", None), ("/a.bin", None)]


@pytest.mark.parametrize("already, times", [(len(BODY), 1), (len(BODY) + 7, 2)])
def test_more_than_there_is_cannot_be_asked_for(server, tmp_path, already, times):
    tag = f'"{hashlib.sha1(BODY).hexdigest()[:8]}"'
    (tmp_path / "a.bin.partial").write_bytes((BODY + b"strange")[:already])
    (tmp_path / "a.bin.partial.etag").write_text(tag)
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA).read_bytes() == BODY
    assert len(server.asked) == times and visible(tmp_path) == ["a.bin"]


def test_a_wrong_hash_leaves_nothing_and_says_both(server, tmp_path):
    with pytest.raises(ValueError, match=f"begins with {SHA[:8]}, wanted 00000000.*removed(.|\n)*save it as"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin", "00000000")
    assert visible(tmp_path) == [] and len(server.asked) == 1


def test_a_hole_in_what_had_arrived_costs_one_fetch_from_the_beginning(server, tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(bytes(32_768))
    (tmp_path / "a.bin.partial.etag").write_text(f'"{hashlib.sha1(BODY).hexdigest()[:8]}"')
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA[:8]).read_bytes() == BODY
    assert server.asked == [("/a.bin", "bytes=32768-"), ("/a.bin", None)]


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    with pytest.raises(OSError, match="404(.|\n)*save it as"):
        fetch(server.url("/b.bin"), tmp_path / "b.bin")
    assert len(server.asked) == 1 and visible(tmp_path) == []


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.statuses["/a.bin"] = [503, 429]
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY


def test_a_length_that_is_too_large_is_a_line_that_is_cut(server, tmp_path):
    server.claimed["/a.bin"] = len(BODY) + 10
    server.ranges = False
    with pytest.raises(OSError, match="cut"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_a_line_that_ends_without_a_word_is_measured(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_pieces", lambda answer: iter([answer.raw.read(CHUNK) for _ in range(next(pieces))]))
    CHUNK, pieces = download.CHUNK, iter([2, 5])  # urllib3 says nothing before its version 2
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a.bin", None), ("/a.bin", "bytes=32768-")]


def test_a_length_that_is_too_small_does_not_pass_the_hash(server, tmp_path):
    server.claimed["/a.bin"] = len(BODY) - 10
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA)
    assert visible(tmp_path) == []


def test_without_a_length_the_end_of_the_line_is_the_end_of_the_file(server, tmp_path):
    server.lengths = False
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA).read_bytes() == BODY


def test_a_host_that_is_not_there_is_named_with_what_to_do(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(OSError, match=f"{url} could not be fetched: its host refuses(.|\n)*save it as"):
            fetch(url, tmp_path / "a.bin")


@pytest.mark.parametrize("error, words", [
    ("NameResolutionError(\"Failed to resolve 'x' ([Errno -3] …)\")", "its host is not known"),
    ("[Errno 101] Network is unreachable", "there is no network"),
    ("Connection reset by peer", "the line was cut"),
    ("something new", "something new"),
])
def test_the_networks_errors_are_said_in_words(error, words):
    assert words in download._in_words(OSError(error))


def test_a_host_that_says_nothing_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (0.1, 0.1))
    server.stall = 0.3
    with pytest.raises(OSError, match="did not answer in time"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")


@pytest.mark.parametrize("url", ["nowhere", "gopher://host/file", "http://"])
def test_what_is_no_address_is_said_at_once(url, tmp_path):
    with pytest.raises(ValueError, match="is no address"):
        fetch(url, tmp_path / "a.bin")


# -- an answer is not believed -------------------------------------------------------------------------------------


def test_what_comes_packed_is_neither_unpacked_nor_kept(server, tmp_path):
    server.files["/a.bin"] = gzip.compress(bytes(10_000_000))
    server.headers["/a.bin"] = {"Content-Encoding": "gzip"}
    with pytest.raises(OSError, match="it comes packed .'gzip'., which was not asked for"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    assert visible(tmp_path) == [] and len(server.asked) == 1


def test_without_a_length_no_more_is_taken_than_is_wanted_at_most(server, tmp_path):
    server.lengths = False
    with pytest.raises(OSError, match="more came than the 50,000 bytes that are wanted at most"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin", most=50_000)
    assert visible(tmp_path) == [] and len(server.asked) == 1
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", most=len(BODY)).read_bytes() == BODY


def test_more_than_is_wanted_is_not_even_begun(server, tmp_path):
    with pytest.raises(OSError, match="100,400 bytes are announced, and at most 100,399 are wanted: this is"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin", most=len(BODY) - 1)
    assert visible(tmp_path) == []


def test_a_part_that_is_longer_than_it_says_is_not_kept(server, tmp_path):
    server.cuts["/a.bin"] = [32_768] * (1 + download.TRIES)
    with pytest.raises(OSError):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    server.headers["/a.bin"] = {"Content-Range": "bytes 32768-40000/40001"}
    server.cuts.clear()
    with pytest.raises(OSError, match="more came than the 40,001 bytes that were announced"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    assert visible(tmp_path) == []


def test_a_body_in_chunks_arrives(server, tmp_path):
    server.chunked = True
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin", SHA).read_bytes() == BODY


def test_a_line_that_crawls_is_given_up_although_bytes_come(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CRAWL", (0.02, 10**6))
    server.pause = 0.01
    with pytest.raises(OSError, match="the line brought [0-9,]+ bytes in 0 seconds(.|\n)*bytes have arrived"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    assert len(server.asked) <= download.TRIES


def test_an_answer_whose_head_comes_letter_by_letter_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ANSWER", 0.05)
    server.slow_head = 0.02
    with pytest.raises(OSError, match="did not answer in time"):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://host/a", "/loop", "data:,x"])
def test_who_is_sent_on_to_what_is_no_address_or_for_ever_does_not_go(server, tmp_path, where):
    server.redirects = {"/loop": where}
    with pytest.raises(ValueError, match="is no address that can be fetched"):
        fetch(server.url("/loop"), tmp_path / "a.bin")
    assert visible(tmp_path) == []


def test_who_is_sent_on_within_the_web_goes(server, tmp_path):
    server.redirects = {"/b.bin": "/a.bin"}
    assert fetch(server.url("/b.bin"), tmp_path / "a.bin").read_bytes() == BODY


def test_who_asked_by_https_is_not_sent_on_to_plain_http(tmp_path, monkeypatch):
    answer = requests.Response()
    answer.status_code, answer.url, hop = 200, "http://elsewhere/a.bin", requests.Response()
    hop.url = "https://host/a.bin"
    answer.history, answer.raw = [hop], io.BytesIO(BODY)
    monkeypatch.setattr(download, "_begun", lambda *_: answer)
    with pytest.raises(ValueError, match="https://host/a.bin .*sends on to plain http://elsewhere/a.bin"):
        fetch("https://host/a.bin", tmp_path / "a.bin")
    assert visible(tmp_path) == []


@pytest.mark.parametrize("said", ["²", "9" * 5000, "-5", "1e9", ""])
def test_a_length_that_is_none_is_taken_as_none(said):
    answer = requests.Response()
    answer.status_code, answer.headers["Content-Length"] = 200, said
    assert download._length(answer) is None


def test_a_disk_without_room_gets_its_space_back(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"could not be written: {os.strerror(errno.EFBIG)}. Free some space"):
            fetch(server.url("/a.bin"), tmp_path / "a.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert visible(tmp_path) == []


def test_two_processes_fetch_a_file_once(server, tmp_path):
    server.pause = 0.02
    both = [in_a_process("fetch(a[0], Path(a[1]), a[2])", server.url("/a.bin"), tmp_path / "a.bin", SHA)
            for _ in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (tmp_path / "a.bin").read_bytes() == BODY and server.sent == len(BODY)


def test_what_a_killed_process_had_fetched_is_used(server, tmp_path):
    server.pause = 0.02
    process = in_a_process("fetch(a[0], Path(a[1]))", server.url("/a.bin"), tmp_path / "a.bin")
    partial = tmp_path / "a.bin.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there, server.pause = partial.stat().st_size, 0.0
    assert not (tmp_path / "a.bin").exists()
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[-1] == ("/a.bin", f"bytes={there}-")


@pytest.mark.parametrize("before", [True, False])
def test_a_process_that_is_killed_at_the_rename_leaves_nothing_beside_the_file(server, tmp_path, monkeypatch, before):
    class Killed(BaseException):
        pass

    def replace_and_die(source, target):
        if not before:
            replaced(source, target)
        raise Killed

    replaced = os.replace
    monkeypatch.setattr(download.os, "replace", replace_and_die)
    with pytest.raises(Killed):
        fetch(server.url("/a.bin"), tmp_path / "a.bin")
    monkeypatch.setattr(download.os, "replace", replaced)
    assert fetch(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["a.bin"]
