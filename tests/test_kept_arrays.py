from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import sys

import numpy as np
import pytest

from scratch.kept_arrays import ENDING, cache_folder, keep, recall, sha256_of

MADE_OF = {"sha256": "ab", "flags": [1, "two", None]}
ARRAYS = {"boxes": np.arange(21.0).reshape(7, 3), "names": np.array(["a.jpg", "café \udc80.jpg"]),
          "none": np.empty((0, 4)), "yes": np.array([True, False, True]), "whole": np.array([-5, 2**62])}
REST = {"classes": [{"id": 1, "name": "cat\n"}], "far": float("inf")}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "set" / "instances.json"
    path.parent.mkdir()
    path.write_text("{}")
    return path


def kept_file(source):
    return source.with_name(f".{source.name}.rows{ENDING}")


def assert_recalled(source):
    found = recall(source, "rows", MADE_OF)
    assert found is not None and found.rest == REST and list(found.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype and np.array_equal(found.arrays[name], array), name


def test_what_is_recalled_is_what_was_kept_bit_for_bit_and_read_only(source):
    assert keep(source, "rows", MADE_OF, ARRAYS, REST) == kept_file(source)
    assert_recalled(source)
    with pytest.raises(ValueError, match="read-only"):
        recall(source, "rows", MADE_OF).arrays["boxes"][0] = 1


def test_every_array_begins_where_processors_read_it_best(source):
    keep(source, "rows", MADE_OF, ARRAYS, REST)
    for array in recall(source, "rows", MADE_OF).arrays.values():
        assert array.size == 0 or array.ctypes.data % 64 == 0


def test_recalled_arrays_outlive_their_file_and_travel_to_another_process(source):
    keep(source, "rows", MADE_OF, ARRAYS)
    boxes = recall(source, "rows", MADE_OF).arrays["boxes"]
    kept_file(source).unlink()
    assert np.array_equal(pickle.loads(pickle.dumps(boxes)), ARRAYS["boxes"])


def test_nothing_is_recalled_where_nothing_was_kept(source, capsys):
    assert recall(source, "rows", MADE_OF) is None
    keep(source, "rows", MADE_OF, ARRAYS)
    assert recall(source, "pictures", MADE_OF) is None and capsys.readouterr().err == ""


@pytest.mark.parametrize("spoil, why", [
    (lambda content: content[:-1], "is damaged"),
    (lambda content: content[:100], "is damaged"),
    (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "is damaged"),
    (lambda content: content.replace(b"cat", b"cow"), "is damaged"),
    (lambda content: b"", "is no file of this program"),
    (lambda content: b"\x80\x04" + content, "is no file of this program"),
    (lambda content: content.replace(b"arrays 1 ", b"arrays 2 "), "was written by another version"),
])
def test_a_file_that_does_not_fit_is_removed_with_a_line(spoil, why, source, capsys):
    keep(source, "rows", MADE_OF, ARRAYS, REST)
    path = kept_file(source)
    path.write_bytes(spoil(path.read_bytes()))
    assert recall(source, "rows", MADE_OF) is None and not path.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"note: {path} {why}: what it stood for is read anew"


def test_what_was_made_of_something_else_is_removed_with_a_line(source, capsys):
    keep(source, "rows", MADE_OF, ARRAYS)
    assert recall(source, "rows", {**MADE_OF, "sha256": "cd"}) is None
    assert "is of something that has changed since" in capsys.readouterr().err and not kept_file(source).exists()


@pytest.mark.parametrize("header", ["[]", "{}", '{"made_of": 1, "arrays": [["a", "O", [3], 0]], "rest": 0}',
                                    '{"made_of": 1, "arrays": [["a", "<f8", [10000], 0]], "rest": 0}'])
def test_a_forged_file_with_a_right_checksum_is_removed_too(header, source, capsys):
    content = header.encode() + b"\n" + bytes(64)
    first = b"detr_scratch kept arrays 1 " + hashlib.sha256(content).hexdigest().encode() + b"\n"
    kept_file(source).write_bytes(first + content)
    assert recall(source, "rows", 1) is None and not kept_file(source).exists()
    assert "is damaged" in capsys.readouterr().err


def test_where_the_folder_cannot_be_written_to_it_is_kept_in_the_cache_folder(source):
    beside = kept_file(source)
    beside.mkdir()  # even the system's own user cannot write a file there
    path = keep(source, "rows", MADE_OF, ARRAYS, REST)
    assert path is not None and path.parent == cache_folder() / "read"
    beside.rmdir()
    assert_recalled(source)


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_fails(source, tmp_path):
    kept_file(source).mkdir()
    (tmp_path / "cache").write_text("a file")
    assert keep(source, "rows", MADE_OF, ARRAYS) is None
    assert recall(source, "rows", MADE_OF) is None


def test_of_a_folder_it_is_kept_within(source):
    path = keep(source.parent, "train.pictures", MADE_OF, ARRAYS)
    assert path == source.parent / f".train.pictures{ENDING}"


def test_a_full_disk_leaves_no_half_file(source, monkeypatch):
    keep(source, "rows", MADE_OF, ARRAYS, REST)

    def full(*_):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert keep(source, "rows", {"other": 1}, ARRAYS) is None
    assert_recalled(source)
    assert sorted(path.name for path in source.parent.iterdir() if path.is_file()) == sorted(
        [kept_file(source).name, source.name])


def test_what_a_killed_writer_left_is_removed_a_day_later(source):
    left = [kept_file(source).with_name(f"..{source.name}.rows.{word}.partial{ENDING}") for word in ("0a", "0b")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (1, 1))
    keep(source, "rows", MADE_OF, ARRAYS)
    assert [path.exists() for path in left] == [False, True]


def _keep_often(source, value):
    for _ in range(20):
        keep(source, "rows", MADE_OF, {"boxes": np.full(4096, value)}, None)


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is mapped cannot be replaced there")
def test_processes_that_write_at_the_same_time_leave_one_whole_file(source, capsys):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_keep_often, args=(source, float(value))) for value in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if found := recall(source, "rows", MADE_OF):
            assert len(np.unique(found.arrays["boxes"])) == 1
            seen |= set(found.arrays["boxes"].tolist())
    assert [writer.exitcode for writer in writers] == [0, 0]
    seen |= set(recall(source, "rows", MADE_OF).arrays["boxes"].tolist())
    assert seen <= {1.0, 2.0} and seen and capsys.readouterr().err == ""
    assert [path.name for path in source.parent.iterdir()].count(kept_file(source).name) == 1


def test_a_files_sha256_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
