"""Tables of objects: columns by their names, rows that lack something, and which picture a row is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import find_layout, find_splits
from scratch.data.layout_table import columns_of, rows_of
from scratch.data.layouts import recognise
from tests.layouts import coco, draw, write

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
    ("image,label,x,y,w,h", "train.png,ant,10,5,20,15"),
    ("filename,label,class_name,xmin,ymin,xmax,ymax", "train.png,7,ant,10,5,30,20"),  # a name before a number
    ("sep=;\nfilename;class;xmin;ymin;xmax;ymax", "train.png;ant;10;5;30;20"),  # for Excel
    ("image_width,image_height,image,label,width,height,x,y", "80,40,train.png,ant,20,15,10,5"),
    ("image,label,x,y,width,height", "train.png,ant,10,5,20,15"),
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
                                    "class,xmin,ymin,xmax,ymax", "train.png,10,5,x,20,ant", "image,width,height",
                                    "filename,width,height,class,x,y"])  # a point, and the size of its picture
def test_other_tables_are_none(header):
    assert columns_of(header.split(",")) is None


def test_without_a_class_all_are_one(tmp_path):
    root = small(tmp_path, "train.png,1,1,9,9", header="image_id,xmin,ymin,xmax,ymax")
    write(root / "val" / "labels.csv", "image_id,xmin,ymin,xmax,ymax\nval.png,1,1,4,4\n")
    assert read(root).classes.names == ("object",)


def test_an_empty_row_is_a_picture_that_shows_nothing(tmp_path):
    for row in ("train.png,,,,,", "train.png,ant,nan,nan,nan,nan", "train.png", "train.png,,"):
        a = read(small(tmp_path, row))
        assert len(a) == 1 and not len(a.boxes_xywh) and [p.kind for p in a.problems] == ["image without boxes"]


@pytest.mark.parametrize("row, words", [
    ("train.png,ant,1,1O8,9,9", "YMin is '1O8', wanted a number"),
    ("train.png,ant,1,1,,9", "xmax is empty, wanted a number"),
    ("train.png,ant,1,1,nan,9", "xmax is 'nan', wanted a number"),
    ("train.png,,1,1,9,9", "class is empty, wanted the name of a class"),
    (",ant,1,1,9,9", "filename is empty, wanted the name of a picture"),
    ("train.png,ant", "it ends after 2 of 6 cells"), ("train.png,ant,1,1,9", "it ends after 5 of 6 cells"),
    ("train.png,ant,,,", "it ends after 5 of 6 cells"),
    ("train.png,ant, red,1,1,9,9", "it has 7 cells, wanted 6: quote a text with the delimiter in it")])
def test_a_row_that_lacks_something_is_refused_with_its_line_and_its_column(row, words, tmp_path):
    a = read(small(tmp_path, "train.png,ant,1,1,9,9", "", row, header="filename,class,xmin,YMin,xmax,ymax"))
    (problem,) = [p for p in a.problems if p.severity == "refused"]
    assert str(problem) == f"malformed entry: table train, train/labels.csv, line 4: {words}"


def test_a_column_without_a_name_is_counted_and_one_of_a_list_is_shown_whole(tmp_path):
    a = read(small(tmp_path, "train.png,1,x,9,9,ant", header="train.png,10,5,30,20,ant"))
    assert [str(p).partition("line 2: ")[2] for p in a.problems] == ["column 3 is 'x', wanted a number"]
    a = read(small(tmp_path, 'train.png,"[1, 2, 3]"', 'train.png,"[1, 2, 3, 4]"', header="image,bbox"))
    assert [str(p).partition("line 2: ")[2] for p in a.problems] == ["bbox is '[1, 2, 3]', wanted four numbers"]


def test_a_picture_whose_rows_are_all_malformed_does_not_count_as_one_that_shows_nothing(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9", "b.png,ant,1,1,x,9", "c.png,,,,,")
    for name in ("b.png", "c.png"):
        draw(1)[0].save(root / "train", name)
    malformed, empty = read(root).problems
    assert malformed.kind == "malformed entry" and empty.kind == "image without boxes" and "c.png" in str(empty)


def test_boxes_outside_and_without_a_size_are_judged_as_those_of_coco(tmp_path):
    a = read(small(tmp_path, "train.png,ant,70,30,90,39", "train.png,ant,1,1,1,5"))
    assert sorted(p.kind for p in a.problems) == ["box out of range", "zero-size box"]


def test_corners_the_wrong_way_round_are_put_in_order_and_counted(tmp_path):
    a = read(small(tmp_path, "train.png,ant,70,5,40,37", "train.png,ant,1,9,4,2", "train.png,ant,70,30,60,20"))
    assert a.boxes_xywh.tolist() == [[40, 5, 30, 32], [1, 2, 3, 7], [60, 20, 10, 10]]
    assert [str(p) for p in a.problems] == [
        f"corners the wrong way round: table train, train/labels.csv, line {rest}"
        for rest in ("2: got 70, 5, 40, 37", "3: got 1, 9, 4, 2", "4: got 70, 30, 60, 20")]
    assert {p.severity for p in a.problems} == {"coped"}


@pytest.mark.parametrize("header, end", [(HEADER, ""), ("filename,class,xmin,ymin,xmax,ymax,width,height", ",80,40")])
def test_a_width_and_a_height_under_the_names_of_corners_are_refused_once(header, end, tmp_path):
    rows = [f"train.png,ant,{x},{y},{w},{h}{end}" for x, y, w, h in
            ((50, 20, 30, 20), (40, 9, 15, 30), (3, 5, 20, 19), (60, 22, 7, 11), (10, 10, 70, 30))]
    (problem,) = read(small(tmp_path, *rows, header=header)).problems
    assert problem.severity == "refused" and str(problem) == (
        "malformed entry: table train, train/labels.csv: the corners of 3 of 5 boxes are the wrong way round, and 5 "
        "boxes would fit as x y width height: are xmax, ymax a width and a height? Name the columns x, y, w, h")
    a = read(small(tmp_path, *rows, header=header.replace("xmin,ymin,xmax,ymax", "x,y,w,h")))
    assert not a.problems and a.boxes_xywh[0].tolist() == [50, 20, 30, 20]


def test_a_table_without_a_split_is_refused_by_one_of_its_parts(tmp_path):
    for k in range(12):
        draw(1)[0].save(tmp_path, f"{k}.png")
    write(tmp_path / "boxes.csv", f"{HEADER}\n" + "".join(f"{k}.png,ant,50,20,{9 + k},11\n" for k in range(12)))
    (problem,) = read(tmp_path).problems + read(tmp_path, "val").problems
    assert "the corners of 12 of 12 boxes" in str(problem)


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("header, row", [(HEADER, "train.png,ant,10*5,5,30*75,20*0"),
                                         ("train.png,1,1,9*5,9*5,ant", "train.png,10*5,5,30*75,20*0,ant")])
def test_decimal_commas_are_read_where_the_delimiter_is_another_sign(header, row, delimiter, tmp_path):
    rows = [text.replace(",", delimiter).replace("*", ",") for text in (header, row)]
    assert read(small(tmp_path, rows[1], header=rows[0])).boxes_xywh[-1].tolist() == [10.5, 5, 20.25, 15]


def test_a_comma_in_a_number_between_commas_is_not_read(tmp_path):
    a = read(small(tmp_path, 'train.png,ant,"1,5",1,9,9'))
    assert "xmin is '1,5', wanted a number" in str(a.problems[0])


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


@pytest.mark.parametrize("pictures", [("f.jpg", "f.1.jpg", "f.2.png"), ("f.jpg", "f.2.png")])
def test_only_the_ending_of_a_picture_is_cut_off_its_name(pictures, tmp_path):
    root = small(tmp_path, "f.1,ant,1,1,9,9", "f.2,ant,2,2,9,9")
    for name in pictures:
        draw(1)[0].save(root / "train", name)
    there = "train/f.1.jpg" if "f.1.jpg" in pictures else "f.1"  # not f.jpg
    assert sorted(read(root).file_names.tolist()) == sorted([there, "train/f.2.png"])


def test_tables_of_one_split_are_read_together_each_with_its_own_columns(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    write(root / "classes.csv", "ant,0\n")  # another table
    write(root / "train" / "bees.csv", "image\tlabel\tx\ty\tw\th\ntrain.png\tbee\t2\t2\t3\t4\n")
    write(root / "train_too.csv", f"{HEADER}\ntrain/train.png,cat,3,3,9,9\n")  # train/ is a split's folder, not a set's
    assert "(train_too.csv and 2 more, val/labels.csv)" in find_layout(DataConfig(data=str(root))).line()
    a = read(root)
    assert a.classes.names == ("ant", "bee", "cat") and len(a) == 1
    assert sorted(a.boxes_xywh.tolist()) == [[1, 1, 8, 8], [2, 2, 3, 4], [3, 3, 6, 6]]


def test_a_table_for_each_picture_is_read_whole(tmp_path):
    for k in range(30):
        draw(1)[0].save(tmp_path, f"{k}.png")
        write(tmp_path / f"{k}.csv", f"{HEADER}\n{k}.png,ant,1,1,9,9\n")
    assert len(read(tmp_path)) + len(read(tmp_path, "val")) == 30


def test_a_table_of_no_split_beside_val_is_to_learn_from_and_beside_train_is_not_read(tmp_path):
    """keras-retinanet's annotations.csv and val_annotations.csv."""
    for name in ("a.png", "b.png", "c.png"):
        draw(1)[0].save(tmp_path / "images", name)
    write(tmp_path / "annotations.csv", "images/a.png,1,1,9,9,ant\n")
    write(tmp_path / "val_annotations.csv", "images/b.png,1,1,9,9,ant\n")
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert list(layout.splits) == ["train", "val"] and layout.division is None
    assert read(tmp_path).file_names[0] == "images/a.png" and read(tmp_path, "val").file_names[0] == "images/b.png"
    write(tmp_path / "train.csv", "images/c.png,1,1,9,9,ant\n")
    assert "not read: annotations.csv)" in find_layout(DataConfig(data=str(tmp_path))).line()
    assert read(tmp_path).file_names.tolist() == ["images/c.png"]


@pytest.mark.parametrize("name", ["split", "Set", "subset"])
def test_a_column_for_the_split_is_honoured(name, tmp_path):
    said = ("TRAIN", "train", "validation", "test", "none")
    for k in range(len(said) + 1):
        draw(1)[0].save(tmp_path, f"{k}.png")
    rows = "".join(f"{k}.png,{split},c{k},1,1,9,9\n" for k, split in enumerate(said))
    write(tmp_path / "boxes.csv", f"filename,{name},class,xmin,ymin,xmax,ymax\n{rows}")
    line = find_layout(DataConfig(data=str(tmp_path))).line()
    assert "(boxes.csv, by a column; not read: rows of no split (1))" in line
    parts = {split: read(tmp_path, split) for split in ("train", "val", "test")}
    assert [a.file_names.tolist() for a in parts.values()] == [["0.png", "1.png"], ["2.png"], ["3.png"]]
    assert all(a.classes.names == ("c0", "c1", "c2", "c3") for a in parts.values())
    assert [str(p) for a in parts.values() for p in a.problems] == [
        "picture without annotations: table train, 5.png: it has no row"]


def test_a_column_that_names_no_split_is_passed_over(tmp_path):
    for k in range(6):
        draw(1)[0].save(tmp_path, f"{k}.png")
    rows = "".join(f"{k}.png,A,ant,1,1,9,9\n" for k in range(6))
    write(tmp_path / "boxes.csv", f"filename,set,class,xmin,ymin,xmax,ymax\n{rows}")
    assert len(read(tmp_path)) + len(read(tmp_path, "val")) == 6


def test_pictures_without_a_row_are_reported_once_where_the_splits_share_a_folder(tmp_path):
    for k in range(4):
        draw(1)[0].save(tmp_path / "images", f"{k}.png")
    for k, split in enumerate(("train", "val")):
        write(tmp_path / f"{split}.csv", f"{HEADER}\n{k}.png,ant,1,1,9,9\n")
    (problem,) = read(tmp_path).problems + read(tmp_path, "val").problems
    assert problem.times == 2 and str(problem).endswith("it has no row; the same is true of 1 other")


def test_only_the_ends_of_lines_end_a_row(tmp_path):
    a = read(small(tmp_path, 'train.png,"x\u2028y",1,1,9,9', "train.png,x\x0cy,2,2,9,9"))
    assert len(a.boxes_xywh) == 2 and {"x\u2028y", "x\x0cy"} < set(a.classes.names)
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    write(root / "train" / "labels.csv", f"{HEADER}\rtrain.png,ant,1,1,9,9\rtrain.png,bee,1,1,9,9\r")
    assert read(root).classes.names == ("ant", "bee")


def test_a_quote_that_is_left_open_is_refused_with_the_line_on_which_it_begins(tmp_path):
    a = read(small(tmp_path, "train.png,ant,1,1,9,9", 'train.png,"ant,1,1,9,9', "train.png,bee,1,1,9,9"))
    (problem,) = [p for p in a.problems if p.kind == "malformed entry"]
    assert str(problem).endswith("train/labels.csv: the row that begins in line 3 is not CSV: unexpected end of data")


def test_a_cell_may_be_long(tmp_path):
    a = read(small(tmp_path, "train.png,ant,1,1,9,9," + "1 " * 10**5, header=f"{HEADER},mask"))
    assert len(a.boxes_xywh) == 1 and not a.problems


def test_the_tables_are_read_in_one_pass(tmp_path, monkeypatch):
    root, read_files = small(tmp_path, "train.png,ant,1,1,9,9"), []
    monkeypatch.setattr("scratch.data.layout_table.rows_of",
                        lambda file, *how: read_files.append(file) or rows_of(file, *how))
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    read_annotations(source, folder=folder)
    assert len(read_files) == len(set(read_files)) == 2


def test_a_table_that_goes_bad_after_its_beginning_is_refused_in_words(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9")
    with open(root / "train" / "labels.csv", "ab") as file:
        file.write(b"x" * 2**17 + b"\xff\n")
    told = [p for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and str(told[0]).endswith("invalid start byte): save it as CSV UTF-8")
    with pytest.raises(ValueError, match="its first row is a,b, wanted columns"):
        write(root / "b.csv", "a,b\n")
        list(rows_of(root / "b.csv"))


def beside(root: Path, **tables: str) -> Path:
    for k in range(6):
        draw(1, k)[0].save(root / "images", f"{k}.png")
    for name, content in tables.items():
        write(root / f"{name}.csv", content)
    return root


def rows(extra: str, *values: str) -> str:
    """A table with a column more, and its values in turn."""
    return f"{HEADER}{extra}\n" + "".join(
        f"{k}.png,ant,1,1,9,9{',' if extra else ''}{values[k % len(values)]}\n" for k in range(6))


def test_what_a_detector_found_is_no_truth_beside_one(tmp_path):
    root = beside(tmp_path, annotations=rows("", ""), predictions=rows(",score", "0.9", "0.4"))
    assert "table (annotations.csv; not read: predictions.csv)" in find_layout(DataConfig(data=str(root))).line()
    (root / "annotations.csv").unlink()
    assert "table (predictions.csv)" in find_layout(DataConfig(data=str(root))).line()


def test_a_confidence_that_is_always_the_same_is_no_detectors(tmp_path):
    root = beside(tmp_path, one=rows(",Confidence", "1"), two=rows("", ""))
    assert "table (one.csv and 1 more)" in find_layout(DataConfig(data=str(root))).line()


def test_a_column_that_may_hold_the_classes_and_is_not_called_so_is_told(tmp_path):
    table = "filename,xmin,ymin,xmax,ymax,kind of insect,note\n" + "".join(f"{k}.png,1,1,9,9,ant,\n" for k in range(6))
    line = find_layout(DataConfig(data=str(beside(tmp_path, a=table)))).line()
    assert "no column is called class, so all boxes are of one, 'object'; not read: kind of insect)" in line


@pytest.mark.parametrize("name", ["species", "object", "Object Class"])
def test_other_names_of_a_class_are_known(name, tmp_path):
    a = read(small(tmp_path, "train.png,10,5,30,20,ant", header=f"filename,xmin,ymin,xmax,ymax,{name}"))
    assert a.classes.names == ("ant",)


def test_of_folders_with_pictures_of_the_same_names_that_of_the_originals_is_meant(tmp_path):
    root = beside(tmp_path, annotations=rows("", ""))
    for k in range(6):
        draw(1, k)[0].save(root / "a_small", f"{k}.png")
    assert all(name.startswith("images/") for name in read(root).file_names)


def test_scores_are_read_where_a_split_has_nothing_else(tmp_path):
    root = beside(tmp_path, train=rows(",score", "0.9", "0.4"), val=rows("", ""))
    assert "table (train.csv, val.csv)" in find_layout(DataConfig(data=str(root))).line()
    write(root / "predictions.csv", rows(",score", "0.9", "0.4"))
    assert "table (train.csv, val.csv; not read: predictions.csv)" in find_layout(DataConfig(data=str(root))).line()


def test_what_a_detector_found_is_named_beside_a_table_with_a_column_for_the_split(tmp_path):
    root = beside(tmp_path, a=rows(",split", "train", "val"), predictions=rows(",score", "0.9", "0.4"))
    assert "table (a.csv, by a column; not read: predictions.csv)" in find_layout(DataConfig(data=str(root))).line()


def test_a_running_number_called_object_is_no_class_beside_an_id(tmp_path):
    a = read(small(tmp_path, "train.png,1,7,10,5,30,20", header="filename,object,class_id,xmin,ymin,xmax,ymax"))
    assert a.classes.names == ("7", "ant")  # that of val, too


def lines(root: Path, *texts: str, classes: str = "ant\nbee") -> Path:
    """One picture of 80×40 a split, and a text file of lines for each."""
    for name, text in (("train", "\n".join(texts)), ("val", "val.png 1,1,4,4,0")):
        draw(1)[0].save(root / name, f"{name}.png")
        write(root / name / "_annotations.txt", text)
        write(root / name / "_classes.txt", classes)
    return root


def test_a_text_file_with_a_line_for_each_picture_is_a_table(tmp_path):
    root = lines(tmp_path, "train.png 10,5,30,20,1 1.5,2,3,4.5,0", "")
    layout = find_layout(DataConfig(data=str(root)))
    assert "table (train/_annotations.txt, val/_annotations.txt)" in layout.line()
    a = read(root)
    assert a.boxes_xywh.tolist() == [[10, 5, 20, 15], [1.5, 2, 1.5, 2.5]] and not a.problems
    assert [a.classes.names[label] for label in a.labels] == ["bee", "ant"]


@pytest.mark.parametrize("line, words", [
    ("train.png 10,5,x,20,1", "line 2: got '10,5,x,20,1', wanted x1,y1,x2,y2,CLASS"),
    ("train.png 10,5,30,20,ant", "line 2: got '10,5,30,20,ant', wanted x1,y1,x2,y2,CLASS"),
    ("train.png 10,5,30,20,-1", "line 2: got '10,5,30,20,-1', wanted x1,y1,x2,y2,CLASS"),
    ("train.png 10,5,30,20,2", "line 2: class 2 is none of the 2 classes (0 to 1)"),
    ("train.png 10,5,30,20", "line 2: got 'train.png 10,5,30,20', wanted PATH x1,y1,x2,y2,CLASS"),
    ("10,5,30,20,1", "line 2: got '10,5,30,20,1', wanted PATH x1,y1,x2,y2,CLASS")])
def test_a_line_that_is_malformed_is_refused_with_its_place(line, words, tmp_path):
    (problem,) = read(lines(tmp_path, "train.png 10,5,30,20,1", line)).problems
    assert problem.severity == "refused" and f"train/_annotations.txt, {words}" in str(problem)


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    root = lines(tmp_path, "train.png 10,5,30,20,1")
    for split in ("train", "val"):
        (root / split / "_classes.txt").unlink()
    write(root / "more" / "my_classes.txt", "wasp\nfly")  # the only file of names
    assert read(root).classes.names == ("fly", "wasp")
    write(root / "more" / "voc_classes.txt", "aeroplane")  # which of the two?
    assert read(root).classes.names == ("0", "1")


@pytest.mark.parametrize("text", ["a cat", "train.png", "train.png 0.5 0.5 0.1 0.1", "train.png 1,2,3,4", "1,2,3,4,5"])
def test_other_text_files_are_no_tables(text, tmp_path):
    draw(1)[0].save(tmp_path / "train", "train.png")
    write(tmp_path / "train" / "list.txt", text)
    assert recognise(tmp_path) is None


def test_a_table_to_learn_from_counts_more_than_another_layout_with_nothing_to_learn_from(tmp_path):
    root = lines(tmp_path, "train.png 10,5,30,20,1")
    draw(1, 1)[0].save(root / "test", "t.png")
    write(root / "test" / "t.txt", "0 0.5 0.5 0.25 0.25")
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "table" and list(layout.splits) == ["train", "val"]
    for file in ("val.png", "_annotations.txt", "_classes.txt"):
        (root / "val" / file).unlink()
    assert find_layout(DataConfig(data=str(root))).name == "table"  # to be divided


def test_of_a_set_without_train_its_own_boxes_count_more_than_a_table_that_would_be_divided(tmp_path):
    pictures = draw(6)
    coco(tmp_path, {"val": pictures})
    write(tmp_path / "predictions.csv", "filename,class,xmin,ymin,xmax,ymax,score\n"
          + "".join(f"{p.name},ant,1,1,9,9,0.{k}\n" for k, p in enumerate(pictures)))
    layout = recognise(tmp_path)
    assert layout and layout.name == "COCO" and list(layout.splits) == ["val"]


def test_names_of_classes_keep_their_places_and_those_of_one_folder_are_for_all(tmp_path):
    root = lines(tmp_path, "train.png 10,5,30,20,2", classes="ant\n\nbee\n\n")
    (root / "val" / "_classes.txt").unlink()
    assert read(root).classes.names == ("ant", "bee")


def test_a_name_with_quotes_in_a_text_file_of_lines_is_no_csv(tmp_path):
    root = lines(tmp_path, '"train".png 10,5,30,20,0')
    (root / "train" / "train.png").rename(root / "train" / '"train".png')
    assert read(root).boxes_xywh.tolist() == [[10, 5, 20, 15]]


def test_an_empty_file_of_names_names_nothing(tmp_path):
    assert read(lines(tmp_path, "train.png 10,5,30,20,1", classes="")).classes.names == ("0", "1")


def test_a_picture_that_is_not_there_is_missing_and_may_be_left_out_though_no_column_tells_its_size(tmp_path):
    root = small(tmp_path, "train.png,ant,1,1,9,9", "gone.png,ant,1,1,9,9")
    assert not [p for p in read(root).problems if p.severity == "refused"]  # the check of the pictures tells
    told = [p for p in check_dataset(DataConfig(data=str(root)), 100, decode=True).problems if p.severity == "refused"]
    assert [p.kind for p in told] == ["missing image"]
    check_dataset(DataConfig(data=str(root), leave_out_broken=True), 100, decode=True).refuse()
