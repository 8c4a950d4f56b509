"""Tables of objects: columns by their names, rows that lack something, and which picture a row is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout, find_splits
from scratch.data.layout_table import columns_of, rows_of
from tests.layouts import draw, write

HEADER = "filename,class,xmin,ymin,xmax,ymax"


def small(root: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    """One picture of 80×40 a split."""
    for name in ("train", "val"):
        draw(1)[0].save(root / name, f"{name}.png")
    write(root / "val" / "labels.csv", f"{HEADER}\nval.png,ant,1,1,4,4\n")
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / "labels.csv").write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return root


def read(root: Path, split: str = "train"):
    folder, source = find_splits(DataConfig(data=str(root)))[split]
    return read_annotations(source, folder=folder)


@pytest.mark.parametrize("header, row", [
    (HEADER, "train.png,ant,10,5,30,20"), ("ymax;xmax;ymin;xmin;Class;FileName", "20;30;5;10;ant;train.png"),
    ("Image Path\tLabel\tX_Min\tY_Min\tX_Max\tY_Max", "train.png\tant\t10\t5\t30\t20"),
    ("image,x1,y1,x2,y2,label", "train.png,10,5,30,20,ant"),
    ("image_id,width,height,bbox,label", 'train,80,40,"[10, 5, 20, 15]",ant'),
    ("image,label,x1,y1,w,h", "train.png,ant,10,5,20,15"),
    ("image,label,x,y,w,h", "train.png,ant,10,5,20,15"), ("image,label,x,y,width,height", "train.png,ant,10,5,20,15"),
    ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height",
     "ant,10,5,20,15,train.png,80,40"),
    ("filename,category,left,top,right,bottom", '"train.png","ant","10.0"," 5","3e1","20"')])
def test_the_columns_are_known_by_their_names(header, row, tmp_path):
    a = read(small(tmp_path, row, header=header))
    assert a.boxes_xywh.tolist() == [[10, 5, 20, 15]] and a.classes.names == ("ant",) and not a.problems
    assert a.file_names.tolist() == ["train/train.png"] and a.sizes.tolist() == [[80, 40]]


@pytest.mark.parametrize("rows", [("train.png,10,5,30,20,ant",), ("ant,10,5,20,15,train.png,80,40",)])
def test_rows_without_names_of_columns_are_retinanets_or_makesenses(rows, tmp_path):
    a = read(small(tmp_path, *rows[1:], header=rows[0]))
    assert a.boxes_xywh.tolist() == [[10, 5, 20, 15]] and not a.problems


@pytest.mark.parametrize("header", ["image_id,breed", "filename,class", "a,b,c,d,e,f", "1,2,3,4,5,6", "",
                                    "class,xmin,ymin,xmax,ymax", "train.png,10,5,x,20,ant", "image,width,height"])
def test_other_tables_are_none(header):
    assert columns_of(header.split(",")) is None


def test_without_a_class_all_are_one(tmp_path):
    root = small(tmp_path, "train.png,1,1,9,9", header="image_id,xmin,ymin,xmax,ymax")
    write(root / "val" / "labels.csv", "image_id,xmin,ymin,xmax,ymax\nval.png,1,1,4,4\n")
    assert read(root).classes.names == ("object",)


def test_an_empty_row_is_a_picture_that_shows_nothing(tmp_path):
    for row in ("train.png,,,,,", "train.png,ant,nan,nan,nan,nan", "train.png"):
        a = read(small(tmp_path, row))
        assert len(a) == 1 and not len(a.boxes_xywh) and [p.kind for p in a.problems] == ["image without boxes"]


@pytest.mark.parametrize("row", ["train.png,ant,1,1,x,9", "train.png,,1,1,9,9", "train.png,ant,1,1,9", ",ant,1,1,9,9"])
def test_a_row_that_lacks_something_is_refused_with_its_line(row, tmp_path):
    a = read(small(tmp_path, "train.png,ant,1,1,9,9", "", row))
    (problem,) = [p for p in a.problems if p.severity == "refused"]
    assert problem.kind == "malformed entry" and "train/labels.csv, line 4: " in str(problem)


def test_corners_the_wrong_way_round_and_boxes_outside_are_judged_as_those_of_coco(tmp_path):
    a = read(small(tmp_path, "train.png,ant,9,5,4,7", "train.png,ant,70,30,90,39", "train.png,ant,1,1,1,5"))
    assert sorted(p.kind for p in a.problems) == ["box out of range", "negative-size box", "zero-size box"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_write_them(encoding, tmp_path):
    a = read(small(tmp_path, "train.png,käfer,10,5,30,20", encoding=encoding))
    assert a.classes.names == ("ant", "käfer") and len(a.boxes_xywh) == 1


@pytest.mark.parametrize("said", ["train.png", "train/train.png", "/content/set/train/train.png", "TRAIN",
                                  "..\\train\\train.png", "file:///home/ann/train/train.png", "images/train.png"])
def test_the_picture_is_found_whatever_folders_stand_before_it(said, tmp_path):
    a = read(small(tmp_path, f"{said},ant,1,1,9,9"))
    assert a.file_names.tolist() == ["train/train.png"] and not a.problems


def test_of_two_pictures_of_a_name_the_one_beside_the_table_is_meant(tmp_path):
    root = small(tmp_path, "a.png,ant,1,1,9,9")
    write(root / "val" / "labels.csv", f"{HEADER}\na.png,ant,1,1,4,4\n")
    for split in ("train", "val"):
        draw(1)[0].save(root / split, "a.png")
    assert read(root).file_names.tolist() == ["train/a.png"] and read(root, "val").file_names.tolist() == ["val/a.png"]


def test_a_picture_that_is_not_there_is_named(tmp_path):
    a = read(small(tmp_path, "gone.png,ant,1,1,9,9"))
    assert a.file_names.tolist() == ["gone.png"]


def test_a_picture_without_a_row_is_left_out_and_counted_once(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    draw(1)[0].save(root / "train", "bare.jpg")
    (problem,) = read(root).problems
    assert problem.kind == "picture without annotations" and "train/bare.jpg: it has no row" in str(problem)
    assert not read(root, "val").problems


def test_other_tables_beside_are_passed_over_and_a_second_one_of_a_split_is_named(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    write(root / "classes.csv", "ant,0\n")
    write(root / "train" / "labels_2.csv", f"{HEADER}\ntrain.png,bee,1,1,9,9\n")
    assert "not read: train/labels_2.csv)" in find_layout(DataConfig(data=str(root))).line()
    assert read(root).classes.names == ("ant",)


def test_a_table_that_goes_bad_after_its_beginning_is_refused_in_words(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    with open(root / "train" / "labels.csv", "ab") as file:
        file.write(b"x" * 2**17 + b"\xff\n")
    told = [p for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and "it cannot be read" in str(told[0])
    with pytest.raises(ValueError, match="its first row is a,b, wanted columns"):
        write(root / "b.csv", "a,b\n")
        list(rows_of(root / "b.csv"))
