"""Pascal VOC's XML files: pixels counted from 1, difficult objects, lists of splits, and files made to do harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout, find_splits
from scratch.data.layout_voc import parse
from scratch.data.split import VAL, place
from tests.layouts import draw, voc, voc_flat, voc_text, write

OBJECT = ("<object><name>{name}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
          "<ymax>{box[3]}</ymax></bndbox></object>")


def small(root: Path, *objects: str, size: str = "<size><width>80</width><height>40</height></size>",
          split: str = "train") -> Path:
    """One picture of 80×40 a split."""
    for name in ("train", "val"):
        draw(1)[0].save(root / name, f"{name}.png")
        mine = "".join(objects) if name == split else OBJECT.format(name="ant", box=(2, 2, 5, 5), more="")
        write(root / name / f"{name}.xml", f"<annotation><filename>{name}.png</filename>{size}{mine}</annotation>")
    return root


def read(root: Path, split: str = "train"):
    folder, source = find_splits(DataConfig(data=str(root)))[split]
    return read_annotations(source, folder=folder)


def box(*sides: object, name: str = "ant", more: str = "") -> str:
    return OBJECT.format(name=name, box=sides, more=more)


@pytest.mark.parametrize("sides, found", [
    ((8, 10, 47, 29), [7, 9, 40, 20]), ((1, 1, 80, 40), [0, 0, 80, 40]), ((5, 5, 5, 6), [4, 4, 1, 2]),
    (("8.5", " 10 ", "47.25", "29"), [7.5, 9, 39.75, 20])])
def test_pixels_are_counted_from_1_and_the_last_one_belongs_to_the_box(sides, found, tmp_path):
    a = read(small(tmp_path, box(*sides)))
    assert a.boxes_xywh.tolist() == [found] and not a.problems


def test_a_set_with_a_coordinate_below_1_is_counted_from_0_in_every_split(tmp_path):
    root = small(tmp_path, box(0, 10, 40, 30))
    a, val = read(root), read(root, "val")
    assert a.boxes_xywh.tolist() == [[0, 10, 40, 20]] and val.boxes_xywh.tolist() == [[2, 2, 3, 3]]
    assert [p.kind for p in a.problems] == ["coordinates from 0"]


@pytest.mark.parametrize("sides, kind", [((5, 5, 5, 5), "zero-size box"), ((9, 5, 4, 7), "negative-size box"),
                                         ((70, 30, 90, 39), "box out of range")])
def test_boxes_of_a_click_and_others_are_judged_as_those_of_coco(sides, kind, tmp_path):
    assert [p.kind for p in read(small(tmp_path, box(*sides), box(2, 2, 5, 5))).problems] == [kind]


def test_difficult_objects_are_crowds(tmp_path):
    a = read(small(tmp_path, box(2, 2, 5, 5, more="<difficult>1</difficult>"),
                   box(2, 2, 9, 9, more="<difficult>0</difficult>"), box(2, 2, 7, 7, more="<difficult/>")))
    assert a.crowd.tolist() == [True, False, False]


@pytest.mark.parametrize("word", ["Unspecified", "unknown", "None", "null"])
def test_an_object_of_which_a_tool_does_not_say_whether_it_is_difficult_is_not(word, tmp_path):
    a = read(small(tmp_path, box(2, 2, 5, 5, more=f"<difficult>{word}</difficult>")))
    assert a.crowd.tolist() == [False] and not a.problems


@pytest.mark.parametrize("wrong", [box(2, 2, "x", 5), box(2, 2, "", 5), box(2, 2, 5, 5, name=" "),
                                   "<object><name>ant</name></object>",
                                   box(2, 2, 5, 5, more="<difficult>7</difficult>")])
def test_an_object_that_is_none_is_refused_with_its_place(wrong, tmp_path):
    (problem,) = [p for p in read(small(tmp_path, box(2, 2, 5, 5), wrong)).problems if p.severity == "refused"]
    assert problem.kind == "malformed entry"
    assert "Pascal VOC train, train/train.xml, object 2: got the name " in str(problem)


def test_parts_of_an_object_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    a = read(small(tmp_path, box(5, 6, 14, 15, name="person", more=part)))
    assert a.boxes_xywh.tolist() == [[4, 5, 10, 10]] and a.classes.names == ("ant", "person")


def test_a_size_that_is_not_told_is_taken_from_the_picture(tmp_path):
    a = read(small(tmp_path, box(2, 2, 5, 5), size="<size><width>0</width><height>0</height></size>"))
    assert a.sizes.tolist() == [[80, 40]] and [p.kind for p in a.problems] == ["size taken from the picture"]


def test_classes_that_only_another_split_has_are_counted_in_every_split(tmp_path):
    root = small(tmp_path, box(2, 2, 5, 5, name="bee"), split="val")
    assert read(root).classes == read(root, "val").classes and read(root).classes.names == ("ant", "bee")


# -- which picture, and which split --------------------------------------------------------------------------------


def test_the_name_of_the_file_counts_before_what_stands_in_it(tmp_path):
    root = voc_flat(tmp_path, {"all": draw(6)})
    for file in (root / "annotations").iterdir():
        file.write_text(file.read_text(encoding="utf-8").replace("<filename>", "<filename>C:\\x\\old_"),
                        encoding="utf-8")
    names = [n for split in ("train", "val") for n in read(root, split).file_names.tolist()]
    assert sorted(names) == sorted(f"images/{p.name}" for p in draw(6))


def test_masks_of_the_same_names_are_not_taken_for_the_pictures(tmp_path):
    pictures = {"train": draw(4), "val": draw(4, 1)}
    root = voc(tmp_path, pictures)
    for p in pictures["train"]:
        p.save(root / "SegmentationClass", p.name.rpartition(".")[0] + ".gif")
    assert sorted(read(root).file_names.tolist()) == sorted(f"JPEGImages/{p.name}" for p in pictures["train"])


def test_a_picture_without_a_file_is_left_out_and_counted_once(tmp_path):
    root = voc_flat(tmp_path, {"all": draw(12)})
    draw(1)[0].save(root / "images", "bare.jpg")
    told = [p for split in ("train", "val") for p in read(root, split).problems if p.kind.startswith("picture without")]
    assert [p.times for p in told] == [1] and "images/bare.jpg" in told[0].where


def test_trainval_is_the_training_split_where_there_is_no_other(tmp_path):
    root = voc(tmp_path, {"train": draw(6), "val": draw(4, 1), "test": draw(4, 2)})
    (root / "ImageSets/Main/train.txt").unlink()
    assert len(read(root)) == 6 and len(read(root, "val")) == 4  # trainval without val
    (root / "ImageSets/Main/val.txt").unlink()
    layout = find_layout(DataConfig(data=str(root)))
    assert list(layout.splits) == ["train", "val", "test"] and layout.division is not None
    assert len(read(root)) + len(read(root, "val")) == 10 and len(read(root, "test")) == 4


def test_a_name_in_a_list_without_a_file_is_refused_and_a_list_of_such_names_is_no_split(tmp_path):
    root = voc(tmp_path, {"train": draw(6), "val": draw(4, 1)})
    write(root / "ImageSets/Main/test.txt", "2012_000001\n2012_000002\n")
    assert "test" not in find_splits(DataConfig(data=str(root)))
    write(root / "ImageSets/Main/val.txt", "s1 a 1 1\n\"s1 b.v2\"\nnowhere\n")
    a = read(root, "val")
    assert ["nowhere" in str(p) for p in a.problems if p.severity == "refused"] == [True] and len(a) == 2
    write(root / "ImageSets/Segmentation/val.txt", "nowhere\n")  # of another task
    write(root / "ImageSets/Main/val.txt", "s1 a 1\n")
    assert len(read(root, "val")) == 1 and not [p for p in read(root, "val").problems if p.severity == "refused"]


@pytest.mark.parametrize("nested", ["", "VOCdevkit/VOC2012/"])
def test_pictures_and_files_of_the_same_names_belong_together_by_their_folders(nested, tmp_path):
    pictures = {folder: draw(1, seed)[0] for seed, folder in enumerate(("cam1", "cam2"))}
    for folder, p in pictures.items():
        p.save(tmp_path / nested / "JPEGImages" / folder, "7.png")
        write(tmp_path / nested / "Annotations" / folder / "7.xml", voc_text(p, "7.png"))
    write(tmp_path / nested / "ImageSets/Main/train.txt", "cam1/7\n")
    write(tmp_path / nested / "ImageSets/Main/val.txt", "cam2/7\n")
    for split, folder in (("train", "cam1"), ("val", "cam2")):
        a = read(tmp_path, split)
        assert a.file_names.tolist() == [f"{nested}JPEGImages/{folder}/7.png"]
        assert a.boxes_xywh.tolist() == [list(map(float, o[1:5])) for o in pictures[folder].objects]
    write(tmp_path / nested / "ImageSets/Main/val.txt", "cam2/7\n7\n")  # which one?
    assert [p.kind for p in read(tmp_path, "val").problems if p.severity == "refused"] == ["malformed entry"]


def test_a_broken_file_is_reported_in_the_split_of_its_picture(tmp_path):
    told = {k: [place(f"{k}.{ending}") < VAL for ending in ("png", "xml")] for k in range(40)}
    broken = next(k for k in told if told[k] == [True, False])  # as a name it would be in train
    for k in [*range(12), broken]:
        draw(1)[0].save(tmp_path, f"{k}.png")
        write(tmp_path / f"{k}.xml", voc_text(draw(1)[0], f"{k}.png") if k != broken else "<annotation>")
    assert not read(tmp_path).problems
    assert [f"{broken}.xml" in str(p) for p in read(tmp_path, "val").problems] == [True]


def test_splits_with_both_inside_may_use_the_same_names(tmp_path):
    for seed, split in enumerate(("train", "valid")):
        p = draw(1, seed)[0]
        p.save(tmp_path / split / "images", "7.png")
        write(tmp_path / split / "annotations" / "7.xml", voc_text(p, "7.png"))
    assert read(tmp_path).file_names.tolist() == ["train/images/7.png"]
    assert read(tmp_path, "val").file_names.tolist() == ["valid/images/7.png"]


@pytest.mark.parametrize("folder, line", [
    ("ImageSets/", "{}\n"), ("", "{}\r\n"), ("", "./images/{}.png ./annotations/{}.xml\n"), ("", "images/{}.png\n"),
    ("", '"{}"\n" "\n')])
def test_lists_of_splits_may_be_elsewhere_and_hold_paths(folder, line, tmp_path):
    for k in range(5):
        p = draw(1)[0]
        p.save(tmp_path / "images", f"a {k}.png")
        write(tmp_path / "annotations" / f"a {k}.xml", voc_text(p, f"a {k}.png"))
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        write(tmp_path / f"{folder}{split}.txt", "".join(line.replace("{}", f"a {k}") for k in numbers))
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert layout.division is None and (len(read(tmp_path)), len(read(tmp_path, "val"))) == (3, 2)


def test_a_set_counts_before_a_copy_of_it_in_a_folder_below(tmp_path):
    splits = {"train": draw(6), "val": draw(4, 1)}
    for root in (tmp_path, tmp_path / "old"):
        voc(root, splits)
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert layout.root == tmp_path and (len(read(tmp_path)), len(read(tmp_path, "val"))) == (6, 4)
    assert not any("old" in name for name in read(tmp_path).file_names)


def test_a_folder_that_is_called_like_a_split_is_none_beside_others(tmp_path):
    for folder, pictures in (("train station", draw(3)), ("harbour", draw(3, 1))):
        for p in pictures:
            p.save(tmp_path / folder)
            write(tmp_path / folder / f"{p.name.rpartition('.')[0]}.xml", voc_text(p))
    assert len(read(tmp_path)) + len(read(tmp_path, "val")) == 6
    (tmp_path / "train station").rename(tmp_path / "train")
    write(tmp_path / "val/v.xml", voc_text(draw(1)[0], "v.png"))
    draw(1)[0].save(tmp_path / "val", "v.png")
    assert len(read(tmp_path)) == 3 and "not read: harbour/" in find_layout(DataConfig(data=str(tmp_path))).line()


def test_xml_files_of_another_kind_beside_are_left_out_and_told(tmp_path):
    root = small(tmp_path, box(2, 2, 5, 5))
    write(root / "train/train.png.aux.xml", "<PAMDataset/>")
    a = read(root)
    assert len(a) == 1 and [p.kind for p in a.problems] == ["other XML file"]


# -- XML made to do harm -------------------------------------------------------------------------------------------

LAUGHS = ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">'
          + "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10)) + "]><annotation>&l9;</annotation>")


@pytest.mark.parametrize("content", [
    LAUGHS.encode(), LAUGHS.replace('<?xml version="1.0"?>', "").encode("utf-16"),
    b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'])
def test_a_document_type_is_refused_before_an_entity_grows(content, tmp_path):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(ValueError, match="declares a document type"):
        parse(tmp_path / "a.xml")


@pytest.mark.parametrize("content", [b"", b"<annotation>", b"\x00\x01", b"<annotation>&amp</annotation>",
                                     b'<?xml version="1.0" encoding="klingon"?><annotation/>'])
def test_what_is_no_xml_is_refused_by_its_file(content, tmp_path):
    root = voc_flat(tmp_path, {"all": draw(12)})
    file = root / "annotations" / "a 1.xml"
    file.write_bytes(content)
    problems = [p for split in ("train", "val") for p in read(root, split).problems if p.severity == "refused"]
    assert problems and all("annotations/a 1.xml" in str(p) and "it is not well-formed XML" in str(p) for p in problems)


def test_an_encoding_that_says_what_it_is_is_read(tmp_path):
    root = small(tmp_path, box(2, 2, 5, 5))
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + voc_text(draw(1)[0], "train.png")
    (root / "train/train.xml").write_bytes(text.encode("latin-1"))
    assert "käfer" in read(root).classes.names


def test_files_that_no_list_names_are_told(tmp_path):
    root = voc(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    assert "not read" not in find_layout(DataConfig(data=str(root))).line()
    for name in ("more", "and more"):
        draw(1)[0].save(root / "JPEGImages", f"{name}.png")
        write(root / "Annotations" / f"{name}.xml", voc_text(draw(1)[0], f"{name}.png"))
    assert "; not read: 2 .xml files that they do not name) in" in find_layout(DataConfig(data=str(root))).line()


def test_copies_of_a_picture_in_two_folders_are_one_picture(tmp_path):
    root = voc(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    pictures = sorted((root / "JPEGImages").iterdir())
    for folder in ("JPEGImages-trainval", "JPEGImages-test"):
        (root / folder).mkdir()
    for k, path in enumerate(pictures):
        (root / "JPEGImages-trainval" / path.name).write_bytes(path.read_bytes())
        if k == 0:
            (root / "JPEGImages-test" / path.name).write_bytes(path.read_bytes())
        path.unlink()
    for split in ("train", "val"):
        a = read(root, split)
        assert all((root / name).is_file() for name in a.file_names)
    (root / "JPEGImages-test" / pictures[0].name).write_bytes(b"another")
    names = [name for split in ("train", "val") for name in read(root, split).file_names]
    assert pictures[0].name in names  # which of the two, nothing tells
