"""Which text file is a picture's in YOLO's layout, where folders have names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data import label_files
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout, find_splits
from scratch.data.find_yolo import find_yolo
from scratch.data.layouts import recognise
from scratch.data.listing import Listing, list_folder
from tests.layouts import draw, voc, write

BOX = "0 0.5 0.5 0.5 0.25"


def put(root: Path, *paths: str, text: str = BOX) -> Path:
    """Pictures and text files, as their endings say."""
    for path in paths:
        if path.endswith(".txt"):
            write(root / path, text)
        else:
            draw(1)[0].save((root / path).parent, Path(path).name)
    return root


def labels(root: Path) -> dict[str, str]:
    """Picture → text file, over all splits."""
    sources = (find_yolo(list_folder(root)) or [{}])[0]
    return {picture: label for source in sources.values() for picture, label in source.labels().items() if label}


@pytest.mark.parametrize("pictures, texts", [
    ("my_images", "labels"), ("images", "annotations"), ("train/img", "train/lbl"), ("img/train", "lbl/train"),
    ("", "txt"), ("train", "labels/train"), ("train_images", "train_labels"), ("images/train", "train"), ("Photos", "Labels")])
def test_two_folders_of_other_names_belong_together_if_their_files_are_called_alike(pictures, texts, tmp_path):
    at, its = f"{pictures}/" if pictures else "", f"{texts}/"
    root = put(tmp_path, f"{at}a.png", f"{at}B.png", f"{its}a.txt", f"{its}b.txt")
    assert labels(root) == {f"{at}a.png": f"{its}a.txt", f"{at}B.png": f"{its}b.txt"}
    layout = recognise(root)
    assert layout and layout.name == "YOLO" and "train" in layout.splits


@pytest.mark.parametrize("paths", [
    ("train/a.png", "labels_val/a.txt"),                                        # of another split
    ("left/a.png", "right/a.png", "labels/a.txt"),                              # of which of the two?
    ("photos/a.png", "photos/b.png", "labels_1/a.txt", "labels_2/b.txt"),       # which of the two?
    ("photos/a.png", "predictions/a.txt"), ("photos/a.png", "runs/photos/a.txt"),
    ("train/photos/a.png", "train/bak/a.txt", "train/txt/a.txt", "val/photos/v.png", "val/txt/v.txt"),  # rather none
    ("photos/a.png", "labels/a.txt", "labels/b.txt", "labels/c.txt"),           # most are of other pictures
    ("photos/day/a.png", "labels/a.txt", "texts/night/a.txt")])
def test_folders_that_may_not_belong_together_stay_apart(paths, tmp_path):
    assert labels(put(tmp_path, *paths)) == {}


@pytest.mark.parametrize("paths, wanted", [
    (("photos/a.png", "annotated/a.png", "txt/a.txt"), {"photos/a.png": "txt/a.txt"}),  # the originals
    (("photos/a.png", "detections/a.txt", "labels/a.txt"), {"photos/a.png": "labels/a.txt"}),
    (("photos/a.png", "bak/a.txt", "my_labels/a.txt"), {"photos/a.png": "my_labels/a.txt"}),
    (("birds/photos/a.png", "birds/labels/a.txt", "predators/photos/b.png", "predators/labels/b.txt"),
     {"birds/photos/a.png": "birds/labels/a.txt", "predators/photos/b.png": "predators/labels/b.txt"}),
    (("photos/a.png", "labels/a.txt", "labels_old/a.txt"), {"photos/a.png": "labels/a.txt"}),
    (("day/a.png", "night/b.png", "labels/a.txt", "labels/b.txt"),
     {"day/a.png": "labels/a.txt", "night/b.png": "labels/b.txt"})])
def test_of_several_folders_the_one_is_taken_that_can_be_meant(paths, wanted, tmp_path):
    assert labels(put(tmp_path, *paths)) == wanted


@pytest.mark.parametrize("other", ["notes/b.txt", "runs/exp/b.txt", "images/runs/b.txt"])
def test_where_one_picture_has_a_text_file_in_yolos_order_no_other_order_is_looked_for(other, tmp_path):
    root = put(tmp_path, "images/a.png", "images/b.png", "labels/a.txt", other)
    assert labels(root) == {"images/a.png": "labels/a.txt"}
    put(tmp_path, "val/images/v.png", "val/preds/v.txt")  # nor for another split
    assert labels(root) == {"images/a.png": "labels/a.txt"}


def test_pascal_vocs_own_files_count_more_than_text_files_made_of_them(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        pictures = {"train": draw(4), "val": draw(3, 1)}
        voc(tmp_path / year, pictures)
        for p in (*pictures["train"], *pictures["val"]):
            write(tmp_path / year / "labels" / f"{Path(p.name).stem}.txt", BOX)
    layout = recognise(tmp_path / "VOC2007")
    assert layout and layout.name == "Pascal VOC" and list(layout.splits) == ["train", "val"]
    assert recognise(tmp_path) is None  # several sets


def test_empty_text_files_at_first_do_not_hide_a_set(tmp_path):
    root = put(tmp_path, *(f"my_images/{k:02}.png" for k in range(30)), "labels/29.txt")
    put(root, *(f"labels/{k:02}.txt" for k in range(29)), text="")
    assert labels(root)["my_images/29.png"] == "labels/29.txt" and len(labels(root)) == 30


def test_cameras_with_pictures_of_the_same_names_do_not_share_a_text_file(tmp_path):
    root = put(tmp_path, "cam1/1.png", "cam2/1.png", "labels/1.txt")
    write(root / "data.yaml", "train: cam1\nval: cam2\nnames: [ant]\n")
    assert labels(root) == {}


@pytest.mark.parametrize("name", ["val", "valid", "validate", "validation", "dev"])
def test_a_list_is_of_the_split_that_its_name_says(name, tmp_path):
    root = put(tmp_path, *(f"obj/{k}.{ending}" for k in "ab" for ending in ("png", "txt")))
    write(root / "train.txt", "obj/a.png\n")
    write(root / f"{name}.txt", "obj/b.png\n")
    write(root / "old_train.txt", "obj/b.png\n")  # another list
    layout = recognise(root)
    assert layout and list(layout.splits) == ["train", "val"] and layout.division is None


def test_many_folders_take_no_time_that_grows_with_their_square(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(label_files, "split_of", lambda name: asked.append(name))
    clips = {f"clips/{k}/{kind}": [f"1.{ending}"] for k in range(500) for kind, ending in (("img", "jpg"), ("txt", "txt"))}
    frames = {f"frames/{k}": ["1.jpg", "meta.txt"] for k in range(500)}
    for names in (clips, frames):
        label_files.folders_called_otherwise(Listing(tmp_path, names))
    assert len(asked) < 20 * (len(clips) + len(frames))


@pytest.mark.parametrize("text", ["a cat on a mat", "10,10,20,20,1,4,0,0", "0 40 20 40 10", "", "0 1 0 0 1", "0 0.5 0.5 0.5 0.25 0.9", "Car " + "1.0 " * 14])
def test_text_files_that_hold_no_boxes_of_yolos_are_not_taken(text, tmp_path):
    assert labels(put(tmp_path, "photos/a.png", "captions/a.txt", text=text)) == {}


def test_a_list_of_paths_from_elsewhere_means_the_pictures_of_these_names_and_their_text_files(tmp_path):
    root = put(tmp_path, *(f"obj/{name}.{ending}" for name in "abc" for ending in ("png", "txt")))
    write(root / "train.txt", "/content/set/train/a.png\nC:\\set\\train\\b.png\n")
    write(root / "valid.txt", "/content/set/valid/c.png\n")
    assert "YOLO (obj/, obj/*.txt)" in find_layout(DataConfig(data=str(root))).line()
    for split, number in (("train", 2), ("val", 1)):
        folder, source = find_splits(DataConfig(data=str(root)))[split]
        a = read_annotations(source, folder=folder)
        assert len(a.boxes_xywh) == number and not a.problems


def test_a_picture_without_a_text_file_is_noted(tmp_path):
    root = put(tmp_path, *(f"train/images/{name}.png" for name in "abc"), "train/labels/a.txt", "val/images/v.png",
               "val/labels/v.txt")
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    (note,) = [p for p in read_annotations(source, folder=folder).problems if p.kind == "picture without a label file"]
    assert note.severity == "note" and "train/images/b.png: it has no .txt; the same is true of 1 other" in str(note)


def test_folders_of_several_sets_are_counted(tmp_path):
    root = put(tmp_path, *(f"{folder}{split}/{kind}/{split}{k}.{ending}" for k, folder in enumerate(("", "more/"))
                           for split in ("train", "val") for kind, ending in (("images", "png"), ("labels", "txt"))))
    assert "YOLO (train/images/, train/labels/*.txt and 1 more folder)" in find_layout(DataConfig(data=str(root))).line()


def test_what_roboflow_puts_beside_pictures_is_no_label_file(tmp_path):
    root = put(tmp_path, "train/a.png", "train/a.txt", "valid/v.png", "valid/v.txt")
    for split in ("train", "valid"):
        put(root, f"{split}/_annotations.txt", text="a.png 1,1,9,9,0")
        put(root, f"{split}/_classes.txt", text="ant")
        write(root / split / "_darknet.labels", "ant")
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    a = read_annotations(source, folder=folder)
    assert len(a.boxes_xywh) == 1 and not a.problems and a.classes.names == ("ant",)


def test_labelled_pictures_that_no_split_names_are_told(tmp_path):
    root = put(tmp_path, *(f"{split}/{kind}/{split}{k}.{ending}" for split in ("train", "val", "more") for k in range(2)
                           for kind, ending in (("images", "png"), ("labels", "txt"))))
    write(root / "data.yaml", "train: train/images\nval: val/images\nnames: [ant]\n")
    line = find_layout(DataConfig(data=str(root))).line()
    assert "YOLO (data.yaml; not read: 2 pictures of more/images/) in" in line
    put(root, *(f"obj/{k}.{ending}" for k in "ab" for ending in ("png", "txt")))
    (root / "data.yaml").unlink()
    for name, its in (("train", "a"), ("val", "b")):
        write(root / f"{name}.txt", f"/elsewhere/{its}.png\n")
    assert "not read: 6 pictures of more/images/, train/images/ …" in find_layout(DataConfig(data=str(root))).line()


def test_keypoints_after_a_box_are_yolos_too(tmp_path):
    root = put(tmp_path, "photos/a.png", "poses/a.txt", text="0 0.5 0.5 0.5 0.25 0.5 0.5 2 0.25 0.25 1")
    assert labels(root) == {"photos/a.png": "poses/a.txt"}


def test_a_picture_of_a_list_that_is_not_there_is_only_missing(tmp_path):
    root = put(tmp_path, "obj/a.png", "obj/a.txt", "obj/b.png", "obj/b.txt")
    write(root / "train.txt", "obj/a.png\nobj/gone.png\n")
    write(root / "val.txt", "obj/b.png\n")
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    assert not [p for p in read_annotations(source, folder=folder).problems if p.kind == "picture without a label file"]
