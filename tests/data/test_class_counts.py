"""Boxes by class: the table, and the notes on rare classes and on those that the judging split does not show."""

from __future__ import annotations

import numpy as np
import pytest

from commands.check_data import CheckDataArguments, check_data
from scratch.config import DataConfig
from scratch.data.class_counts import ClassCounts


def _counts(names, **boxes):
    return ClassCounts(tuple(boxes), tuple(names), np.array(list(boxes.values())))


def _told(counts, judge="val"):
    return [(problem.kind, problem.where, problem.detail) for problem in counts.notes(judge)]


def test_the_commonest_class_of_the_first_split_stands_first_and_crowds_do_not_count(coco_set, capsys):
    coco_set.image("train", 1)  # with a cat
    coco_set.image("val", 2)
    for left in range(3):
        coco_set.box("train", 1, [left, 1, 5, 5], category_id=7)
    coco_set.box("train", 1, [9, 1, 5, 5], category_id=7, iscrowd=1)
    check_data(CheckDataArguments(coco_set.write(), DataConfig()))
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.partition("boxes by class")[2].splitlines()[:3]] == [
        ["train", "val"], ["dog", "3", "0"], ["cat", "1", "1"]]
    assert "class that is not judged" in printed and "dog: 3 boxes in train, none in val" in printed


def test_of_many_classes_the_ends_are_shown():
    counts = _counts([f"class {k}" for k in range(50)], train=list(range(50)))
    lines = counts.table().splitlines()
    assert lines[1].split()[:2] == ["class", "49"] and lines[-1].split() == ["class", "0", "0"]
    assert lines[11].strip() == "… 30 classes between …" and len(lines) == 22


def test_a_set_without_a_class_has_no_table():
    assert _counts([], train=[]).table() == "" and _told(_counts([], train=[])) == []


@pytest.mark.parametrize("rare, commonest, told", [(9, 90, True), (10, 1000, False), (9, 89, False), (0, 10, True), (0, 9, False)])
def test_a_class_is_rare_beside_another(rare, commonest, told):
    found = _told(_counts(["cat", "bishop"], train=[commonest, rare], val=[5, 5]))
    assert [(kind, where) for kind, where, _ in found] == [("class with few boxes", "bishop")] * told


def test_a_class_that_val_does_not_show_is_told_and_none_where_val_shows_nothing():
    assert _told(_counts(["cat", "bishop"], train=[20, 12], val=[5, 0])) == [
        ("class that is not judged", "bishop", "12 boxes in train, none in val")]
    assert _told(_counts(["cat", "bishop"], train=[20, 12], val=[0, 0])) == []
    assert _told(_counts(["cat", "bishop"], train=[20, 12], val=[5, 0]), judge="test") == []


def test_names_of_a_set_cannot_act_on_a_terminal():
    counts = _counts(["a\x1b[2Jb", "c"], train=[1, 100])
    assert "\x1b" not in counts.table() + str(_told(counts))
