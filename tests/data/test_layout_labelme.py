"""LabelMe's JSON files: shapes of every kind, objects in several parts, and files that are something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import find_layout, find_splits
from scratch.data.find_labelme import is_labelme
from scratch.data.layout_labelme import _content
from scratch.data.split import VAL, place
from tests.layouts import draw, labelme_content, write


def shape(points: Any, kind: Any = "rectangle", label: Any = "ant", group: Any = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def small(root: Path, *shapes: Any) -> Path:
    """One picture of 80×40 a split."""
    for name in ("train", "val"):
        picture = draw(1)[0]
        picture.save(root / name, f"{name}.png")
        mine = list(shapes) if name == "train" else [shape([[1, 1], [4, 4]])]
        write(root / name / f"{name}.json", {**labelme_content(picture, f"{name}.png"), "shapes": mine})
    return root


def read(root: Path, split: str = "train"):
    folder, source = find_splits(DataConfig(data=str(root)))[split]
    return read_annotations(source, folder=folder)


@pytest.mark.parametrize("one, box", [
    (shape([[30, 20], [10, 5]]), [10, 5, 20, 15]), (shape([[1, 2], [11, 2], [11, 9], [1, 9]]), [1, 2, 10, 7]),
    (shape([[1, 2], [11, 4], [3, 9.5]], "polygon"), [1, 2, 10, 7.5]),
    (shape([[1, 2], [11, 4], [3, 9]], None), [1, 2, 10, 7]),  # old files have no type
    (shape([[20, 20], [23, 24]], "circle"), [15, 15, 10, 10]),
    (shape([[1, 2], [11, 4], [3, 9.5], [1, 3]], "linestrip"), [1, 2, 10, 7.5]),  # its ends nearly meet
    (shape([["1", "2"], ["11", "9"]], "mask"), [1, 2, 11, 8])])  # its second point is its last pixel
def test_the_box_is_around_the_shape(one, box, tmp_path):
    a = read(small(tmp_path, one))
    assert a.boxes_xywh.tolist() == [box]
    outline = one["shape_type"] != "rectangle"
    assert [(p.kind, p.severity) for p in a.problems] == [("outline of an object", "note")] * outline


def test_shapes_of_one_label_and_group_are_one_object(tmp_path):
    a = read(small(tmp_path, shape([[1, 2], [5, 6]], group=1), shape([[9, 1], [12, 4]], group=1),
                   shape([[30, 30], [35, 35]], group=2), shape([[2, 2], [9, 9]], label="bee", group=1)))
    assert a.boxes_xywh.tolist() == [[1, 1, 11, 5], [30, 30, 5, 5], [2, 2, 7, 7]] and a.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points"])
def test_a_shape_without_a_box_is_left_out_and_reported_and_is_not_a_class(kind, tmp_path):
    a = read(small(tmp_path, shape([[1, 2], [5, 6]]), shape([[3, 3], [4, 4]], kind, "eye")))
    assert len(a.boxes_xywh) == 1 and a.classes.names == ("ant",)
    (problem,) = a.problems
    assert str(problem) == f"shape without a box: LabelMe train, train/train.json, shape 2: got a '{kind}'"


@pytest.mark.parametrize("wrong", [shape([[1, 2]]), shape([[1, 2], [3, "x"]]), shape([1, 2]), shape(None), "ant", 7,
                                   shape([[1, 2], [5, 6]], label=" "), shape([[1, 2], [5, 6]], label=None),
                                   shape([[1, 2], [5, 6]], "polygon"), {},
                                   shape([[1, 2], [None, 5], [9, 9]], "polygon"),
                                   shape([[1, 2], [float("nan"), 5], [9, 9]], "polygon"),
                                   shape([[1, 2], [5, 6]], label=True)])
def test_a_malformed_shape_is_refused_with_its_place(wrong, tmp_path):
    (problem,) = read(small(tmp_path, shape([[1, 2], [5, 6]]), wrong)).problems
    assert problem.kind == "malformed entry" and "train/train.json, shape 2: got the label" in str(problem)
    assert "wanted a label, points" in str(problem)


def test_other_json_files_are_left_out_and_broken_ones_refused(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    write(root / "train" / "settings.json", {"zoom": 2})
    write(root / "train" / "broken.json", '{"shapes": [')
    told = {p.kind: str(p) for p in read(root).problems}
    assert set(told) == {"other JSON file", "malformed entry"}
    assert "train/settings.json" in told["other JSON file"] and "it is not JSON" in told["malformed entry"]


def test_a_broken_file_is_reported_in_the_split_of_its_picture(tmp_path):
    told = {k: [place(f"{k}.{ending}") < VAL for ending in ("png", "json")] for k in range(40)}
    broken = next(k for k in told if told[k] == [True, False])  # as a name it would be in train
    for k in [*range(12), broken]:
        draw(1)[0].save(tmp_path, f"{k}.png")
        write(tmp_path / f"{k}.json", labelme_content(draw(1)[0], f"{k}.png") if k != broken else "{")
    assert {p.severity for p in read(tmp_path).problems} == {"note"}
    assert [f"{broken}.json" in str(p) for p in read(tmp_path, "val").problems if p.severity != "note"] == [True]


def test_the_message_of_a_broken_file_is_shown_as_it_is_and_whole(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    write(root / "train" / "broken.json", '{"shapes": [')
    told = next(str(p) for p in read(root).problems if p.kind == "malformed entry")
    assert told.endswith("train/broken.json: it is not JSON (Expecting value: line 1 column 13 (char 12))")


def test_a_label_that_is_a_number_is_its_text(tmp_path):
    a = read(small(tmp_path, shape([[1, 2], [5, 6]], label=7)))
    assert a.classes.names == ("7", "ant") and a.labels.tolist() == [0]


def test_files_of_no_split_beside_val_are_to_learn_from(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    (root / "train").rename(root / "pictures")
    assert find_layout(DataConfig(data=str(root))).division is None and read(root).file_names[0] == "pictures/train.png"
    assert read(root, "val").file_names[0] == "val/val.png"


def test_a_large_file_without_labelmes_keys_at_its_ends_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr("scratch.data.find_labelme.ENDS", 64)
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    assert find_layout(DataConfig(data=str(root))).name == "LabelMe"
    write(root / "predictions.json", [{"image_id": k, "bbox": [1, 2, 3, 4]} for k in range(20)])
    parsed = []
    monkeypatch.setattr("scratch.data.find_labelme.parse", lambda file: parsed.append(file.name))
    assert not is_labelme(root / "predictions.json") and not parsed
    assert not is_labelme(root / "train" / "train.json") and parsed == ["train.json"]


def test_a_box_is_kept_instead_of_a_polygon_and_of_the_other_splits_only_the_classes(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 2], [5, 6], [1, 6]], "polygon", label="zebra"))
    assert _content(root / "train" / "train.json", "a.json")[3:] == (
        [(1, "zebra", [1, 2, 4, 4])], 1, [])
    write(root / "val" / "broken.json", "{")
    assert read(root).classes.names == read(root, "val").classes.names == ("ant", "zebra")
    assert [p.kind for p in read(root).problems] == ["outline of an object"]
    assert [p.kind for p in read(root, "val").problems] == ["malformed entry"]


def test_pictures_without_a_file_are_reported_by_one_split(tmp_path):
    """Pictures of two splits in one folder; their files in two."""
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    for split in ("train", "val"):
        (root / "images").mkdir(exist_ok=True)
        (root / split / f"{split}.png").rename(root / "images" / f"{split}.png")
    for name in ("bare.jpg", "bare 2.jpg"):
        draw(1)[0].save(root / "images", name)
    (problem,) = read(root).problems + read(root, "val").problems
    assert problem.times == 2 and str(problem).endswith("it has no JSON file; the same is true of 1 other")


def test_the_size_counts_as_it_stands_and_is_read_from_the_picture_where_it_does_not(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    file = root / "train" / "train.json"
    content = labelme_content(draw(1)[0], "train.png")
    write(file, {**content, "imageWidth": None, "imageHeight": None})
    assert read(root).sizes.tolist() == [[80, 40]]
    write(file, {**content, "imageWidth": 800})
    assert "size differs" in {p.kind for p in check_dataset(DataConfig(data=str(root)), 100, decode=True).problems}


def test_a_picture_without_a_file_is_left_out_and_counted(tmp_path):
    root = small(tmp_path, shape([[1, 2], [5, 6]]))
    draw(1)[0].save(root / "train", "bare.jpg")
    (problem,) = read(root).problems
    assert problem.kind == "picture without annotations" and "train/bare.jpg: it has no JSON file" in str(problem)


def test_a_split_that_was_written_down_is_no_annotation(tmp_path):
    for p in draw(6):
        p.save(tmp_path)
        write(tmp_path / f"{p.name.rpartition('.')[0]}.json", labelme_content(p))
    write(tmp_path / "split.json", {"train": [p.name for p in draw(6)[:4]], "val": [p.name for p in draw(6)[4:]]})
    assert find_layout(DataConfig(data=str(tmp_path))).name == "LabelMe"
    assert len(read(tmp_path)) == 4 and len(read(tmp_path, "val")) == 2
    assert {p.kind for p in read(tmp_path).problems} == {"image without boxes", "outline of an object"}
