"""convert-data: any layout becomes COCO's, with the same boxes, classes and pictures; and there and back again."""

from __future__ import annotations

import json

import pytest

import detr_scratch
from commands.convert_data import short_names
from tests.data.test_layouts import assert_same, read_back, three_splits, told_of
from tests.layouts import KEEPS_CROWDS, WITH_SPLITS, WITHOUT, draw, truth


@pytest.mark.parametrize("kind", WITH_SPLITS)
def test_every_layout_becomes_cocos(kind, tmp_path, capsys):
    splits = three_splits(crowds=kind in KEEPS_CROWDS)
    root = WITH_SPLITS[kind](tmp_path / "my set", splits)
    out = tmp_path / "out"
    detr_scratch.main(["convert-data", str(root), "--out", str(out)])
    assert "layout: " in (said := capsys.readouterr().out) and "train --data" in said
    for split, pictures in splits.items():
        wanted = told_of(kind, pictures)
        assert_same(read_back(out, split), wanted)
        for p in (p for p in pictures if p.name in wanted):  # the files themselves
            (original,) = [path for path in root.rglob(p.name)]
            assert (out / split / p.name).read_bytes() == original.read_bytes()
            assert not (out / split / p.name).is_symlink()


def test_a_converted_set_converted_again_is_the_same_file(tmp_path):
    root = WITH_SPLITS["voc"](tmp_path / "set", three_splits(True))
    detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "a")])
    detr_scratch.main(["convert-data", str(tmp_path / "a"), "--out", str(tmp_path / "b")])
    for split in ("train", "val", "test"):
        name = f"annotations/instances_{split}.json"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_set_without_a_split_is_written_with_its_split(tmp_path):
    root = WITHOUT["fiftyone"](tmp_path / "set", {"all": draw(16)})
    detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "out")])
    for split in ("train", "val"):
        assert_same(read_back(tmp_path / "out", split), read_back(root, split))


def test_pictures_may_be_linked(tmp_path):
    root = WITH_SPLITS["yolo"](tmp_path / "set", three_splits(False))
    detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "out"), "--link"])
    link = tmp_path / "out/train/a 1.jpg"
    assert link.is_symlink() and link.resolve() == (root / "images/train/a 1.jpg").resolve()
    assert_same(read_back(tmp_path / "out", "train"), truth(three_splits(False)["train"]))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    root = WITH_SPLITS["yolo"](tmp_path / "set", three_splits(False))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(SystemExit, match="is there already, and not empty"):
        detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "out")])


def test_what_training_would_refuse_is_not_written(tmp_path):
    root = WITH_SPLITS["yolo"](tmp_path / "set", three_splits(False))
    (root / "labels/train/a 1.txt").write_text("0 x")
    with pytest.raises(SystemExit, match="labels/train/a 1.txt, line 1"):
        detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_empty_boxes_are_not_written(tmp_path):
    root = WITH_SPLITS["coco"](tmp_path / "set", three_splits(False))
    file = root / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [3, 3, 0, 0]
    file.write_text(json.dumps(content))
    detr_scratch.main(["convert-data", str(root), "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert len(written["annotations"]) == len(content["annotations"]) - 1


def test_names_that_two_pictures_share_keep_their_folders(tmp_path):
    files = [tmp_path / "cam1/7.jpg", tmp_path / "cam2/7.JPG", tmp_path / "cam2/8.jpg"]
    assert short_names(tmp_path, files) == ["cam1/7.jpg", "cam2/7.JPG", "cam2/8.jpg"]
    assert short_names(tmp_path, files[1:]) == ["7.JPG", "8.jpg"]
