"""predict loses nothing: not to a bad file, not to a full disk, not to a second picture of the same name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import commands.predict
from commands.predict import (
    PredictArguments, image_ids, picture_names, predict, refuse_to_replace, results_in)
from scratch.config import Config, DataConfig
from scratch.data.classes import Classes
from scratch.detector import Detections, as_picture
from scratch.only_one import NAME as LOCK
from scratch.only_one import only_one

CLASSES = Classes((3, 7), ("cat", "dog\n\x1b[2J"))


class _Finder:
    """In place of a detector: one object in every picture, of a class with an odd name; keeps what it was shown."""

    threshold, classes, config, notes = 0.5, CLASSES, Config(), ()

    def __init__(self):
        self.shown = []

    def predict(self, image, threshold):
        self.shown.append(np.asarray(image))
        return Detections(torch.tensor([[1.0, 2, 9, 8]]), torch.tensor([0.75]), torch.tensor([1]), (CLASSES.names[1],))

    def _replace(self, config):
        self.config = config
        return self


@pytest.fixture
def finder(monkeypatch) -> _Finder:
    finder = _Finder()
    monkeypatch.setattr(commands.predict, "load_detector", lambda *_: finder)
    return finder


def _pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (20, 10), (number, 90, 90)).save(folder / name, "PNG")
    return folder


def _predicted(source: Path, out: Path, **fields):
    predict(PredictArguments(source, out, checkpoint=Path("a"), **fields))
    return json.loads((out / "predictions.json").read_text())


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_a_folder_that_another_command_writes_into_is_refused_and_nothing_is_written(finder, tmp_path):
    source = _pictures(tmp_path / "in", "a.png")
    with only_one(tmp_path / "out"):
        with pytest.raises(OSError, match="out is in use by pid"):
            _predicted(source, tmp_path / "out")
        assert _names(tmp_path / "out") == []
    assert len(_predicted(source, tmp_path / "out")) == 1


# -- bad files -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_cannot_be_read_is_skipped_with_a_line_each_and_the_rest_is_found(finder, tmp_path, capsys):
    source = _pictures(tmp_path / "in", "a.png", "z.png")
    os.mkfifo(source / "pipe.jpg")
    (source / "folder.png").mkdir()
    (source / "link.jpg").symlink_to("nowhere")
    (source / "zero.jpg").symlink_to("/dev/zero")
    (source / "empty.jpg").write_bytes(b"")
    (source / "bad\x1bname.jpg").write_bytes(b"text")
    found = _predicted(source, tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert [entry["file_name"] for entry in found] == [str(source / "a.png"), str(source / "z.png")]
    assert len(lines) == 6 and all(line.startswith("  skipped: ") and line.isprintable() for line in lines)
    for words in ("it is a pipe", "it is a folder", "nothing is there", "it is a device", "it is empty",
                  "bad\\x1bname.jpg"):
        assert sum(words in line for line in lines) == 1


def test_a_file_that_goes_while_it_is_waited_for_is_skipped(finder, tmp_path, monkeypatch, capsys):
    source = _pictures(tmp_path / "in", "a.png", "b.png")
    monkeypatch.setattr(finder, "predict", lambda *given, **named: (
        (source / "b.png").unlink(missing_ok=True), _Finder.predict(finder, *given, **named))[1])
    assert len(_predicted(source, tmp_path / "out")) == 1
    assert "b.png is not there" in capsys.readouterr().err


def test_a_single_pipe_is_an_error_and_not_waited_for(finder, tmp_path):
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(ValueError, match="nothing in .*p.jpg could be read"):
        _predicted(tmp_path / "p.jpg", tmp_path / "out")


def test_names_of_files_and_classes_are_printed_on_one_line(finder, tmp_path, capsys):
    _predicted(_pictures(tmp_path / "in", "a\n\x1b[2J.png"), tmp_path / "out")
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, expected", [
    (["b.png"], ["b.png"]), (["a.jpg", "a.png", "b.png"], ["a.jpg.png", "a.png.png", "b.png"]),
    (["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png", "a.jpg.png.png", "a.png.png"]),
    (["A.jpg", "a.jpg"], ["A.jpg.png", "a.jpg-2.png"]), (["A.jpg", "a.png"], ["A.jpg.png", "a.png.png"]),
    (["é.jpg", "e\u0301.jpg"], ["é.jpg.png", "e\u0301.jpg-2.png"]),
    (["predictions.json.png"], ["predictions.json.png"])])
def test_every_picture_has_a_name_of_its_own_on_any_file_system(given, expected):
    assert picture_names([Path(name) for name in given]) == expected


@pytest.mark.parametrize("letter", ["x", "é", "猫"])
def test_names_that_are_too_long_are_cut_and_stay_apart(letter):
    long = letter * (240 // len(letter.encode()))
    names = picture_names([Path(f"{long}a.jpg"), Path(f"{long}b.jpg"), Path(f"{long}a.png")])
    assert len(set(names)) == 3 and all(len(name.encode()) <= 210 and name.endswith(".png") for name in names)


def test_three_pictures_in_are_three_pictures_out(finder, tmp_path):
    _predicted(_pictures(tmp_path / "in", "a.jpg", "a.png", "a.jpg.png"), tmp_path / "out")
    assert _names(tmp_path / "out") == ["a.jpg.png", "a.jpg.png.png", "a.png.png", "image_ids.json", "predictions.json"]


@pytest.mark.parametrize("out", ["in", "link", "in/../in", "folder/../link", "targets"])
def test_a_folder_of_the_images_themselves_is_refused_by_whichever_links(out, finder, tmp_path):
    source = _pictures(tmp_path / "in", "a.png")
    _pictures(tmp_path / "targets", "t.png")
    (source / "t.png").symlink_to(tmp_path / "targets" / "t.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(source)
    before = {path: path.read_bytes() for path in (source / "a.png", source / "t.png")}
    with pytest.raises(ValueError, match="is the folder of the images themselves"):
        _predicted(source, tmp_path / out)
    assert all(path.read_bytes() == content for path, content in before.items())


# -- ids -----------------------------------------------------------------------------------------------------------


def _annotations(path: Path, images: dict[str, int], categories=((3, "cat"), (7, CLASSES.names[1]))) -> Path:
    path.write_text(json.dumps({"images": [{"file_name": name, "id": id} for name, id in images.items()],
                                "categories": [{"id": id, "name": name} for id, name in categories]}))
    return path


def test_without_annotations_ids_are_places_in_the_list_which_is_said_and_written_beside(finder, tmp_path, capsys):
    source = _pictures(tmp_path / "in", "0501.jpg", "0502.jpg")
    assert [entry["image_id"] for entry in _predicted(source, tmp_path / "out")] == [1, 2]
    assert "its image_ids are places in the list of files, and those of no data set" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "image_ids.json").read_text()) == [
        {"id": 1, "file_name": str(source / "0501.jpg")}, {"id": 2, "file_name": str(source / "0502.jpg")}]


@pytest.mark.parametrize("names", [["0501.jpg", "0502.jpg"], ["val/0501.jpg", "val\\0502.JPG"]])
def test_annotations_give_the_ids_by_file_name(names, finder, tmp_path, capsys):
    source = _pictures(tmp_path / "in", "0501.jpg", "0502.jpg")
    file = _annotations(tmp_path / "a.json", {names[0]: 4, names[1]: 3, "0999.jpg": 2})
    found = _predicted(source, tmp_path / "out", annotations=file)
    assert [(Path(entry["file_name"]).name, entry["image_id"]) for entry in found] == [("0501.jpg", 4), ("0502.jpg", 3)]
    assert f"its image_ids are those of {file}" in capsys.readouterr().out


def test_a_picture_that_the_annotations_do_not_name_is_drawn_told_and_left_out_of_the_results(finder, tmp_path, capsys):
    source = _pictures(tmp_path / "in", "0501.jpg", "new.jpg")
    found = _predicted(source, tmp_path / "out", annotations=_annotations(tmp_path / "a.json", {"0501.jpg": 4}))
    assert [entry["image_id"] for entry in found] == [4] and (tmp_path / "out" / "new.png").exists()
    assert "1 of the 2 images are not in" in (words := capsys.readouterr().err) and "new.jpg" in words


def test_several_ids_of_one_picture_and_categories_of_other_names_are_told(tmp_path, capsys):
    source = _pictures(tmp_path / "in", "a.jpg")
    file = _annotations(tmp_path / "a.json", {"a.jpg": 4, "./a.jpg": 9}, ((3, "cat"), (8, "owl")))
    assert image_ids(file, [source / "a.jpg"], CLASSES) == {source / "a.jpg": 4}
    words = capsys.readouterr().err
    assert "of 1 image with several ids in" in words and "1 of the detector's 2 categories are called otherwise" in words
    assert "7 dog\\n\\x1b[2J (there no category)" in words


@pytest.mark.parametrize("text, words", [
    ("{", "is no annotation file that names images"), ("[]", "is no annotation file"), ('{"images": [{}]}', "an id"),
    ('{"images": 3}', "is no annotation file"), ("[" * 100_000, "is no annotation file"),
    ('{"images": [{"id": "1", "file_name": "a.jpg"}]}', "whole number"),
    ('{"images": []}', "names none of the 1 images"),
    ('{"images": [{"id": 1, "file_name": "b.jpg"}]}', "names none of the 1 images, such as a.jpg; it names b.jpg")])
def test_annotations_that_give_no_ids_are_refused_before_anything_is_written(text, words, finder, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        _predicted(_pictures(tmp_path / "in", "a.jpg"), tmp_path / "out", annotations=tmp_path / "a.json")
    assert not (tmp_path / "out").exists()


def test_annotations_that_are_no_file_are_not_waited_for(finder, tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="there is no annotation file"):
        _predicted(_pictures(tmp_path / "in", "a.jpg"), tmp_path / "out", annotations=tmp_path / "a.json")


# -- whole files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("memory")])
def test_whatever_ends_it_what_was_found_is_kept_and_no_half_file_is_left(end, finder, tmp_path, monkeypatch, capsys):
    source = _pictures(tmp_path / "in", "a.png", "b.png", "c.png")

    def save(image, file, *given):
        Path(file).write_bytes(b"half")
        if "b" in Path(file).name.split(".")[1]:
            raise end
    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(type(end)):
        _predicted(source, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(entry["file_name"]).name for entry in found] == ["a.png", "b.png"]
    assert _names(tmp_path / "out") == ["a.png", "image_ids.json", "predictions.json"]
    assert "holds what was found before this end: 2 objects" in capsys.readouterr().err


class _FullDisk:
    """A file of at most `room` bytes, which takes what there is room for, as a disk does."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        taken = min(len(content), self.room - self.file.tell())
        if content and not taken:
            raise OSError(28, "No space left on device")
        return self.file.write(content[:taken])

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [85, 100, 111, 130])
def test_a_disk_that_is_full_within_the_results_loses_the_last_of_them_alone(room, tmp_path, capsys):
    with pytest.raises(OSError, match="p.json could not be written to its end: No space left"):
        with results_in(tmp_path / "p.json") as results:
            results._file = _FullDisk(results._file, room)
            for id in range(100):
                results.add([{"image_id": id}, {"image_id": id}])
    found = json.loads((tmp_path / "p.json").read_text())
    assert found == [{"image_id": id} for id in range(len(found) // 2) for _ in "12"]
    assert len(found) == results.count > 0 and (tmp_path / "p.json").stat().st_size > room - 45


def test_no_results_are_an_empty_list(tmp_path):
    with results_in(tmp_path / "p.json"):
        pass
    assert json.loads((tmp_path / "p.json").read_text()) == []


def test_the_numbers_of_layers_and_queries_and_the_names_of_classes_reach_the_detector_and_its_notes_are_said(
    finder, tmp_path, monkeypatch, capsys,
):
    asked = []
    monkeypatch.setattr(commands.predict, "load_detector", lambda *given: asked.append(given) or finder)
    finder.notes = ("note: a guess",)
    _predicted(_pictures(tmp_path / "in", "a.png"), tmp_path / "out", layers=2, class_names="cat,dog", num_queries=9,
               device="cpu")
    assert asked == [(Path("a"), torch.device("cpu"), 2, "cat,dog", 9)]
    assert "note: a guess\n" in capsys.readouterr().err


# -- how pictures are read -----------------------------------------------------------------------------------------


def test_the_detector_says_how_sixteen_bits_are_shown_and_a_flag_says_otherwise(finder, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(np.linspace(0, 4095, 800).astype(np.uint16).reshape(20, 40)).save(source / "a.png")
    _predicted(source, tmp_path / "out")
    _predicted(source, tmp_path / "out", sixteen_bit="range")
    finder.config = replace(Config(), data=DataConfig(sixteen_bit="range"))
    _predicted(source, tmp_path / "out")
    assert [shown.max() for shown in finder.shown] == [16, 255, 255]


def test_a_picture_above_the_limit_is_skipped_unless_the_limit_is_raised(finder, tmp_path, capsys):
    source = _pictures(tmp_path / "in", "a.png")
    finder.config = replace(Config(), data=DataConfig(max_megapixels=0.0001))
    with pytest.raises(ValueError, match="nothing in"):
        _predicted(source, tmp_path / "out")
    assert "--max-megapixels allows 0.0001" in capsys.readouterr().err
    assert len(_predicted(source, tmp_path / "out", max_megapixels=1.0)) == 1


def test_from_python_too_a_file_is_read_as_the_detector_was_trained(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 300]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(as_picture(tmp_path / "a.png")).max() == 1
    assert np.asarray(as_picture(tmp_path / "a.png", DataConfig(sixteen_bit="range"))).max() == 255


def test_a_link_that_leads_to_itself_is_no_end_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "l.jpg").symlink_to(tmp_path / "l.jpg")
    refuse_to_replace([tmp_path / "l.jpg"], tmp_path / "out")
    with pytest.raises(ValueError, match="the folder of the images themselves"):
        refuse_to_replace([tmp_path / "l.jpg"], tmp_path)
