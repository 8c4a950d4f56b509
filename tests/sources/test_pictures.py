"""Pictures come from files, folders, patterns, addresses and standard input, and from nowhere with one clear line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

import pytest
from PIL import Image

from commands.predict import PredictArguments, predict
from commands.sources import pictures as module
from commands.sources.pictures import Given, address, given, name_of
from tests.local_server import Server, serving
from tests.test_predict import finder  # noqa: F401


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as server:
        yield server


def drawn(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (90, 0, 0)).save(path)
    return path


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), (90, 0, 0)).save(file, "PNG")
    return file.getvalue()


def named(source: object, out: Path = Path("no folder")) -> list[Path]:
    with given(str(source), out) as found:
        return list(found.pictures)


def found_in(source: object, out: Path) -> list[dict]:
    predict(PredictArguments(str(source), out, checkpoint=Path("a")))
    return json.loads((out / "predictions.json").read_text())


# -- folders and patterns ------------------------------------------------------------------------------------------


def test_a_folder_means_its_pictures_and_those_of_the_folders_in_it_but_not_hidden_ones_or_results(tmp_path: Path):
    expected = [drawn(tmp_path / name) for name in ("a.png", "b/c.png", "b/d/e.jpg")]
    drawn(tmp_path / ".hidden" / "f.png")
    drawn(tmp_path / "out" / "a.png")
    (tmp_path / "text.txt").write_text("no picture")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert named(tmp_path, tmp_path / "out") == expected


def test_a_pattern_means_the_pictures_that_fit(tmp_path: Path):
    a, c, _ = [drawn(tmp_path / name) for name in ("a.png", "b/c.png", "d.jpg")]
    assert named(tmp_path / "**" / "*.png") == [a, c] and named(tmp_path / "?.png") == [a]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path):
    odd, _ = drawn(tmp_path / "a[1].png"), drawn(tmp_path / "a1.png")
    assert named(odd) == [odd]


@pytest.mark.parametrize("name, words", [
    ("nothing.jpg", "does not exist: give an image, a folder"), ("*.png", r"no image fits .* \(0 other"),
    ("*.txt", r"no image fits .* \(1 other"), ("empty", "no images in .*empty or the folders in it")])
def test_what_is_not_there_is_said_in_one_line(name: str, words: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=words) as refused:
        named(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_results_of_pictures_of_one_name_in_two_folders_are_kept_apart(finder, tmp_path: Path):  # noqa: F811
    drawn(tmp_path / "in" / "a.png"), drawn(tmp_path / "in" / "b" / "a.png")
    assert len(found_in(tmp_path / "in", tmp_path / "out")) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png-2.png", "a.png.png"]


# -- addresses -----------------------------------------------------------------------------------------------------


def test_a_picture_at_an_address_is_fetched_and_called_by_its_address(finder, server, tmp_path):  # noqa: F811
    server.files["/shots/a%20cat.png?size=2"] = png()
    url = server.url("/shots/a%20cat.png?size=2")
    assert [entry["file_name"] for entry in found_in(url, tmp_path / "out")] == [url]
    assert (tmp_path / "out" / "a cat.png").is_file()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n  <HTML lang=en>", b"\xef\xbb\xbf<html>"])
def test_an_html_page_is_named_as_what_it_is(page, finder, server, tmp_path):  # noqa: F811
    server.files["/a.jpg"] = page
    with pytest.raises(ValueError, match="/a.jpg gave an HTML page, wanted a picture or a video") as refused:
        found_in(server.url("/a.jpg"), tmp_path / "out")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_an_address_without_anything_and_one_with_too_much_are_refused(finder, server, tmp_path, monkeypatch):  # noqa
    with pytest.raises(OSError, match="could not be fetched: the server answered 404") as refused:
        found_in(server.url("/none.jpg"), tmp_path / "out")
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    server.files["/a.png"] = png()
    with pytest.raises(OSError, match="bytes are announced, and at most 10 are wanted"):
        found_in(server.url("/a.png"), tmp_path / "out")


def test_a_text_in_the_place_of_a_picture_is_skipped_by_its_address(finder, server, tmp_path, capsys):  # noqa: F811
    server.files["/a.jpg"] = b"not a picture"
    with pytest.raises(ValueError, match="nothing in http.*a.jpg could be read as an image"):
        found_in(server.url("/a.jpg"), tmp_path / "out")
    assert f"skipped: {server.url('/a.jpg')} cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize("url, name", [
    ("http://h/a/b.jpg", "b.jpg"), ("http://h/", "picture"), ("http://h", "picture"), ("http://h/a%2F..%2Fb", "b"),
    ("http://h/..%5C..%5Cc.png", "c.png"), ("http://h/.lock", "lock"), ("http://h/a%0Ab%3F.jpg", "a_b_.jpg"),
    ("http://h/" + "x" * 300 + ".jpg", None)])
def test_a_name_from_an_address_stays_in_its_folder(url: str, name: str):
    found = name_of(url)
    assert found == name if name else len(found.encode()) <= 100
    assert os.path.basename(found) == found and found.isprintable()


def test_an_address_that_a_path_has_shortened_is_still_one():
    assert address(str(Path("https://host/a.jpg"))) == address("HTTPS://host/a.jpg") == "https://host/a.jpg"
    assert address("https.jpg") is address("ftp://host/a") is address("c:/a.jpg") is None


# -- standard input ------------------------------------------------------------------------------------------------


def sent(monkeypatch: pytest.MonkeyPatch, content: bytes, terminal: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal))


def test_a_picture_may_come_by_standard_input(finder, tmp_path, monkeypatch):  # noqa: F811
    sent(monkeypatch, png())
    assert [entry["file_name"] for entry in found_in("-", tmp_path / "out")] == ["standard input"]
    assert (tmp_path / "out" / "standard-input.png").is_file()


@pytest.mark.parametrize("content, terminal, words", [
    (b"", False, "nothing came by standard input"), (b"x", True, "nothing is sent there"),
    (b"<html>", False, "standard input gave an HTML page"), (b"x" * 20, False, "more than 10 bytes came")])
def test_what_cannot_be_taken_from_standard_input_is_refused(content, terminal, words, monkeypatch):
    sent(monkeypatch, content, terminal)
    if b"xx" in content:
        monkeypatch.setattr(module, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match=words):
        named("-")


def test_a_video_without_a_name_is_known_by_how_it_begins(tmp_path: Path, monkeypatch):
    sent(monkeypatch, b"\0\0\0\x18ftypisom" + bytes(20))
    with given("-", tmp_path) as found:
        assert found.film is not None and found.pictures == ()
    for name in ("a.mp4", "A.MKV"):
        (tmp_path / name).write_bytes(b"")
        with given(str(tmp_path / name), tmp_path) as found:
            assert found == Given(film=tmp_path / name)


def test_a_camera_is_asked_for_by_its_number_unless_a_file_is_called_so(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word, number in (("webcam", 0), ("webcam:2", 2)):
        with given(word, tmp_path) as found:
            assert found == Given(camera=number)
    (tmp_path / "webcam").mkdir()
    drawn(tmp_path / "webcam" / "a.png")
    assert named("webcam") == [Path("webcam/a.png")]


# -- batches and speed ---------------------------------------------------------------------------------------------


def test_pictures_are_shown_in_batches_and_the_end_tells_how_many_a_second(finder, tmp_path, capsys,  # noqa: F811
                                                                           monkeypatch):
    for name in "abcde":
        drawn(tmp_path / "in" / f"{name}.png")
    sizes, one = [], finder.predict

    def several(images, threshold, batch_size=None):
        if not isinstance(images, list):
            sizes.append(1)
            return one(images, threshold)
        sizes.append(len(images))
        return [one(image, threshold) for image in images]

    monkeypatch.setattr(finder, "predict", several)
    predict(PredictArguments(str(tmp_path / "in"), tmp_path / "out", checkpoint=Path("a"), batch_size=2))
    assert sizes == [2, 2, 1] and "5 objects in 5 images" in (said := capsys.readouterr().out)
    assert "images/s, reading and drawing included" in said
