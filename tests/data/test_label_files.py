"""Which text file is a picture's in YOLO's layout, where folders have names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout, find_splits
from scratch.data.label_files import labels_of
from scratch.data.layouts import recognise
from scratch.data.listing import list_folder
from tests.layouts import draw, write

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
    listing = list_folder(root)
    return {picture: label for picture, label in labels_of(listing, listing.pictures).items() if label}


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
    ("photos/a.png", "labels/a.txt", "labels/b.txt", "labels/c.txt"),           # most are of other pictures
    ("photos/day/a.png", "labels/a.txt", "texts/night/a.txt")])
def test_folders_that_may_not_belong_together_stay_apart(paths, tmp_path):
    assert labels(put(tmp_path, *paths)) == {}


def test_of_two_folders_of_pictures_the_originals_are_meant(tmp_path):
    root = put(tmp_path, "photos/a.png", "annotated/a.png", "txt/a.txt")
    assert labels(root) == {"photos/a.png": "txt/a.txt"}


def test_where_yolo_has_a_text_file_no_other_is_looked_for(tmp_path):
    root = put(tmp_path, "images/a.png", "images/b.png", "labels/a.txt", "notes/b.txt")
    assert labels(root) == {"images/a.png": "labels/a.txt"}


@pytest.mark.parametrize("text", ["a cat on a mat", "10,10,20,20,1,4,0,0", "0 40 20 40 10", "", "Car " + "1.0 " * 14])
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
