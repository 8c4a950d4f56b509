"""Boxes by class: the table, and the notes on classes that are hardly learnt, not learnt or not judged."""

from __future__ import annotations

import numpy as np
import pytest

from commands.check_data import CheckDataArguments, check_data
from scratch.config import DataConfig
from scratch.data import class_counts
from scratch.data.check import check_dataset
from scratch.data.class_counts import ClassCounts
from tests.conftest import SHARED


def _counts(names, crowds=0, **boxes):
    return ClassCounts(tuple(names), {split: np.array(its, dtype=np.int64) for split, its in boxes.items()}, crowds)


def _told(counts, evaluated="val"):
    return [(problem.kind, problem.where, problem.detail) for problem in counts.notes(evaluated)]


def test_the_commonest_class_of_the_first_split_is_on_top_and_crowds_do_not_count(coco_set, capsys):
    coco_set.image("train", 1)  # with a cat
    coco_set.image("val", 2)
    for left in range(3):
        coco_set.box("train", 1, [left, 1, 5, 5], category_id=7)
    arguments = CheckDataArguments(coco_set.write(), DataConfig())
    check_data(arguments)
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.partition("boxes by class")[2].splitlines()[:3]] == [
        ["train", "val"], ["dog", "3", "0"], ["cat", "1", "1"]]
    assert "class that is not judged" in printed and "dog: 3 boxes in train, none in val" in printed
    coco_set.box("train", 1, [9, 1, 5, 5], category_id=7, iscrowd=1)
    coco_set.write()
    check_data(arguments)
    printed = capsys.readouterr().out
    assert "boxes by class, without crowds" in printed and "dog                                    3" in printed


@pytest.mark.parametrize("classes", [1, 20, 21])
def test_up_to_21_classes_are_all_shown(classes):
    lines = _counts([f"class {k}" for k in range(classes)], train=range(1, classes + 1)).table().splitlines()
    assert [line.split()[1] for line in lines[1:]] == [str(k) for k in reversed(range(classes))]


@pytest.mark.parametrize("classes", [22, 50])
def test_of_many_classes_the_ends_are_shown(classes):
    lines = _counts([f"class {k}" for k in range(classes)], train=range(classes)).table().splitlines()
    between = lines.pop(11).strip()
    assert between == f"… {classes - 20} class{'es'} between …"
    assert [line.split()[1] for line in lines[1:]] == [
        str(k) for k in (*range(classes - 1, classes - 11, -1), *range(9, -1, -1))]


def test_a_set_without_a_box_has_no_table():
    assert _counts([], train=[]).table() == "" and _counts(["cat"], train=[0], val=[0]).table() == ""
    assert ClassCounts().table() == "" and ClassCounts().notes("val") == []


@pytest.mark.parametrize("rare, commonest, told", [
    (9, 90, True), (10, 1000, False), (9, 89, False), (1, 10, True), (1, 9, False)])
def test_a_class_has_few_boxes_beside_another(rare, commonest, told):
    found = _told(_counts(["cat", "bishop"], train=[commonest, rare], val=[5, 5]))
    assert [(kind, where) for kind, where, _ in found] == [("class with few boxes", "bishop")] * told


def test_a_class_that_only_the_evaluation_split_shows_is_told_however_small_the_set():
    assert _told(_counts(["cat", "dog"], train=[3, 0], val=[1, 5])) == [
        ("class that is not learnt", "dog", "0 boxes in train, 5 in val")]


def test_a_class_that_val_does_not_show_is_told_and_none_where_val_shows_nothing():
    counts = _counts(["cat", "bishop"], train=[20, 12], val=[5, 0])
    assert _told(counts) == [("class that is not judged", "bishop", "12 boxes in train, none in val")]
    assert _told(counts, evaluated="test") == []
    assert _told(_counts(["cat", "bishop"], train=[20, 12], val=[0, 0])) == []


def test_of_a_class_that_no_picture_shows_the_table_alone_tells():
    counts = _counts(["cat", "dog"], train=[70, 0], val=[2, 0])
    assert _told(counts) == [] and counts.table().splitlines()[-1].split() == ["dog", "0", "0"]


def test_names_of_a_set_cannot_act_on_a_terminal():
    counts = _counts(["a\x1b[2Jb", "c"], train=[1, 100], val=[0, 1])
    told = [text for note in _told(counts) for text in note]
    assert len(told) == 6 and not any("\x1b" in text for text in [counts.table(), *told])


def test_the_numbers_of_the_opening_are_those_of_the_blood_cells():
    root = SHARED / "data" / "bccd"
    if not root.exists():
        pytest.skip("the data set bccd, of many megabytes, is not beside this checkout (set DETR_SHARED)")
    report = check_dataset(DataConfig(data=str(root), remember=False), 100, decode=False)
    shown = [line.split() for line in report.by_class.splitlines()]
    lines = [line.split() for line in (class_counts.__doc__ or "").splitlines()[2:6]]
    assert len(shown) == 4
    assert [line[:len(s)] for line, s in zip(lines, shown)] == shown
