"""A folder without a split that could be found: whose layout it is, and the flags that read it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.coco import find_splits
from scratch.data.layout_hint import flags_for, layout_hint


def said(root: Path) -> str:
    """The error for this folder; it always begins and ends alike."""
    with pytest.raises(FileNotFoundError) as error:
        find_splits(DataConfig(data=str(root)))
    message = str(error.value)
    assert message.startswith(f"data = '{root}' does not hold any split.") and message.endswith("explicit paths.")
    return message


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps({"images": [{"id": 1, "file_name": "é 1.jpg"}]}).encode()
                         if name.endswith(".json") else b"")
    return root


@pytest.mark.parametrize("train, val", [
    (("train/_annotations.coco.json", "train/é 1.jpg"), ("valid/_annotations.coco.json", "valid/é 1.jpg")),
    (("annotations/instances_train.json", "images/train/é 1.jpg"),
     ("annotations/instances_val.json", "images/val/é 1.jpg")),
    (("annotations/instances_Train.json", "images/Train/é 1.jpg"),
     ("annotations/instances_Validation.json", "images/Validation/é 1.jpg")),
    (("train.json", "images/é 1.jpg"), ("val.json", "images/é 1.jpg")),
    (("a b/labels_train.json", "a b/pictures/é 1.jpg"), ("a b/labels_val.json", "a b/pictures/é 1.jpg")),
])
def test_the_flags_that_read_another_layout_are_named_and_read_it(train, val, tmp_path):
    root = put(tmp_path / "my set", *train, *val)
    message = said(root)
    assert "not there" not in message and "these flags read it" in message
    words = shlex.split(message.split("read it:\n")[1].split("\nName a")[0].replace("\\\n", ""))
    fields = dict(zip([flag[2:].replace("-", "_") for flag in words[::2]], words[1::2]))
    found = find_splits(DataConfig(**fields))
    assert found["train"][1] == root / train[0] and found["val"][1] == root / val[0]
    assert found["train"][0] == (root / train[1]).parent and found["val"][0] == (root / val[1]).parent


@pytest.mark.parametrize("names, words", [
    (["annotations/instances_default.json", "images/default/é 1.jpg"], "one annotation file without a split"),
    (["result.json", "images/é 1.jpg"], "one annotation file without a split"),
    (["labels.json", "data/é 1.jpg"], "one annotation file without a split"),
    (["data.yaml", "images/train/a.jpg", "labels/train/a.txt"], "YOLO's layout"),
    (["train/images/a.jpg", "train/labels/a.txt"], "YOLO's layout"),
    (["JPEGImages/a.jpg", "Annotations/a.xml", "ImageSets/Main/train.txt"], "Pascal VOC's layout"),
    (["train-0.tfrecord"], ".tfrecord files, not COCO's JSON"),
    (["coco.zip"], "a zip archive: unpack it"),
    (["a.jpg", "b.jpg"], "pictures, and no annotation file"),
    (["coco/annotations/x.json", "coco/train2017/a.jpg"], "Did you mean"),
    (["train/_annotations.coco.json", "train/é 1.jpg"], "what looks like its split 'train'"),
])
def test_other_layouts_are_called_what_they_look_like(names, words, tmp_path):
    message = said(put(tmp_path / "set", *names))
    assert words in message and "not there" not in message


def test_what_is_no_folder_is_called_so(tmp_path):
    put(tmp_path, "Set/a.txt", "set.zip", "set.json")
    assert f"There is no {tmp_path}/nowhere." in said(tmp_path / "nowhere")
    assert "did you mean" in layout_hint(tmp_path / "SET") or (tmp_path / "SET").exists()
    assert "set.zip is a file: unpack it" in said(tmp_path / "set.zip")
    assert "set.json is a file: give it as --train-annotations" in said(tmp_path / "set.json")


def test_an_empty_folder_is_called_empty(tmp_path):
    (tmp_path / "set").mkdir()
    assert "is empty" in said(tmp_path / "set")


def test_a_split_that_is_not_there_has_no_flags(tmp_path):
    root = put(tmp_path, "train/_annotations.coco.json", "train/é 1.jpg")
    assert flags_for(root, "val") is None and flags_for(root, "test") is None
    file = root / "train" / "_annotations.coco.json"
    assert flags_for(root, "train") == f"--train-images {root / 'train'} --train-annotations {file}"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"file_name": "\\u0000"}', b'{"file_name": 7}', b"[" * 9999,
                                     b'{"file_name": "../outside.jpg"}', b'[{"file_name": "a.jpg"}]',
                                     b'{"file_name": "' + b"a" * 9999 + b'"}'])
def test_nothing_in_a_json_file_stops_the_hint(content, tmp_path):
    put(tmp_path / "set", "images/a.jpg", "outside.jpg")
    (tmp_path / "set" / "x.json").write_bytes(content)
    assert said(tmp_path / "set") and flags_for(tmp_path / "set", "train") is None


def test_a_path_that_is_there_as_another_kind_is_said_to_be(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train  .found, but it is a folder") as error:
        find_splits(DataConfig(train_images=str(tmp_path / "train"), train_annotations=str(tmp_path / "train")))
    assert "train  (found)" in str(error.value)
