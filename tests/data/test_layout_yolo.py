"""YOLO's text files: what each line means, where the files are, and what is said of those that mean nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data import per_picture
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import find_layout, find_splits
from tests.layouts import CLASSES, draw, write, yolo, yolo_label_studio, yolo_roboflow


def small(root: Path, **texts: str) -> Path:
    """One picture of 80×40 for each text; train and val are the same folder's halves by their first letter."""
    for name, text in texts.items():
        split = "val" if name.startswith("v") else "train"
        draw(1)[0].save(root / "images" / split, f"{name}.png")
        write(root / "labels" / split / f"{name}.txt", text)
    return root


def read(root: Path, split: str = "train", limit=None):
    folder, source = find_splits(DataConfig(data=str(root)))[split]
    return read_annotations(source, folder=folder, limit=limit)


@pytest.mark.parametrize("line, box", [
    ("0 0.5 0.5 0.5 0.25", [20, 15, 40, 10]),
    ("0.0 5e-1 .5 0.50 0.25", [20, 15, 40, 10]),
    ("0\t0.5\t0.5\t0.5\t0.25  ", [20, 15, 40, 10]),
    ("0 0.25 0.5 0.5 0.25 0.75 0.5", [20, 10, 40, 10]),                    # a triangle
    ("0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75", [20, 10, 40, 20]),           # four corners, as of oriented boxes
])
def test_a_line_is_a_box_or_a_polygon(line, box, tmp_path):
    a = read(small(tmp_path, a=line, v=line))
    np.testing.assert_allclose(a.boxes_xywh, [box], atol=1e-9)
    assert a.sizes.tolist() == [[80, 40]]
    polygon = len(line.split()) > 5
    assert [(p.kind, p.severity) for p in a.problems] == [("outline of an object", "note")] * polygon


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.5", "0 0.5 0.5 0.5 0.25 0.9", "0 0.5 0.5 0.5 x", "cat 0.5 0.5 0.5 0.25",
                                  "0 nan 0.5 0.5 0.5", "0,0.5,0.5,0.5,0.25", "0 0.5 0.5 0.5 0.25 0.75"])
def test_a_line_that_is_neither_is_refused_with_its_place(line, tmp_path):
    problems = read(small(tmp_path, a=f"0 0.5 0.5 0.5 0.25\n\n{line}", v=line)).problems
    assert [problem.kind for problem in problems] == ["malformed entry"]
    assert "YOLO train, labels/train/a.txt, line 3" in str(problems[0]) and "wanted a class, then" in str(problems[0])


def test_oriented_boxes_of_dota_are_named_and_their_pixels_are_no_classes(tmp_path):
    root = small(tmp_path, a="2753 2408 2861 2385 2888 2468 2805 2502 plane 0", v="0 0.5 0.5 0.5 0.25")
    found = read(root)
    (problem,) = [p for p in found.problems if p.severity == "refused"]
    assert "are these DOTA's oriented boxes?" in str(problem) and len(found.classes) < 10


def test_pixels_are_told_from_shares(tmp_path):
    (problem,) = [p for p in read(small(tmp_path, a="0 40 20 40 10", v="")).problems if p.severity == "refused"]
    assert "are these pixels?" in str(problem)


def test_a_class_that_has_no_name_is_refused_once_with_its_first_line(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25\n7 0.5 0.5 0.5 0.25", b="7 0.5 0.5 0.5 0.25", v="")
    write(root / "classes.txt", "ant\nbee\n")
    (problem,) = [p for p in read(root).problems if p.severity == "refused"]
    assert problem.kind == "unknown category id" and problem.times == 2
    assert ("labels/train/a.txt, line 2: class 7 is not among the 2 names of classes (0 ant to 1 bee), in 2 lines: is the list of "
            "names another set's, or too short?") in str(problem)


def test_a_missing_and_an_empty_text_file_are_pictures_without_objects(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", b="", v="0 0.5 0.5 0.5 0.25")
    draw(1)[0].save(root / "images/train", "c.png")
    a = read(root)
    assert a.file_names.tolist() == [f"images/train/{name}.png" for name in "abc"]
    assert np.diff(a.offsets).tolist() == [1, 0, 0]


def test_a_text_file_without_a_picture_is_counted_in_its_split_alone(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    write(root / "labels/train/gone.txt", "0 0.5 0.5 0.5 0.25")
    (problem,) = [p for p in read(root).problems if p.kind == "label file without a picture"]
    assert "labels/train/gone.txt" in problem.where
    assert not [p for p in read(root, "val").problems if p.kind == "label file without a picture"]


def test_shares_are_of_the_upright_picture(tmp_path):
    root = small(tmp_path, v="0 0.5 0.5 0.5 0.25")
    (root / "images/train").mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.fromarray(draw(1)[0].pixels).save(root / "images/train/a.jpg", exif=exif)
    write(root / "labels/train/a.txt", "0 0.5 0.5 0.5 0.25")
    a = read(root)
    assert a.sizes.tolist() == [[40, 80]] and a.boxes_xywh.tolist() == [[10, 30, 20, 20]]


def test_keypoints_after_the_box_are_no_polygon(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25 0.1 0.1 2 0.9 0.9 2", v="0 0.5 0.5 0.5 0.25 0.1 0.1 2 0.9 0.9 2")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [person]\nkpt_shape: [2, 3]\n")
    assert read(root).boxes_xywh.tolist() == [[20, 15, 40, 10]]


def test_only_the_pictures_that_are_used_are_opened(tmp_path, monkeypatch):
    root = yolo(tmp_path, {"train": draw(9), "val": draw(4, 1)})
    opened = []
    monkeypatch.setattr(per_picture, "image_size", lambda path: opened.append(path.name) or (80, 40))
    assert len(read(root, limit=2)) == 2 and len(opened) == 2


def test_a_picture_that_cannot_be_read_is_refused_as_such_or_left_out(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", b="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    (root / "images/train/b.png").write_bytes(b"nothing")
    report = check_dataset(DataConfig(data=str(root)), 100, decode=False)
    assert [p.kind for p in report.problems if p.severity == "refused"] == ["unreadable image"]
    report = check_dataset(DataConfig(data=str(root), leave_out_broken=True), 100, decode=False)
    report.refuse()
    assert report.left_out["train"] == (2,)


# -- data.yaml -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaml, names", [
    ("names: [ant, bee]", ("ant", "bee")), ("names:\n  0: ant\n  1: bee\n  5: cat", ("ant", "bee", "cat")),
    ("names: {'0': ant, '1': 7}", ("ant", "7")), ("nc: 3", ("0", "1", "2")), ("", ("0", "1")),
    ("names: null", ("0", "1")), ("names:", ("0", "1")),
])
def test_the_classes_are_those_of_the_yaml_file(yaml, names, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25\n1 0.5 0.5 0.5 0.25", v="")
    write(root / "data.yaml", f"train: images/train\nval: images/val\n{yaml}\n")
    assert read(root).classes.names == names


@pytest.mark.parametrize("yaml, told", [("", "2 classes: 0, 1"), ("nc: 4", "4 classes: 0, 1, 2 …"),
                                        ("names: [ant, bee]", ""), ("names: [ant, '1']", "")])
def test_classes_that_are_called_by_their_numbers_are_told_once(yaml, told, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25\n1 0.5 0.5 0.5 0.25", v="1 0.5 0.5 0.5 0.25")
    write(root / "data.yaml", f"train: images/train\nval: images/val\n{yaml}\n")
    report = check_dataset(DataConfig(data=str(root)), 100, decode=False)
    assert [p.line() for p in report.problems if p.kind == "classes without names"] == [told] * bool(told)


@pytest.mark.parametrize("train, val", [
    ("images/train", "images/val"), ("./images/train/", "./images/val/"), ("../images/train", "../images/val"),
    ("/content/insects/images/train", "/content/insects/images/val"), ("C:\\set\\images\\train", "images\\val"),
    ("[images/train, images/nowhere]", "[images/val]"), ("train.txt", "val.txt")])
@pytest.mark.parametrize("path", ["", "path: .", "path: ../datasets/insects", "path: /home/ann/insects"])
def test_paths_of_another_machine_lead_to_what_is_there(train, val, path, tmp_path):
    root = small(tmp_path / "set", a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    write(root / "data.yaml", f"{path}\ntrain: {train}\nvalid: {val}\nnames: [ant]\n")
    write(root / "train.txt", "./images/train/a.png\n")
    write(root / "val.txt", "/home/ann/set/images/val/v.png\n")
    assert read(root).file_names.tolist() == ["images/train/a.png"]
    assert read(root, "val").file_names.tolist() == ["images/val/v.png"]


def test_a_split_whose_path_in_the_yaml_is_wrong_is_found_by_its_folder(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    write(root / "data.yaml", "train: images/train\nval: images/eval\nnames: [ant]\n")
    assert read(root, "val").file_names.tolist() == ["images/val/v.png"]


def test_pictures_without_any_text_file_in_their_folder_are_no_split(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    draw(1)[0].save(root / "images/test", "t.png")
    assert list(find_splits(DataConfig(data=str(root)))) == ["train", "val"]


def test_a_list_that_names_a_picture_that_is_not_there_is_refused(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    write(root / "data.yaml", "train: train.txt\nval: images/val\nnames: [ant]\n")
    write(root / "train.txt", "images/train/a.png\nimages/train/gone.png\n")
    report = check_dataset(DataConfig(data=str(root)), 100, decode=False)
    assert [p.kind for p in report.problems if p.severity == "refused"] == ["missing image"]


def test_a_yaml_file_that_is_none_is_refused_and_one_that_builds_objects_too(tmp_path):
    root = yolo_roboflow(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    for content in ("names: [a, b\ntrain: x", "names: !!python/object/apply:os.system ['true']", "[" * 5000):
        write(root / "data.yaml", content)
        with pytest.raises(ValueError, match="data.yaml cannot be read as YAML"):
            find_layout(DataConfig(data=str(root)))


def test_names_that_are_none_are_refused(tmp_path):
    root = yolo_roboflow(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    write(root / "data.yaml", "train: train/images\nval: valid/images\nnames: 7\n")
    with pytest.raises(ValueError, match="has the names '7', wanted a list"):
        find_layout(DataConfig(data=str(root)))


def test_names_in_another_unicode_form_and_other_capitals_belong_together(tmp_path):
    root = small(tmp_path, v="0 0.5 0.5 0.5 0.25")
    draw(1)[0].save(root / "images/train", "Cafe\u0301.PNG")
    write(root / "labels/train/café.txt", "0 0.5 0.5 0.5 0.25")
    assert np.diff(read(root).offsets).tolist() == [1]


def test_text_files_beside_their_pictures_are_found(tmp_path):
    root = yolo_label_studio(tmp_path, {"all": draw(6)})
    for file in (root / "labels").iterdir():
        file.rename(root / "images" / file.name)
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "YOLO" and "images/, images/*.txt" in layout.line()
    assert sum(len(read(root, split).labels) for split in ("train", "val")) == sum(len(p.objects) for p in draw(6))
    assert read(root).classes.names == CLASSES


@pytest.mark.parametrize("names", ["[no, on, 007]", "{0: no, 1: on, 2: 007}"])
def test_names_are_taken_as_they_are_written(names, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="")
    write(root / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n")
    assert read(root).classes.names == ("no", "on", "007")


@pytest.mark.parametrize("content", [
    "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", "a: &a {x: 1}\nb: {<<: [*a, *a]}\nnames: [ant]",
    "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "a: !!float ''", "? [a]\n: b"])
def test_yaml_that_does_harm_or_fits_no_tag_is_refused(content, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="")
    write(root / "data.yaml", f"{content}\ntrain: images/train\nval: images/val\n")
    with pytest.raises(ValueError, match="data.yaml cannot be read as YAML"):
        find_layout(DataConfig(data=str(root)))


@pytest.mark.parametrize("names", ["[[ant], bee]", "{0: [ant]}", "{ant: 0}", "classes.txt"])
def test_a_name_that_is_no_text_is_refused(names, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="")
    write(root / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n")
    with pytest.raises(ValueError, match="wanted a list of the classes' names"):
        find_layout(DataConfig(data=str(root)))


def test_a_number_of_classes_that_is_none_leaves_one(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnc: -5\n")
    assert read(root).classes.names == ("0",)


def test_a_yaml_file_in_a_folder_beside_counts_if_it_is_about_the_set(tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="")
    write(root / "runs/args.yaml", "val: true\nlr: 0.1\n")
    assert find_layout(DataConfig(data=str(root))).name == "YOLO"
    write(root / "configs/data.yaml", "path: ..\ntrain: images/train\nval: images/val\nnames: [ant]\n")
    assert "configs/data.yaml" in find_layout(DataConfig(data=str(root))).line()
    assert read(root).classes.names == ("ant",)


def test_what_windows_writes_is_read(tmp_path):
    root = small(tmp_path, v="")
    draw(1)[0].save(root / "images/train", "a.png")
    for name, text in (("labels/train/a.txt", "0 0.5 0.5 0.5 0.25\r\n"), ("classes.txt", "käfer\r\n")):
        for encoding in ("utf-8-sig", "utf-16"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode(encoding))
            assert len(read(root).labels) == 1 or name == "classes.txt"
    a = read(root)
    assert len(a.labels) == 1 and a.classes.names == ("käfer",) and not a.problems


# -- what people's folders look like -------------------------------------------------------------------------------


def kinds(root: Path) -> list[str]:
    return [problem.kind for problem in check_dataset(DataConfig(data=str(root)), 100, decode=False).problems
            if problem.severity != "note"]


def in_folders(root: Path, **lists: str) -> Path:
    """LabelImg in several folders: a picture, its text file and a list of classes in each."""
    for k, (folder, names) in enumerate(lists.items()):
        draw(1, k)[0].save(root / folder, f"{folder}.png")
        write(root / folder / f"{folder}.txt", "0 0.5 0.5 0.5 0.25")
        write(root / folder / "classes.txt", names)
    return root


def test_lists_of_classes_in_another_order_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"val.classes.txt has the classes \['dog', 'cat'\], and train/classes.txt "
                                         r"\['cat', 'dog'\]: wanted one order"):
        find_layout(DataConfig(data=str(in_folders(tmp_path, train="cat\ndog", val="dog\ncat"))))


def test_of_lists_that_grew_the_longest_counts(tmp_path):
    root = in_folders(tmp_path, train="cat", val="cat\ndog\n\n")
    assert read(root).classes.names == ("cat", "dog") and not kinds(root)


def test_two_splits_that_were_put_into_one_folder_are_divided(tmp_path):
    root = yolo_roboflow(tmp_path / "set", {"train": draw(6), "val": draw(4, 1)})
    for folder in ("train", "valid"):
        for path in (root / folder).rglob("*.*"):
            path.rename(_made(root / path.parent.name) / path.name)
        shutil.rmtree(root / folder)
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.division is not None and "no split to judge by" in layout.line()


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_one_folder_that_is_named_for_both_is_told_how_to_divide(tmp_path):
    for p in draw(6):
        p.save(tmp_path / "images", f"{Path(p.name).stem}.png")
    write(tmp_path / "labels" / "7.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    report = check_dataset(DataConfig(data=str(tmp_path)), 100, decode=False)
    assert "they are the very same files: name other pictures for it, or none, to have them divided" in report.table(9)


@pytest.mark.parametrize("yaml", ["yolov5/data/coco128.yaml", "images/data.yaml"])
def test_a_yaml_file_in_a_folder_with_pictures_does_not_hide_the_set(yaml, tmp_path):
    root = small(tmp_path, a="0 0.5 0.5 0.5 0.25", v="0 0.5 0.5 0.5 0.25")
    if yaml.startswith("yolov5"):
        draw(1)[0].save(root / "yolov5/data/images", "bus.jpg")
    write(root / yaml, "names: [person]\ntrain: images/train\nval: images/val\n")
    a = read(root)
    assert a.file_names.tolist() == ["images/train/a.png"] and a.classes.names == (
        ("0",) if yaml.startswith("yolov5") else ("person",))


def test_text_files_of_another_splits_pictures_are_not_lonely(tmp_path):
    for k in range(4):
        draw(1, k)[0].save(tmp_path / "data", f"{k}.png")
        write(tmp_path / "data" / f"{k}.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "train.txt", "data/0.png\ndata/1.png\n")
    write(tmp_path / "val.txt", "data/2.png\n")
    assert not kinds(tmp_path)
    write(tmp_path / "data" / "9.txt", "0 0.5 0.5 0.5 0.25")
    assert "label file without a picture" in kinds(tmp_path)


def test_a_split_of_data_yaml_that_is_not_there_is_told(tmp_path):
    draw(1)[0].save(tmp_path / "images" / "train", "a.png")
    write(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "data.yaml", "train: images/train\nval: images/valid\nnames: [cat]\n")
    line = find_layout(DataConfig(data=str(tmp_path))).line()
    assert "YOLO (data.yaml; its val, images/valid, is not there)" in line and "no split to judge by" in line


def test_a_folder_that_data_yaml_calls_val_is_not_test_as_well(tmp_path):
    for split in ("train", "test"):
        draw(1)[0].save(tmp_path / split / "images", f"{split}.png")
        write(tmp_path / split / "labels" / f"{split}.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "data.yaml", "train: ../train/images\nval: ../test/images\nnames: [cat]\n")
    assert list(find_splits(DataConfig(data=str(tmp_path)))) == ["train", "val"]


def test_a_test_split_stays_where_the_others_were_put_together(tmp_path):
    for folder in ("images", "test/images"):
        for p in draw(6, len(folder)):
            p.save(tmp_path / folder, f"{Path(p.name).stem}.png")
    write(tmp_path / "labels" / "s6 7.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "test" / "labels" / "s11 7.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]\n")
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert list(layout.splits) == ["train", "val", "test"] and layout.division is not None


@pytest.mark.parametrize("val", ["images", "images/", "./images"])
def test_one_folder_is_one_however_it_is_written(val, tmp_path):
    for p in draw(6):
        p.save(tmp_path / "images", f"{Path(p.name).stem}.png")
    write(tmp_path / "labels" / "7.txt", "0 0.5 0.5 0.5 0.25")
    write(tmp_path / "data.yaml", f"train: images\nval: {val}\nnames: [cat]\n")
    assert "YOLO (data.yaml) in" in (line := find_layout(DataConfig(data=str(tmp_path))).line()) and "train, val" in line


def test_a_list_of_classes_beside_no_label_file_refuses_nothing(tmp_path):
    root = in_folders(tmp_path, train="cat", val="cat")
    write(root / "yolov3" / "data" / "classes.txt", "person\nbicycle")
    assert read(root).classes.names == ("cat",)


@pytest.mark.parametrize("train, val", [("../train/images", "../valid/images"), ("train/images/", "valid/images/"),
                                        ("..\\\\train\\\\images", "..\\\\valid\\\\images")])
def test_a_path_that_names_a_split_leads_to_its_folder_and_not_to_another_of_its_last_name(train, val, tmp_path):
    for split in ("train", "valid"):
        draw(1)[0].save(tmp_path / split, f"{split}.png")
        write(tmp_path / split / f"{split}.txt", "0 0.5 0.5 0.5 0.25")
        draw(1)[0].save(tmp_path / "images", f"{split}.png")  # the originals, without boxes
    write(tmp_path / "data.yaml", f"train: {train}\nval: {val}\nnames: [cat]\n")
    assert read(tmp_path).file_names.tolist() == ["train/train.png"]
    assert read(tmp_path, "val").file_names.tolist() == ["valid/valid.png"]


@pytest.mark.parametrize("lies", ["train/train_batch0.png", "train/results.csv"])
def test_a_folder_of_a_splits_name_without_labels_is_not_taken_for_the_split(lies, tmp_path):
    for k in range(6):
        draw(1, k)[0].save(tmp_path / "images", f"{k}.png")
        write(tmp_path / "labels" / f"{k}.txt", "0 0.5 0.5 0.5 0.25")
    (tmp_path / "train").mkdir()
    if lies.endswith(".png"):
        draw(1)[0].save(tmp_path / "train", "train_batch0.png")
    else:
        write(tmp_path / lies, "epoch,loss")
    write(tmp_path / "data.yaml", "train: train/images\nval: val/images\nnames: [cat]\n")
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert layout.division is not None and len(read(tmp_path).file_names) + len(read(tmp_path, "val").file_names) == 6


@pytest.mark.parametrize("train, val", [("trainval.txt", "5k.txt"), ("train/list.txt", "val/list.txt")])
def test_a_list_of_another_name_is_not_taken_for_its_folder(train, val, tmp_path):
    for k in range(6):
        draw(1, k)[0].save(tmp_path / "data" / "all", f"{k}.png")
        write(tmp_path / "data" / "all" / f"{k}.txt", "0 0.5 0.5 0.5 0.25")
    for file, its in ((train, range(4)), (val, range(4, 6))):
        write(tmp_path / "data" / file, "".join(f"data/all/{k}.png\n" for k in its))
    write(tmp_path / "data.yaml", f"train: data/{train}\nval: data/{val}\nnames: [cat]\n")
    assert [len(read(tmp_path, split).file_names) for split in ("train", "val")] == [4, 2]
