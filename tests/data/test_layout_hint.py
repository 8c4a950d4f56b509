"""A folder in which no layout was recognised: what is there, and what can be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.coco import find_splits
from scratch.data.layout_hint import layout_hint
from tests.layouts import draw, voc


def said(root: Path) -> str:
    """The error for this path; it always begins and ends alike."""
    with pytest.raises(FileNotFoundError) as error:
        find_splits(DataConfig(data=str(root)))
    message = str(error.value)
    if root.is_dir():
        assert message.startswith(f"data = '{root}' does not hold any split. Looked for")
        assert message.endswith("or give the four explicit paths.")
    else:
        assert message.startswith(f"{root} is a file" if root.exists() else f"There is no {root}")
        assert message.endswith("(--train-images, --train-annotations, --val-images, --val-annotations).")
    return message


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


@pytest.mark.parametrize("names, words", [
    (["train-0.tfrecord"], ".tfrecord files: convert them"),
    (["train/a.parquet", "val/a.parquet"], ".parquet files: convert them"),
    (["coco.zip"], "an archive: unpack it"),
    (["README.md", "data.yaml", "results.csv"], "It holds no pictures."),
    (["a.jpg", "b.jpg"], "pictures, and no annotations."),
    (["a.jpg", "gt/metadata.jsonl"], "pictures, and no annotations that are known (its other files are .jsonl)."),
    (["a.jpg", "boxes.xlsx"], "boxes.xlsx is a spreadsheet: save it as CSV UTF-8."),
    (["a.jpg", "labels.csv"], "labels.csv is not a table of boxes: wanted columns for the picture"),
])
def test_other_layouts_are_called_what_they_look_like(names, words, tmp_path):
    message = said(put(tmp_path / "set", *names))
    assert words in message and "Looked for" in message and "YOLO" in message


CVAT = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n</annotations>'


@pytest.mark.parametrize("content, words", [
    (CVAT, "annotations.xml is CVAT's, and there are no pictures: put them into this folder, or one in it"),
    ("<annotations><version>1.1</version></annotations>", "annotations.xml is CVAT's, and there are no pictures"),
    ("<labels><version>1.1</version></labels>", "are not Pascal VOC's, one for each picture: export them as COCO")])
def test_cvats_own_xml_is_told_from_pascal_vocs(content, words, tmp_path):
    root = put(tmp_path / "set", "images/a.jpg" if "labels" in content else "images/a.txt", "annotations.xml")
    (root / "annotations.xml").write_text(content)
    assert words in said(root)


def test_cvats_files_of_several_sets_are_called_so(tmp_path):
    root = put(tmp_path / "set", "images/a.jpg")
    for name in ("one", "two"):
        (root / name).mkdir()
        (root / name / "annotations.xml").write_text(CVAT.replace("</ann", '<image name="a.jpg"/></ann'))
    assert "one/annotations.xml, two/annotations.xml are CVAT's, of several sets: name the folder of one" in said(root)


@pytest.mark.parametrize("content, words", [
    ('{"shapes": {}, "imagePath": "a.jpg"}', "LabelMe's, one file for each picture: they are read where"),
    ('{"images": [], "annotations": [], "categories": []}', "names no picture"),
    ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"), ("", "is empty")])
def test_json_that_is_not_cocos_is_called_what_it_is(content, words, tmp_path):
    root = put(tmp_path / "set", "images/a.jpg")
    (root / "a.json").write_text(content)
    message = said(root)
    assert words in message and "no annotations." not in message


def test_a_table_of_other_columns_is_told_what_was_wanted(tmp_path):
    root = put(tmp_path / "set", "images/a.jpg")
    (root / "a.csv").write_text("image_id,breed\na,poodle\n")
    assert "a.csv is not a table of boxes: its first row is image_id,breed, wanted columns" in said(root)


@pytest.mark.parametrize("row, names", [
    ("a.jpg,500,375,ant,10,5,30,20", "filename,width,height,class,xmin,ymin,xmax,ymax"),
    ("ant,10,5,30,20,500,375,a.jpg", "class,xmin,ymin,xmax,ymax,width,height,filename"),
    ("a.jpg,ant,10,5,30,20", "filename,class,xmin,ymin,xmax,ymax"),
    ("a.jpg;ant;10,5;5;30;20", "filename;class;xmin;ymin;xmax;ymax"),
    ("a.jpg,ant,10,5,30", ""), ("a.jpg,b.jpg,10,5,30,20", ""), ("a.jpg,7,10,5,30,20,0", ""), ("foto,x,y,b,h,art", "")])
def test_a_table_without_names_of_columns_is_told_which_to_put_first(row, names, tmp_path):
    root = put(tmp_path / "set", "a.jpg")
    (root / "a.csv").write_text(f"{row}\n")
    message = said(root)
    assert "wanted columns for the picture" in message and ("put the names first" in message) == bool(names)
    assert not names or f"put the names first, such as: {names}.\n" in message


TABLE = "filename,class,xmin,ymin,xmax,ymax\na.jpg,ant,1,1,9,9\n"


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_a_table_of_boxes_without_pictures_is_called_one(name, tmp_path):
    root = put(tmp_path / "set", "a.csv", "settings.json", name)  # the others are no tables of boxes
    (root / name).write_text(TABLE)
    assert f"{name} is a table of boxes, and there are no pictures: put them into this folder" in said(root)


def test_tables_of_boxes_in_folders_of_their_own_are_called_several_sets(tmp_path):
    root = put(tmp_path / "set", "x/a.jpg", "a/labels.csv", "b/labels.csv")
    for folder in "ab":
        (root / folder / "labels.csv").write_text(TABLE)
    assert "a/labels.csv, b/labels.csv are tables of boxes, of several sets: put the pictures of each" in said(root)


def test_of_a_table_only_the_beginning_is_read_and_another_encoding_is_named(tmp_path, monkeypatch):
    root = put(tmp_path / "set", "a.jpg")
    (root / "a.csv").write_bytes(b"file,klasse\na.jpg,k\xe4fer\nb.jpg,ant\n")
    assert "a.csv is not a table of boxes: it cannot be read ('utf-8' codec can't decode byte 0xe4" in said(root)
    assert "invalid continuation byte): save it as CSV UTF-8." in said(root)
    monkeypatch.setattr("scratch.data.find_table.BEGINNING", 16)
    assert "a.csv is not a table of boxes: its first row is file,klasse, wanted columns" in said(root)


def test_labelmes_file_without_its_picture_is_told_where_the_picture_belongs(tmp_path):
    root = put(tmp_path / "set", "a.json")
    (root / "a.json").write_text('{"shapes": [], "imagePath": "a.jpg"}')
    message = said(root)
    assert "the pictures are in the same folder, or one beside it; name that folder" in message
    assert "wanted COCO" not in message


def test_text_files_in_the_wrong_place_are_told_where_they_belong(tmp_path):
    root = put(tmp_path / "set", "images/a.jpg", "annotations/a.txt")
    assert "annotations/a.txt is called like images/a.jpg, but it is not where YOLO has it" in said(root)


def test_several_sets_of_vocs_are_named(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        voc(tmp_path / "VOCdevkit" / year, {"train": draw(4), "val": draw(3, 1)})
    message = said(tmp_path)
    assert "Did you mean" in message and "VOC2007 or " in message and "not Pascal VOC's" not in message


def test_what_is_no_folder_is_called_so(tmp_path):
    put(tmp_path, "Set/a.txt", "set.zip", "set.json", "data.yaml")
    assert f"There is no {tmp_path}/nowhere." in said(tmp_path / "nowhere")
    assert "did you mean" in layout_hint(tmp_path / "SET") or (tmp_path / "SET").exists()
    assert f"{tmp_path}/Set/a.bin is a file, not a folder." in said(put(tmp_path, "Set/a.bin") / "Set/a.bin")
    assert "set.zip is a file: unpack it" in said(tmp_path / "set.zip")
    assert "set.json is a file: name the folder that holds it" in said(tmp_path / "set.json")
    assert f"data.yaml is a file: name {tmp_path}, its folder" in said(tmp_path / "data.yaml")
    assert f"There is no {tmp_path}/Sett; did you mean {tmp_path}/Set?" in said(tmp_path / "Sett")


def test_an_empty_folder_is_called_empty(tmp_path):
    (tmp_path / "set").mkdir()
    assert "is empty" in said(tmp_path / "set") and "There: nothing." in said(tmp_path / "set")


def test_a_path_that_is_there_as_another_kind_is_said_to_be(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train  .found, but it is a folder") as error:
        find_splits(DataConfig(train_images=str(tmp_path / "train"), train_annotations=str(tmp_path / "train")))
    assert "train  (found)" in str(error.value)


def test_oriented_boxes_of_dota_are_told_as_such(tmp_path):
    root = put(tmp_path / "set", "images/a.jpg")
    (root / "labelTxt").mkdir()
    (root / "labelTxt" / "a.txt").write_text("imagesource:GoogleEarth\ngsd:0.14\n"
                                             "2753 2408 2861 2385 2888 2468 2805 2502 plane 0\n")
    assert "labelTxt/a.txt has four corners and a class in a line" in said(root)
    put(root, "images/b.jpg")
    (root / "labelTxt" / "b.txt").write_text((root / "labelTxt" / "a.txt").read_text())
    (root / "labelTxt" / "a.txt").write_text("imagesource:GoogleEarth\ngsd:0.14\n")  # no object
    assert "labelTxt/b.txt has four corners and a class in a line" in said(root)
    (root / "labelTxt" / "b.txt").write_text("")
    assert "it is not where YOLO has it" in said(root)


@pytest.mark.parametrize("line, words", [
    ("Car 0.00 0 1.85 10.00 10.00 40.00 30.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59", "as KITTI's"),
    ("10,10,20,20,1,4,0,0", "as VisDrone's"), ("10,10,20,20,1,4,0,0,", "as VisDrone's")])
def test_text_files_of_published_sets_are_called_what_they_are(line, words, tmp_path):
    root = put(tmp_path / "set", "image_2/a.png", "label_2/a.txt", "image_2/b.png", "label_2/b.txt")  # a: no object
    (root / "label_2" / "b.txt").write_text(line + "\n")
    message = said(root)
    assert "label_2/b.txt has" in message and f"{words}: convert them to one of these layouts first" in message
    assert "YOLO has it" not in message
    (root / "label_2" / "b.txt").write_text("")
    assert "it is not where YOLO has it" in said(root)


@pytest.mark.parametrize("names, words", [
    (["images/a.heic", "labels/a.txt"], ".heic pictures, which are not read: convert them to JPEG first"),
    (["labels/a.txt", "notes.json"], "labels/a.txt has boxes as YOLO writes them, and there are no pictures")])
def test_what_is_missing_of_a_yolo_set_is_told(names, words, tmp_path):
    root = put(tmp_path / "set", *names)
    (root / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    assert words in said(root)


@pytest.mark.parametrize("beside", ["labels/a.txt", "annotations.json", "Annotations/a.xml", "data.yaml"])
def test_the_folder_of_the_pictures_is_not_the_set(beside, tmp_path):
    root = put(tmp_path / "set", "images/a.jpg", beside)
    assert f"no annotations. Did you mean {root}, the folder around it?" in said(root / "images")
    put(root, "images/train/a.jpg")
    assert f"no annotations. Did you mean {root}, the folder around it?" in said(root / "images" / "train")


def test_a_folder_of_pictures_with_another_name_is_asked_nothing(tmp_path, monkeypatch):
    root = put(tmp_path / "set", "holiday/a.jpg", "holiday/LICENSE", "package.json")
    assert "It holds pictures, and no annotations.\n" in said(root / "holiday")
    monkeypatch.chdir(root / "holiday")
    assert "Did you mean" not in layout_hint(Path("."))
