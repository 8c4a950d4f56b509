"""CVAT's, VIA's and Create ML's own files: shapes of every kind, the attribute of the class, and what is malformed."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scratch.config import DataConfig
from scratch.data import layout_createml, layout_cvat, layout_via
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout, find_splits
from scratch.data.objects import ellipse, is_closed, turned
from tests.layouts import cvat_xml, draw, write

CVAT = '<annotations><version>1.1</version><image name="a.png" width="80" height="40">{}</image></annotations>'
HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
LABEL = {"region_attributes": {"class": "ant"}}
BARE = {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 6}}
RECT = {**BARE, **LABEL}
ONE = {"label": "ant", "coordinates": {"x": 6, "y": 6, "width": 4, "height": 8}}


def small(root: Path, name: str, content: Any) -> Path:
    """One picture of 80×40 that is learnt from, and a file about it."""
    draw(1)[0].save(root / "train", "a.png")
    draw(1)[0].save(root / "val", "b.png")
    write(root / "train" / name, content)
    other = json.dumps(content) if not isinstance(content, str) else content
    write(root / "val" / name, other.replace("a.png", "b.png"))
    return root


def cvat(root: Path, *shapes: str) -> Path:
    return small(root, "annotations.xml", CVAT.format("".join(shapes)))


def via(root: Path, *regions: Any) -> Path:
    return small(root, "via.json", {"a.png9": {"filename": "a.png", "size": 9, "regions": list(regions)}})


def createml(root: Path, *objects: Any) -> Path:
    return small(root, "set.json", [{"image": "a.png", "annotations": [ONE, *objects]}])


def read(root: Path):
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    return read_annotations(source, folder=folder)


# -- boxes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, box, outline", [
    ('<box label="ant" xtl="7" ytl="9.5" xbr="17" ybr="29.5"/>', [7, 9.5, 10, 20], False),
    ('<box label="ant" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0"/>', [15, 5, 10, 20], True),
    ('<polygon label="ant" points="7,9;17,12.5;8,29"/>', [7, 9, 10, 20], True),
    ('<polyline label="ant" points="7,9;17,12.5;8,29;7,10"/>', [7, 9, 10, 20], True),  # its ends nearly meet
    ('<ellipse label="ant" cx="20" cy="20" rx="10" ry="5"/>', [10, 15, 20, 10], True),
    ('<ellipse label="ant" cx="20" cy="20" rx="10" ry="5" rotation="90"/>', [15, 10, 10, 20], True),
    ('<mask label="ant" rle="3,4" left="7" top="9" width="10" height="20"/>', [7, 9, 10, 20], True),
    ('<cuboid label="ant" xtl1="7" ytl1="9" xbl1="7" ybl1="20" xtr1="12" ytr1="9" xbr1="12" ybr1="20" xtl2="9" '
     'ytl2="11" xbl2="9" ybl2="29" xtr2="17" ytr2="11" xbr2="17" ybr2="29"/>', [7, 9, 10, 20], True)])
def test_the_box_of_each_of_cvats_shapes(shape, box, outline, tmp_path):
    a = read(cvat(tmp_path, shape))
    assert a.boxes_xywh[0].tolist() == pytest.approx(box) and a.classes.names == ("ant",)
    assert [(p.kind, p.severity) for p in a.problems] == [("outline of an object", "note")] * outline


@pytest.mark.parametrize("shape, box, outline", [
    ({"name": "rect", "x": 7, "y": 9, "width": 10, "height": 20}, [7, 9, 10, 20], False),
    ({"name": "rect", "x": "7", "y": "9", "width": "10", "height": "20"}, [7, 9, 10, 20], False),
    ({"name": "polygon", "all_points_x": [7, 17, 8], "all_points_y": [9, 12, 29]}, [7, 9, 10, 20], True),
    ({"name": "polyline", "all_points_x": [7, 17, 8, 7], "all_points_y": [9, 12, 29, 10]}, [7, 9, 10, 20], True),
    ({"name": "circle", "cx": 20, "cy": 20, "r": 5}, [15, 15, 10, 10], True),
    ({"name": "ellipse", "cx": 20, "cy": 20, "rx": 10, "ry": 5}, [10, 15, 20, 10], True),
    ({"name": "ellipse", "cx": 20, "cy": 20, "rx": 10, "ry": 5, "theta": math.pi / 2}, [15, 10, 10, 20], True)])
def test_the_box_of_each_of_vias_shapes(shape, box, outline, tmp_path):
    a = read(via(tmp_path, {"shape_attributes": shape, **LABEL}))
    assert a.boxes_xywh[0].tolist() == pytest.approx(box)
    assert [(p.kind, p.severity) for p in a.problems] == [("outline of an object", "note")] * outline


def test_create_mls_x_and_y_are_the_centre(tmp_path):
    assert read(createml(tmp_path)).boxes_xywh.tolist() == [[4, 2, 4, 8]]


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133, 180, 271])
def test_the_box_around_what_is_turned_touches_its_points(degrees):
    a = math.radians(degrees)
    at = [2 * math.pi * k / 100_000 for k in range(100_000)]
    xs = [5 + 4 * math.cos(t) * math.cos(a) - 2 * math.sin(t) * math.sin(a) for t in at]
    ys = [7 + 4 * math.cos(t) * math.sin(a) + 2 * math.sin(t) * math.cos(a) for t in at]
    assert ellipse(5, 7, 4, 2, a) == pytest.approx([min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], abs=1e-7)
    corners = [(dx * math.cos(a) - dy * math.sin(a), dx * math.sin(a) + dy * math.cos(a))
               for dx in (-4, 4) for dy in (-2, 2)]
    xs, ys = zip(*((5 + x, 7 + y) for x, y in corners))
    assert turned([1, 5, 8, 4], a) == pytest.approx([min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)])


def test_a_line_is_an_outline_up_to_a_gap_of_a_sixth_of_its_diagonal():
    for gap, closed in ((4.9, True), (5.1, False)):  # a box of 18×24 has a diagonal of 30
        assert is_closed([0, 18, 18, 0], [0, 0, 24, gap]) == closed
    assert not is_closed([0, 18], [0, 0]) and not is_closed([], [])


# -- what has no box, and what is malformed ------------------------------------------------------------------------


@pytest.mark.parametrize("make, shape, where", [
    (cvat, '<points label="eye" points="3,4"/>', "annotations.xml, image 1 (a.png), shape 1: got points"),
    (cvat, '<polyline label="eye" points="3,4;5,6"/>', "annotations.xml, image 1 (a.png), shape 1: got polyline"),
    (cvat, '<polyline label="eye" points="3,4;30,5;8,30"/>', "annotations.xml, image 1 (a.png), shape 1: got polyline"),
    (cvat, '<skeleton label="eye"><points label="1" points="3,4"/></skeleton>', "(a.png), shape 1: got skeleton"),
    (via, {"shape_attributes": {"name": "point", "cx": 3, "cy": 4}, **LABEL},
     "via.json, image 1 (a.png), region 1: got a point"),
    (via, {"shape_attributes": {"name": "polyline", "all_points_x": [3, 9, 9], "all_points_y": [4, 4, 20]}, **LABEL},
     "via.json, image 1 (a.png), region 1: got a polyline")])
def test_what_has_no_box_is_left_out_and_its_picture_is_kept(make, shape, where, tmp_path):
    a = read(make(tmp_path, shape))
    assert len(a.boxes_xywh) == 0 and list(a.file_names) == ["train/a.png"]
    told = [p for p in a.problems if p.kind == "shape without a box"]
    assert len(told) == 1 and where in str(told[0]) and told[0].severity == "coped"


@pytest.mark.parametrize("make, shape, words", [
    (cvat, '<box label="" xtl="7" ytl="9" xbr="17" ybr="29"/>', "got the label '' and box"),
    (cvat, '<box label="ant" xtl="7" ytl="x" xbr="17" ybr="29"/>', "wanted a label and a box (xtl ytl xbr ybr)"),
    (cvat, '<box label="ant" xtl="7" ytl="9" xbr="17"/>', "wanted a label and a box"),
    (cvat, '<box label="ant" xtl="7" ytl="9" xbr="17" ybr="29" rotation="left"/>', "wanted a label and a box"),
    (cvat, '<box label="ant" xtl="7" ytl="nan" xbr="17" ybr="29"/>', "wanted a label and a box"),
    (cvat, '<polygon label="ant" points="7,9;17,12"/>', "wanted a label and a box"),
    (cvat, '<polygon label="ant" points="7,9;17;8,29"/>', "wanted a label and a box"),
    (cvat, '<polygon label="ant"/>', "wanted a label and a box"),
    (cvat, '<cuboid label="ant"/>', "wanted a label and a box"),
    (via, {"shape_attributes": {"name": "rect", "x": 1}, **LABEL}, "wanted shape_attributes such as"),
    (via, {"shape_attributes": {"name": "star"}, **LABEL}, "wanted shape_attributes such as"),
    (via, {"shape_attributes": {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}, **LABEL},
     "wanted shape"),
    (via, {"shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, **LABEL},
     "wanted shape"),
    (via, {"shape_attributes": {"name": "ellipse", "cx": 1, "cy": 1, "rx": 1, "ry": 1, "theta": "x"}, **LABEL},
     "wanted shape"),
    (via, {"shape_attributes": None, **LABEL},
     "wanted shape"), (via, 7, "wanted shape"), (via, None, "wanted shape"),
    (via, {**BARE, "region_attributes": {"class": ""}}, "it has no attribute 'class', wanted"),
    (via, {**BARE, "region_attributes": {"class": {"ant": True, "bee": True}}},
     "attribute 'class' is {'ant': True, 'bee': True}, wanted the name of one class"),
    (via, {**BARE}, "it has no attribute 'class', wanted the name of one"),
    (via, {"shape_attributes": {}, **LABEL}, "wanted shape_attributes such as"),
    (createml, {"label": "ant", "coordinates": {"x": 6, "y": 6, "width": 4}}, "x and y of the centre in pixels"),
    (createml, {"label": "ant", "coordinates": [1, 2, 3, 4]}, "x and y of the centre"),
    (createml, {"label": "", "coordinates": ONE["coordinates"]}, "x and y of the centre"),
    (createml, {"coordinates": ONE["coordinates"]}, "x and y of the centre"),
    (createml, "ant", "x and y of the centre")])
def test_what_is_malformed_is_refused_with_its_place(make, shape, words, tmp_path):
    bee = {**BARE, "region_attributes": {"class": "bee"}}
    sound = {cvat: ['<box label="ant" xtl="7" ytl="9" xbr="17" ybr="29"/>'], via: [RECT, bee], createml: []}
    root = make(tmp_path, *sound[make], shape)
    (problem,) = [p for p in read(root).problems if p.severity == "refused"]
    assert problem.kind == "malformed entry" and "image 1 (a.png), " in str(problem) and words in str(problem)


def test_a_picture_without_a_name_is_refused_and_the_others_are_read(tmp_path):
    for name, root, content in (
            ("annotations.xml", cvat(tmp_path / "c", '<box label="ant" xtl="7" ytl="9" xbr="17" ybr="29"/>'),
             lambda text: text.replace("</annotations>", '<image name=" "/></annotations>')),
            ("via.json", via(tmp_path / "v", RECT),
             lambda text: json.dumps({**json.loads(text), "x": {"filename": 7, "regions": []}})),
            ("set.json", createml(tmp_path / "m"),
             lambda text: json.dumps([*json.loads(text), {"annotations": []}, 7,
                                                   {"image": "a.png"}]))):
        file = root / "train" / name
        file.write_text(content(file.read_text()))
        found = read(root)
        assert len(found.boxes_xywh) == 1
        told = [str(p) for p in found.problems if p.severity == "refused"]
        assert told and all(f"{name}, image {k}: " in text for k, text in enumerate(told, start=2)), told


# -- which attribute is the class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes, name", [
    ({}, "object"), ({"class": ""}, "object"), ({"insect": "ant"}, "ant"),
    ({"insect": {"ant": True, "bee": False}}, "ant"),
    ({"colour": "red", "Category": "ant"}, "ant"), ({"name": "Ann", "class": "ant"}, "ant"), ({"id": 7}, "7")])
def test_the_class_of_vias_regions(attributes, name, tmp_path):
    a = read(via(tmp_path, {**BARE, "region_attributes": attributes}))
    assert a.classes.names == (name,) and not [p for p in a.problems if p.severity == "refused"]


@pytest.mark.parametrize("every, some, name", [
    ({"insect": "ant"}, {"name": "Ann"}, "ant"), ({"colour": "red"}, {"class": "ant"}, None),
    ({"colour": "red", "name": "ant"}, {"legs": "6"}, "ant")])
def test_what_all_regions_have_comes_before_what_is_only_perhaps_the_class(every, some, name, tmp_path):
    regions = [{**BARE, "region_attributes": its} for its in (every, {**every, **some})]
    a = read(via(tmp_path, *regions))
    assert a.classes.names == ((name,) if name else ("ant",))
    told = [p for p in a.problems if p.kind == "object without a class"]
    assert len(told) == (name is None) and not [p for p in a.problems if p.severity == "refused"]


def test_the_class_is_one_attribute_over_all_files(tmp_path):
    root = via(tmp_path, {**RECT, "region_attributes": {"insect": "ant"}})
    others = [{**RECT, "region_attributes": {"insect": "ant", "colour": "red"}}, {**RECT, "region_attributes": {}}]
    write(root / "val" / "via.json", {"b": {"filename": "b.png", "regions": others}})
    folder, source = find_splits(DataConfig(data=str(root)))["val"]
    a = read_annotations(source, folder=folder)
    assert a.classes.names == ("ant",) and len(a.boxes_xywh) == 2
    told = [str(p) for p in a.problems if p.kind == "object without a class"]
    assert told == ["object without a class: VIA val, val/via.json, image 1 (b.png), region 2: taken as 'ant'"]


def test_two_files_may_call_the_class_differently(tmp_path):
    root = via(tmp_path, {**BARE, "region_attributes": {"insect": "ant"}})
    bee = {**BARE, "region_attributes": {"animal": "bee"}}
    write(root / "val" / "via.json", {"b": {"filename": "b.png", "regions": [bee]}})
    a = read(root)
    assert a.classes.names == ("ant", "bee") and not [p for p in a.problems if p.severity == "refused"]


def test_a_region_without_a_class_is_refused_where_there_are_two(tmp_path):
    regions = [{**BARE, "region_attributes": its} for its in ({"insect": "ant"}, {"insect": "bee"}, {})]
    a = read(via(tmp_path, *regions))
    (problem,) = [p for p in a.problems if p.severity == "refused"]
    assert "region 3: it has no attribute 'insect', wanted" in str(problem) and len(a.boxes_xywh) == 2


def test_attributes_none_of_which_is_known_as_the_class_are_refused_with_their_names(tmp_path):
    region = {**BARE, "region_attributes": {"insect": "ant", "colour": "red"}}
    told = [str(p) for p in read(via(tmp_path, region)).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and told[0].endswith("have the attributes 'insect', 'colour': rename the one that holds the "
                                               "class to class")


def test_of_attributes_that_always_say_the_same_any_is_the_class(tmp_path):
    regions = [{**BARE, "region_attributes": {"insecto": name, "insect": name}}
               for name in ("ant", "bee")]
    assert read(via(tmp_path, *regions)).classes.names == ("ant", "bee")


def test_what_a_project_and_its_export_say_is_read_once_and_what_one_alone_says_is_kept(tmp_path):
    older = {"shape_attributes": {"name": "rect", "x": 9, "y": 9, "width": 5, "height": 6}, **LABEL}
    root = via(tmp_path, RECT, older)
    newer = {**RECT, "region_attributes": {"class": "bee"}}
    write(root / "train" / "project.json", {"_via_img_metadata": {"a": {"filename": "a.png", "regions": [RECT,
                                                                                                          newer]}}})
    a = read(root)
    assert sorted(a.classes.names[label] for label in a.labels) == ["ant", "ant", "bee"]
    told = [str(p) for p in a.problems]
    assert told == [
        "entry given twice: VIA train, train/via.json, image 1 (a.png), region 1: as in 'train/project.json'",
        "annotated in two files: VIA train, train/a.png: 'train/project.json', and others in 'train/via.json'"]


# -- which file it is ----------------------------------------------------------------------------------------------


def test_each_is_known_from_the_others_and_from_what_is_none_of_them(tmp_path):
    files = {"cvat.xml": CVAT.format(""), "via.json": {"a.png9": {"filename": "a.png", "regions": []}},
             "project.json": {"_via_img_metadata": {"a": {"filename": "a.png", "regions": []}}, "_via_settings": {}},
             "via.csv": f"{HEADER}\n",
             "createml.json": [{"image": "a.png", "annotations": [ONE]}],
             "older.json": [{"imagefilename": "a.png", "annotation": [ONE]}],
             "voc.xml": "<annotation><version>1</version></annotation>", "labels.csv": "filename,class,xmin\n",
             "studio.json": [{"image": "a.png", "annotations": [{"result": []}]}],
             "list.json": [1, "annotations", "image"],
             "regions.json": {"regions": {"filename": 1}}, "broken.json": '[{"image": "annotations"',
             "coco.json": {"images": [], "annotations": [], "categories": []}}
    for name, content in files.items():
        write(tmp_path / name, content)
    tests = (layout_cvat.is_cvat, layout_via.is_via, layout_createml.is_createml)
    known = {name: [is_it(tmp_path / name) for is_it in tests] for name in files}
    of = {"cvat.xml": 0, "via.json": 1, "project.json": 1, "via.csv": 1, "createml.json": 2, "older.json": 2}
    assert known == {name: [of.get(name) == k for k in range(3)] for name in files}
    assert not layout_cvat.is_cvat(tmp_path / "none.xml") and not layout_via.is_via(tmp_path / "none.json")


def test_cvat_for_video_is_refused_with_what_to_do(tmp_path):
    content = '<annotations><version>1.1</version><track id="0" label="ant"/></annotations>'
    root = small(tmp_path, "annotations.xml", content)
    assert find_layout(DataConfig(data=str(root))).name == "CVAT"
    told = [str(p) for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and "export the task as COCO 1.0, or as CVAT for images" in told[0]


def test_a_cvat_file_that_is_cut_off_is_called_cvats(tmp_path):
    root = cvat(tmp_path, '<box label="ant" xtl="7" ytl="9" xbr="17" ybr="29"/>')
    file = root / "train" / "annotations.xml"
    file.write_text(file.read_text()[:-20])
    told = [str(p) for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and "CVAT train, train/annotations.xml: it is not well-formed XML (" in told[0]


def test_pictures_of_one_name_in_two_subsets_are_told_apart(tmp_path):
    pictures = {"train": draw(4), "val": [replace(p, name=q.name) for p, q in zip(draw(4, 1), draw(4), strict=True)]}
    root = cvat_xml(tmp_path, pictures)
    for split, folder in (("train", "Train"), ("val", "Validation")):
        below, source = find_splits(DataConfig(data=str(root)))[split]
        a = read_annotations(source, folder=below)
        assert sorted(a.file_names) == sorted(f"images/{folder}/{p.name}" for p in pictures[split]) and not [
            p for p in a.problems if p.severity == "refused"]
        assert len(a.boxes_xywh) == sum(len(p.objects) for p in pictures[split])


def test_many_files_of_one_split_are_all_read_and_many_others_do_not_hide_them(tmp_path):
    for k in range(40):
        draw(1)[0].save(tmp_path / "pictures", f"{k}.png")
        content = CVAT.format('<box label="ant" xtl="7" ytl="9" xbr="17" ybr="29"/>').replace("a.png", f"{k}.png")
        write(tmp_path / "tasks" / f"{k}.xml", content)
        write(tmp_path / f"a{k}.json", {"other": 1})
    layout = find_layout(DataConfig(data=str(tmp_path)))
    found = [read_annotations(source, folder=folder) for folder, source in layout.splits.values()]
    assert sum(len(a.boxes_xywh) for a in found) == 40
    shutil.rmtree(tmp_path / "tasks")
    write(tmp_path / "via.json", {"x": {"filename": "1.png", "regions": [RECT]}})
    assert find_layout(DataConfig(data=str(tmp_path))).name == "VIA"


def test_json_of_one_split_and_csv_of_another_are_both_read(tmp_path):
    root = via(tmp_path, RECT)
    (root / "val" / "via.json").unlink()
    shape, attributes = (json.dumps(its).replace('"', '""') for its in RECT.values())
    row = f'"{{}}",1,0,"{shape}","{attributes}"'
    write(root / "val" / "via.csv", f'{HEADER}\nb.png,9,{row}\nb.png,9,"{{}}",2\nb.png,9,"{{}}",2,1,"{{}}","{{}}"\n')
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "VIA" and list(layout.splits) == ["train", "val"]
    folder, source = layout.splits["val"]
    a = read_annotations(source, folder=folder)
    assert a.boxes_xywh.tolist() == [[1, 2, 5, 6]]
    assert [("region 2" in str(p), "region 3" in str(p)) for p in a.problems if p.severity == "refused"] == [
        (True, False), (False, True)]  # a row that is cut short, and one without the region that is counted


def test_a_csv_of_another_encoding_is_refused_by_its_name(tmp_path):
    root = via(tmp_path, RECT)
    (root / "train" / "via.json").unlink()
    (root / "train" / "via.csv").write_bytes(f"{HEADER}\ncafé.jpg,9,{{}},0,0,{{}},{{}}\n".encode("latin-1"))
    told = [str(p) for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and "train/via.csv: it cannot be read" in told[0] and "save it as CSV UTF-8" in told[0]


def test_an_entry_without_regions_is_refused_and_the_file_is_still_vias(tmp_path):
    root = via(tmp_path, RECT)
    file = root / "train" / "via.json"
    write(file, {**json.loads(file.read_text()), "x": {"filename": "x.png"}})
    assert find_layout(DataConfig(data=str(root))).name == "VIA"
    told = [str(p) for p in read(root).problems if p.kind == "malformed entry"]
    assert len(told) == 1 and "image 2: got {'filename': 'x.png'}, wanted" in told[0]


@pytest.mark.parametrize("make", [cvat, via, createml])
def test_a_table_beside_these_files_counts(make, tmp_path):
    root = make(tmp_path)
    for split, name in (("train", "a"), ("val", "b")):
        write(root / f"{split}_labels.csv", f"filename,class,xmin,ymin,xmax,ymax\n{split}/{name}.png,ant,1,2,6,8\n")
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "table" and read(root).boxes_xywh.tolist() == [[1, 2, 5, 6]]


def test_these_files_beside_a_set_of_another_layout_change_nothing(tmp_path):
    root = createml(tmp_path)
    for split, name in (("train", "a"), ("val", "b")):
        write(root / split / f"{name}.txt", "0 0.5 0.5 0.25 0.5\n")
    assert find_layout(DataConfig(data=str(root))).name == "YOLO"
